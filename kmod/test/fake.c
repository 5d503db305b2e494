/* fake.c: see fake.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kmod/test/fake.h"
#include "x86/msr.h"
#include "x86/svm.h"
#include "x86/vmx.h"

#define MSRS_MAX   256u
#define LEAVES_MAX 32u
#define VMCS_MAX   8u
#define FIELDS     0x8000u

struct fake fake;

static uint8_t *memory;
static uint8_t apic[CORE_PAGE];
static uint64_t pool;
static uint64_t cr[9];
static struct {
	uint32_t index;
	uint64_t value, writable;
} msr[MSRS_MAX];
static unsigned msrs;
static struct {
	uint32_t leaf, out[4];
} leaf[LEAVES_MAX];
static unsigned leaves;

/* ---- VMCSs ---- */

static struct vmcs {
	uint64_t address;
	bool launched;
	uint64_t field[FIELDS];
} vmcs[VMCS_MAX], *current;
static unsigned vmcss;
static bool lacks[FIELDS];
static uint64_t refuse;

static struct vmcs *vmcs_at(uint64_t address)
{
	for (unsigned i = 0; i < vmcss; i++)
		if (vmcs[i].address == address)
			return &vmcs[i];
	if (vmcss == VMCS_MAX)
		abort();
	vmcs[vmcss].address = address;
	return &vmcs[vmcss++];
}

uint64_t fake_get(uint32_t field) { return current->field[field]; }
void fake_put(uint32_t field, uint64_t value) { current->field[field] = value; }
uint64_t fake_vmcs(void) { return current ? current->address : 0; }
void fake_refuse(uint64_t error) { refuse = error; }
void fake_lacks(uint32_t field) { lacks[field] = true; }

/* ---- the start ---- */

static void reset_vmx(void)
{
	const uint64_t any = 0xffffffffull << 32;

	fake_msr(MSR_VMX_BASIC, 0x1234 | VMX_BASIC_TRUE_CONTROLS | VMX_BASIC_DUAL_MONITOR, 0);
	fake_msr(MSR_VMX_PIN_CTLS, any | VMX_PIN_DEFAULT1, 0);
	fake_msr(MSR_VMX_TRUE_PIN_CTLS, any | VMX_PIN_DEFAULT1, 0);
	fake_msr(MSR_VMX_PRIMARY_CTLS, any | VMX_PRIMARY_DEFAULT1, 0);
	fake_msr(MSR_VMX_TRUE_PRIMARY_CTLS, any | (VMX_PRIMARY_DEFAULT1 & ~(VMX_CR3_LOAD | VMX_CR3_STORE)),
		 0);
	fake_msr(MSR_VMX_SECONDARY_CTLS, any, 0);
	fake_msr(MSR_VMX_EXIT_CTLS, any | VMX_EXIT_DEFAULT1, 0);
	fake_msr(MSR_VMX_TRUE_EXIT_CTLS, any | VMX_EXIT_DEFAULT1, 0);
	fake_msr(MSR_VMX_ENTRY_CTLS, any | VMX_ENTRY_DEFAULT1, 0);
	fake_msr(MSR_VMX_TRUE_ENTRY_CTLS, any | VMX_ENTRY_DEFAULT1, 0);
	fake_msr(MSR_VMX_MISC, ~0ull, 0);
	fake_msr(MSR_VMX_CR0_FIXED0, CR0_PE | CR0_NE | CR0_PG, 0);
	fake_msr(MSR_VMX_CR0_FIXED1, 0xffffffff, 0);
	fake_msr(MSR_VMX_CR4_FIXED0, CR4_VMXE, 0);
	fake_msr(MSR_VMX_CR4_FIXED1, 0x7fffff, 0);
	fake_msr(MSR_VMX_VMCS_ENUM, 0x2e, 0);
	fake_msr(MSR_VMX_EPT_VPID_CAP, ~0ull, 0);
	fake_msr(MSR_FEATURE_CONTROL, 0, ~0ull);
}

void fake_reset(enum core_vendor vendor)
{
	if (!memory)
		memory = mmap(NULL, FAKE_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(memory, 0, FAKE_MEMORY);
	memset(apic, 0, sizeof(apic));
	memset(&fake, 0, sizeof(fake));
	memset(vmcs, 0, sizeof(vmcs));
	memset(lacks, 0, sizeof(lacks));
	memset(cr, 0, sizeof(cr));
	msrs = leaves = vmcss = 0;
	current = NULL;
	refuse = 0;
	pool = FAKE_HIDDEN;
	fake_msr(MSR_EFER, EFER_LMA | EFER_LME, EFER_SCE | EFER_NXE | EFER_SVME);
	fake_msr(MSR_APIC_BASE, FAKE_APIC | APIC_BASE_ENABLE, ~0ull);
	fake_msr(MSR_PAT, 0x0007040600070406, ~0ull);
	fake_msr(MSR_SYSENTER_CS, 0, ~0ull);
	fake_msr(MSR_SYSENTER_ESP, 0, ~0ull);
	fake_msr(MSR_SYSENTER_EIP, 0, ~0ull);
	fake_msr(MSR_TSC, 0x1000, ~0ull);
	fake_cpuid(0x80000000u, 0x80000008u, 0, 0, 0);
	fake_cpuid(0x80000008u, 48, 0, 0, 0);
	fake_cpuid(1, 0x600f12, 0, 1u << 26, 0);
	fake_cpuid(7, 0, 0, 0, 0);
	if (vendor == CORE_SVM) {
		fake_cpuid(0x80000000u, 0x8000000au, 0, 0, 0);
		fake_cpuid(0x80000001u, 0, 0, 1u << 2 | 1u << 12, 1u << 29 | 1u << 20 | 1u << 11);
		fake_cpuid(0x8000000au, 1, 64, 0, 0xffffffff);
		fake_msr(MSR_VM_CR, 0, ~0ull);
		fake_msr(MSR_VM_HSAVE_PA, 0, ~0ull);
		fake_msr(MSR_HWCR, 0, ~0ull);
	} else {
		fake_cpuid(0x80000001u, 0, 0, 0, 1u << 29 | 1u << 20 | 1u << 11);
		fake_cpuid(1, 0x906ea, 0, 1u << 5 | 1u << 26, 0);
		reset_vmx();
	}
}

/* ---- memory ---- */

void *fake_memory(uint64_t physical)
{
	if (physical >= FAKE_MEMORY)
		abort();
	return memory + physical;
}

uint64_t *fake_quad(uint64_t physical) { return fake_memory(physical); }

void *hw_pages(unsigned count)
{
	uint8_t *pages = memory + pool;

	if (pool + (uint64_t)count * CORE_PAGE > FAKE_MEMORY)
		return NULL;
	pool += (uint64_t)count * CORE_PAGE;
	memset(pages, 0, (size_t)count * CORE_PAGE);
	return pages;
}

uint64_t hw_physical(const void *page) { return (uint64_t)((const uint8_t *)page - memory); }

void *hw_map(uint64_t physical)
{
	if (physical >= FAKE_APIC && physical < FAKE_APIC + CORE_PAGE)
		return apic + (physical - FAKE_APIC);
	return fake_memory(physical);
}

void hw_copy_page(void *to, const void *from) { memcpy(to, from, CORE_PAGE); }
void hw_clear_page(void *page) { memset(page, 0, CORE_PAGE); }

/* ---- registers ---- */

void fake_msr(uint32_t index, uint64_t value, uint64_t writable)
{
	unsigned i = 0;

	while (i < msrs && msr[i].index != index)
		i++;
	if (i == MSRS_MAX)
		abort();
	msrs += i == msrs;
	msr[i].index = index;
	msr[i].value = value;
	msr[i].writable = writable;
}

uint64_t fake_msr_value(uint32_t index) { return hw_read_msr(index); }

void fake_cpuid(uint32_t number, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	unsigned i = 0;

	while (i < leaves && leaf[i].leaf != number)
		i++;
	if (i == LEAVES_MAX)
		abort();
	leaves += i == leaves;
	leaf[i].leaf = number;
	leaf[i].out[0] = eax;
	leaf[i].out[1] = ebx;
	leaf[i].out[2] = ecx;
	leaf[i].out[3] = edx;
}

void hw_cpuid(uint32_t number, uint32_t subleaf, uint32_t out[4])
{
	(void)subleaf;
	memset(out, 0, 16);
	for (unsigned i = 0; i < leaves; i++)
		if (leaf[i].leaf == number)
			memcpy(out, leaf[i].out, 16);
}

bool hw_try_read_msr(uint32_t index, uint64_t *value)
{
	for (unsigned i = 0; i < msrs; i++)
		if (msr[i].index == index) {
			*value = msr[i].value;
			return true;
		}
	return false;
}

bool hw_try_write_msr(uint32_t index, uint64_t value)
{
	for (unsigned i = 0; i < msrs; i++)
		if (msr[i].index == index && !((value ^ msr[i].value) & ~msr[i].writable)) {
			msr[i].value = value;
			return true;
		}
	return false;
}

uint64_t hw_read_msr(uint32_t index)
{
	uint64_t value;

	if (!hw_try_read_msr(index, &value))
		hw_stop("RDMSR of its own", index);
	return value;
}

void hw_write_msr(uint32_t index, uint64_t value)
{
	if (!hw_try_write_msr(index, value))
		hw_stop("WRMSR of its own", index);
}

uint64_t hw_read_cr(unsigned number) { return number == 8 ? fake.cr8 : number == 2 ? fake.cr2 : cr[number]; }

void hw_write_cr(unsigned number, uint64_t value)
{
	if (number == 8)
		fake.cr8 = value;
	else if (number == 2)
		fake.cr2 = value;
	else
		cr[number] = value;
}

uint64_t hw_dr6(void) { return 0xffff0ff0; }
void hw_set_dr6(uint64_t value) { (void)value; }
bool hw_try_xsetbv(uint32_t index, uint64_t value) { return index == 0 && value & 1; }
void hw_wbinvd(void) { fake.wbinvd++; }
uint32_t hw_pkru(void) { return fake.pkru; }

/* ---- the world ---- */

void hw_pause(void) {}

void hw_print(const char *line)
{
	strncat(fake.log, line, FAKE_LOG - strlen(fake.log) - 2);
	strcat(fake.log, "\n");
}

static _Noreturn void leave(void)
{
	if (!fake.catching) {
		fprintf(stderr, "the core has stopped: %s\n", fake.stopped ? fake.stopped : "shutdown");
		abort();
	}
	longjmp(fake.out, 1);
}

void hw_shutdown(void)
{
	fake.shut_down = true;
	leave();
}

void hw_stop(const char *why, uint64_t value)
{
	(void)value;
	fake.stopped = why;
	leave();
}

/* ---- AMD-V ---- */

static void run(uint8_t *block, uint64_t gpr[GPR_COUNT])
{
	if (!fake.guest)
		hw_stop("an entry that the test does not know of", 0);
	fake.entries++;
	fake.guest(block, gpr);
}

void hw_svm_run(uint64_t address, uint64_t gpr[GPR_COUNT], bool interrupts)
{
	uint8_t *block = fake_memory(address);

	fake.last_interrupts = interrupts;
	memset(block + VMCB_EXITINTINFO, 0, 8);
	run(block, gpr);
	/* What was injected is gone with the entry (APM 2 15.20). */
	*(uint64_t *)(void *)(block + VMCB_EVENTINJ) &= ~SVM_EVENT_VALID;
}

void hw_svm_load(uint64_t address) { fake.loads += address != 0; }
void hw_svm_save(uint64_t address) { fake.saves += address != 0; }
void hw_svm_clgi(void) {}

bool hw_svm_take_nmi(void)
{
	bool nmi = fake.nmi;

	fake.nmi = false;
	return nmi;
}

/* ---- VT-x ---- */

enum hw_vmx hw_vmx_on(uint64_t region) { return region ? HW_VMX_DONE : HW_VMX_FAIL_INVALID; }

enum hw_vmx hw_vmx_clear(uint64_t address)
{
	vmcs_at(address)->launched = false;
	return HW_VMX_DONE;
}

enum hw_vmx hw_vmx_load(uint64_t address)
{
	current = vmcs_at(address);
	return HW_VMX_DONE;
}

enum hw_vmx hw_vmx_read(uint64_t field, uint64_t *value)
{
	if (field >= FIELDS || lacks[field])
		return HW_VMX_FAIL_VALID;
	*value = current->field[field];
	return HW_VMX_DONE;
}

enum hw_vmx hw_vmx_write(uint64_t field, uint64_t value)
{
	if (field >= FIELDS || lacks[field])
		return HW_VMX_FAIL_VALID;
	current->field[field] = value;
	return HW_VMX_DONE;
}

enum hw_vmx hw_vmx_invept(uint64_t type, uint64_t eptp)
{
	(void)type, (void)eptp;
	fake.invept++;
	return HW_VMX_DONE;
}

enum hw_vmx hw_vmx_invvpid(uint64_t type, uint16_t vpid, uint64_t linear)
{
	(void)type, (void)vpid, (void)linear;
	fake.invvpid++;
	return HW_VMX_DONE;
}

enum hw_vmx hw_vmx_run(uint64_t gpr[GPR_COUNT], bool launched)
{
	uint64_t error = refuse;

	refuse = 0;
	if (!error && launched != current->launched)
		error = launched ? VMX_ERROR_VMRESUME_NOT_LAUNCHED : VMX_ERROR_VMLAUNCH_NOT_CLEAR;
	if (error) {
		current->field[VMCS_INSTRUCTION_ERROR] = error;
		return HW_VMX_FAIL_VALID;
	}
	current->field[VMCS_IDT_VECTORING_INFO] = 0;
	current->field[VMCS_EXIT_INTERRUPTION_INFO] = 0;
	run(NULL, gpr);
	current->field[VMCS_ENTRY_INTERRUPTION_INFO] &= ~(uint64_t)VMX_EVENT_VALID;
	if (!(current->field[VMCS_EXIT_REASON] & VMX_EXIT_ENTRY_FAILURE))
		current->launched = true;
	return HW_VMX_DONE;
}

bool hw_vmx_take_nmi(void) { return hw_svm_take_nmi(); }

void hw_vmx_host(struct hw_vmx_host *host)
{
	*host = (struct hw_vmx_host){.es = 0x10, .cs = 8, .ss = 0x10, .ds = 0x10, .tr = 0x18};
}
