/*
 * Tests of base/systemd: against a datagram socket of the test's own, and with
 * this program run again as what the manager starts (see report_descriptors).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/systemd.h"
#include "base/utf8.h"
#include "unit.h"

#define FIRST_FD 3
#define MOST_FDS 8

static char directory[256], path[300];
static int manager = -1; /* the socket that systemd would read */

/* ---------------------------------------------------------------- telling */

static void
listen_as_manager(const char *name)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));

	memcpy(un.sun_path, name, strlen(name));
	if (name[0] == '@')
		un.sun_path[0] = '\0';
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ne(manager, -1);
	ck_assert_int_eq(bind(manager, (struct sockaddr *)&un, len), 0);
}

/* The next datagram, which must be there already. */
static const char *
heard(void)
{
	static char text[1024];
	ssize_t len = recv(manager, text, sizeof text - 1, MSG_DONTWAIT);

	if (len == -1)
		return "(nothing)";
	text[len] = '\0';
	return text;
}

static void
setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(directory, sizeof directory, "%s/systemd.XXXXXX", tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/notify", directory);
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", path, 1), 0);
	unsetenv("WATCHDOG_USEC");
	unsetenv("WATCHDOG_PID");
}

static void
teardown(void)
{
	if (manager != -1)
		close(manager);
	manager = -1;
	unlink(path);
	rmdir(directory);
}

START_TEST(changes_of_state)
{
	struct systemd systemd;
	char with_pid[64];

	listen_as_manager(path);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	ck_assert_int_eq(systemd_ready(&systemd, false), 0);
	ck_assert_str_eq(heard(), "READY=1");
	ck_assert_int_eq(systemd_ready(&systemd, true), 0);
	snprintf(with_pid, sizeof with_pid, "READY=1\nMAINPID=%ld", (long)getpid());
	ck_assert_str_eq(heard(), with_pid);
	ck_assert_int_eq(systemd_watchdog(&systemd), 0);
	ck_assert_str_eq(heard(), "WATCHDOG=1");
	ck_assert_int_eq(systemd_stopping(&systemd, 0), 0);
	ck_assert_str_eq(heard(), "STOPPING=1");
	ck_assert_int_eq(systemd_stopping(&systemd, 33000000), 0);
	ck_assert_str_eq(heard(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=33000000");
	ck_assert_str_eq(heard(), "(nothing)");
	systemd_close(&systemd);
	ck_assert_int_eq(systemd_ready(&systemd, false), 0);
	ck_assert_str_eq(heard(), "(nothing)");
}
END_TEST

START_TEST(reloading_and_its_time_are_one_datagram)
{
	struct systemd systemd;
	unsigned long long before, told, after;
	int end = 0;

	listen_as_manager(path);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	before = clock_now();
	ck_assert_int_eq(systemd_reloading(&systemd), 0);
	after = clock_now();
	ck_assert_int_eq(sscanf(heard(), "RELOADING=1\nMONOTONIC_USEC=%llu%n", &told, &end), 1);
	ck_assert_int_gt(end, 0);
	ck_assert_uint_ge(told, before);
	ck_assert_uint_le(told, after);
	systemd_close(&systemd);
}
END_TEST

START_TEST(abstract_socket)
{
	struct systemd systemd;
	char name[64];

	snprintf(name, sizeof name, "@cistern-test-%ld", (long)getpid());
	ck_assert_int_eq(setenv("NOTIFY_SOCKET", name, 1), 0);
	listen_as_manager(name);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	ck_assert_int_eq(systemd_ready(&systemd, false), 0);
	ck_assert_str_eq(heard(), "READY=1");
	systemd_close(&systemd);
}
END_TEST

START_TEST(status_is_one_line)
{
	struct systemd systemd;
	char expected[408], much[1001];
	int i;

	listen_as_manager(path);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	ck_assert_int_eq(systemd_status(&systemd, "%d connections\nREADY=1\x1b", 12), 0);
	ck_assert_str_eq(heard(), "STATUS=12 connections READY=1 ");

	memset(much, 'x', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	ck_assert_int_eq(systemd_status(&systemd, "%s", much), 0);
	snprintf(expected, sizeof expected, "STATUS=%.400s", much);
	ck_assert_str_eq(heard(), expected);

	/* Each character has two bytes; the limit is in the middle of one. */
	for (i = 1; i < 999; i += 2)
		memcpy(much + i, "\xc3\xa4", 2);
	much[999] = '\0';
	ck_assert_int_eq(systemd_status(&systemd, "%s", much), 0);
	snprintf(expected, sizeof expected, "STATUS=%.399s", much);
	ck_assert_str_eq(heard(), expected);

	/* Three bytes each, and each place that the limit may be in. */
	for (int before = 0; before < 3; before++) {
		struct utf8 utf8 = {0};
		const char *text;

		memset(much, 'x', (size_t)before);
		for (i = before; i < 990; i += 3)
			memcpy(much + i, "\xe2\x82\xac", 3);
		much[i] = '\0';
		ck_assert_int_eq(systemd_status(&systemd, "%s", much), 0);
		text = heard() + strlen("STATUS=");
		ck_assert_uint_ge(strlen(text), 400 - 3);
		ck_assert_uint_le(strlen(text), 400);
		ck_assert(utf8_feed(&utf8, (const unsigned char *)text, strlen(text)));
		ck_assert(utf8_is_whole(&utf8));
	}
	systemd_close(&systemd);
}
END_TEST

START_TEST(children_inherit_nothing)
{
	struct systemd systemd;

	ck_assert_int_eq(setenv("WATCHDOG_USEC", "30000000", 1), 0);
	ck_assert_int_eq(setenv("WATCHDOG_PID", "1", 1), 0);
	listen_as_manager(path);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	ck_assert_ptr_null(getenv("NOTIFY_SOCKET"));
	ck_assert_ptr_null(getenv("WATCHDOG_USEC"));
	ck_assert_ptr_null(getenv("WATCHDOG_PID"));
	ck_assert_int_eq(fcntl(systemd.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	systemd_close(&systemd);
}
END_TEST

START_TEST(without_a_manager)
{
	struct systemd systemd;

	unsetenv("NOTIFY_SOCKET");
	ck_assert_int_eq(setenv("WATCHDOG_USEC", "30000000", 1), 0);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	ck_assert_uint_eq(systemd.watchdog, 0);
	ck_assert_int_eq(systemd_ready(&systemd, true), 0);
	ck_assert_int_eq(systemd_reloading(&systemd), 0);
	ck_assert_int_eq(systemd_stopping(&systemd, 1), 0);
	ck_assert_int_eq(systemd_status(&systemd, "%s", "fine"), 0);
	ck_assert_int_eq(systemd_watchdog(&systemd), 0);
	systemd_close(&systemd);
}
END_TEST

START_TEST(addresses_that_cannot_be_used)
{
	static const struct {
		const char *address;
		int error;
	} cases[] = {
		{ "notify", EAFNOSUPPORT },
		{ "vsock:2:1234", EAFNOSUPPORT },
		{ "", EAFNOSUPPORT },
		{ NULL, ENAMETOOLONG },
	};
	char long_path[200] = "/";
	struct systemd systemd;

	memset(long_path + 1, 'p', sizeof long_path - 2);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *address = cases[i].address != NULL ? cases[i].address : long_path;

		ck_assert_int_eq(setenv("NOTIFY_SOCKET", address, 1), 0);
		ck_assert_int_eq(systemd_open(&systemd), -1);
		ck_assert_int_eq(errno, cases[i].error);
		ck_assert_ptr_null(getenv("NOTIFY_SOCKET"));
		ck_assert_int_eq(systemd_ready(&systemd, false), 0);
		systemd_close(&systemd);
	}
}
END_TEST

START_TEST(a_busy_manager_does_not_block)
{
	struct systemd systemd;
	int sent = 0;

	listen_as_manager(path);
	ck_assert_int_eq(systemd_open(&systemd), 0);
	while (systemd_watchdog(&systemd) == 0)
		ck_assert_int_lt(++sent, 1000000); /* the kernel's queue has an end */
	ck_assert_int_eq(errno, EAGAIN);

	/* The newest state is kept, the rest is not. */
	ck_assert_int_eq(systemd_reloading(&systemd), -1);
	ck_assert_int_eq(systemd_ready(&systemd, false), -1);
	ck_assert_int_eq(systemd_status(&systemd, "lost"), -1);
	ck_assert_int_eq(errno, EAGAIN);
	for (; sent > 0; sent--)
		ck_assert_str_eq(heard(), "WATCHDOG=1");
	ck_assert_str_eq(heard(), "(nothing)");

	ck_assert_int_eq(systemd_status(&systemd, "here"), 0);
	ck_assert_str_eq(heard(), "READY=1");
	ck_assert_str_eq(heard(), "STATUS=here");
	ck_assert_int_eq(systemd_watchdog(&systemd), 0);
	ck_assert_str_eq(heard(), "WATCHDOG=1");
	ck_assert_str_eq(heard(), "(nothing)");
	systemd_close(&systemd);
}
END_TEST

START_TEST(a_manager_that_comes_back)
{
	struct systemd systemd;

	ck_assert_int_eq(systemd_open(&systemd), 0);
	ck_assert_int_eq(systemd_ready(&systemd, false), -1);
	ck_assert_int_eq(errno, ENOENT);
	listen_as_manager(path);
	ck_assert_int_eq(systemd_watchdog(&systemd), 0);
	ck_assert_str_eq(heard(), "READY=1");
	ck_assert_str_eq(heard(), "WATCHDOG=1");
	systemd_close(&systemd);
}
END_TEST

static void
expect_watchdog(const char *usec, const char *pid, int result, uint64_t interval)
{
	struct systemd systemd;

	ck_assert_int_eq(setenv("NOTIFY_SOCKET", path, 1), 0);
	ck_assert_int_eq(setenv("WATCHDOG_USEC", usec, 1), 0);
	if (pid != NULL)
		ck_assert_int_eq(setenv("WATCHDOG_PID", pid, 1), 0);
	ck_assert_int_eq(systemd_open(&systemd), result);
	ck_assert_uint_eq(systemd.watchdog, interval);
	/* Whatever the watchdog said, the rest works. */
	ck_assert_int_eq(systemd_ready(&systemd, false), 0);
	ck_assert_str_eq(heard(), "READY=1");
	systemd_close(&systemd);
}

START_TEST(watchdog_interval)
{
	char self[24], other[24];

	snprintf(self, sizeof self, "%ld", (long)getpid());
	snprintf(other, sizeof other, "%ld", (long)getppid());
	listen_as_manager(path);
	expect_watchdog("30000000", NULL, 0, 30000000);
	expect_watchdog("30000000", self, 0, 30000000);
	expect_watchdog("30000000", other, 0, 0);
	expect_watchdog("30000000", "", 0, 0);
	expect_watchdog("0", self, 0, 0);
	expect_watchdog("30s", self, -1, 0);
	expect_watchdog("-1", self, -1, 0);
	expect_watchdog(" 1", self, -1, 0);
	expect_watchdog("18446744073709551616", self, -1, 0);
}
END_TEST

/* ---------------------------------------------------------------- sockets */

/* What this program does when it is started as a service: says what it was given. */
static int
report_descriptors(void)
{
	struct sockaddr_storage address = { 0 };
	struct systemd_fd *fds;
	const char *why = NULL;
	size_t count, i;

	if (systemd_listen_fds(&fds, &count, &why) == -1) {
		printf("error %d %s\n", errno, why);
		return 0;
	}
	printf("%zu%s\n", count, fds == NULL ? " none" : "");
	for (i = 0; i < count; i++) {
		socklen_t len = sizeof address;
		int port = 0;

		if (getsockname(fds[i].fd, (struct sockaddr *)&address, &len) == 0 &&
		    address.ss_family == AF_INET)
			port = ntohs(((struct sockaddr_in *)&address)->sin_port);
		printf("%d %s %d %s%s%s\n", fds[i].fd, fds[i].name, port,
		       (fcntl(fds[i].fd, F_GETFD) & FD_CLOEXEC) ? "cloexec " : "",
		       (fcntl(fds[i].fd, F_GETFL) & O_NONBLOCK) ? "nonblock " : "",
		       fds[i].why != NULL ? fds[i].why : "good");
	}
	systemd_listen_fds_free(fds, count);
	if (count > 0 && fcntl(FIRST_FD, F_GETFD) != -1)
		printf("not closed\n");
	if (getenv("LISTEN_PID") != NULL || getenv("LISTEN_FDS") != NULL ||
	    getenv("LISTEN_FDNAMES") != NULL)
		printf("not unset\n");
	return 0;
}

static void
put_variable(const char *name, const char *value)
{
	if (value == NULL)
		unsetenv(name);
	else if (setenv(name, value, 1) == -1)
		_exit(126);
}

/* Starts this program as the manager would and returns what it says.  NULL for a
 * variable: not set; pid "self": its own. */
static const char *
serve(const int *fds, int n, const char *pid, const char *number, const char *names)
{
	static char said[2048];
	char self[24];
	size_t used = 0;
	int to[2], status, i, moved[MOST_FDS];
	ssize_t len;
	pid_t child;

	ck_assert_int_eq(pipe2(to, O_CLOEXEC), 0);
	child = fork();
	ck_assert_int_ne(child, -1);
	if (child == 0) {
		/* Out of the way first, so that none is overwritten by another. */
		for (i = 0; i < n; i++)
			moved[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 50);
		if (dup2(to[1], STDOUT_FILENO) == -1)
			_exit(126);
		for (i = 0; i < n; i++)
			if (dup2(moved[i], FIRST_FD + i) == -1)
				_exit(126);
		snprintf(self, sizeof self, "%ld", (long)getpid());
		put_variable("LISTEN_PID", pid != NULL && strcmp(pid, "self") == 0 ? self : pid);
		put_variable("LISTEN_FDS", number);
		put_variable("LISTEN_FDNAMES", names);
		execl("/proc/self/exe", "systemd_test", "report", (char *)NULL);
		_exit(127);
	}
	close(to[1]);
	while ((len = read(to[0], said + used, sizeof said - 1 - used)) > 0)
		used += (size_t)len;
	said[used] = '\0';
	close(to[0]);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d: %s", status, said);
	return said;
}

/* A TCP socket on a port of the kernel's choice. */
static int
open_tcp(bool listening, int *port)
{
	struct sockaddr_in in = { .sin_family = AF_INET };
	socklen_t len = sizeof in;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, len), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	if (listening)
		ck_assert_int_eq(listen(fd, 8), 0);
	*port = ntohs(in.sin_port);
	return fd;
}

static int
open_unix(void)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(un.sun_path, sizeof un.sun_path, "%.100s", path);
	ck_assert_int_ne(fd, -1);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
	ck_assert_int_eq(listen(fd, 8), 0);
	return fd;
}

START_TEST(sockets_come_with_their_names)
{
	char expected[512];
	int fds[3], ports[2];

	fds[0] = open_tcp(true, &ports[0]);
	fds[1] = open_unix();
	fds[2] = open_tcp(true, &ports[1]);
	snprintf(expected, sizeof expected,
		 "3\n3 main %d cloexec nonblock good\n4 local 0 cloexec nonblock good\n"
		 "5 main %d cloexec nonblock good\n",
		 ports[0], ports[1]);
	ck_assert_str_eq(serve(fds, 3, "self", "3", "main:local:main"), expected);
	snprintf(expected, sizeof expected, "1\n3 unknown %d cloexec nonblock good\n", ports[0]);
	ck_assert_str_eq(serve(fds, 1, "self", "1", NULL), expected);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}
END_TEST

START_TEST(what_is_not_for_us)
{
	int port, fd = open_tcp(true, &port);

	ck_assert_str_eq(serve(&fd, 1, NULL, NULL, NULL), "0 none\n");
	ck_assert_str_eq(serve(&fd, 1, NULL, "1", "main"), "0 none\n");
	ck_assert_str_eq(serve(&fd, 1, "self", NULL, NULL), "0 none\n");
	ck_assert_str_eq(serve(&fd, 1, "1", "1", "main"), "0 none\n");
	ck_assert_str_eq(serve(&fd, 1, "self", "0", ""), "0 none\n");
	close(fd);
}
END_TEST

START_TEST(what_cannot_be_listened_on)
{
	char expected[512];
	int fds[5], port, pair[2];

	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	ck_assert_int_ne(fds[0], -1);
	fds[1] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_ne(fds[1], -1);
	fds[2] = open_tcp(false, &port);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	fds[3] = pair[0];
	fds[4] = pair[1];
	snprintf(expected, sizeof expected,
		 "4\n3 a 0 cloexec nonblock it is not a socket\n"
		 "4 b 0 cloexec nonblock it is not a stream socket (ListenStream=)\n"
		 "5 c %d cloexec nonblock it does not listen (Accept=no)\n"
		 "6 d 0 cloexec nonblock it does not listen (Accept=no)\n",
		 port);
	ck_assert_str_eq(serve(fds, 4, "self", "4", "a:b:c:d"), expected);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
}
END_TEST

START_TEST(variables_that_contradict)
{
	int port, fd = open_tcp(true, &port);
	char expected[128];

	snprintf(expected, sizeof expected, "error %d LISTEN_FDS is not a number of descriptors\n",
		 EINVAL);
	ck_assert_str_eq(serve(&fd, 1, "self", "one", NULL), expected);
	ck_assert_str_eq(serve(&fd, 1, "self", "-1", NULL), expected);
	ck_assert_str_eq(serve(&fd, 1, "self", "2147483647", NULL), expected);
	snprintf(expected, sizeof expected,
		 "error %d LISTEN_FDNAMES has not as many names as LISTEN_FDS says\n", EINVAL);
	ck_assert_str_eq(serve(&fd, 1, "self", "1", "a:b"), expected);
	ck_assert_str_eq(serve(&fd, 1, "self", "1", ""), expected);
	snprintf(expected, sizeof expected,
		 "error %d LISTEN_FDS counts descriptors that are not open\n", EBADF);
	ck_assert_str_eq(serve(&fd, 1, "self", "500", NULL), expected);
	close(fd);
}
END_TEST

static Suite *
systemd_suite(void)
{
	Suite *s = suite_create("systemd");
	TCase *notify = tcase_create("notify"), *listening = tcase_create("listen");

	tcase_add_checked_fixture(notify, setup, teardown);
	tcase_add_test(notify, changes_of_state);
	tcase_add_test(notify, reloading_and_its_time_are_one_datagram);
	tcase_add_test(notify, abstract_socket);
	tcase_add_test(notify, status_is_one_line);
	tcase_add_test(notify, children_inherit_nothing);
	tcase_add_test(notify, without_a_manager);
	tcase_add_test(notify, addresses_that_cannot_be_used);
	tcase_add_test(notify, a_busy_manager_does_not_block);
	tcase_add_test(notify, a_manager_that_comes_back);
	tcase_add_test(notify, watchdog_interval);
	suite_add_tcase(s, notify);
	tcase_add_checked_fixture(listening, setup, teardown);
	tcase_add_test(listening, sockets_come_with_their_names);
	tcase_add_test(listening, what_is_not_for_us);
	tcase_add_test(listening, what_cannot_be_listened_on);
	tcase_add_test(listening, variables_that_contradict);
	suite_add_tcase(s, listening);
	return s;
}

int
main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "report") == 0)
		return report_descriptors();
	return unit_run(systemd_suite());
}
