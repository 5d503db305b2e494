/*
 * kvm.h: the parts of the kvm engine among themselves.
 *
 * kvm.c makes vCPUs and takes their exits, kvm_run.c runs them, kvm_chips.c has their interrupt chips and the
 * time, kvm_device.c opens a device and says why it cannot, kvm_cpuid.c knows which processor the guest sees,
 * kvm_guest_msrs.c answers for MSRs, kvm_memory.c keeps slots and what was written to
 * them, kvm_state.c, kvm_msrs.c and kvm_events.c translate to and from struct vcpu_state, kvm_trace.c tells of instructions and of exits.
 * No one else sees <linux/kvm.h>.
 *
 * While the engine runs, everything here is behind its lock, but for a vCPU's shared page (struct kvm_run)
 * and its descriptor: those are its own thread's. Between two runs all of it is the caller's.
 */
#ifndef TRAPLINE_ENGINE_KVM_H
#define TRAPLINE_ENGINE_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <time.h>

#include "engine/chips.h"
#include "engine/latches.h"

/* Period of the local APIC's timer of a guest that begins here, before the divider. */
#define KVM_APIC_TIMER_NS 10u

#define LEAF1_ECX_X2APIC       (1u << 21)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)

#define KVM_SLOTS_MAX   16
#define KVM_CPUID_MAX   256
#define KVM_MSRS_MAX    512
#define KVM_FAILURE_MAX 256

struct kvm_slot {
	uint64_t base, size;
	uint8_t *host;
	bool read_only;
	uint64_t *log;     /* room for the kernel's bitmap, one bit a page */
	uint64_t *written; /* pages written since kvm_dirty_reset(), one bit each */
};

/* What a device was found to be able to do beyond what is required. */
struct kvm_abilities {
	bool xcrs, sregs2, guest_debug, statistics, tsc_offset, payload, smm, nested;
	bool guest_msrs; /* the guest's accesses to some MSRs come to us */
	size_t xsave_size;
};

/* State that struct vcpu_state has no field for, as the kernel gave it when it was last saved. */
struct kvm_remainder {
	struct kvm_msrs *msrs;
	struct kvm_xsave *xsave;
};

/* The same as it travels, to another kvm engine alone; all of it is zero where there is nothing to tell. */
#define KVM_XSAVE_MAX  16384u
#define KVM_NESTED_MAX 16384u
struct kvm_only {
	uint32_t msr_count;
	struct kvm_msr_entry msr[KVM_MSRS_MAX];
	uint8_t xsave[KVM_XSAVE_MAX] __attribute__((aligned(8)));
	uint8_t nested[KVM_NESTED_MAX] __attribute__((aligned(8))); /* struct kvm_nested_state */
};

struct kvm_vcpu {
	struct engine_vcpu vcpu;
	int fd;
	struct kvm_run *run;
	uint32_t activity; /* enum activity: what the kernel leaves to us */
	bool line;         /* INTR, as the local APIC last told it */
	bool fresh;        /* it has been loaded, and no exit has told yet whether it can take an interrupt */
	/* What others have sent, until its own thread takes it: only that may call for its descriptor. */
	bool init_pending, nmi_pending, smi_pending, sipi_pending;
	uint8_t sipi_vector;
	/* As of kvm_chips_fetch(), for kvm_chips_store(). */
	struct latches latches;
	struct kvm_only only;
	struct kvmclock kvmclock;
	uint64_t tsc_seen, tsc_seen_at; /* its TSC, and the host's clock then */
	struct vcpu_state loaded; /* by kvm_vcpu_load(), last */
	bool unfinished; /* its last exit was an access that the device has yet to finish */

	pthread_t thread;
	bool has_thread;     /* one that we have made: all but the first */
	pthread_cond_t wake; /* a kick, or a new round */
	bool waiting;        /* has nothing to run, until it is kicked */
	bool inside;         /* within KVM_RUN, or about to be, without the lock */
	uint64_t round;      /* the last run() that it took part in */

	const char *refused;     /* what the device would not do for a chip: ends the run */
	struct vcpu_state reset; /* as the device made it */

	unsigned field_count, remainder_count;
	uint16_t field[KVM_MSRS_MAX]; /* rows of the table of MSRs that this device takes */
	struct kvm_msrs *msrs;        /* room for all of them */
	struct kvm_msrs *remainder_reset; /* what RESET makes of the remainder */
	struct kvm_remainder remainder;
	struct kvm_xsave *xsave; /* room for one */

	struct engine_trace trace;
	bool at_halt;        /* the instruction last told is a HLT… */
	uint64_t after_halt; /* …and this is the one behind it */
	int statistics;
};

struct kvm_time {
	struct engine_time state; /* first: what the table is of */
	uint64_t began; /* of the host's clock, when the machine's was 0 */
	bool passed;    /* vCPUs have run since */
	uint64_t held;  /* of the host's clock: the moment at which devices do what they are at; 0: they are at nothing */
};

struct kvm_engine {
	struct engine engine;
	struct engine_bus bus;
	struct chips chips;
	bool latched; /* some vCPU had latches set when kvm_chips_fetch() was called */
	struct clock *clock, own_clock;
	struct kvm_time time;
	int64_t wall_clock; /* as in struct engine_config */
	uint32_t tsc_khz;   /* as the device tells; 0: it does not */
	pthread_mutex_t lock;
	pthread_cond_t idle; /* running is 0 */
	uint64_t round;      /* run() is called for the nth time */
	unsigned running;    /* threads that still are in this round */
	bool quit;
	int end;        /* enum engine_exit of this round, or KVM_GO_ON */
	uint64_t over;  /* of the host's clock: when run() comes back */
	uint64_t pace, steps; /* as in engine_ops.pace; that are left of this round */
	uint64_t patience;    /* ns that a round takes where a pace is set: more where the last came to nothing */
	timer_t slice;  /* whose signal ends the first vCPU's KVM_RUN… */
	uint64_t armed; /* …at this time of the host's clock; 0: it does not */
	bool has_slice;
	char failure[KVM_FAILURE_MAX];
	int device, vm;
	struct kvm_abilities can;
	struct guest_cpu own;   /* the device's processor, less what the user takes away */
	struct guest_cpu guest; /* the one that the guest knows */
	bool amd;               /* that one's vendor */
	size_t run_size;
	unsigned address_spaces; /* 2: memory in SMM has slots of its own, which are the same here */
	unsigned slot_count;
	struct kvm_slot slot[KVM_SLOTS_MAX];
	uint64_t *pages; /* addresses for dirty_pages() */
	size_t page_room;
	bool shadows;         /* the kernel may keep shadows of the guest's page tables, which we restore */
	unsigned room, count; /* vCPUs: that may be made, that are */
	struct kvm_vcpu vcpu[ENGINE_VCPUS_MAX];
};

static inline struct kvm_engine *kvm_of(struct engine *engine) { return (struct kvm_engine *)engine; }
static inline struct kvm_vcpu *kvm_vcpu_of(struct engine_vcpu *vcpu) { return (struct kvm_vcpu *)vcpu; }
static inline struct kvm_engine *kvm_engine_of(const struct kvm_vcpu *vcpu)
{
	return kvm_of(vcpu->vcpu.engine);
}

/* ---- kvm.c ---- */

#define KVM_GO_ON (-1)
/* What the last exit means, as an enum engine_exit, or KVM_GO_ON. */
int kvm_take_exit(struct kvm_vcpu *vcpu);
/* ENGINE_FAILED, and why. */
enum engine_exit kvm_fail(struct kvm_vcpu *vcpu, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* ---- kvm_run.c ---- */

void kvm_run_init(struct kvm_engine *kvm);
/* Of a vCPU that has its descriptor. 0, or a negative errno. */
int kvm_run_open(struct kvm_vcpu *vcpu);
/* Ends the threads. */
void kvm_run_close(struct kvm_engine *kvm);
/* The vCPU looks up from where it is: something that it waits for may have come. */
void kvm_kick(struct kvm_vcpu *vcpu);
/* A timer is due earlier than the one that was next. */
void kvm_timer_moved(struct kvm_engine *kvm);
/* As in engine_ops. */
enum engine_exit kvm_run_vcpus(struct engine *engine, uint64_t budget);
void kvm_request_stop(struct engine *engine);
void kvm_pace(struct engine *engine, uint64_t steps);

/* ---- kvm_device.c ---- */

/* Opens @path (NULL: /dev/kvm) as a new VM: device, vm, can, own, guest, amd and run_size. 0, -ENOMEM, or -ENODEV
 * with @why. */
int kvm_device_open(struct kvm_engine *kvm, const char *path, char *why, size_t size);
void kvm_device_close(struct kvm_engine *kvm);
/* engine_ops.describe */
bool kvm_device_describe(const char *path, char *text, size_t size);
/* ioctl(), called again where it was interrupted or, some thousand times, where it shall be tried again. */
int kvm_ioctl(int fd, unsigned long request, void *argument);

/* ---- kvm_cpuid.c ---- */

/* own, guest and amd from the device. 0, -ENOMEM, or its error. */
int kvm_cpuid_read(struct kvm_engine *kvm);
/* "host", or "host,-feature…". 0, or -EINVAL with @why. */
int kvm_cpuid_profile(struct kvm_engine *kvm, const char *profile, char *why, size_t size);
/* Gives it to a vCPU. 0, -ENOMEM, or the device's error. */
int kvm_cpuid_set(struct kvm_vcpu *vcpu);
/* The guest's value of a CPUID register: 0 eax to 3 edx. */
uint32_t kvm_cpuid(const struct kvm_engine *kvm, uint32_t leaf, uint32_t subleaf, unsigned reg);
/* As in engine_ops. */
void kvm_cpu_tell(struct engine *engine, struct guest_cpu *to);
int kvm_cpu_take(struct engine *engine, const struct guest_cpu *from, char *why, size_t size);

/* ---- kvm_memory.c: as in engine_ops ---- */

int kvm_memory_add(struct engine *engine, uint64_t base, uint64_t size, void *host, bool read_only);
bool kvm_memory_replace(struct engine *engine, uint64_t address, const void *page);
bool kvm_memory_write(struct engine *engine, uint64_t address, const void *from, size_t size);
void kvm_dirty_pages(struct engine *engine, const uint64_t **pages, size_t *count);
void kvm_dirty_reset(struct engine *engine);
void kvm_dirty_restore(struct engine *engine, const uint8_t *image, uint64_t size);
void kvm_memory_free(struct kvm_engine *kvm);
/* Host memory behind a guest-physical address, @size bytes of it in one slot, or NULL. */
const uint8_t *kvm_memory_at(const struct kvm_engine *kvm, uint64_t address, size_t size);

/* ---- kvm_state.c ---- */

/* 0, -ENOMEM, or the device's error. */
int kvm_state_open(struct kvm_vcpu *vcpu);
void kvm_state_close(struct kvm_vcpu *vcpu);
/* CPUID is another one: finds out anew which MSRs there are, and what RESET makes. 0, -ENOMEM, or the device's error. */
int kvm_vcpu_changed(struct kvm_vcpu *vcpu);
int kvm_vcpu_save(struct engine_vcpu *vcpu, struct vcpu_state *to);
int kvm_vcpu_load(struct engine_vcpu *vcpu, const struct vcpu_state *from);
/* "the device refuses @what: " and errno, which it returns, negative. */
int kvm_refused(struct kvm_vcpu *vcpu, const char *what);
/* What the 64 bits at this offset of struct vcpu_state are after RESET. */
uint64_t kvm_neutral(size_t offset);
/* The whole XSAVE area. 0, or the device's error. */
int kvm_xsave_get(struct kvm_vcpu *vcpu, uint8_t *area);
/* Loads the components of @area that struct vcpu_state does not have. 0, or the device's error. */
int kvm_xsave_join(struct kvm_vcpu *vcpu, uint8_t *area);

/* ---- kvm_msrs.c ---- */

/* Finds out which MSRs the device takes. 0, -ENOMEM, or the device's error. */
int kvm_msrs_open(struct kvm_vcpu *vcpu);
void kvm_msrs_close(struct kvm_vcpu *vcpu);
/* Reads @count MSRs whose indices are in @msrs. 0, or an error with failure() naming the one that is refused. */
int kvm_msrs_get(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs, unsigned count);
/* The same for those of struct vcpu_state. */
int kvm_msrs_save(struct kvm_vcpu *vcpu, struct vcpu_state *to);
int kvm_msrs_load(struct kvm_vcpu *vcpu, const struct vcpu_state *from);
/* Makes the TSC so much more. False: the device does not give its offset out. */
bool kvm_tsc_move(struct kvm_vcpu *vcpu, uint64_t by);
/* A field that is not as after RESET, and which the device has no MSR for; NULL: there is none. */
const char *kvm_msrs_unheld(const struct kvm_vcpu *vcpu, const struct vcpu_state *from);
/* Whether all others are as after RESET. */
bool kvm_remainder_idle(const struct kvm_vcpu *vcpu);
/* Makes them so, but for @count. 0, or an error with failure() naming the MSR. */
int kvm_remainder_load(struct kvm_vcpu *vcpu, const struct kvm_msr_entry *entries, unsigned count);

/* ---- kvm_guest_msrs.c ---- */

/* Before there are vCPUs: whether the device lets us answer for MSRs. */
bool kvm_guest_msrs_open(struct kvm_engine *kvm);
/* The last exit was RDMSR or WRMSR. */
void kvm_guest_msr(struct kvm_vcpu *vcpu);
/* The vCPU's TSC may have been set. By its own thread, or between runs. */
void kvm_tsc_look(struct kvm_vcpu *vcpu);
/* By the last look: the TSC now; when, of the machine's clock, it will be @tsc. */
uint64_t kvm_tsc(const struct kvm_vcpu *vcpu);
uint64_t kvm_tsc_time(const struct kvm_vcpu *vcpu, uint64_t tsc);
/* All of the guest has come: from where the TSC had another rate, KVM's clock tells its own now. */
void kvm_clock_arrived(struct kvm_vcpu *vcpu);

/* ---- kvm_events.c; all: 0, or an error with failure() ---- */

int kvm_events_save(struct kvm_vcpu *vcpu, struct vcpu_state *to);
int kvm_events_load(struct kvm_vcpu *vcpu, const struct vcpu_state *from);
int kvm_latches_fetch(struct kvm_vcpu *vcpu);
int kvm_latches_store(struct kvm_vcpu *vcpu);
/* Whether there is one, as last fetched. */
bool kvm_latches_set(const struct kvm_vcpu *vcpu);
int kvm_only_fetch(struct kvm_vcpu *vcpu);
int kvm_only_store(struct kvm_vcpu *vcpu);
/* As in struct state_table; of a struct kvm_vcpu. */
bool kvm_only_idle(const void *device);
void kvm_only_clear(void *device);

/* ---- kvm_chips.c ---- */

uint64_t kvm_host_ns(void);
/* An access, or a round of timers, is of one moment for all that look at the clock: from here on, until it is let go. */
void kvm_time_hold(struct kvm_engine *kvm, bool hold);
/* @clock as in struct engine_config. */
void kvm_chips_open(struct kvm_engine *kvm, struct clock *clock);
/* The local APIC of a new vCPU. False: there is no room. */
bool kvm_chips_add(struct kvm_vcpu *vcpu);
/* What it is, once the guest's CPUID is another one. */
void kvm_chips_remodel(struct kvm_vcpu *vcpu);
/* RESET of all chips, and who of the vCPUs waits for a SIPI. */
void kvm_chips_reset(struct kvm_engine *kvm);
/* Takes what others have sent to the vCPU. */
void kvm_chips_settle(struct kvm_vcpu *vcpu);
/* Forgets it. */
void kvm_chips_drop(struct kvm_vcpu *vcpu);
/* Whether it has something to run, or an event has just ended its wait. Settles. */
bool kvm_chips_runnable(struct kvm_vcpu *vcpu);
void kvm_chips_before(struct kvm_vcpu *vcpu);
void kvm_chips_after(struct kvm_vcpu *vcpu);
void kvm_chips_load(struct kvm_vcpu *vcpu, const struct vcpu_state *from);
/* As in engine_ops. */
void kvm_firmware(struct engine *engine, uint16_t level);
void kvm_interrupt_input(struct engine *engine, unsigned gsi, bool raised);
void kvm_msi(struct engine *engine, uint64_t address, uint32_t data);
void kvm_nmi(struct engine *engine, unsigned vcpu);
void kvm_smi(struct engine *engine, unsigned vcpu);
bool kvm_smi_for_board(const struct engine *engine);
void *kvm_chip(struct engine *engine, unsigned index, const struct state_table **table);
int kvm_chips_fetch(struct engine *engine);
int kvm_chips_store(struct engine *engine);
bool kvm_chips_changed(const struct engine *engine);
/* Before state is told: what time it is of. */
void kvm_time_fetch(struct kvm_engine *kvm);

/* ---- kvm_trace.c ---- */

int kvm_trace(struct engine *engine, const struct engine_trace *trace);
/* The vCPU stands before an instruction, having taken a step. Whether that step was a HLT: some devices
 * tell of the step instead. */
bool kvm_trace_step(struct kvm_vcpu *vcpu);
/* "48 0f c7 0b (cmpxchg16b [rbx])" of @count bytes in the mode that the vCPU is in. */
void kvm_trace_text(struct kvm_vcpu *vcpu, const uint8_t *bytes, size_t count, uint64_t rip, char *text,
		    size_t size);
/* Reads up to @size bytes of code at RIP. Returns how many. */
size_t kvm_trace_code(struct kvm_vcpu *vcpu, uint8_t *bytes, size_t size, uint64_t *rip);
bool kvm_statistic(struct engine_vcpu *vcpu, unsigned index, char *name, size_t size, uint64_t *value);

#endif
