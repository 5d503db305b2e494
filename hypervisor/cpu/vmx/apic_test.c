/* apic_test.c: writes to the APIC-access page of a guest of VT-x. */
#include "cpu/vmx/vmx_test.h"

#define APIC_AT  (MACHINE_BASE + 0x60000) /* linear and physical */
#define VAPIC_AT ENTER_AT                 /* the list is empty */

static void open_apic(struct machine *m, uint32_t secondary)
{
	vmx_open(m);
	vmcs_or(m, VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmcs_or(m, VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	vmcs_secondary(m, VMX2_VIRTUALIZE_APIC | secondary);
	vmcs_put(m, VMCS_APIC_ACCESS, APIC_AT);
	vmcs_put(m, VMCS_VIRTUAL_APIC, VAPIC_AT);
}

#define REGISTER(offset) (VAPIC_AT + (offset))

/* MOV [RBX], AL: what comes of it, with 11223344H there before. */
static uint32_t write_byte(struct machine *m, unsigned offset)
{
	guest_put(m, REGISTER(offset & 0xff0), 0x11223344, 4);
	vmcs_put(m, VMCS_GUEST_RIP, GUEST_AT);
	m->cpu->reg[RBX] = APIC_AT + offset;
	m->cpu->reg[RAX] = 0;
	return GUEST(m, 0x88, 0x03, VMCALL);
}

/* SDM 3C 30.4.3.2: the page offset of the write decides, not its register. */
static void bytes_behind_a_register_exit(void **state)
{
	static const uint16_t offsets[] = {0x81, 0x83, 0xb1, 0x301, 0x321};
	struct machine m;

	(void)state;
	open_apic(&m, VMX2_APIC_REGISTERS);
	assert_int_equal(write_byte(&m, 0x80), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, REGISTER(0x80), 4), 0);
	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		assert_int_equal(write_byte(&m, offsets[i]), VMX_EXIT_APIC_WRITE);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), offsets[i]);
		assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 2);
	}
	assert_int_equal(write_byte(&m, 0x311), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, REGISTER(0x310), 4), 0x11000000);
	machine_close(&m);
}

/* SDM 3C 28.2.1: as bit W/R of a #PF would be. EOI can be written, and not read, without APIC-register virtualization. */
static void modifications_exit_as_writes(void **state)
{
	struct machine m;

	(void)state;
	open_apic(&m, VMX2_VIRTUAL_INTERRUPTS);
	m.cpu->reg[RBX] = APIC_AT + 0xb0;
	assert_int_equal(GUEST(&m, 0x09, 0x03, VMCALL), VMX_EXIT_APIC_ACCESS);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0x10b0);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_behind_a_register_exit),
		cmocka_unit_test(modifications_exit_as_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
