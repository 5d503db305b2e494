/*
 * boot.S: from multiboot1 or PVH (32-bit protected mode, paging off) to guest_main in long mode.
 * guest_main(struct boot_information): EDI how we were started (1 multiboot, 2 PVH), ESI
 * the loader's information block.
 */
#include "lib/exchange.h"

	.section .multiboot, "a"
	.balign 4
multiboot_header:
	.long 0x1badb002
	.long 0x00010002                /* memory information; the addresses below count */
	.long -(0x1badb002 + 0x00010002)
	.long multiboot_header
	.long image_start
	.long data_end
	.long image_end
	.long boot_multiboot

	.section .note.Xen, "a", @note
	.balign 4
	.long 4, 4, 18                  /* name, value: 4 bytes each; XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long boot_pvh

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
	mov %esi, %edx
	mov $bss_start, %edi
	mov $image_end, %ecx
	sub %edi, %ecx
	shr $2, %ecx
	xor %eax, %eax
	rep stosl
	mov %edx, %esi
	mov $boot_stack_top, %esp

	/* Identity mapping of 4 GiB by 2 MiB pages. */
	movl $boot_pdpt + 3, boot_pml4
	mov $4, %ecx
	mov $boot_pdpt, %edi
	mov $boot_pd + 3, %eax
2:	mov %eax, (%edi)
	add $8, %edi
	add $4096, %eax
	loop 2b
	mov $2048, %ecx
	mov $boot_pd, %edi
	mov $0x83, %eax
3:	mov %eax, (%edi)
	add $8, %edi
	add $0x200000, %eax
	loop 3b

	lgdt boot_gdtr
	mov $0x20, %eax
	mov %eax, %cr4
	mov $boot_pml4, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov $0x80010031, %eax
	mov %eax, %cr0
	ljmp $MONITOR_CS64, $boot_long

	.code64
boot_long:
	mov $MONITOR_DS, %eax
	mov %eax, %ss
	mov %eax, %ds
	mov %eax, %es
	mov %ebp, %edi
	mov %esi, %esi
	xor %ebp, %ebp
	call guest_main
4:	cli
	hlt
	jmp 4b

/* Among the code: 32-bit paging reaches it there, however long the case table is. */
	.section .text.entry
	.balign 16
	.global monitor_gdt
monitor_gdt:
	.quad 0
	.quad 0x00af9b000000ffff        /* MONITOR_CS64 */
	.quad 0x00cf93000000ffff        /* MONITOR_DS */
	.quad 0x00009b020000ffff        /* MONITOR_CS16, base TRAMPOLINE */
	.quad 0x000093000000ffff        /* MONITOR_DS16 */
	.quad 0x00008b0000000067        /* MONITOR_TSS, base 0; busy at rest */
	.quad 0
	.quad 0x00cf9b000000ffff        /* MONITOR_CS32 */
monitor_gdt_end:
boot_gdtr:
	.word monitor_gdt_end - monitor_gdt - 1
	.quad monitor_gdt
	.global monitor_gdt_limit
monitor_gdt_limit:
	.word monitor_gdt_end - monitor_gdt - 1

	.section .bss
	.balign 4096

boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096
	.skip 32768
boot_stack_top:

	.section .note.GNU-stack, "", @progbits
