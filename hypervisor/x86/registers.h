/*
 * registers.h: the architectural registers and their bits.
 *
 * Facts only, by the manuals' names. Freestanding: shared by the software CPU,
 * the engines, the guests and the kernel module.
 */
#ifndef TRAPLINE_X86_REGISTERS_H
#define TRAPLINE_X86_REGISTERS_H

#include <stdint.h>

/* General-purpose registers, numbered as in ModRM and REX (SDM 2A 2.1.5). */
enum gpr {
	RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI,
	R8, R9, R10, R11, R12, R13, R14, R15,
	GPR_COUNT
};

/* Segment registers, numbered as in the Sreg field of ModRM (SDM 2D B.1.4). */
enum segment_register { ES, CS, SS, DS, FS, GS, SEGMENT_COUNT };

/* RFLAGS (SDM 1 3.4.3). */
#define RFLAGS_CF   (1u << 0)
#define RFLAGS_FIXED (1u << 1) /* reads as one */
#define RFLAGS_PF   (1u << 2)
#define RFLAGS_AF   (1u << 4)
#define RFLAGS_ZF   (1u << 6)
#define RFLAGS_SF   (1u << 7)
#define RFLAGS_TF   (1u << 8)
#define RFLAGS_IF   (1u << 9)
#define RFLAGS_DF   (1u << 10)
#define RFLAGS_OF   (1u << 11)
#define RFLAGS_IOPL (3u << 12)
#define RFLAGS_IOPL_SHIFT 12
#define RFLAGS_NT   (1u << 14)
#define RFLAGS_RF   (1u << 16)
#define RFLAGS_VM   (1u << 17)
#define RFLAGS_AC   (1u << 18)
#define RFLAGS_VIF  (1u << 19)
#define RFLAGS_VIP  (1u << 20)
#define RFLAGS_ID   (1u << 21)

#define RFLAGS_STATUS \
	(RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF)
#define RFLAGS_DEFINED \
	(RFLAGS_STATUS | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | \
	 RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | RFLAGS_AC | RFLAGS_VIF | \
	 RFLAGS_VIP | RFLAGS_ID)

/* CR0 (SDM 3A 2.5). */
#define CR0_PE (1u << 0)
#define CR0_MP (1u << 1)
#define CR0_EM (1u << 2)
#define CR0_TS (1u << 3)
#define CR0_ET (1u << 4)
#define CR0_NE (1u << 5)
#define CR0_WP (1u << 16)
#define CR0_AM (1u << 18)
#define CR0_NW (1u << 29)
#define CR0_CD (1u << 30)
#define CR0_PG (1u << 31)

/* CR3 (SDM 3A 4.5). */
#define CR3_PWT  (1u << 3)
#define CR3_PCD  (1u << 4)
#define CR3_PCID 0xfffu
#define CR3_NO_FLUSH (1ull << 63) /* in the source of MOV to CR3, with CR4.PCIDE */

/* CR4 (SDM 3A 2.5). */
#define CR4_VME        (1u << 0)
#define CR4_PVI        (1u << 1)
#define CR4_TSD        (1u << 2)
#define CR4_DE         (1u << 3)
#define CR4_PSE        (1u << 4)
#define CR4_PAE        (1u << 5)
#define CR4_MCE        (1u << 6)
#define CR4_PGE        (1u << 7)
#define CR4_PCE        (1u << 8)
#define CR4_OSFXSR     (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP       (1u << 11)
#define CR4_LA57       (1u << 12)
#define CR4_VMXE       (1u << 13)
#define CR4_SMXE       (1u << 14)
#define CR4_FSGSBASE   (1u << 16)
#define CR4_PCIDE      (1u << 17)
#define CR4_OSXSAVE    (1u << 18)
#define CR4_SMEP       (1u << 20)
#define CR4_SMAP       (1u << 21)
#define CR4_PKE        (1u << 22)
#define CR4_CET        (1u << 23)
#define CR4_PKS        (1u << 24)

/* IA32_EFER / EFER (SDM 3A 2.2.1, APM 2 3.1.7). */
#define EFER_SCE   (1u << 0)
#define EFER_LME   (1u << 8)
#define EFER_LMA   (1u << 10)
#define EFER_NXE   (1u << 11)
#define EFER_SVME  (1u << 12)
#define EFER_LMSLE (1u << 13)
#define EFER_FFXSR (1u << 14)
#define EFER_TCE   (1u << 15)

/* Debug registers (SDM 3B 18.2). */
#define DR6_B(n)    (1u << (n)) /* n: 0 to 3 */
#define DR6_BLD     (1u << 11)
#define DR6_BD      (1u << 13)
#define DR6_BS      (1u << 14)
#define DR6_BT      (1u << 15)
#define DR6_RTM     (1u << 16)
#define DR6_FIXED_1 0xffff0ff0u /* reads as one where nothing is reported */
#define DR6_WRITABLE 0xe00fu /* BT, BS, BD, B3 to B0 */
#define DR7_L(n)    (1u << (2 * (n)))
#define DR7_G(n)    (2u << (2 * (n)))
#define DR7_LE      (1u << 8)
#define DR7_GE      (1u << 9)
#define DR7_FIXED_1 (1u << 10)
#define DR7_GD      (1u << 13)
#define DR7_WRITABLE 0xffff23ffu
#define DR7_RW_SHIFT(n)  (16 + 4 * (n))
#define DR7_LEN_SHIFT(n) (18 + 4 * (n))

/* XCR0 (SDM 1 13.3). */
#define XCR0_X87  (1u << 0)
#define XCR0_SSE  (1u << 1)
#define XCR0_AVX  (1u << 2)
#define XCR0_PKRU (1u << 9)

/* MXCSR (SDM 1 10.2.3). */
#define MXCSR_IE  (1u << 0)
#define MXCSR_DE  (1u << 1)
#define MXCSR_ZE  (1u << 2)
#define MXCSR_OE  (1u << 3)
#define MXCSR_UE  (1u << 4)
#define MXCSR_PE  (1u << 5)
#define MXCSR_DAZ (1u << 6)
#define MXCSR_MASKS (0x3fu << 7)
#define MXCSR_RC  (3u << 13)
#define MXCSR_FZ  (1u << 15)
#define MXCSR_RESET 0x1f80u

/* CR8 holds bits 7:4 of the task-priority register (SDM 3A 11.8.6). */
#define CR8_TPR 0xfu

#endif
