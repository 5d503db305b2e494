/*
 * story_entry.S: interrupts and exceptions of a story: all registers into a struct story_frame, and
 * story_interrupt(). Exceptions that push no error code get one of 0.
 * And the instructions that a story lets fault: the fault comes back to story_resume, which says so.
 */
	.section .text.entry, "ax"
	.code64
	.global story_stubs, story_resume, story_rdmsr_at, story_wrmsr_at, story_read8_at
	.global story_rdmsr, story_wrmsr, story_read8

	.balign 16
story_stubs:
	.set vector, 0
	.rept 256
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	.byte 0x6a, 0
	.endif
	.byte 0x68
	.long vector
	jmp story_enter
	.set vector, vector + 1
	.endr

story_enter:
	push %rax
	push %rbx
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %rbp
	push %r8
	push %r9
	push %r10
	push %r11
	push %r12
	push %r13
	push %r14
	push %r15
	cld
	mov %rsp, %rdi
	mov %rsp, %rbp
	and $-16, %rsp
	call story_interrupt
	mov %rbp, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rbp
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rbx
	pop %rax
	add $16, %rsp
	iretq

/* void story_iret(void) */
	.global story_iret
story_iret:
	pop %rcx
	mov %rsp, %rdx
	mov %ss, %eax
	push %rax
	push %rdx
	pushfq
	mov %cs, %eax
	push %rax
	push %rcx
	iretq

/* unsigned story_rdmsr(uint32_t index, uint64_t *value): 0, or 1 where it faulted. */
story_rdmsr:
	mov %edi, %ecx
story_rdmsr_at:
	rdmsr
	mov %eax, (%rsi)
	mov %edx, 4(%rsi)
	xor %eax, %eax
	ret

/* unsigned story_wrmsr(uint32_t index, uint64_t value) */
story_wrmsr:
	mov %edi, %ecx
	mov %esi, %eax
	mov %rsi, %rdx
	shr $32, %rdx
story_wrmsr_at:
	wrmsr
	xor %eax, %eax
	ret

/* unsigned story_read8(uint64_t address, uint8_t *value) */
story_read8:
story_read8_at:
	movb (%rdi), %al
	movb %al, (%rsi)
	xor %eax, %eax
	ret

story_resume:
	mov $1, %eax
	ret

	.section .note.GNU-stack, "", @progbits
