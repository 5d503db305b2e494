/* The state of a machine as sections: what comes is what was; and each way in which it could be refused. */
#include "migrate/state.h"
#include "migrate/test_stream.h"
#include "vm/test_machine.h"
#include "x86/control_device.h"

static struct machine *new_machine(unsigned vcpus)
{
	static struct test_output output;
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = TEST_MEMORY,
					.vcpus = vcpus,
					.control = true,
					.open_bus = true,
					.peripherals = {.entropy = true, .console = true}};
	struct machine *machine;
	char why[256];

	config.console = config.serial = config.virtio = test_console;
	config.owner = &output;
	if (machine_new(&machine, &config, why, sizeof(why)))
		fail_msg("%s", why);
	return machine;
}

/* ---- every device in a state that it is not made in ---- */

static void out(struct machine *machine, uint16_t port, unsigned size, uint32_t value)
{
	bus_port_out(&machine->bus, port, size, value);
}

static void mmio(struct machine *machine, uint64_t address, uint64_t value)
{
	bus_mmio_write(&machine->bus, address, &value, 8);
}

/* A virtio device's queue 0, by the driver's steps, in the base address register that the test gives it. */
static void program_virtio(struct machine *machine, unsigned slot, uint32_t base)
{
	uint32_t function = 0x80000000u | slot << 11;
	const struct {
		uint32_t offset;
		uint8_t size;
		uint32_t value;
	} steps[] = {{0x14, 1, 3},        {0x08, 4, 1}, {0x0c, 4, 1},        {0x14, 1, 11},
		     {0x16, 2, 0},        {0x18, 2, 8}, {0x20, 4, 0x200000}, {0x28, 4, 0x201000},
		     {0x30, 4, 0x202000}, {0x1c, 2, 1}, {0x14, 1, 15}};

	out(machine, 0xcf8, 4, function | 0x20);
	out(machine, 0xcfc, 4, base);
	out(machine, 0xcf8, 4, function | 0x04);
	out(machine, 0xcfc, 2, 6);
	for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		bus_mmio_write(&machine->bus, base + steps[i].offset, &steps[i].value, steps[i].size);
}

static void program(struct machine *machine)
{
	struct engine_vcpu *last = machine->vcpus[machine->vcpu_count - 1];
	struct vcpu_state state;

	machine_firmware(machine);  /* ACPI's ports are where it puts them */
	out(machine, 0x3f9, 1, 1); /* serial: received data interrupts */
	out(machine, 0x3fc, 1, 8);
	serial_receive(&machine->serial, 'x');
	out(machine, 0x80, 1, 0x42); /* debug */
	machine->control.ready = 1;
	out(machine, 0x70, 1, 0x8b); /* rtc: periodic interrupts */
	out(machine, 0x71, 1, 0x42);
	out(machine, 0x64, 1, 0x60); /* i8042: both interrupts, then the keyboard's identity */
	out(machine, 0x60, 1, 0x47);
	out(machine, 0x60, 1, 0xf2);
	out(machine, 0x00, 1, 0x12);  /* dma */
	out(machine, 0x510, 2, 0x19); /* fw_cfg */
	bus_port_in(&machine->bus, 0x511, 1);
	out(machine, 0xe0, 4, 0x11223344); /* testdev */
	mmio(machine, TESTDEV_MEMORY + 8, 77);
	out(machine, 0x43, 1, 0x34); /* pit: counter 0, mode 2 */
	out(machine, 0x40, 1, 0x00);
	out(machine, 0x40, 1, 0x10);
	mmio(machine, HPET_BASE + 0x100, 0x4);
	mmio(machine, HPET_BASE + 0x108, 100000);
	mmio(machine, HPET_BASE + 0x10, 1);
	out(machine, ACPI_PM1_EVENT + 2, 2, 1); /* acpi: timer overflow interrupts */
	out(machine, 0xcf8, 4, 0x80000058);     /* bridges: a shadow register, an interrupt line */
	out(machine, 0xcfd, 1, 0x30);
	out(machine, 0xcf8, 4, 0x8000083c);
	out(machine, 0xcfc, 1, 7);
	machine->engine->ops->interrupt_input(machine->engine, 20, true);
	machine->engine->ops->nmi(machine->engine, 0);
	program_virtio(machine, 2, 0xd0000000);
	program_virtio(machine, 3, 0xd0010000);
	machine->engine->ops->vcpu_save(last, &state);
	for (unsigned i = 0; i < GPR_COUNT; i++)
		state.gpr[i] = 0x1111111111111111ull * i;
	state.rip = 0x1234;
	state.cr2 = 0x5678;
	state.nmi_blocked = 1;
	state.vector[63] = 9;
	assert_int_equal(machine->engine->ops->vcpu_load(last, &state), 0);
	assert_true(machine_write(machine, 0x3ff000, "moved", 6));
}

static struct test_pipe written(struct machine *machine)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct parts parts;

	assert_int_equal(parts_init(&parts, machine), 0);
	assert_int_equal(parts_write(&parts, &writer, PARTS_ALL), parts.count);
	parts_free(&parts);
	stream_writer_free(&writer);
	return pipe;
}

/* Takes all sections of the pipe; 0 or the first error. */
static int take_all(struct parts *parts, struct test_pipe *pipe)
{
	struct stream_reader reader;
	struct stream_section section;
	int error = 0;

	pipe->taken = 0;
	reader = test_reader(pipe);
	parts_begin(parts, PARTS_ALL);
	while (!error && stream_read(&reader, &section) == 0) {
		assert_int_equal(section.type, STREAM_PART);
		error = parts_take(parts, &section.payload);
	}
	stream_reader_free(&reader);
	return error;
}

/* Tables of which every field is as it was made; those named may be so. */
static void check_all_changed(struct parts *made, struct parts *now)
{
	static const char *const idle[] = {"time", "kvmclock", "latches"};

	for (unsigned i = 0; i < now->count; i++) {
		const struct part *part = &now->part[i];
		bool may = false;

		for (unsigned j = 0; j < sizeof(idle) / sizeof(idle[0]); j++)
			may |= strcmp(part->table->device, idle[j]) == 0;
		if (!may && part->instance == 0 && part->object &&
		    !state_difference(part->table, part->object, made->part[i].object))
			fail_msg("%s is as it was made: the test must program it", part->table->device);
	}
}

static void everything_comes(void **state)
{
	struct machine *source = new_machine(2), *destination = new_machine(2);
	struct parts here, there;
	struct test_pipe pipe;
	char text[128];

	(void)state;
	program(source);
	pipe = written(source);
	assert_int_equal(parts_init(&here, destination), 0);
	assert_int_equal(parts_init(&there, source), 0);
	check_all_changed(&here, &there);
	assert_true(parts_differ(&there, &here, text, sizeof(text)));
	assert_int_equal(take_all(&here, &pipe), 0);
	assert_true(parts_differ(&there, &here, text, sizeof(text))); /* nothing is loaded yet */
	if (parts_load(&here))
		fail_msg("%s", here.why);
	if (parts_differ(&there, &here, text, sizeof(text)))
		fail_msg("%s", text);
	assert_true(parts_differs(&there, &here, text, sizeof(text)));
	assert_string_equal(text, "RAM at 0x3ff000");
	/* Timers are armed as they were. */
	assert_int_equal(destination->clock.next, source->clock.next);
	assert_true(destination->clock.next != CLOCK_NEVER);
	parts_free(&here);
	parts_free(&there);
	test_pipe_free(&pipe);
	machine_free(source);
	machine_free(destination);
}

static void the_first_difference_is_named(void **state)
{
	struct machine *a = new_machine(2), *b = new_machine(2);
	struct parts one, other;
	char text[128];

	(void)state;
	assert_int_equal(parts_init(&one, a), 0);
	assert_int_equal(parts_init(&other, b), 0);
	assert_false(parts_differs(&one, &other, text, sizeof(text)));
	b->platform.i8042.queue_count = 1;
	assert_true(parts_differs(&one, &other, text, sizeof(text)));
	assert_string_equal(text, "i8042 0: queue_count");
	parts_free(&one);
	parts_free(&other);
	machine_free(a);
	machine_free(b);
}

/* ---- refusals ---- */

/* How one part's payload is to be another than parts_write() makes it. */
struct forgery {
	const char *part, *field;
	enum {
		AS_IS,
		RENAME,
		RESIZE,
		LEAVE_OUT,
		SWAP,
		VERSION,
		INSTANCE,
		BEHIND,
		CUT,
		OTHER_PART,
		VALUE
	} what;
	uint8_t value;
	const char *reason;
};

static void put_field(struct stream_writer *writer, const struct state_field *field, const char *name,
		      uint32_t size, const uint8_t *object, const struct forgery *forgery)
{
	uint8_t *bytes;

	stream_put_text(writer, name);
	stream_put_u32(writer, size);
	bytes = stream_put_room(writer, size);
	memset(bytes, 0, size);
	memcpy(bytes, object + field->offset, size < field->size ? size : field->size);
	if (forgery->what == VALUE && strcmp(field->name, forgery->field) == 0)
		bytes[0] = forgery->value;
}

static void put_fields(struct stream_writer *writer, const struct part *part, const uint8_t *object,
		       const struct forgery *forgery)
{
	const struct state_table *table = part->table;

	for (unsigned i = 0; i < table->count; i++) {
		const struct state_field *field = &table->field[i];
		bool it = forgery->field && strcmp(field->name, forgery->field) == 0;

		if (it && forgery->what == LEAVE_OUT)
			continue;
		if (it && forgery->what == SWAP)
			field = &table->field[i + 1];
		else if (i && forgery->what == SWAP && strcmp(table->field[i - 1].name, forgery->field) == 0)
			field = &table->field[i - 1];
		put_field(writer, field, it && forgery->what == RENAME ? "nonsense" : field->name,
			  (uint32_t)field->size + (it && forgery->what == RESIZE), object, forgery);
	}
}

static struct stream_cursor forged(struct parts *parts, struct stream_writer *writer,
				   const struct forgery *forgery)
{
	const struct part *part = NULL;
	const struct state_table *table;

	for (unsigned i = 0; i < parts->count && !part; i++)
		if (strcmp(parts->part[i].table->device, forgery->part) == 0)
			part = &parts->part[i];
	assert_non_null(part);
	table = part->table;
	stream_begin(writer, STREAM_PART);
	stream_put_text(writer, forgery->what == OTHER_PART ? "toaster" : table->device);
	stream_put_u32(writer, table->version + (forgery->what == VERSION));
	stream_put_u32(writer, forgery->what == INSTANCE ? 7 : 0);
	stream_put_u32(writer, table->count - (forgery->what == LEAVE_OUT));
	put_fields(writer, part, part->object, forgery);
	if (forgery->what == BEHIND)
		stream_put_u8(writer, 0);
	return (struct stream_cursor){.at = writer->room + STREAM_SECTION_HEAD,
				      .left = writer->size - (forgery->what == CUT)};
}

static void what_does_not_fit_is_named(void **state)
{
	static const struct forgery forgeries[] = {
		{"serial", "lcr", AS_IS, 0, NULL},
		{"serial", "lcr", RENAME, 0, "serial: field nonsense is unknown here"},
		{"serial", "lcr", RESIZE, 0, "serial: field lcr has 2 bytes there, and 1 here"},
		{"serial", "lcr", LEAVE_OUT, 0, "serial: field lcr is missing, or not in its place"},
		{"serial", "thr_empty_pending", LEAVE_OUT, 0, "serial: field thr_empty_pending is missing"},
		{"serial", "lcr", SWAP, 0, "serial: field lcr is missing, or not in its place"},
		{"serial", NULL, VERSION, 0, "serial has version 3 there, and 2 here"},
		{"serial", NULL, INSTANCE, 0, "serial 7 is not there in this machine"},
		{"serial", NULL, OTHER_PART, 0, "toaster is not there in this machine"},
		{"serial", NULL, BEHIND, 0, "serial has 1 bytes behind its last field"},
		{"serial", NULL, CUT, 0, "serial ends too early"},
	};
	struct machine *machine = new_machine(1);
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct parts parts;

	(void)state;
	assert_int_equal(parts_init(&parts, machine), 0);
	for (unsigned i = 0; i < sizeof(forgeries) / sizeof(forgeries[0]); i++) {
		const struct forgery *forgery = &forgeries[i];
		struct stream_cursor payload = forged(&parts, &writer, forgery);
		int error;

		parts_begin(&parts, PARTS_ALL);
		error = parts_take(&parts, &payload);
		assert_int_equal(error, forgery->reason ? -EPROTO : 0);
		if (forgery->reason)
			assert_string_equal(parts.why, forgery->reason);
	}
	parts_free(&parts);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(machine);
}

/* Each truncation of a part is refused, and none is read past its end (see it with the address sanitizer). */
static void cut_off_anywhere(void **state)
{
	static const struct forgery whole = {.part = "pit"};
	struct machine *machine = new_machine(1);
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct parts parts;
	struct stream_cursor payload;

	(void)state;
	assert_int_equal(parts_init(&parts, machine), 0);
	payload = forged(&parts, &writer, &whole);
	for (size_t size = 0; size < payload.left; size++) {
		uint8_t *copy = malloc(size + 1);
		struct stream_cursor cut = {.at = copy, .left = size};

		memcpy(copy, payload.at, size);
		assert_int_equal(parts_take(&parts, &cut), -EPROTO);
		assert_true(parts.why[0]);
		free(copy);
	}
	assert_int_equal(parts_take(&parts, &payload), 0);
	parts_free(&parts);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(machine);
}

static void twice_or_never(void **state)
{
	static const struct forgery whole = {.part = "pit"};
	struct machine *machine = new_machine(1);
	struct test_pipe pipe = written(machine), spare = {0};
	struct stream_writer writer = test_writer(&spare);
	struct parts parts;
	struct stream_cursor payload;

	(void)state;
	assert_int_equal(parts_init(&parts, machine), 0);
	assert_int_equal(take_all(&parts, &pipe), 0);
	payload = forged(&parts, &writer, &whole);
	assert_int_equal(parts_take(&parts, &payload), -EPROTO);
	assert_string_equal(parts.why, "pit 0 has come twice");
	parts_begin(&parts, PARTS_ALL);
	payload = forged(&parts, &writer, &whole);
	assert_int_equal(parts_take(&parts, &payload), 0);
	assert_int_equal(parts_load(&parts), -EPROTO);
	assert_string_equal(parts.why, "time 0 has not come");
	parts_free(&parts);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	test_pipe_free(&spare);
	machine_free(machine);
}

/* Takes everything of a good stream but the part that @forgery makes. */
static int load_with(struct machine *machine, const struct forgery *forgery, char *why)
{
	struct machine *source = new_machine(2);
	struct test_pipe pipe = written(source), spare = {0};
	struct stream_writer writer = test_writer(&spare);
	struct stream_reader reader = test_reader(&pipe);
	struct stream_section section;
	struct stream_cursor payload;
	struct parts parts, origin;
	int error;

	assert_int_equal(parts_init(&parts, machine), 0);
	assert_int_equal(parts_init(&origin, source), 0);
	while (stream_read(&reader, &section) == 0) {
		struct stream_cursor name = section.payload;
		char text[32];
		bool first;

		stream_take_text(&name, text, sizeof(text));
		stream_take_u32(&name);
		first = stream_take_u32(&name) == 0;
		if (!first || strcmp(text, forgery->part) != 0)
			assert_int_equal(parts_take(&parts, &section.payload), 0);
	}
	payload = forged(&origin, &writer, forgery);
	if (parts_take(&parts, &payload))
		fail_msg("%s", parts.why);
	error = parts_load(&parts);
	snprintf(why, STREAM_WHY, "%s", parts.why);
	parts_free(&parts);
	parts_free(&origin);
	stream_reader_free(&reader);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	test_pipe_free(&spare);
	machine_free(source);
	return error;
}

/* What would lead out of an array is refused before anything is loaded. */
static void what_cannot_be_is_not_loaded(void **state)
{
	static const struct forgery forgeries[] = {
		{"serial", "fifo_first", VALUE, 16, "serial 0 cannot be in such a state: fifo_first"},
		{"serial", "fifo_count", VALUE, 17, "serial 0 cannot be in such a state: fifo_count"},
		{"i8042", "queue_first", VALUE, 16, "i8042 0 cannot be in such a state: queue_first"},
		{"i8042", "queue_count", VALUE, 17, "i8042 0 cannot be in such a state: queue_count"},
		{"i8042", "scan_code_set", VALUE, 4, "i8042 0 cannot be in such a state: scan_code_set"},
		{"time", "turn", VALUE, 2, "time 0 cannot be in such a state: turn"},
		{"latches", "init_pending", VALUE, 2,
		 "latches 0 cannot be in such a state: init_pending"},
		{"virtio-rng", "virtio.queue[0].enabled", VALUE, 1, NULL},
	};
	struct machine *machine = new_machine(2);

	(void)state;
	program(machine);
	for (unsigned i = 0; i < sizeof(forgeries) / sizeof(forgeries[0]); i++) {
		uint8_t scratch = machine->serial.ier;
		char why[STREAM_WHY];
		int error = load_with(machine, &forgeries[i], why);

		assert_int_equal(error, forgeries[i].reason ? -EPROTO : 0);
		if (!forgeries[i].reason)
			continue;
		assert_string_equal(why, forgeries[i].reason);
		assert_int_equal(machine->serial.ier, scratch);
	}
	machine_free(machine);
}

/* ---- mutants ---- */

static void a_field_can_be_left_out(void **state)
{
	struct machine *source = new_machine(1), *destination = new_machine(1);
	struct test_pipe pipe;
	struct parts here, there;
	char text[128], name[128];
	unsigned count = 0;

	(void)state;
	program(source);
	pipe = written(source);
	assert_int_equal(parts_init(&here, destination), 0);
	assert_int_equal(parts_init(&there, source), 0);
	assert_false(parts_break(destination, "STATE:vcpu.nonsense"));
	assert_true(parts_break(destination, "STATE:rtc.cmos"));
	assert_int_equal(take_all(&here, &pipe), 0);
	assert_int_equal(parts_load(&here), 0);
	assert_true(parts_differ(&there, &here, text, sizeof(text)));
	assert_string_equal(text, "rtc 0: cmos");
	assert_true(parts_break(destination, "STATE:vcpu.cr2"));
	assert_int_equal(take_all(&here, &pipe), 0);
	assert_int_equal(parts_load(&here), 0);
	assert_true(parts_differ(&there, &here, text, sizeof(text)));
	assert_string_equal(text, "vcpu 0: cr2");
	assert_true(parts_break(destination, NULL));
	while (parts_break_name(destination, count, name, sizeof(name))) {
		assert_true(parts_break(destination, name));
		count++;
	}
	assert_true(count > 250);
	parts_break(destination, NULL);
	parts_free(&here);
	parts_free(&there);
	test_pipe_free(&pipe);
	machine_free(source);
	machine_free(destination);
}

/* ---- blobs ---- */

static void blobs_come_in_pieces(void **state)
{
	static uint8_t kernel[3u << 20];
	struct machine *source = new_machine(1), *destination = new_machine(1);
	struct platform_boot boot = {.kernel = kernel,
				     .kernel_size = sizeof(kernel),
				     .initrd = "i",
				     .initrd_size = 1,
				     .append = "words"};
	const struct fw_cfg_item *item = destination->platform.fw_cfg.item;
	static uint8_t rom[4096] = {0xea};
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct stream_reader reader;
	struct stream_section section;
	struct blobs blobs = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(kernel); i++)
		kernel[i] = (uint8_t)(i * 7 + (i >> 12));
	assert_int_equal(platform_describe_boot(&source->platform, &boot), 0);
	assert_int_equal(machine_add_rom(source, rom, sizeof(rom)), 0);
	assert_int_equal(blobs_write(source, &writer), 1 + 3 + 1 + 1);
	reader = test_reader(&pipe);
	while (stream_read(&reader, &section) == 0)
		assert_int_equal(blobs_take(&blobs, &section.payload), 0);
	assert_int_equal(blobs_load(&blobs, destination), 0);
	assert_int_equal(item[FW_CFG_KERNEL_DATA].size, sizeof(kernel));
	assert_memory_equal(item[FW_CFG_KERNEL_DATA].data, kernel, sizeof(kernel));
	assert_string_equal(item[FW_CFG_CMDLINE_DATA].data, "words");
	assert_memory_equal(destination->rom, rom, sizeof(rom));
	blobs_free(&blobs);
	stream_reader_free(&reader);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(source);
	machine_free(destination);
}

static void blobs_that_are_none(void **state)
{
	static const struct {
		const char *name;
		uint64_t size, offset;
		uint8_t bytes;
		const char *reason;
	} pieces[] = {{"toast", 1, 0, 1, "no kind"},  {"rom", ROM_MAX + 1ull, 0, 1, "too large"},
		      {"rom", 4, 2, 2, "do not fit"}, {"rom", 4, 0, 5, "do not fit"},
		      {"rom", 4, 0, 0, "do not fit"}, {"kernel", ~0ull, 0, 1, "too large"}};
	struct machine *machine = new_machine(1);
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct blobs blobs = {0};
	struct stream_cursor cursor;

	(void)state;
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		stream_begin(&writer, STREAM_BLOB);
		stream_put_text(&writer, pieces[i].name);
		stream_put_u64(&writer, pieces[i].size);
		stream_put_u64(&writer, pieces[i].offset);
		for (unsigned n = 0; n < pieces[i].bytes; n++)
			stream_put_u8(&writer, 1);
		cursor = (struct stream_cursor){.at = writer.room + STREAM_SECTION_HEAD, .left = writer.size};
		assert_int_equal(blobs_take(&blobs, &cursor), -EPROTO);
		assert_non_null(strstr(blobs.why, pieces[i].reason));
	}
	assert_int_equal(blobs_load(&blobs, machine), -EPROTO); /* a rom has begun */
	blobs_free(&blobs);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_comes),
		cmocka_unit_test(the_first_difference_is_named),
		cmocka_unit_test(what_does_not_fit_is_named),
		cmocka_unit_test(cut_off_anywhere),
		cmocka_unit_test(twice_or_never),
		cmocka_unit_test(what_cannot_be_is_not_loaded),
		cmocka_unit_test(a_field_can_be_left_out),
		cmocka_unit_test(blobs_come_in_pieces),
		cmocka_unit_test(blobs_that_are_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
