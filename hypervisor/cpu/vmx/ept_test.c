/* ept_test.c: EPT's rights, misconfigurations, flags and modes; #VE, the log, EPTP switching, what drops
 * translations. */
#include "cpu/vmx/vmx_test.h"
#include "x86/paging.h"

#define EPT_AT        0x110000ull /* PML4, PDPT, PD, PT of MACHINE_BASE, PT of 0 */
#define EPT_OTHER_AT  0x118000ull /* the same again */
#define LIST_AT       0x120000ull
#define VE_AT         0x121000ull
#define LOG_AT        0x122000ull
#define ALL           (7ull | 6ull << EPT_TYPE_SHIFT)
#define TABLE(ept, n) ((ept) + (n)*0x1000ull)
#define PTE_OF(ept, linear)                                                                                  \
	(TABLE(ept, 3) + 8 * (((linear)-MACHINE_BASE) >> 12))          /* of what is at MACHINE_BASE */
#define PTE_OF_TABLE(ept, table) (TABLE(ept, 4) + 8 * ((table) >> 12)) /* of the guest's tables */
#define GUEST_PDE                (TABLES_AT + 0x2000 + (MACHINE_BASE >> 21) * 8)
#define A                        EPT_ACCESSED
#define D                        EPT_DIRTY

/* mov rbx, [rcx]; mov [rcx], rbx; both of DATA_AT */
static const uint8_t load[] = {0x48, 0x8b, 0x19, VMCALL}, store[] = {0x48, 0x89, 0x19, VMCALL};

/* 2 MiB from MACHINE_BASE and the guest's tables below it, where they are. */
static void ept_tables(struct machine *m, uint64_t ept)
{
	guest_put(m, ept, TABLE(ept, 1) | 7, 8);
	guest_put(m, TABLE(ept, 1), TABLE(ept, 2) | 7, 8);
	guest_put(m, TABLE(ept, 2), TABLE(ept, 4) | 7, 8);
	guest_put(m, TABLE(ept, 2) + (MACHINE_BASE >> 21) * 8, TABLE(ept, 3) | 7, 8);
	for (unsigned i = 0; i < 512; i++) {
		guest_put(m, TABLE(ept, 3) + 8 * i, (MACHINE_BASE + i * 0x1000ull) | ALL, 8);
		guest_put(m, TABLE(ept, 4) + 8 * i, i * 0x1000ull | ALL, 8);
	}
}

static void ept_open_as(struct machine *m, const char *profile)
{
	vmx_open_as(m, profile);
	ept_tables(m, EPT_AT);
	vmcs_secondary(m, VMX2_EPT);
	vmcs_put(m, VMCS_EPTP, EPT_AT | 6 | 3 << EPTP_LEVELS_SHIFT);
	m->cpu->reg[RCX] = DATA_AT;
}

static void ept_open(struct machine *m) { ept_open_as(m, "intel,+vmx"); }

static uint32_t again(struct machine *m, const uint8_t *code, size_t size)
{
	vmcs_put(m, VMCS_GUEST_RIP, GUEST_AT);
	m->cpu->reg[RCX] = DATA_AT;
	return vmx_run(m, code, size);
}

#define AGAIN(m, code) again((m), (code), sizeof(code))

static void translations_are_those_of_both(void **state)
{
	struct machine m;

	(void)state;
	ept_open(&m);
	guest_put(&m, PTE_OF(EPT_AT, DATA_AT), (MACHINE_BASE + 0x74000) | ALL, 8);
	guest_put(&m, MACHINE_BASE + 0x74000, 0x1122334455667788ull, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RBX], 0x1122334455667788ull);
	assert_int_equal(guest_get(&m, PTE_OF(EPT_AT, DATA_AT), 8) & (A | D), 0); /* no flags */
	machine_close(&m);
}

/* One change to an entry, and what comes of it. */
struct change {
	const char *check;
	uint64_t at, clear, set;
	const uint8_t *code;
	uint32_t reason;
	uint64_t qualification, physical;
};

#define LINEAR      (EPT_VIOLATION_LINEAR_VALID)
#define FINAL       (LINEAR | EPT_VIOLATION_FINAL)
#define RIGHTS(rwx) ((uint64_t)(rwx) << EPT_VIOLATION_RIGHTS_SHIFT)
#define VIOLATES(at, clear, set, code, qualification, physical)                                              \
	(at), (clear), (set), (code), VMX_EXIT_EPT_VIOLATION, (qualification), (physical)
#define MISCONFIGURES(at, clear, set) (at), (clear), (set), load, VMX_EXIT_EPT_MISCONFIGURATION, 0, DATA_AT

static void run_change(struct machine *m, const struct change *c)
{
	uint64_t was = guest_get(m, c->at, 8);
	uint32_t reason;

	guest_put(m, c->at, (was & ~c->clear) | c->set, 8);
	reason = again(m, c->code, sizeof(load));
	assert_int_equal(reason, c->reason);
	assert_int_equal(vmcs_get(m, VMCS_EXIT_QUALIFICATION), c->qualification);
	assert_int_equal(vmcs_get(m, VMCS_GUEST_PHYSICAL_ADDRESS), c->physical);
	if (c->check) {
		assert_true(check_break(c->check));
		vmcs_put(m, VMCS_GUEST_RIP, GUEST_AT);
		m->cpu->reg[RCX] = DATA_AT;
		vmx_run_for(m, c->code, sizeof(load), 50);
		if (!m->cpu->msr.vmx_guest && vmcs_get(m, VMCS_EXIT_REASON) == c->reason &&
		    vmcs_get(m, VMCS_EXIT_QUALIFICATION) == c->qualification)
			fail_msg("%s broken changes nothing", c->check);
		check_break(NULL);
		m->cpu->msr.vmx_guest = false;
		machine_mode(m, CODE_64);
		m->cpu->cr4 |= CR4_VMXE;
		cpu_mode_changed(m->cpu);
	}
	guest_put(m, c->at, was, 8);
	assert_int_equal(again(m, c->code, sizeof(load)), VMX_EXIT_VMCALL);
}

static void violations(void **state)
{
	const uint64_t data = PTE_OF(EPT_AT, DATA_AT), code = PTE_OF(EPT_AT, GUEST_AT),
		       pml4 = PTE_OF_TABLE(EPT_AT, TABLES_AT);
	const struct change changes[] = {
		{"EPT_PRESENT",
		 VIOLATES(data, 7 | 0x38, 2 << 3, load, FINAL | 1, DATA_AT)}, /* ignored there */
		{NULL, VIOLATES(data, 7, 0, store, FINAL | 2, DATA_AT)},
		{"EPT_RIGHT_READ", VIOLATES(data, 3, 0, load, FINAL | 1 | RIGHTS(4), DATA_AT)},
		{"EPT_RIGHT_WRITE", VIOLATES(data, 2, 0, store, FINAL | 2 | RIGHTS(5), DATA_AT)},
		{"EPT_RIGHT_EXECUTE", VIOLATES(code, 4, 0, load, FINAL | 4 | RIGHTS(3), GUEST_AT)},
		{NULL, VIOLATES(TABLE(EPT_AT, 2) + (MACHINE_BASE >> 21) * 8, 2, 0, store,
				FINAL | 2 | RIGHTS(5), DATA_AT)},
		/* The guest's own tables: reads, and writes of A in the PDE. */
		{NULL, VIOLATES(pml4, 7, 0, load, LINEAR | 1, TABLES_AT)},
	};
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_advanced");
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		run_change(&m, &changes[i]);
	machine_close(&m);
}

/* In front of all rights, from whichever entry. */
static void misconfigurations(void **state)
{
	const uint64_t data = PTE_OF(EPT_AT, DATA_AT), pde = TABLE(EPT_AT, 2) + (MACHINE_BASE >> 21) * 8;
	const struct change changes[] = {
		{"EPT_WRITE_ONLY", MISCONFIGURES(data, 7, 2)},
		{NULL, MISCONFIGURES(data, 7, 6)},
		{"EPT_EXECUTE_ONLY", MISCONFIGURES(data, 7, 4)},
		{"EPT_RESERVED_BITS", MISCONFIGURES(data, 0, 1ull << 46)},
		{"EPT_RESERVED_BITS", MISCONFIGURES(data, 0, 1ull << 51)},
		{"EPT_TYPE", MISCONFIGURES(data, 0x38, 2 << 3)},
		{"EPT_TYPE", MISCONFIGURES(data, 0x38, 3 << 3)},
		{"EPT_TYPE", MISCONFIGURES(data, 0x38, 7 << 3)},
	};
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_execute_only");
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		run_change(&m, &changes[i]);
	/* Entries of tables: bits 6:3; a PML4E and, without 1-GiB pages, a PDPTE that map. */
	guest_put(&m, pde, guest_get(&m, pde, 8) | 8, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_MISCONFIGURATION);
	guest_put(&m, pde, guest_get(&m, pde, 8) & ~8ull, 8);
	guest_put(&m, EPT_AT, TABLE(EPT_AT, 1) | 7 | EPT_LARGE, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_MISCONFIGURATION);
	machine_close(&m);
}

static void large_pages(void **state)
{
	const uint64_t pde = TABLE(EPT_AT, 2) + (MACHINE_BASE >> 21) * 8, pdpte = TABLE(EPT_AT, 1);
	struct machine m;

	(void)state;
	ept_open(&m);
	guest_put(&m, DATA_AT, 77, 8);
	guest_put(&m, pde, MACHINE_BASE | ALL | EPT_LARGE, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RBX], 77);
	guest_put(&m, pde, MACHINE_BASE | ALL | EPT_LARGE | 1 << 20, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_MISCONFIGURATION);
	guest_put(&m, pdpte, ALL | EPT_LARGE, 8);
	m.cpu->reg[RBX] = 0;
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RBX], 77);
	guest_put(&m, pdpte, ALL | EPT_LARGE | 1 << 29, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_MISCONFIGURATION);
	machine_close(&m);
	ept_open_as(&m, "intel,+vmx,-vmx_ept_1g,-vmx_ept_2m");
	guest_put(&m, pde, MACHINE_BASE | ALL | EPT_LARGE, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_MISCONFIGURATION);
	guest_put(&m, pdpte, ALL | EPT_LARGE, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_MISCONFIGURATION);
	machine_close(&m);
}

/* Bits 9 to 11 of the qualification. */
static void advanced_information(void **state)
{
	struct machine m;

	(void)state;
	ept_open(&m);
	guest_put(&m, PTE_OF(EPT_AT, DATA_AT), 0, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), FINAL | 1 | EPT_VIOLATION_WRITABLE);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_LINEAR_ADDRESS), DATA_AT);
	guest_put(&m, GUEST_PDE, (guest_get(&m, GUEST_PDE, 8) & ~2ull) | PTE_NX, 8);
	vmcs_put(&m, VMCS_GUEST_EFER, EFER_LME | EFER_LMA | EFER_NXE);
	guest_put(&m, PTE_OF(EPT_AT, GUEST_AT), 0,
		  8); /* the fetch comes first, and the guest's NX before EPT */
	assert_int_equal(vmx_run_for(&m, load, sizeof(load), 1), CPU_STOP_BUDGET);
	machine_close(&m);
}

/* Accessed and dirty flags; guest tables count as written. */
static void flags_of_ept(void **state)
{
	const uint64_t data = PTE_OF(EPT_AT, DATA_AT), tables = PTE_OF_TABLE(EPT_AT, TABLES_AT),
		       pde = TABLE(EPT_AT, 2) + (MACHINE_BASE >> 21) * 8;
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_advanced");
	vmcs_or(&m, VMCS_EPTP, EPTP_ACCESSED_DIRTY);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, data, 8) & (A | D), A);
	assert_int_equal(guest_get(&m, pde, 8) & (A | D), A);
	assert_int_equal(guest_get(&m, tables, 8) & (A | D), A | D);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, data, 8) & (A | D), A | D);
	guest_put(&m, tables, guest_get(&m, tables, 8) & ~2ull, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), LINEAR | 3 | RIGHTS(5));
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PHYSICAL_ADDRESS), TABLES_AT);
	/* Without EPT's flags that is a read. */
	vmcs_clear(&m, VMCS_EPTP, EPTP_ACCESSED_DIRTY);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	/* But for the guest's own A and D, which are written. */
	guest_put(&m, TABLES_AT, guest_get(&m, TABLES_AT, 8) & ~(uint64_t)PTE_A, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), LINEAR | 2 | RIGHTS(5));
	assert_true(check_break("EPT_GUEST_FLAGS"));
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	check_break(NULL);
	machine_close(&m);
}

static void flags_can_be_broken(void **state)
{
	static const struct {
		const char *check;
		uint64_t at, bit;
	} rows[] = {{"EPT_ACCESSED_PAGE", PTE_OF(EPT_AT, GUEST_AT), A},
		    {"EPT_ACCESSED_TABLE", TABLE(EPT_AT, 2) + (MACHINE_BASE >> 21) * 8, A},
		    {"EPT_DIRTY_PAGE", PTE_OF(EPT_AT, DATA_AT), D},
		    {"EPT_TABLE_WRITE", PTE_OF_TABLE(EPT_AT, TABLES_AT), D}};
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		ept_open(&m);
		vmcs_or(&m, VMCS_EPTP, EPTP_ACCESSED_DIRTY);
		for (unsigned t = 0; t < 3; t++) /* the guest's own flags are no updates of that page */
			for (unsigned e = 0; e < 512; e++)
				if (guest_get(&m, TABLES_AT + t * 0x1000 + 8 * e, 8) & 1)
					guest_put(&m, TABLES_AT + t * 0x1000 + 8 * e,
						  guest_get(&m, TABLES_AT + t * 0x1000 + 8 * e, 8) | 0x60, 8);
		assert_true(check_break(rows[i].check));
		assert_int_equal(AGAIN(&m, store), VMX_EXIT_VMCALL);
		assert_int_equal(guest_get(&m, rows[i].at, 8) & rows[i].bit, 0);
		check_break(NULL);
		machine_close(&m);
	}
}

static void log_of_modifications(void **state)
{
	struct machine m;

	(void)state;
	ept_open(&m);
	vmcs_or(&m, VMCS_EPTP, EPTP_ACCESSED_DIRTY);
	vmcs_secondary(&m, VMX2_PML);
	vmcs_put(&m, VMCS_PML_ADDRESS, LOG_AT);
	vmcs_put(&m, VMCS_PML_INDEX, 511);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	/* The guest's three tables, of which it has used all. */
	assert_int_equal(vmcs_get(&m, VMCS_PML_INDEX), 508);
	assert_int_equal(guest_get(&m, LOG_AT + 8 * 511, 8), TABLES_AT);
	assert_int_equal(guest_get(&m, LOG_AT + 8 * 509, 8), TABLES_AT + 0x2000);
	vmcs_put(&m, VMCS_PML_INDEX, 0);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_PML_INDEX), 0xffff);
	assert_int_equal(guest_get(&m, LOG_AT, 8), DATA_AT & ~0xfffull);
	guest_put(&m, PTE_OF(EPT_AT, DATA_AT), guest_get(&m, PTE_OF(EPT_AT, DATA_AT), 8) & ~D, 8);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_PAGE_MODIFICATION_LOG_FULL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(guest_get(&m, PTE_OF(EPT_AT, DATA_AT), 8) & D, 0);
	/* No room to set an accessed flag either, though that would not be logged. */
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	guest_put(&m, EPT_AT, guest_get(&m, EPT_AT, 8) & ~EPT_ACCESSED, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_PAGE_MODIFICATION_LOG_FULL);
	assert_int_equal(guest_get(&m, EPT_AT, 8) & EPT_ACCESSED, 0);
	assert_true(check_break("PML_FULL_ACCESSED"));
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	check_break(NULL);
	assert_true(check_break("PML_FULL"));
	vmcs_put(&m, VMCS_PML_INDEX, 0x1ff + 1);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_VMCALL);
	check_break(NULL);
	machine_close(&m);
}

/* #VE where the entry lets it, with its area; an exit where not. */
static void virtualization_exceptions(void **state)
{
	const uint64_t data = PTE_OF(EPT_AT, DATA_AT);
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_advanced");
	vmcs_secondary(&m, VMX2_EPT_VIOLATION_VE);
	vmcs_put(&m, VMCS_VE_INFORMATION, VE_AT);
	vmcs_put(&m, VMCS_EPTP_INDEX, 9);
	guest_put(&m, data, EPT_SUPPRESS_VE, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	guest_put(&m, data, 0, 8);
	m.cpu->tracing = true;
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL); /* the handler's */
	assert_int_equal(m.vector, VECTOR_VE);
	assert_int_equal(m.event_rip, GUEST_AT);
	assert_int_equal(guest_get(&m, VE_AT, 4), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(guest_get(&m, VE_AT + 4, 4), 0xffffffff);
	assert_int_equal(guest_get(&m, VE_AT + 8, 8), FINAL | 1);
	assert_int_equal(guest_get(&m, VE_AT + 16, 8), DATA_AT);
	assert_int_equal(guest_get(&m, VE_AT + 24, 8), DATA_AT);
	assert_int_equal(guest_get(&m, VE_AT + 32, 2), 9);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION); /* busy */
	assert_true(check_break("VE_BUSY"));
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	guest_put(&m, VE_AT + 4, 0, 4);
	/* A right that the leaf lacks: its bit 63. */
	check_break(NULL);
	guest_put(&m, data, (DATA_AT & ~0xfffull) | (ALL & ~2ull), 8);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_VMCALL);
	assert_int_equal(m.vector, VECTOR_VE);
	guest_put(&m, VE_AT + 4, 0, 4);
	guest_put(&m, data, (DATA_AT & ~0xfffull) | (ALL & ~2ull) | EPT_SUPPRESS_VE, 8);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_EPT_VIOLATION);
	assert_true(check_break("VE_SUPPRESSED"));
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_VMCALL);
	check_break(NULL);
	/* Its intercept. */
	guest_put(&m, VE_AT + 4, 0, 4);
	guest_put(&m, data, 0, 8);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_VE);
	assert_int_equal(AGAIN(&m, store), VMX_EXIT_EXCEPTION_NMI);
	/* While an event is delivered: the IDT lies behind EPT. */
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 0);
	guest_put(&m, VE_AT + 4, 0, 4);
	guest_put(&m, PTE_OF(EPT_AT, IDT_AT), 0, 8);
	static const uint8_t ud[] = {0x0f, 0x0b, 0x90, 0x90, 0x90, 0x90};
	assert_int_equal(AGAIN(&m, ud), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO) & 0x800007ff,
			 VMX_EVENT_VALID | VMX_EVENT_EXCEPTION << 8 | VECTOR_UD);
	machine_close(&m);
}

/* With mode-based execute control X is the supervisor's, bit 10 the user's. */
static void mode_based_execution(void **state)
{
	const uint64_t code = PTE_OF(EPT_AT, GUEST_AT);
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_advanced");
	vmcs_secondary(&m, VMX2_MODE_BASED_EXECUTE);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	guest_put(&m, code, (GUEST_AT & ~0xfffull) | (ALL & ~4ull) | EPT_EXECUTE_USER, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	/* The entries above have no bit 10. */
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), FINAL | 4 | RIGHTS(3));
	/* User-mode pages, at CPL 0: only bit 10 counts, in each entry. */
	for (unsigned i = 0; i < 3; i++) {
		uint64_t at = i < 2 ? TABLES_AT + i * 0x1000 : GUEST_PDE;

		guest_put(&m, at, guest_get(&m, at, 8) | PTE_U, 8);
	}
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	guest_put(&m, EPT_AT, TABLE(EPT_AT, 1) | 7 | EPT_EXECUTE_USER, 8);
	guest_put(&m, TABLE(EPT_AT, 1), TABLE(EPT_AT, 2) | 7 | EPT_EXECUTE_USER, 8);
	guest_put(&m, TABLE(EPT_AT, 2) + (MACHINE_BASE >> 21) * 8, TABLE(EPT_AT, 3) | 7 | EPT_EXECUTE_USER,
		  8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	guest_put(&m, code, (GUEST_AT & ~0xfffull) | ALL, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), FINAL | 4 | RIGHTS(7));
	assert_true(check_break("EPT_MODE_BASED"));
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_VMCALL);
	check_break(NULL);
	/* Present by bit 10 alone, which is execute-only. */
	guest_put(&m, PTE_OF(EPT_AT, DATA_AT), EPT_EXECUTE_USER, 8);
	guest_put(&m, code, (GUEST_AT & ~0xfffull) | ALL | EPT_EXECUTE_USER, 8);
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), FINAL | 1 | EPT_VIOLATION_USER_EXECUTE);
	assert_true(check_break("EPT_MODE_BASED_PRESENT"));
	assert_int_equal(AGAIN(&m, load), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), FINAL | 1);
	check_break(NULL);
	machine_close(&m);
}

/* VMFUNC: to another EPTP, and what it refuses. */
static void eptp_switching(void **state)
{
	/* vmfunc; mov rbx, [rdx]; vmcall */
	static const uint8_t code[] = {0x0f, 0x01, 0xd4, 0x48, 0x8b, 0x1a, VMCALL};
	const uint64_t eptp = EPT_OTHER_AT | 6 | 3 << EPTP_LEVELS_SHIFT;
	struct machine m;

	(void)state;
	ept_open(&m);
	ept_tables(&m, EPT_OTHER_AT);
	guest_put(&m, PTE_OF(EPT_OTHER_AT, DATA_AT), (MACHINE_BASE + 0x74000) | ALL, 8);
	guest_put(&m, MACHINE_BASE + 0x74000, 5, 8);
	guest_put(&m, LIST_AT + 8 * 511, eptp, 8);
	m.cpu->reg[RAX] = 0;
	m.cpu->reg[RDX] = DATA_AT;
	m.cpu->reg[RCX] = 511;
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMCALL); /* of the #UD's handler */
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	vmcs_secondary(&m, VMX2_VM_FUNCTIONS | VMX2_EPT_VIOLATION_VE);
	vmcs_put(&m, VMCS_VE_INFORMATION, VE_AT);
	vmcs_put(&m, VMCS_EPTP_LIST, LIST_AT);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMFUNC); /* no function is on */
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 3);
	vmcs_put(&m, VMCS_VM_FUNCTIONS, VMX_FUNCTION_EPTP_SWITCHING);
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RBX], 5);
	assert_int_equal(vmcs_get(&m, VMCS_EPTP), eptp);
	assert_int_equal(vmcs_get(&m, VMCS_EPTP_INDEX), 511);
	for (unsigned i = 0; i < 2; i++) { /* an index and an EPTP that are none */
		vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
		m.cpu->reg[RCX] = i ? 512 : 3;
		assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMFUNC);
		assert_true(check_break(i ? "VMFUNC_INDEX" : "VMFUNC_EPTP"));
		vmx_run_for(&m, code, sizeof(code), 3);
		assert_int_not_equal(vmcs_get(&m, VMCS_EXIT_REASON), VMX_EXIT_VMCALL);
		check_break(NULL);
		m.cpu->msr.vmx_guest = false;
		machine_mode(&m, CODE_64);
		m.cpu->cr4 |= CR4_VMXE;
		cpu_mode_changed(m.cpu);
		vmcs_put(&m, VMCS_EPTP, eptp);
		m.cpu->msr.vmx_eptp = eptp;
	}
	m.cpu->reg[RCX] = 511;
	m.cpu->reg[RAX] = 1;
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMFUNC);
	m.cpu->reg[RAX] = 64;
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	machine_close(&m);
}

/* What is read at DATA_AT once EPT's entry leads to @page. */
static uint64_t read_after(struct machine *m, uint64_t page)
{
	guest_put(m, PTE_OF(EPT_AT, DATA_AT), page | ALL, 8);
	assert_int_equal(AGAIN(m, load), VMX_EXIT_VMCALL);
	return m->cpu->reg[RBX];
}

/* INVEPT or INVVPID of @type in the host; the descriptor is @low and @high. */
static void invalidate(struct machine *m, bool vpid, uint64_t type, uint64_t low, uint64_t high)
{
	uint8_t code[] = {0x66, 0x0f, 0x38, vpid ? 0x81 : 0x80, 0x02}; /* rax, [rdx] */

	guest_put(m, MACHINE_BASE + 0x76000, low, 8);
	guest_put(m, MACHINE_BASE + 0x76008, high, 8);
	m->cpu->reg[RAX] = type;
	m->cpu->reg[RDX] = MACHINE_BASE + 0x76000;
	machine_run(m, code, sizeof(code), 1);
	assert_int_equal(rflags_get(m->cpu) & RFLAGS_STATUS, 0);
}

static void translations_by_vpid(void **state)
{
	const uint64_t one = MACHINE_BASE + 0x74000, two = MACHINE_BASE + 0x75000;
	const struct {
		bool vpid;
		uint64_t type, low, high;
		const char *check; /* NULL: it keeps them */
	} rows[] = {
		{false, INVEPT_CONTEXT, EPT_AT | 0x1e, 0, "TLB_INVEPT_CONTEXT"},
		{false, INVEPT_CONTEXT, EPT_OTHER_AT | 0x1e, 0, NULL},
		{false, INVEPT_ALL, 0, 0, "TLB_INVEPT_ALL"},
		{true, INVVPID_ADDRESS, 5, DATA_AT, "TLB_INVVPID_ADDRESS"},
		{true, INVVPID_ADDRESS, 5, GUEST_STACK, NULL},
		{true, INVVPID_ADDRESS, 6, DATA_AT, NULL},
		{true, INVVPID_CONTEXT, 5, 0, "TLB_INVVPID_CONTEXT"},
		{true, INVVPID_CONTEXT, 6, 0, NULL},
		{true, INVVPID_ALL, 0, 0, "TLB_INVVPID_ALL"},
		{true, INVVPID_KEEP_GLOBAL, 5, 0, "TLB_INVVPID_KEEP_GLOBAL"},
		{true, INVVPID_KEEP_GLOBAL, 6, 0, NULL},
	};
	struct machine m;

	(void)state;
	ept_open(&m);
	guest_put(&m, one, 1, 8);
	guest_put(&m, two, 2, 8);
	guest_put(&m, GUEST_PDE, MACHINE_BASE | 0x83 | 0x60, 8);
	/* Without a VPID each entry begins anew. */
	assert_int_equal(read_after(&m, one), 1);
	assert_int_equal(read_after(&m, two), 2);
	vmcs_secondary(&m, VMX2_VPID);
	vmcs_put(&m, VMCS_VPID, 5);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		invalidate(&m, true, INVVPID_ALL, 0, 0);
		assert_int_equal(read_after(&m, one), 1);
		assert_int_equal(read_after(&m, two), 1); /* kept */
		/* The guest's 2-MiB page is kept in pieces, and any of its addresses drops all of them. */
		if (rows[i].type == INVVPID_ADDRESS && rows[i].vpid && rows[i].high == GUEST_STACK)
			continue;
		if (rows[i].check) {
			assert_true(check_break(rows[i].check));
			read_after(&m, one); /* which drops what is kept */
			assert_int_equal(read_after(&m, two), 1);
			invalidate(&m, rows[i].vpid, rows[i].type, rows[i].low, rows[i].high);
			assert_int_equal(read_after(&m, two), 1);
			check_break(NULL);
			assert_int_equal(read_after(&m, one), 1);
		}
		invalidate(&m, rows[i].vpid, rows[i].type, rows[i].low, rows[i].high);
		assert_int_equal(read_after(&m, two), rows[i].check ? 2 : 1);
	}
	machine_close(&m);
}

/* Without VPIDs, entries and exits drop what there is; with one, the guest's INVLPG goes for each EPTP. */
static void translations_of_worlds(void **state)
{
	/* mov ecx, 1; xor eax, eax; vmfunc; invlpg [rdx]; xor ecx, ecx; vmfunc; mov rbx, [rdx]; vmcall */
	static const uint8_t code[] = {0xb9, 1,    0,    0,    0,    0x31, 0xc0, 0x0f, 0x01, 0xd4, 0x0f,
				       0x01, 0x3a, 0x31, 0xc9, 0x0f, 0x01, 0xd4, 0x48, 0x8b, 0x1a, VMCALL};
	const uint64_t one = MACHINE_BASE + 0x74000, two = MACHINE_BASE + 0x75000, flags = 0x1e;
	struct machine m;

	(void)state;
	ept_open(&m);
	guest_put(&m, one, 1, 8);
	guest_put(&m, two, 2, 8);
	assert_true(check_break("TLB_WITHOUT_VPID"));
	assert_int_equal(read_after(&m, one), 1);
	assert_int_equal(read_after(&m, two), 1);
	check_break(NULL);
	assert_int_equal(read_after(&m, two), 2);
	assert_int_equal(read_after(&m, one), 1);
	ept_tables(&m, EPT_OTHER_AT);
	guest_put(&m, LIST_AT, EPT_AT | flags, 8);
	guest_put(&m, LIST_AT + 8, EPT_OTHER_AT | flags, 8);
	vmcs_secondary(&m, VMX2_VPID | VMX2_VM_FUNCTIONS);
	vmcs_put(&m, VMCS_VPID, 5);
	vmcs_put(&m, VMCS_VM_FUNCTIONS, VMX_FUNCTION_EPTP_SWITCHING);
	vmcs_put(&m, VMCS_EPTP_LIST, LIST_AT);
	for (unsigned broken = 0; broken < 2; broken++) {
		if (broken)
			assert_true(check_break("TLB_ALL_EPTPS"));
		assert_int_equal(read_after(&m, one), 1);
		assert_int_equal(read_after(&m, two), 1); /* kept */
		m.cpu->reg[RDX] = DATA_AT;
		assert_int_equal(AGAIN(&m, code), VMX_EXIT_VMCALL);
		assert_int_equal(m.cpu->reg[RBX], broken ? 1 : 2);
		check_break(NULL);
	}
	machine_close(&m);
}

/* IRET whose stack is behind EPT has unblocked NMIs; what else faults there has not. */
static void nmis_that_iret_unblocked(void **state)
{
	static const uint8_t iret[] = {0x48, 0xcf, 0x90, 0x90, 0x90, 0x90},
			     pop[] = {0x58, 0x90, 0x90, 0x90, 0x90, 0x90};
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_advanced");
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS);
	guest_put(&m, PTE_OF(EPT_AT, GUEST_STACK), 0, 8);
	for (unsigned i = 0; i < 3; i++) {
		vmcs_put(&m, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
		assert_true(i < 2 || check_break("EPT_NMI_UNBLOCKED"));
		assert_int_equal(i == 1 ? AGAIN(&m, pop) : AGAIN(&m, iret), VMX_EXIT_EPT_VIOLATION);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION),
				 FINAL | 1 | (i ? 0 : EPT_VIOLATION_NMI_UNBLOCKED));
		check_break(NULL);
	}
	machine_close(&m);
}

/* PAE: MOV to CR3 loads the registers through EPT, by reads without a linear address. */
static void pdptes_through_ept(void **state)
{
	/* mov cr3, ebx; vmcall, in 32-bit mode */
	static const uint8_t code[] = {0x0f, 0x22, 0xdb, VMCALL};
	const uint64_t table = MACHINE_BASE + 0x78000;
	struct machine m;

	(void)state;
	ept_open_as(&m, "intel,+vmx,-vmx_ept_advanced");
	guest_put(&m, table, (TABLES_AT + 0x2000) | 1, 8);
	for (unsigned i = 0; i < 4; i++)
		vmcs_put(&m, VMCS_GUEST_PDPTE0 + 2 * i, i ? 0 : (TABLES_AT + 0x2000) | 1);
	vmcs_clear(&m, VMCS_ENTRY_CONTROLS, VMX_ENTRY_IA32E);
	vmcs_put(&m, VMCS_GUEST_EFER, 0);
	vmcs_put(&m, VMCS_GUEST_CS_RIGHTS, 0xc09b);
	vmcs_clear(&m, VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD | VMX_CR3_STORE);
	vmcs_put(&m, VMCS_GUEST_CR3, 0x7000); /* not read: the fields are */
	vmcs_or(&m, VMCS_EPTP, EPTP_ACCESSED_DIRTY);
	m.cpu->reg[RBX] = table;
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, PTE_OF(EPT_AT, table), 8) & (A | D), A);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	guest_put(&m, PTE_OF(EPT_AT, table), 0, 8);
	assert_int_equal(vmx_run(&m, code, sizeof(code)), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 1);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PHYSICAL_ADDRESS), table);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(translations_are_those_of_both),
		cmocka_unit_test(violations),
		cmocka_unit_test(misconfigurations),
		cmocka_unit_test(large_pages),
		cmocka_unit_test(advanced_information),
		cmocka_unit_test(flags_of_ept),
		cmocka_unit_test(flags_can_be_broken),
		cmocka_unit_test(log_of_modifications),
		cmocka_unit_test(virtualization_exceptions),
		cmocka_unit_test(mode_based_execution),
		cmocka_unit_test(eptp_switching),
		cmocka_unit_test(translations_by_vpid),
		cmocka_unit_test(translations_of_worlds),
		cmocka_unit_test(nmis_that_iret_unblocked),
		cmocka_unit_test(pdptes_through_ept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
