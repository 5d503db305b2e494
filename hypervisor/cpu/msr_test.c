/* msr_test.c: RDMSR and WRMSR of each kind of MSR; CPUID's dynamic bits; time. */
#include "cpu/insn/system_test.h"

#include "x86/msr.h"

#define RDMSR 0x0f, 0x32
#define WRMSR 0x0f, 0x30
#define CPUID 0x0f, 0xa2
#define RDTSC 0x0f, 0x31
#define RDPMC 0x0f, 0x33

static void set(struct machine *m, uint32_t index, uint64_t value)
{
	m->cpu->reg[RCX] = index;
	m->cpu->reg[RAX] = (uint32_t)value;
	m->cpu->reg[RDX] = value >> 32;
}

static void write_msr(struct machine *m, uint32_t index, uint64_t value)
{
	set(m, index, value);
	if (RUN(m, WRMSR) != NO_EVENT)
		fail_msg("WRMSR %#x, %#llx faults", index, (unsigned long long)value);
}

static uint64_t read_msr(struct machine *m, uint32_t index)
{
	m->cpu->reg[RCX] = index;
	if (RUN(m, RDMSR) != NO_EVENT)
		fail_msg("RDMSR %#x faults", index);
	return m->cpu->reg[RDX] << 32 | m->cpu->reg[RAX];
}

static void refuse_write(struct machine *m, const char *check, uint32_t index, uint64_t value)
{
	set(m, index, value);
	FAULTS(m, check, VECTOR_GP, WRMSR);
}

static void refuse_read(struct machine *m, const char *check, uint32_t index)
{
	m->cpu->reg[RCX] = index;
	FAULTS(m, check, VECTOR_GP, RDMSR);
}

/* MSRs that take any canonical address, and nothing else. */
static void test_addresses(void **state)
{
	static const uint32_t addresses[] = {MSR_LSTAR,       MSR_CSTAR,          MSR_FS_BASE,
					     MSR_GS_BASE,     MSR_KERNEL_GS_BASE, MSR_SYSENTER_ESP,
					     MSR_SYSENTER_EIP};
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
		refuse_write(&m, "MSR_CANONICAL", addresses[i], 1ull << 47);
		write_msr(&m, addresses[i], 0xffff800000000000 + i);
		assert_int_equal(read_msr(&m, addresses[i]), 0xffff800000000000 + i);
	}
	assert_int_equal(m.cpu->segment[GS].s.base, 0xffff800000000003);
	m.cpu->cr4 |= CR4_LA57;
	assert_true(linear_is_canonical(m.cpu, 1ull << 47));
	machine_close(&m);
	/* AMD's SYSENTER is a 32-bit affair: the upper half is dropped. */
	system_open(&m, "amd", CODE_64, 0);
	write_msr(&m, MSR_SYSENTER_EIP, 0x1234567887654321);
	assert_int_equal(read_msr(&m, MSR_SYSENTER_EIP), 0x87654321);
	machine_close(&m);
}

struct msr_case {
	uint32_t index;
	uint64_t good, bad;
	const char *check;
};

static void check_cases(const char *profile, const struct msr_case *cases, size_t count)
{
	struct machine m;

	system_open(&m, profile, CODE_64, 0);
	for (size_t i = 0; i < count; i++) {
		write_msr(&m, cases[i].index, cases[i].good);
		assert_int_equal(read_msr(&m, cases[i].index), cases[i].good);
		if (cases[i].check)
			refuse_write(&m, cases[i].check, cases[i].index, cases[i].bad);
		assert_int_equal(read_msr(&m, cases[i].index), cases[i].good);
	}
	machine_close(&m);
}

static void test_values(void **state)
{
	static const struct msr_case intel[] = {
		{MSR_STAR, ~0ull, 0, NULL},
		{MSR_FMASK, 0xffffffff, 1ull << 32, "MSR_RESERVED"},
		{MSR_TSC_AUX, 0xffffffff, 1ull << 32, "MSR_RESERVED"},
		{MSR_PAT, 0x0706050401000607, 0x0706050401000602, "MSR_PAT"},
		{MSR_PAT, 0x0606060606060606, 0x0806060606060606, "MSR_PAT"},
		{MSR_MTRR_DEF_TYPE, 0xc06, 0xc02, "MSR_MTRR_TYPE"},
		{MSR_MTRR_DEF_TYPE, 0xc06, 0x1006, "MSR_RESERVED"},
		{MSR_MTRR_PHYSBASE(7), 0x80000006, 0x80000106, "MSR_RESERVED"},
		{MSR_MTRR_PHYSBASE(0), 0x80000006, 1ull << 46 | 6, "MSR_MTRR_ADDRESS"},
		{MSR_MTRR_PHYSBASE(0), 0x80000000, 0x80000007, "MSR_MTRR_TYPE"},
		{MSR_MTRR_PHYSMASK(3), 0x3fff80000800, 0x3fff80000400, "MSR_RESERVED"},
		{MSR_MTRR_FIX64K_00000, 0x0606060606060606, 0x0606060606060602, "MSR_MTRR_TYPE"},
		{MSR_MTRR_FIX16K_A0000, 0x0, 0x1e06060606060606, "MSR_MTRR_TYPE"},
		{MSR_MTRR_FIX4K(7), 0x0505050505050505, 0x3, "MSR_MTRR_TYPE"},
		{MSR_MISC_FEATURES_ENABLES, 1, 2, "MSR_RESERVED"},
		{MSR_SPEC_CTRL, 7, 8, "MSR_RESERVED"},
		{MSR_XSS, 0, 1u << 8, "MSR_RESERVED"},
		{MSR_UMWAIT_CONTROL, 0xfffffffd, 2, "MSR_RESERVED"},
		{MSR_MONITOR_FILTER_SIZE, 64, 0, NULL},
		{MSR_POWER_CTL, 2, 4, "MSR_RESERVED"},
		{MSR_MCG_STATUS, 7, 8, "MSR_RESERVED"},
		{MSR_MC_CTL(3), ~0ull, 0, NULL},
		{MSR_MC_STATUS(3), 0, 1, "MSR_RESERVED"},
		{MSR_PERFEVTSEL(3), 0x4300c0, 1ull << 32, "MSR_RESERVED"},
		{MSR_DEBUGCTL, 0, 1u << 6, "MSR_RESERVED"},
		{MSR_SYSENTER_CS, 0x1234, 0, NULL},
	};
	static const struct msr_case amd[] = {
		{MSR_SYSCFG, 0x180000, 1u << 23, "MSR_RESERVED"},
		{MSR_MTRR_FIX4K(0), 0x1e1e1e1e1e1e1e1e, 0x2, "MSR_MTRR_TYPE"}, /* with MtrrFixDramModEn */
		{MSR_HWCR, 1u << 24, 1u << 12, "MSR_RESERVED"},
		{MSR_IORR(0), 0x80000018, 0x80000001, "MSR_RESERVED"},
		{MSR_IORR(3), 0xffff80000800, 0xffff80000400, "MSR_RESERVED"},
		{MSR_TOP_MEM, 0x80000000, 0x80000001, "MSR_RESERVED"},
		{MSR_SPEC_CTRL, 7, 8, "MSR_RESERVED"},
		{MSR_SMM_BASE, 0x40000, 1ull << 32, "MSR_RESERVED"},
		{MSR_SMM_ADDR, 0, 0, NULL},
		{MSR_SMM_MASK, 0, 0, NULL},
		{MSR_AMD_PERFEVTSEL(0), 0, 1u << 19, "MSR_RESERVED"},
	};

	(void)state;
	check_cases("intel", intel, sizeof(intel) / sizeof(intel[0]));
	check_cases("amd", amd, sizeof(amd) / sizeof(amd[0]));
}

static void test_access(void **state)
{
	static const uint32_t read_only[] = {MSR_MTRRCAP, MSR_PLATFORM_INFO, MSR_MCG_CAP,
					     MSR_ARCH_CAPABILITIES, MSR_PKG_CST_CONFIG};
	struct machine m;

	(void)state;
	system_open(&m, "intel,-vmx", CODE_64, 0);
	for (unsigned i = 0; i < sizeof(read_only) / sizeof(read_only[0]); i++)
		refuse_write(&m, "MSR_READ_ONLY", read_only[i], read_msr(&m, read_only[i]));
	refuse_read(&m, "MSR_WRITE_ONLY", MSR_PRED_CMD);
	write_msr(&m, MSR_PRED_CMD, 1);
	refuse_read(&m, "MSR_UNKNOWN", 0x12345678);
	refuse_write(&m, "MSR_UNKNOWN", 0x12345678, 0);
	refuse_read(&m, "MSR_UNKNOWN", MSR_HWCR); /* AMD's */
	refuse_read(&m, "MSR_UNKNOWN", MSR_VM_HSAVE_PA);
	refuse_read(&m, "MSR_UNKNOWN", MSR_FEATURE_CONTROL); /* without VMX and SMX */
	system_set_cpl(&m, 3);
	m.cpu->reg[RCX] = MSR_TSC;
	FAULTS(&m, "RDMSR.CPL0", VECTOR_GP, RDMSR);
	FAULTS(&m, "WRMSR.CPL0", VECTOR_GP, WRMSR);
	machine_close(&m);
	system_open(&m, "amd,-rdtscp,-rdpid,-svm", CODE_64, 0);
	refuse_read(&m, "MSR_UNKNOWN", MSR_PLATFORM_INFO);
	refuse_read(&m, "MSR_UNKNOWN", MSR_TSC_AUX);
	refuse_read(&m, "MSR_UNKNOWN", MSR_VM_CR); /* without SVM */
	refuse_read(&m, "MSR_WRITE_ONLY", MSR_PATCH_LOADER);
	write_msr(&m, MSR_PATCH_LOADER, 0xffff800000001000); /* where there is no patch that it takes */
	write_msr(&m, MSR_HWCR, HWCR_SMM_LOCK);
	assert_int_equal(read_msr(&m, MSR_HWCR), HWCR_SMM_LOCK | 1u << 24);
	refuse_write(&m, "MSR_LOCKED", MSR_SMM_BASE, 0);
	machine_close(&m);
}

/* ---- time: SDM 3B 18.17 ---- */

static uint64_t rdtsc(struct machine *m)
{
	assert_int_equal(RUN(m, RDTSC), NO_EVENT);
	return m->cpu->reg[RDX] << 32 | m->cpu->reg[RAX];
}

static void test_time(void **state)
{
	struct machine m;
	uint64_t before;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	before = rdtsc(&m);
	assert_int_equal(rdtsc(&m), before + 1);
	assert_int_equal(read_msr(&m, MSR_TSC), before + 2);
	write_msr(&m, MSR_MPERF, 1000);
	write_msr(&m, MSR_TSC, 0x100000000);
	assert_int_equal(rdtsc(&m), 0x100000001);
	assert_int_equal(read_msr(&m, MSR_MPERF), 1003);
	/* TSC_ADJUST moved with the TSC, and moves it. */
	uint64_t adjust = read_msr(&m, MSR_TSC_ADJUST);
	before = rdtsc(&m);
	write_msr(&m, MSR_TSC_ADJUST, adjust + 5000);
	assert_int_equal(rdtsc(&m), before + 5002);
	m.cpu->cr4 |= CR4_TSD;
	assert_int_equal(RUN(&m, RDTSC), NO_EVENT);
	system_set_cpl(&m, 3);
	FAULTS(&m, "RDTSC.TSD", VECTOR_GP, RDTSC);
	FAULTS(&m, "RDTSCP.TSD", VECTOR_GP, 0x0f, 0x01, 0xf9);
	machine_close(&m);
	system_open(&m, "amd", CODE_64, 3);
	m.cpu->reg[RCX] = 7;
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xfd), NO_EVENT); /* RDPRU of nothing */
	assert_true(m.cpu->reg[RAX] == 0 && m.cpu->reg[RDX] == 0);
	m.cpu->cr4 |= CR4_TSD;
	FAULTS(&m, "RDPRU.TSD_UD", VECTOR_UD, 0x0f, 0x01, 0xfd);
	machine_close(&m);
}

/* IA32_PERF_GLOBAL_CTRL stops a counter where it is; _STATUS keeps an overflow until _OVF_CTRL clears it. */
static void check_perf_global(struct machine *m)
{
	uint64_t count;

	assert_int_equal(read_msr(m, MSR_PERF_GLOBAL_CTRL), 0xf);
	write_msr(m, MSR_PMC(2), 100);
	write_msr(m, MSR_PERFEVTSEL(2), 0x4300c0);
	write_msr(m, MSR_PERF_GLOBAL_CTRL, 0xb);
	count = read_msr(m, MSR_PMC(2));
	assert_true(count > 100);
	assert_int_equal(read_msr(m, MSR_PMC(2)), count);
	write_msr(m, MSR_PERF_GLOBAL_CTRL, 0xf);
	assert_true(read_msr(m, MSR_PMC(2)) > count);
	assert_int_equal(read_msr(m, MSR_PERF_GLOBAL_STATUS), 0);
	write_msr(m, MSR_PMC(2), 0xfffffffe);
	for (unsigned i = 0; i < 4; i++)
		read_msr(m, MSR_PMC(2));
	assert_int_equal(read_msr(m, MSR_PERF_GLOBAL_STATUS), 4);
	write_msr(m, MSR_PMC(2), 5);
	assert_int_equal(read_msr(m, MSR_PERF_GLOBAL_STATUS), 4);
	write_msr(m, MSR_PERF_GLOBAL_OVF_CTRL, 0xb);
	assert_int_equal(read_msr(m, MSR_PERF_GLOBAL_STATUS), 4);
	write_msr(m, MSR_PERF_GLOBAL_OVF_CTRL, 4);
	assert_int_equal(read_msr(m, MSR_PERF_GLOBAL_STATUS), 0);
	assert_true(read_msr(m, MSR_PMC(2)) < 100);
	write_msr(m, MSR_PERFEVTSEL(2), 0);
	refuse_write(m, "MSR_RESERVED", MSR_PERF_GLOBAL_CTRL, 0x10);
	refuse_write(m, "MSR_READ_ONLY", MSR_PERF_GLOBAL_STATUS, 0);
	refuse_write(m, "MSR_RESERVED", MSR_PERF_GLOBAL_OVF_CTRL, 0x10);
}

static void test_counters(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	write_msr(&m, MSR_PMC(1), 0xffffffff); /* sign-extended to the counter's 48 bits */
	assert_int_equal(read_msr(&m, MSR_PMC(1)), 0xffffffffffff);
	write_msr(&m, MSR_PMC(1), 100);
	assert_int_equal(read_msr(&m, MSR_PMC(1)), 100);
	write_msr(&m, MSR_PERFEVTSEL(1), 0x4300c0);
	uint64_t count = read_msr(&m, MSR_PMC(1));
	assert_int_equal(read_msr(&m, MSR_PMC(1)), count + 1);
	m.cpu->reg[RCX] = 1;
	assert_int_equal(RUN(&m, RDPMC), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], count + 2);
	write_msr(&m, MSR_PERFEVTSEL(1), 0);
	count = read_msr(&m, MSR_PMC(1));
	assert_int_equal(read_msr(&m, MSR_PMC(1)), count);
	check_perf_global(&m);
	m.cpu->reg[RCX] = 4;
	FAULTS(&m, "RDPMC_INDEX", VECTOR_GP, RDPMC);
	m.cpu->reg[RCX] = 0;
	system_set_cpl(&m, 3);
	FAULTS(&m, "RDPMC.PCE", VECTOR_GP, RDPMC);
	m.cpu->cr4 |= CR4_PCE;
	assert_int_equal(RUN(&m, RDPMC), NO_EVENT);
	machine_close(&m);
}

/* ---- CPUID ---- */

static void cpuid(struct machine *m, uint32_t leaf, uint32_t subleaf)
{
	m->cpu->reg[RAX] = leaf;
	m->cpu->reg[RCX] = subleaf;
	assert_int_equal(RUN(m, CPUID), NO_EVENT);
}

static void test_cpuid(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->apic_id = 3;
	cpuid(&m, 1, 0);
	assert_int_equal(m.cpu->reg[RBX] >> 24, 3);
	assert_int_equal(m.cpu->reg[RAX], 0x806f8);
	assert_false(m.cpu->reg[RCX] >> 27 & 1);
	m.cpu->cr4 |= CR4_OSXSAVE | CR4_PKE;
	cpuid(&m, 1, 0);
	assert_true(m.cpu->reg[RCX] >> 27 & 1 && m.cpu->reg[RCX] >> 3 & 1);
	cpuid(&m, 7, 0);
	assert_true(m.cpu->reg[RCX] >> 4 & 1);
	m.cpu->xcr0 = 0x203;
	cpuid(&m, 0xd, 0);
	assert_int_equal(m.cpu->reg[RBX], 2696);
	cpuid(&m, 0x80000001, 0);
	assert_true(m.cpu->reg[RDX] >> 11 & 1 && m.cpu->reg[RDX] >> 20 & 1);
	write_msr(&m, MSR_MISC_ENABLE, MISC_ENABLE_XD_DISABLE | MISC_ENABLE_LIMIT_CPUID);
	cpuid(&m, 0x80000001, 0);
	assert_false(m.cpu->reg[RDX] >> 20 & 1);
	cpuid(&m, 0, 0);
	assert_int_equal(m.cpu->reg[RAX], 2);
	cpuid(&m, 1, 0);
	assert_false(m.cpu->reg[RCX] >> 3 & 1); /* MONITOR went with bit 18 */
	refuse_write(&m, "EFER_RESERVED", MSR_EFER, EFER_LME | EFER_NXE);
	FAULTS(&m, "MONITOR_DISABLED", VECTOR_UD, 0x0f, 0x01, 0xc8);
	write_msr(&m, MSR_MISC_FEATURES_ENABLES, 1);
	cpuid(&m, 0, 0);
	system_set_cpl(&m, 3);
	FAULTS(&m, "CPUID_FAULTING", VECTOR_GP, CPUID);
	machine_mode(&m, CODE_32);
	cpuid(&m, 0x80000001, 0);
	assert_false(m.cpu->reg[RDX] >> 11 & 1); /* Intel has SYSCALL in 64-bit mode only */
	machine_close(&m);
	system_open(&m, "amd", CODE_32, 0);
	cpuid(&m, 0x80000001, 0);
	assert_true(m.cpu->reg[RDX] >> 11 & 1);
	write_msr(&m, MSR_HWCR, HWCR_CPUID_USER_DISABLE);
	system_set_cpl(&m, 3);
	FAULTS(&m, "CPUID_FAULTING", VECTOR_GP, CPUID);
	machine_close(&m);
}

/* ---- FS and GS bases ---- */

static void test_bases(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	write_msr(&m, MSR_GS_BASE, 0x1111);
	write_msr(&m, MSR_KERNEL_GS_BASE, 0x2222);
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xf8), NO_EVENT);
	assert_true(m.cpu->segment[GS].linear_base == 0x2222 && m.cpu->msr.kernel_gs_base == 0x1111);
	FAULTS(&m, "RDGSBASE.FSGSBASE", VECTOR_UD, 0xf3, 0x48, 0x0f, 0xae, 0xc8);
	m.cpu->cr4 |= CR4_FSGSBASE;
	system_set_cpl(&m, 3);
	assert_int_equal(RUN(&m, 0xf3, 0x48, 0x0f, 0xae, 0xc8), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0x2222);
	m.cpu->reg[RAX] = 0x8000800080001234;
	FAULTS(&m, "BASE_CANONICAL", VECTOR_GP, 0xf3, 0x48, 0x0f, 0xae, 0xd0); /* WRFSBASE RAX */
	assert_int_equal(RUN(&m, 0xf3, 0x0f, 0xae, 0xd0), NO_EVENT);           /* WRFSBASE EAX */
	assert_int_equal(m.cpu->segment[FS].s.base, 0x80001234);
	FAULTS(&m, "SWAPGS.CPL0", VECTOR_GP, 0x0f, 0x01, 0xf8);
	machine_mode(&m, CODE_32);
	FAULTS(&m, NULL, VECTOR_UD, 0x0f, 0x01, 0xf8);
	FAULTS(&m, NULL, VECTOR_UD, 0xf3, 0x0f, 0xae, 0xc8);
	machine_close(&m);
}

/* The table is searched by index, so that it must be in order. */
static void test_order(void **state)
{
#define MC_BANKS 8u /* as in msr.c */
	static const struct {
		const char *name;
		uint32_t first, last;
	} rules[] = {
#define MSR(low, high, what, ...) {what, low, high},
#include "cpu/msr.def"
#undef MSR
	};

	(void)state;
	for (size_t i = 1; i < sizeof(rules) / sizeof(rules[0]); i++) {
		if (rules[i].first < rules[i - 1].first || rules[i].last < rules[i - 1].last)
			fail_msg("%s stands behind %s", rules[i].name, rules[i - 1].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_addresses), cmocka_unit_test(test_values),
		cmocka_unit_test(test_access),    cmocka_unit_test(test_time),
		cmocka_unit_test(test_counters),  cmocka_unit_test(test_cpuid),
		cmocka_unit_test(test_bases),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
