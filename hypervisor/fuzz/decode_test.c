/*
 * Random bytes through the decoder and the disassembler, in every mode: no byte behind those that may
 * be read is read, the answer does not depend on them, and lengths are what they can be.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "cpu/decode.h"
#include "fuzz/fuzz.h"

static const uint32_t modes[] = {CODE_16,
				 CODE_16 | CODE_PE,
				 CODE_16 | CODE_PE | CODE_VM86,
				 CODE_32 | CODE_PE,
				 CODE_16 | CODE_PE | CODE_LMA,
				 CODE_32 | CODE_PE | CODE_LMA | CODE_CPL3,
				 CODE_64 | CODE_PE | CODE_LMA,
				 CODE_64 | CODE_PE | CODE_LMA | CODE_FP};

static struct profile profiles[2];
static uint8_t *edge; /* the end of a page that nothing may be read behind */

static void bytes_of(struct fuzz *fuzz, uint8_t *bytes, size_t size)
{
	static const uint8_t often[] = {0x0f, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x40,
					0x48, 0x4f, 0x38, 0x3a, 0xc4, 0xc5, 0x62};

	for (size_t i = 0; i < size; i++)
		bytes[i] = i < 6 && fuzz_one_in(fuzz, 2) ? often[fuzz_below(fuzz, sizeof(often))]
							 : (uint8_t)fuzz_next(fuzz);
}

static void check_text(const struct insn *insn, uint64_t rip)
{
	char text[160], small[8];

	memset(text, 0x7f, sizeof(text));
	disassemble(insn, rip, text, sizeof(text));
	assert_non_null(memchr(text, 0, sizeof(text)));
	for (const char *c = text; *c; c++)
		assert_true(*c >= ' ' && *c < 0x7f);
	disassemble(insn, rip, small, sizeof(small));
	assert_non_null(memchr(small, 0, sizeof(small)));
}

static void round_of_bytes(struct fuzz *fuzz, uint64_t round)
{
	const struct profile *profile = round % 8 ? &profiles[round % 2] : NULL;
	uint32_t mode = modes[fuzz_below(fuzz, sizeof(modes) / sizeof(modes[0]))];
	uint8_t bytes[24], *at;
	struct insn whole, part;
	enum decode_result result;

	bytes_of(fuzz, bytes, sizeof(bytes));
	memset(&whole, 0, sizeof(whole));
	result = decode(&whole, bytes, sizeof(bytes), mode, profile);
	assert_int_not_equal(result, DECODE_TRUNCATED);
	if (result == DECODE_OK) {
		assert_in_range(whole.length, 1, 15);
		check_text(&whole, fuzz_next(fuzz));
	}
	/* Every shorter part, which ends where memory does. */
	for (size_t size = 0; size < sizeof(bytes); size++) {
		enum decode_result cut;

		at = edge - size;
		memcpy(at, bytes, size);
		memset(&part, 0, sizeof(part));
		cut = decode(&part, at, size, mode, profile);
		if (cut == DECODE_OK)
			assert_in_range(part.length, 1, size);
		if (result == DECODE_OK && size < whole.length)
			assert_int_not_equal(cut, DECODE_OK);
	}
	/* Cut off behind its last byte it is the same instruction. */
	if (decode(&whole, bytes, sizeof(bytes), mode, profile) == DECODE_OK) {
		at = edge - whole.length;
		memcpy(at, bytes, whole.length);
		assert_int_equal(decode(&part, at, whole.length, mode, profile), DECODE_OK);
		assert_int_equal(part.length, whole.length);
		assert_int_equal(part.opcode, whole.opcode);
	}
}

static void random_bytes(void **state)
{
	(void)state;
	fuzz_rounds(300000, round_of_bytes);
}

static int setup(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char why[200];
	uint8_t *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	if (pages == MAP_FAILED || mprotect(pages + page, page, PROT_NONE))
		return -1;
	edge = pages + page;
	assert_int_equal(decode_init(), -1);
	assert_int_equal(profile_parse(&profiles[0], "amd", why, sizeof(why)), 0);
	assert_int_equal(profile_parse(&profiles[1], "intel", why, sizeof(why)), 0);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(random_bytes)};

	return cmocka_run_group_tests(tests, setup, NULL);
}
