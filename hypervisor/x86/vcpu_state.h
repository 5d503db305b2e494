/*
 * vcpu_state.h: everything that a vCPU is, as every engine can load and save it.
 *
 * The fields are listed once, in vcpu_state.def, with their names; saving, restoring,
 * migrating, dumping and comparing walk that list. Engines translate to and from
 * their own form. Values are as the manuals define the registers; segments carry
 * their hidden parts.
 */
#ifndef TRAPLINE_X86_VCPU_STATE_H
#define TRAPLINE_X86_VCPU_STATE_H

#include <stdint.h>

#include "x86/registers.h"

/* A segment register with its hidden part; attributes as in descriptors.h. */
struct segment {
	uint64_t base;
	uint32_t limit; /* in bytes, scaled */
	uint32_t attributes;
	uint16_t selector;
};

struct table_register {
	uint64_t base;
	uint16_t limit;
};

/* What a vCPU does between two instructions (SDM 3C 25.4.2). */
enum activity { ACTIVITY_ACTIVE, ACTIVITY_HLT, ACTIVITY_SHUTDOWN, ACTIVITY_WAIT_FOR_SIPI, ACTIVITY_MWAIT };

/* Events held off until after the next instruction (SDM 3A 6.8.3, APM 2 15.21.5). */
enum shadow { SHADOW_NONE, SHADOW_STI, SHADOW_MOV_SS };

struct x87_register {
	uint64_t significand;
	uint16_t sign_exponent;
};

struct vcpu_state {
#define VCPU_FIELD(type, name) type name;
#define VCPU_ARRAY(type, name, count) type name[count];
#include "x86/vcpu_state.def"
#undef VCPU_FIELD
#undef VCPU_ARRAY
};

/*
 * Makes the padding inside of @state's structures zero, so that equal states have equal bytes. For engines, at the
 * end of saving into a state that was zero before.
 */
static inline void vcpu_state_clear_padding(struct vcpu_state *state)
{
	struct segment *segments[] = {&state->ldtr, &state->tr};
	struct table_register *tables[] = {&state->gdtr, &state->idtr};

#define CLEAR_BEHIND(object, last)                                                                           \
	__builtin_memset((char *)&(object)->last + sizeof((object)->last), 0,                                \
			 sizeof(*(object)) - __builtin_offsetof(__typeof__(*(object)), last) - sizeof((object)->last))
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		CLEAR_BEHIND(&state->segment[i], selector);
	for (unsigned i = 0; i < 2; i++) {
		CLEAR_BEHIND(segments[i], selector);
		CLEAR_BEHIND(tables[i], limit);
	}
	for (unsigned i = 0; i < 8; i++)
		CLEAR_BEHIND(&state->st[i], sign_exponent);
#undef CLEAR_BEHIND
}

#endif
