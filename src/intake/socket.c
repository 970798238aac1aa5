/*
 * socket: see socket.h.
 *
 * The first socket of an address is bound without SO_REUSEPORT, so that a port
 * that anybody else holds is found out, even if that is another cisternd; only
 * then is the option set on it, and its siblings join.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/log.h"
#include "base/net.h"
#include "intake/given.h"
#include "intake/socket.h"

static int
complain(const struct config_listener *listener, const char *text, const char *what)
{
	int error = errno;
	const char *hint = "";

	if (error == EADDRINUSE)
		hint = "; another program has it: `ss -ltnp` shows which";
	else if (error == EACCES)
		hint = "; a port below 1024 takes root, CAP_NET_BIND_SERVICE or a socket unit, a "
		       "path the right to its directory; where `user` has given root up, as it "
		       "has at a reload, only a restart helps";
	else if (error == EADDRNOTAVAIL)
		hint = "; no interface of this machine has that address";
	log_event(LOG_LEVEL_ERROR, "listen-failed", "listener %s: cannot %s %s: %s%s", listener->name,
		  what, text, strerror(error), hint);
	return error == EACCES || error == EPERM ? EX_NOPERM : EX_OSERR;
}

static struct socket *
socket_set_add(struct socket_set *set)
{
	struct socket *items = realloc(set->items, (set->count + 1) * sizeof(*items));
	struct socket *socket;
	unsigned i;

	if (items == NULL)
		return NULL;
	set->items = items;
	socket = &items[set->count];
	*socket = (struct socket){0};
	socket->fds = malloc(set->n_workers * sizeof(int));
	if (socket->fds == NULL)
		return NULL;
	for (i = 0; i < set->n_workers; i++)
		socket->fds[i] = -1;
	set->count++;
	return socket;
}

static int
set_option(int fd, int level, int option)
{
	int on = 1;

	return setsockopt(fd, level, option, &on, sizeof(on));
}

/* One more bound socket for an address; the first one fixes the port. */
static int
bind_one(struct socket *s, const struct config_listener *listener, bool first)
{
	int fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	/* Options that accepted sockets inherit on Linux save a call for each. */
	if (set_option(fd, SOL_SOCKET, SO_REUSEADDR) == -1 ||
	    (listener->keepalive && set_option(fd, SOL_SOCKET, SO_KEEPALIVE) == -1) ||
	    (listener->reply != CONFIG_REPLY_NONE && set_option(fd, IPPROTO_TCP, TCP_NODELAY) == -1) ||
	    (s->address.ss_family == AF_INET6 && set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == -1) ||
	    (!first && set_option(fd, SOL_SOCKET, SO_REUSEPORT) == -1) ||
	    bind(fd, (struct sockaddr *)&s->address, s->address_len) == -1 ||
	    (first && set_option(fd, SOL_SOCKET, SO_REUSEPORT) == -1) ||
	    getsockname(fd, (struct sockaddr *)&s->address, &s->address_len) == -1) {
		int error = errno;

		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

/* Binds one internet address for all workers.  With optional, an address family
 * that this machine lacks is passed over (returns -1). */
static int
open_inet(struct socket_set *set, const struct config_listener *listener, const struct sockaddr *address,
	  socklen_t len, bool optional)
{
	struct socket *s = socket_set_add(set);
	unsigned i;

	if (s == NULL)
		return complain(listener, "its addresses", "remember");
	memcpy(&s->address, address, len);
	s->address_len = len;
	for (i = 0; i < set->n_workers; i++) {
		s->fds[i] = bind_one(s, listener, i == 0);
		net_sockaddr_text((struct sockaddr *)&s->address, s->text, sizeof(s->text));
		if (s->fds[i] != -1)
			continue;
		if (optional && i == 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
			free(s->fds);
			set->count--;
			return -1;
		}
		return complain(listener, s->text, "bind");
	}
	return 0;
}

static int
open_unix(struct socket_set *set, const struct config_listener *listener, const char *path)
{
	struct socket *s = socket_set_add(set);
	struct sockaddr_un *un;
	struct stat st;
	int probe;
	unsigned i;

	if (s == NULL)
		return complain(listener, "its addresses", "remember");
	s->shared = true;
	un = (struct sockaddr_un *)&s->address;
	un->sun_family = AF_UNIX;
	snprintf(un->sun_path, sizeof(un->sun_path), "%s", path);
	s->address_len = sizeof(*un);
	snprintf(s->text, sizeof(s->text), "unix:%s", path);
	/* A socket that nobody listens on is what a crash left behind. */
	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode)) {
		probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		if (probe == -1)
			return complain(listener, s->text, "probe");
		if (connect(probe, (struct sockaddr *)un, s->address_len) == -1 &&
		    errno == ECONNREFUSED && unlink(path) == 0)
			log_event(LOG_LEVEL_NOTICE, "stale-socket",
				  "listener %s: removed %s, which nobody listened on",
				  listener->name, s->text);
		close(probe);
	}
	s->fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fds[0] == -1 || bind(s->fds[0], (struct sockaddr *)un, s->address_len) == -1)
		return complain(listener, s->text, "bind");
	for (i = 1; i < set->n_workers; i++)
		s->fds[i] = s->fds[0];
	s->unlink_path = strdup(path);
	if (s->unlink_path == NULL ||
	    /* not where a link would lead */
	    fchmodat(AT_FDCWD, path, 0666, AT_SYMLINK_NOFOLLOW) == -1 || lstat(path, &st) == -1)
		return complain(listener, s->text, "prepare");
	s->device = st.st_dev;
	s->inode = st.st_ino;
	return 0;
}

static void
set_port(struct sockaddr_storage *address, int port)
{
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
	else
		((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
}

/* The address of a text that the configuration has checked. */
static socklen_t
parse_address(const char *text, struct sockaddr_storage *address)
{
	struct sockaddr_in *in = (struct sockaddr_in *)address;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)address;
	char copy[INET6_ADDRSTRLEN + IF_NAMESIZE + 2], *scope;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		return sizeof(*in);
	}
	snprintf(copy, sizeof(copy), "%s", text[0] == '[' ? text + 1 : text);
	copy[strcspn(copy, "]")] = '\0';
	if ((scope = strchr(copy, '%')) != NULL)
		*scope++ = '\0';
	if (inet_pton(AF_INET6, copy, &in6->sin6_addr) != 1)
		return 0;
	in6->sin6_family = AF_INET6;
	if (scope != NULL) {
		in6->sin6_scope_id = if_nametoindex(scope);
		if (in6->sin6_scope_id == 0)
			in6->sin6_scope_id = (uint32_t)strtoul(scope, NULL, 10);
	}
	return sizeof(*in6);
}

/* Both families of "*" or "localhost", on one port even when the kernel picks it. */
static int
open_both(struct socket_set *set, const struct config_listener *listener, const char *v4, const char *v6)
{
	struct sockaddr_storage address;
	socklen_t len = parse_address(v6, &address);
	int port = listener->port, code;
	bool has_v6;

	set_port(&address, port);
	code = open_inet(set, listener, (struct sockaddr *)&address, len, true);
	if (code > 0)
		return code;
	has_v6 = code == 0;
	if (has_v6)
		port = ntohs(((struct sockaddr_in6 *)&set->items[set->count - 1].address)->sin6_port);
	len = parse_address(v4, &address);
	set_port(&address, port);
	code = open_inet(set, listener, (struct sockaddr *)&address, len, has_v6);
	return code == -1 ? 0 : code;
}

/* One that the service manager has handed over, under a descriptor of our own. */
static int
open_given(struct socket_set *set, const struct config_listener *listener, int given)
{
	struct socket *s = socket_set_add(set);
	int on = listener->keepalive, now = listener->reply != CONFIG_REPLY_NONE;
	unsigned i;

	if (s == NULL)
		return complain(listener, "its addresses", "remember");
	s->shared = s->given = true;
	snprintf(s->text, sizeof(s->text), "a given socket");
	s->address_len = sizeof(s->address);
	s->fds[0] = fcntl(given, F_DUPFD_CLOEXEC, 0);
	if (s->fds[0] == -1 ||
	    getsockname(s->fds[0], (struct sockaddr *)&s->address, &s->address_len) == -1)
		return complain(listener, s->text, "take");
	net_sockaddr_text((struct sockaddr *)&s->address, s->text, sizeof(s->text));
	for (i = 1; i < set->n_workers; i++)
		s->fds[i] = s->fds[0];
	if (s->address.ss_family != AF_UNIX &&
	    (setsockopt(given, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == -1 ||
	     setsockopt(given, IPPROTO_TCP, TCP_NODELAY, &now, sizeof(now)) == -1))
		return complain(listener, s->text, "set options of");
	return 0;
}

int
socket_set_open(struct socket_set *set, const struct config_listener *listener, unsigned n_workers)
{
	struct sockaddr_storage address;
	socklen_t len;
	size_t i, at = 0;
	int given, code;

	*set = (struct socket_set){.n_workers = n_workers};
	while ((given = given_next(listener->name, &at)) != -1)
		if ((code = open_given(set, listener, given)) != 0) {
			socket_set_close(set);
			return code;
		}
	if (set->count > 0)
		return 0;
	for (i = 0; i < listener->address.count; i++) {
		const char *text = listener->address.items[i];

		if (strncmp(text, "unix:", 5) == 0) {
			code = open_unix(set, listener, text + 5);
		} else if (strcmp(text, "*") == 0) {
			code = open_both(set, listener, "0.0.0.0", "::");
		} else if (strcmp(text, "localhost") == 0) {
			code = open_both(set, listener, "127.0.0.1", "::1");
		} else if ((len = parse_address(text, &address)) != 0) {
			set_port(&address, listener->port);
			code = open_inet(set, listener, (struct sockaddr *)&address, len, false);
		} else {
			errno = EINVAL;
			code = complain(listener, text, "understand");
		}
		if (code != 0) {
			socket_set_close(set);
			return code;
		}
	}
	return 0;
}

int
socket_set_listen(struct socket_set *set, const struct config_listener *listener)
{
	size_t i;
	unsigned w;

	for (i = 0; i < set->count; i++)
		for (w = 0; !set->items[i].given && w < (set->items[i].shared ? 1 : set->n_workers); w++)
			if (listen(set->items[i].fds[w], listener->backlog) == -1)
				return complain(listener, set->items[i].text, "listen on");
	return 0;
}

void
socket_say(const struct socket *socket, const struct config_listener *listener)
{
	if (socket->given)
		log_event(LOG_LEVEL_INFO, "listening", "listener %s on %s (of the service manager)",
			  listener->name, socket->text);
	else
		log_event(LOG_LEVEL_INFO, "listening", "listener %s on %s (backlog %d)",
			  listener->name, socket->text, listener->backlog);
}

void
socket_set_close(struct socket_set *set)
{
	struct stat st;
	size_t i;
	unsigned w;

	for (i = 0; i < set->count; i++) {
		struct socket *s = &set->items[i];

		for (w = 0; w < (s->shared ? 1 : set->n_workers); w++)
			if (s->fds[w] != -1)
				close(s->fds[w]);
		if (s->unlink_path != NULL && lstat(s->unlink_path, &st) == 0 &&
		    st.st_dev == s->device && st.st_ino == s->inode)
			unlink(s->unlink_path);
		free(s->unlink_path);
		free(s->fds);
	}
	free(set->items);
	*set = (struct socket_set){0};
}
