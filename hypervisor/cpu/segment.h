/*
 * segment.h: descriptors, and loads of segment registers (SDM 3A chapters 3, 5; APM 2 chapter 4).
 */
#ifndef TRAPLINE_CPU_SEGMENT_H
#define TRAPLINE_CPU_SEGMENT_H

#include "cpu/cpu.h"
#include "cpu/tss.h" /* io_bitmap_allows() */

/* A descriptor as it stands in a table, taken apart. The upper half is for 16-byte system descriptors. */
struct descriptor {
	uint64_t low, high;
	uint64_t base;
	uint32_t limit;      /* scaled */
	uint32_t attributes; /* as in descriptors.h */
	uint64_t address;    /* linear address of the descriptor, for setting accessed and busy bits */
};

static inline bool selector_is_null(uint16_t selector) { return !(selector & (SELECTOR_INDEX | SELECTOR_TI)); }

/* What the attributes of a descriptor or a segment say. */
static inline unsigned attributes_dpl(uint32_t attributes) { return (attributes & SEG_DPL) >> SEG_DPL_SHIFT; }
static inline bool attributes_code(uint32_t attributes)
{
	return (attributes & (SEG_S | SEG_CODE)) == (SEG_S | SEG_CODE);
}
static inline bool attributes_data(uint32_t attributes) { return (attributes & (SEG_S | SEG_CODE)) == SEG_S; }
static inline bool attributes_conforming(uint32_t attributes)
{
	return attributes_code(attributes) && attributes & SEG_CONFORMING;
}
static inline bool attributes_writable(uint32_t attributes)
{
	return attributes_data(attributes) && attributes & SEG_WRITABLE;
}
static inline bool attributes_readable(uint32_t attributes)
{
	return attributes_data(attributes) || (attributes_code(attributes) && attributes & SEG_READABLE);
}
/* enum system_type, or -1 for a code or data segment. */
static inline int attributes_system_type(uint32_t attributes)
{
	return attributes & SEG_S ? -1 : (int)(attributes & SEG_TYPE);
}

/* Takes apart the eight bytes @low, with @high for a system descriptor of IA-32e mode. */
struct descriptor descriptor_parse(uint64_t low, uint64_t high);

/*
 * Reads the descriptor of @selector from the GDT or LDT. Outside the limit: raises @vector with
 * the selector as error code (RPL cleared, EXT from the event being delivered). @wide: 16 bytes.
 */
struct descriptor descriptor_read(struct cpu *cpu, uint16_t selector, bool wide, enum vector vector);
/* As above, but answers whether it could be read (LAR, LSL, VERR, VERW; null and outside: false). */
bool descriptor_try_read(struct cpu *cpu, uint16_t selector, bool wide, struct descriptor *descriptor);
/* Sets the accessed bit in memory and in @descriptor, where it is not set (SDM 3A 3.4.5.1). */
void descriptor_set_accessed(struct cpu *cpu, struct descriptor *descriptor);
/* Sets or clears the busy bit of the TSS descriptor in memory at @address (SDM 3A 8.2.2). */
void descriptor_set_busy(struct cpu *cpu, uint64_t address, bool busy);

/* Whether [@offset, @offset + @size) lies within the limit (SDM 3A 5.3); expand-down as well. */
bool segment_contains(const struct segment *segment, uint64_t offset, size_t size);

/* MOV, POP, LDS… to a segment register, with all checks of the current mode. CS is not for this. */
void segment_load(struct cpu *cpu, enum segment_register segment, uint16_t selector);
/* The hidden part as real-address and virtual-8086 mode make it (SDM 3A 20.1.1). Does not fault. */
void segment_load_real(struct cpu *cpu, enum segment_register segment, uint16_t selector);
/*
 * Loads the register from a descriptor that was checked already; sets the accessed bit in memory,
 * which can fault, unless it is set. The derived parts are made for the mode as it is now: a
 * caller that changes CS or the mode calls segment_derive_all() afterwards.
 */
void segment_set(struct cpu *cpu, enum segment_register segment, uint16_t selector,
		 const struct descriptor *descriptor);
/* Null data segment after a return to an outer level, or a load of a null selector. Does not fault. */
void segment_set_null(struct cpu *cpu, enum segment_register segment, uint16_t selector);
/* Makes linear_base, read_end and write_end of @segment from its architectural part and the mode. */
void segment_derive(struct cpu *cpu, enum segment_register segment);
void segment_derive_all(struct cpu *cpu);

/* Error code for a selector, with EXT. */
uint32_t selector_error(const struct cpu *cpu, uint16_t selector);
/* The EXT bit of error codes now: 1 while an event that is not INT n, INT3 or INTO is delivered. */
uint32_t error_ext(const struct cpu *cpu);

/* Far transfers and task switches (far.c, task.c). */
enum task_switch_source { TASK_SWITCH_CALL, TASK_SWITCH_JMP, TASK_SWITCH_IRET, TASK_SWITCH_GATE };
/*
 * Switches to the task of TSS @selector. @error_code: pushed on the new stack where has_error_code.
 * @next_rip: saved in the old TSS. Privilege checks on the TSS or the task gate are the caller's.
 * On return cpu->rip is the new task's; faults past the point of commitment belong to the new task.
 */
void task_switch(struct cpu *cpu, uint16_t selector, enum task_switch_source source, uint64_t next_rip,
		 bool has_error_code, uint32_t error_code);

#endif
