/*
 * reset.S: a 64 KiB ROM at FFFF0000H that starts a guest as a multiboot loader would, for machines that
 * have no loader of their own (Bochs). What to start stands in memory at ROM_START: the entry
 * point, the multiboot information and the size of memory, 32 bits each.
 */
#define ROM_START 0x500
#define CHUNK 0x20000 /* memory is touched in pieces of this size, upwards: the order in which Bochs reads its image */

	.section .rom, "ax"
	.code16
start:
	cli
	cld
	lgdtl %cs:(gdtr - start)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $8, $0xffff0000 + (protected - start)

	.code32
protected:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %fs
	mov %eax, %gs
	mov %eax, %ss
	xor %edi, %edi
	mov (%edi), %al
	mov ROM_START + 8, %ecx
1:	mov (%edi), %al
	add $CHUNK, %edi
	cmp $0xa0000, %edi
	jne 2f
	mov $0x100000, %edi
2:	cmp %ecx, %edi
	jb 1b
	mov $0x2badb002, %eax
	mov ROM_START + 4, %ebx
	jmp *ROM_START

	.balign 8
gdt:	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
gdtr:	.word gdtr - gdt - 1
	.long 0xffff0000 + (gdt - start)

	.org 0xfff0
	.code16
	.byte 0xe9                 /* jmp start */
	.word start - (. + 2)
	.org 0x10000, 0xff

	.section .note.GNU-stack, "", @progbits
