/*
 * pae.c: PAE paging under EPT: the PDPTE fields at entry and exit, and loads of the registers by MOV to CR0, CR3 and CR4, whose
 * reads go through EPT (SDM 3C 27.3.1.6, 27.3.2.4, 28.3.4, 29.3.3; SDM 3A 4.4.1).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define RIGHTS ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE))
#define FIRST  (CASE_PD | (uint64_t)PTE_P)
#define FIELD(n) (VMCS_GUEST_PDPTE0 + 2 * (n))
/* Other tables than those that the guest begins with: in a page that nothing else needs, not at its start. */
#define OTHER (CASE_FRAME2 + 0x60u)

static void put_fields(const uint64_t *values)
{
	for (unsigned n = 0; n < 4; n++)
		vmx_write(FIELD(n), values[n]);
}

static void check_fields(const uint64_t *want)
{
	for (unsigned n = 0; n < 4; n++)
		story_check_at("pdpte", n, want[n], vmx_read(FIELD(n)));
}

static bool begin(void)
{
	static const uint64_t own[4] = {FIRST, 0, 0, 0};
	uint64_t *in = exchange.in.field;

	if (!vmx_begin() || !vmx_needs_mode(MODE_PROT32, VMX_EPT) || !vmx_needs_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD))
		return false;
	vmx_world_prepare(MODE_PROT32, 0);
	vmx_load_host();
	vmx_load_controls(MODE_PROT32, VMX_EPT);
	vmx_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD | VMX_CR3_STORE);
	in[STATE_cr4] |= CR4_PAE;
	in[STATE_cr3] = CASE_CR3_PAE;
	vmx_load_guest(MODE_PROT32);
	vmx_write(VMCS_CR4_MASK, 0);
	put_fields(own);
	return true;
}

static uint64_t beyond_width(void)
{
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	return ~0ull << (r[0] & 0xff);
}

/* ---- the fields: @index: which; each bit by itself, in an entry that is present and in one that is not (@mode) ---- */

STORY(pae_fields)
{
	unsigned n = (unsigned)GIVEN(index);
	bool present = GIVEN(mode);
	uint64_t reserved = 0x1e6 | beyond_width();

	if (!begin())
		return;
	for (unsigned bit = 1; bit < 64; bit++) {
		uint64_t values[4] = {FIRST, 0, 0, 0};
		bool good = !present || !(reserved >> bit & 1);

		values[n] = (n ? 0x30000ull : FIRST & ~1ull) | present;
		if (!n && (bit >= 12 || !present))
			continue; /* what the guest runs by */
		values[n] |= 1ull << bit;
		put_fields(values);
		vmx_write(VMCS_GUEST_RIP, CASE_STUB);
		story_check_at("entry", bit, 0, vmx_run());
		story_check_at("reason", bit, good ? VMX_EXIT_VMCALL : VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE, vmx_reason());
		if (good)
			check_fields(values);
		else
			story_check_at("qualification", bit, VMX_ENTRY_PDPTE, vmx_read(VMCS_EXIT_QUALIFICATION));
	}
}

/* ---- loads ---- */

enum load { BY_CR3, BY_CR0_CD, BY_CR0_NW, BY_CR4_PGE, BY_CR4_PSE, BY_CR4_SMEP, BY_CR0_WP, BY_CR4_TSD, BY_CR4_PAE };
enum tables {
	GOOD,
	RESERVED,
	IGNORED,      /* bits in entries that are not present, and those that never count */
	VIOLATION,    /* the page cannot be read by EPT */
	READ_ONLY,    /* nor written, which nothing needs: with accessed and dirty flags */
	UNMAPPED_OK,  /* it can be read alone */
	MISCONFIGURED
};

/* MOV CR3, EAX; MOV CR0, EAX; MOV CR4, EAX, where EAX holds the register with a bit changed. */
static bool put_load(enum load by)
{
	static const uint32_t bits[] = {0, CR0_CD, CR0_CD | CR0_NW, CR4_PGE, CR4_PSE, CR4_SMEP, CR0_WP, CR4_TSD, CR4_PAE};

	switch (by) {
	case BY_CR3:
		VMX_CODE(0x0f, 0x22, 0xd8);
		vmx_registers[RAX] = OTHER;
		return true;
	case BY_CR0_CD:
	case BY_CR0_NW:
	case BY_CR0_WP:
		VMX_CODE(0x0f, 0x22, 0xc0);
		vmx_registers[RAX] = vmx_read(VMCS_GUEST_CR0) ^ bits[by];
		return true;
	default:
		if (by == BY_CR4_SMEP && !story_needs(vmx_has_cpuid(7, 1, 7), "cpuid.7.0.ebx[7]=0"))
			return false;
		VMX_CODE(0x0f, 0x22, 0xe0);
		vmx_registers[RAX] = vmx_read(VMCS_GUEST_CR4) ^ bits[by];
		return true;
	}
}

static void put_tables(enum tables tables, uint32_t at, uint64_t *values)
{
	uint64_t *entry = vmx_ept_entry(1, at);

	values[0] = FIRST | 1u << 9;
	values[1] = tables == IGNORED ? ~1ull : 0;
	values[2] = tables == IGNORED ? 0x1e6 : 0x7000 | PTE_P;
	values[3] = tables == RESERVED ? 0x8000 | PTE_P | 1u << 5 : tables == IGNORED ? FIRST | 0xe18 : 0x9018 | PTE_P;
	for (unsigned n = 0; n < 4; n++)
		world_poke(at + 8 * n, &values[n], 8);
	if (tables == VIOLATION)
		*entry &= ~RIGHTS;
	if (tables == READ_ONLY || tables == UNMAPPED_OK)
		*entry &= ~(uint64_t)(EPT_WRITE | EPT_EXECUTE);
	if (tables == MISCONFIGURED)
		*entry &= ~(uint64_t)(EPT_READ | EPT_EXECUTE);
}

/* @index: what loads (enum load; from BY_CR0_WP on nothing does); @value: what is there to be loaded (enum tables). */
STORY(pae_loads)
{
	static const uint64_t own[4] = {FIRST, 0, 0, 0};
	enum load by = (enum load)GIVEN(index);
	enum tables tables = (enum tables)GIVEN(value);
	bool loads = by < BY_CR0_WP;
	uint32_t at = by == BY_CR3 ? OTHER : CASE_CR3_PAE;
	uint64_t values[4], cr0, cr3, cr4;

	if (!begin())
		return;
	if (tables == READ_ONLY) {
		if (!vmx_needs_bit(VMX_MSR_EPT_VPID, 21))
			return;
		vmx_write(VMCS_EPTP, vmx_eptp() | EPTP_ACCESSED_DIRTY);
	}
	if (!put_load(by))
		return;
	put_tables(tables, at, values);
	cr0 = vmx_read(VMCS_GUEST_CR0);
	cr3 = vmx_read(VMCS_GUEST_CR3);
	cr4 = vmx_read(VMCS_GUEST_CR4);
	story_check("entry", 0, vmx_run());
	if (loads && (tables == RESERVED || tables == VIOLATION || tables == MISCONFIGURED)) {
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		vmx_check_field(VMCS_GUEST_CR0, cr0);
		vmx_check_field(VMCS_GUEST_CR3, cr3);
		vmx_check_field(VMCS_GUEST_CR4, cr4);
		check_fields(own);
	}
	if (!loads) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		check_fields(own);
	} else if (tables == RESERVED) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, VMX_EVENT_VALID | VMX_EVENT_ERROR_CODE | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VECTOR_GP);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, 0);
	} else if (tables == VIOLATION) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		/* A read, without a linear address. */
		story_check("qualification", EPT_VIOLATION_READ, vmx_read(VMCS_EXIT_QUALIFICATION) & 0x1bf);
		story_check("physical", at & ~0x1fu, vmx_read(VMCS_GUEST_PHYSICAL_ADDRESS) & ~0x1full);
		vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	} else if (tables == MISCONFIGURED) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_MISCONFIGURATION);
		story_check("physical", at & ~0x1fu, vmx_read(VMCS_GUEST_PHYSICAL_ADDRESS) & ~0x1full);
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		check_fields(values);
		if (tables == READ_ONLY)
			story_check("flags", EPT_ACCESSED, *vmx_ept_entry(1, at) & (EPT_ACCESSED | EPT_DIRTY));
	}
}

/* Into and out of PAE paging: CR4.PAE and CR0.PG. @mode 0: PG set by an unrestricted guest; 1: PG cleared, the registers stay; 2: a host's read of the fields without EPT. */
STORY(pae_switches)
{
	static const uint64_t none[4] = {0x7ff0, 0x7ff0, 0x7ff0, 0x7ff0};
	bool leaves = GIVEN(mode);
	uint64_t values[4] = {FIRST | 1u << 10, 0, 0, 0x30000 | PTE_P};

	if (!begin() || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_UNRESTRICTED_GUEST))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_UNRESTRICTED_GUEST);
	for (unsigned n = 0; n < 4; n++)
		world_poke(CASE_CR3_PAE + 8 * n, &values[n], 8);
	VMX_CODE(0x0f, 0x22, 0xc0);
	vmx_registers[RAX] = vmx_read(VMCS_GUEST_CR0) ^ (leaves ? CR0_PG : 0);
	if (!leaves) {
		vmx_write(VMCS_GUEST_CR0, vmx_read(VMCS_GUEST_CR0) & ~(uint64_t)CR0_PG);
		put_fields(none); /* which count for nothing: there is no paging */
	}
	story_check("entry", 0, vmx_run());
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("paging", leaves ? 0 : CR0_PG, vmx_read(VMCS_GUEST_CR0) & CR0_PG);
	if (!leaves)
		check_fields(values);
}

/* What the guest runs by are the fields: @mode 0: an entry that is not present is #PF; 1: the one of another gigabyte leads to its tables; 2: by EPT. */
STORY(pae_translates)
{
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t values[4] = {FIRST, 0, 0, 0};
	uint64_t pde = CASE_PATH_PT | PTE_P | PTE_W | PTE_A, pte = CASE_FRAME | PTE_P | PTE_W | PTE_A | PTE_D;

	if (!begin())
		return;
	if (mode)
		values[1] = CASE_PATH_PD | PTE_P;
	put_fields(values);
	world_poke(CASE_PATH_PD, &pde, 8);
	world_poke(CASE_PATH_PT, &pte, 8);
	if (mode == 2)
		*vmx_ept_entry(1, CASE_PATH_PD) &= ~RIGHTS;
	VMX_CODE(0x8a, 0x03);
	vmx_registers[RBX] = CASE_PATH_LINEAR;
	vmx_registers[RAX] = 0;
	story_check("entry", 0, vmx_run());
	if (mode == 0) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, CASE_PATH_LINEAR);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, 0);
	} else if (mode == 1) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("found", CASE_END & 0xff, vmx_registers[RAX]);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		story_check("kind", EPT_VIOLATION_READ | EPT_VIOLATION_LINEAR_VALID,
			    vmx_read(VMCS_EXIT_QUALIFICATION) & (7 | EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL));
		vmx_check_field(VMCS_GUEST_PHYSICAL_ADDRESS, CASE_PATH_PD);
		vmx_check_field(VMCS_GUEST_LINEAR_ADDRESS, CASE_PATH_LINEAR);
	}
	check_fields(values);
}
