/* vmx.h: VT-x as the manual numbers it (SDM 3C chapters 24 to 31, appendices A to C). */
#ifndef TRAPLINE_X86_VMX_H
#define TRAPLINE_X86_VMX_H

enum vmx_exit {
#define VMX_EXIT(reason, name) VMX_EXIT_##name = (reason),
#include "x86/vmx_exits.def"
#undef VMX_EXIT
	VMX_EXIT_NONE = -1 /* no exit exists */
};
/* VMCS_EXIT_REASON's other bits (25.9.1). */
#define VMX_EXIT_REASON_MASK   0xffffu
#define VMX_EXIT_PENDING_MTF   (1u << 28)
#define VMX_EXIT_FROM_ROOT     (1u << 29)
#define VMX_EXIT_ENTRY_FAILURE (1u << 31)

/* ---- the VMCS (25.2, 25.11.2, appendix B) ---- */

enum vmcs_field {
#define VMCS_FIELD(encoding, name) VMCS_##name = (encoding),
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
};

#define VMCS_REGION_SIZE     4096u
#define VMCS_REVISION_MASK   0x7fffffffu /* the first doubleword of a VMXON or VMCS region */
#define VMCS_SHADOW          (1u << 31)  /* there */
#define VMCS_ABORT_INDICATOR 4u          /* the second doubleword's offset */

/* A field's encoding. */
#define VMCS_HIGH(field)       ((field) | 1u) /* the high half of a 64-bit field */
#define VMCS_INDEX(field)      ((unsigned)(field) >> 1 & 0x1ff)
#define VMCS_TYPE(field)       ((unsigned)(field) >> 10 & 3)
#define VMCS_WIDTH(field)      ((unsigned)(field) >> 13 & 3)
#define VMCS_ENCODING_RESERVED (~0x6fffull)
enum vmcs_type { VMCS_CONTROL, VMCS_READ_ONLY, VMCS_GUEST, VMCS_HOST };
enum vmcs_width { VMCS_16, VMCS_64, VMCS_32, VMCS_NATURAL };

/* ---- VM-instruction errors (31.4) ---- */

enum vmx_error {
	VMX_ERROR_NONE = 0,
	VMX_ERROR_VMCALL_IN_ROOT = 1,
	VMX_ERROR_VMCLEAR_ADDRESS = 2,
	VMX_ERROR_VMCLEAR_VMXON_POINTER = 3,
	VMX_ERROR_VMLAUNCH_NOT_CLEAR = 4,
	VMX_ERROR_VMRESUME_NOT_LAUNCHED = 5,
	VMX_ERROR_VMRESUME_AFTER_VMXOFF = 6,
	VMX_ERROR_ENTRY_CONTROLS = 7,
	VMX_ERROR_ENTRY_HOST_STATE = 8,
	VMX_ERROR_VMPTRLD_ADDRESS = 9,
	VMX_ERROR_VMPTRLD_VMXON_POINTER = 10,
	VMX_ERROR_VMPTRLD_REVISION = 11,
	VMX_ERROR_UNSUPPORTED_FIELD = 12,
	VMX_ERROR_READ_ONLY_FIELD = 13,
	VMX_ERROR_VMXON_IN_ROOT = 15,
	VMX_ERROR_ENTRY_EXECUTIVE_POINTER = 16,
	VMX_ERROR_ENTRY_EXECUTIVE_NOT_LAUNCHED = 17,
	VMX_ERROR_ENTRY_EXECUTIVE_NOT_VMXON = 18,
	VMX_ERROR_VMCALL_NOT_CLEAR = 19,
	VMX_ERROR_VMCALL_EXIT_CONTROLS = 20,
	VMX_ERROR_VMCALL_MSEG_REVISION = 22,
	VMX_ERROR_VMXOFF_DUAL_MONITOR = 23,
	VMX_ERROR_VMCALL_SMM_FEATURES = 24,
	VMX_ERROR_ENTRY_EXECUTIVE_CONTROLS = 25,
	VMX_ERROR_ENTRY_MOV_SS = 26,
	VMX_ERROR_INVALIDATION_OPERAND = 28
};

/* VM-entry failures' exit qualification (27.8) and VMX aborts (28.7). */
enum vmx_entry_qualification { VMX_ENTRY_PDPTE = 2, VMX_ENTRY_NMI = 3, VMX_ENTRY_LINK_POINTER = 4 };
enum vmx_abort {
	VMX_ABORT_SAVING_MSRS = 1,
	VMX_ABORT_HOST_PDPTE = 2,
	VMX_ABORT_VMCS_CORRUPTED = 3,
	VMX_ABORT_LOADING_MSRS = 4,
	VMX_ABORT_MACHINE_CHECK = 5,
	VMX_ABORT_NOT_64 = 6 /* host address-space size 0 in a guest of IA-32e mode */
};

/* ---- controls (25.6 to 25.8) ---- */

/* VMCS_PIN_CONTROLS */
#define VMX_PIN_EXTERNAL_INTERRUPT (1u << 0)
#define VMX_PIN_NMI                (1u << 3)
#define VMX_PIN_VIRTUAL_NMIS       (1u << 5)
#define VMX_PIN_PREEMPTION_TIMER   (1u << 6)
#define VMX_PIN_POSTED_INTERRUPTS  (1u << 7)

/* VMCS_PRIMARY_CONTROLS */
#define VMX_INTERRUPT_WINDOW   (1u << 2)
#define VMX_USE_TSC_OFFSETTING (1u << 3)
#define VMX_HLT                (1u << 7)
#define VMX_INVLPG             (1u << 9)
#define VMX_MWAIT              (1u << 10)
#define VMX_RDPMC              (1u << 11)
#define VMX_RDTSC              (1u << 12)
#define VMX_CR3_LOAD           (1u << 15)
#define VMX_CR3_STORE          (1u << 16)
#define VMX_ACTIVATE_TERTIARY  (1u << 17)
#define VMX_CR8_LOAD           (1u << 19)
#define VMX_CR8_STORE          (1u << 20)
#define VMX_TPR_SHADOW         (1u << 21)
#define VMX_NMI_WINDOW         (1u << 22)
#define VMX_MOV_DR             (1u << 23)
#define VMX_UNCONDITIONAL_IO   (1u << 24)
#define VMX_USE_IO_BITMAPS     (1u << 25)
#define VMX_MONITOR_TRAP_FLAG  (1u << 27)
#define VMX_USE_MSR_BITMAPS    (1u << 28)
#define VMX_MONITOR            (1u << 29)
#define VMX_PAUSE              (1u << 30)
#define VMX_ACTIVATE_SECONDARY (1u << 31)

/* VMCS_SECONDARY_CONTROLS */
#define VMX2_VIRTUALIZE_APIC    (1u << 0)
#define VMX2_EPT                (1u << 1)
#define VMX2_DESCRIPTOR_TABLE   (1u << 2)
#define VMX2_RDTSCP             (1u << 3)
#define VMX2_VIRTUALIZE_X2APIC  (1u << 4)
#define VMX2_VPID               (1u << 5)
#define VMX2_WBINVD             (1u << 6)
#define VMX2_UNRESTRICTED_GUEST (1u << 7)
#define VMX2_APIC_REGISTERS     (1u << 8)
#define VMX2_VIRTUAL_INTERRUPTS (1u << 9)
#define VMX2_PAUSE_LOOP         (1u << 10)
#define VMX2_RDRAND             (1u << 11)
#define VMX2_INVPCID            (1u << 12)
#define VMX2_VM_FUNCTIONS       (1u << 13)
#define VMX2_VMCS_SHADOWING     (1u << 14)
#define VMX2_ENCLS              (1u << 15)
#define VMX2_RDSEED             (1u << 16)
#define VMX2_PML                (1u << 17)
#define VMX2_EPT_VIOLATION_VE   (1u << 18)
#define VMX2_CONCEAL_FROM_PT    (1u << 19)
#define VMX2_XSAVES             (1u << 20)
#define VMX2_MODE_BASED_EXECUTE (1u << 22)
#define VMX2_SUB_PAGE_WRITE     (1u << 23)
#define VMX2_PT_GUEST_PHYSICAL  (1u << 24)
#define VMX2_TSC_SCALING        (1u << 25)
#define VMX2_USER_WAIT          (1u << 26)
#define VMX2_PCONFIG            (1u << 27)
#define VMX2_ENCLV              (1u << 28)

/* VMCS_EXIT_CONTROLS */
#define VMX_EXIT_SAVE_DEBUG            (1u << 2)
#define VMX_EXIT_HOST_64               (1u << 9)
#define VMX_EXIT_LOAD_PERF_GLOBAL_CTRL (1u << 12)
#define VMX_EXIT_ACKNOWLEDGE           (1u << 15)
#define VMX_EXIT_SAVE_PAT              (1u << 18)
#define VMX_EXIT_LOAD_PAT              (1u << 19)
#define VMX_EXIT_SAVE_EFER             (1u << 20)
#define VMX_EXIT_LOAD_EFER             (1u << 21)
#define VMX_EXIT_SAVE_PREEMPTION_TIMER (1u << 22)
#define VMX_EXIT_CLEAR_BNDCFGS         (1u << 23)
#define VMX_EXIT_CONCEAL_FROM_PT       (1u << 24)
#define VMX_EXIT_LOAD_CET              (1u << 28)
#define VMX_EXIT_LOAD_PKRS             (1u << 29)

/* VMCS_ENTRY_CONTROLS */
#define VMX_ENTRY_LOAD_DEBUG            (1u << 2)
#define VMX_ENTRY_IA32E                 (1u << 9)
#define VMX_ENTRY_TO_SMM                (1u << 10)
#define VMX_ENTRY_DEACTIVATE_DUAL       (1u << 11)
#define VMX_ENTRY_LOAD_PERF_GLOBAL_CTRL (1u << 13)
#define VMX_ENTRY_LOAD_PAT              (1u << 14)
#define VMX_ENTRY_LOAD_EFER             (1u << 15)
#define VMX_ENTRY_LOAD_BNDCFGS          (1u << 16)
#define VMX_ENTRY_CONCEAL_FROM_PT       (1u << 17)
#define VMX_ENTRY_LOAD_CET              (1u << 20)
#define VMX_ENTRY_LOAD_PKRS             (1u << 22)

/* Bits 1 of the controls' default1 class (appendix A.3 to A.5). */
#define VMX_PIN_DEFAULT1     0x00000016u
#define VMX_PRIMARY_DEFAULT1 0x0401e172u
#define VMX_EXIT_DEFAULT1    0x00036dffu
#define VMX_ENTRY_DEFAULT1   0x000011ffu

/* ---- events: entry interruption information, exit interruption information, IDT-vectoring (25.8.3, 25.9)
 * ---- */

#define VMX_EVENT_VECTOR     0xffu
#define VMX_EVENT_TYPE_SHIFT 8
#define VMX_EVENT_TYPE(info) ((info) >> VMX_EVENT_TYPE_SHIFT & 7u)
#define VMX_EVENT_ERROR_CODE (1u << 11)
#define VMX_EVENT_NMI_UNBLOCKED                                                                              \
	(1u << 12) /* NMI unblocking due to IRET; undefined in IDT-vectoring information */
#define VMX_EVENT_VALID (1u << 31)
enum vmx_event_type {
	VMX_EVENT_EXTERNAL = 0,
	VMX_EVENT_NMI = 2,
	VMX_EVENT_EXCEPTION = 3,
	VMX_EVENT_SOFTWARE_INTERRUPT = 4,
	VMX_EVENT_PRIVILEGED_SOFTWARE = 5, /* INT1 */
	VMX_EVENT_SOFTWARE_EXCEPTION = 6,  /* INT3, INTO */
	VMX_EVENT_OTHER = 7                /* MTF with vector 0 (entry only) */
};

/* ---- guest non-register state (25.4.2) ---- */

enum vmx_activity { VMX_ACTIVE, VMX_HALTED, VMX_SHUTDOWN, VMX_WAIT_FOR_SIPI };
#define VMX_BLOCKING_STI    1u
#define VMX_BLOCKING_MOV_SS 2u
#define VMX_BLOCKING_SMI    4u
#define VMX_BLOCKING_NMI    8u
#define VMX_ENCLAVE         16u
/* VMCS_GUEST_PENDING_DEBUG: bits 3:0 as in DR6, and */
#define VMX_PENDING_ENABLED_BREAKPOINT (1u << 12)
#define VMX_PENDING_BS                 (1u << 14)
#define VMX_PENDING_RTM                (1u << 16)
/* Access rights as in descriptors.h, and */
#define VMX_RIGHTS_UNUSABLE (1u << 16)

/* Offsets in the virtual-APIC page (30.1.1). */
#define VMX_VTPR 0x80u

/* ---- EPT and VPID (25.6.11, 29; A.10) ---- */

#define EPTP_TYPE           7ull
#define EPTP_LEVELS_SHIFT   3 /* walk length less one, three bits */
#define EPTP_ACCESSED_DIRTY (1ull << 6)

#define EPT_READ         (1ull << 0)
#define EPT_WRITE        (1ull << 1)
#define EPT_EXECUTE      (1ull << 2) /* supervisor-mode linear addresses under mode-based execute control */
#define EPT_TYPE_SHIFT   3
#define EPT_IGNORE_PAT   (1ull << 6)
#define EPT_LARGE        (1ull << 7)
#define EPT_ACCESSED     (1ull << 8)
#define EPT_DIRTY        (1ull << 9)
#define EPT_EXECUTE_USER (1ull << 10)
#define EPT_SUPPRESS_VE  (1ull << 63)

/* Exit qualification of an EPT violation (28.2.1, table 28-7). */
#define EPT_VIOLATION_READ          (1ull << 0)
#define EPT_VIOLATION_WRITE         (1ull << 1)
#define EPT_VIOLATION_FETCH         (1ull << 2)
#define EPT_VIOLATION_RIGHTS_SHIFT  3 /* R, W, X of all entries */
#define EPT_VIOLATION_USER_EXECUTE  (1ull << 6)
#define EPT_VIOLATION_LINEAR_VALID  (1ull << 7)
#define EPT_VIOLATION_FINAL         (1ull << 8) /* the access itself, not the walk to it */
/* Advanced information, where the processor has it: of the linear address, if the two above are 1. */
#define EPT_VIOLATION_USER          (1ull << 9)
#define EPT_VIOLATION_WRITABLE      (1ull << 10)
#define EPT_VIOLATION_NO_EXECUTE    (1ull << 11)
#define EPT_VIOLATION_NMI_UNBLOCKED (1ull << 12)

/* VMCS_VM_FUNCTIONS, IA32_VMX_VMFUNC (25.6.14, A.11) */
#define VMX_FUNCTION_EPTP_SWITCHING (1ull << 0)

/* INVEPT's and INVVPID's types. */
enum vmx_invept { INVEPT_CONTEXT = 1, INVEPT_ALL = 2 };
enum vmx_invvpid { INVVPID_ADDRESS, INVVPID_CONTEXT, INVVPID_ALL, INVVPID_KEEP_GLOBAL };

/* IA32_VMX_BASIC (A.1) */
#define VMX_BASIC_SIZE_SHIFT    32
#define VMX_BASIC_32_BIT        (1ull << 48)
#define VMX_BASIC_DUAL_MONITOR  (1ull << 49)
#define VMX_BASIC_TYPE_SHIFT    50
#define VMX_BASIC_INS_OUTS      (1ull << 54)
#define VMX_BASIC_TRUE_CONTROLS (1ull << 55)
#define VMX_BASIC_ANY_ERROR     (1ull << 56) /* no error-code consistency check at entry */

/* IA32_VMX_MISC (A.6) */
#define VMX_MISC_TIMER_RATE        0x1full
#define VMX_MISC_SAVES_LMA         (1ull << 5)
#define VMX_MISC_HLT               (1ull << 6)
#define VMX_MISC_SHUTDOWN          (1ull << 7)
#define VMX_MISC_WAIT_FOR_SIPI     (1ull << 8)
#define VMX_MISC_PT                (1ull << 14)
#define VMX_MISC_SMBASE            (1ull << 15)
#define VMX_MISC_CR3_TARGETS_SHIFT 16
#define VMX_MISC_MSR_LIST_SHIFT    25 /* 512 * (N + 1) entries */
#define VMX_MISC_VMWRITE_ANY       (1ull << 29)
#define VMX_MISC_ZERO_LENGTH       (1ull << 30)

/* IA32_VMX_EPT_VPID_CAP (A.10) */
#define VMX_EPT_EXECUTE_ONLY        (1ull << 0)
#define VMX_EPT_4_LEVELS            (1ull << 6)
#define VMX_EPT_5_LEVELS            (1ull << 7)
#define VMX_EPT_UNCACHEABLE         (1ull << 8)
#define VMX_EPT_WRITE_BACK          (1ull << 14)
#define VMX_EPT_2M                  (1ull << 16)
#define VMX_EPT_1G                  (1ull << 17)
#define VMX_EPT_INVEPT              (1ull << 20)
#define VMX_EPT_ACCESSED_DIRTY      (1ull << 21)
#define VMX_EPT_ADVANCED            (1ull << 22)
#define VMX_EPT_INVEPT_CONTEXT      (1ull << 25)
#define VMX_EPT_INVEPT_ALL          (1ull << 26)
#define VMX_EPT_INVVPID             (1ull << 32)
#define VMX_EPT_INVVPID_ADDRESS     (1ull << 40)
#define VMX_EPT_INVVPID_CONTEXT     (1ull << 41)
#define VMX_EPT_INVVPID_ALL         (1ull << 42)
#define VMX_EPT_INVVPID_KEEP_GLOBAL (1ull << 43)

#endif
