/* intercept_test.c: instructions of guests of VT-x whose exit depends on more than a bit, and what they do
 * else. */
#include "cpu/vmx/vmx_test.h"

#include "cpu/smm.h"

/* ---- time ---- */

static void tsc_has_offset_and_multiplier(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_USE_TSC_OFFSETTING);
	vmcs_put(&m, VMCS_TSC_OFFSET, 1ull << 40);
	assert_int_equal(GUEST(&m, 0x0f, 0x31, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RDX], 1u << 8);
	uint32_t first = (uint32_t)m.cpu->reg[RAX];
	vmcs_secondary(&m, VMX2_TSC_SCALING);
	vmcs_put(&m, VMCS_TSC_MULTIPLIER, 16ull << 48);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(GUEST(&m, 0x0f, 0x31, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RDX], 1u << 8);
	assert_in_range(m.cpu->reg[RAX], 16 * first, 16 * first + 500);
	/* RDMSR as RDTSC; the host's is bare */
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	m.cpu->reg[RCX] = MSR_TSC;
	assert_int_equal(GUEST(&m, 0x0f, 0x32, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RDX], 1u << 8);
	assert_true(control_tsc_read(m.cpu) < 1ull << 32);
	machine_close(&m);
}

/* TPAUSE until a time of the guest's TSC, of which sixteen are a tick; with RDTSC exiting it exits. */
static void user_waits(void **state)
{
	static const uint8_t code[] = {0x66, 0x0f, 0xae, 0xf3, VMCALL}; /* tpause ebx */
	struct machine m;

	(void)state;
	vmx_open_as(&m, "intel,+vmx,+waitpkg");
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMCALL); /* #UD */
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_USE_TSC_OFFSETTING);
	vmcs_secondary(&m, VMX2_USER_WAIT | VMX2_TSC_SCALING);
	vmcs_put(&m, VMCS_TSC_MULTIPLIER, 16ull << 48);
	vmcs_put(&m, VMCS_TSC_OFFSET, 0);
	m.cpu->reg[RDX] = 0;
	m.cpu->reg[RAX] = 16 * 100000;
	assert_int_equal(vmx_run_for(&m, code, sizeof(code), 50), CPU_STOP_HALT);
	assert_int_equal(m.cpu->activity, ACTIVITY_MWAIT);
	assert_in_range(cpu_wait_end(m.cpu), 100000 - 10, 100000 + 10);
	machine_close(&m);
	vmx_open_as(&m, "intel,+vmx,+waitpkg");
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_RDTSC);
	vmcs_secondary(&m, VMX2_USER_WAIT);
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_TPAUSE);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_INFO), RBX << 3 | 1 << 11);
	machine_close(&m);
}

/* ---- PAUSE loops ---- */

static void pause_loops_exit(void **state)
{
	/* pause; jmp */
	static const uint8_t loop[] = {0xf3, 0x90, 0xeb, 0xfc};
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_secondary(&m, VMX2_PAUSE_LOOP);
	vmcs_put(&m, VMCS_PLE_GAP, 10);
	vmcs_put(&m, VMCS_PLE_WINDOW, 60);
	uint64_t before = m.cpu->retired;
	assert_int_equal(vmx_run(&m, loop, sizeof(loop)), VMX_EXIT_PAUSE);
	assert_in_range(m.cpu->retired - before, 60, 75);
	/* each farther from the last than the gap */
	vmcs_baseline(&m);
	vmcs_secondary(&m, VMX2_PAUSE_LOOP);
	vmcs_put(&m, VMCS_PLE_GAP, 1);
	vmcs_put(&m, VMCS_PLE_WINDOW, 60);
	assert_int_equal(vmx_run_for(&m, loop, sizeof(loop), 150), CPU_STOP_BUDGET);
	machine_close(&m);
	/* loops above CPL 0 do not count */
	vmx_open(&m);
	for (unsigned i = 0; i < 3; i++)
		guest_put(&m, i < 2 ? TABLES_AT + 0x1000 * i : TABLES_AT + 0x2000 + (MACHINE_BASE >> 21) * 8,
			  i < 2 ? (TABLES_AT + 0x1000 * (i + 1)) | 7 : MACHINE_BASE | 0x87, 8);
	vmcs_put(&m, VMCS_GUEST_CS, 8 + 3);
	vmcs_put(&m, VMCS_GUEST_CS_RIGHTS, 0xa0fb);
	for (unsigned i = 0; i < 6; i++)
		if (i != 1) {
			vmcs_put(&m, VMCS_GUEST_ES + 2 * i, 16 + 3);
			vmcs_put(&m, VMCS_GUEST_ES_RIGHTS + 2 * i, 0xc0f3);
		}
	vmcs_secondary(&m, VMX2_PAUSE_LOOP);
	vmcs_put(&m, VMCS_PLE_GAP, 10);
	vmcs_put(&m, VMCS_PLE_WINDOW, 60);
	assert_int_equal(vmx_run_for(&m, loop, sizeof(loop), 150), CPU_STOP_BUDGET);
	assert_int_equal(m.cpu->cpl, 3);
	machine_close(&m);
}

/* ---- ports ---- */

static void ports_exit(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS);
	guest_put(&m, IO_AT + 0x1000 + 0x1234 / 8, 1u << (0x1234 & 7), 1);
	m.cpu->reg[RDX] = 0x9232;
	assert_int_equal(GUEST(&m, 0xef, VMCALL), VMX_EXIT_IO); /* out dx, eax: its third byte */
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0x92320003);
	m.cpu->reg[RDX] = 0xffff;
	assert_int_equal(GUEST(&m, 0x66, 0xed, VMCALL), VMX_EXIT_IO); /* in ax, dx, around */
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0xffff0009);
	machine_close(&m);
}

/* ---- XSAVES: a component that is asked for, enabled, and whose bit is 1 ---- */

static void xsaves_exits(void **state)
{
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		vmx_open(&m);
		vmcs_or(&m, VMCS_GUEST_CR4, CR4_OSXSAVE);
		vmcs_secondary(&m, VMX2_XSAVES);
		vmcs_put(&m, VMCS_XSS_EXITING_BITMAP, i == 1 ? 0x200 : 0x100);
		m.cpu->msr.xss = i == 2 ? 0x200 : 0x100;
		m.cpu->reg[RAX] = 0x100;
		m.cpu->reg[RDX] = 0;
		m.cpu->reg[RBX] = GUEST_AT + 0x400;
		assert_true(i < 3 || check_break("VMX_XSS_BITMAP"));
		if (i)
			assert_int_not_equal(GUEST(&m, 0x0f, 0xc7, 0x2b, VMCALL), VMX_EXIT_XSAVES);
		else
			assert_int_equal(GUEST(&m, 0x0f, 0xc7, 0x2b, VMCALL), VMX_EXIT_XSAVES);
		check_break(NULL);
		machine_close(&m);
	}
}

/* ---- MWAIT ---- */

static void mwait_goes_on(void **state)
{
	static const uint8_t code[] = {0x0f, 0x01, 0xc8, 0xff,  0xc1,
				       0x0f, 0x01, 0xc9, VMCALL}; /* monitor; inc ecx; mwait */
	struct machine m;

	(void)state;
	vmx_open(&m);
	m.cpu->reg[RAX] = GUEST_AT + 0x200;
	m.cpu->reg[RCX] = m.cpu->reg[RDX] = 0;
	assert_int_equal(vmx_run_for(&m, code, sizeof(code), 50), CPU_STOP_HALT);
	assert_true(m.cpu->msr.vmx_guest);
	machine_close(&m);
	vmx_open(&m);
	m.cpu->reg[RAX] = GUEST_AT + 0x200;
	m.cpu->reg[RCX] = m.cpu->reg[RDX] = 0;
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMCALL);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_MWAIT);
	m.cpu->reg[RAX] = GUEST_AT + 0x200;
	m.cpu->reg[RCX] = m.cpu->reg[RDX] = 0;
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_MWAIT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 1);
	assert_false(m.cpu->wait.armed);
	machine_close(&m);
}

/* ---- task switches: a guest in 32-bit protected mode, on a page of 4 MiB ---- */

static void protected_guest(struct machine *m)
{
	vmcs_clear(m, VMCS_ENTRY_CONTROLS, VMX_ENTRY_IA32E);
	vmcs_put(m, VMCS_GUEST_EFER, 0);
	vmcs_put(m, VMCS_GUEST_CR4, CR4_PSE | CR4_VMXE);
	vmcs_put(m, VMCS_GUEST_CR3, 0x120000);
	guest_put(m, 0x120000 + (MACHINE_BASE >> 22) * 4, MACHINE_BASE | 0x83, 4);
	vmcs_put(m, VMCS_GUEST_CS_RIGHTS, 0xc09b);
	guest_put(m, GDT_AT + 8, 0x00cf9b000000ffffull, 8);
	guest_put(m, GDT_AT + 32, 0x2000890000000067ull | ((GUEST_AT + 0x900) & 0xffffff) << 16,
		  8);                                              /* a TSS */
	guest_put(m, IDT_AT + 8 * 0x40, 0x0000850000200000ull, 8); /* a task gate */
	guest_put(m, IDT_AT + 8 * VECTOR_UD, 0x0000850000200000ull, 8);
}

static void task_switches_exit(void **state)
{
	static const struct {
		uint8_t code[8];
		uint32_t source, length, vectoring;
		uint64_t flags;
	} rows[] = {
		{{0xea, 0, 0, 0, 0, 0x20, 0}, 2, 7, 0, 0},   /* jmp */
		{{0x9a, 0, 0, 0, 0, 0x20, 0}, 0, 7, 0, 0},   /* call */
		{{0xcd, 0x40}, 3, 2, 0x80000440, 0},         /* int 40h */
		{{0x0f, 0x0b}, 3, 0, 0x80000306, RFLAGS_RF}, /* ud2 */
	};
	struct machine m;

	(void)state;
	vmx_open(&m);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		vmcs_baseline(&m);
		protected_guest(&m);
		assert_int_equal(vmx_run(&m, rows[i].code, sizeof(rows[i].code)), VMX_EXIT_TASK_SWITCH);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), rows[i].source << 30 | 0x20);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), rows[i].length);
		assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), rows[i].vectoring);
		assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
		assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), RFLAGS_FIXED | rows[i].flags);
	}
	/* a TSS that is not there faults before */
	vmcs_baseline(&m);
	protected_guest(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_NP);
	guest_put(&m, GDT_AT + 32 + 5, 0x09, 1);
	assert_int_equal(vmx_run(&m, rows[0].code, 8), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_ERROR), 0x20);
	machine_close(&m);
}

/* ---- SMIs (32.14): no exits; SMM is outside of VMX operation, and RSM comes back ---- */

static void smi_leaves_and_rsm_comes_back(void **state)
{
	/* smbase is 30000H, of which the machine has no code but RSM */
	static const uint8_t rsm[] = {0x0f, 0xaa}, code[] = {0x90, 0x90, VMCALL};
	struct machine m;

	(void)state;
	vmx_open(&m);
	machine_write(&m, 0x38000, rsm, sizeof(rsm));
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS);
	vmcs_put(&m, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	assert_int_equal(vmx_run_for(&m, code, sizeof(code), 2), CPU_STOP_BUDGET);
	assert_true(m.cpu->msr.vmx_guest);
	cpu_raise_smi(m.cpu);
	m.cpu->stop_at = m.cpu->retired + 1;
	assert_int_equal(cpu_run(m.cpu), CPU_STOP_BUDGET);
	m.cpu->stop_at = m.cpu->retired + 100;
	assert_int_equal(cpu_run(m.cpu), CPU_STOP_HALT);
	assert_int_equal(m.cpu->rip, HOST_AT + 1);
	assert_false(m.cpu->smm);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_REASON), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 2);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	assert_true(m.cpu->msr.vmx_on);
	/* what the save map says of CR4 and SS's privilege does not count, and VMXE in it is a shutdown */
	vmcs_baseline(&m);
	assert_int_equal(vmx_run_for(&m, code, sizeof(code), 2), CPU_STOP_BUDGET);
	smm_enter(m.cpu);
	assert_false(m.cpu->msr.vmx_on);
	assert_false(m.cpu->msr.vmx_guest);
	guest_put(&m, 0x3fe40, guest_get(&m, 0x3fe40, 8) | CR4_VMXE, 8);
	m.cpu->stop_at = m.cpu->retired + 10;
	assert_int_equal(cpu_run(m.cpu), CPU_STOP_SHUTDOWN);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tsc_has_offset_and_multiplier),
		cmocka_unit_test(user_waits),
		cmocka_unit_test(pause_loops_exit),
		cmocka_unit_test(ports_exit),
		cmocka_unit_test(xsaves_exits),
		cmocka_unit_test(mwait_goes_on),
		cmocka_unit_test(task_switches_exit),
		cmocka_unit_test(smi_leaves_and_rsm_comes_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
