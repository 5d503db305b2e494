#include "lib/vmx_world.h"

#include "lib/baseline.h"
#include "lib/ending.h"
#include "lib/exchange.h"
#include "lib/load.h"
#include "lib/machine.h"
#include "lib/quiet.h"
#include "lib/report.h"
#include "lib/story.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#define FEATURE_CONTROL    0x3au
#define FEATURE_LOCK       1u
#define FEATURE_VMX        4u /* outside SMX operation */
#define MSR_DEBUGCTL_INDEX 0x1d9u
#define MSR_PAT_INDEX      0x277u

uint8_t vmx_pages[VMX_PAGES][4096] __attribute__((aligned(4096)));
uint64_t vmx_registers[GPR_COUNT];
uint64_t vmx_exit_flags;

extern const uint8_t vmx_exited[], vmx_try_stubs[], vmx_try_end[], vmx_try_resume[];
uint64_t vmx_switch(uint64_t resume);
uint64_t vmx_try(const void *stub, void *memory, uint64_t reg);

static bool on, launched;
static uint64_t saved_cr0, saved_cr4;
static unsigned fault_vector;
static uint64_t fault_error;
static char probe_text[32];

/* ---- VMX instructions ---- */

_Noreturn void monitor_fault(const uint64_t *frame);

static void catch_fault(struct story_frame *frame)
{
	if (frame->rip >= (uintptr_t)vmx_try_stubs && frame->rip < (uintptr_t)vmx_try_end) {
		fault_vector = (unsigned)frame->vector;
		fault_error = frame->error;
		frame->rip = (uintptr_t)vmx_try_resume;
	} else if (frame->vector == VECTOR_GP && (int64_t)frame->rip >> 47 &&
		   (int64_t)frame->rip >> 47 != -1) {
		frame->rip =
			(uintptr_t)vmx_exited; /* an exit to a HOST_RIP that VM entry should have refused */
	} else if (frame->vector < 32 && frame->vector != VECTOR_NMI) {
		monitor_fault(&frame->vector); /* it would come again and again */
	}
}

uint64_t vmx_fault_error(void) { return fault_error; }

static unsigned by_flags(uint64_t flags)
{
	uint64_t error;

	switch (flags & RFLAGS_STATUS) {
	case 0: return 0;
	case RFLAGS_CF: return VMX_FAIL_INVALID;
	case RFLAGS_ZF:
		__asm__ volatile("vmread %1, %0"
				 : "=rm"(error)
				 : "r"((uint64_t)VMCS_INSTRUCTION_ERROR)
				 : "cc");
		return VMX_FAIL((unsigned)error);
	default: return VMX_ODD_FLAGS | (unsigned)(flags & RFLAGS_STATUS);
	}
}

unsigned vmx_do(enum vmx_operation operation, void *memory, uint64_t reg)
{
	uint64_t flags;

	story_handle(catch_fault);
	flags = vmx_try(vmx_try_stubs + 16 * operation, memory, reg);
	return flags ? by_flags(flags) : VMX_FAULT(fault_vector);
}

static unsigned try_move(enum vmx_operation operation, uint64_t value)
{
	story_handle(catch_fault);
	return vmx_try(vmx_try_stubs + 16 * operation, NULL, value) ? STORY_NO_FAULT : fault_vector;
}

unsigned vmx_try_cr0(uint64_t value) { return try_move(VMX_DO_MOV_CR0, value); }
unsigned vmx_try_cr4(uint64_t value) { return try_move(VMX_DO_MOV_CR4, value); }

unsigned vmx_do_address(enum vmx_operation operation, uint64_t physical)
{
	static uint64_t operand;

	operand = physical;
	return vmx_do(operation, &operand, 0);
}

uint64_t vmx_current(void)
{
	uint64_t address = 0x5a5a5a5a5a5a5a5aull;

	vmx_do(VMX_DO_VMPTRST, &address, 0);
	return address;
}

uint64_t vmx_read(uint32_t field)
{
	uint64_t value = 0;

	__asm__ volatile("vmread %1, %0" : "+rm"(value) : "r"((uint64_t)field) : "cc");
	return value;
}

void vmx_write(uint32_t field, uint64_t value)
{
	__asm__ volatile("vmwrite %0, %1" : : "rm"(value), "r"((uint64_t)field) : "cc", "memory");
}

unsigned vmx_try_read(uint64_t field, uint64_t *value) { return vmx_do(VMX_DO_VMREAD, value, field); }
unsigned vmx_try_write(uint64_t field, uint64_t value) { return vmx_do(VMX_DO_VMWRITE, &value, field); }

/* ---- what there is ---- */

bool vmx_has_cpuid(uint32_t leaf, unsigned reg, unsigned bit)
{
	uint32_t r[4];

	machine_cpuid(leaf, 0, r);
	return r[reg] >> bit & 1;
}

static bool there(enum vmx_msr which)
{
	uint64_t primary;

	switch (which) {
	case VMX_MSR_SECONDARY: return machine_read_msr(MSR_VMX(VMX_MSR_PRIMARY)) >> 63;
	case VMX_MSR_EPT_VPID:
		return there(VMX_MSR_SECONDARY) &&
		       machine_read_msr(MSR_VMX(VMX_MSR_SECONDARY)) >> 32 & (VMX2_EPT | VMX2_VPID);
	case VMX_MSR_VMFUNC:
		return there(VMX_MSR_SECONDARY) &&
		       machine_read_msr(MSR_VMX(VMX_MSR_SECONDARY)) >> 32 & VMX2_VM_FUNCTIONS;
	case VMX_MSR_TRUE_PIN:
	case VMX_MSR_TRUE_PRIMARY:
	case VMX_MSR_TRUE_EXIT:
	case VMX_MSR_TRUE_ENTRY:
		primary = machine_read_msr(MSR_VMX(VMX_MSR_BASIC));
		return primary & VMX_BASIC_TRUE_CONTROLS;
	default: return true;
	}
}

uint64_t vmx_msr(enum vmx_msr which) { return there(which) ? machine_read_msr(MSR_VMX(which)) : 0; }

uint32_t vmx_control_msr(uint32_t field)
{
	bool exact = there(VMX_MSR_TRUE_PIN);

	switch (field) {
	case VMCS_PIN_CONTROLS: return MSR_VMX(exact ? VMX_MSR_TRUE_PIN : VMX_MSR_PIN);
	case VMCS_PRIMARY_CONTROLS: return MSR_VMX(exact ? VMX_MSR_TRUE_PRIMARY : VMX_MSR_PRIMARY);
	case VMCS_EXIT_CONTROLS: return MSR_VMX(exact ? VMX_MSR_TRUE_EXIT : VMX_MSR_EXIT);
	case VMCS_ENTRY_CONTROLS: return MSR_VMX(exact ? VMX_MSR_TRUE_ENTRY : VMX_MSR_ENTRY);
	case VMCS_SECONDARY_CONTROLS: return there(VMX_MSR_SECONDARY) ? MSR_VMX(VMX_MSR_SECONDARY) : 0;
	default: return 0;
	}
}

uint32_t vmx_must_be_1(uint32_t field)
{
	uint32_t msr = vmx_control_msr(field);

	return msr ? (uint32_t)machine_read_msr(msr) : 0;
}

uint32_t vmx_may_be_1(uint32_t field)
{
	uint32_t msr = vmx_control_msr(field);

	return msr ? (uint32_t)(machine_read_msr(msr) >> 32) : 0;
}

static char *append(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

/* "msr.48b[33]=0" */
static const char *probe(uint32_t msr, unsigned bit, const char *value)
{
	static const char digits[] = "0123456789abcdef";
	char *to = append(probe_text, "msr.");

	*to++ = digits[msr >> 8 & 15];
	*to++ = digits[msr >> 4 & 15];
	*to++ = digits[msr & 15];
	*to++ = '[';
	if (bit >= 10)
		*to++ = digits[bit / 10];
	*to++ = digits[bit % 10];
	to = append(to, "]=");
	to = append(to, value);
	*to = 0;
	return probe_text;
}

static unsigned lowest(uint32_t bits) { return (unsigned)__builtin_ctz(bits); }

bool vmx_can(uint32_t field, uint32_t bits) { return (vmx_may_be_1(field) & bits) == bits; }

bool vmx_needs(uint32_t field, uint32_t bits)
{
	uint32_t missing = bits & ~vmx_may_be_1(field);
	uint32_t msr = vmx_control_msr(field);

	if (!missing)
		return true;
	if (!msr)
		return story_needs(false, probe(MSR_VMX(VMX_MSR_PRIMARY), 63, "0"));
	return story_needs(false, probe(msr, 32 + lowest(missing), "0"));
}

bool vmx_needs_clear(uint32_t field, uint32_t bit)
{
	return !(vmx_must_be_1(field) & bit) ||
	       story_needs(false, probe(vmx_control_msr(field), lowest(bit), "1"));
}

bool vmx_needs_cr3_targets(uint64_t count)
{
	uint64_t has = vmx_msr(VMX_MSR_MISC) >> VMX_MISC_CR3_TARGETS_SHIFT & 0x1ff;
	uint32_t missing = (uint32_t)(count & ~has);

	/* Where it has fewer, some bit of @count is clear in what it has. */
	return has >= count || story_needs(false, probe(MSR_VMX(VMX_MSR_MISC),
							VMX_MISC_CR3_TARGETS_SHIFT + lowest(missing), "0"));
}

bool vmx_needs_bit(enum vmx_msr which, unsigned bit)
{
	return vmx_msr(which) >> bit & 1 || story_needs(false, probe(MSR_VMX(which), bit, "0"));
}

/* ---- on and off ---- */

bool vmx_allow(void)
{
	uint64_t feature = machine_read_msr(FEATURE_CONTROL);

	if (!(feature & FEATURE_LOCK)) {
		machine_write_msr(FEATURE_CONTROL, feature | FEATURE_LOCK | FEATURE_VMX);
		feature = machine_read_msr(FEATURE_CONTROL);
	}
	return feature & FEATURE_VMX;
}

bool vmx_prepare(void)
{
	static const enum vmx_page regions[] = {VMX_PAGE_VMXON, VMX_PAGE_VMCS, VMX_PAGE_VMCS2,
						VMX_PAGE_SHADOW};

	if (!story_needs(vmx_has_cpuid(1, 2, 5), "cpuid.1.0.ecx[5]=0") ||
	    !story_needs(vmx_allow(), "msr.3a[2]=0"))
		return false;
	if (!machine.control_device)
		machine_fill(vmx_pages, 0, sizeof(vmx_pages));
	for (unsigned i = 0; i < sizeof(regions) / sizeof(regions[0]); i++)
		*(uint32_t *)vmx_at(regions[i], 0) = (uint32_t)vmx_msr(VMX_MSR_BASIC) & VMCS_REVISION_MASK;
	saved_cr0 = machine_read_cr0();
	saved_cr4 = machine_read_cr4();
	machine_write_cr4(saved_cr4 | CR4_VMXE);
	on = true;
	launched = false;
	story_handle(catch_fault);
	return true;
}

bool vmx_begin(void)
{
	unsigned result;

	if (!vmx_prepare())
		return false;
	result = vmx_do_address(VMX_DO_VMXON, vmx_page(VMX_PAGE_VMXON));
	if (!result)
		result = vmx_do_address(VMX_DO_VMCLEAR, vmx_page(VMX_PAGE_VMCS));
	if (!result)
		result = vmx_do_address(VMX_DO_VMPTRLD, vmx_page(VMX_PAGE_VMCS));
	if (result)
		story_check("vmx_begin", 0, result);
	return !result;
}

void vmx_end(void)
{
	if (!on)
		return;
	on = false;
	vmx_do(VMX_DO_VMXOFF, NULL, 0); /* #UD where the story has left it already */
	machine_write_cr0(saved_cr0);
	machine_write_cr4(saved_cr4);
	__asm__ volatile("lgdt %0" : : "m"(exchange.monitor_gdtr));
}

void vmx_set(uint32_t field, uint32_t bits)
{
	vmx_write(field, vmx_read(field) | bits);
	if (field == VMCS_SECONDARY_CONTROLS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_SECONDARY);
}

void vmx_clear(uint32_t field, uint32_t bits) { vmx_write(field, vmx_read(field) & ~(uint64_t)bits); }

/* ---- the host ---- */

static uint64_t read_table(bool interrupts)
{
	struct table_pointer table;

	if (interrupts)
		__asm__ volatile("sidt %0" : "=m"(table));
	else
		__asm__ volatile("sgdt %0" : "=m"(table));
	return table.base;
}

void vmx_load_host(void)
{
	vmx_write(VMCS_HOST_CS, MONITOR_CS64);
	vmx_write(VMCS_HOST_SS, MONITOR_DS);
	vmx_write(VMCS_HOST_DS, MONITOR_DS);
	vmx_write(VMCS_HOST_ES, MONITOR_DS);
	vmx_write(VMCS_HOST_FS, 0);
	vmx_write(VMCS_HOST_GS, 0);
	vmx_write(VMCS_HOST_TR, MONITOR_TSS);
	vmx_write(VMCS_HOST_CR0, machine_read_cr0());
	vmx_write(VMCS_HOST_CR3, machine_read_cr3());
	vmx_write(VMCS_HOST_CR4, machine_read_cr4());
	vmx_write(VMCS_HOST_FS_BASE, 0);
	vmx_write(VMCS_HOST_GS_BASE, 0);
	vmx_write(VMCS_HOST_TR_BASE, 0);
	vmx_write(VMCS_HOST_GDTR_BASE, read_table(false));
	vmx_write(VMCS_HOST_IDTR_BASE, read_table(true));
	vmx_write(VMCS_HOST_SYSENTER_CS, CASE_SYSENTER_CS);
	vmx_write(VMCS_HOST_SYSENTER_ESP, CASE_SYSENTER_ESP);
	vmx_write(VMCS_HOST_SYSENTER_EIP, CASE_SYSENTER_EIP);
	vmx_write(VMCS_HOST_RIP, (uintptr_t)vmx_exited);
	if (vmx_can(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_EFER))
		vmx_write(VMCS_HOST_EFER, exchange.monitor_efer);
	if (vmx_can(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_PAT))
		vmx_write(VMCS_HOST_PAT, machine_read_msr(MSR_PAT_INDEX));
}

/* ---- controls ---- */

static void put_control(uint32_t field, uint32_t bits)
{
	vmx_write(field, (bits | vmx_must_be_1(field)) & vmx_may_be_1(field));
}

static uint32_t if_can(uint32_t field, uint32_t bits) { return vmx_can(field, bits) ? bits : 0; }

void vmx_load_controls(unsigned mode, unsigned with)
{
	static const uint32_t zero[] = {VMCS_PF_ERROR_MASK,
					VMCS_PF_ERROR_MATCH,
					VMCS_CR3_TARGET_COUNT,
					VMCS_EXIT_MSR_STORE_COUNT,
					VMCS_EXIT_MSR_LOAD_COUNT,
					VMCS_ENTRY_MSR_LOAD_COUNT,
					VMCS_ENTRY_INTERRUPTION_INFO,
					VMCS_ENTRY_EXCEPTION_ERROR,
					VMCS_ENTRY_INSTRUCTION_LENGTH,
					VMCS_CR0_MASK,
					VMCS_CR0_SHADOW,
					VMCS_TSC_OFFSET};
	uint32_t secondary =
		(with & VMX_EPT ? VMX2_EPT : 0) | (with & VMX_UNRESTRICTED ? VMX2_UNRESTRICTED_GUEST : 0);

	for (unsigned i = 0; i < sizeof(zero) / sizeof(zero[0]); i++)
		vmx_write(zero[i], 0);
	put_control(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI);
	put_control(VMCS_PRIMARY_CONTROLS, secondary ? VMX_ACTIVATE_SECONDARY : 0);
	if (vmx_control_msr(VMCS_SECONDARY_CONTROLS))
		put_control(VMCS_SECONDARY_CONTROLS, secondary);
	put_control(VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64 | VMX_EXIT_SAVE_DEBUG |
						if_can(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_EFER) |
						if_can(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_EFER));
	put_control(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_DEBUG | (baseline_is_64(mode) ? VMX_ENTRY_IA32E : 0) |
						 if_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER));
	vmx_write(VMCS_EXCEPTION_BITMAP, 0xffffffff);
	vmx_write(VMCS_CR4_MASK, CR4_VMXE);
	vmx_write(VMCS_CR4_SHADOW, 0);
	if (with & VMX_EPT) {
		vmx_ept_build();
		vmx_write(VMCS_EPTP, vmx_eptp());
	}
}

bool vmx_apply_controls(const struct case_spec *spec)
{
	for (unsigned i = 0; i < spec->setting_count; i++) {
		const struct case_setting *s = &spec->settings[i];
		uint32_t field = s->address, bits = (uint32_t)s->value;

		if (field == VMX_WORLD_RAW)
			continue;
		if (s->kind == SETTING_CONTROL) {
			if (field == VMCS_CR3_TARGET_COUNT && !vmx_needs_cr3_targets(s->value))
				return false;
			vmx_write(field, s->value);
		} else if (s->kind == SETTING_CONTROL_OR) {
			if (!vmx_control_msr(field))
				bits = s->bit ? bits : 0;
			if (s->bit && !vmx_needs(field, bits))
				return false;
			if (bits & vmx_may_be_1(field))
				vmx_set(field, bits & vmx_may_be_1(field));
		} else if (s->kind == SETTING_CONTROL_CLEAR) {
			if (s->bit && vmx_must_be_1(field) & bits && !vmx_needs_clear(field, bits))
				return false;
			vmx_clear(field, bits & ~vmx_must_be_1(field));
		}
	}
	return true;
}

/* ---- the guest ---- */

static void put_segment(unsigned n, uint64_t selector, uint64_t base, uint64_t limit, uint64_t rights)
{
	vmx_write(VMCS_GUEST_ES + 2 * n, selector);
	vmx_write(VMCS_GUEST_ES_BASE + 2 * n, base);
	vmx_write(VMCS_GUEST_ES_LIMIT + 2 * n, limit);
	vmx_write(VMCS_GUEST_ES_RIGHTS + 2 * n, rights);
}

/* As the GDT or LDT of case_layout.h has it, @set in its access rights besides. */
static void put_descriptor(unsigned n, uint64_t selector, unsigned set)
{
	uintptr_t table = selector & SELECTOR_TI ? CASE_LDT : CASE_GDT;
	uint64_t d = *(const uint64_t *)(table + (selector & SELECTOR_INDEX));
	uint64_t limit = (d & 0xffff) | (d >> 48 & 15) << 16, rights = d >> 40 & 0xf0ff;

	if (!(selector & ~(uint64_t)SELECTOR_RPL)) {
		put_segment(n, selector, 0, 0, SEG_UNUSABLE);
		return;
	}
	if (rights & SEG_G)
		limit = limit << 12 | 0xfff;
	put_segment(n, selector, (d >> 16 & 0xffffff) | (d >> 56) << 24, limit, rights | set);
}

enum { LDTR = SEGMENT_COUNT, TR };

static void load_segments(unsigned mode, uint64_t *in)
{
	static const uint8_t fields[SEGMENT_COUNT] = {STATE_es, STATE_cs, STATE_ss,
						      STATE_ds, STATE_fs, STATE_gs};

	for (unsigned n = 0; n < SEGMENT_COUNT; n++) {
		uint64_t selector = in[fields[n]];

		if (mode == MODE_REAL || mode == MODE_VM86)
			put_segment(n, selector, (selector & 0xffff) << 4, 0xffff,
				    mode == MODE_VM86 ? 0xf3
				    : n == CS         ? 0x9b
						      : 0x93);
		else
			put_descriptor(n, selector, 0);
	}
	if (mode == MODE_LONG) {
		vmx_write(VMCS_GUEST_FS_BASE, in[STATE_fs_base]);
		vmx_write(VMCS_GUEST_GS_BASE, in[STATE_gs_base]);
	}
	put_descriptor(LDTR, in[STATE_ldtr], 0);
	put_descriptor(TR, in[STATE_tr], 2); /* busy */
	in[STATE_fs_base] = vmx_read(VMCS_GUEST_FS_BASE);
	in[STATE_gs_base] = vmx_read(VMCS_GUEST_GS_BASE);
}

static const struct field {
	uint32_t vmcs;
	unsigned state;
} fields[] = {
	{VMCS_GUEST_GDTR_BASE, STATE_gdtr_base},
	{VMCS_GUEST_GDTR_LIMIT, STATE_gdtr_limit},
	{VMCS_GUEST_IDTR_BASE, STATE_idtr_base},
	{VMCS_GUEST_IDTR_LIMIT, STATE_idtr_limit},
	{VMCS_GUEST_CR0, STATE_cr0},
	{VMCS_GUEST_CR3, STATE_cr3},
	{VMCS_GUEST_CR4, STATE_cr4},
	{VMCS_GUEST_DR7, STATE_dr7},
	{VMCS_GUEST_RSP, STATE_rsp},
	{VMCS_GUEST_RIP, STATE_rip},
	{VMCS_GUEST_RFLAGS, STATE_rflags},
	{VMCS_GUEST_SYSENTER_CS, STATE_sysenter_cs},
	{VMCS_GUEST_SYSENTER_ESP, STATE_sysenter_esp},
	{VMCS_GUEST_SYSENTER_EIP, STATE_sysenter_eip},
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* Registers 0 to 7 in the order of their numbers. */
static const uint8_t registers[GPR_COUNT] = {STATE_rax, STATE_rcx, STATE_rdx, STATE_rbx, STATE_rsp, STATE_rbp,
					     STATE_rsi, STATE_rdi, STATE_r8,  STATE_r9,  STATE_r10, STATE_r11,
					     STATE_r12, STATE_r13, STATE_r14, STATE_r15};

void vmx_load_guest(unsigned mode)
{
	uint64_t *in = exchange.in.field;

	if (mode != MODE_LONG)
		for (unsigned n = STATE_rax; n <= STATE_rdi; n++)
			in[n] &= 0xffffffffu;
	load_segments(mode, in);
	for (unsigned i = 0; i < FIELDS; i++)
		vmx_write(fields[i].vmcs, in[fields[i].state]);
	vmx_write(VMCS_GUEST_CR4, in[STATE_cr4] | CR4_VMXE);
	vmx_write(VMCS_CR4_SHADOW, in[STATE_cr4]);
	for (unsigned n = 0; n < GPR_COUNT; n++)
		vmx_registers[n] = in[registers[n]];
	vmx_write(VMCS_LINK_POINTER, ~0ull);
	vmx_write(VMCS_GUEST_DEBUGCTL, 0);
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	vmx_write(VMCS_GUEST_PENDING_DEBUG, 0);
	if (vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER))
		vmx_write(VMCS_GUEST_EFER, in[STATE_efer]);
	if (vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_PAT))
		vmx_write(VMCS_GUEST_PAT, machine_read_msr(MSR_PAT_INDEX));
	exchange.out = exchange.in;
}

#define HANDLERS    (CASE_LAND_SUPERVISOR + 0x800u)
#define VMCALL_SIZE 3u

uint64_t vmx_handler(unsigned n) { return HANDLERS + VMCALL_SIZE * n; }

static void fill_vmcalls(uint32_t address, unsigned count)
{
	static const uint8_t vmcall[VMCALL_SIZE] = {0x0f, 0x01, 0xc1};

	for (; count--; address += VMCALL_SIZE)
		machine_copy((void *)(uintptr_t)address, vmcall, VMCALL_SIZE);
}

static void put_gate(uint32_t gate, uint64_t offset)
{
	volatile uint16_t *words = (volatile uint16_t *)(uintptr_t)gate;

	words[0] = (uint16_t)offset;
	words[3] = (uint16_t)(offset >> 16);
}

static void set_handlers(unsigned mode)
{
	uintptr_t ivt = CASE_IVT;

	__asm__("" : "+r"(ivt)); /* address 0 is an address like any other */
	fill_vmcalls(HANDLERS, 256);
	world_accept(HANDLERS, 256 * VMCALL_SIZE);
	for (unsigned n = 0; n < 256; n++) {
		if (mode == MODE_REAL)
			((volatile uint32_t *)ivt)[n] =
				CASE_WINDOW / 16 << 16 | (uint32_t)(vmx_handler(n) - CASE_WINDOW);
		else if (baseline_is_64(mode))
			put_gate(CASE_IDT64 + 16 * n, vmx_handler(n));
		else
			put_gate(CASE_IDT32 + 8 * n, vmx_handler(n));
	}
	if (mode == MODE_REAL)
		world_accept(CASE_IVT, CASE_IVT_SIZE);
	else
		world_accept(baseline_is_64(mode) ? CASE_IDT64 : CASE_IDT32, PAGE_SIZE);
}

void vmx_world_prepare(unsigned mode, unsigned cpl)
{
	baseline_fill(&exchange.in, mode, cpl);
	world_prepare(mode, cpl);
	set_handlers(mode);
	vmx_code(NULL, 0);
}

void vmx_code(const uint8_t *bytes, unsigned length)
{
	machine_copy((void *)CASE_STUB, bytes, length);
	fill_vmcalls(CASE_STUB + length, 8);
	world_accept(CASE_STUB, length + 8 * VMCALL_SIZE);
}

bool vmx_needs_mode(unsigned mode, unsigned with)
{
	uint32_t secondary =
		(with & VMX_EPT ? VMX2_EPT : 0) | (with & VMX_UNRESTRICTED ? VMX2_UNRESTRICTED_GUEST : 0);

	(void)mode;
	return !secondary || vmx_needs(VMCS_SECONDARY_CONTROLS, secondary);
}

bool vmx_baseline(unsigned mode, unsigned cpl, unsigned with)
{
	if (mode == MODE_REAL)
		with |= VMX_EPT | VMX_UNRESTRICTED;
	if (!vmx_begin() || !vmx_needs_mode(mode, with))
		return false;
	vmx_world_prepare(mode, cpl);
	vmx_load_host();
	vmx_load_controls(mode, with);
	vmx_load_guest(mode);
	return true;
}

unsigned vmx_run(void)
{
	uint64_t flags;

	quiet_load(&exchange);
	flags = vmx_switch(launched);
	if (flags)
		return by_flags(flags);
	launched = launched || !(vmx_reason() & VMX_EXIT_ENTRY_FAILURE);
	return 0;
}

void vmx_set_clear(void) { launched = false; }
uint64_t vmx_host_flags(void) { return vmx_exit_flags; }
uint32_t vmx_reason(void) { return (uint32_t)vmx_read(VMCS_EXIT_REASON); }

static const uint8_t selectors[] = {STATE_es, STATE_cs, STATE_ss,   STATE_ds,
				    STATE_fs, STATE_gs, STATE_ldtr, STATE_tr};

/* What the exit has left in the processor. */
static void capture_host(struct exchange *x)
{
	x->detect = 0;
	x->out = x->in;
	x->out.field[STATE_cr2] = machine_read_cr2();
	x->out.field[STATE_cr8] = machine_read_cr8();
	x->out.field[STATE_dr6] = machine_read_dr6();
	quiet_capture(x);
}

/* What it has left in the VMCS. */
static void capture_fields(uint64_t *out, unsigned mode)
{
	for (unsigned i = 0; i < FIELDS; i++)
		out[fields[i].state] = vmx_read(fields[i].vmcs);
	out[STATE_cr4] &= ~(uint64_t)CR4_VMXE; /* VMX asks for it, a case does not name it */
	for (unsigned n = 0; n < GPR_COUNT; n++)
		if (n != RSP && (n < 8 || mode == MODE_LONG))
			out[registers[n]] = vmx_registers[n];
	for (unsigned n = 0; n < sizeof(selectors); n++)
		out[selectors[n]] = vmx_read(VMCS_GUEST_ES + 2 * n);
	out[STATE_fs_base] = vmx_read(VMCS_GUEST_FS_BASE);
	out[STATE_gs_base] = vmx_read(VMCS_GUEST_GS_BASE);
	if (vmx_read(VMCS_EXIT_CONTROLS) & VMX_EXIT_SAVE_EFER)
		out[STATE_efer] = vmx_read(VMCS_GUEST_EFER);
}

void vmx_capture(unsigned mode)
{
	capture_host(&exchange);
	capture_fields(exchange.out.field, mode);
}

void vmx_capture_delivery(const struct case_spec *spec, struct ending *end)
{
	struct exchange *x = &exchange;
	struct machine_state guest;

	capture_host(x);
	x->vector = vmx_handler_vector();
	x->frame_offset = vmx_read(VMCS_GUEST_RSP);
	x->frame_ss = vmx_read(VMCS_GUEST_SS);
	load_table(&x->out_gdtr, vmx_read(VMCS_GUEST_GDTR_BASE), vmx_read(VMCS_GUEST_GDTR_LIMIT));
	load_table(&x->out_idtr, vmx_read(VMCS_GUEST_IDTR_BASE), vmx_read(VMCS_GUEST_IDTR_LIMIT));
	for (unsigned n = 0; n < GPR_COUNT; n++)
		if (n != RSP)
			x->out.field[registers[n]] = vmx_registers[n];
	for (unsigned n = ES; n < SEGMENT_COUNT; n++)
		if (n != CS && n != SS)
			x->out.field[selectors[n]] = vmx_read(VMCS_GUEST_ES + 2 * n);
	ending_capture(x, spec, end);
	guest = x->out;
	capture_fields(guest.field, spec->mode);
	for (unsigned n = 0; n < STATE_COUNT;
	     n++) { /* but for what the frame has, and selectors that it nulled */
		bool framed = n == STATE_rip || n == STATE_rflags || n == STATE_rsp ||
			      (n >= STATE_es && n <= STATE_gs) ||
			      (spec->mode == MODE_VM86 && (n == STATE_fs_base || n == STATE_gs_base));

		if (!framed)
			x->out.field[n] = guest.field[n];
	}
}

uint64_t vmx_guest_address(void) { return vmx_read(VMCS_GUEST_CS_BASE) + vmx_read(VMCS_GUEST_RIP); }

unsigned vmx_handler_vector(void)
{
	uint64_t offset = vmx_guest_address() - HANDLERS;

	return offset < 256 * VMCALL_SIZE ? (unsigned)offset / VMCALL_SIZE : VMX_NO_VECTOR;
}

/* ---- extended page tables ---- */

#define PML4  VMX_PAGE_EPT
#define PDPT  (VMX_PAGE_EPT + 1)
#define PD    (VMX_PAGE_EPT + 2)
#define PT    (VMX_PAGE_EPT + 6)
#define TABLE (EPT_READ | EPT_WRITE | EPT_EXECUTE)

static void put_entry(unsigned page, unsigned index, uint64_t value)
{
	((uint64_t *)vmx_at(page, 0))[index] = value;
}

void vmx_ept_build(void)
{
	put_entry(PML4, 0, vmx_page(PDPT) | TABLE);
	for (unsigned i = 0; i < 4; i++)
		put_entry(PDPT, i, vmx_page(PD + i) | TABLE);
	for (uint64_t i = 1; i < 2048; i++)
		put_entry(PD + (unsigned)(i >> 9), i & 511, i << 21 | VMX_EPT_ALL | EPT_LARGE);
	put_entry(PD, 0, vmx_page(PT) | TABLE);
	for (uint64_t i = 0; i < 512; i++)
		put_entry(PT, (unsigned)i, i << 12 | VMX_EPT_ALL);
}

uint64_t vmx_eptp(void) { return vmx_page(PML4) | 3ull << EPTP_LEVELS_SHIFT | 6; }

uint64_t *vmx_ept_entry(unsigned level, uint64_t address)
{
	switch (level) {
	case 4: return vmx_at(PML4, (unsigned)(address >> 39 & 511) * 8);
	case 3: return vmx_at(PDPT, (unsigned)(address >> 30 & 511) * 8);
	case 2: return vmx_at(PD, (unsigned)(address >> 21 & 2047) * 8);
	default: return vmx_at(PT, (unsigned)(address >> 12 & 511) * 8);
	}
}

void vmx_invept(void)
{
	uint64_t descriptor[2] = {0, 0};

	if (vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_INVEPT_ALL)
		vmx_do(VMX_DO_INVEPT, descriptor, INVEPT_ALL);
	else if (vmx_msr(VMX_MSR_EPT_VPID) & VMX_EPT_INVEPT_CONTEXT) {
		descriptor[0] = vmx_read(VMCS_EPTP);
		vmx_do(VMX_DO_INVEPT, descriptor, INVEPT_CONTEXT);
	}
}
