#include "lib/load.h"

#include "lib/apic.h"
#include "lib/baseline.h"
#include "lib/machine.h"
#include "lib/quiet.h"
#include "lib/world.h"
#include "x86/case_layout.h"

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

void load_table(struct table_pointer *table, uint64_t base, uint64_t limit)
{
	table->base = base;
	table->limit = (uint16_t)limit;
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
		world_poke(world_stack_linear(mode, in[STATE_ss], in[STATE_rsp] - 12), frame, 12);
	else
		machine_copy(legacy_frame, frame, sizeof(frame));
}

static void prepare_exchange(struct exchange *x, const struct case_spec *spec)
{
	const uint64_t *in = x->in.field;

	load_table(&x->in_gdtr, in[STATE_gdtr_base], in[STATE_gdtr_limit]);
	load_table(&x->in_idtr, in[STATE_idtr_base], in[STATE_idtr_limit]);
	x->detect = 0;
	x->vector = 0;
	x->segments[0] = (uint32_t)in[STATE_es];
	x->segments[1] = (uint32_t)in[STATE_ds];
	x->segments[2] = (uint32_t)in[STATE_fs];
	x->segments[3] = (uint32_t)in[STATE_gs];
	if (baseline_is_64(spec->mode)) {
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

/*
 * In real mode an exception pushes FLAGS and clears AC, so that the upper half of EFLAGS is lost. Where the
 * case watches rflags, PUSHFD stands in front of the end.
 */
bool load_pushes_flags(const struct case_spec *spec)
{
	return spec->mode == MODE_REAL && baseline_watched(spec, STATE_rflags);
}

static void prepare_stub(const struct case_spec *spec, uint32_t address)
{
	uint8_t code[CASE_BYTES_MAX + 4];
	unsigned length = spec->length;

	machine_copy(code, spec->bytes, length);
	if (load_pushes_flags(spec)) {
		code[length++] = 0x66;
		code[length++] = 0x9c;
	}
	code[length++] = CASE_END & 0xff;
	code[length++] = CASE_END >> 8;
	world_poke(address, code, length);
}

bool load_events(const struct case_spec *spec)
{
	bool any = false;

	for (unsigned pass = 0; pass < 2; pass++) { /* the NMI last: no IRET may come behind it */
		for (unsigned i = 0; i < spec->setting_count; i++) {
			const struct case_setting *setting = &spec->settings[i];

			if (setting->kind == SETTING_INTERRUPT && !pass)
				apic_pend_interrupt((uint8_t)setting->value);
			else if (setting->kind == SETTING_NMI && pass)
				apic_pend_nmi();
			else
				continue;
			any = true;
		}
	}
	return any;
}

void load_case(struct exchange *x, const struct case_spec *spec)
{
	uint64_t *in = x->in.field;
	bool legacy = !baseline_is_64(spec->mode), big = true;

	if (spec->mode != MODE_LONG)
		for (unsigned n = STATE_rax; n <= STATE_rdi; n++)
			in[n] &= 0xffffffffu;
	if (legacy && spec->cpl && spec->mode != MODE_VM86)
		world_segment_base((uint16_t)in[STATE_ss], &big);
	if (!big)
		in[STATE_rsp] &= 0xffff; /* all that IRETD loads */
	derive_base(&in[STATE_fs_base], in[STATE_fs], spec->mode);
	derive_base(&in[STATE_gs_base], in[STATE_gs], spec->mode);
	prepare_stub(spec, world_linear(spec->mode, in[STATE_cs], in[STATE_rip]));
	prepare_exchange(x, spec);
	if (legacy) { /* loading a null selector clears the base on one vendor's processors alone */
		machine_write_msr(MSR_FS_BASE, 0);
		machine_write_msr(MSR_GS_BASE, 0);
	} else if (in[STATE_efer] != x->monitor_efer) {
		machine_write_msr(MSR_EFER, in[STATE_efer]);
	}
	x->out = x->in;
	quiet_load(x);
}
