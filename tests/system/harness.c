/*
 * harness: one Check suite a test, so that each has its own time limit, can be
 * skipped by its own reason, and is reported as soon as it has ended.
 *
 * The test's process hands what the report needs (a reason to skip) over as a
 * file in the program's directory: it may die at any point.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TAIL 4000 /* bytes of a failed test's logs that are shown */

static char root[PATH_MAX - 64];

double
harness_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void
harness_pause(void)
{
	const struct timespec moment = { .tv_nsec = 5000000 };

	nanosleep(&moment, NULL);
}

void
harness_note(const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	text[strcspn(text, "\n")] = '\0';
	fprintf(stderr, "# %s\n", text);
}

char *
harness_text(const char *format, ...)
{
	char *text;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&text, format, ap) == -1)
		abort();
	va_end(ap);
	return text;
}

char *
harness_read_file(const char *path, size_t *len)
{
	size_t used = 0, room = 65536;
	char *bytes = malloc(room + 1);
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (bytes == NULL)
		abort(); /* also called outside of a test, where Check asserts nothing */
	while (fd != -1 && (n = read(fd, bytes + used, room - used)) > 0) {
		used += (size_t)n;
		if (used == room) {
			room *= 2;
			bytes = realloc(bytes, room + 1);
			if (bytes == NULL)
				abort();
		}
	}
	if (fd != -1)
		close(fd);
	bytes[used] = '\0';
	if (len != NULL)
		*len = used;
	return bytes;
}

void
harness_write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
	ck_assert_int_ge(fputs(text, file), 0);
	ck_assert_int_eq(fclose(file), 0);
}

uint64_t
harness_word(uint64_t stream, uint64_t at)
{
	uint64_t word = (stream << 40) + at + 0x9e3779b97f4a7c15U;

	word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9U;
	word = (word ^ (word >> 27)) * 0x94d049bb133111ebU;
	return word ^ (word >> 31);
}

char *
harness_directory(void)
{
	char *path = harness_text("%s/%s.XXXXXX", root, tcase_name());

	ck_assert_msg(mkdtemp(path) != NULL, "%s: %s", path, strerror(errno));
	return path;
}

void
harness_skip(const char *format, ...)
{
	char *path = harness_text("%s/skip", root);
	char *reason;
	va_list ap;

	va_start(ap, format);
	ck_assert_int_ge(vasprintf(&reason, format, ap), 0);
	va_end(ap);
	harness_write_file(path, reason);
	free(reason);
	free(path);
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void
remove_tree(const char *path)
{
	if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == -1 && errno != ENOENT)
		harness_note("%s: %s", path, strerror(errno));
}

/* Daemons that went to the background have become our children when their test
 * ended; they are stopped here. */
static void
end_orphans(void)
{
	char *path = harness_text("/proc/self/task/%d/children", (int)getpid());
	char *list = harness_read_file(path, NULL);
	char *at, *end;
	long pid;

	for (at = list; (pid = strtol(at, &end, 10)) > 0; at = end) {
		kill((pid_t)pid, SIGKILL);
		waitpid((pid_t)pid, NULL, 0);
	}
	free(list);
	free(path);
}

static void
show_tail(const char *path)
{
	size_t len;
	char *text = harness_read_file(path, &len);
	char *at = len > TAIL ? text + len - TAIL : text;
	char *line;

	if (len > 0)
		printf("# %s%s:\n", path, len > TAIL ? " (its end)" : "");
	while ((line = strsep(&at, "\n")) != NULL) {
		if (*line != '\0')
			printf("#   %.300s\n", line);
	}
	free(text);
}

/* What is left in the program's directory: of a failed test to be shown and kept,
 * else to be removed. */
static void
clear_root(bool failed)
{
	static const char *const logs[] = { "log", "stderr" };
	DIR *dir = opendir(root);
	struct dirent *entry;
	char *path, *log;
	size_t i;

	while (dir != NULL && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || strncmp(entry->d_name, "failed-", 7) == 0)
			continue;
		path = harness_text("%s/%s", root, entry->d_name);
		if (failed) {
			for (i = 0; i < sizeof logs / sizeof logs[0]; i++) {
				log = harness_text("%s/%s", path, logs[i]);
				show_tail(log);
				free(log);
			}
			log = harness_text("%s/failed-%s", root, entry->d_name);
			if (rename(path, log) == 0)
				printf("# kept: %s\n", log);
			free(log);
		} else {
			remove_tree(path);
		}
		free(path);
	}
	if (dir != NULL)
		closedir(dir);
}

static char *
take_skip(void)
{
	char *path = harness_text("%s/skip", root);
	char *reason = harness_read_file(path, NULL);

	unlink(path);
	free(path);
	return reason;
}

static void
show_failure(SRunner *runner)
{
	TestResult **results = srunner_results(runner);
	char *text, *at;

	if (srunner_ntests_run(runner) == 1) {
		text = harness_text("%s:%d: %s", tr_lfile(results[0]), tr_lno(results[0]),
				    tr_msg(results[0]));
		for (at = text; (at = strchr(at, '\n')) != NULL;)
			*at = ' ';
		printf("# %.2000s\n", text);
		free(text);
	}
	free(results);
}

/* Runs one test and prints its line; whether it passed (or was skipped). */
static bool
run_one(const char *suite_name, const struct harness_test *test, size_t number)
{
	Suite *suite = suite_create(suite_name);
	TCase *tcase = tcase_create(test->test->name);
	SRunner *runner = srunner_create(suite);
	double began = harness_now();
	char *skip;
	bool passed;

	suite_add_tcase(suite, tcase);
	tcase_set_timeout(tcase, test->timeout * (HARNESS_SANITIZED ? 4 : 1));
	tcase_add_test(tcase, test->test);
	srunner_run_all(runner, CK_SILENT);
	end_orphans();
	passed = srunner_ntests_failed(runner) == 0 && srunner_ntests_run(runner) == 1;
	skip = take_skip();
	if (passed && *skip != '\0') {
		printf("ok %zu - %s # SKIP %s\n", number, test->test->name, skip);
	} else {
		printf("%s %zu - %s\n", passed ? "ok" : "not ok", number, test->test->name);
		printf("# %s took %.2f s\n", test->test->name, harness_now() - began);
	}
	free(skip);
	if (!passed)
		show_failure(runner);
	clear_root(!passed);
	fflush(stdout);
	srunner_free(runner);
	return passed;
}

int
harness_run(const char *suite, const struct harness_test *tests, size_t n_tests, int argc,
	    char **argv)
{
	const char *tmp = getenv("TMPDIR");
	const char *only = argc > 1 ? argv[1] : "";
	size_t i, number = 0, failed = 0;

	snprintf(root, sizeof root, "%s/cistern-%s-XXXXXX",
		 tmp != NULL && *tmp != '\0' ? tmp : "/tmp", suite);
	if (mkdtemp(root) == NULL) {
		printf("Bail out! %s: %s\n", root, strerror(errno));
		return 99;
	}
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (i = 0; i < n_tests; i++)
		number += strstr(tests[i].test->name, only) != NULL;
	printf("1..%zu\n", number);
	fflush(stdout);
	for (i = 0, number = 0; i < n_tests; i++) {
		if (strstr(tests[i].test->name, only) != NULL)
			failed += !run_one(suite, &tests[i], ++number);
	}
	rmdir(root); /* stays when a test failed: what it left is in there */
	return failed == 0 ? 0 : 1;
}
