/* svm.c: VMRUN VMLOAD VMSAVE VMMCALL STGI CLGI INVLPGA SKINIT (APM 3 chapter 4; APM 2 15.5, 15.16 to 15.18).
 */
#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/insn/operand.h"
#include "cpu/mem/phys_internal.h"
#include "cpu/mem/walk.h"
#include "cpu/segment.h"
#include "cpu/svm/svm.h"
#include "x86/msr.h"

/* rAX as a physical address of a page: #GP where it is none. */
static uint64_t vmcb_operand(struct cpu *cpu, const struct insn *insn)
{
	uint64_t vmcb = cpu->reg[RAX] << insn->address_shift >> insn->address_shift;

	if (CHECK(SVM_VMCB_ALIGNED, vmcb & 0xfff))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (CHECK(SVM_VMCB_WIDTH, vmcb & ~cpu->physical_mask))
		cpu_raise(cpu, VECTOR_GP, 0);
	return vmcb & cpu->physical_mask & ~0xfffull;
}

static inline void vmrun(struct cpu *cpu, const struct insn *insn)
{
	uint64_t vmcb = vmcb_operand(cpu, insn);

	svm_check_handler(cpu, insn);
	svm_enter(cpu, vmcb);
}
DEFINE_INSN(vmrun)

/*
 * Virtual VMLOAD and VMSAVE (15.33.1): the VMCB is in guest-physical memory. That they are on counts only where the
 * hypervisor is in 64-bit mode and nested paging is on; the guest's own mode does not matter. Else they exit.
 */
static uint64_t virtual_vmcb(struct cpu *cpu, const struct insn *insn, uint64_t vmcb, unsigned access)
{
	struct svm_nested nested;
	struct svm_exit_info info = {.code = opcode_table[insn->opcode].svm - 1,
				     .next_rip = cpu_next_rip(cpu)};

	if (!svm_guest(cpu) || !CHECK(SVM_VLS, cpu->msr.svm_virtual & SVM_VLS_ENABLE))
		return vmcb;
	if (CHECK(SVM_VLS_MODE, !svm_host_64bit(cpu) || !svm_nested_paging(cpu)))
		svm_exit_insn(cpu, &info);
	if (!svm_nested_walk(cpu, vmcb, access, &nested))
		svm_nested_fault(cpu, nested.error | SVM_NPF_FINAL, vmcb);
	return nested.physical;
}

static inline void vmload(struct cpu *cpu, const struct insn *insn)
{
	uint64_t vmcb = vmcb_operand(cpu, insn);

	svm_check_handler(cpu, insn);
	svm_load(cpu, virtual_vmcb(cpu, insn, vmcb, ACCESS_READ));
}
DEFINE_INSN(vmload)

static inline void vmsave(struct cpu *cpu, const struct insn *insn)
{
	uint64_t vmcb = vmcb_operand(cpu, insn);

	svm_check_handler(cpu, insn);
	svm_save(cpu, virtual_vmcb(cpu, insn, vmcb, ACCESS_WRITE));
}
DEFINE_INSN(vmsave)

/* What is not intercepted is #UD (15.18). */
static inline void vmmcall(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (CHECK(SVM_VMMCALL, true))
		cpu_raise(cpu, VECTOR_UD, 0);
}
DEFINE_INSN(vmmcall)

static inline void stgi(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	svm_set_gif(cpu, true);
}
DEFINE_INSN(stgi)

static inline void clgi(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	svm_set_gif(cpu, false);
}
DEFINE_INSN(clgi)

/* The page of rAX in the address space of ECX, 0 being the host's; globals too. A guest names its host's
 * ASIDs. */
static inline void invlpga(struct cpu *cpu, const struct insn *insn)
{
	uint64_t linear = cpu->reg[RAX] << insn->address_shift >> insn->address_shift;

	if (CHECK(TLB_INVLPGA, !cpu_64bit(cpu) || linear_is_canonical(cpu, linear)))
		tlb_flush_spaces_page(cpu, (uint32_t)cpu->reg[RCX], ~0ull, linear);
}
DEFINE_INSN(invlpga)

/* ---- SKINIT (15.27) ---- */

static struct segment loader_segment(uint16_t selector, uint32_t attributes)
{
	return (struct segment){.selector = selector,
				.limit = 0xffffffff,
				.attributes = attributes | SEG_P | SEG_S | SEG_DB | SEG_G | SEG_ACCESSED};
}

/*
 * The secure loader's 64 KiB at EAX: its first word is where it begins. That its image goes to a TPM and that
 * devices are kept out of it cannot be seen from here: there is no TPM, and no device masters the bus on its
 * own.
 */
static inline void skinit(struct cpu *cpu, const struct insn *insn)
{
	uint32_t base = (uint32_t)cpu->reg[RAX] & 0xffff0000u;
	uint64_t retired = cpu_retired(cpu) + 1;

	(void)insn;
	cpu_reset(cpu, true);
	cpu->retired = retired;
	cpu->cr0 |= CR0_PE;
	cpu->segment[CS].s = loader_segment(8, SEG_CODE | SEG_READABLE);
	cpu->segment[SS].s = loader_segment(16, SEG_WRITABLE);
	cpu->reg[RAX] = base;
	cpu->reg[RSP] = base + 0x10000u;
	cpu->msr.vm_cr |= VM_CR_DPD | VM_CR_R_INIT | VM_CR_DIS_A20M;
	cpu->msr.svm_gif_clear = true;
	cpu->rip = (uint32_t)(base + physical_read(cpu, base, 2));
	segment_derive_all(cpu);
	cpu_mode_changed(cpu);
	cpu_switch(cpu);
}
DEFINE_INSN(skinit)
