/* What a machine is, told and compared. */
#include "migrate/describe.h"
#include "migrate/test_stream.h"
#include "vm/test_machine.h"

static struct description here, there;
static char why[STREAM_WHY];

static void describe(struct description *description)
{
	struct test_output output;
	struct machine *machine = test_machine(&output);

	assert_int_equal(describe_machine(description, machine), 0);
	machine_free(machine);
}

static void set(struct description *description, const char *name, const char *text)
{
	for (unsigned i = 0; i < description->count; i++)
		if (strcmp(description->entry[i].name, name) == 0)
			snprintf(description->entry[i].text, DESCRIPTION_TEXT_MAX, "%s", text);
}

static void equal_machines_fit(void **state)
{
	(void)state;
	describe(&here);
	describe(&there);
	assert_true(describe_fits(&here, &there, why, sizeof(why)));
	assert_string_equal(describe_find(&here, "memory"), "4194304");
	assert_null(describe_find(&here, "colour"));
	set(&there, "engine", "other"); /* nothing that a guest can see */
	assert_true(describe_fits(&here, &there, why, sizeof(why)));
}

static void what_differs_is_named(void **state)
{
	(void)state;
	describe(&here);
	describe(&there);
	set(&there, "vcpus", "2");
	assert_false(describe_fits(&here, &there, why, sizeof(why)));
	assert_string_equal(why, "vcpus: the guest has 2, this machine 1");
	describe(&there);
	there.count--;
	assert_false(describe_fits(&here, &there, why, sizeof(why)));
	assert_non_null(strstr(why, "the guest has none"));
	assert_false(describe_fits(&there, &here, why, sizeof(why)));
	assert_non_null(strstr(why, "this machine none"));
}

/* Every entry but what may differ is compared. */
static void nothing_is_left_out(void **state)
{
	unsigned differ = 0, processor = 0;

	(void)state;
	describe(&here);
	for (unsigned i = 0; i < here.count; i++) {
		describe(&there);
		processor += strncmp(here.entry[i].name, "cpu", 3) == 0;
		snprintf(there.entry[i].text, DESCRIPTION_TEXT_MAX, "something else");
		differ += !describe_fits(&here, &there, why, sizeof(why));
	}
	assert_in_range(processor, 2, 4);
	assert_int_equal(differ, here.count - processor - 2);
}

static void written_and_read(void **state)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct stream_reader reader;
	struct stream_section section;

	(void)state;
	describe(&here);
	assert_int_equal(describe_write(&here, &writer), 0);
	reader = test_reader(&pipe);
	assert_int_equal(stream_read(&reader, &section), 0);
	assert_int_equal(section.type, STREAM_DESCRIPTION);
	memset(&there, 0, sizeof(there));
	for (size_t size = 0; size < section.payload.left; size++) {
		struct stream_cursor cut = {.at = section.payload.at, .left = size};

		assert_int_equal(describe_take(&there, &cut, why, sizeof(why)), -EPROTO);
	}
	assert_int_equal(describe_take(&there, &section.payload, why, sizeof(why)), 0);
	assert_true(describe_fits(&here, &there, why, sizeof(why)));
	stream_reader_free(&reader);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

/* A machine of profile @cpu. */
static struct machine *machine_of(const char *cpu)
{
	struct machine_config config = {.engine = &engine_soft, .cpu = cpu, .memory = MEMORY_DEFAULT, .vcpus = 1};
	struct machine *machine;

	if (machine_new(&machine, &config, why, sizeof(why)))
		fail_msg("%s: %s", cpu, why);
	return machine;
}

/* What a guest that was told @from makes of a machine of profile @to: NULL, it fits. */
static const char *accepted(const char *from, const char *to)
{
	struct machine *source = machine_of(from), *destination = machine_of(to);
	int error;

	assert_int_equal(describe_machine(&there, source), 0);
	error = describe_accept(&there, destination, why, sizeof(why));
	assert_true(error == 0 || error == -EINVAL);
	if (!error) { /* what goes on from there is the same again */
		assert_int_equal(describe_machine(&here, destination), 0);
		for (unsigned i = 0; i < 3; i++) {
			char name[16];
			const char *text;

			snprintf(name, sizeof(name), "cpuid %u", i);
			text = describe_find(&there, name);
			if (text)
				assert_string_equal(describe_find(&here, name), text);
		}
	}
	machine_free(source);
	machine_free(destination);
	return error ? why : NULL;
}

static void processors(void **state)
{
	(void)state;
	assert_null(accepted("amd", "amd"));
	assert_null(accepted("amd,-nx", "amd"));
	assert_null(accepted("amd,common", "intel"));
	assert_null(accepted("intel,common", "amd"));
	assert_null(accepted("intel,-vmx", "intel"));
	assert_string_equal(accepted("amd", "amd,-nx,-avx2"),
			    "the guest was told of features that this processor (amd,-nx,-avx2) lacks: avx2 nx");
	assert_non_null(strstr(accepted("amd", "intel"), ": svm cr8_legacy sse4a"));
	assert_non_null(strstr(accepted("intel", "amd"), "vmx tsc_deadline"));
	assert_string_equal(accepted("amd", "amd,phys-bits=40"),
			    "physical-address bits: the guest has 48, this processor 40");
	assert_non_null(strstr(accepted("amd", "intel"), "XSAVE component 9 (pku): 8 bytes at 832 for the guest, "
							 "8 at 2688 on this processor"));
}

static void texts_of_others(void **state)
{
	static const struct {
		const char *names[2], *text;
		uint32_t count;
		bool good;
	} lists[] = {{{"a", "b"}, "text", 2, true},
		     {{"a", "a"}, "text", 2, false},
		     {{"a", "b"}, "\033[2J", 2, false},
		     {{"a", "b"}, "text", 1, false},
		     {{"a", "b"}, "text", 3, false},
		     {{"a", "b"}, "text", 65, false},
		     {{"a name that is longer than any entry's", "b"}, "text", 2, false}};
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);

	(void)state;
	for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct stream_cursor cursor;

		stream_begin(&writer, STREAM_DESCRIPTION);
		stream_put_u32(&writer, lists[i].count);
		for (unsigned n = 0; n < 2; n++) {
			stream_put_text(&writer, lists[i].names[n]);
			stream_put_text(&writer, lists[i].text);
		}
		cursor = (struct stream_cursor){.at = writer.room + STREAM_SECTION_HEAD, .left = writer.size};
		if ((describe_take(&there, &cursor, why, sizeof(why)) == 0) != lists[i].good)
			fail_msg("list %u", i);
	}
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(equal_machines_fit),  cmocka_unit_test(what_differs_is_named),
		cmocka_unit_test(nothing_is_left_out), cmocka_unit_test(written_and_read),
		cmocka_unit_test(texts_of_others),	 cmocka_unit_test(processors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
