/*
 * walk_test.c: every rule of the page walk, in each paging mode, allowed and refused; and that each
 * named check, when broken, is noticed by one of the rows.
 */
#include "cpu/mem/test_cpu.h"

#define OK (-1)

/* One walk. The page is mapped P, W, U; what a row does not name is 0. */
struct row {
	const char *what;
	enum test_mode mode;
	unsigned level; /* of the leaf: 1, 2 or 3; 0: 1 */
	unsigned edit;  /* level of the entry that set and clear change; 0: the leaf */
	uint64_t set, clear;
	uint64_t cr0, cr4, efer; /* bits beyond the mode's own */
	bool ac;
	uint32_t pkru;
	unsigned access;
	int error;           /* of #PF, or OK */
	const char *profile; /* NULL: intel */
};

#define READ       ACCESS_READ
#define WRITE      ACCESS_WRITE
#define FETCH      ACCESS_EXECUTE
#define USER_READ  (ACCESS_USER | ACCESS_READ)
#define USER_WRITE (ACCESS_USER | ACCESS_WRITE)
#define USER_FETCH (ACCESS_USER | ACCESS_EXECUTE)
#define IMPLICIT   ACCESS_IMPLICIT

#define KEY(n)     ((uint64_t)(n) << PTE_PK_SHIFT)
#define PKRU_AD(n) (1u << (2 * (n)))
#define PKRU_WD(n) (2u << (2 * (n)))

static const struct row rows[] = {
	/* P */
	{"pte p=0", MODE_32BIT, .clear = PTE_P, .access = READ, .error = 0},
	{"pte p=0 write", MODE_32BIT, .clear = PTE_P, .access = WRITE, .error = PF_W},
	{"pte p=0 user write", MODE_32BIT, .clear = PTE_P, .access = USER_WRITE, .error = PF_W | PF_U},
	{"pde p=0", MODE_32BIT, .edit = 2, .clear = PTE_P, .access = USER_READ, .error = PF_U},
	{"p=0 with reserved bits is not present", MODE_4LEVEL, .set = 1ull << 50, .clear = PTE_P,
	 .access = READ, .error = 0},
	{"pae pte p=0", MODE_PAE, .clear = PTE_P, .access = READ, .error = 0},
	{"pae pde p=0", MODE_PAE, .edit = 2, .clear = PTE_P, .access = WRITE, .error = PF_W},
	{"pae pdpte p=0", MODE_PAE, .edit = 3, .clear = PTE_P, .access = READ, .error = 0},
	{"4-level pml4e p=0", MODE_4LEVEL, .edit = 4, .clear = PTE_P, .access = READ, .error = 0},
	{"4-level pdpte p=0", MODE_4LEVEL, .edit = 3, .clear = PTE_P, .access = READ, .error = 0},
	{"4-level pde p=0", MODE_4LEVEL, .edit = 2, .clear = PTE_P, .access = READ, .error = 0},
	{"5-level pml5e p=0", MODE_5LEVEL, .edit = 5, .clear = PTE_P, .access = USER_READ, .error = PF_U},

	/* allowed, by page size */
	{"32-bit 4k", MODE_32BIT, .access = USER_WRITE, .error = OK},
	{"32-bit 4m", MODE_32BIT, .level = 2, .access = USER_WRITE, .error = OK},
	{"pae 4k", MODE_PAE, .access = USER_WRITE, .error = OK},
	{"pae 2m", MODE_PAE, .level = 2, .access = USER_FETCH, .error = OK},
	{"4-level 4k", MODE_4LEVEL, .access = USER_READ, .error = OK},
	{"4-level 2m", MODE_4LEVEL, .level = 2, .access = WRITE, .error = OK},
	{"4-level 1g", MODE_4LEVEL, .level = 3, .access = USER_WRITE, .error = OK},
	{"5-level 4k", MODE_5LEVEL, .access = USER_WRITE, .error = OK},
	{"5-level 1g", MODE_5LEVEL, .level = 3, .access = READ, .error = OK},
	{"cr4.pse=0 ignores ps", MODE_PAE, .level = 2, .access = READ, .error = OK},

	/* R/W */
	{"user write w=0", MODE_32BIT, .clear = PTE_W, .access = USER_WRITE, .error = PF_P | PF_W | PF_U},
	{"user read w=0", MODE_32BIT, .clear = PTE_W, .access = USER_READ, .error = OK},
	{"user write pde w=0", MODE_PAE, .edit = 2, .clear = PTE_W, .access = USER_WRITE,
	 .error = PF_P | PF_W | PF_U},
	{"user write pml4e w=0", MODE_4LEVEL, .edit = 4, .clear = PTE_W, .access = USER_WRITE,
	 .error = PF_P | PF_W | PF_U},
	{"supervisor write w=0 wp=0", MODE_4LEVEL, .clear = PTE_W, .access = WRITE, .error = OK},
	{"supervisor write w=0 wp=1", MODE_4LEVEL, .clear = PTE_W, .cr0 = CR0_WP, .access = WRITE,
	 .error = PF_P | PF_W},
	{"supervisor write u=0 w=0 wp=1", MODE_32BIT, .clear = PTE_W | PTE_U, .cr0 = CR0_WP, .access = WRITE,
	 .error = PF_P | PF_W},
	{"supervisor read w=0 wp=1", MODE_4LEVEL, .clear = PTE_W, .cr0 = CR0_WP, .access = READ, .error = OK},
	{"implicit write w=0 wp=1", MODE_4LEVEL, .clear = PTE_W, .cr0 = CR0_WP, .access = WRITE | IMPLICIT,
	 .error = PF_P | PF_W},
	{"large w=0 wp=1", MODE_32BIT, .level = 2, .clear = PTE_W, .cr0 = CR0_WP, .access = WRITE,
	 .error = PF_P | PF_W},

	/* U/S */
	{"user read u=0", MODE_32BIT, .clear = PTE_U, .access = USER_READ, .error = PF_P | PF_U},
	{"user write u=0", MODE_PAE, .clear = PTE_U, .access = USER_WRITE, .error = PF_P | PF_U | PF_W},
	{"user fetch u=0", MODE_4LEVEL, .clear = PTE_U, .access = USER_FETCH, .error = PF_P | PF_U},
	{"user fetch u=0 nxe", MODE_4LEVEL, .clear = PTE_U, .efer = EFER_NXE, .access = USER_FETCH,
	 .error = PF_P | PF_U | PF_I},
	{"user read pdpte u=0", MODE_4LEVEL, .edit = 3, .clear = PTE_U, .access = USER_READ,
	 .error = PF_P | PF_U},
	{"user read pml5e u=0", MODE_5LEVEL, .edit = 5, .clear = PTE_U, .access = USER_READ,
	 .error = PF_P | PF_U},
	{"supervisor read u=0", MODE_4LEVEL, .clear = PTE_U, .access = READ, .error = OK},

	/* NX */
	{"fetch nx", MODE_4LEVEL, .set = PTE_NX, .efer = EFER_NXE, .access = FETCH, .error = PF_P | PF_I},
	{"user fetch nx", MODE_PAE, .set = PTE_NX, .efer = EFER_NXE, .access = USER_FETCH,
	 .error = PF_P | PF_I | PF_U},
	{"fetch nx in pdpte", MODE_4LEVEL, .edit = 3, .set = PTE_NX, .efer = EFER_NXE, .access = FETCH,
	 .error = PF_P | PF_I},
	{"fetch nx 2m", MODE_PAE, .level = 2, .set = PTE_NX, .efer = EFER_NXE, .access = FETCH,
	 .error = PF_P | PF_I},
	{"read nx", MODE_4LEVEL, .set = PTE_NX, .efer = EFER_NXE, .access = READ, .error = OK},
	{"nx reserved without nxe", MODE_4LEVEL, .set = PTE_NX, .access = READ, .error = PF_P | PF_RSVD},
	{"nx reserved without nxe, pae fetch", MODE_PAE, .set = PTE_NX, .access = FETCH,
	 .error = PF_P | PF_RSVD},
	{"i in 32-bit paging", MODE_32BIT, .clear = PTE_P, .efer = EFER_NXE, .access = FETCH, .error = 0},
	{"i in 32-bit paging with smep", MODE_32BIT, .clear = PTE_P, .cr4 = CR4_SMEP, .access = FETCH,
	 .error = PF_I},
	{"i in pae paging", MODE_PAE, .clear = PTE_P, .efer = EFER_NXE, .access = FETCH, .error = PF_I},
	{"i without nxe", MODE_PAE, .clear = PTE_P, .access = FETCH, .error = 0},

	/* SMEP */
	{"smep user page", MODE_4LEVEL, .cr4 = CR4_SMEP, .access = FETCH, .error = PF_P | PF_I},
	{"smep 32-bit", MODE_32BIT, .cr4 = CR4_SMEP, .access = FETCH, .error = PF_P | PF_I},
	{"smep supervisor page", MODE_4LEVEL, .clear = PTE_U, .cr4 = CR4_SMEP, .access = FETCH, .error = OK},
	{"smep supervisor by pde", MODE_PAE, .edit = 2, .clear = PTE_U, .cr4 = CR4_SMEP, .access = FETCH,
	 .error = OK},
	{"smep user fetch", MODE_4LEVEL, .cr4 = CR4_SMEP, .access = USER_FETCH, .error = OK},
	{"smep data", MODE_4LEVEL, .cr4 = CR4_SMEP, .access = READ, .error = OK},
	{"no smep", MODE_4LEVEL, .access = FETCH, .error = OK},

	/* SMAP */
	{"smap read", MODE_4LEVEL, .cr4 = CR4_SMAP, .access = READ, .error = PF_P},
	{"smap write", MODE_32BIT, .cr4 = CR4_SMAP, .access = WRITE, .error = PF_P | PF_W},
	{"smap read ac", MODE_4LEVEL, .cr4 = CR4_SMAP, .ac = true, .access = READ, .error = OK},
	{"smap write ac wp", MODE_4LEVEL, .clear = PTE_W, .cr0 = CR0_WP, .cr4 = CR4_SMAP, .ac = true,
	 .access = WRITE, .error = PF_P | PF_W},
	{"smap implicit ac", MODE_4LEVEL, .cr4 = CR4_SMAP, .ac = true, .access = READ | IMPLICIT,
	 .error = PF_P},
	{"smap implicit", MODE_4LEVEL, .cr4 = CR4_SMAP, .access = WRITE | IMPLICIT, .error = PF_P | PF_W},
	{"smap supervisor page", MODE_4LEVEL, .clear = PTE_U, .cr4 = CR4_SMAP, .access = WRITE, .error = OK},
	{"smap user access", MODE_4LEVEL, .cr4 = CR4_SMAP, .access = USER_READ, .error = OK},
	{"smap fetch", MODE_4LEVEL, .cr4 = CR4_SMAP, .access = FETCH, .error = OK},
	{"no smap implicit", MODE_4LEVEL, .access = READ | IMPLICIT, .error = OK},

	/* PKU */
	{"ad user read", MODE_4LEVEL, .set = KEY(5), .cr4 = CR4_PKE, .pkru = PKRU_AD(5), .access = USER_READ,
	 .error = PF_P | PF_U | PF_PK},
	{"ad user write", MODE_5LEVEL, .set = KEY(5), .cr4 = CR4_PKE, .pkru = PKRU_AD(5),
	 .access = USER_WRITE, .error = PF_P | PF_U | PF_W | PF_PK},
	{"ad supervisor read", MODE_4LEVEL, .set = KEY(15), .cr4 = CR4_PKE, .pkru = PKRU_AD(15),
	 .access = READ, .error = PF_P | PF_PK},
	{"ad fetch", MODE_4LEVEL, .set = KEY(5), .cr4 = CR4_PKE, .pkru = PKRU_AD(5), .access = USER_FETCH,
	 .error = OK},
	{"ad supervisor page", MODE_4LEVEL, .set = KEY(5), .clear = PTE_U, .cr4 = CR4_PKE, .pkru = ~0u,
	 .access = READ, .error = OK},
	{"ad other key", MODE_4LEVEL, .set = KEY(5), .cr4 = CR4_PKE, .pkru = ~PKRU_AD(5) & ~PKRU_WD(5),
	 .access = USER_WRITE, .error = OK},
	{"ad 2m", MODE_4LEVEL, .level = 2, .set = KEY(1), .cr4 = CR4_PKE, .pkru = PKRU_AD(1),
	 .access = USER_READ, .error = PF_P | PF_U | PF_PK},
	{"ad key of the leaf only", MODE_4LEVEL, .edit = 2, .set = KEY(1), .cr4 = CR4_PKE, .pkru = PKRU_AD(1),
	 .access = USER_READ, .error = OK},
	{"wd user write", MODE_4LEVEL, .set = KEY(3), .cr4 = CR4_PKE, .pkru = PKRU_WD(3),
	 .access = USER_WRITE, .error = PF_P | PF_U | PF_W | PF_PK},
	{"wd user read", MODE_4LEVEL, .set = KEY(3), .cr4 = CR4_PKE, .pkru = PKRU_WD(3), .access = USER_READ,
	 .error = OK},
	{"wd supervisor write wp=0", MODE_4LEVEL, .set = KEY(3), .cr4 = CR4_PKE, .pkru = PKRU_WD(3),
	 .access = WRITE, .error = OK},
	{"wd supervisor write wp=1", MODE_4LEVEL, .set = KEY(3), .cr0 = CR0_WP, .cr4 = CR4_PKE,
	 .pkru = PKRU_WD(3), .access = WRITE, .error = PF_P | PF_W | PF_PK},
	{"wd beside w=0", MODE_4LEVEL, .set = KEY(3), .clear = PTE_W, .cr4 = CR4_PKE, .pkru = PKRU_WD(3),
	 .access = USER_WRITE, .error = PF_P | PF_U | PF_W | PF_PK},
	{"no pke", MODE_4LEVEL, .set = KEY(3), .pkru = ~0u, .access = USER_WRITE, .error = OK},
	{"pke without ia-32e mode", MODE_PAE, .cr4 = CR4_PKE, .pkru = ~0u, .access = USER_WRITE, .error = OK},

	/* reserved bits: 46 physical bits for the profile intel, 48 for amd */
	{"address pte", MODE_4LEVEL, .set = 1ull << 46, .access = READ, .error = PF_P | PF_RSVD},
	{"address pte 51", MODE_4LEVEL, .set = 1ull << 51, .access = USER_WRITE,
	 .error = PF_P | PF_RSVD | PF_U | PF_W},
	{"address pml4e", MODE_4LEVEL, .edit = 4, .set = 1ull << 47, .access = READ, .error = PF_P | PF_RSVD},
	{"address pml5e", MODE_5LEVEL, .edit = 5, .set = 1ull << 46, .access = READ, .error = PF_P | PF_RSVD},
	{"address amd", MODE_4LEVEL, .set = 1ull << 48, .access = READ, .error = PF_P | PF_RSVD,
	 .profile = "amd"},
	{"ignored 62:52", MODE_4LEVEL, .set = 0x7ffull << 52, .access = READ, .error = OK},
	{"pae 62:52", MODE_PAE, .set = 1ull << 52, .access = READ, .error = PF_P | PF_RSVD},
	{"pae 62", MODE_PAE, .edit = 2, .set = 1ull << 62, .access = READ, .error = PF_P | PF_RSVD},
	{"pml4e ps", MODE_4LEVEL, .edit = 4, .set = PTE_PS, .access = READ, .error = PF_P | PF_RSVD},
	{"pml5e ps", MODE_5LEVEL, .edit = 5, .set = PTE_PS, .access = READ, .error = PF_P | PF_RSVD},
	{"pml4e g", MODE_4LEVEL, .edit = 4, .set = PTE_G, .access = READ, .error = OK},
	{"pml4e g amd", MODE_4LEVEL, .edit = 4, .set = PTE_G, .access = READ, .error = PF_P | PF_RSVD,
	 .profile = "amd"},
	{"pdpte g amd", MODE_4LEVEL, .edit = 3, .set = PTE_G, .access = READ, .error = OK, .profile = "amd"},
	{"pde g amd", MODE_4LEVEL, .edit = 2, .set = PTE_G, .access = READ, .error = OK, .profile = "amd"},
	{"1g without pdpe1gb", MODE_4LEVEL, .level = 3, .access = READ, .error = PF_P | PF_RSVD,
	 .profile = "intel,-pdpe1gb"},
	{"1g 29:13", MODE_4LEVEL, .level = 3, .set = 1ull << 29, .access = READ, .error = PF_P | PF_RSVD},
	{"1g 13", MODE_4LEVEL, .level = 3, .set = 1ull << 13, .access = READ, .error = PF_P | PF_RSVD},
	{"1g pat", MODE_4LEVEL, .level = 3, .set = 1ull << 12, .access = READ, .error = OK},
	{"2m 20:13", MODE_4LEVEL, .level = 2, .set = 1ull << 20, .access = READ, .error = PF_P | PF_RSVD},
	{"2m 13 pae", MODE_PAE, .level = 2, .set = 1ull << 13, .access = WRITE,
	 .error = PF_P | PF_RSVD | PF_W},
	{"2m pat", MODE_PAE, .level = 2, .set = 1ull << 12, .access = READ, .error = OK},
	{"2m 21", MODE_4LEVEL, .level = 2, .set = 1ull << 21, .access = READ, .error = OK},
	{"4k pat", MODE_4LEVEL, .set = PTE_PS, .access = READ, .error = OK},
	{"4m 21", MODE_32BIT, .level = 2, .set = 1ull << 21, .access = READ, .error = PF_P | PF_RSVD},
	{"4m pse-36", MODE_32BIT, .level = 2, .set = 1ull << 13, .access = READ, .error = OK},
	{"4m without pse-36", MODE_32BIT, .level = 2, .set = 1ull << 13, .access = READ,
	 .error = PF_P | PF_RSVD, .profile = "intel,-pse36"},
	{"4m pat", MODE_32BIT, .level = 2, .set = 1ull << 12, .access = READ, .error = OK},
	{"reserved before rights", MODE_4LEVEL, .set = 1ull << 50, .clear = PTE_U, .access = USER_READ,
	 .error = PF_P | PF_RSVD | PF_U},
	{"reserved above not present below", MODE_4LEVEL, .edit = 3, .set = 1ull << 50, .access = READ,
	 .error = PF_P | PF_RSVD},
};

#define ROWS   (sizeof(rows) / sizeof(rows[0]))
#define LINEAR 0x654321u
#define PAGE   0x400000u /* of what the leaf maps; zero below 4 MiB and 2 MiB */

static uint64_t leaf_entry(unsigned level)
{
	uint64_t flags = PTE_P | PTE_W | PTE_U;

	if (level == 3)
		return flags | PTE_PS;
	return level == 2 ? PAGE | PTE_PS | flags : (PAGE + 0x5000) | flags;
}

/* What differs from the row, or NULL. */
static const char *judge(const struct row *row, struct test_cpu *t, const struct test_path *path,
			 bool allowed, const struct walk *walked)
{
	unsigned leaf = row->level ? row->level : 1;
	uint32_t error = (uint32_t)row->error;

	if (allowed != (row->error == OK))
		return allowed ? "allowed" : "refused";
	if (!allowed && walked->error != error)
		return "error code";
	for (unsigned level = leaf; level <= test_levels(t); level++) {
		uint64_t entry = test_entry(t, path, level);
		bool pdpte = row->mode == MODE_PAE && level == 3;
		bool reaches = allowed || (level != leaf && (error & (PF_P | PF_RSVD)) == PF_P);

		if (!!(entry & PTE_A) != (reaches && !pdpte))
			return "A";
		if (!!(entry & PTE_D) != (allowed && level == leaf && row->access & ACCESS_WRITE))
			return "D";
	}
	return NULL;
}

static const char *run(const struct row *row)
{
	struct test_cpu *t = test_cpu_new(row->profile ? row->profile : "intel");
	unsigned leaf = row->level ? row->level : 1, edit = row->edit ? row->edit : leaf;
	struct test_path path;
	struct walk walked = {0};
	const char *why;
	bool allowed;

	test_mode_set(t, row->mode);
	t->cpu.cr0 |= row->cr0;
	t->cpu.cr4 |= row->cr4;
	t->cpu.efer |= row->efer;
	t->cpu.pkru = row->pkru;
	t->cpu.rflags |= row->ac ? RFLAGS_AC : 0;
	path = test_map(t, LINEAR, leaf_entry(leaf), leaf);
	test_entry_set(t, &path, edit, (test_entry(t, &path, edit) | row->set) & ~row->clear);
	allowed = walk(&t->cpu, LINEAR, row->access, &walked);
	why = judge(row, t, &path, allowed, &walked);
	test_cpu_free(t);
	return why;
}

static void test_rows(void **state)
{
	unsigned failures = 0;

	(void)state;
	for (size_t i = 0; i < ROWS; i++) {
		const char *why = run(&rows[i]);

		if (why) {
			print_error("%s: %s\n", rows[i].what, why);
			failures++;
		}
	}
	assert_int_equal(failures, 0);
}

/* Each check of the walk, broken, turns a row red. */
static void test_broken_checks_are_noticed(void **state)
{
	static const enum check checks[] = {CHECK_PTE_PRESENT, CHECK_PTE_WRITE,    CHECK_PTE_USER,
					    CHECK_PTE_NX,      CHECK_PTE_RESERVED, CHECK_CR0_WP,
					    CHECK_SMEP,        CHECK_SMAP,         CHECK_SMAP_IMPLICIT,
					    CHECK_PKU_AD,      CHECK_PKU_WD};

	(void)state;
	for (size_t c = 0; c < sizeof(checks) / sizeof(checks[0]); c++) {
		unsigned noticed = 0;

		check_broken = (int)checks[c];
		for (size_t i = 0; i < ROWS; i++)
			noticed += run(&rows[i]) != NULL;
		check_broken = -1;
		if (!noticed)
			print_error("check %d broken, and no row noticed\n", (int)checks[c]);
		assert_int_not_equal(noticed, 0);
		/* One check is one rule: most rows do not depend on it. */
		assert_true(noticed < ROWS / 2);
	}
}

/* ---- addresses ---- */

static void assert_walks_to(struct test_cpu *t, uint64_t linear, uint64_t physical, uint64_t size)
{
	struct walk walked;

	assert_true(walk(&t->cpu, linear, READ, &walked));
	assert_int_equal(walked.physical, physical);
	assert_int_equal(walked.size, size);
}

static void test_addresses(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");
	const uint64_t flags = PTE_P | PTE_W | PTE_U;

	(void)state;
	test_mode_set(t, MODE_FLAT);
	assert_walks_to(t, 0xfedcb123, 0xfedcb000, 4096);

	test_mode_set(t, MODE_32BIT);
	test_map(t, 0xffc01234, 0x7ff000 | flags, 1);
	assert_walks_to(t, 0xffc01234, 0x7ff000, 4096);
	test_map(t, 0x80000000, 0x12c00000 | 0x3ull << 13 | PTE_PS | flags, 2); /* PSE-36: bits 33:32 */
	assert_walks_to(t, 0x80354321, 0x312f54000, 1 << 22);
	t->cpu.cr4 &= ~(uint64_t)CR4_PSE; /* then PS means nothing, and the entry points to a table */
	test_map(t, 0x90000000, t->next_table | PTE_PS | flags, 2);
	*(uint32_t *)(t->ram + t->next_table + 4) = 0x345000 | PTE_P;
	assert_walks_to(t, 0x90001000, 0x345000, 4096);

	test_mode_set(t, MODE_PAE);
	test_map(t, 0xc0201000, 0x2345678000 | flags, 1);
	assert_walks_to(t, 0xc0201fff, 0x2345678000, 4096);
	test_map(t, 0x40600000, 0x1234400000 | PTE_PS | 1 << 12 | flags, 2);
	assert_walks_to(t, 0x407fe000, 0x12345fe000, 1 << 21);

	test_mode_set(t, MODE_4LEVEL);
	test_map(t, 0xffff923456789000, 0x3ffffffff000 | flags, 1);
	assert_walks_to(t, 0xffff923456789abc, 0x3ffffffff000, 4096);
	test_map(t, 0x7fff80000000, 0x140000000 | PTE_PS | flags, 3);
	assert_walks_to(t, 0x7fffb2345678, 0x140000000 + 0x32345000, 1 << 30);

	test_mode_set(t, MODE_5LEVEL);
	test_map(t, 0xff12345678901000, 0x456000 | flags, 1);
	assert_walks_to(t, 0xff12345678901000, 0x456000, 4096);
	test_cpu_free(t);
}

static void test_probe_changes_nothing(void **state)
{
	struct test_cpu *t = test_cpu_new("amd");
	struct test_path path;
	struct walk walked;

	(void)state;
	test_mode_set(t, MODE_4LEVEL);
	path = test_map(t, LINEAR, PAGE | PTE_P | PTE_W, 1);
	assert_true(walk(&t->cpu, LINEAR, WRITE | ACCESS_PROBE, &walked));
	assert_false(walked.dirty);
	assert_false(walk(&t->cpu, LINEAR, USER_READ | ACCESS_PROBE, &walked));
	for (unsigned level = 1; level <= 4; level++)
		assert_int_equal(test_entry(t, &path, level) & (PTE_A | PTE_D), 0);
	assert_true(walk(&t->cpu, LINEAR, READ, &walked));
	assert_false(walked.dirty); /* a later write must walk again, for D */
	assert_true(walk(&t->cpu, LINEAR, WRITE, &walked));
	assert_true(walked.dirty);
	assert_int_equal(test_entry(t, &path, 1), PAGE | PTE_P | PTE_W | PTE_A | PTE_D);
	test_cpu_free(t);
}

/* A and D writes are writes: the page that holds the table becomes dirty. */
static void test_accessed_bits_log_the_table_page(void **state)
{
	struct test_cpu *t = test_cpu_new("amd");
	struct test_path path;
	struct walk walked;

	(void)state;
	test_mode_set(t, MODE_32BIT);
	path = test_map(t, LINEAR, PAGE | PTE_P | PTE_W, 1);
	assert_int_equal(t->cpu.memory->dirty_count, 0);
	assert_true(walk(&t->cpu, LINEAR, READ, &walked));
	assert_int_equal(t->cpu.memory->dirty_count, 2);
	assert_int_equal(t->cpu.memory->dirty[0], path.address[2] & ~PAGE_MASK);
	assert_int_equal(t->cpu.memory->dirty[1], path.address[1] & ~PAGE_MASK);
	test_cpu_free(t);
}

static bool pdpte_loads(uint64_t entry)
{
	struct test_cpu *t = test_cpu_new("intel");
	uint64_t table = 0x200fe0; /* 32-byte alignment is enough */
	bool loads;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t value = i == 2 ? entry : 0x300000 + i * 0x1000 + 1;
		memcpy(t->ram + table + 8 * i, &value, 8);
	}
	t->cpu.pdpte[2] = 0x77;
	loads = pdptes_load(&t->cpu, table | CR3_PWT | CR3_PCD);
	assert_int_equal(t->cpu.pdpte[2], loads ? entry : 0x77);
	assert_int_equal(t->cpu.pdpte[3], loads ? 0x303001 : 0);
	test_cpu_free(t);
	return loads;
}

static void test_pdptes_load(void **state)
{
	static const unsigned reserved[] = {1, 2, 5, 6, 7, 8, 46, 51, 52, 62, 63};

	(void)state;
	assert_true(pdpte_loads(0x301001));
	assert_true(pdpte_loads(0x301001 | PTE_PWT | PTE_PCD | 0xe00));
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		assert_false(pdpte_loads(0x301001 | 1ull << reserved[i]));
		assert_true(pdpte_loads(1ull << reserved[i])); /* not present: not checked */
	}
	check_broken = CHECK_PDPTE_RESERVED;
	assert_true(pdpte_loads(0x301003));
	check_broken = -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_broken_checks_are_noticed),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_probe_changes_nothing),
		cmocka_unit_test(test_accessed_bits_log_the_table_page),
		cmocka_unit_test(test_pdptes_load),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
