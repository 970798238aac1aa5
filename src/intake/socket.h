/*
 * socket: listening sockets, bound as the configuration says.
 *
 * Opened by the main thread before any worker runs, as many for each address
 * as there are workers (SO_REUSEPORT); a unix socket is one that all share, and so
 * is one that the service manager has handed over (given.h), in place of what the
 * configuration says.
 */
#ifndef INTAKE_SOCKET_H
#define INTAKE_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "config/config.h"

struct socket {
	struct sockaddr_storage address; /* as bound: a port of 0 is replaced */
	socklen_t address_len;
	char text[128];  /* for the log: "127.0.0.1:11000", "unix:/path" */
	int *fds;        /* one a worker; the same one for all where shared */
	bool shared;
	bool given;      /* it is the service manager's: listens already, and stays */
	char *unlink_path; /* of a unix socket, removed at the end, ... */
	dev_t device;      /* ... if it is still ours */
	ino_t inode;
};

struct socket_set {
	struct socket *items;
	size_t count;
	unsigned n_workers;
};

/* Opens all sockets of a listener; they are bound, and listening only after
 * socket_set_listen, so that nobody is kept waiting by a start that fails.
 * 0, or an exit code of sysexits.h, having logged address, port and reason. */
int socket_set_open(struct socket_set *set, const struct config_listener *listener,
		    unsigned n_workers);
int socket_set_listen(struct socket_set *set, const struct config_listener *listener);

/* Says where it listens, for people. */
void socket_say(const struct socket *socket, const struct config_listener *listener);

/* Closes what no worker has taken over (fd not -1), removes unix sockets. */
void socket_set_close(struct socket_set *set);

#endif
