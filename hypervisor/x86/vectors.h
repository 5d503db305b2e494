/*
 * vectors.h: exceptions, their vectors, kinds and error codes (SDM 3A 6.15,
 * APM 2 8.2).
 */
#ifndef TRAPLINE_X86_VECTORS_H
#define TRAPLINE_X86_VECTORS_H

#include <stdbool.h>
#include <stdint.h>

enum vector {
	VECTOR_DE = 0,
	VECTOR_DB = 1,
	VECTOR_NMI = 2,
	VECTOR_BP = 3,
	VECTOR_OF = 4,
	VECTOR_BR = 5,
	VECTOR_UD = 6,
	VECTOR_NM = 7,
	VECTOR_DF = 8,
	VECTOR_TS = 10,
	VECTOR_NP = 11,
	VECTOR_SS = 12,
	VECTOR_GP = 13,
	VECTOR_PF = 14,
	VECTOR_MF = 16,
	VECTOR_AC = 17,
	VECTOR_MC = 18,
	VECTOR_XM = 19,
	VECTOR_VE = 20,
	VECTOR_CP = 21,
	VECTOR_HV = 28,
	VECTOR_VC = 29,
	VECTOR_SX = 30
};

/* The exceptions that push an error code (SDM 3A 6.13). */
#define VECTORS_WITH_ERROR_CODE                                              \
	(1u << VECTOR_DF | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | \
	 1u << VECTOR_GP | 1u << VECTOR_PF | 1u << VECTOR_AC | 1u << VECTOR_CP | \
	 1u << VECTOR_VC | 1u << VECTOR_SX)

/* Whether exception @vector pushes an error code outside real-address mode. */
static inline bool vector_has_error_code(unsigned vector)
{
	return vector < 32 && (VECTORS_WITH_ERROR_CODE >> vector & 1);
}

/* Selector error codes (SDM 3A 6.13). */
#define ERROR_EXT 1u
#define ERROR_IDT 2u
#define ERROR_TI  4u

/* #PF error codes (SDM 3A 4.7). */
#define PF_P   (1u << 0)
#define PF_W   (1u << 1)
#define PF_U   (1u << 2)
#define PF_RSVD (1u << 3)
#define PF_I   (1u << 4)
#define PF_PK  (1u << 5)
#define PF_SS  (1u << 6)

#endif
