/*
 * stream.h: the bytes that a machine is on its way from one visor to another.
 *
 * A stream is a header and then sections. All numbers are little-endian, nothing is aligned:
 *
 *   header   "Trapline" (8 bytes), version (4), channel (2), direction (1), 0 (1), session (16), check (8)
 *   section  type (4), size of the payload (4), sequence (8), check (8), payload, its check (8; none where
 * the size is 0)
 *
 * Each check is an XXH3 of 64 bits over all that stands before it since the last one, seeded with the
 * session, channel, direction and (in sections) the sequence, which counts from 0. So what was cut, flipped,
 * replayed, reordered or is of another stream is refused before any of it is used, and a size is trusted
 * before its payload is waited for.
 *
 * A session is one migration. It has a channel 0 in direction FORWARD, from the source to the destination;
 * perhaps more channels that carry STREAM_PAGES alone; and, where the transport has two ways, one RETURN for
 * each.
 *
 * Neither side knows what carries the bytes: struct stream_sink and struct stream_source do.
 */
#ifndef TRAPLINE_MIGRATE_STREAM_H
#define TRAPLINE_MIGRATE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/paging.h"

#define STREAM_MAGIC        "Trapline"
#define STREAM_VERSION      1u
#define STREAM_HEADER_SIZE  40u
#define STREAM_SECTION_HEAD 24u /* bytes of a section before its payload */
#define STREAM_CHECK_SIZE   8u
#define STREAM_PAYLOAD_MAX  (4u << 20)
#define STREAM_WHY          1024u /* bytes of a reason, with its 0 */

enum stream_direction { STREAM_FORWARD, STREAM_RETURN };

/* What a section is. Numbers are part of the format. */
enum stream_type {
	/* ---- forward, in about this order ---- */
	STREAM_DESCRIPTION = 1, /* describe.h: which machine; the first section of channel 0 */
	STREAM_BLOB = 2,  /* state.h: a piece of what is neither RAM nor a table: ROM, what fw_cfg holds of a
			     kernel */
	STREAM_PAGES = 3, /* pages of RAM, see stream_pages_add() */
	STREAM_ROUND_END = 4, /* all pages of a round are sent on this channel: struct stream_round */
	STREAM_PART = 5,      /* state.h: one instance of one state table */
	STREAM_STATE_END = 6, /* all parts are sent, and all pages but those that STREAM_OWED names: struct
				 stream_totals */
	STREAM_OWED = 7, /* post-copy, before STATE_END: pages that come later. u64 address of the first, then
			  * bytes of a bitmap, a bit a page, lowest first; as many sections as it takes */
	STREAM_HAND_OVER = 8, /* the source gives the guest up: the destination may run it. No payload */
	STREAM_CANCEL = 9,    /* before HAND_OVER: forget it all. A reason, as text; may be empty */
	STREAM_ALIVE =
		10, /* nothing; keeps a quiet connection known to be one. No payload. Both directions */
	STREAM_TERMS = 11, /* behind DESCRIPTION: struct stream_terms */
	STREAM_CATCH_UP =
		12, /* before STATE_END, where STREAM_CATCHES_UP was agreed to: say when all before
		       this is in its place, on all channels whose rounds have ended. u32: a number */

	/* ---- return ---- */
	STREAM_ACCEPTED = 64, /* the description fits. u32: features of the transport, a bit each, that the
				 destination agrees to */
	STREAM_READY = 65,    /* STATE_END has come, everything was checked and loaded. No payload */
	STREAM_RUNNING = 66,  /* HAND_OVER has come, and the guest runs. No payload */
	STREAM_FAILURE = 67,  /* it does not, and will not. A reason, as text */
	STREAM_WANTED = 68,   /* post-copy: pages that the guest waits for. u32 count, u64 address each */
	STREAM_HELD = 69,     /* post-copy, over a new connection: pages that have come, as STREAM_OWED */
	STREAM_COMPLETE = 70, /* post-copy: every page has come. No payload */
	STREAM_CAUGHT_UP = 71 /* the answer to CATCH_UP, with its number */
};

/* Name of a type, for messages; "section 99" is the caller's where this is NULL. */
const char *stream_type_name(uint32_t type);

struct stream_session {
	uint8_t id[16];
};

/* A random one. 0, or a negative errno of getrandom(). */
int stream_session_new(struct stream_session *session);

/* ---- writing ---- */

struct stream_sink {
	void *owner;
	/* Takes all of it before it returns. 0, or a negative errno. */
	int (*write)(void *owner, const void *bytes, size_t size);
};

/*
 * One section is built at a time, in a buffer: stream_begin(), any number of stream_put…(), stream_end(). The
 * first error stays (@error), and everything after it does nothing.
 */
struct stream_writer {
	struct stream_sink sink;
	uint64_t seed, sequence;
	uint64_t bytes; /* given to the sink so far, with the header */
	uint8_t *room;  /* STREAM_SECTION_HEAD + STREAM_PAYLOAD_MAX + STREAM_CHECK_SIZE, of which pages are
			   touched as used */
	size_t size;    /* of the payload so far */
	uint32_t type, count;
	int error; /* 0, or a negative errno: of the sink; -EMSGSIZE: a section grew too large */
};

/* Makes a writer and sends the header. 0, -ENOMEM or the sink's error. stream_writer_free() in any case. */
int stream_writer_init(struct stream_writer *writer, const struct stream_sink *sink,
		       const struct stream_session *session, uint16_t channel,
		       enum stream_direction direction);
void stream_writer_free(struct stream_writer *writer);

void stream_begin(struct stream_writer *writer, enum stream_type type);
void stream_put(struct stream_writer *writer, const void *bytes, size_t size);
void stream_put_u8(struct stream_writer *writer, uint8_t value);
void stream_put_u16(struct stream_writer *writer, uint16_t value);
void stream_put_u32(struct stream_writer *writer, uint32_t value);
void stream_put_u64(struct stream_writer *writer, uint64_t value);
/* Room for @size bytes of the payload, for the caller to fill before it calls anything else; NULL after an
 * error. */
uint8_t *stream_put_room(struct stream_writer *writer, size_t size);
/* A length in two bytes, and then as many; at most 65535 are taken. */
void stream_put_text(struct stream_writer *writer, const char *text);
/* Bytes that still fit into the section. */
size_t stream_left(const struct stream_writer *writer);
/* Sends the section. 0, or writer->error. */
int stream_end(struct stream_writer *writer);

/* A section without a payload; one of text alone. 0, or writer->error. */
int stream_send(struct stream_writer *writer, enum stream_type type);
int stream_send_text(struct stream_writer *writer, enum stream_type type, const char *text);

/* ---- reading ---- */

struct stream_input {
	void *owner;
	/*
	 * Exactly @size bytes. 0; 1: the end, and not one byte of @size was there; a negative errno, of which
	 * -EPIPE is an end in the middle, and -ETIMEDOUT the transport's.
	 */
	int (*read)(void *owner, void *to, size_t size);
};

/* What is left of a payload. Taking what is not there sets @over, and gives zeros. */
struct stream_cursor {
	const uint8_t *at;
	size_t left;
	bool over;
};

struct stream_section {
	uint32_t type;
	struct stream_cursor payload; /* valid until the next stream_read() */
};

struct stream_reader {
	struct stream_input input;
	uint64_t seed, sequence, bytes;
	struct stream_session session;
	uint16_t channel;
	uint8_t *room;
	char why[STREAM_WHY]; /* after an error: one line, without the name of the peer */
};

/*
 * Reads and checks the header. @session is the one that it must have; NULL: any, which reader->session then
 * holds (the first header of a session that a destination sees). 0, or a negative errno with reader->why:
 * -EPROTO for what is in the header, -ENOMEM, those of the input. stream_reader_free() in any case.
 */
int stream_reader_init(struct stream_reader *reader, const struct stream_input *input,
		       const struct stream_session *session, uint16_t channel,
		       enum stream_direction direction);
/* The same for a reader of any channel, which reader->channel then holds. */
int stream_reader_accept(struct stream_reader *reader, const struct stream_input *input,
			 const struct stream_session *session, enum stream_direction direction);
void stream_reader_free(struct stream_reader *reader);
/* Keeps what was read last beyond the next stream_read(): the memory it lies in, which is the caller's from
 * now on; the reader has @room instead, and frees it. */
uint8_t *stream_reader_swap(struct stream_reader *reader, uint8_t *room);
/* Such memory, for free(); NULL: there is none. */
uint8_t *stream_room_new(void);

/*
 * The next section, checked. 0; 1: the stream ended behind a section; -EPROTO with reader->why where it is
 * not the section that was sent there, -EPIPE with reader->why where it ended in the middle, the input's
 * errors.
 */
int stream_read(struct stream_reader *reader, struct stream_section *section);

const uint8_t *stream_take(struct stream_cursor *cursor, size_t size); /* NULL where they are not there */
uint8_t stream_take_u8(struct stream_cursor *cursor);
uint16_t stream_take_u16(struct stream_cursor *cursor);
uint32_t stream_take_u32(struct stream_cursor *cursor);
uint64_t stream_take_u64(struct stream_cursor *cursor);
/* As stream_put_text() wrote it: what of it fits @size, always with a 0, unprintable bytes as '?'. */
void stream_take_text(struct stream_cursor *cursor, char *text, size_t size);
/* All of the payload as text: STREAM_FAILURE and STREAM_CANCEL. */
void stream_take_reason(struct stream_cursor *cursor, char *text, size_t size);
/* Whether exactly all of it was taken. */
static inline bool stream_taken(const struct stream_cursor *cursor)
{
	return !cursor->over && cursor->left == 0;
}

/* ---- payloads that are the format's own ---- */

/* STREAM_ROUND_END. */
struct stream_round {
	uint32_t number; /* from 0 */
	uint64_t pages;  /* sent in the round, on this channel */
};
void stream_put_round(struct stream_writer *writer, const struct stream_round *round); /* the whole section */
bool stream_take_round(struct stream_cursor *cursor, struct stream_round *round);

/* STREAM_TERMS: how the source would like to send. */
enum stream_feature { STREAM_POSTCOPY = 1, STREAM_ZSTD = 2, STREAM_CATCHES_UP = 4 };
struct stream_terms {
	uint32_t features; /* enum stream_feature: what it may use, if the destination agrees */
	uint16_t channels; /* besides channel 0 */
	uint64_t touched; /* bytes of RAM that are not untouched zeros: what the destination needs at least */
};
void stream_put_terms(struct stream_writer *writer, const struct stream_terms *terms); /* the whole section */
bool stream_take_terms(struct stream_cursor *cursor, struct stream_terms *terms);

/* STREAM_STATE_END: what must have come, so that nothing that is missing goes unseen. */
struct stream_totals {
	uint32_t parts, blobs; /* sections of these types */
	uint64_t pages;        /* in sections of all channels */
	uint64_t owed;         /* bits set in sections of STREAM_OWED */
};
void stream_put_totals(struct stream_writer *writer,
		       const struct stream_totals *totals); /* the whole section */
bool stream_take_totals(struct stream_cursor *cursor, struct stream_totals *totals);

/*
 * STREAM_PAGES: u32 count, then for each page its guest-physical address (8), in whose low bits stands its
 * kind, and PAGE_SIZE bytes where it is PAGE_RAW, or a size (4) and as many bytes where it is PAGE_ZSTD.
 */
enum stream_page_kind { STREAM_PAGE_ZERO, STREAM_PAGE_RAW, STREAM_PAGE_ZSTD };
#define STREAM_PAGES_MAX 512u /* of a section: half of the largest, so that a batch is soon under way */

/* Within stream_begin(writer, STREAM_PAGES). A full section must be ended by the caller before the next page:
 * stream_pages_full(). @content: PAGE_SIZE bytes, of which a page of zeros is found and sent as one. */
void stream_pages_add(struct stream_writer *writer, uint64_t address, const void *content);
/* The same of a page that was compressed to @size bytes. */
void stream_pages_add_zstd(struct stream_writer *writer, uint64_t address, const void *compressed,
			   uint32_t size);
static inline bool stream_pages_full(const struct stream_writer *writer)
{
	return writer->count >= STREAM_PAGES_MAX;
}
/* Begins a section of pages, and ends it. */
void stream_pages_begin(struct stream_writer *writer);
int stream_pages_end(struct stream_writer *writer);

struct stream_page {
	uint64_t address; /* a multiple of PAGE_SIZE; whether RAM is there is the caller's to see */
	enum stream_page_kind kind;
	const uint8_t *content; /* PAGE_SIZE bytes of RAW, @size of ZSTD, NULL of ZERO */
	uint32_t size;
};
/* The count that a batch begins with. False: no batch has it. */
bool stream_pages_count(struct stream_cursor *cursor, uint32_t *count);
/* The next page of it. False: there is none there, or it is none. */
bool stream_pages_next(struct stream_cursor *cursor, struct stream_page *page);

#endif
