/*
 * listen: addresses, the backlog, and what happens when there is no more room for
 * connections.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"
#include "program.h"

#define RAW "sinks = { console = { type = \"console\"; format = \"raw\"; }; };\n"

static void
expect_output(struct daemon *daemon, const char *text)
{
	char *output = daemon_output(daemon, NULL);

	ck_assert_str_eq(output, text);
	free(output);
}

static bool
has_ipv6(void)
{
	struct sockaddr_in6 loopback = { .sin6_family = AF_INET6,
					 .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool has = fd != -1 && bind(fd, (struct sockaddr *)&loopback, sizeof loopback) == 0;

	if (fd != -1)
		close(fd);
	if (!has)
		harness_skip("no IPv6 on this host");
	return has;
}

START_TEST(ipv6)
{
	struct daemon *daemon;

	if (!has_ipv6())
		return;
	daemon = daemon_start(RAW "address = \"::1\";");
	ck_assert_int_eq(strncmp(daemon_address(daemon, "main"), "[::1]:", 6), 0);
	client_deliver(daemon_address(daemon, "main"), "six", 3, CLIENT_FIN);
	expect_output(daemon, "six");
	daemon_end(daemon);
}
END_TEST

/* A reload goes on with the socket that it has. */
START_TEST(ipv6_is_kept)
{
	struct daemon *daemon;
	char *address;

	if (!has_ipv6())
		return;
	daemon = daemon_start(RAW "address = [ \"::1\", \"127.0.0.1\" ];");
	address = harness_text("%s", daemon_address(daemon, "main"));
	daemon_reload(daemon, RAW "address = [ \"127.0.0.1\", \"::1\" ]; backlog = 77;");
	client_deliver(address, "six", 3, CLIENT_FIN);
	expect_output(daemon, "six");
	daemon_reload(daemon, RAW "address = \"127.0.0.1\";");
	client_wait_refused(address);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* "*" is a socket for IPv4 and one for IPv6. */
START_TEST(all_addresses)
{
	struct daemon *daemon;
	char *output;

	if (!has_ipv6())
		return;
	daemon = daemon_start("address = \"*\"; sinks = { console = { type = \"console\"; "
			      "format = \"json\"; }; };");
	client_deliver(daemon_address_at(daemon, "main", 0), "one", 3, CLIENT_FIN);
	client_deliver(daemon_address_at(daemon, "main", 1), "two", 3, CLIENT_FIN);
	output = daemon_output(daemon, NULL);
	ck_assert_ptr_nonnull(strstr(output, "\"peer\":\"127.0.0.1:"));
	ck_assert_ptr_nonnull(strstr(output, "\"peer\":\"[::1]:"));
	free(output);
	daemon_end(daemon);
}
END_TEST

START_TEST(several_listeners)
{
	struct daemon *daemon =
		daemon_start(RAW "listeners = { first = { address = \"127.0.0.1\"; port = 0; }; "
				 "second = { address = [ \"127.0.0.2\", \"127.0.0.3\" ]; "
				 "port = 0; }; };");

	client_deliver(daemon_address(daemon, "first"), "1", 1, CLIENT_FIN);
	ck_assert_int_eq(strncmp(daemon_address(daemon, "second"), "127.0.0.2:", 10), 0);
	client_deliver(daemon_address(daemon, "second"), "2", 1, CLIENT_FIN);
	client_deliver(daemon_address_at(daemon, "second", 1), "3", 1, CLIENT_FIN);
	expect_output(daemon, "123");
	daemon_end(daemon);
}
END_TEST

/* Two names of one path, by a link: neither listener is bound in the other's place. */
START_TEST(unix_socket_by_two_names)
{
	char *directory = harness_directory();
	char *link = harness_text("%s/link", directory);
	char *config = harness_text("%s/aliases.conf", directory), *text;
	struct program_result result;

	ck_assert_int_eq(symlink(directory, link), 0);
	text = harness_text("listeners = { one = { address = \"unix:%s/s\"; }; two = { address = "
			    "\"unix:%s/s\"; }; };", directory, link);
	harness_write_file(config, text);
	result = program_run("-c", config, NULL);
	ck_assert_int_eq(result.code, 71);
	ck_assert_ptr_nonnull(strstr(result.errors, "listener two: cannot bind unix:"));
	ck_assert_ptr_nonnull(strstr(result.errors, "another listener or program has it"));
	program_result_free(&result);
	free(text);
	free(config);
	free(link);
	free(directory);
}
END_TEST

/* Created, replaced when nobody listens on it any more, removed at the end. */
START_TEST(unix_socket)
{
	char *directory = harness_directory();
	char *path = harness_text("%s/socket", directory);
	char *config = harness_text("%s/second.conf", directory), *text;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct program_result result;
	struct daemon *daemon;
	struct stat st;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	close(fd); /* stale */
	daemon = daemon_start(RAW "address = \"unix:%s\";", path);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert(S_ISSOCK(st.st_mode));
	text = harness_text("unix:%s", path);
	ck_assert_str_eq(daemon_address(daemon, "main"), text);
	client_deliver(text, "local", 5, CLIENT_FIN);
	expect_output(daemon, "local");
	free(text);

	/* A second one does not take it away from the first. */
	text = harness_text("address = \"unix:%s\";", path);
	harness_write_file(config, text);
	result = program_run("-c", config, NULL);
	ck_assert_int_eq(result.code, 71);
	ck_assert_ptr_nonnull(strstr(result.errors, path));
	program_result_free(&result);
	client_deliver(daemon_address(daemon, "main"), "!", 1, CLIENT_FIN);
	expect_output(daemon, "local!");

	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_int_eq(stat(path, &st), -1);
	ck_assert_int_eq(errno, ENOENT);
	daemon_end(daemon);
	free(text);
	free(config);
	free(path);
	free(directory);
}
END_TEST

/* Address, port and reason are named. */
START_TEST(port_in_use)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof address;
	char *directory = harness_directory();
	char *config = harness_text("%s/cistern.conf", directory);
	char *text, *port;
	struct program_result result;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
	port = harness_text("%d", ntohs(address.sin_port));
	text = harness_text("address = \"127.0.0.1\"; port = %s;", port);
	harness_write_file(config, text);
	result = program_run("-c", config, NULL);
	ck_assert_int_eq(result.code, 71);
	ck_assert_msg(strstr(result.errors, "127.0.0.1") != NULL &&
			      strstr(result.errors, port) != NULL &&
			      strstr(result.errors, strerror(EADDRINUSE)) != NULL,
		      "%s", result.errors);
	harness_note("says: %.200s", result.errors);
	program_result_free(&result);
	close(fd);
	free(text);
	free(port);
	free(config);
	free(directory);
}
END_TEST

/* What the kernel says of the listening socket on a port: its backlog. */
static int
kernel_backlog(int port)
{
	char *command = harness_text("ss -Hltn 'sport = :%d'", port);
	FILE *ss = popen(command, "re");
	int backlog = -1;

	ck_assert_ptr_nonnull(ss);
	if (fscanf(ss, "LISTEN %*d %d", &backlog) != 1)
		backlog = -1;
	pclose(ss);
	free(command);
	return backlog;
}

START_TEST(backlog)
{
	struct daemon *daemon;
	char *text = harness_read_file("/proc/sys/net/core/somaxconn", NULL);
	int most = atoi(text);

	free(text);
	if (system("ss -V >/dev/null 2>&1") != 0) {
		harness_skip("ss is not installed");
		return;
	}
	daemon = daemon_start("backlog = 77;");
	ck_assert_int_eq(kernel_backlog(daemon_port(daemon, "main")), 77);
	ck_assert_uint_ge(daemon_count_log(daemon, "listening", "(backlog 77)"), 1);
	ck_assert_uint_eq(daemon_count_log(daemon, NULL, "somaxconn"), 0);
	daemon_end(daemon);

	daemon = daemon_start("backlog = 1000000;");
	ck_assert_int_eq(kernel_backlog(daemon_port(daemon, "main")), most);
	ck_assert_uint_ge(daemon_count_log(daemon, NULL, "somaxconn"), 1);
	daemon_end(daemon);
}
END_TEST

/* Whether the kernel looks now and then if this client of the daemon's is still there. */
static bool
is_kept_alive(struct daemon *daemon, int fd)
{
	struct sockaddr_in name;
	socklen_t size = sizeof name;
	char *command, line[512] = "";
	FILE *ss;

	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&name, &size), 0);
	command = harness_text("ss -Htno state established sport = :%d and dport = :%d",
			       daemon_port(daemon, "main"), ntohs(name.sin_port));
	ss = popen(command, "r");
	ck_assert_ptr_nonnull(ss);
	ck_assert_ptr_nonnull(fgets(line, sizeof line, ss));
	pclose(ss);
	free(command);
	return strstr(line, "timer:(keepalive") != NULL;
}

/* Connections keep what they began with. */
START_TEST(keepalive_changes)
{
	struct daemon *daemon;
	char *address;
	int fds[3], i;

	if (system("ss -V >/dev/null 2>&1") != 0) {
		harness_skip("ss is not installed");
		return;
	}
	daemon = daemon_start(RAW "keepalive = false; workers = 2;");
	address = harness_text("%s", daemon_address(daemon, "main"));
	for (i = 0; i < 3; i++) {
		fds[i] = client_connect(address);
		client_send_text(fds[i], "here");
		client_wait_read(fds[i]);
		daemon_reload(daemon, RAW "keepalive = %s; workers = 2;", i == 0 ? "true" : "false");
	}
	for (i = 0; i < 3; i++)
		ck_assert_int_eq(is_kept_alive(daemon, fds[i]), i == 1);
	for (i = 0; i < 3; i++)
		close(fds[i]);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* With no descriptor left for a connection the daemon waits, quietly, and goes on
 * within a second once there are some. */
START_TEST(descriptors_exhausted)
{
	const struct daemon_options options = { .descriptors = 64 };
	struct daemon *daemon = daemon_start_with(&options, RAW "workers = 1;");
	size_t lines, most, i;
	double processor, began;
	int fds[100];

	for (i = 0; i < 100; i++)
		fds[i] = client_connect(daemon_address(daemon, "main"));
	daemon_wait_log(daemon, "accept-failed", NULL, 1);
	most = daemon_descriptors(daemon);
	ck_assert_uint_ge(most, 50);
	lines = daemon_count_log(daemon, NULL, NULL);
	processor = daemon_processor(daemon);
	for (began = harness_now(); harness_now() < began + 1;)
		harness_pause();
	processor = daemon_processor(daemon) - processor;
	lines = daemon_count_log(daemon, NULL, NULL) - lines;
	harness_note("out of descriptors: %.2f s of processor time and %zu log lines in 1 s",
		     processor, lines);
	ck_assert_double_lt(processor, 0.2);
	ck_assert_uint_le(lines, 6);

	/* The last ones still wait in the backlog; their turn comes now. */
	began = harness_now();
	for (i = 0; i < 80; i++)
		close(fds[i]);
	client_send_text(fds[99], "at last");
	client_finish(fds[99]);
	client_expect(fds[99], "", CLIENT_FIN);
	harness_note("recovered in %.3f s", harness_now() - began);
	ck_assert_double_lt(harness_now() - began, HARNESS_SANITIZED ? 5 : 1.5);
	expect_output(daemon, "at last");
	for (i = 80; i < 99; i++)
		close(fds[i]);
	daemon_end(daemon);
}
END_TEST

/* Past max_connections clients wait in the backlog, their bytes unread, until one
 * of the others has gone. */
START_TEST(max_connections)
{
	struct daemon *daemon = daemon_start(
		"sinks = { console = { type = \"console\"; format = \"line\"; }; };"
		"max_connections = 2; framing = \"line\"; reply = \"receipt\"; workers = 1;");
	int fds[6], i;
	size_t descriptors;

	for (i = 0; i < 2; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		client_send_text(fds[i], "in\n");
		client_expect_ok(fds[i], 2);
	}
	descriptors = daemon_descriptors(daemon);
	for (i = 2; i < 6; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		client_send_text(fds[i], "waited\n");
	}
	for (i = 0; i < 20; i++) {
		client_send_text(fds[i % 2], "in\n");
		client_expect_ok(fds[i % 2], 2);
		/* One of them may have been accepted to wait inside. */
		ck_assert_uint_le(daemon_descriptors(daemon), descriptors + 1);
		free(daemon_wait_output(daemon, (size_t)(3 + i) * 3));
	}
	for (i = 2; i < 6; i++) {
		close(fds[i - 2]);
		client_expect_ok(fds[i], 6);
	}
	close(fds[4]);
	close(fds[5]);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 26);
	daemon_end(daemon);
}
END_TEST

/* Past it a client is reset, and only clients of that address. */
START_TEST(max_connections_per_address)
{
	struct daemon *daemon =
		daemon_start("max_connections_per_address = 2; framing = \"line\"; "
			     "reply = \"receipt\";");
	size_t descriptors = 0;
	int fds[4], i;

	for (i = 0; i < 2; i++) {
		fds[i] = client_connect(daemon_address(daemon, "main"));
		client_send_text(fds[i], "in\n");
		client_expect_ok(fds[i], 2);
	}
	descriptors = daemon_descriptors(daemon);
	fds[2] = client_connect(daemon_address(daemon, "main"));
	client_expect(fds[2], "", CLIENT_RST);
	fds[3] = client_try_connect(daemon_address(daemon, "main"), "127.0.0.9", 0);
	ck_assert_int_ne(fds[3], -1);
	client_send_text(fds[3], "elsewhere\n");
	client_expect_ok(fds[3], 9);
	/* A place that becomes free is given again. */
	close(fds[0]);
	daemon_wait_descriptors(daemon, descriptors);
	fds[2] = client_connect(daemon_address(daemon, "main"));
	client_send_text(fds[2], "again\n");
	client_expect_ok(fds[2], 5);
	for (i = 1; i < 4; i++)
		close(fds[i]);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ ipv6, 30 },
		{ ipv6_is_kept, 30 },
		{ keepalive_changes, 30 },
		{ all_addresses, 30 },
		{ several_listeners, 30 },
		{ unix_socket, 30 },
		{ unix_socket_by_two_names, 30 },
		{ port_in_use, 30 },
		{ backlog, 30 },
		{ descriptors_exhausted, 60 },
		{ max_connections, 60 },
		{ max_connections_per_address, 60 },
	};

	return harness_run("listen", tests, sizeof tests / sizeof tests[0], argc, argv);
}
