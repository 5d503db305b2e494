/* vmx_check.c: what an exit has left in the VMCS and in the host, held against what it shall be, field by
 * field. */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "x86/descriptors.h"

#define MSR_DEBUGCTL 0x1d9u

/* The guest-state area that every processor with VMX has (25.4, appendix B). */
#define GUEST_FIELDS(X)                                                                                      \
	X(GUEST_ES)                                                                                          \
	X(GUEST_CS)                                                                                          \
	X(GUEST_SS) X(GUEST_DS) X(GUEST_FS) X(GUEST_GS) X(GUEST_LDTR) X(GUEST_TR) X(LINK_POINTER) X(         \
		GUEST_DEBUGCTL) X(GUEST_ES_LIMIT) X(GUEST_CS_LIMIT) X(GUEST_SS_LIMIT) X(GUEST_DS_LIMIT)      \
		X(GUEST_FS_LIMIT) X(GUEST_GS_LIMIT) X(GUEST_LDTR_LIMIT) X(GUEST_TR_LIMIT) X(                 \
			GUEST_GDTR_LIMIT) X(GUEST_IDTR_LIMIT) X(GUEST_ES_RIGHTS) X(GUEST_CS_RIGHTS)          \
			X(GUEST_SS_RIGHTS) X(GUEST_DS_RIGHTS) X(GUEST_FS_RIGHTS) X(GUEST_GS_RIGHTS) X(       \
				GUEST_LDTR_RIGHTS) X(GUEST_TR_RIGHTS) X(GUEST_INTERRUPTIBILITY)              \
				X(GUEST_ACTIVITY) X(GUEST_SYSENTER_CS) X(GUEST_CR0) X(GUEST_CR3) X(          \
					GUEST_CR4) X(GUEST_ES_BASE) X(GUEST_CS_BASE) X(GUEST_SS_BASE)        \
					X(GUEST_DS_BASE) X(GUEST_FS_BASE) X(GUEST_GS_BASE) X(                \
						GUEST_LDTR_BASE) X(GUEST_TR_BASE) X(GUEST_GDTR_BASE)         \
						X(GUEST_IDTR_BASE) X(GUEST_DR7) X(GUEST_RSP) X(GUEST_RIP)    \
							X(GUEST_RFLAGS) X(GUEST_PENDING_DEBUG)               \
								X(GUEST_SYSENTER_ESP) X(GUEST_SYSENTER_EIP)

static const uint32_t guest_fields[] = {
#define GUEST_FIELD(name) VMCS_##name,
	GUEST_FIELDS(GUEST_FIELD)
#undef GUEST_FIELD
};
#define FIELDS (sizeof(guest_fields) / sizeof(guest_fields[0]))

static const struct {
	uint32_t field;
	const char *name;
} names[] = {
#define VMCS_FIELD(encoding, name) {(encoding), #name},
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
};

static uint64_t wanted[FIELDS];
static bool any[FIELDS];

static const char *name_of(uint32_t field)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (names[i].field == field)
			return names[i].name;
	return "field";
}

void vmx_remember(void)
{
	for (unsigned i = 0; i < FIELDS; i++) {
		wanted[i] = vmx_read(guest_fields[i]);
		any[i] = false;
	}
}

void vmx_expect(uint32_t field, uint64_t value)
{
	for (unsigned i = 0; i < FIELDS; i++)
		if (guest_fields[i] == field)
			wanted[i] = value;
}

void vmx_expect_any(uint32_t field)
{
	for (unsigned i = 0; i < FIELDS; i++)
		if (guest_fields[i] == field)
			any[i] = true;
}

/* Of an unusable segment only some parts are saved (28.3.2); of a usable one all. */
static bool undefined(unsigned i)
{
	uint32_t field = guest_fields[i];
	unsigned n = VMCS_INDEX(field);
	bool base = field >= VMCS_GUEST_ES_BASE && field <= VMCS_GUEST_TR_BASE;
	bool limit = field >= VMCS_GUEST_ES_LIMIT && field <= VMCS_GUEST_TR_LIMIT;
	bool rights = field >= VMCS_GUEST_ES_RIGHTS && field <= VMCS_GUEST_TR_RIGHTS;

	if (base)
		n -= VMCS_INDEX(VMCS_GUEST_ES_BASE);
	else if (rights)
		n -= VMCS_INDEX(VMCS_GUEST_ES_RIGHTS);
	else if (!limit)
		return false;
	if (!(vmx_read(VMCS_GUEST_ES_RIGHTS + 2 * n) & VMX_RIGHTS_UNUSABLE))
		return false;
	if (rights)
		return wanted[i] & VMX_RIGHTS_UNUSABLE;
	return n != 1 || limit; /* CS keeps L, D and its base */
}

void vmx_check_guest(void)
{
	for (unsigned i = 0; i < FIELDS; i++)
		if (!any[i] && !undefined(i))
			story_check(name_of(guest_fields[i]), wanted[i], vmx_read(guest_fields[i]));
}

void vmx_check_field(uint32_t field, uint64_t want) { story_check(name_of(field), want, vmx_read(field)); }

void vmx_check_exit(uint32_t reason, uint64_t qualification, unsigned length)
{
	vmx_check_field(VMCS_EXIT_REASON, reason);
	vmx_check_field(VMCS_EXIT_QUALIFICATION, qualification);
	if (length)
		vmx_check_field(VMCS_EXIT_INSTRUCTION_LENGTH, length);
}

#define READ_SELECTOR(name)                                                                                  \
	static uint64_t read_##name(void)                                                                    \
	{                                                                                                    \
		uint64_t value = 0;                                                                          \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(value));                                       \
		return value;                                                                                \
	}
READ_SELECTOR(cs)
READ_SELECTOR(ss)
READ_SELECTOR(ds)
READ_SELECTOR(es)
READ_SELECTOR(fs)
READ_SELECTOR(gs)
READ_SELECTOR(dr7)

void vmx_check_host(void)
{
	struct table_pointer gdtr, idtr;
	uint64_t debugctl;
	uint16_t tr, ldtr;

	__asm__ volatile("sgdt %0\n\tsidt %1\n\tstr %2\n\tsldt %3"
			 : "=m"(gdtr), "=m"(idtr), "=r"(tr), "=r"(ldtr));
	story_check("host_cs", vmx_read(VMCS_HOST_CS), read_cs());
	story_check("host_ss", vmx_read(VMCS_HOST_SS), read_ss());
	story_check("host_ds", vmx_read(VMCS_HOST_DS), read_ds());
	story_check("host_es", vmx_read(VMCS_HOST_ES), read_es());
	story_check("host_fs", vmx_read(VMCS_HOST_FS), read_fs());
	story_check("host_gs", vmx_read(VMCS_HOST_GS), read_gs());
	story_check("host_tr", vmx_read(VMCS_HOST_TR), tr);
	story_check("host_ldtr", 0, ldtr);
	story_check("host_cr0", vmx_read(VMCS_HOST_CR0), machine_read_cr0());
	story_check("host_cr3", vmx_read(VMCS_HOST_CR3), machine_read_cr3());
	story_check("host_cr4", vmx_read(VMCS_HOST_CR4), machine_read_cr4());
	story_check("host_efer", exchange.monitor_efer, machine_read_msr(MSR_EFER));
	story_check("host_fs_base", vmx_read(VMCS_HOST_FS_BASE), machine_read_msr(MSR_FS_BASE));
	story_check("host_gs_base", vmx_read(VMCS_HOST_GS_BASE), machine_read_msr(MSR_GS_BASE));
	story_check("host_gdtr_base", vmx_read(VMCS_HOST_GDTR_BASE), gdtr.base);
	story_check("host_gdtr_limit", 0xffff, gdtr.limit);
	story_check("host_idtr_base", vmx_read(VMCS_HOST_IDTR_BASE), idtr.base);
	story_check("host_idtr_limit", 0xffff, idtr.limit);
	if (machine.sysenter) {
		story_check("host_sysenter_cs", vmx_read(VMCS_HOST_SYSENTER_CS),
			    machine_read_msr(MSR_SYSENTER_CS));
		story_check("host_sysenter_esp", vmx_read(VMCS_HOST_SYSENTER_ESP),
			    machine_read_msr(MSR_SYSENTER_ESP));
		story_check("host_sysenter_eip", vmx_read(VMCS_HOST_SYSENTER_EIP),
			    machine_read_msr(MSR_SYSENTER_EIP));
	}
	story_check("host_dr7", 0x400, read_dr7());
	story_check("host_rflags", RFLAGS_FIXED, vmx_host_flags());
	if (story_try_rdmsr(MSR_DEBUGCTL, &debugctl) == STORY_NO_FAULT)
		story_check("host_debugctl", 0, debugctl);
}

void vmx_check_runs(void)
{
	unsigned result = vmx_run();

	story_check("again", 0, result);
	if (!result)
		story_check("again_reason", VMX_EXIT_VMCALL, vmx_reason());
}
