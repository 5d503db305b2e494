/*
 * transport.h: what a migration travels on.
 *
 *   unix:PATH       a stream socket in the file system; the receiver listens
 *   tcp:HOST:PORT   HOST may be [IPv6] or empty (any address, to listen; this machine, to connect)
 *   file:PATH       a file, which is there under its name only once it is whole; or a device or FIFO that is
 * there already fd:N            a descriptor that this process was given: a socket goes both ways, anything
 * else one way
 *
 * A transport that goes one way has no return path. Reads and writes wait, but transport_cancel() of another
 * thread ends them (-ECANCELED), as does a time without any progress where transport_limit() has set one
 * (-ETIMEDOUT). One thread writes and one reads at a time. All functions return 0 (or what they say) or a
 * negative errno.
 */
#ifndef TRAPLINE_MIGRATE_TRANSPORT_H
#define TRAPLINE_MIGRATE_TRANSPORT_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum transport_kind { TRANSPORT_UNIX, TRANSPORT_TCP, TRANSPORT_FILE, TRANSPORT_FD };

struct transport_uri {
	enum transport_kind kind;
	const char *path; /* unix, file: borrowed from the text */
	char host[256], port[16];
	int fd;
};

/* 0, or -EINVAL with @why, one line. @uri borrows of @text. */
int transport_parse(struct transport_uri *uri, const char *text, char *why, size_t size);

#define TRANSPORT_SMALL 65536u

struct transport {
	int fd, cancel; /* cancel: an eventfd */
	bool two_way, is_socket;
	int limit_ms;                        /* time without progress; -1: any */
	const volatile sig_atomic_t *signal; /* set: waiting ends with -EINTR. May be NULL */
	char *file, *partial;                /* file:, while it is not whole */
	_Atomic uint64_t sent, received;
	/* Small pieces on their way out, and what was read ahead. */
	size_t out_size, in_at, in_size;
	uint8_t out[TRANSPORT_SMALL], in[TRANSPORT_SMALL];
};

/* An eventfd, with which somebody ends a wait for a connection: transport_cancel_fd(). */
int transport_cancel_new(void);
void transport_cancel_fd(int cancel);
/* What this side writes to, or, of a two-way transport, speaks with. Waits for the connection, not for the
 * other side's answer. @cancel: as above, which ends it with -ECANCELED (but not a name server that is asked
 * for tcp:); -1: none. @why as above. */
int transport_connect(struct transport **transport, const char *uri, int cancel, char *why, size_t size);

struct transport_listener {
	int fd, cancel;
	char *path;                          /* unix: to be removed */
	struct transport *only;              /* file, fd: the first that is accepted; there is no second */
	const volatile sig_atomic_t *signal; /* as above */
	bool tcp;
};

/* A socket that listens, or a file that can be read. */
int transport_listen(struct transport_listener **listener, const char *uri, char *why, size_t size);
/* Waits for the next connection, at most @limit_ms (-1: as long as it takes). */
int transport_accept(struct transport_listener *listener, struct transport **transport, int limit_ms);
void transport_listener_cancel(struct transport_listener *listener);
/* Where it listens, as a URI: with the port that the system has chosen for tcp:HOST:0. */
void transport_listener_uri(const struct transport_listener *listener, char *text, size_t size);
void transport_listener_free(struct transport_listener *listener); /* NULL is fine */

/* Writes all of it; what struct stream_sink wants. Small pieces wait for transport_flush(), or for more. */
int transport_write(void *transport, const void *bytes, size_t size);
int transport_flush(struct transport *transport);
/* Whether nothing waits for transport_flush(). */
static inline bool transport_flushed(const struct transport *transport) { return transport->out_size == 0; }
/* Reads exactly @size bytes; what struct stream_input wants: 1 where the other side has closed before the
 * first of them, -EPIPE where it did later. */
int transport_read(void *transport, void *to, size_t size);
/* Whether something can be read (1) within @limit_ms, or not (0). A closed connection can be read. */
int transport_poll(struct transport *transport, int limit_ms);

/* Sleeps. 0, -ECANCELED. */
int transport_rest(struct transport *transport, uint64_t ns);

/* The longest time without progress, of reads and writes from now on; -1: any. */
void transport_limit(struct transport *transport, int limit_ms);
/* Any thread: reads and writes end with -ECANCELED, now and later. */
void transport_cancel(struct transport *transport);
/* What was written is whole: a file gets its name, once it is on the disk. */
int transport_commit(struct transport *transport);
/* A file that is not whole is removed. NULL is fine. */
void transport_free(struct transport *transport);

#endif
