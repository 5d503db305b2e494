/*
 * vectors.S: x87, MMX, SSE and AVX registers loaded, left alone for a while, and stored; and single steps.
 */
	.bss
	.balign 64
	.global vectors_image, vectors_found
vectors_image:
	.skip 1024
vectors_found:
	.skip 1024

	.text
	.code64

	.macro HOLD
	mov $31, %ecx
	nop
1:	dec %ecx
	jnz 1b
	.endm

	.global vectors_fxsave_kept, vectors_xsave_kept, vectors_environment_kept, vectors_mmx_kept
vectors_fxsave_kept:
	fxrstor64 vectors_image
	HOLD
	fxsave64 vectors_found
	nop
	fxsave64 vectors_found
	fninit
	ret

vectors_xsave_kept:
	mov $7, %eax
	xor %edx, %edx
	xrstor64 vectors_image
	HOLD
	xsave64 vectors_found
	nop
	xsave64 vectors_found
	fninit
	vzeroall
	ret

vectors_environment_kept:
	fldenv vectors_image
	HOLD
	fnstenv vectors_found
	ret

vectors_mmx_kept:
	movq vectors_image, %mm0
	movq vectors_image + 8, %mm1
	movq vectors_image + 16, %mm2
	movq vectors_image + 24, %mm3
	movq vectors_image + 32, %mm4
	movq vectors_image + 40, %mm5
	movq vectors_image + 48, %mm6
	movq vectors_image + 56, %mm7
	HOLD
	movq %mm0, vectors_found
	movq %mm1, vectors_found + 8
	movq %mm2, vectors_found + 16
	movq %mm3, vectors_found + 24
	movq %mm4, vectors_found + 32
	movq %mm5, vectors_found + 40
	movq %mm6, vectors_found + 48
	movq %mm7, vectors_found + 56
	emms
	ret

/* unsigned vectors_exception_kept(void): 0 divided by 0 with IM = 0; FSW before the exception comes. */
	.global vectors_exception_kept
vectors_exception_kept:
	fninit
	pushq $0x37e
	fldcw (%rsp)
	fldz
	fldz
	fdivp
	HOLD
	fnstsw %ax
	nop
	fnstsw %ax
	movzwl %ax, %edx
	fwait
	pop %rcx
	mov %edx, %eax
	ret

/* uint64_t vectors_rounds(void): 1/3 rounded up less 1/3 rounded down, in units of the last place. */
	.global vectors_rounds
vectors_rounds:
	sub $8, %rsp
	stmxcsr 4(%rsp)
	movl $0x5f80, (%rsp)
	ldmxcsr (%rsp)
	HOLD
	mov $1, %eax
	cvtsi2sd %eax, %xmm0
	mov $3, %eax
	cvtsi2sd %eax, %xmm1
	divsd %xmm1, %xmm0
	movq %xmm0, %rdx
	movl $0x3f80, (%rsp)
	ldmxcsr (%rsp)
	HOLD
	mov $1, %eax
	cvtsi2sd %eax, %xmm0
	divsd %xmm1, %xmm0
	movq %xmm0, %rax
	sub %rax, %rdx
	mov %rdx, %rax
	ldmxcsr 4(%rsp)
	add $8, %rsp
	ret

/* unsigned step_through(void): TF set and cleared by POPFQ; the last step is behind the POPFQ that clears it. */
	.global step_through
step_through:
	pushfq
	pushfq
	orl $0x100, (%rsp)
	popfq
	.rept 40
	nop
	.endr
	popfq /* the step over this one began with TF = 1 */
	mov $41, %eax
	ret

/* void pend_debug(volatile uint32_t *selector) */
	.global pend_debug, pend_debug_behind
pend_debug:
	mov (%rdi), %ss
	nop
pend_debug_behind:
	nop
	nop
	ret

/*
 * uint64_t shadow_…(void): with an interrupt pending and IF = 0: interrupts on, and where the interrupt must come: behind the
 * one instruction that the shadow holds it back for.
 */
	.text
	.global shadow_sti, shadow_mov_ss
shadow_sti:
	lea 1f(%rip), %rax
	sti
	nop
1:	nop
	nop
	cli
	ret

shadow_mov_ss:
	lea 1f(%rip), %rax
	mov %ss, %edx
	sti
	mov %edx, %ss /* in STI's shadow, with a new one behind it */
	nop
1:	nop
	nop
	cli
	ret

	.section .note.GNU-stack, "", @progbits
