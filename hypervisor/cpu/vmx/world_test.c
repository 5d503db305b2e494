/* world_test.c: VM entries and VM exits: what is loaded, saved and left alone. */
#include "cpu/vmx/vmx_test.h"

static void round_trip(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2, VMCALL), VMX_EXIT_CPUID);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 2);
	assert_true(vmcs_launched(m.cpu, VMCS_AT));
	assert_int_equal(m.cpu->reg[RSP], HOST_STACK);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT + 2);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 2);
	machine_close(&m);
}

/* ---- state ---- */

/* What the guest changes is in its area; the host has its own, its segments as 28.5.2 fixes them. */
static void guest_is_saved_and_host_loaded(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_put(&m, VMCS_HOST_FS_BASE, 0x1111000);
	vmcs_put(&m, VMCS_HOST_GS_BASE, 0x2222000);
	vmcs_put(&m, VMCS_HOST_TR_BASE, 0x3333000);
	vmcs_put(&m, VMCS_HOST_ES, 0);
	vmcs_put(&m, VMCS_HOST_SYSENTER_CS, 8);
	vmcs_put(&m, VMCS_HOST_SYSENTER_ESP, 0x4444);
	vmcs_put(&m, VMCS_GUEST_SYSENTER_ESP, 0x5555);
	vmcs_put(&m, VMCS_GUEST_FS_BASE, 0x6666);
	vmcs_put(&m, VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_CF | RFLAGS_DF);
	vmcs_put(&m, VMCS_GUEST_DR7, DR7_FIXED_1 | DR7_GE);
	m.cpu->cr0 |= CR0_CD;
	assert_int_equal(GUEST(&m, 0x50, VMCALL), VMX_EXIT_VMCALL); /* push rax */
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RSP), GUEST_STACK - 8);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), RFLAGS_FIXED | RFLAGS_CF | RFLAGS_DF);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_FS_BASE), 0x6666);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_SYSENTER_ESP), 0x5555);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_DR7), DR7_FIXED_1 | DR7_GE);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_CS_RIGHTS), 0xa09b);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_LDTR_RIGHTS) & VMX_RIGHTS_UNUSABLE, VMX_RIGHTS_UNUSABLE);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_CR0), CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_CD);
	assert_int_equal(m.cpu->cr0, CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_CD); /* CD is left alone */
	assert_int_equal(m.cpu->efer, EFER_LME | EFER_LMA);
	assert_int_equal(m.cpu->rflags & RFLAGS_DF, 0);
	assert_int_equal(m.cpu->dr7, DR7_FIXED_1);
	assert_int_equal(m.cpu->msr.sysenter_cs, 8);
	assert_int_equal(m.cpu->msr.sysenter_esp, 0x4444);
	assert_int_equal(m.cpu->segment[FS].s.base, 0x1111000);
	assert_int_equal(m.cpu->segment[GS].s.base, 0x2222000);
	assert_int_equal(m.cpu->tr.s.base, 0x3333000);
	assert_int_equal(m.cpu->tr.s.limit, 0x67);
	assert_int_equal(m.cpu->tr.s.attributes, 0x8b);
	assert_int_equal(m.cpu->segment[CS].s.attributes, 0xa09b);
	assert_int_equal(m.cpu->segment[CS].s.limit, 0xffffffff);
	assert_int_equal(m.cpu->segment[SS].s.attributes, 0xc093);
	assert_true(m.cpu->segment[ES].s.attributes & SEG_UNUSABLE);
	assert_true(m.cpu->ldtr.s.attributes & SEG_UNUSABLE);
	assert_int_equal(m.cpu->gdtr.limit, 0xffff);
	assert_int_equal(m.cpu->idtr.base, IDT_AT);
	machine_close(&m);
}

/* Fields whose control is 0 are neither saved nor loaded. */
static void controls_choose_state(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_clear(&m, VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_DEBUG | VMX_EXIT_SAVE_EFER | VMX_EXIT_LOAD_EFER);
	vmcs_clear(&m, VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_DEBUG);
	vmcs_put(&m, VMCS_GUEST_DR7, 0x7777);
	vmcs_put(&m, VMCS_GUEST_PAT, 0x0606060606060606ull);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_DR7), 0x7777);
	assert_int_equal(m.cpu->msr.pat, 0x0007040600070406ull);
	assert_int_equal(m.cpu->efer, EFER_LME | EFER_LMA | EFER_NXE); /* NXE is still the guest's */
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_PAT);
	vmcs_or(&m, VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_PAT | VMX_EXIT_SAVE_PAT);
	vmcs_put(&m, VMCS_GUEST_PAT, 0x0606060606060606ull);
	vmcs_put(&m, VMCS_HOST_PAT, 0x0404040404040404ull);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PAT), 0x0606060606060606ull);
	assert_int_equal(m.cpu->msr.pat, 0x0404040404040404ull);
	machine_close(&m);
}

/* ---- MSR lists ---- */

static void list_entry(struct machine *m, uint64_t list, unsigned i, uint64_t index, uint64_t value)
{
	guest_put(m, list + 16 * i, index, 8);
	guest_put(m, list + 16 * i + 8, value, 8);
}

static void msr_lists(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	m.cpu->msr.star = 1;
	list_entry(&m, ENTER_AT, 0, MSR_STAR, 2);
	list_entry(&m, STORE_AT, 0, MSR_STAR, 0);
	list_entry(&m, STORE_AT, 1, MSR_FS_BASE, 0);
	list_entry(&m, LOAD_AT, 0, MSR_STAR, 3);
	vmcs_put(&m, VMCS_GUEST_FS_BASE, 0x6666);
	vmcs_put(&m, VMCS_ENTRY_MSR_LOAD_COUNT, 1);
	vmcs_put(&m, VMCS_EXIT_MSR_STORE_COUNT, 2);
	vmcs_put(&m, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, STORE_AT + 8, 8), 2);
	assert_int_equal(guest_get(&m, STORE_AT + 24, 8), 0x6666);
	assert_int_equal(m.cpu->msr.star, 3);
	machine_close(&m);
}

static const uint64_t unloadable[] = {
	MSR_FS_BASE,        MSR_GS_BASE,           0x802,      MSR_SMM_MONITOR_CTL,
	MSR_BIOS_UPDT_TRIG, 1ull << 32 | MSR_STAR, 0x12345678,
};

/* The failing entry's number; nothing of the guest is saved, and it is not launched. */
static void entry_fails_at_msr(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	for (unsigned i = 0; i < sizeof(unloadable) / sizeof(unloadable[0]); i++) {
		vmcs_baseline(&m);
		list_entry(&m, ENTER_AT, 0, MSR_STAR, 2);
		list_entry(&m, ENTER_AT, 1, unloadable[i], 0);
		vmcs_put(&m, VMCS_ENTRY_MSR_LOAD_COUNT, 2);
		vmcs_put(&m, VMCS_EXIT_INTERRUPTION_INFO, 0x1234);
		vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000306);
		assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_ENTRY_MSR_LOADING | VMX_EXIT_ENTRY_FAILURE);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 2);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x1234);
		assert_int_equal(vmcs_get(&m, VMCS_ENTRY_INTERRUPTION_INFO), 0x80000306);
		assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
		assert_false(vmcs_launched(m.cpu, VMCS_AT));
	}
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_ENTRY_MSR_LOAD_COUNT, VMX_MSR_LIST_COUNT + 1);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_ENTRY_MACHINE_CHECK | VMX_EXIT_ENTRY_FAILURE);
	machine_close(&m);
}

static void entry_fails_on_guest_state(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	m.cpu->nmi_blocked = true;
	vmcs_put(&m, VMCS_GUEST_RFLAGS, 0);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), 0);
	assert_int_equal(m.cpu->reg[RSP], HOST_STACK);
	assert_true(m.cpu->nmi_blocked);
	assert_false(vmcs_launched(m.cpu, VMCS_AT));
	machine_close(&m);
}

/* ---- aborts (28.7) ---- */

static void expect_abort(struct machine *m, const uint8_t *code, size_t size, enum vmx_abort abort)
{
	assert_int_equal(vmx_run_for(m, code, size, 100), CPU_STOP_SHUTDOWN);
	assert_int_equal(guest_get(m, VMCS_AT + VMCS_ABORT_INDICATOR, 4), abort);
	assert_false(m->cpu->msr.vmx_guest);
}

static void exits_abort(void **state)
{
	static const uint8_t vmcall[] = {VMCALL};
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < sizeof(unloadable) / sizeof(unloadable[0]); i++) {
		bool stores = unloadable[i] != MSR_FS_BASE && unloadable[i] != MSR_GS_BASE &&
			      unloadable[i] != MSR_BIOS_UPDT_TRIG;

		vmx_open(&m);
		list_entry(&m, LOAD_AT, 0, unloadable[i], 0);
		vmcs_put(&m, VMCS_EXIT_MSR_LOAD_COUNT, 1);
		expect_abort(&m, vmcall, sizeof(vmcall), VMX_ABORT_LOADING_MSRS);
		machine_close(&m);
		vmx_open(&m);
		list_entry(&m, STORE_AT, 0, unloadable[i], 0);
		vmcs_put(&m, VMCS_EXIT_MSR_STORE_COUNT, 1);
		if (stores)
			expect_abort(&m, vmcall, sizeof(vmcall), VMX_ABORT_SAVING_MSRS);
		machine_close(&m);
	}
	vmx_open(&m);
	vmcs_put(&m, VMCS_EXIT_MSR_STORE_COUNT, VMX_MSR_LIST_COUNT + 1);
	expect_abort(&m, vmcall, sizeof(vmcall), VMX_ABORT_MACHINE_CHECK);
	machine_close(&m);
}

/* ---- a guest can be saved and loaded between any two of its instructions ---- */

/* The latches that struct vcpu_state has no field for go along, as an engine has them. */
static void save_and_load(struct machine *m)
{
	uint64_t pending = m->cpu->dr6_pending;
	bool line = m->cpu->interrupt_line;
	struct vcpu_state state = {0};

	cpu_save(m->cpu, &state);
	memset(&m->cpu->msr, 0xa5, sizeof(m->cpu->msr));
	memset(m->cpu->reg, 0xa5, sizeof(m->cpu->reg[0]) * GPR_COUNT);
	m->cpu->nmi_unblocked = false;
	cpu_load(m->cpu, &state);
	m->cpu->dr6_pending = pending;
	cpu_set_interrupt_line(m->cpu, line);
}

/* A host with a guest that meets windows, traps, MTF, faults and a timer; @steps: one instruction a run. */
static void nested_program(struct machine *m, bool steps, uint8_t *memory)
{
	static const uint8_t guest[] = {0xfb, /* sti */
					0x8e,  0x15, 0xf9,
					0x00,  0x00, 0x00, /* mov ss, [GUEST_AT + 100h], watched */
					0x0f,  0x31,       /* rdtsc, with an offset */
					0x0f,  0x20, 0xc3, /* mov rbx, cr0, by the shadow */
					0xf3,  0xaa,       /* rep stosb */
					0x0f,  0x0b,       /* ud2, delivered */
					VMCALL};
	/* iretq behind the UD2; the host enters until it has seen 60 exits, advancing over VMCALL by nothing
	 */
	static const uint8_t handler[] = {0x48, 0x83, 0x04, 0x24, 0x02, 0x48, 0xcf};
	static const uint8_t launch[] = {0x0f, 0x01, 0xc2, 0xf4},
			     host[] = {0xff, 0xcd, 0x74, 0x03, 0x0f, 0x01, 0xc3, 0xf4};
	uint64_t end;

	vmx_open(m);
	machine_write(m, CODE_AT, launch, sizeof(launch));
	machine_write(m, HOST_AT, host, sizeof(host)); /* dec ebp; jz hlt; vmresume */
	machine_write(m, GUEST_AT, guest, sizeof(guest));
	machine_write(m, HANDLER_AT, handler, sizeof(handler));
	guest_put(m, GUEST_AT + 0x100, 16, 2);
	vmcs_or(m, VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER | VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS);
	vmcs_or(m, VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG | VMX_USE_TSC_OFFSETTING | VMX_NMI_WINDOW);
	vmcs_put(m, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	vmcs_or(m, VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER);
	vmcs_put(m, VMCS_PREEMPTION_TIMER, 8);
	vmcs_put(m, VMCS_TSC_OFFSET, 0x123456789);
	vmcs_put(m, VMCS_CR0_MASK, CR0_TS);
	vmcs_put(m, VMCS_CR0_SHADOW, CR0_TS);
	vmcs_put(m, VMCS_GUEST_DR7, DR7_FIXED_1 | DR7_G(1) | 3u << DR7_RW_SHIFT(1) | 1u << DR7_LEN_SHIFT(1));
	m->cpu->dr[1] = GUEST_AT + 0x100;
	m->cpu->reg[RBP] = 60;
	m->cpu->reg[RCX] = 5;
	m->cpu->reg[RDI] = GUEST_AT + 0x200;
	m->cpu->rip = CODE_AT;
	for (end = m->cpu->retired + 600; m->cpu->retired < end && m->cpu->activity == ACTIVITY_ACTIVE;) {
		m->cpu->stop_at = steps ? m->cpu->retired + 1 : end;
		m->cpu->event_at = m->cpu->stop_at;
		assert_int_not_equal(cpu_run(m->cpu), CPU_STOP_UNMODELLED);
		if (steps)
			save_and_load(m);
	}
	memcpy(memory, m->ram, MACHINE_SIZE);
}

static void state_is_whole(void **state)
{
	static uint8_t memory[2][MACHINE_SIZE];
	static struct vcpu_state last[2];
	struct machine m;

	(void)state;
	for (unsigned steps = 0; steps < 2; steps++) {
		nested_program(&m, steps, memory[steps]);
		cpu_save(m.cpu, &last[steps]);
		assert_int_equal(m.cpu->reg[RBP] & 0xffffffff, 0); /* sixty exits */
		machine_close(&m);
	}
	assert_memory_equal(memory[0], memory[1], MACHINE_SIZE);
	assert_memory_equal(&last[0], &last[1], sizeof(last[0]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(guest_is_saved_and_host_loaded),
		cmocka_unit_test(controls_choose_state),
		cmocka_unit_test(msr_lists),
		cmocka_unit_test(entry_fails_at_msr),
		cmocka_unit_test(entry_fails_on_guest_state),
		cmocka_unit_test(exits_abort),
		cmocka_unit_test(state_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
