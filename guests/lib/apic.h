/*
 * apic.h: this processor's local APIC as guests use it, through its register page or, in x2APIC mode,
 * through MSRs: whichever mode it is in (SDM 3A chapter 11, APM 2 chapter 16).
 *
 * 64-bit mode, CPL 0. Registers are named by their offsets in the page.
 */
#ifndef TRAPLINE_GUESTS_LIB_APIC_H
#define TRAPLINE_GUESTS_LIB_APIC_H

#include <stdbool.h>
#include <stdint.h>

#define APIC_PAGE         0xfee00000u
#define APIC_BASE_MSR     0x1bu
#define APIC_BASE_EN      (1u << 11)
#define APIC_BASE_EXT     (1u << 10)
#define APIC_BASE_BSP_BIT (1u << 8)
#define APIC_MSR(offset)  (0x800u + ((offset) >> 4))

enum apic_register {
	APIC_ID = 0x20,
	APIC_VERSION = 0x30,
	APIC_TPR = 0x80,
	APIC_APR = 0x90,
	APIC_PPR = 0xa0,
	APIC_EOI = 0xb0,
	APIC_RRD = 0xc0,
	APIC_LDR = 0xd0,
	APIC_DFR = 0xe0,
	APIC_SVR = 0xf0,
	APIC_ISR = 0x100, /* eight of each, 16 bytes apart */
	APIC_TMR = 0x180,
	APIC_IRR = 0x200,
	APIC_ESR = 0x280,
	APIC_LVT_CMCI = 0x2f0,
	APIC_ICR = 0x300,
	APIC_ICR_HIGH = 0x310,
	APIC_LVT_TIMER = 0x320,
	APIC_LVT_THERMAL = 0x330,
	APIC_LVT_PERFORMANCE = 0x340,
	APIC_LVT_LINT0 = 0x350,
	APIC_LVT_LINT1 = 0x360,
	APIC_LVT_ERROR = 0x370,
	APIC_INITIAL_COUNT = 0x380,
	APIC_CURRENT_COUNT = 0x390,
	APIC_DIVIDE = 0x3e0,
	APIC_SELF_IPI = 0x3f0 /* x2APIC alone */
};

/* ICR, and the same fields of an I/O APIC's entries. */
#define ICR_FIXED   0x000u
#define ICR_LOWEST  0x100u
#define ICR_SMI     0x200u
#define ICR_NMI     0x400u
#define ICR_INIT    0x500u
#define ICR_STARTUP 0x600u
#define ICR_EXTINT  0x700u
#define ICR_LOGICAL (1u << 11)
#define ICR_PENDING (1u << 12)
#define ICR_ASSERT  (1u << 14)
#define ICR_LEVEL   (1u << 15)
#define ICR_SELF    (1u << 18)
#define ICR_ALL     (2u << 18)
#define ICR_OTHERS  (3u << 18)
#define LVT_MASKED  (1u << 16)
#define SVR_ENABLE  (1u << 8)

bool apic_is_x2apic(void);
uint32_t apic_read(enum apic_register offset);
void apic_write(enum apic_register offset, uint32_t value);
/* APIC ID as destinations name it: 8 bits, in x2APIC mode 32. */
uint32_t apic_id(void);
/* Sends an IPI and waits until it is sent. @command: the low half of ICR. */
void apic_send(uint32_t destination, uint32_t command);
/* Whether @vector's bit is set in APIC_IRR, APIC_ISR or APIC_TMR. */
bool apic_bit(enum apic_register first, unsigned vector);
/* SVR with the APIC enabled in software and @spurious as its spurious vector. */
void apic_enable(uint8_t spurious);

/*
 * Leave @vector pending, IF being 0; and an NMI, with NMIs blocked until the next IRET. For cases that begin
 * with them (SETTING_INTERRUPT, SETTING_NMI).
 */
void apic_pend_interrupt(uint8_t vector);
void apic_pend_nmi(void); /* enter.S */

/* Ends what is in service, and takes what is pending away. */
void apic_settle(void);

#endif
