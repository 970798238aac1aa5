/*
 * reload: HUP and all else: sinks, refused files, what is kept, what is freed.
 */
#include <netinet/in.h>
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

#define RECEIPTS "workers = 2; framing = \"line\"; reply = \"receipt\";\n"
#define FILE_SINK(settings) "deliver = \"f\"; sinks = { f = { type = \"file\"; " \
			    "path = \"@DIR@/file\"; " settings " }; };\n"
#define SPOOL_SINK(settings) "deliver = \"s\"; sinks = { s = { type = \"spool\"; min_free = 0; " \
			     "directory = \"@DIR@/spool\"; " settings " }; };\n"

static char *
read_in(struct daemon *daemon, const char *name)
{
	char *path = harness_text("%s/%s", daemon->directory, name);
	char *text = harness_read_file(path, NULL);

	free(path);
	return text;
}

static void
send_line(int fd, const char *text)
{
	char *line = harness_text("%s\n", text);

	client_send_text(fd, line);
	client_expect_ok(fd, strlen(text));
	free(line);
}

static void
end(int fd)
{
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
}

static size_t
count(const char *text, const char *what)
{
	size_t n = 0;

	for (; (text = strstr(text, what)) != NULL; text += strlen(what))
		n++;
	return n;
}

/* The file's format changes again and again while connections that began with each
 * go on writing: every record is there once, whole, and as its connection began. */
START_TEST(format_of_a_file_changes)
{
	struct daemon *daemon = daemon_start(RECEIPTS FILE_SINK("format = \"json\";"));
	char *address = harness_text("%s", daemon_address(daemon, "main")), *text, *name;
	int fds[12], i, k;

	for (i = 0; i < 12; i++) {
		fds[i] = client_connect(address);
		for (k = 0; k <= i; k++) {
			name = harness_text("connection %d, message %d.", k, i);
			send_line(fds[k], name);
			free(name);
		}
		/* Some are in the sink's hands at that moment. */
		client_send_text(fds[i], "in flight\n");
		if (i % 2 == 0)
			daemon_reload(daemon, RECEIPTS FILE_SINK("format = \"line\";"));
		else
			daemon_reload(daemon,
				      RECEIPTS FILE_SINK("format = \"json\"; sync = false;"));
		client_expect_ok(fds[i], 9);
	}
	for (i = 0; i < 12; i++)
		end(fds[i]);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 12 * 13 / 2 + 12);
	text = read_in(daemon, "file");
	ck_assert_uint_eq(count(text, "\n"), 12 * 13 / 2 + 12);
	ck_assert_uint_eq(count(text, "in flight"), 12);
	for (i = 0; i < 12; i++)
		for (k = 0; k <= i; k++) {
			name = harness_text(k % 2 == 0 ? "\"data\":\"connection %d, message %d.\"}\n"
						       : "\nconnection %d, message %d.\n",
					    k, i);
			ck_assert_msg(count(text, name) == 1, "%s: %s", name, text);
			free(name);
		}
	free(text);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* A sink that is gone is closed with its last connection, and not before. */
START_TEST(sink_removed)
{
	struct daemon *daemon = daemon_start(RECEIPTS FILE_SINK(""));
	size_t descriptors = daemon_descriptors(daemon), threads = daemon_threads(daemon);
	char *address = harness_text("%s", daemon_address(daemon, "main")), *text;
	int old = client_connect(address), new;

	send_line(old, "one");
	daemon_reload(daemon, RECEIPTS SPOOL_SINK(""));
	new = client_connect(address);
	send_line(new, "two");
	send_line(old, "three");
	end(old);
	end(new);
	daemon_reload(daemon, RECEIPTS FILE_SINK(""));
	new = client_connect(address);
	send_line(new, "four");
	end(new);
	daemon_wait_descriptors(daemon, descriptors);
	ck_assert_uint_le(daemon_threads(daemon), threads);
	text = read_in(daemon, "file");
	ck_assert_uint_eq(count(text, "\n"), 3);
	ck_assert_uint_eq(count(text, "two"), 0);
	free(text);
	ck_assert_uint_eq(daemon_count_log(daemon, "reloaded", "sinks opened: s; sinks closed: f"), 1);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* What is read in the file is all wrong, or cannot be opened: nothing changes. */
START_TEST(refused)
{
	struct daemon *daemon = daemon_start(RECEIPTS FILE_SINK(""));
	char *address = harness_text("%s", daemon_address(daemon, "main")), *text;
	size_t descriptors, threads = daemon_threads(daemon);
	int old = client_connect(address), port, taken = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in in = { .sin_family = AF_INET,
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof in;

	ck_assert_int_eq(bind(taken, (struct sockaddr *)&in, sizeof in), 0);
	ck_assert_int_eq(listen(taken, 1), 0);
	ck_assert_int_eq(getsockname(taken, (struct sockaddr *)&in, &len), 0);
	port = ntohs(in.sin_port);
	send_line(old, "before");
	descriptors = daemon_descriptors(daemon);

	daemon_reload_refused(daemon, "bogus = 1;\nport = \"x\";\ndeliver = \"none\";\n");
	ck_assert_uint_eq(daemon_count_log(daemon, "reload-refused", "cistern.conf:1: "), 1);
	ck_assert_uint_eq(daemon_count_log(daemon, "reload-refused", "cistern.conf:2: "), 1);
	ck_assert_uint_eq(daemon_count_log(daemon, "reload-refused", "cistern.conf:3: "), 1);
	/* A sink. */
	daemon_reload_refused(daemon, "listeners = { main = {}; fresh = {}; }; deliver = \"t\"; "
		"sinks = { s = { type = \"spool\"; directory = \"@DIR@/spool\"; }; "
		"t = { type = \"file\"; path = \"@DIR@/none/file\"; }; };");
	/* An address. */
	daemon_reload_refused(daemon, FILE_SINK("format = \"line\";") "listeners = { "
		"main = { port = 0; }; fresh = { port = 0; }; taken = { port = %d; }; };", port);
	ck_assert_uint_eq(daemon_count_log(daemon, "listen-failed", "taken"), 1);
	/* The spill directory, the log. */
	daemon_reload_refused(daemon, "spill_directory = \"@DIR@/cistern.conf\";");
	daemon_reload_refused(daemon, FILE_SINK("format = \"raw\";")
		"log = { target = \"@DIR@/none/log\"; }; listeners = { fresh = {}; };");

	ck_assert_uint_eq(daemon_descriptors(daemon), descriptors);
	ck_assert_uint_eq(daemon_threads(daemon), threads);
	ck_assert_uint_eq(daemon_count_log(daemon, "listening", NULL), 1);
	send_line(old, "after");
	end(old);
	old = client_connect(address);
	send_line(old, "new");
	end(old);
	text = read_in(daemon, "file");
	ck_assert_uint_eq(count(text, "{\"id\""), 3);
	free(text);
	daemon_reload(daemon, RECEIPTS FILE_SINK(""));
	ck_assert_uint_eq(daemon_count_log(daemon, "reloaded", "as they were"), 1);
	close(taken);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* Many generations, some of them kept alive by a connection, go without a trace. */
START_TEST(generations_are_freed)
{
	struct daemon *daemon = daemon_start(RECEIPTS SPOOL_SINK(""));
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	size_t descriptors, threads;
	int fds[5], i;

	send_line(fds[0] = client_connect(address), "x");
	end(fds[0]);
	descriptors = daemon_descriptors(daemon);
	threads = daemon_threads(daemon);
	for (i = 0; i < 5; i++) {
		fds[i] = client_connect(address);
		send_line(fds[i], "x");
		daemon_reload(daemon, RECEIPTS SPOOL_SINK("sync = false;")
			"listeners = { main = {}; other = {}; };");
		daemon_reload(daemon, RECEIPTS SPOOL_SINK("mode = \"06%d0\";"), i);
	}
	for (i = 0; i < 5; i++)
		send_line(fds[i], "y");
	ck_assert_uint_gt(daemon_threads(daemon), threads + 5);
	for (i = 0; i < 5; i++)
		end(fds[i]);
	daemon_wait_descriptors(daemon, descriptors);
	ck_assert_uint_le(daemon_threads(daemon), threads);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 11);
	free(address);
	daemon_end(daemon);
}
END_TEST

START_TEST(several_at_once)
{
	struct daemon *daemon = daemon_start(RECEIPTS FILE_SINK(""));
	int i, fd = client_connect(daemon_address(daemon, "main"));

	for (i = 0; i < 50; i++)
		daemon_signal(daemon, SIGHUP);
	send_line(fd, "x");
	end(fd);
	daemon_wait_log(daemon, "reloaded", NULL, 1);
	daemon_end(daemon);
}
END_TEST

START_TEST(what_needs_a_restart)
{
	struct daemon *daemon = daemon_start("workers = 1;");
	size_t threads = daemon_threads(daemon);

	daemon_reload(daemon, "workers = 3; pid_file = \"@DIR@/pid\"; memory_limit = \"1M\";");
	ck_assert_uint_eq(daemon_count_log(daemon, "reload-partly", NULL), 2);
	ck_assert_uint_eq(daemon_count_log(daemon, "reload-partly", "workers stays 1"), 1);
	ck_assert_uint_eq(daemon_threads(daemon), threads);
	daemon_end(daemon);
}
END_TEST

/* Another file, another level. */
START_TEST(log_changes)
{
	struct daemon *daemon = daemon_start("shutdown_timeout = 1;");
	char *path = harness_text("%s/other", daemon->directory), *text;
	double deadline = harness_now() + HARNESS_DEADLINE;

	text = harness_text("port = 0; address = \"127.0.0.1\"; spill_directory = \"%s\"; "
			    "log = { target = \"%s\"; level = \"debug\"; format = \"json\"; };",
			    daemon->directory, path);
	harness_write_file(daemon->config, text);
	free(text);
	daemon_signal(daemon, SIGHUP);
	for (;;) {
		text = harness_read_file(path, NULL);
		if (strstr(text, "\"reloaded\"") != NULL)
			break;
		free(text);
		ck_assert(harness_now() < deadline);
		harness_pause();
	}
	free(text);
	client_deliver(daemon_address(daemon, "main"), "x", 1, CLIENT_FIN);
	daemon_reload(daemon, "shutdown_timeout = 2;");
	text = harness_read_file(path, NULL);
	ck_assert_uint_ge(count(text, "connection-open"), 1);
	free(text);
	free(path);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ format_of_a_file_changes, 30 }, { sink_removed, 30 },
		{ refused, 30 },		  { generations_are_freed, 30 },
		{ several_at_once, 30 },	  { what_needs_a_restart, 30 },
		{ log_changes, 30 },
	};

	return harness_run("reload", tests, sizeof tests / sizeof tests[0], argc, argv);
}
