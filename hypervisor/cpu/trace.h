/*
 * trace.h: decoded code, kept by physical address and mode (enum code_mode).
 *
 * A trace is a run of decoded instructions that lie in one page (the last may reach into the
 * next), ended by a pseudo instruction. Writes to a page with PAGE_CODE come here by line of 128
 * bytes; a trace that is hit is made stale: its instructions are replaced by ones that leave it,
 * so that a store into the running trace ends it behind the storing instruction.
 */
#ifndef TRAPLINE_CPU_TRACE_H
#define TRAPLINE_CPU_TRACE_H

#include "cpu/insn.h"

/* Most instructions of a trace: how far the fast path may run past the check of event_at. */
#define TRACE_INSNS 48

struct trace_cache *trace_cache_new(struct cpu *cpu);
void trace_cache_free(struct trace_cache *cache);

/* First instruction of the trace at cpu->rip in the current mode; decodes it if needed. Raises fetch faults. */
const struct insn *trace_lookup(struct cpu *cpu);
/* The instruction at cpu->rip alone, followed by an end. For single steps. Raises fetch faults. */
const struct insn *trace_step(struct cpu *cpu);

/* Bytes [address, address + size) of physical memory, within one page, change. Called by mem/phys.c. */
void trace_written(struct trace_cache *cache, uint64_t address, size_t size);
/* Forgets everything (a break was armed, memory was remapped). */
void trace_drop_all(struct trace_cache *cache);

/*
 * Makes the running trace end behind the instruction that runs now (a bus call made something
 * pending), and undoes that between two traces.
 */
void trace_leave_after(struct cpu *cpu);
void trace_unpark(struct cpu *cpu);

/* Copies the bytes of the running instruction, at most @size; answers how many. */
size_t trace_bytes(const struct cpu *cpu, uint8_t *to, size_t size);

/* Links that were made through a translation: call when the mapping of code may have changed. */
void trace_mapping_changed(struct cpu *cpu);

#endif
