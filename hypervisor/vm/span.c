#include "vm/span.h"

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 16;
}

static bool number(struct span span, unsigned base, uint64_t *value)
{
	uint64_t sum = 0;

	if (span.size == 0)
		return false;
	for (size_t i = 0; i < span.size; i++) {
		unsigned digit = (unsigned)digit_of(span.at[i]);

		if (digit >= base || __builtin_mul_overflow(sum, base, &sum) ||
		    __builtin_add_overflow(sum, digit, &sum))
			return false;
	}
	*value = sum;
	return true;
}

bool span_hex(struct span span, uint64_t *value) { return number(span, 16, value); }

bool span_number(struct span span, uint64_t *value)
{
	if (span.size > 2 && span.at[0] == '0' && span.at[1] == 'x')
		return number((struct span){span.at + 2, span.size - 2}, 16, value);
	return number(span, 10, value);
}

bool span_printable(struct span span)
{
	for (size_t i = 0; i < span.size; i++)
		if (span.at[i] < 0x20 || span.at[i] > 0x7e)
			return false;
	return true;
}
