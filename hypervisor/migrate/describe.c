#include "migrate/describe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/guest_cpu.h"

/* ---- of a machine ---- */

/* What @format makes, as entry @name; false where there is no room. */
__attribute__((format(printf, 3, 4))) static bool add(struct description *description, const char *name,
						      const char *format, ...)
{
	struct description_entry *entry = &description->entry[description->count];
	va_list arguments;
	int size;

	if (description->count == DESCRIPTION_ENTRIES_MAX)
		return false;
	va_start(arguments, format);
	size = vsnprintf(entry->text, sizeof(entry->text), format, arguments);
	va_end(arguments);
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	description->count++;
	return size >= 0 && (size_t)size < sizeof(entry->text);
}

/* The turns of vCPUs and what random numbers come from are the guest's experience, so they go with it. */
static bool add_machine(struct description *description, const struct machine *machine)
{
	const struct machine_config *config = &machine->config;

	return add(description, "engine", "%s", config->engine->name) &&
	       add(description, "device", "%s", config->device ? config->device : "") &&
	       add(description, "cpu", "%s", config->cpu) &&
	       add(description, "memory", "%" PRIu64, config->memory) &&
	       add(description, "vcpus", "%u", machine->vcpu_count) &&
	       add(description, "seed", "%" PRIu64, config->seed) &&
	       add(description, "slice", "%" PRIu64, config->slice) &&
	       add(description, "clock", "%" PRId64, config->rtc_start) &&
	       add(description, "hpet", "%s", config->no_hpet ? "no" : "yes") &&
	       add(description, "control device", "%s", config->control ? "yes" : "no") &&
	       add(description, "open bus", "%s", config->open_bus ? "yes" : "no");
}

static bool add_peripherals(struct description *description, const struct machine *machine)
{
	const struct peripherals_config *config = &machine->config.peripherals;
	bool fits = add(description, "entropy", "%s", config->entropy ? "yes" : "no") &&
		    add(description, "virtio console", "%s", config->console ? "yes" : "no") &&
		    add(description, "disks", "%u", config->disks);

	for (unsigned i = 0; fits && i < config->disks; i++) {
		char name[DESCRIPTION_NAME_MAX];

		snprintf(name, sizeof(name), "disk %u", i);
		fits = add(description, name, "%" PRIu64 " bytes%s", config->disk[i]->size,
			   config->disk[i]->read_only ? ", read-only" : "");
	}
	return fits;
}

/* Tables of CPUID are longer than a text: entries "cpuid 0" and so on, whose lines end with a semicolon. */
#define CPUID_ENTRY "cpuid %u"

static bool add_guest_cpu(struct description *description, const struct machine *machine)
{
	struct guest_cpu *cpu = malloc(sizeof(*cpu));
	char *text = malloc(GUEST_CPU_TEXT);
	bool fits = cpu && text;
	size_t length = 0;

	if (fits) {
		machine->engine->ops->cpu_tell(machine->engine, cpu);
		length = (size_t)guest_cpu_print(cpu, text, GUEST_CPU_TEXT);
		fits = length < GUEST_CPU_TEXT;
	}
	for (size_t i = 0; fits && i < length; i++)
		if (text[i] == '\n')
			text[i] = ';';
	for (unsigned i = 0; fits && i * (DESCRIPTION_TEXT_MAX - 1) < length; i++) {
		char name[DESCRIPTION_NAME_MAX];

		snprintf(name, sizeof(name), CPUID_ENTRY, i);
		fits = add(description, name, "%.*s", (int)DESCRIPTION_TEXT_MAX - 1,
			   text + (size_t)i * (DESCRIPTION_TEXT_MAX - 1));
	}
	free(text);
	free(cpu);
	return fits;
}

int describe_machine(struct description *description, const struct machine *machine)
{
	description->count = 0;
	return add_machine(description, machine) && add_guest_cpu(description, machine) &&
			       add_peripherals(description, machine)
		       ? 0
		       : -E2BIG;
}

int describe_guest_cpu(const struct description *description, struct guest_cpu *cpu, char *why, size_t size)
{
	char *text = calloc(DESCRIPTION_ENTRIES_MAX, DESCRIPTION_TEXT_MAX), name[DESCRIPTION_NAME_MAX];
	const char *part;
	size_t length = 0;
	int error;

	if (!text)
		return -ENOMEM;
	for (unsigned i = 0; i < DESCRIPTION_ENTRIES_MAX; i++) {
		snprintf(name, sizeof(name), CPUID_ENTRY, i);
		part = describe_find(description, name);
		if (!part)
			break;
		memcpy(text + length, part, strlen(part));
		length += strlen(part);
	}
	for (size_t i = 0; i < length; i++)
		if (text[i] == ';')
			text[i] = '\n';
	error = guest_cpu_parse(cpu, text, why, size);
	free(text);
	return error;
}

/* ---- as a section ---- */

int describe_write(const struct description *description, struct stream_writer *writer)
{
	stream_begin(writer, STREAM_DESCRIPTION);
	stream_put_u32(writer, description->count);
	for (unsigned i = 0; i < description->count; i++) {
		stream_put_text(writer, description->entry[i].name);
		stream_put_text(writer, description->entry[i].text);
	}
	return stream_end(writer);
}

/* As stream_take_text(), but of a text that fits and that has only what a line may hold. */
static bool take_text(struct stream_cursor *cursor, char *text, size_t size)
{
	struct stream_cursor ahead = *cursor;
	uint16_t length = stream_take_u16(&ahead);
	const uint8_t *at = stream_take(&ahead, length);

	if (!at || length >= size)
		return false;
	for (uint16_t i = 0; i < length; i++)
		if (at[i] < 0x20 || at[i] > 0x7e)
			return false;
	stream_take_text(cursor, text, size);
	return true;
}

static int take_entries(struct description *description, struct stream_cursor *payload, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct description_entry *entry = &description->entry[i];

		if (!take_text(payload, entry->name, sizeof(entry->name)) ||
		    !take_text(payload, entry->text, sizeof(entry->text)) ||
		    describe_find(description, entry->name))
			return -EPROTO;
		description->count++;
	}
	return stream_taken(payload) ? 0 : -EPROTO;
}

int describe_take(struct description *description, struct stream_cursor *payload, char *why, size_t size)
{
	uint32_t count = stream_take_u32(payload);
	int error = -EPROTO;

	description->count = 0;
	if (count <= DESCRIPTION_ENTRIES_MAX)
		error = take_entries(description, payload, count);
	if (error)
		snprintf(why, size, "the description of the machine is none");
	return error;
}

const char *describe_find(const struct description *description, const char *name)
{
	for (unsigned i = 0; i < description->count; i++)
		if (strcmp(description->entry[i].name, name) == 0)
			return description->entry[i].text;
	return NULL;
}

/* ---- comparing ---- */

/* What executes vCPUs is nothing that a guest can see, and its CPUID is compared as such. */
static bool may_differ(const char *name)
{
	return strcmp(name, "engine") == 0 || strcmp(name, "device") == 0 || strcmp(name, "cpu") == 0 ||
	       strncmp(name, "cpuid ", 6) == 0;
}

bool describe_fits(const struct description *here, const struct description *there, char *why, size_t size)
{
	for (unsigned i = 0; i < there->count; i++) {
		const char *name = there->entry[i].name, *text = describe_find(here, name);

		if (may_differ(name) || (text && strcmp(text, there->entry[i].text) == 0))
			continue;
		snprintf(why, size, "%s: the guest has %.80s, this machine %.80s", name, there->entry[i].text,
			 text ? text : "none");
		return false;
	}
	for (unsigned i = 0; i < here->count; i++) {
		if (may_differ(here->entry[i].name) || describe_find(there, here->entry[i].name))
			continue;
		snprintf(why, size, "%s: the guest has none, this machine %.80s", here->entry[i].name,
			 here->entry[i].text);
		return false;
	}
	return true;
}

/* A guest that knows just this processor needs nothing. */
static int accept_cpu(const struct description *there, struct machine *here, char *why, size_t size)
{
	struct guest_cpu *guest = calloc(2, sizeof(*guest)), *own = guest + 1;
	const struct engine_ops *ops = here->engine->ops;
	const char *cpu = describe_find(there, "cpu"), *engine = describe_find(there, "engine");
	int error = guest ? describe_guest_cpu(there, guest, why, size) : -ENOMEM;
	bool same;

	if (!error) {
		/* With another profile even the same CPUID is another processor. */
		same = cpu && engine && strcmp(cpu, here->config.cpu) == 0 && strcmp(engine, ops->name) == 0;
		ops->cpu_tell(here->engine, own);
		if (!same || memcmp(guest, own, sizeof(*own)) != 0)
			error = ops->cpu_take(here->engine, guest, why, size);
	}
	free(guest);
	return error;
}

int describe_accept(const struct description *there, struct machine *here, char *why, size_t size)
{
	struct description *own = malloc(sizeof(*own));
	int error = own ? describe_machine(own, here) : -ENOMEM;

	why[0] = 0;
	if (!error && !describe_fits(own, there, why, size))
		error = -EINVAL;
	free(own);
	if (!error)
		error = accept_cpu(there, here, why, size);
	if (error && !why[0])
		snprintf(why, size, "%s", strerror(-error));
	return error;
}
