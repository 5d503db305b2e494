/*
 * fake.h: a made-up kmod/core/hw.h for unit tests on the host. Memory is an array; MSRs and CPUID leaves are
 * what a test has put there; VMRUN and VM entry call the test, which plays the guest: it changes the control
 * structure as the processor would until an exit. What ends the hypervisor comes back to fake_catch().
 */
#ifndef TRAPLINE_KMOD_TEST_FAKE_H
#define TRAPLINE_KMOD_TEST_FAKE_H

#include <setjmp.h>

#include "kmod/core/core.h"

#define FAKE_MEMORY 0x4000000ull /* 64 MiB of physical memory, the upper half of it the hypervisor's */
#define FAKE_HIDDEN 0x2000000ull
#define FAKE_APIC   0xfee00000ull
#define FAKE_LOG    4096u

/* What plays the guest of an entry: @block is the VMCB, or NULL under VT-x. */
typedef void fake_guest(uint8_t *block, uint64_t gpr[GPR_COUNT]);

struct fake {
	fake_guest *guest; /* of the next entry; NULL: there must be none */
	unsigned entries;
	bool last_interrupts; /* of hw_svm_run() */
	bool nmi;             /* one is pending for hw_svm_take_nmi() or hw_vmx_take_nmi() */
	char log[FAKE_LOG];   /* what was printed, a line each */
	unsigned wbinvd, invept, invvpid, loads, saves;
	uint64_t cr2, cr8;
	uint32_t pkru;
	bool shut_down;
	const char *stopped;
	bool catching;
	jmp_buf out;
};
extern struct fake fake;

/* Everything as after a reset, with a processor of @vendor that can run guests. */
void fake_reset(enum core_vendor vendor);
/* Guest memory. */
void *fake_memory(uint64_t physical);
uint64_t *fake_quad(uint64_t physical);
/* MSRs: reading gives @value; @writable are the bits that a write may change, others are a #GP. */
void fake_msr(uint32_t index, uint64_t value, uint64_t writable);
uint64_t fake_msr_value(uint32_t index);
/* A leaf of CPUID, whatever the subleaf. */
void fake_cpuid(uint32_t leaf, uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx);
/* Fields of the current VMCS; reading one that was never written gives 0. */
uint64_t fake_get(uint32_t field);
void fake_put(uint32_t field, uint64_t value);
/* The physical address of the current VMCS. */
uint64_t fake_vmcs(void);
/* VM entry fails with this VM-instruction error the next time. */
void fake_refuse(uint64_t error);
/* Fields that the processor does not have. */
void fake_lacks(uint32_t field);

/* Runs the statement; true where it ended in hw_stop() or hw_shutdown(). */
#define fake_catches(statement)                                                                              \
	({                                                                                                   \
		volatile bool ended_ = true;                                                                 \
		fake.catching = true;                                                                        \
		if (!setjmp(fake.out)) {                                                                     \
			statement;                                                                           \
			ended_ = false;                                                                      \
		}                                                                                            \
		fake.catching = false;                                                                       \
		ended_;                                                                                      \
	})

#endif
