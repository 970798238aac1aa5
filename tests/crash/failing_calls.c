/*
 * failing_calls: runs a program and makes one of its system calls fail, by seccomp's user
 * notification: no ptrace, so that sanitizers look for leaks as ever, and what libraries
 * call inside of libc is met, too.
 *
 *	failing_calls LOG CALL/K:ERRNO[:TIMES] PROGRAM [ARGUMENT]...
 *	failing_calls LOG trace PROGRAM [ARGUMENT]...
 *	failing_calls names
 *
 * The K-th CALL of all threads gets ERRNO and does not take place, and with TIMES so many
 * in all ("on": all from then on).  A program that PROGRAM starts is left alone from its
 * execve on.  Counted is what lies between the two marks of failing.h.
 *
 * LOG gets a line for PROGRAM's process ("pid N"), one for the first call that failed
 * ("! ...") and one with how many did ("~ N"), with "trace" one a call that was made
 * ("= CALL N").  It ends as PROGRAM
 * ends, by the same code or signal; 125: it could not do its work, 77: there is no
 * seccomp here.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failing.h"

#define CANNOT 125
#define NOT_HERE 77

static const struct {
	const char *name;
	int number;
} calls[] = {
#define CALL(name) {#name, SYS_##name}
	CALL(accept4), CALL(bind), CALL(brk), CALL(chdir), CALL(clone), CALL(clone3),
	CALL(close_range), CALL(connect), CALL(dup), CALL(dup3), CALL(epoll_create1),
	CALL(epoll_ctl), CALL(epoll_pwait), CALL(eventfd2), CALL(execve), CALL(fallocate),
	CALL(fchmod), CALL(fchmodat), CALL(fchown), CALL(fchownat), CALL(fcntl),
	CALL(fdatasync), CALL(flock), CALL(fgetxattr), CALL(fremovexattr), CALL(fsetxattr),
	CALL(fstatfs), CALL(fsync), CALL(ftruncate), CALL(futex), CALL(getcwd),
	CALL(getdents64), CALL(getpeername), CALL(getrandom), CALL(getsockname),
	CALL(getsockopt), CALL(ioctl), CALL(kill), CALL(linkat), CALL(listen), CALL(lseek),
	CALL(memfd_create), CALL(mkdirat), CALL(mmap), CALL(mprotect), CALL(newfstatat),
	CALL(openat), CALL(pidfd_open), CALL(pidfd_send_signal), CALL(pipe2), CALL(ppoll),
	CALL(prctl), CALL(pread64), CALL(prlimit64), CALL(pselect6), CALL(pwrite64),
	CALL(pwritev), CALL(read), CALL(readlinkat), CALL(readv), CALL(recvfrom),
	CALL(recvmsg), CALL(renameat), CALL(renameat2), CALL(rt_sigaction),
	CALL(rt_sigprocmask), CALL(sched_getaffinity), CALL(sched_yield), CALL(sendfile),
	CALL(sendmsg), CALL(sendto), CALL(setpriority), CALL(setrlimit), CALL(setsid),
	CALL(setsockopt), CALL(shutdown), CALL(signalfd4), CALL(socket), CALL(socketpair),
	CALL(statfs), CALL(statx), CALL(sync_file_range), CALL(syncfs), CALL(sysinfo),
	CALL(timerfd_create), CALL(timerfd_settime), CALL(umask), CALL(uname),
	CALL(unlinkat), CALL(wait4), CALL(waitid), CALL(write), CALL(writev),
#ifdef SYS_open /* what younger architectures have as one of the above only */
	CALL(chmod), CALL(chown), CALL(dup2), CALL(epoll_wait), CALL(mkdir), CALL(open),
	CALL(poll), CALL(readlink), CALL(rename), CALL(stat), CALL(unlink), CALL(vfork),
#endif
#undef CALL
};

#define CALLS (sizeof(calls) / sizeof(calls[0]))

static struct {
	int call; /* its place in calls; -1: trace */
	unsigned long long first, last;
	int error;
} plan;

static unsigned long long counts[CALLS];
static unsigned long long told;
static int counting, out;

_Noreturn static void
cannot(const char *what)
{
	fprintf(stderr, "failing_calls: %s: %s\n", what, strerror(errno));
	exit(errno == ENOSYS || errno == EACCES || errno == EPERM ? NOT_HERE : CANNOT);
}

static void __attribute__((format(printf, 1, 2)))
say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vdprintf(out, format, args);
	va_end(args);
}

static int
error_number(const char *name)
{
	int number;

	for (number = 1; number < 134; number++)
		if (strerrorname_np(number) != NULL && strcmp(strerrorname_np(number), name) == 0)
			return number;
	fprintf(stderr, "failing_calls: no error %s\n", name);
	exit(CANNOT);
}

static void
parse_plan(char *text)
{
	char *number = strchr(text, '/'), *error = NULL, *times;

	plan.call = -1;
	if (strcmp(text, "trace") == 0)
		return;
	if (number != NULL)
		*number++ = '\0';
	for (size_t i = 0; i < CALLS; i++)
		if (strcmp(calls[i].name, text) == 0)
			plan.call = (int)i;
	if (number != NULL)
		plan.first = plan.last = strtoull(number, &error, 10);
	if (plan.call == -1 || plan.first == 0 || *error++ != ':') {
		fprintf(stderr, "failing_calls: no plan: %s\n", text);
		exit(CANNOT);
	}
	times = strchr(error, ':');
	if (times != NULL) {
		*times++ = '\0';
		plan.last = strcmp(times, "on") == 0 ? UINT64_MAX
						     : plan.first + strtoull(times, NULL, 10) - 1;
	}
	plan.error = error_number(error);
}

/* Those calls, and the marks, wait for us to decide. */
static int
filter_install(void)
{
	struct sock_filter code[2 * CALLS + 16];
	struct sock_fprog program = {.filter = code};
	unsigned short n = 0;

#define DATA(field) ((unsigned)offsetof(struct seccomp_data, field))
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(nr));
	for (size_t i = 0; i < CALLS; i++) {
		if (plan.call != -1 && plan.call != (int)i)
			continue;
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
							 (unsigned)calls[i].number, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	}
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpriority, 0, 3);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(args[0]));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FAILING_MARK, 0, 1);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
#undef DATA
	program.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1)
		return -1;
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
			    &program);
}

/* Starts the program; returns its process and where its calls are told. */
static pid_t
program_start(char **argv, int *listener)
{
	/* In memory and with descriptors that both have: nothing needs to be sent. */
	_Atomic int *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;
	int status;

	if (shared == MAP_FAILED)
		cannot("mmap");
	atomic_store(shared, 0);
	pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == -1)
		cannot("clone");
	if (pid == 0) {
		int fd = filter_install();

		atomic_store(shared, fd == -1 ? -errno : fd);
		if (fd != -1)
			execv(argv[0], argv);
		_exit(CANNOT);
	}
	while (atomic_load(shared) == 0 && waitpid(pid, &status, WNOHANG) == 0)
		sched_yield();
	*listener = atomic_load(shared);
	if (*listener <= 0) {
		errno = -*listener;
		cannot("seccomp");
	}
	return pid;
}

/* Whether a thread still runs the program: what it has started is none of ours. */
static bool
is_program(uint32_t thread, const struct stat *program)
{
	char path[40];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%u/exe", thread);
	return stat(path, &st) == 0 && st.st_dev == program->st_dev && st.st_ino == program->st_ino;
}

/* An eventfd takes every write: nothing to fail there.  And a read of one, or of a signalfd,
 * that fails for ever is no failure that a machine has, while nobody could be told to stop. */
static bool
is_beyond_failing(const struct seccomp_notif *notice)
{
	char path[60], target[32] = "";
	bool writes = notice->data.nr == SYS_write;

	if (!writes && (notice->data.nr != SYS_read || plan.last != UINT64_MAX))
		return false;
	snprintf(path, sizeof(path), "/proc/%u/fd/%d", notice->pid, (int)notice->data.args[0]);
	if (readlink(path, target, sizeof(target) - 1) == -1)
		return false;
	return strcmp(target, "anon_inode:[eventfd]") == 0 ||
	       (!writes && strcmp(target, "anon_inode:[signalfd]") == 0);
}

static void
strike_tell(const struct seccomp_notif *notice, unsigned long long number)
{
	char path[60], target[200] = "", name[32] = "";
	ssize_t n;
	int fd;

	if (told++ > 0)
		return;
	snprintf(path, sizeof(path), "/proc/%u/fd/%d", notice->pid, (int)notice->data.args[0]);
	n = readlink(path, target, sizeof(target) - 1);
	target[n > 0 ? n : 0] = '\0';
	snprintf(path, sizeof(path), "/proc/%u/comm", notice->pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd != -1 ? read(fd, name, sizeof(name) - 1) : 0;
	name[n > 0 ? n - 1 : 0] = '\0';
	if (fd != -1)
		close(fd);
	say("! %s/%llu %s thread %s args %#llx %#llx %#llx fd %s\n", calls[plan.call].name, number,
	    strerrorname_np(plan.error), name, notice->data.args[0], notice->data.args[1],
	    notice->data.args[2], target);
}

/* The errno that a call gets, or 0. */
static int
verdict(const struct seccomp_notif *notice, const struct stat *program)
{
	size_t i;

	if (notice->data.nr == SYS_getpriority) {
		counting = notice->data.args[1] == FAILING_BEGIN;
		return EINVAL;
	}
	if (!counting || !is_program(notice->pid, program) || is_beyond_failing(notice))
		return 0;
	for (i = 0; calls[i].number != notice->data.nr; i++)
		;
	counts[i]++;
	if (plan.call == -1 || counts[i] < plan.first || counts[i] > plan.last)
		return 0;
	strike_tell(notice, counts[i]);
	return plan.error;
}

static void
serve(int listener, const struct stat *program)
{
	struct pollfd poller = {.fd = listener, .events = POLLIN};

	/* Hangs up when the last process under the filter is gone. */
	while (poll(&poller, 1, -1) == 1 && (poller.revents & POLLIN) != 0) {
		struct seccomp_notif notice = {0};
		struct seccomp_notif_resp answer = {0};

		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notice) == -1)
			continue; /* it was interrupted, or has ended */
		answer.id = notice.id;
		answer.error = -verdict(&notice, program);
		if (answer.error == 0)
			answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	}
}

int
main(int argc, char **argv)
{
	struct stat program;
	int listener, status;
	pid_t pid;

	if (argc == 2 && strcmp(argv[1], "names") == 0) {
		for (size_t i = 0; i < CALLS; i++)
			puts(calls[i].name);
		return 0;
	}
	if (argc < 4) {
		fputs("usage: failing_calls LOG PLAN PROGRAM [ARGUMENT]...\n", stderr);
		return CANNOT;
	}
	parse_plan(argv[2]);
	out = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (out == -1 || stat(argv[3], &program) == -1)
		cannot(argv[out == -1 ? 1 : 3]);
	pid = program_start(argv + 3, &listener);
	say("pid %d\n", (int)pid);
	serve(listener, &program);
	if (waitpid(pid, &status, 0) != pid)
		cannot("waitpid");
	say("~ %llu\n", told);
	for (size_t i = 0; plan.call == -1 && i < CALLS; i++)
		if (counts[i] > 0)
			say("= %s %llu\n", calls[i].name, counts[i]);
	if (WIFSIGNALED(status)) {
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	return WEXITSTATUS(status);
}
