/*
 * memory.S: ways of writing 32 bytes, RDI from the four quadwords at RSI; and stacks.
 */
	.text
	.code64

	/* WAY name, body: in the order of the rows in suites/migration/memory.def */
	.macro WAY name
	.balign 16
	.global way_\name
way_\name:
	.endm

	WAY bytes
	mov $32, %ecx
1:	mov (%rsi), %al
	mov %al, (%rdi)
	inc %rsi
	inc %rdi
	dec %ecx
	jnz 1b
	ret
	WAY words
	mov $16, %ecx
1:	mov (%rsi), %ax
	mov %ax, (%rdi)
	add $2, %rsi
	add $2, %rdi
	dec %ecx
	jnz 1b
	ret
	WAY doublewords
	.irp at, 0, 4, 8, 12, 16, 20, 24, 28
	mov \at(%rsi), %eax
	mov %eax, \at(%rdi)
	.endr
	ret

	.macro QUADS body:vararg
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	\body
	.endr
	ret
	.endm

	WAY quadwords
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	mov %rax, \at(%rdi)
	.endr
	ret
	WAY stosq
	mov %rsi, %rdx
	mov $4, %ecx
1:	mov (%rdx), %rax
	stosq
	add $8, %rdx
	dec %ecx
	jnz 1b
	ret
	WAY stosb
	mov %rsi, %rdx
	mov $32, %ecx
1:	mov (%rdx), %al
	stosb
	inc %rdx
	dec %ecx
	jnz 1b
	ret
	WAY rep_movsb
	mov $32, %ecx
	rep movsb
	ret
	WAY rep_movsq
	mov $4, %ecx
	rep movsq
	ret
	WAY xchg
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	xchg %rax, \at(%rdi)
	.endr
	ret
	WAY lock_xadd
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	sub \at(%rdi), %rax
	lock xadd %rax, \at(%rdi)
	.endr
	ret
	WAY lock_cmpxchg
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rdx
	mov \at(%rdi), %rax
	lock cmpxchg %rdx, \at(%rdi)
	.endr
	ret
	WAY lock_cmpxchg16b
	push %rbx
	.irp at, 0, 16
	mov \at(%rdi), %rax
	mov \at+8(%rdi), %rdx
	mov \at(%rsi), %rbx
	mov \at+8(%rsi), %rcx
	lock cmpxchg16b \at(%rdi)
	.endr
	pop %rbx
	ret
	WAY lock_and_or
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	lock andq $0, \at(%rdi)
	lock or %rax, \at(%rdi)
	.endr
	ret
	WAY lock_bits
	xor %ecx, %ecx
	mov $256, %edx
1:	bt %ecx, (%rsi)
	jc 2f
	lock btr %ecx, (%rdi)
	jmp 3f
2:	lock bts %ecx, (%rdi)
3:	inc %ecx
	cmp %edx, %ecx
	jb 1b
	ret
	WAY modify /* what a read-modify-write without LOCK does */
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	xor \at(%rdi), %rax
	xor %rax, \at(%rdi)
	negq \at(%rdi)
	notq \at(%rdi)
	incq \at(%rdi)
	rolq $9, \at(%rdi)
	rorq $9, \at(%rdi)
	.endr
	ret
	WAY movnti
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	movnti %rax, \at(%rdi)
	.endr
	sfence
	ret
	WAY movups
	movups (%rsi), %xmm0
	movups 16(%rsi), %xmm1
	movups %xmm0, (%rdi)
	movups %xmm1, 16(%rdi)
	ret
	WAY movntdq
	movups (%rsi), %xmm0
	movups 16(%rsi), %xmm1
	movntdq %xmm0, (%rdi)
	movntdq %xmm1, 16(%rdi)
	sfence
	ret
	WAY movhps
	movups (%rsi), %xmm0
	movups 16(%rsi), %xmm1
	movlps %xmm0, (%rdi)
	movhps %xmm0, 8(%rdi)
	movlps %xmm1, 16(%rdi)
	movhps %xmm1, 24(%rdi)
	ret
	WAY maskmovdqu
	pcmpeqd %xmm2, %xmm2
	movups (%rsi), %xmm0
	movups 16(%rsi), %xmm1
	maskmovdqu %xmm2, %xmm0
	add $16, %rdi
	maskmovdqu %xmm2, %xmm1
	sfence
	ret
	WAY vmovups
	vmovups (%rsi), %ymm0
	vmovups %ymm0, (%rdi)
	vzeroupper
	ret
	WAY vmovntdq
	vmovups (%rsi), %ymm0
	mov %rdi, %rax
	and $31, %eax
	jnz 1f
	vmovntdq %ymm0, (%rdi)
	vzeroupper
	sfence
	ret
1:	vmovups %ymm0, (%rdi)
	vzeroupper
	ret
	WAY vmaskmov
	vpcmpeqd %xmm2, %xmm2, %xmm2
	vinsertf128 $1, %xmm2, %ymm2, %ymm2
	vmovups (%rsi), %ymm0
	vmaskmovps %ymm0, %ymm2, (%rdi)
	vzeroupper
	ret
	WAY mmx
	.irp at, 0, 8, 16, 24
	movq \at(%rsi), %mm0
	movq %mm0, \at(%rdi)
	.endr
	emms
	ret
	WAY movntq
	.irp at, 0, 8, 16, 24
	movq \at(%rsi), %mm0
	movntq %mm0, \at(%rdi)
	.endr
	emms
	sfence
	ret
	WAY x87 /* integers of 64 bits go through a register of 64 whole bits */
	fninit
	.irp at, 0, 8, 16, 24
	fildll \at(%rsi)
	fistpll \at(%rdi)
	.endr
	ret
	WAY push
	mov %rsp, %rcx
	lea 32(%rdi), %rsp
	pushq 24(%rsi)
	pushq 16(%rsi)
	pushq 8(%rsi)
	pushq (%rsi)
	mov %rcx, %rsp
	ret
	WAY pop
	mov %rsp, %rcx
	mov %rsi, %rsp
	popq (%rdi)
	popq 8(%rdi)
	popq 16(%rdi)
	popq 24(%rdi)
	mov %rcx, %rsp
	ret
	WAY movbe
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	bswap %rax
	movbe %rax, \at(%rdi)
	.endr
	ret
	WAY shld
	.irp at, 0, 8, 16, 24
	mov \at(%rsi), %rax
	shldq $32, %rax, \at(%rdi)
	shl $32, %rax
	shldq $32, %rax, \at(%rdi)
	.endr
	ret

	.section .rodata
	.balign 16
	.global memory_ways
memory_ways:
	.macro ENTRY name, leaf=0, reg=0, bit=0, aligned=0, avx=0
	.quad way_\name
	.long \leaf
	.byte \reg, \bit, \aligned, \avx
	.endm
	ENTRY bytes
	ENTRY words
	ENTRY doublewords
	ENTRY quadwords
	ENTRY stosq
	ENTRY stosb
	ENTRY rep_movsb
	ENTRY rep_movsq
	ENTRY xchg
	ENTRY lock_xadd
	ENTRY lock_cmpxchg
	ENTRY lock_cmpxchg16b, 1, 2, 13, 1
	ENTRY lock_and_or
	ENTRY lock_bits
	ENTRY modify
	ENTRY movnti, 1, 3, 26
	ENTRY movups, 1, 3, 25
	ENTRY movntdq, 1, 3, 26, 1
	ENTRY movhps, 1, 3, 25
	ENTRY maskmovdqu, 1, 3, 26
	ENTRY vmovups, 1, 2, 28, 0, 1
	ENTRY vmovntdq, 1, 2, 28, 1, 1
	ENTRY vmaskmov, 1, 2, 28, 0, 1
	ENTRY mmx, 1, 3, 23
	ENTRY movntq, 1, 3, 25
	ENTRY x87
	ENTRY push
	ENTRY pop
	ENTRY movbe, 1, 2, 22
	ENTRY shld

	.text
/* uint64_t memory_stack(uint8_t *top, uint64_t value): pushes value, +1, +2, +3; takes their sum by way of a call there. */
	.global memory_stack
memory_stack:
	push %rbp
	mov %rsp, %rbp
	mov %rdi, %rsp
	push %rsi
	inc %rsi
	push %rsi
	inc %rsi
	push %rsi
	inc %rsi
	push %rsi
	call 1f
	mov %rbp, %rsp
	pop %rbp
	ret
1:	nop
	mov 8(%rsp), %rax
	nop
	add 16(%rsp), %rax
	pushfq
	popfq
	enter $32, $0
	leave
	add 24(%rsp), %rax
	add 32(%rsp), %rax
	ret

/* uint64_t memory_interrupt(uint8_t *top) */
	.global memory_interrupt
memory_interrupt:
	push %rbp
	mov %rsp, %rbp
	mov %rdi, %rsp
	int $0x46
1:	mov %rbp, %rsp
	pop %rbp
	lea 1b(%rip), %rax
	ret

	.section .note.GNU-stack, "", @progbits
