/* Where a SIPI's vector points, copied to that page: real mode to ap_start in flat 32-bit mode. */
	.section .rodata
	.code16
	.global trampoline, trampoline_end
trampoline:
	cli
	lgdtl %cs:trampoline_gdtr - trampoline
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $8, $ap_start
	.balign 4
trampoline_gdtr:
	.word 31
	.long trampoline_gdt
trampoline_end:
	.balign 8
trampoline_gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff

/* Where the machine comes out of S3, copied to that page, in real mode: says whether memory was kept, the segment, what
 * the status register of PM1 says (wake, real-time clock) and ends. */
	.section .rodata
	.global resume, resume_end
resume:
	cli
	xor %ax, %ax
	mov %ax, %ds
	mov %cs, %ax
	cmp $0x700, %ax
	jne 3f
	mov $0x600, %dx
	in %dx, %ax
	and $0x8400, %ax
	cmp $0x8400, %ax
	jne 3f
	/* Unreal mode reads above 1 MiB. */
	lgdtl %cs:resume_gdtr - resume
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	mov $8, %bx
	mov %bx, %ds
	and $0xfe, %al
	mov %eax, %cr0
	mov $0x600000, %ebx
	addr32 cmpl $0x600df00d, (%ebx)
	jne 3f
	mov $resume_text - resume, %si
1:	mov %cs:(%si), %al
	test %al, %al
	jz 2f
	mov $0x3f8, %dx
	out %al, %dx
	inc %si
	jmp 1b
2:	mov $0xf4, %dx
	mov $0x20, %al
	out %al, %dx
3:	mov $0xf4, %dx
	mov $0x21, %al
	out %al, %dx
	.balign 4
resume_gdtr:
	.word 15
	.long resume_gdt
resume_text:
	.asciz "awake\r\n"
resume_end:
	.balign 8
resume_gdt:
	.quad 0, 0x00cf93000000ffff
