/*
 * structures.c: structures that lie in one another, or are as large as can be: what each is used for is
 * defined by itself, and so is what comes of both. Regions over a VMCS are left out: what is in one is the
 * processor's (25.11.1, 25.11.4).
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define TARGET (CASE_OPERAND_PAGE2 + 0x400u)
#define RIGHTS ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE))

static void again(void)
{
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	check_run();
}

/* ---- bitmaps ---- */

/* One page is both bitmaps of ports: a port and the one 8000H above it exit alike. @mode: the bit is 1. */
STORY(one_io_bitmap)
{
	bool exits = GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS);
	vmx_write(VMCS_IO_BITMAP_A, vmx_page(VMX_PAGE_IO_A));
	vmx_write(VMCS_IO_BITMAP_B, vmx_page(VMX_PAGE_IO_A));
	*(uint8_t *)vmx_at(VMX_PAGE_IO_A, 0x80 / 8) = 0xff;
	if (!exits)
		*(uint8_t *)vmx_at(VMX_PAGE_IO_A, 0x80 / 8) = 0xfe;
	VMX_CODE(0xe6, 0x80); /* OUT 80H, AL */
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, exits ? VMX_EXIT_IO : VMX_EXIT_VMCALL);
	if (!exits)
		return;
	vmx_check_field(VMCS_EXIT_QUALIFICATION, 0x80u << 16 | 1u << 6);
	VMX_CODE(0xee); /* OUT DX, AL */
	vmx_registers[RDX] = 0x8080;
	again();
	vmx_check_exit(VMX_EXIT_IO, 0x8080u << 16, 1);
}

/* The MSR bitmap is the port bitmap's page, and the shadow-VMCS bitmaps' as well: each reads its own bits. */
STORY(one_bitmap)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_IO_BITMAPS | VMX_USE_MSR_BITMAPS);
	vmx_write(VMCS_IO_BITMAP_A, vmx_page(VMX_PAGE_IO_A));
	vmx_write(VMCS_IO_BITMAP_B, vmx_page(VMX_PAGE_IO_B));
	vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_IO_A));
	*(uint8_t *)vmx_at(VMX_PAGE_IO_A, MSR_PAT / 8) = 1 << (MSR_PAT % 8);
	VMX_CODE(0x0f, 0x32);
	vmx_registers[RCX] = MSR_PAT;
	check_run();
	vmx_check_exit(VMX_EXIT_RDMSR, 0, 2);
	VMX_CODE(0xec);
	vmx_registers[RDX] = MSR_PAT;
	again();
	vmx_check_exit(VMX_EXIT_IO, (uint64_t)MSR_PAT << 16 | 1u << 3, 1);
	VMX_CODE(0x0f, 0x32);
	vmx_registers[RCX] = MSR_TSC;
	again();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
}

/* ---- lists of MSRs ---- */

static uint64_t *list(enum vmx_page page, unsigned slot) { return vmx_at(page, 16 * slot); }

static void put(enum vmx_page page, unsigned slot, uint32_t index, uint64_t value)
{
	list(page, slot)[0] = index;
	list(page, slot)[1] = value;
}

enum overlap { STORED_IS_LOADED, STORED_FOR_HOST, SHIFTED, ALL_ONE };

/*
 * @mode 0: the exit's store list is the next entry's load list; 1: and the exit's own load list, which is
 * read behind it; 2: the load list begins at the store list's second entry; 3: all three are one.
 */
STORY(one_list)
{
	enum overlap overlap = (enum overlap)GIVEN(mode);
	uint64_t at = vmx_page(VMX_PAGE_EXIT_STORE);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
	vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
	put(VMX_PAGE_EXIT_STORE, 0, MSR_KERNEL_GS_BASE, 0x1111);
	put(VMX_PAGE_EXIT_STORE, 1, MSR_LSTAR, 0x2222);
	vmx_write(VMCS_EXIT_MSR_STORE, at);
	vmx_write(VMCS_EXIT_MSR_STORE_COUNT, 2);
	if (overlap == STORED_IS_LOADED || overlap == ALL_ONE) {
		vmx_write(VMCS_ENTRY_MSR_LOAD, at);
		vmx_write(VMCS_ENTRY_MSR_LOAD_COUNT, 2);
	}
	if (overlap != STORED_IS_LOADED) {
		vmx_write(VMCS_EXIT_MSR_LOAD, overlap == SHIFTED ? at + 16 : at);
		vmx_write(VMCS_EXIT_MSR_LOAD_COUNT, overlap == SHIFTED ? 1 : 2);
	}
	machine_write_msr(MSR_LSTAR, 0x3333);
	/* WRMSR of IA32_KERNEL_GS_BASE, EDX:EAX = 4444H; MOV ECX, IA32_LSTAR; RDMSR */
	VMX_CODE(0x0f, 0x30, 0xb9, 0x82, 0x00, 0x00, 0xc0, 0x0f, 0x32);
	vmx_registers[RCX] = MSR_KERNEL_GS_BASE;
	vmx_registers[RAX] = 0x4444;
	vmx_registers[RDX] = 0;
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	/* What the entry loaded is what the guest had; what the exit stored is what the host has. */
	story_check("guest", overlap == STORED_IS_LOADED || overlap == ALL_ONE ? 0x2222 : 0x3333,
		    vmx_registers[RAX]);
	story_check("stored_0", 0x4444, list(VMX_PAGE_EXIT_STORE, 0)[1]);
	story_check("stored_1", vmx_registers[RAX], list(VMX_PAGE_EXIT_STORE, 1)[1]);
	story_check("host_0", 0x4444, machine_read_msr(MSR_KERNEL_GS_BASE));
	story_check("host_1", vmx_registers[RAX], machine_read_msr(MSR_LSTAR));
	if (overlap == STORED_IS_LOADED) { /* and comes back at the next entry */
		machine_write_msr(MSR_KERNEL_GS_BASE, 0x5555);
		vmx_check_runs();
		story_check("loaded", 0x4444, list(VMX_PAGE_EXIT_STORE, 0)[1]);
	}
	machine_write_msr(MSR_LSTAR, CASE_LAND_SYSCALL);
	machine_write_msr(MSR_KERNEL_GS_BASE, CASE_KERNEL_GS_BASE);
}

/* Lists as long as is recommended at least (A.6): 512. @mode 0: loaded by the entry; 1: stored; 2: loaded by
 * the exit. */
STORY(longest_list)
{
	static const uint32_t counts[] = {VMCS_ENTRY_MSR_LOAD_COUNT, VMCS_EXIT_MSR_STORE_COUNT,
					  VMCS_EXIT_MSR_LOAD_COUNT};
	static const uint32_t addresses[] = {VMCS_ENTRY_MSR_LOAD, VMCS_EXIT_MSR_STORE, VMCS_EXIT_MSR_LOAD};
	unsigned mode = (unsigned)GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	/* Two pages, one behind the other. */
	for (unsigned i = 0; i < 512; i++)
		put(VMX_PAGE_SPARE, i, MSR_KERNEL_GS_BASE, mode == 1 ? 0x5a5a : i);
	vmx_write(addresses[mode], vmx_page(VMX_PAGE_SPARE));
	vmx_write(counts[mode], 512);
	machine_write_msr(MSR_KERNEL_GS_BASE, 0x7777);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	if (mode == 1) {
		story_check("first", 0x7777, list(VMX_PAGE_SPARE, 0)[1]);
		story_check("last", 0x7777, list(VMX_PAGE_SPARE, 511)[1]);
	} else {
		story_check("last", 511, machine_read_msr(MSR_KERNEL_GS_BASE));
		story_check("kept", 511, list(VMX_PAGE_SPARE, 511)[1]);
	}
	machine_write_msr(MSR_KERNEL_GS_BASE, CASE_KERNEL_GS_BASE);
}

/* ---- pages of the virtual APIC ---- */

/*
 * The virtual-APIC page is the APIC-access page. @mode 0: a read of VTPR is virtualized, another exits; 1: a
 * write of VTPR, which is emulated there.
 */
STORY(one_apic_page)
{
	uint32_t *page = vmx_at(VMX_PAGE_VIRTUAL_APIC, 0);
	bool write = GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) ||
	    !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC);
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_APIC_ACCESS, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	page[APIC_TPR / 4] = 0x50;
	page[APIC_ID / 4] = 0x1234;
	vmx_registers[RBX] = vmx_page(VMX_PAGE_VIRTUAL_APIC) + APIC_TPR;
	vmx_registers[RAX] = 0x30;
	if (write)
		VMX_CODE(0x89, 0x03);
	else
		VMX_CODE(0x8b, 0x03);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("vtpr", write ? 0x30 : 0x50, page[APIC_TPR / 4]);
	story_check("read", write ? 0x30 : 0x50, vmx_registers[RAX]);
	vmx_registers[RBX] = vmx_page(VMX_PAGE_VIRTUAL_APIC) + APIC_ID;
	again();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_ACCESS);
	vmx_check_field(VMCS_EXIT_QUALIFICATION, (unsigned)APIC_ID | (unsigned)write << 12);
	story_check("kept", 0x1234, page[APIC_ID / 4]);
}

/* The posted-interrupt descriptor stands in the virtual-APIC page, where no register is. */
STORY(descriptor_in_apic_page)
{
	uint32_t *descriptor = vmx_at(VMX_PAGE_VIRTUAL_APIC, 0x800);

	if (!story_has_apic() || !vmx_baseline(MODE_LONG, 0, VMX_BARE) ||
	    !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) ||
	    !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUAL_INTERRUPTS) ||
	    !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUAL_INTERRUPTS);
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS);
	vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	for (unsigned i = 0; i < 4; i++)
		vmx_write(VMCS_EOI_EXIT_0 + 2 * i, 0);
	vmx_write(VMCS_GUEST_INTERRUPT_STATUS, 0);
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_POSTED_INTERRUPT_VECTOR, 0xf2);
	vmx_write(VMCS_POSTED_INTERRUPT_DESCRIPTOR, vmx_page(VMX_PAGE_VIRTUAL_APIC) + 0x800);
	vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
	exchange.in.field[STATE_rflags] |= RFLAGS_IF;
	descriptor[2] = 1u << 5;
	descriptor[8] = 1;
	apic_pend_interrupt(0xf2);
	VMX_CODE(0x90, 0x90);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("vector", 0x45, vmx_handler_vector());
	story_check("posted", 0, descriptor[2]);
	story_check("outstanding", 0, descriptor[8]);
}

/* ---- EPT tables that lead to themselves, and a guest that has its own ---- */

/*
 * The second entry of the PML4 is the PML4: with all indices 1 an address of it is the table itself. @mode 0:
 * the guest reads it there; 1: it maps a page by it, which needs no INVEPT; 2: execute access of all entries
 * off: a fetch violates.
 */
STORY(ept_in_itself)
{
	uint64_t *pml4 = vmx_at(VMX_PAGE_EPT, 0), *guest = (uint64_t *)(uintptr_t)CASE_PD;
	const uint64_t own = 1ull << 39 | 1ull << 30 | 1ull << 21 | 1ull << 12, self = 0x600000;
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t entry;

	(void)guest;
	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT))
		return;
	pml4[1] = vmx_page(VMX_PAGE_EPT) | (mode == 2 ? EPT_READ | EPT_WRITE : RIGHTS);
	/* The guest maps 600000H by 2 MiB to where its own page 1 is that. */
	entry = (own & ~0x1fffffull) | PTE_P | PTE_W | PTE_PS | PTE_A | PTE_D;
	world_poke(CASE_PD + 8 * (self >> 21), &entry, 8);
	vmx_registers[RBX] = self + 0x1000 + (mode == 1 ? 16 : 8);
	vmx_registers[RSI] = self + 0x2000;
	if (mode == 2) {
		VMX_CODE(0xff, 0xe3); /* JMP RBX */
		check_run();
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, own + 8);
		story_check("fetch", EPT_VIOLATION_FETCH | 3u << EPT_VIOLATION_RIGHTS_SHIFT,
			    vmx_read(VMCS_EXIT_QUALIFICATION) & 0x3f);
		return;
	}
	if (mode == 0) {
		VMX_CODE(0x48, 0x8b, 0x03); /* MOV RAX, [RBX] */
		check_run();
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("itself", pml4[1], vmx_registers[RAX]);
		return;
	}
	/* Entry 2 becomes a page of 4 KiB, as the last level reads it: MOV [RBX], RAX; MOV CL, [RSI] */
	VMX_CODE(0x48, 0x89, 0x03, 0x8a, 0x0e);
	vmx_registers[RAX] = CASE_FRAME | RIGHTS | 6ull << EPT_TYPE_SHIFT;
	*(volatile uint8_t *)(uintptr_t)CASE_FRAME = 0x3c;
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("mapped", 0x3c, vmx_registers[RCX] & 0xff);
	*(volatile uint16_t *)(uintptr_t)CASE_FRAME = CASE_END;
}

/* The guest's tables and EPT's are the same page: its PML4 read as a table of nested pages. */
STORY(ept_in_guest)
{
	volatile uint64_t *entry;

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT))
		return;
	/* The guest finds the entry of TARGET in its own memory, which is mapped as it is, and makes it
	 * present. */
	entry = vmx_ept_entry(1, TARGET);
	*entry &= ~RIGHTS;
	*(volatile uint8_t *)(uintptr_t)TARGET = 0x77;
	world_accept(TARGET, 1);
	/* OR QWORD [RBX], 7; MOV CL, [RSI] */
	VMX_CODE(0x48, 0x83, 0x0b, 0x07, 0x8a, 0x0e);
	vmx_registers[RBX] = (uintptr_t)entry;
	vmx_registers[RSI] = TARGET;
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("read", 0x77, vmx_registers[RCX] & 0xff);
}

/* ---- #VE, PML and the EPTP list ---- */

/* The log's page is one that is logged: each of its own writes is none of the guest's. */
STORY(log_in_guest)
{
	uint64_t *log = vmx_at(VMX_PAGE_PML, 0);

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_PML) ||
	    !vmx_needs_bit(VMX_MSR_EPT_VPID, 21))
		return;
	vmx_write(VMCS_EPTP, vmx_eptp() | EPTP_ACCESSED_DIRTY);
	for (uint32_t page = 0; page < 0x200000; page += 4096)
		*vmx_ept_entry(1, page) |= EPT_ACCESSED | EPT_DIRTY;
	*vmx_ept_entry(1, TARGET) &= ~(uint64_t)EPT_DIRTY;
	*vmx_ept_entry(2, vmx_page(VMX_PAGE_PML)) &= ~(uint64_t)EPT_DIRTY;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_PML);
	vmx_write(VMCS_PML_ADDRESS, vmx_page(VMX_PAGE_PML));
	vmx_write(VMCS_PML_INDEX, 511);
	VMX_CODE(0x88, 0x03);
	vmx_registers[RBX] = TARGET;
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	world_accept(TARGET, 1);
	story_check("logged", TARGET & ~4095ull, log[511]);
	vmx_check_field(VMCS_PML_INDEX, 510);
	story_check("clean", 0, *vmx_ept_entry(2, vmx_page(VMX_PAGE_PML)) & EPT_DIRTY);
}

/* ---- regions ---- */

/* A region may be used as something else once VMCLEAR has made it inactive, and be a VMCS again. @mode 0: as
 * data; 1: as the VMXON region. */
STORY(region_again)
{
	uint32_t revision;

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	revision = *(const uint32_t *)vmx_at(VMX_PAGE_VMXON, 0);
	vmx_check_runs();
	vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS));
	if (GIVEN(mode)) {
		story_check("off", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
		machine_fill(vmx_at(VMX_PAGE_VMCS, 0), 0, 4096);
		*(uint32_t *)vmx_at(VMX_PAGE_VMCS, 0) = revision;
		story_check("on", 0, vmx_do_address(VMX_DO_VMXON, vmx_page(VMX_PAGE_VMCS)));
		story_check("own", VMX_FAIL_INVALID, vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS)));
		story_check("off_again", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
		story_check("on_again", 0, vmx_do_address(VMX_DO_VMXON, vmx_page(VMX_PAGE_VMXON)));
	} else {
		machine_fill(vmx_at(VMX_PAGE_VMCS, 0), 0xff, 4096);
		story_check("not_a_vmcs", VMX_FAIL_INVALID,
			    vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS)));
	}
	machine_fill(vmx_at(VMX_PAGE_VMCS, 0), 0, 4096);
	*(uint32_t *)vmx_at(VMX_PAGE_VMCS, 0) = revision;
	story_check("clear", 0, vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS)));
	story_check("load", 0, vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS)));
	vmx_load_host();
	vmx_load_controls(MODE_LONG, VMX_BARE);
	vmx_load_guest(MODE_LONG);
	vmx_set_clear();
	vmx_check_runs();
}
