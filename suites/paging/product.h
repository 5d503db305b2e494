/*
 * product.h: rows that stand for many cases, whose expectations rule.c computes.
 *
 * What of the product cannot matter is left out, and the sampled cases (sampled.c) have it: where an
 * access faults, A and D stay 0 at first; CR0.WP counts for writes, SMEP for fetches, SMAP, AC and keys for
 * data; without XD in the entry, EFER.NXE counts for fetches.
 */
#ifndef TRAPLINE_SUITES_PAGING_PRODUCT_H
#define TRAPLINE_SUITES_PAGING_PRODUCT_H

#include "words.h"

/* Every combination of @bits in one entry, the others permissive; each access, CPL 0 and 3, control. */
#define PRODUCT(shape, level, bits)                                                                          \
	product_entry(x, SHAPE_##shape, LEVEL_##level, (bits), __FILE__, __LINE__);

/* The same entry with P = 0, alone and with all other bits, and with each bit of @reserved; all accesses. */
#define UNUSABLE(shape, level, reserved)                                                                     \
	product_unusable(x, SHAPE_##shape, LEVEL_##level, (reserved), __FILE__, __LINE__);

/* Each defect of one entry with each of another: P, R/W, U/S = 0, XD = 1, a reserved bit. */
#define PAIRS(shape, upper, lower)                                                                           \
	product_pairs(x, SHAPE_##shape, LEVEL_##upper, LEVEL_##lower, __FILE__, __LINE__);

/* @count cases at random, the same in every build. */
#define SAMPLED(shape, count) product_sampled(x, SHAPE_##shape, (count), __FILE__, __LINE__);

void product_entry(struct cell *x, enum shape shape, enum level level, uint64_t bits, const char *file,
		   int line);
void product_unusable(struct cell *x, enum shape shape, enum level level, uint64_t reserved,
		      const char *file, int line);
void product_pairs(struct cell *x, enum shape shape, enum level upper, enum level lower, const char *file,
		   int line);
void product_sampled(struct cell *x, enum shape shape, unsigned count, const char *file, int line);

/* The cells that the products have made, by shape, level, access, CPL and what varied: for the inventory. */
enum varied { VARIED_P, VARIED_W, VARIED_U, VARIED_NX, VARIED_A, VARIED_D, VARIED_RESERVED, VARIED_WP,
	      VARIED_NXE, VARIED_SMEP, VARIED_SMAP, VARIED_AC, VARIED_AD, VARIED_WD, VARIED_COUNT };
/* Whether this matters to @access there, so that there must be cases with it and without. */
bool product_matters(enum shape shape, enum level level, enum access access, unsigned cpl, enum varied what);
/* Errors for each cell that has no case on one of the two sides. */
void product_inventory(struct suite *suite);

#endif
