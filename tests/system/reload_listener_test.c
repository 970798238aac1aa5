/*
 * reload_listener: HUP and the listeners: what is kept, added, removed and changed,
 * while clients are connected or wait to be.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "daemon.h"
#include "harness.h"

#define RAW "sinks = { console = { type = \"console\"; format = \"line\"; }; }; workers = 1;\n"
#define RECEIPTS RAW "framing = \"line\"; reply = \"receipt\";\n"

static void
expect_output(struct daemon *daemon, const char *text)
{
	char *output = daemon_wait_output(daemon, strlen(text));

	ck_assert_str_eq(output, text);
	free(output);
}

/* A connection whose message is under way; it is accepted, and holds a place. */
static int
begin(const char *address, const char *text)
{
	int fd = client_connect(address);

	client_send_text(fd, text);
	return fd;
}

static void
finish(int fd)
{
	client_finish(fd);
	client_expect(fd, "", CLIENT_FIN);
}

/* Of three clients one is served, one waits for its place, one is in the backlog: none
 * of them notices that settings, and then the name, change. */
START_TEST(backlog_is_kept)
{
	struct daemon *daemon = daemon_start(RAW "max_connections = 1;");
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int port = daemon_port(daemon, "main"), fds[3], i;
	static const char *const texts[] = { "a", "b", "c" };

	for (i = 0; i < 3; i++) {
		fds[i] = begin(address, texts[i]);
		if (i == 0)
			client_wait_read(fds[0]);
	}
	daemon_reload(daemon, RAW "max_connections = 1; buffer_size = 4096; backlog = 5;");
	daemon_reload(daemon, RAW "listeners = { other = { port = %d; max_connections = 1; }; };",
		      port);
	for (i = 0; i < 3; i++)
		finish(fds[i]);
	expect_output(daemon, "a\nb\nc\n");
	client_deliver(address, "d", 1, CLIENT_FIN);
	ck_assert_int_eq(daemon_port(daemon, "other"), port);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 4);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* The same for an address that goes: who had connected is served. */
START_TEST(backlog_of_removed_is_served)
{
	struct daemon *daemon = daemon_start(RAW "max_connections = 1; listeners = { main = {}; "
						 "gone = {}; };");
	char *address = harness_text("%s", daemon_address(daemon, "gone"));
	int fds[6], i;

	for (i = 0; i < 6; i++) {
		fds[i] = begin(address, "x");
		if (i == 0)
			client_wait_read(fds[0]);
	}
	daemon_reload(daemon, RAW "max_connections = 1; listeners = { main = {}; };");
	for (i = 0; i < 6; i++)
		client_wait_read(fds[i]);
	client_wait_refused(address);
	for (i = 5; i >= 0; i--)
		finish(fds[i]);
	client_deliver(daemon_address(daemon, "main"), "y", 1, CLIENT_FIN);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	/* What a listener that is gone has counted is not forgotten. */
	ck_assert_uint_eq(daemon->account.received, 7);
	ck_assert_uint_eq(daemon->account.accepted, 7);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* Nobody is reset who came in the instant in which the address went. */
START_TEST(removed_under_fire)
{
	struct daemon *daemon = daemon_start(RAW "listeners = { main = {}; gone = {}; };");
	char *address = harness_text("%s", daemon_address(daemon, "gone"));
	unsigned served = 0;
	int fd;

	for (;;) {
		if (served == 20) {
			char *text = harness_text(RAW "listeners = { main = { port = 0; }; };\n"
					"address = \"127.0.0.1\"; spill_directory = \"%s\";\n"
					"log = { target = \"stderr\"; format = \"json\"; };\n",
					daemon->directory);

			harness_write_file(daemon->config, text);
			free(text);
			daemon_signal(daemon, SIGHUP);
		}
		fd = client_try_connect(address, NULL, 0);
		if (fd == -1)
			break;
		client_send_text(fd, "z");
		finish(fd);
		served++;
	}
	ck_assert_uint_ge(served, 20);
	harness_note("%u clients were served until it was closed", served);
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, served);
	free(address);
	daemon_end(daemon);
}
END_TEST

START_TEST(added_and_removed)
{
	struct daemon *daemon = daemon_start(RAW "listeners = { one = {}; };");
	char *one = harness_text("%s", daemon_address(daemon, "one"));

	daemon_reload(daemon, RAW "listeners = { one = {}; two = {}; };");
	client_deliver(one, "1", 1, CLIENT_FIN);
	client_deliver(daemon_address(daemon, "two"), "2", 1, CLIENT_FIN);
	daemon_reload(daemon, RAW "listeners = { two = {}; };");
	client_wait_refused(one);
	client_deliver(daemon_address(daemon, "two"), "3", 1, CLIENT_FIN);
	expect_output(daemon, "1\n2\n3\n");
	ck_assert_uint_eq(daemon_count_log(daemon, "reloaded", "listeners added: two"), 1);
	ck_assert_uint_eq(daemon_count_log(daemon, "reloaded", "listeners removed: one"), 1);
	free(one);
	daemon_end(daemon);
}
END_TEST

/* "*" gives way to one address of it, on the same port, and comes back. */
START_TEST(address_within_address)
{
	struct daemon *daemon = daemon_start(RAW "address = \"0.0.0.0\";");
	int port = daemon_port(daemon, "main"), i;
	char *address = harness_text("127.0.0.1:%d", port);

	for (i = 0; i < 3; i++) {
		daemon_reload(daemon, RAW "address = \"127.0.0.1\"; port = %d;", port);
		client_deliver(address, "x", 1, CLIENT_FIN);
		daemon_reload(daemon, RAW "address = \"0.0.0.0\"; port = %d;", port);
		client_deliver(address, "x", 1, CLIENT_FIN);
	}
	expect_output(daemon, "x\nx\nx\nx\nx\nx\n");
	free(address);
	daemon_end(daemon);
}
END_TEST

/* A connection keeps the framing and the replies that it began with. */
START_TEST(connections_keep_their_settings)
{
	struct daemon *daemon = daemon_start(RECEIPTS);
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int old = begin(address, "first ha"), new;

	client_wait_read(old);
	daemon_reload(daemon, RAW "framing = \"netstring\"; max_message_size = 3;");
	new = begin(address, "3:new,");
	client_finish(new);
	client_expect(new, "", CLIENT_FIN);
	client_send_text(old, "lf\n");
	client_expect_ok(old, 10);
	client_send_text(old, "4:not,\n");
	client_expect_ok(old, 6);
	finish(old);
	expect_output(daemon, "new\nfirst half\n4:not,\n");
	free(address);
	daemon_end(daemon);
}
END_TEST

/* Connections of before count under a limit of now; a place of theirs goes to one that
 * waits under the new one. */
START_TEST(limits_go_on)
{
	struct daemon *daemon = daemon_start(RAW "max_connections_per_address = 9;");
	char *address = harness_text("%s", daemon_address(daemon, "main"));
	int one = begin(address, "1"), two = begin(address, "2"), three;

	client_wait_read(one);
	client_wait_read(two);
	daemon_reload(daemon, RAW "max_connections = 2;");
	three = begin(address, "3");
	daemon_reload(daemon, RAW "max_connections = 2; max_connections_per_address = 9;");
	client_wait_unread(three, 1);
	expect_output(daemon, "");
	finish(one);
	client_wait_read(three);
	finish(three);
	expect_output(daemon, "1\n3\n");
	/* Only what was counted when it came counts now: 2, but not 3. */
	daemon_reload(daemon, RAW "max_connections_per_address = 2;");
	three = begin(address, "4");
	client_wait_read(three);
	client_expect(client_connect(address), "", CLIENT_RST);
	finish(three);
	finish(two);
	/* Without the limit the one that waits need not. */
	daemon_reload(daemon, RAW "max_connections = 1;");
	one = begin(address, "5");
	client_wait_read(one);
	two = begin(address, "6");
	daemon_reload(daemon, RAW);
	client_wait_read(two);
	finish(two);
	finish(one);
	expect_output(daemon, "1\n3\n4\n2\n6\n5\n");
	free(address);
	daemon_end(daemon);
}
END_TEST

START_TEST(unix_socket)
{
	struct daemon *daemon = daemon_start(
		RAW "address = [ \"127.0.0.1\", \"unix:@DIR@/socket\" ];");
	char *path = harness_text("%s/socket", daemon->directory);
	char *address = harness_text("unix:%s", path);
	int fd = begin(address, "lo");

	client_wait_read(fd);
	daemon_reload(daemon, RAW "buffer_size = 512; address = \"unix:@DIR@/socket\";");
	client_deliver(address, "one", 3, CLIENT_FIN);
	daemon_reload(daemon, RAW);
	ck_assert_int_eq(access(path, F_OK), -1);
	client_send_text(fd, "cal");
	finish(fd);
	daemon_reload(daemon, RAW "address = \"unix:@DIR@/socket\";");
	client_deliver(address, "two", 3, CLIENT_FIN);
	expect_output(daemon, "one\nlocal\ntwo\n");
	ck_assert_int_eq(daemon_stop(daemon), 0);
	ck_assert_int_eq(access(path, F_OK), -1);
	free(path);
	free(address);
	daemon_end(daemon);
}
END_TEST

/* Stopping while addresses are being left, and asked to read the file again. */
START_TEST(stop_in_the_midst)
{
	struct daemon *daemon = daemon_start(RAW "listeners = { main = {}; gone = {}; };");
	int fd = begin(daemon_address(daemon, "gone"), "x");

	client_wait_read(fd);
	daemon_reload(daemon, RAW "listeners = { main = {}; };");
	daemon_signal(daemon, SIGTERM);
	daemon_wait_log(daemon, "stopping", NULL, 1);
	daemon_signal(daemon, SIGHUP);
	daemon_wait_log(daemon, "reload-refused", "stops", 1);
	client_wait_refused(daemon_address(daemon, "main"));
	client_wait_refused(daemon_address(daemon, "gone"));
	finish(fd);
	ck_assert_int_eq(daemon_wait(daemon), 0);
	ck_assert_uint_eq(daemon->account.accepted, 1);
	daemon_end(daemon);
}
END_TEST

int
main(int argc, char **argv)
{
	const struct harness_test tests[] = {
		{ backlog_is_kept, 30 },	{ backlog_of_removed_is_served, 30 },
		{ removed_under_fire, 30 },	{ added_and_removed, 30 },
		{ address_within_address, 30 }, { connections_keep_their_settings, 30 },
		{ limits_go_on, 30 },		{ unix_socket, 30 },
		{ stop_in_the_midst, 30 },
	};

	return harness_run("reload_listener", tests, sizeof tests / sizeof tests[0], argc, argv);
}
