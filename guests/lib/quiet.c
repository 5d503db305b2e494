#include "lib/quiet.h"

#include "lib/baseline.h"
#include "lib/machine.h"
#include "x86/case_layout.h"

/* What the processor is known to hold. */
static struct machine_state hardware;

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

/* Whether the processor uses them with this CR4. */
static bool has_xcr0(const uint64_t *f) { return machine.xsave && f[STATE_cr4] & CR4_OSXSAVE; }
static bool has_pkru(const uint64_t *f) { return machine.pku && f[STATE_cr4] & CR4_PKE; }

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
static void load_fields(const uint64_t *in)
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

void quiet_load(const struct exchange *x) { load_fields(x->in.field); }

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
void quiet_capture(struct exchange *x)
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
	if (has_pkru(out) && out[STATE_pkru]) {
		machine_write_pkru(0);
		hardware.field[STATE_pkru] = 0;
	}
}

void quiet_initialize(struct exchange *x)
{
	baseline_fill(&x->in, MODE_LONG, 0);
	machine_fill(&hardware, 0xee, sizeof(hardware));
	hardware.field[STATE_misc_features] = 0;
	load_fields(x->in.field);
	x->out = x->in;
	remember(x); /* XCR0 and PKRU stay unknown until a case has them */
}
