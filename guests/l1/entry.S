/* entry.S: VMRUN, the instructions that may fault, and the hypervisor's own exceptions. */
#include "l1/layout.h"

	.text
/* void hw_svm_run(RDI: VMCB, RSI: gpr, EDX: interrupts) */
	.global hw_svm_run
hw_svm_run:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rsi
	mov %rdi, %rax
	test %edx, %edx
	jz 1f
	sti
1:	mov 8(%rsi), %rcx
	mov 16(%rsi), %rdx
	mov 24(%rsi), %rbx
	mov 40(%rsi), %rbp
	mov 56(%rsi), %rdi
	mov 64(%rsi), %r8
	mov 72(%rsi), %r9
	mov 80(%rsi), %r10
	mov 88(%rsi), %r11
	mov 96(%rsi), %r12
	mov 104(%rsi), %r13
	mov 112(%rsi), %r14
	mov 120(%rsi), %r15
	mov 48(%rsi), %rsi
	vmrun %rax
	cli
	xchg %rsi, (%rsp)
	mov %rcx, 8(%rsi)
	mov %rdx, 16(%rsi)
	mov %rbx, 24(%rsi)
	mov %rbp, 40(%rsi)
	mov %rdi, 56(%rsi)
	mov %r8, 64(%rsi)
	mov %r9, 72(%rsi)
	mov %r10, 80(%rsi)
	mov %r11, 88(%rsi)
	mov %r12, 96(%rsi)
	mov %r13, 104(%rsi)
	mov %r14, 112(%rsi)
	mov %r15, 120(%rsi)
	pop %rcx
	mov %rcx, 48(%rsi)
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	cld
	ret

/* bool hw_svm_take_nmi(void) */
	.global hw_svm_take_nmi
hw_svm_take_nmi:
	xor %eax, %eax
nmi_open:
	stgi
	nop
	clgi
nmi_closed:
	ret

/* bool hw_try_read_msr(EDI: index, RSI: value) */
	.global hw_try_read_msr
hw_try_read_msr:
	mov %edi, %ecx
try_read:
	rdmsr
	shl $32, %rdx
	or %rdx, %rax
	mov %rax, (%rsi)
	mov $1, %eax
	ret

/* bool hw_try_write_msr(EDI: index, RSI: value) */
	.global hw_try_write_msr
hw_try_write_msr:
	mov %edi, %ecx
	mov %esi, %eax
	mov %rsi, %rdx
	shr $32, %rdx
try_write:
	wrmsr
	mov $1, %eax
	ret
try_failed:
	xor %eax, %eax
	ret

/* ---- exceptions: a #GP above, an NMI that was let in; everything else is the end ---- */

	.balign 16
	.global l1_stubs
l1_stubs:
	.set vector, 0
	.rept 32
	.balign 16
	push $vector
	jmp exception
	.set vector, vector + 1
	.endr

exception:
	cmpq $2, (%rsp)
	je nmi
	cmpq $13, (%rsp)
	jne fatal
	push %rbx
	lea try_read(%rip), %rbx
	cmp %rbx, 24(%rsp)
	je 1f
	lea try_write(%rip), %rbx
	cmp %rbx, 24(%rsp)
	jne fatal
1:	lea try_failed(%rip), %rbx
	mov %rbx, 24(%rsp)
	pop %rbx
	add $16, %rsp
	iretq
nmi:	add $8, %rsp
	push %rbx
	lea nmi_open(%rip), %rbx
	cmp %rbx, 8(%rsp)
	jb 2f
	lea nmi_closed(%rip), %rbx
	cmp %rbx, 8(%rsp)
	ja 2f
	mov $1, %eax
2:	pop %rbx
	iretq
fatal:	mov %rsp, %rdi
	cld
	call l1_fatal

	.section .note.GNU-stack, "", @progbits
