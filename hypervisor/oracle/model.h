/*
 * model.h: cases on the software CPU.
 *
 * Around it stands the least machine that has what the host's kernel gives a program: four-level
 * paging, flat segments at CPL 3, an IDT whose handlers halt. A case ends in one of them, as on
 * the host it ends in a signal, and the frame on the stack tells the rest.
 */
#ifndef TRAPLINE_ORACLE_MODEL_H
#define TRAPLINE_ORACLE_MODEL_H

#include <stddef.h>

#include "cpu/profile.h"
#include "oracle/case.h"

struct model;

/*
 * The host's processor as a profile: its vendor, and of the features that profiles know those
 * that its CPUID shows.
 */
void model_host_profile(struct profile *profile);

/* NULL when out of memory. The profile is copied. */
struct model *model_new(const struct profile *profile, const uint8_t read_only[ARENA_PAGE]);
void model_free(struct model *model);

void model_run(struct model *model, const struct oracle_case *c, struct oracle_outcome *outcome);
/* What the last case met that is not modelled. */
const char *model_unmodelled(const struct model *model);

#endif
