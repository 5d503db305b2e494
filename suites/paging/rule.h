/*
 * rule.h: what the manuals promise of one access through a path: SDM 3A 4.5 (translation), 4.6 (access
 * rights), 4.7 (page faults), 4.8 (accessed and dirty flags); APM 2 5.3 to 5.6 and 8.2.15.
 *
 * It is a statement of the clauses, clause by clause, in the order of the text; nothing here was taken from
 * how a processor model walks its tables.
 */
#ifndef TRAPLINE_SUITES_PAGING_RULE_H
#define TRAPLINE_SUITES_PAGING_RULE_H

#include "path.h"

enum access { ACCESS_OF_READ, ACCESS_OF_WRITE, ACCESS_OF_MODIFY, ACCESS_OF_FETCH, ACCESS_OF_SYSTEM_READ,
	      ACCESS_OF_SYSTEM_WRITE, ACCESS_COUNT };

struct controls {
	unsigned cpl;
	bool wp, nxe, smep, smap, ac, pke;
	bool key_ad, key_wd; /* PKRU's two bits for the key of the page */
};

#define REASONS_MAX 8
#define ERRORS_MAX  4

struct promise {
	bool faults;
	uint32_t error[ERRORS_MAX];     /* error codes that the manuals permit */
	bool error_on_amd[ERRORS_MAX];  /* this one on AMD's processors alone */
	unsigned errors;
	bool not_used;                  /* an entry is not present or has a reserved bit: no translation */
	unsigned used;                  /* entries that the translation used, from the root down */
	const char *reasons[REASONS_MAX]; /* keys of manuals.def: the clauses that decide */
	unsigned reason_count;
};

/* The bits of the entry that are reserved while it is present, of which @physical_bits bounds the address. */
uint64_t rule_reserved(enum shape shape, enum level level, bool maps_page, bool nxe, unsigned physical_bits);

/* Whether the access writes (a read-modify-write does). */
bool access_writes(enum access access);

/* What becomes of @access through @path. */
struct promise rule_promise(const struct path *path, enum access access, const struct controls *controls);

#endif
