/* simd.c: MXCSR and SIMD floating-point exceptions; see simd.h. */
#include "cpu/simd.h"

#include "cpu/x87.h"

#define MXCSR_PRE (MXCSR_IE | MXCSR_DE | MXCSR_ZE) /* found before the computation (SDM 1 11.5.1) */
#define MXCSR_HOST 0x1f80u

static uint32_t host_get(void) { return __builtin_ia32_stmxcsr(); }
static void host_set(uint32_t value) { __builtin_ia32_ldmxcsr(value); }

/* FZ has no effect while underflow is unmasked (SDM 1 11.2.3.3). MM is no business of the host. */
static uint32_t for_host(const struct cpu *cpu)
{
	uint32_t value = (cpu->mxcsr & 0xffffu & ~MXCSR_FLAGS) | MXCSR_MASKS;
	if (!(cpu->mxcsr & (MXCSR_UE << 7)))
		value &= ~(uint32_t)MXCSR_FZ;
	return value;
}

void mxcsr_load(struct cpu *cpu) { host_set(for_host(cpu)); }

void mxcsr_collect(struct cpu *cpu)
{
	if (mxcsr_all_masked(cpu))
		cpu->mxcsr |= host_get() & MXCSR_FLAGS;
}

void mxcsr_unload(struct cpu *cpu)
{
	mxcsr_collect(cpu);
	host_set(MXCSR_HOST);
}

void simd_begin(struct cpu *cpu) { host_set(for_host(cpu)); }

static bool tiny32(uint32_t bits) { return !(bits & 0x7f800000u) && (bits & 0x7fffffu); }
static bool tiny64(uint64_t bits) { return !(bits & 0x7ff0000000000000u) && (bits & 0xfffffffffffffu); }

/* With underflow unmasked, an exact tiny result signals as well (SDM 1 4.9.1.5). */
static bool result_is_tiny(const xmm_t *result, enum simd_result kind)
{
	switch (kind) {
	case RESULT_SS: return tiny32(result->u32[0]);
	case RESULT_PS:
		return tiny32(result->u32[0]) || tiny32(result->u32[1]) || tiny32(result->u32[2]) ||
		       tiny32(result->u32[3]);
	case RESULT_SD: return tiny64(result->u64[0]);
	case RESULT_PD: return tiny64(result->u64[0]) || tiny64(result->u64[1]);
	default: return false;
	}
}

static bool any_is_tiny(const xmm_t *results, unsigned count, enum simd_result kind)
{
	for (unsigned i = 0; i < count; i++)
		if (result_is_tiny(&results[i], kind))
			return true;
	return false;
}

void simd_end(struct cpu *cpu, const xmm_t *results, unsigned count, enum simd_result kind)
{
	uint32_t flags = host_get() & MXCSR_FLAGS;
	uint32_t unmasked = ~(cpu->mxcsr >> 7) & MXCSR_FLAGS;
	if ((unmasked & MXCSR_UE) && any_is_tiny(results, count, kind))
		flags |= MXCSR_UE;
	if (flags & unmasked & MXCSR_PRE)
		flags &= MXCSR_PRE;
	cpu->mxcsr |= flags;
	mxcsr_load(cpu);
	if (flags & unmasked)
		cpu_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD, 0);
}

void mmx_check(struct cpu *cpu) { x87_check_pending(cpu); }

void mmx_use(struct cpu *cpu)
{
	cpu->fsw &= (uint16_t)~X87_TOP;
	cpu->ftw = 0;
}
