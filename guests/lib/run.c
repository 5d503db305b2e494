#include "lib/run.h"

#include "lib/baseline.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

/* What the processor is known to hold of fields that are loaded only where they differ. */
static struct machine_state hardware;

/* Where and how the case ended, from the frame that was pushed. */
struct ending {
	unsigned vector;
	bool has_error;
	uint64_t error;
};

static const char *const field_names[STATE_COUNT] = {
#define STATE_FIELD(name) #name,
#include "x86/machine_state.def"
#undef STATE_FIELD
};

static const struct msr_field {
	uint16_t field;
	uint32_t index;
	const bool *present;
} msr_fields[] = {
	{STATE_star, MSR_STAR, &machine.syscall},
	{STATE_lstar, MSR_LSTAR, &machine.syscall},
	{STATE_cstar, MSR_CSTAR, &machine.syscall},
	{STATE_fmask, MSR_FMASK, &machine.syscall},
	{STATE_kernel_gs_base, MSR_KERNEL_GS_BASE, NULL},
	{STATE_sysenter_cs, MSR_SYSENTER_CS, &machine.sysenter},
	{STATE_sysenter_esp, MSR_SYSENTER_ESP, &machine.sysenter},
	{STATE_sysenter_eip, MSR_SYSENTER_EIP, &machine.sysenter},
	{STATE_tsc_aux, MSR_TSC_AUX, &machine.tsc_aux},
};
#define MSR_FIELDS (sizeof(msr_fields) / sizeof(msr_fields[0]))

static bool present(const struct msr_field *msr) { return !msr->present || *msr->present; }
static bool is_64(unsigned mode) { return mode == MODE_LONG || mode == MODE_COMPAT; }

/* Whether the processor uses them with this CR4. */
static bool has_xcr0(const uint64_t *f) { return machine.xsave && f[STATE_cr4] & CR4_OSXSAVE; }
static bool has_pkru(const uint64_t *f) { return machine.pku && f[STATE_cr4] & CR4_PKE; }

/* ---- loading ---- */

static void write_debug_register(unsigned n, uint64_t value)
{
	switch (n) {
	case 0: machine_write_dr0(value); break;
	case 1: machine_write_dr1(value); break;
	case 2: machine_write_dr2(value); break;
	case 3: machine_write_dr3(value); break;
	}
}

/* The fields that C can load without losing its own footing. */
static void load_quiet_fields(const uint64_t *in)
{
	uint64_t *now = hardware.field;

	for (const struct msr_field *msr = msr_fields; msr < msr_fields + MSR_FIELDS; msr++)
		if (in[msr->field] != now[msr->field] && present(msr))
			machine_write_msr(msr->index, in[msr->field]);
	for (unsigned n = 0; n < 4; n++)
		if (in[STATE_dr0 + n] != now[STATE_dr0 + n])
			write_debug_register(n, in[STATE_dr0 + n]);
	if (in[STATE_dr6] != now[STATE_dr6])
		machine_write_dr6(in[STATE_dr6]);
	if (in[STATE_cr2] != now[STATE_cr2])
		machine_write_cr2(in[STATE_cr2]);
	if (in[STATE_cr8] != now[STATE_cr8])
		machine_write_cr8(in[STATE_cr8]);
	if (in[STATE_misc_features] != now[STATE_misc_features])
		machine_write_msr(MSR_MISC_FEATURES, in[STATE_misc_features]);
	if (has_xcr0(in) && in[STATE_xcr0] != now[STATE_xcr0])
		machine_write_xcr0(in[STATE_xcr0]);
	if (has_pkru(in) && in[STATE_pkru] != now[STATE_pkru])
		machine_write_pkru((uint32_t)in[STATE_pkru]);
}

/* FS and GS bases where the case does not choose them. */
static void derive_base(uint64_t *base, uint64_t selector, unsigned mode)
{
	if (mode == MODE_LONG)
		return;
	if (mode == MODE_REAL || mode == MODE_VM86)
		*base = (selector & 0xffff) << 4;
	else
		*base = world_segment_base((uint16_t)selector, NULL);
}

static void set_table(struct table_pointer *table, uint64_t base, uint64_t limit)
{
	table->base = base;
	table->limit = (uint16_t)limit;
}

/* The linear address of @offset in the segment of @selector. */
static uint32_t linear(unsigned mode, uint64_t selector, uint64_t offset)
{
	bool big;

	if (mode == MODE_REAL)
		return (uint32_t)((selector & 0xffff) << 4) + (uint16_t)offset;
	if (mode == MODE_VM86)
		return (uint32_t)((selector & 0xffff) << 4) + (uint32_t)offset;
	if (mode == MODE_LONG)
		return (uint32_t)offset;
	return world_segment_base((uint16_t)selector, &big) + (uint32_t)offset;
}

static uint32_t stack_linear(unsigned mode, uint64_t selector, uint64_t offset)
{
	bool big = false;

	if (mode == MODE_REAL || mode == MODE_VM86)
		return (uint32_t)((selector & 0xffff) << 4) + (uint16_t)offset;
	world_segment_base((uint16_t)selector, &big);
	return linear(mode, selector, big ? offset : offset & 0xffff);
}

static void prepare_frame_legacy(struct exchange *x, unsigned mode, bool inner)
{
	const uint64_t *in = x->in.field;
	uint32_t frame[9] = {
		(uint32_t)in[STATE_rip], (uint32_t)in[STATE_cs], (uint32_t)in[STATE_rflags],
		(uint32_t)in[STATE_rsp], (uint32_t)in[STATE_ss], (uint32_t)in[STATE_es],
		(uint32_t)in[STATE_ds],  (uint32_t)in[STATE_fs], (uint32_t)in[STATE_gs],
	};

	x->stack_selector = inner ? (uint32_t)in[STATE_ss] : MONITOR_DS;
	x->stack_offset = inner ? (uint32_t)in[STATE_rsp] - 12 : LEGACY_FRAME;
	if (inner)
		world_poke(stack_linear(mode, in[STATE_ss], in[STATE_rsp] - 12), frame, 12);
	else
		machine_copy(legacy_frame, frame, sizeof(frame));
}

static void prepare_exchange(struct exchange *x, const struct case_spec *spec)
{
	const uint64_t *in = x->in.field;

	set_table(&x->in_gdtr, in[STATE_gdtr_base], in[STATE_gdtr_limit]);
	set_table(&x->in_idtr, in[STATE_idtr_base], in[STATE_idtr_limit]);
	x->detect = 0;
	x->vector = 0;
	x->segments[0] = (uint32_t)in[STATE_es];
	x->segments[1] = (uint32_t)in[STATE_ds];
	x->segments[2] = (uint32_t)in[STATE_fs];
	x->segments[3] = (uint32_t)in[STATE_gs];
	if (is_64(spec->mode)) {
		x->frame64[0] = in[STATE_rip];
		x->frame64[1] = in[STATE_cs];
		x->frame64[2] = in[STATE_rflags];
		x->frame64[3] = in[STATE_rsp];
		x->frame64[4] = in[STATE_ss];
		return;
	}
	if (spec->mode == MODE_VM86) /* IRETD pops them */
		machine_fill(x->segments, 0, sizeof(x->segments));
	x->real = spec->mode == MODE_REAL;
	prepare_frame_legacy(x, spec->mode, spec->mode == MODE_REAL || spec->cpl == 0);
}

static bool watched(const struct case_spec *spec, unsigned field)
{
	for (unsigned i = 0; i < spec->watch_count; i++)
		if (!spec->watch[i].size && spec->watch[i].field == field)
			return true;
	return false;
}

/*
 * In real mode an exception pushes FLAGS and clears AC, so that the upper half of EFLAGS is lost. Where the
 * case watches rflags, PUSHFD stands in front of the end.
 */
static bool pushes_flags(const struct case_spec *spec)
{
	return spec->mode == MODE_REAL && watched(spec, STATE_rflags);
}

static void prepare_stub(const struct case_spec *spec, uint32_t address)
{
	uint8_t code[CASE_BYTES_MAX + 4];
	unsigned length = spec->length;

	machine_copy(code, spec->bytes, length);
	if (pushes_flags(spec)) {
		code[length++] = 0x66;
		code[length++] = 0x9c;
	}
	code[length++] = CASE_END & 0xff;
	code[length++] = CASE_END >> 8;
	world_poke(address, code, length);
}

static void load(struct exchange *x, const struct case_spec *spec)
{
	uint64_t *in = x->in.field;
	bool legacy = !is_64(spec->mode), big = true;

	if (spec->mode != MODE_LONG)
		for (unsigned n = STATE_rax; n <= STATE_rdi; n++)
			in[n] &= 0xffffffffu;
	if (legacy && spec->cpl && spec->mode != MODE_VM86)
		world_segment_base((uint16_t)in[STATE_ss], &big);
	if (!big)
		in[STATE_rsp] &= 0xffff; /* all that IRETD loads */
	derive_base(&in[STATE_fs_base], in[STATE_fs], spec->mode);
	derive_base(&in[STATE_gs_base], in[STATE_gs], spec->mode);
	prepare_exchange(x, spec);
	if (legacy) { /* loading a null selector clears the base on one vendor's processors alone */
		machine_write_msr(MSR_FS_BASE, 0);
		machine_write_msr(MSR_GS_BASE, 0);
	} else if (in[STATE_efer] != x->monitor_efer) {
		machine_write_msr(MSR_EFER, in[STATE_efer]);
	}
	x->out = x->in;
	load_quiet_fields(in);
}

/* ---- looking ---- */

/* What was not looked at is as it was. */
static void remember(const struct exchange *x)
{
	uint64_t xcr0 = hardware.field[STATE_xcr0], pkru = hardware.field[STATE_pkru];

	hardware = x->out;
	if (!has_xcr0(x->in.field) && !has_xcr0(x->out.field))
		hardware.field[STATE_xcr0] = xcr0;
	if (!has_pkru(x->in.field) && !has_pkru(x->out.field))
		hardware.field[STATE_pkru] = pkru;
	if (x->detect)
		hardware.field[STATE_dr6] = machine_read_dr6();
}

/* The fields that the assembler left alone. */
static void capture_quiet_fields(struct exchange *x)
{
	uint64_t *out = x->out.field;

	for (const struct msr_field *msr = msr_fields; msr < msr_fields + MSR_FIELDS; msr++)
		if (present(msr))
			out[msr->field] = machine_read_msr(msr->index);
	out[STATE_fs_base] = machine_read_msr(MSR_FS_BASE);
	out[STATE_gs_base] = machine_read_msr(MSR_GS_BASE);
	out[STATE_dr0] = machine_read_dr0();
	out[STATE_dr1] = machine_read_dr1();
	out[STATE_dr2] = machine_read_dr2();
	out[STATE_dr3] = machine_read_dr3();
	if (has_xcr0(x->in.field) || has_xcr0(out))
		out[STATE_xcr0] = machine_read_xcr0();
	if (has_pkru(x->in.field) || has_pkru(out))
		out[STATE_pkru] = machine_read_pkru();
	if (x->in.field[STATE_misc_features] != hardware.field[STATE_misc_features])
		out[STATE_misc_features] = machine_read_msr(MSR_MISC_FEATURES);
	if (x->detect) { /* our own reading met DR7.GD, which cleared it and marked DR6 */
		out[STATE_dr7] |= DR7_GD;
		out[STATE_dr6] = (out[STATE_dr6] & ~(uint64_t)DR6_BD) | (x->in.field[STATE_dr6] & DR6_BD);
	}
	remember(x);
}

static void read_frame_long(struct exchange *x, struct ending *end)
{
	const uint64_t *frame = (const uint64_t *)x->frame_offset;
	uint64_t *out = x->out.field;

	end->has_error = world_ist_top() - x->frame_offset == 48;
	end->error = end->has_error ? *frame++ : 0;
	out[STATE_rip] = frame[0];
	out[STATE_cs] = frame[1] & 0xffff;
	out[STATE_rflags] = frame[2];
	out[STATE_rsp] = frame[3];
	out[STATE_ss] = frame[4] & 0xffff;
}

/* Undo the PUSHFD before the end, whose EFLAGS lie above the frame at @address. */
static void take_pushed_flags(struct exchange *x, const struct case_spec *spec, uint32_t address)
{
	uint64_t *out = x->out.field;

	if (!pushes_flags(spec) || (x->vector & 0xff) != VECTOR_UD ||
	    out[STATE_rip] != x->in.field[STATE_rip] + spec->length + 2)
		return;
	out[STATE_rip] -= 2;
	out[STATE_rflags] = *(const uint32_t *)(uintptr_t)(address + 6);
	out[STATE_rsp] = (out[STATE_rsp] & 0xffff0000u) | ((out[STATE_rsp] + 4) & 0xffff);
	world_accept(address + 6, 4);
}

static void read_frame_real(struct exchange *x, const struct case_spec *spec, struct ending *end)
{
	uint32_t address = stack_linear(MODE_REAL, x->frame_ss, x->frame_offset);
	const uint16_t *frame = (const uint16_t *)(uintptr_t)address;
	uint64_t *out = x->out.field;

	end->has_error = false;
	out[STATE_rip] = frame[0];
	out[STATE_cs] = frame[1];
	out[STATE_rflags] = (x->in.field[STATE_rflags] & 0xffff0000u) | frame[2];
	out[STATE_rsp] = (x->frame_offset & 0xffff0000u) | ((x->frame_offset + 6) & 0xffff);
	out[STATE_ss] = x->frame_ss;
	world_accept(address - 2, 8);
	take_pushed_flags(x, spec, address);
}

/* An INT n through the vector of an exception with an error code pushes none. */
static bool frame_has_error(const uint32_t *frame, const struct exchange *x, unsigned vector)
{
	uint64_t cs = x->in.field[STATE_cs];

	return vector_has_error_code(vector) && !((uint16_t)frame[1] == cs && (uint16_t)frame[2] != cs);
}

static void read_frame_legacy(struct exchange *x, struct ending *end)
{
	uint32_t address = stack_linear(MODE_PROT32, x->frame_ss, x->frame_offset);
	const uint32_t *frame = (const uint32_t *)(uintptr_t)address;
	uint64_t *out = x->out.field;
	uint32_t size = 12;

	end->has_error = frame_has_error(frame, x, end->vector);
	end->error = end->has_error ? *frame++ : 0;
	out[STATE_rip] = frame[0];
	out[STATE_cs] = frame[1] & 0xffff;
	out[STATE_rflags] = frame[2];
	if (frame[2] & RFLAGS_VM || frame[1] & SELECTOR_RPL) {
		out[STATE_rsp] = frame[3];
		out[STATE_ss] = frame[4] & 0xffff;
		size = 20;
	} else {
		bool big = false;
		uint64_t sp = x->frame_offset + 12 + 4 * end->has_error;

		world_segment_base((uint16_t)x->frame_ss, &big);
		out[STATE_rsp] = big ? sp : (x->frame_offset & 0xffff0000u) | (sp & 0xffff);
		out[STATE_ss] = x->frame_ss;
	}
	if (frame[2] & RFLAGS_VM) {
		out[STATE_es] = frame[5] & 0xffff;
		out[STATE_ds] = frame[6] & 0xffff;
		out[STATE_fs] = frame[7] & 0xffff;
		out[STATE_gs] = frame[8] & 0xffff;
		size = 36;
	}
	world_accept(address - 12, 12 + size + 4 * end->has_error);
}

static void capture(struct exchange *x, const struct case_spec *spec, struct ending *end)
{
	uint64_t *out = x->out.field;

	end->vector = (unsigned)x->vector & 0xff;
	if (spec->mode == MODE_REAL)
		read_frame_real(x, spec, end);
	else if (is_64(spec->mode))
		read_frame_long(x, end);
	else
		read_frame_legacy(x, end);
	for (unsigned n = STATE_es; n <= STATE_gs; n++)
		out[n] &= 0xffff;
	out[STATE_gdtr_base] = x->out_gdtr.base & (is_64(spec->mode) ? ~0ull : 0xffffffffu);
	out[STATE_gdtr_limit] = x->out_gdtr.limit;
	out[STATE_idtr_base] = x->out_idtr.base & (is_64(spec->mode) ? ~0ull : 0xffffffffu);
	out[STATE_idtr_limit] = x->out_idtr.limit;
	capture_quiet_fields(x);
	if (spec->mode != MODE_LONG) {
		for (unsigned n = STATE_rax; n <= STATE_rdi; n++)
			out[n] &= 0xffffffffu;
		for (unsigned n = STATE_r8; n <= STATE_r15; n++)
			out[n] = x->in.field[n];
	}
	if (spec->mode == MODE_VM86) { /* the exception nulled FS and GS */
		out[STATE_fs_base] = out[STATE_fs] << 4;
		out[STATE_gs_base] = out[STATE_gs] << 4;
	}
}

/* ---- judging what it was: RUNS or FAULT ---- */

/* The linear address of CS:RIP as the frame has them; above 4 GiB: CASE_WINDOW's end. */
static uint32_t ending_address(const struct exchange *x, unsigned mode)
{
	const uint64_t *out = x->out.field;

	if (mode == MODE_LONG && out[STATE_rip] >> 32)
		return CASE_WINDOW + CASE_WINDOW_SIZE;
	if (mode == MODE_VM86 && !(out[STATE_rflags] & RFLAGS_VM))
		mode = MODE_PROT32;
	else if (mode != MODE_REAL && out[STATE_rflags] & RFLAGS_VM)
		mode = MODE_VM86;
	return linear(mode, out[STATE_cs], out[STATE_rip]);
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

static void report_effects(const struct exchange *x, const struct case_spec *spec, bool runs)
{
	const uint64_t *in = x->in.field, *out = x->out.field;

	for (unsigned i = 0; i < STATE_COUNT; i++) {
		uint64_t before = in[i] + (i == STATE_rip && runs ? spec->length : 0);

		if (out[i] != before || (spec->watch_count && watched(spec, i)))
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

extern const uint8_t monitor_stubs[], enter_legacy_32[], image_start[], text_start[], text_end[], monitor_gdt[];
extern const uint16_t monitor_gdt_limit;

/* Whether the state could not even be loaded: the exception is the library's own. */
static bool failed_to_enter(const struct exchange *x)
{
	uint64_t rip = x->out.field[STATE_rip], cs = x->out.field[STATE_cs];

	if (x->out.field[STATE_rflags] & RFLAGS_VM)
		return false;
	return (cs == MONITOR_CS64 || cs == MONITOR_CS32) && rip >= (uintptr_t)text_start &&
	       rip < (uintptr_t)text_end;
}

static void report_outcome(struct exchange *x, const struct case_spec *spec, const struct ending *end)
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
	report_effects(x, spec, runs);
}

/* ---- the whole ---- */

static const struct case_spec *running;

static uint64_t monitor_idt[2 * 32];
static uint64_t text_sum;

static uint64_t sum_text(void)
{
	uint64_t sum = 0;

	for (const uint8_t *p = image_start; p + 8 <= text_end; p += 8)
		sum = (sum << 1 | sum >> 63) ^ *(const uint64_t *)(const void *)p;
	return sum;
}

void run_initialize(void)
{
	struct exchange *x = &exchange;
	uint64_t cr4 = CR4_PAE | (machine.xsave ? CR4_OSXSAVE : 0) | (machine.pku ? CR4_PKE : 0);

	machine_fill(x, 0, sizeof(*x));
	for (unsigned n = 0; n < 32; n++) {
		uint64_t stub = (uintptr_t)(monitor_stubs + 16 * n);

		monitor_idt[2 * n] = (stub & 0xffff) | MONITOR_CS64 << 16 |
				     (uint64_t)(SEG_P | TYPE_INTERRUPT_GATE) << 40 | (stub >> 16 & 0xffff) << 48;
	}
	set_table(&x->monitor_gdtr, (uintptr_t)monitor_gdt, monitor_gdt_limit);
	set_table(&x->monitor_idtr, (uintptr_t)monitor_idt, sizeof(monitor_idt) - 1);
	set_table(&x->early_idtr, CASE_IDT32, CASE_IDT32_LIMIT);
	x->far32_offset = (uint32_t)(uintptr_t)enter_legacy_32;
	x->far32_selector = MONITOR_CS32;
	machine_write_cr4(cr4);
	x->monitor_cr0 = machine_read_cr0();
	x->monitor_cr3 = machine_read_cr3();
	x->monitor_cr4 = cr4;
	x->monitor_efer = machine_read_msr(MSR_EFER);
	__asm__ volatile("lidt %0" : : "m"(x->monitor_idtr));
	/* Everything that is loaded by difference, once; XCR0 and PKRU when a case has them. */
	baseline_fill(&x->in, MODE_LONG, 0);
	machine_fill(&hardware, 0xee, sizeof(hardware));
	hardware.field[STATE_misc_features] = 0;
	load_quiet_fields(x->in.field);
	x->out = x->in;
	remember(x);
	text_sum = sum_text();
}

void run_case(const struct case_spec *spec)
{
	struct exchange *x = &exchange;
	struct ending end = {0};

	running = spec;
	report_text("start ");
	report_text(spec->id);
	report_end_line();
	report_text("end ");
	report_text(spec->id);
	report_text(" ");
	baseline_fill(&x->in, spec->mode, spec->cpl);
	world_prepare(spec->mode, spec->cpl);
	if (baseline_apply(spec, &x->in)) {
		prepare_stub(spec, linear(spec->mode, x->in.field[STATE_cs], x->in.field[STATE_rip]));
		load(x, spec);
		world_expect_busy((uint16_t)x->in.field[STATE_tr]);
		if (is_64(spec->mode))
			enter_long();
		else
			enter_legacy();
		capture(x, spec, &end);
		if (has_pkru(x->out.field) && x->out.field[STATE_pkru]) { /* it would bind us too */
			machine_write_pkru(0);
			hardware.field[STATE_pkru] = 0;
		}
		report_outcome(x, spec, &end);
	}
	report_end_line();
	running = NULL;
}

static bool check(const struct case_spec *spec, const char *name, uint64_t wanted, uint64_t found)
{
	if (wanted == found)
		return true;
	report_text("dirty ");
	report_text(spec->id);
	report_field(name, found);
	report_end_line();
	return false;
}

bool run_restore(const struct case_spec *spec)
{
	struct exchange *x = &exchange;

	world_restore();
	machine_write_msr(MSR_EFER, x->monitor_efer);
	return check(spec, "cr0", x->monitor_cr0, machine_read_cr0()) &&
	       check(spec, "cr3", x->monitor_cr3, machine_read_cr3()) &&
	       check(spec, "cr4", x->monitor_cr4, machine_read_cr4()) &&
	       check(spec, "efer", x->monitor_efer, machine_read_msr(MSR_EFER)) &&
	       check(spec, "text", text_sum, sum_text());
}
