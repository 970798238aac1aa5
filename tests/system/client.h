/*
 * client: the other end of a connection, well behaved or not.
 *
 * Sockets are blocking with a deadline; whatever is not foreseen here fails the
 * test.  Addresses are as the daemon prints them: "127.0.0.1:4000", "[::1]:4000",
 * "unix:/path".
 */
#ifndef SYSTEM_CLIENT_H
#define SYSTEM_CLIENT_H

#include <stdbool.h>
#include <stddef.h>

/* How the peer ended the connection. */
enum client_end {
	CLIENT_OPEN, /* not at all, when the time was up */
	CLIENT_FIN,
	CLIENT_RST,
};

int client_connect(const char *address);

/* What connect(2) says: the socket, or -1 with errno.  source: a local address
 * to come from, or NULL; receive: the receive buffer's size, or 0. */
int client_try_connect(const char *address, const char *source, int receive);

void client_send(int fd, const void *bytes, size_t len);
void client_send_text(int fd, const char *text);

/* Sends until all is gone or the peer wants no more (CLIENT_RST). */
enum client_end client_pour(int fd, const void *bytes, size_t len);

void client_finish(int fd); /* closes our side only */
void client_reset(int fd);  /* closes with a reset */

/* Receives until the peer ends the connection, the room is used up or the time
 * (seconds) is. */
enum client_end client_receive(int fd, void *bytes, size_t room, size_t *len, double timeout);

/* Receives one line, its LF included, and puts a NUL behind it. */
void client_receive_line(int fd, char *line, size_t room);

/* The peer sends exactly this and then ends the connection so; closes fd. */
void client_expect(int fd, const char *text, enum client_end end);

/* The whole exchange of a sender that closes its side and waits for the other. */
void client_deliver(const char *address, const void *bytes, size_t len, enum client_end end);

/* Both directions' queues in the kernel are empty on the daemon's side: it has
 * read all that was sent from the port of this socket. */
void client_wait_read(int fd);

/* At most so many bytes of it are left there. */
void client_wait_unread(int fd, size_t most);

/* Waits until nobody listens there any more. */
void client_wait_refused(const char *address);

/* One line of receipt: "OK ID SIZE\n". */
void client_expect_ok(int fd, size_t size);

#endif
