/*
 * case.h: one case of the comparison with the host's processor: what goes in, and what came out.
 *
 * A case is a few bytes of code, a state of the unprivileged registers, and the arena: four pages
 * at the same linear addresses on both sides, with nothing mapped before and behind them.
 *
 *   page 0   read, write, execute: HLT everywhere but the code, so that whatever
 *            runs past the code faults there
 *   page 1   read, write
 *   page 2   read
 *
 * Plain data, in memory that two processes share: no pointers.
 */
#ifndef TRAPLINE_ORACLE_CASE_H
#define TRAPLINE_ORACLE_CASE_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/registers.h"
#include "x86/vectors.h"

#define ARENA_AT       0x10000000ull
#define ARENA_PAGE     0x1000u
#define ARENA_WRITABLE (2 * ARENA_PAGE) /* what a case can change */
#define ARENA_SIZE     (3 * ARENA_PAGE)
#define ARENA_FILL     0xf4 /* HLT: #GP(0) at CPL 3 */

/* Selectors as 64-bit Linux has them; the software CPU's tables follow. */
#define ORACLE_CS64 0x33
#define ORACLE_CS32 0x23
#define ORACLE_DATA 0x2b

#define ORACLE_CODE_MAX 64 /* bytes of code */
#define NO_FAULT        0xff

/* FXSAVE's image in its 64-bit form (SDM 1 10.5.1), which compatibility mode shares but for pointers. */
struct fx_image {
	uint16_t fcw, fsw;
	uint8_t ftw, reserved;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	uint8_t st[8][16];
	uint8_t xmm[16][16];
	uint8_t rest[96];
};
_Static_assert(sizeof(struct fx_image) == 512, "FXSAVE's area");

struct oracle_state {
	uint64_t gpr[GPR_COUNT];
	uint64_t rip, rflags;
	uint64_t fs_base, gs_base;
	struct fx_image fx;
	uint8_t ymm_high[16][16]; /* bits 255:128 of the YMM registers; 0 where the host has no AVX */
};

struct oracle_case {
	struct oracle_state in;
	uint64_t seed;      /* of the run */
	uint64_t number;    /* in the run */
	bool compatibility; /* else 64-bit mode */
	bool traps;         /* one single step, by RFLAGS.TF; else the code runs until it faults */
	uint8_t insns;      /* instructions in the code */
	uint8_t size;       /* bytes of code, at in.rip */
	uint8_t memory[ARENA_WRITABLE]; /* pages 0 and 1, the code in them */
};

struct oracle_outcome {
	struct oracle_state out;
	uint8_t vector;  /* of the fault that ended the case (that of the HLT, too), or NO_FAULT for the step
			  */
	bool unmodelled; /* software CPU: it met something that it does not model */
	bool lost;       /* host: the process that ran it died, hung, or made a system call */
	uint32_t error_code;
	uint64_t address; /* of a page fault */
	uint8_t memory[ARENA_WRITABLE];
};

#endif
