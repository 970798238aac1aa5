/*
 * client: plain sockets, and an eye on how the other side closes.
 */
#include "client.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>

#include "harness.h"

struct place {
	struct sockaddr_storage address;
	socklen_t len;
};

static void
find_internet(const char *address, struct place *place)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
					.ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	char host[128];
	const char *colon = strrchr(address, ':');
	int error;

	ck_assert_msg(colon != NULL, "no address: %s", address);
	if (*address == '[')
		snprintf(host, sizeof host, "%.*s", (int)(colon - address) - 2, address + 1);
	else
		snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
	error = getaddrinfo(host, colon + 1, &hints, &found);
	ck_assert_msg(error == 0, "%s: %s", address, gai_strerror(error));
	memcpy(&place->address, found->ai_addr, found->ai_addrlen);
	place->len = found->ai_addrlen;
	freeaddrinfo(found);
}

static void
find(const char *address, struct place *place)
{
	struct sockaddr_un *local = (struct sockaddr_un *)&place->address;

	memset(place, 0, sizeof *place);
	if (strncmp(address, "unix:", 5) == 0) {
		local->sun_family = AF_UNIX;
		snprintf(local->sun_path, sizeof local->sun_path, "%s", address + 5);
		place->len = sizeof *local;
	} else {
		find_internet(address, place);
	}
}

int
client_try_connect(const char *address, const char *source, int receive)
{
	const struct timeval deadline = { .tv_sec = (time_t)HARNESS_DEADLINE };
	struct place to, from;
	char *text;
	int fd, error;

	find(address, &to);
	fd = socket(to.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_msg(fd != -1, "socket: %s", strerror(errno));
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline), 0);
	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline), 0);
	if (receive != 0)
		ck_assert_int_eq(
			setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof receive), 0);
	if (source != NULL) {
		text = harness_text("%s:0", source);
		find(text, &from);
		free(text);
		ck_assert_msg(bind(fd, (struct sockaddr *)&from.address, from.len) == 0,
			      "%s: %s", source, strerror(errno));
	}
	if (connect(fd, (struct sockaddr *)&to.address, to.len) == 0)
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

int
client_connect(const char *address)
{
	int fd = client_try_connect(address, NULL, 0);

	ck_assert_msg(fd != -1, "%s: %s", address, strerror(errno));
	return fd;
}

enum client_end
client_pour(int fd, const void *bytes, size_t len)
{
	const char *at = bytes;
	ssize_t n;

	while (len > 0) {
		n = send(fd, at, len, MSG_NOSIGNAL);
		if (n == -1 && errno == EINTR)
			continue;
		if (n == -1 && (errno == ECONNRESET || errno == EPIPE))
			return CLIENT_RST;
		ck_assert_msg(n > 0, "send, %zu bytes before the end: %s", len,
			      strerror(errno));
		at += n;
		len -= (size_t)n;
	}
	return CLIENT_OPEN;
}

void
client_send(int fd, const void *bytes, size_t len)
{
	ck_assert_msg(client_pour(fd, bytes, len) == CLIENT_OPEN, "reset while sending");
}

void
client_send_text(int fd, const char *text)
{
	client_send(fd, text, strlen(text));
}

void
client_finish(int fd)
{
	ck_assert_msg(shutdown(fd, SHUT_WR) == 0, "shutdown: %s", strerror(errno));
}

void
client_reset(int fd)
{
	const struct linger now = { .l_onoff = 1 };

	ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
	close(fd);
}

enum client_end
client_receive(int fd, void *bytes, size_t room, size_t *len, double timeout)
{
	double deadline = harness_now() + timeout;
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	char *at = bytes;
	ssize_t n;
	int left;

	*len = 0;
	while (*len < room) {
		left = (int)((deadline - harness_now()) * 1000) + 1;
		if (left <= 0 || poll(&poll_fd, 1, left) == 0)
			return CLIENT_OPEN;
		n = recv(fd, at + *len, room - *len, MSG_DONTWAIT);
		if (n == 0)
			return CLIENT_FIN;
		if (n == -1 && errno == ECONNRESET)
			return CLIENT_RST;
		ck_assert_msg(n > 0 || errno == EAGAIN || errno == EINTR, "recv: %s",
			      strerror(errno));
		if (n > 0)
			*len += (size_t)n;
	}
	return CLIENT_OPEN;
}

void
client_receive_line(int fd, char *line, size_t room)
{
	size_t len = 0, n;
	enum client_end end = CLIENT_OPEN;

	do {
		ck_assert_msg(len + 1 < room, "no end of line: %.*s", (int)len, line);
		end = client_receive(fd, line + len, 1, &n, HARNESS_DEADLINE);
		ck_assert_msg(n == 1, "%s where a line was expected, after \"%.*s\"",
			      end == CLIENT_FIN	  ? "FIN"
			      : end == CLIENT_RST ? "RST"
						  : "nothing",
			      (int)len, line);
		len += n;
	} while (line[len - 1] != '\n');
	line[len] = '\0';
}

void
client_expect_ok(int fd, size_t size)
{
	char line[256], id[32], rest;
	size_t told;

	client_receive_line(fd, line, sizeof line);
	ck_assert_msg(sscanf(line, "OK %26[0-9A-HJKMNP-TV-Z] %zu%c", id, &told, &rest) == 3 &&
			      strlen(id) == 26 && rest == '\n',
		      "no receipt: %s", line);
	ck_assert_uint_eq(told, size);
}

static const char *
end_name(enum client_end end)
{
	static const char *const names[] = { "an open connection", "FIN", "RST" };

	return names[end];
}

void
client_expect(int fd, const char *text, enum client_end end)
{
	char bytes[65536];
	size_t len;
	enum client_end found =
		client_receive(fd, bytes, sizeof bytes - 1, &len, HARNESS_DEADLINE);

	bytes[len] = '\0';
	ck_assert_msg(found == end, "%s instead of %s, after \"%.200s\"", end_name(found),
		      end_name(end), bytes);
	ck_assert_str_eq(bytes, text);
	close(fd);
}

void
client_deliver(const char *address, const void *bytes, size_t len, enum client_end end)
{
	int fd = client_connect(address);

	client_send(fd, bytes, len);
	client_finish(fd);
	client_expect(fd, "", end);
}

/* What waits unread on the side `local` of a connection, or -1 when it is not there: asks
 * the kernel for this one socket (sock_diag(7)), however many there are. */
static long
ask_queue(const struct sockaddr_in *local, const struct sockaddr_in *remote)
{
	struct {
		struct nlmsghdr header;
		struct inet_diag_req_v2 ask;
	} request = { .header = { .nlmsg_len = sizeof request, .nlmsg_flags = NLM_F_REQUEST,
				  .nlmsg_type = SOCK_DIAG_BY_FAMILY } };
	union {
		struct nlmsghdr header;
		unsigned char bytes[1024];
	} answer;
	struct inet_diag_sockid *id = &request.ask.id;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	long found = -1;
	ssize_t n;

	if (fd == -1)
		return -1;
	request.ask.sdiag_family = AF_INET;
	request.ask.sdiag_protocol = IPPROTO_TCP;
	request.ask.idiag_states = ~0U;
	id->idiag_sport = local->sin_port;
	id->idiag_dport = remote->sin_port;
	id->idiag_src[0] = local->sin_addr.s_addr;
	id->idiag_dst[0] = remote->sin_addr.s_addr;
	id->idiag_cookie[0] = id->idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	n = send(fd, &request, sizeof request, 0);
	if (n != -1)
		n = recv(fd, &answer, sizeof answer, 0);
	close(fd);
	if (n >= (ssize_t)NLMSG_LENGTH(sizeof(struct inet_diag_msg)) &&
	    answer.header.nlmsg_type == SOCK_DIAG_BY_FAMILY)
		found = ((const struct inet_diag_msg *)NLMSG_DATA(&answer.header))->idiag_rqueue;
	return found;
}

/* The same from the table of all, for kernels that cannot be asked. */
static long
read_queue(const struct sockaddr_in *remote)
{
	char *table = harness_read_file("/proc/net/tcp", NULL);
	char *at = table, *line;
	unsigned port;
	unsigned long queue;
	long found = -1;

	while ((line = strsep(&at, "\n")) != NULL && found == -1) {
		if (sscanf(line, " %*d: %*x:%*x %*x:%x %*x %*x:%lx", &port, &queue) == 2 &&
		    port == ntohs(remote->sin_port))
			found = (long)queue;
	}
	free(table);
	return found;
}

/* The bytes that wait on the other side of a connection over IPv4 on this host,
 * or -1 when it is not there. */
static long
peer_queue(int fd, const struct sockaddr_in *ours)
{
	struct sockaddr_in peer = { 0 };
	socklen_t len = sizeof peer;

	if (getpeername(fd, (struct sockaddr *)&peer, &len) == -1)
		return -1;
	/* Whoever does not know of our own side cannot be asked. */
	if (ask_queue(ours, &peer) == -1)
		return read_queue(ours);
	return ask_queue(&peer, ours);
}

void
client_wait_read(int fd)
{
	client_wait_unread(fd, 0);
}

void
client_wait_unread(int fd, size_t most)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	struct sockaddr_in ours = { 0 };
	socklen_t len = sizeof ours;
	int unsent;
	long unread;

	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&ours, &len), 0);
	for (;;) {
		ck_assert_int_eq(ioctl(fd, SIOCOUTQ, &unsent), 0);
		/* Of a local socket what is unread counts as unsent. */
		unread = ours.sin_family == AF_UNIX ? 0 : peer_queue(fd, &ours);
		if (unsent == 0 && unread >= 0 && (size_t)unread <= most)
			return;
		ck_assert_msg(harness_now() < deadline, "%d bytes unsent, %ld unread", unsent,
			      unread);
		harness_pause();
	}
}

void
client_wait_refused(const char *address)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	int fd;

	while ((fd = client_try_connect(address, NULL, 0)) != -1 ||
	       (errno != ECONNREFUSED && errno != ENOENT)) {
		if (fd != -1)
			close(fd);
		ck_assert_msg(harness_now() < deadline, "%s still listens", address);
		harness_pause();
	}
}
