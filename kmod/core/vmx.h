/*
 * vmx.h: what the files of VT-x share.
 *
 * vmx.c         control structure, start, entry, the vendor's answers to core.h
 * vmx_exits.c   exits
 * vmx_step.c    one instruction by itself
 * vmx_task.c    task switches, which always exit
 *
 * and where the guest is a hypervisor:
 *
 * vmx_nested.c        entries and exits of its guest
 * vmx_instructions.c  VMXON and its kin
 * vmx_region.c        its VMCS
 * vmx_offer.c         the capabilities that it is told of
 * vmx_checks.c        what its VM entries check
 * vmx_lists.c         the MSRs that its VM exits store and load
 * vmx_shadow.c        its EPT joined with our tables
 */
#ifndef TRAPLINE_KMOD_CORE_VMX_H
#define TRAPLINE_KMOD_CORE_VMX_H

#include "kmod/core/linear.h"
#include "kmod/core/shadow.h"
#include "x86/vmx.h"

#define VMX_VPID        1u
#define VMX_VPID_NESTED 2u

/* A guest that is a hypervisor (vmx_nested.c). */
struct vmx_nested {
	bool on;        /* in VMX operation */
	bool running;   /* its guest runs: @vmcs is current */
	bool launching; /* by a VMLAUNCH whose guest has not exited yet */
	bool launched;  /* @vmcs */
	bool ept, flush;
	bool listed;        /* the next entry loads MSRs from the guest's list */
	bool init;          /* an INIT waits for the end of VMX operation, or for its guest */
	bool trap_injected; /* its VM entry asks for an exit behind itself */
	uint16_t vpid;
	uint32_t entry;            /* entry controls of the next entry, where it is the guest's own; else 0 */
	uint64_t pointer, current; /* of VMXON and VMPTRLD */
	uint64_t eptp;
	uint64_t rip, rsp;            /* at its VMLAUNCH or VMRESUME */
	uint8_t *vmcs, *msr_bitmap;   /* what the processor runs for it */
	uint16_t state[96], tell[32]; /* fields that go over to it, and come from it (vmx_nested.c) */
	unsigned states, tells;
	struct shadow shadow;
};

/* Controls that an entry is made with. */
struct vmx_controls {
	uint32_t pin, primary, secondary, exceptions;
	uint32_t pf_mask, pf_match; /* of page faults: 0, all or none, but for a guest's guest */
};

struct vmx_vcpu {
	uint8_t *vmcs, *on;            /* regions */
	uint8_t *msr_bitmap;           /* of MSRs that are the hypervisor's */
	struct vmx_controls own;       /* without a record or a step */
	struct vmx_controls all;       /* each exit that an instruction can have, and the processor offers */
	uint32_t entry;                /* entry controls but for the guest's mode */
	uint32_t exit;                 /* exit controls */
	uint64_t cr0_fixed, cr4_fixed; /* bits that are 1 whatever the guest wants */
	uint64_t cr4_refused;          /* bits that the guest cannot set */
	bool active, launched;
	bool flush;                 /* at the next entry */
	bool has_vpid, has_trap;    /* VPIDs, the monitor trap flag */
	bool saves_mode;            /* exits put the guest's mode into the entry controls (A.6) */
	bool stale;                 /* which are not those of the next entry */
	bool nmi;                   /* one has come while the hypervisor ran, and is the guest's */
	struct vmx_controls before; /* what vmx_step() has changed */
	struct {
		uint64_t gpr[GPR_COUNT], rip, rflags, interruptibility, pending_debug;
	} front; /* of the instruction that vmx_step() is for, where it may have to be executed again */
	struct {
		bool on;
		unsigned number;
		uint64_t rip, next, old; /* of it, behind it; the register in front of it */
	} cr;                            /* MOV to CR0 or CR4 on its way (vmx_exits.c) */
	struct vmx_nested nested;
};

/* A field of the current VMCS. */
static inline uint64_t vmx_get(enum vmcs_field field)
{
	uint64_t value = 0;

	if (hw_vmx_read(field, &value) != HW_VMX_DONE)
		hw_stop("VMREAD fails", field);
	return value;
}

static inline void vmx_set(enum vmcs_field field, uint64_t value)
{
	if (hw_vmx_write(field, value) != HW_VMX_DONE)
		hw_stop("VMWRITE fails", field);
}

/* Writes what it is made of to the VMCS. */
void vmx_use(const struct vmx_controls *controls);

/* Bits of CR0 and CR4 whose change exits: those that the guest cannot have, or all. */
void vmx_own_crs(struct vmx_vcpu *vmx, bool all);
/* The EPTP of these tables: write-back, four levels. */
uint64_t vmx_eptp(const uint64_t *root);
/* Fills the host-state area of the current VMCS, and says what exits do. */
void vmx_start_host(const struct vmx_vcpu *vmx);
/* Where an MSR bitmap has the access; false: in none of its ranges, so that it always exits. */
bool vmx_msr_bit(uint32_t index, bool write, unsigned *bit);
/* Where the guest's linear address is; false: nowhere. */
bool vmx_translate(const struct core_vcpu *vcpu, uint64_t linear, uint64_t *physical);
/* How the guest reaches its memory; @implicit as linear.h has it. */
struct linear_mode vmx_linear_mode(const struct core_vcpu *vcpu, bool implicit);
/* Whether the access to the MSR exits without a record. */
bool vmx_msr_intercepted(const struct vmx_vcpu *vmx, uint32_t index, bool write);

/* CR0 and CR4 as the guest has them. */
uint64_t vmx_guest_cr(const struct vmx_vcpu *vmx, unsigned number);
/* Writes them so, as they are checked already. */
void vmx_set_guest_cr(struct vmx_vcpu *vmx, unsigned number, uint64_t value);

/* Whether the guest exits behind the next instruction or event. */
void vmx_trap_monitor(bool on);

/* Bits of the control register that the guest cannot change as it is now. */
uint64_t vmx_fixed_cr(const struct vmx_vcpu *vmx, unsigned number);

/* INIT of the guest's processor. */
void vmx_init(struct core_vcpu *vcpu);
/* vmx_exits.c: the exit that has just come. */
void vmx_exit(struct core_vcpu *vcpu);
/* The event whose delivery the exit has interrupted is delivered again. */
void vmx_redeliver(struct core_vcpu *vcpu);
/* An exception on top of that event (SDM 3A table 6-5). */
void vmx_raise_upon(struct core_vcpu *vcpu, unsigned vector, uint32_t error);

/* vmx_step.c: true: the exit was the step's own. */
bool vmx_stepped(struct core_vcpu *vcpu, unsigned reason);

/* vmx_task.c: the task switch that has exited (SDM 3A 7.3), in the guest's memory; raises its faults. */
void vmx_task_switch(struct core_vcpu *vcpu);

#endif
