/*
 * insn/x87_move.c: x87 loads, stores, exchanges and constants (SDM 2A FLD to FXCH).
 */
#include "cpu/mem/mem.h"
#include "cpu/x87.h"

/* ---- loads: converted on the host, then pushed ---- */

#define HOST_LOAD(name)                                                                                      \
	X87_HOST(cpu, status, "", name " %[source]", "fstpt %[value]", ([value] "=m"(value)), ([source] "m"(source)))

#define X87_LOAD(symbol, name, size)                                                                         \
	static inline void symbol(struct cpu *cpu, const struct insn *insn)                                  \
	{                                                                                                    \
		uint16_t status;                                                                             \
		x87_t value;                                                                                 \
		x87_check_pending(cpu);                                                                      \
		uint64_t source = mem_read(cpu, insn->segment, insn_offset(cpu, insn), size);                \
		x87_remember(cpu, insn);                                                                     \
		if (!x87_is_empty(cpu, 7)) {                                                                 \
			x87_push(cpu, x87_default_nan());                                                    \
			return;                                                                              \
		}                                                                                            \
		HOST_LOAD(name);                                                                             \
		x87_take_flags(cpu, status);                                                                 \
		/* A denormal is loaded also where #D is unmasked: as processors do. */                      \
		if (!(status & ~cpu->fcw & X87_IE))                                                          \
			x87_push(cpu, value);                                                                \
	}                                                                                                    \
	DEFINE_INSN(symbol)
X87_LOAD(x87_fld_m32, "flds", 4)
X87_LOAD(x87_fld_m64, "fldl", 8)
X87_LOAD(x87_fild_m16, "filds", 2)
X87_LOAD(x87_fild_m32, "fildl", 4)
X87_LOAD(x87_fild_m64, "fildq", 8)

static x87_t load_bytes(struct cpu *cpu, const struct insn *insn)
{
	x87_t value = {.bytes = {0}};
	x87_check_pending(cpu);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 10, 1);
	x87_remember(cpu, insn);
	return value;
}

static inline void x87_fld_m80(struct cpu *cpu, const struct insn *insn) { x87_push(cpu, load_bytes(cpu, insn)); }
DEFINE_INSN(x87_fld_m80)

static inline void x87_fbld(struct cpu *cpu, const struct insn *insn)
{
	x87_t source = load_bytes(cpu, insn), value;
	uint16_t status;
	HOST_LOAD("fbld");
	(void)status;
	x87_push(cpu, value);
}
DEFINE_INSN(x87_fbld)

static inline void x87_fld_st(struct cpu *cpu, const struct insn *insn)
{
	unsigned i = insn->modrm & 7;
	x87_begin(cpu, insn);
	if (x87_is_empty(cpu, i)) {
		if (!x87_stack_fault(cpu, false))
			return;
		x87_set_top(cpu, x87_top(cpu) - 1);
		x87_set(cpu, 0, x87_default_nan());
		return;
	}
	x87_push(cpu, x87_get(cpu, i));
}
DEFINE_INSN(x87_fld_st)

/* Constants, rounded by the control word's RC (SDM 2A FLD1). */
#define X87_CONSTANT(name)                                                                                   \
	static inline void x87_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		uint16_t status;                                                                             \
		x87_t value;                                                                                 \
		x87_begin(cpu, insn);                                                                        \
		X87_HOST(cpu, status, "", #name, "fstpt %[value]", ([value] "=m"(value)),                    \
			 ([unused] "m"(cpu->fcw)));                                                          \
		(void)status;                                                                                \
		x87_push(cpu, value);                                                                        \
	}                                                                                                    \
	DEFINE_INSN(x87_##name)
X87_CONSTANT(fld1)
X87_CONSTANT(fldl2t)
X87_CONSTANT(fldl2e)
X87_CONSTANT(fldpi)
X87_CONSTANT(fldlg2)
X87_CONSTANT(fldln2)
X87_CONSTANT(fldz)

/* ---- stores: converted on the host; memory is written before the stack is popped ---- */

/* What an empty register or an invalid operand becomes (SDM 1 4.8.3.7, table 4-1). */
static const uint64_t indefinite_single = 0xffc00000u, indefinite_double = 0xfff8000000000000u;
static const uint64_t indefinite_int16 = 0x8000u, indefinite_int32 = 0x80000000u,
		      indefinite_int64 = 0x8000000000000000u;

/* An unmasked exception found before the store, or a result too large or small for it, stores nothing. */
static bool stores(const struct cpu *cpu, uint16_t status)
{
	return !(status & ~cpu->fcw & (X87_IE | X87_DE | X87_ZE | X87_OE | X87_UE));
}

/* The operand's own faults come first, also where nothing is to be written: #MF waits for the next instruction. */
static void store_bytes(struct cpu *cpu, const struct insn *insn, const void *image, unsigned bytes, bool take_effect)
{
	uint64_t offset = insn_offset(cpu, insn);

	if (take_effect)
		mem_write_bytes(cpu, insn->segment, offset, image, bytes, 1);
	else
		mem_check_write(cpu, insn->segment, offset, bytes);
}

/* Writes @bytes of @image, takes the flags, pops. The write comes first: it may fault. */
static void store_image(struct cpu *cpu, const struct insn *insn, const void *image, unsigned bytes, uint16_t status,
			bool pop)
{
	bool take_effect = stores(cpu, status);
	/* An unmasked overflow or underflow rounds nothing (SDM 1 8.5.4, 8.5.5). */
	if (status & ~cpu->fcw & (X87_OE | X87_UE))
		status &= (uint16_t)~(X87_PE | X87_C1);
	store_bytes(cpu, insn, image, bytes, take_effect);
	x87_remember(cpu, insn);
	x87_take_flags(cpu, status);
	if (take_effect && pop)
		x87_pop(cpu);
}

static void store_empty(struct cpu *cpu, const struct insn *insn, const void *image, unsigned bytes, bool pop)
{
	store_bytes(cpu, insn, image, bytes, cpu->fcw & X87_IE);
	x87_remember(cpu, insn);
	if (x87_stack_fault(cpu, false) && pop)
		x87_pop(cpu);
}

#define HOST_STORE(name)                                                                                     \
	X87_HOST(cpu, status, "fldt %[value]\n\t", name " %[image]", "", ([image] "=m"(image)), ([value] "m"(value)))

/*
 * The host stores with a pop; an unmasked exception would leave its operand, so all are masked there and
 * judged afterwards.
 */
#define X87_STORE(symbol, name, size, indefinite, pop)                                                       \
	static inline void symbol(struct cpu *cpu, const struct insn *insn)                                  \
	{                                                                                                    \
		uint64_t image = indefinite;                                                                 \
		x87_check_pending(cpu);                                                                      \
		if (x87_is_empty(cpu, 0)) {                                                                  \
			store_empty(cpu, insn, &image, size, pop);                                           \
			return;                                                                              \
		}                                                                                            \
		x87_t value = x87_get(cpu, 0);                                                               \
		uint16_t status, control = cpu->fcw;                                                         \
		__asm__ volatile("fnclex\n\tfldcw %[cw]\n\tfldt %[value]\n\t" name " %[image]\n\tfnstsw %[sw]\n\t"     \
				 "fnclex\n\tfldcw %[own]"                                                    \
				 : [image] "+m"(image), [sw] "=m"(status)                                    \
				 : [cw] "m"((uint16_t){control | X87_FLAGS}), [value] "m"(value),            \
				   [own] "m"(x87_own_control)                                                \
				 : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");     \
		store_image(cpu, insn, &image, size, status, pop);                                           \
	}                                                                                                    \
	DEFINE_INSN(symbol)
X87_STORE(x87_fst_m32, "fstps", 4, indefinite_single, false)
X87_STORE(x87_fstp_m32, "fstps", 4, indefinite_single, true)
X87_STORE(x87_fst_m64, "fstpl", 8, indefinite_double, false)
X87_STORE(x87_fstp_m64, "fstpl", 8, indefinite_double, true)
X87_STORE(x87_fist_m16, "fistps", 2, indefinite_int16, false)
X87_STORE(x87_fistp_m16, "fistps", 2, indefinite_int16, true)
X87_STORE(x87_fist_m32, "fistpl", 4, indefinite_int32, false)
X87_STORE(x87_fistp_m32, "fistpl", 4, indefinite_int32, true)
X87_STORE(x87_fistp_m64, "fistpq", 8, indefinite_int64, true)
X87_STORE(x87_fisttp_m16, "fisttps", 2, indefinite_int16, true)
X87_STORE(x87_fisttp_m32, "fisttpl", 4, indefinite_int32, true)
X87_STORE(x87_fisttp_m64, "fisttpll", 8, indefinite_int64, true)

static inline void x87_fstp_m80(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	x87_t value = x87_is_empty(cpu, 0) ? x87_default_nan() : x87_get(cpu, 0);
	if (x87_is_empty(cpu, 0))
		store_empty(cpu, insn, &value, 10, true);
	else
		store_image(cpu, insn, &value, 10, 0, true);
}
DEFINE_INSN(x87_fstp_m80)

static inline void x87_fbstp(struct cpu *cpu, const struct insn *insn)
{
	x87_t image = {.bytes = {0}};
	image.significand = 0xc000000000000000u; /* packed BCD indefinite */
	image.sign_exponent = 0xffff;
	x87_check_pending(cpu);
	if (x87_is_empty(cpu, 0)) {
		store_empty(cpu, insn, &image, 10, true);
		return;
	}
	x87_t value = x87_get(cpu, 0);
	uint16_t status;
	__asm__ volatile("fnclex\n\tfldcw %[cw]\n\tfldt %[value]\n\tfbstp %[image]\n\tfnstsw %[sw]\n\tfnclex\n\tfldcw %[own]"
			 : [image] "+m"(image), [sw] "=m"(status)
			 : [cw] "m"((uint16_t){cpu->fcw | X87_FLAGS}), [value] "m"(value), [own] "m"(x87_own_control)
			 : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)");
	store_image(cpu, insn, &image, 10, status, true);
}
DEFINE_INSN(x87_fbstp)

static void store_register(struct cpu *cpu, const struct insn *insn, bool pop)
{
	x87_begin(cpu, insn);
	x87_t value = x87_default_nan();
	if (x87_is_empty(cpu, 0)) {
		if (!x87_stack_fault(cpu, false))
			return;
	} else {
		value = x87_get(cpu, 0);
		cpu->fsw &= (uint16_t)~X87_C1;
	}
	x87_set(cpu, insn->modrm & 7, value);
	if (pop)
		x87_pop(cpu);
}

static inline void x87_fst_st(struct cpu *cpu, const struct insn *insn) { store_register(cpu, insn, false); }
DEFINE_INSN(x87_fst_st)
static inline void x87_fstp_st(struct cpu *cpu, const struct insn *insn) { store_register(cpu, insn, true); }
DEFINE_INSN(x87_fstp_st)

/* ---- exchanges and conditional moves ---- */

static inline void x87_fxch(struct cpu *cpu, const struct insn *insn)
{
	unsigned i = insn->modrm & 7;
	x87_begin(cpu, insn);
	bool empty0 = x87_is_empty(cpu, 0), empty_i = x87_is_empty(cpu, i);
	if ((empty0 || empty_i) && !x87_stack_fault(cpu, false))
		return;
	if (!empty0 && !empty_i)
		cpu->fsw &= (uint16_t)~X87_C1;
	x87_t a = empty0 ? x87_default_nan() : x87_get(cpu, 0), b = empty_i ? x87_default_nan() : x87_get(cpu, i);
	x87_set(cpu, i, a);
	x87_set(cpu, 0, b);
}
DEFINE_INSN(x87_fxch)

/* FCMOVcc: DA takes B, E, BE, U; DB their negations (SDM 2A FCMOVcc). */
static bool condition(const struct cpu *cpu, const struct insn *insn)
{
	switch (insn->modrm >> 3 & 3) {
	case 0: return flags_cf(&cpu->lazy);
	case 1: return flags_zf(&cpu->lazy);
	case 2: return flags_cf(&cpu->lazy) || flags_zf(&cpu->lazy);
	default: return flags_pf(&cpu->lazy);
	}
}

static void move_if(struct cpu *cpu, const struct insn *insn, bool wanted)
{
	unsigned i = insn->modrm & 7;
	x87_begin(cpu, insn);
	if (x87_is_empty(cpu, 0) || x87_is_empty(cpu, i)) {
		if (x87_stack_fault(cpu, false))
			x87_set(cpu, 0, x87_default_nan());
		return;
	}
	if (condition(cpu, insn) == wanted)
		x87_set(cpu, 0, x87_get(cpu, i));
}

static inline void x87_fcmov(struct cpu *cpu, const struct insn *insn) { move_if(cpu, insn, true); }
DEFINE_INSN(x87_fcmov)
static inline void x87_fcmovn(struct cpu *cpu, const struct insn *insn) { move_if(cpu, insn, false); }
DEFINE_INSN(x87_fcmovn)
