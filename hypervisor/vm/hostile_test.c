/*
 * The hostile guest (guests/hostile), whose rows say what each attack must end in: every attack gets
 * its verdict, the case behind it passes, and between the two the machine is as it was when the guest
 * was ready.
 */
#include <stdio.h>
#include <stdlib.h>

#include "vm/boot.h"
#include "vm/case_section.h"
#include "vm/suite.h"
#include "vm/test.h"

#define GUEST    "build/hostile/hostile.elf"
#define COMPARED (32u << 20) /* of memory, from both ends: no attack writes between */

static const struct promise {
	const char *id, *verdict, *words;
} promises[] = {
#define HOSTILE(name, in_mode, at_cpl, code, given, want, verdict, words) {name, verdict, words},
#include "../../guests/hostile/cases.def"
#undef HOSTILE
};
#define PROMISES (sizeof(promises) / sizeof(promises[0]))

struct session {
	struct suite suite;
	struct machine *machine;
	const struct case_list *list;
	unsigned started, ended, wrong;
	bool only_survive; /* another configuration than the rows speak of */
};

static int on_ready(void *owner)
{
	(void)owner;
	return 0;
}

static void complain(struct session *s, unsigned index, const char *what, const char *more)
{
	s->wrong++;
	print_error("%.*s: %s%s\n", SPAN_ARGS(s->list->entry[index].id), what, more);
}

static void compare_devices(struct session *s, unsigned index)
{
	const struct state_table *table;
	const uint8_t *wanted = s->suite.snapshot.devices;
	static uint8_t found[1 << 17];
	void *device;

	for (unsigned i = 0; (device = machine_device(s->machine, i, &table)); i++) {
		assert_true(state_size(table) <= sizeof(found));
		state_save(table, device, found);
		if (memcmp(found, wanted, state_size(table)) != 0)
			complain(s, index, "begins with a device changed: ", table->device);
		wanted += state_size(table);
	}
}

/* The machine that a case begins with, held against the one that was ready. */
static int on_started(void *owner, unsigned index)
{
	struct session *s = owner;
	const struct snapshot *snapshot = &s->suite.snapshot;
	size_t rest = snapshot->size - COMPARED;
	struct vcpu_state vcpu;

	assert_int_equal(index, s->started++);
	if (memcmp(s->machine->ram, snapshot->image, COMPARED) != 0 ||
	    memcmp(s->machine->ram + rest, snapshot->image + rest, COMPARED) != 0)
		complain(s, index, "begins with memory changed", "");
	memset(&vcpu, 0, sizeof(vcpu));
	s->machine->engine->ops->vcpu_save(s->machine->vcpu, &vcpu);
	if (memcmp(&vcpu, &snapshot->vcpus[0], sizeof(vcpu)) != 0)
		complain(s, index, "begins with the vCPU changed", "");
	compare_devices(s, index);
	return 0;
}

/* Whether @name is among the names that @choices joins by `|`. */
static bool among(const char *choices, const char *name)
{
	struct span rest = span_of(choices);

	while (rest.size)
		if (span_equals(span_take(&rest, '|'), name))
			return true;
	return false;
}

static int on_ended(void *owner, const struct judge_result *result, const struct suite_cost *cost)
{
	struct session *s = owner;
	const struct promise *promise = &promises[result->index / 2];
	const char *verdict = verdict_names[result->verdict];
	bool after = result->index % 2;
	char got[400];

	(void)cost;
	assert_int_equal(result->index, s->ended++);
	snprintf(got, sizeof(got), "%s (%.200s), not %s (%s)", verdict, result->why,
		 after ? "PASS" : promise->verdict, after ? "" : promise->words);
	if (after) {
		if (result->verdict != VERDICT_PASS)
			complain(s, result->index, "harmed: ", got);
	} else if (!s->only_survive) {
		if (!among(promise->verdict, verdict) || !strstr(result->why, promise->words))
			complain(s, result->index, "", got);
	}
	return 0;
}

static void run(const char *cpu, bool open_bus, bool survive)
{
	static struct session s;
	struct suite_options options = {.max_insns = 1000000, .timeout = 60000000000ull};
	struct suite_events events = {
		.owner = &s, .ready = on_ready, .started = on_started, .ended = on_ended};
	struct machine_config config = {.engine = &engine_soft,
					.cpu = cpu,
					.memory = MEMORY_DEFAULT,
					.open_bus = open_bus,
					.control = true,
					.owner = &s.suite,
					.console = suite_console,
					.serial = suite_serial};
	struct boot_options boot = {0};
	struct case_list list;
	struct image image;
	char why[512];

	if (image_open(&image, GUEST, why, sizeof(why)) ||
	    case_list_parse(&list, image.cases, why, sizeof(why)) ||
	    machine_new(&s.machine, &config, why, sizeof(why)) ||
	    boot_image(s.machine, &image, &boot, why, sizeof(why)))
		fail_msg("%s: %s", GUEST, why);
	assert_int_equal(list.count, 2 * PROMISES);
	s.list = &list;
	s.started = s.ended = s.wrong = 0;
	s.only_survive = survive;
	suite_init(&s.suite, &list, &options, &events);
	assert_int_equal(suite_run(&s.suite, s.machine), SUITE_COMPLETE);
	assert_int_equal(s.ended, list.count);
	assert_int_equal(s.wrong, 0);
	suite_free(&s.suite);
	machine_free(s.machine);
	case_list_free(&list);
	image_close(&image);
}

static void as_promised_on_amd(void **state)
{
	(void)state;
	run("amd", false, false);
}

static void as_promised_on_intel(void **state)
{
	(void)state;
	run("intel", false, false);
}

/* Accesses that no device answers go on, so that most attacks come further. */
static void survived_on_an_open_bus(void **state)
{
	(void)state;
	run("amd", true, true);
}

/* The rows and the guest's section are of one making. */
static void rows_are_in_order(void **state)
{
	struct case_list list;
	struct image image;
	char why[256], id[CASE_ID_MAX + 1];

	(void)state;
	assert_int_equal(image_open(&image, GUEST, why, sizeof(why)), 0);
	assert_int_equal(case_list_parse(&list, image.cases, why, sizeof(why)), 0);
	for (unsigned i = 0; i < PROMISES; i++) {
		snprintf(id, sizeof(id), "hostile.%s", promises[i].id);
		assert_true(span_equals(list.entry[2 * i].id, id));
	}
	case_list_free(&list);
	image_close(&image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_in_order),
		cmocka_unit_test(as_promised_on_amd),
		cmocka_unit_test(as_promised_on_intel),
		cmocka_unit_test(survived_on_an_open_bus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
