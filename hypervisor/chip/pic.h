/*
 * pic.h: the PC's two 8259A interrupt controllers (8259A datasheet), the second on line 2 of the first, with
 * the registers ELCR that choose edge or level for each line.
 *
 * Freestanding. Lines 0 to 7 are the master's, 8 to 15 the slave's; line 2 is the slave's own INT.
 */
#ifndef TRAPLINE_CHIP_PIC_H
#define TRAPLINE_CHIP_PIC_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/state_table.h"

#define PIC_LINES   16u
#define PIC_CASCADE 2u

/* Ports that pic_read() and pic_write() take. */
enum pic_port {
	PIC_MASTER = 0x20,
	PIC_MASTER_DATA = 0x21,
	PIC_SLAVE = 0xa0,
	PIC_SLAVE_DATA = 0xa1,
	PIC_ELCR = 0x4d0,
	PIC_ELCR_SLAVE = 0x4d1
};

struct pic_chip {
	uint8_t irr, isr, imr;
	uint8_t icw[4];       /* as last written: ICW1 to ICW4 */
	uint8_t expected;     /* the ICW that the odd port takes next, 2 to 4; 0: OCW1 */
	uint8_t read_isr;     /* OCW3: the even port reads ISR instead of IRR */
	uint8_t special_mask; /* OCW3 */
	uint8_t poll;         /* OCW3: the next read is a poll */
	uint8_t priority;     /* the line of the lowest priority (OCW2 rotation) */
	uint8_t rotate_aeoi;  /* OCW2: rotate in automatic EOI mode */
	uint8_t lines;        /* levels of the inputs */
	uint8_t elcr;         /* lines that are level-triggered */
	uint8_t output;       /* level of INT */
};

struct pic {
	struct pic_chip chip[2]; /* master, slave */

	/* The level of the master's INT, when it changes and after a load. */
	void (*output)(void *owner, bool raised);
	void *owner;
};

extern const struct state_table pic_state;

/* Power-on: nothing is initialized, all is masked, edge-triggered, no line is asserted. @output may be NULL.
 */
void pic_init(struct pic *pic, void (*output)(void *owner, bool raised), void *owner);
/* The machine's reset: as pic_init(), with the levels of the lines kept. */
void pic_reset(struct pic *pic);
/* The ports of enum pic_port, a byte each. */
uint8_t pic_read(struct pic *pic, uint16_t port);
void pic_write(struct pic *pic, uint16_t port, uint8_t value);
/* The level of a line 0 to 15, not 2; true is asserted. */
void pic_line(struct pic *pic, unsigned line, bool asserted);
/* Both INTA cycles: the vector. Where the request has gone, that of line 7 (of the slave's line 7, where it
 * was the slave that asked), which is then not in service. */
uint8_t pic_acknowledge(struct pic *pic);

#endif
