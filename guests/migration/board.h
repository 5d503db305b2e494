/*
 * board.h: devices of a PC's board as the stories of migration program them: where their registers are, and
 * whether a machine has them.
 */
#ifndef TRAPLINE_GUESTS_MIGRATION_BOARD_H
#define TRAPLINE_GUESTS_MIGRATION_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#define HPET          0xfed00000u
#define HPET_CONFIG   0x10u
#define HPET_STATUS   0x20u
#define HPET_COUNTER  0xf0u
#define HPET_TIMER(n) (0x100u + 0x20u * (n)) /* configuration; the comparator is 8 further */

#define PIT_COUNTER0 0x40
#define PIT_COUNTER2 0x42
#define PIT_CONTROL  0x43
#define PORT_61      0x61

#define PM_EVENT   0x600 /* status, enable */
#define PM_CONTROL 0x604
#define PM_TIMER   0x608
#define APM        0xb2

#define MASTER 0x20
#define SLAVE  0xa0
#define ELCR   0x4d0
#define BASE   0x50u /* vector of line 0 of the 8259As; the slave's are 8 further */

/* Whether the machine has it; where not, NOTSUP was said. */
bool board_has_hpet(void);
bool board_has_pm(void); /* power management at ports 600H to 60BH, which it moves there where it must */
bool board_has_rtc(void);
bool board_has_testdev(void);
bool board_has_port_61(void); /* the gate, the speaker and OUT of the 8254's counter 2 */

/* Halts for @count ticks of the APIC timer, so that slow clocks go on without instructions; xAPIC or x2APIC is on. */
void board_nap(uint32_t count);

unsigned rtc_read(unsigned index);
void rtc_write(unsigned index, unsigned value);

/* The 8259As by way of LINT0 of the local APIC, vectors from BASE on, everything masked but the cascade; handlers
 * end an interrupt at both chips, and count. False: NOTSUP was said. */
bool board_pic(void);
void board_pic_unmask(unsigned line);
unsigned board_pic_read(unsigned chip, unsigned ocw3); /* 0AH: IRR, 0BH: ISR */
/* An entry of the I/O APIC: its low half, destination this processor. False: NOTSUP was said. */
bool board_ioapic_entry(unsigned input, uint32_t low);
uint32_t board_ioapic_read(unsigned index);
void board_ioapic_write(unsigned index, uint32_t value);

/* PCI configuration: @at is bus 0's device << 11 | function << 8 | register. */
uint32_t pci_read(uint32_t at);
void pci_write(uint32_t at, uint32_t value);
/* The function with this vendor and device id, or 0 where there is none. */
uint32_t pci_find(uint32_t id);

#endif
