/* world_test.c: VMRUN's checks, what it loads and #VMEXIT saves, VMLOAD and VMSAVE, snapshots of a guest. */
#include "cpu/svm/svm_test.h"

static void guest_runs_and_exits(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->reg[RBX] = 5;
	/* inc rbx; mov eax, 7; vmmcall */
	assert_int_equal(GUEST(&m, 0x48, 0xff, 0xc3, 0xb8, 7, 0, 0, 0, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->reg[RBX], 6); /* not switched */
	assert_int_equal(m.cpu->reg[RAX], VMCB_AT);
	assert_int_equal(vmcb_get(&m, VMCB_RAX, 8), 7);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT + 8);
	assert_int_equal(vmcb_get(&m, VMCB_NRIP, 8), GUEST_AT + 11);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), 0);
	machine_close(&m);
}

static char notes[256];

static void take_note(void *owner, struct cpu *cpu, const char *text)
{
	(void)owner;
	(void)cpu;
	strncat(notes, text, sizeof(notes) - strlen(notes) - 2);
	strcat(notes, ";");
}

/* What --trace says of a round, of a member of a range, and of a VMRUN that is refused. */
static void rounds_are_noted(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->bus.trace_note = take_note;
	m.cpu->tracing = true;
	cpu_step_changed(m.cpu);
	vmcb_intercept(&m, SVM_EXIT_CR0_READ + 3);
	GUEST(&m, 0x0f, 0x20, 0xda, VMMCALL); /* mov rdx, cr3 */
	vmcb_put(&m, VMCB_ASID, 0, 4);
	GUEST(&m, VMMCALL);
	assert_string_equal(notes, "VMRUN 0x100000, ASID 1;#VMEXIT CR0_READ (0x3) 0x8000000000000002 0;"
				   "VMRUN 0x100000, ASID 0;#VMEXIT INVALID (0xffffffff) 0 0;");
	machine_close(&m);
}

/* One mutation of the baseline that VMRUN refuses, unless the check is broken. */
struct mutation {
	const char *check;
	unsigned offset;
	uint64_t clear, set;
	unsigned width;
};

#define LONG_MODE (EFER_LME | EFER_LMA)
static const struct mutation mutations[] = {
	{"VMRUN_SVME", VMCB_EFER, EFER_SVME, 0, 8},
	{"VMRUN_CR0_NW", VMCB_CR0, CR0_CD, CR0_NW, 8},
	{"VMRUN_CR0_UPPER", VMCB_CR0, 0, 1ull << 40, 8},
	{"VMRUN_CR3", VMCB_CR3, 0, 1ull << 60, 8},
	{"VMRUN_CR4", VMCB_CR4, 0, 1ull << 30, 8},
	{"VMRUN_DR6", VMCB_DR6, 0, 1ull << 33, 8},
	{"VMRUN_DR7", VMCB_DR7, 0, 1ull << 33, 8},
	{"VMRUN_EFER", VMCB_EFER, 0, 1ull << 2, 8},
	{"VMRUN_LONG_PAE", VMCB_CR4, CR4_PAE, 0, 8},
	{"VMRUN_LONG_PE", VMCB_CR0, CR0_PE, 0, 8},
	{"VMRUN_LONG_CS", VMCB_CS + 2, 0, 0x400, 2},
	{"VMRUN_INTERCEPT", VMCB_INTERCEPTS(4), 1, 0, 4},
	{"VMRUN_ASID", VMCB_ASID, 1, 0, 4},
	{"VMRUN_IOPM", VMCB_IOPM_BASE, 0, 0xffffffffe000ull, 8},
	{"VMRUN_IOPM", VMCB_IOPM_BASE, 0, 1ull << 50, 8},
	{"VMRUN_MSRPM", VMCB_MSRPM_BASE, 0, 0xfffffffff000ull, 8},
	{"VMRUN_VNMI", VMCB_INTERRUPT, 0, SVM_V_NMI_ENABLE, 8},
	{"VMRUN_NCR3", VMCB_NCR3, 0, 1ull << 60, 8},
	{"VMRUN_G_PAT", VMCB_G_PAT, 0xff, 2, 8},
	{"VMRUN_G_PAT", VMCB_G_PAT, 0, 8ull << 56, 8},
	{"VMRUN_EVENTINJ", VMCB_EVENTINJ, 0, SVM_EVENT_VALID | 1u << 8, 8},
	{"VMRUN_EVENTINJ", VMCB_EVENTINJ, 0, SVM_EVENT_VALID | 7u << 8, 8},
	{"INJECT_VECTOR", VMCB_EVENTINJ, 0, SVM_EVENT_VALID | 3u << 8 | 2, 8},
	{"INJECT_VECTOR", VMCB_EVENTINJ, 0, SVM_EVENT_VALID | 3u << 8 | 32, 8},
	{"INJECT_MODE", VMCB_EVENTINJ, 0, SVM_EVENT_VALID | 3u << 8 | VECTOR_BR, 8},
};

static int64_t run_mutated(struct machine *m, const struct mutation *mutation)
{
	struct vcpu_state host;
	int64_t code;

	vmcb_baseline(m);
	nested_tables(m);
	if (mutation)
		vmcb_put(m, mutation->offset,
			 (vmcb_get(m, mutation->offset, mutation->width) & ~mutation->clear) | mutation->set,
			 mutation->width);
	cpu_save(m->cpu, &host);
	svm_run_for(m, (const uint8_t[]){VMMCALL}, 3, 50);
	code = (int64_t)vmcb_get(m, VMCB_EXITCODE, 8);
	cpu_load(m->cpu, &host);
	return code;
}

static void illegal_state_is_refused(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	for (size_t i = 0; i < sizeof(mutations) / sizeof(mutations[0]); i++) {
		const struct mutation *mutation = &mutations[i];

		assert_int_equal(run_mutated(&m, NULL), SVM_EXIT_VMMCALL);
		if (run_mutated(&m, mutation) != SVM_EXIT_INVALID)
			fail_msg("%s (%zu) was not refused", mutation->check, i);
		assert_true(check_break(mutation->check));
		if (run_mutated(&m, mutation) == SVM_EXIT_INVALID)
			fail_msg("with %s broken it is still refused", mutation->check);
		check_break(NULL);
	}
	machine_close(&m);
}

/* A refused VMRUN leaves all but the reason as it was, and the host as after any exit. */
static void refusal_writes_the_reason_alone(void **state)
{
	uint8_t before[VMCB_SIZE], after[VMCB_SIZE];
	struct machine m;

	(void)state;
	svm_open(&m);
	vmcb_put(&m, VMCB_ASID, 0, 4);
	assert_true(phys_read(m.memory, VMCB_AT, before, sizeof(before)));
	assert_int_equal(GUEST(&m, VMMCALL), SVM_EXIT_INVALID);
	assert_true(phys_read(m.memory, VMCB_AT, after, sizeof(after)));
	assert_memory_equal(before + 0xe0, after + 0xe0, VMCB_SIZE - 0xe0);
	assert_memory_equal(before, after, VMCB_EXITCODE);
	machine_close(&m);
}

/* What is not a control register of a valid guest: bad nested mode, and PDPTEs without nested paging. */
static void host_without_paging_has_no_nested_paging(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	machine_mode(&m, CODE_32);
	m.cpu->efer = EFER_SVME;
	cpu_mode_changed(m.cpu);
	nested_tables(&m);
	assert_int_equal(GUEST(&m, VMMCALL), SVM_EXIT_INVALID);
	vmcb_put(&m, VMCB_NESTED, 0, 8);
	assert_int_equal(GUEST(&m, VMMCALL), SVM_EXIT_VMMCALL);
	machine_close(&m);
}

static void operand_is_checked(void **state)
{
	static const struct {
		const char *check;
		uint64_t rax;
	} rows[] = {{"SVM_VMCB_ALIGNED", VMCB_AT + 8}, {"SVM_VMCB_WIDTH", VMCB_AT | 1ull << 50}};
	static const uint8_t insns[] = {0xd8, 0xda, 0xdb};
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->tracing = true;
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 0; k < 3; k++) {
			uint8_t code[] = {0x0f, 0x01, insns[k]};

			m.cpu->reg[RAX] = rows[i].rax;
			machine_run(&m, code, sizeof(code), 1);
			assert_int_equal(m.vector, VECTOR_GP);
			machine_mode(&m, CODE_64);
			m.cpu->efer |= EFER_SVME;
		}
	}
	/* Without EFER.SVME. */
	m.cpu->efer &= ~(uint64_t)EFER_SVME;
	for (unsigned k = 0xd8; k <= 0xdf; k++) {
		uint8_t code[] = {0x0f, 0x01, (uint8_t)k};

		machine_run(&m, code, sizeof(code), 1);
		assert_int_equal(m.vector, VECTOR_UD);
		machine_mode(&m, CODE_64);
	}
	machine_close(&m);
}

static void vmload_and_vmsave_carry_the_rest(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->segment[FS].s.base = 0x123456789000;
	m.cpu->msr.kernel_gs_base = 0xffff800000001000ull;
	m.cpu->msr.star = 0x1122334455667788ull;
	m.cpu->msr.sysenter_eip = 0x1234;
	m.cpu->tr.s = (struct segment){.selector = 0x40, .base = 0x7000, .limit = 0x67, .attributes = 0x8b};
	m.cpu->reg[RAX] = VMCB_AT;
	machine_run(&m, (const uint8_t[]){0x0f, 0x01, 0xdb}, 3, 1);
	assert_int_equal(vmcb_get(&m, VMCB_FS + 8, 8), 0x123456789000);
	assert_int_equal(vmcb_get(&m, VMCB_KERNEL_GS, 8), 0xffff800000001000ull);
	assert_int_equal(vmcb_get(&m, VMCB_TR, 2), 0x40);
	assert_int_equal(vmcb_get(&m, VMCB_TR + 2, 2), 0x8b);
	vmcb_put(&m, VMCB_FS + 8, 1ull << 56, 8); /* not canonical: sign-extended */
	vmcb_put(&m, VMCB_STAR, 42, 8);
	vmcb_put(&m, VMCB_TR + 4, 0x100, 4);
	machine_run(&m, (const uint8_t[]){0x0f, 0x01, 0xda}, 3, 1);
	assert_int_equal(m.cpu->segment[FS].s.base, 0xff00000000000000ull);
	assert_int_equal(m.cpu->msr.star, 42);
	assert_int_equal(m.cpu->tr.s.limit, 0x100);
	assert_int_equal(m.cpu->msr.sysenter_eip, 0x1234);
	machine_close(&m);
}

/* The guest's own CR2, DR6 and DR7 are loaded and saved; the host's breakpoints are off behind the exit. */
static void debug_registers_and_cr2(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->dr7 = DR7_FIXED_1 | DR7_L(0);
	m.cpu->cr2 = 1;
	vmcb_put(&m, VMCB_CR2, 0x5000, 8);
	vmcb_put(&m, VMCB_DR7, DR7_FIXED_1 | DR7_GE, 8);
	/* mov rbx, cr2; mov rcx, dr7; mov cr2, rcx; vmmcall */
	assert_int_equal(GUEST(&m, 0x0f, 0x20, 0xd3, 0x0f, 0x21, 0xf9, 0x0f, 0x22, 0xd1, VMMCALL),
			 SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->reg[RBX], 0x5000);
	assert_int_equal(m.cpu->reg[RCX], DR7_FIXED_1 | DR7_GE);
	assert_int_equal(vmcb_get(&m, VMCB_CR2, 8), DR7_FIXED_1 | DR7_GE);
	assert_int_equal(m.cpu->dr7, DR7_FIXED_1);
	assert_int_equal(m.cpu->cr2, DR7_FIXED_1 | DR7_GE); /* not the host's (15.5.1) */
	machine_close(&m);
}

/* A host's state that is not consistent shuts it down (15.6). */
static void bad_host_state_shuts_down(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	/* The guest writes the host's save area: mov rbx, imm; mov [rbx], rax; vmmcall */
	assert_int_equal(svm_run_for(&m,
				     (const uint8_t[]){0x48, 0xc7, 0xc3, 0x58, 0x15, 0x10, 0x20, 0x48, 0xc7,
						       0x03, 0, 0, 0, 0x20, VMMCALL},
				     17, 200),
			 CPU_STOP_SHUTDOWN);
	machine_close(&m);
}

/* A TF that was set in front of VMRUN traps behind the exit, not in the guest (15.5.1). */
static void host_single_step_is_behind_the_exit(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->idtr = (struct table_register){.base = IDT_AT, .limit = 0xfff};
	m.cpu->gdtr = (struct table_register){.base = GDT_AT, .limit = 0xff};
	m.cpu->reg[RSP] = STACK_AT;
	m.cpu->tracing = true;
	m.cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m.cpu);
	svm_run_for(&m, (const uint8_t[]){VMMCALL}, 3, 3); /* VMRUN, exit, #DB */
	assert_int_equal(m.vector, VECTOR_DB);
	assert_int_equal(m.event_rip, CODE_AT + 3);
	machine_close(&m);
}

/* VM_CR.SVMDIS keeps EFER.SVME at 0, LOCK keeps SVMDIS, and the key opens the lock (15.4, 15.30.1, 15.31). */
static void switched_off_and_locked(void **state)
{
	struct machine m;
	uint64_t value;

	(void)state;
	svm_open(&m);
	assert_false(msr_write(m.cpu, MSR_VM_CR, VM_CR_SVMDIS)); /* while EFER.SVME = 1 */
	assert_true(msr_write(m.cpu, MSR_EFER, m.cpu->efer & ~(uint64_t)EFER_SVME));
	assert_true(msr_write(m.cpu, MSR_SVM_KEY, 0x1234));
	assert_true(msr_write(m.cpu, MSR_VM_CR, VM_CR_SVMDIS | VM_CR_LOCK));
	assert_false(msr_write(m.cpu, MSR_EFER, m.cpu->efer | EFER_SVME));
	assert_true(msr_write(m.cpu, MSR_VM_CR, 0));
	assert_int_equal(m.cpu->msr.vm_cr, VM_CR_SVMDIS | VM_CR_LOCK);
	assert_true(msr_write(m.cpu, MSR_SVM_KEY, 0x1235));
	assert_true(m.cpu->msr.vm_cr & VM_CR_LOCK);
	assert_true(msr_read(m.cpu, MSR_SVM_KEY, &value));
	assert_int_equal(value, 0);
	assert_true(msr_write(m.cpu, MSR_SVM_KEY, 0x1234));
	assert_true(msr_write(m.cpu, MSR_VM_CR, 0));
	assert_true(msr_write(m.cpu, MSR_EFER, m.cpu->efer | EFER_SVME));
	machine_close(&m);
}

/* INVLPGA: a translation that changed below the host's own feet. */
static void invlpga_drops_a_translation(void **state)
{
	uint64_t pde = TABLES_AT + 0x2000 + ((MACHINE_BASE >> 21) + 1) * 8, linear = MACHINE_BASE + 0x200000;
	/* mov rbx, [rcx]; then INVLPGA of it */
	static const uint8_t load[] = {0x48, 0x8b, 0x19}, invlpga[] = {0x0f, 0x01, 0xdf};
	struct machine m;

	(void)state;
	svm_open(&m);
	guest_put(&m, pde, MACHINE_BASE | 0x83, 8);
	guest_put(&m, DATA_AT, 1, 8);
	guest_put(&m, DATA_AT - 0x8000, 2, 8);
	m.cpu->reg[RCX] = linear + (DATA_AT - MACHINE_BASE);
	machine_run(&m, load, sizeof(load), 1);
	assert_int_equal(m.cpu->reg[RBX], 1);
	/* The same physical memory by 4 KiB pages that lie elsewhere. */
	guest_put(&m, pde, (NPT_AT + 0x9000) | 3, 8);
	for (unsigned i = 0; i < 512; i++)
		guest_put(&m, NPT_AT + 0x9000 + 8 * i, (DATA_AT - 0x8000) | 3, 8);
	machine_run(&m, load, sizeof(load), 1);
	assert_int_equal(m.cpu->reg[RBX], 1);
	m.cpu->reg[RAX] = m.cpu->reg[RCX];
	m.cpu->reg[RCX] = 0;
	machine_run(&m, invlpga, sizeof(invlpga), 1);
	m.cpu->reg[RCX] = m.cpu->reg[RAX];
	machine_run(&m, load, sizeof(load), 1);
	assert_int_equal(m.cpu->reg[RBX], 2);
	machine_close(&m);
}

/* ---- SKINIT ---- */

/* A loader at its 64 KiB, begun in flat protected mode with GIF = 0 (15.27); without EFER.SVME, which it needs not. */
static void skinit_starts_a_loader(void **state)
{
	static const uint8_t code[] = {0x0f, 0x01, 0xde, 0x90}, stgi[] = {0x0f, 0x01, 0xdc};
	const uint32_t loader = MACHINE_BASE + 0x80000;
	struct machine m;

	(void)state;
	machine_open(&m, "amd,+skinit");
	guest_put(&m, loader, 0x12 | 0x100 << 16, 4);
	guest_put(&m, loader + 0x12, 0xf4, 1);
	m.cpu->reg[RAX] = loader | 0xffff00001234ull;
	m.cpu->reg[RBX] = 5;
	assert_int_equal(machine_run(&m, code, sizeof(code), 5), CPU_STOP_HALT);
	assert_int_equal(m.cpu->rip, loader + 0x13);
	assert_int_equal(m.cpu->reg[RAX], loader);
	assert_int_equal(m.cpu->reg[RSP], loader + 0x10000);
	assert_int_equal(m.cpu->reg[RBX], 0);
	assert_int_equal(m.cpu->reg[RDX], m.profile.signature);
	assert_int_equal(m.cpu->cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(m.cpu->efer, 0);
	assert_int_equal(m.cpu->segment[CS].s.selector, 8);
	assert_int_equal(m.cpu->segment[SS].s.selector, 16);
	assert_int_equal(m.cpu->segment[SS].s.limit, 0xffffffff);
	assert_int_equal(m.cpu->msr.vm_cr, VM_CR_DPD | VM_CR_R_INIT | VM_CR_DIS_A20M);
	assert_true(m.cpu->msr.svm_gif_clear);
	machine_run(&m, stgi, sizeof(stgi), 1); /* EFER.SVME = 0 */
	assert_int_equal(m.vector, NO_EVENT);
	assert_false(m.cpu->msr.svm_gif_clear);
	machine_close(&m);
	machine_open(&m, "amd");
	machine_run(&m, code, sizeof(code), 1);
	assert_int_equal(m.vector, VECTOR_UD);
	machine_close(&m);
}

/* ---- snapshots ---- */

/* A guest with shadow, virtual interrupt, faults, and exits; each instruction with a save and load in front.
 */
static const uint8_t story[] = {
	0xfb,             /* sti */
	0x90,             /* nop, in its shadow: then the virtual interrupt, which exits at its handler */
	0x48, 0xff, 0xc3, /* inc rbx */
	0x0f, 0x31,       /* rdtsc */
	0x0f, 0x20, 0xc1, /* mov rcx, cr0 */
	0x0f, 0x01, 0xd9,
};

static void story_run(struct machine *m, bool stepped, struct vcpu_state *end, uint8_t vmcb[VMCB_SIZE])
{
	static const uint8_t host[] = {0x0f, 0x01, 0xd8, 0x0f, 0x01, 0xd8, 0xf4};
	struct vcpu_state between;
	enum cpu_stop stop;

	svm_open(m);
	nested_tables(m);
	machine_write(m, GUEST_AT, story, sizeof(story));
	vmcb_put(m, VMCB_INTERRUPT, SVM_V_IRQ | 3u << 16 | 0x77ull << 32, 8);
	vmcb_put(m, VMCB_EVENTINJ, SVM_EVENT_VALID | 3u << 8 | VECTOR_GP | SVM_EVENT_ERROR_VALID | 5ull << 32,
		 8);
	machine_write(m, HANDLER_AT, (const uint8_t[]){0x48, 0xff, 0xc5, 0x48, 0x83, 0xc4, 8, 0x48, 0xcf}, 9);
	/* Vector 77h has no error code: its own handler. */
	guest_put(m, IDT_AT + 16 * 0x77,
		  (HANDLER_AT + 0x40) % 0x10000 | 8u << 16 | 0x8e00ull << 32 |
			  ((HANDLER_AT + 0x40) & 0xffff0000) << 32,
		  8);
	machine_write(m, HANDLER_AT + 0x40, (const uint8_t[]){0x49, 0xff, 0xc0, 0x48, 0xcf}, 5);
	machine_write(m, CODE_AT, host, sizeof(host));
	m->cpu->reg[RAX] = VMCB_AT;
	m->cpu->rip = CODE_AT;
	for (unsigned i = 0; i < 200; i++) {
		m->cpu->stop_at = m->cpu->event_at = m->cpu->retired + (stepped ? 1 : 200);
		stop = cpu_run(m->cpu);
		if (stop != CPU_STOP_BUDGET)
			break;
		cpu_save(m->cpu, &between);
		cpu_reset(m->cpu, false);
		cpu_load(m->cpu, &between);
	}
	assert_int_equal(stop, CPU_STOP_HALT);
	cpu_save(m->cpu, end);
	assert_true(phys_read(m->memory, VMCB_AT, vmcb, VMCB_SIZE));
	machine_close(m);
}

static void snapshots_between_instructions_change_nothing(void **state)
{
	static struct vcpu_state whole, stepped;
	static uint8_t vmcb[2][VMCB_SIZE];
	struct machine m;

	(void)state;
	story_run(&m, false, &whole, vmcb[0]);
	story_run(&m, true, &stepped, vmcb[1]);
	assert_int_equal(whole.gpr[RBP], 1);
	assert_int_equal(whole.gpr[R8], 1);
	assert_memory_equal(vmcb[0], vmcb[1], VMCB_SIZE);
	assert_memory_equal(&whole, &stepped, sizeof(whole));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(guest_runs_and_exits),
		cmocka_unit_test(rounds_are_noted),
		cmocka_unit_test(illegal_state_is_refused),
		cmocka_unit_test(refusal_writes_the_reason_alone),
		cmocka_unit_test(host_without_paging_has_no_nested_paging),
		cmocka_unit_test(operand_is_checked),
		cmocka_unit_test(vmload_and_vmsave_carry_the_rest),
		cmocka_unit_test(debug_registers_and_cr2),
		cmocka_unit_test(bad_host_state_shuts_down),
		cmocka_unit_test(host_single_step_is_behind_the_exit),
		cmocka_unit_test(switched_off_and_locked),
		cmocka_unit_test(invlpga_drops_a_translation),
		cmocka_unit_test(skinit_starts_a_loader),
		cmocka_unit_test(snapshots_between_instructions_change_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
