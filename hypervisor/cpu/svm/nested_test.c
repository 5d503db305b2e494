/* nested_test.c: two levels of tables: rights, faults and their order, A and D, modes of both levels. */
#include "cpu/svm/svm_test.h"

#define NESTED_PTE(linear)                                                                                   \
	(NPT_AT + 0x3000 + 8 * (((linear)-MACHINE_BASE) >> 12))     /* of what is at MACHINE_BASE */
#define NESTED_TABLE(table) (NPT_AT + 0x4000 + 8 * ((table) >> 12)) /* of the guest's tables */
#define GUEST_PDE           (TABLES_AT + 0x2000 + (MACHINE_BASE >> 21) * 8)
#define A                   0x20u
#define D                   0x40u

/* mov rbx, [rcx] and mov [rcx], rbx, of DATA_AT */
static const uint8_t load[] = {0x48, 0x8b, 0x19, VMMCALL}, store[] = {0x48, 0x89, 0x19, VMMCALL};

static void open(struct machine *m)
{
	svm_open(m);
	nested_tables(m);
	m->cpu->reg[RCX] = DATA_AT;
}

static int64_t again(struct machine *m, const uint8_t *code, size_t size)
{
	vmcb_put(m, VMCB_RIP, GUEST_AT, 8);
	return svm_run(m, code, size);
}

static void translations_are_those_of_both(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	/* The guest's data page is somewhere else. */
	guest_put(&m, NESTED_PTE(DATA_AT), (MACHINE_BASE + 0x70000) | 7, 8);
	guest_put(&m, MACHINE_BASE + 0x70000, 0x1122334455667788ull, 8);
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->reg[RBX], 0x1122334455667788ull);
	/* And not the host's: no translation stays (15.16). */
	machine_run(&m, load, 3, 1);
	assert_int_equal(m.cpu->reg[RBX], 0);
	machine_close(&m);
}

/* One change to an entry of the nested tables, and the fault that it makes. */
static void nested_faults(void **state)
{
	static const struct {
		const char *check;
		uint64_t at, clear, set;
		bool write;
		uint64_t error, address;
	} rows[] = {
		{"NPT_PRESENT", NESTED_PTE(DATA_AT), 1, 0, false, SVM_NPF_FINAL | PF_U, DATA_AT},
		{"NPT_PRESENT", NESTED_PTE(DATA_AT), 1, 0, true, SVM_NPF_FINAL | PF_U | PF_W, DATA_AT},
		{"NPT_WRITE", NESTED_PTE(DATA_AT), 2, 0, true, SVM_NPF_FINAL | PF_U | PF_W | PF_P, DATA_AT},
		{"NPT_USER", NESTED_PTE(DATA_AT), 4, 0, false, SVM_NPF_FINAL | PF_U | PF_P, DATA_AT},
		{"NPT_RESERVED", NESTED_PTE(DATA_AT), 0, 1ull << 51, false,
		 SVM_NPF_FINAL | PF_U | PF_P | PF_RSVD, DATA_AT},
		{"NPT_NX", NESTED_PTE(GUEST_AT), 0, 1ull << 63, false, SVM_NPF_FINAL | PF_U | PF_P | PF_I,
		 GUEST_AT},
		/* The guest's tables are written as a user does, whatever the access (15.25.5). */
		{"NPT_WRITE", NESTED_TABLE(TABLES_AT), 2, 0, false, SVM_NPF_TABLE | PF_U | PF_W | PF_P,
		 TABLES_AT},
		{"NPT_PRESENT", NESTED_TABLE(TABLES_AT + 0x2000), 1, 0, false, SVM_NPF_TABLE | PF_U | PF_W,
		 GUEST_PDE},
	};
	struct machine m;

	(void)state;
	open(&m);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const uint8_t *code = rows[i].write ? store : load;
		uint64_t entry = guest_get(&m, rows[i].at, 8);
		struct vcpu_state host;

		cpu_save(m.cpu, &host);
		guest_put(&m, rows[i].at, (entry & ~rows[i].clear) | rows[i].set, 8);
		if (again(&m, code, sizeof(load)) != SVM_EXIT_NPF)
			fail_msg("%zu: exit %llx", i, (unsigned long long)vmcb_get(&m, VMCB_EXITCODE, 8));
		assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), rows[i].error);
		assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), rows[i].address);
		assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
		assert_int_equal(vmcb_get(&m, VMCB_NRIP, 8), 0);
		/* Broken, the entry does what it can. */
		assert_true(check_break(rows[i].check));
		vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
		svm_run_for(&m, code, sizeof(load), 50);
		if (vmcb_get(&m, VMCB_EXITCODE, 8) == SVM_EXIT_NPF &&
		    vmcb_get(&m, VMCB_EXITINFO1, 8) == rows[i].error)
			fail_msg("%zu: with %s broken it still faults", i, rows[i].check);
		check_break(NULL);
		guest_put(&m, rows[i].at, entry, 8);
		cpu_load(m.cpu, &host);
	}
	machine_close(&m);
}

/* Without the host's EFER.NXE bit 63 is reserved; the guest's does not count. */
static void nx_is_the_hosts(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	m.cpu->efer &= ~(uint64_t)EFER_NXE;
	cpu_mode_changed(m.cpu);
	guest_put(&m, NESTED_PTE(DATA_AT), DATA_AT | 7 | 1ull << 63, 8);
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), SVM_NPF_FINAL | PF_U | PF_P | PF_RSVD);
	machine_close(&m);
}

/* Data faults bring the instruction's bytes, those of a fetch none (15.8.4). */
static void bytes_of_the_instruction(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	guest_put(&m, NESTED_PTE(DATA_AT), 0, 8);
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_FETCHED, 1), 15);
	for (unsigned i = 0; i < sizeof(load); i++)
		assert_int_equal(vmcb_get(&m, VMCB_FETCHED + 1 + i, 1), load[i]);
	/* At the end of what can be fetched there are fewer. */
	guest_put(&m, NESTED_PTE(GUEST_AT + 0x1000), 0, 8);
	machine_write(&m, GUEST_AT + 0x1000 - 3, load, 3);
	vmcb_put(&m, VMCB_RIP, GUEST_AT + 0x1000 - 3, 8);
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), DATA_AT);
	assert_int_equal(vmcb_get(&m, VMCB_FETCHED, 1), 3);
	/* The fetch itself. */
	vmcb_put(&m, VMCB_RIP, GUEST_AT + 0x1000, 8);
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), SVM_NPF_FINAL | PF_U | PF_I);
	assert_int_equal(vmcb_get(&m, VMCB_FETCHED, 1), 0);
	machine_close(&m);
}

static void accessed_and_dirty_of_both_levels(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_VMMCALL);
	assert_int_equal(guest_get(&m, NESTED_PTE(DATA_AT), 8) & (A | D), A);
	assert_int_equal(guest_get(&m, NESTED_PTE(GUEST_AT), 8) & (A | D), A);
	assert_int_equal(guest_get(&m, NPT_AT, 8) & A, A);
	/* Walking the guest's tables writes them. */
	assert_int_equal(guest_get(&m, NESTED_TABLE(TABLES_AT), 8) & (A | D), A | D);
	assert_int_equal(guest_get(&m, GUEST_PDE, 8) & (A | D), A);
	/* A page that was read has no writable translation. */
	assert_int_equal(again(&m, (const uint8_t[]){0x48, 0x8b, 0x19, 0x48, 0x89, 0x19, VMMCALL}, 9),
			 SVM_EXIT_VMMCALL);
	assert_int_equal(guest_get(&m, NESTED_PTE(DATA_AT), 8) & (A | D), A | D);
	assert_int_equal(guest_get(&m, GUEST_PDE, 8) & (A | D), A | D);
	machine_close(&m);
}

/* 15.25.6: the guest's own fault comes before that of the final translation, and behind those of its tables.
 */
static void guest_faults_come_first(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_PF);
	guest_put(&m, NESTED_PTE(DATA_AT), 0, 8);
	m.cpu->reg[RCX] = DATA_AT + 0x40000000; /* not mapped by the guest */
	assert_int_equal(svm_run(&m, load, sizeof(load)), SVM_EXIT_EXCEPTION + VECTOR_PF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), DATA_AT + 0x40000000);
	/* A supervisor's page at CR0.WP = 1 and R/W = 0 in the guest, absent below. */
	guest_put(&m, GUEST_PDE, guest_get(&m, GUEST_PDE, 8) & ~2ull, 8);
	vmcb_or(&m, VMCB_CR0, CR0_WP, 8);
	m.cpu->reg[RCX] = DATA_AT;
	assert_int_equal(svm_run(&m, store, sizeof(store)), SVM_EXIT_EXCEPTION + VECTOR_PF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), PF_P | PF_W);
	/* The guest's CR0.WP = 0 opens its own page, and not the nested one. */
	vmcb_put(&m, VMCB_CR0, vmcb_get(&m, VMCB_CR0, 8) & ~(uint64_t)CR0_WP, 8);
	guest_put(&m, NESTED_PTE(DATA_AT), DATA_AT | 5, 8);
	assert_int_equal(svm_run(&m, store, sizeof(store)), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), SVM_NPF_FINAL | PF_U | PF_W | PF_P);
	machine_close(&m);
}

/* A guest without paging: its linear addresses are guest-physical ones. */
static void guest_without_paging(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_CR0, CR0_PE | CR0_ET | CR0_NE, 8);
	vmcb_put(&m, VMCB_EFER, EFER_SVME, 8);
	vmcb_put(&m, VMCB_CS + 2, 0xc9b, 2);
	guest_put(&m, NESTED_PTE(DATA_AT), (MACHINE_BASE + 0x70000) | 7, 8);
	guest_put(&m, MACHINE_BASE + 0x70000, 0x99aabbcc, 8);
	assert_int_equal(GUEST(&m, 0x8b, 0x19, VMMCALL), SVM_EXIT_VMMCALL); /* mov ebx, [ecx] */
	assert_int_equal(m.cpu->reg[RBX], 0x99aabbcc);
	machine_close(&m);
}

/* What the guest reads at DATA_AT, once the nested entry leads to the page at @page; it was 1 elsewhere
 * before. */
static uint64_t read_after(struct machine *m, uint64_t page, unsigned control, unsigned asid)
{
	guest_put(m, NESTED_PTE(DATA_AT), page | 7, 8);
	vmcb_put(m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(m, VMCB_TLB_CONTROL, control, 1);
	vmcb_put(m, VMCB_ASID, asid, 4);
	assert_int_equal(GUEST(m, 0x8b, 0x19, VMMCALL), SVM_EXIT_VMMCALL); /* mov ebx, [rcx] */
	return m->cpu->reg[RBX];
}

/* Of translations it is promised when they go; that they are kept in between is how their going is seen
 * (15.16). */
static void translations_by_asid(void **state)
{
	const uint64_t one = MACHINE_BASE + 0x70000, two = MACHINE_BASE + 0x71000;
	struct machine m;

	(void)state;
	open(&m);
	guest_put(&m, one, 1, 8);
	guest_put(&m, two, 2, 8);
	assert_int_equal(read_after(&m, one, 1, 1), 1);
	assert_int_equal(read_after(&m, two, 0, 1), 1); /* kept */
	assert_int_equal(read_after(&m, two, 0, 2), 2);
	assert_int_equal(read_after(&m, two, 0, 1), 1); /* of each ASID */
	assert_int_equal(read_after(&m, two, 3, 1), 2);
	assert_int_equal(read_after(&m, one, 0, 1), 2);
	assert_int_equal(read_after(&m, one, 3, 2), 1);
	assert_int_equal(read_after(&m, one, 0, 1), 2); /* 3 concerns its own alone */
	assert_int_equal(read_after(&m, one, 1, 2), 1);
	assert_int_equal(read_after(&m, one, 0, 1), 1); /* 1 all */
	assert_int_equal(read_after(&m, two, 7, 1), 2);
	assert_true(check_break("VMRUN_FLUSH_ASID")); /* which drops what is kept */
	assert_int_equal(read_after(&m, one, 0, 1), 1);
	assert_int_equal(read_after(&m, two, 3, 1), 1);
	assert_int_equal(read_after(&m, two, 7, 1), 1);
	assert_true(check_break("VMRUN_FLUSH_ALL"));
	assert_int_equal(read_after(&m, two, 0, 1), 2);
	assert_int_equal(read_after(&m, one, 1, 1), 2);
	check_break(NULL);
	machine_close(&m);
}

/* The host's INVLPGA of an ASID's page. */
static void invlpga_by_asid(void **state)
{
	const uint64_t one = MACHINE_BASE + 0x70000, two = MACHINE_BASE + 0x71000;
	static const uint8_t invlpga[] = {0x0f, 0x01, 0xdf};
	struct machine m;

	(void)state;
	open(&m);
	guest_put(&m, one, 1, 8);
	guest_put(&m, two, 2, 8);
	assert_int_equal(read_after(&m, one, 1, 5), 1);
	assert_int_equal(read_after(&m, two, 0, 5), 1);
	for (unsigned asid = 0; asid < 7; asid++) {
		uint64_t data = m.cpu->reg[RCX];

		m.cpu->reg[RAX] = data;
		m.cpu->reg[RCX] = asid;
		machine_run(&m, invlpga, sizeof(invlpga), 1);
		assert_int_equal(m.vector, NO_EVENT);
		m.cpu->reg[RCX] = data;
		assert_int_equal(read_after(&m, two, 0, 5), asid < 5 ? 1 : 2);
	}
	machine_close(&m);
}

/* PAE: the four PDPEs are read by each walk; MBZ bits are a #PF then (15.25.10), and VMRUN's affair without
 * NP. */
static void pae_guest(void **state)
{
	uint64_t pdpt = NPT_AT + 0x8000;
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_EFER, EFER_SVME, 8);
	vmcb_put(&m, VMCB_CS + 2, 0xc9b, 2);
	vmcb_put(&m, VMCB_CR3, pdpt, 8);
	guest_put(&m, pdpt, (TABLES_AT + 0x2000) | 1, 8);
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_PF);
	/* mov ebx, [ecx]; xor the PDPE; vmmcall */
	assert_int_equal(GUEST(&m, 0x8b, 0x19, VMMCALL), SVM_EXIT_VMMCALL);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	guest_put(&m, pdpt, (TABLES_AT + 0x2000) | 1 | 2, 8);
	assert_int_equal(GUEST(&m, 0x8b, 0x19, VMMCALL), SVM_EXIT_EXCEPTION + VECTOR_PF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8) & (PF_P | PF_RSVD), PF_P | PF_RSVD);
	vmcb_put(&m, VMCB_NESTED, 0, 8);
	assert_int_equal(GUEST(&m, 0x8b, 0x19, VMMCALL), SVM_EXIT_INVALID);
	guest_put(&m, pdpt, (TABLES_AT + 0x2000) | 1, 8);
	assert_int_equal(GUEST(&m, 0x8b, 0x19, VMMCALL), SVM_EXIT_VMMCALL);
	machine_close(&m);
}

/* The nested tables are in the host's mode: PAE and 32-bit hosts. */
static void hosts_of_other_modes(void **state)
{
	uint64_t tables = NPT_AT + 0x8000;
	struct machine m;

	(void)state;
	for (unsigned pae = 0; pae < 2; pae++) {
		uint64_t at = tables + (pae ? 0x1000 + (MACHINE_BASE >> 21) * 8 : (MACHINE_BASE >> 22) * 4);

		open(&m);
		/* Large pages over all that is used; 0 to 2 MiB as well, where the tables are. */
		guest_put(&m, tables, pae ? (tables + 0x1000) | 1 : 0x87, pae ? 8 : 4);
		guest_put(&m, tables + 0x1000, 0x87, 8);
		guest_put(&m, at, MACHINE_BASE | 0x87, pae ? 8 : 4);
		machine_mode(&m, CODE_32);
		m.cpu->cr4 = pae ? CR4_PAE : CR4_PSE;
		m.cpu->cr3 = tables;
		m.cpu->efer = EFER_SVME;
		assert_true(!pae || pdptes_load(m.cpu, tables));
		m.cpu->cr0 |= CR0_PG;
		cpu_mode_changed(m.cpu);
		vmcb_put(&m, VMCB_NCR3, tables, 8);
		m.cpu->reg[RCX] = DATA_AT;
		assert_int_equal(svm_run(&m, store, sizeof(store)), SVM_EXIT_VMMCALL);
		assert_int_equal(guest_get(&m, at, 4) & (A | D), A | D);
		machine_close(&m);
	}
}

/* A fault while an event is delivered is told with it. */
static void delivery_that_faults(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	guest_put(&m, NESTED_PTE(IDT_AT), 0, 8);
	assert_int_equal(GUEST(&m, 0xcd, 0x21), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), SVM_EVENT_VALID | 4u << 8 | 0x21);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), IDT_AT + 16 * 0x21);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
	machine_close(&m);
}

/* The guest's PAT is its own with nested paging, the host's without (15.25.8). */
static void page_attribute_table(void **state)
{
	/* wrmsr */
	static const uint8_t code[] = {0x0f, 0x30, VMMCALL};
	struct machine m;

	(void)state;
	for (unsigned nested = 0; nested < 2; nested++) {
		open(&m);
		vmcb_put(&m, VMCB_NESTED, nested, 8);
		vmcb_put(&m, VMCB_RAX, 0x06060606, 8);
		m.cpu->reg[RCX] = MSR_PAT;
		m.cpu->reg[RDX] = 0x06060606;
		assert_int_equal(svm_run(&m, code, sizeof(code)), SVM_EXIT_VMMCALL);
		assert_int_equal(m.cpu->msr.pat, nested ? 0x0007040600070406ull : 0x0606060606060606ull);
		assert_int_equal(vmcb_get(&m, VMCB_G_PAT, 8),
				 nested ? 0x0606060606060606ull : 0x0007040600070406ull);
		machine_close(&m);
	}
}

/* VMLOAD of a guest with virtual VMLOAD goes through its tables (15.33.1). */
static void virtual_vmload(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_VIRTUAL, SVM_VLS_ENABLE, 8);
	vmcb_put(&m, VMCB_RAX, DATA_AT, 8);
	guest_put(&m, NESTED_PTE(DATA_AT), (MACHINE_BASE + 0x70000) | 7, 8);
	guest_put(&m, MACHINE_BASE + 0x70000 + VMCB_STAR, 0x4711, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xda, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->msr.star, 0x4711);
	guest_put(&m, NESTED_PTE(DATA_AT), 0, 8);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xdb, VMMCALL), SVM_EXIT_NPF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), SVM_NPF_FINAL | PF_U | PF_W);
	/* Without nested paging it exits. */
	vmcb_put(&m, VMCB_NESTED, 0, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xdb, VMMCALL), SVM_EXIT_VMSAVE);
	machine_close(&m);
}

/* The host's mode is what counts for that, not the guest's (15.33.1). */
static void virtual_vmsave_by_the_hosts_mode(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_VIRTUAL, SVM_VLS_ENABLE, 8);
	vmcb_put(&m, VMCB_RAX, DATA_AT, 8);
	vmcb_put(&m, VMCB_EFER, EFER_SVME, 8);
	vmcb_put(&m, VMCB_CR0, CR0_PE | CR0_ET | CR0_NE, 8);
	vmcb_put(&m, VMCB_CS + 2, 0xc9b, 2);
	m.cpu->msr.star = 0x4712;
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xdb, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(guest_get(&m, DATA_AT + VMCB_STAR, 8), 0x4712);
	vmcb_put(&m, VMCB_NESTED, 0, 8);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xdb, VMMCALL), SVM_EXIT_VMSAVE);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(translations_are_those_of_both),
		cmocka_unit_test(nested_faults),
		cmocka_unit_test(nx_is_the_hosts),
		cmocka_unit_test(bytes_of_the_instruction),
		cmocka_unit_test(accessed_and_dirty_of_both_levels),
		cmocka_unit_test(guest_faults_come_first),
		cmocka_unit_test(guest_without_paging),
		cmocka_unit_test(translations_by_asid),
		cmocka_unit_test(invlpga_by_asid),
		cmocka_unit_test(pae_guest),
		cmocka_unit_test(hosts_of_other_modes),
		cmocka_unit_test(delivery_that_faults),
		cmocka_unit_test(page_attribute_table),
		cmocka_unit_test(virtual_vmload),
		cmocka_unit_test(virtual_vmsave_by_the_hosts_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
