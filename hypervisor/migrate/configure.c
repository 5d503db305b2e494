#include "migrate/configure.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct reading {
	const struct description *description;
	char *why;
	size_t size;
	bool wrong;
};

static const char *text_of(struct reading *reading, const char *name)
{
	const char *text = describe_find(reading->description, name);

	if (!text && !reading->wrong) {
		snprintf(reading->why, reading->size, "the description of the machine has no %s", name);
		reading->wrong = true;
	}
	return text ? text : "";
}

static uint64_t number_of(struct reading *reading, const char *name, uint64_t least, uint64_t most)
{
	const char *text = text_of(reading, name);
	uint64_t value = 0;

	if ((!span_number(span_of(text), &value) || value < least || value > most) && !reading->wrong) {
		snprintf(reading->why, reading->size, "%s: %.60s is not what this visor can make", name,
			 text);
		reading->wrong = true;
	}
	return value;
}

static bool yes(struct reading *reading, const char *name)
{
	return strcmp(text_of(reading, name), "yes") == 0;
}

static int64_t time_of(struct reading *reading, const char *name)
{
	const char *text = text_of(reading, name);
	uint64_t value = 0;
	bool before = *text == '-';

	if ((!span_number(span_of(text + before), &value) || value > INT64_MAX) && !reading->wrong) {
		snprintf(reading->why, reading->size, "%s: %.60s is not a time", name, text);
		reading->wrong = true;
	}
	return before ? -(int64_t)value : (int64_t)value;
}

static void read_disk(struct reading *reading, unsigned number, struct configure_disk *disk)
{
	char name[DESCRIPTION_NAME_MAX];
	const char *text;
	struct span rest;

	snprintf(name, sizeof(name), "disk %u", number);
	text = text_of(reading, name);
	rest = span_of(text);
	if ((!span_number(span_word(&rest), &disk->size) || disk->size == 0 || disk->size % DISK_SECTOR) &&
	    !reading->wrong) {
		snprintf(reading->why, reading->size, "%s: %.60s is no disk", name, text);
		reading->wrong = true;
	}
	disk->read_only = strstr(text, "read-only") != NULL;
}

int configure_machine(const struct description *description, struct machine_config *config, char *cpu,
		      struct configure_disk disk[DISKS_MAX], char *why, size_t size)
{
	struct reading reading = {.description = description, .why = why, .size = size};
	unsigned disks;

	config->memory = number_of(&reading, "memory", MEMORY_MIN, MEMORY_MAX);
	config->vcpus = (unsigned)number_of(&reading, "vcpus", 1, ENGINE_VCPUS_MAX);
	config->seed = number_of(&reading, "seed", 0, UINT64_MAX);
	config->slice = number_of(&reading, "slice", 0, UINT64_MAX);
	config->rtc_start = time_of(&reading, "clock");
	config->no_hpet = !yes(&reading, "hpet");
	config->control = yes(&reading, "control device");
	config->open_bus = yes(&reading, "open bus");
	config->peripherals.entropy = yes(&reading, "entropy");
	config->peripherals.console = yes(&reading, "virtio console");
	config->peripherals.seed = config->seed;
	disks = (unsigned)number_of(&reading, "disks", 0, DISKS_MAX);
	for (unsigned i = 0; i < disks && !reading.wrong; i++)
		read_disk(&reading, i, &disk[i]);
	snprintf(cpu, DESCRIPTION_TEXT_MAX, "%s", text_of(&reading, "cpu"));
	if (config->memory % 4096 && !reading.wrong) {
		snprintf(why, size, "memory: not in whole pages");
		reading.wrong = true;
	}
	return reading.wrong ? -EINVAL : (int)disks;
}
