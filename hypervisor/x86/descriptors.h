/*
 * descriptors.h: segment and gate descriptors, selectors and task-state
 * segments (SDM 3A 3.4, 6.11, 8.2; APM 2 4.7, 12.2).
 */
#ifndef TRAPLINE_X86_DESCRIPTORS_H
#define TRAPLINE_X86_DESCRIPTORS_H

#include <stdint.h>

/* Selectors. */
#define SELECTOR_RPL   3u
#define SELECTOR_TI    4u
#define SELECTOR_INDEX 0xfff8u

/*
 * Attributes of a cached segment, in the layout of a descriptor's bytes 5 and 6,
 * which is also that of VMX access rights (SDM 3C 25.4.1): type in 3:0, S 4,
 * DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
 */
#define SEG_TYPE     0x000fu
#define SEG_S        0x0010u
#define SEG_DPL      0x0060u
#define SEG_DPL_SHIFT 5
#define SEG_P        0x0080u
#define SEG_AVL      0x1000u
#define SEG_L        0x2000u
#define SEG_DB       0x4000u
#define SEG_G        0x8000u
#define SEG_UNUSABLE 0x10000u /* loaded with a null selector, or never */

/* Type bits of code and data segments. */
#define SEG_ACCESSED 0x1u
#define SEG_WRITABLE 0x2u /* data */
#define SEG_EXPAND_DOWN 0x4u /* data */
#define SEG_READABLE 0x2u /* code */
#define SEG_CONFORMING 0x4u /* code */
#define SEG_CODE     0x8u

/* System-segment and gate types (SDM 3A 3.5, table 3-2). */
enum system_type {
	TYPE_TSS16_AVAILABLE = 1,
	TYPE_LDT = 2,
	TYPE_TSS16_BUSY = 3,
	TYPE_CALL_GATE16 = 4,
	TYPE_TASK_GATE = 5,
	TYPE_INTERRUPT_GATE16 = 6,
	TYPE_TRAP_GATE16 = 7,
	TYPE_TSS_AVAILABLE = 9, /* 32-bit, or 64-bit in IA-32e mode */
	TYPE_TSS_BUSY = 11,
	TYPE_CALL_GATE = 12,
	TYPE_INTERRUPT_GATE = 14,
	TYPE_TRAP_GATE = 15
};

/* Offsets in a 16-bit TSS (SDM 3A 8.6). */
#define TSS16_LINK 0
#define TSS16_SP(n) (2 + 4 * (n))
#define TSS16_SS(n) (4 + 4 * (n))
#define TSS16_IP 14
#define TSS16_FLAGS 16
#define TSS16_GPR 18 /* AX CX DX BX SP BP SI DI, 2 bytes each */
#define TSS16_SEG 34 /* ES CS SS DS, 2 bytes each */
#define TSS16_LDT 42
#define TSS16_SIZE 44

/* Offsets in a 32-bit TSS (SDM 3A 8.2.1). */
#define TSS32_LINK 0
#define TSS32_ESP(n) (4 + 8 * (n))
#define TSS32_SS(n) (8 + 8 * (n))
#define TSS32_CR3 28
#define TSS32_EIP 32
#define TSS32_EFLAGS 36
#define TSS32_GPR 40 /* EAX ECX EDX EBX ESP EBP ESI EDI, 4 bytes each */
#define TSS32_SEG 72 /* ES CS SS DS FS GS, 4 bytes each */
#define TSS32_LDT 96
#define TSS32_TRAP 100
#define TSS32_IOMAP 102
#define TSS32_SIZE 104

/* Offsets in a 64-bit TSS (SDM 3A 8.7). */
#define TSS64_RSP(n) (4 + 8 * (n))
#define TSS64_IST(n) (28 + 8 * (n)) /* n: 1 to 7 */
#define TSS64_IOMAP 102
#define TSS64_SIZE 104

#endif
