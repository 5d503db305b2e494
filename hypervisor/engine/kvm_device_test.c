/*
 * What is said of devices that cannot be used: a device that is made up here. This file's own open() and
 * ioctl() take the place of the C library's for every caller in the program, so that the engine needs no
 * seam.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/kvm.h"

#define FAKE      "/fake/kvm"
#define VM_FD     0x7000
#define DEVICE_FD 0x7001
#define VCPU_FD   0x7002

/* What the device does; zero is a device that works. */
static struct {
	int open_errno, version, version_errno, lacks, vm_errno, vm_interrupts, cpuid_errno, run_size,
		vcpu_errno;
	int vms, vms_closed, devices_closed;
	/* A request that fails, how often (0: each time), and after how many. */
	unsigned long request;
	int request_errno, request_times;
	int spaces;        /* address spaces that it tells of, where not 1 */
	unsigned slots[2]; /* that were set in either */
	bool has_msrs;
	uint32_t refused_msr; /* takes no value but 0 */
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
} fake;

/* The page that a vCPU shares. */
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
	if (fd == VCPU_FD) {
		fd = -1;
		flags |= MAP_ANONYMOUS;
	}
	return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	mode_t mode;

	va_start(arguments, flags);
	mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
	va_end(arguments);
	if (strcmp(path, FAKE) != 0 && strcmp(path, "/dev/kvm") != 0)
		return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	errno = fake.open_errno;
	return fake.open_errno ? -1 : DEVICE_FD;
}

int close(int fd)
{
	fake.vms_closed += fd == VM_FD;
	fake.devices_closed += fd == DEVICE_FD;
	return fd >= VM_FD && fd <= VCPU_FD ? 0 : (int)syscall(SYS_close, fd);
}

static int fails(int error)
{
	errno = error;
	return error ? -1 : 0;
}

static int create_vm(void)
{
	if (fake.vm_interrupts-- > 0)
		return fails(EINTR);
	if (fake.vm_errno)
		return fails(fake.vm_errno);
	fake.vms++;
	return VM_FD;
}

static int supported_cpuid(struct kvm_cpuid2 *cpuid)
{
	if (fake.cpuid_errno)
		return fails(fake.cpuid_errno);
	cpuid->nent = 2;
	cpuid->entries[0] = (struct kvm_cpuid_entry2){
		.function = 0, .eax = 1, .ebx = 0x756e6547, .edx = 0x49656e69, .ecx = 0x6c65746e};
	cpuid->entries[1] = (struct kvm_cpuid_entry2){.function = 1, .eax = 0x50654, .ecx = ~0u};
	return 0;
}

/* As many as there are, but for what follows one that is refused. */
static int set_msrs(const struct kvm_msrs *msrs)
{
	for (unsigned i = 0; i < msrs->nmsrs; i++)
		if (msrs->entries[i].index == fake.refused_msr && msrs->entries[i].data)
			return (int)i;
	return fake.has_msrs ? (int)msrs->nmsrs : 0;
}

static int get_msrs(struct kvm_msrs *msrs)
{
	for (unsigned i = 0; i < msrs->nmsrs; i++)
		msrs->entries[i].data = 0;
	return fake.has_msrs ? (int)msrs->nmsrs : 0;
}

static bool fails_now(unsigned long request)
{
	if (request != fake.request || !fake.request_errno)
		return false;
	if (fake.request_times && --fake.request_times == 0)
		fake.request = 0;
	return true;
}

/* What runs in SMM has written the second page, everything else the first. */
static int dirty_log(const struct kvm_dirty_log *log)
{
	*(uint64_t *)log->dirty_bitmap = 1ull << (log->slot >> 16);
	return 0;
}

#define HELD(get, set, member)                                                                               \
	case get: memcpy(argument, &fake.member, sizeof(fake.member)); return 0;                             \
	case set: memcpy(&fake.member, argument, sizeof(fake.member)); return 0;

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (fd < VM_FD || fd > VCPU_FD)
		return (int)syscall(SYS_ioctl, fd, request, argument);
	if (fails_now(request))
		return fails(fake.request_errno);
	switch (request) {
		HELD(KVM_GET_REGS, KVM_SET_REGS, regs)
		HELD(KVM_GET_SREGS2, KVM_SET_SREGS2, sregs)
		HELD(KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, debug)
		HELD(KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, events)
	case KVM_GET_NESTED_STATE:
		memset(argument, 0, sizeof(struct kvm_nested_state));
		((struct kvm_nested_state *)argument)->size = sizeof(struct kvm_nested_state);
		((struct kvm_nested_state *)argument)->hdr.vmx.vmxon_pa = ~0ull; /* not in VMX operation */
		return 0;
	case KVM_GET_MSRS: return get_msrs(argument);
	case KVM_SET_MSRS: return set_msrs(argument);
	case KVM_GET_MSR_INDEX_LIST: ((struct kvm_msr_list *)argument)->nmsrs = 0; return 0;
	case KVM_GET_API_VERSION:
		return fake.version_errno ? fails(fake.version_errno) : fake.version ? fake.version : 12;
	case KVM_CHECK_EXTENSION:
		if ((int)(intptr_t)argument == KVM_CAP_MULTI_ADDRESS_SPACE && fake.spaces)
			return fake.spaces;
		return (int)(intptr_t)argument != fake.lacks;
	case KVM_SET_USER_MEMORY_REGION:
		fake.slots[((struct kvm_userspace_memory_region *)argument)->slot >> 16]++;
		return 0;
	case KVM_GET_DIRTY_LOG: return dirty_log(argument);
	case KVM_CREATE_VM: return create_vm();
	case KVM_GET_SUPPORTED_CPUID: return supported_cpuid(argument);
	case KVM_GET_VCPU_MMAP_SIZE: return fake.run_size ? fake.run_size : (int)sizeof(struct kvm_run);
	case KVM_CREATE_VCPU: return fake.vcpu_errno ? fails(fake.vcpu_errno) : VCPU_FD;
	default: return 0;
	}
}

/* The engine and `visor info` give the same reason, and keep nothing open. */
static void refused(const char *path, const char *why)
{
	struct engine_config config = {.cpu = "host", .device = path};
	struct engine *engine;
	char text[512];

	fake.vms = fake.vms_closed = fake.devices_closed = 0;
	assert_false(kvm_device_describe(path, text, sizeof(text)));
	if (!strstr(text, why))
		fail_msg("wanted \"%s\", got \"%s\"", why, text);
	assert_null(strchr(text, '\n'));
	assert_int_equal(fake.devices_closed, !fake.open_errno);
	assert_int_equal(engine_kvm.open(&engine, &config, text, sizeof(text)), -ENODEV);
	assert_non_null(strstr(text, why));
	assert_int_equal(fake.vms_closed, fake.vms);
	memset(&fake, 0, sizeof(fake));
}

static void not_opened(void **state)
{
	static const struct {
		int error;
		const char *why;
	} rows[] = {{ENOENT, "there is no /fake/kvm"},
		    {EBUSY, "/fake/kvm is busy: another hypervisor has the extension"},
		    {ENODEV, "/fake/kvm has no driver behind it"},
		    {ENXIO, "/fake/kvm has no driver behind it"},
		    {EACCES, "no permission for /fake/kvm: only its owner has it"},
		    {EIO, "/fake/kvm: Input/output error"}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fake.open_errno = rows[i].error;
		refused(FAKE, rows[i].why);
	}
	fake.open_errno = ENOENT;
	refused(NULL, "there is no /dev/kvm: ");
}

static void versions(void **state)
{
	(void)state;
	fake.version_errno = ENOTTY;
	refused(FAKE, "/fake/kvm is not a KVM device");
	fake.version = 11;
	refused(FAKE, "/fake/kvm speaks version 11 of the KVM API: too old, 12 is needed");
	fake.version = 13;
	refused(FAKE, "/fake/kvm speaks version 13 of the KVM API: too new, 12 is needed");
}

static void capabilities(void **state)
{
	static const struct {
		int number;
		const char *name;
	} needed[] = {{KVM_CAP_USER_MEMORY, "USER_MEMORY"},   {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
		      {KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR"}, {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
		      {KVM_CAP_DEBUGREGS, "DEBUGREGS"},       {KVM_CAP_XSAVE, "XSAVE"},
		      {KVM_CAP_READONLY_MEM, "READONLY_MEM"}, {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"}};
	char why[128];

	(void)state;
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		fake.lacks = needed[i].number;
		snprintf(why, sizeof(why), "/fake/kvm is too old: it lacks KVM_CAP_%s", needed[i].name);
		refused(FAKE, why);
	}
}

static void no_vm(void **state)
{
	(void)state;
	fake.vm_errno = EBUSY; /* what KVM_CREATE_VM gives while someone else holds VT-x */
	refused(FAKE, "/fake/kvm is busy: another hypervisor has the processor's extension");
	fake.vm_errno = EPERM;
	refused(FAKE, "/fake/kvm makes no VM: Operation not permitted");
	fake.cpuid_errno = E2BIG;
	refused(FAKE, "/fake/kvm tells no CPUID: Argument list too long");
	fake.run_size = 64;
	refused(FAKE, "/fake/kvm shares too little of a vCPU");
}

/* An interrupted KVM_CREATE_VM is called again; what is missing beyond the needed is told. */
static void usable(void **state)
{
	char text[512];

	(void)state;
	fake.vm_interrupts = 2;
	fake.lacks = KVM_CAP_NESTED_STATE;
	if (!kvm_device_describe(FAKE, text, sizeof(text)))
		fail_msg("%s", text);
	assert_non_null(
		strstr(text, "/fake/kvm; --cpu host is GenuineIntel 0x50654; vCPUs 1; has XCRS SREGS2"));
	assert_non_null(strstr(text, "; lacks NESTED_STATE"));
	assert_true(fake.vms == 1 && fake.vms_closed == 1 && fake.devices_closed == 1);
	memset(&fake, 0, sizeof(fake));
}

static void no_vcpu(void **state)
{
	static const struct {
		int from, to;
	} rows[] = {{EEXIST, -ENOSPC}, {ENOMEM, -ENOMEM}, {EBUSY, -EBUSY}};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct engine_config config = {.cpu = "host", .device = FAKE};
		struct engine_vcpu *vcpu;
		struct engine *engine;
		char text[256];

		assert_int_equal(engine_kvm.open(&engine, &config, text, sizeof(text)), 0);
		fake.vcpu_errno = rows[i].from;
		assert_int_equal(engine_kvm.vcpu_new(engine, &vcpu), rows[i].to);
		engine_kvm.close(engine);
		assert_true(fake.vms_closed == 1 && fake.devices_closed == 1);
		memset(&fake, 0, sizeof(fake));
	}
}

/* ---- state that goes in and out ---- */

static struct engine *engine;
static struct engine_vcpu *vcpu;
static struct vcpu_state saved;

static void begin(void)
{
	struct engine_config config = {.cpu = "host", .device = FAKE};
	char text[256];

	if (engine_kvm.open(&engine, &config, text, sizeof(text)))
		fail_msg("%s", text);
	if (engine_kvm.vcpu_new(engine, &vcpu))
		fail_msg("%s", engine_kvm.failure(engine));
	assert_int_equal(engine_kvm.vcpu_save(vcpu, &saved), 0);
}

static void end(void)
{
	engine_kvm.close(engine);
	memset(&fake, 0, sizeof(fake));
}

static void said(const char *what)
{
	if (!strstr(engine_kvm.failure(engine), what))
		fail_msg("wanted \"%s\", got \"%s\"", what, engine_kvm.failure(engine));
}

#define REQUEST(name)                                                                                        \
	{                                                                                                    \
		name, #name                                                                                  \
	}
static const struct request {
	unsigned long number;
	const char *name;
} saving[] = {REQUEST(KVM_GET_REGS),        REQUEST(KVM_GET_SREGS2), REQUEST(KVM_GET_DEBUGREGS),
	      REQUEST(KVM_GET_VCPU_EVENTS), REQUEST(KVM_GET_XCRS),   REQUEST(KVM_GET_XSAVE),
	      REQUEST(KVM_GET_MSRS)},
  loading[] = {REQUEST(KVM_SET_REGS),        REQUEST(KVM_SET_SREGS2), REQUEST(KVM_SET_DEBUGREGS),
	       REQUEST(KVM_SET_VCPU_EVENTS), REQUEST(KVM_SET_XCRS),   REQUEST(KVM_SET_XSAVE),
	       REQUEST(KVM_SET_MSRS)};
#define EACH(table, i) (size_t i = 0; i < sizeof(table) / sizeof((table)[0]); i++)

/* Whatever the device refuses is named, with its reason. */
static void refused_at_saving(void **state)
{
	(void)state;
	fake.has_msrs = true;
	begin();
	for
		EACH(saving, i)
		{
			fake.request = saving[i].number;
			fake.request_errno = EIO;
			assert_int_equal(engine_kvm.vcpu_save(vcpu, &saved), -EIO);
			said(saving[i].name);
			said("vCPU 0: the device refuses ");
			said("Input/output error");
			fake.request = 0;
			assert_int_equal(engine_kvm.vcpu_save(vcpu, &saved), 0);
		}
	end();
}

static void refused_at_loading(void **state)
{
	(void)state;
	fake.has_msrs = true;
	begin();
	saved.star = 1; /* so that there is an MSR to set */
	for
		EACH(loading, i)
		{
			fake.request = loading[i].number;
			fake.request_errno = EINVAL;
			assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), -EINVAL);
			said(loading[i].name);
			said("Invalid argument");
			fake.request = 0;
			assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), 0);
		}
	end();
}

/* What is only interrupted, or asked to come again, is called again. */
static void interrupted(void **state)
{
	static const int reasons[] = {EINTR, EAGAIN};

	(void)state;
	fake.has_msrs = true;
	begin();
	saved.star = 1;
	for
		EACH(reasons, k)
		{
			fake.request_errno = reasons[k];
		for
			EACH(saving, i)
			{
				struct vcpu_state again;

				fake.request = saving[i].number;
				fake.request_times = 3;
				assert_int_equal(engine_kvm.vcpu_save(vcpu, &again), 0);
				assert_int_equal(fake.request, 0);
			}
		for
			EACH(loading, i)
			{
				fake.request = loading[i].number;
				fake.request_times = 3;
				assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), 0);
				assert_int_equal(fake.request, 0);
			}
		}
	end();
}

static void msrs(void **state)
{
	(void)state;
	fake.has_msrs = true;
	fake.refused_msr = 0xc0000082; /* LSTAR */
	begin();
	saved.lstar = 0x1234;
	assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), -EINVAL);
	said("vCPU 0: KVM_SET_MSRS: the device refuses MSR 0xc0000082, value 0x1234");
	end();
	begin(); /* a device without MSRs */
	saved.lstar = 1;
	assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), -EINVAL);
	said("vCPU 0: lstar is not as after RESET, and kvm cannot hold it");
	end();
}

/* What only the software CPU has is said by name. */
static void never_held(void **state)
{
	static const struct {
		const char *name;
		size_t offset;
	} rows[] = {
#define ROW(field) {#field, offsetof(struct vcpu_state, field)}
		ROW(svm_guest),     ROW(svm_gif_clear),    ROW(svm_vmcb),    ROW(vmx_on),  ROW(vmx_guest),
		ROW(vmx_pml_index), ROW(last_branch_from), ROW(last_int_to), ROW(svm_key), ROW(smbase),
		ROW(pkru),
	};

	(void)state;
	begin();
	for
		EACH(rows, i)
		{
			struct vcpu_state changed = saved;

			((uint8_t *)&changed)[rows[i].offset] = 1;
			assert_int_equal(engine_kvm.vcpu_load(vcpu, &changed), -EINVAL);
			said(rows[i].name);
		}
	saved.activity = ACTIVITY_MWAIT;
	assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), -EINVAL);
	said("a wait in MWAIT");
	end();
	fake.lacks = KVM_CAP_X86_SMM;
	begin();
	saved.smm = 1;
	assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), -EINVAL);
	said("system-management mode");
	end();
}

static struct latches *latches(void)
{
	const struct state_table *table;
	struct latches *found = engine_kvm.chip(engine, 1, &table);

	assert_string_equal(table->device, "latches");
	return found;
}

/* Saves, loads into a vCPU that has nothing, and compares what the device has then. */
static void travels(const struct kvm_vcpu_events *events)
{
	struct latches there;

	fake.events = *events;
	assert_int_equal(engine_kvm.chips_fetch(engine), 0);
	assert_int_equal(engine_kvm.vcpu_save(vcpu, &saved), 0);
	there = *latches();
	fake.events = (struct kvm_vcpu_events){0};
	*latches() = (struct latches){0};
	assert_int_equal(engine_kvm.vcpu_load(vcpu, &saved), 0);
	*latches() = there;
	if (engine_kvm.chips_store(engine))
		fail_msg("%s", engine_kvm.failure(engine));
}

/* An interrupt that the device was given and has not delivered is neither lost nor taken twice. */
static void events_travel(void **state)
{
	(void)state;
	begin();
	travels(&(struct kvm_vcpu_events){.interrupt = {.injected = 1, .nr = 0x31}});
	assert_true(fake.events.interrupt.injected && fake.events.interrupt.nr == 0x31 &&
		    !fake.events.interrupt.soft);
	travels(&(struct kvm_vcpu_events){.interrupt = {.injected = 1, .nr = 0x80, .soft = 1}});
	assert_true(fake.events.interrupt.injected && fake.events.interrupt.nr == 0x80 &&
		    fake.events.interrupt.soft);
	travels(&(struct kvm_vcpu_events){
		.exception = {.injected = 1, .nr = 14, .has_error_code = 1, .error_code = 6}});
	assert_true(fake.events.exception.injected && fake.events.exception.nr == 14 &&
		    fake.events.exception.has_error_code && fake.events.exception.error_code == 6);
	travels(&(struct kvm_vcpu_events){.flags = KVM_VCPUEVENT_VALID_PAYLOAD,
					  .exception = {.pending = 1, .nr = 14, .has_error_code = 1},
					  .exception_has_payload = 1,
					  .exception_payload = 0x5678});
	assert_true(fake.events.exception.pending && !fake.events.exception.injected &&
		    fake.events.exception_has_payload && fake.events.exception_payload == 0x5678 &&
		    fake.events.flags & KVM_VCPUEVENT_VALID_PAYLOAD);
	travels(&(struct kvm_vcpu_events){.nmi = {.injected = 1, .masked = 1, .pending = 1}});
	assert_true(fake.events.nmi.pending == 2 && !fake.events.nmi.masked);
	travels(&(struct kvm_vcpu_events){.nmi = {.masked = 1, .pending = 1}});
	assert_true(fake.events.nmi.pending == 1 && fake.events.nmi.masked);
	travels(&(struct kvm_vcpu_events){.flags = KVM_VCPUEVENT_VALID_SMM, .smi = {.smm = 1, .pending = 1}});
	assert_true(fake.events.smi.smm && fake.events.smi.pending);
	travels(&(struct kvm_vcpu_events){.interrupt = {.shadow = KVM_X86_SHADOW_INT_STI}});
	assert_true(fake.events.interrupt.shadow == KVM_X86_SHADOW_INT_STI &&
		    !fake.events.interrupt.injected);
	fake.debug.dr6 = 0xffff4ff0;
	travels(&(struct kvm_vcpu_events){.exception = {.injected = 1, .nr = 1}});
	assert_true(fake.events.exception.injected && fake.events.exception.nr == 1 &&
		    fake.debug.dr6 == 0xffff4ff0);
	end();
}

static void latches_refused(void **state)
{
	(void)state;
	begin();
	assert_int_equal(engine_kvm.chips_fetch(engine), 0);
	latches()->wait_armed = 1;
	assert_int_equal(engine_kvm.chips_store(engine), -EINVAL);
	said("vCPU 0: a monitor is armed, which kvm cannot take");
	*latches() = (struct latches){.debug_pending = 1 << 14};
	fake.events.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	assert_int_equal(engine_kvm.chips_store(engine), -EINVAL);
	said("a #DB is held off by a load of SS");
	fake.events.interrupt.shadow = 0;
	assert_int_equal(engine_kvm.chips_store(engine), 0);
	assert_true(fake.events.exception.injected && fake.events.exception.nr == 1 &&
		    fake.debug.dr6 & 1 << 14);
	end();
}

/* SMM has an address space of its own where the device has two: the same memory, whose pages are logged
 * there. */
static void memory_in_smm(void **state)
{
	static uint8_t memory[2 * 4096] __attribute__((aligned(4096)));
	const uint64_t *pages;
	size_t count;

	(void)state;
	for (int spaces = 1; spaces <= 2; spaces++) {
		fake.spaces = spaces;
		begin();
		fake.slots[0] = fake.slots[1] = 0;
		assert_int_equal(engine_kvm.memory_add(engine, 0x100000, sizeof(memory), memory, false), 0);
		assert_int_equal(fake.slots[0], 1);
		assert_int_equal(fake.slots[1], spaces - 1);
		engine_kvm.dirty_pages(engine, &pages, &count);
		assert_int_equal(count, spaces);
		assert_int_equal(pages[count - 1], 0x100000 + 4096 * (spaces - 1));
		end();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_opened),
		cmocka_unit_test(versions),
		cmocka_unit_test(capabilities),
		cmocka_unit_test(no_vm),
		cmocka_unit_test(usable),
		cmocka_unit_test(no_vcpu),
		cmocka_unit_test(refused_at_saving),
		cmocka_unit_test(refused_at_loading),
		cmocka_unit_test(interrupted),
		cmocka_unit_test(msrs),
		cmocka_unit_test(never_held),
		cmocka_unit_test(events_travel),
		cmocka_unit_test(latches_refused),
		cmocka_unit_test(memory_in_smm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
