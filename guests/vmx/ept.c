/*
 * ept.c: extended page tables: every right of an entry at each level for each access, misconfigurations,
 * accessed and dirty flags, the walk of the guest's own tables, execute-only and mode-based execute, #VE, the
 * page-modification log, EPTP switching, and what INVEPT, INVVPID and VM entry must drop (SDM
 * 3C 26.5.6, 26.5.7, 29.3, 29.4).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

enum access { READ, WRITE, FETCH, MODIFY, ACCESSES };

/* MOV AL, [RBX]; MOV [RBX], AL; JMP RBX; INC BYTE [RBX] */
static void access_code(enum access access)
{
	switch (access) {
	case READ: VMX_CODE(0x8a, 0x03); break;
	case WRITE: VMX_CODE(0x88, 0x03); break;
	case FETCH: VMX_CODE(0xff, 0xe3); break;
	default: VMX_CODE(0xfe, 0x03); break;
	}
}

/* The page that is accessed: the case's second operand page, which nothing else needs; a fetch finds VMCALL.
 */
#define TARGET (CASE_OPERAND_PAGE2 + 0x400u)
#define BIG    0x600000u /* for entries of 2 MiB, 1 GiB and above: nothing else needs it */
#define RIGHTS (EPT_READ | EPT_WRITE | EPT_EXECUTE)

static void put_vmcall(uint64_t address)
{
	static const uint8_t vmcall[3] = {0x0f, 0x01, 0xc1};

	machine_copy((void *)(uintptr_t)address, vmcall, 3);
	if (address < CASE_WINDOW + CASE_WINDOW_SIZE)
		world_accept((uint32_t)address, 3);
}

static bool begin(unsigned cpl)
{
	if (!vmx_baseline(MODE_LONG, cpl, VMX_EPT))
		return false;
	put_vmcall(TARGET);
	vmx_registers[RBX] = TARGET;
	return true;
}

static bool has_accessed_dirty(void) { return vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_ACCESSED_DIRTY; }

static bool use_accessed_dirty(bool wanted)
{
	if (!wanted)
		return true;
	if (!story_needs(has_accessed_dirty(), "msr.48c[21]=0"))
		return false;
	vmx_write(VMCS_EPTP, vmx_eptp() | EPTP_ACCESSED_DIRTY);
	return true;
}

static bool allows(uint64_t rights, enum access access)
{
	switch (access) {
	case READ: return rights & EPT_READ;
	case WRITE: return rights & EPT_WRITE;
	case FETCH: return rights & EPT_EXECUTE;
	default: return (rights & EPT_READ) && (rights & EPT_WRITE);
	}
}

/* Write without read is a misconfiguration; execute alone is one where the processor does not have it
 * (29.3.3.1). */
static bool misconfigured(uint64_t rights)
{
	if ((rights & (EPT_READ | EPT_WRITE)) == EPT_WRITE)
		return true;
	return (rights & RIGHTS) == EPT_EXECUTE && !(vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_EXECUTE_ONLY);
}

static void check_violation(enum access access, uint64_t rights, uint64_t address, uint64_t linear,
			    bool final)
{
	uint64_t got = vmx_read(VMCS_EXIT_QUALIFICATION);
	uint64_t want = (access == READ    ? EPT_VIOLATION_READ
			 : access == FETCH ? EPT_VIOLATION_FETCH
					   : EPT_VIOLATION_WRITE) |
			(rights & RIGHTS) << EPT_VIOLATION_RIGHTS_SHIFT | EPT_VIOLATION_LINEAR_VALID |
			(final ? EPT_VIOLATION_FINAL : 0);
	uint64_t mask =
		access == MODIFY
			? 0x1beull
			: 0x1bfull; /* a write that reads first may say so; bit 6 is mode-based execute's */

	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	story_check("qualification", want & mask, got & mask);
	vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, address);
	vmx_check_field(VMCS_GUEST_LINEAR_ADDRESS, linear);
	vmx_check_field(VMCS_GUEST_RIP, access == FETCH ? linear : CASE_STUB);
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
}

/*
 * @index: rights of the entry; @value: the access; @from: level of the entry, 1 (4 KiB) to 4; @mode: CPL 3;
 * @to: accessed and dirty flags on. The rest of the walk permits everything. Level 2 maps 2 MiB where @count
 * is 1, else it leads to a table; so level 3.
 */
STORY(ept_access)
{
	uint64_t rights = GIVEN(index);
	enum access access = (enum access)GIVEN(value);
	unsigned level = (unsigned)GIVEN(from);
	bool leaf = level == 1 || GIVEN(count), flags = GIVEN(to);
	uint64_t address = level == 1 ? TARGET : BIG + 0x1000, *entry, before;

	if (!begin(GIVEN(mode) ? 3 : 0) || !use_accessed_dirty(flags))
		return;
	if (level == 3 && leaf && !vmx_needs_bit(VMX_MSR_EPT_VPID, 17))
		return;
	if (level > 1) { /* the address elsewhere, so that the code's own pages are not in the way: 512 GiB, 1
			    GiB, 2 MiB up */
		static const uint64_t steps[] = {0, 0, BIG, 5ull << 30, 1ull << 39};
		uint64_t user = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D;

		address = steps[level];
		*vmx_ept_entry(4, 0) |= 0;
		machine_fill(vmx_at(VMX_PAGE_SPARE, 0), 0, 8192);
		/* The guest's own tables lead to it by one page of 2 MiB at BIG. */
		world_poke(CASE_PD + 8 * (BIG >> 21), &(uint64_t){address | user | PTE_PS}, 8);
		if (GIVEN(mode)) {
			world_poke(CASE_CR3_LONG, &(uint64_t){CASE_PDPT | user}, 8);
			world_poke(CASE_PDPT, &(uint64_t){CASE_PD | user}, 8);
		}
		if (level == 2 && !leaf) {
			uint64_t *table = vmx_at(VMX_PAGE_SPARE, 0);

			for (unsigned i = 0; i < 512; i++)
				table[i] = (BIG + i * 4096ull) | VMX_EPT_ALL;
			*vmx_ept_entry(2, BIG) = vmx_page(VMX_PAGE_SPARE) | RIGHTS;
		} else if (level == 3 && leaf) {
			((uint64_t *)vmx_at(VMX_PAGE_EPT + 1, 0))[5] =
				VMX_EPT_ALL | EPT_LARGE; /* 1 GiB: to address 0 */
		} else if (level == 3) {
			((uint64_t *)vmx_at(VMX_PAGE_SPARE, 0))[0] = BIG | VMX_EPT_ALL | EPT_LARGE;
			((uint64_t *)vmx_at(VMX_PAGE_EPT + 1, 0))[5] = vmx_page(VMX_PAGE_SPARE) | RIGHTS;
		} else if (level == 4) {
			((uint64_t *)vmx_at(VMX_PAGE_SPARE, 0))[0] = vmx_page(VMX_PAGE_SPARE2) | RIGHTS;
			((uint64_t *)vmx_at(VMX_PAGE_SPARE2, 0))[0] = BIG | VMX_EPT_ALL | EPT_LARGE;
			((uint64_t *)vmx_at(VMX_PAGE_EPT, 0))[1] = vmx_page(VMX_PAGE_SPARE) | RIGHTS;
		}
		vmx_registers[RBX] = BIG + 0x1000;
		put_vmcall(level == 3 && leaf ? 0x1000 : BIG + 0x1000);
		address += 0x1000;
	}
	entry = level == 1   ? vmx_ept_entry(1, TARGET)
		: level == 2 ? vmx_ept_entry(2, BIG)
		: level == 3 ? (uint64_t *)vmx_at(VMX_PAGE_EPT + 1, 5 * 8)
			     : (uint64_t *)vmx_at(VMX_PAGE_EPT, 8);
	*entry = (*entry & ~RIGHTS) | rights;
	before = *entry;
	access_code(access);
	story_check("entry", 0, vmx_run());
	if (misconfigured(rights)) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_MISCONFIGURATION);
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, address);
		story_check("untouched", before, *entry);
	} else if (!allows(rights, access)) {
		check_violation(access, rights, address, level == 1 ? TARGET : BIG + 0x1000, true);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		story_check(
			"flags",
			before | (flags ? EPT_ACCESSED |
						  (leaf && access != READ && access != FETCH ? EPT_DIRTY : 0)
					: 0),
			*entry);
	}
}

/* ---- misconfigurations: @index: which, of a 4 KiB entry, or of a 2 MiB entry where @mode ---- */

STORY(ept_misconfiguration)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t *entry, width;
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	width = r[0] & 0xff;
	if (!begin(0))
		return;
	entry = vmx_ept_entry(1, TARGET);
	if (GIVEN(mode)) {
		entry = vmx_ept_entry(2, BIG);
		vmx_registers[RBX] = BIG;
		put_vmcall(BIG);
	}
	switch (which) {
	case 0: *entry = (*entry & ~(7ull << EPT_TYPE_SHIFT)) | 2ull << EPT_TYPE_SHIFT; break;
	case 1: *entry = (*entry & ~(7ull << EPT_TYPE_SHIFT)) | 3ull << EPT_TYPE_SHIFT; break;
	case 2: *entry = (*entry & ~(7ull << EPT_TYPE_SHIFT)) | 7ull << EPT_TYPE_SHIFT; break;
	case 3:
		if (!story_needs(width < 52, "cpuid.80000008.0.eax=0x34"))
			return;
		*entry |= 1ull << width;
		break;
	case 4:
		if (!story_needs(width < 51, "cpuid.80000008.0.eax=0x33"))
			return;
		*entry |= 1ull << 51;
		break;
	case 5: *entry |= GIVEN(mode) ? 1ull << 12 : 0; break; /* of 2 MiB: bits 20:12 */
	case 6: *entry |= GIVEN(mode) ? 1ull << 20 : 0; break;
	case 7:
		vmx_ept_entry(3, TARGET)[0] |= 1ull << 3;
		break; /* of an entry that leads to a table: bits 7:3 */
	case 8: vmx_ept_entry(3, TARGET)[0] |= 1ull << 6; break;
	case 9: vmx_ept_entry(4, TARGET)[0] |= 1ull << 7; break;
	case 10: *entry |= 1ull << 52 | 1ull << 11; break; /* ignored */
	case 11:
		*entry = 2ull << EPT_TYPE_SHIFT | 1ull << 51 | EPT_LARGE;
		break; /* not present: nothing else counts */
	default: break;
	}
	story_check("entry", 0, vmx_run());
	if (which == 7 || which == 8 || which == 9) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_MISCONFIGURATION);
		return;
	}
	access_code(READ);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	vmx_invept();
	story_check("entry", 0, vmx_run());
	if (which == 10 || ((which == 5 || which == 6) && !GIVEN(mode))) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	} else {
		vmx_check_field(VMCS_EXIT_REASON,
				which == 11 ? VMX_EXIT_EPT_VIOLATION : VMX_EXIT_EPT_MISCONFIGURATION);
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, GIVEN(mode) ? BIG : TARGET);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	}
}

/* ---- the guest's own tables, by EPT: @index: which of them lacks @value; accesses to them are reads, or
 * writes with flags ---- */

STORY(ept_walk)
{
	static const uint32_t tables[] = {CASE_CR3_LONG, CASE_PDPT, CASE_PD, CASE_PT};
	static const uint8_t shifts[] = {39, 30, 21, 12};
	unsigned which = (unsigned)GIVEN(index);
	uint64_t rights = GIVEN(value), got;
	uint32_t table = tables[which];
	bool flags = GIVEN(to), needs_write = GIVEN(mode);
	uint64_t at = table + ((uint64_t)CASE_STUB >> shifts[which] & 511) * 8;

	if (!begin(0) || !use_accessed_dirty(flags))
		return;
	if (needs_write) { /* the guest's own accessed flag is yet to be set */
		uint64_t entry = *(const uint64_t *)(uintptr_t)at & ~PTE_A;

		world_poke((uint32_t)at, &entry, 8);
	}
	*vmx_ept_entry(1, table) = (*vmx_ept_entry(1, table) & ~RIGHTS) | rights;
	VMX_CODE(0x90);
	story_check("entry", 0, vmx_run());
	if (misconfigured(rights)) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_MISCONFIGURATION);
		return;
	}
	/* With accessed and dirty flags on, every access to the guest's tables counts as a write. */
	if (rights & EPT_READ && (rights & EPT_WRITE || (!flags && !needs_write))) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	got = vmx_read(VMCS_EXIT_QUALIFICATION);
	story_check("access", 1,
		    flags               ? (got & 3) == 3
		    : rights & EPT_READ ? !!(got & EPT_VIOLATION_WRITE)
					: !!(got & EPT_VIOLATION_READ));
	story_check("no_fetch", 0, got & EPT_VIOLATION_FETCH);
	story_check("rights", rights & RIGHTS, got >> EPT_VIOLATION_RIGHTS_SHIFT & 7);
	story_check("linear", EPT_VIOLATION_LINEAR_VALID,
		    got & (EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL));
	vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, at);
	vmx_check_field(VMCS_GUEST_LINEAR_ADDRESS, CASE_STUB);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}

/* A guest's own #PF comes before an EPT violation of what is behind it, and behind one of its tables. */
STORY(ept_order)
{
	uint64_t zero = 0;

	if (!begin(0))
		return;
	access_code(READ);
	world_poke(CASE_PTE_LONG(TARGET), &zero, 8);
	*vmx_ept_entry(1, TARGET) = 0;
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
	vmx_check_field(VMCS_EXIT_QUALIFICATION, TARGET);
	vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, 0);
}

/*
 * IRET that has ended blocking by NMI before its stack's EPT violation says so (28.2.1): @mode 0: of NMIs; 1:
 * of virtual NMIs; @index: the access is POP's, which ends nothing.
 */
STORY(ept_iret)
{
	bool virtual = GIVEN(mode), pop = GIVEN(index);
	uint64_t got;

	if (!begin(0))
		return;
	if (virtual) {
		if (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS))
			return;
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
	} else {
		if (!vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_NMI))
			return;
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	}
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	vmx_write(VMCS_GUEST_RSP, TARGET);
	*vmx_ept_entry(1, TARGET) = 0;
	if (pop)
		VMX_CODE(0x58);
	else
		VMX_CODE(0x48, 0xcf);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	got = vmx_read(VMCS_EXIT_QUALIFICATION);
	story_check("read", EPT_VIOLATION_READ, got & 7);
	story_check("unblocked", pop ? 0 : EPT_VIOLATION_NMI_UNBLOCKED, got & EPT_VIOLATION_NMI_UNBLOCKED);
	story_iret();
}

/* ---- mode-based execute control: @index: rights with bit 10; @mode: a user-mode page ---- */

STORY(ept_mode_based)
{
	uint64_t rights = GIVEN(index), got;
	bool user = GIVEN(mode), runs;

	if (!begin(user ? 3 : 0) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE))
		return;
	for (uint32_t page = 0; page < 0x200000; page += 4096)
		*vmx_ept_entry(1, page) |= EPT_EXECUTE_USER;
	for (unsigned i = 0; i < 4; i++)
		*vmx_ept_entry(i + 1 > 3 ? 4 : i + 1, 0) |= EPT_EXECUTE_USER;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_MODE_BASED_EXECUTE);
	*vmx_ept_entry(1, TARGET) = (*vmx_ept_entry(1, TARGET) & ~(RIGHTS | EPT_EXECUTE_USER)) | rights;
	access_code(FETCH);
	runs = rights & (user ? EPT_EXECUTE_USER : EPT_EXECUTE);
	story_check("entry", 0, vmx_run());
	if (runs) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	got = vmx_read(VMCS_EXIT_QUALIFICATION);
	story_check("fetch", EPT_VIOLATION_FETCH, got & 7);
	story_check("rights", rights & RIGHTS, got >> EPT_VIOLATION_RIGHTS_SHIFT & 7);
	story_check("user_execute", rights >> 10 & 1, got >> 6 & 1);
}

/* ---- page-modification log: @index: PML index before ---- */

STORY(page_modification_log)
{
	uint64_t index = GIVEN(index), *log = vmx_at(VMX_PAGE_PML, 0);
	unsigned flags = (unsigned)GIVEN(mode);
	uint64_t *leaf = vmx_ept_entry(1, TARGET), *table = vmx_ept_entry(2, TARGET);

	if (!begin(0) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_PML) || !use_accessed_dirty(true))
		return;
	for (uint32_t page = 0; page < 0x200000; page += 4096)
		*vmx_ept_entry(1, page) |= EPT_ACCESSED | EPT_DIRTY;
	for (unsigned level = 2; level <= 4; level++)
		*vmx_ept_entry(level, TARGET) |= EPT_ACCESSED;
	if (flags == 0)
		*leaf &= ~(uint64_t)EPT_DIRTY;
	if (flags == 2)
		*table &= ~(uint64_t)EPT_ACCESSED;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_PML);
	vmx_write(VMCS_PML_ADDRESS, vmx_page(VMX_PAGE_PML));
	vmx_write(VMCS_PML_INDEX, index);
	access_code(WRITE);
	story_check("entry", 0, vmx_run());
	if (index > 511 && flags != 1) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_PAGE_MODIFICATION_LOG_FULL);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		if (flags == 0)
			story_check("clean", 0, *leaf & EPT_DIRTY);
		else
			story_check("not_accessed", 0, *table & EPT_ACCESSED);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	if (flags == 0) {
		story_check("logged", TARGET & ~4095ull, log[index & 511]);
		__asm__ volatile("nop" : : : "memory"); /* an instruction more, for one that is moved at each */
		story_check("logged_still", TARGET & ~4095ull, log[index & 511]);
		vmx_check_field(VMCS_PML_INDEX, index ? index - 1 : 0xffff);
	} else {
		vmx_check_field(VMCS_PML_INDEX, index);
		story_check("accessed", EPT_ACCESSED, *table & EPT_ACCESSED);
	}
}

/* ---- virtualization exceptions: @index 0: converted; 1: suppressed by bit 63; 2: by the area's busy word;
 * 3: misconfiguration ---- */

STORY(virtualization_exception)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t *area = vmx_at(VMX_PAGE_VE, 0);
	uint32_t *words = vmx_at(VMX_PAGE_VE, 0);

	if (!begin(0) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE);
	vmx_write(VMCS_VE_INFORMATION, vmx_page(VMX_PAGE_VE));
	vmx_write(VMCS_EPTP_INDEX, 0x77);
	vmx_write(VMCS_EXCEPTION_BITMAP, ~(1u << VECTOR_VE));
	words[1] = which == 2 ? 0xffffffff : 0;
	*vmx_ept_entry(1, TARGET) = (*vmx_ept_entry(1, TARGET) & ~RIGHTS) |
				    (which == 1 ? EPT_SUPPRESS_VE : 0) | (which == 3 ? EPT_WRITE : 0);
	access_code(READ);
	story_check("entry", 0, vmx_run());
	if (which) {
		vmx_check_field(VMCS_EXIT_REASON,
				which == 3 ? VMX_EXIT_EPT_MISCONFIGURATION : VMX_EXIT_EPT_VIOLATION);
		story_check("nothing_written", 0, area[2]);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("vector", VECTOR_VE, vmx_handler_vector());
	story_check("reason", VMX_EXIT_EPT_VIOLATION, words[0]);
	story_check("busy", 0xffffffff, words[1]);
	story_check("qualification", EPT_VIOLATION_READ | EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL,
		    area[1] & 0x1ff);
	story_check("linear", TARGET, area[2]);
	story_check("physical", TARGET, area[3]);
	story_check("eptp_index", 0x77, *(uint16_t *)vmx_at(VMX_PAGE_VE, 32));
	story_check("return", CASE_STUB, *(const uint64_t *)(uintptr_t)vmx_read(VMCS_GUEST_RSP));
}

/*
 * No #VE while an event is delivered, nor in real-address mode: the EPT violation exits. @mode 0: INT n whose
 * IDT is not there; 1: a read in real-address mode.
 */
STORY(no_virtualization_exception)
{
	bool real = GIVEN(mode);
	uint32_t *words = vmx_at(VMX_PAGE_VE, 0);

	if (!vmx_baseline(real ? MODE_REAL : MODE_LONG, 0, VMX_EPT) ||
	    !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE);
	vmx_write(VMCS_VE_INFORMATION, vmx_page(VMX_PAGE_VE));
	vmx_write(VMCS_EXCEPTION_BITMAP, 0);
	if (real) {
		*vmx_ept_entry(1, CASE_OPERAND) &= ~RIGHTS;
		VMX_CODE(0x8a, 0x07); /* MOV AL, [BX] */
	} else {
		*vmx_ept_entry(1, CASE_IDT64 + 0x41 * 16) &= ~RIGHTS;
		VMX_CODE(0xcd, 0x41);
	}
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	story_check("in_delivery", !real, vmx_read(VMCS_IDT_VECTORING_INFO) >> 31);
	story_check("nothing_written", 0, words[0] | words[1]);
}

/* ---- EPTP switching: @index 0: works; 1: ECX of 512; 2: EAX of 64; 3: EAX not enabled; 4: bad EPTP; 5: CPL
 * 3; 6: EAX of 1, which is no function ---- */

STORY(eptp_switching)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t *list = vmx_at(VMX_PAGE_EPTP_LIST, 0), *root = vmx_at(VMX_PAGE_SPARE, 0), other;

	if (!begin(which == 5 ? 3 : 0) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VM_FUNCTIONS) ||
	    !vmx_needs_bit(VMX_MSR_VMFUNC, 0))
		return;
	machine_copy(root, vmx_at(VMX_PAGE_EPT, 0), 4096); /* another root, the same tables */
	other = vmx_page(VMX_PAGE_SPARE) | (vmx_eptp() & 0xfff);
	list[0] = vmx_eptp();
	list[3] = which == 4 ? other | 1 << 8 : other;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VM_FUNCTIONS);
	vmx_write(VMCS_VM_FUNCTIONS, which == 3 ? 0 : 1);
	vmx_write(VMCS_EPTP_LIST, vmx_page(VMX_PAGE_EPTP_LIST));
	VMX_CODE(0x0f, 0x01, 0xd4);
	vmx_registers[RAX] = which == 2 ? 64 : which == 6;
	vmx_registers[RCX] = which == 1 ? 512 : 3;
	story_check("entry", 0, vmx_run());
	if (which == 0 || which == 5) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_EPTP, other);
		return;
	}
	if (which == 2) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		story_check("vector", VECTOR_UD, vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & 0xff);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMFUNC);
		vmx_check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 3);
	}
	vmx_check_field(VMCS_EPTP, vmx_eptp());
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}

/* ---- what must be dropped: @index 0: by INVEPT of the context, 1: of all; 2: an EPT violation drops its
 * address's own; 3, 4: as 0, 1, of a guest with a VPID, whose translations entries and exits keep ---- */

static bool use_vpid(void)
{
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VPID))
		return false;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VPID);
	vmx_write(VMCS_VPID, 5);
	return true;
}

STORY(ept_invalidation)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t descriptor[2] = {0, 0};

	if (!begin(0) || (which > 2 && !use_vpid()))
		return;
	if (which > 2)
		which -= 3;
	if (which < 2 && !vmx_needs_bit(VMX_MSR_EPT_VPID, which ? 26 : 25))
		return;
	descriptor[0] = vmx_eptp();
	access_code(READ);
	if (which == 2) {
		*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
		story_check("entry", 0, vmx_run());
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		*vmx_ept_entry(1, TARGET) |= RIGHTS;
		story_check("entry", 0, vmx_run());
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		return;
	}
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	*vmx_ept_entry(1, TARGET) = (*vmx_ept_entry(1, TARGET) & 0xfff) | CASE_FRAME;
	*(volatile uint8_t *)(uintptr_t)(CASE_FRAME + 0x400) = 0x3c;
	story_check("invept", 0, vmx_do(VMX_DO_INVEPT, descriptor, which ? INVEPT_ALL : INVEPT_CONTEXT));
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("new", 0x3c, vmx_registers[RAX] & 0xff);
}

/*
 * What a guest invalidates under one EPTP goes for its VPID under each (29.4.3.1): it changes its own tables.
 * @index 0: INVLPG; 1: MOV to CR3; 2: INVPCID of the address; 3: INVPCID of all.
 */
STORY(ept_own_invalidation)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t entry = CASE_PTE(CASE_FRAME, 0), *root = vmx_at(VMX_PAGE_SPARE, 0), pcid[2] = {0, TARGET};

	if (!begin(0) || !use_vpid() || (which > 1 && !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_INVPCID)))
		return;
	if (!vmx_needs_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD))
		return;
	vmx_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD);
	machine_copy(root, vmx_at(VMX_PAGE_EPT, 0), 4096);
	*(volatile uint8_t *)(uintptr_t)TARGET = 0x77;
	*(volatile uint8_t *)(uintptr_t)(CASE_FRAME + 0x400) = 0x3c;
	world_poke(CASE_OPERAND, pcid, 16);
	world_accept(TARGET, 1);
	access_code(READ);
	story_check("entry", 0, vmx_run());
	story_check("old", 0x77, vmx_registers[RAX] & 0xff);
	/* Under another EPTP, with the same translations. */
	vmx_write(VMCS_EPTP, vmx_page(VMX_PAGE_SPARE) | (vmx_eptp() & 0xfff));
	world_poke(CASE_PTE_LONG(TARGET), &entry, 8);
	switch (which) {
	case 0: VMX_CODE(0x0f, 0x01, 0x3b); break;                   /* INVLPG [RBX] */
	case 1: VMX_CODE(0x0f, 0x20, 0xd9, 0x0f, 0x22, 0xd9); break; /* MOV RCX, CR3; MOV CR3, RCX */
	default:
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_INVPCID);
		vmx_registers[RCX] = which == 2 ? 0 : 2;
		vmx_registers[RDX] = CASE_OPERAND;
		VMX_CODE(0x66, 0x0f, 0x38, 0x82, 0x0a); /* INVPCID RCX, [RDX] */
		break;
	}
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	vmx_write(VMCS_EPTP, vmx_eptp());
	access_code(READ);
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	story_check("entry", 0, vmx_run());
	story_check("new", 0x3c, vmx_registers[RAX] & 0xff);
	*(volatile uint16_t *)(uintptr_t)(CASE_FRAME + 0x400) = CASE_END;
}

/*
 * VPIDs: the guest's own tables change between two entries. @index: 0 without VPID: entry and exit drop all;
 * 1 to 4: INVVPID of type @index - 1.
 */
STORY(vpid_invalidation)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t descriptor[2] = {5, TARGET}, entry = CASE_PTE(CASE_FRAME, 0);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	if (which) {
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VPID) ||
		    !vmx_needs_bit(VMX_MSR_EPT_VPID, 39 + which))
			return;
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VPID);
		vmx_write(VMCS_VPID, 5);
	}
	vmx_registers[RBX] = TARGET;
	access_code(READ);
	*(volatile uint8_t *)(uintptr_t)TARGET = 0x77;
	*(volatile uint8_t *)(uintptr_t)(CASE_FRAME + 0x400) = 0x3c;
	world_accept(TARGET, 1);
	story_check("entry", 0, vmx_run());
	story_check("old", 0x77, vmx_registers[RAX] & 0xff);
	world_poke(CASE_PTE_LONG(TARGET), &entry, 8);
	if (which)
		story_check("invvpid", 0, vmx_do(VMX_DO_INVVPID, descriptor, which - 1));
	vmx_write(VMCS_GUEST_RIP, CASE_STUB);
	story_check("entry", 0, vmx_run());
	story_check("new", 0x3c, vmx_registers[RAX] & 0xff);
	*(volatile uint16_t *)(uintptr_t)(CASE_FRAME + 0x400) = CASE_END;
}
