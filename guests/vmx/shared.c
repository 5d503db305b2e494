/*
 * shared.c: two processors in VMX operation, and structures that one changes while the other runs a guest
 * with them: what the manual promises of EPT entries (29.4.3), the virtual-APIC page (30.1), the
 * posted-interrupt descriptor (30.6) and the #VE area (26.5.7.2); and, where it promises nothing while a
 * guest runs (25.11.4), of a change between an exit and the next entry.
 *
 * Processor 0 is the story's, processor 1 does what cpus_tell() says. Both share the switch's registers
 * (vmx_world.h), so that stories in which both run guests do not look at those.
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define VECTOR     0x45u
#define NOTIFY     0xf2u
#define TARGET     (CASE_OPERAND_PAGE2 + 0x400u)
#define RIGHTS     ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE))
#define LONG_WHILE 200000u

/* What the guest and the other processor tell each other, in the operand's page. */
#define COUNT (*(volatile uint32_t *)(uintptr_t)CASE_OPERAND)
#define FLAG  (*(volatile uint32_t *)(uintptr_t)(CASE_OPERAND + 8))

uint64_t vmx_switch(uint64_t resume);

static bool begin(unsigned with)
{
	if (!cpus_needs(2) || !vmx_baseline(MODE_LONG, 0, with))
		return false;
	COUNT = FLAG = 0;
	world_accept(CASE_OPERAND, 16);
	vmx_registers[RBX] = CASE_OPERAND;
	vmx_registers[RSI] = TARGET;
	return true;
}

static bool count_moves(void)
{
	uint32_t before = COUNT;

	for (unsigned i = 0; i < LONG_WHILE; i++) {
		if (COUNT != before)
			return true;
		__asm__ volatile("pause");
	}
	return false;
}

/* LOCK INC [RBX]; CMP [RBX + 8], 0; JE back; then @count bytes. */
#define WAIT_FOR_FLAG 0xf0, 0xff, 0x03, 0x83, 0x7b, 0x08, 0x00, 0x74, 0xf7

/* ---- EPT entries that are changed while the guest runs ---- */

enum change { MAPS, ALLOWS, TAKES, REMAPS, CLEARS_DIRTY };

static void change_entry(void *argument)
{
	enum change change = (enum change)(uintptr_t)argument;
	volatile uint64_t *entry = vmx_ept_entry(1, TARGET);

	count_moves();
	switch (change) {
	case MAPS: *entry |= RIGHTS; break;
	case ALLOWS: *entry |= EPT_WRITE; break;
	case TAKES: *entry &= ~RIGHTS; break;
	case REMAPS: *entry = (*entry & 0xfff) | CASE_FRAME; break;
	default: *entry &= ~(uint64_t)(EPT_DIRTY | EPT_ACCESSED); break;
	}
	if (change > ALLOWS) { /* the shootdown: it exits, and the story invalidates */
		apic_send(cpus_apic_id(0), ICR_ASSERT | VECTOR);
		count_moves();
	}
	FLAG = 1;
}

/*
 * @mode 0: an entry that was not present becomes so, which nothing needs to be told (29.4.3.3); 1: one that
 * was used to read also lets write: the guest may see it at once, or exit by an EPT violation, behind which
 * it does; 2: one that is used is taken away, 3: leads elsewhere, 4: loses its flags: the guest sees it
 * behind INVEPT.
 */
STORY(shared_ept)
{
	enum change change = (enum change)GIVEN(mode);
	volatile uint64_t *entry;
	uint64_t value = 0x5aull;

	if (!begin(VMX_EPT))
		return;
	entry = vmx_ept_entry(1, TARGET);
	if (change == CLEARS_DIRTY) {
		if (!vmx_needs_bit(VMX_MSR_EPT_VPID, 21))
			return;
		vmx_write(VMCS_EPTP, vmx_eptp() | EPTP_ACCESSED_DIRTY);
	}
	*(volatile uint8_t *)(uintptr_t)TARGET = (uint8_t)value;
	world_accept(TARGET, 8);
	*(volatile uint8_t *)(uintptr_t)(CASE_FRAME + 0x400) = 0x3c;
	if (change == MAPS)
		*entry &= ~RIGHTS;
	if (change == ALLOWS)
		*entry &= ~(uint64_t)EPT_WRITE;
	/* Interrupts exit whatever RFLAGS.IF is: that is vmx.external_interrupt's to hold, not this story's. */
	exchange.in.field[STATE_rflags] |= RFLAGS_IF;
	vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
	/* MAPS, REMAPS: read behind the flag; else read, wait, write */
	if (change == MAPS)
		VMX_CODE(WAIT_FOR_FLAG, 0x8a, 0x06);
	else if (change == REMAPS)
		VMX_CODE(0x8a, 0x06, WAIT_FOR_FLAG, 0x8a, 0x06);
	else
		VMX_CODE(change == CLEARS_DIRTY ? 0x88 : 0x8a, 0x06, WAIT_FOR_FLAG, 0x88, 0x06);
	vmx_registers[RAX] = 0x5a;
	cpus_tell(1, change_entry, (void *)(uintptr_t)change);
	check_run();
	if (change > ALLOWS) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXTERNAL_INTERRUPT);
		story_open();
		vmx_invept();
		check_run();
	}
	if (change == ALLOWS && vmx_reason() == VMX_EXIT_EPT_VIOLATION) {
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, TARGET);
		check_run();
	}
	cpus_wait(1);
	if (change == TAKES) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, TARGET);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	}
	if (change == MAPS)
		story_check("read", 0x5a, vmx_registers[RAX] & 0xff);
	if (change == REMAPS)
		story_check("elsewhere", 0x3c, vmx_registers[RAX] & 0xff);
	if (change == CLEARS_DIRTY)
		story_check("flags", EPT_ACCESSED | EPT_DIRTY, *entry & (EPT_ACCESSED | EPT_DIRTY));
	*(volatile uint16_t *)(uintptr_t)(CASE_FRAME + 0x400) = CASE_END;
}

/* ---- the virtual-APIC page ---- */

static void change_register(void *argument)
{
	(void)argument;
	count_moves();
	*(volatile uint32_t *)vmx_at(VMX_PAGE_VIRTUAL_APIC, APIC_LDR) = 0x12345678;
	count_moves();
	FLAG = 1;
}

/* What the other processor writes to the page the guest reads from its register. */
STORY(shared_virtual_apic)
{
	if (!begin(VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) ||
	    !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC | VMX2_APIC_REGISTERS))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC | VMX2_APIC_REGISTERS);
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_APIC_ACCESS, vmx_page(VMX_PAGE_APIC_ACCESS));
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	vmx_registers[RSI] = vmx_page(VMX_PAGE_APIC_ACCESS) + APIC_LDR;
	/* MOV ECX, [RSI]; wait; MOV EAX, [RSI] */
	VMX_CODE(0x8b, 0x0e, WAIT_FOR_FLAG, 0x8b, 0x06);
	cpus_tell(1, change_register, NULL);
	check_run();
	cpus_wait(1);
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("before", 0, vmx_registers[RCX]);
	story_check("behind", 0x12345678, vmx_registers[RAX]);
}

/* ---- posted interrupts ---- */

static volatile uint32_t *descriptor(void) { return vmx_at(VMX_PAGE_POSTED, 0); }

static void post(unsigned vector)
{
	__atomic_fetch_or(&descriptor()[vector / 32], 1u << vector % 32, __ATOMIC_SEQ_CST);
}

enum posting { POST_ONE, POST_THREE, POST_UNNOTIFIED, POST_TWICE, POST_MASKED, POST_TO_HOST };

static void post_interrupts(void *argument)
{
	enum posting posting = (enum posting)(uintptr_t)argument;

	if (posting != POST_TO_HOST)
		count_moves();
	post(VECTOR);
	if (posting == POST_THREE) {
		post(0x31);
		post(0x82);
	}
	__atomic_fetch_or(&descriptor()[8], 1, __ATOMIC_SEQ_CST);
	if (posting != POST_UNNOTIFIED)
		apic_send(cpus_apic_id(0), ICR_ASSERT | NOTIFY);
	if (posting == POST_TWICE) { /* while the first one is in service */
		for (unsigned i = 0; i < LONG_WHILE && descriptor()[8] & 1; i++)
			__asm__ volatile("pause");
		post(0x82);
		__atomic_fetch_or(&descriptor()[8], 1, __ATOMIC_SEQ_CST);
		apic_send(cpus_apic_id(0), ICR_ASSERT | NOTIFY);
	}
	if (posting == POST_UNNOTIFIED || posting == POST_MASKED) {
		for (unsigned i = 0; i < 4; i++)
			count_moves();
		FLAG = 1;
	}
}

static bool begin_posted(void)
{
	if (!story_has_apic() || !begin(VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) ||
	    !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUAL_INTERRUPTS) ||
	    !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS))
		return false;
	apic_enable(0xff);
	apic_write(APIC_TPR, 0);
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUAL_INTERRUPTS);
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS);
	vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	for (unsigned i = 0; i < 4; i++)
		vmx_write(VMCS_EOI_EXIT_0 + 2 * i, 0);
	vmx_write(VMCS_GUEST_INTERRUPT_STATUS, 0);
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	vmx_write(VMCS_POSTED_INTERRUPT_VECTOR, NOTIFY);
	vmx_write(VMCS_POSTED_INTERRUPT_DESCRIPTOR, vmx_page(VMX_PAGE_POSTED));
	exchange.in.field[STATE_rflags] |= RFLAGS_IF;
	vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
	return true;
}

static bool requested(unsigned vector)
{
	return *(uint32_t *)vmx_at(VMX_PAGE_VIRTUAL_APIC, APIC_IRR + vector / 32 * 16) >> vector % 32 & 1;
}

/*
 * @mode 0: one, which comes without an exit; 1: three, the highest comes; 2: one without a notification,
 * which does not come; 3: one, and another one behind it; 4: one for a guest with IF = 0, which is requested
 * and waits; 5: while the host runs: the notification is an interrupt of the host's, and the request stays
 * posted.
 */
STORY(shared_posted_interrupt)
{
	enum posting posting = (enum posting)GIVEN(mode);
	unsigned highest = posting == POST_THREE ? 0x82 : VECTOR;
	bool comes = posting <= POST_THREE || posting == POST_TWICE;

	if (!begin_posted())
		return;
	if (posting == POST_MASKED) {
		exchange.in.field[STATE_rflags] &= ~(uint64_t)RFLAGS_IF;
		vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	}
	cpus_tell(1, post_interrupts, (void *)(uintptr_t)posting);
	if (posting == POST_TO_HOST) {
		story_handle(NULL);
		story_check("host", 1, story_wait(NOTIFY, 1));
		cpus_wait(1);
		story_check("still_posted", 1u << VECTOR % 32, descriptor()[VECTOR / 32]);
		story_check("outstanding", 1, descriptor()[8] & 1);
		FLAG = 1;
	}
	VMX_CODE(WAIT_FOR_FLAG);
	check_run();
	cpus_wait(1);
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("vector", comes ? highest : VMX_NO_VECTOR, vmx_handler_vector());
	if (posting == POST_UNNOTIFIED || posting == POST_TO_HOST) {
		story_check("posted", 1u << VECTOR % 32, descriptor()[VECTOR / 32]);
		story_check("not_requested", 0, requested(VECTOR));
	} else if (posting != POST_TWICE) {
		story_check("outstanding", 0, descriptor()[8] & 1);
		story_check("posted", 0, descriptor()[VECTOR / 32]);
		story_check("irr", posting != POST_ONE, requested(VECTOR));
	}
	if (posting == POST_THREE)
		story_check("lowest", 1, requested(0x31));
	if (posting == POST_MASKED)
		vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, VECTOR);
}

/* ---- the #VE area ---- */

static void end_exception(void *argument)
{
	(void)argument;
	count_moves();
	__atomic_store_n((uint32_t *)vmx_at(VMX_PAGE_VE, 4), 0, __ATOMIC_SEQ_CST);
	FLAG = 1;
}

/* The area is busy until the other processor clears its word; then the EPT violation is a #VE. */
STORY(shared_ve)
{
	if (!begin(VMX_EPT) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE);
	vmx_write(VMCS_VE_INFORMATION, vmx_page(VMX_PAGE_VE));
	vmx_write(VMCS_EXCEPTION_BITMAP, ~(1u << VECTOR_VE));
	*(uint32_t *)vmx_at(VMX_PAGE_VE, 4) = 0xffffffff;
	*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
	VMX_CODE(0x8a, 0x06);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	VMX_CODE(WAIT_FOR_FLAG, 0x8a, 0x06);
	cpus_tell(1, end_exception, NULL);
	check_run();
	cpus_wait(1);
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("vector", VECTOR_VE, vmx_handler_vector());
	story_check("busy", 0xffffffff, *(uint32_t *)vmx_at(VMX_PAGE_VE, 4));
}

/* ---- what the next entry finds: changes by the other processor between an exit and an entry ---- */

enum structure { IO_BITMAP, MSR_BITMAP, SHADOW_BITMAP, MSR_LIST, EPTP_LIST };

static void change_structure(void *argument)
{
	uint64_t *list = vmx_at(VMX_PAGE_ENTRY_LOAD, 0);

	switch ((enum structure)(uintptr_t)argument) {
	case IO_BITMAP: *(uint8_t *)vmx_at(VMX_PAGE_IO_A, 0x80 / 8) = 1; break;
	case MSR_BITMAP: *(uint8_t *)vmx_at(VMX_PAGE_MSR_BITMAP, MSR_PAT / 8) = 1 << (MSR_PAT % 8); break;
	case SHADOW_BITMAP:
		*(uint8_t *)vmx_at(VMX_PAGE_VMREAD, VMCS_GUEST_RIP / 8) = 1 << (VMCS_GUEST_RIP % 8);
		break;
	case MSR_LIST: list[1] = 0x2222; break;
	default: ((uint64_t *)vmx_at(VMX_PAGE_EPTP_LIST, 0))[1] = vmx_eptp(); break;
	}
}

/* @index: enum structure. The first run has no exit of it, the second one has. */
STORY(shared_structure)
{
	static const uint32_t reasons[] = {[IO_BITMAP] = VMX_EXIT_IO,
					   [MSR_BITMAP] = VMX_EXIT_RDMSR,
					   [SHADOW_BITMAP] = VMX_EXIT_VMREAD,
					   [MSR_LIST] = VMX_EXIT_VMCALL,
					   [EPTP_LIST] = VMX_EXIT_VMCALL};
	enum structure which = (enum structure)GIVEN(index);

	if (!begin(which == EPTP_LIST ? VMX_EPT : VMX_BARE))
		return;
	vmx_registers[RCX] = MSR_PAT;
	switch (which) {
	case IO_BITMAP:
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS);
		vmx_write(VMCS_IO_BITMAP_A, vmx_page(VMX_PAGE_IO_A));
		vmx_write(VMCS_IO_BITMAP_B, vmx_page(VMX_PAGE_IO_B));
		VMX_CODE(0xe4, 0x80); /* IN AL, 80H */
		break;
	case MSR_BITMAP:
		if (!vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS))
			return;
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
		vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
		VMX_CODE(0x0f, 0x32);
		break;
	case SHADOW_BITMAP:
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING))
			return;
		*(uint32_t *)vmx_at(VMX_PAGE_SHADOW, 0) |= VMCS_SHADOW;
		vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_SHADOW));
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING);
		vmx_write(VMCS_VMREAD_BITMAP, vmx_page(VMX_PAGE_VMREAD));
		vmx_write(VMCS_VMWRITE_BITMAP, vmx_page(VMX_PAGE_VMWRITE));
		vmx_write(VMCS_LINK_POINTER, vmx_page(VMX_PAGE_SHADOW));
		vmx_registers[RDX] = VMCS_GUEST_RIP;
		VMX_CODE(0x0f, 0x78, 0xd0); /* VMREAD RAX, RDX */
		break;
	case MSR_LIST:
		((uint64_t *)vmx_at(VMX_PAGE_ENTRY_LOAD, 0))[0] = MSR_KERNEL_GS_BASE;
		((uint64_t *)vmx_at(VMX_PAGE_ENTRY_LOAD, 0))[1] = 0x1111;
		vmx_write(VMCS_ENTRY_MSR_LOAD, vmx_page(VMX_PAGE_ENTRY_LOAD));
		vmx_write(VMCS_ENTRY_MSR_LOAD_COUNT, 1);
		break;
	default:
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VM_FUNCTIONS) ||
		    !vmx_needs_bit(VMX_MSR_VMFUNC, 0))
			return;
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VM_FUNCTIONS);
		vmx_write(VMCS_VM_FUNCTIONS, 1);
		vmx_write(VMCS_EPTP_LIST, vmx_page(VMX_PAGE_EPTP_LIST));
		vmx_registers[RAX] = 0;
		vmx_registers[RCX] = 1;
		VMX_CODE(0x0f, 0x01, 0xd4);
		break;
	}
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, which == EPTP_LIST ? VMX_EXIT_VMFUNC : VMX_EXIT_VMCALL);
	cpus_tell(1, change_structure, (void *)(uintptr_t)which);
	cpus_wait(1);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	vmx_registers[RCX] = which == EPTP_LIST ? 1 : MSR_PAT;
	vmx_registers[RAX] = 0;
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, reasons[which]);
	if (which == MSR_LIST) {
		story_check("loaded", 0x2222, machine_read_msr(MSR_KERNEL_GS_BASE));
		machine_write_msr(MSR_KERNEL_GS_BASE, CASE_KERNEL_GS_BASE);
	}
}

/* ---- VMX operation of the other processor ---- */

static volatile unsigned other_result;
static volatile uint64_t other_value;

/* Into VMX operation with a region of its own; back by leave_operation(). */
static unsigned enter_operation(void)
{
	vmx_allow();
	machine_write_cr4(machine_read_cr4() | CR4_VMXE);
	*(uint32_t *)vmx_at(VMX_PAGE_SPARE, 0) = *(const uint32_t *)vmx_at(VMX_PAGE_VMXON, 0);
	return vmx_do_address(VMX_DO_VMXON, vmx_page(VMX_PAGE_SPARE));
}

static void leave_operation(void)
{
	vmx_do(VMX_DO_VMXOFF, NULL, 0);
	machine_write_cr4(machine_read_cr4() & ~(uint64_t)CR4_VMXE);
}

/* VMX operation is each processor's own: so are the current VMCS and what VMXON and VMXOFF do. */
static void use_own_vmcs(void *argument)
{
	(void)argument;
	other_result = vmx_do(VMX_DO_VMXOFF, NULL, 0);
	if (other_result != VMX_FAULT(VECTOR_UD))
		return;
	other_result = enter_operation();
	if (!other_result) {
		other_value = vmx_current();
		other_result = vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS2)) |
			       vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS2));
	}
	leave_operation();
}

STORY(two_processors)
{
	if (!begin(VMX_BARE))
		return;
	vmx_check_runs();
	cpus_tell(1, use_own_vmcs, NULL);
	cpus_wait(1);
	story_check("other", 0, other_result);
	story_check("none_current", ~0ull, other_value);
	story_check("current", vmx_page(VMX_PAGE_VMCS), vmx_current());
	vmx_check_runs();
}

/* Goes on with the guest, to its next CPUID. */
static void run_there(void *argument)
{
	uint64_t vmcs = (uintptr_t)argument;

	other_value = 0;
	other_result = enter_operation();
	if (!other_result)
		other_result = vmx_do_address(VMX_DO_VMPTRLD, vmcs);
	if (!other_result) {
		other_value = vmx_do(VMX_DO_VMRESUME, NULL, 0); /* VMCLEAR has made it clear */
		vmx_set_clear();
		other_result = vmx_run();
	}
	if (!other_result && vmx_reason() != VMX_EXIT_CPUID)
		other_result = 0x100;
	vmx_do_address(VMX_DO_VMCLEAR, vmcs);
	leave_operation();
}

/* From one processor to another by VMCLEAR and VMPTRLD, and back (25.11.1). */
STORY(vmcs_migrates)
{
	if (!begin(VMX_BARE))
		return;
	VMX_CODE(0x0f, 0xa2, 0x0f, 0xa2, 0x90); /* CPUID twice */
	check_run();
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB + 2);
	vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS));
	cpus_tell(1, run_there, (void *)(uintptr_t)vmx_page(VMX_PAGE_VMCS));
	cpus_wait(1);
	story_check("other", 0, other_result);
	story_check("not_launched", VMX_FAIL(VMX_ERROR_VMRESUME_NOT_LAUNCHED), other_value);
	story_check("back", 0, vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS)));
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_CPUID);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
	story_check("resume", VMX_FAIL(VMX_ERROR_VMRESUME_NOT_LAUNCHED), vmx_do(VMX_DO_VMRESUME, NULL, 0));
	vmx_write(VMCS_GUEST_RIP, CASE_STUB + 4);
	vmx_set_clear();
	vmx_check_runs();
}

/* ---- two guests at once: the same bitmaps, EPT and VPID ---- */

#define ROUNDS 300u

static void build_second(unsigned with)
{
	vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS2));
	vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS2));
	vmx_load_host();
	vmx_load_controls(MODE_LONG, with);
	vmx_load_guest(MODE_LONG);
}

static void share(void)
{
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS);
	vmx_write(VMCS_IO_BITMAP_A, vmx_page(VMX_PAGE_IO_A));
	vmx_write(VMCS_IO_BITMAP_B, vmx_page(VMX_PAGE_IO_B));
	if (vmx_can(VMCS_SECONDARY_CONTROLS, VMX2_VPID)) {
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VPID);
		vmx_write(VMCS_VPID, 5);
	}
}

static void run_second(void *argument)
{
	other_result = enter_operation();
	if (!other_result) {
		build_second(argument ? VMX_EPT : VMX_BARE);
		share();
		other_result = (unsigned)vmx_switch(0);
		other_value = vmx_read(VMCS_EXIT_REASON);
		vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS2));
	}
	leave_operation();
}

/* Both add to one counter. @mode: with EPT. */
STORY(two_guests)
{
	bool ept = GIVEN(mode);

	if (!begin(ept ? VMX_EPT : VMX_BARE))
		return;
	share();
	/* MOV ECX, ROUNDS; LOCK INC [RBX]; DEC ECX; JNZ back; 2 processors and 2 numbers: RBX is the same */
	VMX_CODE(0xb9, ROUNDS & 0xff, ROUNDS >> 8, 0, 0, 0xf0, 0xff, 0x03, 0xff, 0xc9, 0x75, 0xf9);
	exchange.in.field[STATE_rbx] = CASE_OPERAND;
	cpus_tell(1, run_second, (void *)(uintptr_t)ept);
	count_moves();
	story_check("entry", 0, vmx_switch(0));
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("other_done", 1, cpus_wait(1));
	story_check("other", 0, other_result);
	story_check("other_reason", VMX_EXIT_VMCALL, other_value);
	story_check("sum", 2 * ROUNDS, COUNT);
}

/* ---- INIT of another processor ---- */

static volatile bool in_operation, may_leave;

/* Counts in VMX root operation, and behind it. */
static void count_in_operation(void *argument)
{
	(void)argument;
	other_result = enter_operation();
	in_operation = true;
	while (!may_leave)
		COUNT++;
	leave_operation();
	for (;;)
		COUNT++;
}

/* INIT is blocked while the other processor is in VMX root operation, and comes at its VMXOFF (24.8, 26.2).
 */
STORY(init_waits)
{
	if (!story_has_apic() || !begin(VMX_BARE))
		return;
	in_operation = may_leave = false;
	cpus_tell(1, count_in_operation, NULL);
	for (unsigned i = 0; i < LONG_WHILE && !in_operation; i++)
		__asm__ volatile("pause");
	story_check("vmxon", 0, other_result);
	apic_send(cpus_apic_id(1), ICR_INIT | ICR_ASSERT);
	story_pause(400);
	story_check("blocked", 1, count_moves());
	may_leave = true;
	story_pause(4000);
	{
		uint32_t before = COUNT;

		story_pause(4000);
		story_check("taken", before, COUNT);
	}
}

static void spin_in_guest(void *argument)
{
	(void)argument;
	other_result = enter_operation();
	if (!other_result) {
		build_second(VMX_BARE);
		other_result = (unsigned)vmx_switch(0);
		other_value = vmx_read(VMCS_EXIT_REASON);
		vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS2));
	}
	may_leave = true;
	leave_operation(); /* INIT is lost where it has exited */
	for (;;)
		COUNT++;
}

/* What another processor sends to one in a guest exits there: @mode 0: INIT; 1: NMI; 2: an interrupt; 3:
 * SIPI, which is ignored. */
STORY(sent_to_guest)
{
	static const uint32_t commands[] = {ICR_INIT, ICR_NMI, VECTOR, ICR_STARTUP | 0x9a};
	static const uint32_t reasons[] = {VMX_EXIT_INIT, VMX_EXIT_EXCEPTION_NMI, VMX_EXIT_EXTERNAL_INTERRUPT,
					   VMX_EXIT_VMCALL};
	unsigned mode = (unsigned)GIVEN(mode);

	if (!story_has_apic() || !begin(VMX_BARE))
		return;
	may_leave = false;
	VMX_CODE(WAIT_FOR_FLAG);
	exchange.in.field[STATE_rbx] = CASE_OPERAND;
	vmx_registers[RBX] = CASE_OPERAND;
	cpus_tell(1, spin_in_guest, NULL);
	story_check("runs", 1, count_moves() && count_moves());
	apic_send(cpus_apic_id(1), commands[mode] | ICR_ASSERT);
	if (mode == 3) {
		story_check("ignored", 1, count_moves() && count_moves());
		FLAG = 1;
	}
	for (unsigned i = 0; i < LONG_WHILE && !may_leave; i++)
		__asm__ volatile("pause");
	story_check("exited", 1, may_leave);
	story_check("entry", 0, other_result);
	story_check("reason", reasons[mode], other_value);
	story_check("goes_on", 1, count_moves());
}
