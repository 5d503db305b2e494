/* linear_test.c: the guest's memory by linear addresses, in each kind of paging. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "kmod/core/linear.h"
#include "kmod/core/walk.h"
#include "kmod/test/fake.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define TOP   0x10000ull /* PML5, PML4, PDPT or a directory of 32-bit paging */
#define NEXT  0x11000ull
#define PD    0x12000ull
#define PT    0x13000ull
#define PML5  0x14000ull
#define DATA  0x20000ull /* where page 0 is */
#define OTHER 0x30000ull /* and page 1 */

static struct core_machine machine;
static struct linear_mode mode;
static struct linear_fault fault;

static uint32_t *word(uint64_t physical) { return fake_memory(physical); }

static void start(uint64_t cr4, uint64_t efer)
{
	fake_reset(CORE_VMX);
	memset(&fault, 0, sizeof(fault));
	machine = (struct core_machine){
		.hidden = FAKE_HIDDEN, .hidden_size = FAKE_MEMORY - FAKE_HIDDEN, .mapped = FAKE_MEMORY};
	mode = (struct linear_mode){
		.machine = &machine, .cr0 = CR0_PE | CR0_PG, .cr3 = TOP, .cr4 = cr4, .efer = efer};
}

/* Four levels: pages 0 and 1 of 4 KiB, the third 2 MiB as one, the second GiB as one. */
static void start_long(void)
{
	start(CR4_PAE, EFER_LMA | EFER_LME | EFER_NXE);
	*fake_quad(TOP) = NEXT | PTE_P | PTE_W | PTE_U;
	*fake_quad(NEXT) = PD | PTE_P | PTE_W | PTE_U;
	*fake_quad(NEXT + 8) = PTE_P | PTE_W | PTE_PS;
	*fake_quad(PD) = PT | PTE_P | PTE_W | PTE_U;
	*fake_quad(PD + 16) = 0x600000 | PTE_P | PTE_W | PTE_PS;
	*fake_quad(PT) = DATA | PTE_P | PTE_W;
	*fake_quad(PT + 8) = OTHER | PTE_P | PTE_W;
}

static void start_32(uint64_t cr4)
{
	start(cr4, 0);
	*word(TOP) = PT | (uint32_t)(PTE_P | PTE_W | PTE_U);
	*word(TOP + 4) = 0x800000 | (uint32_t)(PTE_P | PTE_W | PTE_PS);
	*word(PT) = DATA | (uint32_t)(PTE_P | PTE_W);
	*word(PT + 4) = OTHER | (uint32_t)(PTE_P | PTE_W);
}

static uint64_t get(uint64_t linear)
{
	uint64_t value = 0;

	assert_true(linear_get(&mode, linear, &value, 8, &fault));
	return value;
}

/* Reading, or writing, is refused with this error code. */
static void refused(uint64_t linear, bool write, uint32_t error)
{
	uint64_t value = 0;

	assert_false(write ? linear_put(&mode, linear, &value, 8, &fault)
			   : linear_get(&mode, linear, &value, 8, &fault));
	assert_int_equal(fault.error, error);
	assert_int_equal(fault.address, linear);
}

static void put(uint64_t linear, uint64_t value)
{
	assert_true(linear_put(&mode, linear, &value, 8, &fault));
}

static void without_paging(void **state)
{
	(void)state;
	start(0, 0);
	mode.cr0 = CR0_PE;
	*fake_quad(0x5008) = 0x1122;
	assert_int_equal(get(0x5008), 0x1122);
}

static void long_mode(void **state)
{
	(void)state;
	start_long();
	*fake_quad(DATA + 8) = 1;
	*fake_quad(OTHER) = 2;
	*fake_quad(0x6abcd0) = 3;
	*fake_quad(0xabcd0) = 4;
	assert_int_equal(get(8), 1);
	assert_int_equal(get(0x1000), 2);
	assert_int_equal(get(0x4abcd0), 3);
	assert_int_equal(get(0x400abcd0), 4);
	refused(0x2000, false, 0);
	refused(0x200000, true, PF_W);
	refused(0x8000000000ull, false, 0);
	mode.cr4 |= CR4_LA57;
	mode.cr3 = PML5;
	refused(8, false, 0);
	*fake_quad(PML5) = TOP | PTE_P | PTE_W | PTE_U;
	assert_int_equal(get(8), 1);
}

static void flags_are_set(void **state)
{
	(void)state;
	start_long();
	refused(0x2000, true, PF_W);
	assert_false(*fake_quad(TOP) & PTE_A); /* nothing of a walk that ends in a fault */
	get(0);
	assert_true(*fake_quad(TOP) & *fake_quad(NEXT) & *fake_quad(PD) & *fake_quad(PT) & PTE_A);
	assert_false(*fake_quad(PT) & PTE_D);
	put(0, 5);
	assert_true(*fake_quad(PT) & PTE_D);
	assert_false((*fake_quad(TOP) | *fake_quad(NEXT) | *fake_quad(PD)) & PTE_D);
	assert_int_equal(*fake_quad(DATA), 5);
	start_32(0);
	*word(TOP + 4) = 0;
	put(0, 5);
	assert_int_equal(*word(PT), DATA | PTE_P | PTE_W | PTE_A | PTE_D);
	assert_int_equal(*word(PT + 4), OTHER | PTE_P | PTE_W); /* its neighbour */
	assert_true(*word(TOP) & PTE_A);
	assert_false(*word(TOP) & PTE_D);
}

static void reserved_bits(void **state)
{
	static const struct {
		uint64_t at, bits, linear;
	} row[] = {
		{TOP, PTE_PS, 0},
		{NEXT, 1ull << 50, 0},
		{PT, 1ull << 48, 0},
		{PD + 16, 1 << 13, 0x400000},
		{PD + 16, 1 << 20, 0x400000},
		{NEXT + 8, 1 << 21, 0x40000000},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		start_long();
		*fake_quad(row[i].at) |= row[i].bits;
		refused(row[i].linear, false, PF_P | PF_RSVD);
	}
	start_long();
	*fake_quad(PT) |= PTE_NX | 1ull << 52 | PTE_PS; /* PAT's, and two that are free */
	*fake_quad(PD + 16) |= PTE_PAT_LARGE;
	get(0);
	get(0x400000);
	mode.efer &= ~(uint64_t)EFER_NXE;
	refused(0, true, PF_P | PF_RSVD | PF_W);
}

static void pae(void **state)
{
	(void)state;
	start_long();
	mode.efer = EFER_NXE;
	mode.pdpte[0] = PD | PTE_P;
	*fake_quad(OTHER) = 7;
	*fake_quad(0x600008) = 8;
	assert_int_equal(get(0x1000), 7);
	assert_int_equal(get(0x400008), 8);
	assert_int_equal(get(0x100001000ull), 7); /* 32 bits */
	refused(0x40001000, true, PF_W);          /* PDPTE 1 */
	*fake_quad(PT + 8) |= 1ull << 52;
	refused(0x1000, false, PF_P | PF_RSVD);
}

static void of_32_bits(void **state)
{
	(void)state;
	start_32(CR4_PSE);
	*fake_quad(DATA + 16) = 9;
	*fake_quad(0xabcd00) = 10;
	assert_int_equal(get(16), 9);
	assert_int_equal(get(0x6bcd00), 10);
	refused(0x2000, false, 0);
	refused(0x800000, true, PF_W);
	/* Without PSE that entry is of a table: at 800000H. */
	mode.cr4 = 0;
	*word(0x800000) = DATA | (uint32_t)PTE_P;
	assert_int_equal(get(0x400010), 9);
	/* PSE alone makes nothing large. */
	start_32(CR4_PSE);
	*fake_quad(OTHER) = 11;
	assert_int_equal(get(0x1000), 11);
}

static void protection(void **state)
{
	(void)state;
	start_long();
	*fake_quad(PT) &= ~PTE_W;
	put(0, 1); /* without CR0.WP */
	mode.cr0 |= CR0_WP;
	refused(0, true, PF_P | PF_W);
	get(0);
	put(0x1000, 1);
	*fake_quad(NEXT) &= ~PTE_W; /* any entry on the way */
	refused(0x1000, true, PF_P | PF_W);
	*fake_quad(NEXT) |= PTE_W;
	/* SMAP: of pages that all entries give to users. */
	mode.cr4 |= CR4_SMAP;
	get(0x1000);
	*fake_quad(PT + 8) |= PTE_U;
	refused(0x1000, false, PF_P);
	mode.rflags = RFLAGS_AC;
	get(0x1000);
	mode.implicit = true;
	refused(0x1000, true, PF_P | PF_W);
	*fake_quad(TOP) &= ~PTE_U;
	get(0x1000);
	*fake_quad(TOP) |= PTE_U;
	mode.cr4 &= ~(uint64_t)CR4_SMAP;
	get(0x1000);
}

static void keys(void **state)
{
	(void)state;
	start_long();
	*fake_quad(PT) |= PTE_U | 1ull << PTE_PK_SHIFT;
	fake.pkru = 1u << 2; /* AD of key 1 */
	get(0);              /* without CR4.PKE */
	mode.cr4 |= CR4_PKE;
	refused(0, false, PF_P | PF_PK);
	get(0x1000);
	*fake_quad(PT) &= ~PTE_U; /* a supervisor's */
	get(0);
	*fake_quad(PT) |= PTE_U;
	fake.pkru = 2u << 2; /* WD */
	get(0);
	put(0, 1); /* without CR0.WP */
	mode.cr0 |= CR0_WP;
	refused(0, true, PF_P | PF_PK | PF_W);
	*fake_quad(PT) += 1ull << PTE_PK_SHIFT;
	put(0, 1); /* key 2 */
	start_32(CR4_PKE | CR4_PSE);
	*word(TOP) |= (uint32_t)PTE_U;
	*word(PT) |= (uint32_t)PTE_U;
	fake.pkru = 1; /* of key 0, which is no word of 32-bit paging */
	get(0);
}

/* Over the end of a page; what is written is checked before a byte of it is. */
static void crossing(void **state)
{
	uint64_t value = 0x8877665544332211ull;

	(void)state;
	start_long();
	put(0xffc, value);
	assert_int_equal(*word(DATA + 0xffc), 0x44332211);
	assert_int_equal(*word(OTHER), 0x88776655);
	assert_int_equal(get(0xffc), value);
	*fake_quad(PT + 8) = 0;
	assert_false(linear_put(&mode, 0xffc, &value, 8, &fault));
	assert_int_equal(fault.address, 0x1000);
	assert_int_equal(fault.error, PF_W);
	*word(DATA + 0xffc) = 0;
	assert_false(linear_put(&mode, 0xffc, &value, 8, &fault));
	assert_int_equal(*word(DATA + 0xffc), 0);
	put(0xff8, value); /* up to the end */
	assert_false(linear_check(&mode, 0xffc, 8, false, &fault));
	assert_true(linear_check(&mode, 0xff8, 8, false, &fault));
	assert_false(linear_check(&mode, 0x1000, 8, false, &fault));
	/* 32 bits wrap. */
	start_32(CR4_PSE);
	*word(TOP + 0xffc) = 0x400000 | (uint32_t)(PTE_P | PTE_W | PTE_PS);
	put(0xfffffffc, value);
	assert_int_equal(*word(0x7ffffc), 0x44332211);
	assert_int_equal(*word(DATA), 0x88776655);
}

static void tables_elsewhere(void **state)
{
	(void)state;
	start_long();
	*fake_quad(TOP) = FAKE_HIDDEN | PTE_P;
	assert_true(fake_catches(get(0)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
}

/* ---- walk.h: the same without rights ---- */

static uint64_t walked(uint64_t cr3, uint64_t linear)
{
	struct walk_mode how = {mode.cr0, cr3, mode.cr4, mode.efer};
	uint64_t physical;

	return walk_guest(&machine, &how, linear, &physical) ? physical : UINT64_MAX;
}

static void walks(void **state)
{
	(void)state;
	start_long();
	assert_int_equal(walked(TOP, 0x1234), OTHER + 0x234);
	assert_int_equal(walked(TOP, 0x4abcd0), 0x6abcd0);
	assert_int_equal(walked(TOP, 0x400abcd0), 0xabcd0);
	assert_int_equal(walked(TOP, 0x2000), UINT64_MAX);
	assert_int_equal(walked(FAKE_HIDDEN, 0), UINT64_MAX);
	assert_int_equal(walked(1ull << 40, 0), UINT64_MAX); /* where nothing is */
	mode.cr4 |= CR4_LA57;
	*fake_quad(PML5) = TOP | PTE_P;
	assert_int_equal(walked(PML5, 0x1234), OTHER + 0x234);
	mode.cr4 = CR4_PAE; /* four PDPTEs, at a multiple of 32 */
	mode.efer = 0;
	*fake_quad(NEXT + 0x20) = PD | PTE_P;
	assert_int_equal(walked(NEXT + 0x20, 0x1234), OTHER + 0x234);
	assert_int_equal(walked(NEXT + 0x20, 0x400000), 0x600000);
	start_32(CR4_PSE);
	assert_int_equal(walked(TOP, 0x1234), OTHER + 0x234);
	assert_int_equal(walked(TOP, 0x6bcd00), 0xabcd00);
	assert_int_equal(walked(TOP, 0x2000), UINT64_MAX);
	assert_int_equal(walked(TOP, 0x800000), UINT64_MAX);
	mode.cr4 = 0;
	*word(0x800000) = DATA | (uint32_t)PTE_P;
	assert_int_equal(walked(TOP, 0x400010), DATA + 0x10);
	mode.cr0 = CR0_PE;
	assert_int_equal(walked(TOP, 0x2000), 0x2000);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_paging),
		cmocka_unit_test(long_mode),
		cmocka_unit_test(flags_are_set),
		cmocka_unit_test(reserved_bits),
		cmocka_unit_test(pae),
		cmocka_unit_test(of_32_bits),
		cmocka_unit_test(protection),
		cmocka_unit_test(keys),
		cmocka_unit_test(crossing),
		cmocka_unit_test(tables_elsewhere),
		cmocka_unit_test(walks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
