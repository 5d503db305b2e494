/*
 * smi.h: the handler of SMIs (smi_entry.S), in RAM at the SMBASE that a reset leaves, and what it is told.
 *
 * SDM 3C 32.4 (the state-save map), 32.5, APM 2 10.3.
 */
#ifndef TRAPLINE_GUESTS_INTERRUPTS_SMI_H
#define TRAPLINE_GUESTS_INTERRUPTS_SMI_H

#define SMI_BASE  0x30000 /* SMBASE behind a reset */
#define SMI_OTHER 0x50000 /* where a story moves it */
#define SMI_ENTRY 0x8000  /* of the handler, from SMBASE */
#define SMI_BOX   0x39000 /* struct smi_box */
#define SMI_SPIN  0xb000 /* JMP to itself, which every mode reads alike; 16-bit code as well reaches it */
#define SMI_PDPT  0x3b000 /* four PDPTEs, and four with a reserved bit; then their page directory */

/* Offsets in struct smi_box. */
#define SMI_COUNT  0
#define SMI_DURING 4
#define SMI_SEND   8
#define SMI_NESTED 12
#define SMI_PAE    16
#define SMI_POKES  24

#endif
