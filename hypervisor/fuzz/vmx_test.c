/*
 * A random hypervisor of VT-x and a random guest of it: VMX instructions with operands that point at regions,
 * at each other and out of memory, any combination of the controls that the processor allows, structures that
 * overlap with one another, with VMCSs and with code, guests in every mode with random code. Whatever comes
 * of it, a round ends by a stop with a name, which is not that something is not modelled; and a vCPU saved
 * and loaded in its midst is the same.
 */
#include "cpu/vmx/vmx_test.h"

#include "fuzz/blank.h"
#include "fuzz/fuzz.h"
#include "x86/paging.h"

#define VMCS2_AT 0x108000ull
#define OWN_AT   0x110000ull /* pages for what controls point at, 16 of them */
#define EPT_AT   0x118000ull
#define REGIONS  6u

static const uint64_t regions[REGIONS] = {VMCS_AT, VMCS2_AT, VMXON_AT, OWN_AT, EPT_AT, MSR_MAP_AT};

static const uint16_t fields[] = {
#define VMCS_FIELD(encoding, name) (encoding),
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* What has no model, and says so by name: nothing of VT-x. */
static const char *const without_model[] = {
	"performance-monitoring event",
	"IA32_MONITOR_FILTER_SIZE", /* other than it is */
	"IA32_MISC_ENABLE[34] set while EFER.NXE = 1",
	"an x87 exception with CR0.NE = 0 (FERR#)",
	"instruction at", /* bytes that no manual documents, as DF C0 to DF CF */
};

/* ---- the rest of a bus that answers anything ---- */

static int acknowledge(void *owner)
{
	struct machine *m = owner;

	cpu_set_interrupt_line(m->cpu, false);
	return 0x41;
}

static bool msr_answers(void *owner, uint32_t index, uint64_t *value)
{
	(void)owner;
	*value = 0;
	return index & 1;
}

static bool msr_takes(void *owner, uint32_t index, uint64_t value)
{
	(void)owner;
	(void)value;
	return index & 1;
}

/* ---- numbers ---- */

static uint64_t any_number(struct fuzz *fuzz)
{
	uint64_t value = fuzz_next(fuzz);

	switch (fuzz_below(fuzz, 5)) {
	case 0: return value >> fuzz_below(fuzz, 64);
	case 1: return 1ull << (value & 63);
	case 2: return 0 - (value & 3);
	case 3: return fields[value % FIELDS];
	default: return value;
	}
}

/* A physical address, mostly of a page that something else is in as well. */
static uint64_t any_page(struct fuzz *fuzz)
{
	switch (fuzz_below(fuzz, 8)) {
	case 0: return regions[fuzz_below(fuzz, REGIONS)];
	case 1: return fuzz_next(fuzz) & 0x3ffffffff000ull;
	case 2: return MACHINE_BASE + (fuzz_next(fuzz) & 0x1ff000);
	case 3: return any_number(fuzz);
	default: return OWN_AT + 0x1000 * fuzz_below(fuzz, 8);
	}
}

/* ---- the VMCS ---- */

static const enum vmcs_field controls[] = {[VMX_CONTROLS_PIN] = VMCS_PIN_CONTROLS,
					   [VMX_CONTROLS_PRIMARY] = VMCS_PRIMARY_CONTROLS,
					   [VMX_CONTROLS_SECONDARY] = VMCS_SECONDARY_CONTROLS,
					   [VMX_CONTROLS_EXIT] = VMCS_EXIT_CONTROLS,
					   [VMX_CONTROLS_ENTRY] = VMCS_ENTRY_CONTROLS};

static void any_controls(struct machine *m, struct fuzz *fuzz)
{
	unsigned density = fuzz_below(fuzz, 4);

	for (unsigned i = 0; i <= VMX_CONTROLS_ENTRY; i++) {
		uint64_t bits = fuzz_next(fuzz);

		if (density == 0)
			bits &= fuzz_next(fuzz) & fuzz_next(fuzz);
		else if (density == 3)
			bits |= fuzz_next(fuzz);
		vmcs_or(m, controls[i], bits & vmx_may_be_1(m->cpu, (enum vmx_controls)i));
	}
}

/* What they demand of each other (26.2.1), so that most combinations can be entered. */
static void make_consistent(struct machine *m)
{
	uint64_t secondary = vmcs_get(m, VMCS_SECONDARY_CONTROLS);

	if (!(vmcs_get(m, VMCS_PRIMARY_CONTROLS) & VMX_ACTIVATE_SECONDARY))
		secondary = 0;
	if (secondary & (VMX2_VIRTUALIZE_X2APIC | VMX2_APIC_REGISTERS | VMX2_VIRTUAL_INTERRUPTS))
		vmcs_or(m, VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	if (secondary & VMX2_VIRTUALIZE_X2APIC)
		vmcs_clear(m, VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC);
	if (secondary & VMX2_VIRTUAL_INTERRUPTS)
		vmcs_or(m, VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	else
		vmcs_clear(m, VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS);
	if (vmcs_get(m, VMCS_PIN_CONTROLS) & VMX_PIN_POSTED_INTERRUPTS)
		vmcs_or(m, VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	if (vmcs_get(m, VMCS_PIN_CONTROLS) & VMX_PIN_VIRTUAL_NMIS)
		vmcs_or(m, VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	else
		vmcs_clear(m, VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	if (!(vmcs_get(m, VMCS_PIN_CONTROLS) & VMX_PIN_PREEMPTION_TIMER))
		vmcs_clear(m, VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER);
	if (secondary & (VMX2_UNRESTRICTED_GUEST | VMX2_PML | VMX2_MODE_BASED_EXECUTE))
		vmcs_or(m, VMCS_SECONDARY_CONTROLS, VMX2_EPT);
	vmcs_or(m, VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64);
	vmcs_put(m, VMCS_TPR_THRESHOLD, 0);
}

static void any_pointers(struct machine *m, struct fuzz *fuzz)
{
	static const enum vmcs_field pages[] = {VMCS_IO_BITMAP_A,    VMCS_IO_BITMAP_B,
						VMCS_MSR_BITMAP,     VMCS_VIRTUAL_APIC,
						VMCS_APIC_ACCESS,    VMCS_VMREAD_BITMAP,
						VMCS_VMWRITE_BITMAP, VMCS_PML_ADDRESS,
						VMCS_VE_INFORMATION, VMCS_EPTP_LIST,
						VMCS_EXIT_MSR_STORE, VMCS_EXIT_MSR_LOAD,
						VMCS_ENTRY_MSR_LOAD, VMCS_POSTED_INTERRUPT_DESCRIPTOR};

	for (unsigned i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
		vmcs_put(m, pages[i], any_page(fuzz) & (fuzz_one_in(fuzz, 32) ? ~0ull : 0x3ffffffff000ull));
	vmcs_put(m, VMCS_EPTP,
		 (fuzz_one_in(fuzz, 16) ? any_page(fuzz) : EPT_AT) | 0x1e | (fuzz_next(fuzz) & 0x40));
	if (fuzz_one_in(fuzz, 4)) {
		vmcs_put(m, VMCS_EXIT_MSR_STORE_COUNT, fuzz_below(fuzz, 4));
		vmcs_put(m, VMCS_EXIT_MSR_LOAD_COUNT, fuzz_below(fuzz, 4));
		vmcs_put(m, VMCS_ENTRY_MSR_LOAD_COUNT, fuzz_below(fuzz, 4));
	}
	vmcs_put(m, VMCS_VPID, 1 + fuzz_below(fuzz, 3));
	vmcs_put(m, VMCS_VM_FUNCTIONS, fuzz_below(fuzz, 2));
	vmcs_put(m, VMCS_PREEMPTION_TIMER, fuzz_below(fuzz, 8));
	vmcs_put(m, VMCS_TSC_MULTIPLIER, any_number(fuzz));
	vmcs_put(m, VMCS_POSTED_INTERRUPT_VECTOR, 0x41);
	vmcs_put(m, VMCS_PML_INDEX, any_number(fuzz));
	vmcs_put(m, VMCS_EXCEPTION_BITMAP, fuzz_next(fuzz));
	vmcs_put(m, VMCS_CR0_MASK, fuzz_next(fuzz) & fuzz_next(fuzz));
	vmcs_put(m, VMCS_CR4_MASK, fuzz_next(fuzz) & fuzz_next(fuzz));
}

/* The guest's mode: 64-bit as it is, compatibility, 32-bit and 16-bit with PAE, real-address, virtual-8086.
 */
static void any_mode(struct machine *m, struct fuzz *fuzz)
{
	unsigned mode = fuzz_below(fuzz, 6);

	if (mode == 0)
		return;
	vmcs_put(m, VMCS_GUEST_CS_RIGHTS, mode == 3 ? 0x809b : 0xc09b);
	if (mode == 1)
		return;
	vmcs_clear(m, VMCS_ENTRY_CONTROLS, VMX_ENTRY_IA32E);
	vmcs_put(m, VMCS_GUEST_EFER, 0);
	if (mode < 4) { /* unrestricted, without paging */
		vmcs_clear(m, VMCS_GUEST_CR0, CR0_PG);
		vmcs_secondary(m, VMX2_UNRESTRICTED_GUEST | VMX2_EPT);
		return;
	}
	for (unsigned i = 0; i < 6; i++) {
		vmcs_put(m, VMCS_GUEST_ES + 2 * i, 0x4000);
		vmcs_put(m, VMCS_GUEST_ES_BASE + 2 * i, 0x40000);
		vmcs_put(m, VMCS_GUEST_ES_LIMIT + 2 * i, 0xffff);
		vmcs_put(m, VMCS_GUEST_ES_RIGHTS + 2 * i, mode == 5 ? 0xf3 : i == 1 ? 0x9b : 0x93);
	}
	vmcs_put(m, VMCS_GUEST_RIP, 0);
	vmcs_put(m, VMCS_GUEST_RSP, 0xfff0);
	if (mode == 4) {
		vmcs_clear(m, VMCS_GUEST_CR0, CR0_PG | CR0_PE);
		vmcs_secondary(m, VMX2_UNRESTRICTED_GUEST | VMX2_EPT);
	} else {
		vmcs_put(m, VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_VM | 3 << 12);
		vmcs_put(m, VMCS_GUEST_CR3, TABLES_AT);
	}
}

static void change_fields(struct machine *m, struct fuzz *fuzz)
{
	for (unsigned n = fuzz_below(fuzz, 3); n; n--) {
		enum vmcs_field field = (enum vmcs_field)fields[fuzz_below(fuzz, FIELDS)];
		uint64_t value = vmcs_get(m, field) ^ 1ull << fuzz_below(fuzz, 64);

		vmcs_put(m, field, fuzz_one_in(fuzz, 2) ? value : any_number(fuzz));
	}
	if (fuzz_one_in(fuzz, 4)) {
		vmcs_put(m, VMCS_ENTRY_INTERRUPTION_INFO, VMX_EVENT_VALID | (fuzz_next(fuzz) & 0xf3f));
		vmcs_put(m, VMCS_ENTRY_INSTRUCTION_LENGTH, fuzz_below(fuzz, 17));
	}
	if (fuzz_one_in(fuzz, 4))
		vmcs_put(m, VMCS_GUEST_ACTIVITY, fuzz_below(fuzz, 4));
	if (fuzz_one_in(fuzz, 4))
		vmcs_put(m, VMCS_GUEST_RFLAGS, vmcs_get(m, VMCS_GUEST_RFLAGS) ^ (fuzz_next(fuzz) & 0x300));
	if (fuzz_one_in(fuzz, 4))
		vmcs_put(m, VMCS_GUEST_INTERRUPTIBILITY, fuzz_next(fuzz) & 0xb);
	if (fuzz_one_in(fuzz, 8))
		vmcs_put(m, VMCS_GUEST_DEBUGCTL, fuzz_below(fuzz, 4));
}

/* Nested tables: all of memory as it is, in which some entries are random. */
static void any_tables(struct machine *m, struct fuzz *fuzz)
{
	uint64_t leaf = 7 | 6 << EPT_TYPE_SHIFT | EPT_EXECUTE_USER;

	guest_put(m, EPT_AT, (EPT_AT + 0x1000) | 7 | EPT_EXECUTE_USER, 8);
	guest_put(m, EPT_AT + 0x1000, (EPT_AT + 0x2000) | 7 | EPT_EXECUTE_USER, 8);
	guest_put(m, EPT_AT + 0x2000, (EPT_AT + 0x3000) | 7 | EPT_EXECUTE_USER, 8);
	guest_put(m, EPT_AT + 0x2000 + (MACHINE_BASE >> 21) * 8, MACHINE_BASE | leaf | EPT_LARGE, 8);
	for (unsigned i = 0; i < 512; i++)
		guest_put(m, EPT_AT + 0x3000 + 8 * i, i * 0x1000ull | leaf, 8);
	for (unsigned n = fuzz_below(fuzz, 4); n; n--)
		guest_put(m, EPT_AT + 8 * fuzz_below(fuzz, 2048), any_page(fuzz) | (fuzz_next(fuzz) & 0xfff),
			  8);
}

static void any_vmcs(struct machine *m, struct fuzz *fuzz)
{
	vmcs_baseline(m);
	any_controls(m, fuzz);
	if (!fuzz_one_in(fuzz, 8))
		make_consistent(m);
	any_pointers(m, fuzz);
	any_tables(m, fuzz);
	any_mode(m, fuzz);
	change_fields(m, fuzz);
}

/* ---- code ---- */

static uint8_t *put_vmx(uint8_t *at, struct fuzz *fuzz)
{
	static const uint8_t register_forms[] = {0xc1, 0xc2, 0xc3, 0xc4, 0xd4, 0xc2, 0xc3, 0xc3};
	unsigned kind = fuzz_below(fuzz, 10);
	uint8_t modrm = (uint8_t)(fuzz_below(fuzz, 8) << 3 | 3); /* [RBX] */

	if (kind == 0) { /* VMCLEAR, VMXON: 66 or F3 0F C7 /6; VMPTRLD, VMPTRST: 0F C7 /6, /7 */
		static const uint8_t prefixes[] = {0x90, 0x66, 0xf3};

		*at++ = prefixes[fuzz_below(fuzz, 3)];
		*at++ = 0x0f;
		*at++ = 0xc7;
		*at++ = fuzz_one_in(fuzz, 4) ? 0x3b : 0x33;
	} else if (kind == 1) { /* INVEPT, INVVPID, INVPCID */
		*at++ = 0x66;
		*at++ = 0x0f;
		*at++ = 0x38;
		*at++ = (uint8_t)(0x80 + fuzz_below(fuzz, 3));
		*at++ = modrm;
	} else if (kind < 4) { /* VMREAD, VMWRITE */
		*at++ = 0x0f;
		*at++ = (uint8_t)(0x78 + fuzz_below(fuzz, 2));
		*at++ = fuzz_one_in(fuzz, 2) ? modrm : (uint8_t)(0xc0 | fuzz_below(fuzz, 64));
	} else if (kind == 4) { /* the next data */
		*at++ = 0x48;
		*at++ = 0x83;
		*at++ = 0xc3;
		*at++ = 8;
	} else {
		*at++ = 0x0f;
		*at++ = 0x01;
		*at++ = register_forms[fuzz_below(fuzz, sizeof(register_forms))];
	}
	return at;
}

static void make_code(struct fuzz *fuzz, uint8_t *code, size_t size)
{
	uint8_t *at = code, *end = code + size - 16;

	while (at < end) {
		if (fuzz_one_in(fuzz, 3)) {
			at = put_vmx(at, fuzz);
		} else {
			if (fuzz_one_in(fuzz, 2))
				*at++ = 0x0f;
			*at++ = (uint8_t)fuzz_next(fuzz);
			*at++ = (uint8_t)fuzz_next(fuzz);
		}
	}
	while (at < code + size)
		*at++ = 0x90;
}

/* VMX instructions, and a jump back; exits come back here. */
static void make_host(struct machine *m, struct fuzz *fuzz)
{
	uint8_t code[96], *at = code;

	while (at < code + 80)
		at = put_vmx(at, fuzz);
	*at++ = 0xeb;
	*at = (uint8_t)(code - at - 1);
	machine_write(m, HOST_AT, code, sizeof(code));
}

/* What the host's operands point at. */
static void make_data(struct machine *m, struct fuzz *fuzz)
{
	for (unsigned i = 0; i < 64; i++)
		guest_put(m, DATA_AT + 8 * i,
			  fuzz_one_in(fuzz, 3) ? any_number(fuzz) : regions[fuzz_below(fuzz, 3)], 8);
	for (unsigned i = 0; i < 16; i++) {
		m->cpu->reg[i] = fuzz_one_in(fuzz, 2) ? any_number(fuzz) : fields[fuzz_below(fuzz, FIELDS)];
		if (fuzz_one_in(fuzz, 3))
			m->cpu->reg[i] = fuzz_below(fuzz, 4);
	}
	m->cpu->reg[RBX] = DATA_AT;
	m->cpu->reg[RSP] = HOST_STACK;
}

/* ---- rounds ---- */

static void fresh(struct machine *m)
{
	vmx_open(m);
	blank_bus(&m->cpu->bus);
	m->cpu->bus.interrupt_acknowledge = acknowledge;
	m->cpu->bus.msr_read = msr_answers;
	m->cpu->bus.msr_write = msr_takes;
}

static bool has_no_model(const char *what)
{
	for (unsigned i = 0; i < sizeof(without_model) / sizeof(without_model[0]); i++)
		if (!strncmp(what, without_model[i], strlen(without_model[i])))
			return true;
	return false;
}

static void check_stop(struct machine *m, uint64_t round, enum cpu_stop stop)
{
	if (stop == CPU_STOP_UNMODELLED && !has_no_model(m->cpu->unmodelled))
		fail_msg("FUZZ_ROUND=%llu: not modelled: %s", (unsigned long long)round, m->cpu->unmodelled);
	if (stop > CPU_STOP_UNMODELLED)
		fail_msg("FUZZ_ROUND=%llu: stop %d", (unsigned long long)round, (int)stop);
}

static void check_saved(struct machine *m, uint64_t round)
{
	struct vcpu_state before, after;

	cpu_save(m->cpu, &before);
	cpu_load(m->cpu, &before);
	cpu_save(m->cpu, &after);
	if (memcmp(&before, &after, sizeof(before)) != 0)
		fail_msg("FUZZ_ROUND=%llu: a state loaded is not what was saved", (unsigned long long)round);
}

/* An engine goes on behind the events that it is asked to look at; the clock here stands still while a CPU
 * waits. */
static enum cpu_stop run(struct machine *m, uint64_t round, uint64_t count)
{
	enum cpu_stop stop = CPU_STOP_REQUESTED;

	m->cpu->event_at = m->cpu->stop_at = m->cpu->retired + count;
	for (unsigned n = 0; stop == CPU_STOP_REQUESTED || stop == CPU_STOP_YIELD; n++) {
		if (n > 10 * count)
			fail_msg("FUZZ_ROUND=%llu: does not end", (unsigned long long)round);
		stop = cpu_run(m->cpu);
	}
	return stop;
}

static unsigned entered;

static void one(struct fuzz *fuzz, uint64_t round)
{
	static const uint8_t launch[] = {0x0f, 0x01, 0xc2, 0xf4};
	uint8_t code[128];
	struct machine m;

	fresh(&m);
	any_vmcs(&m, fuzz);
	make_data(&m, fuzz);
	make_host(&m, fuzz);
	make_code(fuzz, code, sizeof(code));
	cpu_set_interrupt_line(m.cpu, fuzz_one_in(fuzz, 4));
	if (fuzz_one_in(fuzz, 4))
		cpu_raise_nmi(m.cpu);
	m.cpu->init_pending = fuzz_one_in(fuzz, 16);
	cpu_latches_changed(m.cpu);
	m.cpu->nmi_blocked = true;
	machine_write(&m, GUEST_AT, code, sizeof(code));
	machine_write(&m, CODE_AT, launch, sizeof(launch));
	m.cpu->rip = CODE_AT;
	check_stop(&m, round, run(&m, round, 20 + fuzz_below(fuzz, 200)));
	entered += vmcs_get(&m, VMCS_EXIT_REASON) != 0 || m.cpu->msr.vmx_guest;
	check_saved(&m, round);
	check_stop(&m, round, run(&m, round, 20));
	machine_close(&m);
}

#define ROUNDS 2000u

static void any_hypervisor_ends(void **state)
{
	(void)state;
	entered = 0;
	fuzz_rounds(ROUNDS, one);
	if (fuzz_number("FUZZ_ROUND", UINT64_MAX) == UINT64_MAX)
		assert_true(entered > ROUNDS / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(any_hypervisor_ends)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
