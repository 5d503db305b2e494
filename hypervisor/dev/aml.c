#include "dev/aml.h"

#include <string.h>

#define OP_NAME     0x08
#define OP_BYTE     0x0a
#define OP_WORD     0x0b
#define OP_DWORD    0x0c
#define OP_STRING   0x0d
#define OP_QWORD    0x0e
#define OP_SCOPE    0x10
#define OP_BUFFER   0x11
#define OP_PACKAGE  0x12
#define OP_DUAL     0x2e
#define OP_MULTI    0x2f
#define OP_EXTENDED 0x5b
#define OP_DEVICE   0x82 /* behind OP_EXTENDED */

#define TAG_IRQ      0x22 /* small descriptors: type and length of what follows */
#define TAG_IO       0x47
#define TAG_END      0x79
#define TAG_MEMORY32 0x86 /* large ones */
#define TAG_DWORD    0x87
#define TAG_WORD     0x88

static void put(struct aml *aml, const void *from, size_t size)
{
	if (size > aml->room - aml->size) {
		aml->full = true;
		return;
	}
	memcpy(aml->at + aml->size, from, size);
	aml->size += size;
}

static void put_number(struct aml *aml, uint64_t value, unsigned size)
{
	uint8_t bytes[8];

	for (unsigned i = 0; i < size; i++)
		bytes[i] = (uint8_t)(value >> (8 * i));
	put(aml, bytes, size);
}

static void put_byte(struct aml *aml, unsigned value) { put_number(aml, value, 1); }

/* ---- objects ---- */

void aml_integer(struct aml *aml, uint64_t value)
{
	if (value <= 1) { /* ZeroOp, OneOp */
		put_byte(aml, (unsigned)value);
	} else if (value <= UINT8_MAX) {
		put_byte(aml, OP_BYTE);
		put_number(aml, value, 1);
	} else if (value <= UINT16_MAX) {
		put_byte(aml, OP_WORD);
		put_number(aml, value, 2);
	} else if (value <= UINT32_MAX) {
		put_byte(aml, OP_DWORD);
		put_number(aml, value, 4);
	} else {
		put_byte(aml, OP_QWORD);
		put_number(aml, value, 8);
	}
}

void aml_string(struct aml *aml, const char *text)
{
	put_byte(aml, OP_STRING);
	put(aml, text, strlen(text) + 1);
}

static unsigned hex_digit(char c) { return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10); }

/* Three letters of 5 bits, four hexadecimal digits, the first byte highest. */
void aml_eisa_id(struct aml *aml, const char *id)
{
	unsigned letters =
		(unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 | (unsigned)(id[2] - '@');
	const uint8_t bytes[4] = {(uint8_t)(letters >> 8), (uint8_t)letters,
				  (uint8_t)(hex_digit(id[3]) << 4 | hex_digit(id[4])),
				  (uint8_t)(hex_digit(id[5]) << 4 | hex_digit(id[6]))};

	put_byte(aml, OP_DWORD);
	put(aml, bytes, sizeof(bytes));
}

/* ---- names ---- */

/* One segment, filled up with underscores; returns what is behind it. */
static const char *put_segment(struct aml *aml, const char *from)
{
	char segment[4] = {'_', '_', '_', '_'};
	unsigned i = 0;

	while (*from && *from != '.' && i < 4)
		segment[i++] = *from++;
	put(aml, segment, 4);
	return *from == '.' ? from + 1 : from;
}

static void put_path(struct aml *aml, const char *path)
{
	unsigned segments = 1;

	if (*path == '\\')
		put(aml, path++, 1);
	for (const char *c = path; *c; c++)
		segments += *c == '.';
	if (segments == 2) {
		put_byte(aml, OP_DUAL);
	} else if (segments > 2) {
		put_byte(aml, OP_MULTI);
		put_byte(aml, segments);
	}
	while (*path)
		path = put_segment(aml, path);
}

void aml_name(struct aml *aml, const char *path)
{
	put_byte(aml, OP_NAME);
	put_path(aml, path);
}

void aml_name_integer(struct aml *aml, const char *path, uint64_t value)
{
	aml_name(aml, path);
	aml_integer(aml, value);
}

void aml_name_eisa_id(struct aml *aml, const char *path, const char *id)
{
	aml_name(aml, path);
	aml_eisa_id(aml, id);
}

/* ---- packages: the length, which counts its own bytes, goes to the mark when they are closed ---- */

void aml_close(struct aml *aml, aml_mark mark)
{
	size_t inside = aml->size - mark, length;
	unsigned bytes = inside + 1 < 0x40 ? 1 : inside + 2 < 0x1000 ? 2 : inside + 3 < 0x100000 ? 3 : 4;
	uint8_t encoded[4];

	if (bytes > aml->room - aml->size) {
		aml->full = true;
		return;
	}
	length = inside + bytes;
	encoded[0] = (uint8_t)(bytes == 1 ? length : (bytes - 1) << 6 | (length & 15));
	for (unsigned i = 1; i < bytes; i++)
		encoded[i] = (uint8_t)(length >> (8 * i - 4));
	memmove(aml->at + mark + bytes, aml->at + mark, inside);
	memcpy(aml->at + mark, encoded, bytes);
	aml->size += bytes;
}

aml_mark aml_open_scope(struct aml *aml, const char *path)
{
	aml_mark mark;

	put_byte(aml, OP_SCOPE);
	mark = aml->size;
	put_path(aml, path);
	return mark;
}

aml_mark aml_open_device(struct aml *aml, const char *path)
{
	aml_mark mark;

	put_byte(aml, OP_EXTENDED);
	put_byte(aml, OP_DEVICE);
	mark = aml->size;
	put_path(aml, path);
	return mark;
}

aml_mark aml_open_package(struct aml *aml, uint8_t elements)
{
	aml_mark mark;

	put_byte(aml, OP_PACKAGE);
	mark = aml->size;
	put_byte(aml, elements);
	return mark;
}

/* ---- resources ---- */

/* The buffer's size stands in front of its bytes, so it has a fixed form. */
#define SIZE_BYTES 3u

aml_mark aml_open_resources(struct aml *aml, const char *path)
{
	aml_mark mark;

	aml_name(aml, path);
	put_byte(aml, OP_BUFFER);
	mark = aml->size;
	put_byte(aml, OP_WORD);
	put_number(aml, 0, 2);
	return mark;
}

void aml_close_resources(struct aml *aml, aml_mark mark)
{
	size_t size;

	put_byte(aml, TAG_END);
	put_byte(aml, 0); /* no checksum */
	if (aml->full)
		return;
	size = aml->size - mark - SIZE_BYTES;
	aml->at[mark + 1] = (uint8_t)size;
	aml->at[mark + 2] = (uint8_t)(size >> 8);
	aml_close(aml, mark);
}

void aml_io(struct aml *aml, uint16_t first, uint8_t count)
{
	put_byte(aml, TAG_IO);
	put_byte(aml, 1); /* decodes 16 bits */
	put_number(aml, first, 2);
	put_number(aml, first, 2);
	put_byte(aml, 1); /* alignment */
	put_byte(aml, count);
}

void aml_irq(struct aml *aml, unsigned irq)
{
	put_byte(aml, TAG_IRQ);
	put_number(aml, 1u << irq, 2);
}

void aml_memory32(struct aml *aml, uint32_t base, uint32_t size)
{
	put_byte(aml, TAG_MEMORY32);
	put_number(aml, 9, 2);
	put_byte(aml, 1); /* writable */
	put_number(aml, base, 4);
	put_number(aml, size, 4);
}

enum { RANGE_MEMORY, RANGE_IO, RANGE_BUS };
#define RANGE_FIXED 0x0c /* both ends are fixed; a producer, positive decoding */

static void window(struct aml *aml, unsigned type, unsigned width, unsigned specific, uint32_t first,
		   uint32_t last)
{
	put_byte(aml, width == 4 ? TAG_DWORD : TAG_WORD);
	put_number(aml, 3 + 5 * width, 2);
	put_byte(aml, type);
	put_byte(aml, RANGE_FIXED);
	put_byte(aml, specific);
	put_number(aml, 0, width); /* granularity */
	put_number(aml, first, width);
	put_number(aml, last, width);
	put_number(aml, 0, width); /* translation */
	put_number(aml, last - first + 1, width);
}

void aml_bus_window(struct aml *aml, uint16_t first, uint16_t last)
{
	window(aml, RANGE_BUS, 2, 0, first, last);
}

/* Both ISA and other addresses. */
void aml_io_window(struct aml *aml, uint16_t first, uint16_t last)
{
	window(aml, RANGE_IO, 2, 3, first, last);
}

/* Writable, not cacheable. */
void aml_memory_window(struct aml *aml, uint32_t first, uint32_t last)
{
	window(aml, RANGE_MEMORY, 4, 1, first, last);
}
