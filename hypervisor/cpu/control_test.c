/* control_test.c: control and debug registers, EFER and XCR0, through the instructions that write them. */
#include "cpu/insn/system_test.h"

#define MOV_CR0_EAX 0x0f, 0x22, 0xc0
#define MOV_CR3_EAX 0x0f, 0x22, 0xd8
#define MOV_CR4_EAX 0x0f, 0x22, 0xe0
#define MOV_CR8_RAX 0x44, 0x0f, 0x22, 0xc0
#define MOV_EAX_CR0 0x0f, 0x20, 0xc0
#define WRMSR       0x0f, 0x30
#define XSETBV      0x0f, 0x01, 0xd1

static void set_efer(struct machine *m, uint64_t value)
{
	m->cpu->reg[RCX] = 0xc0000080;
	m->cpu->reg[RAX] = (uint32_t)value;
	m->cpu->reg[RDX] = value >> 32;
}

static void test_cr0(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->reg[RAX] = m.cpu->cr0 | 1ull << 32;
	FAULTS(&m, "CR0_UPPER", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->reg[RAX] = m.cpu->cr0 & ~(uint64_t)CR0_PG;
	FAULTS(&m, "CR0_PG_64BIT", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->reg[RAX] = m.cpu->cr0 | CR0_NW;
	FAULTS(&m, "CR0_NW_CD", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->reg[RAX] = m.cpu->cr0 & ~(uint64_t)CR0_PE;
	FAULTS(&m, "CR0_PG_PE", VECTOR_GP, MOV_CR0_EAX);
	/* Reserved bits stay 0, ET stays 1. */
	m.cpu->reg[RAX] = (m.cpu->cr0 & ~(uint64_t)CR0_ET) | 1u << 6 | CR0_TS | CR0_WP;
	assert_int_equal(RUN(&m, MOV_CR0_EAX), NO_EVENT);
	assert_int_equal(RUN(&m, MOV_EAX_CR0), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], CR0_PE | CR0_ET | CR0_NE | CR0_PG | CR0_TS | CR0_WP);
	system_set_cpl(&m, 3);
	FAULTS(&m, "MOV_CR.CPL0", VECTOR_GP, MOV_CR0_EAX);
	machine_close(&m);
}

static void test_long_mode_activation(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "amd", CODE_32, 0);
	m.cpu->cr3 = TABLES_AT;
	set_efer(&m, EFER_LME);
	assert_int_equal(RUN(&m, WRMSR), NO_EVENT);
	m.cpu->reg[RAX] = m.cpu->cr0 | CR0_PG;
	FAULTS(&m, "CR0_LONG_PAE", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->cr4 |= CR4_PAE;
	m.cpu->segment[CS].s.attributes |= SEG_L;
	FAULTS(&m, "CR0_LONG_CS_L", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->segment[CS].s.attributes &= ~SEG_L;
	m.cpu->tr.s.attributes = SEG_P | TYPE_TSS16_BUSY;
	FAULTS(&m, "CR0_LONG_TSS16", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->tr.s.attributes = SEG_P | TYPE_TSS_BUSY;
	assert_int_equal(RUN(&m, MOV_CR0_EAX), NO_EVENT);
	assert_int_equal(m.cpu->efer, EFER_LME | EFER_LMA);
	/* In compatibility mode: LME is fixed, PAE is needed, LA57 is fixed. */
	set_efer(&m, EFER_LMA);
	FAULTS(&m, "EFER_LME_PAGING", VECTOR_GP, WRMSR);
	m.cpu->reg[RAX] = 0;
	FAULTS(&m, "CR4_PAE_LONG", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->reg[RAX] = CR4_PAE | CR4_LA57;
	FAULTS(&m, "CR4_LA57_LONG", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->cr4 |= CR4_PCIDE;
	m.cpu->reg[RAX] = m.cpu->cr0 & ~(uint64_t)CR0_PG;
	FAULTS(&m, "CR0_PG_PCIDE", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->cr4 &= ~(uint64_t)CR4_PCIDE;
	assert_int_equal(RUN(&m, MOV_CR0_EAX), NO_EVENT);
	assert_int_equal(m.cpu->efer, EFER_LME);
	machine_close(&m);
}

static void test_cr3(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->reg[RAX] = TABLES_AT | 1ull << 46; /* the profile has 46 bits */
	FAULTS(&m, "CR3_RESERVED", VECTOR_GP, MOV_CR3_EAX);
	m.cpu->reg[RAX] = TABLES_AT | CR3_NO_FLUSH;
	FAULTS(&m, "CR3_RESERVED", VECTOR_GP, MOV_CR3_EAX);
	m.cpu->cr4 |= CR4_PCIDE;
	m.cpu->reg[RAX] = TABLES_AT | CR3_NO_FLUSH | 5;
	assert_int_equal(RUN(&m, MOV_CR3_EAX), NO_EVENT);
	assert_int_equal(m.cpu->cr3, TABLES_AT | 5);
	machine_close(&m);
}

/* PAE paging: the PDPTEs are read at these writes, and a reserved bit is #GP(0) (SDM 3A 4.4.1). */
static void test_pdptes(void **state)
{
	static const uint64_t bad[4] = {0x1f3000 | 1, 0, 0x1f3000 | 3, 0};
	static const uint64_t good[4] = {0x1f3000 | 1, 0, 0, 0};
	uint64_t page = MACHINE_BASE | 0x83;
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_32, 0);
	assert_true(phys_write(m.memory, 0x1f4000, bad, sizeof(bad)));
	assert_true(phys_write(m.memory, 0x1f5000, good, sizeof(good)));
	assert_true(phys_write(m.memory, 0x1f3000 + (MACHINE_BASE >> 21) * 8, &page, 8));
	m.cpu->cr4 = CR4_PAE;
	m.cpu->cr3 = 0x1f4000;
	m.cpu->reg[RAX] = m.cpu->cr0 | CR0_PG;
	FAULTS(&m, "CR0_PDPTE", VECTOR_GP, MOV_CR0_EAX);
	m.cpu->reg[RAX] = 0x1f5000;
	assert_int_equal(RUN(&m, MOV_CR3_EAX), NO_EVENT);
	m.cpu->reg[RAX] = m.cpu->cr0 | CR0_PG;
	assert_int_equal(RUN(&m, MOV_CR0_EAX), NO_EVENT);
	assert_int_equal(m.cpu->pdpte[0], good[0]);
	m.cpu->reg[RAX] = 0x1f4000;
	FAULTS(&m, "CR3_PDPTE", VECTOR_GP, MOV_CR3_EAX);
	assert_int_equal(m.cpu->pdpte[2], 0);
	assert_true(phys_write(m.memory, 0x1f5000, bad, sizeof(bad)));
	m.cpu->reg[RAX] = CR4_PAE | CR4_PGE;
	FAULTS(&m, "CR4_PDPTE", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->reg[RAX] = CR4_PAE | CR4_TSD; /* reads nothing */
	assert_int_equal(RUN(&m, MOV_CR4_EAX), NO_EVENT);
	machine_close(&m);
}

static void test_cr4(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel,-umip,-vmx", CODE_64, 0);
	m.cpu->reg[RAX] = CR4_PAE | CR4_UMIP;
	FAULTS(&m, "CR4_RESERVED", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->reg[RAX] = CR4_PAE | CR4_VMXE;
	FAULTS(&m, "CR4_RESERVED", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->reg[RAX] = CR4_PAE | 1ull << 40;
	FAULTS(&m, "CR4_RESERVED", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->cr3 |= 5;
	m.cpu->reg[RAX] = CR4_PAE | CR4_PCIDE;
	FAULTS(&m, "CR4_PCIDE_PCID", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->cr3 &= ~5ull;
	assert_int_equal(RUN(&m, MOV_CR4_EAX), NO_EVENT);
	assert_int_equal(m.cpu->cr4, CR4_PAE | CR4_PCIDE);
	machine_mode(&m, CODE_32);
	m.cpu->reg[RAX] = CR4_PCIDE;
	m.cpu->cr3 = 0;
	FAULTS(&m, "CR4_PCIDE_LONG", VECTOR_GP, MOV_CR4_EAX);
	m.cpu->reg[RAX] = CR4_LA57 | CR4_PAE;
	assert_int_equal(RUN(&m, MOV_CR4_EAX), NO_EVENT);
	machine_close(&m);
}

/* VMX operation cannot be prepared in SMM (SDM 3C 32.14.4). */
static void test_cr4_in_smm(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->smm = true;
	m.cpu->reg[RAX] = CR4_PAE | CR4_VMXE;
	FAULTS(&m, "CR4_VMXE_SMM", VECTOR_GP, MOV_CR4_EAX);
	machine_close(&m);
}

static uint64_t cr8_told;
static void note_cr8(void *owner, uint64_t cr8)
{
	(void)owner;
	cr8_told = cr8;
}

static void test_cr8(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "amd", CODE_64, 0);
	m.cpu->bus.cr8_written = note_cr8;
	m.cpu->reg[RAX] = 0x10;
	FAULTS(&m, "CR8_RESERVED", VECTOR_GP, MOV_CR8_RAX);
	m.cpu->reg[RAX] = 9;
	assert_int_equal(RUN(&m, MOV_CR8_RAX), NO_EVENT);
	assert_int_equal(cr8_told, 9);
	/* AMD: LOCK MOV CR0 is CR8 outside 64-bit mode as well. */
	machine_mode(&m, CODE_32);
	m.cpu->reg[RAX] = 4;
	assert_int_equal(RUN(&m, 0xf0, MOV_CR0_EAX), NO_EVENT);
	assert_int_equal(m.cpu->cr8, 4);
	machine_close(&m);
	system_open(&m, "intel", CODE_32, 0);
	FAULTS(&m, NULL, VECTOR_UD, 0xf0, MOV_CR0_EAX);
	FAULTS(&m, NULL, VECTOR_UD, 0x0f, 0x22, 0xc8); /* CR1 */
	machine_close(&m);
}

static void test_efer(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	set_efer(&m, EFER_LME | EFER_LMA | EFER_FFXSR);
	FAULTS(&m, "EFER_RESERVED", VECTOR_GP, WRMSR);
	set_efer(&m, EFER_LME | EFER_NXE | EFER_SCE); /* LMA is read-only */
	assert_int_equal(RUN(&m, WRMSR), NO_EVENT);
	assert_int_equal(m.cpu->efer, EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE);
	machine_close(&m);
	system_open(&m, "amd,-nx,-svm", CODE_64, 0);
	set_efer(&m, EFER_LME | EFER_LMA | EFER_FFXSR | EFER_TCE);
	assert_int_equal(RUN(&m, WRMSR), NO_EVENT);
	set_efer(&m, EFER_LME | EFER_LMA | EFER_NXE);
	FAULTS(&m, "EFER_RESERVED", VECTOR_GP, WRMSR);
	set_efer(&m, EFER_LME | EFER_LMA | EFER_SVME);
	FAULTS(&m, "EFER_RESERVED", VECTOR_GP, WRMSR);
	set_efer(&m, EFER_LME);
	FAULTS(&m, "EFER_LMA_CHANGED", VECTOR_GP, WRMSR);
	machine_close(&m);
}

static void test_xcr0(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->reg[RAX] = 3;
	m.cpu->reg[RDX] = m.cpu->reg[RCX] = 0;
	FAULTS(&m, "XSETBV.OSXSAVE", VECTOR_UD, XSETBV);
	m.cpu->cr4 |= CR4_OSXSAVE;
	assert_int_equal(RUN(&m, XSETBV), NO_EVENT);
	assert_int_equal(m.cpu->xcr0, 3);
	m.cpu->reg[RAX] = 2;
	FAULTS(&m, "XCR0_X87", VECTOR_GP, XSETBV);
	m.cpu->reg[RAX] = 5;
	FAULTS(&m, "XCR0_AVX_SSE", VECTOR_GP, XSETBV);
	m.cpu->reg[RAX] = 0xb; /* bound registers, which no profile has */
	FAULTS(&m, "XCR0_RESERVED", VECTOR_GP, XSETBV);
	m.cpu->reg[RAX] = 7;
	assert_int_equal(RUN(&m, XSETBV), NO_EVENT);
	m.cpu->reg[RAX] = 0x201;
	assert_int_equal(RUN(&m, XSETBV), NO_EVENT);
	m.cpu->reg[RCX] = 1;
	FAULTS(&m, "XCR_INDEX", VECTOR_GP, XSETBV);
	m.cpu->reg[RCX] = 0;
	system_set_cpl(&m, 3);
	FAULTS(&m, "XSETBV.CPL0", VECTOR_GP, XSETBV);
	machine_close(&m);
}

static void test_debug_registers(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->reg[RAX] = 1ull << 32;
	FAULTS(&m, "DR_UPPER", VECTOR_GP, 0x0f, 0x23, 0xf8);
	FAULTS(&m, "DR_UPPER", VECTOR_GP, 0x0f, 0x23, 0xf0);
	m.cpu->reg[RAX] = 0;
	assert_int_equal(RUN(&m, 0x0f, 0x23, 0xf0), NO_EVENT);
	assert_int_equal(RUN(&m, 0x0f, 0x21, 0xe2), NO_EVENT); /* MOV RDX, DR4 is DR6 */
	assert_int_equal(m.cpu->reg[RDX], 0xffff0ff0);
	m.cpu->reg[RAX] = 0xffffdf00;                          /* all but GD and the enables */
	assert_int_equal(RUN(&m, 0x0f, 0x23, 0xe8), NO_EVENT); /* DR5 is DR7 */
	assert_int_equal(m.cpu->dr7, 0xffff0700);
	m.cpu->cr4 |= CR4_DE;
	FAULTS(&m, "MOV_DR.DE", VECTOR_UD, 0x0f, 0x21, 0xe2);
	FAULTS(&m, "MOV_DR.DE", VECTOR_UD, 0x0f, 0x23, 0xe8);
	m.cpu->dr7 |= DR7_GD;
	FAULTS(&m, "DR_GD", VECTOR_DB, 0x0f, 0x21, 0xc0);
	assert_int_equal(RUN(&m, 0x0f, 0x21, 0xc0), VECTOR_DB);
	system_set_cpl(&m, 3);
	FAULTS(&m, "MOV_DR.CPL0", VECTOR_GP, 0x0f, 0x21, 0xc0);
	FAULTS(&m, "MOV_DR.DE", VECTOR_UD, 0x0f, 0x21, 0xe2); /* an invalid opcode comes first */
	FAULTS(&m, NULL, VECTOR_UD, 0x44, 0x0f, 0x21, 0xc0);  /* DR8 */
	machine_close(&m);
}

/* LMSW sets PE and never clears it; SMSW reads 16 bits to memory; CLTS. */
static void test_machine_status_word(void **state)
{
	struct machine m;

	(void)state;
	system_open(&m, "intel", CODE_64, 0);
	m.cpu->reg[RAX] = 0xfff0 | 0xe;
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xf0), NO_EVENT);
	assert_int_equal(m.cpu->cr0 & 0xf, 0xf);
	assert_int_equal(RUN(&m, 0x0f, 0x06), NO_EVENT);
	assert_int_equal(m.cpu->cr0 & 0xf, 0x7);
	m.cpu->reg[RAX] = ~0ull;
	assert_int_equal(RUN(&m, 0x66, 0x0f, 0x01, 0xe0), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0xffffffffffff0000 | (uint16_t)m.cpu->cr0);
	system_set_cpl(&m, 3);
	FAULTS(&m, "LMSW.CPL0", VECTOR_GP, 0x0f, 0x01, 0xf0);
	FAULTS(&m, "CLTS.CPL0", VECTOR_GP, 0x0f, 0x06);
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xe0), NO_EVENT);
	m.cpu->cr4 |= CR4_UMIP;
	FAULTS(&m, "SMSW.UMIP", VECTOR_GP, 0x0f, 0x01, 0xe0);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cr0),
		cmocka_unit_test(test_long_mode_activation),
		cmocka_unit_test(test_cr3),
		cmocka_unit_test(test_pdptes),
		cmocka_unit_test(test_cr4),
		cmocka_unit_test(test_cr4_in_smm),
		cmocka_unit_test(test_cr8),
		cmocka_unit_test(test_efer),
		cmocka_unit_test(test_xcr0),
		cmocka_unit_test(test_debug_registers),
		cmocka_unit_test(test_machine_status_word),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
