/*
 * daemon: a real cisternd, started for a test.
 *
 * Each has a directory of its own that holds its configuration file, its log (as
 * json) and what it printed.  Its program is $CISTERND, or ./cisternd.  Whatever
 * goes wrong here fails the test; nothing has to be looked at.
 *
 * Once it has stopped its accounts are read from the log and must add up, and no
 * sanitizer may have complained.
 */
#ifndef SYSTEM_DAEMON_H
#define SYSTEM_DAEMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

/* What became of the messages, from the daemon's last line. */
struct daemon_account {
	unsigned long long received;
	unsigned long long accepted;
	unsigned long long refused;
	unsigned long long failed;
	unsigned long long in_flight;
	unsigned long long discarded;
};

struct daemon {
	pid_t pid;
	char *directory;
	char *config; /* its configuration file */
	char *log;    /* where its log is */
	char *output; /* what it printed, unless that goes to the pipe */
	char *errors; /* its standard error, when that is not the log */
	int pipe;     /* our end of its standard output, or -1; reads do not block */
	bool running;
	bool at_once; /* it was told to stop at once: messages may be in flight at its end */
	int code;     /* its exit code, once it has stopped */
	struct daemon_account account;
};

struct daemon_options {
	bool pipe;                  /* its output goes to a pipe that nobody reads but the test */
	bool background;            /* it is started with -d */
	bool log_file;              /* its log is a file that it opens itself */
	rlim_t descriptors;         /* at most so many open files; 0: as many as we may */
	const char *argument;       /* one more for its command line */
	const char *const *wrapper; /* it is run by this command, which must stay its parent
				     * or leave it ours */
};

/* Starts it and waits until it is ready.  In the configuration, a printf format,
 * "@DIR@" stands for its directory; address 127.0.0.1, port 0 (the kernel picks
 * one), a spill directory and a log that the harness can read are added where it
 * does not mention them. */
struct daemon *daemon_start(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct daemon *daemon_start_with(const struct daemon_options *options, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Where a listener is to be reached: the first of its addresses, or the one of
 * number index.  Good until the next call. */
const char *daemon_address(struct daemon *daemon, const char *listener);
const char *daemon_address_at(struct daemon *daemon, const char *listener, int index);
int daemon_port(struct daemon *daemon, const char *listener);

/* Everything printed so far, to be freed (not for a pipe). */
char *daemon_output(struct daemon *daemon, size_t *len);
/* Waits until so many bytes have been printed; more fail the test. */
char *daemon_wait_output(struct daemon *daemon, size_t len);

/* Reads exactly so many bytes from its pipe. */
void daemon_read_pipe(struct daemon *daemon, void *bytes, size_t len);

/* How many lines of the log are of this event (NULL: any) and hold this text
 * (NULL: any); waiting until there are so many. */
size_t daemon_count_log(struct daemon *daemon, const char *event, const char *text);
void daemon_wait_log(struct daemon *daemon, const char *event, const char *text, size_t count);

void daemon_signal(struct daemon *daemon, int number);

/* Another configuration, as for daemon_start (but not in the background), and HUP;
 * waits until it is in force, or has been refused as a whole. */
void daemon_reload(struct daemon *daemon, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
void daemon_reload_refused(struct daemon *daemon, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* SIGTERM, and the end waited for: the exit code. */
int daemon_stop(struct daemon *daemon);
/* Its end waited for: the exit code. */
int daemon_wait(struct daemon *daemon);
/* Stops it if it still runs, demands an exit code of 0, frees all. */
void daemon_end(struct daemon *daemon);
void daemon_kill(struct daemon *daemon);

/* From /proc: KiB, seconds of processor time, numbers. */
size_t daemon_memory(struct daemon *daemon);
size_t daemon_memory_peak(struct daemon *daemon); /* since the last daemon_memory */
double daemon_processor(struct daemon *daemon);
size_t daemon_descriptors(struct daemon *daemon);
size_t daemon_threads(struct daemon *daemon);
/* Waits until it has at most so many descriptors open. */
void daemon_wait_descriptors(struct daemon *daemon, size_t most);

#endif
