#include "lib/baseline.h"

#include "lib/machine.h"
#include "lib/report.h"
#include "lib/world.h"
#include "x86/case_layout.h"

bool baseline_is_64(unsigned mode) { return mode == MODE_LONG || mode == MODE_COMPAT; }

static void fill_registers(uint64_t *f, unsigned mode)
{
	for (unsigned n = 0; n < GPR_COUNT; n++)
		f[STATE_rax + n] = mode == MODE_LONG ? CASE_GPR(n) : (uint32_t)CASE_GPR(n);
	f[STATE_rbx] = f[STATE_rsi] = case_offset(mode, CASE_OPERAND);
	f[STATE_rdi] = case_offset(mode, CASE_OPERAND2);
	f[STATE_rsp] = case_offset(mode, CASE_STACK);
	f[STATE_rip] = case_offset(mode, CASE_STUB);
	f[STATE_rflags] = CASE_RFLAGS | (mode == MODE_VM86 ? RFLAGS_VM : 0);
}

static void fill_tables(uint64_t *f, unsigned mode)
{
	f[STATE_ldtr] = CASE_SEL_LDT;
	f[STATE_tr] = baseline_is_64(mode) ? CASE_SEL_TSS64 : CASE_SEL_TSS32;
	f[STATE_gdtr_base] = CASE_GDT;
	f[STATE_gdtr_limit] = CASE_GDT_LIMIT;
	if (mode == MODE_REAL) {
		f[STATE_idtr_base] = CASE_IVT;
		f[STATE_idtr_limit] = CASE_IVT_SIZE - 1;
	} else {
		f[STATE_idtr_base] = baseline_is_64(mode) ? CASE_IDT64 : CASE_IDT32;
		f[STATE_idtr_limit] = baseline_is_64(mode) ? CASE_IDT64_LIMIT : CASE_IDT32_LIMIT;
	}
	f[STATE_cr0] = mode == MODE_REAL ? CASE_CR0_REAL : CASE_CR0;
	f[STATE_cr3] = baseline_is_64(mode) ? CASE_CR3_LONG : CASE_CR3_32;
	f[STATE_cr4] = baseline_is_64(mode) ? CASE_CR4_LONG : 0;
}

static void fill_msrs(uint64_t *f, unsigned mode)
{
	uint64_t efer = baseline_is_64(mode) ? CASE_EFER_LONG : CASE_EFER;

	f[STATE_dr6] = CASE_DR6;
	f[STATE_dr7] = CASE_DR7;
	f[STATE_xcr0] = CASE_XCR0;
	f[STATE_efer] = machine.syscall ? efer : efer & ~(uint64_t)EFER_SCE;
	f[STATE_star] = CASE_STAR;
	f[STATE_lstar] = CASE_LAND_SYSCALL;
	f[STATE_cstar] = CASE_LAND_CSTAR;
	f[STATE_fmask] = CASE_FMASK;
	f[STATE_kernel_gs_base] = CASE_KERNEL_GS_BASE;
	f[STATE_sysenter_cs] = CASE_SYSENTER_CS;
	f[STATE_sysenter_esp] = CASE_SYSENTER_ESP;
	f[STATE_sysenter_eip] = CASE_SYSENTER_EIP;
	f[STATE_tsc_aux] = CASE_TSC_AUX;
}

void baseline_fill(struct machine_state *state, unsigned mode, unsigned cpl)
{
	uint64_t *f = state->field;

	machine_fill(state, 0, sizeof(*state));
	fill_registers(f, mode);
	for (unsigned n = STATE_es; n <= STATE_gs; n++)
		f[n] = case_data_selector(mode, cpl);
	f[STATE_cs] = case_code_selector(mode, cpl);
	f[STATE_fs_base] = CASE_FS_BASE;
	f[STATE_gs_base] = CASE_GS_BASE;
	fill_tables(f, mode);
	fill_msrs(f, mode);
}

static bool needs(const struct case_setting *setting)
{
	static const char names[4][4] = {"eax", "ebx", "ecx", "edx"};
	bool wanted = !(setting->bit & 0x80);
	unsigned bit = setting->bit & 31;
	uint32_t r[4];

	machine_cpuid(setting->address, (uint32_t)setting->value, r);
	if ((r[setting->field & 3] >> bit & 1) == wanted)
		return true;
	report_text("NOTSUP cpuid.");
	report_hex(setting->address);
	report_text(".");
	report_hex(setting->value);
	report_text(".");
	report_text(names[setting->field & 3]);
	report_text("[");
	report_decimal(bit);
	report_text(wanted ? "]=0" : "]=1");
	return false;
}

static bool has_physical_bits(uint64_t most)
{
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	if ((r[0] & 0xff) <= most)
		return true;
	report_text("NOTSUP cpuid.80000008.0.eax=0x");
	report_hex(r[0]);
	return false;
}

/* CPUID faulting is announced by an MSR (SDM 4, MSR_PLATFORM_INFO bit 31), not by CPUID. */
static bool has_misc_features(void)
{
	if (machine.intel && machine_read_msr(MSR_PLATFORM_INFO) >> 31 & 1)
		return true;
	report_text(machine.intel ? "NOTSUP msr.ce[31]=0" : "NOTSUP vendor=amd");
	return false;
}

bool baseline_apply(const struct case_spec *spec, struct machine_state *state)
{
	const struct case_setting *setting = spec->settings;

	for (unsigned i = 0; i < spec->setting_count; i++, setting++) {
		uint64_t *field = &state->field[setting->field < STATE_COUNT ? setting->field : 0];

		if (setting->kind <= SETTING_CLEAR && setting->field == STATE_misc_features &&
		    !has_misc_features())
			return false;
		switch ((enum setting_kind)setting->kind) {
		case SETTING_SET: *field = setting->value; break;
		case SETTING_OR: *field |= setting->value; break;
		case SETTING_CLEAR: *field &= ~setting->value; break;
		case SETTING_POKE1: world_poke(setting->address, &setting->value, 1); break;
		case SETTING_POKE2: world_poke(setting->address, &setting->value, 2); break;
		case SETTING_POKE4: world_poke(setting->address, &setting->value, 4); break;
		case SETTING_POKE8: world_poke(setting->address, &setting->value, 8); break;
		case SETTING_PHYSICAL_BITS:
			if (!has_physical_bits(setting->value))
				return false;
			break;
		case SETTING_INTERRUPT:
		case SETTING_NMI: /* load_events() */
		case SETTING_PARAMETER: break;
		case SETTING_NEEDS:
			if (!needs(setting))
				return false;
			break;
		}
	}
	return true;
}

bool baseline_watched(const struct case_spec *spec, unsigned field)
{
	for (unsigned i = 0; i < spec->watch_count; i++)
		if (!spec->watch[i].size && spec->watch[i].field == field)
			return true;
	return false;
}
