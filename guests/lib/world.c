#include "lib/world.h"

#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "x86/case_layout.h"

#define UNDO_MAX    64u
#define CHANGES_MAX 16u /* quadwords that one line tells */

extern const uint8_t catch_long_stubs[], catch_legacy_stubs[];
extern const uint8_t trampoline_start[], trampoline_end[];

static uint8_t expected[CASE_WINDOW_SIZE] __attribute__((aligned(4096)));
static uint8_t original[CASE_WINDOW_SIZE] __attribute__((aligned(4096)));
static uint8_t expected_ivt[CASE_IVT_SIZE], original_ivt[CASE_IVT_SIZE], vm86_ivt[CASE_IVT_SIZE];
static uint8_t ist_stack[8192] __attribute__((aligned(4096)));

/* Pokes outside the window and the IVT (page tables, frames), to be compared and taken back. */
static struct {
	uint32_t address, size;
	uint64_t old, expected;
} undo[UNDO_MAX];
static unsigned undo_count;
static bool remapped; /* pages of the window may be mapped elsewhere too, or otherwise */

static void *at(uint32_t address)
{
	void *pointer = (void *)(uintptr_t)address;

	__asm__("" : "+r"(pointer)); /* address 0 holds the IVT: it is an address like any other */
	return pointer;
}

static uint8_t *expected_at(uint32_t address)
{
	if (address < CASE_IVT_SIZE)
		return expected_ivt + address;
	if (address >= CASE_WINDOW && address < CASE_WINDOW + CASE_WINDOW_SIZE)
		return expected + (address - CASE_WINDOW);
	return NULL;
}

static void put(uint32_t address, uint64_t value) { *(uint64_t *)at(address) = value; }

/* ---- descriptors ---- */

static uint64_t segment(uint32_t base, uint32_t limit, uint32_t attributes)
{
	if (attributes & SEG_G)
		limit >>= 12;
	return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attributes & 0xf0ff) << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

static uint64_t gate(uint16_t selector, uint64_t offset, unsigned attributes, unsigned low)
{
	return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)low << 32 |
	       (uint64_t)attributes << 40 | (offset >> 16 & 0xffff) << 48;
}

static void set_gdt(uint32_t selector, uint64_t descriptor) { put(CASE_GDT_ENTRY(selector), descriptor); }

#define CODE   (SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED)
#define DATA   (SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED)
#define FLAT32 (SEG_G | SEG_DB)
#define DPL(n) ((unsigned)(n) << SEG_DPL_SHIFT)

static void build_gdt(void)
{
	for (unsigned cpl = 0; cpl < 4; cpl++) {
		uint32_t cs64 = case_code_selector(MODE_LONG, cpl) & SELECTOR_INDEX;
		uint32_t cs32 = case_code_selector(MODE_PROT32, cpl) & SELECTOR_INDEX;
		uint32_t ds32 = case_data_selector(MODE_PROT32, cpl) & SELECTOR_INDEX;

		set_gdt(cs64, segment(0, 0xffffffff, CODE | SEG_G | SEG_L | DPL(cpl)));
		set_gdt(cs32, segment(0, 0xffffffff, CODE | FLAT32 | DPL(cpl)));
		set_gdt(ds32, segment(0, 0xffffffff, DATA | FLAT32 | DPL(cpl)));
		set_gdt(CASE_SEL_CS16(cpl), segment(CASE_WINDOW, 0xffff, CODE | DPL(cpl)));
		set_gdt(CASE_SEL_DS16(cpl), segment(CASE_WINDOW, 0xffff, DATA | DPL(cpl)));
	}
	set_gdt(CASE_SEL_DS32_3B, segment(0, 0xffffffff, DATA | FLAT32 | DPL(3)));
	set_gdt(CASE_SEL_TSS64, segment(CASE_TSS64, CASE_TSS_LIMIT, SEG_P | TYPE_TSS_AVAILABLE));
	set_gdt(CASE_SEL_TSS32, segment(CASE_TSS32, CASE_TSS_LIMIT, SEG_P | TYPE_TSS_AVAILABLE));
	set_gdt(CASE_SEL_TSS32_SPARE, segment(CASE_TSS32_SPARE, CASE_TSS_LIMIT, SEG_P | TYPE_TSS_AVAILABLE));
	set_gdt(CASE_SEL_LDT, segment(CASE_LDT, CASE_LDT_LIMIT, SEG_P | TYPE_LDT));
	set_gdt(CASE_SEL_TSS16, segment(CASE_TSS16, TSS16_SIZE - 1, SEG_P | TYPE_TSS16_AVAILABLE));
	set_gdt(CASE_SEL_NOT_PRESENT, segment(0, 0xffffffff, (DATA & ~SEG_P) | FLAT32 | DPL(3)));
	set_gdt(CASE_SEL_READ_ONLY, segment(0, 0xffffffff, (DATA & ~SEG_WRITABLE) | FLAT32 | DPL(3)));
	set_gdt(CASE_SEL_EXECUTE_ONLY, segment(0, 0xffffffff, (CODE & ~SEG_READABLE) | FLAT32 | DPL(3)));
	set_gdt(CASE_SEL_CONFORMING, segment(0, 0xffffffff, CODE | SEG_CONFORMING | FLAT32));
	set_gdt(CASE_SEL_GATE32, gate(CASE_SEL_CS32_0, CASE_LAND_GATE, SEG_P | DPL(3) | TYPE_CALL_GATE, 0));
	set_gdt(CASE_SEL_GATE64, gate(CASE_SEL_CS64_0, CASE_LAND_GATE, SEG_P | DPL(3) | TYPE_CALL_GATE, 0));
	set_gdt(CASE_SEL_TASK_GATE, gate(CASE_SEL_TSS32_SPARE, 0, SEG_P | DPL(3) | TYPE_TASK_GATE, 0));
	set_gdt(CASE_SEL_SMALL, segment(CASE_OPERAND, 0xf, DATA | SEG_DB | DPL(3)));
	put(CASE_LDT_ENTRY(CASE_SEL_LDT_DATA), segment(0, 0xffffffff, DATA | FLAT32 | DPL(3)));
	put(CASE_LDT_ENTRY(CASE_SEL_LDT_CODE), segment(0, 0xffffffff, CODE | FLAT32 | DPL(3)));
}

/* ---- task-state segments ---- */

static void put16(uint32_t address, uint32_t value) { *(uint16_t *)at(address) = (uint16_t)value; }
static void put32(uint32_t address, uint32_t value) { *(uint32_t *)at(address) = value; }

static void build_tss32(uint32_t tss)
{
	static const uint32_t stacks[3] = {CASE_STACK0, CASE_STACK1, CASE_STACK2};

	for (unsigned n = 0; n < 3; n++) {
		put32(tss + TSS32_ESP(n), stacks[n]);
		put32(tss + TSS32_SS(n), case_data_selector(MODE_PROT32, n));
	}
	put16(tss + TSS32_IOMAP, CASE_TSS_IOMAP);
	machine_fill(at(tss + CASE_TSS_REDIRECTION), 0xff, CASE_TSS_LIMIT + 1 - CASE_TSS_REDIRECTION);
}

/* What a switch to the spare tasks loads: CPL 0, flat, at CASE_LAND_TASK. */
static void build_spare_tasks(void)
{
	build_tss32(CASE_TSS32_SPARE);
	put32(CASE_TSS32_SPARE + TSS32_CR3, CASE_CR3_32);
	put32(CASE_TSS32_SPARE + TSS32_EIP, CASE_LAND_TASK);
	put32(CASE_TSS32_SPARE + TSS32_EFLAGS, RFLAGS_FIXED);
	put32(CASE_TSS32_SPARE + TSS32_GPR + 4 * RSP, CASE_STACK2);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		put32(CASE_TSS32_SPARE + TSS32_SEG + 4 * i, i == CS ? CASE_SEL_CS32_0 : CASE_SEL_DS32_0);
	put32(CASE_TSS32_SPARE + TSS32_LDT, CASE_SEL_LDT);

	put16(CASE_TSS16 + TSS16_IP, CASE_LAND_TASK - CASE_WINDOW);
	put16(CASE_TSS16 + TSS16_FLAGS, RFLAGS_FIXED);
	put16(CASE_TSS16 + TSS16_GPR + 2 * RSP, CASE_STACK2 - CASE_WINDOW);
	for (unsigned i = 0; i < 4; i++)
		put16(CASE_TSS16 + TSS16_SEG + 2 * i, i == CS ? CASE_SEL_CS16(0) : CASE_SEL_DS16(0));
	put16(CASE_TSS16 + TSS16_LDT, CASE_SEL_LDT);
}

static void build_tss64(void)
{
	put32(CASE_TSS64 + TSS64_RSP(0), CASE_STACK0);
	put32(CASE_TSS64 + TSS64_RSP(1), CASE_STACK1);
	put32(CASE_TSS64 + TSS64_RSP(2), CASE_STACK2);
	for (unsigned n = 1; n < 8; n++)
		put32(CASE_TSS64 + TSS64_IST(n), (uint32_t)(uintptr_t)(ist_stack + sizeof(ist_stack)));
	put16(CASE_TSS64 + TSS64_IOMAP, CASE_TSS_IOMAP);
	machine_fill(at(CASE_TSS64 + CASE_TSS_REDIRECTION), 0xff, CASE_TSS_LIMIT + 1 - CASE_TSS_REDIRECTION);
}

/* ---- interrupts ---- */

static unsigned gate_attributes(unsigned vector)
{
	unsigned type = vector >= CASE_VECTOR_TRAP_GATE && vector < CASE_VECTOR_NOT_PRESENT
				? TYPE_TRAP_GATE
				: TYPE_INTERRUPT_GATE;

	if (vector >= CASE_VECTOR_NOT_PRESENT && vector < CASE_VECTOR_NOT_PRESENT + 0x10)
		return DPL(3) | type;
	if (vector == 3 || vector == 4 || (vector >= CASE_VECTOR_DPL3 && vector < CASE_VECTOR_NOT_PRESENT))
		return SEG_P | DPL(3) | type;
	return SEG_P | type;
}

static void build_interrupts(void)
{
	for (unsigned n = 0; n < 256; n++) {
		uint32_t offset64 = (uint32_t)(uintptr_t)(catch_long_stubs + 16 * n);
		uint32_t offset32 = (uint32_t)(uintptr_t)(catch_legacy_stubs + 16 * n);

		put(CASE_IDT64 + 16 * n, gate(CASE_SEL_CS64_0, offset64, gate_attributes(n), 1));
		put(CASE_IDT32 + 8 * n, gate(CASE_SEL_CS32_0, offset32, gate_attributes(n), 0));
		put32(CASE_IVT + 4 * n, (uint32_t)TRAMPOLINE_SEGMENT << 16 | 5 * n);
		((uint32_t *)(void *)vm86_ivt)[n] = CASE_WINDOW / 16 << 16 | (CASE_LAND_IVT(n) - CASE_WINDOW);
	}
}

/* ---- paging ---- */

static void build_paging(void)
{
	machine_fill(at(CASE_CR3_LONG), 0, CASE_CR3_57 + PAGE_SIZE - CASE_CR3_LONG);
	put(CASE_CR3_57, CASE_CR3_LONG | PTE_P | PTE_W | PTE_U | PTE_A);
	put(CASE_CR3_LONG, CASE_PDPT | PTE_P | PTE_W | PTE_U | PTE_A);
	put(CASE_PDPT, CASE_PD | PTE_P | PTE_W | PTE_U | PTE_A);
	put(CASE_CR3_PAE, CASE_PD | PTE_P);
	put(CASE_PD, CASE_PT | PTE_P | PTE_W | PTE_U | PTE_A);
	for (uint32_t i = 1; i < 512; i++)
		put(CASE_PD + 8 * i, (uint64_t)i << 21 | PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS);
	put32(CASE_CR3_32, CASE_PT_32 | PTE_P | PTE_W | PTE_U | PTE_A);
	for (uint32_t i = 0; i < 1024; i++) {
		uint32_t page = i << PAGE_SHIFT;

		if (i < 512)
			put(CASE_PTE_LONG(page), CASE_PTE(page, 0));
		put32(CASE_PTE_32(page), (uint32_t)CASE_PTE(page, page == CASE_IVT));
	}
}

static void build_path(void)
{
	machine_fill(at(CASE_PATH_PML4), 0, CASE_FRAME - CASE_PATH_PML4);
	for (uint32_t address = CASE_FRAME; address < CASE_PATH_END; address += 2)
		put16(address, CASE_END);
}

/* Entries of the window's pages: not dirty, so that what the case writes shows. */
static void set_page(uint32_t page, bool user, bool user_32)
{
	put(CASE_PTE_LONG(page), CASE_PTE(page, user) & ~PTE_D);
	put32(CASE_PTE_32(page), (uint32_t)(CASE_PTE(page, user_32) & ~PTE_D));
}

static void set_window(void)
{
	for (uint32_t page = CASE_WINDOW; page < CASE_WINDOW + CASE_WINDOW_SIZE; page += PAGE_SIZE)
		set_page(page, page == CASE_LAND_USER, page == CASE_LAND_USER);
}

static void set_user_pages(void)
{
	static const uint32_t pages[] = {CASE_STUB, CASE_OPERAND_PAGE, CASE_OPERAND_PAGE2, CASE_STACK_PAGE};

	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		set_page(pages[i], true, true);
}

/* ---- the world ---- */

void world_build(void)
{
	machine_fill(at(CASE_WINDOW), 0, CASE_WINDOW_SIZE);
	build_gdt();
	build_tss64();
	build_tss32(CASE_TSS32);
	build_spare_tasks();
	build_interrupts();
	build_paging();
	build_path();
	set_window();
	machine_fill(at(CASE_OPERAND_PAGE), CASE_FILL, CASE_LAND_SUPERVISOR - CASE_OPERAND_PAGE);
	for (uint32_t i = 0; i < PAGE_SIZE; i += 2) {
		put16(CASE_STUB + i, CASE_END);
		put16(CASE_LAND_SUPERVISOR + i, CASE_END);
		put16(CASE_LAND_USER + i, CASE_END);
	}
	machine_copy(at(TRAMPOLINE), trampoline_start, (size_t)(trampoline_end - trampoline_start));
	machine_copy(original, at(CASE_WINDOW), CASE_WINDOW_SIZE);
	machine_copy(expected, original, CASE_WINDOW_SIZE);
	machine_copy(original_ivt, at(CASE_IVT), CASE_IVT_SIZE);
	machine_copy(expected_ivt, original_ivt, CASE_IVT_SIZE);
}

/* A descriptor's second doubleword holds the busy bit as bit 41 of the quadword. */
#define TSS_BUSY (1ull << 41)

void world_prepare(unsigned mode, unsigned cpl)
{
	if (cpl == 3)
		set_user_pages();
	if (mode == MODE_VM86) {
		machine_copy(at(CASE_IVT), vm86_ivt, CASE_IVT_SIZE);
		machine_copy(expected_ivt, vm86_ivt, CASE_IVT_SIZE);
	}
}

void world_expect_busy(uint16_t selector)
{
	void *entry = expected_at(CASE_GDT_ENTRY(selector & (CASE_GDT_LIMIT & SELECTOR_INDEX)));

	*(uint64_t *)entry |= TSS_BUSY;
}

uint64_t world_ist_top(void) { return (uintptr_t)(ist_stack + sizeof(ist_stack)); }

void world_restore(void)
{
	while (undo_count--)
		machine_copy(at(undo[undo_count].address), &undo[undo_count].old, undo[undo_count].size);
	undo_count = 0;
	remapped = false;
	set_window();
	machine_copy(at(CASE_WINDOW), original, CASE_WINDOW_SIZE);
	machine_copy(expected, original, CASE_WINDOW_SIZE);
	machine_copy(at(CASE_IVT), original_ivt, CASE_IVT_SIZE);
	machine_copy(expected_ivt, original_ivt, CASE_IVT_SIZE);
}

/* Whether @address is of the path: its tables, its frames, or an entry that leads to it. */
static bool in_path(uint32_t address)
{
	static const uint32_t tops[] = {CASE_CR3_LONG, CASE_PDPT, CASE_CR3_PAE, CASE_CR3_32, CASE_CR3_57};

	for (unsigned i = 0; i < sizeof(tops) / sizeof(tops[0]); i++)
		if (address >= tops[i] + 8 && address < tops[i] + PAGE_SIZE)
			return true;
	return address >= CASE_PATH_PML4 && address < CASE_PATH_END;
}

/* Takes what was poked there, outside the window, for unchanged as it is now. */
static void accept_pokes(uint32_t address, uint64_t size)
{
	for (unsigned i = 0; i < undo_count; i++)
		if (undo[i].address >= address && undo[i].address + undo[i].size <= address + size)
			machine_copy(&undo[i].expected, at(undo[i].address), undo[i].size);
}

void world_poke(uint32_t address, const void *data, unsigned size)
{
	uint8_t *copy = expected_at(address);

	if (copy) {
		machine_copy(copy, data, size);
	} else if (undo_count < UNDO_MAX && size <= 8) {
		undo[undo_count].address = address;
		undo[undo_count].size = size;
		machine_copy(&undo[undo_count++].old, at(address), size);
		remapped = remapped || !in_path(address);
	}
	machine_copy(at(address), data, size);
	accept_pokes(address, size);
}

static void report_pokes(void)
{
	for (unsigned i = undo_count; i-- > 0;) {
		const uint64_t *found = at(undo[i].address);
		uint64_t bits = undo[i].size == 8 ? ~0ull : (1ull << 8 * undo[i].size) - 1;

		if ((*found ^ undo[i].expected) & bits) {
			report_memory(undo[i].address, found, undo[i].size);
			accept_pokes(undo[i].address, undo[i].size);
		}
	}
}

void world_accept(uint32_t address, uint64_t size)
{
	accept_pokes(address, size);
	while (size) {
		uint32_t chunk = PAGE_SIZE - (address & (uint32_t)PAGE_MASK);
		uint8_t *copy = expected_at(address);

		if (address < CASE_IVT_SIZE && chunk > CASE_IVT_SIZE - address)
			chunk = CASE_IVT_SIZE - address;
		if (chunk > size)
			chunk = (uint32_t)size;
		if (copy)
			machine_copy(copy, at(address), chunk);
		address += chunk;
		size -= chunk;
	}
}

/* Returns how many have changed, of which the first @room are told one by one. */
static unsigned report_range(uint32_t start, uint32_t end, unsigned room)
{
	const uint8_t *found = at(start), *wanted = expected_at(start);
	uint64_t quads = (end - start) / 8;

	for (unsigned changes = 0;; changes++) {
		bool same;

		__asm__ volatile("cmp %%rax, %%rax\n\trepe cmpsq"
				 : "+S"(found), "+D"(wanted), "+c"(quads), "=@ccz"(same)
				 :
				 : "memory");
		if (same)
			return changes;
		if (changes < room)
			report_memory((uint32_t)(uintptr_t)found - 8, found - 8, 8);
	}
}

/* Whether the case may have written the page: its entry in either set of tables says so. */
static bool written(uint32_t page)
{
	return (*(uint64_t *)at(CASE_PTE_LONG(page)) | *(uint32_t *)at(CASE_PTE_32(page))) & PTE_D;
}

void world_report_changes(unsigned mode, bool paged)
{
	bool is_64 = mode == MODE_LONG || mode == MODE_COMPAT;
	bool all = !paged || remapped;
	unsigned room = CHANGES_MAX, changes = 0;

	for (uint32_t page = CASE_WINDOW; page < CASE_WINDOW + CASE_WINDOW_SIZE; page += PAGE_SIZE) {
		if (!all && !written(page))
			continue;
		if ((page == CASE_IDT64 && !is_64) || (page == CASE_IDT32 && (is_64 || mode == MODE_REAL)))
			continue;
		changes += report_range(page, page + PAGE_SIZE, changes < room ? room - changes : 0);
	}
	if (mode == MODE_REAL || mode == MODE_VM86)
		changes +=
			report_range(CASE_IVT, CASE_IVT + CASE_IVT_SIZE, changes < room ? room - changes : 0);
	if (changes > room)
		report_field("changed", changes);
	report_pokes();
}

uint32_t world_segment_base(uint16_t selector, bool *big)
{
	uint32_t table = selector & SELECTOR_TI ? CASE_LDT : CASE_GDT;
	uint64_t descriptor = *(uint64_t *)at(table + (selector & SELECTOR_INDEX));

	if (big)
		*big = descriptor >> 54 & 1;
	if (!(selector & ~SELECTOR_RPL))
		return 0;
	return (uint32_t)(descriptor >> 16 & 0xffffff) | (uint32_t)(descriptor >> 56) << 24;
}

/* The linear address of @offset in the segment of @selector. */
uint32_t world_linear(unsigned mode, uint64_t selector, uint64_t offset)
{
	bool big;

	if (mode == MODE_REAL)
		return (uint32_t)((selector & 0xffff) << 4) + (uint16_t)offset;
	if (mode == MODE_VM86)
		return (uint32_t)((selector & 0xffff) << 4) + (uint32_t)offset;
	if (mode == MODE_LONG)
		return (uint32_t)offset;
	return world_segment_base((uint16_t)selector, &big) + (uint32_t)offset;
}

uint32_t world_stack_linear(unsigned mode, uint64_t selector, uint64_t offset)
{
	bool big = false;

	if (mode == MODE_REAL || mode == MODE_VM86)
		return (uint32_t)((selector & 0xffff) << 4) + (uint16_t)offset;
	world_segment_base((uint16_t)selector, &big);
	return world_linear(mode, selector, big ? offset : offset & 0xffff);
}
