/*
 * smp.c: stories of several processors: IPIs, INIT and SIPI, shoot-down, ordering, code that another changes.
 *
 * SDM 3A 9.4, 11.6, 9.2 (memory ordering), 9.1.3 (cross-modifying code), 4.10.5; APM 2 7.2, 14.1, 16.5.
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "x86/paging.h"

/* Time for the others to come to something: where processors are threads of a host, they may wait for a turn.
 */
static void let_run(unsigned count) { story_pause(machine.control_device ? count : 50 * count); }

static volatile unsigned came[CPUS_MAX], nmis[CPUS_MAX];

static void note_cpu(struct story_frame *frame)
{
	unsigned n = cpus_current();

	if (frame->vector == 2)
		__atomic_fetch_add(&nmis[n], 1, __ATOMIC_SEQ_CST);
	else
		__atomic_fetch_add(&came[n], 1, __ATOMIC_SEQ_CST);
	if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
}

static void forget(void)
{
	for (unsigned n = 0; n < CPUS_MAX; n++)
		came[n] = nmis[n] = 0;
}

static volatile bool leave;

static void open_and_wait(void *argument)
{
	(void)argument;
	__asm__ volatile("sti" : : : "memory");
	while (!leave)
		__asm__ volatile("pause");
	__asm__ volatile("cli" : : : "memory");
}

static void open_all(unsigned cpus)
{
	leave = false;
	for (unsigned n = 1; n < cpus; n++)
		cpus_tell(n, open_and_wait, NULL);
	let_run(500);
	story_open(); /* what an earlier story has sent to them, and waited */
	forget();
}

static void close_all(unsigned cpus)
{
	let_run(3000);
	story_open();
	leave = true;
	for (unsigned n = 1; n < cpus; n++)
		story_check_at("back", n, 1, cpus_wait(n));
}

/* An IPI to processor @to alone, by its ID or (@mode) logically; fixed or (@value) NMI. */
STORY(ipi_to_one)
{
	unsigned to = (unsigned)GIVEN(to), vector = (unsigned)GIVEN(vector);
	bool nmi = GIVEN(value);

	if (!story_apic_mode() || !cpus_needs(4))
		return;
	forget();
	story_handle(note_cpu);
	if (GIVEN(mode))
		apic_write(APIC_LDR, 1u << 24);
	open_all(4);
	apic_send(cpus_apic_id(to), ICR_ASSERT | (nmi ? ICR_NMI : vector));
	close_all(4);
	for (unsigned n = 0; n < 4; n++) {
		story_check_at("came", n, n == to && !nmi, came[n]);
		story_check_at("nmi", n, n == to && nmi, nmis[n]);
	}
}

/* To all, all others, or everybody by the broadcast destination (shorthand 0). */
STORY(ipi_to_many)
{
	unsigned shorthand = (unsigned)GIVEN(shorthand), vector = (unsigned)GIVEN(vector);
	bool nmi = GIVEN(value);

	if (!story_apic_mode() || !cpus_needs(4))
		return;
	forget();
	story_handle(note_cpu);
	open_all(4);
	apic_send(apic_is_x2apic() ? 0xffffffff : 0xff,
		  shorthand << 18 | ICR_ASSERT | (nmi ? ICR_NMI : vector));
	close_all(4);
	for (unsigned n = 0; n < 4; n++) {
		bool meant = n || shorthand != 3;

		story_check_at("came", n, meant && !nmi, came[n]);
		story_check_at("nmi", n, meant && nmi, nmis[n]);
	}
}

static void set_logical(void *argument)
{
	apic_write(APIC_DFR, 0xffffffff);
	apic_write(APIC_LDR, (uint32_t)(uintptr_t)argument << 24);
}

/* Flat logical destinations: each processor has a bit; to the set @destination. */
STORY(ipi_logical)
{
	unsigned destination = (unsigned)GIVEN(destination);

	if (!story_apic_mode() || !cpus_needs(4))
		return;
	forget();
	story_handle(note_cpu);
	set_logical((void *)1);
	for (unsigned n = 1; n < 4; n++) {
		cpus_tell(n, set_logical, (void *)(uintptr_t)(1u << n));
		story_check_at("set", n, 1, cpus_wait(n));
	}
	open_all(4);
	apic_send(destination, ICR_LOGICAL | ICR_ASSERT | 0x55);
	close_all(4);
	for (unsigned n = 0; n < 4; n++)
		story_check_at("came", n, destination >> n & 1, came[n]);
}

/* ---- INIT and SIPI ---- */

/* A processor comes up at the page that SIPI names, every page below 1 MiB that is free. */
STORY(sipi_page)
{
	if (!story_has_apic() ||
	    !story_needs(cpus_start((uint8_t)GIVEN(value)) >= 2, "too few processors come up by SIPI"))
		return;
	story_check("distinct", 1, cpus_apic_id(1) != cpus_apic_id(0));
	story_check("count", 1, cpus_start(CPUS_PAGE) >= 2);
}

static volatile unsigned turns;

static void count_turns(void *argument)
{
	(void)argument;
	for (;;) {
		turns++;
		__asm__ volatile("pause");
	}
}

/* INIT stops a processor wherever it is, SIPI does not start one that runs (SDM 3A 11.6.1). */
STORY(init_stops)
{
	unsigned before;

	if (!story_apic_mode() || !cpus_needs(2))
		return;
	turns = 0;
	cpus_tell(1, count_turns, NULL);
	let_run(2000);
	story_check("runs", 1, turns > 0);
	apic_send(cpus_apic_id(1), ICR_STARTUP | ICR_ASSERT | CPUS_PAGE);
	let_run(1000);
	before = turns;
	let_run(2000);
	story_check("sipi_ignored", 1, turns > before);
	apic_send(cpus_apic_id(1), ICR_INIT | ICR_ASSERT | ICR_LEVEL);
	let_run(1000);
	before = turns;
	let_run(2000);
	story_check("stopped", before, turns);
	/* Waiting for SIPI it takes no interrupt and no NMI. */
	apic_send(cpus_apic_id(1), ICR_NMI | ICR_ASSERT);
	let_run(1000);
	story_check("nmi_ignored", before, turns);
}

/* INIT level de-assert resets nobody. */
STORY(init_deassert)
{
	unsigned before;

	if (!story_apic_mode() || !cpus_needs(2))
		return;
	turns = 0;
	cpus_tell(1, count_turns, NULL);
	let_run(1000);
	apic_send(0, ICR_OTHERS | ICR_INIT | ICR_LEVEL);
	let_run(500);
	before = turns;
	let_run(2000);
	story_check("goes_on", 1, turns > before);
	story_check("here", 1, before > 0);
}

static void hear_nothing(void *argument)
{
	uint64_t base = machine_read_msr(APIC_BASE_MSR);

	machine_write_msr(APIC_BASE_MSR, base & ~(uint64_t)APIC_BASE_EN);
	open_and_wait(argument);
	machine_write_msr(APIC_BASE_MSR, base);
}

/* A processor whose APIC is disabled hears no message. */
STORY(ipi_to_disabled)
{
	bool nmi = GIVEN(value);

	if (!story_apic_mode() || !cpus_needs(3))
		return;
	forget();
	story_handle(note_cpu);
	leave = false;
	story_spoils();
	cpus_tell(1, hear_nothing, NULL);
	cpus_tell(2, open_and_wait, NULL);
	let_run(500);
	apic_send(0, ICR_OTHERS | ICR_ASSERT | (nmi ? ICR_NMI : 0x5b));
	let_run(2000);
	leave = true;
	story_check("back1", 1, cpus_wait(1));
	story_check("back2", 1, cpus_wait(2));
	story_check("disabled", 0, came[1] + nmis[1]);
	story_check("enabled", 1, came[2] + nmis[2]);
	story_check("nobody", 0, came[0] + nmis[0]); /* where a processor without an ID would count */
}

/* ---- waking ---- */

static volatile unsigned woken;

static void halt_once(void *argument)
{
	if (argument)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	else
		__asm__ volatile("hlt" : : : "memory");
	woken++;
}

/* HLT ends by an interrupt where IF = 1 (@value), by NMI always. */
STORY(halt_ends)
{
	bool open = GIVEN(value), nmi = GIVEN(mode);

	if (!story_apic_mode() || !cpus_needs(2))
		return;
	forget();
	woken = 0;
	story_handle(note_cpu);
	cpus_tell(1, halt_once, (void *)(uintptr_t)open);
	let_run(2000);
	story_check("halts", 0, woken);
	apic_send(cpus_apic_id(1), ICR_ASSERT | (nmi ? ICR_NMI : 0x58));
	let_run(3000);
	story_check("ends", open || nmi, woken);
	if (!open && !nmi) {
		story_check("pending_alone", 0, came[1]);
		apic_send(cpus_apic_id(1), ICR_NMI | ICR_ASSERT);
	}
	story_check("back", 1, cpus_wait(1));
}

static volatile uint64_t monitored[16] __attribute__((aligned(64)));

static void wait_for_write(void *argument)
{
	uint64_t extensions = (uintptr_t)argument;

	__asm__ volatile("monitor" : : "a"(monitored), "c"(0), "d"(0));
	if (!monitored[0])
		__asm__ volatile("mwait" : : "a"(0), "c"(extensions) : "memory");
	woken++;
}

/* MWAIT ends by a write to the line, by NMI, and with ECX bit 0 by an interrupt though IF = 0. */
STORY(mwait_ends)
{
	uint32_t r[4], five[4];

	machine_cpuid(1, 0, r);
	machine_cpuid(5, 0, five);
	if (!story_needs(r[2] >> 3 & 1, "cpuid.1.0.ecx[3]=0") || !story_apic_mode() || !cpus_needs(2))
		return;
	if (GIVEN(mode) == 2 && !story_needs((five[2] & 3) == 3, "cpuid.5.0.ecx[1]=0"))
		return;
	forget();
	woken = 0;
	monitored[0] = 0;
	story_handle(note_cpu);
	cpus_tell(1, wait_for_write, (void *)(uintptr_t)(GIVEN(mode) == 2));
	let_run(2000);
	switch (GIVEN(mode)) {
	case 0: monitored[0] = 1; break;
	case 1: apic_send(cpus_apic_id(1), ICR_NMI | ICR_ASSERT); break;
	default: apic_send(cpus_apic_id(1), ICR_ASSERT | 0x59); break;
	}
	story_check("back", 1, cpus_wait(1));
	story_check("woken", 1, woken);
}

/* ---- memory ordering: what TSO forbids never comes (SDM 3A 9.2.3) ---- */

#define ROUNDS 400u

static volatile uint64_t x_ __attribute__((aligned(64))), y_ __attribute__((aligned(64)));
static volatile uint64_t r_[8];
static volatile unsigned round_, arrived[CPUS_MAX];

struct litmus {
	unsigned cpus;
	void (*thread[4])(void);
	bool (*forbidden)(void);
};

static void mp_writer(void)
{
	x_ = 1;
	__asm__ volatile("" : : : "memory");
	y_ = 1;
}
static void mp_reader(void)
{
	r_[0] = y_;
	__asm__ volatile("" : : : "memory");
	r_[1] = x_;
}
static bool mp_forbidden(void) { return r_[0] == 1 && r_[1] == 0; }

static void lb_one(void)
{
	r_[0] = x_;
	__asm__ volatile("" : : : "memory");
	y_ = 1;
}
static void lb_two(void)
{
	r_[1] = y_;
	__asm__ volatile("" : : : "memory");
	x_ = 1;
}
static bool lb_forbidden(void) { return r_[0] == 1 && r_[1] == 1; }

static void sb_one(void)
{
	x_ = 1;
	__asm__ volatile("mfence" : : : "memory");
	r_[0] = y_;
}
static void sb_two(void)
{
	y_ = 1;
	__asm__ volatile("mfence" : : : "memory");
	r_[1] = x_;
}
static void sbx_one(void)
{
	__asm__ volatile("xchg %0, %1" : : "r"(1ull), "m"(x_) : "memory");
	r_[0] = y_;
}
static void sbx_two(void)
{
	__asm__ volatile("xchg %0, %1" : : "r"(1ull), "m"(y_) : "memory");
	r_[1] = x_;
}
static bool sb_forbidden(void) { return r_[0] == 0 && r_[1] == 0; }

static void iriw_x(void) { x_ = 1; }
static void iriw_y(void) { y_ = 1; }
static void iriw_xy(void)
{
	r_[0] = x_;
	__asm__ volatile("" : : : "memory");
	r_[1] = y_;
}
static void iriw_yx(void)
{
	r_[2] = y_;
	__asm__ volatile("" : : : "memory");
	r_[3] = x_;
}
static bool iriw_forbidden(void) { return r_[0] == 1 && r_[1] == 0 && r_[2] == 1 && r_[3] == 0; }

static void corr_reader(void)
{
	r_[0] = x_;
	__asm__ volatile("" : : : "memory");
	r_[1] = x_;
}
static bool corr_forbidden(void) { return r_[0] == 1 && r_[1] == 0; }

static const struct litmus litmus[] = {
	{2, {mp_writer, mp_reader}, mp_forbidden},
	{2, {lb_one, lb_two}, lb_forbidden},
	{2, {sb_one, sb_two}, sb_forbidden},
	{2, {sbx_one, sbx_two}, sb_forbidden},
	{4, {iriw_x, iriw_y, iriw_xy, iriw_yx}, iriw_forbidden},
	{2, {iriw_x, corr_reader}, corr_forbidden},
};

static void litmus_thread(void *argument)
{
	const struct litmus *test = &litmus[(uintptr_t)argument & 15];
	unsigned n = (unsigned)((uintptr_t)argument >> 4);

	for (unsigned i = 1; i <= ROUNDS; i++) {
		while (round_ != i)
			__asm__ volatile("pause");
		test->thread[n]();
		__atomic_store_n(&arrived[n], i, __ATOMIC_SEQ_CST);
	}
}

static bool all_arrived(unsigned cpus, unsigned i)
{
	for (unsigned wait = 0; wait < 100000; wait++) {
		unsigned there = 0;

		for (unsigned n = 1; n < cpus; n++)
			there += arrived[n] == i;
		if (there == cpus - 1)
			return true;
		__asm__ volatile("pause");
	}
	return false;
}

STORY(memory_order)
{
	const struct litmus *test = &litmus[GIVEN(index)];
	unsigned forbidden = 0, stuck = 0;

	if (!cpus_needs(test->cpus))
		return;
	round_ = 0;
	for (unsigned n = 1; n < test->cpus; n++) {
		arrived[n] = 0;
		cpus_tell(n, litmus_thread, (void *)(uintptr_t)(GIVEN(index) | n << 4));
	}
	for (unsigned i = 1; i <= ROUNDS && !stuck; i++) {
		x_ = y_ = 0;
		r_[0] = r_[1] = r_[2] = r_[3] = 2;
		__atomic_store_n(&round_, i, __ATOMIC_SEQ_CST);
		test->thread[0]();
		stuck += !all_arrived(test->cpus, i);
		forbidden += test->forbidden();
	}
	story_check("stuck", 0, stuck);
	story_check("forbidden", 0, forbidden);
}

/* Locked read-modify-writes lose nothing, on one line, across two lines and across two pages. */
static volatile uint8_t contended[8192] __attribute__((aligned(4096)));

static void add_many(void *argument)
{
	volatile uint32_t *counter = argument;

	for (unsigned i = 0; i < 500; i++)
		__asm__ volatile("lock incl %0" : "+m"(*counter) : : "memory");
}

STORY(locked_adds)
{
	uint32_t *counter = (uint32_t *)(uintptr_t)(contended + GIVEN(index));

	if (!cpus_needs(4))
		return;
	*counter = 0;
	for (unsigned n = 1; n < 4; n++)
		cpus_tell(n, add_many, counter);
	add_many(counter);
	for (unsigned n = 1; n < 4; n++)
		story_check_at("back", n, 1, cpus_wait(n));
	story_check("sum", 2000, *(volatile uint32_t *)counter);
}

/* ---- shoot-down (SDM 3A 4.10.5) ---- */

static uint8_t pages[3][4096] __attribute__((aligned(4096)));
static volatile bool dropped;
#define WINDOW 0x7f000000ull

static void drop_handler(struct story_frame *frame)
{
	if (frame->vector == 0x5a) {
		__asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
		dropped = true;
	}
	if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
}

static volatile uint8_t seen[2];
static volatile bool looked;

static void look_twice(void *argument)
{
	(void)argument;
	seen[0] = *(volatile uint8_t *)WINDOW;
	looked = true;
	__asm__ volatile("sti" : : : "memory");
	while (!dropped)
		__asm__ volatile("pause");
	__asm__ volatile("cli" : : : "memory");
	seen[1] = *(volatile uint8_t *)WINDOW;
}

/* The entry of a 2-MiB page of the monitor's own tables, as the PD covers it. */
static uint64_t *window_entry(void)
{
	uint64_t *pml4 = (uint64_t *)(exchange.monitor_cr3 & ~0xfffull);
	uint64_t *pdpt = (uint64_t *)(pml4[0] & ~0xfffull);
	uint64_t *pd = (uint64_t *)(pdpt[WINDOW >> 30] & ~0xfffull);

	return &pd[WINDOW >> 21 & 511];
}

static uint64_t window_table[512] __attribute__((aligned(4096)));

STORY(tlb_shootdown)
{
	uint64_t *entry = window_entry(), before = *entry;

	if (!story_apic_mode() || !cpus_needs(2))
		return;
	for (unsigned i = 0; i < 2; i++)
		pages[i][0] = (uint8_t)(0x11 * (i + 1));
	window_table[0] = (uintptr_t)pages[0] | PTE_P | PTE_W;
	*entry = (uintptr_t)window_table | PTE_P | PTE_W;
	__asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
	dropped = looked = false;
	story_handle(drop_handler);
	cpus_tell(1, look_twice, NULL);
	for (unsigned i = 0; i < 100000 && !looked; i++)
		__asm__ volatile("pause");
	window_table[0] = (uintptr_t)pages[1] | PTE_P | PTE_W;
	apic_send(cpus_apic_id(1), ICR_ASSERT | 0x5a);
	story_check("back", 1, cpus_wait(1));
	story_check("old", 0x11, seen[0]);
	story_check("new", 0x22, seen[1]);
	*entry = before;
	__asm__ volatile("invlpg (%0)" : : "r"(WINDOW) : "memory");
}

/* ---- code that another processor changes, with the handshake of SDM 3A 9.1.3 ---- */

static uint8_t code[64] __attribute__((aligned(64)));
static volatile unsigned version, answered;
static volatile uint32_t answers[4];

static void run_versions(void *argument)
{
	(void)argument;
	for (unsigned v = 1; v <= 3; v++) {
		while (version != v)
			__asm__ volatile("pause");
		__asm__ volatile("xor %%eax, %%eax; cpuid" : : : "eax", "ebx", "ecx", "edx", "memory");
		answers[v] = ((uint32_t(*)(void))(uintptr_t)code)();
		__atomic_store_n(&answered, v, __ATOMIC_SEQ_CST);
	}
}

STORY(cross_modifying)
{
	unsigned at = (unsigned)GIVEN(index); /* where the changed instruction begins in its line */

	if (!cpus_needs(2))
		return;
	for (unsigned i = 0; i < sizeof(code); i++)
		code[i] = 0x90;
	code[at + 5] = 0xc3;
	version = answered = 0;
	cpus_tell(1, run_versions, NULL);
	for (unsigned v = 1; v <= 3; v++) {
		code[at] = 0xb8; /* MOV EAX, imm32 */
		for (unsigned i = 0; i < 4; i++)
			code[at + 1 + i] = (uint8_t)(v * 0x11 + i);
		__atomic_store_n(&version, v, __ATOMIC_SEQ_CST);
		for (unsigned i = 0; i < 200000 && answered != v; i++)
			__asm__ volatile("pause");
		story_check_at("answer", v,
			       (v * 0x11) | (v * 0x11 + 1) << 8 | (v * 0x11 + 2) << 16 | (v * 0x11 + 3) << 24,
			       answers[v]);
	}
	story_check("back", 1, cpus_wait(1));
}
