/*
 * vmx_world.S: into a guest of VT-x and back (SDM 3C chapters 27 and 28), and VMX instructions that may fault.
 */
	.section .text.entry, "ax"
	.code64
	.global vmx_switch, vmx_exited, vmx_try, vmx_try_stubs, vmx_try_end, vmx_try_resume

	.set HOST_RSP, 0x6c14

/* uint64_t vmx_switch(bool resume): RFLAGS of an entry that failed with VMfail, or 0 behind an exit. */
vmx_switch:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	pushfq
	mov $HOST_RSP, %eax
	vmwrite %rsp, %rax
	test %edi, %edi
	mov vmx_registers + 0x00, %rax
	mov vmx_registers + 0x08, %rcx
	mov vmx_registers + 0x10, %rdx
	mov vmx_registers + 0x18, %rbx
	mov vmx_registers + 0x28, %rbp
	mov vmx_registers + 0x30, %rsi
	mov vmx_registers + 0x38, %rdi
	mov vmx_registers + 0x40, %r8
	mov vmx_registers + 0x48, %r9
	mov vmx_registers + 0x50, %r10
	mov vmx_registers + 0x58, %r11
	mov vmx_registers + 0x60, %r12
	mov vmx_registers + 0x68, %r13
	mov vmx_registers + 0x70, %r14
	mov vmx_registers + 0x78, %r15
	jne 1f
	vmlaunch
	jmp 2f
1:	vmresume
2:	pushfq
	pop %rax
	jmp 3f

	.balign 16
vmx_exited:
	pushfq
	pop vmx_exit_flags
	mov %rax, vmx_registers + 0x00
	mov %rcx, vmx_registers + 0x08
	mov %rdx, vmx_registers + 0x10
	mov %rbx, vmx_registers + 0x18
	mov %rbp, vmx_registers + 0x28
	mov %rsi, vmx_registers + 0x30
	mov %rdi, vmx_registers + 0x38
	mov %r8, vmx_registers + 0x40
	mov %r9, vmx_registers + 0x48
	mov %r10, vmx_registers + 0x50
	mov %r11, vmx_registers + 0x58
	mov %r12, vmx_registers + 0x60
	mov %r13, vmx_registers + 0x68
	mov %r14, vmx_registers + 0x70
	mov %r15, vmx_registers + 0x78
	xor %eax, %eax
3:	popfq
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/*
 * uint64_t vmx_try(const void *stub, void *memory, uint64_t reg): RFLAGS behind the instruction; or 0, where it
 * faulted (a handler of vmx_world.c sends it to vmx_try_resume).
 */
vmx_try:
	push %rbx
	mov %rsp, %rbx
	mov %rdi, %rcx
	mov %edx, %eax
	pushq $0x8d7 /* all status flags set */
	popfq
	jmp *%rcx
vmx_try_resume:
	mov %rbx, %rsp
	xor %eax, %eax
	pop %rbx
	ret

	.balign 16
vmx_try_stubs:
	vmxon (%rsi)
	jmp vmx_tried
	.balign 16
	vmclear (%rsi)
	jmp vmx_tried
	.balign 16
	vmptrld (%rsi)
	jmp vmx_tried
	.balign 16
	vmptrst (%rsi)
	jmp vmx_tried
	.balign 16
	invept (%rsi), %rdx
	jmp vmx_tried
	.balign 16
	invvpid (%rsi), %rdx
	jmp vmx_tried
	.balign 16
	vmread %rdx, (%rsi)
	jmp vmx_tried
	.balign 16
	vmwrite (%rsi), %rdx
	jmp vmx_tried
	.balign 16
	vmxoff
	jmp vmx_tried
	.balign 16
	vmcall
	jmp vmx_tried
	.balign 16
	vmlaunch
	jmp vmx_tried
	.balign 16
	vmresume
	jmp vmx_tried
	.balign 16
	vmfunc
	jmp vmx_tried
	.balign 16
	mov %ss, %edi
	mov %edi, %ss
	vmlaunch
	jmp vmx_tried
	.balign 16
	mov %ss, %edi
	mov %edi, %ss
	vmresume
	jmp vmx_tried
	.balign 16
	mov %rdx, %cr0
	jmp vmx_tried
	.balign 16
	mov %rdx, %cr4
	jmp vmx_tried
vmx_try_end:
	.balign 16
vmx_tried:
	pushfq
	pop %rax
	cld
	pop %rbx
	ret

	.section .note.GNU-stack, "", @progbits
