/*
 * net: socket addresses as text, and the close that resets.
 *
 * Nothing here fails: an address of a family that cistern does not know is
 * written as "unknown", a text that does not fit is cut.
 */
#include "base/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

/* Decimal, no leading zeros; returns the end. */
static char *
put_number(char *to, uint32_t value)
{
	char digits[10];
	int n = 0;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value != 0);
	while (n > 0)
		*to++ = digits[--n];
	return to;
}

/* By hand: every batch of messages carries two of these. */
static char *
put_ipv4(char *to, const struct sockaddr_in *in)
{
	unsigned char bytes[4];

	memcpy(bytes, &in->sin_addr, sizeof bytes);
	for (int i = 0; i < 4; i++) {
		to = put_number(to, bytes[i]);
		*to++ = i < 3 ? '.' : ':';
	}
	return put_number(to, ntohs(in->sin_port));
}

static char *
put_ipv6(char *to, const struct sockaddr_in6 *in6)
{
	*to++ = '[';
	/* Cannot fail: the family is known and there is room for the longest. */
	if (inet_ntop(AF_INET6, &in6->sin6_addr, to, INET6_ADDRSTRLEN) == NULL)
		*to = '\0';
	to += strlen(to);
	if (in6->sin6_scope_id != 0) {
		*to++ = '%';
		to = put_number(to, in6->sin6_scope_id);
	}
	*to++ = ']';
	*to++ = ':';
	return put_number(to, ntohs(in6->sin6_port));
}

static char *
put_unix(char *to, uint32_t pid)
{
	memcpy(to, "unix", 4);
	to += 4;
	if (pid != 0) {
		*to++ = ':';
		to = put_number(to, pid);
	}
	return to;
}

/* A mapped address is how IPv4 looks to a socket of both families. */
static void
set_ipv6(struct net_address *address, const struct sockaddr_in6 *in6)
{
	if (!IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
		address->in6 = *in6;
		address->in6.sin6_flowinfo = 0;
		return;
	}
	address->in.sin_family = AF_INET;
	address->in.sin_port = in6->sin6_port;
	memcpy(&address->in.sin_addr, &in6->sin6_addr.s6_addr[12], 4);
}

void
net_address_set(struct net_address *address, const struct sockaddr *sa)
{
	struct sockaddr_in6 in6;

	memset(address, 0, sizeof *address);
	switch (sa->sa_family) {
	case AF_INET:
		memcpy(&address->in, sa, sizeof address->in);
		memset(address->in.sin_zero, 0, sizeof address->in.sin_zero);
		break;
	case AF_INET6:
		memcpy(&in6, sa, sizeof in6);
		set_ipv6(address, &in6);
		break;
	default:
		address->family = sa->sa_family;
		break;
	}
}

void
net_address_ask(struct net_address *address, int fd)
{
	struct ucred process;
	socklen_t len = sizeof process;

	if (address->family != AF_UNIX)
		return;
	/* One of another container's has no number here. */
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &process, &len) == 0 && process.pid > 0)
		address->unix_peer.pid = (uint32_t)process.pid;
}

int
net_address_text(const struct net_address *address, char text[NET_TEXT_LEN])
{
	char *end;

	switch (address->family) {
	case AF_INET:
		end = put_ipv4(text, &address->in);
		break;
	case AF_INET6:
		end = put_ipv6(text, &address->in6);
		break;
	case AF_UNIX:
		end = put_unix(text, address->unix_peer.pid);
		break;
	default:
		end = stpcpy(text, "unknown");
		break;
	}
	*end = '\0';
	return (int)(end - text);
}

/* Decimal digits up to the end, no more than most; -1: anything else. */
static int64_t
parse_number(const char *text, uint32_t most)
{
	uint64_t value = 0;

	if (*text == '\0')
		return -1;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return -1;
		value = value * 10 + (uint64_t)(*text - '0');
		if (value > most)
			return -1;
	}
	return (int64_t)value;
}

/* "2001:db8::1" or "fe80::1%2"; changes it. */
static int
parse_ipv6(char *host, struct sockaddr_in6 *in6)
{
	char *scope = strchr(host, '%');
	int64_t number = 0;

	if (scope != NULL) {
		*scope++ = '\0';
		number = parse_number(scope, UINT32_MAX);
	}
	if (number == -1 || inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
		return -1;
	in6->sin6_family = AF_INET6;
	in6->sin6_scope_id = (uint32_t)number;
	return 0;
}

static int
parse_internet(char *text, struct net_address *address)
{
	char *port = strrchr(text, ':'), *end;
	int64_t number;

	if (port == NULL)
		return -1;
	end = port;
	*port++ = '\0';
	number = parse_number(port, 65535);
	if (number == -1)
		return -1;
	if (*text == '[' && end[-1] == ']') {
		end[-1] = '\0';
		address->in6.sin6_port = htons((uint16_t)number);
		return parse_ipv6(text + 1, &address->in6);
	}
	address->in.sin_port = htons((uint16_t)number);
	address->in.sin_family = AF_INET;
	return inet_pton(AF_INET, text, &address->in.sin_addr) == 1 ? 0 : -1;
}

int
net_address_parse(const char *text, struct net_address *address)
{
	char copy[NET_TEXT_LEN];
	int64_t pid = 0;

	memset(address, 0, sizeof *address);
	if (strncmp(text, "unix", 4) == 0 && (text[4] == '\0' || text[4] == ':')) {
		if (text[4] == ':' && (pid = parse_number(text + 5, UINT32_MAX)) == -1)
			return -1;
		address->family = AF_UNIX;
		address->unix_peer.pid = (uint32_t)pid;
		return 0;
	}
	if (strlen(text) < sizeof copy) {
		strcpy(copy, text);
		if (parse_internet(copy, address) == 0)
			return 0;
	}
	memset(address, 0, sizeof *address);
	return -1;
}

void
net_sockaddr_text(const struct sockaddr *sa, char *text, size_t size)
{
	const char *path;
	char address_text[NET_TEXT_LEN];
	struct net_address address;
	int path_max = (int)sizeof ((struct sockaddr_un *)0)->sun_path;

	if (sa->sa_family != AF_UNIX) {
		net_address_set(&address, sa);
		net_address_text(&address, address_text);
		snprintf(text, size, "%s", address_text);
		return;
	}
	/* A path may fill its array without a NUL; an abstract name begins with one. */
	path = (const char *)sa + offsetof(struct sockaddr_un, sun_path);
	if (path[0] != '\0')
		snprintf(text, size, "unix:%.*s", path_max, path);
	else if (path[1] != '\0')
		snprintf(text, size, "unix:@%.*s", path_max - 1, path + 1);
	else
		snprintf(text, size, "unix");
}

int
net_close_resets(int fd, bool on)
{
	const struct linger linger = { .l_onoff = on, .l_linger = 0 };

	return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

int
net_keep_urgent(int fd)
{
	const int on = 1;

	return setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
}

int
net_let_all(const char *path)
{
	/* glibc takes /proc for that, where it is mounted; Linux 6.6 has a call. */
	if (fchmodat(AT_FDCWD, path, 0666, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno != EOPNOTSUPP)
		return -1;
	return (int)syscall(SYS_fchmodat2, AT_FDCWD, path, 0666, AT_SYMLINK_NOFOLLOW);
}

void
net_close(int fd)
{
	(void)net_close_resets(fd, false);
	(void)close(fd); /* what it says has no bearing: all was acknowledged or not */
}

void
net_reset(int fd)
{
	/* Where there is no lingering (a local socket) the close is all there is. */
	(void)net_close_resets(fd, true);
	(void)close(fd);
}
