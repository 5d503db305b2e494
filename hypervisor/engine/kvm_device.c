/* Opening a device that speaks the KVM ABI, and saying why it cannot be opened. */
#include "engine/kvm.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICE_DEFAULT "/dev/kvm"
#define API_VERSION    12

/* Where a processor without unrestricted guests keeps what real mode needs: below the ROM, above any RAM. */
#define IDENTITY_MAP 0xfeffc000ull
#define TSS_ADDRESS  0xfeffd000ull

struct capability {
	int number;
	const char *name;
};
#define CAPABILITY(name)                                                                                     \
	{                                                                                                    \
		KVM_CAP_##name, "KVM_CAP_" #name                                                             \
	}

static const struct capability required[] = {
	CAPABILITY(USER_MEMORY), CAPABILITY(EXT_CPUID), CAPABILITY(SET_TSS_ADDR), CAPABILITY(VCPU_EVENTS),
	CAPABILITY(DEBUGREGS),   CAPABILITY(XSAVE),     CAPABILITY(READONLY_MEM), CAPABILITY(IMMEDIATE_EXIT),
};
static const struct capability welcome[] = {
	CAPABILITY(XCRS),
	CAPABILITY(SREGS2),
	CAPABILITY(XSAVE2),
	CAPABILITY(SET_GUEST_DEBUG),
	CAPABILITY(BINARY_STATS_FD),
	CAPABILITY(DISABLE_QUIRKS2),
	CAPABILITY(ENFORCE_PV_FEATURE_CPUID),
	CAPABILITY(IRQCHIP),
	CAPABILITY(SPLIT_IRQCHIP),
	CAPABILITY(NESTED_STATE),
	CAPABILITY(EXCEPTION_PAYLOAD),
	CAPABILITY(X86_SMM),
	CAPABILITY(TSC_CONTROL),
	CAPABILITY(VCPU_ATTRIBUTES),
	CAPABILITY(X86_USER_SPACE_MSR),
	CAPABILITY(X86_MSR_FILTER),
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int missing(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int missing(char *why, size_t size, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, size, format, arguments);
	va_end(arguments);
	return -ENODEV;
}

/* ---- why not ---- */

/* CPUID.1:ECX.VMX, or CPUID.80000001H:ECX.SVM. */
static bool processor_virtualizes(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && c & 1u << 5)
		return true;
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && c & 1u << 2;
}

static int no_device(const char *path, char *why, size_t size)
{
	if (strcmp(path, DEVICE_DEFAULT) != 0)
		return missing(why, size, "there is no %s", path);
	return missing(why, size, "there is no %s: %s", path,
		       processor_virtualizes()
			       ? "the kernel's module is not loaded (kvm_intel or kvm_amd)"
			       : "this processor shows neither VMX nor SVM, or a hypervisor below hides it");
}

static int no_permission(const char *path, char *why, size_t size)
{
	struct stat status;
	struct group *group;

	if (stat(path, &status) == 0 && (status.st_mode & 0060) == 0060 &&
	    (group = getgrgid(status.st_gid)) != NULL)
		return missing(why, size, "no permission for %s: members of the group %s have it", path,
			       group->gr_name);
	return missing(why, size, "no permission for %s: only its owner has it", path);
}

static int not_opened(const char *path, int error, char *why, size_t size)
{
	switch (error) {
	case ENOENT: return no_device(path, why, size);
	case EACCES:
	case EPERM: return no_permission(path, why, size);
	case EBUSY: return missing(why, size, "%s is busy: another hypervisor has the extension", path);
	case ENODEV:
	case ENXIO: return missing(why, size, "%s has no driver behind it", path);
	default: return missing(why, size, "%s: %s", path, strerror(error));
	}
}

/* ---- opening ---- */

static int check_version(const char *path, int device, char *why, size_t size)
{
	int version = ioctl(device, KVM_GET_API_VERSION, 0);

	if (version < 0)
		return missing(why, size, "%s is not a KVM device", path);
	if (version != API_VERSION)
		return missing(why, size, "%s speaks version %d of the KVM API: too %s, %d is needed", path,
			       version, version < API_VERSION ? "old" : "new", API_VERSION);
	for (size_t i = 0; i < COUNT(required); i++)
		if (ioctl(device, KVM_CHECK_EXTENSION, required[i].number) <= 0)
			return missing(why, size, "%s is too old: it lacks %s", path, required[i].name);
	return 0;
}

static int create_vm(const char *path, int device, int *vm, char *why, size_t size)
{
	do
		*vm = ioctl(device, KVM_CREATE_VM, 0);
	while (*vm < 0 && errno == EINTR);
	if (*vm >= 0)
		return 0;
	if (errno == EBUSY)
		return missing(why, size, "%s is busy: another hypervisor has the processor's extension",
			       path);
	return missing(why, size, "%s makes no VM: %s", path, strerror(errno));
}

#define TRIES 5000u /* in all some tenths of a second */

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
	int result;

	for (unsigned i = 0; i < TRIES; i++) {
		result = ioctl(fd, request, argument);
		if (result >= 0 || (errno != EINTR && errno != EAGAIN))
			return result;
		if (errno == EAGAIN)
			usleep(50);
	}
	return result;
}

static bool enable(int vm, int capability, uint64_t argument)
{
	struct kvm_enable_cap cap = {.cap = (uint32_t)capability, .args = {argument}};

	return ioctl(vm, KVM_ENABLE_CAP, &cap) == 0;
}

/* Makes the VM behave as hardware does, as far as the device can. */
static void prepare_vm(struct kvm_engine *kvm)
{
	uint64_t map = IDENTITY_MAP;
	int quirks = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);
	/* Deleting a slot shall drop every shadow page: bit 7, which older headers do not name. */
	const int zap_all = 1 << 7;

	/* Both are for VMX alone; where they fail, vCPUs say so. */
	ioctl(kvm->vm, KVM_SET_IDENTITY_MAP_ADDR, &map);
	ioctl(kvm->vm, KVM_SET_TSS_ADDR, TSS_ADDRESS);
	if (quirks > 0)
		enable(kvm->vm, KVM_CAP_DISABLE_QUIRKS2, (uint64_t)(quirks & ~zap_all));
}

/* Whether the kernel says that the processor walks two tables, so that it needs no shadows. */
static bool has_nested_paging(void)
{
	static const char *const parameters[] = {"/sys/module/kvm_intel/parameters/ept",
						 "/sys/module/kvm_amd/parameters/npt"};
	char answer = 'N';

	for (size_t i = 0; i < COUNT(parameters) && answer == 'N'; i++) {
		int file = open(parameters[i], O_RDONLY | O_CLOEXEC);

		if (file < 0)
			continue;
		if (read(file, &answer, 1) != 1)
			answer = 'N';
		close(file);
	}
	return answer == 'Y' || answer == '1';
}

static void find_abilities(struct kvm_engine *kvm)
{
	int xsave = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
	int spaces = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE);

	kvm->address_spaces = spaces > 1 ? 2 : 1;
	kvm->can = (struct kvm_abilities){
		.xcrs = ioctl(kvm->device, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0,
		.sregs2 = ioctl(kvm->device, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0,
		.guest_debug = ioctl(kvm->device, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG) > 0,
		.statistics = ioctl(kvm->device, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) > 0,
		.smm = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) > 0,
		.nested = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_NESTED_STATE) > 0,
		.guest_msrs = kvm_guest_msrs_open(kvm),
		.payload = ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_EXCEPTION_PAYLOAD) > 0 &&
			   enable(kvm->vm, KVM_CAP_EXCEPTION_PAYLOAD, 1),
		.xsave_size =
			xsave > (int)sizeof(struct kvm_xsave) ? (size_t)xsave : sizeof(struct kvm_xsave)};
}

int kvm_device_open(struct kvm_engine *kvm, const char *path, char *why, size_t size)
{
	int error, run_size;

	if (!path)
		path = DEVICE_DEFAULT;
	kvm->vm = -1;
	kvm->device = open(path, O_RDWR | O_CLOEXEC);
	if (kvm->device < 0)
		return not_opened(path, errno, why, size);
	error = check_version(path, kvm->device, why, size);
	if (!error)
		error = create_vm(path, kvm->device, &kvm->vm, why, size);
	if (error)
		return error;
	prepare_vm(kvm);
	find_abilities(kvm);
	error = kvm_cpuid_read(kvm);
	if (error == -ENOMEM)
		return error;
	if (error)
		return missing(why, size, "%s tells no CPUID: %s", path, strerror(-error));
	run_size = ioctl(kvm->device, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (run_size < (int)sizeof(struct kvm_run))
		return missing(why, size, "%s shares too little of a vCPU", path);
	kvm->run_size = (size_t)run_size;
	kvm->shadows = !has_nested_paging();
	return 0;
}

void kvm_device_close(struct kvm_engine *kvm)
{
	if (kvm->vm >= 0)
		close(kvm->vm);
	if (kvm->device >= 0)
		close(kvm->device);
}

/* ---- visor info ---- */

static void name_capabilities(int device, bool there, char *text, size_t size)
{
	size_t used = strlen(text);

	for (size_t i = 0; i < COUNT(welcome) && used < size; i++)
		if ((ioctl(device, KVM_CHECK_EXTENSION, welcome[i].number) > 0) == there)
			used += (size_t)snprintf(text + used, size - used, " %s",
						 welcome[i].name + strlen("KVM_CAP_"));
}

bool kvm_device_describe(const char *path, char *text, size_t size)
{
	struct kvm_engine kvm = {0};
	int error = kvm_device_open(&kvm, path, text, size);

	if (error == -ENOMEM)
		snprintf(text, size, "no memory");
	if (!error) {
		uint32_t b = kvm_cpuid(&kvm, 0, 0, 1), c = kvm_cpuid(&kvm, 0, 0, 2),
			 d = kvm_cpuid(&kvm, 0, 0, 3);

		snprintf(text, size, "%s; --cpu host is %.4s%.4s%.4s 0x%x; vCPUs %d; has",
			 path ? path : DEVICE_DEFAULT, (char *)&b, (char *)&d, (char *)&c,
			 kvm_cpuid(&kvm, 1, 0, 0), ioctl(kvm.device, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS));
		name_capabilities(kvm.device, true, text, size);
		snprintf(text + strlen(text), size - strlen(text), "; lacks");
		name_capabilities(kvm.device, false, text, size);
	}
	kvm_device_close(&kvm);
	return !error;
}
