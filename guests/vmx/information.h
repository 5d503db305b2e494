/*
 * information.h: the instructions with a memory operand whose exits tell about it (SDM 3C 28.2.1, 28.2.5, tables 28-10, 28-11,
 * 28-13, 28-14), for the suite, which makes cases of them, and for the guest (information.c).
 *
 * INFORMED(name, mandatory prefix, bytes behind it, ModRM.reg, modes, what the information has besides the address)
 *
 * TABLE: operand size in bit 11, identity in bits 29:28; SELECTOR, the same without the size; REG2: ModRM.reg in bits 31:28; PLAIN: nothing.
 * LINEAR: INVLPG, whose linear address is the qualification; SOURCE: LMSW.
 */
#define INFORMED_ALL   (1u << MODE_REAL | 1u << MODE_VM86 | INFORMED_PAGED)
#define INFORMED_PAGED (1u << MODE_PROT16 | 1u << MODE_PROT32 | 1u << MODE_COMPAT | 1u << MODE_LONG)
#define INFORMED_CPL0  (1u << MODE_REAL | INFORMED_PAGED)
#define INFORMED_VMX   (1u << MODE_PROT16 | 1u << MODE_PROT32 | 1u << MODE_LONG)
#define INFORMED_INSNS(X)                                                                                    \
	X(sgdt, 0, 2, 0x01, 0, INFORMED_ALL, TABLE, VMX_EXIT_GDTR_IDTR)                                      \
	X(sidt, 0, 2, 0x01, 1, INFORMED_ALL, TABLE, VMX_EXIT_GDTR_IDTR)                                      \
	X(lgdt, 0, 2, 0x01, 2, INFORMED_CPL0, TABLE, VMX_EXIT_GDTR_IDTR)                                     \
	X(lidt, 0, 2, 0x01, 3, INFORMED_CPL0, TABLE, VMX_EXIT_GDTR_IDTR)                                     \
	X(sldt, 0, 2, 0x00, 0, INFORMED_PAGED, SELECTOR, VMX_EXIT_LDTR_TR)                                   \
	X(str, 0, 2, 0x00, 1, INFORMED_PAGED, SELECTOR, VMX_EXIT_LDTR_TR)                                    \
	X(lldt, 0, 2, 0x00, 2, INFORMED_PAGED, SELECTOR, VMX_EXIT_LDTR_TR)                                   \
	X(ltr, 0, 2, 0x00, 3, INFORMED_PAGED, SELECTOR, VMX_EXIT_LDTR_TR)                                    \
	X(invept, 0x66, 3, 0x80, 0, INFORMED_VMX, REG2, VMX_EXIT_INVEPT)                                     \
	X(invvpid, 0x66, 3, 0x81, 0, INFORMED_VMX, REG2, VMX_EXIT_INVVPID)                                   \
	X(invpcid, 0x66, 3, 0x82, 0, INFORMED_CPL0, REG2, VMX_EXIT_INVPCID)                                  \
	X(vmread, 0, 2, 0x78, 0, INFORMED_VMX, REG2, VMX_EXIT_VMREAD)                                        \
	X(vmwrite, 0, 2, 0x79, 0, INFORMED_VMX, REG2, VMX_EXIT_VMWRITE)                                      \
	X(vmptrld, 0, 2, 0xc7, 6, INFORMED_VMX, PLAIN, VMX_EXIT_VMPTRLD)                                     \
	X(vmptrst, 0, 2, 0xc7, 7, INFORMED_VMX, PLAIN, VMX_EXIT_VMPTRST)                                     \
	X(vmclear, 0x66, 2, 0xc7, 6, INFORMED_VMX, PLAIN, VMX_EXIT_VMCLEAR)                                  \
	X(vmxon, 0xf3, 2, 0xc7, 6, INFORMED_VMX, PLAIN, VMX_EXIT_VMXON)                                      \
	X(invlpg, 0, 2, 0x01, 7, INFORMED_CPL0, LINEAR, VMX_EXIT_INVLPG)                                     \
	X(lmsw, 0, 2, 0x01, 6, INFORMED_CPL0, SOURCE, VMX_EXIT_CR_ACCESS)
