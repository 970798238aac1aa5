/*
 * signal: stopping in order and at once, and what the other signals do.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define RAW "sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"

static void
expect_output(struct daemon *daemon, const char *text)
{
	char *output = daemon_output(daemon, NULL);

	ck_assert_str_eq(output, text);
	free(output);
}

static void
wait_refused(struct daemon *daemon)
{
	client_wait_refused(daemon_address(daemon, "main"));
}

/* A message in progress may still finish; nobody new is let in. */
START_TEST(term_within_message)
{
	struct daemon *daemon = daemon_start(RAW);
	int fd = client_connect(daemon_address(daemon, "main"));

	client_send_text(fd, "first half, ");
	client_wait_read(fd);
	daemon_signal(daemon, SIGTERM);
	wait_refused(daemon);
	client_send_text(fd, "second half");
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	expect_output(daemon, "first half, second half");
	ck_assert_uint_eq(daemon->account.accepted, 1);
	ck_assert_uint_eq(daemon->account.discarded, 0);
	daemon_end(daemon);
}
END_TEST

/* Past shutdown_timeout it is discarded, and its sender told so. */
START_TEST(term_past_timeout)
{
	struct daemon *daemon = daemon_start(RAW "shutdown_timeout = 1;");
	int fd = client_connect(daemon_address(daemon, "main"));
	double began;

	client_send_text(fd, "never finished");
	client_wait_read(fd);
	began = harness_now();
	daemon_signal(daemon, SIGTERM);
	client_expect(fd, "", CLIENT_RST);
	ck_assert_double_ge(harness_now() - began, 0.9);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	harness_note("stopped after %.2f s of a shutdown_timeout of 1 s", harness_now() - began);
	ck_assert_double_lt(harness_now() - began, HARNESS_SANITIZED ? 10 : 3);
	expect_output(daemon, "");
	ck_assert_uint_eq(daemon->account.accepted, 0);
	ck_assert_uint_eq(daemon->account.discarded, 1);
	ck_assert_uint_ge(daemon_count_log(daemon, NULL, "shutdown"), 1);
	daemon_end(daemon);
}
END_TEST

START_TEST(second_term)
{
	struct daemon *daemon = daemon_start(RAW "shutdown_timeout = 300;");
	int fd = client_connect(daemon_address(daemon, "main"));
	double began;

	client_send_text(fd, "never finished");
	client_wait_read(fd);
	daemon_signal(daemon, SIGTERM);
	wait_refused(daemon);
	began = harness_now();
	daemon->at_once = true;
	daemon_signal(daemon, SIGTERM);
	client_expect(fd, "", CLIENT_RST);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_double_lt(harness_now() - began, HARNESS_SANITIZED ? 10 : 2);
	expect_output(daemon, "");
	daemon_end(daemon);
}
END_TEST

/* Where all was accepted, and the client only has not closed yet, it keeps its orderly close. */
START_TEST(second_term_after_the_close)
{
	struct daemon *daemon = daemon_start(RAW "framing = \"line\"; max_messages = 1; shutdown_timeout = 300;");
	int fd = client_connect(daemon_address(daemon, "main")), error = 0;
	socklen_t size = sizeof error;
	char byte;
	size_t len;

	client_send_text(fd, "all\n");
	ck_assert_int_eq(client_receive(fd, &byte, 1, &len, HARNESS_DEADLINE), CLIENT_FIN);
	daemon_signal(daemon, SIGTERM);
	wait_refused(daemon);
	daemon->at_once = true;
	daemon_signal(daemon, SIGTERM);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
	ck_assert_int_eq(error, 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	close(fd);
	daemon_end(daemon);
}
END_TEST

/* SIGINT is the same; connections without a message in progress do not hold it up.  One
 * that has had none at all is reset: its client may have sent one at this very moment,
 * and would take an orderly close for the receipt. */
START_TEST(int_with_idle_connections)
{
	struct daemon *daemon = daemon_start(RAW "shutdown_timeout = 300; listeners = { main = { }; "
						 "told = { reply = \"receipt\"; }; "
						 "lines = { framing = \"line\"; }; };");
	int fds[10], told = client_connect(daemon_address(daemon, "told"));
	int lines = client_connect(daemon_address(daemon, "lines")), i;

	for (i = 0; i < 10; i++)
		fds[i] = client_connect(daemon_address(daemon, "main"));
	/* All are accepted once one that came later has been served. */
	client_deliver(daemon_address(daemon, "main"), "x", 1, CLIENT_FIN);
	client_send_text(lines, "y\n");
	free(daemon_wait_output(daemon, 2));
	daemon_signal(daemon, SIGINT);
	for (i = 0; i < 10; i++)
		client_expect(fds[i], "", CLIENT_RST);
	client_expect(told, "", CLIENT_FIN); /* no receipt, no message */
	client_expect(lines, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	daemon_end(daemon);
}
END_TEST

/* Messages that their sinks still have at SIGTERM are accepted first. */
START_TEST(term_with_blocked_console)
{
	const struct daemon_options options = { .pipe = true };
	struct daemon *daemon = daemon_start_with(&options, RAW);
	size_t len = (size_t)1 << 20;
	char *bytes = malloc(len), *printed = malloc(len);
	int fd = client_connect(daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(bytes);
	ck_assert_ptr_nonnull(printed);
	memset(bytes, 'b', len);
	client_send(fd, bytes, len);
	client_finish(fd);
	client_wait_read(fd);
	daemon_signal(daemon, SIGTERM);
	wait_refused(daemon);
	daemon_read_pipe(daemon, printed, len);
	ck_assert_int_eq(memcmp(bytes, printed, len), 0);
	client_expect(fd, "", CLIENT_FIN);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
	free(bytes);
	free(printed);
}
END_TEST

/* With the console blocked for good, shutdown_timeout still holds. */
START_TEST(term_past_timeout_blocked_console)
{
	const struct daemon_options options = { .pipe = true };
	struct daemon *daemon = daemon_start_with(&options, RAW "shutdown_timeout = 1;");
	size_t len = (size_t)1 << 20;
	char *bytes = malloc(len);
	int fd = client_connect(daemon_address(daemon, "main"));

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'b', len);
	client_send(fd, bytes, len);
	client_finish(fd);
	client_wait_read(fd);
	daemon_signal(daemon, SIGTERM);
	client_expect(fd, "", CLIENT_RST);
	daemon->at_once = true;
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 0);
	daemon_end(daemon);
	free(bytes);
}
END_TEST

START_TEST(pipe_and_hup_survived)
{
	struct daemon *daemon = daemon_start(RAW);
	static const int numbers[] = { SIGPIPE, SIGHUP, SIGPIPE };
	size_t i;

	for (i = 0; i < 3; i++) {
		daemon_signal(daemon, numbers[i]);
		client_deliver(daemon_address(daemon, "main"), "x", 1, CLIENT_FIN);
	}
	expect_output(daemon, "xxx");
	daemon_end(daemon);
}
END_TEST

static void
reopens(int signal)
{
	const struct daemon_options options = { .log_file = true };
	struct daemon *daemon = daemon_start_with(&options, RAW);
	char *old = harness_text("%s.1", daemon->log), *text;
	double deadline = harness_now() + HARNESS_DEADLINE;
	struct stat st;

	ck_assert_int_eq(rename(daemon->log, old), 0);
	daemon_signal(daemon, signal);
	while (stat(daemon->log, &st) == -1) {
		ck_assert_msg(harness_now() < deadline, "the log was not opened anew");
		harness_pause();
	}
	ck_assert_int_eq(daemon_stop(daemon), 0); /* finds the accounts in the new one */
	text = harness_read_file(old, NULL);
	ck_assert_ptr_nonnull(strstr(text, "\"event\":\"ready\""));
	ck_assert_ptr_null(strstr(text, "\"event\":\"stopped\""));
	free(text);
	free(old);
	daemon_end(daemon);
}

START_TEST(usr1_reopens_log)
{
	reopens(SIGUSR1);
}
END_TEST

/* logrotate's files often send it. */
START_TEST(hup_reopens_log)
{
	reopens(SIGHUP);
}
END_TEST

/* Who reads the console has gone: messages fail, and their senders learn it. */
START_TEST(console_gone)
{
	const struct daemon_options options = { .pipe = true };
	struct daemon *daemon = daemon_start_with(&options, RAW "reply = \"receipt\";");
	char line[256];
	int i, fd;

	close(daemon->pipe);
	daemon->pipe = -1;
	for (i = 0; i < 3; i++) {
		fd = client_connect(daemon_address(daemon, "main"));
		client_send_text(fd, "to nobody");
		client_finish(fd);
		client_receive_line(fd, line, sizeof line);
		ck_assert_msg(strncmp(line, "RETRY ", 6) == 0, "%s", line);
		client_expect(fd, "", CLIENT_RST);
	}
	harness_note("says: %.100s", line);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.failed, 3);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ term_within_message, 30 },
		{ term_past_timeout, 30 },
		{ second_term, 30 },
		{ second_term_after_the_close, 30 },
		{ int_with_idle_connections, 30 },
		{ term_with_blocked_console, 30 },
		{ term_past_timeout_blocked_console, 30 },
		{ pipe_and_hup_survived, 30 },
		{ usr1_reopens_log, 30 }, { hup_reopens_log, 30 },
		{ console_gone, 30 },
	};

	return harness_run("signal", tests, sizeof tests / sizeof tests[0], argc, argv);
}
