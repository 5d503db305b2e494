/*
 * control_device.h: the small device through which a guest of ours says that it
 * is ready, learns its next case and says that it is done.
 *
 * Four 32-bit I/O ports. A machine without it answers reads of SIGNATURE with
 * anything else (open bus: all ones). All accesses are 4 bytes wide and aligned;
 * anything else stops the case with a verdict of ERROR.
 *
 *   guest                        visor
 *   in SIGNATURE  -> 'TRAP'      present
 *   out COMMAND, READY           takes the snapshot that each case starts from,
 *                                and resumes after this OUT once per case
 *   in CASE       -> index       of the case to run (order of the case table)
 *   out COMMAND, DONE            the case is over; the snapshot is put back
 */
#ifndef TRAPLINE_X86_CONTROL_DEVICE_H
#define TRAPLINE_X86_CONTROL_DEVICE_H

#define CONTROL_PORT_SIGNATURE 0x5450
#define CONTROL_PORT_COMMAND   0x5454
#define CONTROL_PORT_CASE      0x5458
#define CONTROL_PORT_RESERVED  0x545c
#define CONTROL_PORTS          16

#define CONTROL_SIGNATURE 0x50415254u /* 'TRAP', little endian */

enum control_command { CONTROL_READY = 1, CONTROL_DONE = 2 };

/* Ports shared with the PC's other guests. */
#define DEBUG_CONSOLE_PORT 0xe9 /* a read gives 0xe9 where the console exists */
#define DEBUG_EXIT_PORT    0xf4 /* ends with status (value << 1) | 1 */
#define SERIAL1_PORT       0x3f8
#define SERIAL1_IRQ        4

#endif
