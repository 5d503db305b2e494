/*
 * A guest that programs devices at random: ports, device memory, PCI configuration and MSRs, from a seed on
 * its command line. hypervisor/fuzz/guest_test.c runs it again and again; how far it came stands at PROGRESS.
 *
 * Interrupts are open only between accesses, so that an exception within one is that access's own.
 */
#include "pc/pc.h"

#include "fuzz/progress.h"

void (*handlers[256])(void);
volatile unsigned counts[256];
extern uint8_t stubs[], idt[], idtr[], general_protection[];

static uint64_t state;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * 0x2545f4914f6cdd1dull;
}

static unsigned below(unsigned limit) { return (unsigned)((next() >> 33) % limit); }

void pc_interrupt(unsigned long vector);
void pc_ap(unsigned index);

static void end(void)
{
	for (;;)
		outl(0xf4, 0);
}

/* Outside of the window for interrupts, nothing but #GP (which has a handler of its own) and NMI may come. */
static volatile bool open;

void pc_interrupt(unsigned long vector)
{
	if (!open && vector != 2)
		end();
	if (below(8))
		*(volatile uint32_t *)at(0xfee000b0) = 0; /* EOI, mostly */
	outb(0x20, 0x20);
	if (vector & 2)
		outb(0xa0, 0x20);
}

void pc_ap(unsigned index)
{
	(void)index;
	for (;;)
		__asm__ volatile("cli\nhlt");
}

static void set_gate(unsigned vector, uintptr_t handler)
{
	uint32_t *gate = (uint32_t *)(idt + 16 * vector);

	gate[0] = 24u << 16 | (uint32_t)(handler & 0xffff);
	gate[1] = ((uint32_t)handler & 0xffff0000u) | 0x8e00;
	gate[2] = (uint32_t)(handler >> 32);
}

/* ---- where ---- */

static const struct range {
	uint32_t first, count;
} ports[] = {
	{0x00, 16}, {0x20, 2},   {0x40, 4},   {0x60, 1},  {0x61, 1},    {0x64, 1},     {0x70, 2},
	{0x80, 16}, {0x92, 1},   {0xa0, 2},   {0xb2, 2},  {0xc0, 32},   {0xe0, 12},    {0x3f8, 8},
	{0x4d0, 2}, {0x510, 12}, {0x600, 12}, {0xcf8, 8}, {0x2000, 24}, {0xc000, 256}, {0x2f8, 8},
};
static const struct range memory[] = {
	{0xfec00000, 0x50},    {0xfed00000, 0x200},  {0xfee00000, 0x400},
	{0xff000000, 0x10000}, {0xe0000000, 0x4000}, {0xd0000000, 0x1000},
};
static const struct range msrs[] = {
	{0x10, 1},        {0x1b, 1},       {0x3a, 2},   {0x48, 2},  {0x8b, 1},       {0xc1, 8},
	{0xe7, 2},        {0xfe, 1},       {0x174, 3},  {0x179, 3}, {0x186, 8},      {0x1a0, 1},
	{0x1d9, 5},       {0x200, 32},     {0x250, 32}, {0x277, 1}, {0x2ff, 1},      {0x400, 32},
	{0x6e0, 1},       {0x800, 64},     {0xda0, 1},  {0x11, 2},  {0xc0000081, 4}, {0xc0000100, 4},
	{0xc0010000, 32}, {0x4b564d00, 8},
};
#define PICK(ranges) pick(ranges, sizeof(ranges) / sizeof((ranges)[0]))

static uint32_t pick(const struct range *ranges, unsigned count)
{
	const struct range *range = &ranges[below(count)];

	return range->first + below(range->count);
}

static uint32_t value(void)
{
	static const uint32_t edges[] = {0,    1,          2,          0x7f,       0x80,
					 0xff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};

	switch (below(4)) {
	case 0: return edges[below(sizeof(edges) / sizeof(edges[0]))];
	case 1: return 1u << below(32);
	case 2: return below(256);
	default: return (uint32_t)next();
	}
}

/* ---- what ---- */

/* Most of what would end this boot at once is left out most of the time. */
static bool fatal_port(uint32_t port)
{
	return port == 0x64 || port == 0x92 || port == 0xcf9 || port == 0x604;
}

static void access_port(void)
{
	uint32_t port = below(16) ? PICK(ports) : below(65536);

	if (fatal_port(port) && below(64))
		return;
	switch (below(6)) {
	case 0: outb(port, value()); break;
	case 1: outw(port, value()); break;
	case 2: outl(port, value()); break;
	case 3: inb(port); break;
	case 4: inw(port); break;
	default: inl(port); break;
	}
}

static void access_memory(void)
{
	uint32_t address = PICK(memory);

	/* INIT and SMI to oneself end the boot as well. */
	if (address >= 0xfee00300 && address < 0xfee00310 && below(8))
		address = 0xfee00300 + 0x10 * below(0x10);
	switch (below(8)) {
	case 0: MMIO(uint8_t, address) = (uint8_t)value(); break;
	case 1: MMIO(uint16_t, address) = (uint16_t)value(); break;
	case 2: MMIO(uint32_t, address & ~3u) = value(); break;
	case 3: MMIO(uint64_t, address & ~7u) = (uint64_t)value() << 32 | value(); break;
	case 4: (void)MMIO(uint8_t, address); break;
	case 5: (void)MMIO(uint16_t, address); break;
	case 6: (void)MMIO(uint32_t, address & ~3u); break;
	default: (void)MMIO(uint64_t, address); break;
	}
}

static void access_pci(void)
{
	uint32_t slot = below(10), reg = below(4) ? 4 * below(20) : 4 * below(64);

	outl(0xcf8, 0x80000000 | slot << 11 | reg);
	if (below(3) == 0)
		inl(0xcfc);
	else if (reg >= 0x10 && reg < 0x28 && below(2))
		outl(0xcfc, below(2) ? 0xe0000000 + 0x1000 * below(8)
				     : 0xc000 + 0x40 * below(4)); /* decodes, and overlaps */
	else if (reg == 4 && below(2))
		outw(0xcfc, 7);
	else
		outl(0xcfc, value());
}

/* EFER and the page attributes of what runs here stay. */
static void access_msr(void)
{
	uint32_t msr = below(16) ? PICK(msrs) : (uint32_t)next(), low = 0, high = 0;

	if (below(2))
		__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	else if (msr != 0x1b || below(32) == 0)
		__asm__ volatile("wrmsr" ::"a"(value()), "d"(below(4) ? 0 : value()), "c"(msr));
}

static void let_interrupts_in(void)
{
	open = true;
	__asm__ volatile("sti\nnop\nnop\ncli" ::: "memory");
	open = false;
}

static uint64_t number(const char *text)
{
	uint64_t result = 0;

	while (*text >= '0' && *text <= '9')
		result = result * 10 + (uint64_t)(*text++ - '0');
	return result;
}

void pc_main(uint32_t magic, const uint8_t *information);
void pc_main(uint32_t magic, const uint8_t *information)
{
	volatile struct fuzz_progress *progress = at(FUZZ_PROGRESS);
	uint32_t text = *(const uint32_t *)(information + 16);
	const char *word = at(text);

	(void)magic;
	while (*word && *word != '=')
		word++;
	state = number(word + 1) * 0x9e3779b97f4a7c15ull | 1;
	for (unsigned i = 0; i < 256; i++)
		set_gate(i, (uintptr_t)stubs + 16 * i);
	set_gate(13, (uintptr_t)general_protection);
	__asm__ volatile("lidt %0" ::"m"(*(const uint16_t *)idtr));
	for (;;) {
		switch (below(8)) {
		case 0:
		case 1:
		case 2: access_port(); break;
		case 3:
		case 4: access_memory(); break;
		case 5: access_pci(); break;
		case 6: access_msr(); break;
		default: let_interrupts_in(); break;
		}
		progress->accesses++;
	}
}
