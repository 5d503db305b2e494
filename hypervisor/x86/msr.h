/*
 * msr.h: model-specific registers by their index (SDM 4 table 2-2, APM 2 appendix A), and bits
 * of those that software sets one by one. EFER's bits are in registers.h.
 */
#ifndef TRAPLINE_X86_MSR_H
#define TRAPLINE_X86_MSR_H

#define MSR_P5_MC_ADDR           0x0u
#define MSR_P5_MC_TYPE           0x1u
#define MSR_MONITOR_FILTER_SIZE  0x6u
#define MSR_TSC                  0x10u
#define MSR_KVM_WALL_CLOCK       0x11u /* KVM's, from before it had a range of its own */
#define MSR_KVM_SYSTEM_TIME      0x12u
#define MSR_PLATFORM_ID          0x17u
#define MSR_APIC_BASE            0x1bu
#define MSR_FEATURE_CONTROL      0x3au
#define MSR_TSC_ADJUST           0x3bu
#define MSR_SPEC_CTRL            0x48u
#define MSR_PRED_CMD             0x49u
#define MSR_BIOS_UPDT_TRIG       0x79u
#define MSR_SMM_MONITOR_CTL      0x9bu
#define MSR_BIOS_SIGN_ID         0x8bu /* AMD: PATCH_LEVEL */
#define MSR_PMC(n)               (0xc1u + (n))
#define MSR_PLATFORM_INFO        0xceu
#define MSR_UMWAIT_CONTROL       0xe1u
#define MSR_PKG_CST_CONFIG       0xe2u
#define MSR_MPERF                0xe7u
#define MSR_APERF                0xe8u
#define MSR_MTRRCAP              0xfeu
#define MSR_ARCH_CAPABILITIES    0x10au
#define MSR_MISC_FEATURES_ENABLES 0x140u
#define MSR_SYSENTER_CS          0x174u
#define MSR_SYSENTER_ESP         0x175u
#define MSR_SYSENTER_EIP         0x176u
#define MSR_MCG_CAP              0x179u
#define MSR_MCG_STATUS           0x17au
#define MSR_MCG_CTL              0x17bu
#define MSR_PERFEVTSEL(n)        (0x186u + (n))
#define MSR_POWER_CTL            0x1fcu
#define MSR_PERF_GLOBAL_STATUS   0x38eu
#define MSR_PERF_GLOBAL_CTRL     0x38fu
#define MSR_PERF_GLOBAL_OVF_CTRL 0x390u
#define MSR_MISC_ENABLE          0x1a0u
#define MSR_DEBUGCTL             0x1d9u
#define MSR_LASTBRANCHFROMIP     0x1dbu /* AMD */
#define MSR_LASTBRANCHTOIP       0x1dcu
#define MSR_LASTINTFROMIP        0x1ddu
#define MSR_LASTINTTOIP          0x1deu
#define MSR_MTRR_PHYSBASE(n)     (0x200u + 2 * (n))
#define MSR_MTRR_PHYSMASK(n)     (0x201u + 2 * (n))
#define MSR_MTRR_FIX64K_00000    0x250u
#define MSR_MTRR_FIX16K_80000    0x258u
#define MSR_MTRR_FIX16K_A0000    0x259u
#define MSR_MTRR_FIX4K(n)        (0x268u + (n)) /* C0000, C8000, … F8000 */
#define MSR_PAT                  0x277u
#define MSR_MTRR_DEF_TYPE        0x2ffu
#define MSR_MC_CTL(n)            (0x400u + 4 * (n))
#define MSR_MC_STATUS(n)         (0x401u + 4 * (n))
#define MSR_MC_ADDR(n)           (0x402u + 4 * (n))
#define MSR_MC_MISC(n)           (0x403u + 4 * (n))
#define MSR_VMX_BASIC            0x480u
#define MSR_VMX_PIN_CTLS         0x481u
#define MSR_VMX_PRIMARY_CTLS     0x482u
#define MSR_VMX_EXIT_CTLS        0x483u
#define MSR_VMX_ENTRY_CTLS       0x484u
#define MSR_VMX_MISC             0x485u
#define MSR_VMX_CR0_FIXED0       0x486u
#define MSR_VMX_CR0_FIXED1       0x487u
#define MSR_VMX_CR4_FIXED0       0x488u
#define MSR_VMX_CR4_FIXED1       0x489u
#define MSR_VMX_VMCS_ENUM        0x48au
#define MSR_VMX_SECONDARY_CTLS   0x48bu
#define MSR_VMX_EPT_VPID_CAP     0x48cu
#define MSR_VMX_TRUE_PIN_CTLS    0x48du
#define MSR_VMX_TRUE_PRIMARY_CTLS 0x48eu
#define MSR_VMX_TRUE_EXIT_CTLS   0x48fu
#define MSR_VMX_TRUE_ENTRY_CTLS  0x490u
#define MSR_VMX_VMFUNC           0x491u
#define MSR_TSC_DEADLINE         0x6e0u
#define MSR_X2APIC_FIRST         0x800u
#define MSR_X2APIC_COUNT         0x100u
#define MSR_XSS                  0xda0u
#define MSR_KVM_WALL_CLOCK_NEW   0x4b564d00u
#define MSR_KVM_SYSTEM_TIME_NEW  0x4b564d01u

#define MSR_EFER                 0xc0000080u
#define MSR_STAR                 0xc0000081u
#define MSR_LSTAR                0xc0000082u
#define MSR_CSTAR                0xc0000083u
#define MSR_FMASK                0xc0000084u
#define MSR_FS_BASE              0xc0000100u
#define MSR_GS_BASE              0xc0000101u
#define MSR_KERNEL_GS_BASE       0xc0000102u
#define MSR_TSC_AUX              0xc0000103u
#define MSR_TSC_RATIO            0xc0000104u /* AMD */

/* AMD */
#define MSR_AMD_PERFEVTSEL(n)    (0xc0010000u + (n))
#define MSR_AMD_PERFCTR(n)       (0xc0010004u + (n))
#define MSR_SYSCFG               0xc0010010u
#define MSR_HWCR                 0xc0010015u
#define MSR_IORR(n)              (0xc0010016u + (n)) /* BASE0, MASK0, BASE1, MASK1 */
#define MSR_TOP_MEM              0xc001001au
#define MSR_TOP_MEM2             0xc001001du
#define MSR_PATCH_LOADER         0xc0010020u
#define MSR_SMM_BASE             0xc0010111u
#define MSR_SMM_ADDR             0xc0010112u
#define MSR_SMM_MASK             0xc0010113u
#define MSR_VM_CR                0xc0010114u
#define MSR_IGNNE                0xc0010115u
#define MSR_SMM_CTL              0xc0010116u
#define MSR_VM_HSAVE_PA          0xc0010117u
#define MSR_SVM_KEY              0xc0010118u

#define APIC_DEFAULT_BASE 0xfee00000u
#define APIC_BASE_BSP    (1u << 8)
#define APIC_BASE_EXTD   (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)

#define FEATURE_CONTROL_LOCK        (1u << 0)
#define FEATURE_CONTROL_VMX_IN_SMX  (1u << 1)
#define FEATURE_CONTROL_VMX         (1u << 2) /* VMXON outside of SMX operation */
#define FEATURE_CONTROL_SENTER      0xff00u

#define PLATFORM_INFO_CPUID_FAULTING  (1ull << 31)
#define MISC_FEATURES_CPUID_FAULTING  1u

#define MISC_ENABLE_FAST_STRINGS      (1u << 0)
#define MISC_ENABLE_PERFMON           (1u << 7)  /* read-only */
#define MISC_ENABLE_BTS_UNAVAILABLE   (1u << 11) /* read-only */
#define MISC_ENABLE_PEBS_UNAVAILABLE  (1u << 12) /* read-only */
#define MISC_ENABLE_MONITOR           (1u << 18)
#define MISC_ENABLE_LIMIT_CPUID       (1u << 22)
#define MISC_ENABLE_XD_DISABLE        (1ull << 34)

#define DEBUGCTL_LBR (1u << 0)
#define DEBUGCTL_BTF (1u << 1)
#define DEBUGCTL_AMD 0x3full /* with the pin controls PB0 to PB3 (APM 2 13.1.1.6) */

#define PERFEVTSEL_EVENT  0xffffu /* event and unit mask */
#define PERFEVTSEL_USR    (1u << 16)
#define PERFEVTSEL_OS     (1u << 17)
#define PERFEVTSEL_INT    (1u << 20) /* an overflow interrupts */
#define PERFEVTSEL_ENABLE (1u << 22)

#define HWCR_SMM_LOCK          (1u << 0)
#define HWCR_IGNNE_EM          (1u << 8) /* IGNNE is the MSR's, not the pin's */
#define HWCR_MONITOR_DISABLE   (1u << 9)
#define HWCR_MONITOR_USER      (1u << 10)
#define HWCR_WRAP32_DISABLE    (1u << 17)
#define HWCR_MC_STATUS_WRITE   (1u << 18)
#define HWCR_CPUID_USER_DISABLE (1ull << 35)

#define SYSCFG_MTRR_FIX_DRAM_MODIFY (1u << 19)

#define VM_CR_DPD (1u << 0)
#define VM_CR_R_INIT (1u << 1)
#define VM_CR_DIS_A20M (1u << 2)
#define VM_CR_LOCK   (1u << 3)
#define VM_CR_SVMDIS (1u << 4)

/* SMM_CTL (APM 2 15.30.3) */
#define SMM_CTL_DISMISS (1u << 0)
#define SMM_CTL_ENTER   (1u << 1)
#define SMM_CTL_EXIT    (1u << 3)

#endif
