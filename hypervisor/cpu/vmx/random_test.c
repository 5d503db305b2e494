/*
 * random_test.c: VM entries with random fields, of random code, in memory that overlaps with all that the
 * processor keeps there. Whatever comes of it, the run ends by a stop that has a name, and a save and load in
 * its midst is what it was.
 */
#include "cpu/vmx/vmx_test.h"

#include "fuzz/blank.h"

#define ROUNDS 3000u

static const uint16_t fields[] = {
#define VMCS_FIELD(encoding, name) (encoding),
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* Controls that the processor allows, so that entries succeed more often than not. */
static void random_controls(struct machine *m)
{
	static const enum vmcs_field controls[] = {[VMX_CONTROLS_PIN] = VMCS_PIN_CONTROLS,
						   [VMX_CONTROLS_PRIMARY] = VMCS_PRIMARY_CONTROLS,
						   [VMX_CONTROLS_SECONDARY] = VMCS_SECONDARY_CONTROLS,
						   [VMX_CONTROLS_EXIT] = VMCS_EXIT_CONTROLS,
						   [VMX_CONTROLS_ENTRY] = VMCS_ENTRY_CONTROLS};

	for (unsigned i = 0; i <= VMX_CONTROLS_ENTRY; i++) {
		uint64_t bits = machine_random() & machine_random() & machine_random();

		vmcs_or(m, controls[i], bits & vmx_may_be_1(m->cpu, (enum vmx_controls)i));
	}
	vmcs_put(m, VMCS_VPID, 1);
	vmcs_put(m, VMCS_VIRTUAL_APIC, 0x110000);
	vmcs_put(m, VMCS_APIC_ACCESS, 0x111000);
	vmcs_put(m, VMCS_POSTED_INTERRUPT_DESCRIPTOR, 0x112000);
	vmcs_put(m, VMCS_VMREAD_BITMAP, 0x113000);
	vmcs_put(m, VMCS_VMWRITE_BITMAP, 0x114000);
	vmcs_put(m, VMCS_PML_ADDRESS, 0x115000);
	vmcs_put(m, VMCS_VE_INFORMATION, 0x116000);
	vmcs_put(m, VMCS_EPTP_LIST, 0x117000);
	vmcs_put(m, VMCS_EPTP, 0x118000 | 3 << EPTP_LEVELS_SHIFT | 6);
	vmcs_put(m, VMCS_TSC_MULTIPLIER, machine_random());
	vmcs_put(m, VMCS_PREEMPTION_TIMER, machine_random() % 4);
}

/* The same addresses for the guest as for the host, in pages of 4 KiB and of 2 MiB. */
static void identity(struct machine *m)
{
	guest_put(m, 0x118000, 0x119000 | 7, 8);
	guest_put(m, 0x119000, 0x11a000 | 7, 8);
	guest_put(m, 0x11a000, 0x11b000 | 7, 8);
	guest_put(m, 0x11a000 + (MACHINE_BASE >> 21) * 8, MACHINE_BASE | 0x87 | 6 << EPT_TYPE_SHIFT, 8);
	for (unsigned i = 0; i < 512; i++)
		guest_put(m, 0x11b000 + 8 * i, i * 0x1000ull | 7 | 6 << EPT_TYPE_SHIFT, 8);
}

static void mutate(struct machine *m)
{
	for (unsigned n = (unsigned)(machine_random() % 4); n; n--) {
		enum vmcs_field field = (enum vmcs_field)fields[machine_random() % FIELDS];
		uint64_t value = vmcs_get(m, field);

		if (machine_random() % 2)
			value ^= 1ull << machine_random() % 64;
		else
			value = machine_operand();
		vmcs_put(m, field, value);
	}
	if (machine_random() % 4 == 0)
		vmcs_put(m, VMCS_ENTRY_INTERRUPTION_INFO, VMX_EVENT_VALID | (machine_random() & 0xf3f));
}

static void round_run(struct machine *m, unsigned *entered)
{
	struct vcpu_state before, after;
	enum cpu_stop stop;
	uint8_t code[64];

	for (unsigned i = 0; i < sizeof(code); i++)
		code[i] = (uint8_t)machine_random();
	vmcs_baseline(m);
	random_controls(m);
	identity(m);
	mutate(m);
	m->cpu->interrupt_line = machine_random() % 4 == 0;
	m->cpu->nmi_pending = machine_random() % 4 == 0;
	m->cpu->nmi_blocked = true;
	for (unsigned i = 0; i < 16; i++)
		m->cpu->reg[i] = machine_random() % 2 ? DATA_AT + machine_random() % 64 : VMCS_AT;
	stop = vmx_run_for(m, code, sizeof(code), 2 + machine_random() % 40);
	assert_in_range(stop, CPU_STOP_BUDGET, CPU_STOP_UNMODELLED);
	*entered += vmcs_launched(m->cpu, VMCS_AT);
	cpu_save(m->cpu, &before);
	cpu_load(m->cpu, &before);
	cpu_save(m->cpu, &after);
	assert_memory_equal(&before, &after, sizeof(before));
	cpu_run(m->cpu);
}

static void anything_ends(void **state)
{
	unsigned entered = 0;
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		if (i % 100 == 0) { /* a new machine */
			vmx_open(&m);
			blank_bus(&m.cpu->bus);
			m.cpu->bus.interrupt_acknowledge = blank_acknowledge;
			m.cpu->bus.msr_read = blank_msr_read;
		} else {
			/* What the last round has left of memory and MSRs stays. */
			m.cpu->msr.vmx_guest = m.cpu->msr.vmx_smm = false;
			m.cpu->smm = false;
			machine_mode(&m, CODE_64);
			m.cpu->cr4 |= CR4_VMXE;
			cpu_mode_changed(m.cpu);
		}
		round_run(&m, &entered);
		if (i % 100 == 99)
			machine_close(&m);
	}
	assert_true(entered > ROUNDS / 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(anything_ends)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
