/*
 * host.h: cases on the host's own processor.
 *
 * They run in a child process that can do nothing else. Each case ends in a signal: by its fault,
 * by the HLT behind its code, or by the single step (RFLAGS.TF) where the case asks for that, which
 * costs three times as much under most hypervisors. The signal brings the whole state, and when
 * its handler returns, the kernel loads that of the next case. A filter lets no system call
 * through but the handler's own; code of a case that makes one gets SIGSYS. A batch of cases costs
 * two messages through a pipe, and each case one signal.
 */
#ifndef TRAPLINE_ORACLE_HOST_H
#define TRAPLINE_ORACLE_HOST_H

#include <stddef.h>

#include "oracle/case.h"

#define HOST_BATCH 64

struct host;

/*
 * Starts the child. @read_only is the content of the arena's last page, copied. 0, or a negative
 * errno with one line in @why: -ENOTSUP where this host cannot do it.
 */
int host_start(struct host **host, const uint8_t read_only[ARENA_PAGE], char *why, size_t size);
void host_stop(struct host *host);

/* HOST_BATCH cases to fill, and what became of them. */
struct oracle_case *host_cases(struct host *host);
const struct oracle_outcome *host_outcomes(const struct host *host);
/*
 * Runs the first @count cases. A case that kills the child is marked as lost, and the rest go on
 * in a new one. 0, or a negative errno where no child can be had any more.
 */
int host_run(struct host *host, unsigned count);

#endif
