/*
 * Several vCPUs and their chips, by guests in real mode that reach their local APICs through the MSRs of
 * x2APIC mode. What a guest says goes to port 0x10, and is kept with its time.
 */
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

static void mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	(void)owner;
	(void)address;
	memset(to, 0xff, size);
}

static void mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	(void)owner;
	(void)address;
	(void)from;
	(void)size;
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
				       .bus = {rig, port_in, port_out, mmio_read, mmio_write},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timer_at_its_instruction),
		cmocka_unit_test(tsc_deadline),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
