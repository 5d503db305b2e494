/* vmx_task_test.c: task switches, made in the guest's memory (SDM 3A 7.3). */
#include "kmod/test/vmx_rig.h"

#define GDT    0x10000u
#define LDT    0x11000u
#define OLD    0x12000u /* TSSs */
#define NEW    0x13000u
#define OLD16  0x14000u
#define NEW16  0x15000u
#define STACK  0x18000u
#define TABLES 0x60000u

/* Selectors. */
enum {
	S_OLD = 0x08,
	S_NEW = 0x10,
	S_OLD16 = 0x18,
	S_NEW16 = 0x20,
	S_CODE = 0x28,
	S_STACK = 0x30,
	S_DATA = 0x38,
	S_LDT = 0x40
};
enum { N_ES, N_CS, N_SS, N_DS, N_FS, N_GS };

enum source { FROM_CALL, FROM_IRET, FROM_JMP, FROM_GATE };

#define ACCESS(selector) (*(uint8_t *)fake_memory(GDT + (selector) + 5))
#define BUSY(selector)   (ACCESS(selector) >> 1 & 1)

static void descriptor(uint16_t selector, uint32_t base, uint32_t limit, uint8_t access, uint8_t flags)
{
	uint32_t *raw = fake_memory(GDT + selector);

	raw[0] = (limit & 0xffff) | base << 16;
	raw[1] = (base >> 16 & 0xff) | (uint32_t)access << 8 | (limit & 0xf0000) | (uint32_t)flags << 20 |
		 (base & 0xff000000);
}

static uint32_t word(uint32_t at, unsigned size)
{
	uint32_t value = 0;

	memcpy(&value, fake_memory(at), size);
	return value;
}

static void put(uint32_t at, uint32_t value, unsigned size) { memcpy(fake_memory(at), &value, size); }

static void put_segments(uint32_t at, unsigned width)
{
	static const uint16_t selectors[] = {S_DATA, S_CODE, S_STACK, S_DATA, 0, S_DATA};

	for (unsigned i = 0; i < (width == 2 ? 4 : 6); i++)
		put(at + width * i, selectors[i], width);
}

static void put_tasks(void)
{
	for (unsigned i = 0; i < 8; i++) {
		put(NEW + TSS32_GPR + 4 * i, 0x11110000 + i, 4);
		put(NEW16 + TSS16_GPR + 2 * i, 0x2220 + i, 2);
	}
	put(NEW + TSS32_GPR + 16, STACK, 4);
	put(NEW16 + TSS16_GPR + 8, 0x8000, 2);
	put(NEW + TSS32_EIP, 0x7777, 4);
	put(NEW16 + TSS16_IP, 0x6666, 2);
	put(NEW + TSS32_EFLAGS, 0xffffffff & ~(uint32_t)RFLAGS_VM, 4);
	put(NEW16 + TSS16_FLAGS, 0x3, 2);
	put(NEW + TSS32_CR3, TABLES, 4);
	put_segments(NEW + TSS32_SEG, 4);
	put_segments(NEW16 + TSS16_SEG, 2);
}

/* A guest in the 32-bit task OLD, in protected mode without paging. */
static void start_task(void)
{
	start(true, 1);
	descriptor(S_OLD, OLD, TSS32_SIZE - 1, 0x8b, 0);
	descriptor(S_NEW, NEW, TSS32_SIZE - 1, 0x89, 0);
	descriptor(S_OLD16, OLD16, TSS16_SIZE - 1, 0x83, 0);
	descriptor(S_NEW16, NEW16, TSS16_SIZE - 1, 0x81, 0);
	descriptor(S_CODE, 0, 0xfffff, 0x9a, 0xc);
	descriptor(S_STACK, 0, 0xfffff, 0x92, 0xc);
	descriptor(S_DATA, 0x100, 0xffff, 0x92, 0x4);
	descriptor(S_LDT, LDT, 0xff, 0x82, 0);
	put_tasks();
	fake_put(VMCS_GUEST_GDTR_BASE, GDT);
	fake_put(VMCS_GUEST_GDTR_LIMIT, 0xff);
	fake_put(VMCS_GUEST_LDTR_RIGHTS, VMX_RIGHTS_UNUSABLE);
	fake_put(VMCS_GUEST_TR, S_OLD);
	fake_put(VMCS_GUEST_TR_BASE, OLD);
	fake_put(VMCS_GUEST_TR_LIMIT, TSS32_SIZE - 1);
	fake_put(VMCS_GUEST_TR_RIGHTS, 0x8b);
	fake_put(VMCS_GUEST_DR7, 0x7ff);
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_NT);
	for (unsigned n = 0; n < 6; n++)
		fake_put(VMCS_GUEST_ES + 2 * n, 0x50 + n);
	for (unsigned i = 0; i < 8; i++)
		vcpu.gpr[i] = 0xaaaa0000 + i;
	vcpu.rip = CODE;
}

static void in_narrow(void)
{
	start_task();
	fake_put(VMCS_GUEST_TR, S_OLD16);
	fake_put(VMCS_GUEST_TR_BASE, OLD16);
	fake_put(VMCS_GUEST_TR_LIMIT, TSS16_SIZE - 1);
	fake_put(VMCS_GUEST_TR_RIGHTS, 0x83);
}

static void switches(enum source source, uint16_t selector, uint64_t interrupted)
{
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_TASK_SWITCH;
	next.qualification = (uint64_t)source << 30 | selector;
	next.interrupted = interrupted;
	enter();
}

/* ---- what goes where ---- */

static void links_and_busy_flags(void **state)
{
	static const struct {
		enum source source;
		bool old_busy, linked;
	} row[] = {{FROM_CALL, true, true},
		   {FROM_IRET, false, false},
		   {FROM_JMP, false, false},
		   {FROM_GATE, true, true}};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		start_task();
		if (row[i].source == FROM_IRET)
			ACCESS(S_NEW) |= 2;
		switches(row[i].source, S_NEW, 0);
		assert_false(injected() & VMX_EVENT_VALID);
		assert_int_equal(BUSY(S_OLD), row[i].old_busy);
		assert_int_equal(BUSY(S_NEW), 1);
		assert_int_equal(word(NEW, 2), row[i].linked ? S_OLD : 0);
		put(NEW + TSS32_EFLAGS, 2, 4);
		assert_int_equal(!!(word(OLD + TSS32_EFLAGS, 4) & RFLAGS_NT), row[i].source != FROM_IRET);
		assert_int_equal(word(OLD + TSS32_EIP, 4), row[i].source == FROM_GATE ? CODE : CODE + 3);
	}
	/* NT of the new task: its own, or that of a task that was called. */
	start_task();
	put(NEW + TSS32_EFLAGS, 2, 4);
	switches(FROM_JMP, S_NEW, 0);
	assert_false(fake_get(VMCS_GUEST_RFLAGS) & RFLAGS_NT);
	for (unsigned i = 0; i < 4; i += 3) {
		start_task();
		put(NEW + TSS32_EFLAGS, 2, 4);
		switches((enum source)i, S_NEW, 0);
		assert_true(fake_get(VMCS_GUEST_RFLAGS) & RFLAGS_NT);
	}
}

static void registers(void **state)
{
	(void)state;
	start_task();
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_STI | VMX_BLOCKING_NMI);
	switches(FROM_JMP, S_NEW, 0);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(word(OLD + TSS32_GPR + 4 * i, 4), 0xaaaa0000 + i);
		assert_int_equal(vcpu.gpr[i], i == RSP ? STACK : 0x11110000 + i);
	}
	for (unsigned n = 0; n < 6; n++)
		assert_int_equal(word(OLD + TSS32_SEG + 4 * n, 2), 0x50 + n);
	assert_int_equal(vcpu.rip, 0x7777);
	assert_int_equal(fake_get(VMCS_GUEST_RFLAGS), (0x003f7fd5 & ~(uint64_t)RFLAGS_VM) | RFLAGS_FIXED);
	assert_int_equal(fake_get(VMCS_GUEST_TR), S_NEW);
	assert_int_equal(fake_get(VMCS_GUEST_TR_BASE), NEW);
	assert_int_equal(fake_get(VMCS_GUEST_TR_LIMIT), TSS32_SIZE - 1);
	assert_int_equal(fake_get(VMCS_GUEST_TR_RIGHTS), 0x8b);
	assert_true(fake_get(VMCS_GUEST_CR0) & CR0_TS);
	assert_int_equal(fake_get(VMCS_GUEST_DR7), 0x6aa);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	assert_int_equal(fake_get(VMCS_GUEST_CR3), 0); /* without paging */
	/* Segments, accessed from now on; a null one is none. */
	assert_int_equal(fake_get(VMCS_GUEST_CS), S_CODE);
	assert_int_equal(fake_get(VMCS_GUEST_CS_LIMIT), 0xffffffff);
	assert_int_equal(fake_get(VMCS_GUEST_CS_RIGHTS), 0xc09b);
	assert_int_equal(fake_get(VMCS_GUEST_DS_BASE), 0x100);
	assert_int_equal(fake_get(VMCS_GUEST_DS_LIMIT), 0xffff);
	assert_int_equal(fake_get(VMCS_GUEST_DS_RIGHTS), 0x4093);
	assert_int_equal(ACCESS(S_CODE), 0x9b);
	assert_int_equal(ACCESS(S_DATA), 0x93);
	assert_true(fake_get(VMCS_GUEST_FS_RIGHTS) & VMX_RIGHTS_UNUSABLE);
	assert_true(fake_get(VMCS_GUEST_LDTR_RIGHTS) & VMX_RIGHTS_UNUSABLE);
	/* A record sees CR0.TS change too. */
	start_task();
	fake_put(VMCS_CR0_MASK, CR0_TS);
	switches(FROM_JMP, S_NEW, 0);
	assert_true(fake_get(VMCS_CR0_SHADOW) & CR0_TS);
	start_task();
	fake_put(VMCS_CR0_SHADOW, 0);
	switches(FROM_JMP, S_NEW, 0);
	assert_false(fake_get(VMCS_CR0_SHADOW) & CR0_TS);
}

static void of_16_bits(void **state)
{
	(void)state;
	in_narrow();
	put(OLD16 + TSS16_LDT, 0x5555, 2);
	switches(FROM_CALL, S_NEW16, 0);
	assert_false(injected() & VMX_EVENT_VALID);
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(word(OLD16 + TSS16_GPR + 2 * i, 2), i);
		assert_int_equal(vcpu.gpr[i], i == RSP ? 0x8000 : 0x2220 + i);
	}
	for (unsigned n = 0; n < 4; n++)
		assert_int_equal(word(OLD16 + TSS16_SEG + 2 * n, 2), 0x50 + n);
	assert_int_equal(word(OLD16 + TSS16_LDT, 2), 0x5555);
	assert_int_equal(word(OLD16 + TSS16_IP, 2), CODE + 3);
	assert_int_equal(word(NEW16, 2), S_OLD16);
	assert_int_equal(vcpu.rip, 0x6666);
	assert_true(fake_get(VMCS_GUEST_FS_RIGHTS) & VMX_RIGHTS_UNUSABLE);
	assert_true(fake_get(VMCS_GUEST_GS_RIGHTS) & VMX_RIGHTS_UNUSABLE);
	/* Between the two. */
	start_task();
	switches(FROM_JMP, S_NEW16, 0);
	assert_int_equal(vcpu.rip, 0x6666);
	assert_int_equal(word(OLD + TSS32_EIP, 4), CODE + 3);
	in_narrow();
	switches(FROM_JMP, S_NEW, 0);
	assert_int_equal(vcpu.rip, 0x7777);
	assert_int_equal(word(OLD16 + TSS16_IP, 2), CODE + 3);
}

static void to_virtual_8086(void **state)
{
	(void)state;
	start_task();
	put(NEW + TSS32_EFLAGS, (uint32_t)RFLAGS_VM | 2, 4);
	switches(FROM_JMP, S_NEW, 0);
	assert_false(injected() & VMX_EVENT_VALID);
	assert_int_equal(fake_get(VMCS_GUEST_CS_BASE), S_CODE << 4);
	assert_int_equal(fake_get(VMCS_GUEST_CS_RIGHTS), 0xf3);
	assert_int_equal(fake_get(VMCS_GUEST_GS_LIMIT), 0xffff);
}

static void local_tables(void **state)
{
	(void)state;
	start_task();
	put(NEW + TSS32_LDT, S_LDT, 2);
	descriptor(S_DATA, 0, 0, 0, 0); /* that of the global table is none */
	memcpy(fake_memory(LDT + S_DATA), (uint8_t[]){0xff, 0xff, 0, 3, 0, 0x93, 0x40, 0}, 8);
	put(NEW + TSS32_SEG, 0, 2);
	put(NEW + TSS32_SEG + 4 * N_GS, 0, 2);
	put(NEW + TSS32_SEG + 4 * N_DS, S_DATA | 4, 2);
	switches(FROM_JMP, S_NEW, 0);
	assert_false(injected() & VMX_EVENT_VALID);
	assert_int_equal(fake_get(VMCS_GUEST_LDTR), S_LDT);
	assert_int_equal(fake_get(VMCS_GUEST_LDTR_BASE), LDT);
	assert_int_equal(fake_get(VMCS_GUEST_DS_BASE), 0x300);
}

/* ---- what may be wrong with the new task ---- */

static uint64_t fault_of(enum source source, uint16_t selector, uint64_t interrupted)
{
	switches(source, selector, interrupted);
	return injected();
}

static uint64_t event(unsigned vector) { return exception(vector); }

#define FAULTS(vector_, error_)                                                                              \
	do {                                                                                                 \
		assert_int_equal(fault_of(FROM_JMP, S_NEW, 0), event(vector_));                              \
		assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), error_);                              \
		start_task();                                                                                \
	} while (0)
#define RUNS()                                                                                               \
	do {                                                                                                 \
		assert_false(fault_of(FROM_JMP, S_NEW, 0) & VMX_EVENT_VALID);                                \
		start_task();                                                                                \
	} while (0)
#define SEGMENT(n, selector) put(NEW + TSS32_SEG + 4 * (n), selector, 2)

static void bad_code(void **state)
{
	(void)state;
	start_task();
	SEGMENT(N_CS, 0);
	FAULTS(VECTOR_TS, 0);
	SEGMENT(N_CS, 0x100);
	FAULTS(VECTOR_TS, 0x100);
	ACCESS(S_CODE) = 0x92; /* data */
	FAULTS(VECTOR_TS, S_CODE);
	ACCESS(S_CODE) = 0x8a; /* of the system's */
	FAULTS(VECTOR_TS, S_CODE);
	ACCESS(S_CODE) = 0xfa; /* DPL 3 */
	FAULTS(VECTOR_TS, S_CODE);
	ACCESS(S_CODE) = 0xfe; /* conforming */
	FAULTS(VECTOR_TS, S_CODE);
	ACCESS(S_CODE) = 0x9e;
	RUNS();
	ACCESS(S_CODE) = 0x1a;
	FAULTS(VECTOR_NP, S_CODE);
	put(NEW + TSS32_EIP, 0x7777, 4);
	descriptor(S_CODE, 0, 0x7776, 0x9a, 4);
	FAULTS(VECTOR_GP, 0);
	descriptor(S_CODE, 0, 0x7777, 0x9a, 4);
	RUNS();
}

static void bad_stack(void **state)
{
	(void)state;
	start_task();
	SEGMENT(N_SS, 0);
	FAULTS(VECTOR_TS, 0);
	SEGMENT(N_SS, 0x100);
	FAULTS(VECTOR_TS, 0x100);
	ACCESS(S_STACK) = 0x90; /* not writable */
	FAULTS(VECTOR_TS, S_STACK);
	ACCESS(S_STACK) = 0x9a;
	FAULTS(VECTOR_TS, S_STACK);
	ACCESS(S_STACK) = 0x82;
	FAULTS(VECTOR_TS, S_STACK);
	ACCESS(S_STACK) = 0x12;
	FAULTS(VECTOR_SS, S_STACK);
	ACCESS(S_STACK) = 0xf2;
	FAULTS(VECTOR_TS, S_STACK);
	SEGMENT(N_SS, S_STACK | 3);
	FAULTS(VECTOR_TS, S_STACK);
}

static void bad_data(void **state)
{
	(void)state;
	start_task();
	SEGMENT(N_GS, 0x100);
	FAULTS(VECTOR_TS, 0x100);
	ACCESS(S_DATA) = 0x98; /* code that cannot be read */
	FAULTS(VECTOR_TS, S_DATA);
	ACCESS(S_DATA) = 0x82;
	FAULTS(VECTOR_TS, S_DATA);
	ACCESS(S_DATA) = 0x12;
	FAULTS(VECTOR_NP, S_DATA);
	SEGMENT(N_ES, S_DATA | 3); /* RPL above DPL */
	FAULTS(VECTOR_TS, S_DATA);
	SEGMENT(N_ES, S_DATA | 3);
	SEGMENT(N_DS, S_DATA | 3);
	SEGMENT(N_GS, S_DATA | 3);
	ACCESS(S_DATA) = 0x9e; /* but of conforming code */
	RUNS();
	ACCESS(S_DATA) = 0xfa;
	RUNS();
	/* A task at CPL 3 wants data for it. */
	ACCESS(S_CODE) = 0xfa;
	ACCESS(S_STACK) = 0xf2;
	SEGMENT(N_CS, S_CODE | 3);
	SEGMENT(N_SS, S_STACK | 3);
	FAULTS(VECTOR_TS, S_DATA);
	ACCESS(S_CODE) = 0xfa;
	ACCESS(S_STACK) = 0xf2;
	ACCESS(S_DATA) = 0xf2;
	SEGMENT(N_CS, S_CODE | 3);
	SEGMENT(N_SS, S_STACK | 3);
	RUNS();
}

static void bad_local_table(void **state)
{
	(void)state;
	start_task();
	put(NEW + TSS32_LDT, S_LDT, 2);
	RUNS();
	put(NEW + TSS32_LDT, S_LDT | 4, 2);
	FAULTS(VECTOR_TS, S_LDT | 4);
	put(NEW + TSS32_LDT, S_DATA, 2);
	FAULTS(VECTOR_TS, S_DATA);
	put(NEW + TSS32_LDT, S_LDT, 2);
	ACCESS(S_LDT) = 0x02;
	FAULTS(VECTOR_TS, S_LDT);
	put(NEW + TSS32_LDT, 0x100, 2);
	FAULTS(VECTOR_TS, 0x100);
	/* Nothing is in a table that is not there. */
	SEGMENT(N_DS, S_DATA | 4);
	FAULTS(VECTOR_TS, S_DATA | 4);
}

/* Before anything has changed. */
static void unusable_tss(void **state)
{
	(void)state;
	start_task();
	assert_int_equal(fault_of(FROM_JMP, 0x100, 0), event(VECTOR_GP));
	assert_int_equal(vcpu.rip, CODE);
	start_task();
	assert_int_equal(fault_of(FROM_IRET, 0x100, 0), event(VECTOR_TS));
	start_task();
	fake_put(VMCS_GUEST_TR_LIMIT, TSS32_SEG + 6 * 4 - 2);
	assert_int_equal(fault_of(FROM_JMP, S_NEW, 0), event(VECTOR_TS));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), S_OLD);
	assert_int_equal(vcpu.rip, CODE);
	start_task();
	fake_put(VMCS_GUEST_TR_LIMIT, TSS32_SEG + 6 * 4 - 1);
	assert_false(fault_of(FROM_JMP, S_NEW, 0) & VMX_EVENT_VALID);
	in_narrow();
	fake_put(VMCS_GUEST_TR_LIMIT, TSS16_SEG + 4 * 2 - 1);
	assert_false(fault_of(FROM_JMP, S_NEW, 0) & VMX_EVENT_VALID);
}

static void trap_flag(void **state)
{
	(void)state;
	start_task();
	put(NEW + TSS32_TRAP, 1, 2);
	switches(FROM_JMP, S_NEW, 0);
	assert_int_equal(injected(), event(VECTOR_DB));
	assert_int_equal(vcpu.rip, 0x7777);
}

/* ---- by a gate ---- */

#define TYPED(type, vector) ((vector) | (type) << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID)

static void gates(void **state)
{
	const uint64_t soft = TYPED(VMX_EVENT_SOFTWARE_INTERRUPT, 0x80),
		       into = TYPED(VMX_EVENT_SOFTWARE_EXCEPTION, 4);

	(void)state;
	start_task();
	switches(FROM_GATE, S_NEW, soft);
	assert_int_equal(word(OLD + TSS32_EIP, 4), CODE + 3);
	start_task();
	switches(FROM_GATE, S_NEW, into);
	assert_int_equal(word(OLD + TSS32_EIP, 4), CODE + 3);
	start_task();
	switches(FROM_GATE, S_NEW, event(VECTOR_UD));
	assert_int_equal(word(OLD + TSS32_EIP, 4), CODE);
	start_task();
	switches(FROM_GATE, S_NEW, TYPED(7, 0));
	assert_int_equal(word(OLD + TSS32_EIP, 4), CODE);
	/* EXT: what led here is no instruction. */
	start_task();
	SEGMENT(N_CS, 0x100);
	switches(FROM_GATE, S_NEW, event(VECTOR_UD));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x101);
	start_task();
	SEGMENT(N_CS, 0x100);
	switches(FROM_GATE, S_NEW, TYPED(0, 0x20));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x101);
	start_task();
	SEGMENT(N_CS, 0x100);
	switches(FROM_GATE, S_NEW, soft);
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x100);
	start_task();
	SEGMENT(N_CS, 0x100);
	switches(FROM_JMP, S_NEW, event(VECTOR_UD) & ~(uint64_t)VMX_EVENT_VALID); /* none */
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x100);
	/* On top of a contributory exception. */
	start_task();
	SEGMENT(N_CS, 0x100);
	switches(FROM_GATE, S_NEW, event(VECTOR_GP));
	assert_int_equal(injected(), event(VECTOR_DF));
}

/* The error code of the exception, on the stack of the new task. */
static uint64_t push(uint32_t sp, uint32_t limit, uint8_t access, uint8_t flags, uint16_t selector)
{
	start_task();
	put(NEW + TSS32_GPR + 16, sp, 4);
	put(NEW16 + TSS16_GPR + 8, sp, 2);
	descriptor(S_STACK, 0, limit, access, flags);
	memset(fake_memory(STACK - 8), 0xee, 16);
	fake_put(VMCS_IDT_VECTORING_ERROR, 0x12345678);
	switches(FROM_GATE, selector, exception(VECTOR_PF));
	return injected() & VMX_EVENT_VALID ? injected() & VMX_EVENT_VECTOR : 0;
}

static void error_codes(void **state)
{
	(void)state;
	assert_int_equal(push(STACK, 0xfffff, 0x92, 0xc, S_NEW), 0);
	assert_int_equal(word(STACK - 4, 4), 0x12345678);
	assert_int_equal(word(STACK - 8, 4), 0xeeeeeeee);
	assert_int_equal(vcpu.gpr[RSP], STACK - 4);
	assert_int_equal(push(STACK, STACK - 1, 0x92, 0x4, S_NEW), 0);
	assert_int_equal(push(STACK, STACK - 2, 0x92, 0x4, S_NEW), VECTOR_DF); /* #SS on #PF */
	assert_int_equal(push(0x5678, 0xffff, 0x92, 0, S_NEW16), 0);
	assert_int_equal(word(0x5676, 2), 0x5678);
	assert_int_equal(vcpu.gpr[RSP], 0x5676);
	/* A stack of 16 bits wraps. */
	assert_int_equal(push(0x10000, 0xffff, 0x92, 0, S_NEW), 0);
	assert_int_equal(word(0xfffc, 4), 0x12345678);
	assert_int_equal(vcpu.gpr[RSP], 0x1fffc);
	assert_int_equal(push(2, 0xffff, 0x92, 0x4, S_NEW), VECTOR_DF);
	assert_int_equal(push(2, 0xfffff, 0x92, 0xc, S_NEW), VECTOR_DF); /* around the end */
	/* Expand-down: above the limit. */
	assert_int_equal(push(STACK, STACK - 5, 0x96, 0x4, S_NEW), 0);
	assert_int_equal(push(STACK, STACK - 4, 0x96, 0x4, S_NEW), VECTOR_DF);
	assert_int_equal(push(0x2, 0x100, 0x96, 0, S_NEW), VECTOR_DF); /* last byte beyond 64 KiB */
	/* Nothing is pushed for what has none. */
	start_task();
	switches(FROM_GATE, S_NEW, event(VECTOR_UD));
	assert_int_equal(vcpu.gpr[RSP], STACK);
}

/* ---- with paging ---- */

/* 32-bit paging that maps the first 8 MiB to themselves, 4 KiB pages in the first 4. */
static void start_paged(void)
{
	start_task();
	put(TABLES, 0x61000 | 7, 4);
	put(TABLES + 4, 0x400000 | 0x87, 4);
	for (unsigned i = 0; i < 1024; i++)
		put(0x61000 + 4 * i, i << 12 | 7, 4);
	fake_put(VMCS_GUEST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_ET);
	fake_put(VMCS_GUEST_CR3, TABLES);
	fake_put(VMCS_GUEST_CR4, CR4_VMXE | CR4_PSE);
}

static void unmap(uint32_t address) { put(0x61000 + (address >> 12) * 4, 0, 4); }
static void protect(uint32_t address)
{
	put(0x61000 + (address >> 12) * 4, address | 5, 4);
	fake_put(VMCS_GUEST_CR0, fake_get(VMCS_GUEST_CR0) | CR0_WP);
}

static void page_faults(enum source source, uint32_t address, uint32_t error)
{
	switches(source, S_NEW, 0);
	assert_int_equal(injected(), event(VECTOR_PF));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), error);
	assert_int_equal(fake.cr2 & ~0xfffull, address);
	assert_int_equal(vcpu.rip, CODE); /* nothing has changed */
	start_paged();
}

static void memory_is_checked(void **state)
{
	(void)state;
	start_paged();
	switches(FROM_JMP, S_NEW, 0);
	assert_false(injected() & VMX_EVENT_VALID);
	assert_int_equal(fake_get(VMCS_GUEST_CR3), TABLES);
	assert_int_equal(fake.invvpid, 1);
	start_paged();
	unmap(GDT);
	page_faults(FROM_JMP, GDT, 0);
	unmap(OLD);
	page_faults(FROM_JMP, OLD, PF_W);
	unmap(NEW);
	page_faults(FROM_JMP, NEW, 0);
	protect(NEW); /* the link is written */
	page_faults(FROM_CALL, NEW, PF_P | PF_W);
	protect(NEW);
	page_faults(FROM_GATE, NEW, PF_P | PF_W);
	protect(GDT); /* busy flags */
	page_faults(FROM_CALL, GDT, PF_P | PF_W);
	protect(GDT);
	page_faults(FROM_JMP, GDT, PF_P | PF_W);
	protect(GDT);
	page_faults(FROM_IRET, GDT, PF_P | PF_W);
	protect(NEW);
	switches(FROM_JMP, S_NEW, 0);
	assert_false(injected() & VMX_EVENT_VALID);
	/* A 16-bit task has no CR3. */
	start_paged();
	put(NEW + TSS32_CR3, 0x62000, 4);
	switches(FROM_JMP, S_NEW16, 0);
	assert_int_equal(fake_get(VMCS_GUEST_CR3), TABLES);
	/* Tables in our memory end the run by name. */
	start_paged();
	put(NEW + TSS32_CR3, (uint32_t)FAKE_HIDDEN, 4);
	assert_true(fake_catches(switches(FROM_JMP, S_NEW, 0)));
}

static void pdptes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		start_task();
		fake_put(VMCS_GUEST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_ET);
		fake_put(VMCS_GUEST_CR4, CR4_VMXE | CR4_PAE);
		fake_put(VMCS_GUEST_PDPTE0, 0x64000 | PTE_P);
		*fake_quad(0x64000) = PTE_P | PTE_W | PTE_PS;
		*fake_quad(TABLES) = 0x64000 | PTE_P;
		*fake_quad(TABLES + 24) = i == 0 ? 0 : 1u << 5 | (i == 1 ? PTE_P : 0);
		switches(FROM_JMP, S_NEW, 0);
		if (i == 1) {
			assert_int_equal(injected(), event(VECTOR_GP));
			continue;
		}
		assert_false(injected() & VMX_EVENT_VALID);
		assert_int_equal(fake_get(VMCS_GUEST_PDPTE0), 0x64000 | PTE_P);
		assert_int_equal(fake_get(VMCS_GUEST_PDPTE0 + 6), i == 0 ? 0 : 1u << 5);
	}
}

/* The old task's descriptor, on a page of its own, is written where that task is left for good. */
static void leave_from(enum source source, bool faults)
{
	const uint32_t table = 0x1dff0; /* S_OLD is the last on its page */

	start_paged();
	memcpy(fake_memory(table), fake_memory(GDT), 0x60);
	fake_put(VMCS_GUEST_GDTR_BASE, table);
	protect(table & ~0xfffu);
	switches(source, S_NEW, 0);
	assert_int_equal(injected(), faults ? event(VECTOR_PF) : 0);
	assert_int_equal(vcpu.rip, faults ? CODE : 0x7777);
}

static void old_descriptor(void **state)
{
	(void)state;
	leave_from(FROM_JMP, true);
	leave_from(FROM_IRET, true);
	leave_from(FROM_CALL, false);
	leave_from(FROM_GATE, false);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(links_and_busy_flags),
		cmocka_unit_test(registers),
		cmocka_unit_test(of_16_bits),
		cmocka_unit_test(to_virtual_8086),
		cmocka_unit_test(local_tables),
		cmocka_unit_test(bad_code),
		cmocka_unit_test(bad_stack),
		cmocka_unit_test(bad_data),
		cmocka_unit_test(bad_local_table),
		cmocka_unit_test(unusable_tss),
		cmocka_unit_test(trap_flag),
		cmocka_unit_test(gates),
		cmocka_unit_test(error_codes),
		cmocka_unit_test(memory_is_checked),
		cmocka_unit_test(pdptes),
		cmocka_unit_test(old_descriptor),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
