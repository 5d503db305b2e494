/*
 * pic.h: the PC's two 8259A interrupt controllers, as seen through their ports. No line leads
 * to them yet, so nothing is ever requested or in service: what a guest can do is initialize
 * them, mask, and read back.
 */
#ifndef TRAPLINE_DEV_PIC_H
#define TRAPLINE_DEV_PIC_H

#include "dev/bus.h"
#include "dev/state.h"

struct pic_chip {
	uint8_t irr, isr, imr;
	uint8_t icw[4];       /* as last written: ICW1 to ICW4 */
	uint8_t expected;     /* the ICW that the odd port takes next, 2 to 4; 0: OCW1 */
	uint8_t read_isr;     /* OCW3: the even port reads ISR instead of IRR */
	uint8_t special_mask; /* OCW3 */
	uint8_t poll;         /* OCW3: the next read is a poll */
	uint8_t priority;     /* the line of the lowest priority (OCW2 rotation) */
};

struct pic {
	struct pic_chip chip[2]; /* master, slave */
};

extern const struct state_table pic_state;

void pic_reset(struct pic *pic);
/* Claims 0x20, 0x21, 0xa0 and 0xa1. As bus_claim_ports(). */
int pic_attach(struct pic *pic, struct bus *bus);

#endif
