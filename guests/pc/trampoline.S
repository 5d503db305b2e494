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
