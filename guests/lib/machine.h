/*
 * machine.h: the instructions that C needs by name, and what the machine was probed to have.
 * 64-bit mode, CPL 0.
 */
#ifndef TRAPLINE_GUESTS_LIB_MACHINE_H
#define TRAPLINE_GUESTS_LIB_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/msr.h"

#define MSR_MISC_FEATURES MSR_MISC_FEATURES_ENABLES

/* Filled by machine_probe, from CPUID alone. */
struct machine {
	uint32_t max_leaf, max_extended_leaf;
	bool intel, sysenter, syscall, tsc_aux, xsave, pku;
	bool control_device, console, serial;
	bool l1; /* a hypervisor of ours is above (x86/l1.h) */
};

extern struct machine machine;

/* Look at CPUID and the I/O ports; fill `machine`. */
void machine_probe(void);

/* CPUID; a leaf beyond the machine's highest gives zeros. @out: EAX, EBX, ECX, EDX. */
void machine_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

/* Tells it that the bytes under test stand at @address, or, with @size 0, that their case is over. */
void machine_tell_l1(uint32_t address, uint32_t size);

static inline uint64_t machine_read_msr(uint32_t index)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
	return (uint64_t)high << 32 | low;
}

static inline void machine_write_msr(uint32_t index, uint64_t value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
			 : "memory");
}

static inline uint8_t machine_in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void machine_out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint32_t machine_in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void machine_out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void machine_out_string(uint16_t port, const void *data, size_t size)
{
	__asm__ volatile("rep outsb" : "+S"(data), "+c"(size) : "d"(port) : "memory");
}

static inline void machine_copy(void *to, const void *from, size_t size)
{
	size_t quads = size / 8, rest = size % 8;

	__asm__ volatile("rep movsq\n\tmov %3, %2\n\trep movsb"
			 : "+D"(to), "+S"(from), "+&c"(quads)
			 : "r"(rest)
			 : "memory");
}

static inline void machine_fill(void *to, uint8_t value, size_t size)
{
	size_t quads = size / 8, rest = size % 8;

	__asm__ volatile("rep stosq\n\tmov %2, %1\n\trep stosb"
			 : "+D"(to), "+&c"(quads)
			 : "r"(rest), "a"(value * 0x0101010101010101ull)
			 : "memory");
}

static inline uint64_t machine_read_xcr0(void)
{
	uint32_t low, high;

	__asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

static inline void machine_write_xcr0(uint64_t value)
{
	__asm__ volatile("xsetbv" : : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static inline uint32_t machine_read_pkru(void)
{
	uint32_t value, zero;

	__asm__ volatile("rdpkru" : "=a"(value), "=d"(zero) : "c"(0));
	return value;
}

static inline void machine_write_pkru(uint32_t value)
{
	__asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}

#define MACHINE_REGISTER(name)                                                                               \
	static inline uint64_t machine_read_##name(void)                                                     \
	{                                                                                                    \
		uint64_t value;                                                                              \
		__asm__ volatile("mov %%" #name ", %0" : "=r"(value));                                       \
		return value;                                                                                \
	}                                                                                                    \
	static inline void machine_write_##name(uint64_t value)                                              \
	{                                                                                                    \
		__asm__ volatile("mov %0, %%" #name : : "r"(value) : "memory");                              \
	}
MACHINE_REGISTER(cr0)
MACHINE_REGISTER(cr2)
MACHINE_REGISTER(cr3)
MACHINE_REGISTER(cr4)
MACHINE_REGISTER(cr8)
MACHINE_REGISTER(dr0)
MACHINE_REGISTER(dr1)
MACHINE_REGISTER(dr2)
MACHINE_REGISTER(dr3)
MACHINE_REGISTER(dr6)
#undef MACHINE_REGISTER

#endif
