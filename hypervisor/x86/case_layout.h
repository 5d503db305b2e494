/*
 * case_layout.h: where a case's world stands in memory, and the values that its registers
 * start from. A suite may name all of these in settings and in expectations; guests/lib
 * builds exactly this before each case.
 *
 * Linear addresses are physical addresses in every mode. All of a case's memory lies in one
 * window of 64 KiB at CASE_WINDOW, so that 16-bit segments reach it: in real, vm86 and
 * prot16 the base of every segment is CASE_WINDOW (selector CASE_WINDOW / 16 in real and
 * vm86) and an offset is the address less CASE_WINDOW; in prot32, compat and long, segments
 * are flat and an offset is the address. case_offset() says it in code.
 *
 * Compared after each case, as aligned quadwords against what stood there before: the
 * tables page, the IDT of the mode (the interrupt vector table in real and vm86), the stub
 * page, both operand pages, the stack pages and the landing pages. Left out: the bytes that
 * the case watches (they are reported as watched), and on the stack the frame that ended
 * the case with what the handler pushed below it. Of page tables and frames outside the window what the case
 * has poked is compared, and nothing else.
 * On an exception from CPL 0 in real, prot16 and prot32 that frame lies on the
 * case's own stack, and the 12 bytes below the baseline's stack pointer hold the frame that
 * started the case (EIP, CS, EFLAGS).
 *
 * Paging. long and compat: 4-level, CR3 = CASE_CR3_LONG. prot16, prot32, vm86: 32-bit paging
 * without PSE, CR3 = CASE_CR3_32. real: none, though CR3 holds CASE_CR3_32 too. A case that sets
 * CR4.PAE in a prot mode sets CR3 = CASE_CR3_PAE, whose tables below the PDPT are those of long
 * mode. The first 2 MiB (4 MiB in 32-bit paging) are mapped by 4 KiB pages, whose entries a case
 * may poke: CASE_PTE_LONG(address), 8 bytes, and CASE_PTE_32(address), 4 bytes.
 * The stub, operand and CASE_STACK pages are user pages where the case's CPL is 3 (vm86
 * included), and supervisor pages otherwise; CASE_LAND_USER and, in 32-bit paging, page 0
 * (the IVT) are always user pages; the rest never. All baseline entries have P, A and W set,
 * and D but for the window's own: where paging is on, and no page table was poked, a page of
 * the window that stays clean is not compared.
 */
#ifndef TRAPLINE_X86_CASE_LAYOUT_H
#define TRAPLINE_X86_CASE_LAYOUT_H

#include <stdint.h>

#include "x86/case.h"
#include "x86/descriptors.h"
#include "x86/paging.h"
#include "x86/registers.h"

/* ---- memory ---- */

#define CASE_WINDOW 0x10000u
#define CASE_WINDOW_SIZE 0xa000u /* what of it is used: up to the end of the landing pages */

#define CASE_IVT 0x00000u /* 256 entries of 4 bytes; real mode's IDTR and VME's redirection */
#define CASE_IVT_SIZE 0x400u

/* The tables page. */
#define CASE_GDT 0x10000u
#define CASE_GDT_LIMIT 0x1ffu
#define CASE_LDT 0x10200u
#define CASE_LDT_LIMIT 0x7fu
#define CASE_TSS64 0x10400u
#define CASE_TSS32 0x10800u
#define CASE_TSS32_SPARE 0x10b00u /* a second task, available; starts at CASE_LAND_SUPERVISOR */
#define CASE_TSS16 0x10e00u       /* a 16-bit task, available; starts at CASE_LAND_SUPERVISOR */
#define CASE_TSS_REDIRECTION 0x68u /* in each TSS: VME's 32 bytes, all ones: not redirected */
#define CASE_TSS_IOMAP 0x88u       /* in each TSS: ports 0 to 0x3ff, all ones: denied */
#define CASE_TSS_LIMIT 0x108u      /* the bitmap's closing byte included */

#define CASE_IDT64 0x11000u
#define CASE_IDT64_LIMIT 0xfffu
#define CASE_IDT32 0x12000u
#define CASE_IDT32_LIMIT 0x7ffu

/*
 * In real mode, where the case watches rflags, PUSHFD (66 9c) stands between the bytes under test
 * and CASE_END, since an exception there pushes FLAGS alone; it leaves no effects of its own.
 *
 * CASE_END, two bytes, ends a case by #UD: LOCK NOP, undefined on every processor. (UD2 would
 * do, but the instruction emulator of KVM gives up on that one at CPL 0.)
 * The bytes under test stand at CASE_STUB, CASE_END behind them and in the rest of the page.
 */
#define CASE_END 0x90f0u
#define CASE_STUB 0x13000u

/* Two pages of CASE_FILL; CASE_OPERAND is where RBX and RSI point, CASE_OPERAND2 RDI. */
#define CASE_FILL 0xa5u
#define CASE_OPERAND_PAGE 0x14000u
#define CASE_OPERAND 0x14400u
#define CASE_OPERAND2 0x14c00u
#define CASE_OPERAND_PAGE2 0x15000u

/* Stacks, CASE_FILL throughout. The case's own at every CPL, and those of the TSS. */
#define CASE_STACK_PAGE 0x16000u
#define CASE_STACK 0x16800u
#define CASE_INNER_STACK_PAGE 0x17000u /* supervisor */
#define CASE_STACK0 0x17400u           /* ESP0, RSP0, SYSENTER_ESP; SS0 = DS32_0, never in window */
#define CASE_STACK1 0x17800u           /* ESP1, RSP1; SS1 = DS32_1 */
#define CASE_STACK2 0x17c00u           /* ESP2, RSP2; SS2 = DS32_2 */

/* Pages full of CASE_END, which end a case that arrives there. */
#define CASE_LAND_SUPERVISOR 0x18000u
#define CASE_LAND_SYSCALL (CASE_LAND_SUPERVISOR + 0x100) /* LSTAR */
#define CASE_LAND_CSTAR (CASE_LAND_SUPERVISOR + 0x200)
#define CASE_LAND_SYSENTER (CASE_LAND_SUPERVISOR + 0x300)
#define CASE_LAND_GATE (CASE_LAND_SUPERVISOR + 0x400) /* target of the call gates below */
#define CASE_LAND_TASK (CASE_LAND_SUPERVISOR + 0x500) /* EIP of the spare tasks */
#define CASE_LAND_USER 0x19000u
/* In vm86, entry n of the IVT is CASE_WINDOW / 16 : offset of this (VME redirection). */
#define CASE_LAND_IVT(n) (CASE_LAND_USER + 0x400u + 2u * (n))

/* Page tables. */
#define CASE_CR3_LONG 0x30000u /* PML4; PDPT, PD and PT follow */
#define CASE_PDPT 0x31000u
#define CASE_PD 0x32000u
#define CASE_PT 0x33000u
#define CASE_CR3_PAE 0x34000u
#define CASE_CR3_32 0x35000u
#define CASE_PT_32 0x36000u
#define CASE_CR3_57 0x37000u /* PML5, for cases that set CR4.LA57; entry 0 leads to CASE_CR3_LONG */
#define CASE_PTE_LONG(address) (CASE_PT + ((uint32_t)(address) >> 12) * 8u)
#define CASE_PTE_32(address) (CASE_PT_32 + ((uint32_t)(address) >> 12) * 4u)
/* The baseline entry of a page of the case; @user as the text above says. */
#define CASE_PTE(address, user) \
	(((uint64_t)(address) & ~PAGE_MASK) | PTE_P | PTE_W | PTE_A | PTE_D | ((user) ? PTE_U : 0))

/*
 * The path: tables and frames for what a case maps itself, at linear addresses from CASE_PATH_LINEAR
 * up, where the baseline maps nothing. The tables are empty; the case pokes their entries, and the entry of the
 * baseline's upper table that leads to them. The frames hold CASE_END throughout, so that a fetch ends the case.
 */
#define CASE_PATH_PML4 0x40000u
#define CASE_PATH_PDPT 0x41000u
#define CASE_PATH_PD 0x42000u
#define CASE_PATH_PT 0x43000u
#define CASE_FRAME 0x44000u
#define CASE_FRAME2 0x45000u
#define CASE_PATH_END 0x46000u
#define CASE_PATH_LINEAR 0x40000000u

/* ---- selectors (RPL to be added; the baseline's have RPL = CPL) ---- */

#define CASE_SEL_CS64_0 0x08u
#define CASE_SEL_DS32_0 0x10u
#define CASE_SEL_CS32_3 0x18u
#define CASE_SEL_DS32_3 0x20u
#define CASE_SEL_CS64_3 0x28u
#define CASE_SEL_DS32_3B 0x30u /* the same again: SYSEXIT's SS in 64-bit form */
#define CASE_SEL_CS32_0 0x38u
#define CASE_SEL_CS32_1 0x40u
#define CASE_SEL_CS32_2 0x48u
#define CASE_SEL_CS64_1 0x50u
#define CASE_SEL_CS64_2 0x58u
#define CASE_SEL_DS32_1 0x60u
#define CASE_SEL_DS32_2 0x68u
#define CASE_SEL_CS16(cpl) (0x70u + 8u * (cpl)) /* base CASE_WINDOW, limit 0xffff */
#define CASE_SEL_DS16(cpl) (0x90u + 8u * (cpl)) /* the same */
#define CASE_SEL_TSS64 0xb0u                    /* 16 bytes; busy in long and compat */
#define CASE_SEL_TSS32 0xc0u                    /* busy in the other modes */
#define CASE_SEL_TSS32_SPARE 0xc8u              /* available, DPL 0 */
#define CASE_SEL_LDT 0xd0u                      /* 16 bytes */
#define CASE_SEL_TSS16 0xe0u                    /* available, DPL 0 */
#define CASE_SEL_NOT_PRESENT 0xe8u              /* data, writable, DPL 3, P = 0 */
#define CASE_SEL_READ_ONLY 0xf0u                /* data, DPL 3, flat */
#define CASE_SEL_EXECUTE_ONLY 0xf8u             /* 32-bit code, DPL 3, flat */
#define CASE_SEL_CONFORMING 0x100u              /* 32-bit code, readable, conforming, DPL 0, flat */
#define CASE_SEL_GATE32 0x108u                  /* 32-bit call gate, DPL 3, CS32_0:CASE_LAND_GATE */
#define CASE_SEL_GATE64 0x110u                  /* 16 bytes; call gate, DPL 3, CS64_0:CASE_LAND_GATE */
#define CASE_SEL_TASK_GATE 0x120u               /* DPL 3, to TSS32_SPARE */
#define CASE_SEL_SMALL 0x128u                   /* data, DPL 3, base CASE_OPERAND, limit 0xf, bytes */
#define CASE_SEL_SPARE 0x130u                   /* from here to the limit: zero, free to poke */
#define CASE_GDT_ENTRY(selector) (CASE_GDT + ((selector) & SELECTOR_INDEX))

/* In the LDT (TI set): entry 0 is zero, 1 as DS32_3, 2 as CS32_3, the rest zero. */
#define CASE_SEL_LDT_DATA (0x08u | SELECTOR_TI)
#define CASE_SEL_LDT_CODE (0x10u | SELECTOR_TI)
#define CASE_LDT_ENTRY(selector) (CASE_LDT + ((selector) & SELECTOR_INDEX))

/*
 * IDT gates: all present interrupt gates, DPL 0, but 3, 4 and 0x40 to 0x5f DPL 3; 0x50
 * to 0x5f are trap gates; 0x60 to 0x6f DPL 3, not present. Each leads to guests/lib; in
 * long and compat over IST 1, outside the window. The IVT of real mode leads there too.
 */
#define CASE_VECTOR_DPL3 0x40u
#define CASE_VECTOR_TRAP_GATE 0x50u
#define CASE_VECTOR_NOT_PRESENT 0x60u
#define CASE_VECTOR_DPL0 0x80u

/* ---- baseline registers ---- */

/*
 * RBX and RSI = offset of CASE_OPERAND, RDI of CASE_OPERAND2, RSP of CASE_STACK; every other
 * register n holds CASE_GPR(n), of which only the low 32 bits exist outside long.
 * RIP: offset of CASE_STUB.
 */
#define CASE_GPR(n) ((0x5a000000ull + (n)) << 32 | (0xa5000000u + (n) * 0x101u))
#define CASE_RFLAGS (RFLAGS_FIXED | RFLAGS_CF | RFLAGS_AF | RFLAGS_SF) /* IOPL 0; vm86: and VM */
#define CASE_FS_BASE 0x14500u /* long alone; elsewhere the descriptor's */
#define CASE_GS_BASE 0x14600u
#define CASE_CR0_REAL (CR0_ET | CR0_NE)
#define CASE_CR0 (CR0_PE | CR0_ET | CR0_NE | CR0_WP | CR0_PG)
#define CASE_CR4_LONG CR4_PAE /* compat too; 0 in the other modes */
#define CASE_DR6 DR6_FIXED_1
#define CASE_DR7 DR7_FIXED_1
#define CASE_XCR0 XCR0_X87
#define CASE_EFER EFER_SCE                               /* where SYSCALL exists */
#define CASE_EFER_LONG (CASE_EFER | EFER_LME | EFER_LMA) /* compat too */
#define CASE_STAR ((uint64_t)(CASE_SEL_CS32_3 | 3) << 48 | (uint64_t)CASE_SEL_CS64_0 << 32)
#define CASE_FMASK RFLAGS_CF
#define CASE_KERNEL_GS_BASE 0x14700u
#define CASE_SYSENTER_CS CASE_SEL_CS64_0
#define CASE_SYSENTER_ESP CASE_STACK0
#define CASE_SYSENTER_EIP CASE_LAND_SYSENTER
#define CASE_TSC_AUX 0x5au
/* CR2, CR8, DR0 to DR3, PKRU, misc_features: 0. LDTR: CASE_SEL_LDT, TR: the mode's TSS. */

/*
 * What the machine lacks is neither loaded nor reported: SYSENTER_* without SEP, STAR and
 * its kin without SYSCALL, TSC_AUX without RDTSCP and RDPID, XCR0 without XSAVE, PKRU
 * without PKU, and misc_features (MSR 0x140) unless the case sets it. XCR0 and PKRU count
 * only where CR4.OSXSAVE and CR4.PKE are set before or after the case. R8 to R15
 * belong to long alone. FS and GS bases outside long follow from the selectors.
 */

/*
 * What SETTING_CONTROL names besides fields of a VMCB: bytes of the permission maps of a guest of the case's own.
 */
#define CASE_CONTROL_IOPM  0x10000u
#define CASE_CONTROL_MSRPM 0x20000u

/*
 * The nested tables of such a guest: the first 4 GiB as they are, by pages of 2 MiB, the first 2 MiB by pages of 4 KiB.
 * Each entry has P, W, U, A and D.
 */
#define CASE_NESTED_PML4 0x50000u
#define CASE_NESTED_PDPT 0x51000u
#define CASE_NESTED_PD 0x52000u /* four of them */
#define CASE_NESTED_PT 0x56000u
#define CASE_NESTED_END 0x57000u
#define CASE_NESTED_PTE(address) (CASE_NESTED_PT + ((uint32_t)(address) >> 12) * 8u)
#define CASE_NESTED_BITS (PTE_P | PTE_W | PTE_U | PTE_A | PTE_D)

/* ---- I/O ports ---- */

#define CASE_PORT 0x80u /* byte, word and doubleword reads and writes are harmless; value undefined */

/* ---- helpers for generators ---- */

/* Whether segments have their base at the window in @mode. */
static inline int case_mode_is_16(unsigned mode)
{
	return mode == MODE_REAL || mode == MODE_VM86 || mode == MODE_PROT16;
}

/* The offset within the baseline's segments of linear @address. */
static inline uint32_t case_offset(unsigned mode, uint32_t address)
{
	return case_mode_is_16(mode) ? address - CASE_WINDOW : address;
}

/* The baseline's CS, RPL included. */
static inline uint16_t case_code_selector(unsigned mode, unsigned cpl)
{
	static const uint8_t cs32[4] = {CASE_SEL_CS32_0, CASE_SEL_CS32_1, CASE_SEL_CS32_2, CASE_SEL_CS32_3};
	static const uint8_t cs64[4] = {CASE_SEL_CS64_0, CASE_SEL_CS64_1, CASE_SEL_CS64_2, CASE_SEL_CS64_3};

	if (mode == MODE_REAL || mode == MODE_VM86)
		return CASE_WINDOW / 16;
	if (mode == MODE_PROT16)
		return (uint16_t)(CASE_SEL_CS16(cpl) | cpl);
	return (uint16_t)((mode == MODE_LONG ? cs64[cpl] : cs32[cpl]) | cpl);
}

/* The baseline's SS, DS, ES, FS and GS, RPL included. */
static inline uint16_t case_data_selector(unsigned mode, unsigned cpl)
{
	static const uint8_t ds32[4] = {CASE_SEL_DS32_0, CASE_SEL_DS32_1, CASE_SEL_DS32_2, CASE_SEL_DS32_3};

	if (mode == MODE_REAL || mode == MODE_VM86)
		return CASE_WINDOW / 16;
	if (mode == MODE_PROT16)
		return (uint16_t)(CASE_SEL_DS16(cpl) | cpl);
	return (uint16_t)(ds32[cpl] | cpl);
}

#endif
