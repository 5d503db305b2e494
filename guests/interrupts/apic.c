/*
 * apic.c: stories of the local APIC: vectors, priorities, EOI, errors, register rules, modes.
 *
 * SDM 3A chapter 11; APM 2 chapter 16. Each runs through the register page and through MSRs.
 */
#include "lib/apic.h"
#include "lib/machine.h"
#include "lib/story.h"

static void no_eoi(struct story_frame *frame) { (void)frame; }

/* A fixed interrupt to itself: pending, in service, ended (SDM 3A 11.8.4). */
STORY(apic_self_ipi)
{
	uint8_t vector = (uint8_t)GIVEN(vector);

	if (!story_apic_mode())
		return;
	story_handle(no_eoi);
	apic_send(0, ICR_SELF | ICR_ASSERT | vector);
	story_check("irr", 1, apic_bit(APIC_IRR, vector));
	story_check("isr_before", 0, apic_bit(APIC_ISR, vector));
	story_open();
	story_check("delivered", 1, story_count(vector));
	story_check("irr_in_service", 0, apic_bit(APIC_IRR, vector));
	story_check("isr", 1, apic_bit(APIC_ISR, vector));
	story_check("tmr", 0, apic_bit(APIC_TMR, vector));
	story_check("ppr", vector & 0xf0, apic_read(APIC_PPR));
	apic_write(APIC_EOI, 0);
	story_check("isr_after_eoi", 0, apic_bit(APIC_ISR, vector));
	story_check("ppr_after_eoi", 0, apic_read(APIC_PPR));
	story_open();
	story_check("once", 1, story_total());
}
