/*
 * hw.h: all that the core wants of the hardware and of what it is built into.
 *
 * A link seam: guests/l1 has these as instructions on bare metal, the kernel module as the kernel's own, and
 * a unit test drives the software CPU. Nothing here is called through a pointer. All of it concerns the
 * processor that calls. Physical addresses are uint64_t, the core's own addresses are pointers.
 */
#ifndef TRAPLINE_KMOD_CORE_HW_H
#define TRAPLINE_KMOD_CORE_HW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/registers.h"

/* ---- memory ---- */

/* @count pages of zeros, one behind the other, that the guest cannot reach, for good; NULL where none are
 * left. */
void *hw_pages(unsigned count);
/* The physical address of what hw_pages() gave. */
uint64_t hw_physical(const void *page);
/* A whole page, or zeros to one. */
void hw_copy_page(void *to, const void *from);
void hw_clear_page(void *page);
/* @physical for reading and writing: guest memory, or a page of device registers. Valid within that page. */
void *hw_map(uint64_t physical);

/* ---- registers ---- */

void hw_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t hw_read_msr(uint32_t index);
void hw_write_msr(uint32_t index, uint64_t value);
/* The same where the processor may refuse by #GP: false then, and nothing has changed. */
bool hw_try_read_msr(uint32_t index, uint64_t *value);
bool hw_try_write_msr(uint32_t index, uint64_t value);
uint64_t hw_dr6(void);
void hw_set_dr6(uint64_t value);
/* XSETBV; false: #GP. CR4.OSXSAVE is 1. */
bool hw_try_xsetbv(uint32_t index, uint64_t value);
void hw_wbinvd(void);
/* PKRU, which the processor has, whatever CR4.PKE is now. */
uint32_t hw_pkru(void);
uint64_t hw_read_cr(unsigned number);
void hw_write_cr(unsigned number, uint64_t value);

/* ---- other processors, and the world ---- */

void hw_pause(void);
/* A line of the report, without its newline. Whole lines of several processors do not mix. */
void hw_print(const char *line);
/* The guest has shut its processor down: the hypervisor's own does so. */
_Noreturn void hw_shutdown(void);
/* The core cannot go on; @why and @value tell the reader what it met. */
_Noreturn void hw_stop(const char *why, uint64_t value);

/* ---- AMD-V (APM 2 chapter 15) ---- */

/*
 * VMRUN of the VMCB at @vmcb until its #VMEXIT, with GIF = 0 before and after. @gpr: the guest's registers
 * but RAX and RSP, which are in the VMCB. @interrupts: RFLAGS.IF at VMRUN, which masks physical interrupts
 * where the VMCB has V_INTR_MASKING. FS, GS, LDTR, TR and the MSRs of VMLOAD are the guest's all the time;
 * what needs its own saves and loads them within.
 */
void hw_svm_run(uint64_t vmcb, uint64_t gpr[GPR_COUNT], bool interrupts);
void hw_svm_load(uint64_t vmcb); /* VMLOAD */
void hw_svm_save(uint64_t vmcb); /* VMSAVE */
void hw_svm_clgi(void);
/* Lets an NMI that is pending come, and says whether one has (GIF = 1 for a moment; interrupts stay masked).
 */
bool hw_svm_take_nmi(void);

/* ---- VT-x (SDM 3C chapters 24 to 31) ---- */

/* VMsucceed, VMfailValid, VMfailInvalid; there was no entry, since an NMI has come. */
enum hw_vmx { HW_VMX_DONE, HW_VMX_FAIL_VALID, HW_VMX_FAIL_INVALID, HW_VMX_NMI };

enum hw_vmx hw_vmx_on(uint64_t region); /* VMXON; CR0 and CR4 are as the capability MSRs want them */
enum hw_vmx hw_vmx_clear(uint64_t vmcs);
enum hw_vmx hw_vmx_load(uint64_t vmcs); /* VMPTRLD */
enum hw_vmx hw_vmx_read(uint64_t field, uint64_t *value);
enum hw_vmx hw_vmx_write(uint64_t field, uint64_t value);
enum hw_vmx hw_vmx_invept(uint64_t type, uint64_t eptp);
enum hw_vmx hw_vmx_invvpid(uint64_t type, uint16_t vpid, uint64_t linear);
/*
 * VMLAUNCH or VMRESUME of the current VMCS until its exit: HW_VMX_DONE; HW_VMX_NMI; else the instruction
 * failed. The host's RSP and RIP in the VMCS are its to write; all calls come from the same depth of
 * core_run()'s stack. @gpr: the guest's registers but RSP.
 */
enum hw_vmx hw_vmx_run(uint64_t gpr[GPR_COUNT], bool launched);
/* Whether an NMI has come to the hypervisor since the last call; it was taken out of the processor's hands.
 */
bool hw_vmx_take_nmi(void);
/* What the host-state area must hold and is the embedder's: selectors, bases and descriptor tables. */
struct hw_vmx_host {
	uint16_t es, cs, ss, ds, fs, gs, tr;
	uint64_t fs_base, gs_base, tr_base, gdtr_base, idtr_base;
};
void hw_vmx_host(struct hw_vmx_host *host);

#endif
