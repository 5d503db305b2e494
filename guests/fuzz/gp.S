/* #GP of RDMSR and WRMSR, two bytes each: go on behind it. An 8259A sends 13 without an error code. */
	.text
	.code64
	.global general_protection
general_protection:
	testb $2, 25(%rsp)              /* RFLAGS.IF, where there is an error code */
	jnz 1f
	cmpq $24, 16(%rsp)              /* CS, where there is one */
	jne 1f
	add $8, %rsp
	addq $2, (%rsp)
	iretq
1:	push %rax
	mov $0x20, %al
	out %al, $0x20
	pop %rax
	iretq
