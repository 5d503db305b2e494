/* progress.h: how far a boot of the fuzzing guest came, for its host. */
#ifndef TRAPLINE_GUESTS_FUZZ_PROGRESS_H
#define TRAPLINE_GUESTS_FUZZ_PROGRESS_H

#include <stdint.h>

#define FUZZ_PROGRESS 0x80000u

struct fuzz_progress {
	uint64_t accesses;
};

#endif
