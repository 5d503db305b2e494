/* entry.S: VMRUN, VMLAUNCH and VMRESUME, the instructions that may fault, and the hypervisor's own exceptions. */
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

/*
 * int hw_vmx_run(RDI: gpr, ESI: launched). The exit comes back to vmx_exited, with RSP as it was: all entries are made
 * from the same place on the stack (core_run), so a VMCS that was launched has both. An NMI that comes
 * in front of the entry must not wait until the next exit: it leads to vmx_not_entered (below).
 */
	.set HOST_RSP, 0x6c14
	.set HOST_RIP, 0x6c16
	.global hw_vmx_run
hw_vmx_run:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	push %rdi
	test %esi, %esi
	jnz vmx_entering
	mov $HOST_RSP, %eax
	vmwrite %rsp, %rax
	mov $HOST_RIP, %eax
	lea vmx_exited(%rip), %rdx
	vmwrite %rdx, %rax
vmx_entering:
	cmpq $0, %gs:0
	jne vmx_not_entered
	test %esi, %esi
	mov (%rdi), %rax
	mov 8(%rdi), %rcx
	mov 16(%rdi), %rdx
	mov 24(%rdi), %rbx
	mov 40(%rdi), %rbp
	mov 48(%rdi), %rsi
	mov 64(%rdi), %r8
	mov 72(%rdi), %r9
	mov 80(%rdi), %r10
	mov 88(%rdi), %r11
	mov 96(%rdi), %r12
	mov 104(%rdi), %r13
	mov 112(%rdi), %r14
	mov 120(%rdi), %r15
	mov 56(%rdi), %rdi
	jz 1f
	vmresume
	jmp 2f
1:	vmlaunch
vmx_entered:
2:	mov $1, %eax                    /* HW_VMX_FAIL_VALID, HW_VMX_FAIL_INVALID */
	jnc 3f
	mov $2, %eax
3:	pop %rdi
	jmp vmx_leave
vmx_not_entered:
	pop %rdi
	mov $3, %eax                    /* HW_VMX_NMI */
	jmp vmx_leave
vmx_exited:
	xchg %rdi, (%rsp)
	mov %rax, (%rdi)
	mov %rcx, 8(%rdi)
	mov %rdx, 16(%rdi)
	mov %rbx, 24(%rdi)
	mov %rbp, 40(%rdi)
	mov %rsi, 48(%rdi)
	mov %r8, 64(%rdi)
	mov %r9, 72(%rdi)
	mov %r10, 80(%rdi)
	mov %r11, 88(%rdi)
	mov %r12, 96(%rdi)
	mov %r13, 104(%rdi)
	mov %r14, 112(%rdi)
	mov %r15, 120(%rdi)
	pop %rcx
	mov %rcx, 56(%rdi)
	xor %eax, %eax
vmx_leave:
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	cld
	ret

/* bool hw_try_xsetbv(EDI: index, RSI: value) */
	.global hw_try_xsetbv
hw_try_xsetbv:
	mov %edi, %ecx
	mov %esi, %eax
	mov %rsi, %rdx
	shr $32, %rdx
try_xsetbv:
	xsetbv
	mov $1, %eax
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
	je 1f
	lea try_xsetbv(%rip), %rbx
	cmp %rbx, 24(%rsp)
	jne unforeseen
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
	pop %rbx
	iretq
2:	cmpl $1, l1_machine             /* CORE_VMX; GS is the guest's under AMD-V */
	jne 3f
	movq $1, %gs:0
	lea vmx_entering(%rip), %rbx
	cmp %rbx, 8(%rsp)
	jb 3f
	lea vmx_entered(%rip), %rbx
	cmp %rbx, 8(%rsp)
	jae 3f
	lea vmx_not_entered(%rip), %rbx
	mov %rbx, 8(%rsp)
3:	pop %rbx
	iretq
unforeseen:
	pop %rbx
fatal:	mov %rsp, %rdi
	cld
	call l1_fatal

	.section .note.GNU-stack, "", @progbits
