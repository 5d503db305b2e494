/*
 * vmx_task.c: task switches (SDM 3A 7.3, table 7-1), which exit whatever the controls are. The processor has
 * checked the new TSS's descriptor before (26.4.2); everything else is done here, in the guest's memory.
 */
#include "kmod/core/vmx.h"
#include "kmod/core/linear.h"
#include "x86/descriptors.h"
#include "x86/paging.h"
#include "x86/vectors.h"

enum task_source { TASK_CALL, TASK_IRET, TASK_JMP, TASK_GATE }; /* bits 31:30 of the qualification */
enum { N_ES, N_CS, N_SS, N_DS, N_FS, N_GS, N_LDTR, N_TR };      /* segments, in the order of their fields */

#define FLAGS_VALID 0x003f7fd5ull

/* What a TSS holds. */
struct task {
	uint32_t gpr[8], eip, eflags, cr3;
	uint16_t segment[6], ldt;
	bool trap;
};

struct descriptor {
	uint32_t address; /* linear */
	uint32_t base, limit, rights;
};

struct change {
	struct core_vcpu *vcpu;
	enum task_source source;
	uint16_t selector;
	uint32_t ext;          /* ERROR_EXT where the cause is no instruction */
	struct descriptor tss; /* the new one */
	bool narrow, old_narrow;
	uint32_t old_base;
	struct task task;
	/* What went wrong. */
	unsigned vector;
	uint32_t error;
};

static bool fail(struct change *c, unsigned vector, uint32_t error)
{
	c->vector = vector;
	c->error = error;
	return false;
}

static bool page_fault(struct change *c, const struct linear_fault *fault)
{
	hw_write_cr(2, fault->address);
	return fail(c, VECTOR_PF, fault->error);
}

static uint32_t selector_error(const struct change *c, uint16_t selector)
{
	return (selector & ~3u) | c->ext;
}

/* ---- memory ---- */

static bool check(struct change *c, uint32_t linear, unsigned size, bool write)
{
	struct linear_mode mode = vmx_linear_mode(c->vcpu, true);
	struct linear_fault fault;

	return linear_check(&mode, linear, size, write, &fault) || page_fault(c, &fault);
}

static bool get(struct change *c, uint32_t linear, void *to, unsigned size)
{
	struct linear_mode mode = vmx_linear_mode(c->vcpu, true);
	struct linear_fault fault;

	return linear_get(&mode, linear, to, size, &fault) || page_fault(c, &fault);
}

static bool put(struct change *c, uint32_t linear, uint32_t value, unsigned size)
{
	struct linear_mode mode = vmx_linear_mode(c->vcpu, true);
	struct linear_fault fault;

	return linear_put(&mode, linear, &value, size, &fault) || page_fault(c, &fault);
}

/* ---- descriptors ---- */

static bool is_null(uint16_t selector) { return !(selector & ~3u); }

static bool is_16bit(uint32_t rights)
{
	return (rights & SEG_TYPE) == TYPE_TSS16_AVAILABLE || (rights & SEG_TYPE) == TYPE_TSS16_BUSY;
}

/* The descriptor of @selector; @vector where it lies beyond its table. */
static bool read_descriptor(struct change *c, uint16_t selector, unsigned vector, struct descriptor *d)
{
	bool local = selector & SELECTOR_TI;
	uint32_t base = (uint32_t)vmx_get(local ? VMCS_GUEST_LDTR_BASE : VMCS_GUEST_GDTR_BASE);
	uint32_t limit = (uint32_t)vmx_get(local ? VMCS_GUEST_LDTR_LIMIT : VMCS_GUEST_GDTR_LIMIT);
	uint32_t raw[2];

	if ((local && vmx_get(VMCS_GUEST_LDTR_RIGHTS) & VMX_RIGHTS_UNUSABLE) || (selector | 7u) > limit)
		return fail(c, vector, selector_error(c, selector));
	d->address = base + (selector & SELECTOR_INDEX);
	if (!get(c, d->address, raw, sizeof(raw)))
		return false;
	d->base = raw[0] >> 16 | (raw[1] & 0xff) << 16 | (raw[1] & 0xff000000);
	d->rights = raw[1] >> 8 & 0xf0ff;
	d->limit = (raw[0] & 0xffff) | (raw[1] & 0xf0000);
	if (d->rights & SEG_G)
		d->limit = d->limit << 12 | 0xfff;
	return true;
}

static void set_segment(unsigned n, uint16_t selector, uint64_t base, uint32_t limit, uint32_t rights)
{
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES + 2 * n), selector);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * n), base);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_LIMIT + 2 * n), limit);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_RIGHTS + 2 * n), rights);
}

/* Into a segment register, accessed from then on. */
static bool load_descriptor(struct change *c, unsigned n, uint16_t selector, const struct descriptor *d)
{
	if (!(d->rights & SEG_ACCESSED) && !put(c, d->address + 5, (d->rights & 0xff) | SEG_ACCESSED, 1))
		return false;
	set_segment(n, selector, d->base, d->limit, d->rights | SEG_ACCESSED);
	return true;
}

/* ---- before anything changes ---- */

static uint32_t old_descriptor(void)
{
	return (uint32_t)vmx_get(VMCS_GUEST_GDTR_BASE) + (uint32_t)(vmx_get(VMCS_GUEST_TR) & SELECTOR_INDEX);
}

/* Nothing page-faults once state is being saved. */
static bool check_memory(struct change *c)
{
	unsigned first = c->old_narrow ? TSS16_IP : TSS32_EIP;
	unsigned end = c->old_narrow ? TSS16_SEG + 4 * 2 : TSS32_SEG + 6 * 4;

	if (vmx_get(VMCS_GUEST_TR_LIMIT) < end - 1)
		return fail(c, VECTOR_TS, selector_error(c, (uint16_t)vmx_get(VMCS_GUEST_TR)));
	if (!check(c, c->old_base + first, end - first, true) ||
	    !check(c, c->tss.base, c->narrow ? TSS16_SIZE : TSS32_SIZE, false))
		return false;
	if ((c->source == TASK_CALL || c->source == TASK_GATE) && !check(c, c->tss.base, 2, true))
		return false;
	if (c->source != TASK_IRET && !check(c, c->tss.address + 5, 1, true))
		return false;
	return (c->source != TASK_IRET && c->source != TASK_JMP) || check(c, old_descriptor() + 5, 1, true);
}

/* ---- TSSs ---- */

static void save(struct change *c, uint32_t eip, uint32_t eflags)
{
	unsigned width = c->old_narrow ? 2 : 4, count = c->old_narrow ? 4 : 6;

	for (unsigned i = 0; i < 8; i++)
		put(c, c->old_base + (c->old_narrow ? TSS16_GPR : TSS32_GPR) + width * i,
		    (uint32_t)c->vcpu->gpr[i], width);
	for (unsigned i = 0; i < count; i++)
		put(c, c->old_base + (c->old_narrow ? TSS16_SEG : TSS32_SEG) + width * i,
		    (uint32_t)vmx_get((enum vmcs_field)(VMCS_GUEST_ES + 2 * i)), 2);
	put(c, c->old_base + (c->old_narrow ? TSS16_IP : TSS32_EIP), eip, width);
	put(c, c->old_base + (c->old_narrow ? TSS16_FLAGS : TSS32_EFLAGS), eflags, width);
}

static uint32_t from_tss(struct change *c, unsigned offset, unsigned width)
{
	uint32_t value = 0;

	get(c, c->tss.base + offset, &value, width);
	return value;
}

static void read_task(struct change *c)
{
	struct task *task = &c->task;
	unsigned width = c->narrow ? 2 : 4, count = c->narrow ? 4 : 6;

	for (unsigned i = 0; i < 8; i++)
		task->gpr[i] = from_tss(c, (c->narrow ? TSS16_GPR : TSS32_GPR) + width * i, width);
	for (unsigned i = 0; i < count; i++)
		task->segment[i] = (uint16_t)from_tss(c, (c->narrow ? TSS16_SEG : TSS32_SEG) + width * i, 2);
	task->eip = from_tss(c, c->narrow ? TSS16_IP : TSS32_EIP, width);
	task->eflags = from_tss(c, c->narrow ? TSS16_FLAGS : TSS32_EFLAGS, width);
	task->ldt = (uint16_t)from_tss(c, c->narrow ? TSS16_LDT : TSS32_LDT, 2);
	if (c->narrow)
		return;
	task->cr3 = from_tss(c, TSS32_CR3, 4);
	task->trap = from_tss(c, TSS32_TRAP, 2) & 1;
}

static void set_busy(struct change *c, uint32_t descriptor, bool busy)
{
	uint8_t type = 0;

	get(c, descriptor + 5, &type, 1);
	put(c, descriptor + 5, busy ? type | 2u : type & ~2u, 1);
}

static void link_tasks(struct change *c)
{
	if (c->source == TASK_JMP || c->source == TASK_IRET)
		set_busy(c, old_descriptor(), false);
	if (c->source == TASK_CALL || c->source == TASK_GATE)
		put(c, c->tss.base, (uint32_t)vmx_get(VMCS_GUEST_TR), 2);
	if (c->source != TASK_IRET)
		set_busy(c, c->tss.address, true);
}

/* ---- the point of commitment ---- */

/*
 * Selectors without their descriptors. A processor enters no guest without a code segment, so CS has a flat
 * one until its own is loaded; where that fails, only its selector and CPL are seen.
 */
static void load_selectors(const struct change *c, unsigned cpl)
{
	for (unsigned n = N_ES; n <= N_GS; n++)
		set_segment(n, c->task.segment[n], 0, 0, VMX_RIGHTS_UNUSABLE | cpl << SEG_DPL_SHIFT);
	vmx_set(VMCS_GUEST_CS_LIMIT, 0xffffffff);
	vmx_set(VMCS_GUEST_CS_RIGHTS, SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G |
					      SEG_DB | cpl << SEG_DPL_SHIFT);
}

static void load_registers(struct change *c)
{
	const struct task *task = &c->task;
	bool nested = c->source == TASK_CALL || c->source == TASK_GATE;
	uint64_t flags = (task->eflags & FLAGS_VALID) | RFLAGS_FIXED | (nested ? RFLAGS_NT : 0);

	set_segment(N_TR, c->selector, c->tss.base, c->tss.limit, c->tss.rights | 2);
	set_segment(N_LDTR, task->ldt, 0, 0, VMX_RIGHTS_UNUSABLE);
	vmx_set(VMCS_GUEST_CR0, vmx_get(VMCS_GUEST_CR0) | CR0_TS);
	if (vmx_get(VMCS_CR0_MASK) & CR0_TS) /* of a record */
		vmx_set(VMCS_CR0_SHADOW, vmx_get(VMCS_CR0_SHADOW) | CR0_TS);
	vmx_set(VMCS_GUEST_DR7, vmx_get(VMCS_GUEST_DR7) & ~0x155ull); /* L0 to L3 and LE (SDM 3B 17.2.4) */
	for (unsigned i = 0; i < 8; i++)
		c->vcpu->gpr[i] = task->gpr[i];
	c->vcpu->rip = task->eip;
	vmx_set(VMCS_GUEST_RFLAGS, flags);
	load_selectors(c, flags & RFLAGS_VM ? 3 : task->segment[N_CS] & SELECTOR_RPL);
}

static bool load_pdptes(struct change *c)
{
	uint32_t r[4];
	uint64_t invalid, table[4];
	const uint64_t *from = hw_map(c->task.cr3 & 0xfffff000u);

	hw_cpuid(0x80000008u, 0, r);
	invalid = ~((1ull << (r[0] & 0xff)) - 1) | 0x1e6;
	for (unsigned i = 0; i < 4; i++) {
		table[i] = from[(c->task.cr3 & 0xfe0u) / 8 + i];
		if (table[i] & PTE_P && table[i] & invalid)
			return fail(c, VECTOR_GP, c->ext);
	}
	for (unsigned i = 0; i < 4; i++)
		vmx_set((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * i), table[i]);
	return true;
}

static bool load_cr3(struct change *c)
{
	if (c->narrow || !(vmx_get(VMCS_GUEST_CR0) & CR0_PG))
		return true;
	vmx_set(VMCS_GUEST_CR3, c->task.cr3);
	if (c->vcpu->vmx->has_vpid)
		hw_vmx_invvpid(INVVPID_CONTEXT, VMX_VPID, 0);
	if (!tables_guests(c->vcpu->machine, c->task.cr3, 32))
		hw_stop("the guest's CR3 is in the hypervisor's memory", c->task.cr3);
	return !(vmx_get(VMCS_GUEST_CR4) & CR4_PAE) || load_pdptes(c);
}

/* ---- in the new task (table 7-1) ---- */

static bool load_ldt(struct change *c)
{
	uint16_t selector = c->task.ldt;
	uint32_t error = selector_error(c, selector);
	struct descriptor d;

	if (is_null(selector))
		return true;
	if (!read_descriptor(c, selector, VECTOR_TS, &d))
		return false;
	if (selector & SELECTOR_TI || (d.rights & (SEG_TYPE | SEG_S)) != TYPE_LDT || !(d.rights & SEG_P))
		return fail(c, VECTOR_TS, error);
	set_segment(N_LDTR, selector, d.base, d.limit, d.rights);
	return true;
}

static unsigned dpl_of(const struct descriptor *d) { return (d->rights & SEG_DPL) >> SEG_DPL_SHIFT; }

static bool load_cs(struct change *c)
{
	uint16_t selector = c->task.segment[N_CS];
	unsigned rpl = selector & SELECTOR_RPL;
	uint32_t error = selector_error(c, selector);
	struct descriptor d;

	if (is_null(selector))
		return fail(c, VECTOR_TS, error);
	if (!read_descriptor(c, selector, VECTOR_TS, &d))
		return false;
	if (!(d.rights & SEG_S) || !(d.rights & SEG_CODE))
		return fail(c, VECTOR_TS, error);
	if (d.rights & SEG_CONFORMING ? dpl_of(&d) > rpl : dpl_of(&d) != rpl)
		return fail(c, VECTOR_TS, error);
	if (!(d.rights & SEG_P))
		return fail(c, VECTOR_NP, error);
	return load_descriptor(c, N_CS, selector, &d);
}

static bool load_ss(struct change *c)
{
	uint16_t selector = c->task.segment[N_SS];
	unsigned cpl = c->task.segment[N_CS] & SELECTOR_RPL;
	uint32_t error = selector_error(c, selector);
	struct descriptor d;

	if (is_null(selector))
		return fail(c, VECTOR_TS, error);
	if (!read_descriptor(c, selector, VECTOR_TS, &d))
		return false;
	if (!(d.rights & SEG_S) || (d.rights & (SEG_CODE | SEG_WRITABLE)) != SEG_WRITABLE)
		return fail(c, VECTOR_TS, error);
	if (!(d.rights & SEG_P))
		return fail(c, VECTOR_SS, error);
	if (dpl_of(&d) != cpl || (selector & SELECTOR_RPL) != cpl)
		return fail(c, VECTOR_TS, error);
	return load_descriptor(c, N_SS, selector, &d);
}

static bool load_data(struct change *c, unsigned n)
{
	uint16_t selector = c->task.segment[n];
	unsigned cpl = c->task.segment[N_CS] & SELECTOR_RPL;
	uint32_t error = selector_error(c, selector);
	struct descriptor d;

	if (is_null(selector))
		return true;
	if (!read_descriptor(c, selector, VECTOR_TS, &d))
		return false;
	if (!(d.rights & SEG_S) || (d.rights & (SEG_CODE | SEG_READABLE)) == SEG_CODE)
		return fail(c, VECTOR_TS, error);
	if (!(d.rights & SEG_P))
		return fail(c, VECTOR_NP, error);
	if ((d.rights & (SEG_CODE | SEG_CONFORMING)) != (SEG_CODE | SEG_CONFORMING) &&
	    (dpl_of(&d) < cpl || dpl_of(&d) < (selector & SELECTOR_RPL)))
		return fail(c, VECTOR_TS, error);
	return load_descriptor(c, n, selector, &d);
}

static bool load_segments(struct change *c)
{
	static const uint8_t data[] = {N_DS, N_ES, N_FS, N_GS};

	if (c->task.eflags & RFLAGS_VM) {
		for (unsigned n = N_ES; n <= N_GS; n++)
			set_segment(n, c->task.segment[n], (uint64_t)c->task.segment[n] << 4, 0xffff, 0xf3);
		return true;
	}
	if (!load_cs(c) || !load_ss(c))
		return false;
	for (unsigned i = 0; i < 4; i++)
		if (!load_data(c, data[i]))
			return false;
	return true;
}

/* The error code of the exception that has led here, on the new stack. */
static bool push_error(struct change *c, uint32_t error)
{
	unsigned width = c->narrow ? 2 : 4;
	uint32_t rights = (uint32_t)vmx_get(VMCS_GUEST_SS_RIGHTS),
		 limit = (uint32_t)vmx_get(VMCS_GUEST_SS_LIMIT);
	uint32_t mask = rights & SEG_DB ? 0xffffffff : 0xffff,
		 sp = (uint32_t)(c->vcpu->gpr[RSP] - width) & mask;
	uint32_t last = sp + width - 1;
	bool down = (rights & (SEG_CODE | SEG_EXPAND_DOWN)) == SEG_EXPAND_DOWN;

	if (last < sp || (down ? sp <= limit || last > mask : last > limit))
		return fail(c, VECTOR_SS, c->ext);
	if (!put(c, (uint32_t)vmx_get(VMCS_GUEST_SS_BASE) + sp, error, width))
		return false;
	c->vcpu->gpr[RSP] = (c->vcpu->gpr[RSP] & ~(uint64_t)mask) | sp;
	return true;
}

static bool check_eip(struct change *c)
{
	return c->vcpu->rip <= vmx_get(VMCS_GUEST_CS_LIMIT) || fail(c, VECTOR_GP, c->ext);
}

/* ---- all ---- */

/* RIP that the old task goes on at. */
static uint32_t next_rip(const struct change *c, uint32_t event)
{
	unsigned type = VMX_EVENT_TYPE(event);
	bool instruction = c->source != TASK_GATE ||
			   (type >= VMX_EVENT_SOFTWARE_INTERRUPT && type <= VMX_EVENT_SOFTWARE_EXCEPTION);

	return (uint32_t)(c->vcpu->rip + (instruction ? vmx_get(VMCS_EXIT_INSTRUCTION_LENGTH) : 0));
}

static bool change_task(struct change *c, uint32_t event)
{
	uint32_t flags = (uint32_t)vmx_get(VMCS_GUEST_RFLAGS);

	c->old_base = (uint32_t)vmx_get(VMCS_GUEST_TR_BASE);
	c->old_narrow = is_16bit((uint32_t)vmx_get(VMCS_GUEST_TR_RIGHTS));
	if (!read_descriptor(c, c->selector, c->source == TASK_IRET ? VECTOR_TS : VECTOR_GP, &c->tss))
		return false;
	c->narrow = is_16bit(c->tss.rights);
	if (!check_memory(c))
		return false;
	save(c, next_rip(c, event), c->source == TASK_IRET ? flags & ~(uint32_t)RFLAGS_NT : flags);
	link_tasks(c);
	read_task(c);
	load_registers(c);
	if (!load_cr3(c) || !load_ldt(c) || !load_segments(c))
		return false;
	if (event & VMX_EVENT_ERROR_CODE && !push_error(c, (uint32_t)vmx_get(VMCS_IDT_VECTORING_ERROR)))
		return false;
	return check_eip(c);
}

void vmx_task_switch(struct core_vcpu *vcpu)
{
	uint64_t why = vmx_get(VMCS_EXIT_QUALIFICATION);
	uint32_t event = (uint32_t)vmx_get(VMCS_IDT_VECTORING_INFO);
	struct change change = {
		.vcpu = vcpu, .source = (enum task_source)(why >> 30 & 3), .selector = (uint16_t)why};

	if (!(event & VMX_EVENT_VALID))
		event = 0;
	else if (VMX_EVENT_TYPE(event) <= VMX_EVENT_EXCEPTION)
		change.ext = ERROR_EXT;
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
		vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & ~(uint64_t)(VMX_BLOCKING_STI | VMX_BLOCKING_MOV_SS));
	if (!change_task(&change, event)) {
		vmx_raise_upon(vcpu, change.vector, change.error);
	} else if (change.task.trap) {
		hw_set_dr6(hw_dr6() | DR6_BT);
		vmx_raise(vcpu, VECTOR_DB, 0);
	}
}
