/*
 * segment.c: descriptors and loads of segment registers (SDM 3A chapters 3, 5; APM 2 chapter 4).
 */
#include "cpu/segment.h"

#include "cpu/checks.h"
#include "cpu/mem/mem.h"

#define REAL_MODE_ATTRIBUTES (SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED)

/* ---- error codes (SDM 3A 6.13) ---- */

uint32_t error_ext(const struct cpu *cpu)
{
	if (!cpu->delivering_depth)
		return 0;
	return cpu->delivering.kind == EVENT_SOFTWARE_INTERRUPT ||
			       cpu->delivering.kind == EVENT_SOFTWARE_EXCEPTION ?
		       0 :
		       ERROR_EXT;
}

uint32_t selector_error(const struct cpu *cpu, uint16_t selector)
{
	return (selector & (SELECTOR_INDEX | SELECTOR_TI)) | error_ext(cpu);
}

/* ---- descriptors ---- */

struct descriptor descriptor_parse(uint64_t low, uint64_t high)
{
	struct descriptor d = {.low = low, .high = high};

	d.attributes = (uint32_t)(low >> 40) & 0xf0ff;
	d.base = (low >> 16 & 0xffffff) | (low >> 32 & 0xff000000) | high << 32;
	d.limit = (uint32_t)(low & 0xffff) | (uint32_t)(low >> 32 & 0xf0000);
	if (d.attributes & SEG_G)
		d.limit = d.limit << 12 | 0xfff;
	return d;
}

/* Linear address of the descriptor; false where @size bytes of it are not inside the table. */
static bool descriptor_locate(const struct cpu *cpu, uint16_t selector, unsigned size, uint64_t *address)
{
	uint32_t index = selector & SELECTOR_INDEX;
	uint64_t base = cpu->gdtr.base;
	uint32_t limit = cpu->gdtr.limit;

	if (selector & SELECTOR_TI) {
		if (CHECK(LDT_USABLE, cpu->ldtr.s.attributes & SEG_UNUSABLE))
			return false;
		base = cpu->ldtr.s.base;
		limit = cpu->ldtr.s.limit;
	}
	if (CHECK(DESCRIPTOR_TABLE_LIMIT, index + size - 1 > limit))
		return false;
	*address = base + index;
	if (!cpu_ia32e(cpu))
		*address &= 0xffffffff;
	return true;
}

static struct descriptor descriptor_fetch(struct cpu *cpu, uint64_t address, bool wide)
{
	struct descriptor d;
	uint64_t low = linear_read(cpu, address, 8, ACCESS_READ | ACCESS_IMPLICIT);
	uint64_t high = wide ? linear_read(cpu, address + 8, 8, ACCESS_READ | ACCESS_IMPLICIT) : 0;

	d = descriptor_parse(low, high);
	d.address = address;
	return d;
}

struct descriptor descriptor_read(struct cpu *cpu, uint16_t selector, bool wide, enum vector vector)
{
	uint64_t address;

	if (!descriptor_locate(cpu, selector, wide ? 16 : 8, &address))
		cpu_raise(cpu, vector, selector_error(cpu, selector));
	return descriptor_fetch(cpu, address, wide);
}

bool descriptor_try_read(struct cpu *cpu, uint16_t selector, bool wide, struct descriptor *descriptor)
{
	uint64_t address;

	if (selector_is_null(selector) || !descriptor_locate(cpu, selector, wide ? 16 : 8, &address))
		return false;
	*descriptor = descriptor_fetch(cpu, address, wide);
	return true;
}

void descriptor_set_accessed(struct cpu *cpu, struct descriptor *descriptor)
{
	uint8_t byte = (uint8_t)(descriptor->low >> 40);

	if (!(descriptor->attributes & SEG_S) || descriptor->attributes & SEG_ACCESSED)
		return;
	linear_write(cpu, descriptor->address + 5, byte | SEG_ACCESSED, 1, ACCESS_WRITE | ACCESS_IMPLICIT);
	descriptor->low |= (uint64_t)SEG_ACCESSED << 40;
	descriptor->attributes |= SEG_ACCESSED;
}

void descriptor_set_busy(struct cpu *cpu, uint64_t address, bool busy)
{
	uint64_t byte = linear_read(cpu, address + 5, 1, ACCESS_WRITE | ACCESS_IMPLICIT);

	byte = busy ? byte | 2 : byte & ~2ull;
	linear_write(cpu, address + 5, byte, 1, ACCESS_WRITE | ACCESS_IMPLICIT);
}

/* ---- what accesses need ---- */

bool segment_contains(const struct segment *segment, uint64_t offset, size_t size)
{
	uint64_t last = offset + size - 1;

	if (segment->attributes & SEG_UNUSABLE)
		return false;
	if (attributes_data(segment->attributes) && segment->attributes & SEG_EXPAND_DOWN)
		return offset > segment->limit && last <= (segment->attributes & SEG_DB ? 0xffffffff : 0xffff);
	return last <= segment->limit;
}

/*
 * 64-bit mode ignores limits, types and null selectors of data accesses, and all bases but those of
 * FS and GS (SDM 3A 3.4.4, APM 2 4.5.3).
 */
static void derive_64bit(struct cpu_segment *s, enum segment_register segment)
{
	s->linear_base = segment == FS || segment == GS ? s->s.base : 0;
	s->read_end = s->write_end = UINT64_MAX;
}

void segment_derive(struct cpu *cpu, enum segment_register segment)
{
	struct cpu_segment *s = &cpu->segment[segment];
	uint32_t attributes = s->s.attributes;
	uint64_t end;

	if (cpu_ia32e(cpu) && cpu->segment[CS].s.attributes & SEG_L) {
		derive_64bit(s, segment);
		return;
	}
	s->linear_base = s->s.base & 0xffffffff;
	s->read_end = s->write_end = 0;
	if (attributes & SEG_UNUSABLE || (attributes_data(attributes) && attributes & SEG_EXPAND_DOWN))
		return;
	end = (uint64_t)s->s.limit + 1;
	if (attributes_readable(attributes))
		s->read_end = end;
	if (attributes_writable(attributes))
		s->write_end = end;
}

void segment_derive_all(struct cpu *cpu)
{
	for (enum segment_register i = ES; i < SEGMENT_COUNT; i++)
		segment_derive(cpu, i);
}

/* ---- loads that cannot fault ---- */

/*
 * Real-address mode leaves limit, G and D/B as they are (SDM 3A 9.9.2 tells software to load 64-KByte
 * limits before it leaves protected mode); virtual-8086 mode sets all of the hidden part.
 */
void segment_load_real(struct cpu *cpu, enum segment_register segment, uint16_t selector)
{
	struct segment *s = &cpu->segment[segment].s;

	s->selector = selector;
	s->base = (uint64_t)selector << 4;
	if (cpu_vm86(cpu)) {
		s->limit = 0xffff;
		s->attributes = REAL_MODE_ATTRIBUTES | SEG_DPL;
	} else {
		s->attributes = REAL_MODE_ATTRIBUTES | (s->attributes & (SEG_G | SEG_DB));
	}
	segment_derive(cpu, segment);
}

/*
 * Intel clears the base. AMD leaves base and limit alone, unless CPUID Fn8000_0021_EAX
 * [NullSelectClearsBase] says otherwise (APM 2 4.5.3, APM 3 appendix E). A null SS keeps the CPL.
 */
void segment_set_null(struct cpu *cpu, enum segment_register segment, uint16_t selector)
{
	struct segment *s = &cpu->segment[segment].s;
	bool keeps_base = cpu->profile->vendor == VENDOR_AMD && !cpu_has(cpu, FEATURE_null_sel_clr_base);

	s->selector = selector;
	s->attributes = SEG_UNUSABLE;
	if (segment == SS)
		s->attributes |= (uint32_t)(selector & SELECTOR_RPL) << SEG_DPL_SHIFT;
	if (!keeps_base)
		s->base = s->limit = 0;
	segment_derive(cpu, segment);
}

void segment_set(struct cpu *cpu, enum segment_register segment, uint16_t selector,
		 const struct descriptor *descriptor)
{
	struct descriptor d = *descriptor;

	descriptor_set_accessed(cpu, &d);
	cpu->segment[segment].s = (struct segment){
		.selector = selector, .base = d.base, .limit = d.limit, .attributes = d.attributes};
	segment_derive(cpu, segment);
}

/* ---- MOV to a segment register and its kin (SDM 2B MOV; SDM 3A 5.6, 5.7; APM 2 4.10) ---- */

static void load_null(struct cpu *cpu, enum segment_register segment, uint16_t selector)
{
	if (segment == SS) {
		unsigned rpl = selector & SELECTOR_RPL;

		if (CHECK(LOAD_SS_NULL, !cpu_64bit(cpu) || cpu->cpl == 3 || rpl != cpu->cpl))
			cpu_raise(cpu, VECTOR_GP, 0);
	}
	segment_set_null(cpu, segment, selector);
}

static void load_ss(struct cpu *cpu, uint16_t selector)
{
	struct descriptor d = descriptor_read(cpu, selector, false, VECTOR_GP);
	uint32_t error = selector_error(cpu, selector);

	if (CHECK(LOAD_SS_RPL, (selector & SELECTOR_RPL) != cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(LOAD_SS_TYPE, !attributes_writable(d.attributes)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(LOAD_SS_DPL, attributes_dpl(d.attributes) != cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(LOAD_SS_PRESENT, !(d.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_SS, error);
	segment_set(cpu, SS, selector, &d);
}

static void load_data(struct cpu *cpu, enum segment_register segment, uint16_t selector)
{
	struct descriptor d = descriptor_read(cpu, selector, false, VECTOR_GP);
	uint32_t error = selector_error(cpu, selector);
	unsigned dpl = attributes_dpl(d.attributes), rpl = selector & SELECTOR_RPL;

	if (CHECK(LOAD_DATA_TYPE, !attributes_readable(d.attributes)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (!attributes_conforming(d.attributes)) {
		if (CHECK(LOAD_DATA_RPL, rpl > dpl))
			cpu_raise(cpu, VECTOR_GP, error);
		if (CHECK(LOAD_DATA_CPL, cpu->cpl > dpl))
			cpu_raise(cpu, VECTOR_GP, error);
	}
	if (CHECK(LOAD_DATA_PRESENT, !(d.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	segment_set(cpu, segment, selector, &d);
}

void segment_load(struct cpu *cpu, enum segment_register segment, uint16_t selector)
{
	if (!cpu_protected(cpu) || cpu_vm86(cpu))
		segment_load_real(cpu, segment, selector);
	else if (selector_is_null(selector))
		load_null(cpu, segment, selector);
	else if (segment == SS)
		load_ss(cpu, selector);
	else
		load_data(cpu, segment, selector);
}
