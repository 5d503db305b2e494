/* From multiboot1 (ELF32, no load addresses: the ELF headers rule) to pc_main() in 32-bit protected mode. */
	.section .multiboot, "a"
	.long 0x1badb002, 3, -(0x1badb002 + 3)

	.text
	.code32
	.global start
start:	cli
	mov $boot_stack, %esp
	lgdt gdtr
	ljmp $8, $1f
1:	mov $16, %ecx
	mov %ecx, %ds
	mov %ecx, %es
	mov %ecx, %ss
	push %ebx
	push %eax
	call pc_main
2:	hlt
	jmp 2b

/* A processor that a SIPI started arrives here in flat 32-bit mode. */
	.global ap_start
ap_start:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $1, %eax
	lock xadd %eax, ap_count
	mov %eax, %ecx
	inc %ecx
	shl $12, %ecx
	lea ap_stacks(%ecx), %esp
	lidt idtr
	push %eax
	call pc_ap
2:	hlt
	jmp 2b

/* Interrupts: the vector, then pc_interrupt(vector). Exceptions end the guest. */
	.macro stub vector
	.balign 16
	push $\vector
	jmp common
	.endm
	.balign 16
	.global stubs
stubs:
	.set i, 0
	.rept 256
	stub i
	.set i, i + 1
	.endr
common:	pusha
	mov 32(%esp), %eax
	push %eax
	cld
	call pc_interrupt
	add $4, %esp
	popa
	add $4, %esp
	iret

	.data
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
	.global gdtr, idtr
gdtr:	.word 23
	.long gdt
idtr:	.word 256 * 8 - 1
	.long idt
	.global ap_count
	.balign 4
ap_count: .long 0

	.bss
	.balign 4096
	.skip 16384
boot_stack:
ap_stacks:
	.skip 65 * 4096
	.global idt
idt:	.skip 256 * 8
