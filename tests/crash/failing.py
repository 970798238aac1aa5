#!/usr/bin/env python3
"""failing: in the life of a daemon with all its parts (scenario.py) each allocation fails
in turn, and each system call with each errno that it can give: once, and from then on.

Nothing may crash, leak, be acknowledged that is not there, wait for ever or take more
memory than it may.  A start that fails says why and exits as sysexits.h has it; after
that the daemon goes on and stops in order, with an account that balances.  Where a thing
failed once, everything works as soon as it has.

SWEEP_FAILING: "coarse" (make check) or "full".  SWEEP_STEP: every so many-th only (1).
SWEEP_ONLY: a pattern of names, as "memory" or "accept4/.*/once".  SWEEP_JOBS: runs at a
time (4).
"""

import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
import scenario  # noqa: E402
import storage  # noqa: E402

# What a call can give, of those that the kernel documents for what the daemon does with it.
NET = "ECONNABORTED EPROTO ENETDOWN EHOSTUNREACH EPERM"
DESCRIPTORS = "EMFILE ENFILE ENOMEM"
DISK = "EIO ENOSPC EDQUOT EROFS"
CALLS = {
    "accept4": "EMFILE ENFILE ENOBUFS ENOMEM EINTR EAGAIN " + NET,
    "bind": "EACCES EADDRINUSE EADDRNOTAVAIL ENOMEM",
    "mmap": "ENOMEM EPERM EAGAIN", "mprotect": "ENOMEM EACCES",
    "chdir": "EACCES ENOENT", "chmod": "EPERM EROFS EIO", "chown": "EPERM EROFS",
    "clone": "EAGAIN ENOMEM", "clone3": "EAGAIN ENOMEM EPERM", "close_range": "ENOSYS EMFILE",
    "connect": "ECONNREFUSED ENOENT EACCES EAGAIN", "dup": "EMFILE", "dup2": "EMFILE EBUSY EINTR",
    "dup3": "EMFILE EBUSY EINTR",
    "epoll_create1": DESCRIPTORS, "epoll_ctl": "ENOMEM ENOSPC EPERM", "epoll_wait": "EINTR",
    "epoll_pwait": "EINTR", "eventfd2": DESCRIPTORS, "execve": "ENOMEM EACCES E2BIG ETXTBSY ENOENT",
    "fallocate": "EOPNOTSUPP ENOSPC", "fchmod": "EPERM EIO EROFS", "fchown": "EPERM EIO",
    "fcntl": "EMFILE EACCES EINVAL", "fdatasync": DISK, "fsync": DISK, "syncfs": DISK,
    "sync_file_range": "EIO ENOSPC ESPIPE", "flock": "EINTR ENOLCK EAGAIN",
    "fsetxattr": "ENOSPC EOPNOTSUPP EDQUOT", "fgetxattr": "EOPNOTSUPP ENODATA",
    "fremovexattr": "EOPNOTSUPP EIO", "ftruncate": "EIO EPERM", "getcwd": "ENOENT",
    "getdents64": "EIO ENOENT", "getpeername": "ENOTCONN ENOBUFS", "getrandom": "EINTR ENOSYS",
    "getsockname": "ENOBUFS", "getsockopt": "ENOBUFS", "ioctl": "ENOTTY EINVAL", "kill": "EPERM ESRCH",
    "linkat": DISK + " EEXIST EMLINK ENOENT EOPNOTSUPP ENOMEM", "listen": "EADDRINUSE EOPNOTSUPP",
    "lseek": "EIO", "memfd_create": DESCRIPTORS + " ENOSYS", "mkdir": DISK + " EACCES EEXIST",
    "mkdirat": DISK + " EACCES EEXIST", "newfstatat": "EIO EACCES ENOENT ENOMEM",
    "open": DESCRIPTORS, "openat": DESCRIPTORS + " EACCES ENOENT EIO ENOSPC EROFS EINTR",
    "pidfd_open": DESCRIPTORS + " ENOSYS", "pidfd_send_signal": "EPERM ESRCH ENOSYS",
    "pipe2": "EMFILE ENFILE", "poll": "EINTR ENOMEM", "ppoll": "EINTR ENOMEM",
    "prctl": "EINVAL EPERM", "pread64": "EIO EINTR", "prlimit64": "EPERM",
    "pwrite64": DISK + " EINTR", "pwritev": DISK + " EINTR",
    "read": "EINTR EAGAIN EIO ECONNRESET ETIMEDOUT ENOMEM", "readlink": "ENOENT EACCES",
    "readlinkat": "ENOENT EACCES", "readv": "EINTR EAGAIN ECONNRESET ETIMEDOUT ENOMEM EIO",
    "recvfrom": "EINTR EAGAIN ECONNRESET ETIMEDOUT ENOMEM", "recvmsg": "EINTR EAGAIN ECONNRESET",
    "rename": DISK + " EACCES", "renameat": DISK + " EACCES", "renameat2": DISK + " EEXIST",
    "sched_getaffinity": "EPERM",
    "sendfile": "EIO EINTR", "sendmsg": "EAGAIN ECONNREFUSED ENOBUFS EPIPE ECONNRESET",
    "sendto": "EAGAIN ECONNREFUSED ENOBUFS EPIPE ECONNRESET", "setrlimit": "EPERM",
    "setsid": "EPERM", "setsockopt": "ENOPROTOOPT ENOBUFS EINVAL ENOMEM",
    "shutdown": "ENOTCONN", "signalfd4": DESCRIPTORS + " ENODEV",
    "socket": DESCRIPTORS + " ENOBUFS EACCES EAFNOSUPPORT", "socketpair": DESCRIPTORS,
    "stat": "EACCES ENOENT", "statfs": "EIO ENOSYS", "fstatfs": "EIO ENOSYS", "statx": "EIO ENOENT",
    "sysinfo": "EFAULT", "timerfd_create": DESCRIPTORS, "timerfd_settime": "EINVAL",
    "unlink": DISK + " EACCES ENOENT", "unlinkat": DISK + " EACCES ENOENT",
    "vfork": "EAGAIN ENOMEM", "wait4": "ECHILD EINTR", "waitid": "ECHILD EINTR",
    "write": DISK + " EINTR EAGAIN EPIPE ECONNRESET",
    "writev": DISK + " EINTR EAGAIN EPIPE ECONNRESET",
}
# These cannot fail with what they are given, or in another way (brk: libc takes mmap).
HARMLESS = ("futex", "brk", "rt_sigaction", "rt_sigprocmask", "sched_yield", "umask", "uname", "getpriority", "setpriority", "pselect6")
# These say "again", which no call does for ever; but of a fork EAGAIN is a limit.
MOMENTARY = ("EINTR", "EAGAIN")
FORKS = ("clone", "clone3", "vfork")
# Without these no thread hears of anything any more, not even of a stop.
SENSES = ("poll", "read", "write")
# A sanitizer's runtime gives up where these fail.
RUNTIME = ("mmap", "mprotect", "clone", "clone3",
           "prctl", "newfstatat", "sched_getaffinity", "readlink", "getrandom", "sysinfo", "ioctl")
GIVE_UP = 100000
NO_SECCOMP = 77  # says failing_calls


class Sweep:
    def __init__(self, tap, scratch, pool, program, tool, tls):
        self.tap, self.scratch, self.pool = tap, scratch, pool
        self.program, self.tool, self.tls = program, tool, tls
        self.addresses, self.lock, self.number = scenario.addresses(), threading.Lock(), 0
        self.points = self.memory = 0
        # What OpenSSL forgets on its own way out of its own failure: some bytes, once.
        self.openssl_leaks = os.path.join(scratch, "openssl.leaks")
        with open(self.openssl_leaks, "w", encoding="ascii") as file:
            file.write("leak:libcrypto.so\n")
        self.given_up = 0
        with open(program, "rb") as file:
            self.sanitized = re.search(rb"__[at]san_init", file.read()) is not None

    def life(self, plan):
        """A daemon to which that will happen; a call to know whether it has, and its trace."""
        with self.lock:
            self.number += 1
            number, address = self.number, next(self.addresses)
        directory = os.path.join(self.scratch, "%s.%d" % (re.sub("[/:]", "-", plan), number))
        trace = directory + ".trace"
        if plan.startswith("memory/"):
            env, wrapper = {"CISTERN_FAIL_MEMORY": plan[7:], "CISTERN_FAIL_TRACE": trace}, ()
            if plan.startswith("memory/c"):
                env["LSAN_OPTIONS"] = "suppressions=%s:print_suppressions=0" % self.openssl_leaks
        elif plan == "memory":
            env, wrapper = {"CISTERN_FAIL_TRACE": trace}, ()
        else:
            env, wrapper = {}, (self.tool, trace, plan)
        life = scenario.Life(directory, address, wrapper, env, self.program, self.tls)
        life.sanitized = self.sanitized
        # OpenSSL 3.0 remembers what it could not look up as unknown; see tls.c.
        life.lasting = ("tls",) if plan.startswith("memory/c") else ()

        def said():
            if not os.path.exists(trace):
                return ""
            with open(trace, encoding="utf-8", errors="replace") as file:
                return file.read()
        return life, said

    def run(self, plan):
        """(whether it came to that, what was wrong)"""
        life, said = self.life(plan)

        def struck():
            return re.search("^!", said(), re.M) is not None
        life.is_transient = not plan.endswith(":on")
        ready = life.live(struck)
        what, there = said(), struck()
        log_may_fail = re.search(r"^! writev?/.* args 0x2 ", what, re.M) is not None
        problems = life.judge(ready, log_may_fail)
        # It asks libc about each new thread, and ends the process when there is no memory.
        if self.sanitized and re.search(r"CHECK failed: sanitizer_\S+ \"\(\(pthread_getattr_np",
                                        life.text()):
            with self.lock:
                self.given_up += 1
            problems = []
        with self.lock:
            self.points += there
            self.memory = max(self.memory, life.memory)
        if problems:
            return there, "%s: %s\n%s\n%s" % (plan, "; ".join(problems), what[:3000],
                                                 life.text()[-2500:])
        shutil.rmtree(life.directory)
        if os.path.exists(life.directory + ".trace"):
            os.unlink(life.directory + ".trace")
        return there, None

    def trace(self, plan):
        """{name: how many there were} in a life without a fault."""
        life, said = self.life(plan)
        problems = life.judge(life.live(lambda: False))
        if problems:
            raise SystemExit("without a fault: %s\n%s" % (problems, life.text()))
        counts = {}
        for line in re.findall("^= (.*)$", said(), re.M):
            words = line.split()
            name, n = (words[1], words[0]) if words[0].isdigit() else (words[0], words[1])
            counts[os.path.basename(name)] = int(n)
        return counts

    def all_of(self, title, plans, at_least=1):
        """One test: the plans, K for K, until none strikes any more."""
        struck, wrong, more, plans = 0, [], True, iter(plans)
        while more:
            some = [plan for plan, _ in zip(plans, range(16))]
            if not some:
                break
            results = list(self.pool.map(self.run, some))
            struck += sum(there for there, _ in results)
            wrong += [what for _, what in results if what]
            more = any(there for there, _ in results)
        for text in wrong[:int(os.environ.get("SWEEP_SHOW", "4"))]:
            self.tap.note(text)
        self.tap.result(not wrong and struck >= at_least, "%s: %d points" % (title, struck),
                        "%d of them went wrong" % len(wrong))


def steps(coarse, first, step, most):
    """Which of `most` are looked at: all, or a few of them that move with the name."""
    if not coarse:
        return range(1, GIVE_UP, step)
    stride = max(1, most // coarse)
    return range(1 + first % stride, most + 1, stride)


def main():
    program, tool = storage.program_with_faults(), storage.program(
        "FAILING_CALLS", "tests/crash/failing_calls")
    with open(program, "rb") as file:
        if b"__tsan_init" in file.read():
            storage.skip_all("ThreadSanitizer's runtime does not start behind another malloc; the "
                             "builds without it are swept")
    coarse = os.environ.get("SWEEP_FAILING", "coarse") != "full"
    step = int(os.environ.get("SWEEP_STEP", "1"))
    only = re.compile(os.environ.get("SWEEP_ONLY", ""))
    tap = storage.Tap()
    with storage.Scratch() as scratch, concurrent.futures.ThreadPoolExecutor(
            max_workers=int(os.environ.get("SWEEP_JOBS", "4"))) as pool:
        sweep = Sweep(tap, scratch, pool, program, os.path.abspath(tool),
                      scenario.prepare(scratch))
        counts = sweep.trace("memory")
        tap.note("allocations: " + ", ".join("%s %d" % item for item in counts.items()))
        of_crypto = counts.get("libcrypto.so.3", 0)
        for times in ("once", "on"):
            title = "memory/" + times
            for kind, most, part, fine in (("", counts["all"] - of_crypto, 24, 1),
                                           ("c", of_crypto, 6, 10)):
                if most > 0 and only.search(title + kind):
                    sweep.all_of("%s, %s" % (title, "libcrypto's" if kind else "all but libcrypto's"),
                                 ("memory/%s%d:%s" % (kind, k, times.replace("once", "1"))
                                  for k in steps(part * coarse, 7, step * fine, most)))
        if subprocess.run([tool, os.devnull, "trace", "/bin/true"], check=False,
                          stderr=subprocess.DEVNULL).returncode == NO_SECCOMP:
            tap.result(True, "system calls # SKIP no user notification by seccomp here")
            return tap.end()
        counts = sweep.trace("trace")
        tap.note("system calls: " + ", ".join("%s %d" % item for item in counts.items()))
        unknown = set(counts) - set(CALLS) - set(HARMLESS)
        tap.result(not unknown, "every call has its errors: %d kinds, %d calls" % (
            len(counts), sum(counts.values())), str(unknown))
        for name in sorted(set(counts) & set(CALLS)):
            if sweep.sanitized and name in RUNTIME:
                continue
            for times in ("once",) if name in SENSES else ("once", "on"):
                errors = [error for error in CALLS[name].split()
                          if only.search("%s/%s/%s" % (name, error, times)) and
                          (times == "once" or error not in MOMENTARY or name in FORKS)]
                if not errors:
                    continue
                plans = ("%s/%d:%s:%s" % (name, k, error, times.replace("once", "1"))
                         for k in steps(coarse, sum(map(ord, name + times)), step, counts[name])
                         for error in (errors[:1] if coarse else errors))
                sweep.all_of("%s/%s" % (name, times), plans, 0 if coarse else 1)
        tap.note("%d points swept, at most %d KiB resident%s" % (
            sweep.points, sweep.memory >> 10,
            ", with sanitizers; their runtime ended %d lives itself" % sweep.given_up
            if sweep.sanitized else ""))
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
