/*
 * vmx_legacy.S: VMX operation in 32-bit protected mode with paging: VMXON, VMPTRLD, VMLAUNCH, VMXOFF, and back to the
 * monitor (SDM 3C 24.7, 27.2.4). All is below 4 GiB. Exits lead to vmx_legacy_exited.
 *
 * uint32_t vmx_switch_legacy(const uint64_t *vmxon, const uint64_t *vmcs, const uint32_t cr[3], uint32_t field)
 * @vmxon, @vmcs: pointers for the two instructions. @cr: CR0, CR3 and CR4. EFLAGS behind VMLAUNCH, or 0 behind an exit;
 * the VMCS's @field is in vmx_legacy_field then.
 */
#include "lib/exchange.h"
#include "lib/legacy_host.h"

	.section .text.entry, "ax"
	.global vmx_switch_legacy, vmx_legacy_exited, vmx_legacy_field, vmx_legacy_stack, vmx_legacy_state

	.code64
vmx_switch_legacy:
	push_callee_saved
	mov %rsp, legacy_rsp
	mov %edi, legacy_vmxon
	mov %esi, legacy_vmcs
	mov %edx, legacy_control
	mov %ecx, legacy_wanted
	ljmp *legacy_pointer

legacy_host_32:
	legacy_host_begin vmx_legacy_stack, legacy_control
	mov legacy_vmxon, %eax
	vmxon (%eax)
	jbe 2f
	mov legacy_vmcs, %eax
	vmptrld (%eax)
	jbe 2f
	vmlaunch
2:	pushfl
	pop %ebx
	jmp 3f

	.balign 16
vmx_legacy_exited:
	mov %esp, vmx_legacy_state + 4
	mov $vmx_legacy_stack, %esp
	pushfl
	pop vmx_legacy_state
	mov %cr0, %eax
	mov %eax, vmx_legacy_state + 8
	mov %cr3, %eax
	mov %eax, vmx_legacy_state + 12
	mov %cr4, %eax
	mov %eax, vmx_legacy_state + 16
	mov %dr7, %eax
	mov %eax, vmx_legacy_state + 20
	mov %cs, %eax
	mov %eax, vmx_legacy_state + 24
	mov %ss, %eax
	mov %eax, vmx_legacy_state + 28
	mov %ds, %eax
	mov %eax, vmx_legacy_state + 32
	mov %es, %eax
	mov %eax, vmx_legacy_state + 36
	str %eax
	mov %eax, vmx_legacy_state + 40
	sldt %eax
	mov %eax, vmx_legacy_state + 44
	mov $MSR_EFER, %ecx
	rdmsr
	mov %eax, vmx_legacy_state + 48
	sgdt vmx_legacy_state + 52
	sidt vmx_legacy_state + 60
	xor %ebx, %ebx
3:	mov legacy_wanted, %eax
	vmread %eax, vmx_legacy_field
	lgdt EX_MONITOR_GDTR
	vmxoff
	legacy_host_end legacy_rsp
	mov %ebx, %eax
	pop_callee_saved
	ret

	.balign 8
legacy_pointer:
	.long legacy_host_32
	.short MONITOR_CS32

	.section .bss
	.balign 16
	.skip 512
vmx_legacy_stack:
legacy_rsp:
	.skip 8
legacy_vmxon:
	.skip 4
legacy_vmcs:
	.skip 4
legacy_control:
	.skip 4
legacy_wanted:
	.skip 4
vmx_legacy_field:
	.skip 4
vmx_legacy_state: /* what the exit loaded: EFLAGS, ESP, CR0, CR3, CR4, DR7, CS, SS, DS, ES, TR, LDTR, EFER, GDTR, IDTR */
	.skip 72

	.section .note.GNU-stack, "", @progbits
