/*
 * aml.h: writes ACPI machine language (ACPI 6.4, chapter 20) and resource descriptors (section 6.4) into a
 * buffer.
 *
 * Terms are written in their order. What has a package length is opened, filled and closed; the length is
 * put in when it is closed. Where the buffer is too small, what does not fit is left out and full is set.
 */
#ifndef TRAPLINE_DEV_AML_H
#define TRAPLINE_DEV_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *at;
	size_t size, room;
	bool full;
};

/* Where something was opened: what its close takes. */
typedef size_t aml_mark;

void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
/* "PNP0A03" as the integer that _HID takes (section 19.3.4). */
void aml_eisa_id(struct aml *aml, const char *id);

/* Name(@path, …): the object is the next term. Paths as ASL writes them: "\\_S5", "_SB.PCI0", segments of up
 * to four characters. */
void aml_name(struct aml *aml, const char *path);
void aml_name_integer(struct aml *aml, const char *path, uint64_t value);
void aml_name_eisa_id(struct aml *aml, const char *path, const char *id);

aml_mark aml_open_scope(struct aml *aml, const char *path);
aml_mark aml_open_device(struct aml *aml, const char *path);
aml_mark aml_open_package(struct aml *aml, uint8_t elements);
void aml_close(struct aml *aml, aml_mark mark);

/* Name(@path, ResourceTemplate() {…}), filled with what follows. */
aml_mark aml_open_resources(struct aml *aml, const char *path);
void aml_close_resources(struct aml *aml, aml_mark mark);
void aml_io(struct aml *aml, uint16_t first, uint8_t count);
void aml_irq(struct aml *aml, unsigned irq); /* edge, active high, exclusive */
void aml_memory32(struct aml *aml, uint32_t base, uint32_t size);
/* Windows that a bridge produces; @last included. */
void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_io_window(struct aml *aml, uint16_t first, uint16_t last);
void aml_memory_window(struct aml *aml, uint32_t first, uint32_t last);

#endif
