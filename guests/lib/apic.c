#include "lib/apic.h"

#include "lib/machine.h"
#include "lib/story.h"

bool apic_is_x2apic(void) { return machine_read_msr(APIC_BASE_MSR) & APIC_BASE_EXT; }

static volatile uint32_t *page(uint32_t offset)
{
	return (volatile uint32_t *)(uintptr_t)(APIC_PAGE + offset);
}

uint32_t apic_read(enum apic_register offset)
{
	return apic_is_x2apic() ? (uint32_t)machine_read_msr(APIC_MSR(offset)) : *page(offset);
}

void apic_write(enum apic_register offset, uint32_t value)
{
	if (apic_is_x2apic())
		machine_write_msr(APIC_MSR(offset), value);
	else
		*page(offset) = value;
}

uint32_t apic_id(void) { return apic_is_x2apic() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24; }

void apic_send(uint32_t destination, uint32_t command)
{
	if (apic_is_x2apic()) {
		machine_write_msr(APIC_MSR(APIC_ICR), (uint64_t)destination << 32 | command);
		return;
	}
	*page(APIC_ICR_HIGH) = destination << 24;
	*page(APIC_ICR) = command;
	while (*page(APIC_ICR) & ICR_PENDING)
		__asm__ volatile("pause");
}

bool apic_bit(enum apic_register first, unsigned vector)
{
	return apic_read(first + (vector >> 5) * 0x10) >> (vector & 31) & 1;
}

void apic_enable(uint8_t spurious) { apic_write(APIC_SVR, SVR_ENABLE | spurious); }

void apic_pend_interrupt(uint8_t vector)
{
	apic_enable(0xff);
	apic_send(0, ICR_SELF | ICR_ASSERT | vector);
	while (!apic_bit(APIC_IRR, vector))
		__asm__ volatile("pause");
}

/* To itself: by its ID, as the shorthand is for fixed interrupts alone (SDM 3A table 11-3). */
void apic_send_nmi(void);
void apic_send_nmi(void)
{
	apic_enable(0xff);
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
}

void apic_settle(void)
{
	story_begin_interrupts();
	for (unsigned vector = 256; vector-- > 0;) {
		if (apic_bit(APIC_ISR, vector))
			apic_write(APIC_EOI, 0);
	}
	story_iret(); /* a case that an NMI ended has had none */
	__asm__ volatile("sti; nop; nop; cli" : : : "memory");
	story_end_interrupts();
}
