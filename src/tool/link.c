/*
 * link: see link.h.
 */
#include "tool/link.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/net.h"

#define SETTLE_MOST 3000000 /* microseconds to wait for the last word of TCP */
#define SETTLE_LOOK 1000

uint64_t
link_left(uint64_t until)
{
	uint64_t now = clock_now();

	if (until == 0)
		return 0;
	return until > now ? until - now : 1;
}

int
link_wait(struct link *link, short events, uint64_t timeout)
{
	struct pollfd poll_fd = {.fd = link->fd, .events = events};
	uint64_t until = timeout == 0 ? 0 : clock_now() + timeout;
	int n, milliseconds = -1;

	do {
		if (until != 0) {
			uint64_t left = link_left(until) / 1000 + 1;

			milliseconds = left > INT_MAX ? INT_MAX : (int)left;
		}
		n = poll(&poll_fd, 1, milliseconds);
	} while (n == -1 && errno == EINTR);
	if (n == -1)
		snprintf(link->why, sizeof link->why, "poll: %s", strerror(errno));
	return n;
}

static int
failed_to_connect(struct link *link, const char *where, int error)
{
	snprintf(link->why, sizeof link->why, "cannot connect to %s: %s", where, strerror(error));
	if (link->fd != -1)
		close(link->fd);
	link->fd = -1;
	link->temporary = true;
	/* Whoever resets was there. */
	return error == ECONNRESET ? EX_TEMPFAIL : EX_UNAVAILABLE;
}

/* Whatever ends us before link_finish is a reset. */
static void
promise_reset(int fd)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static int
connect_one(struct link *link, const struct sockaddr *sa, socklen_t len, const char *where,
	    uint64_t until)
{
	int error = 0, n;
	socklen_t size = sizeof error;

	link->fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (link->fd == -1)
		return failed_to_connect(link, where, errno);
	if (sa->sa_family != AF_UNIX)
		promise_reset(link->fd);
	link->temporary = false; /* whatever an address before has said */
	if (connect(link->fd, sa, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return failed_to_connect(link, where, errno);
	n = link_wait(link, POLLOUT, link_left(until));
	if (n <= 0)
		return failed_to_connect(link, where, n == 0 ? ETIMEDOUT : errno);
	if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size) == -1)
		error = errno;
	return error == 0 ? 0 : failed_to_connect(link, where, error);
}

static int
connect_local(struct link *link, const struct target *target, uint64_t until)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	char where[TARGET_PATH_MAX + 8];

	snprintf(sun.sun_path, sizeof sun.sun_path, "%s", target->path);
	snprintf(where, sizeof where, "unix:%s", target->path);
	return connect_one(link, (const struct sockaddr *)&sun, sizeof sun, where, until);
}

/* All addresses of the host, one after the other. */
static int
connect_host(struct link *link, const struct target *target, uint64_t until)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
				 .ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICSERV};
	struct addrinfo *found, *at;
	int error = getaddrinfo(target->host, target->port, &hints, &found);
	int code = EX_UNAVAILABLE;

	if (error != 0) {
		snprintf(link->why, sizeof link->why, "%s: %s", target->host,
			 error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
		link->temporary = error == EAI_AGAIN || error == EAI_SYSTEM;
		return EX_NOHOST;
	}
	for (at = found; at != NULL && code != 0; at = at->ai_next) {
		char where[TARGET_HOST_MAX + NET_TEXT_LEN + 4], address[NET_TEXT_LEN] = "";

		net_sockaddr_text(at->ai_addr, address, sizeof address);
		if (strncmp(address, target->host, strlen(target->host)) == 0 ||
		    address[0] == '[')
			snprintf(where, sizeof where, "%s", address);
		else
			snprintf(where, sizeof where, "%s (%s)", target->host, address);
		code = connect_one(link, at->ai_addr, at->ai_addrlen, where, until);
	}
	freeaddrinfo(found);
	return code;
}

int
link_open(struct link *link, const struct target *target, const struct link_tls *tls,
	  uint64_t timeout)
{
	uint64_t until = timeout == 0 ? 0 : clock_now() + timeout;
	int code;

	*link = (struct link){.fd = -1, .local = target->local};
	code = target->local ? connect_local(link, target, until) :
			       connect_host(link, target, until);
	if (code == 0 && tls->on)
		code = link_tls_open(link, target, tls, until);
	if (code != 0)
		link_close(link);
	return code;
}

static ssize_t
socket_failed(struct link *link)
{
	int error = errno;

	if (error == EAGAIN || error == EINTR)
		return LINK_AGAIN;
	snprintf(link->why, sizeof link->why, "%s",
		 error == ECONNRESET || error == EPIPE ? "the connection was reset" :
							 strerror(error));
	return LINK_FAILED;
}

ssize_t
link_read(struct link *link, void *bytes, size_t len)
{
	ssize_t n;

	link->wants_read = POLLIN;
	if (link->ssl != NULL)
		return link_tls_read(link, bytes, len);
	n = recv(link->fd, bytes, len, 0);
	return n == -1 ? socket_failed(link) : n;
}

ssize_t
link_write(struct link *link, const void *bytes, size_t len)
{
	ssize_t n;

	link->wants_write = POLLOUT;
	if (link->ssl != NULL)
		return link_tls_write(link, bytes, len);
	n = send(link->fd, bytes, len, MSG_NOSIGNAL);
	return n == -1 ? socket_failed(link) : n;
}

int
link_finish(struct link *link)
{
	int result = 0;

	link->wants_write = POLLOUT;
	if (link->ssl != NULL && !link->said_bye)
		result = link_tls_finish(link);
	if (result == 0) {
		link->said_bye = true;
		if (shutdown(link->fd, SHUT_WR) == -1)
			result = (int)socket_failed(link);
	}
	return result;
}

/* A reset may follow a close: the other side had closed before it saw all of ours.
 * TCP's state tells when nothing more can come, and all was acknowledged. */
bool
link_is_settled(struct link *link)
{
	uint64_t until = clock_now() + SETTLE_MOST;
	struct tcp_info info;
	socklen_t size;
	int error;

	if (link->local)
		return true;
	do {
		size = sizeof error;
		if (getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &size) == -1)
			error = errno;
		if (error != 0) {
			snprintf(link->why, sizeof link->why, "the connection was reset");
			return false;
		}
		size = sizeof info;
		if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == -1 ||
		    info.tcpi_state == TCP_CLOSE)
			return true;
		usleep(SETTLE_LOOK);
	} while (clock_now() < until);
	/* It has closed without having seen our end. */
	snprintf(link->why, sizeof link->why, "the connection was closed, and not all was taken");
	return false;
}

void
link_close(struct link *link)
{
	link_tls_close(link);
	if (link->fd != -1)
		close(link->fd);
	link->fd = -1;
}
