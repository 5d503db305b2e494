/* What migrations travel on: URIs, both ways, ends, limits, cancels, and files that are there only whole. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "migrate/migration.h"
#include "migrate/transport.h"
#include "vm/test.h"

static char why[256];

static void uris(void **state)
{
	static const char *const bad[] = {
		"",    "unix", "unix:",   "file:",   "tcp:",     "tcp:host", "tcp:h:x", "tcp:h:65536",
		"fd:", "fd:x", "fd:9999", "exec:rm", "tcp:h:-1", "UNIX:/x"};
	char path[300];
	struct transport_uri uri;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(transport_parse(&uri, bad[i], why, sizeof(why)), -EINVAL);
	assert_int_equal(transport_parse(&uri, "tcp:[::1]:77", why, sizeof(why)), 0);
	assert_string_equal(uri.host, "::1");
	assert_string_equal(uri.port, "77");
	assert_int_equal(transport_parse(&uri, "tcp::0", why, sizeof(why)), 0);
	assert_string_equal(uri.host, "");
	snprintf(path, sizeof(path), "unix:/%0200d", 0);
	assert_int_equal(transport_parse(&uri, path, why, sizeof(why)), -EINVAL);
	snprintf(path, sizeof(path), "file:/%0200d", 0);
	assert_int_equal(transport_parse(&uri, path, why, sizeof(why)), 0);
}

/* Two ends of a connection at @uri. */
static void connect_both(const char *uri, struct transport **a, struct transport **b)
{
	struct transport_listener *listener;
	char where[300];

	assert_int_equal(transport_listen(&listener, uri, why, sizeof(why)), 0);
	transport_listener_uri(listener, where, sizeof(where));
	assert_int_equal(transport_connect(a, where, -1, why, sizeof(why)), 0);
	assert_int_equal(transport_accept(listener, b, 1000), 0);
	transport_listener_free(listener);
}

static void both_ways(void **state)
{
	static const char *const uris_of[] = {"unix:/tmp/trapline-transport-test", "tcp:127.0.0.1:0"};
	static uint8_t big[300000], got[300000];

	(void)state;
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 7 + i / 256);
	for (unsigned i = 0; i < 2; i++) {
		struct transport *a, *b;

		connect_both(uris_of[i], &a, &b);
		assert_true(a->two_way && b->two_way);
		assert_int_equal(transport_poll(b, 0), 0);
		/* Small pieces wait, a large one takes them along, in order. */
		assert_int_equal(transport_write(a, "ab", 2), 0);
		assert_int_equal(transport_poll(b, 0), 0);
		assert_int_equal(transport_write(a, big, sizeof(big)), 0);
		assert_int_equal(transport_write(a, "c", 1), 0);
		assert_int_equal(transport_flush(a), 0);
		assert_int_equal(transport_read(b, got, 1), 0);
		assert_int_equal(got[0], 'a');
		assert_int_equal(transport_poll(b, 1000), 1);
		assert_int_equal(transport_read(b, got, 1), 0);
		assert_int_equal(transport_read(b, got, sizeof(big)), 0);
		assert_memory_equal(got, big, sizeof(big));
		assert_int_equal(transport_read(b, got, 1), 0);
		assert_int_equal(got[0], 'c');
		assert_int_equal(transport_write(b, "back", 4), 0);
		assert_int_equal(transport_flush(b), 0);
		assert_int_equal(transport_read(a, got, 4), 0);
		/* The end, and an end in the middle. */
		assert_int_equal(transport_write(a, "xyz", 3), 0);
		assert_int_equal(transport_flush(a), 0);
		transport_free(a);
		assert_int_equal(transport_read(b, got, 2), 0);
		assert_int_equal(transport_read(b, got, 2), -EPIPE);
		assert_int_equal(transport_read(b, got, 2), 1);
		transport_free(b);
	}
}

static void *cancel_soon(void *owner)
{
	usleep(50000);
	transport_cancel(owner);
	return NULL;
}

static void ends_of_waiting(void **state)
{
	static uint8_t big[64 << 20];
	struct transport *a, *b;
	pthread_t thread;

	(void)state;
	connect_both("tcp:127.0.0.1:0", &a, &b);
	transport_limit(b, 20);
	assert_int_equal(transport_read(b, big, 1), -ETIMEDOUT);
	transport_limit(a, 20);
	assert_int_equal(transport_write(a, big, sizeof(big)), -ETIMEDOUT);
	transport_free(b);
	transport_free(a);
	connect_both("tcp:127.0.0.1:0", &a, &b);
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, b), 0);
	assert_int_equal(transport_read(b, big, 1), -ECANCELED);
	pthread_join(thread, NULL);
	assert_int_equal(transport_rest(b, 1000000000), -ECANCELED);
	transport_free(a);
	transport_free(b);
}

/* The name of a file is there once all of it is; what was there before stays until then. */
static void files(void **state)
{
	char path[] = "/tmp/trapline-transport-XXXXXX", uri[64], partial[64], got[8];
	struct transport_listener *listener;
	struct transport *transport;
	struct stat status;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "old", 3), 3);
	close(fd);
	snprintf(uri, sizeof(uri), "file:%s", path);
	snprintf(partial, sizeof(partial), "%s.partial", path);
	for (unsigned whole = 0; whole < 2; whole++) {
		assert_int_equal(transport_connect(&transport, uri, -1, why, sizeof(why)), 0);
		assert_false(transport->two_way);
		assert_int_equal(transport_write(transport, "newer", 5), 0);
		assert_int_equal(stat(partial, &status), 0);
		assert_int_equal(stat(path, &status), 0);
		assert_int_equal(status.st_size, 3);
		if (whole)
			assert_int_equal(transport_commit(transport), 0);
		transport_free(transport);
		assert_int_equal(stat(partial, &status), -1);
	}
	assert_int_equal(transport_listen(&listener, uri, why, sizeof(why)), 0);
	assert_int_equal(transport_accept(listener, &transport, -1), 0);
	assert_int_equal(transport_read(transport, got, 5), 0);
	assert_memory_equal(got, "newer", 5);
	transport_free(transport);
	assert_int_equal(transport_accept(listener, &transport, -1), -ENOTCONN);
	transport_listener_free(listener);
	unlink(path);
	assert_int_equal(transport_connect(&transport, "file:/dev/full", -1, why, sizeof(why)), 0);
	assert_int_equal(transport_write(transport, "x", 1), 0);
	assert_int_equal(transport_commit(transport), -ENOSPC);
	transport_free(transport);
}

/* A name that was left behind is taken; one where somebody listens is not. */
static void stale_names(void **state)
{
	const char *uri = "unix:/tmp/trapline-transport-stale";
	struct transport_listener *first, *second;

	(void)state;
	assert_int_equal(transport_listen(&first, uri, why, sizeof(why)), 0);
	assert_int_equal(transport_listen(&second, uri, why, sizeof(why)), -EADDRINUSE);
	close(first->fd); /* as of a process that was killed */
	assert_int_equal(transport_listen(&second, uri, why, sizeof(why)), 0);
	transport_listener_free(second);
	first->fd = -1;
	transport_listener_free(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(uris), cmocka_unit_test(both_ways),
					   cmocka_unit_test(ends_of_waiting), cmocka_unit_test(files),
					   cmocka_unit_test(stale_names)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
