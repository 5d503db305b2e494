/*
 * shrink.h: from a failing case to the simplest that still fails.
 */
#ifndef TRAPLINE_ORACLE_SHRINK_H
#define TRAPLINE_ORACLE_SHRINK_H

#include "oracle/compare.h"
#include "oracle/host.h"
#include "oracle/model.h"

/* Both sides, and what makes their cases. */
struct sides {
	struct generator generator;
	struct host *host;
	struct model *model;
};

/* Runs @c on both sides. Whether they agree; a host that is gone agrees. */
bool sides_agree(struct sides *sides, const struct oracle_case *c, struct oracle_outcome *host,
		 struct oracle_outcome *model);

/* Makes @c simpler while it still fails: fewer instructions and prefixes, zero registers and memory. */
void shrink(struct sides *sides, struct oracle_case *c);

#endif
