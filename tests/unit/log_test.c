/*
 * Tests of base/log: its lines in every form, and that nothing stops it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "unit.h"

#define TIME_LEN 24 /* "2026-11-22T18:41:55.123Z" */

static const struct log_subject subject = { 17, "main", "192.0.2.1:5140", NULL };
static char directory[128], path[160];
static char text[1 << 20];
static int saved_stderr;

static void
setup(void)
{
	const char *tmp = getenv("TMPDIR");

	unsetenv("JOURNAL_STREAM");
	signal(SIGPIPE, SIG_IGN);
	snprintf(directory, sizeof directory, "%s/log.XXXXXX", tmp != NULL ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/log", directory);
	saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
	ck_assert_int_ne(saved_stderr, -1);
}

static void
teardown(void)
{
	log_close();
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	unlink(path);
	ck_assert_int_eq(rmdir(directory), 0);
}

/* What the file holds, as a string. */
static const char *
read_log(void)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	ck_assert_int_ne(fd, -1);
	n = read(fd, text, sizeof text - 1);
	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	close(fd);
	return text;
}

/* All that can be read without waiting. */
static const char *
drain(int fd)
{
	size_t len = 0;
	ssize_t n;

	while (len < sizeof text - 1 && (n = read(fd, text + len, sizeof text - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	return text;
}

/* The standard error becomes the writing end of a pipe; gives the other. */
static int
stderr_to_pipe(void)
{
	int ends[2];

	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	ck_assert_int_ne(fcntl(ends[0], F_SETFL, O_NONBLOCK), -1);
	ck_assert_int_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	close(ends[1]);
	return ends[0];
}

static void
open_file_log(bool json)
{
	ck_assert_int_eq(log_open(LOG_TARGET_FILE, path, LOG_LEVEL_INFO, json), 0);
}

static void
expect_time(const char *line)
{
	static const char pattern[] = "0000-00-00T00:00:00.000Z";

	for (size_t i = 0; i < TIME_LEN; i++)
		if (pattern[i] == '0' ? line[i] < '0' || line[i] > '9' : line[i] != pattern[i])
			ck_abort_msg("no time: %.40s", line);
}

START_TEST(text_lines)
{
	const char *line;
	struct stat st;

	open_file_log(false);
	log_event(LOG_LEVEL_NOTICE, "listening", "%s:%d", "0.0.0.0", 11000);
	line = read_log();
	expect_time(line);
	ck_assert_str_eq(line + TIME_LEN, " notice listening: 0.0.0.0:11000\n");
	log_connection(LOG_LEVEL_WARNING, "message-discarded", &subject, "reset after %d bytes", 5);
	line = strchr(read_log(), '\n') + 1;
	expect_time(line);
	ck_assert_str_eq(line + TIME_LEN,
			 " warning message-discarded main#17 192.0.2.1:5140: reset after 5 bytes\n");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 0137, 0);
}
END_TEST

/* Two objects; the time is looked at by its first and last character. */
START_TEST(json_lines)
{
	const char *line;
	char *end;

	open_file_log(true);
	log_event(LOG_LEVEL_ERROR, "listen-failed", "a \"quoted\" \\ reason");
	log_connection(LOG_LEVEL_INFO, "closed", &subject, "done");
	line = read_log();
	ck_assert_int_eq(strncmp(line, "{\"time\":\"2", 10), 0);
	ck_assert_int_eq(line[9 + 26], 'Z');
	end = strchr(text, '\n');
	ck_assert_ptr_nonnull(end);
	*end = '\0';
	ck_assert_str_eq(line + 9 + 27, "\",\"level\":\"error\",\"event\":\"listen-failed\","
					"\"message\":\"a \\\"quoted\\\" \\\\ reason\"}");
	ck_assert_str_eq(end + 1 + 9 + 27,
			 "\",\"level\":\"info\",\"event\":\"closed\",\"connection\":17,"
			 "\"listener\":\"main\",\"peer\":\"192.0.2.1:5140\","
			 "\"message\":\"done\"}\n");
}
END_TEST

START_TEST(levels)
{
	open_file_log(false);
	ck_assert(log_enabled(LOG_LEVEL_INFO) && !log_enabled(LOG_LEVEL_DEBUG));
	log_event(LOG_LEVEL_DEBUG, "x", "not seen");
	log_connection(LOG_LEVEL_DEBUG, "x", &subject, "not seen");
	log_event_with(LOG_LEVEL_DEBUG, "x", LOG_FIELDS(LOG_NUMBER("n", 1)), "not seen");
	ck_assert_str_eq(read_log(), "");
	log_verbose(1);
	ck_assert(log_enabled(LOG_LEVEL_DEBUG));
	ck_assert_int_eq(log_open(LOG_TARGET_FILE, path, LOG_LEVEL_ERROR, false), 0);
	ck_assert(log_enabled(LOG_LEVEL_WARNING) && !log_enabled(LOG_LEVEL_NOTICE));
	log_verbose(1); /* calls add up: -v -v */
	ck_assert(log_enabled(LOG_LEVEL_NOTICE) && !log_enabled(LOG_LEVEL_INFO));
	log_verbose(9);
	ck_assert(log_enabled(LOG_LEVEL_DEBUG));
	log_verbose(-11);
	ck_assert(log_enabled(LOG_LEVEL_ERROR) && !log_enabled(LOG_LEVEL_WARNING));
}
END_TEST

START_TEST(errno_is_kept_and_known)
{
	errno = ENOSPC;
	open_file_log(false);
	ck_assert_int_eq(errno, ENOSPC);
	log_event(LOG_LEVEL_ERROR, "x", "cannot write: %m");
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_ptr_nonnull(strstr(read_log(), ": cannot write: No space left on device\n"));
	errno = EPERM;
	ck_assert_int_eq(log_reopen(), 0);
	ck_assert_int_eq(errno, EPERM);
	log_close();
	ck_assert_int_eq(errno, EPERM);
}
END_TEST

START_TEST(nobody_else_writes_lines)
{
	const struct log_subject evil = { 1, "a\nb", "c\x1b[31md", NULL };
	const char *line;

	open_file_log(_i == 1);
	log_connection(LOG_LEVEL_INFO, "x", &evil, "one\r\ntwo\x9b\xc2\x9b\xe2\x80\xae\x7f gr\xc3\xbc\xc3\x9f");
	line = read_log();
	ck_assert_ptr_eq(strchr(line, '\n'), line + strlen(line) - 1);
	if (_i == 0)
		ck_assert_str_eq(line + TIME_LEN,
				 " info x a\\x0Ab#1 c\\x1B[31md: one\\x0D\\x0Atwo\\x9B\\xC2\\x9B"
				 "\\xE2\\x80\\xAE\\x7F gr\xc3\xbc\xc3\x9f\n");
	else
		ck_assert_ptr_nonnull(strstr(line, "\"listener\":\"a\\\\x0Ab\",\"peer\":\"c\\\\x1B[31md\","
						   "\"message\":\"one\\\\x0D\\\\x0Atwo\\\\x9B"));
}
END_TEST

/* Too long by plain bytes, by escapes, by characters of several bytes. */
START_TEST(long_lines_are_cut)
{
	static const char *const units[] = { "a", "\n", "\"", "\xf0\x9f\x98\x80", "\xff" };
	const char *unit = units[_i % 5];
	bool json = _i >= 5;
	char message[10001] = "";
	const char *line;
	size_t len;

	for (size_t at = 0; at + strlen(unit) < sizeof message; at += strlen(unit))
		strcpy(message + at, unit);
	open_file_log(json);
	log_connection(LOG_LEVEL_INFO, "x", &subject, "%s", message);
	log_event(LOG_LEVEL_INFO, "x", "next");
	line = read_log();
	len = (size_t)(strchr(line, '\n') - line) + 1;
	ck_assert_uint_le(len, 4096);
	ck_assert_uint_ge(len, 4096 - 32);
	ck_assert_int_eq(strncmp(line + len - (json ? 6 : 4), json ? "...\"}\n" : "...\n", json ? 6 : 4), 0);
	if (unit[0] == '\xf0')
		ck_assert_int_eq(line[len - (json ? 7 : 5)], '\x80');
	if (unit[0] == '\n')
		ck_assert_int_eq(strncmp(line + len - (json ? 11 : 8), json ? "\\\\x0A" : "\\x0A", json ? 5 : 4), 0);
	ck_assert_ptr_nonnull(strstr(line + len, "next"));
}
END_TEST

START_TEST(json_fields)
{
	const char *line;

	open_file_log(true);
	log_event(LOG_LEVEL_INFO, "test", "sink %s: a \"failure\"", "s1");
	log_event(LOG_LEVEL_INFO, "test", "worker %u turns", 3u);
	log_event_with(LOG_LEVEL_INFO, "test",
		       LOG_FIELDS(LOG_TEXT("reason", "q\"\x01"), LOG_NUMBER("bytes", 18446744073709551615ull)),
		       "listener %s", "l");
	line = read_log();
	ck_assert_ptr_nonnull(strstr(line, "\"event\":\"test\",\"sink\":\"s1\",\"message\":\"sink s1: a \\\"f"));
	ck_assert_ptr_nonnull(strstr(line, "\"event\":\"test\",\"worker\":3,\"message\":"));
	ck_assert_ptr_nonnull(strstr(line, "\"listener\":\"l\",\"reason\":\"q\\\"\\\\x01\","
					   "\"bytes\":18446744073709551615,\"message\":"));
}
END_TEST

/* A parser takes every line of json, cut or not. */
START_TEST(json_as_a_parser_reads_it)
{
	static const char script[] =
		"import sys, json\n"
		"lines = open(sys.argv[1], 'rb').read().split(b'\\n')\n"
		"assert lines.pop() == b'' and len(lines) == 2000\n"
		"for line in lines:\n"
		"    r = json.loads(line.decode('utf-8', 'strict'))\n"
		"    assert list(r) == ['time', 'level', 'event', 'connection', 'listener', 'peer',\n"
		"                       'message'], r\n"
		"    assert r['connection'] == 17 and r['event'] == 'x'\n";
	char message[5001];
	int status;
	pid_t pid;

	srand(4);
	open_file_log(true);
	for (int i = 0; i < 2000; i++) {
		size_t len = (size_t)rand() % (i % 20 == 0 ? 5000 : 100);

		for (size_t at = 0; at < len; at++)
			message[at] = (char)(1 + rand() % 255);
		message[len] = '\0';
		log_connection(LOG_LEVEL_INFO, "x", &subject, "%s", message);
	}
	pid = fork();
	ck_assert_int_ne(pid, -1);
	if (pid == 0) {
		execlp("python3", "python3", "-c", script, path, (char *)NULL);
		_exit(77);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		printf("# json_as_a_parser_reads_it: skipped, python3 was not found\n");
	else
		ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

START_TEST(files_are_reopened)
{
	char old[170];

	snprintf(old, sizeof old, "%s.1", path);
	open_file_log(false);
	log_event(LOG_LEVEL_INFO, "x", "before");
	ck_assert_int_eq(rename(path, old), 0);
	log_event(LOG_LEVEL_INFO, "x", "still there");
	ck_assert_int_eq(log_reopen(), 0);
	log_event(LOG_LEVEL_INFO, "x", "after");
	ck_assert_ptr_null(strstr(read_log(), "still there"));
	ck_assert_ptr_nonnull(strstr(text, "after"));
	ck_assert_int_eq(unlink(old), 0);
	/* Where it cannot be opened, the old one goes on. */
	ck_assert_int_eq(log_open(LOG_TARGET_FILE, "/nowhere/at/all", LOG_LEVEL_ERROR, true), -1);
	ck_assert_int_eq(errno, ENOENT);
	log_event(LOG_LEVEL_INFO, "x", "as before");
	ck_assert_ptr_nonnull(strstr(read_log(), " info x: as before\n"));
	/* Appending, what was there stays. */
	open_file_log(false);
	ck_assert_ptr_nonnull(strstr(read_log(), "as before"));
}
END_TEST

START_TEST(standard_error)
{
	int reader = stderr_to_pipe();
	const char *line;

	/* Without log_open. */
	log_event(LOG_LEVEL_WARNING, "early", "said");
	line = drain(reader);
	expect_time(line);
	ck_assert_str_eq(line + TIME_LEN, " warning early: said\n");
	ck_assert_int_eq(log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_INFO, false), 0);
	log_event(LOG_LEVEL_INFO, "x", "said");
	line = drain(reader);
	expect_time(line);
	close(reader);
	/* Nobody reads any more: nothing happens. */
	log_event(LOG_LEVEL_INFO, "x", "unheard");
}
END_TEST

START_TEST(the_journal)
{
	int reader = stderr_to_pipe();
	char stream[64];
	struct stat st;

	ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
	snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
		 (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	ck_assert_int_eq(log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_DEBUG, false), 0);
	log_event(LOG_LEVEL_ERROR, "x", "a");
	log_connection(LOG_LEVEL_DEBUG, "x", &subject, "b");
	ck_assert_str_eq(drain(reader), "<3>x: a\n<7>x main#17 192.0.2.1:5140: b\n");
	/* Another file than the journal's. */
	setenv("JOURNAL_STREAM", "1:1", 1);
	ck_assert_int_eq(log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_INFO, false), 0);
	log_event(LOG_LEVEL_WARNING, "x", "a");
	expect_time(drain(reader));
	ck_assert_int_eq(log_open(LOG_TARGET_JOURNAL, NULL, LOG_LEVEL_INFO, false), 0);
	log_event(LOG_LEVEL_WARNING, "x", "a");
	log_event(LOG_LEVEL_NOTICE, "x", "a");
	log_event(LOG_LEVEL_INFO, "x", "a");
	ck_assert_str_eq(drain(reader), "<4>x: a\n<5>x: a\n<6>x: a\n");
	ck_assert_int_eq(log_open(LOG_TARGET_JOURNAL, NULL, LOG_LEVEL_INFO, true), 0);
	log_event(LOG_LEVEL_WARNING, "x", "a");
	ck_assert_int_eq(strncmp(drain(reader), "<4>{\"time\":\"", 12), 0);
	close(reader);
}
END_TEST

/* How many lines came through, and how many were said to be missing. */
static void
count_lines(const char *lines, unsigned long *seen, unsigned long *dropped)
{
	const char *line = lines;

	while (*line != '\0') {
		const char *end = strchr(line, '\n');
		const char *missing;

		ck_assert_msg(end != NULL, "half a line: %s", line);
		expect_time(line);
		missing = strstr(line, " warning log-dropped: ");
		if (missing != NULL && missing < end)
			*dropped += strtoul(missing + 22, NULL, 10);
		else
			(*seen)++;
		line = end + 1;
	}
}

/* Writes until nothing more is taken, with nobody reading; then with a reader. */
static void
fill_and_drain(int reader)
{
	unsigned long seen = 0, dropped = 0;

	ck_assert_int_eq(log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_INFO, false), 0);
	for (int i = 0; i < 5000; i++)
		log_event(LOG_LEVEL_INFO, "x", "line %d %0*d", i, i % 500, 0);
	count_lines(drain(reader), &seen, &dropped);
	ck_assert_uint_gt(seen, 0);
	ck_assert_uint_lt(seen, 5000);
	ck_assert_uint_eq(dropped, 0);
	log_event(LOG_LEVEL_INFO, "x", "the end");
	drain(reader);
	ck_assert_ptr_nonnull(strstr(text, "lines dropped: the log could not be written to\n"));
	ck_assert_ptr_nonnull(strstr(text, " info x: the end\n"));
	count_lines(text, &seen, &dropped);
	ck_assert_uint_eq(seen + dropped, 5001);
	/* Said once. */
	log_event(LOG_LEVEL_INFO, "x", "and on");
	drain(reader);
	ck_assert_ptr_null(strstr(text, "dropped"));
}

START_TEST(a_full_pipe)
{
	int reader = stderr_to_pipe();

	fill_and_drain(reader);
	close(reader);
}
END_TEST

START_TEST(a_full_socket)
{
	int pair[2];

	/* Datagrams: a line is taken whole or not at all. */
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_ne(fcntl(pair[0], F_SETFL, O_NONBLOCK), -1);
	ck_assert_int_eq(dup2(pair[1], STDERR_FILENO), STDERR_FILENO);
	close(pair[1]);
	fill_and_drain(pair[0]);
	close(pair[0]);
}
END_TEST

/* A terminal that nobody reads takes some kilobytes, and then no more. */
START_TEST(a_full_terminal)
{
	struct termios settings;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	int slave;

	ck_assert_int_ne(master, -1);
	ck_assert_int_eq(grantpt(master), 0);
	ck_assert_int_eq(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	ck_assert_int_ne(slave, -1);
	ck_assert_int_eq(tcgetattr(slave, &settings), 0);
	settings.c_oflag &= ~(tcflag_t)OPOST;
	ck_assert_int_eq(tcsetattr(slave, TCSANOW, &settings), 0);
	ck_assert_int_eq(dup2(slave, STDERR_FILENO), STDERR_FILENO);
	ck_assert_int_eq(log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_INFO, false), 0);
	for (int i = 0; i < 500; i++)
		log_event(LOG_LEVEL_INFO, "x", "line %d %0*d", i, 3500 + i, 0);
	drain(master);
	/* The line after one that was cut short begins at its beginning. */
	log_event(LOG_LEVEL_INFO, "x", "the end");
	drain(master);
	ck_assert_ptr_nonnull(strstr(text, "lines dropped: the log could not be written to\n"));
	if (text[0] == '\n')
		expect_time(text + 1);
	else
		expect_time(text);
	ck_assert_ptr_nonnull(strstr(text, " info x: the end\n"));
	close(slave);
	close(master);
}
END_TEST

/* The disk has room for half a line. */
START_TEST(a_full_disk)
{
	struct rlimit limit, old;
	const char *line;

	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, SIG_IGN);
	open_file_log(false);
	log_event(LOG_LEVEL_INFO, "x", "fits");
	limit = old;
	limit.rlim_cur = 60;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	errno = 0;
	log_event(LOG_LEVEL_INFO, "x", "this one is much too long for what is left of the disk");
	log_event(LOG_LEVEL_INFO, "x", "and no room for this");
	ck_assert_int_eq(errno, 0);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
	log_event(LOG_LEVEL_INFO, "x", "room again");
	line = read_log();
	ck_assert_uint_eq(strcspn(line + 60, "\n"), 0);
	expect_time(line + 61);
	ck_assert_ptr_nonnull(strstr(line, " warning log-dropped: 2 lines dropped: the log could not be "
					   "written to\n"));
	ck_assert_ptr_nonnull(strstr(line, " info x: room again\n"));
}
END_TEST

static void *
write_lines(void *arg)
{
	for (int i = 0; i < 500; i++)
		log_event(LOG_LEVEL_INFO, "thread", "%d %d %0200d", *(int *)arg, i, 0);
	return NULL;
}

START_TEST(threads_do_not_mix)
{
	enum { THREADS = 4 };
	pthread_t threads[THREADS];
	int numbers[THREADS], next[THREADS] = { 0 }, lines = 0;

	open_file_log(false);
	for (int i = 0; i < THREADS; i++) {
		numbers[i] = i;
		ck_assert_int_eq(pthread_create(&threads[i], NULL, write_lines, &numbers[i]), 0);
	}
	for (int i = 0; i < 20; i++)
		ck_assert_int_eq(log_reopen(), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	for (const char *line = read_log(); *line != '\0'; line = strchr(line, '\n') + 1, lines++) {
		int thread, number;

		if (sscanf(line + TIME_LEN, " info thread: %d %d 000", &thread, &number) != 2 ||
		    thread < 0 || thread >= THREADS || number != next[thread]++)
			ck_abort_msg("line %d: %.60s", lines, line);
	}
	ck_assert_int_eq(lines, THREADS * 500);
}
END_TEST

/* There may be no daemon to hear it; what can be seen is that nothing breaks. */
START_TEST(the_system_log)
{
	int reader = stderr_to_pipe();

	ck_assert_int_eq(log_open(LOG_TARGET_SYSLOG, NULL, LOG_LEVEL_INFO, _i == 1), 0);
	errno = ENOENT;
	log_connection(LOG_LEVEL_DEBUG, "x", &subject, "below the level");
	log_connection(LOG_LEVEL_INFO, "x", &subject, "100%% %s", "%s%n");
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_str_eq(drain(reader), "");
	ck_assert_int_eq(log_reopen(), 0);
	ck_assert_int_eq(log_open(LOG_TARGET_STDERR, NULL, LOG_LEVEL_INFO, false), 0);
	log_event(LOG_LEVEL_INFO, "x", "back");
	expect_time(drain(reader));
	close(reader);
}
END_TEST

static Suite *
log_suite(void)
{
	Suite *s = suite_create("log");
	TCase *tc = tcase_create("log");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, text_lines);
	tcase_add_test(tc, json_lines);
	tcase_add_test(tc, json_fields);
	tcase_add_test(tc, levels);
	tcase_add_test(tc, errno_is_kept_and_known);
	tcase_add_loop_test(tc, nobody_else_writes_lines, 0, 2);
	tcase_add_loop_test(tc, long_lines_are_cut, 0, 10);
	tcase_add_test(tc, json_as_a_parser_reads_it);
	tcase_add_test(tc, files_are_reopened);
	tcase_add_test(tc, standard_error);
	tcase_add_test(tc, the_journal);
	tcase_add_test(tc, a_full_pipe);
	tcase_add_test(tc, a_full_socket);
	tcase_add_test(tc, a_full_terminal);
	tcase_add_test(tc, a_full_disk);
	tcase_add_test(tc, threads_do_not_mix);
	tcase_add_loop_test(tc, the_system_log, 0, 2);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return unit_run(log_suite());
}
