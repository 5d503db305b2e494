/*
 * blank.h: a bus with nothing on it, for tests of a CPU or of an engine alone: a port reads as its own
 * number, memory that is not there as all ones, and writes go nowhere. The owner is not looked at.
 */
#ifndef TRAPLINE_FUZZ_BLANK_H
#define TRAPLINE_FUZZ_BLANK_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t blank_port_in(void *owner, uint16_t port, unsigned size)
{
	(void)owner;
	(void)size;
	return port;
}

static inline void blank_port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	(void)owner;
	(void)port;
	(void)size;
	(void)value;
}

static inline void blank_mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	(void)owner;
	(void)address;
	memset(to, 0xff, size);
}

static inline void blank_mmio_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	(void)owner;
	(void)address;
	(void)from;
	(void)size;
}

/* An interrupt controller that always has the same vector. */
static inline int blank_acknowledge(void *owner)
{
	(void)owner;
	return 0x41;
}

/* No MSR of the bus: #GP(0). */
static inline bool blank_msr_read(void *owner, uint32_t index, uint64_t *value)
{
	(void)owner;
	(void)index;
	*value = 0;
	return false;
}

/* @bus: a struct cpu_bus or a struct engine_bus; its ports and its memory. */
#define blank_bus(bus)                                                                                       \
	do {                                                                                                 \
		(bus)->port_in = blank_port_in;                                                              \
		(bus)->port_out = blank_port_out;                                                            \
		(bus)->mmio_read = blank_mmio_read;                                                          \
		(bus)->mmio_write = blank_mmio_write;                                                        \
	} while (0)

#endif
