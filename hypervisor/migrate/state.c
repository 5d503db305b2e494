#include "migrate/state.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the vCPU's table ---- */

static const struct state_field vcpu_fields[] = {
#define VCPU_FIELD(type, name)        STATE(struct vcpu_state, name),
#define VCPU_ARRAY(type, name, count) STATE(struct vcpu_state, name),
#include "x86/vcpu_state.def"
#undef VCPU_FIELD
#undef VCPU_ARRAY
};
static STATE_TABLE(vcpu_table, "vcpu", 1, vcpu_fields);

/* ---- which parts there are ---- */

#define BREAK_PREFIX "STATE:"

/* The field that a mutant leaves out. */
static struct {
	const char *device, *field; /* of tables, which outlive any machine */
} broken;

/*
 * Part @index of the machine, in the order of loading: the time, devices, vCPUs, what else the engine has.
 * That begins with something of each vCPU, of which loading a vCPU makes it nothing, so it is always needed.
 */
static void *part_at(struct machine *machine, unsigned index, const struct state_table **table, bool *vcpu,
		     enum parts_group *group)
{
	const struct engine_ops *ops = machine->engine->ops;
	unsigned devices = 0;
	void *object;

	*vcpu = false;
	*group = PARTS_ALWAYS;
	if (index == 0)
		return ops->chip(machine->engine, 0, table);
	index--;
	while ((object = machine_device(machine, devices, table))) {
		if (devices++ != index)
			continue;
		*group = index < MACHINE_APART ? PARTS_ALWAYS : PARTS_DEVICES;
		return object;
	}
	index -= devices;
	if (index < machine->vcpu_count) {
		*vcpu = true;
		*table = &vcpu_table;
		return machine->vcpus[index];
	}
	index -= machine->vcpu_count;
	object = ops->chip(machine->engine, index + 1, table);
	if (index >= machine->vcpu_count && !(object && (*table)->idle))
		*group = PARTS_CHIPS;
	return object;
}

/* Appends to a payload that is being made; @to NULL: only counts. */
static void append(uint8_t *to, size_t *size, const void *bytes, size_t count)
{
	if (to)
		memcpy(to + *size, bytes, count);
	*size += count;
}

static void append32(uint8_t *to, size_t *size, uint32_t value)
{
	const uint8_t bytes[] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
				 (uint8_t)(value >> 24)};

	append(to, size, bytes, sizeof(bytes));
}

static void append_text(uint8_t *to, size_t *size, const char *text)
{
	size_t length = strlen(text);
	const uint8_t bytes[] = {(uint8_t)length, (uint8_t)(length >> 8)};

	append(to, size, bytes, sizeof(bytes));
	append(to, size, text, length);
}

/* The payload of a part without its fields' bytes. Returns its size. */
static size_t make_form(const struct part *part, uint8_t *to)
{
	const struct state_table *table = part->table;
	size_t size = 0;

	append_text(to, &size, table->device);
	append32(to, &size, table->version);
	append32(to, &size, part->instance);
	append32(to, &size, table->count);
	for (unsigned i = 0; i < table->count; i++) {
		append_text(to, &size, table->field[i].name);
		append32(to, &size, (uint32_t)table->field[i].size);
		if (to)
			part->at[i] = (uint32_t)size;
		size += table->field[i].size;
	}
	return size;
}

static bool prepare(struct part *part)
{
	part->size = (uint32_t)make_form(part, NULL);
	part->at = calloc(part->table->count + 1, sizeof(*part->at));
	part->form = calloc(3, part->size);
	part->reached = calloc(part->table->count + 1, sizeof(*part->reached));
	if (!part->at || !part->form || !part->reached)
		return false;
	part->come = part->form + part->size;
	part->made = part->come + part->size;
	make_form(part, part->form);
	return true;
}

/* As many bytes as the fields of a table reach over. */
static size_t extent(const struct state_table *table)
{
	size_t size = 0;

	for (unsigned i = 0; i < table->count; i++) {
		size_t end = table->field[i].offset + table->field[i].size;

		size = end > size ? end : size;
	}
	return size;
}

static int add_part(struct parts *parts, unsigned index)
{
	struct part *part = &parts->part[parts->count];
	const struct state_table *table;
	bool vcpu;

	part->object = part_at(parts->machine, index, &table, &vcpu, &part->group);
	part->table = table;
	if (vcpu)
		part->object = NULL;
	for (unsigned i = 0; i < parts->count; i++)
		part->instance += strcmp(parts->part[i].table->device, table->device) == 0;
	parts->count++;
	return prepare(part) ? 0 : -ENOMEM;
}

static int save_part(struct parts *parts, const struct part *part, uint8_t *payload);

int parts_init(struct parts *parts, struct machine *machine)
{
	const struct state_table *table;
	size_t scratch = 1;
	unsigned count = 0;
	enum parts_group group;
	int error = 0;
	bool vcpu;

	*parts = (struct parts){.machine = machine};
	while (part_at(machine, count, &table, &vcpu, &group)) {
		scratch = extent(table) > scratch ? extent(table) : scratch;
		count++;
	}
	parts->part = calloc(count, sizeof(*parts->part));
	parts->scratch = calloc(1, scratch);
	if (!parts->part || !parts->scratch)
		error = -ENOMEM;
	for (unsigned i = 0; i < count && !error; i++)
		error = add_part(parts, i);
	if (!error)
		error = machine->engine->ops->chips_fetch(machine->engine);
	for (unsigned i = 0; i < count && !error; i++)
		error = save_part(parts, &parts->part[i], parts->part[i].made);
	if (error) {
		parts_free(parts);
		return error;
	}
	parts_begin(parts, PARTS_ALL);
	return 0;
}

void parts_free(struct parts *parts)
{
	for (unsigned i = 0; i < parts->count; i++) {
		free(parts->part[i].at);
		free(parts->part[i].reached);
		free(parts->part[i].form);
	}
	free(parts->part);
	free(parts->scratch);
	parts->part = NULL;
	parts->scratch = NULL;
	parts->count = 0;
}

/* ---- reasons ---- */

__attribute__((format(printf, 2, 3))) static int refuse(struct parts *parts, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(parts->why, sizeof(parts->why), format, arguments);
	va_end(arguments);
	return -EPROTO;
}

static const char *engine_failure(const struct machine *machine)
{
	const char *failure = machine->engine->ops->failure(machine->engine);

	return failure && failure[0] ? failure : "the engine does not say why";
}

/* ---- saving ---- */

/* What a part's fields are read from; NULL: the engine cannot say, and parts->why has its reason. */
static const uint8_t *object_of(struct parts *parts, const struct part *part)
{
	struct machine *machine = parts->machine;

	if (part->object)
		return part->object;
	if (machine->engine->ops->vcpu_save(machine->vcpus[part->instance], &parts->vcpu) == 0)
		return (const uint8_t *)&parts->vcpu;
	refuse(parts, "%s", engine_failure(machine));
	return NULL;
}

static int save_part(struct parts *parts, const struct part *part, uint8_t *payload)
{
	const struct state_table *table = part->table;
	const uint8_t *object = object_of(parts, part);

	if (!object)
		return -EIO;
	memcpy(payload, part->form, part->size);
	for (unsigned i = 0; i < table->count; i++)
		memcpy(payload + part->at[i], object + table->field[i].offset, table->field[i].size);
	return 0;
}

/* What is the engine's own, and empty, is told nobody. */
static bool is_idle(const struct part *part) { return part->table->idle && part->table->idle(part->object); }

int parts_write(struct parts *parts, struct stream_writer *writer, unsigned groups)
{
	struct engine *engine = parts->machine->engine;
	int error = engine->ops->chips_fetch(engine), written = 0;

	if (error)
		refuse(parts, "%s", engine_failure(parts->machine));
	memset(&parts->vcpu, 0, sizeof(parts->vcpu));
	for (unsigned i = 0; i < parts->count && !error; i++) {
		const struct part *part = &parts->part[i];
		uint8_t *payload;

		if (!(part->group & groups) || is_idle(part))
			continue;
		written++;
		stream_begin(writer, STREAM_PART);
		payload = stream_put_room(writer, part->size);
		if (payload)
			error = save_part(parts, part, payload);
		if (!error)
			error = stream_end(writer);
	}
	return error ? error : written;
}

/* ---- receiving ---- */

void parts_begin(struct parts *parts, unsigned groups)
{
	parts->groups = groups;
	parts->missing = 0;
	parts->next = 0;
	for (unsigned i = 0; i < parts->count; i++) {
		parts->part[i].here = false;
		parts->missing += (parts->part[i].group & groups) && !parts->part[i].table->clear;
	}
	parts->why[0] = 0;
}

/* Whether the payload is what make_form() makes, but for the fields' bytes. */
static bool has_form(const struct part *part, const uint8_t *payload, size_t size)
{
	const struct state_table *table = part->table;
	size_t from = 0;

	if (size != part->size)
		return false;
	for (unsigned i = 0; i < table->count; i++) {
		if (memcmp(payload + from, part->form + from, part->at[i] - from) != 0)
			return false;
		from = part->at[i] + table->field[i].size;
	}
	return memcmp(payload + from, part->form + from, size - from) == 0;
}

static bool has_field(const struct state_table *table, const char *name)
{
	for (unsigned i = 0; i < table->count; i++)
		if (strcmp(table->field[i].name, name) == 0)
			return true;
	return false;
}

/* Says what is wrong with a payload that does not have the form of its part. */
static int blame(struct parts *parts, const struct part *part, struct stream_cursor payload)
{
	const struct state_table *table = part->table;
	uint32_t version = stream_take_u32(&payload), count;
	char name[64];

	if (version != table->version)
		return refuse(parts, "%s has version %" PRIu32 " there, and %" PRIu32 " here", table->device,
			      version, table->version);
	stream_take_u32(&payload);
	count = stream_take_u32(&payload);
	for (uint32_t i = 0; i < count; i++) {
		const struct state_field *field = i < table->count ? &table->field[i] : NULL;
		uint32_t size;

		stream_take_text(&payload, name, sizeof(name));
		size = stream_take_u32(&payload);
		if (payload.over)
			break;
		if (!has_field(table, name))
			return refuse(parts, "%s: field %s is unknown here", table->device, name);
		if (!field || strcmp(field->name, name) != 0)
			return refuse(parts, "%s: field %s is %s", table->device, field ? field->name : name,
				      field ? "missing, or not in its place" : "there twice");
		if (size != field->size)
			return refuse(parts, "%s: field %s has %" PRIu32 " bytes there, and %zu here",
				      table->device, name, size, field->size);
		stream_take(&payload, size);
	}
	if (payload.over)
		return refuse(parts, "%s ends too early", table->device);
	if (count < table->count)
		return refuse(parts, "%s: field %s is missing", table->device, table->field[count].name);
	return refuse(parts, "%s has %zu bytes behind its last field", table->device, payload.left);
}

/* Mostly the next of those that came last. */
static struct part *find_part(struct parts *parts, const char *name, uint32_t instance, bool *known)
{
	*known = false;
	for (unsigned i = 0; i < parts->count; i++) {
		struct part *part = &parts->part[(parts->next + i) % parts->count];

		if (strcmp(part->table->device, name) != 0)
			continue;
		*known = true;
		if (part->instance == instance)
			return part;
	}
	return NULL;
}

int parts_take(struct parts *parts, struct stream_cursor *payload)
{
	struct stream_cursor whole = *payload, rest;
	struct part *part;
	uint32_t instance;
	char name[64];
	bool known;

	stream_take_text(payload, name, sizeof(name));
	rest = *payload;
	stream_take_u32(payload);
	instance = stream_take_u32(payload);
	if (payload->over)
		return refuse(parts, "a part of the state ends within its name");
	part = find_part(parts, name, instance, &known);
	if (!part || !(part->group & parts->groups))
		return refuse(parts,
			      known ? "%s %" PRIu32 " is not there in this machine"
				    : "%s is not there in this machine",
			      name, instance);
	if (part->here)
		return refuse(parts, "%s %" PRIu32 " has come twice", name, instance);
	if (!has_form(part, whole.at, whole.left))
		return blame(parts, part, rest);
	memcpy(part->come, whole.at, part->size);
	part->here = true;
	parts->missing -= !part->table->clear;
	parts->next = (unsigned)(part - parts->part) + 1;
	*payload = (struct stream_cursor){0};
	return 0;
}

/* ---- checking and loading ---- */

static bool is_broken(const struct state_table *table, const struct state_field *field)
{
	return broken.field && broken.device == table->device && broken.field == field->name;
}

unsigned parts_broken(const struct parts *parts)
{
	unsigned groups = 0;

	for (unsigned i = 0; broken.field && i < parts->count; i++)
		groups |= broken.device == parts->part[i].table->device ? parts->part[i].group : 0;
	return groups;
}

static void load_fields(const struct part *part, void *object)
{
	const struct state_table *table = part->table;

	for (unsigned i = 0; i < table->count; i++) {
		const struct state_field *field = &table->field[i];
		const uint8_t *from = __builtin_expect(is_broken(table, field), 0) ? part->made : part->come;

		memcpy((uint8_t *)object + field->offset, from + part->at[i], field->size);
	}
}

/* Whether parts_take_reached() will ask. */
static bool noting;

static void note_reached(const struct part *part)
{
	const struct state_table *table = part->table;

	for (unsigned i = 0; i < table->count; i++)
		part->reached[i] |=
			memcmp(part->come + part->at[i], part->made + part->at[i], table->field[i].size) != 0;
}

int parts_check(struct parts *parts)
{
	for (unsigned i = 0; i < parts->count && parts->missing; i++)
		if (parts->part[i].group & parts->groups && !parts->part[i].here &&
		    !parts->part[i].table->clear)
			return refuse(parts, "%s %" PRIu32 " has not come", parts->part[i].table->device,
				      parts->part[i].instance);
	for (unsigned i = 0; i < parts->count; i++) {
		const struct part *part = &parts->part[i];
		const char *wrong;

		if (!part->table->wrong || !part->here)
			continue;
		load_fields(part, parts->scratch);
		wrong = part->table->wrong(part->object, parts->scratch);
		if (wrong)
			return refuse(parts, "%s %" PRIu32 " cannot be in such a state: %s",
				      part->table->device, part->instance, wrong);
	}
	return 0;
}

static int load_vcpu(struct parts *parts, const struct part *part)
{
	const struct engine_ops *ops = parts->machine->engine->ops;
	struct engine_vcpu *vcpu = parts->machine->vcpus[part->instance];
	int error;

	load_fields(part, &parts->vcpu);
	error = ops->vcpu_load(vcpu, &parts->vcpu);
	if (error)
		refuse(parts, "the %s engine cannot take the state of vCPU %" PRIu32 ": %s", ops->name,
		       part->instance, engine_failure(parts->machine));
	return error;
}

int parts_load(struct parts *parts)
{
	struct machine *machine = parts->machine;
	int error = parts_check(parts);

	if (error)
		return error;
	memset(&parts->vcpu, 0, sizeof(parts->vcpu));
	for (unsigned i = 0; i < parts->count && !error; i++) {
		const struct part *part = &parts->part[i];

		if (!part->here) {
			if (part->table->clear && part->group & parts->groups)
				part->table->clear(part->object);
			continue;
		}
		if (noting)
			note_reached(part);
		if (!part->object) {
			error = load_vcpu(parts, part);
			continue;
		}
		load_fields(part, part->object);
		if (part->table->loaded)
			part->table->loaded(part->object);
	}
	machine->bus.changed = true;
	if (error)
		return error;
	error = machine->engine->ops->chips_store(machine->engine);
	if (error)
		refuse(parts, "the %s engine cannot take the state: %s", machine->engine->ops->name,
		       engine_failure(machine));
	return error;
}

/* ---- comparing ---- */

static bool part_differs(struct parts *a, struct parts *b, const struct part *one, const struct part *other,
			 char *text, size_t size)
{
	const struct state_table *table = one->table, *theirs = other->table;
	const uint8_t *left, *right;

	memset(&a->vcpu, 0, sizeof(a->vcpu));
	memset(&b->vcpu, 0, sizeof(b->vcpu));
	left = object_of(a, one);
	right = object_of(b, other);
	if (!left || !right) {
		snprintf(text, size, "%s", left ? b->why : a->why);
		return true;
	}
	for (unsigned i = 0; i < table->count; i++) {
		const struct state_field *field = &table->field[i];

		if (i < theirs->count &&
		    memcmp(left + field->offset, right + theirs->field[i].offset, field->size) == 0)
			continue;
		snprintf(text, size, "%s %" PRIu32 ": %s", table->device, one->instance, field->name);
		return true;
	}
	return false;
}

static bool memory_differs(struct machine *a, struct machine *b, char *text, size_t size)
{
	uint64_t low = memory_low(a->config.memory);

	for (uint64_t at = 0; at < a->config.memory; at += PAGE_SIZE) {
		if (memcmp(a->ram + at, b->ram + at, PAGE_SIZE) == 0)
			continue;
		snprintf(text, size, "RAM at 0x%llx", at < low ? at : at - low + MEMORY_HIGH_BASE);
		return true;
	}
	return false;
}

bool parts_differ(struct parts *a, struct parts *b, char *text, size_t size)
{
	a->machine->engine->ops->chips_fetch(a->machine->engine);
	b->machine->engine->ops->chips_fetch(b->machine->engine);
	for (unsigned i = 0; i < a->count; i++)
		for (unsigned j = 0; j < b->count; j++)
			if (strcmp(a->part[i].table->device, b->part[j].table->device) == 0 &&
			    a->part[i].instance == b->part[j].instance &&
			    part_differs(a, b, &a->part[i], &b->part[j], text, size))
				return true;
	return false;
}

bool parts_differs(struct parts *a, struct parts *b, char *text, size_t size)
{
	return parts_differ(a, b, text, size) || memory_differs(a->machine, b->machine, text, size);
}

/* ---- mutants ---- */

/* Calls for the fields of each table once, until @take is true. */
static bool each_field(struct machine *machine,
		       bool (*take)(void *owner, const struct state_table *table, unsigned field),
		       void *owner)
{
	const struct state_table *table, *before;
	enum parts_group group;
	bool vcpu;

	for (unsigned i = 0; part_at(machine, i, &table, &vcpu, &group); i++) {
		bool seen = false;

		for (unsigned j = 0; j < i && !seen; j++) {
			part_at(machine, j, &before, &vcpu, &group);
			seen = strcmp(before->device, table->device) == 0;
		}
		for (unsigned field = 0; !seen && field < table->count; field++)
			if (take(owner, table, field))
				return true;
	}
	return false;
}

static void name_of(const struct state_table *table, unsigned field, char *name, size_t size)
{
	snprintf(name, size, BREAK_PREFIX "%s.%s", table->device, table->field[field].name);
}

static bool break_it(void *owner, const struct state_table *table, unsigned field)
{
	char name[128];

	name_of(table, field, name, sizeof(name));
	if (strcmp(name, owner) != 0)
		return false;
	broken.device = table->device;
	broken.field = table->field[field].name;
	return true;
}

bool parts_break(struct machine *machine, const char *name)
{
	char copy[128];

	broken.device = broken.field = NULL;
	if (!name)
		return true;
	snprintf(copy, sizeof(copy), "%s", name);
	return each_field(machine, break_it, copy);
}

void parts_take_reached(struct parts *parts, void (*take)(void *owner, const char *name), void *owner)
{
	char name[128];

	noting = true;
	for (unsigned i = 0; i < parts->count; i++) {
		const struct part *part = &parts->part[i];

		for (unsigned field = 0; field < part->table->count; field++) {
			if (part->reached[field] && take) {
				name_of(part->table, field, name, sizeof(name));
				take(owner, name);
			}
			part->reached[field] = false;
		}
	}
}

struct listing {
	unsigned left;
	char *name;
	size_t size;
};

static bool list_it(void *owner, const struct state_table *table, unsigned field)
{
	struct listing *listing = owner;

	if (listing->left--)
		return false;
	name_of(table, field, listing->name, listing->size);
	return true;
}

bool parts_break_name(struct machine *machine, unsigned index, char *name, size_t size)
{
	struct listing listing = {index, name, size};

	return each_field(machine, list_it, &listing);
}
