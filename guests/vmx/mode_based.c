/*
 * mode_based.c: mode-based execute control for EPT, and what EPT violations tell of the linear address (SDM 3C 29.3.2,
 * 29.3.3, table 28-7).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

enum access { READ, WRITE, FETCH };
/* Where the rights stand: a page of 4 KiB, of 2 MiB, the entry above one of 4 KiB. */
enum place { PAGE_4K, PAGE_2M, TABLE_2M };

#define TARGET (CASE_OPERAND_PAGE2 + 0x400u)
#define BIG    0x600000u
#define RIGHTS ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE | EPT_EXECUTE_USER))

static void access_code(enum access access)
{
	switch (access) {
	case READ: VMX_CODE(0x8a, 0x03); break;
	case WRITE: VMX_CODE(0x88, 0x03); break;
	default: VMX_CODE(0xff, 0xe3); break;
	}
}

static void put_vmcall(uint64_t address)
{
	static const uint8_t vmcall[3] = {0x0f, 0x01, 0xc1};

	machine_copy((void *)(uintptr_t)address, vmcall, 3);
	if (address < CASE_WINDOW + CASE_WINDOW_SIZE)
		world_accept((uint32_t)address, 3);
}

/* The guest's own tables: a user-mode page where @user, by all of its entries. */
static void map(uint64_t address, bool user, uint64_t more, uint64_t less)
{
	uint64_t upper = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D, last = (upper & ~(user ? 0 : (uint64_t)PTE_U) & ~less) | more;

	world_poke(CASE_CR3_LONG, &(uint64_t){CASE_PDPT | upper}, 8);
	world_poke(CASE_PDPT, &(uint64_t){CASE_PD | upper}, 8);
	if (address == BIG) {
		world_poke(CASE_PD + 8 * (BIG >> 21), &(uint64_t){BIG | last | PTE_PS}, 8);
		return;
	}
	world_poke(CASE_PD, &(uint64_t){CASE_PT | upper}, 8);
	world_poke(CASE_PTE_LONG(address), &(uint64_t){(address & ~0xfffull) | last}, 8);
}

/* Everything else can be executed in either mode. */
static void allow_all(void)
{
	for (uint32_t page = 0; page < 0x200000; page += 4096)
		*vmx_ept_entry(1, page) |= EPT_EXECUTE_USER;
	for (uint64_t i = 0; i < 2048; i++)
		*vmx_ept_entry(2, i << 21) |= EPT_EXECUTE_USER;
	for (uint64_t i = 0; i < 4; i++)
		*vmx_ept_entry(3, i << 30) |= EPT_EXECUTE_USER;
	*vmx_ept_entry(4, 0) |= EPT_EXECUTE_USER;
}

static uint64_t *place_entry(enum place place)
{
	uint64_t *table = vmx_at(VMX_PAGE_SPARE, 0);

	if (place == PAGE_4K)
		return vmx_ept_entry(1, TARGET);
	if (place == TABLE_2M) {
		for (unsigned i = 0; i < 512; i++)
			table[i] = (BIG + i * 4096ull) | VMX_EPT_ALL | EPT_EXECUTE_USER;
		*vmx_ept_entry(2, BIG) = vmx_page(VMX_PAGE_SPARE) | RIGHTS;
	}
	return vmx_ept_entry(2, BIG);
}

static bool use_flags(bool flags)
{
	if (!flags)
		return true;
	if (!vmx_needs_bit(VMX_MSR_EPT_VPID, 21))
		return false;
	vmx_write(VMCS_EPTP, vmx_eptp() | EPTP_ACCESSED_DIRTY);
	return true;
}

/* 29.3.3.1: bit 10 counts with the control alone. */
static bool is_present(uint64_t rights, bool control) { return rights & (control ? RIGHTS : RIGHTS & ~(uint64_t)EPT_EXECUTE_USER); }

static bool is_misconfigured(uint64_t rights, bool control)
{
	bool executes = rights & (EPT_EXECUTE | (control ? EPT_EXECUTE_USER : 0));

	if ((rights & (EPT_READ | EPT_WRITE)) == EPT_WRITE)
		return true;
	return !(rights & EPT_READ) && executes && !(vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_EXECUTE_ONLY);
}

static bool is_allowed(uint64_t rights, bool control, enum access access, bool user)
{
	if (access == FETCH)
		return rights & (control && user ? EPT_EXECUTE_USER : EPT_EXECUTE);
	return rights & (access == READ ? EPT_READ : EPT_WRITE);
}

static void check_violation(uint64_t rights, bool control, enum access access, uint64_t address)
{
	uint64_t got = vmx_read(VMCS_EXIT_QUALIFICATION);
	uint64_t seen = is_present(rights, control) ? rights : 0;
	uint64_t want = (access == READ ? EPT_VIOLATION_READ : access == WRITE ? EPT_VIOLATION_WRITE : EPT_VIOLATION_FETCH) |
			(seen & 7) << EPT_VIOLATION_RIGHTS_SHIFT | EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL |
			(seen & EPT_EXECUTE_USER ? EPT_VIOLATION_USER_EXECUTE : 0);
	uint64_t mask = control ? 0x1ff : 0x1bf; /* without the control bit 6 is undefined */

	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	story_check("qualification", want & mask, got & mask);
	vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, address);
	vmx_check_field(VMCS_GUEST_LINEAR_ADDRESS, address);
}

/*
 * @index: bits 0 to 3: R, W, X, XU of the entry at @from (enum place); @value: the access; @mode: 1: the page is a user-mode
 * one, 2: and CPL is 3; @to: accessed and dirty flags; @count: the control.
 */
STORY(mode_based_execute)
{
	unsigned bits = (unsigned)GIVEN(index), pages = (unsigned)GIVEN(mode);
	uint64_t rights = (bits & 7) | (bits & 8 ? EPT_EXECUTE_USER : 0), *entry, before;
	enum place place = (enum place)GIVEN(from);
	enum access access = (enum access)GIVEN(value);
	bool control = GIVEN(count), flags = GIVEN(to), user = pages;
	uint64_t address = place == PAGE_4K ? TARGET : BIG;

	if (!vmx_baseline(MODE_LONG, pages == 2 ? 3 : 0, VMX_EPT) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE) || !use_flags(flags))
		return;
	if (control)
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE);
	map(address, user, 0, 0);
	put_vmcall(address);
	allow_all();
	entry = place_entry(place);
	*entry = (*entry & ~RIGHTS) | rights;
	before = *entry;
	vmx_registers[RBX] = address;
	vmx_registers[RAX] = 0x0f; /* what stands there */
	access_code(access);
	story_check("entry", 0, vmx_run());
	if (is_present(rights, control) && is_misconfigured(rights, control)) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_MISCONFIGURATION);
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, address);
		story_check("untouched", before, *entry);
	} else if (!is_allowed(rights, control, access, user)) {
		check_violation(rights, control, access, address);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		vmx_check_field(VMCS_GUEST_RIP, access == FETCH ? address : CASE_STUB + 2);
		story_check("flags", before | (flags ? EPT_ACCESSED | (place != TABLE_2M && access == WRITE ? EPT_DIRTY : 0) : 0), *entry);
	}
}

/* Without paging all linear addresses are user-mode ones. @index: X, XU. */
STORY(mode_based_unpaged)
{
	uint64_t rights = EPT_READ | EPT_WRITE | (GIVEN(index) & 1 ? EPT_EXECUTE : 0) | (GIVEN(index) & 2 ? EPT_EXECUTE_USER : 0);
	uint64_t got;

	if (!vmx_baseline(MODE_PROT32, 0, VMX_EPT | VMX_UNRESTRICTED) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE);
	vmx_write(VMCS_GUEST_CR0, vmx_read(VMCS_GUEST_CR0) & ~(uint64_t)CR0_PG);
	put_vmcall(TARGET);
	allow_all();
	*vmx_ept_entry(1, TARGET) = (*vmx_ept_entry(1, TARGET) & ~RIGHTS) | rights;
	vmx_registers[RBX] = TARGET;
	access_code(FETCH);
	story_check("entry", 0, vmx_run());
	if (rights & EPT_EXECUTE_USER) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		vmx_check_field(VMCS_GUEST_RIP, TARGET);
		return;
	}
	check_violation(rights, true, FETCH, TARGET);
	got = vmx_read(VMCS_EXIT_QUALIFICATION);
	if (vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_ADVANCED)
		story_check("advanced", EPT_VIOLATION_USER | EPT_VIOLATION_WRITABLE, got & 0xe00);
}

/* What was fetched in one mode says nothing of the other: the page's kind changes between two entries. @mode: from user-mode to supervisor-mode. */
STORY(mode_based_cached)
{
	bool back = GIVEN(mode);
	uint64_t right = back ? EPT_EXECUTE_USER : EPT_EXECUTE, own = CASE_PTE(TARGET, back), other = CASE_PTE(TARGET, !back);

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE);
	map(TARGET, back, 0, 0);
	world_poke(CASE_PTE_LONG(TARGET), &own, 8);
	put_vmcall(TARGET);
	allow_all();
	*vmx_ept_entry(1, TARGET) = (*vmx_ept_entry(1, TARGET) & ~RIGHTS) | EPT_READ | EPT_WRITE | right;
	vmx_registers[RBX] = TARGET;
	access_code(FETCH);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	world_poke(CASE_PTE_LONG(TARGET), &other, 8);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	story_check("entry", 0, vmx_run());
	check_violation(EPT_READ | EPT_WRITE | right, true, FETCH, TARGET);
}

/*
 * Advanced information (table 28-7): @index: bits 0 to 2 user-mode, writable, execute-disable in the guest's own tables; @value: the access;
 * @mode 1: without EFER.NXE, where nothing is execute-disable.
 */
STORY(ept_advanced)
{
	unsigned bits = (unsigned)GIVEN(index);
	enum access access = (enum access)GIVEN(value);
	bool nxe = !GIVEN(mode), user = bits & 1, writable = bits & 2, disabled = bits & 4;
	uint64_t want = (user ? EPT_VIOLATION_USER : 0) | (writable ? EPT_VIOLATION_WRITABLE : 0) | (disabled ? EPT_VIOLATION_NO_EXECUTE : 0);

	if (!vmx_baseline(MODE_LONG, user ? 3 : 0, VMX_EPT) || !vmx_needs_bit(VMX_MSR_EPT_VPID, 22) || !vmx_needs(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER))
		return;
	if (nxe)
		vmx_write(VMCS_GUEST_EFER, vmx_read(VMCS_GUEST_EFER) | EFER_NXE);
	vmx_write(VMCS_GUEST_CR0, vmx_read(VMCS_GUEST_CR0) & ~(uint64_t)CR0_WP);
	map(TARGET, user, disabled ? PTE_NX : 0, writable ? 0 : PTE_W);
	*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
	vmx_registers[RBX] = TARGET;
	access_code(access);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	story_check("advanced", want, vmx_read(VMCS_EXIT_QUALIFICATION) & 0xe00);
}
