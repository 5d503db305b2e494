/*
 * system_test.h: one instruction in a given mode and at a given privilege, for the tests of system
 * instructions; and what happens when a named check is broken.
 */
#ifndef TRAPLINE_CPU_INSN_SYSTEM_TEST_H
#define TRAPLINE_CPU_INSN_SYSTEM_TEST_H

#include "cpu/insn/machine_test.h"

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/mem/mem.h"
#include "cpu/segment.h"

/* CPL 0 to 3: the DPL of SS, and for good looks of CS. */
static inline void system_set_cpl(struct machine *m, unsigned cpl)
{
	static const enum segment_register both[] = {CS, SS};

	for (unsigned i = 0; i < 2; i++) {
		struct segment *s = &m->cpu->segment[both[i]].s;
		s->attributes = (s->attributes & ~SEG_DPL) | cpl << SEG_DPL_SHIFT;
		s->selector = (uint16_t)((s->selector & ~SELECTOR_RPL) | cpl);
	}
	cpu_mode_changed(m->cpu);
}

/* Real-address mode: CS and the others stay flat. */
static inline void system_set_real(struct machine *m)
{
	machine_mode(m, CODE_16);
	m->cpu->cr0 &= ~(uint64_t)CR0_PE;
	cpu_mode_changed(m->cpu);
	segment_derive_all(m->cpu);
}

static inline void system_open(struct machine *m, const char *profile, uint32_t mode, unsigned cpl)
{
	uint64_t entry;

	machine_open(m, profile);
	/* Everything is a user page. */
	for (unsigned level = 0; level < 3; level++) {
		uint64_t at = TABLES_AT + 0x1000 * level + (level == 2 ? (MACHINE_BASE >> 21) * 8 : 0);
		assert_true(phys_read(m->memory, at, &entry, 8));
		entry |= 4;
		assert_true(phys_write(m->memory, at, &entry, 8));
	}
	machine_mode(m, mode);
	system_set_cpl(m, cpl);
}

/* Runs one instruction; returns the vector of its exception, or NO_EVENT. */
static inline int system_run(struct machine *m, const uint8_t *code, size_t size)
{
	enum cpu_stop stop = machine_run(m, code, size, 1);

	if (stop == CPU_STOP_UNMODELLED)
		print_message("not modelled: %s\n", m->cpu->unmodelled);
	assert_int_not_equal(stop, CPU_STOP_UNMODELLED);
	return m->vector;
}

/*
 * Such an instruction raises @vector with error code 0 and changes no register that it names; with
 * the check called @check broken, it does not.
 */
static inline void system_faults(struct machine *m, const char *check, int vector, const uint8_t *code,
				 size_t size)
{
	struct vcpu_state before, after;

	cpu_save(m->cpu, &before);
	assert_int_equal(system_run(m, code, size), vector);
	assert_int_equal(m->error_code, 0);
	cpu_save(m->cpu, &after);
	assert_memory_equal(before.gpr, after.gpr, sizeof(before.gpr));
	assert_true(before.cr0 == after.cr0 && before.cr3 == after.cr3 && before.cr4 == after.cr4);
	assert_true(before.efer == after.efer && before.xcr0 == after.xcr0 && before.pkru == after.pkru);
	cpu_load(m->cpu, &before);
	if (!check)
		return;
	assert_true(check_break(check));
	machine_run(m, code, size, 1);
	if (m->vector == vector)
		fail_msg("with %s broken it still faults", check);
	check_break(NULL);
	cpu_load(m->cpu, &before);
}

#define RUN(m, ...) system_run((m), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define FAULTS(m, check, vector, ...)                                                                        \
	system_faults((m), (check), (vector), (const uint8_t[]){__VA_ARGS__},                                \
		      sizeof((const uint8_t[]){__VA_ARGS__}))

#endif
