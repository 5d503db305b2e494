/*
 * vmx_world.h: the least that a guest needs to be a hypervisor by VT-x: into VMX operation and out of it, a
 * VMCS with a valid baseline, a guest of it in any mode and at any privilege level, the switch, and extended
 * page tables.
 *
 * The guest is the machine that case_layout.h describes, with the registers of case_baseline.def: exchange.in
 * says what it starts with, exchange.out how an exit left it. Behind the bytes under test, and in the
 * handlers of all its vectors, stands VMCALL, which exits in every mode and at every level. Its physical
 * addresses are the machine's; with extended page tables they map as they are.
 *
 * The exits' handler is the story itself: vmx_run() comes back when the guest has exited. SDM 3C chapters 24
 * to 31.
 */
#ifndef TRAPLINE_GUESTS_LIB_VMX_WORLD_H
#define TRAPLINE_GUESTS_LIB_VMX_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/case.h"
#include "x86/registers.h"
#include "x86/vmx.h"

#define MSR_VMX(n) (0x480u + (n)) /* appendix A: BASIC, pin, primary, exit, entry, MISC, … */
enum vmx_msr {
	VMX_MSR_BASIC,
	VMX_MSR_PIN,
	VMX_MSR_PRIMARY,
	VMX_MSR_EXIT,
	VMX_MSR_ENTRY,
	VMX_MSR_MISC,
	VMX_MSR_CR0_FIXED0,
	VMX_MSR_CR0_FIXED1,
	VMX_MSR_CR4_FIXED0,
	VMX_MSR_CR4_FIXED1,
	VMX_MSR_VMCS_ENUM,
	VMX_MSR_SECONDARY,
	VMX_MSR_EPT_VPID,
	VMX_MSR_TRUE_PIN,
	VMX_MSR_TRUE_PRIMARY,
	VMX_MSR_TRUE_EXIT,
	VMX_MSR_TRUE_ENTRY,
	VMX_MSR_VMFUNC
};

/* Pages of 4 KiB, zero when a story begins. */
enum vmx_page {
	VMX_PAGE_VMXON,
	VMX_PAGE_VMCS,
	VMX_PAGE_VMCS2,
	VMX_PAGE_SHADOW,
	VMX_PAGE_IO_A,
	VMX_PAGE_IO_B,
	VMX_PAGE_MSR_BITMAP,
	VMX_PAGE_VIRTUAL_APIC,
	VMX_PAGE_APIC_ACCESS,
	VMX_PAGE_PML,
	VMX_PAGE_VE,
	VMX_PAGE_EPTP_LIST,
	VMX_PAGE_VMREAD,
	VMX_PAGE_VMWRITE,
	VMX_PAGE_POSTED,
	VMX_PAGE_EXIT_STORE,
	VMX_PAGE_EXIT_LOAD,
	VMX_PAGE_ENTRY_LOAD,
	VMX_PAGE_SPARE,
	VMX_PAGE_SPARE2,
	VMX_PAGE_EPT, /* seven: PML4, PDPT, four PDs, PT */
	VMX_PAGE_EPT_END = VMX_PAGE_EPT + 7,
	VMX_PAGES
};
extern uint8_t vmx_pages[VMX_PAGES][4096];
static inline uint64_t vmx_page(enum vmx_page page) { return (uintptr_t)vmx_pages[page]; }
static inline void *vmx_at(enum vmx_page page, unsigned offset) { return vmx_pages[page] + offset; }

/* ---- results of VMX instructions ---- */

#define VMX_FAIL_INVALID 0x1000u         /* CF */
#define VMX_FAIL(n)      (0x2000u | (n)) /* ZF, and VMCS_INSTRUCTION_ERROR */
#define VMX_FAULT(v)     (0x4000u | (v)) /* an exception */
#define VMX_ODD_FLAGS    0x8000u         /* flags are none of VMsucceed's, VMfailInvalid's, VMfailValid's */
/* 0 is VMsucceed. */

enum vmx_operation {
	VMX_DO_VMXON,
	VMX_DO_VMCLEAR,
	VMX_DO_VMPTRLD,
	VMX_DO_VMPTRST, /* @memory: the operand's address */
	VMX_DO_INVEPT,
	VMX_DO_INVVPID, /* and @reg: the type */
	VMX_DO_VMREAD,
	VMX_DO_VMWRITE, /* to and from memory; @reg: the field */
	VMX_DO_VMXOFF,
	VMX_DO_VMCALL,
	VMX_DO_VMLAUNCH,
	VMX_DO_VMRESUME,
	VMX_DO_VMFUNC, /* @reg: EAX */
	VMX_DO_MOV_SS_VMLAUNCH,
	VMX_DO_MOV_SS_VMRESUME, /* behind MOV SS */
	VMX_DO_MOV_CR0,
	VMX_DO_MOV_CR4 /* for vmx_try_cr0, vmx_try_cr4 */
};
/* In VMX root operation, 64-bit mode, CPL 0. VMLAUNCH and VMRESUME must fail, else use vmx_run(). */
unsigned vmx_do(enum vmx_operation operation, void *memory, uint64_t reg);
/* MOV to CR0 and CR4: the exception's vector, or STORY_NO_FAULT. */
unsigned vmx_try_cr0(uint64_t value);
unsigned vmx_try_cr4(uint64_t value);
uint64_t vmx_fault_error(void); /* error code of the last VMX_FAULT */
/* The same with a physical address as operand: VMXON, VMCLEAR, VMPTRLD. */
unsigned vmx_do_address(enum vmx_operation operation, uint64_t physical);
uint64_t vmx_current(void); /* VMPTRST */

/* Fields of the current VMCS; vmx_read and vmx_write must succeed, the others may fail. */
uint64_t vmx_read(uint32_t field);
void vmx_write(uint32_t field, uint64_t value);
unsigned vmx_try_read(uint64_t field, uint64_t *value);
unsigned vmx_try_write(uint64_t field, uint64_t value);

/* ---- on and off ---- */

/* Lets this processor into VMX operation, in its own IA32_FEATURE_CONTROL; false where that is locked
 * otherwise (SDM 3C 24.7). */
bool vmx_allow(void);
/* VMXON alone can be next: CR4.VMXE, IA32_FEATURE_CONTROL, revisions in the regions. False: NOTSUP was said.
 */
bool vmx_prepare(void);
/* And VMXON, VMCLEAR and VMPTRLD of VMX_PAGE_VMCS. */
bool vmx_begin(void);
/* Out of VMX operation, wherever the story is. The library calls it behind each story. */
void vmx_end(void);

/* IA32_VMX_*; 0 where the processor has none. */
uint64_t vmx_msr(enum vmx_msr which);
/* The MSR with the settings of a field of controls: the true one where there is one. 0: none exists. */
uint32_t vmx_control_msr(uint32_t field);
uint32_t vmx_must_be_1(uint32_t field);
uint32_t vmx_may_be_1(uint32_t field);
/* Whether all of @bits may be 1; NOTSUP where not. */
bool vmx_can(uint32_t field, uint32_t bits);
bool vmx_needs(uint32_t field, uint32_t bits);
/* Whether @bit may be 0; NOTSUP where not. */
bool vmx_needs_clear(uint32_t field, uint32_t bit);
/* As many CR3-target values (IA32_VMX_MISC[24:16]), at most 256: NOTSUP where there are fewer. */
bool vmx_needs_cr3_targets(uint64_t count);
/* Bit @bit of IA32_VMX_EPT_VPID_CAP, IA32_VMX_MISC, …: NOTSUP where it is 0. */
bool vmx_needs_bit(enum vmx_msr which, unsigned bit);
bool vmx_has_cpuid(uint32_t leaf, unsigned reg, unsigned bit);
/* Sets, clears bits of controls; secondary ones are activated. */
void vmx_set(uint32_t field, uint32_t bits);
void vmx_clear(uint32_t field, uint32_t bits);

/*
 * The controls that @spec's row gives: SETTING_CONTROL writes a field; SETTING_CONTROL_OR and _CLEAR change
 * bits of one of controls, where a size of 0 leaves out those that the processor lacks. False: NOTSUP was
 * said.
 */
#define VMX_WORLD_RAW 0xffffffffu /* no field, but a word to guests/vmx/insn.c */
bool vmx_apply_controls(const struct case_spec *spec);

/* ---- the guest ---- */

#define VMX_BARE         0u
#define VMX_EPT          1u /* with extended page tables */
#define VMX_UNRESTRICTED 2u

extern uint64_t vmx_registers[GPR_COUNT]; /* RSP's place is not used */

/*
 * From nothing to a VMCS that can be launched: vmx_begin(), the window for @mode and @cpl, host state,
 * controls
 * (@with; real-address mode has all of them), guest state. False: NOTSUP was said.
 */
bool vmx_baseline(unsigned mode, unsigned cpl, unsigned with);
/* Its parts, for what comes between them. */
bool vmx_needs_mode(unsigned mode, unsigned with);
void vmx_world_prepare(unsigned mode, unsigned cpl); /* memory, exchange.in */
void vmx_load_host(void);
void vmx_load_controls(unsigned mode, unsigned with);
void vmx_load_guest(unsigned mode); /* from exchange.in */
/* @length bytes where the guest begins (CASE_STUB), VMCALLs behind them. */
void vmx_code(const uint8_t *bytes, unsigned length);
#define VMX_CODE(...) vmx_code((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/*
 * VMLAUNCH, or VMRESUME behind the first, of the current VMCS. 0: an exit came, or the entry failed later
 * than VMfail (VMCS_EXIT_REASON has VMX_EXIT_ENTRY_FAILURE); else VMX_FAIL….
 */
unsigned vmx_run(void);
/* The next vmx_run() is VMLAUNCH: the VMCS is clear. */
void vmx_set_clear(void);
/* RFLAGS as the last exit left them. */
uint64_t vmx_host_flags(void);
void vmx_capture(unsigned mode); /* to exchange.out */

uint32_t vmx_reason(void);
/* The same where it is in a handler (vmx_handler_vector): as its frame has it. */
struct ending;
void vmx_capture_delivery(const struct case_spec *spec, struct ending *end);

/* Linear address of CS:RIP; of the handler that vector @n leads to; the vector whose handler the guest is in.
 */
uint64_t vmx_guest_address(void);
uint64_t vmx_handler(unsigned n);
#define VMX_NO_VECTOR 256u
unsigned vmx_handler_vector(void);

/* ---- extended page tables: all of the first 4 GiB as they are, the first 2 MiB by 4 KiB pages ---- */

#define VMX_EPT_ALL (EPT_READ | EPT_WRITE | EPT_EXECUTE | 6ull << EPT_TYPE_SHIFT)
void vmx_ept_build(void);
uint64_t vmx_eptp(void);
uint64_t *vmx_ept_entry(unsigned level, uint64_t address); /* level 1: of a 4 KiB page, to 4 */
void vmx_invept(void);                                     /* all contexts, where there is INVEPT */

/* ---- checks ---- */

/* Remembers the guest-state area; then what it shall be behind the exit is told field by field, and checked.
 */
void vmx_remember(void);
void vmx_expect(uint32_t field, uint64_t value);
void vmx_expect_any(uint32_t field); /* whatever it is */
void vmx_check_guest(void);
/* The exit's own: reason, qualification, length of the instruction. */
void vmx_check_exit(uint32_t reason, uint64_t qualification, unsigned length);
/* The host's state as vmx_load_host() said, and what 28.5 fixes. */
void vmx_check_host(void);
/* Any field, by its name. */
void vmx_check_field(uint32_t field, uint64_t want);
/* Baseline again: the guest runs to its VMCALL. */
void vmx_check_runs(void);

#endif
