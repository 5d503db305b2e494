/*
 * decode.h: from bytes to struct insn, and the opcode table.
 *
 * opcodes.def is a list of rows in the SDM's notation (volume 2, "Instruction Format"
 * and appendix A):
 *
 *   OPCODE(mnemonic, encoding, operands, handler, .field = value…)
 *
 *   mnemonic  the manual's, in capitals: SGDT
 *   encoding  words separated by spaces:
 *               NP 66 F3 F2   before the opcode or 0F: the mandatory prefix (none, or that one;
 *                             F2 and F3 take precedence over 66, the later one of them over the
 *                             other); without one of these, the prefixes have their usual meaning
 *               W0 W1         REX.W
 *               NB            REX.B is 0
 *               0F  0F 38  0F 3A    the opcode map
 *               8C            the opcode; 50+r: register in its low three bits
 *               42-7F         a range of opcodes (or of ModRM bytes), for reserved ones
 *               /r /0 … /7    ModRM, with a register or an opcode extension
 *               mem reg       ModRM.mod is not 3, is 3
 *               D1 (after the opcode)   this very ModRM byte
 *               VEX.256.66.0F38.W0      a VEX prefix: 128, 256, LIG (VEX.L ignored) or nothing for
 *                             both lengths; 66, F3, F2 or none; the map; W0, W1 or WIG
 *   operands  codes of appendix A.2, separated by commas, "" for none: Eb Ev Ew Ed Eq Ey Gb
 *             Gv Gw Gd Gq Gy Gz Ib Iw Iz Iv Ibs (sign-extended to the operand size) Jb Jz Ap M
 *             Mb Mw Md Mq Mdq Mp Ma Ms Mt (x87: 80 bits) Ob Ov Sw Cd Dd Rd(=32, or 64 in 64-bit
 *             mode) Rv Rw Xb Xw Xv Xz Yb Yw Yv Yz Zb Zv (register of the opcode) Pq Pd Qq Qd Nq
 *             Hx (register of VEX.vvvv) By (the same, general) Lx (register of an immediate's bits 7:4)
 *             Mvx (memory whose index is a vector) Vx Wx Ux Mx (16 or 32 bytes, by VEX.L)
 *             Vdq Vps Vpd Vss Vsd Vq Wdq Wps Wpd Wss Wsd Wq Wd Ups Upd Udq ST STi 1 3
 *             and fixed registers by name: AL CL AX DX eAX rAX ES CS SS DS FS GS
 *   handler   NAME of `const struct handlers insn_NAME`
 *   .flags    FLAG_… below
 *   .modes    MODES_…: in the others the bytes are #UD
 *   .feature  FEATURE_…: without this CPUID bit the bytes are #UD
 *   .gates    GATE_… below
 *   .svm .vmx SVM(name), VMX(name): the intercept that concerns it; without one, none
 *             exists. .svm_order and .vmx_order say what the manuals check before it. .vmx_enable is the
 *             control without which a guest of VT-x does not have it.
 *
 * Several rows may share an opcode and differ in prefix, ModRM, mode or feature; the
 * first that fits in the order of the table is taken, so narrow rows stand first. An
 * opcode without a row is an instruction that is not modelled, unless the manual
 * reserves it: rows with handler `reserved` raise #UD (opcodes/reserved.def stands last,
 * so that its wide rows take what no other row took). Handler `unmodelled` ends the run
 * where the row's feature is there, and raises #UD where it is not.
 */
#ifndef TRAPLINE_CPU_DECODE_H
#define TRAPLINE_CPU_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/insn.h"
#include "cpu/profile.h"
#include "x86/svm.h"
#include "x86/vmx.h"

enum opcode_flag {
	FLAG_LOCK = 1,    /* LOCK is valid with a memory destination; elsewhere it is #UD */
	FLAG_D64 = 2,     /* operand size defaults to 64 bits in 64-bit mode (66h gives 16) */
	FLAG_F64 = 4,     /* operand size is 64 bits in 64-bit mode, whatever the prefixes */
	FLAG_BYTE = 8,    /* operand size is 8 bits */
	FLAG_REP = 16,    /* F2/F3 repeat it */
	FLAG_ENDS = 32,   /* the trace ends behind it */
	FLAG_BRANCH = 64, /* the handler ends the trace (DEFINE_BRANCH) */
	FLAG_NEAR = 128   /* near branch: FLAG_F64 for an Intel profile, FLAG_D64 for an AMD one (Jz follows) */
};

enum opcode_modes {
	MODES_ANY,
	MODES_NOT_64, /* #UD in 64-bit mode */
	MODES_ONLY_64 /* #UD outside 64-bit mode */
};

/*
 * Checks that the gate function makes before the handler, in this order. A handler does
 * not repeat them; what depends on operands is the handler's. Each (row, gate) can be
 * broken by name: `--break SGDT.UMIP`.
 */
#define OPCODE_GATES(GATE)                                                                    \
	GATE(PROTECTED)  /* #UD in real-address and virtual-8086 mode */                      \
	GATE(IA32E)      /* #UD unless EFER.LMA = 1 */                                        \
	GATE(IA32E_OR_AMD) /* SYSCALL, SYSRET: as IA32E for an Intel profile */               \
	GATE(NOT_IA32E_ON_AMD) /* SYSENTER, SYSEXIT: #UD in long mode for an AMD profile */   \
	GATE(NOT_REAL)   /* #GP(0) in real-address mode: SYSENTER, SYSEXIT */                 \
	GATE(SCE)        /* #UD unless EFER.SCE = 1 */                                        \
	GATE(SVME)       /* #UD unless EFER.SVME = 1 */                                       \
	GATE(VMXE)       /* #UD unless CR4.VMXE = 1 */                                        \
	GATE(VMX)        /* #UD unless in VMX operation */                                    \
	GATE(NOT_COMPATIBILITY) /* #UD in compatibility mode: VMX instructions */             \
	GATE(SMXE)       /* #UD unless CR4.SMXE = 1 */                                        \
	GATE(SMM)        /* #UD unless in system-management mode */                           \
	GATE(OSXSAVE)    /* #UD unless CR4.OSXSAVE = 1 */                                     \
	GATE(AVX)        /* #UD unless CR4.OSXSAVE = 1 and XCR0[2:1] = 11b */                 \
	GATE(FSGSBASE)   /* #UD unless CR4.FSGSBASE = 1 */                                    \
	GATE(PKE)        /* #UD unless CR4.PKE = 1 */                                         \
	GATE(OSFXSR)     /* #UD unless CR4.OSFXSR = 1 */                                      \
	GATE(EM)         /* #UD if CR0.EM = 1 (MMX, SSE) */                                   \
	GATE(DE)         /* #UD for DR4 and DR5 if CR4.DE = 1 */                              \
	GATE(CPL0_UD)    /* #UD unless CPL = 0: CLAC, STAC, MONITOR, MWAIT */                 \
	GATE(EM_NM)      /* #NM if CR0.EM = 1 (x87) */                                        \
	GATE(TS)         /* #NM if CR0.TS = 1 */                                              \
	GATE(MP_TS)      /* #NM if CR0.MP = 1 and CR0.TS = 1: WAIT */                         \
	GATE(CPL0)       /* #GP(0) unless CPL = 0 */                                          \
	GATE(IOPL)       /* #GP(0) if CPL > IOPL */                                           \
	GATE(UMIP)       /* #GP(0) if CR4.UMIP = 1 and CPL > 0 */                             \
	GATE(TSD)        /* #GP(0) if CR4.TSD = 1 and CPL > 0 */                              \
	GATE(TSD_UD)     /* #UD if CR4.TSD = 1 and CPL > 0: RDPRU */                          \
	GATE(PCE)        /* #GP(0) if CR4.PCE = 0, CPL > 0 and CR0.PE = 1 */

enum gate_index {
#define GATE(name) GATE_INDEX_##name,
	OPCODE_GATES(GATE)
#undef GATE
	GATE_COUNT
};
enum opcode_gate {
#define GATE(name) GATE_##name = 1 << GATE_INDEX_##name,
	OPCODE_GATES(GATE)
#undef GATE
};

/* Gates that CODE_FP says are open. */
#define GATES_OF_CODE_FP ((uint32_t)(GATE_EM | GATE_EM_NM | GATE_OSFXSR | GATE_TS | GATE_MP_TS))

/* When AMD-V takes an intercept (APM 2 15.7, table 15-7). */
enum svm_order {
	SVM_AFTER_EXCEPTIONS, /* after the checks that can fault without memory access */
	SVM_BEFORE_EXCEPTIONS,
	SVM_IN_HANDLER /* behind checks of operands: the handler asks (svm/svm.h) */
};

/* When VT-x takes an exit (SDM 3C 26.1.1, and the operation sections of chapter 31). */
enum vmx_order {
	VMX_AFTER_EXCEPTIONS,  /* after #UD, and what depends on the privilege level, but no other fault */
	VMX_BEFORE_EXCEPTIONS, /* VMCALL: whatever the mode; MOV DR */
	VMX_BEFORE_CPL,        /* VMX's other instructions: after #UD, before #GP(0) at CPL > 0 */
	VMX_IN_HANDLER         /* behind checks of operands: the handler asks (vmx/vmx.h) */
};

struct opcode {
	const char *mnemonic, *encoding, *operands;
	const struct handlers *handlers;
	uint32_t gates;
	uint16_t flags; /* enum opcode_flag */
	uint8_t modes;  /* enum opcode_modes */
	uint8_t svm_order, vmx_order;
	uint16_t feature; /* enum feature; 0: always there */
	int16_t svm, vmx; /* enum svm_exit, enum vmx_exit, plus one; 0: none */
	uint32_t vmx_enable; /* VMX2_…: #UD in a guest of VT-x where this secondary control is 0; 0: none */
};
#define SVM(name) (SVM_EXIT_##name + 1)
#define VMX(name) (VMX_EXIT_##name + 1)

extern const struct opcode opcode_table[];
extern const size_t opcode_count;

enum decode_result {
	DECODE_OK,
	DECODE_UNDEFINED,  /* #UD */
	DECODE_TOO_LONG,   /* more than 15 bytes: #GP(0) */
	DECODE_TRUNCATED,  /* @available bytes were not enough */
	DECODE_UNMODELLED  /* a valid instruction that this CPU does not model */
};

/*
 * Decodes one instruction from @bytes, of which @available may be read, as in @code_mode
 * (enum code_mode). @features says which instructions exist (NULL: all). Fills @insn except
 * for offset; run is the handler or the gate function in front of it. Freestanding.
 */
enum decode_result decode(struct insn *insn, const uint8_t *bytes, size_t available,
			  uint32_t code_mode, const struct profile *profile);

/* Builds the tables from opcodes.def; idempotent. Returns the row that is malformed, or -1. */
int decode_init(void);

/*
 * Drops @gate (a name of OPCODE_GATES, or FEATURE, MODES, LOCK: the columns of these names)
 * of every row with @mnemonic, for mutants. False: no such row or gate. Takes effect on what is decoded from then on.
 */
bool decode_break(const char *mnemonic, const char *gate);
/* Mends what decode_break() broke. */
void decode_mend(void);

/* Index of no row: insn->opcode of bytes that are no instruction. */
#define OPCODE_NONE 0xffff

/* Intel syntax, into @text of @size bytes. @rip is for relative branches. */
void disassemble(const struct insn *insn, uint64_t rip, char *text, size_t size);

/* The exceptions of gates, in order; returns when there is none. */
void gate_check(struct cpu *cpu, const struct insn *insn);

#endif
