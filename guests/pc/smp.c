/* smp.c: the other processors: INIT, SIPI and interrupts between them. */
#include "pc.h"

extern const uint8_t trampoline[], trampoline_end[];
extern volatile unsigned ap_count;
static volatile unsigned arrived, answered, ids;

void pc_ap(unsigned index);
void pc_ap(unsigned index)
{
	(void)index;
	lapic_init();
	__atomic_fetch_or(&ids, 1u << (LAPIC(LAPIC_ID) >> 24), __ATOMIC_SEQ_CST);
	__atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
	for (;;)
		__asm__ volatile("sti\nhlt");
}

static void ipi(void)
{
	__atomic_fetch_add(&answered, 1, __ATOMIC_SEQ_CST);
	lapic_eoi();
}

static void send(unsigned destination, uint32_t low)
{
	LAPIC(LAPIC_ICR_HIGH) = destination << 24;
	LAPIC(LAPIC_ICR) = low;
	while (LAPIC(LAPIC_ICR) >> 12 & 1)
		;
}

static void delay(unsigned n)
{
	while (n--)
		inb(0x80);
}

/* All others start at @page. */
static void start_others(unsigned page, unsigned others)
{
	copy(at(page << 12), trampoline, (size_t)(trampoline_end - trampoline));
	arrived = ids = 0;
	ap_count = 0;
	send(0, 0xc4500);
	delay(100);
	send(0, 0xc4600 | page);
	delay(100);
	if (!arrived)
		send(0, 0xc4600 | page);
	while (arrived < others)
		__asm__ volatile("pause");
}

void test_smp(void)
{
	unsigned cpus = fw_cfg(5, 2);

	lapic_init();
	handlers[0x80] = ipi;
	print_number("SMP: CPUs", cpus);
	if (cpus == 1)
		return;
	start_others(8, cpus - 1);
	print_number("SMP: started", arrived);
	print_number("SMP: APIC ids", ids);
	answered = 0;
	send(0, 0xc4080);
	while (answered < cpus - 1)
		__asm__ volatile("pause");
	check("SMP: all but self", true);
	send(1, 0x4080);
	while (answered < cpus)
		__asm__ volatile("pause");
	check("SMP: one", true);
	/* Again, from page 0: a SIPI with vector 0. */
	start_others(0, cpus - 1);
	print_number("SMP: started at page 0", arrived);
	print_number("SMP: APIC ids", ids);
}
