/*
 * vmx.h: VT-x as hardware (SDM 3C chapters 24 to 32, appendices A to C).
 *
 * vmcs.c        the VMCS: which fields there are, where a region keeps them; VM-instruction errors
 * capability.c  the MSRs of appendix A, IA32_FEATURE_CONTROL, what CR0 and CR4 may be in VMX operation
 * check.c       VM entry: checks of controls and host state (27.2)
 * check_guest.c and of guest state (27.3)
 * entry.c       VM entry behind its checks: what is loaded, injection; how it fails
 * world.c       VM exit: what is told, saved, loaded and left alone; MSR lists; VMX abort
 * intercept.c   instructions that exit: whether, with which qualification and instruction information
 * events.c      exceptions, interrupts, NMIs, windows, injection, IDT-vectoring, timers, MTF
 * apic.c        the virtual APIC: TPR shadow, APIC accesses, virtual and posted interrupts (chapter 30)
 * ept.c         extended page tables, #VE, page-modification log, VPIDs, EPTP switching (chapter 29)
 * smm.c         SMIs and RSM (32.14)
 * ../insn/vmx.c the instructions themselves (chapter 31)
 *
 * The state between two instructions is the vmx_… fields of cpu->msr, so that it is part of struct
 * vcpu_state. A VMCS is in memory at all times: VMREAD and VMWRITE go there, so VMCLEAR has nothing to write
 * back, and a snapshot of memory holds every VMCS. VM entry leaves the controls in the processor (vmx_pin and
 * its kin), from where everything that happens in VMX non-root operation takes them; the fields that the
 * processor writes (the exit's information, the guest's state) are written to memory by the exit alone.
 *
 * Outside of VMX non-root operation nothing here is called but by VMX's own instructions, control.c (CR0,
 * CR4) and what INIT and SMI ask; the rest of the CPU comes here by ../guest.h. In a guest code_mode has
 * CODE_GUEST, by which the decoder puts gate_run_guest() in front of rows with an exit.
 */
#ifndef TRAPLINE_CPU_VMX_VMX_H
#define TRAPLINE_CPU_VMX_VMX_H

#include "cpu/cpu.h"
#include "x86/vmx.h"

#define VMX_NO_VMCS UINT64_MAX /* vmx_vmcs: there is no current VMCS */

/* In VMX operation; in VMX non-root operation. */
static inline bool vmx_operation(const struct cpu *cpu) { return cpu->msr.vmx_on; }
static inline bool vmx_guest(const struct cpu *cpu) { return unlikely(cpu->msr.vmx_guest); }
/* Controls of the running guest: the secondary ones count as 0 where they are not active. */
static inline bool vmx_pin(const struct cpu *cpu, uint32_t control) { return cpu->msr.vmx_pin & control; }
static inline bool vmx_primary(const struct cpu *cpu, uint32_t control)
{
	return cpu->msr.vmx_primary & control;
}
static inline bool vmx_secondary(const struct cpu *cpu, uint32_t control)
{
	return cpu->msr.vmx_secondary & control;
}
/* Whether the guest's physical addresses go through EPT. */
static inline bool vmx_nested_paging(const struct cpu *cpu)
{
	return vmx_guest(cpu) && vmx_secondary(cpu, VMX2_EPT);
}
/* CR0.PE and PG may be 0 in the guest. */
static inline bool vmx_unrestricted(const struct cpu *cpu)
{
	return vmx_guest(cpu) && vmx_secondary(cpu, VMX2_UNRESTRICTED_GUEST);
}

/* What RESET makes of it: no VMX operation. (INIT is blocked in VMX root operation and an exit in non-root.)
 */
void vmx_reset(struct cpu *cpu);

/* ---- smm.c: an SMI (32.14.1), before the save map is written; RSM (32.14.2), after it was loaded ---- */
void vmx_suspend(struct cpu *cpu);
void vmx_resume(struct cpu *cpu);

/* ---- vmcs.c ---- */

/* Whether this processor has the field (25.11.2: those of features that the profile lacks do not exist). */
bool vmcs_exists(const struct cpu *cpu, uint64_t encoding);
/* The highest index among the fields that exist (A.9). */
unsigned vmcs_highest_index(const struct cpu *cpu);
/* Whether @address can be that of a VMXON or VMCS region: aligned, and within the physical addresses. */
bool vmcs_address_valid(const struct cpu *cpu, uint64_t address);
/* Whether VMREAD or VMWRITE of @encoding exits: without VMCS shadowing, or where the bitmap says so (26.1.3).
 * In a guest. */
bool vmcs_access_exits(struct cpu *cpu, uint64_t encoding, bool write);
/*
 * Where a region keeps a field, by the encoding's parts: eight bytes for each index of a width and type. The
 * high half of a 64-bit field is its upper four.
 */
#define VMCS_FIELDS_AT   16u
#define VMCS_INDEX_COUNT 28u
static inline uint32_t vmcs_offset(uint32_t encoding)
{
	uint32_t group = VMCS_WIDTH(encoding) << 2 | VMCS_TYPE(encoding);

	return VMCS_FIELDS_AT + 8 * (group * VMCS_INDEX_COUNT + VMCS_INDEX(encoding)) +
	       (encoding & 1 ? 4 : 0);
}
/* Bytes of an access to it. */
static inline unsigned vmcs_size(uint32_t encoding)
{
	if (encoding & 1 || VMCS_WIDTH(encoding) == VMCS_32)
		return 4;
	return VMCS_WIDTH(encoding) == VMCS_16 ? 2 : 8;
}
/*
 * VM entries and exits look at the current VMCS through pointers to its page, which is not looked up for each
 * field: from vmcs_open(), which says that all of it may be @written, to vmcs_close(). NULL where it is not
 * in memory.
 */
void vmcs_open(struct cpu *cpu, bool written);
static inline void vmcs_close(struct cpu *cpu) { cpu->vmcs_reads = cpu->vmcs_stores = NULL; }

/* Reads and writes in the region at @vmcs; @encoding exists. Any encoding, high halves too; values as the
 * field's width. */
uint64_t vmcs_read_at(struct cpu *cpu, uint64_t vmcs, uint32_t encoding);
void vmcs_write_at(struct cpu *cpu, uint64_t vmcs, uint32_t encoding, uint64_t value);
/* The same of the current VMCS. */
static inline uint64_t vmcs_read(struct cpu *cpu, enum vmcs_field field)
{
	uint64_t value = 0;

	if (!cpu->vmcs_reads)
		return vmcs_read_at(cpu, cpu->msr.vmx_vmcs, field);
	__builtin_memcpy(&value, cpu->vmcs_reads + vmcs_offset(field), vmcs_size(field));
	return value;
}
static inline void vmcs_write(struct cpu *cpu, enum vmcs_field field, uint64_t value)
{
	if (!cpu->vmcs_stores)
		vmcs_write_at(cpu, cpu->msr.vmx_vmcs, field, value);
	else
		__builtin_memcpy(cpu->vmcs_stores + vmcs_offset(field), &value, vmcs_size(field));
}
/* The launch state (25.11.3), kept in the region. */
bool vmcs_launched(struct cpu *cpu, uint64_t vmcs);
void vmcs_set_launched(struct cpu *cpu, uint64_t vmcs, bool launched);
/* The first doubleword, and the abort indicator. */
uint32_t vmcs_revision(struct cpu *cpu, uint64_t vmcs);
void vmcs_set_abort(struct cpu *cpu, uint64_t vmcs, enum vmx_abort abort);
/* VMsucceed; VMfail: VMfailValid with the error number where there is a current VMCS, else VMfailInvalid
 * (31.2). */
void vmx_succeed(struct cpu *cpu);
void vmx_fail(struct cpu *cpu, enum vmx_error error);
void vmx_fail_invalid(struct cpu *cpu);

/* ---- capability.c ---- */

#define VMX_REVISION 0x11u /* VMCS revision identifier */
#define VMX_TIMER_SHIFT                                                                                      \
	5u /* the preemption timer counts down whenever this bit of the TSC changes (26.5.1) */
#define VMX_CR3_TARGETS    4u
#define VMX_MSR_LIST_COUNT 512u /* entries that an MSR list is recommended to have at most (A.6) */

/* Notes what the profile allows. By cpu_new(). */
void vmx_prepare(struct cpu *cpu);
/* The capability MSR @index (480H to 491H). False: not there, #GP(0). They are read-only. */
bool vmx_capability(const struct cpu *cpu, uint32_t index, uint64_t *value);
/* Controls: bits that must be 1, and bits that may be 1. The true ones, where they differ. */
enum vmx_controls {
	VMX_CONTROLS_PIN,
	VMX_CONTROLS_PRIMARY,
	VMX_CONTROLS_SECONDARY,
	VMX_CONTROLS_EXIT,
	VMX_CONTROLS_ENTRY
};
uint32_t vmx_must_be_1(const struct cpu *cpu, enum vmx_controls which);
uint32_t vmx_may_be_1(const struct cpu *cpu, enum vmx_controls which);
/* Whether CR0, CR4 have what VMX operation fixes (24.8); for MOV, in VMX operation: in a guest, what
 * unrestricted guest leaves. */
bool vmx_cr0_valid(const struct cpu *cpu, uint64_t cr0);
/* The same for a guest whose unrestricted-guest control is @unrestricted. */
bool vmx_cr0_supported(uint64_t cr0, bool unrestricted);
bool vmx_cr4_valid(const struct cpu *cpu, uint64_t cr4);

/* ---- check.c ---- */

/* 27.2.1: 0, or the number of the VM-instruction error (7). 27.2.2 to 27.2.4: 8. */
enum vmx_error vmx_check_controls(struct cpu *cpu);
enum vmx_error vmx_check_host(struct cpu *cpu);
/* 27.3.1: true, or false with the exit qualification (0, or enum vmx_entry_qualification). */
bool vmx_check_guest(struct cpu *cpu, uint64_t *qualification);

/* ---- entry.c, world.c ---- */

/* RF as an exit saves it (28.3.3); the last: 1, or what the event being delivered pushes (EPT violations,
 * APIC accesses). */
enum vmx_rf { VMX_RF_KEPT, VMX_RF_CLEAR, VMX_RF_SET, VMX_RF_RETRY };

/* What an exit tells. Fields that the reason leaves undefined or clear are 0. */
struct vmx_exit_info {
	uint32_t reason; /* enum vmx_exit, with VMX_EXIT_… bits */
	uint64_t qualification;
	uint32_t length, instruction_info; /* of the instruction (28.2.5) */
	uint32_t interruption, interruption_error;
	uint64_t linear, physical;   /* guest-linear and guest-physical address */
	uint64_t rcx, rsi, rdi, rip; /* of string I/O before an SMI only */
	enum vmx_rf rf;
	bool trap; /* behind an instruction, whose pending debug exceptions are saved (28.3.4): RIP is as it
		      is */
};

/*
 * VMLAUNCH, VMRESUME whose own checks are done: checks, loads and goes on in the guest, or by a VM-entry
 * failure's exit in the host; does not return then. It returns where it has VMfailed: the instruction is
 * complete.
 */
void vmx_enter(struct cpu *cpu, bool launch);
/*
 * A VM exit between two instructions or after cpu_leave_insn(): saves the guest's state, with the event being
 * delivered as IDT-vectoring information (28.2.4), and loads the host's. Returns. A VMX abort leaves
 * ACTIVITY_SHUTDOWN.
 */
void vmx_exit(struct cpu *cpu, const struct vmx_exit_info *info);
/* The same out of a handler; does not return. Fault-like: the instruction has changed nothing. */
_Noreturn void vmx_exit_insn(struct cpu *cpu, const struct vmx_exit_info *info);
/* A line of the trace about an exit. */
void vmx_note_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification);

/* ---- intercept.c ---- */

/* The exit of the instruction's row, where its control is on; comes back where there is none. In a guest. */
void vmx_check_insn(struct cpu *cpu, const struct insn *insn);
/* #UD where the secondary control that the row names is 0 (26.3). In a guest. */
void vmx_check_enabled(struct cpu *cpu, const struct insn *insn);
/* LMSW of @word, which was read: its exit. In a guest. */
void vmx_check_lmsw(struct cpu *cpu, const struct insn *insn, uint16_t word, bool memory);
/* CR0 or CR4 that MOV, LMSW or CLTS makes of @value: the bits that the host owns stay as they are (26.3). In
 * a guest. */
uint64_t vmx_merge_cr(const struct cpu *cpu, unsigned number, uint64_t value);
/* CR0 or CR4 as the guest reads them: the read shadow in the bits that the host owns. In a guest. */
uint64_t vmx_read_cr(const struct cpu *cpu, unsigned number);
/* IN, OUT, INS, OUTS; RDMSR, WRMSR of @index; a task switch that is checked. In a guest. */
void vmx_check_io(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size, bool in,
		  bool string);
void vmx_check_msr(struct cpu *cpu, uint32_t index, bool write);
/* @source as the exit qualification has it; @resume_flag: RF, as the old TSS would get it. */
void vmx_check_task_switch(struct cpu *cpu, uint16_t selector, unsigned source, bool resume_flag);
/* Instruction information for a memory operand (table 28-8 and its like), with its displacement as
 * qualification. */
uint32_t vmx_instruction_info(struct cpu *cpu, const struct insn *insn, uint64_t *displacement);
/* The TSC as the guest reads it (26.3, 25.6.5). */
uint64_t vmx_tsc(const struct cpu *cpu, uint64_t tsc);
/* How many ticks @cycles of that TSC are; whether MWAIT that interrupts with IF = 0 end goes on (26.3). */
uint64_t vmx_ticks(const struct cpu *cpu, uint64_t cycles);
bool vmx_ends_wait(const struct cpu *cpu);

/* ---- events.c ---- */

/* An exception before it is combined or delivered, a triple fault, INTR, NMI, INIT, SIPI. True: the host is
 * next. In a guest. */
bool vmx_take_exception(struct cpu *cpu, struct event *event);
/* Whether an exception is the hypervisor's: the bitmap, and for #PF mask and match (25.6.3). */
bool vmx_takes_exception(const struct cpu *cpu, enum vector vector, uint32_t error_code);
bool vmx_take_triple_fault(struct cpu *cpu);
bool vmx_take_interrupt(struct cpu *cpu);
bool vmx_take_nmi(struct cpu *cpu);
bool vmx_take_init(struct cpu *cpu);
/* A start-up IPI, in a guest that waits for one: latched until run.c looks. */
void vmx_note_sipi(struct cpu *cpu, uint8_t vector);
/* Physical interrupts, NMIs apart, are open in the guest, shadows apart; INIT is held off. */
bool vmx_interrupts_open(const struct cpu *cpu);
bool vmx_blocks_init(const struct cpu *cpu);
/* Something is due between two instructions, shadows apart; run.c must look; instructions run one by one. */
bool vmx_pending(const struct cpu *cpu);
bool vmx_must_look(const struct cpu *cpu);
bool vmx_must_step(const struct cpu *cpu);
/* An instruction, an iteration of REP or a delivery is done: MTF (26.5.2). True: an exit comes before its
 * traps. */
bool vmx_boundary(struct cpu *cpu);
/*
 * What is due, in the order of 26.2, 27.7 and SDM 3A table 6-2: SIPI, trap-like exits of the virtual APIC and
 * MTF; preemption timer and NMI window; interrupt window and virtual interrupts. True: the host is next; of
 * the last,
 * @event is to be delivered where its kind is not EVENT_NONE.
 */
bool vmx_take_before_traps(struct cpu *cpu);
bool vmx_take_before_nmi(struct cpu *cpu);
bool vmx_take_before_interrupt(struct cpu *cpu, struct event *event);
/* IRET, before it can fault: NMI unblocking, virtual-NMI blocking (26.3). */
void vmx_iret_begins(struct cpu *cpu);
/* The preemption timer: started by VM entry; its value, as an exit saves it. */
void vmx_timer_start(struct cpu *cpu);
uint32_t vmx_timer_value(const struct cpu *cpu);
/* When the preemption timer runs out, in cpu_ticks(); UINT64_MAX: it does not run. */
uint64_t vmx_timer_due(const struct cpu *cpu);
/* ENTRY_INTERRUPTION_INFO, which was checked, as an event to be delivered. kind is EVENT_NONE where there is
 * none. */
void vmx_parse_injection(struct cpu *cpu, struct event *event);
/* @event as interruption information has it (25.9.2, 25.9.3); in real-address mode none has an error code. */
uint32_t vmx_event_info(const struct cpu *cpu, const struct event *event);

/* ---- apic.c ---- */

/* Whether a virtualized write has left something to do behind the instruction. */
static inline bool vmx_apic_due(const struct cpu *cpu) { return cpu->msr.vmx_apic_write; }

/* At VM entry, behind all that it loads: PPR virtualization and evaluation, or the look at the TPR threshold
 * (27.3.2.5, 27.7.7). */
void vmx_apic_entered(struct cpu *cpu);
/*
 * What a virtualized write leaves to do behind the operation that it was part of, in front of SMIs and traps:
 * while cpu->msr.vmx_apic_write is not 0. True: it led to an exit.
 */
bool vmx_apic_write_due(struct cpu *cpu);
/* MOV from and to CR8, whose exits were looked at. False: there is no TPR shadow. */
bool vmx_read_cr8(struct cpu *cpu, uint64_t *value);
bool vmx_write_cr8(struct cpu *cpu, uint64_t value);
/* RDMSR and WRMSR, whose exits were looked at: an MSR of the x2APIC's range. False: it is not virtualized.
 * Raises #GP. */
bool vmx_read_x2apic(struct cpu *cpu, uint32_t index, uint64_t *value);
bool vmx_write_x2apic(struct cpu *cpu, uint32_t index, uint64_t value);
/* Whether the physical @page is the APIC-access page. Anywhere. */
bool vmx_apic_page(const struct cpu *cpu, uint64_t page);
/* Linear accesses of @size bytes to it: from or to the virtual-APIC page, or an exit (30.4.2, 30.4.3). */
void vmx_apic_read(struct cpu *cpu, uint64_t physical, void *to, size_t size, unsigned access);
void vmx_apic_write(struct cpu *cpu, uint64_t physical, const void *from, size_t size);
/* The exit of such a write, before the instruction has done anything. */
void vmx_apic_check_write(struct cpu *cpu, uint64_t physical, size_t size);
/* The exit of one that is never virtualized; of a guest-physical one (30.4.6.1). */
_Noreturn void vmx_apic_exit(struct cpu *cpu, uint64_t physical, unsigned access);
_Noreturn void vmx_apic_guest_physical(struct cpu *cpu);
/* A recognized virtual interrupt that nothing blocks; its vector, which is in service then (30.2.2). In a
 * guest. */
bool vmx_virtual_interrupt_pending(const struct cpu *cpu);
int vmx_virtual_interrupt_acknowledge(struct cpu *cpu);
/* An external interrupt's @vector, acknowledged. True: it was the notification, and the interrupts that it
 * tells of are virtual ones (30.6). */
bool vmx_posted_interrupt(struct cpu *cpu, uint8_t vector);

/* ---- ept.c ---- */

/* With enum access: guest paging structures, by the walk that goes through them. */
#define VMX_ACCESS_TABLE 32u

/* Why there is no translation: the exit qualification of an EPT violation, or what else; VMX_FAULT is always
 * there. */
#define VMX_FAULT               (1ull << 63)
#define VMX_FAULT_MISCONFIGURED (1ull << 62)
#define VMX_FAULT_LOG_FULL      (1ull << 61) /* the page-modification log */
#define VMX_FAULT_SUPPRESS      (1ull << 60) /* it is not convertible: no #VE */
#define VMX_FAULT_QUALIFICATION 0xfffull

struct vmx_nested {
	uint64_t physical; /* of the 4 KiB page */
	uint32_t rights;   /* 1 << ACCESS_…; execute, for the kind of linear address that @user told of */
	bool dirty;
	uint64_t fault; /* where there is no translation: bits 6:0 of the qualification */
};
/*
 * Translates the guest-physical @address for @access (enum access, ACCESS_PROBE, VMX_ACCESS_TABLE), which
 * comes from a user-mode linear address where @user. False: result->fault. In a guest with EPT.
 */
bool vmx_nested_walk(struct cpu *cpu, uint64_t address, unsigned access, bool user,
		     struct vmx_nested *result);
/*
 * Of a walk that failed there: the exit, or #VE. @fault is completed by EPT_VIOLATION_LINEAR_VALID, _FINAL
 * and the advanced information; @linear is meant where it is valid.
 */
_Noreturn void vmx_nested_fault(struct cpu *cpu, uint64_t fault, uint64_t physical, uint64_t linear);
/* VMFUNC, in a guest that has it: the function of EAX, or its exit. */
void vmx_function(struct cpu *cpu);
/* EPTP valid (27.2.1.1); also for EPTP switching. */
bool vmx_eptp_valid(const struct cpu *cpu, uint64_t eptp);

#endif
