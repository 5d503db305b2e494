/*
 * real.S: the trampoline, copied to TRAMPOLINE at boot. First the entries of the real-mode IVT, 5 bytes
 * each, which push their vector; then the way into real mode and back out of it.
 * Data of the exchange page is reached through CS, whatever the case left in the others.
 */
#include "lib/exchange.h"

#define LOW(address) ((address) - TRAMPOLINE)

	.section .rodata
	.global trampoline_start, trampoline_end, trampoline_enter_offset
	.balign 16
	.code16
trampoline_start:
	.set vector, 0
	.rept 256
	.byte 0x6a, vector              /* push, sign extended: only the low byte counts */
	.byte 0xe9
	.word catch_real - (. + 2)
	.set vector, vector + 1
	.endr

trampoline_enter:
	mov $MONITOR_DS16, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %fs
	mov %ax, %gs
	mov %ax, %ss
	movl %cs:LOW(EX_IN) + STATE_cr0, %eax
	movl %eax, %cr0
	ljmp $TRAMPOLINE_SEGMENT, $(1f - trampoline_start)
1:	lidtl %cs:LOW(EX_IN_IDTR)
	lgdtl %cs:LOW(EX_IN_GDTR)
	movl %cs:LOW(EX_IN) + STATE_dr7, %eax
	movl %eax, %dr7
	mov %cs:LOW(EX_SEGMENTS), %ax
	mov %ax, %es
	mov %cs:LOW(EX_SEGMENTS) + 4, %ax
	mov %ax, %ds
	mov %cs:LOW(EX_SEGMENTS) + 8, %ax
	mov %ax, %fs
	mov %cs:LOW(EX_SEGMENTS) + 12, %ax
	mov %ax, %gs
	lssl %cs:LOW(EX_STACK), %esp
	movl %cs:LOW(EX_IN) + STATE_rax, %eax
	movl %cs:LOW(EX_IN) + STATE_rcx, %ecx
	movl %cs:LOW(EX_IN) + STATE_rdx, %edx
	movl %cs:LOW(EX_IN) + STATE_rbx, %ebx
	movl %cs:LOW(EX_IN) + STATE_rbp, %ebp
	movl %cs:LOW(EX_IN) + STATE_rsi, %esi
	movl %cs:LOW(EX_IN) + STATE_rdi, %edi
	iretl

catch_real:
	popw %cs:LOW(EX_VECTOR)
	movl %eax, %cs:LOW(EX_OUT) + STATE_rax
	movl %ecx, %cs:LOW(EX_OUT) + STATE_rcx
	movl %edx, %cs:LOW(EX_OUT) + STATE_rdx
	movl %ebx, %cs:LOW(EX_OUT) + STATE_rbx
	movl %ebp, %cs:LOW(EX_OUT) + STATE_rbp
	movl %esi, %cs:LOW(EX_OUT) + STATE_rsi
	movl %edi, %cs:LOW(EX_OUT) + STATE_rdi
	movl %esp, %cs:LOW(EX_FRAME_OFFSET)
	mov %ss, %cs:LOW(EX_FRAME_SS)
	mov %es, %cs:LOW(EX_OUT) + STATE_es
	mov %ds, %cs:LOW(EX_OUT) + STATE_ds
	mov %fs, %cs:LOW(EX_OUT) + STATE_fs
	mov %gs, %cs:LOW(EX_OUT) + STATE_gs
	sgdtl %cs:LOW(EX_OUT_GDTR)
	sidtl %cs:LOW(EX_OUT_IDTR)
	movl %cr0, %eax
	movl %eax, %cs:LOW(EX_OUT) + STATE_cr0
	movl %cr2, %eax
	movl %eax, %cs:LOW(EX_OUT) + STATE_cr2
	movl %cr3, %eax
	movl %eax, %cs:LOW(EX_OUT) + STATE_cr3
	movl %cr4, %eax
	movl %eax, %cs:LOW(EX_OUT) + STATE_cr4
	movl $MSR_EFER, %ecx
	rdmsr
	movl %eax, %cs:LOW(EX_OUT) + STATE_efer
	movl %edx, %cs:LOW(EX_OUT) + STATE_efer + 4
	lgdtl %cs:LOW(EX_MONITOR_GDTR)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $MONITOR_CS32, $(2f - trampoline_start + TRAMPOLINE)

	.code32
2:	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov $back_to_legacy, %eax
	jmp *%eax
trampoline_end:
	.set trampoline_enter_offset, trampoline_enter - trampoline_start

	.section .note.GNU-stack, "", @progbits
