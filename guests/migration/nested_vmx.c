/*
 * nested_vmx.c: guests of VT-x that run for a while: what VM entry has left in the processor must still be there when it
 * matters, many instructions later.
 *
 * SDM 3C chapters 24 to 30.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "migration/migration.h"
#include "lib/vmx_world.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

/* mov $20, %ecx; 1: dec %ecx; jnz 1b */
#define A_WHILE 0xb9, 20, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc
#define WHILE_BYTES 9u

static volatile uint64_t *quad(uint64_t address) { return (volatile uint64_t *)(uintptr_t)address; }
static void check_run(void) { story_check("entry", 0, vmx_run()); }

static bool guest_with_flags(uint64_t flags, unsigned with)
{
	if (!vmx_baseline(MODE_LONG, 0, with))
		return false;
	exchange.in.field[STATE_rflags] = RFLAGS_FIXED | flags;
	vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | flags);
	return true;
}

/* ---- controls ---- */

static const struct {
	uint32_t field, control, reason;
	uint8_t length, bytes[4];
} intercepted[] = {
	{VMCS_PRIMARY_CONTROLS, VMX_RDTSC, VMX_EXIT_RDTSC, 2, {0x0f, 0x31}},
	{VMCS_PRIMARY_CONTROLS, VMX_RDPMC, VMX_EXIT_RDPMC, 2, {0x0f, 0x33}},
	{VMCS_PRIMARY_CONTROLS, VMX_MOV_DR, VMX_EXIT_MOV_DR, 3, {0x0f, 0x21, 0xc0}},
	{VMCS_PRIMARY_CONTROLS, VMX_CR3_STORE, VMX_EXIT_CR_ACCESS, 3, {0x0f, 0x20, 0xd8}},
	{VMCS_PRIMARY_CONTROLS, VMX_UNCONDITIONAL_IO, VMX_EXIT_IO, 2, {0xe4, 0x80}},
	{VMCS_PRIMARY_CONTROLS, VMX_PAUSE, VMX_EXIT_PAUSE, 2, {0xf3, 0x90}},
	{VMCS_PRIMARY_CONTROLS, VMX_INVLPG, VMX_EXIT_INVLPG, 3, {0x0f, 0x01, 0x3b}},
	{VMCS_SECONDARY_CONTROLS, VMX2_DESCRIPTOR_TABLE, VMX_EXIT_GDTR_IDTR, 3, {0x0f, 0x01, 0x0b}},
	{VMCS_SECONDARY_CONTROLS, VMX2_WBINVD, VMX_EXIT_WBINVD, 2, {0x0f, 0x09}},
	{VMCS_SECONDARY_CONTROLS, VMX2_RDRAND, VMX_EXIT_RDRAND, 3, {0x0f, 0xc7, 0xf0}},
};

/* An instruction (@index) that exits, behind a while; with its control off it runs (@mode). */
STORY(vmx_control_kept)
{
	unsigned n = (unsigned)GIVEN(index);
	uint8_t code[WHILE_BYTES + 8] = {A_WHILE};
	bool off = GIVEN(mode);

	if (!guest_with_flags(0, VMX_BARE) || !vmx_needs(intercepted[n].field, intercepted[n].control))
		return;
	if (off && !vmx_needs_clear(intercepted[n].field, intercepted[n].control))
		return;
	for (unsigned i = 0; i < intercepted[n].length; i++)
		code[WHILE_BYTES + i] = intercepted[n].bytes[i];
	vmx_code(code, WHILE_BYTES + intercepted[n].length);
	if (off)
		vmx_clear(intercepted[n].field, intercepted[n].control);
	else
		vmx_set(intercepted[n].field, intercepted[n].control);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, off ? VMX_EXIT_VMCALL : intercepted[n].reason);
	if (!off)
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + WHILE_BYTES);
}

/* The bitmaps: of ports, of MSRs, of exceptions (@mode), with the bit on or off (@value). */
STORY(vmx_bitmap_kept)
{
	unsigned mode = (unsigned)GIVEN(mode);
	bool on = GIVEN(value);

	if (!guest_with_flags(0, VMX_BARE))
		return;
	if (mode == 0 || mode == 3) {
		if (!vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS))
			return;
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS);
		vmx_write(VMCS_IO_BITMAP_A, vmx_page(VMX_PAGE_IO_A));
		vmx_write(VMCS_IO_BITMAP_B, vmx_page(VMX_PAGE_IO_B));
		*(uint8_t *)vmx_at(VMX_PAGE_IO_A, 0x80 / 8) = on;
		VMX_CODE(A_WHILE, 0xe4, 0x80);
		if (mode == 3) { /* 8080H, where only the bit keeps it from being read */
			*(uint8_t *)vmx_at(VMX_PAGE_IO_B, 0x80 / 8) = on;
			vmx_registers[RDX] = 0x8080;
			VMX_CODE(A_WHILE, 0xec);
		}
	} else if (mode == 1) {
		if (!vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS))
			return;
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
		vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
		*(uint8_t *)vmx_at(VMX_PAGE_MSR_BITMAP, 0x174 / 8) = (uint8_t)(on << (0x174 & 7));
		VMX_CODE(A_WHILE, 0xb9, 0x74, 1, 0, 0, 0x0f, 0x32);
	} else {
		vmx_write(VMCS_EXCEPTION_BITMAP, on ? 1u << VECTOR_BP : 0);
		VMX_CODE(A_WHILE, 0xcc);
	}
	check_run();
	if (on)
		vmx_check_field(VMCS_EXIT_REASON, mode == 0 || mode == 3 ? VMX_EXIT_IO
						  : mode == 1 ? VMX_EXIT_RDMSR
							      : VMX_EXIT_EXCEPTION_NMI);
	else
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
}

/* #PF by its error code: mask and match (25.2). @value: matches. */
STORY(vmx_page_fault_kept)
{
	bool matches = GIVEN(value);

	if (!guest_with_flags(0, VMX_BARE))
		return;
	vmx_write(VMCS_EXCEPTION_BITMAP, 1u << VECTOR_PF);
	vmx_write(VMCS_PF_ERROR_MASK, PF_W);
	vmx_write(VMCS_PF_ERROR_MATCH, matches ? PF_W : 0);
	*quad(CASE_PTE_LONG(CASE_OPERAND_PAGE2)) = 0;
	VMX_CODE(A_WHILE, 0x89, 0x04, 0x25, 0, CASE_OPERAND_PAGE2 >> 8 & 0xff, CASE_OPERAND_PAGE2 >> 16, 0);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, matches ? VMX_EXIT_EXCEPTION_NMI : VMX_EXIT_VMCALL);
}

/* Masks and shadows of CR0 and CR4 (@mode), CR3 targets. */
STORY(vmx_masks_kept)
{
	unsigned mode = (unsigned)GIVEN(mode);

	if (!guest_with_flags(0, VMX_BARE))
		return;
	if (mode == 0) { /* mov %cr0, %rax reads CD from the shadow */
		vmx_write(VMCS_CR0_MASK, CR0_CD | CR0_NW);
		vmx_write(VMCS_CR0_SHADOW, CR0_CD);
		VMX_CODE(A_WHILE, 0x0f, 0x20, 0xc0);
		check_run();
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		story_check("cr0", CR0_CD, vmx_registers[RAX] & (CR0_CD | CR0_NW));
	} else if (mode == 1) { /* a write that leaves the mask as its shadow has it runs; VMXE is hidden */
		vmx_write(VMCS_CR4_MASK, CR4_VMXE | CR4_TSD);
		vmx_write(VMCS_CR4_SHADOW, CR4_TSD);
		VMX_CODE(A_WHILE, 0x0f, 0x20, 0xe0, A_WHILE, 0x0f, 0x22, 0xe0);
		check_run();
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		story_check("cr4", CR4_TSD, vmx_registers[RAX] & (CR4_VMXE | CR4_TSD));
	} else if (mode == 2) { /* and one that does not exits */
		vmx_write(VMCS_CR4_MASK, CR4_TSD);
		vmx_write(VMCS_CR4_SHADOW, 0);
		VMX_CODE(A_WHILE, 0x0f, 0x20, 0xe0, 0x0c, 4, 0x0f, 0x22, 0xe0); /* or $TSD, %al */
		check_run();
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_CR_ACCESS);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + WHILE_BYTES + 5);
	} else { /* mov %cr3, %rax without an exit; the second target, and then none (5: XOR of a bit) */
		if (!vmx_needs_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_STORE) || !vmx_needs_cr3_targets(2))
			return;
		vmx_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_STORE);
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD);
		vmx_write(VMCS_CR3_TARGET_COUNT, 2);
		vmx_write(VMCS_CR3_TARGET_0, 0x1000);
		vmx_write(VMCS_CR3_TARGET_1, CASE_CR3_LONG);
		VMX_CODE(0x0f, 0x20, 0xd8, A_WHILE, 0x0f, 0x22, 0xd8, 0x34, 8, A_WHILE, 0x0f, 0x22, 0xd8);
		check_run();
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_CR_ACCESS);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 3 + WHILE_BYTES + 3 + 2 + WHILE_BYTES);
	}
}

/* ---- time ---- */

/* Offset and multiplier (@mode). */
STORY(vmx_tsc_kept)
{
	uint64_t offset = 0x1000000000000ull, before, behind, got;
	bool scaled = GIVEN(mode);

	if (!guest_with_flags(0, VMX_BARE))
		return;
	if (scaled && !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_TSC_SCALING))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_TSC_OFFSETTING);
	vmx_write(VMCS_TSC_OFFSET, offset);
	if (scaled) {
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_TSC_SCALING);
		vmx_write(VMCS_TSC_MULTIPLIER, 4ull << 48);
	}
	VMX_CODE(A_WHILE, 0x0f, 0x31);
	before = read_tsc();
	check_run();
	behind = read_tsc();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	got = (vmx_registers[RDX] << 32 | (vmx_registers[RAX] & 0xffffffff)) - offset;
	if (scaled)
		got /= 4;
	story_check("not_before", 1, got >= before);
	story_check("not_behind", 1, got <= behind);
}

/* The preemption timer ends the guest when it is due, twice the time takes twice as long, and what is left is saved. */
static uint64_t preempted_after(uint32_t value)
{
	uint64_t began;

	vmx_write(VMCS_PREEMPTION_TIMER, value);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	began = read_tsc();
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_PREEMPTION_TIMER);
	return read_tsc() - began;
}

STORY(preemption_timer_kept)
{
	uint32_t ticks = 60u << first_try(); /* long beside what entry and exit take */
	uint64_t once, twice, thrice, first, second;

	if (!guest_with_flags(0, VMX_BARE) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	VMX_CODE(0xeb, 0xfe);
	preempted_after(1); /* what the first entry costs more than others */
	once = preempted_after(ticks);
	twice = preempted_after(2 * ticks);
	thrice = preempted_after(3 * ticks);
	/* Entry and exit are in each, and may cost more than the time; they are in no difference. */
	first = twice > once ? twice - once : 0;
	second = thrice > twice ? thrice - twice : 0;
	story_check("not_early", 1, first && second >= first - first / 3);
	story_check("not_late", 1, second <= first + first / 3 + 400);
	if (!vmx_needs(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER))
		return;
	vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER);
	VMX_CODE(A_WHILE);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	vmx_write(VMCS_PREEMPTION_TIMER, 100000);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("left", 1, vmx_read(VMCS_PREEMPTION_TIMER) < 100000 && vmx_read(VMCS_PREEMPTION_TIMER) > 50000);
}

/* A loop of PAUSEs is one as long as they are close. */
STORY(pause_loop_kept)
{
	bool far = GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_PAUSE_LOOP))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_PAUSE_LOOP);
	vmx_write(VMCS_PLE_GAP, far ? 1 : 1000);
	vmx_write(VMCS_PLE_WINDOW, 100);
	/* PAUSE; four NOPs; DEC ECX; JNZ back */
	VMX_CODE(0xf3, 0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xc9, 0x75, 0xf6);
	vmx_registers[RCX] = 100;
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, far ? VMX_EXIT_VMCALL : VMX_EXIT_PAUSE);
	if (!far)
		story_check("behind_the_window", 1, vmx_registers[RCX] < 98 && vmx_registers[RCX] > 60);
}

/* ---- events ---- */

/* An interrupt window opens behind a while and STI (@mode 0), an NMI window behind IRET's like (1). */
STORY(window_kept)
{
	bool nmi = GIVEN(mode);

	if (!guest_with_flags(0, VMX_BARE))
		return;
	if (nmi) {
		if (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS | VMX_PIN_NMI))
			return;
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS | VMX_PIN_NMI);
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
		vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
		/* a while; then IRETQ to what is behind it: push SS, RSP, flags, CS, RIP */
		VMX_CODE(A_WHILE, 0x48, 0x89, 0xe0, 0x8c, 0xd1, 0x51, 0x50, 0x9c, 0x8c, 0xc9, 0x51, 0x68,
			 (CASE_STUB + WHILE_BYTES + 20) & 0xff, CASE_STUB >> 8 & 0xff, CASE_STUB >> 16, 0, 0x48, 0xcf, 0x90, 0x90);
		check_run();
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_NMI_WINDOW);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + WHILE_BYTES + 20);
		return;
	}
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	VMX_CODE(A_WHILE, 0xfb, 0x90, 0x90);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_INTERRUPT_WINDOW);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + WHILE_BYTES + 2);
}

/* An external interrupt comes while the guest runs: it exits (@mode 1), acknowledged or not (@value), or goes to the guest (0). */
STORY(vmx_interrupt_kept)
{
	bool exits = GIVEN(mode), acknowledged = GIVEN(value);

	if (!story_has_apic() || !guest_with_flags(RFLAGS_IF, VMX_BARE))
		return;
	if (!exits && !vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT))
		return;
	if (exits)
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	else
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	if (acknowledged)
		vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	apic_enable(0xff);
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x45);
	VMX_CODE(0xeb, 0xfe);
	apic_write(APIC_INITIAL_COUNT, 900);
	check_run();
	if (exits) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXTERNAL_INTERRUPT);
		story_check("isr", acknowledged, apic_bit(APIC_ISR, 0x45));
		story_check("irr", !acknowledged, apic_bit(APIC_IRR, 0x45));
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		story_check("vector", 0x45, vmx_handler_vector());
	}
	if (apic_bit(APIC_ISR, 0x45))
		apic_write(APIC_EOI, 0);
	else
		story_open();
}

/* ---- EPT ---- */

STORY(vmx_ept_kept)
{
	if (!guest_with_flags(0, VMX_EPT))
		return;
	*vmx_ept_entry(1, CASE_FRAME) = (CASE_FRAME2 | VMX_EPT_ALL);
	*vmx_ept_entry(1, CASE_OPERAND_PAGE2) = 0;
	*quad(CASE_FRAME2) = 0x1122334455667788;
	*quad(CASE_PTE_LONG(CASE_FRAME)) = CASE_PTE(CASE_FRAME, false);
	if (vmx_msr(VMX_MSR_EPT_VPID) >> 21 & 1) /* accessed and dirty flags */
		vmx_write(VMCS_EPTP, vmx_eptp() | 1u << 6);
	vmx_invept();
	/* mov CASE_FRAME, %rax; a while; mov %rax, CASE_FRAME + 8; a while; mov CASE_OPERAND_PAGE2, %eax */
	VMX_CODE(0x48, 0x8b, 0x04, 0x25, CASE_FRAME & 0xff, CASE_FRAME >> 8 & 0xff, CASE_FRAME >> 16, 0, A_WHILE, 0x48, 0x89, 0x04,
		 0x25, (CASE_FRAME + 8) & 0xff, CASE_FRAME >> 8 & 0xff, CASE_FRAME >> 16, 0, A_WHILE, 0x8b, 0x04, 0x25, 0,
		 CASE_OPERAND_PAGE2 >> 8 & 0xff, CASE_OPERAND_PAGE2 >> 16, 0);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, CASE_OPERAND_PAGE2);
	story_check("read", 0x1122334455667788, vmx_registers[RAX]);
	hold();
	story_check("written", 0x1122334455667788, *quad(CASE_FRAME2 + 8));
	if (vmx_msr(VMX_MSR_EPT_VPID) >> 21 & 1)
		for (unsigned i = 0; i < 3; i++) {
			volatile uint64_t *entry = vmx_ept_entry(1, CASE_FRAME);
			uint64_t first = *entry, second = *entry; /* one at each side of a move */

			story_check_at("flags", i, 3, first >> 8 & 3);
			story_check_at("flags_still", i, 3, second >> 8 & 3);
		}
}

/* ---- VMCSs ---- */

/* The same guest run on, exit after exit; its VMCS, the current pointer and VMX operation hold in between. */
STORY(vmx_exits_kept)
{
	if (!guest_with_flags(0, VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_RDTSC))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_RDTSC);
	VMX_CODE(0x48, 0xff, 0xc3, 0x0f, 0x31, 0xeb, 0xf9); /* 1: inc %rbx; rdtsc; jmp 1b */
	vmx_registers[RBX] = 100;
	for (unsigned i = 0; i < 6; i++) {
		check_run();
		hold();
		story_check_at("reason", i, VMX_EXIT_RDTSC, vmx_read(VMCS_EXIT_REASON));
		story_check_at("rip", i, CASE_STUB + 3, vmx_read(VMCS_GUEST_RIP));
		story_check_at("rbx", i, 101 + i, vmx_registers[RBX]);
		story_check_at("current", i, vmx_page(VMX_PAGE_VMCS), vmx_current());
		hold();
		story_check_at("current_still", i, vmx_page(VMX_PAGE_VMCS), vmx_current());
		vmx_write(VMCS_GUEST_RIP, CASE_STUB + 5);
	}
}

/* VMWRITE, a while, VMREAD; and of a VMCS that is put aside and taken up again. */
STORY(vmcs_kept)
{
	static const uint32_t fields[] = {VMCS_GUEST_CR3, VMCS_HOST_RIP, VMCS_CR0_SHADOW, VMCS_GUEST_GDTR_LIMIT, VMCS_TSC_OFFSET,
					  VMCS_HOST_FS, VMCS_GUEST_SYSENTER_ESP};

	if (!vmx_begin())
		return;
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		vmx_write(fields[i], 0x1230 + i);
	hold();
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		story_check_at("field", i, 0x1230 + i, vmx_read(fields[i]));
	vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS2));
	*(uint32_t *)vmx_at(VMX_PAGE_VMCS2, 0) = (uint32_t)vmx_msr(VMX_MSR_BASIC) & 0x7fffffff;
	story_check("second", 0, vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS2)));
	HELD("second_current", vmx_page(VMX_PAGE_VMCS2), vmx_current());
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		vmx_write(fields[i], 0x4560 + i);
	hold();
	story_check("first_again", 0, vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS)));
	hold();
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		story_check_at("field_again", i, 0x1230 + i, vmx_read(fields[i]));
	story_check("vmxon_in_root", VMX_FAIL(15), vmx_do_address(VMX_DO_VMXON, vmx_page(VMX_PAGE_VMXON)));
	hold();
	/* the VMXON region is none that a VMCS may be in */
	story_check("vmxon_pointer", VMX_FAIL(10), vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMXON)));
}

#define SMM_CODE  0x38000u
#define SMM_COUNT 0x38100u

/* An SMI in VMX operation: RSM comes back to it, with the same VMCS (SDM 3C 31.14.1). */
STORY(vmx_smi_kept)
{
	/* incb %cs:0x8100; ten NOPs; rsm */
	static const uint8_t code[] = {0x2e, 0xfe, 0x06, 0x00, 0x81, 0x90, 0x90, 0x90, 0x90, 0x90,
				       0x90, 0x90, 0x90, 0x90, 0x90, 0x0f, 0xaa};
	volatile uint8_t *count = (volatile uint8_t *)(uintptr_t)SMM_COUNT;

	if (!story_has_apic())
		return;
	story_spoils();
	machine_copy((void *)(uintptr_t)SMM_CODE, code, sizeof(code));
	*count = 0;
	apic_enable(0xff);
	apic_send(apic_id(), ICR_SMI | ICR_ASSERT);
	story_pause(100);
	if (!story_needs(*count == 1, "no SMI by ICR comes to SMBASE 30000H") || !vmx_begin())
		return;
	vmx_write(VMCS_GUEST_CR3, 0x123000);
	apic_send(apic_id(), ICR_SMI | ICR_ASSERT);
	story_pause(100);
	story_check("handled", 2, *count);
	HELD("current", vmx_page(VMX_PAGE_VMCS), vmx_current());
	story_check("field", 0x123000, vmx_read(VMCS_GUEST_CR3));
	story_check("in_root", VMX_FAIL(15), vmx_do_address(VMX_DO_VMXON, vmx_page(VMX_PAGE_VMXON)));
}

/* Without a current VMCS there is none later either. */
STORY(no_vmcs_kept)
{
	uint64_t value;

	if (!vmx_begin())
		return;
	vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS));
	HELD("none", ~0ull, vmx_current());
	story_check("read", VMX_FAIL_INVALID, vmx_try_read(VMCS_GUEST_RIP, &value));
}
