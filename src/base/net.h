/*
 * net: socket addresses as cistern prints them, and the small dances around
 * sockets that the standard library leaves to everyone.
 */
#ifndef BASE_NET_H
#define BASE_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* "[0123:4567:89ab:cdef:0123:4567:255.255.255.255%4294967295]:65535" and a NUL */
#define NET_TEXT_LEN 80

/* An internet address, or AF_UNIX for "some local process" (whose pid we know). */
struct net_address {
	union {
		sa_family_t family;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct {
			sa_family_t family;
			uint32_t pid;
		} unix_peer;
	};
};

/* From what accept or getsockname gave; IPv4-mapped IPv6 becomes IPv4. */
void net_address_set(struct net_address *address, const struct sockaddr *sa);

/* Which process has connected to a local socket; else does nothing. */
void net_address_ask(struct net_address *address, int fd);

/* "192.0.2.1:5140", "[2001:db8::1]:5140", "unix" or "unix:PID".  Returns the length. */
int net_address_text(const struct net_address *address, char text[NET_TEXT_LEN]);

/* Reads back what net_address_text wrote.  0, or -1: it is none of it (and *address is
 * of no family, which is written as "unknown"). */
int net_address_parse(const char *text, struct net_address *address);

/* The same for a listening address, "unix:/path" included (text of any length; in a
 * sockaddr_storage that was all zero before getsockname filled it). */
void net_sockaddr_text(const struct sockaddr *sa, char *text, size_t size);

/* Closes with a reset instead of a FIN. */
void net_reset(int fd);

/* Whether a close, also the kernel's when the process is killed, is a reset.  Connections
 * have it from their listening socket (Linux): nobody shall take the close of a daemon
 * that was killed for a receipt.  -1: errno */
int net_close_resets(int fd, bool on);

/* Urgent bytes (MSG_OOB) are bytes of the stream like any other; else the kernel takes each
 * out of it.  TCP connections have it from their listening socket.  -1: errno */
int net_keep_urgent(int fd);

/* Everybody may connect to the local socket of this path; not where a link would lead.
 * -1: errno */
int net_let_all(const char *path);

/* Closes in order (FIN). */
void net_close(int fd);

#endif
