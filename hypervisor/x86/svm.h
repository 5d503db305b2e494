/* svm.h: AMD-V as the manual numbers it (APM 2 chapter 15, appendices B and C). */
#ifndef TRAPLINE_X86_SVM_H
#define TRAPLINE_X86_SVM_H

enum svm_exit {
#define SVM_EXIT(code, name) SVM_EXIT_##name = (code),
#include "x86/svm_exits.def"
#undef SVM_EXIT
	SVM_EXIT_INVALID = -1, /* VMRUN found illegal state */
	SVM_EXIT_NONE = -2     /* no intercept exists */
};

/* ---- the control area of a VMCB: offsets in bytes (appendix B, table B-1) ---- */

#define VMCB_SIZE 0x1000u

#define VMCB_INTERCEPTS(n)    (0x000u + 4 * (n)) /* CR, DR, exceptions, then three words; 32 bits each */
#define VMCB_INTERCEPT_WORDS  6u
#define VMCB_PAUSE_THRESHOLD  0x03cu
#define VMCB_PAUSE_COUNT      0x03eu
#define VMCB_IOPM_BASE        0x040u
#define VMCB_MSRPM_BASE       0x048u
#define VMCB_TSC_OFFSET       0x050u
#define VMCB_ASID             0x058u /* 32 bits */
#define VMCB_TLB_CONTROL      0x05cu /* a byte */
#define VMCB_INTERRUPT        0x060u
#define VMCB_INTERRUPT_SHADOW 0x068u
#define VMCB_EXITCODE         0x070u
#define VMCB_EXITINFO1        0x078u
#define VMCB_EXITINFO2        0x080u
#define VMCB_EXITINTINFO      0x088u
#define VMCB_NESTED           0x090u
#define VMCB_EVENTINJ         0x0a8u
#define VMCB_NCR3             0x0b0u
#define VMCB_VIRTUAL          0x0b8u
#define VMCB_CLEAN            0x0c0u
#define VMCB_NRIP             0x0c8u
#define VMCB_FETCHED          0x0d0u /* a count, then 15 bytes */

/* Where in the intercept words the bit of an exit code below 0x100 is: word code / 32, from 60h on two words
 * more. */
#define SVM_INTERCEPT_WORD(code) ((code) < 0x20 ? 0u : (code) < 0x40 ? 1u : (unsigned)(code) / 32)

/* VMCB_INTERRUPT */
#define SVM_V_TPR          0xfull
#define SVM_V_IRQ          (1ull << 8)
#define SVM_V_GIF          (1ull << 9)
#define SVM_V_NMI          (1ull << 11)
#define SVM_V_NMI_MASK     (1ull << 12)
#define SVM_V_PRIORITY(v)  ((unsigned)((v) >> 16) & 15)
#define SVM_V_IGN_TPR      (1ull << 20)
#define SVM_V_INTR_MASKING (1ull << 24)
#define SVM_V_GIF_ENABLE   (1ull << 25)
#define SVM_V_NMI_ENABLE   (1ull << 26)
#define SVM_V_VECTOR(v)    ((uint8_t)((v) >> 32))

/* VMCB_NESTED, VMCB_VIRTUAL */
#define SVM_NP_ENABLE  1u
#define SVM_LBR_ENABLE 1u
#define SVM_VLS_ENABLE 2u /* virtual VMLOAD and VMSAVE */

/* EVENTINJ and EXITINTINFO (15.7.2, 15.20); the error code is in bits 63:32. */
#define SVM_EVENT_VECTOR      0xffull
#define SVM_EVENT_TYPE_SHIFT  8
#define SVM_EVENT_ERROR_VALID (1ull << 11)
#define SVM_EVENT_VALID       (1ull << 31)
enum svm_event_type {
	SVM_EVENT_INTR = 0,
	SVM_EVENT_NMI = 2,
	SVM_EVENT_EXCEPTION = 3,
	SVM_EVENT_SOFTWARE = 4
};

/* EXITINFO1 of MOV CRn (15.8.1), IOIO (15.10.2), NPF (15.25.6); EXITINFO2 of a task switch (15.14.1). */
#define SVM_INFO_MOV_CR        (1ull << 63)
#define SVM_IOIO_IN            1u
#define SVM_IOIO_STRING        (1u << 2)
#define SVM_IOIO_REP           (1u << 3)
#define SVM_IOIO_SIZE_SHIFT    4 /* 1, 2 or 4: the size in bytes */
#define SVM_IOIO_ADDRESS_SHIFT 6 /* 2, 4 or 8: the address's width in bytes */
#define SVM_IOIO_SEGMENT_SHIFT 10
#define SVM_IOIO_PORT_SHIFT    16
#define SVM_NPF_FINAL          (1ull << 32)
#define SVM_NPF_TABLE          (1ull << 33)
#define SVM_TASK_IRET          (1ull << 36)
#define SVM_TASK_JUMP          (1ull << 38)
#define SVM_TASK_ERROR_CODE    (1ull << 44)
#define SVM_TASK_RF            (1ull << 48)

/* Bytes of the permission maps. */
#define SVM_IOPM_SIZE  0x3000u
#define SVM_MSRPM_SIZE 0x2000u

/* ---- the state-save area (table B-2), offsets in the VMCB ---- */

/* A segment: selector and attributes of 16 bits, limit of 32, base of 64. */
#define VMCB_ES           0x400u
#define VMCB_CS           0x410u
#define VMCB_SS           0x420u
#define VMCB_DS           0x430u
#define VMCB_FS           0x440u
#define VMCB_GS           0x450u
#define VMCB_GDTR         0x460u
#define VMCB_LDTR         0x470u
#define VMCB_IDTR         0x480u
#define VMCB_TR           0x490u
#define VMCB_CPL          0x4cbu /* a byte */
#define VMCB_EFER         0x4d0u
#define VMCB_CR4          0x548u
#define VMCB_CR3          0x550u
#define VMCB_CR0          0x558u
#define VMCB_DR7          0x560u
#define VMCB_DR6          0x568u
#define VMCB_RFLAGS       0x570u
#define VMCB_RIP          0x578u
#define VMCB_RSP          0x5d8u
#define VMCB_RAX          0x5f8u
#define VMCB_STAR         0x600u
#define VMCB_LSTAR        0x608u
#define VMCB_CSTAR        0x610u
#define VMCB_SFMASK       0x618u
#define VMCB_KERNEL_GS    0x620u
#define VMCB_SYSENTER_CS  0x628u
#define VMCB_SYSENTER_ESP 0x630u
#define VMCB_SYSENTER_EIP 0x638u
#define VMCB_CR2          0x640u
#define VMCB_G_PAT        0x668u
#define VMCB_DBGCTL       0x670u /* this and what follows: with SVM_LBR_ENABLE */
#define VMCB_BR_FROM      0x678u
#define VMCB_BR_TO        0x680u
#define VMCB_LASTEXCPFROM 0x688u
#define VMCB_LASTEXCPTO   0x690u

#endif
