/*
 * report.h: the report lines of outcome.h. Text gathers in a buffer and goes out a line or
 * more at a time: to the debug console where there is one, and without the control device to the
 * first serial port too.
 */
#ifndef TRAPLINE_GUESTS_LIB_REPORT_H
#define TRAPLINE_GUESTS_LIB_REPORT_H

#include <stdint.h>

void report_text(const char *text);
void report_hex(uint64_t value); /* without 0x, no leading zeros */
void report_decimal(uint64_t value);
/* @size bytes at @data as one number, little endian, most significant digit first, with 0x. */
void report_bytes(const void *data, unsigned size);
/* ` NAME=0xVALUE` */
void report_field(const char *name, uint64_t value);
/* ` [0xADDRESS:SIZE]=0xVALUE` */
void report_memory(uint32_t address, const void *data, unsigned size);
/* Forget what was gathered since the last line was sent. */
void report_discard(void);
/* End the line and send everything gathered. */
void report_end_line(void);

#endif
