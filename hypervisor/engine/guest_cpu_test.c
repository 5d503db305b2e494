/* guest_cpu_test.c: CPUID as it travels: as text, compared, masked, and answered by. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/profile.h"
#include "engine/engine.h"
#include "engine/guest_cpu.h"

static char why[4096];

static struct guest_cpu told(const char *text)
{
	struct guest_cpu cpu;
	struct profile profile;

	if (profile_parse(&profile, text, why, sizeof(why)))
		fail_msg("%s: %s", text, why);
	profile_tell(&profile, &cpu);
	snprintf(cpu.name, sizeof(cpu.name), "%s", text);
	return cpu;
}

/* The table answers everything as the profile does that it was made of. */
static void answers(void **state)
{
	static const char *const profiles[] = {"amd", "intel", "amd,+kvmclock", "intel,+kvmclock,-vmx",
					       "amd,common"};
	static const uint32_t first[] = {0, 0x40000000, 0x7ffffff0, 0x80000000, 0xfffffff0};

	(void)state;
	for (size_t i = 0; i < sizeof(profiles) / sizeof(profiles[0]); i++) {
		struct guest_cpu cpu = told(profiles[i]);
		struct profile profile;

		profile_parse(&profile, profiles[i], why, sizeof(why));
		for (uint32_t k = 0; k < 5 * 0x40 * 70; k++) {
			uint32_t leaf = first[k / (0x40 * 70)] + k / 70 % 0x40, subleaf = k % 70;
			struct cpuid_registers r = profile_cpuid(&profile, leaf, subleaf);
			struct cpuid_row row = guest_cpu_answer(&cpu, leaf, subleaf);

			/* An out-of-range subleaf of a topology leaf has its number in ECX. */
			if (memcmp(row.value, &r, sizeof(r)))
				fail_msg("%s: leaf %x.%x", profiles[i], leaf, subleaf);
		}
	}
}

static void text(void **state)
{
	static char line[GUEST_CPU_TEXT], again[GUEST_CPU_TEXT];
	struct guest_cpu cpu = told("intel"), copy;
	int length = guest_cpu_print(&cpu, line, sizeof(line));

	(void)state;
	assert_true(length > 0 && (size_t)length < sizeof(line));
	assert_int_equal(guest_cpu_print(&cpu, NULL, 0), length);
	assert_int_equal(guest_cpu_parse(&copy, line, why, sizeof(why)), 0);
	guest_cpu_print(&copy, again, sizeof(again));
	assert_string_equal(line, again);
	assert_memory_equal(copy.row, cpu.row, cpu.count * sizeof(cpu.row[0]));
}

static void texts_that_are_none(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"", "without leaf 0"},
		{"0 1 2 3 4", "without the period"},
		{"apic_timer_ns 1\n0 1 2 3", "'0 1 2 3' is no row"},
		{"apic_timer_ns 1\n0 1 2 3 4 5", "is no row"},
		{"apic_timer_ns 1\n0 1 2 3 g", "is no row"},
		{"apic_timer_ns 1\n0 1 2 3 123456789", "is no row"},
		{"apic_timer_ns 1\nnonsense", "is no row"},
		{"apic_timer_ns 1\n0. 1 2 3 4", "is no row"},
		{"apic_timer_ns 1\n0 1 2 3 4\n0 1 2 3 4", "leaf 0 comes twice"},
	};
	static char many[GUEST_CPU_ROWS * 32];
	struct guest_cpu cpu;
	size_t used = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(guest_cpu_parse(&cpu, rows[i].text, why, sizeof(why)), -EINVAL);
		if (!strstr(why, rows[i].why))
			fail_msg("%s: %s", rows[i].text, why);
	}
	for (unsigned i = 0; i <= GUEST_CPU_ROWS; i++)
		used += (size_t)snprintf(many + used, sizeof(many) - used, "%x 1 2 3 4\n", i);
	assert_int_equal(guest_cpu_parse(&cpu, many, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "more than 256 rows"));
}

static void lacks(const char *guest, const char *here, const char *wanted)
{
	struct guest_cpu from = told(guest), to = told(here);
	int error = guest_cpu_check(&from, &to, why, sizeof(why));

	assert_int_equal(error, wanted ? -EINVAL : 0);
	if (wanted && !strstr(why, wanted))
		fail_msg("%s to %s: %s", guest, here, why);
}

static void compared(void **state)
{
	struct guest_cpu odd = told("amd"), plain = told("amd");

	(void)state;
	lacks("amd", "amd", NULL);
	lacks("amd,-nx", "amd", NULL);
	lacks("amd", "amd,-nx", "(amd,-nx) lacks: nx");
	lacks("intel", "intel,-vmx", "lacks: vmx"); /* and not its fifty capabilities */
	assert_null(strstr(why, "vmx_ept"));
	lacks("intel", "intel,-vmx_ept", "vmx_ept");
	lacks("amd", "amd,-svm", "lacks: svm");
	assert_null(strstr(why, "svm_npt"));
	lacks("amd,phys-bits=40", "amd", NULL);
	lacks("amd", "amd,phys-bits=40", "physical-address bits: the guest has 48, this processor 40");
	lacks("amd,-la57", "amd", NULL);
	lacks("amd", "amd,-la57", "la57");
	lacks("amd,common", "intel", NULL);
	lacks("intel,common", "amd", NULL);
	/* A bit that has no name is called by its place. */
	for (uint32_t i = 0; i < odd.count; i++)
		if (odd.row[i].leaf == 7 && odd.row[i].subleaf == 0)
			odd.row[i].value[1] |= 1u << 16;
	assert_int_equal(guest_cpu_check(&odd, &plain, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "lacks: 7.0.ebx.16"));
	assert_int_equal(guest_cpu_mask(&odd, "-7.0.ebx.16", why, sizeof(why)), 0);
	assert_int_equal(guest_cpu_check(&odd, &plain, why, sizeof(why)), 0);
	/* A TSC that is told to be constant is. */
	odd.tsc_khz = 2000000;
	assert_int_equal(guest_cpu_check(&odd, &plain, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(
		why, "invariant_tsc: the guest's TSC runs at 2000000 kHz, this processor's at 1000000 kHz"));
	assert_int_equal(guest_cpu_mask(&odd, "-invariant_tsc", why, sizeof(why)), 0);
	assert_int_equal(guest_cpu_check(&odd, &plain, why, sizeof(why)), 0);
}

static void masked(void **state)
{
	static const char *const wrong[] = {"nx",           "+nx",         "-nosuch",
					    "-7.0.exx.1",   "-7.0.ebx.32", "-7.0.ebx.",
					    "phys-bits=60", "phys-bits=x", "-"};
	struct guest_cpu cpu = told("amd");

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(guest_cpu_mask(&cpu, wrong[i], why, sizeof(why)), -EINVAL);
	assert_int_equal(guest_cpu_mask(&cpu, ",-nx,-pku,phys-bits=40", why, sizeof(why)), 0);
	assert_false(guest_cpu_value(&cpu, 0x80000001, 0, 3) >> 20 & 1);
	assert_int_equal(guest_cpu_value(&cpu, 0x80000008, 0, 0) & 0xff, 40);
	assert_int_equal(guest_cpu_value(&cpu, 0xd, 0, 0), 7);
	assert_int_equal(guest_cpu_value(&cpu, 0xd, 0, 2), 832); /* what ends where AVX does */
	assert_int_equal(guest_cpu_value(&cpu, 0xd, 9, 0), 0);
}

/* With the words that are told, a guest can go there and come back; and each of them is needed. */
static void common_words(void **state)
{
	static const char *const pairs[][2] = {
		{"amd", "intel"}, {"intel", "amd"}, {"amd", "amd,-avx2,phys-bits=39"}};

	(void)state;
	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
		struct guest_cpu from = told(pairs[i][0]), to = told(pairs[i][1]);
		char words[4096], profile[5000];

		assert_true(guest_cpu_common(&from, &to, words, sizeof(words)));
		snprintf(profile, sizeof(profile), "%s%s", pairs[i][0], words);
		from = told(profile);
		if (guest_cpu_check(&from, &to, why, sizeof(why)))
			fail_msg("%s: %s", profile, why);
		assert_true(guest_cpu_common(&from, &to, words, sizeof(words)));
		assert_string_equal(words, "");
	}
}

/* ---- an engine that takes it ---- */

static struct engine *opened(const char *cpu, struct engine_vcpu **vcpu)
{
	struct engine_config config = {.cpu = cpu, .vcpus = 1};
	struct engine *engine;

	assert_int_equal(engine_soft.open(&engine, &config, why, sizeof(why)), 0);
	assert_int_equal(engine_soft.vcpu_new(engine, vcpu), 0);
	return engine;
}

/* State is told in the form of the processor that the guest knows, and what the other does not have is
 * refused. */
static void state_of_the_other_vendor(void **state)
{
	static const struct {
		const char *told, *name;
		size_t offset;
		uint64_t good, bad;
	} rows[] = {
#define ROW(cpu, field, good, bad) {cpu, #field, offsetof(struct vcpu_state, field), good, bad}
		ROW("amd,common", hwcr, 1u << 24, 1u << 24 | 1u << 3),
		ROW("amd,common", syscfg, 0, 1u << 18),
		ROW("amd,common", top_mem, 0, 1u << 23),
		ROW("amd,common", last_branch_to, 0, 1),
		ROW("amd,common", debugctl, 0, 2),
		ROW("amd,common", perf_select, 0, 1),
		ROW("intel,common", misc_enable, 0x41801, 0x1801),
		ROW("intel,common", misc_features_enables, 0, 1),
		ROW("intel,common", tsc_deadline, 0, 1),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct guest_cpu cpu = told(rows[i].told);
		struct vcpu_state saved = {0}, again = {0};
		struct engine_vcpu *vcpu;
		struct engine *engine = opened(cpu.name[0] == 'a' ? "intel" : "amd", &vcpu);
		uint64_t value;

		assert_int_equal(engine_soft.cpu_take(engine, &cpu, why, sizeof(why)), 0);
		engine_soft.reset(engine);
		assert_int_equal(engine_soft.vcpu_save(vcpu, &saved), 0);
		memcpy(&value, (char *)&saved + rows[i].offset, 8);
		if (value != rows[i].good && strcmp(rows[i].name, "misc_enable"))
			fail_msg("%s is %llx", rows[i].name, (unsigned long long)value);
		assert_int_equal(engine_soft.vcpu_load(vcpu, &saved), 0);
		assert_int_equal(engine_soft.vcpu_save(vcpu, &again), 0);
		assert_memory_equal(&saved, &again, sizeof(saved));
		memcpy((char *)&saved + rows[i].offset, &rows[i].bad, 8);
		assert_int_equal(engine_soft.vcpu_load(vcpu, &saved), -EINVAL);
		if (!strstr(engine_soft.failure(engine), rows[i].name))
			fail_msg("%s: %s", rows[i].name, engine_soft.failure(engine));
		engine_soft.close(engine);
	}
}

/* RESET tells the signature that the guest knows (SDM 3A table 10-1), and CPUID goes on as it was. */
static void taken(void **state)
{
	struct guest_cpu cpu = told("amd,common"), now;
	struct vcpu_state saved = {0};
	struct engine_vcpu *vcpu;
	struct engine *engine = opened("intel", &vcpu);

	(void)state;
	assert_int_equal(engine_soft.cpu_take(engine, &cpu, why, sizeof(why)), 0);
	engine_soft.cpu_tell(engine, &now);
	assert_memory_equal(&now, &cpu, sizeof(cpu));
	engine_soft.reset(engine);
	assert_int_equal(engine_soft.vcpu_save(vcpu, &saved), 0);
	assert_int_equal(saved.gpr[RDX], guest_cpu_value(&cpu, 1, 0, 0));
	/* What it cannot take leaves it as it is. */
	cpu = told("amd");
	assert_int_equal(engine_soft.cpu_take(engine, &cpu, why, sizeof(why)), -EINVAL);
	engine_soft.cpu_tell(engine, &now);
	assert_string_equal(now.name, "amd,common");
	engine_soft.close(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers),
		cmocka_unit_test(text),
		cmocka_unit_test(texts_that_are_none),
		cmocka_unit_test(compared),
		cmocka_unit_test(masked),
		cmocka_unit_test(common_words),
		cmocka_unit_test(state_of_the_other_vendor),
		cmocka_unit_test(taken),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
