/*
 * svm.h: what the files of AMD-V share.
 *
 * svm.c         control block, start, entry, the vendor's answers to core.h
 * svm_exits.c   exits
 * svm_step.c    one instruction by itself
 * svm_fetch.c   the bytes of an instruction
 * svm_nested.c  a guest that is a hypervisor: VMRUN and its kin, exits that are its own
 * svm_gif.c     its GIF, and what waits for it
 * svm_shadow.c  its nested tables joined with ours
 */
#ifndef TRAPLINE_KMOD_CORE_SVM_H
#define TRAPLINE_KMOD_CORE_SVM_H

#include "kmod/core/shadow.h"
#include "x86/svm.h"

#define SVM_ASID        1u
#define SVM_ASID_NESTED 2u
#define SVM_WATCH_MAX   16u

/* A guest that is a hypervisor. */
struct svm_nested {
	bool svme; /* its EFER.SVME */
	bool gif;
	bool running;   /* its guest runs: svm->vmcb is @merged */
	bool nmi;       /* an NMI waits for its GIF; */
	bool smi, init; /* likewise */
	bool host_if;   /* its RFLAGS.IF at VMRUN */
	uint64_t hsave; /* VM_HSAVE_PA */
	uint64_t vm_cr;
	uint64_t tpr;    /* CR8 when GIF became 0 */
	bool held;       /* its guest has cleared GIF: what @merged has of interrupts is in @interrupt */
	uint64_t interrupt;
	uint64_t vmcb;   /* physical address of what it runs */
	uint8_t *merged; /* the control block that runs for it */
	uint8_t *msrpm;  /* both permission maps in one */
	uint64_t ncr3;   /* of its nested tables, as last shadowed */
	uint64_t mode;   /* what of its paging mode they depend on */
	uint32_t asid;
	bool npt;
	struct shadow shadow;
};

struct svm_vcpu {
	uint8_t *vmcb; /* that is entered next: @own, or that of the guest's guest */
	uint8_t *own;
	uint8_t *host; /* the processor's save area */
	uint8_t *msrpm;
	uint16_t watch[SVM_WATCH_MAX]; /* bytes of @msrpm that are not 0 */
	unsigned watched;
	uint64_t efer_valid, efer_kept; /* bits that may be written, and that stay */
	unsigned physical_bits;
	bool nrips, decode;
	bool flush;   /* at the next entry */
	uint64_t dr6; /* at the last entry, where breakpoints are dropped */
	struct {
		uint64_t rflags, dr6, interrupt;
		uint32_t exceptions, events;
	} step; /* what svm_step() has changed */
	struct svm_nested nested;
};

static inline uint64_t *vmcb64(uint8_t *vmcb, unsigned offset) { return (uint64_t *)(void *)(vmcb + offset); }
static inline uint32_t *vmcb32(uint8_t *vmcb, unsigned offset) { return (uint32_t *)(void *)(vmcb + offset); }
static inline uint16_t *vmcb16(uint8_t *vmcb, unsigned offset) { return (uint16_t *)(void *)(vmcb + offset); }

/* Whether the intercept of the exit code @code is on in @vmcb. */
bool svm_intercepted(uint8_t *vmcb, unsigned code);
void svm_intercept(uint8_t *vmcb, unsigned code, bool on);
/* Where the maps have an MSR: its byte, and the bit for reads; that for writes follows. False: nowhere. */
bool svm_msr_bit(uint32_t index, unsigned *byte, unsigned *bit);
/* Whether @map has an access to the MSR. */
bool svm_msr_intercepted(const uint8_t *map, uint32_t index, bool write);

/* What the hypervisor itself wants to intercept, by what the guest is now. */
void svm_own_intercepts(struct core_vcpu *vcpu);

/* svm_exits.c: the exit that has just come. */
void svm_exit(struct core_vcpu *vcpu);
/* An exception at the next entry, on top of the event whose delivery it has interrupted (SDM 3A table 6-5).
 */
void svm_raise_upon(struct core_vcpu *vcpu, unsigned vector, bool has_error, uint32_t error);
/* The event that was being delivered when the exit came is delivered again. */
void svm_redeliver(struct core_vcpu *vcpu);

/* svm_step.c: true: the exit was the step's own. */
bool svm_stepped(struct core_vcpu *vcpu);

/* svm_fetch.c: up to @size bytes at CS:RIP; how many. */
unsigned svm_fetch(struct core_vcpu *vcpu, uint8_t *bytes, unsigned size);
/* How many of the @size @bytes at CS:RIP are prefixes of the instruction. */
unsigned svm_prefixes(const struct core_vcpu *vcpu, const uint8_t *bytes, unsigned size);

/* ---- svm_nested.c ---- */

/* Its pages. NULL, or what went wrong. */
const char *svm_nested_create(struct core_vcpu *vcpu);
void svm_nested_start(struct core_vcpu *vcpu);
/* An exit while the guest's guest runs. True: done; false: it is the hypervisor's own, as at depth 1. */
bool svm_nested_exit(struct core_vcpu *vcpu);
/* VMRUN, VMLOAD, VMSAVE, VMMCALL, STGI, CLGI, SKINIT, INVLPGA of the guest. */
void svm_nested_instruction(struct core_vcpu *vcpu, unsigned code);
enum core_msr svm_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value);
enum core_msr svm_nested_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value);
void svm_nested_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t out[4]);
/* EFER.SVME as the guest wants it. */
void svm_nested_enable(struct core_vcpu *vcpu, bool on);

/* The exit is the guest's, whose guest ran. */
void svm_nested_reflect(struct core_vcpu *vcpu, uint64_t code, uint64_t info1, uint64_t info2);
/* Whether the guest intercepts @code, no MSR's, of its guest. */
bool svm_nested_wants(struct core_vcpu *vcpu, unsigned code);

/* ---- svm_gif.c ---- */

void svm_gif_set(struct core_vcpu *vcpu, bool gif);
/* #VMEXIT of the guest's guest: what CLGI has held back of it is in its control block again. */
void svm_gif_release(struct core_vcpu *vcpu);
/* What has waited for it, behind the instruction that set it. */
void svm_gif_opened(struct core_vcpu *vcpu);
/* A write of SMM_CTL, which can dismiss an SMI that waits (15.30.3); false: #GP. */
bool svm_gif_smm_ctl(struct core_vcpu *vcpu, uint64_t value);
/* Whether INITs come as #SX. */
void svm_gif_redirect(bool on);
/* Exits for #SX and, while GIF is 0, #DB. True: it was an INIT, or a breakpoint, or what is left of it; done.
 */
bool svm_gif_sx(struct core_vcpu *vcpu);
bool svm_gif_debug(struct core_vcpu *vcpu);

/* ---- svm_shadow.c ---- */

/* Forgets all that was joined. */
void svm_shadow_drop(struct core_vcpu *vcpu);
/* The root of the joined tables. */
uint64_t *svm_shadow_root(struct core_vcpu *vcpu);
/*
 * The guest's guest was refused @access to @address. True: the tables now have it; false: the refusal is that
 * of the guest's tables, with *@error as EXITINFO1 tells it.
 */
bool svm_shadow_fill(struct core_vcpu *vcpu, uint64_t address, unsigned access, uint64_t *error);

#endif
