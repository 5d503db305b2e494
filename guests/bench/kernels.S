/*
 * kernels.S: the loops that `make bench` measures. Each takes a count in RDI, runs that many rounds, and returns in RAX
 * how many instructions it has executed, so that the same file gives rates on any machine.
 */

/* A kernel with @insns instructions a round and nothing else to count. */
	.macro finish_kernel rounds, insns:vararg
	imul $\insns, \rounds, \rounds
	mov \rounds, %rax
	ret
	.endm

	.text

/* Arithmetic and logic in registers: 16 instructions a round. */
	.global kernel_alu
	.balign 64
kernel_alu:
	mov %rdi, %rsi
	mov $0x9e3779b97f4a7c15, %rcx
	mov $1, %eax
	.balign 16
1:	add %rcx, %rax
	lea 7(%rax,%rcx,2), %rdx
	xor %rdx, %rcx
	shl $3, %rdx
	sub %rdx, %rax
	and %rax, %r8
	or %rcx, %r9
	ror $5, %rax
	add $1, %r10
	mov %eax, %r11d
	imul $77, %r11, %r11
	adc %r11, %r8
	not %r9
	xor %r10, %rax
	dec %rdi
	jnz 1b
	finish_kernel %rsi, 16

/* Branches that depend on a generator: 10 instructions a round, and one for each that is not taken. */
	.global kernel_branch
	.balign 64
kernel_branch:
	push %rbx
	mov %rdi, %rsi
	mov $6364136223846793005, %rcx
	mov $1442695040888963407, %rdx
	mov $1, %eax
	xor %r8d, %r8d
	xor %r9d, %r9d
	xor %r11d, %r11d
	mov $0x8000000000000000, %r10
	.balign 16
1:	imul %rcx, %rax
	add %rdx, %rax
	bt $40, %rax
	jc 2f
	inc %r8
2:	test $0x10000, %eax
	jz 3f
	inc %r9
3:	cmp %r10, %rax
	jb 4f
	inc %r11
4:	dec %rdi
	jnz 1b
	imul $10, %rsi, %rax
	add %r8, %rax
	add %r9, %rax
	add %r11, %rax
	pop %rbx
	ret

/* A load and a store on each line of 8 MiB: 6 instructions a line. */
#define WALK_AT 0x1000000
#define WALK_SIZE 0x800000
	.global kernel_memory
	.balign 64
kernel_memory:
	mov %rdi, %rcx
	mov $3, %edx
1:	mov $WALK_AT, %esi
	mov $WALK_AT + WALK_SIZE, %r8d
	.balign 16
2:	mov (%rsi), %rax
	add %rdx, %rax
	mov %rax, 8(%rsi)
	add $64, %rsi
	cmp %r8, %rsi
	jb 2b
	dec %rdi
	jnz 1b
	imul $6 * (WALK_SIZE / 64) + 4, %rcx, %rax
	ret

/* Calls, stack and short strings: 40 instructions a round, each REP counted as one. */
	.global kernel_calls
	.balign 64
kernel_calls:
	push %rbx
	push %rbp
	mov %rdi, %rbx
	push %rdi
	.balign 16
1:	mov $WALK_AT, %esi
	mov $WALK_AT + 0x1000, %edi
	mov $48, %ecx
	rep movsb
	call outer
	mov $WALK_AT, %edi
	mov $6, %ecx
	rep stosq
	dec %rbx
	jnz 1b
	pop %rax
	imul $40, %rax, %rax
	pop %rbp
	pop %rbx
	ret
	.balign 16
outer:	push %rbp
	mov %rsp, %rbp
	sub $32, %rsp
	mov %rax, -8(%rbp)
	call inner
	mov -8(%rbp), %rdx
	call inner
	add $32, %rsp
	pop %rbp
	ret
	.balign 16
inner:	push %rcx
	push %rdx
	lea 1(%rcx), %rax
	mov %rax, (%rsp)
	add %rax, 8(%rsp)
	pop %rdx
	pop %rcx
	test %rdx, %rdx
	js 1f
	ret
1:	ret

/* Scalar SSE2: 14 instructions a round. */
	.global kernel_sse2
	.balign 64
kernel_sse2:
	mov %rdi, %rsi
	mov $WALK_AT, %edx
	movabs $0x3ff0000000000001, %rax
	mov %rax, (%rdx)
	movabs $0x3fe5555555555555, %rax
	mov %rax, 8(%rdx)
	movsd (%rdx), %xmm0
	movsd 8(%rdx), %xmm1
	xorps %xmm4, %xmm4
	.balign 16
1:	movsd (%rdx), %xmm2
	mulsd %xmm1, %xmm2
	addsd %xmm2, %xmm0
	subsd 8(%rdx), %xmm0
	cvtsi2sd %edi, %xmm3
	mulsd %xmm3, %xmm1
	divsd %xmm3, %xmm1
	addsd %xmm0, %xmm4
	movsd %xmm4, 16(%rdx)
	ucomisd %xmm4, %xmm0
	movapd %xmm0, %xmm5
	maxsd %xmm1, %xmm5
	dec %rdi
	jnz 1b
	finish_kernel %rsi, 14

/* What leaves a guest under a hypervisor: CPUID, RDMSR, IN, MOV CR0: 10 instructions a round. */
	.global kernel_exits
	.balign 64
kernel_exits:
	push %rbx
	mov %rdi, %rsi
	.balign 16
1:	xor %eax, %eax
	xor %ecx, %ecx
	cpuid
	mov $0xc0000080, %ecx
	rdmsr
	in $0xe9, %al
	mov %cr0, %rax
	mov %rax, %cr0
	dec %rdi
	jnz 1b
	pop %rbx
	finish_kernel %rsi, 10

/* Code that runs once: calls RDI copies of `once`, which main.c has laid out from RSI on, RDX apart. */
	.global kernel_cold
	.balign 64
kernel_cold:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	mov %rdi, %r14
	mov %rsi, %r12
	mov %rdx, %r13
	mov %rdi, %rbp
	sub $64, %rsp
	mov %rsp, %rbx
1:	call *%r12
	add %r13, %r12
	dec %rbp
	jnz 1b
	add $64, %rsp
	mov $once_insns, %eax
	add $4, %rax
	imul %r14, %rax
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

/* 16 instructions, of the kinds that test guests consist of, a different mix of operands each time. */
	.macro some_code n
	mov $\n, %eax
	mov %rax, 8(%rbx)
	lea \n(%rax,%rax,4), %rcx
	add %rcx, %rax
	mov 8(%rbx), %rdx
	xor $\n, %edx
	push %rdx
	cmp %rax, %rdx
	jae 1f
	sub $3, %ecx
1:	pop %rsi
	shl $2, %rcx
	movzbl 9(%rbx), %edi
	test %edi, %esi
	or %edi, 16(%rbx)
	add $8, %eax
	.endm
	.set once_copies, 1000
	.set once_insns, 16 * once_copies + 1
	.global once, once_end
	.balign 64
once:
	.set n, 1
	.rept once_copies
	some_code n
	.set n, n + 1
	.endr
	ret
once_end:

/* MOV to CR3 with a few pages touched after it: 8 instructions a round. */
	.global kernel_cr3
	.balign 64
kernel_cr3:
	mov %rdi, %rsi
	mov %cr3, %rcx
	mov $WALK_AT, %edx
	.balign 16
1:	mov %rcx, %cr3
	mov (%rdx), %rax
	add $1, %rax
	mov %rax, 0x1000(%rdx)
	mov 0x2000(%rdx), %r8
	nop
	dec %rdi
	jnz 1b
	finish_kernel %rsi, 8

/* A page fault, and an IRET behind the access: 6 instructions a round. RSI: an address that is not mapped. */
	.global kernel_fault, page_fault
	.balign 64
kernel_fault:
	mov %rdi, %rcx
	.balign 16
1:	mov (%rsi), %al
	dec %rdi
	jnz 1b
	finish_kernel %rcx, 6
	.balign 16
page_fault:
	addq $2, 8(%rsp)
	add $8, %rsp
	iretq

/* CPUID alone: 5 instructions a round. */
	.global kernel_cpuid
	.balign 64
kernel_cpuid:
	push %rbx
	mov %rdi, %rsi
	.balign 16
1:	mov $1, %eax
	xor %ecx, %ecx
	cpuid
	dec %rdi
	jnz 1b
	pop %rbx
	finish_kernel %rsi, 5

/* REP MOVSQ and REP STOSQ over 4 MiB: returns bytes, not instructions. */
	.global kernel_movs, kernel_stos
	.balign 64
kernel_movs:
	mov %rdi, %r8
1:	mov $WALK_AT, %esi
	mov $WALK_AT + 0x400000, %edi
	mov $0x400000 / 8, %ecx
	rep movsq
	dec %r8
	jnz 1b
	ret
	.balign 64
kernel_stos:
	mov %rdi, %r8
	xor %eax, %eax
1:	mov $WALK_AT, %edi
	mov $0x400000 / 8, %ecx
	rep stosq
	dec %r8
	jnz 1b
	ret

	.section .note.GNU-stack, "", @progbits
