/*
 * cpu.h: the software reference CPU.
 *
 * One `struct cpu` is one logical processor. Its parts:
 *
 *   cpu.c        reset, mode changes and what is derived from them
 *   decode.c     bytes to struct insn, from opcodes.def
 *   trace.c      decoded code, by physical address and mode
 *   run.c        the loop: traces, single steps, events between instructions
 *   events.c     delivery of exceptions and interrupts
 *   segment.c    descriptors and loads of segment registers
 *   control.c    writes of control and debug registers and what they check
 *   branch_record.c  last-branch records
 *   msr.c        RDMSR and WRMSR by index
 *   profile.c    what CPUID says, and which features there are
 *   flags.h      lazy status flags
 *   mem/         physical memory, page walk, TLB, access through segments
 *   insn/        the handlers, one file a family
 *
 * A handler computes, then accesses memory, then commits. A fault leaves through
 * cpu_raise(), which does not return; whatever the handler changed before that is
 * its own mistake.
 *
 * Nothing here calls the operating system. Ports, device memory, time and stops
 * are reached through struct cpu_bus, which the engine provides.
 */
#ifndef TRAPLINE_CPU_CPU_H
#define TRAPLINE_CPU_CPU_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/descriptors.h"
#include "x86/registers.h"
#include "x86/vcpu_state.h"
#include "x86/vectors.h"

#include "cpu/flags.h"
#include "cpu/profile.h"

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

struct cpu;
struct insn;
struct trace;
struct trace_cache;
struct tlb;
struct tlb_set;
struct phys_memory;

/* Slots of cpu->reg beyond the sixteen GPRs, so that addresses need no branches. */
enum {
	REG_ZERO = GPR_COUNT, /* always 0: a missing base or index */
	REG_TRACE_RIP,        /* RIP of the first instruction of the running trace */
	REG_SLOTS
};

/* What decoding depends on besides the bytes: the low bits of a trace's key. */
enum code_mode {
	CODE_16 = 0,          /* CS.D = 0: real, VM86, 16-bit protected or compatibility */
	CODE_32 = 1,          /* CS.D = 1 */
	CODE_64 = 2,          /* CS.L = 1 in IA-32e mode */
	CODE_SIZE = 3,        /* mask of the above */
	CODE_PE = 4,          /* CR0.PE = 1 */
	CODE_VM86 = 8,        /* EFLAGS.VM = 1 */
	CODE_LMA = 16,        /* EFER.LMA = 1 */
	CODE_STACK32 = 32,    /* SS.B = 1 (ignored in 64-bit mode) */
	CODE_CPL3 = 64,       /* CPL = 3: so that user and kernel code do not share traces */
	CODE_FP = 128,        /* x87, MMX and SSE are open: CR0.EM = 0, CR0.TS = 0, CR4.OSFXSR = 1 */
	CODE_GUEST = 256,     /* in a guest of AMD-V or VT-x: what it may not do stands in front of handlers */
	CODE_MODES = 512
};

/*
 * A segment register. The architectural part is followed by what each access needs,
 * made by segment_derive(): an access of n bytes at offset o is inside when
 * o + n <= end (64-bit sum); else, the slow path decides and raises.
 */
struct cpu_segment {
	struct segment s;
	uint64_t linear_base; /* s.base, or 0 where 64-bit mode ignores it */
	uint64_t read_end;    /* 0 where not readable, expand-down or null */
	uint64_t write_end;   /* 0 where not writable, expand-down or null */
};

/* An exception or interrupt on its way to delivery (SDM 3A 6.4, 6.12). */
enum event_kind {
	EVENT_FAULT,              /* an exception raised by cpu_raise() */
	EVENT_TRAP,               /* #DB after an instruction */
	EVENT_SOFTWARE_INTERRUPT, /* INT n */
	EVENT_SOFTWARE_EXCEPTION, /* INT3, INTO */
	EVENT_PRIVILEGED_SOFTWARE_EXCEPTION, /* INT1 */
	EVENT_EXTERNAL_INTERRUPT,
	EVENT_NMI,
	EVENT_NONE
};
struct event {
	enum event_kind kind;
	uint8_t vector;
	bool has_error_code;
	uint32_t error_code;
	uint64_t return_rip; /* RIP to push */
	bool injected;       /* by VM entry: DR6 and DR7 are as they shall be (SDM 3C 27.6.1.1) */
};

/* Why cpu_run() came back. */
enum cpu_stop {
	CPU_STOP_BUDGET,     /* cpu->stop_at instructions have retired */
	CPU_STOP_REQUESTED,  /* the bus called cpu_request_stop(), or event_at was reached before stop_at */
	CPU_STOP_YIELD,      /* PAUSE, where cpu->shares */
	CPU_STOP_HALT,       /* HLT, MWAIT or wait-for-SIPI, and nothing that is pending can end it */
	CPU_STOP_SHUTDOWN,   /* triple fault: SDM 3A 6.15 (#DF) */
	CPU_STOP_UNMODELLED  /* an instruction or feature that is not modelled; cpu->unmodelled says which */
};

/*
 * What a CPU reaches outside itself. Provided by the engine, called on the CPU's
 * thread. Sizes are 1, 2 or 4 bytes for ports and 1 to 16 for memory.
 */
struct cpu_bus {
	void *owner;
	uint32_t (*port_in)(void *owner, uint16_t port, unsigned size);
	void (*port_out)(void *owner, uint16_t port, unsigned size, uint32_t value);
	/* Physical addresses that no memory slot holds. */
	void (*mmio_read)(void *owner, uint64_t address, void *to, unsigned size);
	void (*mmio_write)(void *owner, uint64_t address, const void *from, unsigned size);
	/* The local APIC: takes the highest-priority vector, or returns -1. */
	int (*interrupt_acknowledge)(void *owner);
	/* The local APIC: EOI, as if its register were written (posted interrupts). May be NULL. */
	void (*interrupt_end)(void *owner);
	void (*cr8_written)(void *owner, uint64_t cr8);
	/* INIT was taken, after cpu_reset(): the local APIC's part of it, and what the CPU does next. */
	void (*init_taken)(void *owner);
	/* The TSC was written: deadlines lie elsewhere now. May be NULL. */
	void (*tsc_moved)(void *owner);
	/* msr_counter_overflow() says something else now. May be NULL. */
	void (*counters_moved)(void *owner);
	/* MSRs that belong to the APIC (x2APIC range, IA32_APIC_BASE, IA32_TSC_DEADLINE). False: #GP(0). */
	bool (*msr_read)(void *owner, uint32_t index, uint64_t *value);
	bool (*msr_write)(void *owner, uint32_t index, uint64_t value);
	/* Every instruction before it runs, when cpu->tracing. */
	void (*trace_insn)(void *owner, struct cpu *cpu, const struct insn *insn);
	void (*trace_event)(void *owner, struct cpu *cpu, const struct event *event);
	/* One line about a change of worlds (cpu_note()), when cpu->tracing. May be NULL. */
	void (*trace_note)(void *owner, struct cpu *cpu, const char *text);
};

/* Reasons to leave the fast path between two instructions: bits of cpu->pending. */
enum {
	PENDING_STOP = 1,      /* cpu_request_stop() */
	PENDING_INTERRUPT = 2, /* the interrupt line is raised */
	PENDING_NMI = 4,
	PENDING_SMI = 8,
	PENDING_INIT = 16,
	PENDING_SHADOW = 32,   /* cpu->shadow is set: step one instruction, then clear it */
	PENDING_STEP = 64,     /* RFLAGS.TF, an enabled code breakpoint, or tracing: one instruction at a time */
	PENDING_DEBUG = 128,   /* cpu->dr6_pending holds a data or I/O breakpoint to report after this instruction */
	PENDING_YIELD = 256,   /* PAUSE, where cpu->shares */
	PENDING_VIRTUAL = 512  /* something that only a guest has: a virtual interrupt that is not masked, a window, a timer */
};

/* An answer of profile_cpuid() that is kept. */
#define CPUID_ANSWERS 16u
struct cpuid_answer {
	bool known;
	uint32_t leaf, subleaf;
	struct cpuid_registers registers;
};

/* MONITOR and its kin, and how the wait behind it ends (SDM 2B MWAIT, 2D UMWAIT; APM 3 MWAITX). */
struct cpu_wait {
	bool armed;          /* a store to the line at @line disarms, and ends ACTIVITY_MWAIT */
	bool masked;         /* interrupts end it even where IF = 0 */
	bool carry;          /* CF = 1 when @until is what ends it */
	uint64_t line;       /* physical address, a multiple of MONITOR_LINE */
	uint64_t until;      /* of cpu_ticks(); UINT64_MAX: no limit of time */
};

/* Address spaces whose translations are kept side by side (mem/tlb.h): a host and guests two levels down. */
#define TLB_SPACES 4u

/* The I/O instruction that an SMI came from. Only between its bus call and the SMI, which comes right behind. */
struct cpu_io {
	bool valid, in, string, repeat, immediate;
	uint8_t size, address_width, segment;
	uint16_t port;
	uint64_t rip;
};

struct cpu {
	/* Hot: what almost every handler touches. */
	uint64_t reg[REG_SLOTS];
	struct lazy_flags lazy;    /* OSZAPC */
	uint64_t rflags;           /* all other flags; OSZAPC bits here are stale, see flags.h */
	const struct insn *insn;   /* the one being executed; set by handlers that can fault */
	uint64_t rip;              /* valid between traces only; in a handler use cpu_rip() */
	uint64_t linear_mask;      /* ~0 in 64-bit mode, 0xffffffff elsewhere */
	uint64_t stack_mask;       /* 0xffff, 0xffffffff or ~0: SP, ESP or RSP */
	struct tlb *tlb;           /* for data at the current privilege and EFLAGS.AC */
	uint32_t code_mode;        /* enum code_mode bits */
	uint32_t cpl;
	uint32_t pending;          /* PENDING_ bits */
	/*
	 * Instructions, each REP iteration and each delivered event counted (so that a loop of
	 * faults comes to its end); exact between traces, in a handler see cpu_retired().
	 */
	uint64_t retired;
	uint64_t stop_at;          /* budget: stop when retired reaches this */
	uint64_t event_at;         /* min(stop_at, next timer): leave the fast path here */
	struct cpu_segment segment[SEGMENT_COUNT];

	/* Architectural state that is not hot. */
	struct cpu_segment ldtr, tr; /* derived parts unused */
	struct table_register gdtr, idtr;
	uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer;
	uint64_t dr[4], dr6, dr7;
	uint64_t pdpte[4];
	struct vcpu_state msr;     /* the MSRs only: msr.star, msr.lstar, …; other fields unused */
	uint32_t pkru, mxcsr;
	struct x87_register st[8];
	uint16_t fcw, fsw, ftw, fop, fcs, fds;
	uint64_t fip, fdp;
	uint64_t vector[64] __attribute__((aligned(32)));
	enum activity activity;
	enum shadow shadow;
	bool nmi_blocked, nmi_pending, smm;
	bool init_pending, smi_pending; /* with their PENDING_ bits */
	struct cpu_io smi_io;      /* smm.c's: the I/O instruction that has raised the pending SMI */
	bool interrupt_line;       /* INTR; PENDING_INTERRUPT is set while it is raised and IF = 1 */
	uint64_t dr6_pending;      /* DR6 bits of breakpoints hit by the running instruction */
	uint64_t clock_offset;     /* cpu_ticks() = retired + clock_offset; the engine's */
	uint64_t tsc_offset;       /* TSC = cpu_ticks() + tsc_offset */
	struct cpu_wait wait;

	/* The model's own. */
	const struct profile *profile; /* what CPUID says */
	struct cpu_bus bus;
	struct phys_memory *memory;
	struct trace_cache *traces;
	struct tlb *tlbs;          /* TLB_CONTEXTS of them, of the space that runs */
	struct tlb_set *tlb_sets[TLB_SPACES]; /* tlb.c's: of the host, and of guests as far as there were any */
	uint64_t tlb_switches;
	struct cpuid_answer cpuid[CPUID_ANSWERS]; /* cpuid.c's: what the profile, which does not change, has answered */
	uint32_t apic_id;          /* initial APIC id, as CPUID tells it; set by the engine, 0 after cpu_new() */
	uint64_t physical_mask;    /* bits of a physical address, from the profile */
	uint64_t apic_page;        /* where device memory hides a page of RAM from this processor; CPU_NO_PAGE: nowhere */
	bool tracing;
	bool shares;               /* other CPUs wait for their turn: PAUSE ends this one's */
	struct event delivering;   /* while delivering_depth > 0: for #DF and for EXT */
	int delivering_depth;
	/* trace.c's: what a jump needs, and the handler put aside to leave a running trace. */
	uint64_t code_end;         /* CS limit + 1; ~0 in 64-bit mode */
	uint64_t jump_tag;         /* mapping generation and code_mode, for the jump cache */
	struct insn *parked;
	const struct insn *(*parked_run)(struct cpu *cpu, const struct insn *insn);

	bool step_tf;              /* run.c: TF was set when the running instruction began */
	enum shadow shadow_was;    /* run.c: the shadow that the running instruction, stepped alone, is in */
	uint32_t resume_was;       /* and RFLAGS.RF as it found it */
	uint64_t left_next_rip;    /* run.c: RIP behind the instruction that was left by an event */
	/* svm/, vmx/: between an entry or a fault and what run.c makes of it. */
	uint64_t fault_address;    /* of a #PF that a hypervisor takes: CR2 is not written */
	bool injecting;            /* deliver @injected, then go on */
	struct event injected;
	const uint8_t *vmcs_reads; /* vmx/: the current VMCS, while an entry or an exit lasts */
	uint8_t *vmcs_stores;
	uint32_t vmx_allowed[5];   /* vmx/capability.c: by enum vmx_controls */
	bool nmi_unblocked;        /* vmx/: the running instruction is an IRET that has unblocked (virtual) NMIs */
	char unmodelled[160];      /* for CPU_STOP_UNMODELLED: what, with bytes and address */
	jmp_buf unwind;            /* run.c: where cpu_raise() goes */
	struct event raised;       /* what it carries */
};

/* ---- life (cpu.c) ---- */

/*
 * Makes a CPU in its reset state (SDM 3A 9.1.1). The profile, bus and memory are
 * borrowed and must outlive it. NULL when out of memory. Freed by cpu_free().
 */
struct cpu *cpu_new(const struct profile *profile, const struct cpu_bus *bus, struct phys_memory *memory);
void cpu_free(struct cpu *cpu);
/* The profile is another one: drops what was made of it. State that it could not be in is the caller's to load. */
void cpu_profile_changed(struct cpu *cpu);
/* RESET or INIT (INIT keeps the x87, SSE state, MSRs and TSC: SDM 3A table 9-1). */
void cpu_reset(struct cpu *cpu, bool init);
/* Architectural state out and in. Loading drops what was cached of the old one. */
void cpu_save(struct cpu *cpu, struct vcpu_state *to);
void cpu_load(struct cpu *cpu, const struct vcpu_state *from);
/* A field of @state that no processor of this kind can hold, or NULL: others must not be loaded. */
const char *cpu_state_wrong(const struct cpu *cpu, const struct vcpu_state *state);

/*
 * Makes what is derived from CR0, CR4, EFER, RFLAGS, DR7 and the segment registers:
 * code_mode, cpl (0 in real-address mode, 3 in virtual-8086 mode, else the DPL of SS, which
 * even a null SS keeps: SDM 3C 25.4.1), masks, tlb, pending. Call after any change of these,
 * once CS and SS are both in place. Traces must end after an instruction that can call it
 * (flag ENDS in opcodes.def).
 */
void cpu_mode_changed(struct cpu *cpu);
/* The part of it that follows TF, DR7 and tracing: whether instructions run one at a time. */
void cpu_step_changed(struct cpu *cpu);

/* ---- running (run.c) ---- */

/*
 * Runs until something stops it. cpu->stop_at and clock_offset must be set; event_at where it lies between now
 * and stop_at ends the run as well (CPU_STOP_REQUESTED), elsewhere it is ignored. On return RIP and retired are
 * exact. A CPU that stopped for HALT or SHUTDOWN stays so until an event or a reset.
 */
enum cpu_stop cpu_run(struct cpu *cpu);
#define CPU_NO_PAGE UINT64_MAX
/* The local APIC's registers are at physical @page, over whatever memory is there (SDM 3A 10.4.1). */
void cpu_set_apic_page(struct cpu *cpu, uint64_t page);
/* From a bus call: come back from cpu_run() after the current instruction. */
void cpu_request_stop(struct cpu *cpu);
/* The level of the interrupt line (INTR); delivered by bus.interrupt_acknowledge. */
void cpu_set_interrupt_line(struct cpu *cpu, bool raised);
void cpu_raise_nmi(struct cpu *cpu);
void cpu_raise_smi(struct cpu *cpu);
/* Call after setting init_pending, smi_pending or what cpu->wait watches. */
void cpu_latches_changed(struct cpu *cpu);
/* The next thing is the delivery of an external interrupt that was acknowledged elsewhere. */
void cpu_inject_interrupt(struct cpu *cpu, uint8_t vector);
/* Latches INIT; a CPU that is not in cpu_run() takes it at once (but in SMM), else before its next instruction. */
void cpu_raise_init(struct cpu *cpu, bool running);
/* A start-up IPI: without effect where the CPU does not wait for one (SDM 3A 9.4.4.1). Not in cpu_run(). */
void cpu_start(struct cpu *cpu, uint8_t vector);
/* Whether cpu_run() would do anything: the CPU is active, or what is pending ends its wait. */
bool cpu_runnable(const struct cpu *cpu);
/* The tick at which a CPU that waits goes on by itself, by the limit of MWAIT or a guest's timer; UINT64_MAX: never. */
uint64_t cpu_wait_end(const struct cpu *cpu);
/* A PAUSE: comes back from cpu_run() after it. */
void cpu_yield(struct cpu *cpu);
/* Moves event_at, from a bus call too; past stop_at, it is stop_at. */
void cpu_set_event_at(struct cpu *cpu, uint64_t retired);

/* The clock that all CPUs of a machine share, in ticks, one an instruction; exact in a handler too. */
uint64_t cpu_ticks(const struct cpu *cpu);

/* RIP of the instruction being executed, and of the one after it. */
uint64_t cpu_rip(const struct cpu *cpu);
uint64_t cpu_next_rip(const struct cpu *cpu);

/* ---- leaving an instruction (run.c); none of these return ---- */

/* An exception of class fault; error_code is ignored where the vector has none. */
_Noreturn void cpu_raise(struct cpu *cpu, enum vector vector, uint32_t error_code);
/* Any other event: INT n, traps, shutdown inside delivery. */
_Noreturn void cpu_raise_event(struct cpu *cpu, const struct event *event);
/*
 * The handler has changed everything, cpu->rip and cpu->retired too: goes on there, after the event of
 * cpu->injected where there is one.
 */
_Noreturn void cpu_switch(struct cpu *cpu);
/* The running instruction does not complete: cpu->rip and cpu->retired become those in front of it. Returns. */
void cpu_leave_insn(struct cpu *cpu);
/* Something that is not modelled: ends the run, with the instruction's bytes and address added. */
_Noreturn void cpu_unmodelled(struct cpu *cpu, const char *what);

/* A line of the trace that is no instruction and no event: VMRUN, #VMEXIT, SMI. Nothing where nothing is traced. */
void cpu_note(struct cpu *cpu, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- modes, by the manuals' names ---- */

static inline bool cpu_protected(const struct cpu *cpu) { return cpu->cr0 & CR0_PE; }
static inline bool cpu_vm86(const struct cpu *cpu) { return cpu->rflags & RFLAGS_VM; }
static inline bool cpu_real_or_vm86(const struct cpu *cpu)
{
	return (cpu->code_mode & (CODE_PE | CODE_VM86)) != CODE_PE;
}
static inline bool cpu_ia32e(const struct cpu *cpu) { return cpu->efer & EFER_LMA; }
static inline bool cpu_64bit(const struct cpu *cpu) { return cpu->code_mode & CODE_64; }
/*
 * Whether the descriptors of LDTs and TSSs have 16 bytes: in all of IA-32e mode by the SDM (3A 3.5, table 3-2), in
 * 64-bit mode alone by the APM, for which compatibility mode has those of legacy mode (3 LLDT, LTR).
 */
static inline bool cpu_wide_system_segments(const struct cpu *cpu)
{
	return cpu_64bit(cpu) || (cpu_ia32e(cpu) && cpu->profile->vendor != VENDOR_AMD);
}
static inline unsigned cpu_iopl(const struct cpu *cpu)
{
	return (cpu->rflags & RFLAGS_IOPL) >> RFLAGS_IOPL_SHIFT;
}
static inline bool cpu_has(const struct cpu *cpu, enum feature feature)
{
	return profile_has(cpu->profile, feature);
}

#endif
