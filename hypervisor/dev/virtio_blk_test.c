/* Requests to the block device, on a raw disk and, where there is qemu-nbd, on a qcow2 disk; and disks that
 * are none. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dev/test_virtio.h"
#include "dev/virtio_blk.h"
#include "fuzz/fuzz.h"

#define F_RO           (1ull << 5)
#define F_FLUSH        (1ull << 9)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)
#define ALL            (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | F_FLUSH | F_DISCARD | F_WRITE_ZEROES)

#define SECTORS   64u
#define HEADER    TEST_BUFFER
#define DATA      (TEST_BUFFER + 0x1000)
#define STATUS_AT (TEST_BUFFER + 0x20)

enum { IN, OUT, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZERO = 13 };
enum { OK, IOERR, UNSUPP };

static char path[] = "/tmp/disk_test.XXXXXX";
static struct test_pci *test;
static struct virtio_blk blk;
static struct disk *disk;

/* Each sector holds its number. */
static void fill_disk(void)
{
	uint8_t sector[DISK_SECTOR];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	for (unsigned i = 0; i < SECTORS; i++) {
		memset(sector, (int)(i + 1), sizeof(sector));
		assert_int_equal(write(fd, sector, sizeof(sector)), sizeof(sector));
	}
	close(fd);
}

static void open_disk(const char *name, bool read_only)
{
	char why[256];

	if (disk_open(&disk, name, read_only, why, sizeof(why)))
		fail_msg("%s", why);
	test = test_pci_new();
	blk = (struct virtio_blk){0};
	assert_int_equal(virtio_blk_init(&blk, disk, "the serial number, and more", &test->dma, &test->pci),
			 0);
	test_start(test, (ALL | (read_only ? F_RO : 0)) & ~(read_only ? F_DISCARD | F_WRITE_ZEROES : 0), 1);
	assert_int_equal(test_common(test, STATUS, 1), 0x0f);
}

static void close_disk(void)
{
	disk_close(disk);
	free(test);
}

static int setup(void **state)
{
	(void)state;
	fill_disk();
	open_disk(path, false);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close_disk();
	return unlink(path);
}

/* One request with @size bytes of data, to the device (@out) or from it. Returns its status. */
static unsigned request(unsigned type, uint64_t sector, unsigned size, bool out)
{
	struct test_descriptor *table = test_table(test, 0);
	uint32_t header[2] = {type, 0};

	memcpy(test->ram + HEADER, header, 8);
	memcpy(test->ram + HEADER + 8, &sector, 8);
	test->ram[STATUS_AT] = 0xff;
	table[0] = (struct test_descriptor){HEADER, 16, NEXT, (uint16_t)(size ? 1 : 2)};
	table[1] = (struct test_descriptor){DATA, size, (uint16_t)(NEXT | (out ? 0 : WRITE)), 2};
	table[2] = (struct test_descriptor){STATUS_AT, 1, WRITE, 0};
	test_give(test, 0, 0);
	assert_int_equal(test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET, 0);
	return test->ram[STATUS_AT];
}

static unsigned clear(unsigned type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	memcpy(test->ram + DATA, &sector, 8);
	memcpy(test->ram + DATA + 8, &sectors, 4);
	memcpy(test->ram + DATA + 12, &flags, 4);
	return request(type, 0, 16, true);
}

static void check_data(uint8_t byte, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		assert_int_equal(test->ram[DATA + i], byte);
}

static void reads_and_writes(void)
{
	assert_int_equal(request(IN, 3, 1024, false), OK);
	assert_int_equal(test_written(test, 0), 1025);
	check_data(4, 512);
	assert_int_equal(test->ram[DATA + 512], 5);
	memset(test->ram + DATA, 0x99, 1024);
	assert_int_equal(request(OUT, 62, 1024, true), OK);
	memset(test->ram + DATA, 0, 1024);
	assert_int_equal(request(IN, 62, 1024, false), OK);
	check_data(0x99, 1024);
	assert_int_equal(request(FLUSH, 0, 0, true), OK);
	/* Past the end, and no whole sectors. */
	assert_int_equal(request(IN, 63, 1024, false), IOERR);
	assert_int_equal(request(IN, 64, 512, false), IOERR);
	assert_int_equal(request(IN, ~0ull / 512, 512, false), IOERR);
	assert_int_equal(request(OUT, ~0ull, 512, true), IOERR);
	assert_int_equal(request(IN, 0, 500, false), IOERR);
	assert_int_equal(request(99, 0, 512, false), UNSUPP);
}

static void clearing(void)
{
	assert_int_equal(clear(ZERO, 8, 2, 0), OK);
	assert_int_equal(clear(ZERO, 10, 1, 1), OK);
	assert_int_equal(request(IN, 8, 3 * 512, false), OK);
	check_data(0, 3 * 512);
	assert_int_equal(request(IN, 7, 512, false), OK);
	check_data(8, 512);
	assert_int_equal(request(IN, 11, 512, false), OK);
	check_data(12, 512);
	assert_int_equal(clear(DISCARD, 16, 8, 0), OK);
	assert_int_equal(clear(DISCARD, 16, 8, 1), UNSUPP);
	assert_int_equal(clear(DISCARD, 60, 8, 0), IOERR);
	assert_int_equal(clear(ZERO, 0, 0x400000, 0), IOERR);
	assert_int_equal(request(DISCARD, 0, 32, true), IOERR);
}

static void raw(void **state)
{
	(void)state;
	reads_and_writes();
	clearing();
}

static void configuration(void **state)
{
	(void)state;
	assert_int_equal(test_mmio_read(test, TEST_BASE + 0x2000, 4), SECTORS);
	assert_int_equal(test_mmio_read(test, TEST_BASE + 0x2000 + 20, 4), 512);
	assert_int_equal(request(GET_ID, 0, 20, false), OK);
	assert_memory_equal(test->ram + DATA, "the serial number, a", 20);
	assert_int_equal(test_written(test, 0), 21);
}

static void any_layout(void **state)
{
	struct test_descriptor *table = test_table(test, 0);
	uint64_t sector = 5;

	/* The header in two pieces, the status behind the data in one. */
	(void)state;
	memset(test->ram + HEADER, 0, 8);
	memcpy(test->ram + HEADER + 8, &sector, 8);
	table[0] = (struct test_descriptor){HEADER, 3, NEXT, 1};
	table[1] = (struct test_descriptor){HEADER + 3, 13, NEXT, 2};
	table[2] = (struct test_descriptor){DATA, 513, WRITE, 0};
	test->ram[DATA + 512] = 0xff;
	test_give(test, 0, 0);
	check_data(6, 512);
	assert_int_equal(test->ram[DATA + 512], OK);
}

static void no_requests(void **state)
{
	struct test_descriptor *table = test_table(test, 0);

	(void)state;
	table[0] = (struct test_descriptor){HEADER, 15, NEXT, 1};
	table[1] = (struct test_descriptor){STATUS_AT, 1, WRITE, 0};
	test_give(test, 0, 0);
	assert_true(test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET);
	test_start(test, ALL, 1);
	table[0] = (struct test_descriptor){HEADER, 16, 0, 0};
	test_give(test, 0, 0);
	assert_true(test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET);
}

static void read_only(void **state)
{
	(void)state;
	close_disk();
	open_disk(path, true);
	test_set(test, DFSELECT, 4, 0);
	assert_true(test_common(test, DF, 4) & F_RO);
	assert_int_equal(request(IN, 0, 512, false), OK);
	assert_int_equal(request(OUT, 0, 512, true), IOERR);
	assert_int_equal(clear(DISCARD, 0, 1, 0), UNSUPP);
	assert_int_equal(request(IN, 0, 512, false), OK);
	check_data(1, 512);
}

static void damaged_files(void **state)
{
	char name[64], why[256];
	struct disk *other;

	(void)state;
	assert_int_equal(disk_open(&other, path, false, why, sizeof(why)), -EWOULDBLOCK);
	assert_string_equal(why, "in use by another process");
	assert_int_equal(disk_open(&other, "/nonexistent", false, why, sizeof(why)), -ENOENT);
	assert_int_equal(disk_open(&other, "/tmp", true, why, sizeof(why)), -EINVAL);
	assert_int_equal(disk_open(&other, "raw:/dev/null", true, why, sizeof(why)), -EINVAL);
	snprintf(name, sizeof(name), "%s.short", path);
	close(open(name, O_WRONLY | O_CREAT, 0600));
	assert_int_equal(truncate(name, 513), 0);
	assert_int_equal(disk_open(&other, name, true, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "whole sectors"));
	unlink(name);
}

static void shrunk_file(void **state)
{
	(void)state;
	assert_int_equal(truncate(path, 512), 0);
	assert_int_equal(request(IN, 8, 512, false), IOERR);
	assert_int_equal(request(IN, 0, 512, false), OK);
}

static void qcow2(void **state)
{
	char command[256], name[64], why[256];
	struct disk *other;

	(void)state;
	if (system("command -v qemu-img qemu-nbd >/dev/null 2>&1"))
		skip();
	close_disk();
	snprintf(name, sizeof(name), "%s.qcow2", path);
	snprintf(command, sizeof(command), "qemu-img convert -f raw -O qcow2 %s %s", path, name);
	assert_int_equal(system(command), 0);
	open_disk(name, false);
	assert_int_equal(disk->size, SECTORS * DISK_SECTOR);
	reads_and_writes();
	clearing();
	close_disk();
	/* It was written to the image. */
	open_disk(name, true);
	assert_int_equal(request(IN, 62, 512, false), OK);
	check_data(0x99, 512);
	assert_int_equal(request(OUT, 0, 512, true), IOERR);
	/* An image whose header is damaged: one line says so. */
	assert_int_equal(truncate(name, 20), 0);
	assert_int_not_equal(disk_open(&other, name, true, why, sizeof(why)), 0);
	assert_true(why[0] && !strchr(why, '\n'));
	unlink(name);
}

static void missing_program(void **state)
{
	char name[64], why[256], kept[4096];
	struct disk *other;

	(void)state;
	snprintf(kept, sizeof(kept), "%s", getenv("PATH"));
	snprintf(name, sizeof(name), "qcow2:%s", path);
	setenv("PATH", "/nonexistent", 1);
	assert_int_equal(disk_open(&other, name, false, why, sizeof(why)), -ENOSYS);
	setenv("PATH", kept, 1);
	assert_non_null(strstr(why, "qemu-nbd"));
}

/* Requests whose headers, pieces and sectors are anything: each ends in a status or in NEEDS_RESET. */
static void round_of_requests(struct fuzz *fuzz, uint64_t round)
{
	static const uint8_t types[] = {IN, OUT, FLUSH, GET_ID, DISCARD, ZERO, 2, 0xff};
	static const uint32_t sizes[] = {0,   1,    15,    16,      20,         512,
					 513, 4096, 65536, 0x20000, 0x7fffffff, 0xffffffff};
	struct test_descriptor *table = test_table(test, 0);
	unsigned count = 1 + fuzz_below(fuzz, TEST_SIZE);
	uint16_t before;

	if (test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET)
		test_start(test, ALL, 1);
	before = test_used(test, 0)[1];
	memset(test->ram + HEADER, 0, 16);
	test->ram[HEADER] = types[fuzz_below(fuzz, sizeof(types))];
	test->ram[HEADER + 8] = (uint8_t)fuzz_below(fuzz, SECTORS + 8);
	if (fuzz_one_in(fuzz, 8))
		memset(test->ram + HEADER + 8, 0xff, fuzz_below(fuzz, 9));
	table[0] = (struct test_descriptor){HEADER, fuzz_one_in(fuzz, 8) ? 8 : 16, NEXT, 1};
	for (unsigned i = 1; i < count; i++)
		table[i] = (struct test_descriptor){
			fuzz_one_in(fuzz, 16) ? fuzz_next(fuzz) : DATA + fuzz_below(fuzz, 64) * 512,
			sizes[fuzz_below(fuzz, sizeof(sizes) / sizeof(sizes[0]))],
			(uint16_t)(NEXT | (i > count / 2 ? WRITE : fuzz_below(fuzz, 2) * WRITE)),
			(uint16_t)(i + 1)};
	table[count - 1].flags &= (uint16_t)~NEXT;
	test_give(test, 0, 0);
	if (test_used(test, 0)[1] != (uint16_t)(before + 1) &&
	    !(test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET))
		fail_msg("FUZZ_ROUND=%llu: a request that is lost", (unsigned long long)round);
}

static void random_requests(void **state)
{
	(void)state;
	fuzz_rounds(5000, round_of_requests);
	assert_int_equal(disk->size, SECTORS * DISK_SECTOR);
	assert_int_equal(lseek(open(path, O_RDONLY), 0, SEEK_END), SECTORS * DISK_SECTOR);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(raw),
		TEST(configuration),
		TEST(any_layout),
		TEST(no_requests),
		TEST(read_only),
		TEST(damaged_files),
		TEST(shrunk_file),
		TEST(qcow2),
		TEST(missing_program),
		TEST(random_requests),
	};

	close(mkstemp(path));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
