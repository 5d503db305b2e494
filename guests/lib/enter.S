/*
 * enter.S: into a case's mode and back.
 *
 * Forwards: enter_long loads everything in 64-bit mode and leaves by IRETQ; enter_legacy goes
 * through compatibility mode and turns paging and IA-32e mode off, loads the rest as 32-bit
 * code, and leaves by IRETD (for real mode: by way of the trampoline in real.S).
 *
 * Back: the entry stubs of the case's IDT push their vector; catch_long and catch_legacy store
 * the general registers, selectors, CR0, CR2, CR3, CR4, EFER, GDTR and IDTR before they
 * use anything, then LDTR and TR, and put the monitor's state in force. back_to_monitor stores CR8,
 * DR6 and DR7. The rest (FS and GS bases, MSRs, DR0 to DR3, XCR0, PKRU) is unharmed and left to C.
 */
#include "lib/exchange.h"

#define CR4_LA57_BIT 0x1000
#define CR4_PCIDE_BIT 0x20000

	.section .text.entry, "ax"
	.global enter_long, enter_legacy, enter_la57, catch_long_stubs, catch_legacy_stubs
	.global back_to_legacy, enter_legacy_32, monitor_stubs

	.code64
enter_long:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, EX_MONITOR_RSP
	lgdt EX_IN_GDTR
	mov EX_IN + STATE_ldtr, %eax
	lldt %ax
	mov EX_IN + STATE_tr, %eax
	ltr %ax
	mov EX_SEGMENTS, %eax
	mov %eax, %es
	mov EX_SEGMENTS + 4, %eax
	mov %eax, %ds
	mov EX_SEGMENTS + 8, %eax
	mov %eax, %fs
	mov EX_SEGMENTS + 12, %eax
	mov %eax, %gs
	mov $MSR_FS_BASE, %ecx
	mov EX_IN + STATE_fs_base, %eax
	mov EX_IN + STATE_fs_base + 4, %edx
	wrmsr
	mov $MSR_GS_BASE, %ecx
	mov EX_IN + STATE_gs_base, %eax
	mov EX_IN + STATE_gs_base + 4, %edx
	wrmsr
	mov EX_IN + STATE_cr4, %rax
	mov %rax, %cr4
	mov EX_IN + STATE_cr3, %rax
	mov %rax, %cr3
	mov EX_IN + STATE_cr0, %rax
	mov %rax, %cr0
	lidt EX_IN_IDTR
	mov EX_IN + STATE_dr7, %rax
	mov %rax, %dr7
	mov $EX_FRAME, %esp
	mov EX_IN + STATE_rcx, %rcx
	mov EX_IN + STATE_rdx, %rdx
	mov EX_IN + STATE_rbx, %rbx
	mov EX_IN + STATE_rbp, %rbp
	mov EX_IN + STATE_rsi, %rsi
	mov EX_IN + STATE_rdi, %rdi
	mov EX_IN + STATE_r8, %r8
	mov EX_IN + STATE_r9, %r9
	mov EX_IN + STATE_r10, %r10
	mov EX_IN + STATE_r11, %r11
	mov EX_IN + STATE_r12, %r12
	mov EX_IN + STATE_r13, %r13
	mov EX_IN + STATE_r14, %r14
	mov EX_IN + STATE_r15, %r15
	mov EX_IN + STATE_rax, %rax
	iretq

	.balign 16
catch_long_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.byte 0x68
	.long vector
	jmp catch_long
	.set vector, vector + 1
	.endr

catch_long:
	mov %rax, EX_OUT + STATE_rax
	mov %rcx, EX_OUT + STATE_rcx
	mov %rdx, EX_OUT + STATE_rdx
	mov %rbx, EX_OUT + STATE_rbx
	mov %rbp, EX_OUT + STATE_rbp
	mov %rsi, EX_OUT + STATE_rsi
	mov %rdi, EX_OUT + STATE_rdi
	mov %r8, EX_OUT + STATE_r8
	mov %r9, EX_OUT + STATE_r9
	mov %r10, EX_OUT + STATE_r10
	mov %r11, EX_OUT + STATE_r11
	mov %r12, EX_OUT + STATE_r12
	mov %r13, EX_OUT + STATE_r13
	mov %r14, EX_OUT + STATE_r14
	mov %r15, EX_OUT + STATE_r15
	pop %rax
	mov %rax, EX_VECTOR
	mov %rsp, EX_FRAME_OFFSET
	xor %eax, %eax
	mov %es, %eax
	mov %rax, EX_OUT + STATE_es
	mov %ds, %eax
	mov %rax, EX_OUT + STATE_ds
	mov %fs, %eax
	mov %rax, EX_OUT + STATE_fs
	mov %gs, %eax
	mov %rax, EX_OUT + STATE_gs
	mov %ss, %eax
	mov %rax, EX_FRAME_SS
	sldt %eax
	mov %rax, EX_OUT + STATE_ldtr
	str %eax
	mov %rax, EX_OUT + STATE_tr
	sgdt EX_OUT_GDTR
	sidt EX_OUT_IDTR
	mov %cr2, %rax
	mov %rax, EX_OUT + STATE_cr2
	mov %cr0, %rax
	mov %rax, EX_OUT + STATE_cr0
	mov %cr3, %rax
	mov %rax, EX_OUT + STATE_cr3
	mov %cr4, %rax
	mov %rax, EX_OUT + STATE_cr4
	mov $MSR_EFER, %ecx
	rdmsr
	mov %eax, EX_OUT + STATE_efer
	mov %edx, EX_OUT + STATE_efer + 4
	lgdt EX_MONITOR_GDTR
	testl $CR4_LA57_BIT, EX_OUT + STATE_cr4
	jnz leave_la57
	mov EX_MONITOR_CR0, %rax
	mov %rax, %cr0
	mov EX_MONITOR_CR3, %rax
	mov %rax, %cr3
	mov EX_MONITOR_CR4, %rax
	mov %rax, %cr4

back_to_monitor:
	lidt EX_MONITOR_IDTR
	mov $MONITOR_DS, %eax
	mov %eax, %ss
	mov EX_MONITOR_RSP, %rsp
	push $2
	popfq
	mov %dr7, %rax                  /* with GD this is a #DB, and done again */
	mov %rax, EX_OUT + STATE_dr7
	mov %dr6, %rax
	mov %rax, EX_OUT + STATE_dr6
	mov $0x400, %eax
	mov %rax, %dr7
	mov %cr8, %rax
	mov %rax, EX_OUT + STATE_cr8
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/* Exceptions of the monitor itself: the #DB of DR7.GD is expected, the rest go to C. */
	.balign 16
monitor_stubs:
	.set vector, 0
	.rept 32
	.balign 16
	.byte 0x68
	.long vector
	jmp monitor_exception
	.set vector, vector + 1
	.endr

monitor_exception:
	cmpq $2, (%rsp)
	je monitor_nmi
	cmpq $1, (%rsp)
	jne 1f
	movq $1, EX_DETECT
	add $8, %rsp
	iretq
1:	mov %rsp, %rdi
	and $-16, %rsp
	call monitor_fault

/*
 * void apic_pend_nmi(void): an NMI, which blocks others as long as there is no IRET, and one more. The first
 * one's frame is thrown away.
 */
	.global apic_pend_nmi
apic_pend_nmi:
	push %rbx
	mov %rsp, nmi_stack
	call apic_send_nmi
1:	pause
	jmp 1b
monitor_nmi:
	mov nmi_stack, %rsp
	call apic_send_nmi
	pop %rbx
	ret

	.section .bss
	.balign 8
nmi_stack:
	.skip 8
	.section .text.entry
enter_legacy:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, EX_MONITOR_RSP
	ljmp *EX_FAR32

	.code32
enter_legacy_32:
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %ss
	mov $boot_legacy_stack, %esp
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov $MSR_EFER, %ecx
	mov EX_IN + STATE_efer, %eax
	mov EX_IN + STATE_efer + 4, %edx
	wrmsr
	lidt EX_EARLY_IDTR
	mov EX_IN + STATE_cr4, %eax
	mov %eax, %cr4
	mov EX_IN + STATE_cr3, %eax
	mov %eax, %cr3
	cmpl $0, EX_REAL
	jne enter_real
	mov EX_IN + STATE_cr0, %eax
	mov %eax, %cr0
	cmpl $0, EX_VMXON               /* VMX operation cannot do without paging */
	je 1f
	vmxon EX_VMXON
	vmptrld EX_VMCS
1:	lgdt EX_IN_GDTR
	mov EX_IN + STATE_ldtr, %eax
	lldt %ax
	mov EX_IN + STATE_tr, %eax
	ltr %ax
	lidt EX_IN_IDTR
	mov EX_IN + STATE_dr7, %eax
	mov %eax, %dr7
	mov EX_SEGMENTS, %eax
	mov %eax, %es
	mov EX_SEGMENTS + 8, %eax
	mov %eax, %fs
	mov EX_SEGMENTS + 12, %eax
	mov %eax, %gs
	mov EX_SEGMENTS + 4, %eax
	mov %eax, %ds
	lss %cs:EX_STACK, %esp
	mov %cs:EX_IN + STATE_rax, %eax
	mov %cs:EX_IN + STATE_rcx, %ecx
	mov %cs:EX_IN + STATE_rdx, %edx
	mov %cs:EX_IN + STATE_rbx, %ebx
	mov %cs:EX_IN + STATE_rbp, %ebp
	mov %cs:EX_IN + STATE_rsi, %esi
	mov %cs:EX_IN + STATE_rdi, %edi
	iretl

enter_real:
	lgdt EX_IN_GDTR
	mov EX_IN + STATE_ldtr, %eax
	lldt %ax
	mov EX_IN + STATE_tr, %eax
	ltr %ax
	lgdt EX_MONITOR_GDTR
	ljmp $MONITOR_CS16, $trampoline_enter_offset

	.balign 16
catch_legacy_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.byte 0x68
	.long vector
	jmp catch_legacy
	.set vector, vector + 1
	.endr

catch_legacy:
	push %ds
	push %eax
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	pop EX_OUT + STATE_rax
	pop %eax
	movzwl %ax, %eax
	mov %eax, EX_OUT + STATE_ds
	pop EX_VECTOR
	mov %esp, EX_FRAME_OFFSET
	mov %ecx, EX_OUT + STATE_rcx
	mov %edx, EX_OUT + STATE_rdx
	mov %ebx, EX_OUT + STATE_rbx
	mov %ebp, EX_OUT + STATE_rbp
	mov %esi, EX_OUT + STATE_rsi
	mov %edi, EX_OUT + STATE_rdi
	mov %es, %eax
	mov %eax, EX_OUT + STATE_es
	mov %fs, %eax
	mov %eax, EX_OUT + STATE_fs
	mov %gs, %eax
	mov %eax, EX_OUT + STATE_gs
	mov %ss, %eax
	mov %eax, EX_FRAME_SS
	sgdt EX_OUT_GDTR
	sidt EX_OUT_IDTR
	mov %cr0, %eax
	mov %eax, EX_OUT + STATE_cr0
	mov %cr2, %eax
	mov %eax, EX_OUT + STATE_cr2
	mov %cr3, %eax
	mov %eax, EX_OUT + STATE_cr3
	mov %cr4, %eax
	mov %eax, EX_OUT + STATE_cr4
	mov $MSR_EFER, %ecx
	rdmsr
	mov %eax, EX_OUT + STATE_efer
	mov %edx, EX_OUT + STATE_efer + 4
	lgdt EX_MONITOR_GDTR

/*
 * From 32-bit protected mode, DS flat, the monitor's GDT in force; real.S comes here too. Long
 * mode cannot be entered with a 16-bit TSS in TR, which a case may have loaded.
 */
back_to_legacy:
	sldt %eax
	movzwl %ax, %eax
	mov %eax, EX_OUT + STATE_ldtr
	str %eax
	movzwl %ax, %eax
	mov %eax, EX_OUT + STATE_tr
	andb $0xfd, monitor_gdt + MONITOR_TSS + 5
	mov $MONITOR_TSS, %eax
	ltr %ax
	mov $MONITOR_DS, %eax
	mov %eax, %ss
back_to_paging_off:
	mov $boot_legacy_stack, %esp
	cmpl $0, EX_VMXON
	je 1f
	vmxoff
1:
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov EX_MONITOR_CR4, %eax
	mov %eax, %cr4
	mov EX_MONITOR_CR3, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	mov EX_MONITOR_EFER, %eax
	and $0xfffffbff, %eax /* LMA is 0 while paging is off; AMD refuses another value */
	xor %edx, %edx
	wrmsr
	mov EX_MONITOR_CR0, %eax
	mov %eax, %cr0
	ljmp $MONITOR_CS64, $back_to_monitor

/*
 * CR4.LA57 can change only while paging is off (SDM 3A 4.1.1). enter_la57 turns it on, with the case's CR3
 * and CR4 and nothing else of the case, before enter_long; leave_la57 is the way back from catch_long.
 */
	.code64
enter_la57:
	ljmp *la57_enter_pointer
	.code32
la57_enter:
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov EX_IN + STATE_cr4, %eax
	and $~CR4_PCIDE_BIT, %eax       /* needs IA-32e mode and PCID 0 to be set (SDM 3A 4.10.1) */
	mov %eax, %cr4
	mov EX_IN + STATE_cr3, %eax
	and $0xfffff000, %eax
	mov %eax, %cr3
	mov EX_MONITOR_CR0, %eax
	mov %eax, %cr0
	ljmp $MONITOR_CS64, $la57_entered
	.code64
la57_entered:
	mov %esp, %esp                  /* the upper half of a register is undefined after 32-bit code */
	ret

leave_la57:
	mov %cr4, %rax
	and $~CR4_PCIDE_BIT, %eax       /* or paging could not be turned off */
	mov %rax, %cr4
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %ss
	ljmp *la57_leave_pointer

	.balign 8
la57_enter_pointer:
	.long la57_enter
	.short MONITOR_CS32
	.balign 8
la57_leave_pointer:
	.long back_to_paging_off
	.short MONITOR_CS32

	.section .bss
	.balign 16
	.skip 512
boot_legacy_stack:

	.section .note.GNU-stack, "", @progbits
