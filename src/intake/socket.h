/*
 * socket: listening sockets, bound as the configuration says.
 *
 * Opened by the main thread, as many for each address as there are workers
 * (SO_REUSEPORT); a unix socket is one that all share, and so is one that the service
 * manager has handed over (given.h), in place of what the configuration says.  A socket
 * belongs to its address: a configuration that has the address, too, goes on with the very same
 * descriptors, whatever its listener is called.
 */
#ifndef INTAKE_SOCKET_H
#define INTAKE_SOCKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "config/config.h"

struct evconnlistener;
struct listener;

struct socket {
	struct socket *next;
	unsigned references;             /* groups of listeners that have it */
	struct sockaddr_storage address; /* as bound: a port of 0 is replaced */
	socklen_t address_len;
	char text[128];                  /* for the log: "127.0.0.1:11000", "unix:/path" */
	char *listener;                  /* the name of whoever had it last */
	bool any_port;                   /* the kernel picked the port */
	bool shared;
	int given;                       /* the service manager's descriptor, which listens
					  * already and stays; -1: it is ours */
	bool leaving;                    /* no configuration in force has it */
	bool announced;                  /* the log knows it by its listener's name */
	unsigned round;                  /* of the last opening that took it */
	int backlog;                     /* 0: does not listen yet */
	bool keepalive, nodelay;
	int *fds;                           /* one a worker; the same one for all where shared */
	struct evconnlistener **acceptors;  /* one a worker, which it belongs to */
	_Atomic unsigned holders;           /* of a shared one: workers that have it */
	char *unlink_path;                  /* of a unix socket, removed at the end, ... */
	dev_t device;                       /* ... if it is still ours */
	ino_t inode;
};

/* All that there are, for those who look for theirs. */
struct sockets {
	struct socket *first;
	unsigned n_workers;
	unsigned round; /* raised before the listeners of a configuration are opened */
};

struct socket_set {
	struct socket **items;
	size_t count;
};

/* Opens all sockets of a listener, or takes those that are there already; they are
 * bound, and listening only after socket_set_listen, so that nobody is kept waiting by
 * a start that fails.  0, or an exit code of sysexits.h, having logged address, port
 * and reason; the set is to be closed in any case. */
int socket_set_open(struct sockets *all, struct socket_set *set, const struct config *config,
		    const struct config_listener *listener);
int socket_set_listen(struct sockets *all, struct socket_set *set,
		      const struct config_listener *listener);

/* For sockets that were there already: their name, and what the listener says of them. */
void socket_set_adjust(struct sockets *all, struct socket_set *set,
		       const struct config_listener *listener);

/* Says where it listens, for people. */
void socket_say(const struct socket *socket, const struct config_listener *listener);

/* The listener goes; sockets that nobody has any more are closed and freed. */
void socket_set_close(struct sockets *all, struct socket_set *set);

/* Marks what the last round has not taken: it is to be left by the workers.  Names in
 * the file system go at once. */
void sockets_leave(struct sockets *all);

/* From a worker: those who try to connect from now on are not heard, so that nobody is
 * connected when the socket closes.  They try again, and are refused then. */
void socket_deafen(struct socket *socket, unsigned worker);

/* From a worker: it has done with the socket. */
void socket_release(struct socket *socket, unsigned worker);

#endif
