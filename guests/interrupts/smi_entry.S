/*
 * smi_entry.S: the handler of SMIs: counts itself, loads PDPTEs where it is told, sends an IPI from within where it is told one, writes what it is
 * told, once, and resumes. CS is based at SMBASE, all other segments at 0, with limits of 4 GiB.
 */
#include "interrupts/smi.h"

	.section .rodata
	.global smi_handler, smi_handler_end
	.balign 16
	.code16
smi_handler:
	mov $SMI_BOX, %esi
	addr32 incl SMI_COUNT(%esi)
	addr32 cmpl $0, SMI_NESTED(%esi)
0:	jne 0b /* an SMI in SMM: there is no way back */
	addr32 incl SMI_NESTED(%esi)
	addr32 mov SMI_PAE(%esi), %eax
	test %eax, %eax
	jz 1f
	mov %eax, %cr3
	mov %cr4, %eax
	or $0x20, %eax
	mov %eax, %cr4
	mov %cr0, %ebx
	mov %ebx, %eax
	or $0x80000001, %eax
	mov %eax, %cr0
	mov %ebx, %cr0
1:
	addr32 mov SMI_SEND(%esi), %eax
	test %eax, %eax
	jz 2f
	addr32 movl $0, SMI_SEND(%esi)
	mov $0xfee00300, %edi
	addr32 mov %eax, (%edi)
	mov $1000, %ecx
1:	addr32 loop 1b
	addr32 mov SMI_COUNT(%esi), %eax
	addr32 mov %eax, SMI_DURING(%esi)
2:	add $SMI_POKES, %esi
3:	addr32 mov (%esi), %edi /* where; 0 ends */
	test %edi, %edi
	jz 4f
	addr32 mov 4(%esi), %eax
	addr32 mov %eax, (%edi)
	addr32 movl $0, (%esi)
	add $8, %esi
	jmp 3b
4:	addr32 movl $0, SMI_BOX + SMI_NESTED
	rsm
smi_handler_end:

/* bool smi_raise(volatile uint32_t *icr, uint32_t command, volatile uint32_t *count): with known registers. */
	.text
	.code64
	.global smi_raise, smi_raise_wait, smi_raise_end
smi_raise:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	mov (%rdx), %eax
	mov $0x1122334455667788, %rbx
	mov $0x0123456789abcdef, %r8
	mov $0xf0e1d2c3b4a59687, %r9
	mov $0x8899aabbccddeeff, %r12
	mov $0x5566778899aabbcc, %r15
	mov $2000000, %ecx
	mov %esi, (%rdi)
smi_raise_wait:
	cmp %eax, (%rdx)
	jne 1f
	dec %ecx
	jnz smi_raise_wait
smi_raise_end:
1:	xor %eax, %eax
	mov $0x1122334455667788, %rsi
	cmp %rsi, %rbx
	jne 2f
	mov $0x5566778899aabbcc, %rsi
	cmp %rsi, %r15
	jne 2f
	mov $0x0123456789abcdef, %rsi
	cmp %rsi, %r8
	sete %al
2:	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/* void smi_shadows(volatile uint32_t *count, uint32_t until): MOV SS until @count is there. */
	.global smi_shadows, smi_shadowed
smi_shadows:
	mov %ss, %eax
	mov $20000000, %ecx
1:	mov %eax, %ss
smi_shadowed:
	nop
	dec %ecx
	jz 2f
	cmp %esi, (%rdi)
	jb 1b
2:	ret

	.section .note.GNU-stack, "", @progbits
