#include "migrate/stream.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "migrate/checksum.h"

const char *stream_type_name(uint32_t type)
{
	static const char *const names[] = {
		[STREAM_DESCRIPTION] = "description",
		[STREAM_BLOB] = "blob",
		[STREAM_PAGES] = "pages",
		[STREAM_ROUND_END] = "end of round",
		[STREAM_PART] = "part",
		[STREAM_STATE_END] = "end of state",
		[STREAM_OWED] = "owed pages",
		[STREAM_HAND_OVER] = "hand-over",
		[STREAM_CANCEL] = "cancel",
		[STREAM_ALIVE] = "alive",
		[STREAM_TERMS] = "terms",
		[STREAM_CATCH_UP] = "catch-up",
		[STREAM_ACCEPTED] = "accepted",
		[STREAM_READY] = "ready",
		[STREAM_RUNNING] = "running",
		[STREAM_FAILURE] = "failure",
		[STREAM_WANTED] = "wanted pages",
		[STREAM_HELD] = "held pages",
		[STREAM_COMPLETE] = "complete",
		[STREAM_CAUGHT_UP] = "caught up",
	};

	return type < sizeof(names) / sizeof(names[0]) ? names[type] : NULL;
}

int stream_session_new(struct stream_session *session)
{
	ssize_t got = getrandom(session->id, sizeof(session->id), 0);

	return got == (ssize_t)sizeof(session->id) ? 0 : got < 0 ? -errno : -EIO;
}

/* ---- checks ---- */

/* What all checks of one channel and direction begin with. */
static uint64_t seed_of(const struct stream_session *session, uint16_t channel,
			enum stream_direction direction)
{
	return checksum((uint64_t)channel << 1 | direction, session->id, sizeof(session->id));
}

/* Of a section's parts, which must not be taken for each other. */
static uint64_t head_seed(uint64_t seed, uint64_t sequence) { return seed + 2 * sequence; }
static uint64_t payload_seed(uint64_t head_check, uint64_t seed) { return head_check ^ ~seed; }

static void store16(uint8_t *to, uint16_t value)
{
	value = htole16(value);
	memcpy(to, &value, 2);
}

static void store32(uint8_t *to, uint32_t value)
{
	value = htole32(value);
	memcpy(to, &value, 4);
}

static void store64(uint8_t *to, uint64_t value)
{
	value = htole64(value);
	memcpy(to, &value, 8);
}

static uint16_t fetch16(const uint8_t *from)
{
	uint16_t value;

	memcpy(&value, from, 2);
	return le16toh(value);
}

static uint32_t fetch32(const uint8_t *from)
{
	uint32_t value;

	memcpy(&value, from, 4);
	return le32toh(value);
}

static uint64_t fetch64(const uint8_t *from)
{
	uint64_t value;

	memcpy(&value, from, 8);
	return le64toh(value);
}

/* ---- writing ---- */

#define ROOM (STREAM_SECTION_HEAD + STREAM_PAYLOAD_MAX + STREAM_CHECK_SIZE)

static int give(struct stream_writer *writer, const void *bytes, size_t size)
{
	if (!writer->error)
		writer->error = writer->sink.write(writer->sink.owner, bytes, size);
	if (!writer->error)
		writer->bytes += size;
	return writer->error;
}

int stream_writer_init(struct stream_writer *writer, const struct stream_sink *sink,
		       const struct stream_session *session, uint16_t channel,
		       enum stream_direction direction)
{
	uint8_t header[STREAM_HEADER_SIZE] = STREAM_MAGIC;

	*writer = (struct stream_writer){.sink = *sink, .seed = seed_of(session, channel, direction)};
	writer->room = malloc(ROOM);
	if (!writer->room)
		return writer->error = -ENOMEM;
	store32(header + 8, STREAM_VERSION);
	store16(header + 12, channel);
	header[14] = (uint8_t)direction;
	memcpy(header + 16, session->id, sizeof(session->id));
	store64(header + 32, checksum(0, header, 32));
	return give(writer, header, sizeof(header));
}

void stream_writer_free(struct stream_writer *writer)
{
	free(writer->room);
	writer->room = NULL;
}

void stream_begin(struct stream_writer *writer, enum stream_type type)
{
	writer->type = type;
	writer->size = 0;
	writer->count = 0;
}

size_t stream_left(const struct stream_writer *writer) { return STREAM_PAYLOAD_MAX - writer->size; }

uint8_t *stream_put_room(struct stream_writer *writer, size_t size)
{
	uint8_t *room = writer->room + STREAM_SECTION_HEAD + writer->size;

	if (!writer->error && size > stream_left(writer))
		writer->error = -EMSGSIZE;
	if (writer->error)
		return NULL;
	writer->size += size;
	return room;
}

void stream_put(struct stream_writer *writer, const void *bytes, size_t size)
{
	uint8_t *room = stream_put_room(writer, size);

	if (room && size)
		memcpy(room, bytes, size);
}

void stream_put_u8(struct stream_writer *writer, uint8_t value) { stream_put(writer, &value, 1); }

void stream_put_u16(struct stream_writer *writer, uint16_t value)
{
	value = htole16(value);
	stream_put(writer, &value, 2);
}

void stream_put_u32(struct stream_writer *writer, uint32_t value)
{
	value = htole32(value);
	stream_put(writer, &value, 4);
}

void stream_put_u64(struct stream_writer *writer, uint64_t value)
{
	value = htole64(value);
	stream_put(writer, &value, 8);
}

void stream_put_text(struct stream_writer *writer, const char *text)
{
	size_t size = strnlen(text, UINT16_MAX);

	stream_put_u16(writer, (uint16_t)size);
	stream_put(writer, text, size);
}

int stream_end(struct stream_writer *writer)
{
	uint8_t *head = writer->room, *payload = head + STREAM_SECTION_HEAD;
	size_t size = writer->size;
	uint64_t check;

	if (writer->error)
		return writer->error;
	store32(head, writer->type);
	store32(head + 4, (uint32_t)size);
	store64(head + 8, writer->sequence);
	check = checksum(head_seed(writer->seed, writer->sequence), head, 16);
	store64(head + 16, check);
	if (size)
		store64(payload + size, checksum(payload_seed(check, writer->seed), payload, size));
	writer->sequence++;
	return give(writer, head, STREAM_SECTION_HEAD + size + (size ? STREAM_CHECK_SIZE : 0));
}

int stream_send(struct stream_writer *writer, enum stream_type type)
{
	stream_begin(writer, type);
	return stream_end(writer);
}

int stream_send_text(struct stream_writer *writer, enum stream_type type, const char *text)
{
	stream_begin(writer, type);
	stream_put(writer, text, strnlen(text, STREAM_WHY - 1));
	return stream_end(writer);
}

/* ---- reading ---- */

__attribute__((format(printf, 3, 4))) static int refuse(struct stream_reader *reader, int error,
							const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(reader->why, sizeof(reader->why), format, arguments);
	va_end(arguments);
	return error;
}

/* As input.read(), but the end is an error with a reason. */
static int want(struct stream_reader *reader, void *to, size_t size, const char *what)
{
	int error = reader->input.read(reader->input.owner, to, size);

	if (error == 1 || error == -EPIPE)
		return refuse(reader, -EPIPE, "the stream ends within %s", what);
	if (error)
		return refuse(reader, error, "%s", strerror(-error));
	reader->bytes += size;
	return 0;
}

static int check_header(struct stream_reader *reader, const uint8_t *header, enum stream_direction direction)
{
	if (memcmp(header, STREAM_MAGIC, 8) != 0)
		return refuse(reader, -EPROTO, "this is no stream of a machine");
	if (fetch32(header + 8) != STREAM_VERSION)
		return refuse(reader, -EPROTO, "the stream has version %u, and this visor reads version %u",
			      fetch32(header + 8), STREAM_VERSION);
	if (fetch64(header + 32) != checksum(0, header, 32))
		return refuse(reader, -EPROTO, "the header of the stream is damaged");
	if (header[14] != direction || header[15])
		return refuse(reader, -EPROTO, "the stream goes in the other direction");
	return 0;
}

uint8_t *stream_room_new(void) { return malloc(STREAM_PAYLOAD_MAX + STREAM_CHECK_SIZE); }

uint8_t *stream_reader_swap(struct stream_reader *reader, uint8_t *room)
{
	uint8_t *old = reader->room;

	reader->room = room;
	return old;
}

int stream_reader_accept(struct stream_reader *reader, const struct stream_input *input,
			 const struct stream_session *session, enum stream_direction direction)
{
	uint8_t header[STREAM_HEADER_SIZE];
	int error;

	*reader = (struct stream_reader){.input = *input};
	reader->room = stream_room_new();
	if (!reader->room)
		return refuse(reader, -ENOMEM, "no memory for a stream");
	error = want(reader, header, sizeof(header), "its header");
	if (!error)
		error = check_header(reader, header, direction);
	if (error)
		return error;
	memcpy(reader->session.id, header + 16, sizeof(reader->session.id));
	reader->channel = fetch16(header + 12);
	if (session && memcmp(session->id, header + 16, sizeof(session->id)) != 0)
		return refuse(reader, -EPROTO, "the stream is of another session");
	reader->seed = seed_of(&reader->session, reader->channel, direction);
	return 0;
}

int stream_reader_init(struct stream_reader *reader, const struct stream_input *input,
		       const struct stream_session *session, uint16_t channel,
		       enum stream_direction direction)
{
	int error = stream_reader_accept(reader, input, session, direction);

	if (!error && reader->channel != channel)
		return refuse(reader, -EPROTO, "the stream is channel %u, not %u", reader->channel, channel);
	return error;
}

void stream_reader_free(struct stream_reader *reader)
{
	free(reader->room);
	reader->room = NULL;
}

/* The payload of a section whose head was found good. */
static int read_payload(struct stream_reader *reader, uint32_t size, uint64_t head_check)
{
	int error = want(reader, reader->room, size + STREAM_CHECK_SIZE, "a section");

	if (!error && fetch64(reader->room + size) !=
			      checksum(payload_seed(head_check, reader->seed), reader->room, size))
		return refuse(reader, -EPROTO, "section %llu of the stream is damaged",
			      (unsigned long long)reader->sequence);
	return error;
}

int stream_read(struct stream_reader *reader, struct stream_section *section)
{
	uint8_t head[STREAM_SECTION_HEAD];
	int error = reader->input.read(reader->input.owner, head, sizeof(head));
	unsigned long long number = reader->sequence;
	uint64_t check;
	uint32_t size;

	if (error == 1)
		return 1;
	if (error == -EPIPE)
		return refuse(reader, error, "the stream ends within a section");
	if (error)
		return refuse(reader, error, "%s", strerror(-error));
	reader->bytes += sizeof(head);
	check = fetch64(head + 16);
	if (check != checksum(head_seed(reader->seed, reader->sequence), head, 16) ||
	    fetch64(head + 8) != reader->sequence)
		return refuse(reader, -EPROTO, "section %llu of the stream is damaged, or is another one",
			      number);
	size = fetch32(head + 4);
	if (size > STREAM_PAYLOAD_MAX)
		return refuse(reader, -EPROTO, "section %llu of the stream has %u bytes, more than any",
			      number, size);
	error = size ? read_payload(reader, size, check) : 0;
	if (error)
		return error;
	reader->sequence++;
	section->type = fetch32(head);
	section->payload = (struct stream_cursor){.at = reader->room, .left = size};
	return 0;
}

const uint8_t *stream_take(struct stream_cursor *cursor, size_t size)
{
	const uint8_t *at = cursor->at;

	if (cursor->over || size > cursor->left) {
		cursor->over = true;
		return NULL;
	}
	cursor->at += size;
	cursor->left -= size;
	return at;
}

uint8_t stream_take_u8(struct stream_cursor *cursor)
{
	const uint8_t *at = stream_take(cursor, 1);

	return at ? *at : 0;
}

uint16_t stream_take_u16(struct stream_cursor *cursor)
{
	const uint8_t *at = stream_take(cursor, 2);

	return at ? fetch16(at) : 0;
}

uint32_t stream_take_u32(struct stream_cursor *cursor)
{
	const uint8_t *at = stream_take(cursor, 4);

	return at ? fetch32(at) : 0;
}

uint64_t stream_take_u64(struct stream_cursor *cursor)
{
	const uint8_t *at = stream_take(cursor, 8);

	return at ? fetch64(at) : 0;
}

/* What others sent is shown to people: nothing in it may steer their terminal. */
static void copy_text(const uint8_t *at, size_t length, char *text, size_t size)
{
	size_t used = 0;

	for (; at && used < length && used + 1 < size; used++)
		text[used] = at[used] >= 0x20 && at[used] < 0x7f ? (char)at[used] : '?';
	if (size)
		text[used] = 0;
}

void stream_take_text(struct stream_cursor *cursor, char *text, size_t size)
{
	uint16_t length = stream_take_u16(cursor);

	copy_text(stream_take(cursor, length), length, text, size);
}

void stream_take_reason(struct stream_cursor *cursor, char *text, size_t size)
{
	size_t length = cursor->left;

	copy_text(stream_take(cursor, length), length, text, size);
}

/* ---- payloads of the format ---- */

void stream_put_round(struct stream_writer *writer, const struct stream_round *round)
{
	stream_begin(writer, STREAM_ROUND_END);
	stream_put_u32(writer, round->number);
	stream_put_u64(writer, round->pages);
	stream_end(writer);
}

bool stream_take_round(struct stream_cursor *cursor, struct stream_round *round)
{
	round->number = stream_take_u32(cursor);
	round->pages = stream_take_u64(cursor);
	return stream_taken(cursor);
}

void stream_put_terms(struct stream_writer *writer, const struct stream_terms *terms)
{
	stream_begin(writer, STREAM_TERMS);
	stream_put_u32(writer, terms->features);
	stream_put_u16(writer, terms->channels);
	stream_put_u64(writer, terms->touched);
	stream_end(writer);
}

bool stream_take_terms(struct stream_cursor *cursor, struct stream_terms *terms)
{
	terms->features = stream_take_u32(cursor);
	terms->channels = stream_take_u16(cursor);
	terms->touched = stream_take_u64(cursor);
	return stream_taken(cursor);
}

void stream_put_totals(struct stream_writer *writer, const struct stream_totals *totals)
{
	stream_begin(writer, STREAM_STATE_END);
	stream_put_u32(writer, totals->parts);
	stream_put_u32(writer, totals->blobs);
	stream_put_u64(writer, totals->pages);
	stream_put_u64(writer, totals->owed);
	stream_end(writer);
}

bool stream_take_totals(struct stream_cursor *cursor, struct stream_totals *totals)
{
	totals->parts = stream_take_u32(cursor);
	totals->blobs = stream_take_u32(cursor);
	totals->pages = stream_take_u64(cursor);
	totals->owed = stream_take_u64(cursor);
	return stream_taken(cursor);
}

/* ---- pages ---- */

static bool is_zero(const uint8_t *page)
{
	uint64_t words[8];

	for (unsigned i = 0; i < PAGE_SIZE; i += sizeof(words)) {
		memcpy(words, page + i, sizeof(words));
		if (words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7])
			return false;
	}
	return true;
}

void stream_pages_begin(struct stream_writer *writer)
{
	stream_begin(writer, STREAM_PAGES);
	stream_put_u32(writer, 0);
}

void stream_pages_add(struct stream_writer *writer, uint64_t address, const void *content)
{
	bool zero = is_zero(content);

	stream_put_u64(writer, address | (zero ? STREAM_PAGE_ZERO : STREAM_PAGE_RAW));
	if (!zero)
		stream_put(writer, content, PAGE_SIZE);
	writer->count++;
}

void stream_pages_add_zstd(struct stream_writer *writer, uint64_t address, const void *compressed,
			   uint32_t size)
{
	stream_put_u64(writer, address | STREAM_PAGE_ZSTD);
	stream_put_u32(writer, size);
	stream_put(writer, compressed, size);
	writer->count++;
}

int stream_pages_end(struct stream_writer *writer)
{
	if (!writer->error)
		store32(writer->room + STREAM_SECTION_HEAD, writer->count);
	return stream_end(writer);
}

bool stream_pages_count(struct stream_cursor *cursor, uint32_t *count)
{
	*count = stream_take_u32(cursor);
	return !cursor->over && *count <= STREAM_PAGES_MAX;
}

bool stream_pages_next(struct stream_cursor *cursor, struct stream_page *page)
{
	uint64_t word = stream_take_u64(cursor);
	uint64_t kind = word % PAGE_SIZE;

	if (cursor->over || kind > STREAM_PAGE_ZSTD)
		return false;
	*page = (struct stream_page){.address = word - kind, .kind = (enum stream_page_kind)kind};
	if (kind == STREAM_PAGE_ZERO)
		return true;
	page->size = kind == STREAM_PAGE_RAW ? PAGE_SIZE : stream_take_u32(cursor);
	if (page->size > PAGE_SIZE)
		return false;
	page->content = stream_take(cursor, page->size);
	return page->content != NULL;
}
