#include "lib/effects.h"

#include "lib/baseline.h"
#include "lib/report.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

static const char *const field_names[STATE_COUNT] = {
#define STATE_FIELD(name) #name,
#include "x86/machine_state.def"
#undef STATE_FIELD
};

extern const uint8_t text_start[], text_end[];

/* The linear address of CS:RIP as the frame has them; above 4 GiB: CASE_PATH_LINEAR. */
static uint32_t ending_address(const struct exchange *x, unsigned mode)
{
	const uint64_t *out = x->out.field;

	if (mode == MODE_LONG && out[STATE_rip] >> 32)
		return CASE_PATH_LINEAR;
	if (mode == MODE_VM86 && !(out[STATE_rflags] & RFLAGS_VM))
		mode = MODE_PROT32;
	else if (mode != MODE_REAL && out[STATE_rflags] & RFLAGS_VM)
		mode = MODE_VM86;
	return world_linear(mode, out[STATE_cs], out[STATE_rip]);
}

/* CASE_END that is not the instruction under test is the end of the case. */
static bool ended_by_marker(const struct exchange *x, const struct case_spec *spec, unsigned vector)
{
	uint64_t address;

	if (vector != VECTOR_UD || x->out.field[STATE_rip] == x->in.field[STATE_rip])
		return false;
	if (spec->mode == MODE_REAL && x->out.field[STATE_rip] == x->in.field[STATE_rip] + spec->length)
		return true; /* take_pushed_flags looked */
	address = ending_address(x, spec->mode);
	if (address >= CASE_PATH_LINEAR)
		return true; /* nothing is mapped there but frames full of CASE_END */
	return address < CASE_WINDOW + CASE_WINDOW_SIZE && *(const uint16_t *)address == CASE_END;
}

/* INT @vector stands in front of the pushed RIP: a trap, whatever the vector. */
static bool is_software_interrupt(const struct exchange *x, unsigned mode, unsigned vector)
{
	uint32_t address = ending_address(x, mode) - 2;

	return x->out.field[STATE_rip] != x->in.field[STATE_rip] && address >= CASE_WINDOW &&
	       address < CASE_WINDOW + CASE_WINDOW_SIZE &&
	       *(const uint16_t *)(uintptr_t)address == (vector << 8 | 0xcd);
}

/* Whether @vector is a fault, which pushes RF set (SDM 3B 18.3.1.1). */
static bool pushes_rf(unsigned vector, const struct exchange *x)
{
	static const uint32_t faults = 1u << VECTOR_DE | 1u << VECTOR_BR | 1u << VECTOR_UD | 1u << VECTOR_NM |
				       1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP |
				       1u << VECTOR_PF | 1u << VECTOR_MF | 1u << VECTOR_AC | 1u << VECTOR_XM |
				       1u << VECTOR_VE | 1u << VECTOR_CP | 1u << VECTOR_VC | 1u << VECTOR_SX;

	if (vector == VECTOR_DB)
		return x->out.field[STATE_dr6] & ~x->in.field[STATE_dr6] & DR6_BD;
	return faults >> vector & 1;
}

/*
 * Whether RF in the pushed image is what was promised; RF then leaves the comparison. FLAGS alone
 * is pushed in real mode, and nothing is promised of RF for aborts and NMI.
 */
static bool settle_rf(struct exchange *x, const struct ending *end, bool runs, unsigned mode)
{
	uint64_t *flags = &x->out.field[STATE_rflags];
	uint64_t before = x->in.field[STATE_rflags] & RFLAGS_RF;
	bool set = *flags & RFLAGS_RF;

	if (mode == MODE_REAL)
		return true;
	if (runs) {
		if (end->vector == VECTOR_UD)
			*flags &= ~(uint64_t)RFLAGS_RF;
		return true;
	}
	if (end->vector == VECTOR_BP || end->vector == VECTOR_OF ||
	    is_software_interrupt(x, mode, end->vector) ||
	    (end->vector == VECTOR_DB && !pushes_rf(VECTOR_DB, x)))
		return true;
	*flags = (*flags & ~(uint64_t)RFLAGS_RF) | before;
	return set || !pushes_rf(end->vector, x);
}

/* Whether the state could not even be loaded: the exception is the library's own. */
static bool failed_to_enter(const struct exchange *x)
{
	uint64_t rip = x->out.field[STATE_rip], cs = x->out.field[STATE_cs];

	if (x->out.field[STATE_rflags] & RFLAGS_VM)
		return false;
	return (cs == MONITOR_CS64 || cs == MONITOR_CS32) && rip >= (uintptr_t)text_start &&
	       rip < (uintptr_t)text_end;
}

void effects_report_changes(const struct exchange *x, const struct case_spec *spec, bool runs)
{
	const uint64_t *in = x->in.field, *out = x->out.field;

	for (unsigned i = 0; i < STATE_COUNT; i++) {
		uint64_t before = in[i] + (i == STATE_rip && runs ? spec->length : 0);

		if (out[i] != before || (spec->watch_count && baseline_watched(spec, i)))
			report_field(field_names[i], out[i]);
	}
	for (unsigned i = 0; i < spec->watch_count; i++) {
		const struct case_watch *watch = &spec->watch[i];

		if (!watch->size)
			continue;
		report_memory(watch->address, (const void *)(uintptr_t)watch->address, watch->size);
		world_accept(watch->address, watch->size);
	}
	world_report_changes(spec->mode, in[STATE_cr0] & out[STATE_cr0] & CR0_PG);
}

void effects_report(struct exchange *x, const struct case_spec *spec, const struct ending *end)
{
	bool marker = ended_by_marker(x, spec, end->vector);
	bool runs = marker || end->vector >= 32;

	bool rf_promised = settle_rf(x, end, runs, spec->mode);

	if (failed_to_enter(x)) {
		report_text("ERROR entry");
		report_field("vector", end->vector);
		report_field("error", end->error);
		report_field("rip", x->out.field[STATE_rip]);
		return;
	}
	if (runs) {
		report_text("RUNS");
		if (!marker)
			report_field("event", end->vector);
	} else {
		report_text("FAULT vector=");
		report_decimal(end->vector);
		if (end->has_error)
			report_field("error", end->error);
	}
	if (!rf_promised)
		report_field("rf", 0);
	effects_report_changes(x, spec, runs);
}
