#include <errno.h>
#include <stdlib.h>

#include "vm/outcome.h"
#include "vm/test.h"

static char why[256];

static int parse(struct case_list *list, const char *text)
{
	why[0] = 0;
	return case_list_parse(list, span_of(text), why, sizeof(why));
}

static void whole(void **state)
{
	struct case_list list;
	const struct case_entry *entry;

	(void)state;
	assert_int_equal(case_list_parse(&list, test_span(), why, sizeof(why)), 0);
	assert_int_equal(list.count, 3);
	assert_int_equal(list.cell_count, 2);
	assert_true(span_equals(list.suite, "demo"));
	entry = &list.entry[0];
	assert_true(span_equals(entry->insn, "SGDT"));
	assert_int_equal(entry->cpl, 3);
	assert_int_equal(entry->want_count, 2);
	assert_int_equal(entry->cite_count, 2);
	assert_int_equal(list.want[entry->first_want + 1].outcome_count, 2);
	assert_true(span_equals(list.outcome[list.want[entry->first_want + 1].first_outcome + 1],
				"RUNS rax=1|2"));
	assert_true(span_equals(list.cite[0].title, "Store Global Descriptor Table Register"));
	assert_true(span_equals(list.cell[1].reason, "not modelled yet"));
	for (unsigned i = 0; i < list.count; i++)
		assert_int_equal(case_list_find(&list, list.entry[i].id), (int)i);
	assert_int_equal(case_list_find(&list, span_of("demo.nop.real.cpl")), -1);
	case_list_free(&list);
}

/* Whatever a byte becomes and wherever the text stops: an error with its reason or a list, never a crash. */
static void any_damage(void **state)
{
	size_t size = sizeof(test_section) - 1;
	char *text = malloc(size);
	struct case_list list;
	unsigned refused = 0;

	(void)state;
	for (size_t cut = 0; cut < size; cut++) {
		memcpy(text, test_section, cut);
		/* Only the newline behind the last word may be missing. */
		assert_int_equal(case_list_parse(&list, (struct span){text, cut}, why, sizeof(why)),
				 cut == size - 1 ? 0 : -EINVAL);
		assert_non_null(strstr(why, "case section"));
		case_list_free(&list);
	}
	for (size_t at = 0; at < size; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			memcpy(text, test_section, size);
			text[at] = (char)(text[at] ^ 1 << bit);
			if (case_list_parse(&list, (struct span){text, size}, why, sizeof(why)) == 0)
				case_list_free(&list);
			else
				refused++;
		}
	/* Titles, reasons and numbers can become others; the grammar catches most of the rest. */
	assert_true(refused > size * 4);
	free(text);
}

static void each_mistake(void **state)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"", "empty"},
		{"trapline-cases 2 demo 0\nend\n", "version"},
		{"trapline-cases 1 DEMO 0\nend\n", "suite"},
		{"trapline-cases 1 demo x\nend\n", "number of cases"},
		{"trapline-cases 1 demo 99999999\nend\n", "number of cases"},
		{"trapline-cases 1 demo 1\nend\n", "fewer"},
		{"trapline-cases 1 demo 0\ncase a B long 0 innocuous\nend\n", "more cases"},
		{"trapline-cases 1 demo 1\ncase A B long 0 innocuous\nend\n", "id"},
		{"trapline-cases 1 demo 1\ncase a B long 4 innocuous\nend\n", "case ID"},
		{"trapline-cases 1 demo 1\ncase a B flat 0 innocuous\nend\n", "case ID"},
		{"trapline-cases 1 demo 1\ncase a B long 0 funny\nend\n", "case ID"},
		{"trapline-cases 1 demo 1\ncase a B long 0 innocuous\ncite SDM 1 2 x\nend\n",
		 "no expectation"},
		{"trapline-cases 1 demo 1\ncase a B long 0 innocuous\nwant always RUNS\nend\n",
		 "no citation"},
		{"trapline-cases 1 demo 1\ncase a B long 0 innocuous\nwant never RUNS\nend\n", "predicate"},
		{"trapline-cases 1 demo 1\ncase a B long 0 innocuous\nwant always WALKS\nend\n", "kind"},
		{"trapline-cases 1 demo 1\ncase a B long 0 innocuous\nwant always FAULT\nend\n", "vector"},
		{"trapline-cases 1 demo 1\ncase a B long 0 innocuous\nor RUNS\nend\n", "without a want"},
		{"trapline-cases 1 demo 0\nwant always RUNS\nend\n", "before the first"},
		{"trapline-cases 1 demo 0\ncell X long 0 - untested\nend\n", "reason"},
		{"trapline-cases 1 demo 0\ncell X long 0 - not_encodable x\nend\n", "reason"},
		{"trapline-cases 1 demo 0\ncell X long 0 - perhaps\nend\n", "untested or"},
		{"trapline-cases 1 demo 0\nend\nend\n", "behind the end"},
		{"trapline-cases 1 demo 0\n\nend\n", "no word"},
		{"trapline-cases 1 demo 0\n\177\nend\n", "not text"},
		{"trapline-cases 1 demo 0\n", "before its end"},
	};
	struct case_list list;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(parse(&list, rows[i].text), -EINVAL);
		if (!strstr(why, rows[i].why))
			fail_msg("\"%s\" does not say \"%s\"", why, rows[i].why);
	}
}

static void same_id_twice(void **state)
{
	struct case_list list;

	(void)state;
	assert_int_equal(parse(&list, "trapline-cases 1 demo 2\n"
				      "case a X long 0 control\nwant always RUNS\ncite SDM 1 2 x\n"
				      "case a X long 0 control\nwant always RUNS\ncite SDM 1 2 x\nend\n"),
			 -EINVAL);
	assert_non_null(strstr(why, "two cases are called a"));
}

static int holds(const char *predicate, const struct machine_facts *facts)
{
	return predicate_holds(span_of(predicate), facts);
}

static void predicates(void **state)
{
	static const struct machine_facts intel = {
		.cpuid_count = 2,
		.cpuid = {{0, 0, {0x16, 0x756e6547, 0x6c65746e, 0x49656e69}}, {7, 0, {0, 1, 4, 0x80000000}}}};
	static const struct machine_facts amd = {.cpuid_count = 1,
						 .cpuid = {{0, 0, {1, 0x68747541, 0x444d4163, 0x69746e65}}}};
	static const struct machine_facts none;

	(void)state;
	assert_string_equal(machine_vendor(&intel), "intel");
	assert_string_equal(machine_vendor(&amd), "amd");
	assert_string_equal(machine_vendor(&none), "");
	assert_int_equal(holds("always", &none), 1);
	assert_int_equal(holds("vendor=intel", &intel), 1);
	assert_int_equal(holds("vendor=intel", &amd), 0);
	assert_int_equal(holds("vendor=amd", &amd), 1);
	assert_int_equal(holds("vendor=amd", &none), -ENODATA);
	assert_int_equal(holds("cpuid.7.0.ecx[2]=1", &intel), 1);
	assert_int_equal(holds("cpuid.7.0.ecx[2]=0", &intel), 0);
	assert_int_equal(holds("cpuid.7.0.ecx[3]=0", &intel), 1);
	assert_int_equal(holds("cpuid.7.0.edx[31]=1", &intel), 1);
	/* A leaf that the machine does not have is zeros; one that was not reported is unknown. */
	assert_int_equal(holds("cpuid.7.0.ecx[2]=1", &amd), 0);
	assert_int_equal(holds("cpuid.7.0.ecx[2]=0", &amd), 1);
	assert_int_equal(holds("cpuid.1.0.ecx[2]=0", &amd), -ENODATA);
	assert_int_equal(holds("cpuid.7.1.eax[0]=0", &intel), 1);
	assert_int_equal(holds("vendor=intel,cpuid.7.0.ebx[0]=1", &intel), 1);
	assert_int_equal(holds("vendor=intel,cpuid.7.0.ebx[0]=0", &intel), 0);
	assert_int_equal(holds("cpuid.1.0.eax[0]=1,vendor=amd", &intel), 0);
	assert_int_equal(holds("", &intel), -EINVAL);
	assert_int_equal(holds("vendor=intel,", &intel), -EINVAL);
	assert_int_equal(holds("vendor=via", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[32]=1", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[3:2]<2", &intel), 1);
	assert_int_equal(holds("cpuid.7.0.ecx[3:2]<1", &intel), 0);
	assert_int_equal(holds("cpuid.7.0.ecx[2:2]<1", &intel), 0);
	assert_int_equal(holds("cpuid.7.0.ecx[2:3]<1", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[2]<1", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[3:2]=1", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[3:2]<", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.exx[2]=1", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[2]=2", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.0.ecx[2]", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.7.ecx[2]=1", &intel), -EINVAL);
	assert_int_equal(holds("cpuid.100000000.0.ecx[2]=1", &intel), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole),         cmocka_unit_test(any_damage), cmocka_unit_test(each_mistake),
		cmocka_unit_test(same_id_twice), cmocka_unit_test(predicates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
