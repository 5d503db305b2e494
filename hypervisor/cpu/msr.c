/* msr.c: RDMSR and WRMSR by index: what msr.def says, and what does not fit into a row. */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/guest.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/segment.h"
#include "cpu/vmx/vmx.h"
#include "x86/msr.h"

#define MC_BANKS 8u /* AMD's software knows that the fifth is the north bridge's */

enum { ON_INTEL = 1 << VENDOR_INTEL, ON_AMD = 1 << VENDOR_AMD };
enum msr_access { READ_WRITE, READ_ONLY, WRITE_ONLY };

struct msr_rule;
typedef bool msr_reader(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value);
typedef bool msr_writer(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value);

struct msr_rule {
	uint32_t first, last;
	const char *name;
	uint64_t constant, writable, ignored;
	msr_reader *read;
	msr_writer *write;
	uint16_t feature, feature2; /* enum feature */
	uint16_t field;             /* offset in struct vcpu_state plus one; 0: none */
	uint8_t vendor, access;
	bool canonical;
};

static uint64_t *field_of(struct cpu *cpu, const struct msr_rule *rule, uint32_t index)
{
	return (uint64_t *)((char *)&cpu->msr + rule->field - 1) + (index - rule->first);
}

static bool store(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	uint64_t *field = field_of(cpu, rule, index);

	*field = (*field & ~rule->writable) | (value & rule->writable);
	return true;
}

/* True: @value has bits that must be 0. */
static bool reserved(uint64_t value, uint64_t allowed) { return CHECK(MSR_RESERVED, value & ~allowed); }

/* ---- what belongs to the APIC ---- */

static bool read_bus(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	return cpu->bus.msr_read && cpu->bus.msr_read(cpu->bus.owner, index, value);
}

static bool write_bus(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	return cpu->bus.msr_write && cpu->bus.msr_write(cpu->bus.owner, index, value);
}

/* A register that does nothing as long as it keeps its value. */
static bool write_same(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)index;
	if (value != rule->constant)
		cpu_unmodelled(cpu, rule->name);
	return true;
}

/* ---- time and counters ---- */

#define COUNTERS     PROFILE_INTEL_COUNTERS /* as many as on AMD */
#define COUNTERS_ALL ((1u << COUNTERS) - 1)

static bool counts(const struct vcpu_state *msr, unsigned n)
{
	return (msr->perf_select[n] & PERFEVTSEL_ENABLE) && !(msr->perf_off >> n & 1);
}

/*
 * MPERF, APERF and the counters that count follow the instructions of this CPU alone, one a cycle: they stand still
 * while it waits (SDM 3B 15.2, 20.2). In cpu->msr they are kept as the difference to cpu->retired.
 */
void msr_counters_move(struct vcpu_state *msr, uint64_t by)
{
	msr->mperf += by;
	msr->aperf += by;
	for (unsigned i = 0; i < COUNTERS; i++)
		msr->perf_counter[i] += counts(msr, i) ? by : 0;
}

static void tsc_move(struct cpu *cpu, uint64_t by)
{
	cpu->tsc_offset += by;
	cpu->msr.vmx_timer_end += by; /* it counts the TSC's own steps alone (SDM 3C 26.5.1) */
	if (cpu->bus.tsc_moved)
		cpu->bus.tsc_moved(cpu->bus.owner);
}

static bool read_tsc(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	(void)index;
	*value = control_tsc_read(cpu);
	return true;
}

/* A write of either moves the other: SDM 3B 18.17.3. */
static bool write_tsc(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	uint64_t by = value - control_tsc(cpu);

	(void)rule;
	(void)index;
	if (cpu_has(cpu, FEATURE_tsc_adjust))
		cpu->msr.tsc_adjust += by;
	tsc_move(cpu, by);
	return true;
}

static bool write_tsc_adjust(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	(void)index;
	tsc_move(cpu, value - cpu->msr.tsc_adjust);
	cpu->msr.tsc_adjust = value;
	return true;
}

static bool read_cycles(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	*value = *field_of(cpu, rule, index) + cpu_retired(cpu);
	return true;
}

static bool read_mperf(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	(void)index;
	*value = guest_mperf(cpu, cpu->msr.mperf + cpu_retired(cpu));
	return true;
}

static bool write_cycles(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	*field_of(cpu, rule, index) = value - cpu_retired(cpu);
	return true;
}

#define COUNTER_MASK 0xffffffffffffull /* 48 bits: CPUID.0AH:EAX[23:16], APM 2 13.2.1 */

/* With all that was carried out of its 48 bits since it was written. */
static uint64_t counter_whole(struct cpu *cpu, unsigned n)
{
	return cpu->msr.perf_counter[n] + (counts(&cpu->msr, n) ? cpu_retired(cpu) : 0);
}

static uint64_t counter_read(struct cpu *cpu, unsigned n) { return counter_whole(cpu, n) & COUNTER_MASK; }

static void counter_write(struct cpu *cpu, unsigned n, uint64_t value)
{
	uint64_t base = counts(&cpu->msr, n) ? cpu_retired(cpu) : 0;

	cpu->msr.perf_counter[n] = value - base;
	if (cpu->bus.counters_moved)
		cpu->bus.counters_moved(cpu->bus.owner);
}

/* Before it is written anew: an overflow stays to be seen until it is cleared by name. */
static void counter_keep_overflow(struct cpu *cpu, unsigned n)
{
	if (counter_whole(cpu, n) > COUNTER_MASK)
		cpu->msr.perf_overflowed |= 1u << n;
}

/* A counter overflows when it comes from its highest value to 0 (SDM 3B 20.2.1.1, APM 2 13.2.4). */
uint64_t msr_counter_overflow(struct cpu *cpu)
{
	uint64_t first = UINT64_MAX;

	for (unsigned n = 0; n < COUNTERS; n++) {
		uint64_t at;

		if (!counts(&cpu->msr, n) || !(cpu->msr.perf_select[n] & PERFEVTSEL_INT))
			continue;
		at = cpu_retired(cpu) + (COUNTER_MASK + 1 - counter_read(cpu, n));
		first = at < first ? at : first;
	}
	return first;
}

static bool read_pmc(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	*value = counter_read(cpu, index - rule->first);
	return true;
}

/* Without full-width writes IA32_PMCn takes 32 bits, sign-extended: SDM 3B 20.2.6. */
static bool write_pmc(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	if (cpu->profile->vendor == VENDOR_INTEL)
		value = sign_extend(value, 32);
	counter_keep_overflow(cpu, index - rule->first);
	counter_write(cpu, index - rule->first, value & COUNTER_MASK);
	return true;
}

/* Instructions retired and unhalted cycles, at every privilege level: both are cpu_retired() here. */
static bool event_modelled(const struct cpu *cpu, uint64_t select)
{
	uint64_t cycles = cpu->profile->vendor == VENDOR_AMD ? 0x76 : 0x3c;
	uint64_t event = select & ~(uint64_t)(PERFEVTSEL_ENABLE | PERFEVTSEL_INT | PERFEVTSEL_USR | PERFEVTSEL_OS);
	uint64_t levels = PERFEVTSEL_USR | PERFEVTSEL_OS;

	return (event == 0xc0 || event == cycles) && (select & levels) == levels;
}

static bool write_perfevtsel(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	unsigned n = index - rule->first;
	uint64_t count = counter_read(cpu, n);

	if ((value & PERFEVTSEL_ENABLE) && !event_modelled(cpu, value))
		cpu_unmodelled(cpu, "performance-monitoring event");
	counter_keep_overflow(cpu, n);
	store(cpu, rule, index, value);
	counter_write(cpu, n, count);
	return true;
}

static bool read_perf_control(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	(void)index;
	*value = ~cpu->msr.perf_off & COUNTERS_ALL;
	return true;
}

/* RESET lets all of them count (SDM 3A table 10-1). */
static bool write_perf_control(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	uint64_t count[COUNTERS];

	(void)rule;
	(void)index;
	for (unsigned n = 0; n < COUNTERS; n++) {
		counter_keep_overflow(cpu, n);
		count[n] = counter_read(cpu, n);
	}
	cpu->msr.perf_off = ~value & COUNTERS_ALL;
	for (unsigned n = 0; n < COUNTERS; n++)
		counter_write(cpu, n, count[n]);
	return true;
}

static bool read_perf_status(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	(void)index;
	*value = cpu->msr.perf_overflowed;
	for (unsigned n = 0; n < COUNTERS; n++)
		*value |= (uint64_t)(counter_whole(cpu, n) > COUNTER_MASK) << n;
	return true;
}

static bool write_perf_clear(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	(void)index;
	cpu->msr.perf_overflowed &= ~value;
	for (unsigned n = 0; n < COUNTERS; n++)
		if (value >> n & 1)
			counter_write(cpu, n, counter_read(cpu, n));
	return true;
}

bool msr_read_counter(struct cpu *cpu, uint32_t index, uint64_t *value)
{
	uint32_t count = cpu->profile->vendor == VENDOR_AMD ? PROFILE_AMD_COUNTERS : PROFILE_INTEL_COUNTERS;

	if (CHECK(RDPMC_INDEX, index >= count))
		return false;
	*value = index < count ? counter_read(cpu, index) : 0;
	return true;
}

/* ---- memory types ---- */

static bool type_is_pat(unsigned type) { return type <= 7 && type != 2 && type != 3; }
static bool type_is_mtrr(unsigned type) { return type <= 6 && type != 2 && type != 3; }

static bool write_pat(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	for (unsigned i = 0; i < 8; i++) {
		if (CHECK(MSR_PAT, !type_is_pat(value >> (8 * i) & 0xff)))
			return false;
	}
	*field_of(cpu, rule, index) = value;
	return true;
}

/* With SYSCFG.MtrrFixDramModEn, bits 4:3 of each byte are RdMem and WrMem: APM 2 7.9.1. */
static bool write_mtrr_fixed(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	uint64_t dram = cpu->msr.syscfg & SYSCFG_MTRR_FIX_DRAM_MODIFY ? 0x1818181818181818ull : 0;

	for (unsigned i = 0; i < 8; i++) {
		if (CHECK(MSR_MTRR_TYPE, !type_is_mtrr((value & ~dram) >> (8 * i) & 0xff)))
			return false;
	}
	*field_of(cpu, rule, index) = value;
	return true;
}

static bool write_mtrr_variable(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	bool mask = index & 1;

	if (CHECK(MSR_MTRR_ADDRESS, value & ~cpu->physical_mask))
		return false;
	if (reserved(value & 0xfff, mask ? 0x800 : 0xff))
		return false;
	if (CHECK(MSR_MTRR_TYPE, !mask && !type_is_mtrr(value & 0xff)))
		return false;
	*field_of(cpu, rule, index) = value;
	return true;
}

static bool write_mtrr_def_type(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	if (CHECK(MSR_MTRR_TYPE, !type_is_mtrr(value & 0xff)))
		return false;
	return store(cpu, rule, index, value);
}

/* Bases and masks: bits 3 and 4 (RdDram, WrDram) of a base, bit 11 (valid) of a mask: APM 2 7.9.2. */
static bool write_iorr(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	bool mask = (index - rule->first) & 1;

	if (reserved(value, (cpu->physical_mask & ~0xfffull) | (mask ? 0x800 : 0x18)))
		return false;
	*field_of(cpu, rule, index) = value;
	return true;
}

static bool write_top_mem(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	if (reserved(value, cpu->physical_mask & ~0x7fffffull))
		return false;
	*field_of(cpu, rule, index) = value;
	return true;
}

/* ---- machine check: banks that never have anything to report ---- */

static bool read_mc(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	uint32_t n = index - rule->first;

	*value = n % 4 == 0 ? cpu->msr.mc_ctl[n / 4] : 0;
	return true;
}

/* MCi_STATUS, ADDR and MISC take nothing but 0 (SDM 3B 16.3.2); HWCR.McStatusWrEn lifts that on AMD. */
static bool write_mc(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	uint32_t n = index - rule->first;

	if (n % 4 == 0) {
		cpu->msr.mc_ctl[n / 4] = value;
		return true;
	}
	if (value && cpu->profile->vendor == VENDOR_AMD && cpu->msr.hwcr & HWCR_MC_STATUS_WRITE)
		cpu_unmodelled(cpu, "machine-check status written under HWCR.McStatusWrEn");
	return !reserved(value, 0);
}

/* ---- EFER, segment bases ---- */

static bool read_efer(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	(void)index;
	*value = cpu->efer;
	return true;
}

static bool write_efer(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	(void)index;
	if (!control_efer_allowed(cpu, value))
		return false;
	control_write_efer(cpu, value);
	return true;
}

static struct cpu_segment *base_of(struct cpu *cpu, uint32_t index)
{
	return &cpu->segment[index == MSR_FS_BASE ? FS : GS];
}

static bool read_segment_base(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	*value = base_of(cpu, index)->s.base;
	return true;
}

static bool write_segment_base(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	base_of(cpu, index)->s.base = value;
	segment_derive(cpu, index == MSR_FS_BASE ? FS : GS);
	return true;
}

/* ---- switches ---- */

/* Bits of what the processor does not have are reserved: SDM 4 table 2-2. */
static bool write_feature_control(struct cpu *cpu, const struct msr_rule *rule, uint32_t index,
				  uint64_t value)
{
	bool vmx = cpu_has(cpu, FEATURE_vmx), smx = cpu_has(cpu, FEATURE_smx);
	uint64_t valid = FEATURE_CONTROL_LOCK | (vmx ? FEATURE_CONTROL_VMX : 0) |
			 (smx ? FEATURE_CONTROL_SENTER : 0) | (vmx && smx ? FEATURE_CONTROL_VMX_IN_SMX : 0);

	if (CHECK(MSR_LOCKED, cpu->msr.feature_control & FEATURE_CONTROL_LOCK))
		return false;
	if (reserved(value, valid))
		return false;
	*field_of(cpu, rule, index) = value;
	return true;
}

static bool read_vmx(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t *value)
{
	(void)rule;
	return vmx_capability(cpu, index, value);
}

/* IBRS, STIBP, SSBD. With IBRS, STIBP may be set whether enumerated or not: SDM 4 table 2-2. */
static bool write_spec_ctrl(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	bool ssbd = cpu_has(cpu, FEATURE_ssbd) || cpu_has(cpu, FEATURE_amd_ssbd);

	if (reserved(value, ssbd ? 7 : 3))
		return false;
	return store(cpu, rule, index, value);
}

/* Bit 34 takes NX away, which is for software that has not set EFER.NXE. */
static bool write_misc_enable(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	bool nx = cpu_has(cpu, FEATURE_nx);

	if (reserved(value & MISC_ENABLE_XD_DISABLE, nx ? MISC_ENABLE_XD_DISABLE : 0))
		return false;
	if (value & MISC_ENABLE_XD_DISABLE && cpu->efer & EFER_NXE)
		cpu_unmodelled(cpu, "IA32_MISC_ENABLE[34] set while EFER.NXE = 1");
	return store(cpu, rule, index, value);
}

static bool write_debugctl(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	store(cpu, rule, index, value);
	cpu_step_changed(cpu);
	return true;
}

/* Switches of caches and clocks, which nothing here depends on, can be set; others must be modelled. */
static bool write_hwcr(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	uint64_t modelled = HWCR_SMM_LOCK | HWCR_IGNNE_EM | HWCR_MONITOR_DISABLE | HWCR_MC_STATUS_WRITE;
	uint64_t harmless = 1u << 3 | 1u << 4 | 1u << 6 | 1u << 25 | 1u << 27;
	uint64_t unmodelled = HWCR_MONITOR_USER | HWCR_WRAP32_DISABLE | 1u << 20;
	uint64_t sticky = cpu->msr.hwcr & HWCR_SMM_LOCK;

	if (cpu_has(cpu, FEATURE_cpuid_user_dis))
		modelled |= HWCR_CPUID_USER_DISABLE;
	if (reserved(value, modelled | harmless | unmodelled | 1u << 24))
		return false;
	if (value & unmodelled)
		cpu_unmodelled(cpu, "HWCR.MonMwaitUserEn, Wrap32Dis or IoCfgGpFault");
	*field_of(cpu, rule, index) = (value & ~(1ull << 24)) | sticky | 1u << 24; /* the TSC runs at P0 */
	return true;
}

/* Without HWCR.IGNNE_EM the pin says, which is deasserted here: what is written does not count (15.30.2). */
static bool write_ignne(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	return CHECK(MSR_IGNNE_EM, !(cpu->msr.hwcr & HWCR_IGNNE_EM)) || store(cpu, rule, index, value);
}

/* The two bus cycles show nowhere (15.30.3). */
static bool write_smm_ctl(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	(void)index;
	if (reserved(value, 0x1f) || CHECK(MSR_SMM_CTL_LOCKED, cpu->msr.hwcr & HWCR_SMM_LOCK))
		return false;
	if (value & SMM_CTL_DISMISS) {
		cpu->smi_pending = false;
		__atomic_fetch_and(&cpu->pending, ~(uint32_t)PENDING_SMI, __ATOMIC_RELAXED);
	}
	if (value & SMM_CTL_ENTER)
		cpu->smm = true;
	else if (value & SMM_CTL_EXIT)
		cpu->smm = false;
	cpu_latches_changed(cpu);
	return true;
}

static bool write_smm_base(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	if (CHECK(MSR_LOCKED, cpu->msr.hwcr & HWCR_SMM_LOCK))
		return false;
	return store(cpu, rule, index, value);
}

/* LOCK keeps itself and SVMDIS as they are: APM 2 15.30.1. */
static bool write_vm_cr(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	if (CHECK(MSR_VM_CR_SVME, value & VM_CR_SVMDIS && cpu->efer & EFER_SVME))
		return false;
	if (cpu->msr.vm_cr & VM_CR_LOCK) {
		uint64_t kept = VM_CR_LOCK | VM_CR_SVMDIS;
		value = (value & ~kept) | (cpu->msr.vm_cr & kept);
	}
	return store(cpu, rule, index, value);
}

/* A password under which LOCK can be cleared again; it reads as 0 (APM 2 15.31). */
static bool write_svm_key(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	(void)rule;
	(void)index;
	if (!(cpu->msr.vm_cr & VM_CR_LOCK))
		cpu->msr.svm_key = value;
	else if (CHECK(SVM_KEY, value && value == cpu->msr.svm_key))
		cpu->msr.vm_cr &= ~(uint64_t)VM_CR_LOCK;
	return true;
}

static bool write_vm_hsave_pa(struct cpu *cpu, const struct msr_rule *rule, uint32_t index, uint64_t value)
{
	if (reserved(value, cpu->physical_mask & ~0xfffull))
		return false;
	*field_of(cpu, rule, index) = value;
	return true;
}

/* ---- the table ---- */

#define FIELD(name) .field = offsetof(struct vcpu_state, name) + 1

static const struct msr_rule rules[] = {
#define MSR(first, last, what, ...) {(first), (last), (what), __VA_ARGS__},
#include "cpu/msr.def"
#undef MSR
};

#define RULES (sizeof(rules) / sizeof(rules[0]))

/* The first rule that does not end below @index: msr.def is in order. */
static size_t rule_from(uint32_t index)
{
	size_t low = 0, high = RULES;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (rules[middle].last < index)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct msr_rule *rule_of_vendor(const struct cpu *cpu, uint32_t index, enum vendor vendor)
{
	for (size_t i = rule_from(index); i < RULES && rules[i].first <= index; i++) {
		const struct msr_rule *rule = &rules[i];
		if (rule->vendor && !(rule->vendor >> vendor & 1))
			continue;
		if (!rule->feature || cpu_has(cpu, rule->feature) ||
		    (rule->feature2 && cpu_has(cpu, rule->feature2)))
			return rule;
	}
	return NULL;
}

/*
 * A guest from the other vendor's processor has the MSRs that both have, and these as it knows them: what it could
 * write to any other could not go back with it.
 */
static const struct msr_rule *rule_find(const struct cpu *cpu, uint32_t index)
{
	const struct msr_rule *rule = rule_of_vendor(cpu, index, cpu->profile->told);

	if (cpu->profile->told != cpu->profile->vendor && !rule_of_vendor(cpu, index, cpu->profile->vendor))
		return NULL;
	return rule;
}

bool msr_read(struct cpu *cpu, uint32_t index, uint64_t *value)
{
	const struct msr_rule *rule = rule_find(cpu, index);

	*value = 0;
	if (CHECK(MSR_UNKNOWN, !rule))
		return false;
	if (!rule)
		return true;
	if (CHECK(MSR_WRITE_ONLY, rule->access == WRITE_ONLY))
		return false;
	if (rule->read)
		return rule->read(cpu, rule, index, value);
	*value = rule->field ? *field_of(cpu, rule, index) : rule->constant;
	return true;
}

bool msr_write(struct cpu *cpu, uint32_t index, uint64_t value)
{
	const struct msr_rule *rule = rule_find(cpu, index);

	if (CHECK(MSR_UNKNOWN, !rule))
		return false;
	if (!rule)
		return true;
	if (CHECK(MSR_READ_ONLY, rule->access == READ_ONLY))
		return false;
	if (rule->access == READ_ONLY)
		return true;
	if (CHECK(MSR_CANONICAL, rule->canonical && !linear_is_canonical(cpu, value)))
		return false;
	if ((rule->writable || !rule->write) && reserved(value, rule->writable | rule->ignored))
		return false;
	if (rule->write)
		return rule->write(cpu, rule, index, value);
	return rule->field ? store(cpu, rule, index, value) : true;
}

void msr_reset(struct cpu *cpu)
{
	struct vcpu_state *msr = &cpu->msr;

	*msr = (struct vcpu_state){0};
	msr->pat = 0x0007040600070406ull; /* SDM 3A 11.12.4, APM 2 7.8.2 */
	if (cpu->profile->vendor == VENDOR_INTEL)
		msr->misc_enable = MISC_ENABLE_FAST_STRINGS | MISC_ENABLE_PERFMON | MISC_ENABLE_MONITOR |
				   MISC_ENABLE_BTS_UNAVAILABLE | MISC_ENABLE_PEBS_UNAVAILABLE;
	else
		msr->hwcr = 1u << 24;
	msr->apic_base = 0xfee00000u | APIC_BASE_ENABLE | APIC_BASE_BSP;
	msr->smbase = 0x30000;
	msr->svm_tsc_ratio = 1ull << 32;
	msr->mperf = msr->aperf = -cpu->retired;
}
