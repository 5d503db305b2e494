/*
 * exceptions.c: virtualization exceptions: what makes an EPT violation one, and their information area; EPTP switching with them and
 * with the page-modification log, whose order is kept (SDM 3C 26.5.6.3, 26.5.7, 29.3.6).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define TARGET (CASE_OPERAND_PAGE2 + 0x400u)
#define BIG    0x600000u
#define RIGHTS ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE))
#define INDEX  0x77u

enum access { READ, WRITE, FETCH, WALK };

static uint32_t *area_word(unsigned offset) { return vmx_at(VMX_PAGE_VE, offset); }
static uint64_t area(unsigned offset) { return *(uint64_t *)vmx_at(VMX_PAGE_VE, offset); }

static void access_code(enum access access)
{
	switch (access) {
	case WRITE: VMX_CODE(0x88, 0x03); break;
	case FETCH: VMX_CODE(0xff, 0xe3); break;
	default: VMX_CODE(0x8a, 0x03); break;
	}
}

static bool use_ve(void)
{
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE))
		return false;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE);
	vmx_write(VMCS_VE_INFORMATION, vmx_page(VMX_PAGE_VE));
	vmx_write(VMCS_EPTP_INDEX, INDEX);
	vmx_write(VMCS_EXCEPTION_BITMAP, ~(1u << VECTOR_VE));
	return true;
}

static bool begin(unsigned cpl)
{
	if (!vmx_baseline(MODE_LONG, cpl, VMX_EPT) || !use_ve())
		return false;
	vmx_registers[RBX] = TARGET;
	return true;
}

static void check_area(uint64_t qualification, uint64_t mask, uint64_t linear, uint64_t physical, unsigned index)
{
	story_check("area_reason", VMX_EXIT_EPT_VIOLATION, *area_word(0));
	story_check("area_busy", 0xffffffff, *area_word(4));
	story_check("area_qualification", qualification & mask, area(8) & mask);
	story_check("area_linear", linear, area(16));
	story_check("area_physical", physical, area(24));
	story_check("area_index", index, *area_word(32) & 0xffff);
}

static void check_handled(uint64_t rip)
{
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("vector", VECTOR_VE, vmx_handler_vector());
	/* A fault without an error code. */
	story_check("return", rip, *(const uint64_t *)(uintptr_t)vmx_read(VMCS_GUEST_RSP));
}

static void check_exits(void)
{
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}

/*
 * The entry that decides is the one that is not present, or else the one that maps the page. @index: the level of that entry; @value: bit 63 of it;
 * @other: of all others in the walk; @mode: it is present, and lacks a right.
 */
STORY(ve_suppress)
{
	static const uint64_t steps[] = {0, TARGET & ~0xfffull, BIG, 5ull << 30, 1ull << 39};
	unsigned level = (unsigned)GIVEN(index);
	bool suppressed = GIVEN(value), others = GIVEN(other), present = GIVEN(mode);
	uint64_t address = steps[level], user = PTE_P | PTE_W | PTE_A | PTE_D, *entry;

	if (!begin(0))
		return;
	if (level > 1)
		world_poke(CASE_PD + 8 * (BIG >> 21), &(uint64_t){address | user | PTE_PS}, 8);
	entry = level == 1   ? vmx_ept_entry(1, TARGET)
		: level == 2 ? vmx_ept_entry(2, BIG)
		: level == 3 ? (uint64_t *)vmx_at(VMX_PAGE_EPT + 1, 5 * 8)
			     : (uint64_t *)vmx_at(VMX_PAGE_EPT, 8);
	if (others)
		for (unsigned i = 1; i <= 4; i++)
			*vmx_ept_entry(i, level == 2 ? BIG : TARGET) |= EPT_SUPPRESS_VE;
	*entry = (*entry & ~(RIGHTS | EPT_SUPPRESS_VE)) | (suppressed ? EPT_SUPPRESS_VE : 0) | (present ? EPT_READ : 0);
	vmx_registers[RBX] = level == 1 ? TARGET : BIG + 0x400;
	access_code(present ? WRITE : READ);
	story_check("entry", 0, vmx_run());
	if (suppressed) {
		check_exits();
		story_check("nothing_written", 0, area(0) | area(8) | area(16));
		return;
	}
	check_handled(CASE_STUB);
	check_area((present ? EPT_VIOLATION_WRITE | 1u << EPT_VIOLATION_RIGHTS_SHIFT : EPT_VIOLATION_READ) | EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL, 0x1bf,
		   level == 1 ? TARGET : BIG + 0x400, address + 0x400, INDEX);
}

/* What the area tells, as the exit would have. @value: the access; WALK: of the guest's page table; @mode: CPL 3. */
STORY(ve_fields)
{
	enum access access = (enum access)GIVEN(value);
	bool user = GIVEN(mode), walk = access == WALK;
	uint64_t physical = walk ? CASE_PTE_LONG(CASE_STUB) : TARGET, linear = walk ? CASE_STUB : TARGET;
	uint64_t want = (access == WRITE ? EPT_VIOLATION_WRITE : access == FETCH ? EPT_VIOLATION_FETCH : EPT_VIOLATION_READ) | EPT_VIOLATION_LINEAR_VALID |
			(walk ? 0 : EPT_VIOLATION_FINAL);

	if (!begin(user ? 3 : 0))
		return;
	*area_word(0) = 0x12345678;
	if (walk) { /* another page directory than that of the handlers */
		vmx_write(VMCS_GUEST_RIP, CASE_PATH_LINEAR);
		linear = CASE_PATH_LINEAR;
		physical = CASE_PATH_PD;
		world_poke(CASE_PDPT + 8, &(uint64_t){CASE_PATH_PD | PTE_P | PTE_W | PTE_U | PTE_A}, 8);
		*vmx_ept_entry(1, CASE_PATH_PD) &= ~RIGHTS;
	} else {
		*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
		access_code(access);
	}
	story_check("entry", 0, vmx_run());
	if (access == FETCH || walk)
		check_handled(linear);
	else
		check_handled(CASE_STUB);
	check_area(want, 0x1bf, linear, physical, INDEX);
	story_check("no_exit_information", INDEX, vmx_read(VMCS_EPTP_INDEX));
}

/* Any bit of the busy word holds it back; the rest of the area does not count. @value: the word. */
STORY(ve_busy)
{
	uint32_t busy = (uint32_t)GIVEN(value);

	if (!begin(0))
		return;
	*area_word(0) = 0xffffffff;
	*area_word(4) = busy;
	*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
	access_code(READ);
	story_check("entry", 0, vmx_run());
	if (!busy) {
		check_handled(CASE_STUB);
		/* It is busy now: the next one exits. */
		vmx_write(VMCS_GUEST_RIP, CASE_STUB);
		story_check("entry", 0, vmx_run());
		check_exits();
		*area_word(4) = 0;
		story_check("entry", 0, vmx_run());
		check_handled(CASE_STUB);
		return;
	}
	check_exits();
	story_check("unchanged", 0xffffffff | (uint64_t)busy << 32, area(0));
	story_check("nothing_written", 0, area(8) | area(16) | area(24));
}

/* @mode 0: its own delivery fails by EPT; 1: bit 20 of the exception bitmap; 2: while an exception is delivered; 3: while what was injected is; 4: with the control off. */
STORY(ve_delivery)
{
	unsigned mode = (unsigned)GIVEN(mode);

	if (!begin(0))
		return;
	*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
	access_code(READ);
	if (mode == 0)
		*vmx_ept_entry(1, CASE_IDT64) &= ~RIGHTS;
	if (mode == 1)
		vmx_write(VMCS_EXCEPTION_BITMAP, 1u << VECTOR_VE);
	if (mode == 2 || mode == 3) {
		*vmx_ept_entry(1, TARGET) |= RIGHTS;
		*vmx_ept_entry(1, CASE_IDT64) &= ~RIGHTS;
		vmx_write(VMCS_EXCEPTION_BITMAP, 0);
		VMX_CODE(0x0f, 0x0b);
	}
	if (mode == 3) {
		VMX_CODE(0x90);
		vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, VMX_EVENT_VALID | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VECTOR_UD);
	}
	if (mode == 4)
		vmx_clear(VMCS_SECONDARY_CONTROLS, VMX2_EPT_VIOLATION_VE);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	if (mode == 1) {
		vmx_check_exit(VMX_EXIT_EXCEPTION_NMI, 0, 0);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, VMX_EVENT_VALID | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VECTOR_VE);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	story_check("vectoring",
		    mode == 4 ? 0 : VMX_EVENT_VALID | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | (mode == 0 ? VECTOR_VE : VECTOR_UD),
		    vmx_read(VMCS_IDT_VECTORING_INFO) & ~(uint64_t)VMX_EVENT_NMI_UNBLOCKED);
	if (mode == 0) /* it had been made one */
		check_area(EPT_VIOLATION_READ | EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL, 0x1bf, TARGET, TARGET, INDEX);
	else
		story_check("nothing_written", 0, area(0) | area(8));
}

/* ---- EPTP switching ---- */

static uint64_t other_eptp(void)
{
	machine_copy(vmx_at(VMX_PAGE_SPARE, 0), vmx_at(VMX_PAGE_EPT, 0), 4096);
	return vmx_page(VMX_PAGE_SPARE) | (vmx_eptp() & 0xfff);
}

static bool use_switching(void)
{
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VM_FUNCTIONS) || !vmx_needs_bit(VMX_MSR_VMFUNC, 0))
		return false;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VM_FUNCTIONS);
	vmx_write(VMCS_VM_FUNCTIONS, 1);
	vmx_write(VMCS_EPTP_LIST, vmx_page(VMX_PAGE_EPTP_LIST));
	vmx_registers[RAX] = 0;
	return true;
}

static uint64_t *list_entry(unsigned n) { return vmx_at(VMX_PAGE_EPTP_LIST, 8 * (n & 511)); }

/* @index: RCX; @mode 1: with #VE, which notes the index; the violation behind tells it. */
STORY(eptp_index)
{
	uint64_t index = GIVEN(index), other;
	bool noted = GIVEN(mode), good = (uint32_t)index < 512;

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !use_switching() || (noted && !use_ve()))
		return;
	other = other_eptp();
	*list_entry((unsigned)index) = other;
	/* VMFUNC; MOV AL, [RBX] */
	VMX_CODE(0x0f, 0x01, 0xd4, 0x8a, 0x03);
	vmx_registers[RCX] = index;
	vmx_registers[RBX] = TARGET;
	if (noted)
		*vmx_ept_entry(1, TARGET) &= ~RIGHTS;
	story_check("entry", 0, vmx_run());
	if (!good) {
		vmx_check_exit(VMX_EXIT_VMFUNC, 0, 3);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		vmx_check_field(VMCS_EPTP, vmx_eptp());
	} else if (noted) {
		check_handled(CASE_STUB + 3);
		check_area(0, 0, TARGET, TARGET, (uint32_t)index);
		vmx_check_field(VMCS_EPTP, other);
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_EPTP, other);
	}
	if (noted)
		vmx_check_field(VMCS_EPTP_INDEX, good ? (uint32_t)index : INDEX);
	story_check("rcx", index, vmx_registers[RCX]);
}

/* An entry of the list that VM entry would refuse exits as well. @index: what is wrong with it. */
STORY(eptp_listed)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t other, entry;
	uint32_t r[4];
	bool good;

	machine_cpuid(0x80000008, 0, r);
	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !use_switching())
		return;
	other = other_eptp();
	entry = which < 8    ? (other & ~7ull) | which
		: which < 16 ? (other & ~0x38ull) | (uint64_t)(which - 8) << 3
		: which < 21 ? other | 1ull << (which - 9) /* 7 to 11 */
		: which == 21 ? other | 1ull << (r[0] & 0xff)
		: which == 22 ? other | 1ull << 63
		: which == 23 ? other | EPTP_ACCESSED_DIRTY
			      : 0;
	good = which == 6 || which == 11 || (which == 0 && vmx_msr(VMX_MSR_EPT_VPID) >> 8 & 1) ||
	       (which == 12 && vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_5_LEVELS) || (which == 23 && vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_ACCESSED_DIRTY);
	if (which == 12 && good)
		return story_check("five_levels", 1, 1); /* which the tables here do not have */
	*list_entry(5) = entry;
	VMX_CODE(0x0f, 0x01, 0xd4);
	vmx_registers[RCX] = 5;
	story_check("entry", 0, vmx_run());
	vmx_check_exit(good ? VMX_EXIT_VMCALL : VMX_EXIT_VMFUNC, 0, 3);
	vmx_check_field(VMCS_EPTP, good ? entry : vmx_eptp());
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + (good ? 3 : 0));
}

/* ---- the log ---- */

#define LOG(n) (*(uint64_t *)vmx_at(VMX_PAGE_PML, 8 * (n)))

static bool use_log(uint64_t index, uint64_t eptp)
{
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_PML) || !vmx_needs_bit(VMX_MSR_EPT_VPID, 21))
		return false;
	for (uint32_t page = 0; page < 0x200000; page += 4096)
		*vmx_ept_entry(1, page) |= EPT_ACCESSED | EPT_DIRTY;
	for (unsigned level = 2; level <= 4; level++)
		*vmx_ept_entry(level, TARGET) |= EPT_ACCESSED;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_PML);
	vmx_write(VMCS_PML_ADDRESS, vmx_page(VMX_PAGE_PML));
	vmx_write(VMCS_PML_INDEX, index);
	vmx_write(VMCS_EPTP, eptp);
	return true;
}

/* With an EPTP without flags nothing is logged. @mode 0: it is switched from one without to one with them; 1: the other way; 2: neither has them. */
STORY(log_and_switching)
{
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t plain, flagged, other;

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !use_switching())
		return;
	plain = vmx_eptp();
	flagged = plain | EPTP_ACCESSED_DIRTY;
	if (!use_log(511, mode == 1 ? flagged : plain))
		return;
	other = other_eptp() | (mode == 0 ? EPTP_ACCESSED_DIRTY : 0);
	*list_entry(1) = other;
	*vmx_ept_entry(1, TARGET) &= ~(uint64_t)EPT_DIRTY;
	/* VMFUNC; MOV [RBX], AL */
	VMX_CODE(0x0f, 0x01, 0xd4, 0x88, 0x03);
	vmx_registers[RCX] = 1;
	vmx_registers[RBX] = TARGET;
	world_accept(TARGET, 1);
	story_check("entry", 0, vmx_run());
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	vmx_check_field(VMCS_EPTP, other);
	vmx_check_field(VMCS_PML_INDEX, mode == 0 ? 510 : 511);
	story_check("logged", mode == 0 ? TARGET & ~0xfffu : 0, LOG(511));
	story_check("dirty", mode == 0 ? EPT_DIRTY : 0, *vmx_ept_entry(1, TARGET) & EPT_DIRTY);
}

#define SECOND (CASE_FRAME + 0x400u)
#define THIRD  (CASE_FRAME2 + 0x400u)

/*
 * Writes to three pages, and to the first again: @index: where the log begins; each is logged once, downwards, and a full log exits in front of the write, which
 * is made when there is room again.
 */
STORY(log_order)
{
	static const uint32_t pages[] = {TARGET, SECOND, THIRD};
	unsigned index = (unsigned)GIVEN(index), room = index > 511 ? 0 : index + 1;

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !use_log(index, vmx_eptp() | EPTP_ACCESSED_DIRTY))
		return;
	for (unsigned i = 0; i < 3; i++)
		*vmx_ept_entry(1, pages[i]) &= ~(uint64_t)EPT_DIRTY;
	/* MOV [RBX], AL; MOV [RSI], AL; MOV [RBX], AL; MOV [RDI], AL */
	VMX_CODE(0x88, 0x03, 0x88, 0x06, 0x88, 0x03, 0x88, 0x07);
	vmx_registers[RBX] = TARGET;
	vmx_registers[RSI] = SECOND;
	vmx_registers[RDI] = THIRD;
	vmx_registers[RAX] = CASE_END & 0xff;
	world_accept(TARGET, 1);
	story_check("entry", 0, vmx_run());
	if (room < 3) {
		static const uint8_t stops[] = {0, 2, 6};

		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_PAGE_MODIFICATION_LOG_FULL);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + stops[room]);
		vmx_check_field(VMCS_PML_INDEX, 0xffff & (room ? 0xffffu : index));
		story_check("not_dirty", 0, *vmx_ept_entry(1, pages[room]) & EPT_DIRTY);
		for (unsigned i = 0; i < room; i++)
			story_check_at("logged", i, pages[i] & ~0xfffu, LOG(index - i));
		vmx_write(VMCS_PML_INDEX, 300);
		story_check("entry", 0, vmx_run());
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		for (unsigned i = room; i < 3; i++)
			story_check_at("logged_later", i, pages[i] & ~0xfffu, LOG(300 - (i - room)));
		vmx_check_field(VMCS_PML_INDEX, 300 - (3 - room));
		return;
	}
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	for (unsigned i = 0; i < 3; i++)
		story_check_at("logged", i, pages[i] & ~0xfffu, LOG(index - i));
	vmx_check_field(VMCS_PML_INDEX, (index - 3) & 0xffff);
}

/* The guest's own tables are written by their use: a read of an address logs the page table that leads to it (29.3.5, 29.3.6). @mode 1: a page of 2 MiB, of which 4 KiB are logged. */
STORY(log_of_tables)
{
	bool large = GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT) || !use_log(511, vmx_eptp() | EPTP_ACCESSED_DIRTY))
		return;
	vmx_registers[RBX] = TARGET;
	if (large) {
		world_poke(CASE_PD + 8 * (BIG >> 21), &(uint64_t){BIG | PTE_P | PTE_W | PTE_A | PTE_D | PTE_PS}, 8);
		*vmx_ept_entry(2, BIG) |= EPT_ACCESSED;
		vmx_registers[RBX] = BIG + 0x3400;
		access_code(WRITE);
	} else {
		*vmx_ept_entry(1, CASE_PT) &= ~(uint64_t)EPT_DIRTY;
		access_code(READ);
	}
	story_check("entry", 0, vmx_run());
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("logged", large ? BIG + 0x3000 : CASE_PT, LOG(511));
	vmx_check_field(VMCS_PML_INDEX, 510);
	story_check("dirty", EPT_DIRTY, (large ? *vmx_ept_entry(2, BIG) : *vmx_ept_entry(1, CASE_PT)) & EPT_DIRTY);
}
