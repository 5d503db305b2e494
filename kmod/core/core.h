/*
 * core.h: a thin hypervisor that passes the machine through to one guest.
 *
 * The guest has all memory but the hypervisor's own, at the same addresses; ports, devices, interrupts and
 * most MSRs are the machine's. Intercepted is what would otherwise take the processor out of the hypervisor's
 * hands: the virtualization extension itself (hidden, or nested), CPUID, which tells of it, and the writes by
 * which another processor is started. Everything else that exits does so because the hardware leaves no
 * choice. Hypervisors of this kind stack: what is offered to the guest is what svm_nested.c or vmx_nested.c
 * nests.
 *
 *   core.c     the machine and its vCPUs; which vendor's file is asked
 *   exits.c    exits that both vendors have: CPUID, MSRs, memory
 *   tables.c   the nested tables: identity, filled where they are missing, holes for what is not the guest's
 *   shadow.c   nested tables of a guest that is a hypervisor, joined with ours
 *   apic.c     the interrupt command register: other processors start in the hypervisor
 *   linear.c   the guest's memory by linear addresses, with its rights; walk.c without
 *   record.c   what the bytes under test do (x86/l1.h)
 *   svm*.c     AMD-V; svm_nested.c and svm_shadow.c are the guest that is a hypervisor itself
 *   vmx*.c     VT-x; the same
 *
 * Freestanding: no library, no data that needs relocation on the entry path. A vCPU belongs to the processor
 * that runs it; what several share is struct core_machine, which changes after its start only as said there.
 */
#ifndef TRAPLINE_KMOD_CORE_CORE_H
#define TRAPLINE_KMOD_CORE_CORE_H

#include "kmod/core/hw.h"

#define CORE_CPUS_MAX 64u
#define CORE_PAGE     0x1000u
#define TABLES_LARGE  0x200000ull

enum core_vendor { CORE_SVM, CORE_VMX };

struct svm_vcpu;
struct vmx_vcpu;

struct core_machine {
	enum core_vendor vendor;
	uint64_t hidden, hidden_size; /* the hypervisor's own memory: whole blocks of 2 MiB */
	uint64_t mapped;              /* hw_map() reaches what is below */
	unsigned cpus;                /* where there are several, interrupt commands are watched */
	uint8_t startup_page;         /* where a processor begins that is sent a SIPI: the embedder's code */
	bool nest;                    /* offer the guest the extension */
	unsigned depth;               /* at which the guest runs */
	uint8_t *ones;                /* AMD-V: maps in which everything is intercepted */
	/* By local APIC id: where the guest wants that processor to begin. Written before its SIPI is sent.
	 */
	volatile uint8_t startup_vector[256];
};

/* The bytes under test (x86/l1.h). */
struct core_record {
	uint64_t physical; /* 0: none */
	uint32_t size;
	bool fenced;     /* they cannot be executed: the next attempt arms */
	bool armed;      /* all intercepts are on */
	uint64_t linear; /* where they begin, known once armed */
};

/* A write to the local APIC's page, which one instruction makes to a page of ours instead. */
struct core_step {
	bool on;
	uint64_t guest; /* physical address of the write */
	bool direct;    /* it goes to the local APIC itself */
	bool joined;    /* by a guest's guest, through the joined tables: */
	uint64_t at;    /* their address of it */
	uint8_t *page;
};

struct core_vcpu {
	struct core_machine *machine;
	uint32_t apic_id;
	uint64_t gpr[GPR_COUNT]; /* the guest's; RAX and RSP too, between an exit and the next entry */
	uint64_t rip;            /* the guest's, likewise */
	uint64_t *tables;        /* root of the nested tables (tables.c) */
	uint64_t apic_page;      /* writes to this page are watched; 0: none */
	uint64_t *apic_entry;    /* of the nested tables, for it */
	struct core_record record;
	struct core_step step;
	struct svm_vcpu *svm; /* of the machine's vendor, else NULL */
	struct vmx_vcpu *vmx;
};

/* ---- for the embedder ---- */

/* Picks the vendor. NULL, or why this processor cannot run guests, with the probe that says so. */
const char *core_probe(struct core_machine *machine);

/*
 * Makes a vCPU for the processor that calls, and switches its extension on. @machine is filled but for what
 * core_probe() does. NULL, or what went wrong.
 */
const char *core_create(struct core_vcpu *vcpu, struct core_machine *machine);

/* How a guest starts. */
struct core_start {
	bool real;    /* real mode behind a SIPI; else 32-bit, flat, without paging (multiboot, PVH) */
	uint8_t page; /* real: the SIPI's vector */
	uint64_t rip; /* flat */
	uint64_t rax, rbx, rsi; /* flat */
};
void core_start(struct core_vcpu *vcpu, const struct core_start *start);

/* Runs the guest; it does not end but with the machine. */
_Noreturn void core_run(struct core_vcpu *vcpu);

/* ---- exits.c: for the vendor's exits ---- */

/* CPUID, RDMSR, WRMSR: does the instruction and steps over it, or raises its fault. */
void core_exit_cpuid(struct core_vcpu *vcpu);
void core_exit_rdmsr(struct core_vcpu *vcpu);
void core_exit_wrmsr(struct core_vcpu *vcpu);
/* The MSR @index of the guest, other than those of its control structure; false: #GP. */
bool core_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value);

/* What an access to memory is. */
enum core_access { CORE_READ = 1, CORE_WRITE = 2, CORE_EXECUTE = 4 };
/* The nested tables refused @access to @guest; the access is made again. */
void core_exit_memory(struct core_vcpu *vcpu, uint64_t guest, unsigned access);
/* A write to the local APIC's page at @guest: by one instruction to a page of ours. */
void core_step_write(struct core_vcpu *vcpu, uint64_t guest);
/* The same of a guest's guest, whose nested tables have it at @at. */
void core_step_joined(struct core_vcpu *vcpu, uint64_t at, uint64_t guest);
/* That instruction writes to @host, and may (@access). */
void core_step_map(struct core_vcpu *vcpu, uint64_t host, unsigned access);
/* The instruction that step() was for is done, or has raised something instead (@completed). */
void core_exit_stepped(struct core_vcpu *vcpu, bool completed);

/* ---- tables.c ---- */

/*
 * Maps the 4 KiB page of @guest to @host for @access (0: nothing); the rest of its 2 MiB block stays as it
 * was. The caller flushes where rights were taken.
 */
void tables_set(struct core_vcpu *vcpu, uint64_t guest, uint64_t host, unsigned access);
/* The entry that it writes, which stays where it is. */
uint64_t *tables_entry(struct core_vcpu *vcpu, uint64_t guest);
/* Maps the 2 MiB block of @guest to itself; false: there was a mapping. */
bool tables_fill(struct core_vcpu *vcpu, uint64_t guest);
/* Whether [@address, @address + @size) is clear of the hypervisor's memory. */
bool tables_guests(const struct core_machine *machine, uint64_t address, uint64_t size);
/* The same, and hw_map() reaches it: for structures that a guest points us to. */
static inline bool tables_reached(const struct core_machine *machine, uint64_t address, uint64_t size)
{
	return tables_guests(machine, address, size) && address + size <= machine->mapped;
}
/* A root without entries; NULL where there is no page left. */
uint64_t *tables_new(void);

/* ---- apic.c ---- */

/* Watches the local APIC's page where APIC_BASE says that it is (again: after a change). */
void apic_watch(struct core_vcpu *vcpu);
/* A write of the register at @offset of the page. */
void apic_write(struct core_vcpu *vcpu, unsigned offset, uint32_t value);
/* Whether that write is a command; and one that sends an SMI. */
bool apic_is_command(unsigned offset);
bool apic_sends_smi(unsigned offset, uint32_t value);
/* To this processor, from itself. */
enum apic_delivery { APIC_SMI = 2 << 8, APIC_NMI = 4 << 8, APIC_INIT = 5 << 8 };
void apic_send_self(struct core_vcpu *vcpu, enum apic_delivery delivery);
/* WRMSR to the register @index of x2APIC; false: #GP. */
bool apic_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value);

/* An SMI to this processor, from itself, under AMD-V. True: it waits until the guest's GIF is 1 (svm_gif.c).
 */
bool svm_holds_smi(struct core_vcpu *vcpu);

/* ---- record.c ---- */

/* A call of the guest by CPUID (x86/l1.h): fills @out, its EAX to EDX. */
void record_call(struct core_vcpu *vcpu, uint32_t call, uint32_t out[4]);
/* An attempt to execute at the physical address @guest. True: it was the fence, which is gone now. */
bool record_reached(struct core_vcpu *vcpu, uint64_t guest);
/*
 * While the record is armed: an instruction of the guest exits with @code. True: tell of nothing else, the
 * vendor's intercept() has switched that intercept off and the instruction is executed again. False: the exit
 * is one that the hypervisor needs itself; @needed says so. All exits of instructions go through here first.
 */
bool record_exit(struct core_vcpu *vcpu, uint32_t code, uint64_t info1, uint64_t info2, bool needed);

/* ---- what each vendor has ---- */

enum core_msr { MSR_DONE, MSR_FAULT, MSR_NOT_MINE };

#define CORE_VENDOR(vendor)                                                                                  \
	/* As core_probe(), for this vendor. */                                                              \
	const char *vendor##_missing(void);                                                                  \
	/* Control structures, and the extension on: NULL, or what went wrong. */                            \
	const char *vendor##_create(struct core_vcpu *vcpu);                                                 \
	void vendor##_start(struct core_vcpu *vcpu, const struct core_start *start);                         \
	/* An entry, and the exit that ends it, handled. */                                                  \
	void vendor##_run(struct core_vcpu *vcpu);                                                           \
	/* The exception @vector at the next entry, with @error where the manual pushes one. */              \
	void vendor##_raise(struct core_vcpu *vcpu, unsigned vector, uint32_t error);                        \
	/* The instruction that exited is done: RIP, RF and shadow as behind it. */                          \
	void vendor##_skip(struct core_vcpu *vcpu);                                                          \
	/* Where the instruction that exited is. */                                                          \
	uint64_t vendor##_linear_rip(const struct core_vcpu *vcpu);                                          \
	uint64_t vendor##_cr4(const struct core_vcpu *vcpu);                                                 \
	/* Makes what CPUID told of the machine what the guest may know of it. */                            \
	void vendor##_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);       \
	/* MSRs that are the hypervisor's. */                                                                \
	enum core_msr vendor##_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value);            \
	enum core_msr vendor##_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value);            \
	/* Exits for writes of the MSR @index too. */                                                        \
	void vendor##_watch_msr(struct core_vcpu *vcpu, uint32_t index);                                     \
	/* Every intercept that an instruction can have; or only the hypervisor's own. */                    \
	void vendor##_arm(struct core_vcpu *vcpu, bool on);                                                  \
	/* What the record tells of the controls that are on while it is armed (x86/l1.h); 0: nothing. */    \
	uint64_t vendor##_told_controls(const struct core_vcpu *vcpu);                                       \
	/* The intercept behind exit @code off, where it is there for the record alone. */                   \
	void vendor##_release(struct core_vcpu *vcpu, uint32_t code, uint64_t info1);                        \
	/* One instruction, nothing in between; then core_exit_stepped(). */                                 \
	void vendor##_step(struct core_vcpu *vcpu);                                                          \
	/* As tables_set(), in the joined tables of a guest that is a hypervisor. */                         \
	void vendor##_shadow_set(struct core_vcpu *vcpu, uint64_t address, uint64_t host, unsigned access);  \
	/* Forgets translations that went through the nested tables. */                                      \
	void vendor##_flush(struct core_vcpu *vcpu);                                                         \
	/* An entry of the nested tables: of a table, or of a page of 4 KiB or 2 MiB with @access. */        \
	uint64_t vendor##_table_entry(uint64_t address);                                                     \
	uint64_t vendor##_page_entry(const struct core_vcpu *vcpu, uint64_t address, unsigned access,        \
				     bool large);

CORE_VENDOR(svm)
CORE_VENDOR(vmx)
#undef CORE_VENDOR

/* The machine's vendor is asked. */
#define CORE_CALL(vcpu, function, ...)                                                                       \
	((vcpu)->machine->vendor == CORE_SVM ? svm_##function(__VA_ARGS__) : vmx_##function(__VA_ARGS__))

#endif
