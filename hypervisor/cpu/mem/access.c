/*
 * access.c: the slow halves of every access: page crossings, MMIO, pages that are clean or
 * hold code, data breakpoints, and accesses with explicit rights.
 */
#include <string.h>

#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys_internal.h"
#include "cpu/mem/translate.h"
#include "cpu/vmx/vmx.h"

#define MMIO_MAX 16u /* bytes that the bus takes at once */

/* memcpy() for sizes that are mostly those of an operand. */
static inline void copy_operand(void *to, const void *from, size_t size)
{
	switch (size) {
	case 1: memcpy(to, from, 1); break;
	case 2: memcpy(to, from, 2); break;
	case 4: memcpy(to, from, 4); break;
	case 8: memcpy(to, from, 8); break;
	default: memcpy(to, from, size);
	}
}

/* ---- physical addresses ---- */

static void bus_read(struct cpu *cpu, uint64_t address, uint8_t *to, size_t size)
{
	while (size) {
		unsigned part = size < MMIO_MAX ? (unsigned)size : MMIO_MAX;
		cpu->bus.mmio_read(cpu->bus.owner, address, to, part);
		to += part;
		address += part;
		size -= part;
	}
}

static void bus_write(struct cpu *cpu, uint64_t address, const uint8_t *from, size_t size)
{
	while (size) {
		unsigned part = size < MMIO_MAX ? (unsigned)size : MMIO_MAX;
		cpu->bus.mmio_write(cpu->bus.owner, address, from, part);
		from += part;
		address += part;
		size -= part;
	}
}

uint64_t physical_read(struct cpu *cpu, uint64_t address, unsigned width)
{
	const struct memory_slot *slot = phys_slot(cpu->memory, address);
	uint64_t value = 0;

	if (likely(slot))
		copy_operand(&value, slot->host + (address - slot->base), width);
	else
		bus_read(cpu, address, (uint8_t *)&value, width);
	return value;
}

void physical_write_as(enum check log, struct cpu *cpu, uint64_t address, uint64_t value, unsigned width)
{
	uint8_t *host = phys_write_begin_as(log, cpu->memory, address, width);

	if (likely(host))
		copy_operand(host, &value, width);
	else
		bus_write(cpu, address, (const uint8_t *)&value, width);
}

/* ---- one page ---- */

/* Bytes of an access of @size at @linear that lie in its first page. */
static size_t first_part(uint64_t linear, size_t size)
{
	size_t rest = PAGE_SIZE - (linear & PAGE_MASK);
	return size < rest ? size : rest;
}

/* The address @offset bytes behind @linear, wrapping where linear addresses have 32 bits. */
static uint64_t linear_after(const struct cpu *cpu, uint64_t linear, size_t offset, unsigned access)
{
	bool wide = cpu_64bit(cpu) || (access & ACCESS_IMPLICIT && cpu_ia32e(cpu)) || linear >> 32;
	return wide ? linear + offset : (uint32_t)(linear + offset);
}

static void read_page(struct cpu *cpu, uint64_t linear, void *to, size_t size, unsigned access)
{
	const struct tlb_slow *page = tlb_translate(cpu, linear, access);

	if (unlikely(page->watched))
		watch_access(cpu, linear, size, false);
	if (likely(page->host))
		copy_operand(to, page->host + (linear & PAGE_MASK), size);
	else if (unlikely(page->apic))
		vmx_apic_read(cpu, page->physical | (linear & PAGE_MASK), to, size, access);
	else
		bus_read(cpu, page->physical | (linear & PAGE_MASK), to, size);
}

/* Stores into the page that @page, translated for writing, says; nothing here faults, but the APIC-access page may exit. */
static void write_page(struct cpu *cpu, const struct tlb_slow *page, uint64_t linear, const void *from,
		       size_t size, unsigned access)
{
	uint64_t physical = page->physical | (linear & PAGE_MASK);

	if (unlikely(page->watched))
		watch_access(cpu, linear, size, true);
	if (unlikely(!page->flags)) {
		if (unlikely(page->apic))
			vmx_apic_write(cpu, physical, from, size);
		else
			bus_write(cpu, physical, from, size);
		return;
	}
	phys_page_written(access & ACCESS_IMPLICIT ? CHECK_LOG_SYSTEM : CHECK_LOG_STORE, cpu->memory, page->flags, physical, size);
	copy_operand(page->host + (linear & PAGE_MASK), from, size);
	tlb_arm_write(cpu, access, linear);
}

/* ---- any number of pages: canonical addresses only ---- */

/* An access that crosses into or out of the APIC-access page always exits, before its first byte (SDM 3C 30.4.2). */
static void check_apic(struct cpu *cpu, const struct tlb_slow *page, uint64_t linear, unsigned access)
{
	if (unlikely(page->apic))
		vmx_apic_exit(cpu, page->physical | (linear & PAGE_MASK), access);
}

static void read_pages(struct cpu *cpu, uint64_t linear, void *to, size_t size, unsigned access)
{
	size_t part = first_part(linear, size);
	uint64_t second;

	if (likely(part == size)) {
		read_page(cpu, linear, to, size, access);
		return;
	}
	/* Both pages before the first byte: reading device memory has effects. */
	second = linear_after(cpu, linear, part, access);
	check_apic(cpu, tlb_translate(cpu, linear, access), linear, access);
	check_apic(cpu, tlb_translate(cpu, second, access), second, access);
	read_page(cpu, linear, to, part, access);
	read_page(cpu, second, (uint8_t *)to + part, size - part, access);
}

static void write_pages(struct cpu *cpu, uint64_t linear, const void *from, size_t size, unsigned access)
{
	size_t part = first_part(linear, size);
	struct tlb_slow pages[2];
	uint64_t second;

	access |= ACCESS_WRITE;
	if (likely(part == size)) {
		write_page(cpu, tlb_translate(cpu, linear, access), linear, from, size, access);
		return;
	}
	/* The first page's fault comes first; D is set in neither if the second one faults. */
	second = linear_after(cpu, linear, part, access);
	tlb_probe(cpu, linear, access);
	pages[1] = *tlb_translate(cpu, second, access);
	pages[0] = *tlb_translate(cpu, linear, access);
	check_apic(cpu, &pages[0], linear, access);
	check_apic(cpu, &pages[1], second, access);
	write_page(cpu, &pages[0], linear, from, part, access);
	write_page(cpu, &pages[1], second, (const uint8_t *)from + part, size - part, access);
}

static void check_pages(struct cpu *cpu, uint64_t linear, size_t size, unsigned access)
{
	while (size) {
		size_t part = first_part(linear, size);

		tlb_probe(cpu, linear, access);
		linear = linear_after(cpu, linear, part, access);
		size -= part;
	}
}

/* ---- linear addresses ---- */

/* What is not computed by the segment unit may pass a canonical base: GDTR.base + index (SDM 1 3.3.7.1). */
static void check_canonical(struct cpu *cpu, uint64_t linear, size_t size)
{
	bool canonical = linear_is_canonical(cpu, linear) && linear_is_canonical(cpu, linear + (size - 1));

	if (cpu_ia32e(cpu) && CHECK(CANONICAL_LINEAR, !canonical))
		cpu_raise(cpu, VECTOR_GP, 0);
}

void linear_read_bytes(struct cpu *cpu, uint64_t linear, void *to, size_t size, unsigned access)
{
	check_canonical(cpu, linear, size);
	read_pages(cpu, linear, to, size, access);
}

void linear_write_bytes(struct cpu *cpu, uint64_t linear, const void *from, size_t size, unsigned access)
{
	check_canonical(cpu, linear, size);
	write_pages(cpu, linear, from, size, access);
}

uint64_t linear_read(struct cpu *cpu, uint64_t linear, unsigned width, unsigned access)
{
	const struct tlb *tlb = context_of(cpu, access);
	const struct tlb_hot *hot = &tlb->hot[tlb_index(linear)];
	uint64_t value = 0;
	uint64_t page = (linear + (width - 1)) & ~PAGE_MASK;

	if (likely(hot->read_tag == (page | tlb->generation) && !(access & ACCESS_WRITE))) {
		copy_operand(&value, (const void *)(uintptr_t)(hot->host + linear), width);
		return value;
	}
	linear_read_bytes(cpu, linear, &value, width, access);
	return value;
}

void linear_write(struct cpu *cpu, uint64_t linear, uint64_t value, unsigned width, unsigned access)
{
	const struct tlb *tlb = context_of(cpu, access);
	const struct tlb_hot *hot = &tlb->hot[tlb_index(linear)];

	if (likely(hot->write_tag == (((linear + (width - 1)) & ~PAGE_MASK) | tlb->write_generation)))
		copy_operand((void *)(uintptr_t)(hot->host + linear), &value, width);
	else
		linear_write_bytes(cpu, linear, &value, width, access);
}

void linear_check(struct cpu *cpu, uint64_t linear, size_t size, unsigned access)
{
	if (size == 0)
		return;
	check_canonical(cpu, linear, size);
	check_pages(cpu, linear, size, access);
}

/* ---- logical addresses, at the current privilege ---- */

static unsigned current_access(const struct cpu *cpu) { return cpu->cpl == 3 ? ACCESS_USER : 0; }

/* Segment unit and alignment: the linear address of @size bytes. */
static uint64_t checked_linear(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size,
			       unsigned access)
{
	uint64_t linear = segment_linear(cpu, segment, offset, size, access);

	alignment_check(cpu, linear, size);
	return linear;
}

uint64_t mem_read_slow(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width)
{
	uint64_t linear = checked_linear(cpu, segment, offset, width, ACCESS_READ);
	uint64_t value = 0;

	read_pages(cpu, linear, &value, width, current_access(cpu));
	return value;
}

void mem_write_slow(struct cpu *cpu, unsigned segment, uint64_t offset, uint64_t value, unsigned width)
{
	uint64_t linear = checked_linear(cpu, segment, offset, width, ACCESS_WRITE);
	write_pages(cpu, linear, &value, width, current_access(cpu));
}

uint64_t mem_modify_slow(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width,
			 struct mem_modify *modify)
{
	uint64_t linear = checked_linear(cpu, segment, offset, width, ACCESS_WRITE);
	unsigned access = current_access(cpu) | ACCESS_WRITE;
	const struct tlb_slow *page = NULL;
	uint64_t old = 0;

	modify->host = NULL;
	modify->linear = linear;
	if (first_part(linear, width) == width) {
		page = tlb_translate(cpu, linear, access);
		if (likely(page->flags && !page->watched)) {
			modify->host = page->host + (linear & PAGE_MASK);
			phys_page_written(CHECK_LOG_MODIFY, cpu->memory, page->flags,
					  page->physical | (linear & PAGE_MASK), width);
			tlb_arm_write(cpu, access, linear);
			return host_load(modify->host, width);
		}
	}
	/* For writing first: what is missing shows as a write, and mem_modify_end() cannot fault. */
	check_pages(cpu, linear, width, access);
	if (unlikely(page && page->apic)) {
		vmx_apic_check_write(cpu, page->physical | (linear & PAGE_MASK), width);
		/* An exit of the read is told as one of the write, as a #PF would be (SDM 3C 28.2.1). */
		read_pages(cpu, linear, &old, width, access);
		return old;
	}
	read_pages(cpu, linear, &old, width, current_access(cpu));
	return old;
}

void mem_store_slow(struct cpu *cpu, uint64_t linear, uint64_t value, unsigned width)
{
	write_pages(cpu, linear, &value, width, current_access(cpu));
}

/* #GP(0) for operands that must be aligned whatever EFLAGS.AC says (SDM 1 4.1.1). */
static uint64_t aligned_linear(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size,
			       unsigned alignment, unsigned access)
{
	uint64_t linear = segment_linear(cpu, segment, offset, size, access);

	if (CHECK(OPERAND_ALIGNMENT, linear & (alignment - 1)))
		cpu_raise(cpu, VECTOR_GP, 0);
	alignment_check(cpu, linear, size);
	return linear;
}

void mem_read_bytes(struct cpu *cpu, unsigned segment, uint64_t offset, void *to, size_t size,
		    unsigned alignment)
{
	uint64_t linear = aligned_linear(cpu, segment, offset, size, alignment, ACCESS_READ);
	read_pages(cpu, linear, to, size, current_access(cpu));
}

void mem_write_bytes(struct cpu *cpu, unsigned segment, uint64_t offset, const void *from, size_t size,
		     unsigned alignment)
{
	uint64_t linear = aligned_linear(cpu, segment, offset, size, alignment, ACCESS_WRITE);
	write_pages(cpu, linear, from, size, current_access(cpu));
}

void mem_check_write(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size)
{
	uint64_t linear = checked_linear(cpu, segment, offset, size, ACCESS_WRITE);
	check_pages(cpu, linear, size, current_access(cpu) | ACCESS_WRITE);
}

uint64_t mem_check_physical(struct cpu *cpu, unsigned segment, uint64_t offset)
{
	uint64_t linear;

	mem_check_read(cpu, segment, offset, 1);
	linear = segment_linear(cpu, segment, offset, 1, ACCESS_READ);
	return tlb_translate(cpu, linear, current_access(cpu))->physical | (linear & PAGE_MASK);
}

void mem_check_read(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size)
{
	uint64_t linear = checked_linear(cpu, segment, offset, size, ACCESS_READ);
	check_pages(cpu, linear, size, current_access(cpu));
}

/* ---- runs for string instructions ---- */

/* Cuts *@size to what lies in one page and below @end, the segment's. */
static bool run_clip(uint64_t linear, uint64_t offset, uint64_t end, size_t *size)
{
	size_t part = first_part(linear, *size);

	if (offset >= end)
		return false;
	*size = part < end - offset ? part : (size_t)(end - offset);
	return true;
}

/*
 * The page of a run's first byte by the checks of an access, for a run that misses the inline path. It
 * raises what the first element would raise, so it may be asked only where an element of any width
 * passes alignment, lies in one page and below @end. NULL: a look at each element is wanted.
 */
static const struct tlb_slow *run_translate(struct cpu *cpu, unsigned segment, uint64_t offset, uint64_t end,
					    unsigned access)
{
	uint64_t linear = (cpu->segment[segment].linear_base + offset) & cpu->linear_mask;
	const struct tlb_slow *page;

	if (cpu->tlb == &cpu->tlbs[TLB_USER_ALIGNED] || first_part(linear, 8) < 8 || offset + 8 > end)
		return NULL;
	segment_linear(cpu, segment, offset, 1, access);
	page = tlb_translate(cpu, linear, access | current_access(cpu));
	return page->watched ? NULL : page;
}

const uint8_t *mem_run_read(struct cpu *cpu, unsigned segment, uint64_t offset, size_t *size)
{
	const uint8_t *host = mem_fast_read(cpu, segment, offset, 1);
	uint64_t linear = (cpu->segment[segment].linear_base + offset) & cpu->linear_mask;
	uint64_t end = cpu->segment[segment].read_end;
	const struct tlb_slow *page;

	if (unlikely(!host)) {
		page = run_translate(cpu, segment, offset, end, ACCESS_READ);
		if (!page || !page->host)
			return NULL;
		host = page->host + (linear & PAGE_MASK);
	}
	return run_clip(linear, offset, end, size) ? host : NULL;
}

uint8_t *mem_run_write(struct cpu *cpu, unsigned segment, uint64_t offset, size_t *size)
{
	uint8_t *host = mem_fast_write(cpu, segment, offset, 1);
	uint64_t linear = (cpu->segment[segment].linear_base + offset) & cpu->linear_mask;
	uint64_t end = cpu->segment[segment].write_end;
	const struct tlb_slow *page = NULL;

	if (unlikely(!host)) {
		page = run_translate(cpu, segment, offset, end, ACCESS_WRITE);
		if (!page || !page->flags)
			return NULL;
		host = page->host + (linear & PAGE_MASK);
	}
	if (!run_clip(linear, offset, end, size))
		return NULL;
	if (unlikely(page)) {
		phys_page_written(CHECK_LOG_STRING, cpu->memory, page->flags, page->physical | (linear & PAGE_MASK), *size);
		tlb_arm_write(cpu, current_access(cpu) | ACCESS_WRITE, linear);
	}
	return host;
}

/* ---- code ---- */

uint64_t fetch_translate(struct cpu *cpu, uint64_t linear)
{
	unsigned access = current_access(cpu) | ACCESS_EXECUTE;
	const struct tlb *tlb = context_of(cpu, access);
	const struct tlb_slow *page = &tlb->slow[tlb_index(linear)];

	if (likely(page->tag == ((linear & ~PAGE_MASK) | tlb->generation) &&
		   page->rights & 1u << ACCESS_EXECUTE && !page->apic))
		return page->physical | (linear & PAGE_MASK);
	if (cpu_ia32e(cpu) && CHECK(CANONICAL_FETCH, !linear_is_canonical(cpu, linear)))
		cpu_raise(cpu, VECTOR_GP, 0);
	page = tlb_translate(cpu, linear, access);
	check_apic(cpu, page, linear, access);
	return page->physical | (linear & PAGE_MASK);
}
