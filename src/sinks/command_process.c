/*
 * command_process: one program, run for one message.
 *
 * Its standard input is the message, from the first byte: a sealed memory file, or
 * the file that it was spilled to, opened anew for reading; so it can seek, and
 * cannot change what other sinks read.  Its output is a pipe.  It runs in a session
 * of its own without a terminal, in "/", with umask 077, no signal blocked or ignored,
 * no descriptor of ours, an environment that has nothing of ours, and the usual
 * 1024 open files.
 *
 * The child is made by vfork(2): nothing of this process is copied, and until the
 * program runs nothing but system calls are made.  Where execve(2) fails, the child
 * leaves errno in memory that is shared even with a child that fork(2) had made (which
 * is what ThreadSanitizer makes of vfork), and its end tells of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/privileges.h"
#include "config/config.h"
#include "message/body.h"
#include "message/facts.h"
#include "sinks/command.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#define BY_PIDFD ((idtype_t)3) /* P_PIDFD, which older headers lack */

#define OPEN_FILES 1024
#define LOOKUP_MEMORY ((size_t)256 * 1024) /* more than it takes, and what it loads */
#define SUBJECT_MOST 32768 /* the kernel takes 128 KiB for a variable */

static char path_variable[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static char language_variable[] = "LANG=C.UTF-8";

static int
open_pidfd(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* ------------------------------------------------------------------- setup */

int
command_setup_check(const struct config_sink *config)
{
	int fd;

	if (privileges_are_root() && !config->run_as_root) {
		log_event(LOG_LEVEL_ERROR, "sink-open",
			  "sink %s: commands are not run as root: set `user`, or `run_as_root = true` "
			  "in this sink", config->name);
		return EX_CONFIG;
	}
	if (faccessat(AT_FDCWD, config->argv.items[0], X_OK, AT_EACCESS) == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-open", "sink %s: cannot run %s: %s", config->name,
			  config->argv.items[0], strerror(errno));
		return errno == EACCES ? EX_NOPERM : EX_CONFIG;
	}
	fd = open_pidfd(getpid());
	if (fd == -1) {
		log_event(LOG_LEVEL_ERROR, "sink-open",
			  "sink %s: cannot watch processes (pidfd_open, Linux 5.4): %s",
			  config->name, strerror(errno));
		return EX_OSERR;
	}
	close(fd);
	return 0;
}

int
command_setup_open(struct command_setup *setup, const struct config_sink *config,
		   const char *spill_directory)
{
	struct passwd entry, *found = NULL;
	char buffer[4096];
	const char *home = "/";

	*setup = (struct command_setup){.config = config, .spill_directory = spill_directory};
	/* Without memory glibc's look-up may trap. */
	if (!memory_is_there(LOOKUP_MEMORY)) {
		errno = ENOMEM;
		return -1;
	}
	if (getpwuid_r(geteuid(), &entry, buffer, sizeof(buffer), &found) == 0 && found != NULL &&
	    *found->pw_dir == '/')
		home = found->pw_dir;
	if (asprintf(&setup->home, "HOME=%s", home) == -1) {
		setup->home = NULL;
		errno = ENOMEM;
		return -1;
	}
	return 0;
}

void
command_setup_close(struct command_setup *setup)
{
	free(setup->home);
}

/* ------------------------------------------------------------------- input */

/* The same file, by a description that starts at 0 and only reads. */
static int
reopen(int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int
copy(int fd, const struct message *message)
{
	unsigned char scratch[8192];
	const unsigned char *piece;
	struct cursor cursor;
	ptrdiff_t n;

	cursor_start(&cursor, message);
	while ((n = cursor_next(&cursor, &piece, scratch, sizeof(scratch))) > 0)
		if (body_write_all(fd, piece, (size_t)n) == -1)
			return -1;
	return n == 0 ? 0 : -1;
}

static int
open_sealed(void)
{
	int fd = memfd_create("message", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd == -1 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("message", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd;
}

/* A copy in memory counts as such; where the limit does not allow for it, it is a file. */
static int
open_copy(struct command_process *process, const struct command_setup *setup)
{
	uint64_t size = process->message->size;
	bool held = memory_used() + size <= memory_limit(), linkable;
	int fd = held ? open_sealed()
		      : body_open_unnamed(setup->spill_directory, S_IRUSR | S_IWUSR, &linkable);
	int input = -1, error;

	if (fd == -1)
		return -1;
	if (copy(fd, process->message) == 0 &&
	    (!held || fcntl(fd, F_ADD_SEALS,
			    F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0))
		input = reopen(fd);
	error = errno;
	close(fd);
	errno = error;
	if (input != -1 && held) {
		process->charged = size;
		memory_charge(size);
	}
	return input;
}

static int
open_input(struct command_process *process, const struct command_setup *setup)
{
	const struct body *body = process->message->body;

	if (body != NULL && body->file != -1)
		return reopen(body->file);
	return open_copy(process, setup);
}

static void
close_all(const int *fds, size_t count)
{
	int error = errno;
	size_t i;

	for (i = 0; i < count; i++)
		if (fds[i] != -1)
			close(fds[i]);
	errno = error;
}

/* ------------------------------------------------------------- environment */

struct environment {
	char *items[16];
	size_t count;
	size_t used;
	char text[1024]; /* more than the names, numbers and addresses can take */
	char *subject;
};

/* CISTERN_ID=... and so on. */
static void
put(struct environment *environment, enum fact fact, const char *value)
{
	char *at = environment->text + environment->used;
	size_t room = sizeof(environment->text) - environment->used;
	int len = snprintf(at, room, "CISTERN_%s=%s", fact_name(fact), value);
	char *c;

	for (c = at; *c != '\0' && *c != '='; c++)
		if (*c >= 'a' && *c <= 'z')
			*c = (char)(*c - 'a' + 'A');
	environment->items[environment->count++] = at;
	environment->used += (size_t)len < room ? (size_t)len + 1 : room;
}

static int
fill(struct environment *environment, const struct command_setup *setup, const struct batch *batch,
     const struct command_process *process)
{
	struct facts facts;
	enum fact fact;
	const char *subject;
	size_t len;

	*environment = (struct environment){.items = {path_variable, language_variable,
						      setup->home}, .count = 3};
	facts_set(&facts, batch, process->message);
	for (fact = 0; fact < FACT_TLS_SUBJECT; fact++)
		if (facts.value[fact] != NULL)
			put(environment, fact, facts.value[fact]);
	subject = facts.value[FACT_TLS_SUBJECT];
	if (subject == NULL)
		return 0;
	len = strlen(subject) + sizeof("CISTERN_TLS_SUBJECT=");
	environment->subject = memory_alloc(len);
	if (environment->subject == NULL) {
		errno = ENOMEM;
		return -1;
	}
	snprintf(environment->subject, len, "CISTERN_TLS_SUBJECT=%s", subject);
	environment->items[environment->count++] = environment->subject;
	return 0;
}

/* ------------------------------------------------------------------- child */

struct start {
	char *const *argv; /* NULL: nothing is to be run */
	char *const *environment;
	int input;
	int output;
	int *error;
};

static void
limit_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur > OPEN_FILES) {
		limit.rlim_cur = OPEN_FILES;
		(void)setrlimit(RLIMIT_NOFILE, &limit); /* where it is forbidden, there are more */
	}
}

static bool
arrange(const struct start *start)
{
	/* Ours may be 0 to 2 themselves, where the daemon was started without those. */
	int input = fcntl(start->input, F_DUPFD_CLOEXEC, 3);
	int output = fcntl(start->output, F_DUPFD_CLOEXEC, 3);

	if (input == -1 || output == -1 || dup2(input, STDIN_FILENO) == -1 ||
	    dup2(output, STDOUT_FILENO) == -1 || dup2(output, STDERR_FILENO) == -1 ||
	    chdir("/") == -1)
		return false;
	/* Ours are close-on-exec; this is for what somebody left to us.  Since Linux 5.9. */
	(void)syscall(SYS_close_range, 3U, ~0U, 0U);
	return true;
}

static _Noreturn void
child(const struct start *start)
{
	sigset_t none;
	int number;

	if (start->argv == NULL)
		_exit(0);
	for (number = 1; number < NSIG; number++)
		(void)signal(number, SIG_DFL); /* some cannot, or are libc's */
	(void)setsid(); /* fails only for the leader of a group, which a new process is not */
	umask(077);
	limit_files();
	sigemptyset(&none);
	if (arrange(start) && sigprocmask(SIG_SETMASK, &none, NULL) == 0)
		execve(start->argv[0], start->argv, start->environment);
	*start->error = errno;
	_exit(127);
}

static __attribute__((noinline)) pid_t
launch(const struct start *start)
{
	pid_t pid = vfork();

	if (pid == 0)
		child(start);
	return pid;
}

/* ----------------------------------------------------------------- process */

static void
label_set(struct command_process *process, const struct command_setup *setup,
	  const struct batch *batch)
{
	process->label.sink = setup->config->name;
	process->label.origin = batch->origin;
	id_text(&process->message->id, process->label.id);
}

static int
launch_program(struct command_process *process, const struct command_setup *setup,
	       const struct batch *batch, int input, int output)
{
	struct environment environment;
	struct start start = {.argv = setup->config->argv.items, .environment = environment.items,
			      .input = input, .output = output, .error = process->error};
	int error;

	if (fill(&environment, setup, batch, process) == -1)
		return -1;
	*process->error = 0;
	process->pid = launch(&start);
	error = errno;
	memory_free(environment.subject);
	errno = error;
	return process->pid == -1 ? -1 : 0;
}

/* It was launched, but cannot be watched. */
static void
abandon(struct command_process *process)
{
	int error = errno;

	(void)kill(process->pid, SIGKILL);
	while (waitpid(process->pid, NULL, 0) == -1 && errno == EINTR)
		;
	errno = error;
}

int
command_process_start(struct command_process *process, const struct command_setup *setup,
		      const struct batch *batch, struct message *message, const char **what,
		      enum outcome *outcome)
{
	const char *subject = batch->origin->tls_subject;
	int fds[3] = {-1, -1, -1}; /* input, the pipe's two ends */
	uint64_t timeout = setup->config->timeout;

	process->message = message;
	process->charged = 0;
	process->pid = 0;
	label_set(process, setup, batch);
	if (subject != NULL && strlen(subject) > SUBJECT_MOST) {
		*outcome = OUTCOME_REFUSED;
		*what = "the subject of the client's certificate";
		errno = E2BIG;
		return -1;
	}
	*outcome = OUTCOME_STORAGE;
	*what = "a message's file";
	fds[0] = open_input(process, setup);
	if (fds[0] == -1 && errno != EMFILE && errno != ENFILE && errno != ENOMEM)
		return -1;
	*outcome = OUTCOME_UNAVAILABLE;
	if (fds[0] == -1)
		return -1;
	*what = "a new process";
	if (pipe2(&fds[1], O_CLOEXEC) == -1 || fcntl(fds[1], F_SETFL, O_NONBLOCK) == -1 ||
	    launch_program(process, setup, batch, fds[0], fds[2]) == -1)
		goto failed;
	process->pidfd = open_pidfd(process->pid);
	if (process->pidfd == -1) {
		abandon(process);
		goto failed;
	}
	close_all((int[]){fds[0], fds[2]}, 2);
	process->stage = COMMAND_RUNS;
	process->began = clock_now();
	process->deadline = timeout == 0 ? 0 : process->began + timeout;
	process->output.fd = fds[1];
	process->output.lines = 0;
	process->output.unsaid = 0;
	process->output.used = 0;
	process->output.cut = false;
	return 0;
failed:
	process->pid = 0;
	close_all(fds, 3);
	memory_release(process->charged);
	return -1;
}

/* Its group is there when its program runs; only a fork(2) in vfork's place returns
 * before that. */
static void
signal_group(const struct command_process *process, int number)
{
	if (kill(-process->pid, number) == -1)
		(void)kill(process->pid, number);
}

void
command_process_end(struct command_process *process, enum outcome why, uint64_t grace)
{
	process->stage = COMMAND_TERMINATED;
	process->why = why;
	process->deadline = clock_now() + grace;
	signal_group(process, SIGTERM);
	signal_group(process, SIGCONT);
}

void
command_process_kill(struct command_process *process)
{
	process->stage = COMMAND_KILLED;
	process->deadline = 0;
	signal_group(process, SIGKILL);
}

int
command_process_reap(struct command_process *process, unsigned char *scratch, int *status)
{
	siginfo_t info = {.si_code = 0};
	int result;

	/* As long as it is not reaped, nobody else can have its number. */
	if (process->stage != COMMAND_RUNS)
		signal_group(process, SIGKILL);
	do
		result = waitid(BY_PIDFD, (id_t)process->pidfd, &info, WEXITED);
	while (result == -1 && errno == EINTR);
	/* Somebody else has taken its status: it is not known to be well. */
	*status = result == -1		     ? SIGKILL
		  : info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8
						: info.si_status & 0x7f;
	command_output_end(&process->output, &process->label, scratch);
	close(process->pidfd);
	memory_release(process->charged);
	process->pid = 0;
	if (*process->error == 0)
		return 0;
	errno = *process->error;
	return -1;
}

bool
command_process_try(const struct command_setup *setup)
{
	struct start start = {.argv = NULL};
	pid_t pid;
	int fds[4], status = -1;
	bool room;

	if (faccessat(AT_FDCWD, setup->config->argv.items[0], X_OK, AT_EACCESS) == -1)
		return false;
	fds[0] = open_sealed();
	if (pipe2(&fds[1], O_CLOEXEC) == -1)
		fds[1] = fds[2] = -1;
	pid = launch(&start);
	fds[3] = pid > 0 ? open_pidfd(pid) : -1;
	while (pid > 0 && waitpid(pid, &status, 0) == -1 && errno == EINTR)
		;
	room = fds[0] != -1 && fds[1] != -1 && fds[3] != -1 && status == 0;
	close_all(fds, 4);
	return room;
}
