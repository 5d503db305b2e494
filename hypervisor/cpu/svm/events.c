/* events.c: exceptions and interrupts of a guest, the global interrupt flag, virtual interrupts (APM 2 15.12
 * to 15.21). */
#include "cpu/checks.h"
#include "cpu/events.h"
#include "cpu/insn.h"
#include "cpu/svm/svm.h"
#include "cpu/control.h"
#include "x86/msr.h"

/* ---- EXITINTINFO, EVENTINJ ---- */

static enum svm_event_type event_type(const struct event *event)
{
	switch (event->kind) {
	case EVENT_EXTERNAL_INTERRUPT: return SVM_EVENT_INTR;
	case EVENT_NMI: return SVM_EVENT_NMI;
	case EVENT_SOFTWARE_INTERRUPT: return SVM_EVENT_SOFTWARE;
	default: return SVM_EVENT_EXCEPTION; /* INT1, INT3 and INTO too (15.7.2) */
	}
}

uint64_t svm_exit_int_info(const struct event *event)
{
	uint64_t info = event->vector | (uint64_t)event_type(event) << SVM_EVENT_TYPE_SHIFT | SVM_EVENT_VALID;

	if (event->has_error_code)
		info |= SVM_EVENT_ERROR_VALID | (uint64_t)event->error_code << 32;
	return info;
}

/* Exceptions of AMD processors (8.2); 2, 9, 15, 20, 22 to 27, 31 and beyond are none. */
#define EXCEPTIONS                                                                                           \
	(1u << VECTOR_DE | 1u << VECTOR_DB | 1u << VECTOR_BP | 1u << VECTOR_OF | 1u << VECTOR_BR |           \
	 1u << VECTOR_UD | 1u << VECTOR_NM | 1u << VECTOR_DF | 1u << VECTOR_TS | 1u << VECTOR_NP |           \
	 1u << VECTOR_SS | 1u << VECTOR_GP | 1u << VECTOR_PF | 1u << VECTOR_MF | 1u << VECTOR_AC |           \
	 1u << VECTOR_MC | 1u << VECTOR_XM | 1u << VECTOR_CP | 1u << VECTOR_HV | 1u << VECTOR_VC |           \
	 1u << VECTOR_SX)

/* BOUND and INTO are no instructions of 64-bit mode (15.20). */
static bool exception_possible(const struct cpu *cpu, unsigned vector)
{
	if (CHECK(INJECT_VECTOR, vector > 31 || !(EXCEPTIONS >> vector & 1)))
		return false;
	return !CHECK(INJECT_MODE, cpu_64bit(cpu) && (vector == VECTOR_BR || vector == VECTOR_OF));
}

/* #DB leaves DR6 as the hypervisor has set it, as INT1 does; #BP and #OF are those of INT3 and INTO (15.20).
 */
static enum event_kind exception_kind(unsigned vector)
{
	if (vector == VECTOR_DB)
		return EVENT_PRIVILEGED_SOFTWARE_EXCEPTION;
	return vector == VECTOR_BP || vector == VECTOR_OF ? EVENT_SOFTWARE_EXCEPTION : EVENT_FAULT;
}

bool svm_parse_injection(const struct cpu *cpu, uint64_t eventinj, uint64_t next_rip, struct event *event)
{
	unsigned vector = eventinj & SVM_EVENT_VECTOR;
	bool soft;

	*event = (struct event){.kind = EVENT_NONE, .vector = (uint8_t)vector, .return_rip = cpu->rip};
	if (!(eventinj & SVM_EVENT_VALID))
		return true;
	switch (eventinj >> SVM_EVENT_TYPE_SHIFT & 7) {
	case SVM_EVENT_INTR: event->kind = EVENT_EXTERNAL_INTERRUPT; break;
	case SVM_EVENT_NMI:
		event->kind = EVENT_NMI;
		event->vector = VECTOR_NMI; /* the field is ignored */
		break;
	case SVM_EVENT_EXCEPTION:
		event->kind = exception_kind(vector);
		if (!exception_possible(cpu, vector))
			return false;
		break;
	case SVM_EVENT_SOFTWARE: event->kind = EVENT_SOFTWARE_INTERRUPT; break;
	default: return false;
	}
	soft = event->kind == EVENT_SOFTWARE_INTERRUPT || event->kind == EVENT_SOFTWARE_EXCEPTION;
	if (soft && cpu_has(cpu, FEATURE_svm_nrips))
		event->return_rip = next_rip;
	if (event_type(event) == SVM_EVENT_EXCEPTION && eventinj & SVM_EVENT_ERROR_VALID) {
		event->has_error_code = true;
		event->error_code = (uint32_t)(eventinj >> 32);
	}
	return true;
}

/* ---- exceptions (15.12) ---- */

/* INTn and INT1 are no exceptions here; interrupts are looked at before they are delivered. */
static bool is_exception(const struct event *event)
{
	return event->kind == EVENT_FAULT || event->kind == EVENT_TRAP ||
	       event->kind == EVENT_SOFTWARE_EXCEPTION;
}

/* RIP behind INT3, INTO and BOUND (15.7.1). */
static uint64_t exception_next_rip(const struct cpu *cpu, const struct event *event)
{
	if (event->kind == EVENT_SOFTWARE_EXCEPTION)
		return event->return_rip;
	return event->kind == EVENT_FAULT && event->vector == VECTOR_BR ? cpu->left_next_rip : 0;
}

/* The bytes of data page faults; those of fetches are not there to be had. */
static bool is_data_page_fault(const struct event *event)
{
	return event->vector == VECTOR_PF && !(event->error_code & PF_I);
}

bool svm_take_exception(struct cpu *cpu, struct event *event)
{
	struct svm_exit_info info = {.code = SVM_EXIT_EXCEPTION + event->vector};

	if (!is_exception(event) || event->vector > 31 || !svm_intercepts(cpu, info.code))
		return false;
	if (event->vector == VECTOR_DB) /* DR6 and DR7 are written before the intercept (15.12.2) */
		event_note_debug(cpu, event);
	if (event->has_error_code)
		info.info1 = event->error_code;
	if (event->vector == VECTOR_PF)
		info.info2 = cpu->fault_address;
	info.next_rip = exception_next_rip(cpu, event);
	/* Where a fault was found behind the change of code that its instruction made, the guest is there. */
	if (event->kind == EVENT_FAULT)
		cpu->rip = event->return_rip;
	if (CHECK(SVM_FETCHED_DATA, is_data_page_fault(event)))
		svm_fetch_bytes(cpu, info.fetched);
	svm_exit(cpu, &info);
	return true;
}

bool svm_take_shutdown(struct cpu *cpu)
{
	struct svm_exit_info info = {.code = SVM_EXIT_SHUTDOWN};

	if (!svm_intercepts(cpu, SVM_EXIT_SHUTDOWN))
		return false;
	svm_exit(cpu, &info);
	return true;
}

/* ---- physical interrupts (15.13, 15.21) ---- */

/* An SMI from outside says so in EXITINFO1; HWCR.SMMLOCK switches its intercept off (15.13.3). */
bool svm_take_interrupt(struct cpu *cpu, enum svm_exit code)
{
	struct svm_exit_info info = {.code = code, .info1 = code == SVM_EXIT_SMI};

	if (!svm_intercepts(cpu, code))
		return false;
	if (CHECK(SVM_SMM_LOCK, code == SVM_EXIT_SMI && cpu->msr.hwcr & HWCR_SMM_LOCK))
		return false;
	svm_exit(cpu, &info);
	return true;
}

bool svm_interrupts_open(const struct cpu *cpu)
{
	bool own = svm_guest(cpu) && cpu->msr.svm_interrupt & SVM_V_INTR_MASKING;

	if (CHECK(SVM_GIF, !svm_gif(cpu)))
		return false;
	if (CHECK(SVM_V_INTR_MASKING, own))
		return cpu->msr.svm_host_if;
	return cpu->rflags & RFLAGS_IF;
}

/* ---- virtual interrupts ---- */

/* GIF, and the virtual one where the guest has it (15.33). */
static bool virtual_gif(const struct cpu *cpu)
{
	uint64_t v = cpu->msr.svm_interrupt;

	if (!svm_gif(cpu))
		return false;
	return !CHECK(SVM_VGIF, v & SVM_V_GIF_ENABLE && !(v & SVM_V_GIF));
}

static bool virtual_nmi_pending(const struct cpu *cpu)
{
	uint64_t v = cpu->msr.svm_interrupt;

	if (!(v & SVM_V_NMI_ENABLE) || !(v & SVM_V_NMI) || !virtual_gif(cpu))
		return false;
	return !CHECK(SVM_V_NMI_MASK, v & SVM_V_NMI_MASK);
}

static bool virtual_interrupt_pending(const struct cpu *cpu)
{
	uint64_t v = cpu->msr.svm_interrupt;

	if (!(v & SVM_V_IRQ) || !(cpu->rflags & RFLAGS_IF) || !virtual_gif(cpu))
		return false;
	if (CHECK(SVM_V_IGN_TPR, v & SVM_V_IGN_TPR))
		return true;
	return !CHECK(SVM_V_TPR, SVM_V_PRIORITY(v) <= (v & SVM_V_TPR));
}

bool svm_virtual_pending(const struct cpu *cpu)
{
	return virtual_nmi_pending(cpu) || virtual_interrupt_pending(cpu);
}

bool svm_take_virtual(struct cpu *cpu, struct event *event)
{
	struct svm_exit_info info = {.code = SVM_EXIT_VINTR};

	*event = (struct event){.kind = EVENT_NONE, .return_rip = cpu->rip};
	if (CHECK(SVM_VIRTUAL_SHADOW, cpu->shadow != SHADOW_NONE))
		return false;
	if (virtual_nmi_pending(cpu)) {
		if (CHECK(SVM_V_NMI_TAKEN, true))
			cpu->msr.svm_interrupt = (cpu->msr.svm_interrupt & ~SVM_V_NMI) | SVM_V_NMI_MASK;
		event->kind = EVENT_NMI;
		event->vector = VECTOR_NMI;
		return true;
	}
	if (!virtual_interrupt_pending(cpu))
		return false;
	if (svm_intercepts(cpu, SVM_EXIT_VINTR)) {
		svm_exit(cpu, &info);
		return true;
	}
	if (CHECK(SVM_V_IRQ_TAKEN, true))
		cpu->msr.svm_interrupt &= ~SVM_V_IRQ;
	event->kind = EVENT_EXTERNAL_INTERRUPT;
	event->vector = SVM_V_VECTOR(cpu->msr.svm_interrupt);
	return true;
}

void svm_iret_done(struct cpu *cpu)
{
	if (CHECK(SVM_V_NMI_IRET, cpu->msr.svm_interrupt & SVM_V_NMI_ENABLE))
		cpu->msr.svm_interrupt &= ~SVM_V_NMI_MASK;
}

/* ---- TPR, GIF, TSC ---- */

uint64_t svm_read_cr8(const struct cpu *cpu)
{
	bool own = CHECK(SVM_V_TPR_READ, cpu->msr.svm_interrupt & SVM_V_INTR_MASKING);

	return own ? cpu->msr.svm_interrupt & SVM_V_TPR : cpu->cr8;
}

bool svm_write_cr8(struct cpu *cpu, uint64_t value)
{
	cpu->msr.svm_interrupt = (cpu->msr.svm_interrupt & ~0xffull) | (value & SVM_V_TPR);
	return CHECK(SVM_V_TPR_WRITE, cpu->msr.svm_interrupt & SVM_V_INTR_MASKING);
}

void svm_set_gif(struct cpu *cpu, bool gif)
{
	uint64_t *v = &cpu->msr.svm_interrupt;

	if (svm_guest(cpu) && CHECK(SVM_VGIF_WRITE, *v & SVM_V_GIF_ENABLE))
		*v = gif ? *v | SVM_V_GIF : *v & ~SVM_V_GIF;
	else
		cpu->msr.svm_gif_clear = !gif;
}

/* The ratio has 32 bits behind the point (15.30.5). */
static uint64_t scaled(const struct cpu *cpu, uint64_t value)
{
	return (uint64_t)((unsigned __int128)value * cpu->msr.svm_tsc_ratio >> 32);
}

uint64_t svm_tsc(const struct cpu *cpu, uint64_t tsc)
{
	if (CHECK(SVM_TSC_RATIO, cpu_has(cpu, FEATURE_svm_tsc_rate)))
		tsc = scaled(cpu, tsc);
	return CHECK(SVM_TSC_OFFSET, true) ? tsc + cpu->msr.svm_tsc_offset : tsc;
}

uint64_t svm_mperf(const struct cpu *cpu, uint64_t mperf)
{
	return CHECK(SVM_MPERF_RATIO, cpu_has(cpu, FEATURE_svm_tsc_rate)) ? scaled(cpu, mperf) : mperf;
}
