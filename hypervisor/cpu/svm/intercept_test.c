/* intercept_test.c: each instruction's intercept, what the exit tells, and its order against exceptions. */
#include "cpu/svm/svm_test.h"

/* ---- instructions with one intercept bit ---- */

struct row {
	const char *name;
	uint16_t code;
	uint8_t length, bytes[8];
};

#define ROW(code_, ...)                                                                                      \
	{                                                                                                    \
#code_, SVM_EXIT_##code_, sizeof((const uint8_t[]){__VA_ARGS__}), { __VA_ARGS__ }            \
	}

/* RBX, RSI and RDI are GUEST_AT + 0x100, RCX and RDX are 0. */
static const struct row rows[] = {
	ROW(CR0_READ, 0x0f, 0x01, 0xe0),  /* smsw eax */
	ROW(CR0_READ, 0x0f, 0x20, 0xc1),  /* mov rcx, cr0 */
	ROW(CR0_WRITE, 0x0f, 0x01, 0xf0), /* lmsw ax */
	ROW(CR0_WRITE, 0x0f, 0x06),       /* clts */
	ROW(IDTR_READ, 0x0f, 0x01, 0x0b),
	ROW(GDTR_READ, 0x0f, 0x01, 0x03),
	ROW(LDTR_READ, 0x0f, 0x00, 0xc0),
	ROW(TR_READ, 0x0f, 0x00, 0xc8),
	ROW(IDTR_WRITE, 0x0f, 0x01, 0x1b),
	ROW(GDTR_WRITE, 0x0f, 0x01, 0x13),
	ROW(LDTR_WRITE, 0x0f, 0x00, 0xd1), /* lldt cx */
	ROW(TR_WRITE, 0x0f, 0x00, 0xd9),
	ROW(RDTSC, 0x0f, 0x31),
	ROW(RDPMC, 0x0f, 0x33),
	ROW(PUSHF, 0x9c),
	ROW(POPF, 0x9d),
	ROW(CPUID, 0x0f, 0xa2),
	ROW(RSM, 0x0f, 0xaa),
	ROW(IRET, 0x48, 0xcf),
	ROW(SWINT, 0xcd, 0x80),
	ROW(INVD, 0x0f, 0x08),
	ROW(PAUSE, 0xf3, 0x90),
	ROW(HLT, 0xf4),
	ROW(INVLPG, 0x0f, 0x01, 0x3b),
	ROW(INVLPGA, 0x0f, 0x01, 0xdf),
	ROW(VMMCALL, 0x0f, 0x01, 0xd9),
	ROW(STGI, 0x0f, 0x01, 0xdc),
	ROW(CLGI, 0x0f, 0x01, 0xdd),
	ROW(RDTSCP, 0x0f, 0x01, 0xf9),
	ROW(ICEBP, 0xf1),
	ROW(WBINVD, 0x0f, 0x09),
	ROW(MONITOR, 0x0f, 0x01, 0xc8),
	ROW(MWAIT, 0x0f, 0x01, 0xc9),
	ROW(XSETBV, 0x0f, 0x01, 0xd1),
	ROW(RDPRU, 0x0f, 0x01, 0xfd),
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void registers_set(struct machine *m)
{
	m->cpu->reg[RBX] = m->cpu->reg[RSI] = m->cpu->reg[RDI] = GUEST_AT + 0x100;
	m->cpu->reg[RCX] = m->cpu->reg[RDX] = 0;
	vmcb_put(m, VMCB_RAX, GUEST_AT + 0x100, 8);
}

/* Runs the row's bytes with the intercept on or off; ends at a VMMCALL, or where a handler has one. */
static int64_t row_run(struct machine *m, const struct row *row, bool on, unsigned cpl)
{
	uint8_t code[16];

	vmcb_baseline(m);
	vmcb_put(m, VMCB_CR4, CR4_PAE | CR4_OSXSAVE, 8);
	vmcb_put(m, VMCB_CPL, cpl, 1);
	vmcb_intercept(m, SVM_EXIT_SHUTDOWN);
	if (on)
		vmcb_intercept(m, row->code);
	registers_set(m);
	memcpy(code, row->bytes, row->length);
	memcpy(code + row->length, (const uint8_t[]){VMMCALL}, 3);
	return svm_run(m, code, row->length + 3u);
}

static void instructions_exit(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	for (size_t i = 0; i < ROWS; i++) {
		const struct row *row = &rows[i];

		if (row_run(&m, row, true, 0) != row->code)
			fail_msg("%s: exit %llx", row->name,
				 (unsigned long long)vmcb_get(&m, VMCB_EXITCODE, 8));
		assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
		assert_int_equal(vmcb_get(&m, VMCB_NRIP, 8), GUEST_AT + row->length);
		assert_int_equal(vmcb_get(&m, VMCB_RAX, 8), GUEST_AT + 0x100);
	}
	machine_close(&m);
}

/* With the bit off none of them exits so (HLT would end the run). */
static void instructions_do_not_exit(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	for (size_t i = 0; i < ROWS; i++) {
		const struct row *row = &rows[i];

		/* A VMMCALL that is not intercepted is #UD, whose handler is one. */
		if (row->code == SVM_EXIT_HLT || row->code == SVM_EXIT_VMMCALL)
			continue;
		if (row_run(&m, row, false, 0) == row->code)
			fail_msg("%s: exits without its bit", row->name);
	}
	machine_close(&m);
}

/* Table 15-7: at CPL 3 most are #GP or #UD first; a handful exits whatever the privilege. */
static void privilege_comes_first_or_not(void **state)
{
	static const uint16_t before[] = {SVM_EXIT_PUSHF, SVM_EXIT_POPF,   SVM_EXIT_CPUID, SVM_EXIT_RSM,
					  SVM_EXIT_IRET,  SVM_EXIT_SWINT,  SVM_EXIT_ICEBP, SVM_EXIT_XSETBV,
					  SVM_EXIT_PAUSE, SVM_EXIT_VMMCALL};
	static const uint16_t any[] = {SVM_EXIT_CR0_READ,  SVM_EXIT_IDTR_READ, SVM_EXIT_GDTR_READ,
				       SVM_EXIT_LDTR_READ, SVM_EXIT_TR_READ,   SVM_EXIT_RDTSC,
				       SVM_EXIT_RDTSCP,    SVM_EXIT_RDPRU};
	struct machine m;

	(void)state;
	svm_open(&m);
	for (size_t i = 0; i < ROWS; i++) {
		bool exits = false, open = false;
		int64_t code;

		for (size_t k = 0; k < sizeof(before) / sizeof(before[0]); k++)
			exits |= before[k] == rows[i].code;
		for (size_t k = 0; k < sizeof(any) / sizeof(any[0]); k++)
			open |= any[k] == rows[i].code;
		if (open)
			continue;
		/* The tables are a supervisor's, so fetching at CPL 3 needs user pages. */
		for (unsigned level = 0; level < 3; level++) {
			uint64_t at =
				TABLES_AT + 0x1000 * level + (level == 2 ? (MACHINE_BASE >> 21) * 8 : 0);

			guest_put(&m, at, guest_get(&m, at, 8) | 7, 8);
		}
		code = row_run(&m, &rows[i], true, 3);
		if ((code == rows[i].code) != exits)
			fail_msg("%s at CPL 3: exit %llx", rows[i].name, (unsigned long long)code);
	}
	machine_close(&m);
}

/* ---- control and debug registers ---- */

static void control_registers_tell_their_register(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_put(&m, VMCB_INTERCEPTS(0), 0x1 << 3 | 0x10000u << 4 | 1u << 8 | 0x10000u << 8, 4);
	assert_int_equal(GUEST(&m, 0x41, 0x0f, 0x20, 0xd9, VMMCALL), SVM_EXIT_CR0_READ + 3); /* mov r9, cr3 */
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), SVM_INFO_MOV_CR | 9);
	m.cpu->reg[RCX] = CR4_PAE;
	assert_int_equal(GUEST(&m, 0x0f, 0x22, 0xe1, VMMCALL), SVM_EXIT_CR0_WRITE + 4); /* mov cr4, rcx */
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), SVM_INFO_MOV_CR | RCX);
	assert_int_equal(GUEST(&m, 0x44, 0x0f, 0x20, 0xc3, VMMCALL),
			 SVM_EXIT_CR0_READ + 8); /* mov rbx, cr8 */
	/* A reserved bit is #GP before the intercept. */
	m.cpu->reg[RCX] = 1ull << 40;
	assert_int_equal(GUEST(&m, 0x0f, 0x22, 0xe1, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), HANDLER_AT);
	machine_close(&m);
}

/* The selective intercept takes what changes more than TS and MP, and all LMSWs (table 15-7). */
static void selective_cr0_writes(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_intercept(&m, SVM_EXIT_CR0_SEL_WRITE);
	m.cpu->reg[RCX] = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_TS | CR0_MP;
	assert_int_equal(GUEST(&m, 0x0f, 0x22, 0xc1, VMMCALL), SVM_EXIT_VMMCALL);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	m.cpu->reg[RCX] = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_AM;
	assert_int_equal(GUEST(&m, 0x0f, 0x22, 0xc1, VMMCALL), SVM_EXIT_CR0_SEL_WRITE);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xf0, VMMCALL), SVM_EXIT_CR0_SEL_WRITE); /* lmsw ax */
	assert_int_equal(GUEST(&m, 0x0f, 0x06, VMMCALL), SVM_EXIT_VMMCALL);             /* clts */
	/* With both, the other one. */
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_intercept(&m, SVM_EXIT_CR0_WRITE);
	assert_int_equal(GUEST(&m, 0x0f, 0x22, 0xc1, VMMCALL), SVM_EXIT_CR0_WRITE);
	machine_close(&m);
}

static void debug_registers(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_put(&m, VMCB_INTERCEPTS(1), 1u << 7 | 0x10000u << 2, 4);
	assert_int_equal(GUEST(&m, 0x0f, 0x21, 0xfb, VMMCALL), SVM_EXIT_DR0_READ + 7); /* mov rbx, dr7 */
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), RBX);
	assert_int_equal(GUEST(&m, 0x0f, 0x23, 0xd6, VMMCALL), SVM_EXIT_DR0_WRITE + 2); /* mov dr2, rsi */
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), RSI);
	assert_int_equal(GUEST(&m, 0x0f, 0x23, 0xde, VMMCALL), SVM_EXIT_VMMCALL);
	machine_close(&m);
}

/* ---- what exits tell ---- */

static void decode_assists(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_intercept(&m, SVM_EXIT_SWINT);
	vmcb_intercept(&m, SVM_EXIT_INVLPG);
	assert_int_equal(GUEST(&m, 0xcd, 0x91), SVM_EXIT_SWINT);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0x91);
	m.cpu->reg[RBX] = 0x123456000;
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0x7b, 8), SVM_EXIT_INVLPG);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0x123456008);
	machine_close(&m);
}

static void ports_by_the_map(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_intercept(&m, SVM_EXIT_IOIO);
	guest_put(&m, IOPM_AT + 0x80 / 8, 1u << 3, 1); /* port 83h */
	guest_put(&m, IOPM_AT + 0x2000, 1, 1);         /* behind port FFFFH */
	m.cpu->reg[RDX] = 0x80;
	/* in eax, dx: port 83h is its last byte */
	assert_int_equal(GUEST(&m, 0xed, VMMCALL), SVM_EXIT_IOIO);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0x80u << 16 | 1u << 9 | 1u << 6 | SVM_IOIO_IN);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), GUEST_AT + 1);
	/* rep outsb from fs, 32-bit addresses */
	m.cpu->reg[RDX] = 0x83;
	m.cpu->reg[RCX] = 4;
	assert_int_equal(GUEST(&m, 0xf3, 0x67, 0x64, 0x6e), SVM_EXIT_IOIO);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0x83u << 16 | (unsigned)FS << 10 | 1u << 8 |
								  1u << 4 | SVM_IOIO_REP | SVM_IOIO_STRING);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), GUEST_AT + 4);
	m.cpu->reg[RDX] = 0xffff;
	assert_int_equal(GUEST(&m, 0x66, 0xef), SVM_EXIT_IOIO); /* out dx, ax */
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0xffffu << 16 | 1u << 9 | 1u << 5);
	machine_close(&m);
}

static void msrs_by_the_map(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_intercept(&m, SVM_EXIT_MSR);
	guest_put(&m, MSRPM_AT + 0x800 + (MSR_STAR & 0x1fff) / 4, 2u << (MSR_STAR & 3) * 2,
		  1); /* writes of STAR */
	m.cpu->reg[RCX] = MSR_STAR;
	assert_int_equal(GUEST(&m, 0x0f, 0x32, VMMCALL), SVM_EXIT_VMMCALL);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x30, VMMCALL), SVM_EXIT_MSR);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 1);
	/* One that the map does not have exits; and before its own #GP. */
	m.cpu->reg[RCX] = 0x40000000;
	assert_int_equal(GUEST(&m, 0x0f, 0x32, VMMCALL), SVM_EXIT_MSR);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0);
	guest_put(&m, MSRPM_AT + 0x1000 + 0x117 / 4, 1u << 6, 1);
	m.cpu->reg[RCX] = MSR_VM_HSAVE_PA;
	assert_int_equal(GUEST(&m, 0x0f, 0x32, VMMCALL), SVM_EXIT_MSR);
	machine_close(&m);
}

static void pause_filter(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_intercept(&m, SVM_EXIT_PAUSE);
	vmcb_put(&m, VMCB_PAUSE_COUNT, 2, 2);
	assert_int_equal(GUEST(&m, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, VMMCALL), SVM_EXIT_PAUSE);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT + 4);
	assert_int_equal(vmcb_get(&m, VMCB_PAUSE_COUNT, 2), 2);
	/* Far apart, as the threshold says: the count begins again. */
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(&m, VMCB_PAUSE_COUNT, 1, 2);
	vmcb_put(&m, VMCB_PAUSE_THRESHOLD, 3, 2);
	assert_int_equal(GUEST(&m, 0xf3, 0x90, 0x90, 0x90, 0x90, 0x90, 0xf3, 0x90, 0xf3, 0x90, VMMCALL),
			 SVM_EXIT_VMMCALL);
	machine_close(&m);
}

static void mwait_conditional(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	registers_set(&m);
	vmcb_intercept(&m, SVM_EXIT_MWAIT);
	vmcb_intercept(&m, SVM_EXIT_MWAIT_CONDITIONAL);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xc9), SVM_EXIT_MWAIT);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9), SVM_EXIT_MWAIT_CONDITIONAL);
	machine_close(&m);
}

/* In the host, and with the bits of a guest that has exited, nothing exits. */
static void nothing_exits_in_the_host(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	for (unsigned i = 0; i < VMCB_INTERCEPT_WORDS; i++)
		vmcb_put(&m, VMCB_INTERCEPTS(i), 0xffffffff, 4);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2), SVM_EXIT_CPUID);
	m.cpu->reg[RAX] = 0;
	machine_run(&m, (const uint8_t[]){0x0f, 0xa2}, 2, 1);
	assert_int_equal(m.cpu->rip, CODE_AT + 2);
	assert_int_equal(m.cpu->reg[RBX], 0x68747541);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instructions_exit),
		cmocka_unit_test(instructions_do_not_exit),
		cmocka_unit_test(privilege_comes_first_or_not),
		cmocka_unit_test(control_registers_tell_their_register),
		cmocka_unit_test(selective_cr0_writes),
		cmocka_unit_test(debug_registers),
		cmocka_unit_test(decode_assists),
		cmocka_unit_test(ports_by_the_map),
		cmocka_unit_test(msrs_by_the_map),
		cmocka_unit_test(pause_filter),
		cmocka_unit_test(mwait_conditional),
		cmocka_unit_test(nothing_exits_in_the_host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
