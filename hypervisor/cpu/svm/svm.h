/*
 * svm.h: AMD-V as hardware (APM 2 chapter 15).
 *
 * world.c      VMRUN and #VMEXIT: controls, checks, guest and host state
 * intercept.c  instructions: which are intercepted, and what the exit tells
 * events.c     exceptions, interrupts, GIF, virtual interrupts, injection
 * nested.c     nested page tables
 * ../insn/svm.c  the instructions themselves
 *
 * The state between two instructions is the svm_… fields of cpu->msr, so that it is part of struct
 * vcpu_state: a guest that runs is saved, loaded and moved like any other program. The host's state is
 * in its save area in memory (VM_HSAVE_PA), laid out as in a VMCB. Translations are kept by ASID, so that
 * VMRUN and #VMEXIT drop none but by TLB_CONTROL (15.16; tlb_select()). Clean bits are hints; they are ignored
 * (15.15.1).
 *
 * Outside of a guest and with GIF = 1 nothing here is called but by SVM's own instructions: in a guest
 * code_mode has CODE_GUEST, by which the decoder puts gate_run_guest() in front of intercepted rows.
 */
#ifndef TRAPLINE_CPU_SVM_SVM_H
#define TRAPLINE_CPU_SVM_SVM_H

#include "cpu/cpu.h"
#include "x86/svm.h"

static inline bool svm_guest(const struct cpu *cpu) { return unlikely(cpu->msr.svm_guest); }
static inline bool svm_gif(const struct cpu *cpu) { return likely(!cpu->msr.svm_gif_clear); }
/* Whether the guest's physical addresses go through the nested tables. */
static inline bool svm_nested_paging(const struct cpu *cpu)
{
	return svm_guest(cpu) && cpu->msr.svm_nested & SVM_NP_ENABLE;
}

/* What RESET and INIT make of it (15.21.8): no guest, GIF = 1. */
void svm_reset(struct cpu *cpu);

/*
 * An SMI that is not intercepted is taken out of the guest: its handler runs without the virtualization
 * controls, and RSM comes back to them (15.22.3). The caller changes the mode and drops translations.
 *
 * The save area tells where the guest's VMCB is and what is not in it (10.2.3, table 10-1). Where the handler has used
 * VMRUN itself that, and the VMCB, is where RSM has the controls from.
 */
struct svm_suspended {
	uint64_t vmcb, interrupt, host_efer, host_cr4, ncr3;
	bool guest, host_if;
};
enum { SVM_SMM_KEPT = 1, SVM_SMM_USED = 2 }; /* cpu->msr.svm_smm_guest */

static inline struct svm_suspended svm_suspend(struct cpu *cpu)
{
	const struct vcpu_state *m = &cpu->msr;
	struct svm_suspended suspended = {.guest = m->svm_guest,
					  .vmcb = m->svm_vmcb,
					  .interrupt = m->svm_interrupt,
					  .host_efer = m->svm_host_efer,
					  .host_cr4 = m->svm_host_cr4,
					  .ncr3 = m->svm_ncr3,
					  .host_if = m->svm_host_if};

	cpu->msr.svm_smm_guest = cpu->msr.svm_guest ? SVM_SMM_KEPT : 0;
	cpu->msr.svm_guest = false;
	return suspended;
}
void svm_resume(struct cpu *cpu, const struct svm_suspended *suspended);

/* ---- world.c ---- */

/* What an exit tells. next_rip is 0 where the manual has it so (15.7.1). */
struct svm_exit_info {
	int code; /* enum svm_exit, a member of a range included */
	uint64_t info1, info2, next_rip;
	uint8_t fetched[16]; /* count and bytes, 15.8.4 */
};

/* VMRUN of the VMCB at the physical address @vmcb, which was checked. */
_Noreturn void svm_enter(struct cpu *cpu, uint64_t vmcb);
/*
 * #VMEXIT (15.6), between two instructions or after cpu_leave_insn(): saves the guest, with the event being
 * delivered as EXITINTINFO, and loads the host. Returns; cpu->activity is ACTIVITY_SHUTDOWN where the
 * host's state is not consistent.
 */
void svm_exit(struct cpu *cpu, const struct svm_exit_info *info);
/* The same out of a handler; does not return. */
_Noreturn void svm_exit_insn(struct cpu *cpu, const struct svm_exit_info *info);
/* Whether the host of the guest that runs is in 64-bit mode: its CS is in its save area. In a guest. */
bool svm_host_64bit(struct cpu *cpu);
/* FS, GS, TR, LDTR and MSRs, to and from the VMCB at @vmcb (15.5.2). */
void svm_save(struct cpu *cpu, uint64_t vmcb);
void svm_load(struct cpu *cpu, uint64_t vmcb);

/* ---- intercept.c ---- */

/* Whether the intercept with the exit code @code is on. In a guest. */
bool svm_intercepts(const struct cpu *cpu, int code);
/* The intercept of the instruction's row; comes back where there is none. In a guest. */
void svm_check_insn(struct cpu *cpu, const struct insn *insn);
/* As above, for handlers whose row is SVM_IN_HANDLER; outside of a guest, nothing. */
static inline void svm_check_handler(struct cpu *cpu, const struct insn *insn)
{
	if (svm_guest(cpu))
		svm_check_insn(cpu, insn);
}
/* MOV to CR@number of @value, whose checks are done. Other instructions: nothing. In a guest. */
void svm_check_cr_write(struct cpu *cpu, unsigned number, uint64_t value);
/* IN, OUT, INS, OUTS. In a guest. */
void svm_check_io(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size, bool in,
		  bool string);
/* The processor freezes by FERR (15.14.2): comes back where that is not intercepted, or there is no guest. */
void svm_check_ferr(struct cpu *cpu);
/* MWAIT, MWAITX. In a guest. */
void svm_check_mwait(struct cpu *cpu);
/* A task switch whose TSS is checked; @source is enum task_switch_source's. In a guest. */
void svm_check_task_switch(struct cpu *cpu, uint16_t selector, bool iret, bool jump, bool has_error_code,
			   uint32_t error_code, bool resume_flag);

/* ---- events.c ---- */

/*
 * An exception before it is combined or delivered: True: it was intercepted, and the host is next (15.7.3).
 * In a guest.
 */
bool svm_take_exception(struct cpu *cpu, struct event *event);
/* Shutdown: the same (15.14.3). */
bool svm_take_shutdown(struct cpu *cpu);
/* INTR, NMI, SMI, INIT: the same; the interrupt stays pending. */
bool svm_take_interrupt(struct cpu *cpu, enum svm_exit code);
/* Whether physical interrupts are open, NMIs apart: GIF, and RFLAGS.IF or the host's. */
bool svm_interrupts_open(const struct cpu *cpu);
/* Whether a virtual interrupt or NMI is pending and not masked (15.21.4, 15.21.10), shadows apart. */
bool svm_virtual_pending(const struct cpu *cpu);
/*
 * Takes it. False: there is none that may be taken now. True, and @event is to be delivered, or its kind is
 * EVENT_NONE and an intercept has led to the host.
 */
bool svm_take_virtual(struct cpu *cpu, struct event *event);
/* IRET is done (V_NMI_MASK). */
void svm_iret_done(struct cpu *cpu);
/* The event of EVENTINJ, parsed. False: illegal. event->kind is EVENT_NONE where V = 0. @next_rip: VMCB.nRIP.
 */
bool svm_parse_injection(const struct cpu *cpu, uint64_t eventinj, uint64_t next_rip, struct event *event);
/* @event as EXITINTINFO has it. */
uint64_t svm_exit_int_info(const struct event *event);
/* The value of CR8 that the guest reads (15.21.2), and a write's effect on V_TPR. True: on that alone. */
uint64_t svm_read_cr8(const struct cpu *cpu);
bool svm_write_cr8(struct cpu *cpu, uint64_t value);
/* STGI, CLGI: the guest's virtual flag where it has one (15.33), else GIF. */
void svm_set_gif(struct cpu *cpu, bool gif);
/* The TSC as the guest reads it (15.30.5, 15.5.1). */
uint64_t svm_tsc(const struct cpu *cpu, uint64_t tsc);
/* MPERF as the guest reads it: the ratio counts for it, the offset does not (15.30.5, 17.3.2). */
uint64_t svm_mperf(const struct cpu *cpu, uint64_t mperf);

/* ---- nested.c ---- */

struct svm_nested {
	uint64_t physical; /* of the 4 KiB page */
	uint32_t rights;   /* 1 << ACCESS_… */
	bool dirty;
	uint64_t error; /* EXITINFO1's low bits where there is no translation */
};
/* Translates the guest-physical @address for @access (enum access, ACCESS_PROBE). False: NPF. In a guest. */
bool svm_nested_walk(struct cpu *cpu, uint64_t address, unsigned access, struct svm_nested *result);
/* Of a walk that failed there: #VMEXIT(NPF). @info1 has the error and where it was, @linear is what was
 * accessed. */
_Noreturn void svm_nested_fault(struct cpu *cpu, uint64_t info1, uint64_t address);
/* The bytes at CS:RIP, as far as they can be fetched, for exits of data page faults (15.8.4). */
void svm_fetch_bytes(struct cpu *cpu, uint8_t fetched[16]);

#endif
