/* From multiboot1 (ELF64; QEMU wants load addresses in its header) to pc_main() in 64-bit mode. */
	.section .multiboot, "a"
header:	.long 0x1badb002, 0x10003, -(0x1badb002 + 0x10003)
	.long header, image_start, data_end, image_end, start

	.text
	.code32
	.global start
start:	cli
	mov $boot_stack, %esp
	mov %eax, %ebp
	mov $tables + 0x1000 + 3, %eax
	mov %eax, tables
	mov $tables + 0x2000 + 3, %eax
	mov $tables + 0x1000, %edi
	mov $4, %ecx
1:	mov %eax, (%edi)
	add $0x1000, %eax
	add $8, %edi
	loop 1b
	mov $0x83, %eax
	mov $tables + 0x2000, %edi
	mov $2048, %ecx
1:	mov %eax, (%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 1b
	lgdt gdtr
	call enter_long
	mov %ebp, %edi
	mov %ebx, %esi
	ljmp $24, $long

enter_long:
	mov $0x20, %eax
	mov %eax, %cr4
	mov $tables, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov $0x80000011, %eax
	mov %eax, %cr0
	ret

/* A processor that a SIPI started arrives here in flat 32-bit mode. */
	.global ap_start
ap_start:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $1, %eax
	lock xadd %eax, ap_count
	mov %eax, %edi
	inc %eax
	shl $12, %eax
	lea ap_stacks(%eax), %esp
	call enter_long
	ljmp $24, $ap_long

	.code64
long:	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	call pc_main
2:	hlt
	jmp 2b

ap_long:
	lidt idtr
	call pc_ap
2:	hlt
	jmp 2b

/* Interrupts: the vector, then pc_interrupt(vector). Exceptions end the guest. */
	.macro stub vector
	.balign 16
	pushq $\vector
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
common:	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	mov 72(%rsp), %rdi
	cld
	call pc_interrupt
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	add $8, %rsp
	iretq

	.data
	.balign 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
	.global gdtr, idtr
gdtr:	.word 31
	.quad gdt
idtr:	.word 256 * 16 - 1
	.quad idt
	.global ap_count
	.balign 4
ap_count: .long 0

	.bss
	.balign 4096
tables:	.skip 6 * 4096
	.skip 16384
boot_stack:
ap_stacks:
	.skip 65 * 4096
	.global idt
idt:	.skip 256 * 16
