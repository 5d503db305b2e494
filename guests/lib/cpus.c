#include "lib/cpus.h"

#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"

#define LONG_WHILE 2000000u
#define COME_UP    40000u /* PAUSEs in which a processor that is there comes up */

extern const uint8_t ap_start[], ap_end[];

struct cpu_slot {
	uint32_t apic_id;
	void (*volatile work)(void *argument);
	void *volatile argument;
};

/* Shared with ap.S. */
volatile uint32_t ap_count;
uint8_t ap_stacks[CPUS_MAX][8192] __attribute__((aligned(16)));
static struct cpu_slot slots[CPUS_MAX];
static volatile uint32_t ready;
static unsigned started;

_Noreturn void ap_main(uint32_t n);
_Noreturn void ap_main(uint32_t n)
{
	story_begin_interrupts();
	if (machine.xsave || machine.pku)
		machine_write_cr4(exchange.monitor_cr4);
	apic_enable(0xff);
	slots[n].apic_id = apic_id();
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		void (*work)(void *argument) = slots[n].work;

		if (work) {
			work(slots[n].argument);
			__atomic_store_n(&slots[n].work, NULL, __ATOMIC_SEQ_CST);
		}
		__asm__ volatile("pause");
	}
}

/* How many processors CPUID lets expect: then it is worth waiting. Where it tells of one there may be more: not every
 * emulator counts its processors there. */
static unsigned expected(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	return r[3] >> 28 & 1 ? r[1] >> 16 & 0xff : 1;
}

unsigned cpus_start(uint8_t page)
{
	bool alone = expected() == 1;
	uint32_t patience = alone ? COME_UP : 50 * COME_UP;

	if (started)
		return started;
	ap_count = ready = 0;
	for (unsigned n = 0; n < CPUS_MAX; n++)
		slots[n].work = NULL;
	slots[0].apic_id = apic_id();
	machine_copy((void *)((uintptr_t)page << 12), ap_start, (size_t)(ap_end - ap_start));
	apic_send(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT | ICR_LEVEL);
	story_pause(200);
	apic_send(0, ICR_OTHERS | ICR_STARTUP | ICR_ASSERT | page);
	for (uint32_t i = 0; i < patience && (alone || ready + 1 < expected()); i++)
		__asm__ volatile("pause");
	story_pause(1000);
	started = ready + 1;
	return started;
}

bool cpus_needs(unsigned wanted)
{
	return story_has_apic() &&
	       story_needs(cpus_start(CPUS_PAGE) >= wanted, "too few processors come up by SIPI");
}

uint32_t cpus_apic_id(unsigned n) { return slots[n].apic_id; }

void cpus_tell(unsigned n, void (*work)(void *argument), void *argument)
{
	slots[n].argument = argument;
	__atomic_store_n(&slots[n].work, work, __ATOMIC_SEQ_CST);
}

bool cpus_wait(unsigned n)
{
	for (unsigned i = 0; i < LONG_WHILE && slots[n].work; i++)
		__asm__ volatile("pause");
	return !slots[n].work;
}

unsigned cpus_current(void)
{
	uint32_t id = apic_id();

	for (unsigned n = 0; n < started; n++)
		if (slots[n].apic_id == id)
			return n;
	return 0;
}

void cpus_stop(void)
{
	if (!started)
		return;
	started = 0;
	apic_send(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT | ICR_LEVEL);
	story_pause(200);
}
