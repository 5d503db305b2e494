/*
 * Any device that speaks the KVM ABI as an engine: what the exits of its vCPUs mean, and their life. How they
 * run is in kvm_run.c. There is no interrupt chip in the kernel (kvm_chips.c), so HLT comes back to us.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "x86/registers.h"

enum engine_exit kvm_fail(struct kvm_vcpu *vcpu, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(kvm_engine_of(vcpu)->failure, KVM_FAILURE_MAX, format, arguments);
	va_end(arguments);
	return ENGINE_FAILED;
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
		chips_mmio_write(&kvm->chips, &kvm->bus, vcpu->vcpu.number, run->mmio.phys_addr,
				 run->mmio.data, run->mmio.len);
	else
		chips_mmio_read(&kvm->chips, &kvm->bus, vcpu->vcpu.number, run->mmio.phys_addr,
				run->mmio.data, run->mmio.len);
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
	return kvm_fail(vcpu, "emulation failure: %s at 0x%llx", text, (unsigned long long)rip);
}

static enum engine_exit internal_error(struct kvm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	switch (run->internal.suberror) {
	case KVM_INTERNAL_ERROR_EMULATION: return emulation_failure(vcpu);
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return kvm_fail(vcpu, "the device failed while it delivered an event");
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return kvm_fail(vcpu, "the device met an exit that it does not expect: 0x%llx",
				run->internal.ndata ? run->internal.data[0] : 0);
	default: return kvm_fail(vcpu, "internal error %u of the device", run->internal.suberror);
	}
}

static int halt(struct kvm_vcpu *vcpu)
{
	vcpu->activity = ACTIVITY_HLT;
	return KVM_GO_ON;
}

int kvm_take_exit(struct kvm_vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;

	vcpu->unfinished = run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO ||
			   run->exit_reason == KVM_EXIT_X86_RDMSR || run->exit_reason == KVM_EXIT_X86_WRMSR;
	switch (run->exit_reason) {
	case KVM_EXIT_IO: port_access(vcpu); return KVM_GO_ON;
	case KVM_EXIT_MMIO: memory_access(vcpu); return KVM_GO_ON;
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR: kvm_guest_msr(vcpu); return KVM_GO_ON;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR: return KVM_GO_ON; /* CR8 is in the shared page already */
	case KVM_EXIT_DEBUG: return kvm_trace_step(vcpu) ? halt(vcpu) : KVM_GO_ON;
	case KVM_EXIT_HLT: return halt(vcpu);
	case KVM_EXIT_SHUTDOWN: vcpu->activity = ACTIVITY_SHUTDOWN; return ENGINE_SHUTDOWN;
	case KVM_EXIT_INTERNAL_ERROR: return (int)internal_error(vcpu);
	case KVM_EXIT_FAIL_ENTRY:
		return (int)kvm_fail(vcpu, "the processor refuses to enter the guest: reason 0x%llx",
				     run->fail_entry.hardware_entry_failure_reason);
	case KVM_EXIT_UNKNOWN:
		return (int)kvm_fail(vcpu, "the device does not know the processor's exit 0x%llx",
				     run->hw.hardware_exit_reason);
	default: return (int)kvm_fail(vcpu, "exit %u of the device has no meaning here", run->exit_reason);
	}
}

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

/* ---- life ---- */

/* How fast the TSC is, and how it is set. */
static void find_tsc(struct kvm_engine *kvm, struct kvm_vcpu *vcpu)
{
	struct kvm_device_attr attribute = {.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET};
	int khz = kvm_ioctl(vcpu->fd, KVM_GET_TSC_KHZ, NULL);

	kvm->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
	kvm->can.tsc_offset = ioctl(vcpu->fd, KVM_HAS_DEVICE_ATTR, &attribute) == 0;
}

static int map_vcpu(struct kvm_engine *kvm, struct kvm_vcpu *vcpu)
{
	struct kvm_enable_cap pv = {.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = {1}};
	void *run;
	int error;

	vcpu->fd = ioctl(kvm->vm, KVM_CREATE_VCPU, (unsigned long)vcpu->vcpu.number);
	if (vcpu->fd < 0)
		return errno == EEXIST ? -ENOSPC : -errno;
	run = mmap(NULL, kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (run == MAP_FAILED)
		return -errno;
	vcpu->run = run;
	error = kvm_cpuid_set(vcpu);
	if (error)
		return error;
	/* Where it is missing, a guest that writes to a paravirtual MSR gets what it asked for. */
	ioctl(vcpu->fd, KVM_ENABLE_CAP, &pv);
	find_tsc(kvm, vcpu);
	return kvm_run_open(vcpu);
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
	/* What load() keeps is the reset state's until another is saved. */
	if (!error)
		error = kvm_vcpu_save(&vcpu->vcpu, &vcpu->reset);
	if (error)
		return error;
	*made = &vcpu->vcpu;
	return 0;
}

/* What was sent to the vCPU between two runs belongs to its state, and goes with it. */
static int kvm_save(struct engine_vcpu *vcpu, struct vcpu_state *to)
{
	kvm_chips_settle(kvm_vcpu_of(vcpu));
	return kvm_vcpu_save(vcpu, to);
}

static int kvm_load(struct engine_vcpu *vcpu, const struct vcpu_state *from)
{
	kvm_chips_drop(kvm_vcpu_of(vcpu));
	return kvm_vcpu_load(vcpu, from);
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

static void kvm_close(struct engine *engine)
{
	struct kvm_engine *kvm = kvm_of(engine);

	kvm_run_close(kvm);
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

	if (strcmp(config->cpu, "host") != 0 && strncmp(config->cpu, "host,", 5) != 0) {
		snprintf(why, size, "under kvm the processor is the host's: only host can be asked for, less features");
		return -EINVAL;
	}
	kvm = calloc(1, sizeof(*kvm));
	if (!kvm)
		return -ENOMEM;
	kvm->engine.ops = &engine_kvm;
	kvm->bus = config->bus;
	kvm->wall_clock = config->wall_clock;
	kvm_run_init(kvm);
	kvm->room = config->vcpus ? config->vcpus : 1;
	error = kvm->room > ENGINE_VCPUS_MAX ? -EINVAL : kvm_device_open(kvm, config->device, why, size);
	if (!error)
		error = kvm_cpuid_profile(kvm, config->cpu, why, size);
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
	.memory_replace = kvm_memory_replace,
	.dirty_pages = kvm_dirty_pages,
	.dirty_reset = kvm_dirty_reset,
	.dirty_restore = kvm_dirty_restore,
	.cpu_tell = kvm_cpu_tell,
	.cpu_take = kvm_cpu_take,
	.vcpu_new = kvm_vcpu_new,
	.vcpu_save = kvm_save,
	.vcpu_load = kvm_load,
	.run = kvm_run_vcpus,
	.pace = kvm_pace,
	.request_stop = kvm_request_stop,
	.failure = kvm_failure,
	.retired = kvm_retired,
	.rip = kvm_rip,
	.reset = kvm_reset,
	.nmi = kvm_nmi,
	.smi = kvm_smi,
	.smi_for_board = kvm_smi_for_board,
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
