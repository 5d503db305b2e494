/*
 * vendor_state.h: the state of a vCPU whose guest was told of a processor of one vendor, and which runs on
 * one of the other. Between engines it has the form of the vendor that the guest knows; what the other does
 * not have must be as after RESET, and stays so.
 */
#ifndef TRAPLINE_ENGINE_VENDOR_STATE_H
#define TRAPLINE_ENGINE_VENDOR_STATE_H

#include <stdbool.h>

#include "x86/vcpu_state.h"

/*
 * Makes of a state of an AMD processor (@to_amd: of Intel's) one of the other vendor's. Returns NULL, or the
 * name of a field that the other does not have and that is not as after RESET; @state is as it was then.
 */
const char *vendor_state_convert(struct vcpu_state *state, bool to_amd);

#endif
