/*
 * daemon: starts cisternd, reads its log, and settles accounts with it.
 *
 * It is polled, never waited for blindly; past the deadline the test fails.  It
 * dies with the process of its test.
 */
#include "daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "program.h"

#define ARGUMENTS 32

/* Whether the configuration says NAME = somewhere, at whatever level. */
static bool
mentions(const char *text, const char *name)
{
	const char *at = text, *end;
	size_t len = strlen(name);

	for (; (at = strstr(at, name)) != NULL; at += len) {
		end = at + len + strspn(at + len, " \t");
		if ((at == text || strchr(" \t\n{;", at[-1]) != NULL) &&
		    (*end == '=' || *end == ':'))
			return true;
	}
	return false;
}

static char *
replace(char *text, const char *what, const char *with)
{
	char *at, *replaced;

	while ((at = strstr(text, what)) != NULL) {
		replaced = harness_text("%.*s%s%s", (int)(at - text), text, with,
					at + strlen(what));
		free(text);
		text = replaced;
	}
	return text;
}

static void __attribute__((format(printf, 3, 0)))
write_config(const struct daemon *daemon, const struct daemon_options *options,
	     const char *format, va_list ap)
{
	char *text, *more;

	ck_assert_int_ge(vasprintf(&text, format, ap), 0);
	more = harness_text(
		"%s\n%s%s%s%s%s", text, mentions(text, "port") ? "" : "port = 0;\n",
		mentions(text, "address") ? "" : "address = \"127.0.0.1\";\n",
		mentions(text, "spill_directory") ? "" : "spill_directory = \"@DIR@\";\n",
		options->background ? "pid_file = \"@DIR@/pid\";\n" : "",
		mentions(text, "log")	? ""
		: daemon->errors != NULL ? "log = { target = \"@DIR@/log\"; level = \"info\"; "
					   "format = \"json\"; };\n"
					 : "log = { target = \"stderr\"; level = \"info\"; "
					   "format = \"json\"; };\n");
	free(text);
	text = replace(more, "@DIR@", daemon->directory);
	harness_write_file(daemon->config, text);
	free(text);
}

/* Its log's lines, one after the other: the next one of this event that holds
 * this text, cut off at its end.  *at is where to go on, in a copy of the log. */
static char *
next_line(char **at, const char *event, const char *text)
{
	char *key = event == NULL ? NULL : harness_text("\"event\":\"%s\"", event);
	char *line;

	while ((line = strsep(at, "\n")) != NULL) {
		if (*at == NULL)
			line = NULL; /* not written whole yet, or nothing */
		if (line == NULL || ((key == NULL || strstr(line, key) != NULL) &&
				     (text == NULL || strstr(line, text) != NULL)))
			break;
	}
	free(key);
	return line;
}

size_t
daemon_count_log(struct daemon *daemon, const char *event, const char *text)
{
	char *log = harness_read_file(daemon->log, NULL);
	char *at = log;
	size_t count = 0;

	while (next_line(&at, event, text) != NULL)
		count++;
	free(log);
	return count;
}

/* Whether it has come to its end; then what there is to know about it is noted. */
static bool
has_ended(struct daemon *daemon)
{
	int status;
	pid_t pid;

	if (!daemon->running)
		return true;
	pid = waitpid(daemon->pid, &status, WNOHANG);
	ck_assert_msg(pid != -1, "waitpid: %s", strerror(errno));
	if (pid == 0)
		return false;
	daemon->running = false;
	ck_assert_msg(WIFEXITED(status), "cisternd was ended by signal %d", WTERMSIG(status));
	daemon->code = WEXITSTATUS(status);
	return true;
}

void
daemon_wait_log(struct daemon *daemon, const char *event, const char *text, size_t count)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	bool ended;

	for (;;) {
		ended = has_ended(daemon);
		if (daemon_count_log(daemon, event, text) >= count)
			return;
		ck_assert_msg(!ended, "cisternd ended with %d before it logged %s (%s)",
			      daemon->code, event == NULL ? "a line" : event,
			      text == NULL ? "any" : text);
		ck_assert_msg(harness_now() < deadline, "cisternd did not log %s (%s)",
			      event == NULL ? "a line" : event, text == NULL ? "any" : text);
		harness_pause();
	}
}

/* With -d the child ends once the daemon is ready, whose number is in the pid file. */
static void
take_background(struct daemon *daemon)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	char *path, *text;

	while (!has_ended(daemon)) {
		ck_assert_msg(harness_now() < deadline, "cisternd -d did not return");
		harness_pause();
	}
	ck_assert_int_eq(daemon->code, 0);
	path = harness_text("%s/pid", daemon->directory);
	text = harness_read_file(path, NULL);
	daemon->pid = (pid_t)strtol(text, NULL, 10);
	ck_assert_msg(daemon->pid > 1, "no number in the pid file: \"%s\"", text);
	free(text);
	free(path);
	daemon->running = true;
}

static struct daemon *__attribute__((format(printf, 2, 0)))
start(const struct daemon_options *options, const char *format, va_list ap)
{
	struct daemon *daemon = calloc(1, sizeof *daemon);
	const char *const *wrapper = options->wrapper;
	char *arguments[ARGUMENTS];
	int n = 0, output, errors, ends[2];

	ck_assert_ptr_nonnull(daemon);
	daemon->directory = harness_directory();
	daemon->config = harness_text("%s/cistern.conf", daemon->directory);
	daemon->log = harness_text("%s/log", daemon->directory);
	daemon->output = harness_text("%s/output", daemon->directory);
	if (options->log_file || options->background)
		daemon->errors = harness_text("%s/stderr", daemon->directory);
	daemon->pipe = -1;
	write_config(daemon, options, format, ap);

	while (wrapper != NULL && *wrapper != NULL && n < ARGUMENTS - 6)
		arguments[n++] = harness_text("%s", *wrapper++);
	arguments[n++] = harness_text("%s", program_path());
	arguments[n++] = harness_text("-c");
	arguments[n++] = harness_text("%s", daemon->config);
	if (options->background)
		arguments[n++] = harness_text("-d");
	if (options->argument != NULL)
		arguments[n++] = harness_text("%s", options->argument);
	arguments[n] = NULL;

	if (options->pipe) {
		ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
		daemon->pipe = ends[0];
		output = ends[1];
		ck_assert_int_eq(fcntl(daemon->pipe, F_SETFL, O_NONBLOCK), 0);
	} else {
		output = program_open(daemon->output);
	}
	errors = program_open(daemon->errors != NULL ? daemon->errors : daemon->log);
	if (options->background)
		prctl(PR_SET_CHILD_SUBREAPER, 1); /* so that it stays ours to wait for */
	daemon->pid = fork();
	ck_assert_int_ne(daemon->pid, -1);
	if (daemon->pid == 0)
		program_exec(arguments, output, errors, options->descriptors,
			    options->background);
	daemon->running = true;
	close(output);
	close(errors);
	while (n > 0)
		free(arguments[--n]);
	if (options->background)
		take_background(daemon);
	daemon_wait_log(daemon, "ready", NULL, 1);
	return daemon;
}

struct daemon *
daemon_start(const char *format, ...)
{
	static const struct daemon_options none;
	struct daemon *daemon;
	va_list ap;

	va_start(ap, format);
	daemon = start(&none, format, ap);
	va_end(ap);
	return daemon;
}

struct daemon *
daemon_start_with(const struct daemon_options *options, const char *format, ...)
{
	struct daemon *daemon;
	va_list ap;

	va_start(ap, format);
	daemon = start(options, format, ap);
	va_end(ap);
	return daemon;
}

const char *
daemon_address_at(struct daemon *daemon, const char *listener, int index)
{
	static char address[256];
	char *log = harness_read_file(daemon->log, NULL);
	char *begin = harness_text("listener %s on ", listener);
	char *at = log, *line = NULL, *end;

	while (index-- >= 0)
		line = next_line(&at, "listening", begin);
	ck_assert_msg(line != NULL, "no address of the listener %s in the log", listener);
	line = strstr(line, begin) + strlen(begin);
	end = strstr(line, " (");
	ck_assert_ptr_nonnull(end);
	*end = '\0';
	if (strncmp(line, "0.0.0.0:", 8) == 0)
		snprintf(address, sizeof address, "127.0.0.1%s", line + 7);
	else if (strncmp(line, "[::]:", 5) == 0)
		snprintf(address, sizeof address, "[::1%s", line + 3);
	else
		snprintf(address, sizeof address, "%s", line);
	free(begin);
	free(log);
	return address;
}

const char *
daemon_address(struct daemon *daemon, const char *listener)
{
	return daemon_address_at(daemon, listener, 0);
}

int
daemon_port(struct daemon *daemon, const char *listener)
{
	const char *colon = strrchr(daemon_address(daemon, listener), ':');

	ck_assert_ptr_nonnull(colon);
	return atoi(colon + 1);
}

char *
daemon_output(struct daemon *daemon, size_t *len)
{
	return harness_read_file(daemon->output, len);
}

char *
daemon_wait_output(struct daemon *daemon, size_t len)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	size_t have;
	char *output;

	for (;;) {
		output = daemon_output(daemon, &have);
		if (have >= len)
			break;
		ck_assert_msg(harness_now() < deadline, "%zu bytes of %zu were printed", have,
			      len);
		free(output);
		harness_pause();
	}
	ck_assert_uint_eq(have, len);
	return output;
}

void
daemon_read_pipe(struct daemon *daemon, void *bytes, size_t len)
{
	struct pollfd poll_fd = { .fd = daemon->pipe, .events = POLLIN };
	char *at = bytes;
	ssize_t n;

	while (len > 0) {
		ck_assert_msg(poll(&poll_fd, 1, (int)(HARNESS_DEADLINE * 1000)) == 1,
			      "%zu bytes are not printed", len);
		n = read(daemon->pipe, at, len);
		ck_assert_msg(n > 0 || (n == -1 && errno == EAGAIN),
			      "%zu bytes are missing at the end", len);
		if (n > 0) {
			at += n;
			len -= (size_t)n;
		}
	}
}

void
daemon_signal(struct daemon *daemon, int number)
{
	ck_assert(daemon->running);
	ck_assert_int_eq(kill(daemon->pid, number), 0);
}

static void __attribute__((format(printf, 4, 0)))
reload(struct daemon *daemon, const char *event, const char *text, const char *format, va_list ap)
{
	static const struct daemon_options none;
	size_t before = daemon_count_log(daemon, event, text);

	write_config(daemon, &none, format, ap);
	daemon_signal(daemon, SIGHUP);
	daemon_wait_log(daemon, event, text, before + 1);
}

void
daemon_reload(struct daemon *daemon, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	reload(daemon, "reloaded", NULL, format, ap);
	va_end(ap);
}

void
daemon_reload_refused(struct daemon *daemon, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	reload(daemon, "reload-refused", "stays in force", format, ap);
	va_end(ap);
}

/* Every message is accounted for. */
static void
check_account(struct daemon *daemon)
{
	struct daemon_account *account = &daemon->account;
	char *log = harness_read_file(daemon->log, NULL);
	char *at = log;
	char *line = next_line(&at, "stopped", NULL);
	const char *text = line == NULL ? NULL : strstr(line, "received ");

	ck_assert_msg(text != NULL, "cisternd ended with %d and no accounts in its log",
		      daemon->code);
	ck_assert_int_eq(
		sscanf(text,
		       "received %llu messages: %llu accepted, %llu refused, %llu failed, "
		       "%llu in flight; discarded %llu",
		       &account->received, &account->accepted, &account->refused,
		       &account->failed, &account->in_flight, &account->discarded),
		6);
	ck_assert_msg(account->received == account->accepted + account->refused +
						   account->failed + account->in_flight,
		      "the accounts do not add up: %s", text);
	ck_assert_msg(daemon->at_once || account->in_flight == 0,
		      "messages in flight after an orderly stop: %s", text);
	free(log);
}

int
daemon_wait(struct daemon *daemon)
{
	double deadline = harness_now() + HARNESS_DEADLINE;

	while (!has_ended(daemon)) {
		ck_assert_msg(harness_now() < deadline, "cisternd does not end");
		harness_pause();
	}
	program_check_sanitizers(daemon->errors != NULL ? daemon->errors : daemon->log);
	check_account(daemon);
	return daemon->code;
}

int
daemon_stop(struct daemon *daemon)
{
	daemon_signal(daemon, SIGTERM);
	return daemon_wait(daemon);
}

static void
forget(struct daemon *daemon)
{
	if (daemon->pipe != -1)
		close(daemon->pipe);
	free(daemon->directory);
	free(daemon->config);
	free(daemon->log);
	free(daemon->output);
	free(daemon->errors);
	free(daemon);
}

void
daemon_end(struct daemon *daemon)
{
	if (daemon->running)
		daemon_stop(daemon);
	ck_assert_msg(daemon->code == 0, "cisternd ended with %d", daemon->code);
	forget(daemon);
}

void
daemon_kill(struct daemon *daemon)
{
	daemon_signal(daemon, SIGKILL);
	ck_assert_int_eq(waitpid(daemon->pid, NULL, 0), daemon->pid);
	forget(daemon);
}

/* A number from /proc/PID/status. */
static size_t
status_number(const struct daemon *daemon, const char *name)
{
	char *path = harness_text("/proc/%d/status", (int)daemon->pid);
	char *text = harness_read_file(path, NULL);
	const char *at = strstr(text, name);
	size_t number;

	ck_assert_msg(at != NULL, "%s does not say %s", path, name);
	number = strtoul(at + strlen(name), NULL, 10);
	free(text);
	free(path);
	return number;
}

size_t
daemon_memory(struct daemon *daemon)
{
	char *path = harness_text("/proc/%d/clear_refs", (int)daemon->pid);

	harness_write_file(path, "5"); /* the peak starts anew */
	free(path);
	return status_number(daemon, "VmRSS:");
}

size_t
daemon_memory_peak(struct daemon *daemon)
{
	return status_number(daemon, "VmHWM:");
}

size_t
daemon_threads(struct daemon *daemon)
{
	return status_number(daemon, "Threads:");
}

double
daemon_processor(struct daemon *daemon)
{
	char *path = harness_text("/proc/%d/stat", (int)daemon->pid);
	char *text = harness_read_file(path, NULL);
	const char *at = strrchr(text, ')');
	unsigned long user, system;

	ck_assert_ptr_nonnull(at);
	ck_assert_int_eq(sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
				&user, &system),
			 2);
	free(text);
	free(path);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

size_t
daemon_descriptors(struct daemon *daemon)
{
	char *path = harness_text("/proc/%d/fd", (int)daemon->pid);
	DIR *dir = opendir(path);
	struct dirent *entry;
	size_t count = 0;

	ck_assert_msg(dir != NULL, "%s: %s", path, strerror(errno));
	while ((entry = readdir(dir)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(dir);
	free(path);
	return count;
}

void
daemon_wait_descriptors(struct daemon *daemon, size_t most)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	size_t count;

	while ((count = daemon_descriptors(daemon)) > most) {
		ck_assert_msg(harness_now() < deadline, "%zu descriptors are open, not %zu",
			      count, most);
		harness_pause();
	}
}
