/*
 * systemd: what a service says to the manager that started it, and the sockets
 * that it was given, without libsystemd.
 *
 * Without systemd all of this does nothing and succeeds.  Nothing here blocks:
 * a manager that is busy is told later.  Main thread only, systemd_open and
 * systemd_listen_fds before any thread is started (they change the
 * environment, so that programs run later do not think it is theirs) and before
 * going to the background (the variables name the process that was started).
 */
#ifndef BASE_SYSTEMD_H
#define BASE_SYSTEMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct systemd {
	int fd;            /* -1: nobody listens */
	uint64_t watchdog; /* microseconds between signs of life, at most; 0: not asked for */
	struct sockaddr_un address;
	socklen_t address_len;
	char kept[128]; /* a change of state that could not be sent yet; "": none */
};

/* Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from the environment.  On
 * -1 (errno) something there cannot be used; what else there is, works. */
int systemd_open(struct systemd *systemd);
void systemd_close(struct systemd *systemd);

/* Changes of state.  0, or -1 with errno; then the change (the last one, if there
 * are several) is kept, and goes out before the next status or sign of life.  So
 * call one of those every few seconds. */

/* Started, or reloaded.  With main_pid the manager learns that this process is the
 * service: for one that went to the background (needs NotifyAccess=all). */
int systemd_ready(struct systemd *systemd, bool main_pid);
int systemd_reloading(struct systemd *systemd);
/* patience: microseconds that the stop may take (0: as the unit says). */
int systemd_stopping(struct systemd *systemd, uint64_t patience);

/* One line for people, shown by systemctl status; cut at 400 bytes.  Not kept. */
int systemd_status(struct systemd *systemd, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* A sign of life, to be given every watchdog / 2 microseconds.  Not kept. */
int systemd_watchdog(struct systemd *systemd);

/* A descriptor that the manager handed over: close-on-exec and non-blocking. */
struct systemd_fd {
	int fd;
	char *name;      /* FileDescriptorName= of the socket unit; "unknown" if not told */
	const char *why; /* NULL: a stream socket that listens; else what is wrong with it */
};

/* All that LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES speak of, in their order; a
 * name may come more than once.  The array is the caller's, as are the
 * descriptors; none is 0 and NULL.  On -1 (errno) *why says what for people. */
int systemd_listen_fds(struct systemd_fd **fds, size_t *count, const char **why);

/* Frees the array and closes what is not -1 in it. */
void systemd_listen_fds_free(struct systemd_fd *fds, size_t count);

#endif
