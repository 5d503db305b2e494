/* vmx_test.c: VMX instructions: their faults, their failures, the life of a VMCS, its fields. */
#include "cpu/vmx/vmx_test.h"

#define POINTER_AT DATA_AT
#define OTHER_AT   0x10a000ull
#define SHADOW_AT  0x10b000ull
#define MAP_AT     0x10c000ull /* VMREAD bitmap */
#define MAP2_AT    0x10d000ull

/* Memory operands are at [rbx]. */
#define VMXON          0xf3, 0x0f, 0xc7, 0x33
#define VMCLEAR        0x66, 0x0f, 0xc7, 0x33
#define VMPTRLD        0x0f, 0xc7, 0x33
#define VMPTRST        0x0f, 0xc7, 0x3b
#define VMXOFF         0x0f, 0x01, 0xc4
#define VMLAUNCH       0x0f, 0x01, 0xc2
#define VMRESUME       0x0f, 0x01, 0xc3
#define VMREAD         0x0f, 0x78, 0xc8 /* eax or rax := field ecx */
#define VMWRITE        0x0f, 0x79, 0xc8 /* field ecx := eax or rax */
#define VMREAD_MEMORY  0x0f, 0x78, 0x0b
#define VMWRITE_MEMORY 0x0f, 0x79, 0x0b
#define INVEPT         0x66, 0x0f, 0x38, 0x80, 0x0b
#define INVVPID        0x66, 0x0f, 0x38, 0x81, 0x0b

enum { SUCCEEDS = -1, INVALID = -2 }; /* or the number of VMfailValid */

static int outcome(struct machine *m)
{
	uint64_t flags = rflags_get(m->cpu) & RFLAGS_STATUS;

	if (!flags)
		return SUCCEEDS;
	if (flags == RFLAGS_CF)
		return INVALID;
	assert_int_equal(flags, RFLAGS_ZF);
	return (int)vmcs_read(m->cpu, VMCS_INSTRUCTION_ERROR);
}

/* Runs one instruction, with all status flags set before. The vector of its exception, or NO_EVENT. */
static int run_one(struct machine *m, const uint8_t *code, size_t size)
{
	enum cpu_stop stop;

	m->cpu->tracing = true;
	m->cpu->idtr.limit = 0xfff;
	m->cpu->idtr.base = IDT_AT;
	m->cpu->reg[RBX] = POINTER_AT;
	machine_set_flags(m, RFLAGS_STATUS | RFLAGS_FIXED);
	stop = machine_run(m, code, size, 1);
	m->cpu->tracing = false;
	if (stop == CPU_STOP_UNMODELLED)
		fail_msg("not modelled: %s", m->cpu->unmodelled);
	return m->vector;
}
#define CODE(...)   (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define ONE(m, ...) run_one((m), CODE(__VA_ARGS__))

/* It runs, and answers @wanted. */
static void answers(struct machine *m, const char *what, int wanted, const uint8_t *code, size_t size)
{
	int vector = run_one(m, code, size);

	if (vector != NO_EVENT)
		fail_msg("%s: exception %d", what, vector);
	if (outcome(m) != wanted)
		fail_msg("%s: %d, wanted %d", what, outcome(m), wanted);
}
#define ANSWERS(m, wanted, ...) answers((m), #__VA_ARGS__, (wanted), CODE(__VA_ARGS__))

/* The same, but not with the check broken. */
static void checks(struct machine *m, const char *check, int wanted, const uint8_t *code, size_t size)
{
	struct vcpu_state before;

	cpu_save(m->cpu, &before);
	answers(m, check, wanted, code, size);
	cpu_load(m->cpu, &before);
	assert_true(check_break(check));
	if (run_one(m, code, size) == NO_EVENT && outcome(m) == wanted)
		fail_msg("%s broken changes nothing", check);
	check_break(NULL);
	cpu_load(m->cpu, &before);
}
#define CHECKS(m, check, wanted, ...) checks((m), #check, (wanted), CODE(__VA_ARGS__))

static void point(struct machine *m, uint64_t address) { guest_put(m, POINTER_AT, address, 8); }

/* A host with VMX open to it, outside of VMX operation; regions at VMXON_AT, OTHER_AT. */
static void open_outside(struct machine *m)
{
	vmx_open(m);
	m->cpu->msr.vmx_on = false;
	m->cpu->msr.vmx_vmcs = m->cpu->msr.vmx_vmxon = 0;
	m->cpu->msr.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
	guest_put(m, VMXON_AT, VMX_REVISION, 4);
	guest_put(m, OTHER_AT, VMX_REVISION, 4);
	point(m, VMXON_AT);
}

/* ---- VMX operation ---- */

static void test_vmxon(void **state)
{
	struct machine m;

	(void)state;
	open_outside(&m);
	m.cpu->msr.feature_control = FEATURE_CONTROL_VMX;
	assert_int_equal(ONE(&m, VMXON), VECTOR_GP);
	m.cpu->msr.feature_control = FEATURE_CONTROL_LOCK;
	assert_int_equal(ONE(&m, VMXON), VECTOR_GP);
	assert_true(check_break("VMXON_FEATURE_CONTROL"));
	assert_int_equal(ONE(&m, VMXON), NO_EVENT);
	check_break(NULL);
	m.cpu->msr.vmx_on = false;
	m.cpu->msr.feature_control = FEATURE_CONTROL_VMX;
	assert_true(check_break("VMXON_LOCK"));
	assert_int_equal(ONE(&m, VMXON), NO_EVENT);
	check_break(NULL);
	m.cpu->msr.vmx_on = false;
	m.cpu->msr.feature_control = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
	m.cpu->cr0 &= ~(uint64_t)CR0_NE;
	assert_int_equal(ONE(&m, VMXON), VECTOR_GP);
	m.cpu->cr0 |= CR0_NE;
	m.cpu->cr4 &= ~(uint64_t)CR4_VMXE;
	assert_int_equal(ONE(&m, VMXON), VECTOR_UD);
	m.cpu->cr4 |= CR4_VMXE;
	point(&m, VMXON_AT | 0x800);
	guest_put(&m, VMXON_AT + 0x800, VMX_REVISION, 4);
	CHECKS(&m, VMXON_ADDRESS, INVALID, VMXON);
	point(&m, VMXON_AT);
	guest_put(&m, VMXON_AT, VMX_REVISION + 1, 4);
	CHECKS(&m, VMXON_REVISION, INVALID, VMXON);
	guest_put(&m, VMXON_AT, VMX_REVISION | VMCS_SHADOW, 4);
	CHECKS(&m, VMXON_SHADOW, INVALID, VMXON);
	guest_put(&m, VMXON_AT, VMX_REVISION, 4);
	assert_false(m.cpu->msr.vmx_on);
	ANSWERS(&m, SUCCEEDS, VMXON);
	assert_true(m.cpu->msr.vmx_on);
	assert_int_equal(m.cpu->msr.vmx_vmxon, VMXON_AT);
	ANSWERS(&m, INVALID, VMXON);
	m.cpu->msr.vmx_vmcs = VMCS_AT;
	ANSWERS(&m, VMX_ERROR_VMXON_IN_ROOT, VMXON);
	ANSWERS(&m, VMX_ERROR_VMCALL_IN_ROOT, VMCALL);
	ANSWERS(&m, SUCCEEDS, VMXOFF);
	assert_false(m.cpu->msr.vmx_on);
	machine_close(&m);
}

/* All of them but VMXON are #UD outside of VMX operation; in it, #UD in compatibility mode, #GP at CPL 3. */
static void test_faults(void **state)
{
	static const struct {
		uint8_t code[5], size;
		bool vmxon;
	} all[] = {
		{{VMXON}, 4, true},    {{VMCLEAR}, 4, false},  {{VMPTRLD}, 3, false},  {{VMPTRST}, 3, false},
		{{VMXOFF}, 3, false},  {{VMLAUNCH}, 3, false}, {{VMRESUME}, 3, false}, {{VMREAD}, 3, false},
		{{VMWRITE}, 3, false}, {{INVEPT}, 5, false},   {{INVVPID}, 5, false},  {{VMCALL}, 3, false},
	};
	struct machine m;

	(void)state;
	open_outside(&m);
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!all[i].vmxon)
			assert_int_equal(run_one(&m, all[i].code, all[i].size), VECTOR_UD);
	m.cpu->msr.vmx_on = true;
	m.cpu->msr.vmx_vmcs = VMX_NO_VMCS;
	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct segment *cs = &m.cpu->segment[CS].s;

		cs->attributes = (cs->attributes & ~SEG_L) | SEG_DB;
		cpu_mode_changed(m.cpu);
		assert_int_equal(run_one(&m, all[i].code, all[i].size), VECTOR_UD);
		cs->attributes = (cs->attributes & ~SEG_DB) | SEG_L;
		m.cpu->segment[SS].s.attributes |= SEG_DPL;
		guest_put(&m, TABLES_AT, (TABLES_AT + 0x1000) | 7, 8);
		guest_put(&m, TABLES_AT + 0x1000, (TABLES_AT + 0x2000) | 7, 8);
		guest_put(&m, TABLES_AT + 0x2000 + (MACHINE_BASE >> 21) * 8, MACHINE_BASE | 0x87, 8);
		tlb_flush_all(m.cpu);
		cpu_mode_changed(m.cpu);
		assert_int_equal(m.cpu->cpl, 3);
		assert_int_equal(run_one(&m, all[i].code, all[i].size), VECTOR_GP);
		machine_mode(&m, CODE_64);
		m.cpu->cr4 |= CR4_VMXE;
	}
	machine_close(&m);
}

/* CR0, CR4 and INIT in VMX root operation. */
static void test_operation(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	m.cpu->reg[RAX] = m.cpu->cr0 & ~(uint64_t)CR0_NE;
	assert_int_equal(ONE(&m, 0x0f, 0x22, 0xc0), VECTOR_GP);
	m.cpu->reg[RAX] = m.cpu->cr0 | CR0_TS;
	assert_int_equal(ONE(&m, 0x0f, 0x22, 0xc0), NO_EVENT);
	m.cpu->reg[RAX] = m.cpu->cr4 & ~(uint64_t)CR4_VMXE;
	assert_int_equal(ONE(&m, 0x0f, 0x22, 0xe0), VECTOR_GP);
	cpu_raise_init(m.cpu, false);
	assert_true(m.cpu->init_pending);
	assert_int_equal(ONE(&m, 0x90), NO_EVENT);
	assert_int_equal(m.cpu->rip, CODE_AT + 1);
	/* It comes right behind VMXOFF. */
	assert_int_equal(ONE(&m, VMXOFF), NO_EVENT);
	assert_false(m.cpu->init_pending);
	assert_int_equal(m.cpu->rip, 0xfff0);
	assert_false(cpu_protected(m.cpu));
	machine_close(&m);
}

/* ---- VMCS pointers ---- */

static void test_pointers(void **state)
{
	struct machine m;

	(void)state;
	open_outside(&m);
	ANSWERS(&m, SUCCEEDS, VMXON);
	ANSWERS(&m, SUCCEEDS, VMPTRST);
	assert_true(guest_get(&m, POINTER_AT, 8) == VMX_NO_VMCS);
	ANSWERS(&m, INVALID, VMLAUNCH);
	point(&m, VMCS_AT);
	ANSWERS(&m, SUCCEEDS, VMPTRLD);
	ANSWERS(&m, SUCCEEDS, VMPTRST);
	assert_int_equal(guest_get(&m, POINTER_AT, 8), VMCS_AT);
	point(&m, OTHER_AT | 0x800);
	guest_put(&m, OTHER_AT + 0x800, VMX_REVISION, 4);
	CHECKS(&m, VMPTRLD_ADDRESS, VMX_ERROR_VMPTRLD_ADDRESS, VMPTRLD);
	CHECKS(&m, VMCLEAR_ADDRESS, VMX_ERROR_VMCLEAR_ADDRESS, VMCLEAR);
	point(&m, 1ull << 46);
	ANSWERS(&m, VMX_ERROR_VMPTRLD_ADDRESS, VMPTRLD);
	ANSWERS(&m, VMX_ERROR_VMCLEAR_ADDRESS, VMCLEAR);
	point(&m, VMXON_AT);
	CHECKS(&m, VMPTRLD_VMXON_POINTER, VMX_ERROR_VMPTRLD_VMXON_POINTER, VMPTRLD);
	CHECKS(&m, VMCLEAR_VMXON_POINTER, VMX_ERROR_VMCLEAR_VMXON_POINTER, VMCLEAR);
	point(&m, OTHER_AT);
	guest_put(&m, OTHER_AT, VMX_REVISION - 1, 4);
	CHECKS(&m, VMPTRLD_REVISION, VMX_ERROR_VMPTRLD_REVISION, VMPTRLD);
	assert_int_equal(m.cpu->msr.vmx_vmcs, VMCS_AT);
	guest_put(&m, OTHER_AT, VMX_REVISION | VMCS_SHADOW, 4);
	ANSWERS(&m, SUCCEEDS, VMPTRLD);
	CHECKS(&m, VMX_ENTRY_SHADOW_VMCS, INVALID, VMLAUNCH);
	ANSWERS(&m, SUCCEEDS, VMCLEAR);
	assert_true(m.cpu->msr.vmx_vmcs == VMX_NO_VMCS);
	m.profile.features[FEATURE_vmx_shadow / 64] &= ~(1ull << FEATURE_vmx_shadow % 64);
	m.cpu->msr.vmx_vmcs = VMCS_AT;
	CHECKS(&m, VMPTRLD_SHADOW, VMX_ERROR_VMPTRLD_REVISION, VMPTRLD);
	machine_close(&m);
}

static void test_launch_state(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	CHECKS(&m, VMRESUME_LAUNCHED, VMX_ERROR_VMRESUME_NOT_LAUNCHED, VMRESUME);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_VMCALL);
	CHECKS(&m, VMLAUNCH_CLEAR, VMX_ERROR_VMLAUNCH_NOT_CLEAR, VMLAUNCH);
	assert_int_equal(GUEST(&m, VMCALL), VMX_EXIT_VMCALL);
	point(&m, VMCS_AT);
	ANSWERS(&m, SUCCEEDS, VMCLEAR);
	assert_true(m.cpu->msr.vmx_vmcs == VMX_NO_VMCS);
	ANSWERS(&m, INVALID, VMLAUNCH);
	ANSWERS(&m, SUCCEEDS, VMPTRLD);
	ANSWERS(&m, VMX_ERROR_VMRESUME_NOT_LAUNCHED, VMRESUME);
	/* Behind MOV SS; the number tells. */
	m.cpu->tracing = false;
	m.cpu->reg[RAX] = 16;
	assert_int_equal(machine_run(&m, CODE(0x8e, 0xd0, VMLAUNCH), 2), CPU_STOP_BUDGET);
	assert_int_equal(outcome(&m), VMX_ERROR_ENTRY_MOV_SS);
	machine_close(&m);
}

/* ---- fields ---- */

static void test_fields(void **state)
{
	static const uint64_t none[] = {VMCS_TERTIARY_CONTROLS,
					VMCS_GUEST_PKRS,
					0x482c,
					0x2803 + 0x100,
					0x6801,
					0x0801,
					0x4001,
					0x7000,
					0x10000,
					1ull << 32,
					0x1800};
	struct machine m;

	(void)state;
	vmx_open(&m);
	m.cpu->reg[RCX] = VMCS_GUEST_FS;
	m.cpu->reg[RAX] = 0x123456789abcdef0;
	ANSWERS(&m, SUCCEEDS, VMWRITE);
	ANSWERS(&m, SUCCEEDS, VMREAD);
	assert_int_equal(m.cpu->reg[RAX], 0xdef0);
	m.cpu->reg[RCX] = VMCS_TSC_OFFSET;
	m.cpu->reg[RAX] = 0x123456789abcdef0;
	ANSWERS(&m, SUCCEEDS, VMWRITE);
	m.cpu->reg[RCX] = VMCS_HIGH(VMCS_TSC_OFFSET);
	ANSWERS(&m, SUCCEEDS, VMREAD);
	assert_int_equal(m.cpu->reg[RAX], 0x12345678);
	m.cpu->reg[RAX] = 0xffffffff87654321;
	ANSWERS(&m, SUCCEEDS, VMWRITE);
	assert_true(vmcs_get(&m, VMCS_TSC_OFFSET) == 0x876543219abcdef0);
	/* Memory, and a fault of it. */
	m.cpu->reg[RCX] = VMCS_GUEST_RIP;
	ANSWERS(&m, SUCCEEDS, VMREAD_MEMORY);
	assert_int_equal(guest_get(&m, POINTER_AT, 8), GUEST_AT);
	guest_put(&m, POINTER_AT, 0x5555, 8);
	ANSWERS(&m, SUCCEEDS, VMWRITE_MEMORY);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), 0x5555);
	for (unsigned i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		m.cpu->reg[RCX] = none[i];
		ANSWERS(&m, VMX_ERROR_UNSUPPORTED_FIELD, VMREAD);
		ANSWERS(&m, VMX_ERROR_UNSUPPORTED_FIELD, VMWRITE);
	}
	CHECKS(&m, VMREAD_FIELD, VMX_ERROR_UNSUPPORTED_FIELD, VMREAD);
	CHECKS(&m, VMWRITE_FIELD, VMX_ERROR_UNSUPPORTED_FIELD, VMWRITE);
	m.cpu->reg[RCX] = VMCS_EXIT_REASON;
	ANSWERS(&m, SUCCEEDS, VMWRITE);
	m.profile.features[FEATURE_vmx_vmwrite_any / 64] &= ~(1ull << FEATURE_vmx_vmwrite_any % 64);
	CHECKS(&m, VMWRITE_READ_ONLY, VMX_ERROR_READ_ONLY_FIELD, VMWRITE);
	m.cpu->msr.vmx_vmcs = VMX_NO_VMCS;
	ANSWERS(&m, INVALID, VMREAD);
	ANSWERS(&m, INVALID, VMWRITE);
	machine_close(&m);
}

/* In 32-bit mode: 32 bits, and the rest of a field written is 0. */
static void test_fields_32(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	machine_mode(&m, CODE_32);
	m.cpu->cr4 |= CR4_VMXE;
	vmcs_put(&m, VMCS_GUEST_RSP, ~0ull);
	vmcs_put(&m, VMCS_TSC_OFFSET, ~0ull);
	m.cpu->reg[RCX] = VMCS_GUEST_RSP;
	ANSWERS(&m, SUCCEEDS, VMREAD);
	assert_int_equal(m.cpu->reg[RAX], 0xffffffff);
	ANSWERS(&m, SUCCEEDS, VMWRITE);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RSP), 0xffffffff);
	m.cpu->reg[RCX] = VMCS_TSC_OFFSET;
	ANSWERS(&m, SUCCEEDS, VMWRITE);
	assert_int_equal(vmcs_get(&m, VMCS_TSC_OFFSET), 0xffffffff);
	guest_put(&m, POINTER_AT, 0x1111111122222222, 8);
	ANSWERS(&m, SUCCEEDS, VMWRITE_MEMORY);
	assert_int_equal(vmcs_get(&m, VMCS_TSC_OFFSET), 0x22222222);
	machine_close(&m);
}

/* Every field that exists keeps what is written, by itself. */
static void test_every_field(void **state)
{
	static const uint32_t fields[] = {
#define VMCS_FIELD(encoding, name) (encoding),
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
	};
	static const uint64_t masks[] = {
		[VMCS_16] = 0xffff, [VMCS_32] = 0xffffffff, [VMCS_64] = ~0ull, [VMCS_NATURAL] = ~0ull};
	struct machine m;
	uint64_t value;

	(void)state;
	vmx_open(&m);
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (vmcs_exists(m.cpu, fields[i]))
			vmcs_write_at(m.cpu, VMCS_AT, fields[i], 0x9e3779b97f4a7c15 * (i + 1));
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (!vmcs_exists(m.cpu, fields[i]))
			continue;
		value = 0x9e3779b97f4a7c15 * (i + 1) & masks[VMCS_WIDTH(fields[i])];
		assert_true(vmcs_get(&m, fields[i]) == value);
		assert_int_equal(vmcs_exists(m.cpu, VMCS_HIGH(fields[i])), VMCS_WIDTH(fields[i]) == VMCS_64);
		assert_true(VMCS_INDEX(fields[i]) <= vmcs_highest_index(m.cpu));
	}
	assert_int_equal(vmcs_revision(m.cpu, VMCS_AT), VMX_REVISION);
	assert_false(vmcs_launched(m.cpu, VMCS_AT));
	machine_close(&m);
}

/* ---- VMCS shadowing ---- */

#define READ_RIP  0xb9, 0x1e, 0x68, 0, 0, VMREAD
#define WRITE_RIP 0xb9, 0x1e, 0x68, 0, 0, VMWRITE

static void map(struct machine *m, uint64_t bitmap, uint32_t encoding, bool exits)
{
	uint64_t at = bitmap + encoding / 8;

	guest_put(m, at, (guest_get(m, at, 1) & ~(1ull << encoding % 8)) | (uint64_t)exits << encoding % 8,
		  1);
}

static void test_shadowing(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	assert_int_equal(GUEST(&m, READ_RIP), VMX_EXIT_VMREAD);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(GUEST(&m, WRITE_RIP), VMX_EXIT_VMWRITE);
	vmcs_secondary(&m, VMX2_VMCS_SHADOWING);
	vmcs_put(&m, VMCS_VMREAD_BITMAP, MAP_AT);
	vmcs_put(&m, VMCS_VMWRITE_BITMAP, MAP2_AT);
	guest_put(&m, SHADOW_AT, VMX_REVISION | VMCS_SHADOW, 4);
	vmcs_write_at(m.cpu, SHADOW_AT, VMCS_GUEST_RIP, 0x1234);
	vmcs_put(&m, VMCS_LINK_POINTER, SHADOW_AT);
	map(&m, MAP_AT, VMCS_GUEST_RIP, true);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(GUEST(&m, READ_RIP, VMCALL), VMX_EXIT_VMREAD);
	map(&m, MAP_AT, VMCS_GUEST_RIP, false);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(GUEST(&m, READ_RIP, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->reg[RAX], 0x1234);
	map(&m, MAP2_AT, VMCS_GUEST_RIP, true);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(GUEST(&m, WRITE_RIP, VMCALL), VMX_EXIT_VMWRITE);
	map(&m, MAP2_AT, VMCS_GUEST_RIP, false);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	m.cpu->reg[RAX] = 0x4321;
	assert_int_equal(GUEST(&m, WRITE_RIP, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_read_at(m.cpu, SHADOW_AT, VMCS_GUEST_RIP), 0x4321);
	/* mov ecx, 1681eh */
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	assert_int_equal(GUEST(&m, 0xb9, 0x1e, 0x68, 1, 0, VMREAD, VMCALL), VMX_EXIT_VMREAD);
	machine_close(&m);
}

/* ---- INVEPT, INVVPID ---- */

static void describe(struct machine *m, uint64_t type, uint64_t low, uint64_t high)
{
	m->cpu->reg[RCX] = type;
	guest_put(m, POINTER_AT, low, 8);
	guest_put(m, POINTER_AT + 8, high, 8);
}

static void test_invalidation(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	describe(&m, 0, 0x1e, 0);
	CHECKS(&m, INVEPT_TYPE, VMX_ERROR_INVALIDATION_OPERAND, INVEPT);
	describe(&m, 1ull << 32 | 1, 0x1e, 0);
	ANSWERS(&m, VMX_ERROR_INVALIDATION_OPERAND, INVEPT);
	describe(&m, INVEPT_CONTEXT, 0x1d, 0);
	CHECKS(&m, INVEPT_EPTP, VMX_ERROR_INVALIDATION_OPERAND, INVEPT);
	describe(&m, INVEPT_CONTEXT, 0x1e, 0);
	ANSWERS(&m, SUCCEEDS, INVEPT);
	describe(&m, INVEPT_ALL, 0x1d, 0);
	ANSWERS(&m, SUCCEEDS, INVEPT);
	describe(&m, 4, 1, 0);
	CHECKS(&m, INVVPID_TYPE, VMX_ERROR_INVALIDATION_OPERAND, INVVPID);
	describe(&m, INVVPID_ALL, 0x10001, 0);
	CHECKS(&m, INVVPID_RESERVED, VMX_ERROR_INVALIDATION_OPERAND, INVVPID);
	describe(&m, INVVPID_CONTEXT, 0, 0);
	CHECKS(&m, INVVPID_ZERO, VMX_ERROR_INVALIDATION_OPERAND, INVVPID);
	describe(&m, INVVPID_ADDRESS, 1, 1ull << 62);
	CHECKS(&m, INVVPID_CANONICAL, VMX_ERROR_INVALIDATION_OPERAND, INVVPID);
	describe(&m, INVVPID_CONTEXT, 1, 1ull << 62);
	ANSWERS(&m, SUCCEEDS, INVVPID);
	describe(&m, INVVPID_ALL, 0, 0);
	ANSWERS(&m, SUCCEEDS, INVVPID);
	describe(&m, INVVPID_KEEP_GLOBAL, 7, 0);
	ANSWERS(&m, SUCCEEDS, INVVPID);
	machine_close(&m);
}

/* ---- MSRs ---- */

static uint64_t msr(struct machine *m, uint32_t index)
{
	uint64_t value = 0;

	assert_true(msr_read(m->cpu, index, &value));
	assert_false(msr_write(m->cpu, index, value));
	return value;
}

/* Values as the manual's bits, not by the names of the model. */
static void test_capability(void **state)
{
	struct machine m;
	uint64_t value;

	(void)state;
	vmx_open(&m);
	value = msr(&m, 0x480);
	assert_true((value & 0x7fffffff) == VMX_REVISION && (value >> 32 & 0x1fff) == 4096);
	assert_true((value >> 50 & 15) == 6 && value >> 55 & 1 && !(value >> 31 & 1) && !(value >> 48 & 3));
	for (uint32_t i = 0; i < 4; i++) {
		uint64_t loose = msr(&m, 0x481 + i), strict = msr(&m, 0x48d + i);

		assert_int_equal(loose >> 32, strict >> 32);
		assert_int_equal(loose & strict & 0xffffffff, strict & 0xffffffff);
		assert_int_equal(loose & 0xffffffff & ~(loose >> 32), 0);
	}
	assert_int_equal(msr(&m, 0x481) & 0xffffffff, 0x16);
	assert_int_equal(msr(&m, 0x482) & 0xffffffff, 0x401e172);
	assert_int_equal(msr(&m, 0x48e) & 0xffffffff, 0x4006172);
	assert_int_equal(msr(&m, 0x483) & 0xffffffff, 0x36dff);
	assert_int_equal(msr(&m, 0x484) & 0xffffffff, 0x11ff);
	assert_int_equal(msr(&m, 0x486), 0x80000021);
	assert_int_equal(msr(&m, 0x487), 0xffffffff);
	assert_int_equal(msr(&m, 0x488), 0x2000);
	assert_true(msr(&m, 0x489) >> 13 & 1);
	assert_int_equal(msr(&m, 0x48b) & 0xffffffff, 0);
	assert_int_equal(msr(&m, 0x485) >> 16 & 0x1ff, 4);
	assert_true((msr(&m, 0x48a) & 0x3ff) >= 2 * 0x19);
	assert_false(msr_read(m.cpu, 0x492, &value));
	machine_close(&m);
	vmx_open_as(&m, "intel,+vmx,-vmx_true_controls,-vmx_eptp_switching,-vmx_vmfunc");
	assert_false(msr_read(m.cpu, 0x48d, &value) || msr_read(m.cpu, 0x491, &value));
	machine_close(&m);
}

static void test_feature_control(void **state)
{
	struct machine m;
	uint64_t value;

	(void)state;
	vmx_open(&m);
	assert_true(msr_read(m.cpu, MSR_FEATURE_CONTROL, &value) && value == 0);
	assert_false(msr_write(m.cpu, MSR_FEATURE_CONTROL, 2));
	assert_true(msr_write(m.cpu, MSR_FEATURE_CONTROL, 4));
	assert_true(msr_write(m.cpu, MSR_FEATURE_CONTROL, 5));
	assert_false(msr_write(m.cpu, MSR_FEATURE_CONTROL, 5));
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vmxon),        cmocka_unit_test(test_faults),
		cmocka_unit_test(test_operation),    cmocka_unit_test(test_pointers),
		cmocka_unit_test(test_launch_state), cmocka_unit_test(test_fields),
		cmocka_unit_test(test_fields_32),    cmocka_unit_test(test_every_field),
		cmocka_unit_test(test_shadowing),    cmocka_unit_test(test_invalidation),
		cmocka_unit_test(test_capability),   cmocka_unit_test(test_feature_control),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
