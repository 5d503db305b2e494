/*
 * run_test.h: a small machine whose bus can stop it and interrupt it, for the tests of run.c: what
 * runs in it is a few bytes of code in real-address mode or flat protected mode.
 */
#ifndef TRAPLINE_CPU_RUN_TEST_H
#define TRAPLINE_CPU_RUN_TEST_H

#include <stdarg.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/checks.h"
#include "cpu/cpu.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/trace.h"

#define MEMORY   (1u << 20)
#define CODE     0x7000u
#define STACK    0x6000u
#define HANDLERS 0x5000u /* of vector n at + 16 n: HLT */

struct machine {
	struct profile profile;
	struct phys_memory *memory;
	struct cpu *cpu;
	uint8_t *ram;
	int interrupt; /* vector for interrupt_acknowledge, or -1 */
	unsigned acknowledged;
	unsigned traced, events;
};

/* ---- a bus: port 1 stops, port 2 raises the interrupt line, port 3 an NMI ---- */

static uint32_t bus_port_in(void *owner, uint16_t port, unsigned size)
{
	(void)owner;
	(void)port;
	(void)size;
	return 0x5a5a5a5a;
}

static void bus_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	struct machine *m = owner;

	(void)size;
	(void)value;
	if (port == 1)
		cpu_request_stop(m->cpu);
	if (port == 2)
		cpu_set_interrupt_line(m->cpu, true);
	if (port == 3)
		cpu_raise_nmi(m->cpu);
}

static void bus_mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	(void)owner;
	(void)address;
	memset(to, 0xf4, size); /* HLT, where code runs off */
}

static void bus_mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	struct machine *m = owner;

	(void)from;
	(void)size;
	if ((address & 0xfff) == 1)
		cpu_request_stop(m->cpu);
}

static int bus_interrupt_acknowledge(void *owner)
{
	struct machine *m = owner;

	m->acknowledged++;
	cpu_set_interrupt_line(m->cpu, false);
	return m->interrupt;
}

static void bus_cr8_written(void *owner, uint64_t cr8)
{
	(void)owner;
	(void)cr8;
}

static bool bus_msr_read(void *owner, uint32_t index, uint64_t *value)
{
	(void)owner;
	(void)index;
	*value = 0;
	return true;
}

static bool bus_msr_write(void *owner, uint32_t index, uint64_t value)
{
	(void)owner;
	(void)index;
	(void)value;
	return true;
}

static void bus_trace_insn(void *owner, struct cpu *cpu, const struct insn *insn)
{
	(void)cpu;
	(void)insn;
	((struct machine *)owner)->traced++;
}

static void bus_trace_event(void *owner, struct cpu *cpu, const struct event *event)
{
	(void)cpu;
	(void)event;
	((struct machine *)owner)->events++;
}

/* ---- machines ---- */

static int setup(void **state)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct cpu_bus bus = {.owner = m,
			      .port_in = bus_port_in,
			      .port_out = bus_port_out,
			      .mmio_read = bus_mmio_read,
			      .mmio_write = bus_mmio_write,
			      .interrupt_acknowledge = bus_interrupt_acknowledge,
			      .cr8_written = bus_cr8_written,
			      .msr_read = bus_msr_read,
			      .msr_write = bus_msr_write,
			      .trace_insn = bus_trace_insn,
			      .trace_event = bus_trace_event};
	char why[128];

	*state = m;
	assert_int_equal(profile_parse(&m->profile, "amd", why, sizeof(why)), 0);
	m->memory = phys_new();
	m->ram = aligned_alloc(4096, MEMORY);
	memset(m->ram, 0, MEMORY);
	assert_int_equal(phys_add(m->memory, 0, MEMORY, m->ram, false), 0);
	m->cpu = cpu_new(&m->profile, &bus, m->memory);
	assert_non_null(m->cpu);
	m->interrupt = 0x20;
	return 0;
}

static int teardown(void **state)
{
	struct machine *m = *state;

	cpu_free(m->cpu);
	phys_free(m->memory);
	free(m->ram);
	free(m);
	return 0;
}

/* Real-address mode at 0:CODE; every vector leads to a HLT of its own. */
static inline void start_real(struct machine *m, const void *code, size_t size)
{
	struct vcpu_state s;

	for (unsigned vector = 0; vector < 256; vector++) {
		uint32_t entry = HANDLERS + 16 * vector;

		assert_true(phys_write(m->memory, vector * 4u, &entry, 4));
		assert_true(phys_write(m->memory, entry, "\xf4", 1));
	}
	assert_true(phys_write(m->memory, CODE, code, size));
	cpu_reset(m->cpu, false);
	m->cpu->retired = 0;
	cpu_save(m->cpu, &s);
	s.segment[CS].base = s.segment[CS].selector = 0;
	s.idtr.limit = 0x3ff;
	s.rip = CODE;
	s.gpr[RSP] = STACK;
	cpu_load(m->cpu, &s);
	m->cpu->stop_at = m->cpu->event_at = 100000;
}

#define START_REAL(m, ...)                                                                                   \
	do {                                                                                                 \
		static const uint8_t code_[] = {__VA_ARGS__};                                                \
		start_real((m), code_, sizeof(code_));                                                       \
	} while (0)

/* Flat 32-bit protected mode, without paging and without an IDT. */
static inline void start_flat(struct machine *m, const void *code, size_t size)
{
	struct vcpu_state s;

	start_real(m, code, size);
	cpu_save(m->cpu, &s);
	s.cr0 |= CR0_PE;
	for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
		s.segment[i].selector = 16;
		s.segment[i].limit = 0xffffffff;
		s.segment[i].attributes = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_DB | SEG_G;
	}
	s.segment[CS].selector = 8;
	s.segment[CS].attributes |= SEG_CODE;
	s.idtr.limit = 0;
	cpu_load(m->cpu, &s);
}

#define START_FLAT(m, ...)                                                                                   \
	do {                                                                                                 \
		static const uint8_t code_[] = {__VA_ARGS__};                                                \
		start_flat((m), code_, sizeof(code_));                                                       \
	} while (0)

static inline void set_code_limit(struct machine *m, uint32_t limit)
{
	struct vcpu_state s;

	cpu_save(m->cpu, &s);
	s.segment[CS].limit = limit;
	cpu_load(m->cpu, &s);
}

static inline uint16_t word(const struct machine *m, uint32_t address)
{
	uint16_t value;

	memcpy(&value, m->ram + address, 2);
	return value;
}

static inline void put64(struct machine *m, uint32_t address, uint64_t value)
{
	assert_true(phys_write(m->memory, address, &value, 8));
}

/* Runs into the HLT of the handler of @vector; the pushed IP is @ip. */
static inline void expect_vector(struct machine *m, unsigned vector, unsigned ip)
{
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, HANDLERS + 16 * vector + 1);
	assert_int_equal(word(m, (uint32_t)m->cpu->reg[RSP]), ip);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
