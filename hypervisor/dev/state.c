#include "dev/state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

size_t state_size(const struct state_table *table)
{
	size_t size = sizeof(table->version);

	for (unsigned i = 0; i < table->count; i++)
		size += table->field[i].size;
	return size;
}

void state_save(const struct state_table *table, const void *device, uint8_t *to)
{
	memcpy(to, &table->version, sizeof(table->version));
	to += sizeof(table->version);
	for (unsigned i = 0; i < table->count; i++) {
		memcpy(to, (const uint8_t *)device + table->field[i].offset, table->field[i].size);
		to += table->field[i].size;
	}
}

int state_load(const struct state_table *table, void *device, const uint8_t *from, size_t size)
{
	uint32_t version;

	if (size != state_size(table))
		return -EINVAL;
	memcpy(&version, from, sizeof(version));
	if (version != table->version)
		return -EINVAL;
	from += sizeof(version);
	for (unsigned i = 0; i < table->count; i++) {
		memcpy((uint8_t *)device + table->field[i].offset, from, table->field[i].size);
		from += table->field[i].size;
	}
	if (table->loaded)
		table->loaded(device);
	return 0;
}

const char *state_difference(const struct state_table *table, const void *a, const void *b)
{
	for (unsigned i = 0; i < table->count; i++) {
		const struct state_field *field = &table->field[i];

		if (memcmp((const uint8_t *)a + field->offset, (const uint8_t *)b + field->offset,
			   field->size))
			return field->name;
	}
	return NULL;
}

void state_dump(const struct state_table *table, const void *device, unsigned index, char *text, size_t size)
{
	const struct state_field *field;
	int used;

	text[0] = 0;
	if (index >= table->count)
		return;
	field = &table->field[index];
	used = snprintf(text, size, "%s.%s=", table->device, field->name);
	for (size_t i = 0; i < field->size && used >= 0 && (size_t)used + 3 <= size; i++)
		used += snprintf(text + used, size - (size_t)used, "%02x",
				 ((const uint8_t *)device)[field->offset + i]);
}
