/*
 * state_table.h: the fields of a device, listed once. Whoever saves, loads, dumps or compares devices walks
 * the list (dev/state.h); a chip needs this header alone.
 */
#ifndef TRAPLINE_X86_STATE_TABLE_H
#define TRAPLINE_X86_STATE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct state_field {
	const char *name;
	size_t offset, size;
};

struct state_table {
	const char *device;
	uint32_t version; /* another one when the list changes */
	unsigned count;
	const struct state_field *field;
	/* After a load: what is derived from the fields (timers, the level of a line) is made again. May be
	 * NULL. */
	void (*loaded)(void *device);
	/* What of the fields no device can hold (an index past its array), or NULL: asked before a state that came
	 * from elsewhere is loaded. @device is who would load them, @values an object of its kind in which nothing else
	 * is set. May be NULL. */
	const char *(*wrong)(const void *device, const void *values);
	/*
	 * Of what not every engine has: whether there is nothing in it that another would miss, so that a stream leaves
	 * it out, and how a receiver makes it so that finds it left out. Both or neither.
	 */
	bool (*idle)(const void *device);
	void (*clear)(void *device);
};

/* clang-format off */
#define STATE(type, name) {#name, offsetof(type, name), sizeof(((type *)0)->name)}
/* Behind the fields, where there are any: loaded(), wrong(). */
#define STATE_TABLE(symbol, name_, version_, fields, ...)                                      \
	const struct state_table symbol = {.device = (name_),                                  \
					   .version = (version_),                              \
					   .count = sizeof(fields) / sizeof((fields)[0]),      \
					   .field = (fields),                                  \
					   STATE_TABLE_CALLS(__VA_ARGS__ __VA_OPT__(,) NULL, NULL, )}
#define STATE_TABLE_CALLS(loaded_, wrong_, ...) .loaded = (loaded_), .wrong = (wrong_)
/* clang-format on */

#endif
