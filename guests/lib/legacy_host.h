/*
 * legacy_host.h: what hosts in 32-bit protected mode share (svm_legacy.S, vmx_legacy.S): there from the monitor's 64-bit
 * mode, and back. All is below 4 GiB. For the assembler alone; "lib/exchange.h" comes first.
 */

/* Behind the far jump to a 32-bit code segment: leaves IA-32e mode for @control, three doublewords for CR0, CR3 and CR4. */
	.macro legacy_host_begin stack, control
	.code32
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $\stack, %esp
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov $MSR_EFER, %ecx
	rdmsr
	and $~0x100, %eax
	wrmsr
	mov \control, %esi
	mov 8(%esi), %eax
	mov %eax, %cr4
	mov 4(%esi), %eax
	mov %eax, %cr3
	mov (%esi), %eax
	mov %eax, %cr0
	jmp 1f
1:
	.endm

/* Back to the monitor's control registers and 64-bit mode; RAX, RCX and RDX are lost. */
	.macro legacy_host_end stack_pointer
	.code32
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov EX_MONITOR_CR4, %eax
	mov %eax, %cr4
	mov EX_MONITOR_CR3, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov EX_MONITOR_CR0, %eax
	mov %eax, %cr0
	ljmp $MONITOR_CS64, $1f

	.code64
1:	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov \stack_pointer, %rsp
	.endm

/* What a C function keeps for its caller, RFLAGS with it. */
	.macro push_callee_saved
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	pushfq
	.endm

	.macro pop_callee_saved
	popfq
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	.endm
