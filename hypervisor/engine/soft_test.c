/*
 * Several vCPUs and their chips, by guests in real mode that reach their local APICs through the MSRs of
 * x2APIC mode. What a guest says goes to port 0x10, and is kept with its time.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chip/clock.h"
#include "dev/state.h"
#include "engine/engine.h"
#include "fuzz/blank.h"

#define RAM       0x20000u
#define SAID_MAX  4096u
#define NO_BUDGET 100000000u

/* Code of the bootstrap processor; vector 9 of a SIPI is where the others start. */
#define START  0x8000u
#define OTHERS 0x9000u

struct said {
	uint64_t time;
	uint32_t value;
};

struct rig {
	struct engine *engine;
	struct engine_vcpu *vcpu[ENGINE_VCPUS_MAX];
	unsigned count;
	struct clock clock;
	struct clock_timer timer; /* of a device that raises @line */
	unsigned line;
	uint8_t *ram;
	struct said said[SAID_MAX];
	unsigned said_count;
};

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	(void)owner;
	(void)port;
	(void)size;
	return 0;
}

/* 0x10: says. 0x11: the device's line goes up after as many nanoseconds; 0: down now. 0x12: NMI for that
 * vCPU. */
static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	struct rig *rig = owner;

	(void)size;
	if (port == 0x10) {
		assert_true(rig->said_count < SAID_MAX);
		rig->said[rig->said_count++] = (struct said){clock_now(&rig->clock), value};
	} else if (port == 0x11 && value) {
		clock_arm(&rig->timer, clock_now(&rig->clock) + value);
	} else if (port == 0x11) {
		engine_soft.interrupt_input(rig->engine, rig->line, false);
	} else if (port == 0x12) {
		engine_soft.nmi(rig->engine, value);
	}
}

static void timer_fired(void *owner, uint64_t due)
{
	struct rig *rig = owner;

	(void)due;
	engine_soft.interrupt_input(rig->engine, rig->line, true);
}

struct turns {
	uint64_t seed, slice;
};

static struct rig *rig_new(const char *cpu, unsigned vcpus, struct turns turns)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct engine_config config = {.cpu = cpu,
				       .bus = {rig, port_in, port_out, blank_mmio_read, blank_mmio_write},
				       .clock = &rig->clock,
				       .vcpus = vcpus,
				       .seed = turns.seed,
				       .slice = turns.slice};
	struct vcpu_state state;
	char why[200];

	rig->ram = aligned_alloc(4096, RAM);
	memset(rig->ram, 0, RAM);
	rig->count = vcpus;
	clock_init(&rig->clock);
	clock_add(&rig->clock, &rig->timer, timer_fired, rig);
	assert_int_equal(engine_soft.open(&rig->engine, &config, why, sizeof(why)), 0);
	assert_int_equal(engine_soft.memory_add(rig->engine, 0, RAM, rig->ram, false), 0);
	for (unsigned i = 0; i < vcpus; i++)
		assert_int_equal(engine_soft.vcpu_new(rig->engine, &rig->vcpu[i]), 0);
	engine_soft.vcpu_save(rig->vcpu[0], &state);
	state.segment[CS].selector = 0;
	state.segment[CS].base = 0;
	state.rip = START;
	state.gpr[RSP] = 0x7000;
	assert_int_equal(engine_soft.vcpu_load(rig->vcpu[0], &state), 0);
	return rig;
}

static void rig_free(struct rig *rig)
{
	engine_soft.close(rig->engine);
	free(rig->ram);
	free(rig);
}

static void vector_set(struct rig *rig, unsigned vector, uint16_t offset)
{
	uint32_t far = offset;

	assert_true(engine_soft.memory_write(rig->engine, 4 * vector, &far, 4));
}

static void code_set(struct rig *rig, uint32_t at, const uint8_t *from, const uint8_t *end)
{
	assert_true(engine_soft.memory_write(rig->engine, at, from, (size_t)(end - from)));
}

/* Real-mode code, position-independent but for absolute data. */
#define CODE(name, text)                                                                                     \
	__asm__(".pushsection .rodata\n.code16\n.global " #name "\n" #name ":\n" text "\n.global " #name     \
		"_end\n" #name "_end:\n.code64\n.popsection\n");                                             \
	extern const uint8_t name[], name##_end[]
#define SET(rig, at, name) code_set(rig, at, name, name##_end)

#define MSR(index, low) "movl $" #index ", %ecx\nmovl $" low ", %eax\nxorl %edx, %edx\nwrmsr\n"
/* x2APIC mode, enabled. */
#define APIC_ON    "movl $0x1b, %ecx\nrdmsr\norl $0xc00, %eax\nwrmsr\n" MSR(0x80f, "0x1ff")
#define EOI        "pushal\n" MSR(0x80b, "0") "popal\n"
#define SAY(value) "movl $" value ", %eax\noutl %eax, $0x10\n"

static enum engine_exit go(struct rig *rig, uint64_t budget) { return engine_soft.run(rig->engine, budget); }

/* ---- the local APIC's timer ---- */

/* One shot of 1000 ns, divided by 1, while EBX counts; then a HLT that waits for 1000000 ns. */
CODE(timer, APIC_ON MSR(0x83e, "0xb")
		    MSR(0x832, "0x40") "xorl %ebx, %ebx\nsti\n"
				       "movl $0x838, %ecx\nmovl $1000, %eax\nxorl %edx, %edx\nwrmsr\n"
				       "1: incl %ebx\njmp 1b\n");
CODE(timer_handler, "movl %ebx, %eax\noutl %eax, $0x10\n" EOI "movl $0x838, %ecx\nmovl $1000000, %eax\n"
		    "movl $0, %edx\nmovw $0x9800, 0x100\nwrmsr\nsti\nhlt\nhlt\n");
CODE(timer_second, SAY("0x77") "cli\nhlt\n");

static void timer_at_its_instruction(void **state)
{
	struct said first[2];

	(void)state;
	for (uint64_t budget = 1; budget < 3000; budget = budget * 3 + 1) {
		struct rig *rig = rig_new("intel", 1, (struct turns){0});
		enum engine_exit exit;

		SET(rig, START, timer);
		SET(rig, 0x9400, timer_handler);
		SET(rig, 0x9800, timer_second);
		vector_set(rig, 0x40, 0x9400);
		do {
			exit = go(rig, budget);
		} while (exit == ENGINE_BUDGET);
		assert_int_equal(exit, ENGINE_HALTED);
		assert_int_equal(rig->said_count, 2);
		/* A tick an instruction, two to a round of the loop; the WRMSR's own comes first. */
		assert_int_equal(rig->said[0].value, 500);
		assert_in_range(rig->said[1].time - rig->said[0].time, 1000000, 1000050);
		assert_in_range(engine_soft.retired(rig->engine), 1000, 1100);
		if (budget > 1)
			assert_memory_equal(first, rig->said, sizeof(first));
		memcpy(first, rig->said, sizeof(first));
		rig_free(rig);
	}
}

/* TSC deadline: as absolute as RDTSC says. */
CODE(deadline,
     APIC_ON MSR(0x832, "0x40040") "sti\nrdtsc\nmovl %eax, %ebx\naddl $5000, %eax\nmovl $0x6e0, %ecx\n"
				   "wrmsr\nhlt\nhlt\n");
CODE(deadline_handler, "rdtsc\nsubl %ebx, %eax\noutl %eax, $0x10\ncli\nhlt\n");

static void tsc_deadline(void **state)
{
	struct rig *rig = rig_new("intel", 1, (struct turns){0});

	(void)state;
	SET(rig, START, deadline);
	SET(rig, 0x9400, deadline_handler);
	vector_set(rig, 0x40, 0x9400);
	assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
	assert_int_equal(rig->said_count, 1);
	assert_in_range(rig->said[0].value, 5000, 5002);
	rig_free(rig);
}

/* A performance counter that overflows after 1000 cycles, while EBX counts. */
#define COUNT(select, counter, event)                                                                        \
	"xorl %ebx, %ebx\nsti\n" MSR(select,                                                                 \
				     "0") "movl $" #counter                                                  \
					  ", %ecx\nmovl $-1000, %eax\nmovl $0xffff, %edx\nwrmsr\n" MSR(      \
						  select, event) "1: incl %ebx\njmp 1b\n"
CODE(counter_amd, APIC_ON MSR(0x834, "0x40") COUNT(0xc0010001, 0xc0010005, "0x530076"));
CODE(counter_intel, APIC_ON MSR(0x834, "0x40") COUNT(0x187, 0xc2, "0x53003c"));
CODE(counter_quiet, APIC_ON MSR(0x834, "0x40") COUNT(0x187, 0xc2, "0x43003c"));
CODE(counter_handler, "movl %ebx, %eax\noutl %eax, $0x10\ncli\nhlt\n");

static void counter_overflow(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct rig *rig = rig_new(i == 0 ? "amd" : "intel", 1, (struct turns){0});
		enum engine_exit exit;

		if (i == 0)
			SET(rig, START, counter_amd);
		else if (i == 1)
			SET(rig, START, counter_intel);
		else
			SET(rig, START, counter_quiet);
		SET(rig, 0x9400, counter_handler);
		vector_set(rig, 0x40, 0x9400);
		do {
			exit = go(rig, 77);
		} while (exit == ENGINE_BUDGET && engine_soft.retired(rig->engine) < 3000);
		/* Without the bit that lets an overflow interrupt, nothing does. */
		assert_int_equal(exit, i == 2 ? ENGINE_BUDGET : ENGINE_HALTED);
		assert_int_equal(rig->said_count, i == 2 ? 0 : 1);
		assert_int_equal(rig->said[0].value, i == 2 ? 0 : 500);
		rig_free(rig);
	}
}

/* ---- several vCPUs ---- */

/* INIT and a SIPI with vector 9 for all others, back to back. */
#define START_OTHERS                                                                                         \
	"movl $0x830, %ecx\nmovl $0xc4500, %eax\nxorl %edx, %edx\nwrmsr\nmovl $0xc4609, %eax\nwrmsr\n"

/* Each adds 1 to a word 1000 times without a lock; the last to end says the sum. */
#define RACE                                                                                                 \
	"movw $1000, %cx\n1: movl 0x500, %eax\nincl %eax\nmovl %eax, 0x500\nloop 1b\n"                       \
	"lock incl 0x504\n"
CODE(race,
     APIC_ON START_OTHERS "xorl %ecx, %ecx\n" RACE
			  "2: pause\ncmpl $4, 0x504\njne 2b\nmovl 0x500, %eax\noutl %eax, $0x10\ncli\nhlt\n");
CODE(race_others, "cli\n xorw %ax, %ax\nmovw %ax, %ds\nxorl %ecx, %ecx\n" RACE "hlt\n");

static struct rig *race_new(struct turns turns)
{
	struct rig *rig = rig_new("amd", 4, turns);

	SET(rig, START, race);
	SET(rig, OTHERS, race_others);
	return rig;
}

static struct said raced(struct turns turns)
{
	struct rig *rig = race_new(turns);
	struct said said;

	assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
	assert_int_equal(rig->said_count, 1);
	said = rig->said[0];
	rig_free(rig);
	return said;
}

static void turns_follow_the_seed(void **state)
{
	struct said one = raced((struct turns){1, 50}), other;
	bool differs = false;

	(void)state;
	/* Races are lost, but not all of them. */
	assert_in_range(one.value, 1000, 3999);
	other = raced((struct turns){1, 50});
	assert_memory_equal(&one, &other, sizeof(one));
	for (uint64_t seed = 2; seed < 6; seed++)
		differs |= raced((struct turns){seed, 50}).value != one.value;
	assert_true(differs);
	/* In turns of one instruction all four read before any writes. */
	assert_in_range(raced((struct turns){1, 1}).value, 1000, 1100);
	/* A turn that takes all of it loses nothing. */
	assert_int_equal(raced((struct turns){3, 10000000}).value, 4000);
}

/* The budget cuts turns, and changes nothing. */
static void budget_changes_nothing(void **state)
{
	struct said whole = raced((struct turns){7, 20});

	(void)state;
	for (uint64_t budget = 1; budget < 200; budget += 66) {
		struct rig *rig = race_new((struct turns){7, 20});
		enum engine_exit exit;

		do {
			exit = go(rig, budget);
		} while (exit == ENGINE_BUDGET);
		assert_int_equal(exit, ENGINE_HALTED);
		assert_memory_equal(&whole, &rig->said[0], sizeof(whole));
		rig_free(rig);
	}
}

/*
 * vCPU 0 sends vector 0x41 to vCPU 1, which waits in HLT with IF = 1 and answers with 0x42; then an NMI that
 * vCPU 1 waits for with IF = 0. All of it while a timer ticks.
 */
CODE(ipi, APIC_ON MSR(0x83e, "0xb") MSR(0x832, "0x20040") MSR(0x838, "777") START_OTHERS
     "sti\n1: pause\ncmpb $1, 0x500\njne 1b\n"
     "movl $0x830, %ecx\nmovl $0x4041, %eax\nmovl $1, %edx\nwrmsr\n"
     "2: pause\ncmpb $2, 0x500\njne 2b\n"
     "movl $0x830, %ecx\nmovl $0x4400, %eax\nmovl $1, %edx\nwrmsr\n"
     "3: hlt\ncmpb $3, 0x500\njne 3b\ncli\n" SAY("5") MSR(0x838, "0") "4: hlt\njmp 4b\n");
CODE(ipi_others, "cli\nxorw %ax, %ax\nmovw %ax, %ds\nmovw %ax, %ss\nmovw $0x6000, %sp\n" APIC_ON
		 "movb $1, 0x500\nsti\nhlt\ncli\nhlt\nhlt\n");
CODE(ipi_tick, "incl 0x510\n" EOI "iretw\n");
CODE(ipi_handler, SAY("1") "movb $2, 0x500\n" EOI "pushal\n"
			   "movl $0x830, %ecx\nmovl $0x4042, %eax\nxorl %edx, %edx\nwrmsr\npopal\niretw\n");
CODE(ipi_answer, "pushal\n" SAY("2") "popal\n" EOI "iretw\n");
CODE(ipi_nmi, "pushal\n" SAY("3") "movb $3, 0x500\npopal\niretw\n");

static struct rig *ipi_new(struct turns turns)
{
	struct rig *rig = rig_new("intel", 2, turns);

	SET(rig, START, ipi);
	SET(rig, OTHERS, ipi_others);
	SET(rig, 0xa000, ipi_tick);
	SET(rig, 0xa100, ipi_handler);
	SET(rig, 0xa200, ipi_answer);
	SET(rig, 0xa300, ipi_nmi);
	vector_set(rig, 0x40, 0xa000);
	vector_set(rig, 0x41, 0xa100);
	vector_set(rig, 0x42, 0xa200);
	vector_set(rig, 2, 0xa300);
	return rig;
}

static void interrupts_between_processors(void **state)
{
	(void)state;
	for (uint64_t slice = 1; slice < 2000; slice = slice * 5 + 1) {
		struct rig *rig = ipi_new((struct turns){slice, slice});
		unsigned seen = 0;

		assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
		assert_int_equal(rig->said_count, 4);
		for (unsigned i = 0; i < 4; i++)
			seen |= 1u << rig->said[i].value;
		assert_int_equal(seen, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5);
		assert_int_equal(rig->said[0].value, 1);
		rig_free(rig);
	}
}

/* ---- a snapshot between any two instructions ---- */

#define PARTS_MAX 16u

struct saved {
	struct vcpu_state vcpu[4];
	uint8_t part[PARTS_MAX][512];
	uint8_t ram[RAM];
	uint64_t timer;
};

static void save(struct rig *rig, struct saved *to)
{
	const struct state_table *table;
	void *part;

	memset(to, 0, sizeof(*to));
	assert_int_equal(engine_soft.chips_fetch(rig->engine), 0);
	for (unsigned i = 0; i < rig->count; i++)
		engine_soft.vcpu_save(rig->vcpu[i], &to->vcpu[i]);
	for (unsigned i = 0; (part = engine_soft.chip(rig->engine, i, &table)); i++) {
		assert_true(i < PARTS_MAX && state_size(table) <= sizeof(to->part[i]));
		state_save(table, part, to->part[i]);
	}
	memcpy(to->ram, rig->ram, RAM);
	to->timer = rig->timer.at;
}

static void load(struct rig *rig, const struct saved *from)
{
	const struct state_table *table;
	void *part = engine_soft.chip(rig->engine, 0, &table);

	assert_true(engine_soft.memory_write(rig->engine, 0, from->ram, RAM));
	assert_int_equal(state_load(table, part, from->part[0], state_size(table)), 0);
	for (unsigned i = 0; i < rig->count; i++)
		assert_int_equal(engine_soft.vcpu_load(rig->vcpu[i], &from->vcpu[i]), 0);
	for (unsigned i = 1; (part = engine_soft.chip(rig->engine, i, &table)); i++)
		assert_int_equal(state_load(table, part, from->part[i], state_size(table)), 0);
	assert_int_equal(engine_soft.chips_store(rig->engine), 0);
	clock_arm(&rig->timer, from->timer);
}

typedef struct rig *maker(struct turns turns);

/* Runs @make's guest to its end, and then from copies of it made after each instruction: all must end alike.
 */
static void from_any_instruction(maker *make, struct turns turns, unsigned step)
{
	static struct saved at, end, other_end;
	struct rig *whole = make(turns), *first = make(turns), *second = make(turns);
	uint64_t total;

	assert_int_equal(go(whole, NO_BUDGET), ENGINE_HALTED);
	save(whole, &end);
	total = engine_soft.retired(whole->engine);
	for (uint64_t done = 0; done + 1 < total; done += step) {
		unsigned said;

		/* What @second did before must not show. */
		engine_soft.run(first->engine, step);
		save(first, &at);
		load(second, &at);
		said = first->said_count;
		second->said_count = 0;
		assert_int_equal(go(second, NO_BUDGET), ENGINE_HALTED);
		assert_int_equal(said + second->said_count, whole->said_count);
		assert_memory_equal(second->said, whole->said + said,
				    second->said_count * sizeof(struct said));
		save(second, &other_end);
		for (unsigned i = 0; i < whole->count; i++)
			assert_memory_equal(&end.vcpu[i], &other_end.vcpu[i], sizeof(end.vcpu[i]));
		assert_memory_equal(end.part, other_end.part, sizeof(end.part));
		assert_memory_equal(end.ram, other_end.ram, RAM);
	}
	rig_free(whole);
	rig_free(first);
	rig_free(second);
}

static void snapshots_with_interrupts_in_flight(void **state)
{
	(void)state;
	from_any_instruction(ipi_new, (struct turns){5, 9}, 1);
	from_any_instruction(ipi_new, (struct turns){1, 300}, 7);
}

/* ---- waits ---- */

/* vCPU 1 waits at 0x600 and is woken by a store to that line alone; then by an interrupt with IF = 0. */
CODE(waiting, APIC_ON START_OTHERS
     "1: pause\ncmpb $1, 0x500\njne 1b\n"
     "movw $300, %cx\n2: loop 2b\nmovb $1, 0x640\nmovw $300, %cx\n2: loop 2b\n" SAY(
	     "1") "movb $1, 0x63f\n"
		  "3: pause\ncmpb $2, 0x500\njne 3b\nmovw $300, %cx\n2: loop 2b\n" SAY(
			  "2") "movl $0x830, %ecx\nmovl $0x4041, %eax\nmovl $1, %edx\nwrmsr\ncli\nhlt\n");
CODE(waiting_others,
     "cli\nxorw %ax, %ax\nmovw %ax, %ds\nmovw %ax, %ss\nmovw $0x6000, %sp\n" APIC_ON
     "xorl %ecx, %ecx\nxorl %edx, %edx\nmovl $0x600, %eax\nmonitor\nmovb $1, 0x500\nxorl %eax, %eax\n"
     "mwait\n" SAY("11") "xorl %ecx, %ecx\nxorl %edx, %edx\nmovl $0x600, %eax\nmonitor\n"
			 "movb $2, 0x500\nmovl $1, %ecx\nmwait\n" SAY("12")
     /* Armed no more: a NOP. */
     "mwait\n" SAY("13") "hlt\n");

static struct rig *waiting_new(struct turns turns)
{
	struct rig *rig = rig_new("amd", 2, turns);

	SET(rig, START, waiting);
	SET(rig, OTHERS, waiting_others);
	return rig;
}

static void waits_end_by_stores(void **state)
{
	static const uint32_t order[] = {1, 11, 2, 12, 13};

	(void)state;
	for (uint64_t slice = 1; slice < 200; slice = slice * 3 + 1) {
		struct rig *rig = waiting_new((struct turns){slice, slice});

		assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
		assert_int_equal(rig->said_count, 5);
		for (unsigned i = 0; i < 5; i++)
			assert_int_equal(rig->said[i].value, order[i]);
		rig_free(rig);
	}
	from_any_instruction(waiting_new, (struct turns){3, 40}, 3);
}

/* TPAUSE until the TSC says 100000 more; MWAITX for 50000 cycles. Neither costs instructions. */
CODE(pausing, "rdtsc\nmovl %eax, %ebx\naddl $100000, %eax\nxorl %ecx, %ecx\n.byte 0x66, 0x0f, 0xae, 0xf1\n"
	      "rdtsc\nsubl %ebx, %eax\noutl %eax, $0x10\ncli\nhlt\n");
CODE(pausing_amd, "xorl %ecx, %ecx\nxorl %edx, %edx\nmovl $0x600, %eax\n.byte 0x0f, 0x01, 0xfa\n"
		  "movl $2, %ecx\nmovl $50000, %ebx\nrdtsc\nmovl %eax, %esi\n.byte 0x0f, 0x01, 0xfb\n"
		  "rdtsc\nsubl %esi, %eax\noutl %eax, $0x10\ncli\nhlt\n");

static void waits_for_a_time(void **state)
{
	struct rig *rig = rig_new("intel", 1, (struct turns){0});

	(void)state;
	SET(rig, START, pausing);
	assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
	assert_in_range(rig->said[0].value, 100000, 100004);
	assert_in_range(engine_soft.retired(rig->engine), 5, 20);
	rig_free(rig);
	rig = rig_new("amd", 1, (struct turns){0});
	SET(rig, START, pausing_amd);
	assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
	assert_in_range(rig->said[0].value, 50000, 50004);
	rig_free(rig);
}

/* A line through the 8259As and LINT0 of a local APIC that is disabled, 12345 ns ahead of a HLT. */
CODE(line,
     "movb $0x11, %al\noutb %al, $0x20\nmovb $0x20, %al\noutb %al, $0x21\nmovb $4, %al\noutb %al, $0x21\n"
     "movb $1, %al\noutb %al, $0x21\nmovb $0xf7, %al\noutb %al, $0x21\nmovl $0x1b, %ecx\nrdmsr\n"
     "andl $~0x800, %eax\nwrmsr\nsti\nmovl $12345, %eax\noutl %eax, $0x11\nhlt\n" SAY("2") "cli\nhlt\n");
CODE(line_handler, SAY("1") "xorl %eax, %eax\noutl %eax, $0x11\nmovb $0x20, %al\noutb %al, $0x20\niretw\n");

static struct rig *line_new(struct turns turns)
{
	struct rig *rig = rig_new("amd", 1, turns);

	rig->line = 3;
	SET(rig, START, line);
	SET(rig, 0x9400, line_handler);
	vector_set(rig, 0x23, 0x9400);
	return rig;
}

static void line_through_the_8259as(void **state)
{
	struct rig *rig = line_new((struct turns){0});

	(void)state;
	assert_int_equal(go(rig, NO_BUDGET), ENGINE_HALTED);
	assert_int_equal(rig->said_count, 2);
	assert_in_range(rig->said[0].time, 12345, 12400);
	rig_free(rig);
	from_any_instruction(line_new, (struct turns){0}, 1);
}

/* A halt that a timer ends again and again with IF = 0 ends by the budget. */
CODE(forever, APIC_ON MSR(0x83e, "0xb") MSR(0x832, "0x20040") MSR(0x838, "777") "cli\nhlt\n");

static void waiting_spends_the_budget(void **state)
{
	struct rig *rig = rig_new("amd", 1, (struct turns){0});

	(void)state;
	SET(rig, START, forever);
	assert_int_equal(go(rig, 10000), ENGINE_BUDGET);
	assert_int_equal(engine_soft.retired(rig->engine), 10000);
	rig_free(rig);
}

/* INIT of the bootstrap processor by another: it starts at the reset vector, and its TSC goes on. */
CODE(victim, APIC_ON START_OTHERS "1: jmp 1b\n");
CODE(victim_others,
     "cli\nxorw %ax, %ax\nmovw %ax, %ds\n" APIC_ON "movl $0x830, %ecx\nmovl $0x4500, %eax\nxorl %edx, %edx\n"
     "wrmsr\nhlt\n");
CODE(reset_vector, SAY("7") "cli\nhlt\n");

static void init_of_the_bootstrap_processor(void **state)
{
	struct rig *rig = rig_new("amd", 2, (struct turns){0});
	uint8_t *rom = aligned_alloc(4096, 4096);
	struct vcpu_state after;

	(void)state;
	memset(rom, 0, 4096);
	memcpy(rom + 0xff0, reset_vector, (size_t)(reset_vector_end - reset_vector));
	assert_int_equal(engine_soft.memory_add(rig->engine, 0xfffff000, 4096, rom, true), 0);
	SET(rig, START, victim);
	SET(rig, OTHERS, victim_others);
	assert_int_equal(go(rig, 100000), ENGINE_HALTED);
	assert_int_equal(rig->said_count, 1);
	engine_soft.vcpu_save(rig->vcpu[0], &after);
	assert_in_range(after.tsc, rig->said[0].time, rig->said[0].time + 10);
	/* A reset of the machine starts it there as well, and the other waits for a SIPI. */
	engine_soft.reset(rig->engine);
	engine_soft.vcpu_save(rig->vcpu[1], &after);
	assert_int_equal(after.activity, ACTIVITY_WAIT_FOR_SIPI);
	assert_int_equal(after.tsc, 0);
	assert_int_equal(go(rig, 100000), ENGINE_HALTED);
	assert_int_equal(rig->said_count, 2);
	rig_free(rig);
	free(rom);
}

/* Whoever made it up: a stream, a snapshot. */
static void states_that_no_processor_has(void **state)
{
	struct rig *rig = rig_new("amd", 1, (struct turns){0});
	struct vcpu_state good, bad, after;

	(void)state;
	assert_int_equal(engine_soft.vcpu_save(rig->vcpu[0], &good), 0);
	bad = good;
	bad.activity = ACTIVITY_MWAIT + 1;
	assert_int_equal(engine_soft.vcpu_load(rig->vcpu[0], &bad), -EINVAL);
	assert_string_equal(engine_soft.failure(rig->engine),
			    "vCPU 0: activity is what no processor can hold");
	bad = good;
	bad.cr8 = 16;
	assert_int_equal(engine_soft.vcpu_load(rig->vcpu[0], &bad), -EINVAL);
	assert_int_equal(engine_soft.vcpu_save(rig->vcpu[0], &after), 0);
	assert_memory_equal(&after, &good, sizeof(good));
	assert_int_equal(engine_soft.vcpu_load(rig->vcpu[0], &good), 0);
	rig_free(rig);
	/* Without XSAVE there is an XCR0 all the same. */
	rig = rig_new("amd,-xsave,-avx,-fma,-f16c,-avx2,-pku,-xsaveopt,-xsavec,-xgetbv1,-xsaves,-xsaveerptr",
		      1, (struct turns){0});
	assert_int_equal(engine_soft.vcpu_save(rig->vcpu[0], &good), 0);
	assert_int_equal(engine_soft.vcpu_load(rig->vcpu[0], &good), 0);
	rig_free(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timer_at_its_instruction),
		cmocka_unit_test(tsc_deadline),
		cmocka_unit_test(counter_overflow),
		cmocka_unit_test(turns_follow_the_seed),
		cmocka_unit_test(budget_changes_nothing),
		cmocka_unit_test(interrupts_between_processors),
		cmocka_unit_test(snapshots_with_interrupts_in_flight),
		cmocka_unit_test(waits_end_by_stores),
		cmocka_unit_test(waits_for_a_time),
		cmocka_unit_test(line_through_the_8259as),
		cmocka_unit_test(waiting_spends_the_budget),
		cmocka_unit_test(init_of_the_bootstrap_processor),
		cmocka_unit_test(states_that_no_processor_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
