/*
 * program: runs cisternd, with fresh signals and its output in files.
 */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

#define ARGUMENTS 16
#define EXEC_FAILED 127

const char *
program_path(void)
{
	const char *path = getenv("CISTERND");

	return path != NULL && *path != '\0' ? path : "./cisternd";
}

int
program_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	ck_assert_msg(fd != -1, "%s: %s", path, strerror(errno));
	return fd;
}

void
program_exec(char *const *arguments, int output, int errors, rlim_t descriptors, bool leaves)
{
	struct rlimit limit = { descriptors, descriptors };

	if (!leaves)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_DFL);
	if (dup2(output, STDOUT_FILENO) == -1 || dup2(errors, STDERR_FILENO) == -1 ||
	    (descriptors != 0 && setrlimit(RLIMIT_NOFILE, &limit) == -1))
		_exit(EXEC_FAILED);
	execvp(arguments[0], arguments);
	dprintf(STDERR_FILENO, "%s: %s\n", arguments[0], strerror(errno));
	_exit(EXEC_FAILED);
}

void
program_check_sanitizers(const char *path)
{
	char *text = harness_read_file(path, NULL);

	ck_assert_msg(strstr(text, "Sanitizer") == NULL && strstr(text, "runtime error:") == NULL,
		      "a sanitizer complains");
	free(text);
}

struct program_result
program_run(const char *first, ...)
{
	double deadline = harness_now() + HARNESS_DEADLINE;
	char *directory = harness_directory();
	char *paths[2] = { harness_text("%s/output", directory),
			   harness_text("%s/stderr", directory) };
	int fds[2] = { program_open(paths[0]), program_open(paths[1]) };
	char *arguments[ARGUMENTS] = { harness_text("%s", program_path()) };
	struct program_result result;
	int status, n = 1;
	const char *argument;
	va_list ap;
	pid_t pid;

	va_start(ap, first);
	for (argument = first; argument != NULL && n < ARGUMENTS - 1;
	     argument = va_arg(ap, const char *))
		arguments[n++] = harness_text("%s", argument);
	va_end(ap);
	pid = fork();
	ck_assert_int_ne(pid, -1);
	if (pid == 0)
		program_exec(arguments, fds[0], fds[1], 0, false);
	while (waitpid(pid, &status, WNOHANG) == 0) {
		ck_assert_msg(harness_now() < deadline, "cisternd %s does not end",
			      first == NULL ? "" : first);
		harness_pause();
	}
	ck_assert_msg(WIFEXITED(status), "cisternd was ended by signal %d", WTERMSIG(status));
	result.code = WEXITSTATUS(status);
	result.output = harness_read_file(paths[0], NULL);
	result.errors = harness_read_file(paths[1], NULL);
	ck_assert_msg(result.code != EXEC_FAILED, "%s", result.errors);
	program_check_sanitizers(paths[1]);
	while (n > 0)
		free(arguments[--n]);
	for (n = 0; n < 2; n++) {
		close(fds[n]);
		free(paths[n]);
	}
	free(directory);
	return result;
}

void
program_result_free(struct program_result *result)
{
	free(result->output);
	free(result->errors);
}
