/*
 * Any device that speaks the KVM ABI as an engine: vCPUs and how they run.
 *
 * There is no interrupt chip in the kernel (kvm_chips.c), so HLT comes back to us. There is no count of
 * instructions either; so that the caller keeps hold of the run, timers come in time and vCPUs take turns, a
 * timer's signal ends KVM_RUN now and then. The signal is blocked in the thread and open only within KVM_RUN,
 * hence never lost, and no handler is needed. All vCPUs run on the caller's thread, one at a time: what a
 * guest's chips and devices see is in one order, and no lock is needed.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "x86/registers.h"

/* How long run() may keep its caller waiting, and a turn while another vCPU can run. */
#define SLICE_NS 20000000u
#define TURN_NS  1000000u

#define KICK_SIGNAL (SIGRTMIN + 3)

static enum engine_exit fail(struct kvm_vcpu *vcpu, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static enum engine_exit fail(struct kvm_vcpu *vcpu, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(kvm_engine_of(vcpu)->failure, KVM_FAILURE_MAX, format, arguments);
	va_end(arguments);
	return ENGINE_FAILED;
}

/* ---- the slice ---- */

static void kick_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, KICK_SIGNAL);
}

/* The kernel's own form of a signal set is 64 bits. */
static int open_kick(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	/* struct kvm_signal_mask: a length, and that many bytes right behind it. */
	struct __attribute__((packed)) {
		uint32_t size;
		uint64_t bits;
	} mask = {.size = sizeof(uint64_t)};
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL};
	sigset_t set, old;

	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	kick_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	for (int number = 1; number <= 64; number++)
		if (number != KICK_SIGNAL && sigismember(&old, number) == 1)
			mask.bits |= 1ull << (number - 1);
	if (ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask))
		return -errno;
	if (!kvm->has_slice && timer_create(CLOCK_MONOTONIC, &event, &kvm->slice))
		return -errno;
	kvm->has_slice = true;
	return 0;
}

/* The signal comes after @ns, and then again soon, should it have come between two entries. 0: no more. */
static void set_slice(const struct kvm_engine *kvm, uint64_t ns)
{
	struct itimerspec slice = {.it_value.tv_nsec = (long)ns, .it_interval.tv_nsec = ns ? TURN_NS : 0};

	timer_settime(kvm->slice, 0, &slice, NULL);
}

static void drain_kick(void)
{
	const struct timespec now = {0};
	sigset_t set;

	kick_set(&set);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
}

/* ---- exits ---- */

static void port_access(struct kvm_vcpu *vcpu)
{
	const struct engine_bus *bus = &kvm_engine_of(vcpu)->bus;
	struct kvm_run *run = vcpu->run;
	uint8_t *at = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, at += run->io.size) {
		uint32_t value = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, at, run->io.size);
			chips_port_out(&kvm_engine_of(vcpu)->chips, bus, run->io.port, run->io.size, value);
		} else {
			value = chips_port_in(&kvm_engine_of(vcpu)->chips, bus, run->io.port, run->io.size);
			memcpy(at, &value, run->io.size);
		}
	}
}

static void memory_access(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	struct kvm_run *run = vcpu->run;

	if (run->mmio.is_write)
		chips_mmio_write(&kvm->chips, &kvm->bus, vcpu->vcpu.number, run->mmio.phys_addr, run->mmio.data,
				 run->mmio.len);
	else
		chips_mmio_read(&kvm->chips, &kvm->bus, vcpu->vcpu.number, run->mmio.phys_addr, run->mmio.data,
				run->mmio.len);
}

/* An instruction that the device does not carry out, by its bytes where it tells them. */
static enum engine_exit emulation_failure(struct kvm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint8_t bytes[15];
	char text[160];
	uint64_t rip;
	size_t count = kvm_trace_code(vcpu, bytes, sizeof(bytes), &rip);

	if (run->emulation_failure.ndata >= 3 &&
	    run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES &&
	    run->emulation_failure.insn_size && run->emulation_failure.insn_size <= sizeof(bytes)) {
		count = run->emulation_failure.insn_size;
		memcpy(bytes, run->emulation_failure.insn_bytes, count);
	}
	kvm_trace_text(vcpu, bytes, count, rip, text, sizeof(text));
	return fail(vcpu, "emulation failure: %s at 0x%llx", text, (unsigned long long)rip);
}

static enum engine_exit internal_error(struct kvm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION: return emulation_failure(vcpu);
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return fail(vcpu, "the device failed while it delivered an event");
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return fail(vcpu, "the device met an exit that it does not expect: 0x%llx",
			    run->internal.ndata ? run->internal.data[0] : 0);
	default: return fail(vcpu, "internal error %u of the device", run->internal.suberror);
	}
}

/* ---- running ---- */

#define GO_ON (-1)

static int halt(struct kvm_vcpu *vcpu)
{
	vcpu->activity = ACTIVITY_HLT;
	return GO_ON;
}

/* What an exit means, or GO_ON. */
static int take_exit(struct kvm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO: port_access(vcpu); return GO_ON;
	case KVM_EXIT_MMIO: memory_access(vcpu); return GO_ON;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR: return GO_ON; /* CR8 is in the shared page already */
	case KVM_EXIT_INTR: return ENGINE_PAUSED;
	case KVM_EXIT_DEBUG: return kvm_trace_step(vcpu) ? halt(vcpu) : GO_ON;
	case KVM_EXIT_HLT: return halt(vcpu);
	case KVM_EXIT_SHUTDOWN: vcpu->activity = ACTIVITY_SHUTDOWN; return ENGINE_SHUTDOWN;
	case KVM_EXIT_INTERNAL_ERROR: return (int)internal_error(vcpu);
	case KVM_EXIT_FAIL_ENTRY:
		return (int)fail(vcpu, "the processor refuses to enter the guest: reason 0x%llx",
				 run->fail_entry.hardware_entry_failure_reason);
	case KVM_EXIT_UNKNOWN:
		return (int)fail(vcpu, "the device does not know the processor's exit 0x%llx",
				 run->hw.hardware_exit_reason);
	default: return (int)fail(vcpu, "exit %u of the device has no meaning here", run->exit_reason);
	}
}

/*
 * A port or memory access is part of an instruction that the device finishes only when it is
 * entered again; immediate_exit has it do that and no more. A long access may take several rounds.
 */
static void finish_access(struct kvm_vcpu *vcpu)
{
	vcpu->run->immediate_exit = 1;
	while (ioctl(vcpu->fd, KVM_RUN, 0) == 0 &&
	       (vcpu->run->exit_reason == KVM_EXIT_IO || vcpu->run->exit_reason == KVM_EXIT_MMIO))
		take_exit(vcpu);
	vcpu->run->immediate_exit = 0;
}

/* One entry. ENGINE_PAUSED: the signal has come. */
static int enter(struct kvm_vcpu *vcpu)
{
	int failed, end;

	kvm_chips_before(vcpu);
	failed = ioctl(vcpu->fd, KVM_RUN, 0) ? errno : 0;
	kvm_chips_after(vcpu);
	if (failed == EINTR || failed == EAGAIN) {
		drain_kick();
		end = ENGINE_PAUSED;
	} else {
		end = failed ? (int)fail(vcpu, "KVM_RUN: %s", strerror(failed)) : take_exit(vcpu);
	}
	if (vcpu->refused && end != ENGINE_FAILED)
		return (int)fail(vcpu, "the device refuses %s", vcpu->refused);
	return end;
}

static struct kvm_vcpu *in_shutdown(struct kvm_engine *kvm)
{
	for (unsigned i = 0; i < kvm->count; i++)
		if (kvm->vcpu[i].activity == ACTIVITY_SHUTDOWN)
			return &kvm->vcpu[i];
	return NULL;
}

/* Who can run, from the one behind the last on when @next. NULL: all wait. */
static struct kvm_vcpu *whose_turn(struct kvm_engine *kvm, bool next)
{
	for (unsigned i = 0; i < kvm->count; i++) {
		unsigned number = (kvm->turn + next + i) % kvm->count;

		if (kvm_chips_runnable(&kvm->vcpu[number])) {
			kvm->turn = number;
			return &kvm->vcpu[number];
		}
	}
	return NULL;
}

static bool others_can_run(struct kvm_engine *kvm)
{
	for (unsigned i = 0; i < kvm->count; i++)
		if (i != kvm->turn && kvm_chips_runnable(&kvm->vcpu[i]))
			return true;
	return false;
}

/* Nanoseconds until the next timer is due, at most @most. */
static uint64_t until_timer(const struct kvm_engine *kvm, uint64_t most)
{
	uint64_t now = clock_now(kvm->clock), next = kvm->clock->next;

	return next <= now ? 0 : next - now < most ? next - now : most;
}

static void sleep_for(uint64_t ns)
{
	struct timespec time = {.tv_nsec = (long)ns};

	nanosleep(&time, NULL);
}

static void run_timers(struct kvm_engine *kvm)
{
	if (kvm->clock->next > clock_now(kvm->clock))
		return;
	kvm->chips.changed = true;
	clock_run(kvm->clock);
}

/* Sets the slice for the turn that begins or goes on. */
static void begin_slice(struct kvm_engine *kvm)
{
	uint64_t ns = until_timer(kvm, kvm->count > 1 && others_can_run(kvm) ? TURN_NS : SLICE_NS);

	kvm->timer_moved = false;
	set_slice(kvm, ns ? ns : 1);
}

/* Until the time is over (@over, of the host's clock) or something ends the run. */
static int run_until(struct kvm_engine *kvm, uint64_t over)
{
	bool next = false, fresh = true;

	for (;;) {
		struct kvm_vcpu *vcpu;
		int end;

		run_timers(kvm);
		if (kvm->stop)
			return ENGINE_STOPPED;
		if (in_shutdown(kvm))
			return ENGINE_SHUTDOWN;
		vcpu = whose_turn(kvm, next);
		if (!vcpu && kvm->clock->next == CLOCK_NEVER)
			return ENGINE_HALTED;
		if (!vcpu) {
			sleep_for(until_timer(kvm, TURN_NS));
			if (kvm_host_ns() >= over)
				return ENGINE_PAUSED;
			continue;
		}
		if (fresh || kvm->timer_moved)
			begin_slice(kvm);
		end = enter(vcpu);
		next = fresh = end == ENGINE_PAUSED || vcpu->activity != ACTIVITY_ACTIVE;
		if (kvm->stop) {
			if (end == GO_ON)
				finish_access(vcpu);
			return ENGINE_STOPPED;
		}
		if (end == ENGINE_PAUSED ? kvm_host_ns() >= over : end != GO_ON)
			return end;
	}
}

static enum engine_exit kvm_run_vcpus(struct engine *engine, uint64_t budget)
{
	struct kvm_engine *kvm = kvm_of(engine);
	int end;

	if (budget == 0)
		return ENGINE_BUDGET;
	kvm->stop = false;
	/* A little less than the slice, so that its signal finds the time over. */
	end = run_until(kvm, kvm_host_ns() + SLICE_NS - TURN_NS);
	set_slice(kvm, 0);
	return (enum engine_exit)end;
}

static void kvm_request_stop(struct engine *engine) { kvm_of(engine)->stop = true; }

static const char *kvm_failure(const struct engine *engine)
{
	return ((const struct kvm_engine *)engine)->failure;
}

/* No instruction is counted. */
static uint64_t kvm_retired(const struct engine *engine)
{
	(void)engine;
	return 0;
}

static uint64_t kvm_rip(const struct engine_vcpu *vcpu)
{
	struct kvm_regs regs = {0};

	ioctl(((const struct kvm_vcpu *)vcpu)->fd, KVM_GET_REGS, &regs);
	return regs.rip;
}

static void kvm_nmi(struct engine *engine, unsigned vcpu) { ioctl(kvm_of(engine)->vcpu[vcpu].fd, KVM_NMI); }

/* ---- life ---- */

/* Each vCPU's own APIC id, where CPUID tells it. */
static int set_cpuid(struct kvm_engine *kvm, struct kvm_vcpu *vcpu)
{
	uint32_t id = vcpu->vcpu.number;

	for (unsigned i = 0; i < kvm->cpuid->nent; i++) {
		struct kvm_cpuid_entry2 *entry = &kvm->cpuid->entries[i];

		if (entry->function == 1)
			entry->ebx = (entry->ebx & 0xff00ffff & 0x00ffffff) | kvm->room << 16 | id << 24;
		else if (entry->function == 0xb || entry->function == 0x1f)
			entry->edx = id;
	}
	return ioctl(vcpu->fd, KVM_SET_CPUID2, kvm->cpuid) ? -errno : 0;
}

static int map_vcpu(struct kvm_engine *kvm, struct kvm_vcpu *vcpu)
{
	struct kvm_enable_cap pv = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
	void *run;

	vcpu->fd = ioctl(kvm->vm, KVM_CREATE_VCPU, (unsigned long)vcpu->vcpu.number);
	if (vcpu->fd < 0)
		return errno == EEXIST ? -ENOSPC : -errno;
	run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	if (set_cpuid(kvm, vcpu))
		return -errno;
	/* Where it is missing, a guest that writes to a paravirtual MSR gets what it asked for. */
	ioctl(vcpu->fd, KVM_ENABLE_CAP, &pv);
	return open_kick(vcpu);
}

static int kvm_vcpu_new(struct engine *engine, struct engine_vcpu **made)
{
	struct kvm_engine *kvm = kvm_of(engine);
	struct kvm_vcpu *vcpu = &kvm->vcpu[kvm->count];
	int error;

	if (kvm->count == kvm->room)
		return -ENOSPC;
	vcpu->vcpu = (struct engine_vcpu){.engine = engine, .number = kvm->count};
	vcpu->fd = vcpu->statistics = -1;
	kvm->count++;
	error = map_vcpu(kvm, vcpu);
	if (!error)
		error = kvm_state_open(vcpu);
	if (!error && !kvm_chips_add(vcpu))
		error = -ENOSPC;
	if (error)
		return error;
	/* What load() keeps is the reset state's until another is saved. */
	kvm_vcpu_save(&vcpu->vcpu, &vcpu->reset);
	*made = &vcpu->vcpu;
	return 0;
}

static void kvm_reset(struct engine *engine)
{
	struct kvm_engine *kvm = kvm_of(engine);

	for (unsigned i = 0; i < kvm->count; i++)
		kvm_vcpu_load(&kvm->vcpu[i].vcpu, &kvm->vcpu[i].reset);
	kvm_chips_reset(kvm);
}

static void free_vcpu(struct kvm_engine *kvm, struct kvm_vcpu *vcpu)
{
	kvm_state_close(vcpu);
	if (vcpu->statistics >= 0)
		close(vcpu->statistics);
	if (vcpu->run)
		munmap(vcpu->run, kvm->run_size);
	if (vcpu->fd >= 0)
		close(vcpu->fd);
}

static void close_kick(struct kvm_engine *kvm)
{
	sigset_t set;

	if (!kvm->has_slice)
		return;
	timer_delete(kvm->slice);
	drain_kick();
	kick_set(&set);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void kvm_close(struct engine *engine)
{
	struct kvm_engine *kvm = kvm_of(engine);

	close_kick(kvm);
	for (unsigned i = 0; i < kvm->count; i++)
		free_vcpu(kvm, &kvm->vcpu[i]);
	kvm_device_close(kvm);
	kvm_memory_free(kvm);
	free(kvm);
}

static int kvm_open(struct engine **engine, const struct engine_config *config, char *why, size_t size)
{
	struct kvm_engine *kvm;
	int error;

	if (strcmp(config->cpu, "host") != 0) {
		snprintf(why, size, "under kvm the processor is the host's: only host can be asked for");
		return -EINVAL;
	}
	kvm = calloc(1, sizeof(*kvm));
	if (!kvm)
		return -ENOMEM;
	kvm->engine.ops = &engine_kvm;
	kvm->bus = config->bus;
	kvm->room = config->vcpus ? config->vcpus : 1;
	error = kvm->room > ENGINE_VCPUS_MAX ? -EINVAL : kvm_device_open(kvm, config->device, why, size);
	if (!error)
		kvm_chips_open(kvm, config->clock);
	if (error) {
		kvm_close(&kvm->engine);
		return error;
	}
	*engine = &kvm->engine;
	return 0;
}

/* Mutants are of the software CPU. */
static bool kvm_break_check(struct engine *engine, const char *name)
{
	(void)engine;
	(void)name;
	return false;
}

static const char *kvm_check_name(unsigned index)
{
	(void)index;
	return NULL;
}

const struct engine_ops engine_kvm = {
	.name = "kvm",
	.cpu_default = "host",
	.takes_device = true,
	.describe = kvm_device_describe,
	.open = kvm_open,
	.close = kvm_close,
	.memory_add = kvm_memory_add,
	.memory_write = kvm_memory_write,
	.dirty_pages = kvm_dirty_pages,
	.dirty_reset = kvm_dirty_reset,
	.dirty_restore = kvm_dirty_restore,
	.vcpu_new = kvm_vcpu_new,
	.vcpu_save = kvm_vcpu_save,
	.vcpu_load = kvm_vcpu_load,
	.run = kvm_run_vcpus,
	.request_stop = kvm_request_stop,
	.failure = kvm_failure,
	.retired = kvm_retired,
	.rip = kvm_rip,
	.reset = kvm_reset,
	.nmi = kvm_nmi,
	.firmware = kvm_firmware,
	.interrupt_input = kvm_interrupt_input,
	.msi = kvm_msi,
	.chip = kvm_chip,
	.chips_fetch = kvm_chips_fetch,
	.chips_store = kvm_chips_store,
	.chips_changed = kvm_chips_changed,
	.trace = kvm_trace,
	.statistic = kvm_statistic,
	.break_check = kvm_break_check,
	.check_name = kvm_check_name,
};
