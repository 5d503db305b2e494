/*
 * What is said of devices that cannot be used: a device that is made up here. This file's own open() and ioctl()
 * take the place of the C library's for every caller in the program, so that the engine needs no seam.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
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
	int open_errno, version, version_errno, lacks, vm_errno, vm_interrupts, cpuid_errno, run_size, vcpu_errno;
	int vms, vms_closed, devices_closed;
} fake;

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

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (fd < VM_FD || fd > VCPU_FD)
		return (int)syscall(SYS_ioctl, fd, request, argument);
	switch (request) {
	case KVM_GET_API_VERSION:
		return fake.version_errno ? fails(fake.version_errno) : fake.version ? fake.version : 12;
	case KVM_CHECK_EXTENSION: return (int)(intptr_t)argument != fake.lacks;
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
	} needed[] = {{KVM_CAP_USER_MEMORY, "USER_MEMORY"}, {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
		      {KVM_CAP_SET_TSS_ADDR, "SET_TSS_ADDR"}, {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
		      {KVM_CAP_DEBUGREGS, "DEBUGREGS"}, {KVM_CAP_XSAVE, "XSAVE"},
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
	assert_non_null(strstr(text, "/fake/kvm; --cpu host is GenuineIntel 0x50654; vCPUs 1; has XCRS SREGS2"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(not_opened), cmocka_unit_test(versions), cmocka_unit_test(capabilities),
		cmocka_unit_test(no_vm),      cmocka_unit_test(usable),   cmocka_unit_test(no_vcpu),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
