/*
 * segment.h: descriptors, and loads of segment registers (SDM 3A chapters 3, 5; APM 2 chapter 4).
 */
#ifndef TRAPLINE_CPU_SEGMENT_H
#define TRAPLINE_CPU_SEGMENT_H

#include "cpu/cpu.h"

/* A descriptor as it stands in a table, taken apart. The upper half is for 16-byte system descriptors. */
struct descriptor {
	uint64_t low, high;
	uint64_t base;
	uint32_t limit;      /* scaled */
	uint32_t attributes; /* as in descriptors.h */
	uint64_t address;    /* linear address of the descriptor, for setting accessed and busy bits */
};

/* Takes apart the eight bytes @low, with @high for a system descriptor of IA-32e mode. */
struct descriptor descriptor_parse(uint64_t low, uint64_t high);

/*
 * Reads the descriptor of @selector from the GDT or LDT. Outside the limit: raises @vector with
 * the selector as error code (RPL cleared, EXT from the event being delivered). @wide: 16 bytes.
 */
struct descriptor descriptor_read(struct cpu *cpu, uint16_t selector, bool wide, enum vector vector);
/* As above, but answers whether it could be read (LAR, LSL, VERR, VERW; null and outside: false). */
bool descriptor_try_read(struct cpu *cpu, uint16_t selector, bool wide, struct descriptor *descriptor);

/* MOV, POP, LDS… to a segment register, with all checks of the current mode. CS is not for this. */
void segment_load(struct cpu *cpu, enum segment_register segment, uint16_t selector);
/* The hidden part as real-address and virtual-8086 mode make it (SDM 3A 20.1.1). */
void segment_load_real(struct cpu *cpu, enum segment_register segment, uint16_t selector);
/* Loads the register from a descriptor that was checked already; sets the accessed bit in memory. */
void segment_set(struct cpu *cpu, enum segment_register segment, uint16_t selector, const struct descriptor *descriptor);
/* Null data segment after a return to an outer level, or a load of a null selector. */
void segment_set_null(struct cpu *cpu, enum segment_register segment, uint16_t selector);
/* Makes linear_base, read_end and write_end of @segment from its architectural part and the mode. */
void segment_derive(struct cpu *cpu, enum segment_register segment);
void segment_derive_all(struct cpu *cpu);

/* Error code for a selector, with EXT. */
uint32_t selector_error(const struct cpu *cpu, uint16_t selector);

/* Far transfers and task switches (far.c, task.c). */
enum task_switch_source { TASK_SWITCH_CALL, TASK_SWITCH_JMP, TASK_SWITCH_IRET, TASK_SWITCH_GATE };
/* @error_code: pushed on the new stack where has_error_code. @next_rip: saved in the old TSS. */
void task_switch(struct cpu *cpu, uint16_t selector, enum task_switch_source source, uint64_t next_rip,
		 bool has_error_code, uint32_t error_code);

/* Whether the TSS I/O permission bitmap allows @size ports from @port (SDM 1 19.5.2). May raise #PF. */
bool io_bitmap_allows(struct cpu *cpu, uint16_t port, unsigned size);

#endif
