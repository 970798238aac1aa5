/*
 * systemd: see systemd.h, sd_notify(3) and sd_listen_fds(3) for the protocols.
 *
 * A datagram that cannot be sent harms nobody but the operator's view, except
 * for the changes of state: those are kept and sent again.  The address is used
 * anew each time, so a manager that made its socket again is found.
 */
#include "base/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define FIRST_FD 3 /* SD_LISTEN_FDS_START */
#define STATUS_MAX 400

/* A decimal number and nothing else. */
static bool
parse_number(const char *text, uint64_t most, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*value = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' && *value <= most;
}

/* Whether a variable with a process id means this process. */
static bool
is_this_process(const char *text)
{
	uint64_t pid;

	return parse_number(text, INT_MAX, &pid) && pid == (uint64_t)getpid();
}

/* ---------------------------------------------------------------- telling */

static int
open_socket(struct systemd *systemd, const char *path)
{
	size_t len = strlen(path);

	if (path[0] != '/' && path[0] != '@') {
		errno = EAFNOSUPPORT;
		return -1;
	}
	if (len >= sizeof systemd->address.sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	systemd->address.sun_family = AF_UNIX;
	memcpy(systemd->address.sun_path, path, len);
	systemd->address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
	if (path[0] == '@') /* an abstract name: a NUL first, and none at the end */
		systemd->address.sun_path[0] = '\0';
	else
		systemd->address_len++;
	systemd->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return systemd->fd == -1 ? -1 : 0;
}

static int
take_watchdog(struct systemd *systemd)
{
	const char *interval = getenv("WATCHDOG_USEC");
	const char *pid = getenv("WATCHDOG_PID");
	uint64_t value;

	if (interval == NULL || (pid != NULL && !is_this_process(pid)))
		return 0;
	if (!parse_number(interval, UINT64_MAX - 1, &value)) {
		errno = EINVAL;
		return -1;
	}
	systemd->watchdog = value;
	return 0;
}

int
systemd_open(struct systemd *systemd)
{
	const char *path = getenv("NOTIFY_SOCKET");
	int result = 0, error;

	*systemd = (struct systemd){ .fd = -1 };
	if (path != NULL)
		result = open_socket(systemd, path);
	if (systemd->fd != -1) /* signs of life need somebody to see them */
		result = take_watchdog(systemd);
	error = errno;
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
	errno = error;
	return result;
}

void
systemd_close(struct systemd *systemd)
{
	if (systemd->fd != -1)
		close(systemd->fd);
	systemd->fd = -1;
	systemd->watchdog = 0;
}

static int
send_text(struct systemd *systemd, const char *text)
{
	ssize_t sent;

	do
		sent = sendto(systemd->fd, text, strlen(text), MSG_NOSIGNAL,
			      (struct sockaddr *)&systemd->address, systemd->address_len);
	while (sent == -1 && errno == EINTR);
	return sent == -1 ? -1 : 0;
}

/* Order matters: what was kept goes first, and nothing overtakes it. */
static int
send_kept(struct systemd *systemd)
{
	if (systemd->kept[0] == '\0')
		return 0;
	if (send_text(systemd, systemd->kept) == -1)
		return -1;
	systemd->kept[0] = '\0';
	return 0;
}

/* A newer state replaces one that is still kept: it is what is true now. */
__attribute__((format(printf, 2, 3))) static int
send_state(struct systemd *systemd, const char *format, ...)
{
	va_list args;

	if (systemd->fd == -1)
		return 0;
	va_start(args, format);
	vsnprintf(systemd->kept, sizeof systemd->kept, format, args);
	va_end(args);
	return send_kept(systemd);
}

int
systemd_ready(struct systemd *systemd, bool main_pid)
{
	if (main_pid)
		return send_state(systemd, "READY=1\nMAINPID=%ld", (long)getpid());
	return send_state(systemd, "READY=1");
}

int
systemd_reloading(struct systemd *systemd)
{
	/* Both in one datagram: the time tells this reload from an older one. */
	return send_state(systemd, "RELOADING=1\nMONOTONIC_USEC=%llu",
			  (unsigned long long)clock_now());
}

int
systemd_stopping(struct systemd *systemd, uint64_t patience)
{
	if (patience == 0)
		return send_state(systemd, "STOPPING=1");
	return send_state(systemd, "STOPPING=1\nEXTEND_TIMEOUT_USEC=%llu",
			  (unsigned long long)patience);
}

int
systemd_status(struct systemd *systemd, const char *format, ...)
{
	char text[sizeof "STATUS=" + STATUS_MAX] = "STATUS=";
	char *status = text + strlen(text), *p;
	va_list args;
	int len;

	if (systemd->fd == -1)
		return 0;
	if (send_kept(systemd) == -1)
		return -1;
	va_start(args, format);
	len = vsnprintf(status, STATUS_MAX + 1, format, args);
	va_end(args);
	if (len < 0)
		return -1;
	/* The manager drops a status that is not UTF-8: cut no character in two. */
	if (len > STATUS_MAX) {
		p = status + STATUS_MAX;
		while (p > status && ((unsigned char)p[-1] & 0xc0) == 0x80)
			p--;
		if (p > status && (unsigned char)p[-1] >= 0xc0)
			p--;
		*p = '\0';
	}
	/* A newline would begin another assignment. */
	for (p = status; *p != '\0'; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	return send_text(systemd, text);
}

int
systemd_watchdog(struct systemd *systemd)
{
	if (systemd->fd == -1)
		return 0;
	if (send_kept(systemd) == -1)
		return -1;
	return send_text(systemd, "WATCHDOG=1");
}

/* ---------------------------------------------------------------- sockets */

/* What is wrong with a descriptor as something to accept connections from. */
static const char *
find_fault(int fd)
{
	int domain, type, listens;
	socklen_t len = sizeof type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == -1)
		return "it is not a socket";
	if (type != SOCK_STREAM)
		return "it is not a stream socket (ListenStream=)";
	len = sizeof domain;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == -1 ||
	    (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX))
		return "it is neither an internet nor a unix socket";
	len = sizeof listens;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == -1 || !listens)
		return "it does not listen (Accept=no)";
	return NULL;
}

/* The manager makes its sockets blocking again before it hands them over. */
static int
prepare(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags == -1 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1)
		return -1;
	return fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* The next of the names between colons, as memory of its own. */
static char *
next_name(const char **names)
{
	size_t len;
	char *name;

	if (*names == NULL)
		return strdup("unknown");
	len = strcspn(*names, ":");
	name = strndup(*names, len);
	*names += len;
	if (**names == ':')
		(*names)++;
	return name;
}

static size_t
count_names(const char *names)
{
	size_t count = 1;

	if (*names == '\0')
		return 0;
	for (; *names != '\0'; names++)
		count += *names == ':';
	return count;
}

/* How many descriptors the variables speak of; -1 with errno: they contradict one
 * another, or the process. */
static int
count_fds(const char *names, size_t *count, const char **why)
{
	const char *pid = getenv("LISTEN_PID"), *number = getenv("LISTEN_FDS");
	uint64_t n;

	*count = 0;
	if (pid == NULL || number == NULL || !is_this_process(pid))
		return 0;
	if (!parse_number(number, INT_MAX - FIRST_FD, &n)) {
		*why = "LISTEN_FDS is not a number of descriptors";
		errno = EINVAL;
		return -1;
	}
	if (n > 0 && names != NULL && count_names(names) != n) {
		*why = "LISTEN_FDNAMES has not as many names as LISTEN_FDS says";
		errno = EINVAL;
		return -1;
	}
	/* The last one first: then the array cannot be absurdly large. */
	for (size_t i = n; i > 0; i--)
		if (prepare(FIRST_FD + (int)i - 1) == -1) {
			*why = "LISTEN_FDS counts descriptors that are not open";
			return -1;
		}
	*count = n;
	return 0;
}

static int
take_fds(struct systemd_fd **fds, size_t *count, const char **why)
{
	const char *names = getenv("LISTEN_FDNAMES");
	struct systemd_fd *array;
	size_t i, n;

	if (count_fds(names, &n, why) == -1)
		return -1;
	if (n == 0)
		return 0;
	*why = "out of memory";
	array = calloc(n, sizeof *array);
	if (array == NULL)
		return -1;
	for (i = 0; i < n; i++) {
		array[i].name = next_name(&names);
		if (array[i].name == NULL) {
			while (i > 0)
				free(array[--i].name);
			free(array);
			errno = ENOMEM;
			return -1;
		}
		array[i].fd = FIRST_FD + (int)i;
		array[i].why = find_fault(array[i].fd);
	}
	*fds = array;
	*count = n;
	return 0;
}

int
systemd_listen_fds(struct systemd_fd **fds, size_t *count, const char **why)
{
	int result, error;

	*fds = NULL;
	*count = 0;
	result = take_fds(fds, count, why);
	error = errno;
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
	errno = error;
	return result;
}

void
systemd_listen_fds_free(struct systemd_fd *fds, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (fds[i].fd != -1)
			close(fds[i].fd);
		free(fds[i].name);
	}
	free(fds);
}
