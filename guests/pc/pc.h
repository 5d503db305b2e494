/*
 * pc.h: a small test suite for a PC, written as such suites are for QEMU's: it knows nothing of visor. Each
 * test prints lines that depend on the PC alone, so that every machine must print the same.
 */
#ifndef TRAPLINE_GUESTS_PC_H
#define TRAPLINE_GUESTS_PC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- ports ---- */

static inline void outb(unsigned port, unsigned value)
{
	__asm__ volatile("outb %b0, %w1" ::"a"(value), "Nd"(port));
}
static inline void outw(unsigned port, unsigned value)
{
	__asm__ volatile("outw %w0, %w1" ::"a"(value), "Nd"(port));
}
static inline void outl(unsigned port, uint32_t value)
{
	__asm__ volatile("outl %0, %w1" ::"a"(value), "Nd"(port));
}
static inline uint8_t inb(unsigned port)
{
	uint8_t value;

	__asm__ volatile("inb %w1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline uint16_t inw(unsigned port)
{
	uint16_t value;

	__asm__ volatile("inw %w1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
static inline uint32_t inl(unsigned port)
{
	uint32_t value;

	__asm__ volatile("inl %w1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* ---- memory ---- */

/* Opaque, as page 0 is memory like any other here. */
static inline void *at(uintptr_t address)
{
	__asm__("" : "+r"(address));
	return (void *)address;
}
#define MMIO(type, address) (*(volatile type *)at(address))

/* ---- main.c ---- */

void print(const char *text);
void print_number(const char *name, uint32_t value); /* "name=0x12\n" */
bool same(const void *a, const void *b, size_t size);
void copy(void *to, const void *from, size_t size);
_Noreturn void leave(unsigned value);
extern unsigned failures;
/* Prints "ok name" or "FAIL name". */
void check(const char *name, bool good);

/* fw_cfg, little-endian numbers. */
uint32_t fw_cfg(unsigned key, unsigned bytes);

/* ---- interrupts.c ---- */

extern volatile unsigned counts[256];
extern void (*handlers[256])(void); /* what is done before the count, EOI included; NULL: nothing */
void interrupts_init(void);
/* Waits with interrupts enabled until @vector has come @count times in all. */
void wait_for(unsigned vector, unsigned count);
/* Gives what is pending the time to come. */
void settle(void);
void pic_init(unsigned unmasked); /* lines that are open, a bit each; line n is vector 0x20 + n */
void pic_eoi(unsigned line);

#define LAPIC(offset)  MMIO(uint32_t, 0xfee00000u + (offset))
#define LAPIC_ID       0x20
#define LAPIC_TPR      0x80
#define LAPIC_EOI      0xb0
#define LAPIC_SVR      0xf0
#define LAPIC_ISR      0x100
#define LAPIC_IRR      0x200
#define LAPIC_ICR      0x300
#define LAPIC_ICR_HIGH 0x310
#define LAPIC_TIMER    0x320
#define LAPIC_LINT0    0x350
#define LAPIC_INITIAL  0x380
#define LAPIC_CURRENT  0x390
#define LAPIC_DIVIDE   0x3e0
void lapic_init(void);
void lapic_eoi(void);

uint32_t ioapic_read(unsigned index);
void ioapic_write(unsigned index, uint32_t value);
void ioapic_route(unsigned input, uint32_t low, unsigned destination);

/* ---- tests ---- */

void test_boot(uint32_t magic, const uint8_t *information);
void test_devices(void);
void test_pic(void);
void test_ioapic(void);
void test_lapic(void);
void test_rtc(void);
void test_hpet(void);
void test_smp(void);
void test_acpi(void);
void acpi_power_off(void);
void acpi_sleep(void);
/* An ACPI table whose checksum is right, or NULL; SLP_TYP of a sleep state ("_S3_"). */
const uint8_t *acpi_table(const char *signature);
unsigned acpi_sleep_type(const char *name);

#endif
