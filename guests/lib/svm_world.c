#include "lib/svm_world.h"

#include "lib/baseline.h"
#include "lib/ending.h"
#include "lib/exchange.h"
#include "lib/load.h"
#include "lib/machine.h"
#include "lib/quiet.h"
#include "lib/story.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/msr.h"

#define PAT_RESET 0x0007040600070406ull
#define PAGE      __attribute__((aligned(4096)))

uint8_t svm_vmcb[0x1000] PAGE, svm_vmcb2[0x1000] PAGE;
uint8_t svm_iopm[SVM_IOPM_SIZE] PAGE, svm_msrpm[SVM_MSRPM_SIZE] PAGE;
uint8_t svm_hsave[0x1000] PAGE;
struct svm_registers svm_registers;
uint8_t svm_host_if;

static uint8_t host_area[0x1000] PAGE;

/* ---- on and off ---- */

bool svm_has(unsigned bit)
{
	uint32_t r[4];

	machine_cpuid(0x8000000a, 0, r);
	return r[3] >> bit & 1;
}

bool svm_needs(unsigned bit, const char *probe) { return story_needs(svm_has(bit), probe); }

bool svm_begin(void)
{
	uint64_t vm_cr = 0;
	uint32_t r[4];

	machine_cpuid(0x80000001, 0, r);
	if (!story_needs(r[2] >> 2 & 1, "cpuid.80000001.0.ecx[2]=0"))
		return false;
	/* A machine without VM_CR (Bochs) has nothing that could be disabled. */
	if (story_try_rdmsr(MSR_VM_CR, &vm_cr) == STORY_NO_FAULT &&
	    !story_needs(!(vm_cr & VM_CR_SVMDIS), "msr.c0010114[4]=1"))
		return false;
	machine_write_msr(MSR_EFER, exchange.monitor_efer | EFER_SVME);
	machine_write_msr(MSR_VM_HSAVE_PA, (uintptr_t)svm_hsave);
	svm_host_if = 0;
	machine_fill(svm_vmcb, 0, sizeof(svm_vmcb));
	machine_fill(svm_iopm, 0, sizeof(svm_iopm));
	machine_fill(svm_msrpm, 0, sizeof(svm_msrpm));
	return true;
}

void svm_end(void)
{
	svm_try(SVM_DO_STGI, 0, 0); /* a story may have disabled it */
	machine_write_msr(MSR_VM_HSAVE_PA, 0);
	machine_write_msr(MSR_EFER, exchange.monitor_efer);
}

/* ---- fields ---- */

static uint8_t *control_at(unsigned offset)
{
	if (offset >= CASE_CONTROL_MSRPM)
		return svm_msrpm + (offset - CASE_CONTROL_MSRPM);
	if (offset >= CASE_CONTROL_IOPM)
		return svm_iopm + (offset - CASE_CONTROL_IOPM);
	return svm_vmcb + offset;
}

uint64_t svm_read(unsigned offset, unsigned size)
{
	uint64_t value = 0;

	machine_copy(&value, control_at(offset), size);
	return value;
}

void svm_write(unsigned offset, unsigned size, uint64_t value)
{
	machine_copy(control_at(offset), &value, size);
}

void svm_intercept(unsigned code, bool on)
{
	unsigned offset = VMCB_INTERCEPTS(code / 32);
	uint64_t bit = 1ull << code % 32, old = svm_read(offset, 4);

	svm_write(offset, 4, on ? old | bit : old & ~bit);
}

/* ---- a guest's state ---- */

static void put_segment(unsigned offset, uint16_t selector, unsigned attributes, uint32_t limit,
			uint64_t base)
{
	svm_write(offset, 2, selector);
	svm_write(offset + 2, 2, attributes);
	svm_write(offset + 4, 4, limit);
	svm_write(offset + 8, 8, base);
}

/* As the GDT or LDT of case_layout.h has it, @set in its attributes besides. */
static void load_descriptor(unsigned offset, uint16_t selector, unsigned set)
{
	uintptr_t table = selector & SELECTOR_TI ? CASE_LDT : CASE_GDT;
	uint64_t d = *(const uint64_t *)(table + (selector & SELECTOR_INDEX));
	unsigned attributes = (unsigned)(d >> 40 & 0xff) | (unsigned)(d >> 52 & 15) << 8;
	uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 48 & 15) << 16;

	if (!(selector & ~SELECTOR_RPL)) {
		put_segment(offset, selector, 0, 0, 0);
		return;
	}
	if (attributes & 0x800)
		limit = limit << 12 | 0xfff;
	put_segment(offset, selector, attributes | set, limit,
		    (d >> 16 & 0xffffff) | (uint32_t)(d >> 56) << 24);
}

static void load_segment(unsigned offset, unsigned mode, uint64_t selector)
{
	unsigned real = offset == VMCB_CS ? 0x9b : 0x93;

	if (mode == MODE_REAL || mode == MODE_VM86)
		put_segment(offset, (uint16_t)selector, mode == MODE_REAL ? real : 0xf3, 0xffff,
			    (selector & 0xffff) << 4);
	else
		load_descriptor(offset, (uint16_t)selector, 0);
}

static void load_segments(const uint64_t *in, unsigned mode)
{
	static const struct {
		unsigned offset, field;
	} segments[] = {{VMCB_ES, STATE_es}, {VMCB_CS, STATE_cs}, {VMCB_SS, STATE_ss},
			{VMCB_DS, STATE_ds}, {VMCB_FS, STATE_fs}, {VMCB_GS, STATE_gs}};

	for (unsigned i = 0; i < sizeof(segments) / sizeof(segments[0]); i++)
		load_segment(segments[i].offset, mode, in[segments[i].field]);
	if (mode == MODE_LONG) {
		svm_set(VMCB_FS + 8, in[STATE_fs_base]);
		svm_set(VMCB_GS + 8, in[STATE_gs_base]);
	}
	load_descriptor(VMCB_LDTR, (uint16_t)in[STATE_ldtr], 0);
	load_descriptor(VMCB_TR, (uint16_t)in[STATE_tr], 2); /* busy */
	put_segment(VMCB_GDTR, 0, 0, (uint32_t)in[STATE_gdtr_limit], in[STATE_gdtr_base]);
	put_segment(VMCB_IDTR, 0, 0, (uint32_t)in[STATE_idtr_limit], in[STATE_idtr_base]);
}

static const struct field {
	unsigned offset, field;
} fields[] = {
	{VMCB_CR0, STATE_cr0},
	{VMCB_CR3, STATE_cr3},
	{VMCB_CR4, STATE_cr4},
	{VMCB_CR2, STATE_cr2},
	{VMCB_DR6, STATE_dr6},
	{VMCB_DR7, STATE_dr7},
	{VMCB_RFLAGS, STATE_rflags},
	{VMCB_RIP, STATE_rip},
	{VMCB_RSP, STATE_rsp},
	{VMCB_RAX, STATE_rax},
	{VMCB_STAR, STATE_star},
	{VMCB_LSTAR, STATE_lstar},
	{VMCB_CSTAR, STATE_cstar},
	{VMCB_SFMASK, STATE_fmask},
	{VMCB_KERNEL_GS, STATE_kernel_gs_base},
	{VMCB_SYSENTER_CS, STATE_sysenter_cs},
	{VMCB_SYSENTER_ESP, STATE_sysenter_esp},
	{VMCB_SYSENTER_EIP, STATE_sysenter_eip},
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* struct svm_registers has them in this order. */
static const uint8_t registers[] = {STATE_rcx, STATE_rdx, STATE_rbx, STATE_rbp, STATE_rsi,
				    STATE_rdi, STATE_r8,  STATE_r9,  STATE_r10, STATE_r11,
				    STATE_r12, STATE_r13, STATE_r14, STATE_r15};

#define DEFAULT_EXCEPTIONS (~(1u << 2 | 1u << 9)) /* those bits' effect is undefined (15.12.3, 15.12.10) */
#define DEFAULT_EVENTS     (0xfu | 1u << 31)      /* INTR, NMI, SMI, INIT; shutdown */

void svm_load(unsigned mode, unsigned cpl)
{
	uint64_t *in = exchange.in.field;

	if (mode != MODE_LONG)
		for (unsigned n = STATE_rax; n <= STATE_rdi; n++)
			in[n] &= 0xffffffffu;
	load_segments(in, mode);
	in[STATE_fs_base] = svm_get(VMCB_FS + 8);
	in[STATE_gs_base] = svm_get(VMCB_GS + 8);
	for (unsigned i = 0; i < FIELDS; i++)
		svm_set(fields[i].offset, in[fields[i].field]);
	for (unsigned i = 0; i < sizeof(registers); i++)
		(&svm_registers.rcx)[i] = in[registers[i]];
	svm_set(VMCB_EFER, in[STATE_efer] | EFER_SVME);
	svm_write(VMCB_CPL, 1, cpl);
	svm_set(VMCB_G_PAT, PAT_RESET);
	svm_set(VMCB_INTERRUPT, in[STATE_cr8] & SVM_V_TPR);
	svm_write(VMCB_INTERCEPTS(2), 4, DEFAULT_EXCEPTIONS);
	svm_write(VMCB_INTERCEPTS(3), 4, DEFAULT_EVENTS);
	svm_intercept(SVM_EXIT_VMRUN, true);
	svm_intercept(SVM_EXIT_VMMCALL, true);
	svm_write(VMCB_ASID, 4, 1);
	svm_set(VMCB_IOPM_BASE, (uintptr_t)svm_iopm);
	svm_set(VMCB_MSRPM_BASE, (uintptr_t)svm_msrpm);
	exchange.out = exchange.in;
}

/* ---- memory ---- */

#define HANDLERS     (CASE_LAND_SUPERVISOR + 0x800u)
#define HANDLER_SIZE 4u
#define VMMCALL      0x90d9010fu /* and NOP */

uint64_t svm_handler(unsigned vector) { return HANDLERS + HANDLER_SIZE * vector; }

static void set_offset(uint32_t gate, uint64_t offset)
{
	uint16_t *words = (uint16_t *)(uintptr_t)gate;

	words[0] = (uint16_t)offset;
	words[3] = (uint16_t)(offset >> 16);
}

static void set_handlers(unsigned mode)
{
	for (unsigned n = 0; n < 256; n++) {
		*(uint32_t *)svm_handler(n) = VMMCALL;
		if (mode == MODE_REAL)
			((volatile uint32_t *)CASE_IVT)[n] =
				CASE_WINDOW / 16 << 16 | (uint32_t)(svm_handler(n) - CASE_WINDOW);
		else if (baseline_is_64(mode))
			set_offset(CASE_IDT64 + 16 * n, svm_handler(n));
		else
			set_offset(CASE_IDT32 + 8 * n, svm_handler(n));
	}
	world_accept(HANDLERS, 256 * HANDLER_SIZE);
	if (mode == MODE_REAL)
		world_accept(CASE_IVT, CASE_IVT_SIZE);
	else if (baseline_is_64(mode))
		world_accept(CASE_IDT64, PAGE_SIZE);
	else
		world_accept(CASE_IDT32, PAGE_SIZE);
}

void svm_prepare(unsigned mode, unsigned cpl)
{
	baseline_fill(&exchange.in, mode, cpl);
	world_prepare(mode, cpl);
	set_handlers(mode);
}

void svm_baseline(unsigned mode, unsigned cpl)
{
	svm_prepare(mode, cpl);
	svm_load(mode, cpl);
}

void svm_code(const uint8_t *bytes, unsigned length)
{
	static const uint8_t end[2] = {CASE_END & 0xff, CASE_END >> 8};

	world_poke(CASE_STUB, bytes, length);
	world_poke(CASE_STUB + length, end, 2);
}

/* ---- in and out ---- */

static void (*prelude)(void);

void svm_prelude(void (*function)(void)) { prelude = function; }

uint64_t svm_run_keep(void)
{
	struct exchange *x = &exchange;

	quiet_load(x);
	__asm__ volatile("clgi" : : : "memory");
	if (prelude)
		prelude();
	prelude = NULL;
	svm_switch((uintptr_t)svm_vmcb, (uintptr_t)host_area, &svm_registers);
	return svm_get(VMCB_EXITCODE);
}

uint64_t svm_run(void)
{
	uint64_t code = svm_run_keep();

	__asm__ volatile("stgi" : : : "memory");
	return code;
}

void svm_switch_legacy(uint32_t vmcb, uint32_t host, struct svm_registers *registers, const uint32_t cr[3]);

uint64_t svm_run_legacy(const uint32_t cr[3])
{
	quiet_load(&exchange);
	svm_switch_legacy((uint32_t)(uintptr_t)svm_vmcb, (uint32_t)(uintptr_t)host_area, &svm_registers, cr);
	__asm__ volatile("stgi" : : : "memory");
	return svm_get(VMCB_EXITCODE);
}

/* What the assembler of enter.S would have stored, and what it cannot: all of it is in the VMCB. */
static void capture_fields(uint64_t *out)
{
	static const struct field selectors[] = {
		{VMCB_ES, STATE_es}, {VMCB_CS, STATE_cs}, {VMCB_SS, STATE_ss},     {VMCB_DS, STATE_ds},
		{VMCB_FS, STATE_fs}, {VMCB_GS, STATE_gs}, {VMCB_LDTR, STATE_ldtr}, {VMCB_TR, STATE_tr}};

	for (unsigned i = 0; i < FIELDS; i++)
		out[fields[i].field] = svm_get(fields[i].offset);
	for (unsigned i = 0; i < sizeof(registers); i++)
		out[registers[i]] = (&svm_registers.rcx)[i];
	for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
		out[selectors[i].field] = svm_read(selectors[i].offset, 2);
	out[STATE_fs_base] = svm_get(VMCB_FS + 8);
	out[STATE_gs_base] = svm_get(VMCB_GS + 8);
	out[STATE_gdtr_base] = svm_get(VMCB_GDTR + 8);
	out[STATE_gdtr_limit] = svm_read(VMCB_GDTR + 4, 4);
	out[STATE_idtr_base] = svm_get(VMCB_IDTR + 8);
	out[STATE_idtr_limit] = svm_read(VMCB_IDTR + 4, 4);
	out[STATE_efer] = svm_get(VMCB_EFER) ^ EFER_SVME; /* which VMRUN asks for, and a case does not name */
}

/* The processor's own registers into @out, for quiet_capture() to remember. */
static void capture_host(struct exchange *x)
{
	x->detect = 0;
	x->out = x->in;
	x->out.field[STATE_cr2] = machine_read_cr2();
	x->out.field[STATE_cr8] = machine_read_cr8();
	x->out.field[STATE_dr6] = machine_read_dr6();
}

void svm_capture(void)
{
	capture_host(&exchange);
	quiet_capture(&exchange);
	capture_fields(exchange.out.field);
}

void svm_capture_delivery(const struct case_spec *spec, struct ending *end)
{
	struct exchange *x = &exchange;
	struct machine_state guest;

	capture_host(x);
	x->vector = svm_handler_vector();
	x->frame_offset = svm_get(VMCB_RSP);
	x->frame_ss = svm_read(VMCB_SS, 2);
	load_table(&x->out_gdtr, svm_get(VMCB_GDTR + 8), svm_read(VMCB_GDTR + 4, 4));
	load_table(&x->out_idtr, svm_get(VMCB_IDTR + 8), svm_read(VMCB_IDTR + 4, 4));
	for (unsigned i = 0; i < sizeof(registers); i++)
		x->out.field[registers[i]] = (&svm_registers.rcx)[i];
	x->out.field[STATE_es] = svm_read(VMCB_ES, 2);
	x->out.field[STATE_ds] = svm_read(VMCB_DS, 2);
	x->out.field[STATE_fs] = svm_read(VMCB_FS, 2);
	x->out.field[STATE_gs] = svm_read(VMCB_GS, 2);
	ending_capture(x, spec, end);
	guest = x->out;
	capture_fields(guest.field);
	for (unsigned n = 0; n < STATE_COUNT;
	     n++) { /* but for what the frame has, and selectors that it nulled */
		bool framed = n == STATE_rip || n == STATE_rflags || n == STATE_rsp ||
			      (n >= STATE_es && n <= STATE_gs) ||
			      (spec->mode == MODE_VM86 && (n == STATE_fs_base || n == STATE_gs_base));

		if (!framed)
			x->out.field[n] = guest.field[n];
	}
}

uint64_t svm_guest_address(void) { return svm_get(VMCB_CS + 8) + svm_get(VMCB_RIP); }

unsigned svm_handler_vector(void)
{
	uint64_t address = svm_guest_address();

	return address >= HANDLERS && address < HANDLERS + 256 * HANDLER_SIZE
		       ? (unsigned)(address - HANDLERS) / HANDLER_SIZE
		       : SVM_VECTOR_NONE;
}

bool svm_at_end(void)
{
	uint64_t address = svm_guest_address();

	if (address >= CASE_PATH_LINEAR)
		return true; /* nothing is mapped there but frames full of CASE_END */
	return address >= CASE_WINDOW && address < CASE_PATH_END && *(const uint16_t *)address == CASE_END;
}

/* ---- nested tables ---- */

void svm_nested_build(void)
{
	uint64_t *pml4 = (uint64_t *)CASE_NESTED_PML4, *pdpt = (uint64_t *)CASE_NESTED_PDPT;
	uint64_t *pd = (uint64_t *)CASE_NESTED_PD, *pt = (uint64_t *)CASE_NESTED_PT;

	machine_fill(pml4, 0, CASE_NESTED_END - CASE_NESTED_PML4);
	pml4[0] = CASE_NESTED_PDPT | CASE_NESTED_BITS;
	for (uint64_t i = 0; i < 4; i++)
		pdpt[i] = (CASE_NESTED_PD + i * PAGE_SIZE) | CASE_NESTED_BITS;
	for (uint64_t i = 0; i < 2048; i++)
		pd[i] = i << 21 | CASE_NESTED_BITS | PTE_PS;
	pd[0] = CASE_NESTED_PT | CASE_NESTED_BITS;
	for (uint64_t i = 0; i < 512; i++)
		pt[i] = i << 12 | CASE_NESTED_BITS;
}

void svm_nested_use(void)
{
	svm_set(VMCB_NESTED, SVM_NP_ENABLE);
	svm_set(VMCB_NCR3, CASE_NESTED_PML4);
}

/* ---- what may fault ---- */

unsigned svm_try_one(uint64_t rax, uint32_t ecx, const void *stub);
extern const uint8_t svm_try_stubs[];

unsigned svm_try(enum svm_instruction which, uint64_t rax, uint32_t ecx)
{
	const uint8_t *stub = svm_try_stubs + 16 * which;

	story_let_fault(stub);
	return svm_try_one(rax, ecx, stub) ? story_fault_vector() : STORY_NO_FAULT;
}
