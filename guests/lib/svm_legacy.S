/*
 * svm_legacy.S: VMRUN from a host in 32-bit protected mode, without paging or with the page tables of the row, and
 * back to the monitor (APM 2 15.5.1, 15.25.3). All is below 4 GiB.
 *
 * void svm_switch_legacy(uint32_t vmcb, uint32_t host, struct svm_registers *registers, const uint32_t cr[3])
 * @cr: CR0, CR3 and CR4 of that host. VMLOAD and VMSAVE are done here too. GIF is 0 behind it.
 */
#include "lib/exchange.h"
#include "lib/legacy_host.h"

	.section .text.entry, "ax"
	.global svm_switch_legacy, svm_legacy_cr

	.code64
svm_switch_legacy:
	push_callee_saved
	mov %rsp, legacy_rsp
	mov %edi, legacy_vmcb
	mov %esi, legacy_host
	mov %edx, legacy_registers
	mov %ecx, legacy_control
	clgi
	mov %rsi, %rax
	vmsave %rax
	ljmp *legacy_pointer

legacy_host_32:
	legacy_host_begin legacy_stack, legacy_control
	mov legacy_vmcb, %eax
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
	legacy_host_end legacy_rsp
	mov legacy_host, %eax
	vmload %rax
	pop_callee_saved
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
