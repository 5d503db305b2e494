/* profile_test.c: profiles, switches and CPUID leaves. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/profile.h"

static char why[4000];

static struct profile parse(const char *text)
{
	struct profile profile;

	why[0] = 0;
	if (profile_parse(&profile, text, why, sizeof(why)))
		fail_msg("%s: %s", text, why);
	return profile;
}

static void refuse(const char *text, const char *reason)
{
	struct profile profile;

	assert_int_equal(profile_parse(&profile, text, why, sizeof(why)), -EINVAL);
	if (!strstr(why, reason))
		fail_msg("%s: %s", text, why);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(profile_name(0), "amd");
	assert_string_equal(profile_name(1), "intel");
	assert_null(profile_name(2));
	refuse("amdx", "no CPU profile is called 'amdx'");
	refuse("", "there are: amd intel");
	refuse("amd,umip", "neither");
	refuse("amd,+", "neither");
	refuse("amd,+nosuch", "no CPU feature is called 'nosuch'");
	refuse("intel,+sgx", "not modelled");
	refuse("intel,+smx", "not modelled");
	refuse("intel,-vmx,+vmx_ept", "needs 'vmx_secondary'");
	refuse("amd,+svm_avic", "not modelled");
	refuse("amd,-lm", "needs 'lm'");
	refuse("intel,-sse", "needs 'sse'");
	refuse("intel,-xsave", "'xsave'");
}

/* VT-x's capabilities come with it, and go with what they need. */
static void test_with_vmx(void **state)
{
	struct profile profile;

	(void)state;
	assert_int_equal(profile_parse(&profile, "intel,-vmx", why, sizeof(why)), 0);
	assert_false(profile_has(&profile, FEATURE_vmx_ept));
	assert_int_equal(profile_parse(&profile, "intel,-vmx,+vmx", why, sizeof(why)), 0);
	assert_true(profile_has(&profile, FEATURE_vmx_unrestricted));
	assert_int_equal(profile_parse(&profile, "intel,-vmx_ept", why, sizeof(why)), 0);
	assert_true(profile_has(&profile, FEATURE_vmx_secondary));
	assert_false(profile_has(&profile, FEATURE_vmx_unrestricted) || profile_has(&profile, FEATURE_vmx_pml));
	assert_int_equal(profile_parse(&profile, "intel,-rdtscp", why, sizeof(why)), 0);
	assert_false(profile_has(&profile, FEATURE_vmx_rdtscp));
	assert_int_equal(profile_parse(&profile, "amd", why, sizeof(why)), 0);
	assert_false(profile_has(&profile, FEATURE_vmx_secondary));
}

/* Each feature can be switched off, and what that shows in CPUID is its bit alone. */
static void test_every_feature(void **state)
{
	(void)state;
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		for (unsigned p = 0; profile_name(p); p++) {
			char text[64];
			struct profile profile;
			snprintf(text, sizeof(text), "%s,+%s", profile_name(p),
				 profile_feature_name(feature));
			if (profile_parse(&profile, text, why, sizeof(why))) {
				assert_true(strstr(why, "not modelled") || strstr(why, "needs"));
				continue;
			}
			assert_true(profile_has(&profile, feature));
			snprintf(text, sizeof(text), "%s,-%s", profile_name(p),
				 profile_feature_name(feature));
			if (profile_parse(&profile, text, why, sizeof(why)) == 0)
				assert_false(profile_has(&profile, feature));
			else
				assert_non_null(strstr(why, "needs"));
		}
	}
	assert_null(profile_feature_name(FEATURE_COUNT));
	assert_null(profile_feature_name(FEATURE_NONE));
}

static void text_of(struct cpuid_registers r, char *to) { memcpy(to, &r, sizeof(r)); }

static void test_vendor(void **state)
{
	struct profile amd = parse("amd"), intel = parse("intel");
	struct cpuid_registers r = profile_cpuid(&amd, 0, 0);
	char brand[49] = {0};

	(void)state;
	assert_int_equal(r.eax, 0xd);
	assert_true(r.ebx == 0x68747541 && r.edx == 0x69746e65 && r.ecx == 0x444d4163); /* AuthenticAMD */
	r = profile_cpuid(&intel, 0, 0);
	assert_true(r.ebx == 0x756e6547 && r.edx == 0x49656e69 && r.ecx == 0x6c65746e); /* GenuineIntel */
	assert_int_equal(profile_cpuid(&amd, 0x80000000, 0).eax, 0x80000021);
	assert_int_equal(profile_cpuid(&intel, 0x80000000, 0).eax, 0x80000008);
	for (uint32_t i = 0; i < 3; i++)
		text_of(profile_cpuid(&intel, 0x80000002 + i, 0), brand + 16 * i);
	assert_string_equal(brand, "Intel(R) Xeon(R) Trapline CPU @ 1.00GHz");
}

/* Bits by their place in the manual, not by way of features.def. */
static void test_bits(void **state)
{
	struct profile amd = parse("amd"), intel = parse("intel");
	struct cpuid_registers a, i;

	(void)state;
	a = profile_cpuid(&amd, 7, 0);
	i = profile_cpuid(&intel, 7, 0);
	assert_true(i.ecx >> 2 & 1 && a.ecx >> 2 & 1);    /* UMIP */
	assert_true(i.ecx >> 5 & 1 && !(a.ecx >> 5 & 1)); /* WAITPKG */
	assert_true(i.ecx >> 16 & 1 && i.ebx >> 20 & 1 && i.ebx >> 7 & 1 && i.ebx >> 10 & 1);
	assert_true(i.ebx >> 5 & 1 && a.ebx >> 5 & 1);    /* AVX2 */
	assert_true(i.ebx >> 29 & 1 && a.ebx >> 29 & 1);  /* SHA */
	assert_true(i.ebx >> 3 & 1 && i.ebx >> 8 & 1);    /* BMI1, BMI2 */
	i = profile_cpuid(&intel, 1, 0);
	assert_true(i.ecx >> 28 & 1); /* AVX */
	assert_true(i.ecx >> 1 & 1 && i.ecx >> 12 & 1 && i.ecx >> 25 & 1 && i.ecx >> 29 & 1); /* PCLMULQDQ, FMA, AES, F16C */
	assert_true(i.ecx >> 5 & 1); /* VMX */
	assert_false(i.ecx >> 27 & 1 || i.ecx >> 31 & 1);
	assert_true(i.ecx >> 26 & 1 && i.ecx >> 20 & 1 && i.ecx >> 17 & 1);
	a = profile_cpuid(&amd, 0x80000001, 0);
	assert_true(a.ecx >> 2 & 1); /* SVM */
	assert_true(a.ecx >> 6 & 1);  /* SSE4A */
	assert_true(a.ecx >> 29 & 1 && a.edx >> 11 & 1 && a.edx >> 29 & 1 && a.edx & 1);
	assert_false(profile_cpuid(&intel, 0x80000001, 0).edx & 1);
	a = profile_cpuid(&amd, 0x80000008, 0);
	assert_int_equal(a.eax & 0xffff, 48 | 57 << 8);
	assert_int_equal(a.edx >> 16, 1);
	assert_true(a.ebx >> 4 & 1 && a.ebx & 1);
	assert_int_equal(profile_cpuid(&intel, 0x80000008, 0).ebx & (1u << 4 | 1), 0);
	amd = parse("amd,-la57,-rdpru");
	a = profile_cpuid(&amd, 0x80000008, 0);
	assert_int_equal(a.eax >> 8 & 0xff, 48);
	assert_int_equal(a.edx, 0);
	assert_false(profile_cpuid(&amd, 7, 0).ecx >> 16 & 1);
}

static void test_sizes(void **state)
{
	struct profile amd = parse("amd"), intel = parse("intel"), none = parse("intel,-pku,-avx2,-fma,-f16c,-avx");
	struct cpuid_registers r = profile_cpuid(&intel, 0xd, 0);

	(void)state;
	assert_true(r.eax == 0x207 && r.ebx == 576 && r.ecx == 2696 && r.edx == 0);
	assert_int_equal(profile_cpuid(&amd, 0xd, 0).ecx, 840);
	assert_int_equal(profile_cpuid(&none, 0xd, 0).ecx, 576);
	assert_int_equal(profile_cpuid(&intel, 0xd, 2).eax, 256);
	assert_int_equal(profile_cpuid(&intel, 0xd, 2).ebx, 576);
	assert_int_equal(profile_cpuid(&intel, 0xd, 9).eax, 8);
	assert_int_equal(profile_cpuid(&none, 0xd, 9).eax, 0);
	assert_int_equal(profile_cpuid(&intel, 0xd, 1).eax, 0xf);
	assert_int_equal(profile_xsave_size(&intel, 0x203, true), 584);
}

/* SDM 2A CPUID: above the highest basic leaf, Intel repeats it; AMD says nothing. */
static void test_out_of_range(void **state)
{
	struct profile amd = parse("amd"), intel = parse("intel");
	struct cpuid_registers last = profile_cpuid(&intel, 0x16, 0), zero = {0}, r;
	static const uint32_t leaves[] = {0x17, 0x40000000, 0x7fffffff, 0x80000022, 0xffffffff};

	(void)state;
	for (unsigned i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		r = profile_cpuid(&intel, leaves[i], 0);
		assert_memory_equal(&r, &last, sizeof(r));
		r = profile_cpuid(&amd, leaves[i], 0);
		assert_memory_equal(&r, &zero, sizeof(r));
	}
	assert_int_equal(last.eax, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_with_vmx),  cmocka_unit_test(test_every_feature),
		cmocka_unit_test(test_vendor), cmocka_unit_test(test_bits),
		cmocka_unit_test(test_sizes),  cmocka_unit_test(test_out_of_range),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
