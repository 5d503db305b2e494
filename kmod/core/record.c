/* record.c: what exits out of the bytes under test (x86/l1.h). */
#include "kmod/core/core.h"
#include "x86/l1.h"

#define LINE_SIZE 96u

static uint64_t page_of(uint64_t address) { return address & ~(uint64_t)(CORE_PAGE - 1); }

/* The page of the bytes under test, for execution or not. */
static void fence(struct core_vcpu *vcpu, bool on)
{
	struct core_record *record = &vcpu->record;

	if (record->fenced == on)
		return;
	record->fenced = on;
	tables_set(vcpu, record->physical, record->physical,
		   CORE_READ | CORE_WRITE | (on ? 0u : CORE_EXECUTE));
	if (on) /* what is given needs no flush */
		CORE_CALL(vcpu, flush, vcpu);
}

static void arm(struct core_vcpu *vcpu, bool on)
{
	if (vcpu->record.armed == on)
		return;
	vcpu->record.armed = on;
	CORE_CALL(vcpu, arm, vcpu, on);
}

static void end(struct core_vcpu *vcpu)
{
	fence(vcpu, false);
	arm(vcpu, false);
	vcpu->record.physical = 0;
}

static void begin(struct core_vcpu *vcpu, uint64_t physical, uint32_t size)
{
	end(vcpu);
	if (!size || !tables_guests(vcpu->machine, page_of(physical), CORE_PAGE))
		return;
	vcpu->record.physical = physical;
	vcpu->record.size = size;
	fence(vcpu, true);
}

void record_call(struct core_vcpu *vcpu, uint32_t call, uint32_t out[4])
{
	out[0] = out[1] = out[2] = out[3] = 0;
	switch (call) {
	case L1_CALL_IDENTIFY:
		out[0] = L1_SIGNATURE;
		out[1] = vcpu->machine->depth;
		break;
	case L1_CALL_BEGIN: begin(vcpu, (uint32_t)vcpu->gpr[RBX], (uint32_t)vcpu->gpr[RDX]); break;
	case L1_CALL_END: end(vcpu); break;
	default: break;
	}
}

/* ---- the lines ---- */

static char *put_text(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	return to;
}

static char *put_value(char *to, const char *name, uint64_t value)
{
	int shift = 60;

	to = put_text(put_text(to, name), "=0x");
	while (shift && !(value >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		*to++ = "0123456789abcdef"[value >> shift & 15];
	return to;
}

static void tell_armed(const struct core_vcpu *vcpu)
{
	char line[LINE_SIZE];
	char *to = put_text(line, vcpu->machine->vendor == CORE_SVM ? "armed svm" : "armed vmx");
	uint64_t controls = CORE_CALL(vcpu, told_controls, vcpu);

	if (controls)
		to = put_value(to, " controls", controls);
	*to = 0;
	hw_print(line);
}

static void tell(const struct core_vcpu *vcpu, uint64_t at, uint32_t code, uint64_t info1, uint64_t info2)
{
	char line[LINE_SIZE];
	char *to = put_value(line, vcpu->machine->vendor == CORE_SVM ? "exit svm" : "exit vmx", code);

	if (at)
		to = put_value(to, " at", at);
	if (info1)
		to = put_value(to, " info1", info1);
	if (info2)
		to = put_value(to, " info2", info2);
	*to = 0;
	hw_print(line);
}

bool record_reached(struct core_vcpu *vcpu, uint64_t guest)
{
	struct core_record *record = &vcpu->record;

	if (!record->fenced || page_of(guest) != page_of(record->physical))
		return false;
	fence(vcpu, false);
	record->linear = CORE_CALL(vcpu, linear_rip, vcpu);
	tell_armed(vcpu);
	arm(vcpu, true);
	return true;
}

bool record_exit(struct core_vcpu *vcpu, uint32_t code, uint64_t info1, uint64_t info2, bool needed)
{
	struct core_record *record = &vcpu->record;
	uint64_t at;

	if (!record->armed)
		return false;
	at = CORE_CALL(vcpu, linear_rip, vcpu) - record->linear;
	if (at < record->size) {
		tell(vcpu, at, code, info1, info2);
		if (!needed)
			CORE_CALL(vcpu, release, vcpu, code, info1);
	} else {
		arm(vcpu, false);
	}
	return !needed;
}
