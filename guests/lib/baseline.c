#include "lib/baseline.h"

#include "lib/machine.h"
#include "lib/report.h"
#include "lib/world.h"
#include "x86/case_layout.h"

bool baseline_is_64(unsigned mode) { return mode == MODE_LONG || mode == MODE_COMPAT; }

void baseline_fill(struct machine_state *state, unsigned mode, unsigned cpl)
{
	machine_fill(state, 0, sizeof(*state));
#define CASE_BASELINE(name, value) state->field[STATE_##name] = (value);
#include "x86/case_baseline.def"
#undef CASE_BASELINE
	if (!machine.syscall)
		state->field[STATE_efer] &= ~(uint64_t)EFER_SCE;
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
		case SETTING_PARAMETER:
		case SETTING_CONTROL: /* the story that runs the guest */
		case SETTING_CONTROL_OR:
		case SETTING_CONTROL_CLEAR: break;
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
