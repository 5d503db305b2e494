/*
 * svm_legacy.S: VMRUN from a host in 32-bit protected mode, without paging or with the page tables of the row, and
 * back to the monitor (APM 2 15.5.1, 15.25.3). All is below 4 GiB.
 *
 * void svm_switch_legacy(uint32_t vmcb, uint32_t host, struct svm_registers *registers, const uint32_t cr[3])
 * @cr: CR0, CR3 and CR4 of that host. VMLOAD and VMSAVE are done here too. GIF is 0 behind it.
 */
#include "lib/exchange.h"

	.section .text.entry, "ax"
	.global svm_switch_legacy, svm_legacy_cr

	.code64
svm_switch_legacy:
	push %rbx
	push %rbp
	push %r12
	push %r13
	push %r14
	push %r15
	pushfq
	mov %rsp, legacy_rsp
	mov %edi, legacy_vmcb
	mov %esi, legacy_host
	mov %edx, legacy_registers
	mov %ecx, legacy_control
	clgi
	mov %rsi, %rax
	vmsave %rax
	ljmp *legacy_pointer

	.code32
legacy_host_32:
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $legacy_stack, %esp
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov $MSR_EFER, %ecx
	rdmsr
	and $~0x100, %eax
	wrmsr
	mov legacy_control, %esi
	mov 8(%esi), %eax
	mov %eax, %cr4
	mov 4(%esi), %eax
	mov %eax, %cr3
	mov (%esi), %eax
	mov %eax, %cr0
	jmp 1f
1:	mov legacy_vmcb, %eax
	vmload %eax
	mov legacy_registers, %edi
	mov 0x00(%edi), %ecx
	mov 0x08(%edi), %edx
	mov 0x10(%edi), %ebx
	mov 0x18(%edi), %ebp
	mov 0x20(%edi), %esi
	mov 0x28(%edi), %edi
	vmrun %eax
	vmsave %eax
	mov legacy_registers, %eax
	mov %ecx, 0x00(%eax)
	mov %edx, 0x08(%eax)
	mov %ebx, 0x10(%eax)
	mov %ebp, 0x18(%eax)
	mov %esi, 0x20(%eax)
	mov %edi, 0x28(%eax)
	/* What this host has now, which #VMEXIT had to bring back. */
	mov %cr0, %eax
	mov %eax, svm_legacy_cr
	mov %cr3, %eax
	mov %eax, svm_legacy_cr + 4
	mov %cr4, %eax
	mov %eax, svm_legacy_cr + 8
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0
	mov EX_MONITOR_CR4, %eax
	mov %eax, %cr4
	mov EX_MONITOR_CR3, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov EX_MONITOR_CR0, %eax
	mov %eax, %cr0
	ljmp $MONITOR_CS64, $legacy_back

	.code64
legacy_back:
	mov $MONITOR_DS, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov legacy_rsp, %rsp
	mov legacy_host, %eax
	vmload %rax
	popfq
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbp
	pop %rbx
	ret

	.balign 8
legacy_pointer:
	.long legacy_host_32
	.short MONITOR_CS32

	.section .bss
	.balign 16
	.skip 512
legacy_stack:
legacy_rsp:
	.skip 8
legacy_vmcb:
	.skip 4
legacy_host:
	.skip 4
legacy_registers:
	.skip 4
legacy_control:
	.skip 4
svm_legacy_cr:
	.skip 12

	.section .note.GNU-stack, "", @progbits
