/*
 * guest.h: where the processor meets its virtualization extension: AMD-V (svm/) or VT-x (vmx/), of which a
 * profile has one.
 *
 * Who asks here need not know which. Each function does nothing, and answers as the bare processor does,
 * where no guest runs; that test is inline, so that the rest of the CPU pays one byte for it.
 */
#ifndef TRAPLINE_CPU_GUEST_H
#define TRAPLINE_CPU_GUEST_H

#include "cpu/segment.h"
#include "cpu/svm/svm.h"
#include "cpu/vmx/vmx.h"

/* A guest runs. */
static inline bool guest_runs(const struct cpu *cpu)
{
	return unlikely(cpu->msr.svm_guest | cpu->msr.vmx_guest);
}

/* Whether guest-physical addresses go through the hypervisor's tables. */
static inline bool guest_nested_paging(const struct cpu *cpu)
{
	return guest_runs(cpu) && (svm_nested_paging(cpu) || vmx_nested_paging(cpu));
}

/* ---- instructions ---- */

/* The intercept of a row whose handler asks; comes back where there is none. */
static inline void guest_check_handler(struct cpu *cpu, const struct insn *insn)
{
	if (!guest_runs(cpu))
		return;
	if (cpu->msr.vmx_guest)
		vmx_check_insn(cpu, insn);
	else
		svm_check_insn(cpu, insn);
}

/* IN, OUT, INS, OUTS, behind the TSS's permission. */
static inline void guest_check_io(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size,
				  bool in, bool string)
{
	if (!guest_runs(cpu))
		return;
	if (cpu->msr.vmx_guest)
		vmx_check_io(cpu, insn, port, size, in, string);
	else
		svm_check_io(cpu, insn, port, size, in, string);
}

/* A task switch whose TSS was checked; @resume_flag: RF, as the old TSS will have it. */
static inline void guest_check_task_switch(struct cpu *cpu, uint16_t selector, enum task_switch_source source,
					   bool has_error_code, uint32_t error_code, bool resume_flag)
{
	static const uint8_t sources[] = {[TASK_SWITCH_CALL] = 0,
					  [TASK_SWITCH_IRET] = 1,
					  [TASK_SWITCH_JMP] = 2,
					  [TASK_SWITCH_GATE] = 3};

	if (vmx_guest(cpu))
		vmx_check_task_switch(cpu, selector, sources[source], resume_flag);
	else if (svm_guest(cpu))
		svm_check_task_switch(cpu, selector, source == TASK_SWITCH_IRET, source == TASK_SWITCH_JMP,
				      has_error_code, error_code, resume_flag);
}

/* LMSW, which has read its operand; AMD-V asks before that. */
static inline void guest_check_lmsw(struct cpu *cpu, const struct insn *insn, uint16_t word, bool memory)
{
	if (vmx_guest(cpu))
		vmx_check_lmsw(cpu, insn, word, memory);
}

/* What MOV, CLTS or LMSW of @value to CR0 or CR4 writes: bits that the host owns stay as they are. */
static inline uint64_t guest_cr_merge(const struct cpu *cpu, unsigned number, uint64_t value)
{
	return vmx_guest(cpu) ? vmx_merge_cr(cpu, number, value) : value;
}

/* CR0, CR4 as the guest reads them. */
static inline uint64_t guest_cr_read(const struct cpu *cpu, unsigned number)
{
	if (vmx_guest(cpu))
		return vmx_read_cr(cpu, number);
	return number == 0 ? cpu->cr0 : cpu->cr4;
}

/* CR8 as the guest reads it. */
static inline uint64_t guest_cr8_read(struct cpu *cpu)
{
	uint64_t value;

	if (!guest_runs(cpu))
		return cpu->cr8;
	if (svm_guest(cpu))
		return svm_read_cr8(cpu);
	return vmx_read_cr8(cpu, &value) ? value : cpu->cr8;
}

/* A write to it that is checked. True: it went to the virtual TPR alone. */
static inline bool guest_cr8_write(struct cpu *cpu, uint64_t value)
{
	if (!guest_runs(cpu))
		return false;
	if (cpu->msr.vmx_guest)
		return vmx_write_cr8(cpu, value);
	svm_check_cr_write(cpu, 8, value);
	return svm_write_cr8(cpu, value);
}

/* RDMSR and WRMSR behind their exits. True: they went to the virtual APIC. */
static inline bool guest_read_x2apic(struct cpu *cpu, uint32_t index, uint64_t *value)
{
	return vmx_guest(cpu) && vmx_read_x2apic(cpu, index, value);
}
static inline bool guest_write_x2apic(struct cpu *cpu, uint32_t index, uint64_t value)
{
	return vmx_guest(cpu) && vmx_write_x2apic(cpu, index, value);
}

/* The TSC that the instructions of a guest read, from that of the processor. */
static inline uint64_t guest_tsc(const struct cpu *cpu, uint64_t tsc)
{
	if (!guest_runs(cpu))
		return tsc;
	return cpu->msr.vmx_guest ? vmx_tsc(cpu, tsc) : svm_tsc(cpu, tsc);
}

/* MPERF that they read. */
static inline uint64_t guest_mperf(const struct cpu *cpu, uint64_t mperf)
{
	return svm_guest(cpu) ? svm_mperf(cpu, mperf) : mperf;
}

/* How long @cycles of that TSC take. */
static inline uint64_t guest_ticks(const struct cpu *cpu, uint64_t cycles)
{
	return vmx_guest(cpu) ? vmx_ticks(cpu, cycles) : cycles;
}

/* MWAIT goes on at once: it would wait with interrupts masked (@masked ends it), and a window is due (SDM
 * 3C 26.3). */
static inline bool guest_ends_wait(const struct cpu *cpu, bool masked)
{
	return vmx_guest(cpu) && masked && vmx_ends_wait(cpu);
}

/* IRET, before it can fault, and when it is done. */
static inline void guest_iret_begins(struct cpu *cpu)
{
	if (vmx_guest(cpu))
		vmx_iret_begins(cpu);
	else
		cpu->nmi_blocked = false;
}
static inline void guest_iret_done(struct cpu *cpu)
{
	if (svm_guest(cpu))
		svm_iret_done(cpu);
	cpu->nmi_unblocked = false;
}

/* ---- events: true where the host is next ---- */

static inline bool guest_take_exception(struct cpu *cpu, struct event *event)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_take_exception(cpu, event) : svm_take_exception(cpu, event);
}

/* Faults have led to shutdown. */
static inline bool guest_take_shutdown(struct cpu *cpu)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_take_triple_fault(cpu) : svm_take_shutdown(cpu);
}

static inline bool guest_take_interrupt(struct cpu *cpu)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_take_interrupt(cpu) : svm_take_interrupt(cpu, SVM_EXIT_INTR);
}

static inline bool guest_take_nmi(struct cpu *cpu)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_take_nmi(cpu) : svm_take_interrupt(cpu, SVM_EXIT_NMI);
}

static inline bool guest_take_init(struct cpu *cpu)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_take_init(cpu) : svm_take_interrupt(cpu, SVM_EXIT_INIT);
}

/* With the default treatment of SMIs they are no exits of VT-x (SDM 3C 32.14). */
static inline bool guest_take_smi(struct cpu *cpu)
{
	return svm_guest(cpu) && svm_take_interrupt(cpu, SVM_EXIT_SMI);
}

/* Whether a #PF with this error code is the hypervisor's: CR2 is not written. */
static inline bool guest_takes_page_fault(const struct cpu *cpu, uint32_t error_code)
{
	if (!guest_runs(cpu))
		return false;
	if (cpu->msr.vmx_guest)
		return vmx_takes_exception(cpu, VECTOR_PF, error_code);
	return svm_intercepts(cpu, SVM_EXIT_EXCEPTION + VECTOR_PF);
}

/* ---- what waits for the end of an instruction ---- */

/* Maskable interrupts from outside: IF, and what the extension makes of it; shadows apart. */
static inline bool guest_interrupts_open(const struct cpu *cpu)
{
	if (unlikely(cpu->msr.svm_guest | cpu->msr.svm_gif_clear))
		return svm_interrupts_open(cpu);
	if (vmx_guest(cpu))
		return vmx_interrupts_open(cpu);
	return cpu->rflags & RFLAGS_IF;
}

/* INIT is held off: by GIF = 0; in VMX root operation until VMXOFF or a VM entry; by a guest that waits for a
 * SIPI. */
static inline bool guest_blocks_init(const struct cpu *cpu)
{
	return !svm_gif(cpu) || (vmx_operation(cpu) && vmx_blocks_init(cpu));
}

/* Something that only guests have is due, shadows apart: what PENDING_VIRTUAL says. */
static inline bool guest_pending(const struct cpu *cpu)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_pending(cpu) : svm_virtual_pending(cpu);
}

/* Whether run.c must look at what is due before the next instruction, or run it alone. */
static inline bool guest_must_look(const struct cpu *cpu)
{
	if (!guest_runs(cpu))
		return false;
	return cpu->msr.vmx_guest ? vmx_must_look(cpu) : cpu->msr.svm_interrupt & (SVM_V_IRQ | SVM_V_NMI);
}

/*
 * An instruction, an iteration of REP or the delivery of an event is done. True: an exit is due before its
 * traps, which are left for guest_take_before_traps().
 */
static inline bool guest_boundary(struct cpu *cpu) { return vmx_guest(cpu) && vmx_boundary(cpu); }

/* Exits that come before the traps of the instruction behind us: APIC accesses, MTF. */
static inline bool guest_take_before_traps(struct cpu *cpu)
{
	return vmx_guest(cpu) && vmx_take_before_traps(cpu);
}

/* Instructions run one by one. */
static inline bool guest_must_step(const struct cpu *cpu) { return vmx_guest(cpu) && vmx_must_step(cpu); }

/* When something that a guest has counts down to is due, in cpu_ticks(); UINT64_MAX: never. */
static inline uint64_t guest_timer_due(const struct cpu *cpu)
{
	return vmx_guest(cpu) ? vmx_timer_due(cpu) : UINT64_MAX;
}

/* Those that come before NMIs: the preemption timer, an NMI window. */
static inline bool guest_take_before_nmi(struct cpu *cpu)
{
	return vmx_guest(cpu) && vmx_take_before_nmi(cpu);
}

/*
 * Those that come before interrupts from outside: an interrupt window, a virtual interrupt of VT-x. True:
 * @event is to be delivered, or its kind is EVENT_NONE and the host is next.
 */
static inline bool guest_take_before_interrupt(struct cpu *cpu, struct event *event)
{
	return vmx_guest(cpu) && vmx_take_before_interrupt(cpu, event);
}

/* The same behind them: a virtual interrupt of AMD-V. */
static inline bool guest_take_last(struct cpu *cpu, struct event *event)
{
	return svm_guest(cpu) && svm_take_virtual(cpu, event);
}

#endif
