/*
 * boot.S: from multiboot1 or PVH (32-bit protected mode, paging off), or a SIPI, to C in long mode.
 * l1_main(EDI: 1 multiboot, 2 PVH; RSI: the loader's information), l1_ap(EDI: local APIC id).
 */
#include "l1/layout.h"

#define P(symbol) (symbol - L1_VIRTUAL)
#define MSR_EFER 0xc0000080

	.section .multiboot, "a"
	.balign 4
multiboot_header:
	.long 0x1badb002
	.long 0x00010002                /* memory information; the addresses below count */
	.long -(0x1badb002 + 0x00010002)
	.long P(multiboot_header)
	.long P(image_start)
	.long P(data_end)
	.long P(image_end)
	.long P(boot_multiboot)

	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 4, 18                  /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long P(boot_pvh)

	.section .text.entry, "ax"
	.code32
	.global boot_multiboot, boot_pvh
boot_multiboot:
	mov $1, %ebp
	jmp 1f
boot_pvh:
	mov $2, %ebp
1:	cli
	cld
	mov %ebx, %esi
	mov $P(bss_start), %edi
	mov $P(image_end), %ecx
	sub %edi, %ecx
	shr $2, %ecx
	xor %eax, %eax
	rep stosl

	/* 4 GiB by 2 MiB pages, to themselves; and the image where it is linked. */
	movl $P(boot_pdpt) + 3, P(boot_pml4)
	movl $P(boot_pdpt_high) + 3, P(boot_pml4) + 8 * 511
	movl $P(boot_pd) + 3, P(boot_pdpt_high) + 8 * 510
	mov $4, %ecx
	mov $P(boot_pdpt), %edi
	mov $P(boot_pd) + 3, %eax
2:	mov %eax, (%edi)
	add $8, %edi
	add $4096, %eax
	loop 2b
	mov $2048, %ecx
	mov $P(boot_pd), %edi
	mov $0x83, %eax
3:	mov %eax, (%edi)
	add $8, %edi
	add $0x200000, %eax
	loop 3b

	lgdt P(boot_gdtr)
	mov $0x20, %eax
	mov %eax, %cr4
	mov $P(boot_pml4), %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov $0x80010031, %eax
	mov %eax, %cr0
	ljmp $L1_CS64, $P(boot_long)

	.code64
boot_long:
	mov $boot_high, %rax
	jmp *%rax
boot_high:
	lgdt l1_gdtr
	mov $L1_DS, %eax
	mov %eax, %ss
	mov %eax, %ds
	mov %eax, %es
	mov $boot_stack_top, %rsp
	mov %ebp, %edi
	mov %esi, %esi
	xor %ebp, %ebp
	call l1_main
	ud2

/*
 * l1_move(RDI: where the stack goes, RSI: where it is, RDX: its size, RCX: CR3): copies this stack, and goes on
 * with the page tables that lead to the moved image.
 */
	.global l1_move
l1_move:
	mov %rcx, %rax
	mov %rdx, %rcx
	rep movsb
	mov %rax, %cr3
	ret

/* ---- other processors ---- */

/* Copied to the page at which they start, with its facts filled in (cpus.c). */
	.section .rodata
	.global startup_code, startup_facts, startup_end
	.global startup_protected, startup_long
	.balign 16
	.code16
startup_code:
	cli
	lgdtl %cs:startup_gdtr - startup_code
	xor %ebx, %ebx
	mov %cs, %bx
	shl $4, %ebx
	mov %cr0, %eax
	or $1, %al
	and $0x9fffffff, %eax
	mov %eax, %cr0
	ljmpl *%cs:startup_far32 - startup_code
	.code32
startup_protected:
	mov $L1_DS, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $0x20, %eax
	mov %eax, %cr4
	mov startup_cr3 - startup_code(%ebx), %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov $0x80010031, %eax
	mov %eax, %cr0
	ljmp *startup_far64 - startup_code(%ebx)
	.code64
startup_long:
	mov $startup_high, %rax
	jmp *%rax
	.balign 8
startup_gdt:
	.quad 0
	.quad 0x00af9b000000ffff        /* L1_CS64 */
	.quad 0x00cf93000000ffff        /* L1_DS */
	.quad 0, 0
	.quad 0x00cf9b000000ffff        /* L1_CS32 */
startup_facts:                          /* struct startup_facts */
startup_cr3:
	.long 0
startup_far32:
	.long startup_protected - startup_code
	.word L1_CS32
startup_far64:
	.long startup_long - startup_code
	.word L1_CS64
startup_gdtr:
	.word startup_facts - startup_gdt - 1
	.long startup_gdt - startup_code
startup_end:

	.section .text
	.code64
startup_high:
	lgdt l1_gdtr
	mov $1, %eax
	cpuid
	shr $24, %ebx
	cmp $L1_CPUS, %ebx
	jae 1f
	mov %ebx, %edi
	inc %ebx
	imul $L1_STACK_SIZE, %rbx, %rbx
	lea l1_stacks(%rbx), %rsp
	xor %ebp, %ebp
	call l1_ap
1:	cli
	hlt
	jmp 1b

/* ---- tables ---- */

	.section .text.entry
	.balign 16
	.global l1_gdt, l1_gdtr
l1_gdt:
	.quad 0
	.quad 0x00af9b000000ffff        /* L1_CS64 */
	.quad 0x00cf93000000ffff        /* L1_DS */
	.quad 0, 0                      /* L1_TSS: only VT-x wants one, and asks for no descriptor */
	.quad 0x00cf9b000000ffff        /* L1_CS32 */
l1_gdt_end:
l1_gdtr:
	.word l1_gdt_end - l1_gdt - 1
	.quad l1_gdt
boot_gdtr:
	.word l1_gdt_end - l1_gdt - 1
	.quad P(l1_gdt)

	.section .bss
	.balign 4096
	.global boot_pml4, boot_pdpt, boot_pdpt_high, boot_pd, l1_stacks
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pdpt_high:
	.skip 4096
boot_pd:
	.skip 4 * 4096
boot_pd_high:
	.skip 4096
	.global boot_pd_high, boot_stack, boot_stack_top
boot_stack:
	.skip 16384
boot_stack_top:
l1_stacks:
	.skip L1_CPUS * L1_STACK_SIZE

	.section .note.GNU-stack, "", @progbits
