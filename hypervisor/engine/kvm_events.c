/*
 * kvm_events.c: what is on its way to a vCPU under kvm, and what only another kvm engine can take: the MSRs
 * and XSAVE components that struct vcpu_state has no field for, and the state of a guest's guest.
 *
 * struct vcpu_state has of the events NMIs, shadows and SMM; all others are struct latches. They are fetched
 * from the device by kvm_latches_fetch(), and put there by kvm_latches_store(), behind kvm_vcpu_load(), which
 * has left none.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "x86/vectors.h"

/* ---- of struct vcpu_state ---- */

static int get_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events)
{
	*events = (struct kvm_vcpu_events){0};
	return kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, events) ? kvm_refused(vcpu, "KVM_GET_VCPU_EVENTS")
								: 0;
}

static int set_events(struct kvm_vcpu *vcpu, struct kvm_vcpu_events *events)
{
	return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, events) ? kvm_refused(vcpu, "KVM_SET_VCPU_EVENTS")
								: 0;
}

/* An NMI that the processor was given is delivered whatever is masked: it has blocked those behind it itself.
 */
int kvm_events_save(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_vcpu_events events;
	int error = get_events(vcpu, &events);

	if (error)
		return error;
	to->nmi_blocked = events.nmi.masked && !events.nmi.injected;
	to->nmi_pending = events.nmi.pending || events.nmi.injected;
	to->smm = events.flags & KVM_VCPUEVENT_VALID_SMM && events.smi.smm;
	if (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
		to->shadow = SHADOW_MOV_SS;
	else
		to->shadow = events.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : SHADOW_NONE;
	return 0;
}

int kvm_events_load(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_vcpu_events events = {.flags =
						 KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
					 .nmi = {.masked = from->nmi_blocked, .pending = from->nmi_pending}};

	if (from->smm && !kvm_engine_of(vcpu)->can.smm) {
		kvm_fail(vcpu, "vCPU %u: it is in system-management mode, which the device does not have",
			 vcpu->vcpu.number);
		return -EINVAL;
	}
	if (kvm_engine_of(vcpu)->can.smm) {
		events.flags |= KVM_VCPUEVENT_VALID_SMM;
		events.smi.smm = from->smm;
		events.smi.smm_inside_nmi = from->smm && from->nmi_blocked;
	}
	if (from->shadow == SHADOW_MOV_SS)
		events.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	else if (from->shadow == SHADOW_STI)
		events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	return set_events(vcpu, &events);
}

/* ---- latches ---- */

/* What a #DB says in DR6, of which all but BLD and RTM are active-high (SDM 3B 18.2.3). */
#define DR6_REASONS (DR6_BS | DR6_BD | DR6_BT | 0xfull)

static void fetch_event(struct latches *to, const struct kvm_vcpu_events *events)
{
	if (events->exception.injected || events->exception.pending) {
		to->event = LATCHED_EXCEPTION;
		to->vector = events->exception.nr;
		to->has_error_code = events->exception.has_error_code;
		to->error_code = events->exception.error_code;
		to->exception_pending = !events->exception.injected;
		to->has_payload =
			events->flags & KVM_VCPUEVENT_VALID_PAYLOAD && events->exception_has_payload;
		to->payload = to->has_payload ? events->exception_payload : 0;
	} else if (events->interrupt.injected) {
		to->event = events->interrupt.soft ? LATCHED_INSTRUCTION : LATCHED_INTERRUPT;
		to->vector = events->interrupt.nr;
	}
}

/* A #DB is what is due for the instruction before. */
static int fetch_debug(struct kvm_vcpu *vcpu, struct latches *to)
{
	struct kvm_debugregs debug = {0};

	if (to->event != LATCHED_EXCEPTION || to->vector != VECTOR_DB)
		return 0;
	if (kvm_ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug))
		return kvm_refused(vcpu, "KVM_GET_DEBUGREGS");
	to->debug_pending = (to->has_payload ? to->payload : debug.dr6) & DR6_REASONS;
	return 0;
}

int kvm_latches_fetch(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_events events;
	int error = get_events(vcpu, &events);

	vcpu->latches = (struct latches){.wait_until = UINT64_MAX};
	if (error)
		return error;
	vcpu->latches.init_pending =
		vcpu->init_pending || (events.flags & KVM_VCPUEVENT_VALID_SMM && events.smi.latched_init);
	vcpu->latches.smi_pending =
		vcpu->smi_pending || (events.flags & KVM_VCPUEVENT_VALID_SMM && events.smi.pending);
	vcpu->latches.nmi_behind = events.nmi.injected + events.nmi.pending > 1;
	fetch_event(&vcpu->latches, &events);
	return fetch_debug(vcpu, &vcpu->latches);
}

static int cannot(struct kvm_vcpu *vcpu, const char *what)
{
	kvm_fail(vcpu, "vCPU %u: %s, which kvm cannot take", vcpu->vcpu.number, what);
	return -EINVAL;
}

static void store_event(const struct latches *from, struct kvm_vcpu_events *events)
{
	switch ((enum latched_event)from->event) {
	case LATCHED_INTERRUPT:
	case LATCHED_INSTRUCTION:
		events->interrupt.injected = 1;
		events->interrupt.soft = from->event == LATCHED_INSTRUCTION;
		events->interrupt.nr = from->vector;
		break;
	case LATCHED_EXCEPTION:
		events->exception.injected = !from->exception_pending;
		events->exception.pending = from->exception_pending;
		events->exception.nr = from->vector;
		events->exception.has_error_code = from->has_error_code;
		events->exception.error_code = from->error_code;
		events->exception_has_payload = from->has_payload;
		events->exception_payload = from->payload;
		break;
	case LATCHED_NONE: break;
	}
}

/* Where the device knows no payload, DR6 is as it shall be behind the #DB already. */
static int store_debug(struct kvm_vcpu *vcpu, const struct latches *from, struct kvm_vcpu_events *events)
{
	struct kvm_debugregs debug = {0};

	if (kvm_ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug))
		return kvm_refused(vcpu, "KVM_GET_DEBUGREGS");
	debug.dr6 = (debug.dr6 & ~0xfull) | from->debug_pending;
	if (kvm_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug))
		return kvm_refused(vcpu, "KVM_SET_DEBUGREGS");
	events->exception.injected = 1;
	events->exception.pending = events->exception_has_payload = 0;
	events->exception.nr = VECTOR_DB;
	return 0;
}

static int check_latches(struct kvm_vcpu *vcpu, const struct latches *from,
			 const struct kvm_vcpu_events *events)
{
	bool payload = kvm_engine_of(vcpu)->can.payload, smm = kvm_engine_of(vcpu)->can.smm;

	if (from->wait_armed)
		return cannot(vcpu, "a monitor is armed");
	if (from->debug_pending && events->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
		return cannot(vcpu, "a #DB is held off by a load of SS");
	if ((from->exception_pending || from->has_payload) && !payload && from->vector != VECTOR_DB)
		return cannot(vcpu, "an exception is pending with its payload");
	if (from->smi_pending && !smm)
		return cannot(vcpu, "an SMI is pending");
	if (from->init_pending && !smm && events->smi.smm)
		return cannot(vcpu, "an INIT is latched in system-management mode");
	if (from->event > LATCHED_EXCEPTION)
		return cannot(vcpu, "an event of no kind is pending");
	return 0;
}

static bool idle(const struct latches *latches)
{
	static const struct latches none = {.wait_until = UINT64_MAX};
	struct latches copy = *latches;

	copy.wait_until = UINT64_MAX; /* says nothing where no monitor is armed and nobody waits */
	copy.wait_masked = copy.wait_carry = 0;
	copy.wait_line = 0;
	return !memcmp(&copy, &none, sizeof(none));
}

/* kvm_vcpu_load() has left the device without any, but for what struct vcpu_state has. */
int kvm_latches_store(struct kvm_vcpu *vcpu)
{
	const struct latches *from = &vcpu->latches;
	struct kvm_vcpu_events events;
	int error;

	if (idle(from))
		return 0;
	error = get_events(vcpu, &events);
	if (!error)
		error = check_latches(vcpu, from, &events);
	if (error)
		return error;
	events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		       (kvm_engine_of(vcpu)->can.payload ? KVM_VCPUEVENT_VALID_PAYLOAD : 0) |
		       (kvm_engine_of(vcpu)->can.smm ? KVM_VCPUEVENT_VALID_SMM : 0);
	events.nmi.pending = (uint8_t)(events.nmi.pending + from->nmi_behind);
	events.smi.pending = from->smi_pending;
	vcpu->init_pending = from->init_pending;
	store_event(from, &events);
	if (from->debug_pending && !(from->has_payload && kvm_engine_of(vcpu)->can.payload))
		error = store_debug(vcpu, from, &events);
	return error ? error : set_events(vcpu, &events);
}

bool kvm_latches_set(const struct kvm_vcpu *vcpu) { return !idle(&vcpu->latches); }

/* ---- what kvm alone has ---- */

#define XSTATE_BV     512u /* offset in the XSAVE area */
#define OURS          (XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_PKRU)
#define NESTED_HEADER sizeof(struct kvm_nested_state)

static uint64_t xstate_bv(const uint8_t *area)
{
	uint64_t bits;

	memcpy(&bits, area + XSTATE_BV, sizeof(bits));
	return bits;
}

/* A vCPU that is not in VMX operation, has GIF = 1 and no guest of its own has nothing to tell. */
static bool nested_idle(const struct kvm_nested_state *nested)
{
	const uint16_t matters = KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING;

	if (nested->size < NESTED_HEADER || nested->flags & matters)
		return nested->size == 0;
	if (nested->format == KVM_STATE_NESTED_FORMAT_VMX)
		return nested->hdr.vmx.vmxon_pa == ~0ull;
	return nested->flags & KVM_STATE_NESTED_GIF_SET;
}

static int fetch_nested(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_state *nested = (struct kvm_nested_state *)vcpu->only.nested;

	memset(vcpu->only.nested, 0, sizeof(vcpu->only.nested));
	if (!kvm_engine_of(vcpu)->can.nested)
		return 0;
	nested->size = sizeof(vcpu->only.nested);
	if (kvm_ioctl(vcpu->fd, KVM_GET_NESTED_STATE, nested))
		return kvm_refused(vcpu, "KVM_GET_NESTED_STATE");
	if (nested_idle(nested))
		memset(vcpu->only.nested, 0, sizeof(vcpu->only.nested));
	return 0;
}

int kvm_only_fetch(struct kvm_vcpu *vcpu)
{
	struct kvm_only *only = &vcpu->only;
	size_t size = kvm_engine_of(vcpu)->can.xsave_size;
	int error = kvm_msrs_get(vcpu, vcpu->remainder.msrs, vcpu->remainder_count);

	if (!error && size > sizeof(only->xsave)) {
		kvm_fail(vcpu, "vCPU %u: an XSAVE area of %zu bytes", vcpu->vcpu.number, size);
		error = -E2BIG;
	}
	if (!error)
		error = kvm_xsave_get(vcpu, only->xsave);
	if (error)
		return error;
	only->msr_count = kvm_remainder_idle(vcpu) ? 0 : vcpu->remainder_count;
	memcpy(only->msr, vcpu->remainder.msrs->entries, only->msr_count * sizeof(only->msr[0]));
	if (!(xstate_bv(only->xsave) & ~(uint64_t)OURS))
		memset(only->xsave, 0, sizeof(only->xsave));
	return fetch_nested(vcpu);
}

bool kvm_only_idle(const void *device)
{
	const struct kvm_only *only = &((const struct kvm_vcpu *)device)->only;

	return !only->msr_count && !xstate_bv(only->xsave) &&
	       !((const struct kvm_nested_state *)only->nested)->size;
}

void kvm_only_clear(void *device)
{
	struct kvm_only *only = &((struct kvm_vcpu *)device)->only;

	only->msr_count = 0;
	memset(only->xsave, 0, sizeof(only->xsave));
	memset(only->nested, 0, sizeof(only->nested));
}

/* A guest's guest comes before what it runs with, which is loaded again. */
static int store_nested(struct kvm_vcpu *vcpu)
{
	struct kvm_nested_state *nested = (struct kvm_nested_state *)vcpu->only.nested;

	if (!nested->size)
		return 0;
	if (!kvm_engine_of(vcpu)->can.nested)
		return cannot(vcpu,
			      "the guest is a hypervisor with a guest (KVM_CAP_NESTED_STATE is missing)");
	if (nested->size > sizeof(vcpu->only.nested))
		return cannot(vcpu, "the state of the guest's guest is too long");
	if (kvm_ioctl(vcpu->fd, KVM_SET_NESTED_STATE, nested))
		return kvm_refused(vcpu, "KVM_SET_NESTED_STATE");
	return kvm_vcpu_load(&vcpu->vcpu, &vcpu->loaded);
}

int kvm_only_store(struct kvm_vcpu *vcpu)
{
	struct kvm_only *only = &vcpu->only;
	int error;

	if (only->msr_count > KVM_MSRS_MAX)
		return cannot(vcpu, "there are too many MSRs");
	error = kvm_remainder_load(vcpu, only->msr, only->msr_count);
	if (!error && xstate_bv(only->xsave))
		error = kvm_xsave_join(vcpu, only->xsave);
	return error ? error : store_nested(vcpu);
}
