/*
 * smm.c: SMIs of a processor in VMX operation, with the default treatment (SDM 3C 32.14): the handler runs
 * outside of VMX operation, cannot set CR4.VMXE meanwhile, and RSM goes back into it.
 */
#include "lib/apic.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "x86/case_layout.h"

#define BASE   0x38000u /* where SMIs go behind a reset */
#define FAULT  0x38100u /* the handler of #GP there */
#define RESULT (*(volatile uint8_t *)0x38210)
#define CR4_IN (*(volatile uint32_t *)0x38220)

enum { NOTHING, WRITTEN, FAULTED };

static void put_handler(void)
{
	static const uint8_t code[] = {0x66,    0xbc, 0xf0, 0xff, 0x00, 0x00,       /* MOV ESP, FFF0H */
				       0x2e,    0x66, 0x0f, 0x01, 0x1e, 0x00, 0x82, /* LIDT CS:[8200H] */
				       0x0f,    0x20, 0xe0,                         /* MOV EAX, CR4 */
				       0x67,    0x66, 0xa3, 0x20, 0x82, 0x03, 0x00, /* MOV [38220H], EAX */
				       0x66,    0x0d, 0x00, 0x20, 0x00, 0x00,       /* OR EAX, CR4.VMXE */
				       0x0f,    0x22, 0xe0,                         /* MOV CR4, EAX */
				       0x67,    0xc6, 0x05, 0x10, 0x82, 0x03, 0x00,
				       WRITTEN, /* MOV BYTE [38210H], WRITTEN */
				       0x0f,    0xaa};
	static const uint8_t fault[] = {0x67, 0xc6, 0x05, 0x10, 0x82, 0x03, 0x00, FAULTED, 0x0f, 0xaa};
	static const uint8_t idt[] = {0xff, 0x03, 0x00,
				      0x83, 0x03, 0x00}; /* real-address mode's, at 38300H */

	machine_copy((void *)BASE, code, sizeof(code));
	machine_copy((void *)FAULT, fault, sizeof(fault));
	machine_copy((void *)0x38200, idt, sizeof(idt));
	for (unsigned n = 0; n < 32; n++)
		*(volatile uint32_t *)(uintptr_t)(0x38300 + 4 * n) = 0x30008100;
	RESULT = NOTHING;
}

static void raise_smi(void)
{
	apic_send(apic_id(), ICR_SMI | ICR_ASSERT);
	for (unsigned i = 0; i < 100000 && RESULT == NOTHING; i++)
		__asm__ volatile("pause");
}

/* @mode 0: outside of VMX operation, where the handler may set VMXE; 1: in VMX root operation, where it is
 * #GP. */
STORY(smi_in_operation)
{
	bool operation = GIVEN(mode);

	if (!story_has_apic() || !vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	apic_enable(0xff);
	if (!operation)
		vmx_end();
	put_handler();
	raise_smi();
	if (!story_needs(RESULT != NOTHING, "no SMI by ICR comes to SMBASE 30000H"))
		return;
	story_check("vmxe_within", 0, CR4_IN & CR4_VMXE);
	story_check("result", FAULTED, RESULT);
	if (!operation) {
		story_check("vmxe", 0, machine_read_cr4() & CR4_VMXE);
		return;
	}
	story_check("vmxe", CR4_VMXE, machine_read_cr4() & CR4_VMXE);
	story_check("current", vmx_page(VMX_PAGE_VMCS), vmx_current());
	vmx_check_runs();
}
