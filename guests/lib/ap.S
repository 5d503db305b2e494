/*
 * ap.S: what another processor runs from SIPI to ap_main(number): copied to a page below 1 MiB, whose segment
 * CS is. Real mode, then straight to 64-bit mode with the monitor's GDT and page tables.
 */
#include "lib/exchange.h"

#define STACK_SIZE 8192
#define CPUS_MAX 8

	.section .rodata
	.global ap_start, ap_end
	.balign 16
	.code16
ap_start:
	cli
	lgdtl %cs:ap_gdtr - ap_start
	mov %cr0, %eax
	or $1, %al
	and $0x9fffffff, %eax
	mov %eax, %cr0
	ljmpl $MONITOR_CS32, $ap_protected

	.balign 8
ap_gdtr:
	.word 0x3f
	.long monitor_gdt
ap_end:

	.section .text.entry, "ax"
	.code32
ap_protected:
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $0x20, %eax
	mov %eax, %cr4
	mov EX_MONITOR_CR3, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov EX_MONITOR_CR0, %eax
	mov %eax, %cr0
	ljmp $MONITOR_CS64, $ap_long

	.code64
ap_long:
	mov $1, %edi
	lock xadd %edi, ap_count
	inc %edi
	cmp $CPUS_MAX, %edi
	jae 1f
	mov %edi, %eax
	inc %eax
	imul $STACK_SIZE, %eax, %eax
	lea ap_stacks(%rax), %rsp
	call ap_main
1:	cli
	hlt
	jmp 1b

	.section .note.GNU-stack, "", @progbits
