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
#include <linux/filter.h>
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

#include <event2/listener.h>

#include "base/log.h"
#include "base/net.h"
#include "intake/given.h"
#include "intake/socket.h"

/* Whether a path leads to this local socket, as far as we may look. */
static bool
is_at(const struct socket *s, const char *path)
{
	struct stat st;

	if (s->unlink_path == NULL || lstat(path, &st) == -1)
		return s->unlink_path != NULL && errno != ENOENT && strcmp(s->unlink_path, path) == 0;
	return st.st_dev == s->device && st.st_ino == s->inode;
}

static void
socket_unlink(struct socket *s)
{
	if (is_at(s, s->unlink_path))
		unlink(s->unlink_path);
	free(s->unlink_path);
	s->unlink_path = NULL;
}

static int
complain(const struct config_listener *listener, const char *text, const char *what)
{
	int error = errno;
	const char *hint = "";

	if (error == EADDRINUSE && strncmp(text, "unix:", 5) == 0)
		hint = "; another listener or program has it (`ss -lxp` shows), or what lies there "
		       "is no socket";
	else if (error == EADDRINUSE)
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

static void
socket_free(struct sockets *all, struct socket *s)
{
	struct socket **at = &all->first;
	unsigned w;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	for (w = 0; w < all->n_workers; w++)
		socket_release(s, w);
	socket_unlink(s);
	free(s->fds);
	free(s->acceptors);
	free(s->listener);
	free(s);
}

/* What the set has from now on. */
static int
socket_set_add(struct sockets *all, struct socket_set *set, struct socket *socket)
{
	struct socket **items = realloc(set->items, (set->count + 1) * sizeof(struct socket *));

	if (items == NULL)
		return -1;
	set->items = items;
	set->items[set->count++] = socket;
	socket->references++;
	socket->round = all->round;
	return 0;
}

static struct socket *
socket_new(struct sockets *all, struct socket_set *set, const struct config_listener *listener)
{
	struct socket *s = calloc(1, sizeof(*s));
	unsigned i;

	if (s == NULL)
		return NULL;
	s->given = -1;
	s->next = all->first;
	all->first = s;
	s->keepalive = listener->keepalive;
	s->nodelay = listener->reply != CONFIG_REPLY_NONE;
	s->listener = strdup(listener->name);
	s->fds = malloc(all->n_workers * sizeof(int));
	s->acceptors = calloc(all->n_workers, sizeof(struct evconnlistener *));
	for (i = 0; s->fds != NULL && i < all->n_workers; i++)
		s->fds[i] = -1;
	if (s->fds == NULL || s->acceptors == NULL || s->listener == NULL ||
	    socket_set_add(all, set, s) == -1) {
		socket_free(all, s);
		return NULL;
	}
	return s;
}

static int
set_option(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

static in_port_t
port_of(const struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
					      : ((const struct sockaddr_in *)address)->sin_port;
}

/* Whether the addresses are the same but for the port. */
static bool
same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a;
	const struct sockaddr_in6 *b6 = (const struct sockaddr_in6 *)b;

	if (a->ss_family != b->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)b)->sin_addr.s_addr;
	return memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr)) == 0 &&
	       a6->sin6_scope_id == b6->sin6_scope_id;
}

static bool
is_wildcard(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET)
		return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
	return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* The socket of this address that is there already and that nobody has taken in this
 * round.  A listener that leaves the port to the kernel gets what it got before. */
static struct socket *
find_inet(const struct sockets *all, const struct config_listener *listener,
	  const struct sockaddr_storage *address)
{
	struct socket *s;

	for (s = all->first; s != NULL; s = s->next) {
		if (s->leaving || s->given != -1 || s->round == all->round ||
		    !same_host(&s->address, address))
			continue;
		if (port_of(address) != 0 ? port_of(&s->address) == port_of(address)
					  : s->any_port && strcmp(s->listener, listener->name) == 0)
			return s;
	}
	return NULL;
}

/* One that a path leads to, by this name or another; what somebody removed is nowhere. */
static struct socket *
find_unix(const struct sockets *all, const char *path)
{
	struct socket *s;

	for (s = all->first; s != NULL && !is_at(s, path);)
		s = s->next;
	return s;
}

/* Whether a socket of ours that is about to go stands in the way: "*" before an address
 * of the same port, or the other way round. */
static bool
is_in_the_way(const struct sockets *all, const struct sockaddr_storage *address)
{
	const struct socket *s;

	for (s = all->first; s != NULL; s = s->next)
		if (s->round != all->round && s->address.ss_family == address->ss_family &&
		    port_of(&s->address) == port_of(address) &&
		    (same_host(&s->address, address) || is_wildcard(&s->address) ||
		     is_wildcard(address)))
			return true;
	return false;
}

/* One more bound socket for an address; the first one fixes the port. */
static int
bind_one(struct socket *s, bool first)
{
	int fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	/* Options that accepted sockets inherit on Linux save a call for each. */
	if (set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) == -1 || net_close_resets(fd, true) == -1 ||
	    net_keep_urgent(fd) == -1 ||
	    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, s->keepalive) == -1 ||
	    (s->nodelay && set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1) == -1) ||
	    (s->address.ss_family == AF_INET6 && set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) == -1) ||
	    (!first && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) == -1) ||
	    bind(fd, (struct sockaddr *)&s->address, s->address_len) == -1 ||
	    (first && set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1) == -1) ||
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
open_inet(struct sockets *all, struct socket_set *set, const struct config_listener *listener,
	  const struct sockaddr_storage *address, socklen_t len, bool optional)
{
	struct socket *s = find_inet(all, listener, address);
	bool alone;
	unsigned i;

	if (s != NULL && socket_set_add(all, set, s) == 0)
		return 0;
	if (s != NULL || (s = socket_new(all, set, listener)) == NULL)
		return complain(listener, "its addresses", "remember");
	memcpy(&s->address, address, len);
	s->address_len = len;
	s->any_port = listener->port == 0;
	alone = port_of(address) == 0 || !is_in_the_way(all, address);
	for (i = 0; i < all->n_workers; i++) {
		s->fds[i] = bind_one(s, i == 0 && alone);
		net_sockaddr_text((struct sockaddr *)&s->address, s->text, sizeof(s->text));
		if (s->fds[i] != -1)
			continue;
		if (optional && i == 0 && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
			set->count--;
			socket_free(all, s);
			return -1;
		}
		return complain(listener, s->text, "bind");
	}
	return 0;
}

static int
open_unix(struct sockets *all, struct socket_set *set, const struct config_listener *listener,
	  const char *path)
{
	struct socket *s = find_unix(all, path);
	struct sockaddr_un *un;
	struct stat st;
	int probe;
	unsigned i;

	/* It may be bound and not listen yet, as if a crash had left it behind. */
	if (s != NULL && (s->round == all->round || strcmp(s->unlink_path, path) != 0)) {
		errno = EADDRINUSE;
		return complain(listener, s->text, "bind");
	}
	if (s != NULL && socket_set_add(all, set, s) == 0)
		return 0;
	if (s != NULL || (s = socket_new(all, set, listener)) == NULL)
		return complain(listener, "its addresses", "remember");
	s->shared = true;
	atomic_init(&s->holders, 1);
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
	for (i = 1; i < all->n_workers; i++)
		s->fds[i] = s->fds[0];
	atomic_store(&s->holders, all->n_workers);
	s->unlink_path = strdup(path);
	if (s->unlink_path == NULL || lstat(path, &st) == -1)
		return complain(listener, s->text, "prepare");
	/* From here on what fails removes it. */
	s->device = st.st_dev;
	s->inode = st.st_ino;
	return net_let_all(path) == -1 ? complain(listener, s->text, "prepare") : 0;
}

static struct socket *
find_given(const struct sockets *all, int given)
{
	struct socket *s;

	for (s = all->first; s != NULL && s->given != given;)
		s = s->next;
	return s;
}

/* One that the service manager has handed over, under a descriptor of our own. */
static int
open_given(struct sockets *all, struct socket_set *set, const struct config_listener *listener,
	   int given)
{
	struct socket *s = find_given(all, given);
	unsigned i;

	if (s != NULL && socket_set_add(all, set, s) == 0)
		return 0;
	if (s != NULL || (s = socket_new(all, set, listener)) == NULL)
		return complain(listener, "its addresses", "remember");
	s->shared = true;
	s->given = given;
	s->backlog = -1; /* the manager's */
	atomic_init(&s->holders, 1);
	snprintf(s->text, sizeof(s->text), "a given socket");
	s->address_len = sizeof(s->address);
	s->fds[0] = fcntl(given, F_DUPFD_CLOEXEC, 0);
	if (s->fds[0] == -1 ||
	    getsockname(s->fds[0], (struct sockaddr *)&s->address, &s->address_len) == -1)
		return complain(listener, s->text, "take");
	net_sockaddr_text((struct sockaddr *)&s->address, s->text, sizeof(s->text));
	for (i = 1; i < all->n_workers; i++)
		s->fds[i] = s->fds[0];
	atomic_store(&s->holders, all->n_workers);
	if (set_option(given, SOL_SOCKET, SO_KEEPALIVE, s->keepalive) == -1 ||
	    net_close_resets(given, true) == -1 || net_keep_urgent(given) == -1 ||
	    (s->address.ss_family != AF_UNIX &&
	     set_option(given, IPPROTO_TCP, TCP_NODELAY, s->nodelay) == -1))
		return complain(listener, s->text, "set options of");
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
open_both(struct sockets *all, struct socket_set *set, const struct config_listener *listener,
	  const char *v4, const char *v6)
{
	struct sockaddr_storage address;
	socklen_t len = parse_address(v6, &address);
	int port = listener->port, code;
	bool has_v6;

	set_port(&address, port);
	code = open_inet(all, set, listener, &address, len, true);
	if (code > 0)
		return code;
	has_v6 = code == 0;
	if (has_v6)
		port = ntohs(port_of(&set->items[set->count - 1]->address));
	len = parse_address(v4, &address);
	set_port(&address, port);
	code = open_inet(all, set, listener, &address, len, has_v6);
	return code == -1 ? 0 : code;
}

int
socket_set_open(struct sockets *all, struct socket_set *set, const struct config *config,
		const struct config_listener *listener)
{
	struct sockaddr_storage address;
	socklen_t len;
	size_t i, at = 0;
	int given, code;

	while ((given = given_next(config, listener, &at)) != -1)
		if ((code = open_given(all, set, listener, given)) != 0)
			return code;
	if (set->count > 0)
		return 0;
	for (i = 0; i < listener->address.count; i++) {
		const char *text = listener->address.items[i];

		if (strncmp(text, "unix:", 5) == 0) {
			code = open_unix(all, set, listener, text + 5);
		} else if (strcmp(text, "*") == 0) {
			code = open_both(all, set, listener, "0.0.0.0", "::");
		} else if (strcmp(text, "localhost") == 0) {
			code = open_both(all, set, listener, "127.0.0.1", "::1");
		} else if ((len = parse_address(text, &address)) != 0) {
			set_port(&address, listener->port);
			code = open_inet(all, set, listener, &address, len, false);
		} else {
			errno = EINVAL;
			code = complain(listener, text, "understand");
		}
		if (code != 0)
			return code;
	}
	return 0;
}

static int
listen_on(struct socket *s, unsigned n_workers, int backlog)
{
	unsigned w;

	for (w = 0; w < (s->shared ? 1 : n_workers); w++)
		if (listen(s->fds[w], backlog) == -1)
			return -1;
	s->backlog = backlog;
	return 0;
}

int
socket_set_listen(struct sockets *all, struct socket_set *set, const struct config_listener *listener)
{
	size_t i;

	for (i = 0; i < set->count; i++)
		if (set->items[i]->backlog == 0 &&
		    listen_on(set->items[i], all->n_workers, listener->backlog) == -1)
			return complain(listener, set->items[i]->text, "listen on");
	return 0;
}

static int
adjust(struct sockets *all, struct socket *s, const struct config_listener *listener)
{
	bool nodelay = listener->reply != CONFIG_REPLY_NONE;
	int result = 0;
	unsigned w;
	char *name;

	if (strcmp(s->listener, listener->name) != 0 && (name = strdup(listener->name)) != NULL) {
		free(s->listener);
		s->listener = name;
		s->announced = false;
	}
	if (s->given == -1 && s->backlog != listener->backlog)
		result |= listen_on(s, all->n_workers, listener->backlog);
	for (w = 0; w < (s->shared ? 1 : all->n_workers); w++) {
		if (s->keepalive != listener->keepalive)
			result |= set_option(s->fds[w], SOL_SOCKET, SO_KEEPALIVE,
					     listener->keepalive);
		if (s->nodelay != nodelay && s->address.ss_family != AF_UNIX)
			result |= set_option(s->fds[w], IPPROTO_TCP, TCP_NODELAY, nodelay);
	}
	s->keepalive = listener->keepalive;
	s->nodelay = nodelay;
	return result;
}

void
socket_set_adjust(struct sockets *all, struct socket_set *set, const struct config_listener *listener)
{
	size_t i;

	for (i = 0; i < set->count; i++)
		if (adjust(all, set->items[i], listener) != 0)
			log_event(LOG_LEVEL_WARNING, "listen-failed",
				  "listener %s: cannot change the backlog or options of %s: %s; it "
				  "goes on with those that it had",
				  listener->name, set->items[i]->text, strerror(errno));
}

void
socket_say(const struct socket *s, const struct config_listener *listener)
{
	if (s->given != -1)
		log_event_with(LOG_LEVEL_INFO, "listening", LOG_FIELDS(LOG_TEXT("address", s->text)),
			       "listener %s on %s (of the service manager)", listener->name, s->text);
	else
		log_event_with(LOG_LEVEL_INFO, "listening", LOG_FIELDS(LOG_TEXT("address", s->text)),
			       "listener %s on %s (backlog %d)", listener->name, s->text,
			       listener->backlog);
}

void
socket_set_close(struct sockets *all, struct socket_set *set)
{
	size_t i;

	for (i = 0; i < set->count; i++)
		if (--set->items[i]->references == 0)
			socket_free(all, set->items[i]);
	free(set->items);
	*set = (struct socket_set){0};
}

void
sockets_leave(struct sockets *all)
{
	struct socket *s;

	for (s = all->first; s != NULL; s = s->next) {
		if (s->leaving || s->round == all->round)
			continue;
		s->leaving = true;
		socket_unlink(s);
	}
}

void
socket_deafen(struct socket *s, unsigned worker)
{
	/* A TCP header's flags are its byte 13; 2 is SYN. */
	static struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	const struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	/* Somebody else may hold a shared one and go on listening. */
	if (s->shared || s->fds[worker] == -1)
		return;
	if (setsockopt(s->fds[worker], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == -1)
		log_event(LOG_LEVEL_DEBUG, "listener-left", "%s: no filter: %s", s->text,
			  strerror(errno)); /* a client may be reset, then */
}

void
socket_release(struct socket *s, unsigned worker)
{
	if (s->acceptors != NULL && s->acceptors[worker] != NULL)
		evconnlistener_free(s->acceptors[worker]);
	if (s->acceptors != NULL)
		s->acceptors[worker] = NULL;
	if (s->fds == NULL || s->fds[worker] == -1)
		return;
	if (!s->shared || atomic_fetch_sub(&s->holders, 1) == 1)
		close(s->fds[worker]);
	s->fds[worker] = -1;
}
