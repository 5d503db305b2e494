#include "chip/check.h"

#include <stddef.h>

int chip_check_broken = -1;
bool chip_check_reached[CHIP_CHECK_COUNT];

static const char *const names[] = {
#define CHIP_CHECK_NAME(name, what) #name,
#include "chip/checks.def"
#undef CHIP_CHECK_NAME
};

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

bool chip_check_break(const char *name)
{
	chip_check_broken = -1;
	if (!name)
		return true;
	for (unsigned i = 0; i < CHIP_CHECK_COUNT; i++)
		if (same(name, names[i])) {
			chip_check_broken = (int)i;
			return true;
		}
	return false;
}

const char *chip_check_name(unsigned index) { return index < CHIP_CHECK_COUNT ? names[index] : NULL; }

void chip_check_take_reached(void (*take)(void *owner, const char *name), void *owner)
{
	for (unsigned i = 0; i < CHIP_CHECK_COUNT; i++) {
		if (chip_check_reached[i] && take)
			take(owner, names[i]);
		chip_check_reached[i] = false;
	}
}
