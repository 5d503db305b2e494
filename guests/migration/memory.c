/*
 * memory.c: memory that is written in all ways there are, by one processor and by several, and must be whole: nothing
 * lost, nothing torn, nothing that comes back from before.
 *
 * SDM 3A 8.1, 8.2, 4.8, 3.4.5.1, 7.2.2; APM 2 5.4.2, 7.1 to 7.3, 4.7.
 */
#include "migration/memory.h"

#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "migration/migration.h"
#include "x86/descriptors.h"
#include "x86/paging.h"
#include "x86/registers.h"

#define PAGES 4u

static uint8_t area[PAGES * PAGE_SIZE] __attribute__((aligned(4096)));

/* Byte @i of what generation @g leaves; no two alike. */
static uint8_t byte_of(unsigned g, unsigned i) { return (uint8_t)(0x35 + 0x6b * g + 0x1d * i); }

static uint64_t quad_of(unsigned g, unsigned i)
{
	uint64_t value = 0;

	for (unsigned k = 0; k < 8; k++)
		value |= (uint64_t)byte_of(g, i + k) << 8 * k;
	return value;
}

/*
 * A way of writing (@index, as memory.S has them): 32 bytes at each of some places, aligned and, where the way can, across
 * lines and pages; twice, so that it meets pages that are clean and pages that are not.
 */
STORY(stores_kept)
{
	static const uint32_t aligned[] = {0, 0x40, 0xfe0, 0x1000, 0x2fc0}, across[] = {0x21, 0x6d, 0xff1, 0x1ffd, 0x2ff9};
	const struct memory_way *way = &memory_ways[GIVEN(index)];
	uint64_t cr4 = machine_read_cr4(), value[4];

	if (way->leaf && !story_needs(cpuid_bit(way->leaf, way->reg, way->bit), "CPUID: no such instruction"))
		return;
	machine_write_cr4(cr4 | CR4_OSFXSR | (machine.xsave ? CR4_OSXSAVE : 0));
	if (way->avx)
		machine_write_xcr0(7);
	for (unsigned g = 0; g < 2; g++) {
		for (unsigned n = 0; n < 5; n++) {
			uint8_t *to = area + (way->aligned ? aligned[n] : across[n]);

			for (unsigned k = 0; k < 4; k++)
				value[k] = quad_of(g + 2 * n, 8 * k);
			way->write(to, value);
			hold();
			for (unsigned k = 0; k < 4; k++)
				story_check_at("quad", k, value[k], *(volatile uint64_t *)(to + 8 * k));
		}
		for (unsigned n = 0; n < 5; n++) { /* and those of before, still */
			uint8_t *at = area + (way->aligned ? aligned[n] : across[n]);

			for (unsigned k = 0; k < 4; k++)
				story_check_at("later", k, quad_of(g + 2 * n, 8 * k), *(volatile uint64_t *)(at + 8 * k));
		}
	}
	if (way->avx)
		machine_write_xcr0(1);
	machine_write_cr4(cr4);
}

/* A block that is filled and copied by REP, which may be stopped after any iteration, upwards and downwards (@mode). */
STORY(repeats_kept)
{
	unsigned size = 96, shift = 0xfd0;
	uint8_t *from = area + shift, *to = area + 2 * PAGE_SIZE + shift + 3;
	bool down = GIVEN(mode);
	uint64_t count = size;

	for (unsigned i = 0; i < size; i++)
		from[i] = byte_of(1, i);
	if (down) {
		uint8_t *last = from + size - 1, *to_last = to + size - 1;

		__asm__ volatile("std; rep movsb; cld" : "+S"(last), "+D"(to_last), "+c"(count) : : "memory");
		story_check("rsi", (uintptr_t)from - 1, (uintptr_t)last);
	} else {
		uint8_t *first = from, *to_first = to;

		__asm__ volatile("rep movsb" : "+S"(first), "+D"(to_first), "+c"(count) : : "memory");
		story_check("rsi", (uintptr_t)from + size, (uintptr_t)first);
	}
	story_check("rcx", 0, count);
	hold();
	for (unsigned i = 0; i < size; i++)
		story_check_at("byte", i, byte_of(1, i), to[i]);
	count = size;
	to = area + PAGE_SIZE + 1;
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(0x99) : "memory");
	count = size;
	to = area + PAGE_SIZE + 1;
	__asm__ volatile("repe scasb" : "+D"(to), "+c"(count) : "a"(0x99) : "memory", "cc");
	story_check("filled", 0, count);
}

/* Input by string instructions is a write as well: 0x5a throughout from the latch, or whatever the port is. */
STORY(string_input_kept)
{
	uint8_t *to = area + 0xff8, first = machine_in8(0x3f9);
	uint64_t count = 16;

	machine_fill(area, 0x77, 2 * PAGE_SIZE);
	__asm__ volatile("rep insb" : "+D"(to), "+c"(count) : "d"(0x3f9) : "memory");
	hold();
	for (unsigned i = 0; i < 16; i++)
		story_check_at("byte", i, first, area[0xff8 + i]);
	story_check("before", 0x77, area[0xff7]);
	story_check("behind", 0x77, area[0x1008]);
}

/* ---- stacks ---- */

uint64_t memory_stack(uint8_t *top, uint64_t value); /* PUSH, CALL, ENTER, PUSHFQ on that stack; their sum */

STORY(stacks_kept)
{
	for (unsigned n = 0; n < 3; n++) {
		uint8_t *top = area + PAGE_SIZE * (n + 1) + 24; /* two pages */
		uint64_t value = quad_of(n, 0), want = 4 * value + 6;

		story_check("sum", want, memory_stack(top, value));
		hold();
		for (unsigned k = 1; k <= 4; k++)
			story_check_at("pushed", k, value + k - 1, *(volatile uint64_t *)(top - 8 * k));
	}
}

uint64_t memory_interrupt(uint8_t *top); /* INT 46H on that stack: the address behind it */

static volatile uint64_t frame_rip, frame_rsp, frame_flags;
static void look_at_frame(struct story_frame *frame)
{
	hold();
	if (frame->vector != 0x46)
		return;
	frame_rip = frame->rip;
	frame_rsp = frame->rsp;
	frame_flags = frame->rflags;
}

/* The frame of an interrupt on a page that nobody has written before, with the handler's registers under it. */
STORY(frames_kept)
{
	uint64_t behind;
	uint8_t *top = area + 2 * PAGE_SIZE + 16;

	story_handle(look_at_frame);
	behind = memory_interrupt(top);
	story_check("rip", behind, frame_rip);
	story_check("rsp", (uintptr_t)top, frame_rsp);
	hold();
	story_check("frame_rip", behind, *(volatile uint64_t *)(top - 40));
	story_check("frame_cs", MONITOR_CS64, *(volatile uint64_t *)(top - 32));
	story_check("frame_flags", frame_flags, *(volatile uint64_t *)(top - 24));
	story_check("frame_rsp", (uintptr_t)top, *(volatile uint64_t *)(top - 16));
	story_check("count", 1, story_count(0x46));
}

/* ---- what the processor writes into descriptors ---- */

static uint64_t gdt[32] __attribute__((aligned(4096)));
static uint32_t tss[26] __attribute__((aligned(128)));

static void load_gdt(const void *base, uint16_t limit)
{
	struct table_pointer table = {.limit = limit, .base = (uintptr_t)base};

	__asm__ volatile("lgdt %0" : : "m"(table));
}

/* Loading a segment register sets the accessed flag, LTR the busy flag: once set they stay. */
STORY(descriptors_kept)
{
	uint64_t base = (uintptr_t)tss;
	uint16_t fs;

	story_spoils();
	machine_copy(gdt, (const void *)(uintptr_t)exchange.monitor_gdtr.base, exchange.monitor_gdtr.limit + 1u);
	gdt[20] = 0x00cf92000000ffffull; /* data, not accessed */
	gdt[21] = 0x00cf9a000000ffffull; /* code, not accessed */
	gdt[22] = 0x67 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56; /* a TSS, available */
	gdt[23] = base >> 32;
	load_gdt(gdt, sizeof(gdt) - 1);
	HELD("not_accessed", 0x92, gdt[20] >> 40 & 0xff);
	__asm__ volatile("mov %%fs, %0; mov %w1, %%fs" : "=&r"(fs) : "r"(20 * 8) : "memory");
	HELD("accessed", 0x93, *(volatile uint64_t *)&gdt[20] >> 40 & 0xff);
	__asm__ volatile("mov %w0, %%fs" : : "r"(fs));
	__asm__ volatile("ltr %w0" : : "r"(22 * 8) : "memory");
	HELD("busy", 0x8b, *(volatile uint64_t *)&gdt[22] >> 40 & 0xff);
	hold();
	__asm__ volatile("lar %1, %0" : "=r"(base) : "r"(22ull * 8) : "cc");
	story_check("type", 0x8b00, base & 0xff00);
	load_gdt((const void *)(uintptr_t)exchange.monitor_gdtr.base, exchange.monitor_gdtr.limit);
}

/* ---- page tables ---- */

#define LINEAR   (1ull << 39) /* entry 1 of the PML4 */
#define AD       (PTE_A | PTE_D)
static uint64_t pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096)));
static uint64_t pt[512] __attribute__((aligned(4096)));
static uint8_t frames[3][PAGE_SIZE] __attribute__((aligned(4096)));

static void map(void)
{
	volatile uint64_t *pml4 = mmio64(machine_read_cr3() & ~(uint64_t)PAGE_MASK);

	pdpt[0] = (uintptr_t)pd | PTE_P | PTE_W;
	pd[0] = (uintptr_t)pt | PTE_P | PTE_W;
	for (unsigned i = 0; i < 3; i++)
		pt[i] = (uintptr_t)frames[i] | PTE_P | PTE_W;
	pml4[1] = (uintptr_t)pdpt | PTE_P | PTE_W;
	machine_write_cr3(machine_read_cr3());
}

static void unmap(void)
{
	*mmio64((machine_read_cr3() & ~(uint64_t)PAGE_MASK) + 8) = 0;
	machine_write_cr3(machine_read_cr3());
}

static uint64_t flags_of(const uint64_t *entry) { return *(const volatile uint64_t *)entry & AD; }

/* Accessed and dirty flags: set by what accesses and writes, by nothing else, and never taken back. */
STORY(accessed_dirty_kept)
{
	uint64_t value;

	map();
	HELD("untouched", 0, flags_of(&pt[0]) | flags_of(&pd[0]) | flags_of(&pdpt[0]));
	value = *mmio64(LINEAR);
	HELD("read", PTE_A, flags_of(&pt[0]));
	story_check("tables", PTE_A, flags_of(&pd[0]) & flags_of(&pdpt[0]));
	*mmio64(LINEAR + 8) = value + 1;
	HELD("written", AD, flags_of(&pt[0]));
	*mmio64(LINEAR + PAGE_SIZE - 4) = 0x1122334455667788; /* across two pages */
	hold();
	story_check("across", AD, flags_of(&pt[1]));
	story_check("frame", 0x11223344, *(volatile uint32_t *)frames[1]);
	story_check("third", 0, flags_of(&pt[2]));
	/* cleared and dropped, they are set again by the next access alone */
	*(volatile uint64_t *)&pt[0] &= ~AD;
	__asm__ volatile("invlpg (%0)" : : "r"(LINEAR) : "memory");
	HELD("cleared", 0, flags_of(&pt[0]));
	(void)*mmio64(LINEAR);
	HELD("read_again", PTE_A, flags_of(&pt[0]));
	unmap();
}

/* A mapping that is changed and dropped counts from then on, whatever was read through it before. */
STORY(mapping_changed)
{
	map();
	for (unsigned i = 0; i < 3; i++)
		*(volatile uint64_t *)frames[i] = 0x1000 + i;
	for (unsigned i = 0; i < 6; i++) {
		*(volatile uint64_t *)&pt[0] = (uintptr_t)frames[i % 3] | PTE_P | PTE_W;
		__asm__ volatile("invlpg (%0)" : : "r"(LINEAR) : "memory");
		hold();
		story_check_at("read", i, 0x1000 + i % 3 + (i / 3) * 0x100, *mmio64(LINEAR));
		*mmio64(LINEAR) = 0x1100 + i % 3;
		hold();
		story_check_at("written", i, 0x1100 + i % 3, *(volatile uint64_t *)frames[i % 3]);
	}
	*(volatile uint64_t *)&pt[0] = 0;
	__asm__ volatile("invlpg (%0)" : : "r"(LINEAR) : "memory");
	hold();
	{
		uint8_t byte;

		story_check("gone", 14, story_try_read8(LINEAR, &byte));
		story_check("cr2", LINEAR, machine_read_cr2());
		HELD("cr2_kept", LINEAR, machine_read_cr2());
	}
	unmap();
}

/* ---- several processors ---- */

#define ROUNDS 24u
static volatile uint64_t words[4][PAGE_SIZE / 8] __attribute__((aligned(4096)));
static volatile uint64_t shared_count, torn;
static volatile unsigned writers;

/* Processor @n writes every fourth word of each of four pages, at its own pace: both halves alike, so that a torn one shows. */
static void write_words(void *argument)
{
	unsigned n = (unsigned)(uintptr_t)argument;

	for (uint64_t round = 1; round <= ROUNDS; round++) {
		for (unsigned page = 0; page < 4; page++) {
			unsigned at = n + 4 * (unsigned)(round * 7 % 100);
			uint64_t seen = words[page][(at + 1) % 400];

			torn += (seen >> 32) != (seen & 0xffffffff);
			words[page][at] = (round << 8 | n) * 0x100000001ull;
		}
		__atomic_fetch_add(&shared_count, 1, __ATOMIC_SEQ_CST);
		story_pause(3 * n);
	}
	__atomic_fetch_add(&writers, 1, __ATOMIC_SEQ_CST);
}

STORY(memory_of_four)
{
	uint64_t last[400] = {0};

	if (!cpus_needs(4))
		return;
	shared_count = torn = writers = 0;
	for (unsigned n = 1; n < 4; n++)
		cpus_tell(n, write_words, (void *)(uintptr_t)n);
	write_words((void *)0);
	for (unsigned n = 1; n < 4; n++)
		story_check_at("over", n, 1, cpus_wait(n));
	story_check("writers", 4, writers);
	story_check("count", 4 * ROUNDS, shared_count);
	story_check("torn", 0, torn);
	for (uint64_t round = 1; round <= ROUNDS; round++)
		for (unsigned n = 0; n < 4; n++)
			last[n + 4 * (unsigned)(round * 7 % 100)] = (round << 8 | n) * 0x100000001ull;
	for (unsigned page = 0; page < 4; page++)
		for (unsigned i = 0; i < 400; i++)
			story_check("word", last[i], words[page][i]);
}

/* A stack of its own for each round trip of messages: what one writes before its flag the other sees behind it. */
static volatile uint64_t message[32] __attribute__((aligned(4096)));
static volatile uint64_t flag __attribute__((aligned(4096)));
static volatile unsigned stale;

static void answer(void *argument)
{
	(void)argument;
	for (uint64_t i = 1; i <= 12; i++) {
		while (flag != 2 * i - 1)
			__asm__ volatile("pause");
		for (unsigned k = 0; k < 32; k++)
			stale += message[k] != i * 1000 + k;
		for (unsigned k = 0; k < 32; k++)
			message[k] = i * 2000 + k;
		flag = 2 * i;
	}
}

STORY(messages_kept)
{
	if (!cpus_needs(2))
		return;
	stale = 0;
	flag = 0;
	cpus_tell(1, answer, NULL);
	for (uint64_t i = 1; i <= 12; i++) {
		for (unsigned k = 0; k < 32; k++)
			message[k] = i * 1000 + k;
		flag = 2 * i - 1;
		for (unsigned w = 0; w < 100000 && flag != 2 * i; w++)
			__asm__ volatile("pause");
		for (unsigned k = 0; k < 32; k++)
			stale += message[k] != i * 2000 + k;
	}
	story_check("over", 1, cpus_wait(1));
	story_check("stale", 0, stale);
}

/* ---- code that changes ---- */

static uint8_t code[2 * PAGE_SIZE] __attribute__((aligned(4096)));

/* MOV EAX, imm32; RET: written anew before each call (@mode: by plain stores, by a string store, by the other alias of the page). */
STORY(self_modifying)
{
	uint8_t *at = code + (GIVEN(index) ? PAGE_SIZE - 3 : 64);

	if (GIVEN(mode) == 2) {
		map();
		pt[0] = (uintptr_t)code | PTE_P | PTE_W;
		pt[1] = ((uintptr_t)code + PAGE_SIZE) | PTE_P | PTE_W;
		machine_write_cr3(machine_read_cr3());
	}
	for (uint32_t i = 0; i < 12; i++) {
		uint32_t value = 0x01020304u * (i + 1), got;
		uint8_t bytes[6] = {0xb8, (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
				    (uint8_t)(value >> 24), 0xc3};
		uint8_t *to = GIVEN(mode) == 2 ? (uint8_t *)(uintptr_t)(LINEAR + (uintptr_t)(at - code)) : at;

		if (GIVEN(mode) == 1) {
			machine_copy(to, bytes, sizeof(bytes));
		} else {
			for (unsigned k = 0; k < 6; k++)
				((volatile uint8_t *)to)[k] = bytes[k];
		}
		__asm__ volatile("cpuid" : : "a"(0), "c"(0) : "ebx", "edx", "memory"); /* serializes, as an alias needs */
		__asm__ volatile("call *%1" : "=a"(got) : "r"(at) : "memory");
		story_check_at("ran", i, value, got);
		hold();
	}
	if (GIVEN(mode) == 2)
		unmap();
}

static volatile uint32_t running, asked;
static volatile unsigned wrong;

/* Another processor runs what this one writes, once it has said so. */
static void run_code(void *argument)
{
	(void)argument;
	for (uint32_t i = 1; i <= 10; i++) {
		uint32_t got;

		while (asked != i)
			__asm__ volatile("pause");
		__asm__ volatile("cpuid" : : "a"(0), "c"(0) : "ebx", "edx", "memory");
		__asm__ volatile("call *%1" : "=a"(got) : "r"(code + 256) : "memory");
		wrong += got != 0x11110000 + i;
		running = i;
	}
}

STORY(cross_modified)
{
	if (!cpus_needs(2))
		return;
	running = asked = wrong = 0;
	code[256] = 0xb8;
	code[261] = 0xc3;
	cpus_tell(1, run_code, NULL);
	for (uint32_t i = 1; i <= 10; i++) {
		*(volatile uint32_t *)(code + 257) = 0x11110000 + i;
		asked = i;
		for (unsigned w = 0; w < 100000 && running != i; w++)
			__asm__ volatile("pause");
	}
	story_check("over", 1, cpus_wait(1));
	story_check("wrong", 0, wrong);
	story_check("rounds", 10, running);
}
