/*
 * svm_world.S: into a guest of AMD-V and back (APM 2 15.5.1, 15.5.2).
 */
	.section .text.entry, "ax"
	.code64
	.global svm_switch, svm_try_stubs

/* void svm_switch(uint64_t vmcb, uint64_t host, struct svm_registers *registers) */
svm_switch:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	pushfq
	push %rdx
	push %rsi
	clgi
	cmpb $0, svm_host_if
	je 1f
	sti
1:	mov %rsi, %rax
	vmsave %rax
	mov %rdi, %rax
	vmload %rax
	mov 0x00(%rdx), %rcx
	mov 0x10(%rdx), %rbx
	mov 0x18(%rdx), %rbp
	mov 0x20(%rdx), %rsi
	mov 0x28(%rdx), %rdi
	mov 0x30(%rdx), %r8
	mov 0x38(%rdx), %r9
	mov 0x40(%rdx), %r10
	mov 0x48(%rdx), %r11
	mov 0x50(%rdx), %r12
	mov 0x58(%rdx), %r13
	mov 0x60(%rdx), %r14
	mov 0x68(%rdx), %r15
	mov 0x08(%rdx), %rdx
	vmrun %rax
	cli
	vmsave %rax
	mov (%rsp), %rax
	vmload %rax
	mov 8(%rsp), %rax
	mov %rcx, 0x00(%rax)
	mov %rdx, 0x08(%rax)
	mov %rbx, 0x10(%rax)
	mov %rbp, 0x18(%rax)
	mov %rsi, 0x20(%rax)
	mov %rdi, 0x28(%rax)
	mov %r8, 0x30(%rax)
	mov %r9, 0x38(%rax)
	mov %r10, 0x40(%rax)
	mov %r11, 0x48(%rax)
	mov %r12, 0x50(%rax)
	mov %r13, 0x58(%rax)
	mov %r14, 0x60(%rax)
	mov %r15, 0x68(%rax)
	add $16, %rsp
	popfq
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/*
 * unsigned svm_try_one(uint64_t rax, uint32_t ecx, const void *stub): 0, or 1 where the instruction at @stub
 * faulted (story_interrupt knows the addresses).
 */
	.global svm_try_one
svm_try_one:
	mov %rdi, %rax
	mov %esi, %ecx
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	call *%rdx
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.balign 16
svm_try_stubs:
	vmrun %rax
	jmp svm_tried
	.balign 16
	vmload %rax
	jmp svm_tried
	.balign 16
	vmsave %rax
	jmp svm_tried
	.balign 16
	stgi
	jmp svm_tried
	.balign 16
	clgi
	jmp svm_tried
	.balign 16
	vmmcall
	jmp svm_tried
	.balign 16
	invlpga %rax, %ecx
	jmp svm_tried
	.balign 16
	skinit %eax
	jmp svm_tried
	.balign 16
svm_tried:
	xor %eax, %eax
	ret

	.section .note.GNU-stack, "", @progbits
