/*
 * svm_world.h: a guest of AMD-V that a story runs: its VMCB, its permission maps, its nested tables, and the
 * way in and back, no more than tests need (APM 2 chapter 15, appendix B).
 *
 * The guest lives in the memory of case_layout.h as a case does: the same window, descriptor tables, page
 * tables and stacks, in any of the modes. Its IDTs are others: each vector's handler is a VMMCALL at an
 * address of its own (svm_handler_vector), so that nothing of the library runs in a guest.
 *
 * One guest at a time and a processor; 64-bit mode, CPL 0, within a story.
 */
#ifndef TRAPLINE_GUESTS_LIB_SVM_WORLD_H
#define TRAPLINE_GUESTS_LIB_SVM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/case.h"
#include "x86/svm.h"

/* General registers that VMRUN leaves alone, as svm_world.S loads and stores them. */
struct svm_registers {
	uint64_t rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
};

extern uint8_t svm_vmcb[0x1000], svm_vmcb2[0x1000];
extern uint8_t svm_iopm[SVM_IOPM_SIZE], svm_msrpm[SVM_MSRPM_SIZE];
extern uint8_t svm_hsave[0x1000]; /* VM_HSAVE_PA */
extern struct svm_registers svm_registers;
extern uint8_t svm_host_if; /* not 0: the host has RFLAGS.IF = 1 at VMRUN */

#define SVM_VECTOR_NONE 256u

/*
 * Switch AMD-V on, and start with empty VMCB and maps. False, with NOTSUP said, where there is no AMD-V or it
 * is disabled. svm_end() switches it off again.
 */
bool svm_begin(void);
void svm_end(void);

/* NOTSUP where bit @bit of CPUID 8000_000AH:EDX is 0. */
bool svm_needs(unsigned bit, const char *probe);
#define SVM_NEEDS(bit) svm_needs(bit, "cpuid.8000000a.0.edx[" #bit "]=0")
bool svm_has(unsigned bit);
enum {
	SVM_HAS_NPT = 0,
	SVM_HAS_LBR = 1,
	SVM_HAS_LOCK = 2,
	SVM_HAS_NRIPS = 3,
	SVM_HAS_TSC_RATE = 4,
	SVM_HAS_CLEAN = 5,
	SVM_HAS_FLUSH_ASID = 6,
	SVM_HAS_DECODE = 7,
	SVM_HAS_PAUSE = 10,
	SVM_HAS_PAUSE_THRESHOLD = 12,
	SVM_HAS_VLS = 15,
	SVM_HAS_VGIF = 16,
	SVM_HAS_VNMI = 25
};

/* The field of @size bytes at @offset of the VMCB; from CASE_CONTROL_IOPM and CASE_CONTROL_MSRPM on, of the
 * maps. */
uint64_t svm_read(unsigned offset, unsigned size);
void svm_write(unsigned offset, unsigned size, uint64_t value);
static inline uint64_t svm_get(unsigned offset) { return svm_read(offset, 8); }
static inline void svm_set(unsigned offset, uint64_t value) { svm_write(offset, 8, value); }
/* The intercept of an exit code below 0xc0. */
void svm_intercept(unsigned code, bool on);

/*
 * The baseline of @mode and @cpl (case_baseline.def) into exchange.in, the memory that it needs, and the
 * guest of it; every exception, VMRUN, VMMCALL, INTR, NMI, SMI, INIT and shutdown are intercepted, ASID 1.
 */
void svm_baseline(unsigned mode, unsigned cpl);
/* The same in two parts: memory and exchange.in, and the guest of what exchange.in then holds. */
void svm_prepare(unsigned mode, unsigned cpl);
void svm_load(unsigned mode, unsigned cpl);
/* @length bytes at CASE_STUB, CASE_END behind them. */
void svm_code(const uint8_t *bytes, unsigned length);

/* What is done with GIF = 0 in front of the next VMRUN, once: for events that the guest is to meet. */
void svm_prelude(void (*function)(void));

/* VMRUN until the guest exits; GIF is 1 before and behind it. EXITCODE. */
uint64_t svm_run(void);
/* The same, but GIF stays 0. */
uint64_t svm_run_keep(void);
/* The guest as the exit left it, into exchange.out. */
void svm_capture(void);
/*
 * The same where the exit is the VMMCALL of a handler: exchange.out is as the event found it, from the frame,
 * and
 * @end says which event it was.
 */
struct ending;
void svm_capture_delivery(const struct case_spec *spec, struct ending *end);

/* Whether the guest's RIP is at CASE_END; the vector whose handler it is in, or SVM_VECTOR_NONE. */
bool svm_at_end(void);
unsigned svm_handler_vector(void);
/* The address of the handler of @vector. */
uint64_t svm_handler(unsigned vector);
/* The linear address of CS:RIP. */
uint64_t svm_guest_address(void);

/* ---- nested tables (case_layout.h) ---- */

void svm_nested_build(void);
void svm_nested_use(void); /* NP_ENABLE, N_CR3 */

/*
 * The same from a host in 32-bit protected mode with these CR0, CR3 and CR4 (svm_legacy.S), for guests that
 * have no more than 32 bits; svm_legacy_cr: those that the host had behind the exit. EXITCODE; GIF is 1
 * behind it.
 */
uint64_t svm_run_legacy(const uint32_t cr[3]);
extern uint32_t svm_legacy_cr[3];

/* The switch itself (svm_world.S): GIF is 0 behind it. @host: a page for VMSAVE. */
void svm_switch(uint64_t vmcb, uint64_t host, struct svm_registers *registers);

/* ---- instructions that may fault: the vector, or STORY_NO_FAULT (story.h) ---- */

enum svm_instruction {
	SVM_DO_VMRUN,
	SVM_DO_VMLOAD,
	SVM_DO_VMSAVE,
	SVM_DO_STGI,
	SVM_DO_CLGI,
	SVM_DO_VMMCALL,
	SVM_DO_INVLPGA,
	SVM_DO_SKINIT
};
unsigned svm_try(enum svm_instruction which, uint64_t rax, uint32_t ecx);

#endif
