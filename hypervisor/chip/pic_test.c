#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "chip/pic.h"

static void initialize_and_mask(void **state)
{
	struct pic pic;

	(void)state;
	pic_init(&pic, NULL, NULL);
	pic_write(&pic, PIC_SLAVE_DATA, 0x5a);
	assert_int_equal(pic_read(&pic, PIC_SLAVE_DATA), 0x5a);
	assert_int_equal(pic_read(&pic, PIC_MASTER_DATA), 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(initialize_and_mask)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
