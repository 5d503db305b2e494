/*
 * state.h: the state of a device, listed once: saving, loading, dumping and comparing
 * walk the list (x86/state_table.h). A saved device is its version and then its fields, in order, packed.
 */
#ifndef TRAPLINE_DEV_STATE_H
#define TRAPLINE_DEV_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/state_table.h"

/* Bytes that a saved device takes. */
size_t state_size(const struct state_table *table);
/* Writes state_size() bytes to @to. */
void state_save(const struct state_table *table, const void *device, uint8_t *to);
/* 0, or -EINVAL where @size or the version is not this table's; then nothing has changed. Calls loaded(). */
int state_load(const struct state_table *table, void *device, const uint8_t *from, size_t size);
/* The first field in which two devices differ, or NULL. */
const char *state_difference(const struct state_table *table, const void *a, const void *b);
/* One field as hex digits, the byte at the lowest address first; "" past the last field. */
void state_dump(const struct state_table *table, const void *device, unsigned index, char *text, size_t size);

#endif
