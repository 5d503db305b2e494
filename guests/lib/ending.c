#include "lib/ending.h"

#include "lib/baseline.h"
#include "lib/load.h"
#include "lib/quiet.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

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

	if (!load_pushes_flags(spec) || (x->vector & 0xff) != VECTOR_UD ||
	    out[STATE_rip] != x->in.field[STATE_rip] + spec->length + 2)
		return;
	out[STATE_rip] -= 2;
	out[STATE_rflags] = *(const uint32_t *)(uintptr_t)(address + 6);
	out[STATE_rsp] = (out[STATE_rsp] & 0xffff0000u) | ((out[STATE_rsp] + 4) & 0xffff);
	world_accept(address + 6, 4);
}

static void read_frame_real(struct exchange *x, const struct case_spec *spec, struct ending *end)
{
	uint32_t address = world_stack_linear(MODE_REAL, x->frame_ss, x->frame_offset);
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
	uint32_t address = world_stack_linear(MODE_PROT32, x->frame_ss, x->frame_offset);
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

void ending_capture(struct exchange *x, const struct case_spec *spec, struct ending *end)
{
	uint64_t *out = x->out.field;

	end->vector = (unsigned)x->vector & 0xff;
	if (spec->mode == MODE_REAL)
		read_frame_real(x, spec, end);
	else if (baseline_is_64(spec->mode))
		read_frame_long(x, end);
	else
		read_frame_legacy(x, end);
	for (unsigned n = STATE_es; n <= STATE_gs; n++)
		out[n] &= 0xffff;
	out[STATE_gdtr_base] = x->out_gdtr.base & (baseline_is_64(spec->mode) ? ~0ull : 0xffffffffu);
	out[STATE_gdtr_limit] = x->out_gdtr.limit;
	out[STATE_idtr_base] = x->out_idtr.base & (baseline_is_64(spec->mode) ? ~0ull : 0xffffffffu);
	out[STATE_idtr_limit] = x->out_idtr.limit;
	quiet_capture(x);
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
