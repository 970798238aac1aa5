#!/usr/bin/env python3
"""failing: in the life of a daemon with all its parts (scenario.py) each allocation fails
in turn, and each system call with each errno that it can give: once, and from then on.

Nothing may crash, leak, be acknowledged that is not there, wait for ever or take more
memory than it may.  A start that fails says why and exits as sysexits.h has it; after
that the daemon goes on and stops in order, with an account that balances.  Where a thing
failed once, everything works as soon as it has.

SWEEP_FAILING: "coarse" (make check) or "full".  SWEEP_PART: "I/N", the I-th of N parts that
together are all (of all kinds of points, every N-th).  SWEEP_LIFE: "all" or "brokers", as
scenario.py has them (both).  SWEEP_ONLY: a pattern of names, as "memory" or
"accept4/.*/once".  SWEEP_FINE: every so many-th allocation of OpenSSL's (10).  SWEEP_JOBS:
lives at a time (6).  SWEEP_SECONDS: then no life is begun any more; the places that have
been looked at till then are chance's (SWEEP_SEED).
"""

import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import time

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
# These say "again", or that a client has gone (ECONNABORTED), which no call does for ever; but
# of a fork EAGAIN is a limit.
MOMENTARY = ("EINTR", "EAGAIN", "ECONNABORTED")
FORKS = ("clone", "clone3", "vfork")
# Without it threads hear of nothing any more, not even of a stop.  (What reads and writes fail
# for ever are those of files and sockets: failing_calls leaves eventfds and signalfds alone.)
SENSES = ("poll",)
# A sanitizer's runtime gives up where these fail.
RUNTIME = ("mmap", "mprotect", "clone", "clone3",
           "prctl", "newfstatat", "sched_getaffinity", "readlink", "getrandom", "sysinfo", "ioctl")
# What went wrong once, by life.  Each part of a sweep looks at these.
FOUND = {
    "all": (
        "accept4/30:EMFILE:on",  # the status service's listener tried again without a pause
    ),
    "brokers": (
        "connect/1:ECONNREFUSED:on",  # librdkafka's lines were logged under a lock
        # A subscription of libnats' got lost, and its connection did not.
        "sendto/2:EPIPE:1", "sendto/6:EPIPE:1",
        # A producer without the thread of its only broker was taken for one that will connect.
        "mmap/54:EPERM:1", "mmap/55:EPERM:1", "mmap/56:EPERM:1", "mmap/57:EPERM:1",
    ),
}
ALLOCATORS = ("mmap", "mprotect")  # each malloc tries them
TRIES_MOST = 2000  # of a call that goes on to fail, in a life; more is a loop without a pause
TRACES = 3  # lives without a fault, of which the longest says how many places there are
AHEAD = 8  # plans a process that wait for their turn
NO_SECCOMP = 77  # says failing_calls


class Sweep:
    """What all lives of one kind share; each process of the pool has its copy."""

    def __init__(self, scratch, name, parts, program, tool, tls):
        self.scratch, self.name, self.parts = scratch, name, parts
        self.program, self.tool, self.tls = program, tool, tls
        self.owner, self.addresses, self.kafka, self.number = None, None, None, 0
        self.most = {}  # by what makes it fail: descriptors and threads without a fault
        # What OpenSSL forgets on its own way out of its own failure: some bytes, once.
        self.openssl_leaks = os.path.join(scratch, "openssl.leaks")
        with open(self.openssl_leaks, "w", encoding="ascii") as file:
            file.write("leak:libcrypto.so\n")
        with open(program, "rb") as file:
            self.sanitized = re.search(rb"__[at]san_init", file.read()) is not None

    def settle(self):
        """Each process has addresses, and a mock cluster, of its own."""
        if self.owner != os.getpid():
            self.owner, self.addresses = os.getpid(), scenario.addresses()
            self.kafka = scenario.brokers.Kafka(self.scratch) if "kafka" in self.parts.brokers \
                else None

    def life(self, plan):
        """A daemon to which that will happen; a call to know whether it has, and its trace."""
        self.settle()
        self.number += 1
        address = next(self.addresses)
        directory = os.path.join(self.scratch, "%s.%s.%d.%d" % (
            self.name, re.sub("[/:]", "-", plan), self.owner, self.number))
        trace = directory + ".trace"
        if plan.startswith("memory/"):
            env, wrapper = {"CISTERN_FAIL_MEMORY": plan[7:], "CISTERN_FAIL_TRACE": trace}, ()
            if plan.startswith("memory/c"):
                env["LSAN_OPTIONS"] = "suppressions=%s:print_suppressions=0" % self.openssl_leaks
        elif plan == "memory":
            env, wrapper = {"CISTERN_FAIL_TRACE": trace}, ()
        else:
            env, wrapper = {}, (self.tool, trace, plan)
        life = scenario.Life(directory, address, wrapper, env, self.program, self.tls, self.parts,
                             self.kafka)
        life.sanitized = self.sanitized
        life.most = self.most.get(plan.startswith("memory"))
        # OpenSSL 3.0 remembers what it could not look up as unknown; see tls.c.
        life.lasting = ("tls",) if plan.startswith("memory/c") else ()

        def said():
            if not os.path.exists(trace):
                return ""
            with open(trace, encoding="utf-8", errors="replace") as file:
                return file.read()
        return life, said

    def run(self, plan):
        """What came of it: an Outcome."""
        life, said = self.life(plan)

        def struck():
            return re.search("^!", said(), re.M) is not None
        life.is_transient = not plan.endswith(":on")
        ready = life.live(struck)
        what, there = said(), struck()
        # What fails from then on comes to the log, too.
        log_may_fail = re.search(r"^! writev?/.* args 0x2 ", what, re.M) is not None or (
            plan.startswith("write") and plan.endswith(":on"))
        problems = life.judge(ready, log_may_fail)
        tries = re.search(r"^~ (\d+)", what, re.M)
        if tries and int(tries.group(1)) > TRIES_MOST and not plan.startswith(ALLOCATORS):
            problems.append("it was tried %s times" % tries.group(1))
        # It asks libc about each new thread, and ends the process when there is no memory.
        given_up = self.sanitized and re.search(
            r"CHECK failed: sanitizer_\S+ \"\(\(pthread_getattr_np", life.text()) is not None
        if problems and not given_up:
            return Outcome(there, life.memory, False, "%s: %s\n%s\n%s" % (
                plan, "; ".join(problems), what[:3000], life.text()[-2500:]))
        shutil.rmtree(life.directory)
        if os.path.exists(life.directory + ".trace"):
            os.unlink(life.directory + ".trace")
        return Outcome(there, life.memory, given_up, None)

    def end(self):
        """What this process has of its own is given back."""
        if self.kafka:
            self.kafka.close()
        self.owner = self.kafka = None

    def trace(self, plan):
        """{name: how many there were, at most} in lives without a fault."""
        counts, most = {}, (0, 0)
        for _ in range(TRACES):
            life, said = self.life(plan)
            problems = life.judge(life.live(lambda: False))
            if problems:
                raise SystemExit("without a fault: %s\n%s" % (problems, life.text()))
            most = tuple(map(max, most, life.belongings))
            for line in re.findall("^= (.*)$", said(), re.M):
                words = line.split()
                name, n = (words[1], words[0]) if words[0].isdigit() else (words[0], words[1])
                name = os.path.basename(name)
                counts[name] = max(int(n), counts.get(name, 0))
        self.most[plan == "memory"] = most
        return counts


class Outcome:
    """struck: whether it came to that; wrong: None, or a text."""

    def __init__(self, struck, memory, given_up, wrong):
        self.struck, self.memory, self.given_up, self.wrong = struck, memory, given_up, wrong


class Series:
    """One test: places of one kind, all failing alike."""

    def __init__(self, title, plans, at_least=1):
        self.title, self.plans, self.at_least = title, plans, at_least
        self.struck, self.wrong, self.left = 0, [], 0


def steps(coarse, first, step, most):
    """Which of `most` places are looked at: all, or a few of them that move with the name.
    One life has more of them than another, so all is some more than have been seen."""
    if not coarse:
        return range(1, most + most // 20 + 2, step)
    stride = max(1, most // coarse)
    return range(1 + first % stride, most + 1, stride)


def memory_series(counts, coarse, only):
    of_crypto = counts.get("libcrypto.so.3", 0)
    # failing.c says why those are not asked.
    of_others = counts["all"] - of_crypto - sum(n for name, n in counts.items() if name.startswith(
        ("libconfig.", "librdkafka.", "libnats.")))
    fine = int(os.environ.get("SWEEP_FINE", "10"))
    for times in ("once", "on"):
        for kind, most, part, step in (("", of_others, 24, 1),
                                       ("c", of_crypto, 6, fine)):
            if most > 0 and only.search("memory/" + times + kind):
                yield Series("memory/%s, %s" % (times, "libcrypto's" if kind
                                                else "all but libcrypto's"),
                             ["memory/%s%d:%s" % (kind, k, times.replace("once", "1"))
                              for k in steps(part * coarse, 7, step, most)])


def call_series(counts, coarse, only, sanitized):
    for name in sorted(set(counts) & set(CALLS)):
        if sanitized and name in RUNTIME:
            continue
        for times in ("once",) if name in SENSES else ("once", "on"):
            errors = [error for error in CALLS[name].split()
                      if only.search("%s/%s/%s" % (name, error, times)) and
                      (times == "once" or error not in MOMENTARY or name in FORKS)]
            if errors:
                yield Series("%s/%s" % (name, times), [
                    "%s/%d:%s:%s" % (name, k, error, times.replace("once", "1"))
                    for k in steps(coarse, sum(map(ord, name + times)), 1, counts[name])
                    for error in (errors[:1] if coarse else errors)], 0 if coarse else 1)


def all_series(tap, sweep, coarse, only, no_seccomp):
    """What is to be swept in a life, those first that take long."""
    found = [plan for plan in FOUND[sweep.name] if only.search(plan) and
             not (sweep.sanitized and plan.split("/")[0] in RUNTIME)]
    found = [Series("what was found", found)] if found else []
    if coarse and sweep.parts.brokers:
        return found if not no_seccomp else []  # make check has no time for more
    counts = sweep.trace("memory")
    tap.note("%s, allocations: %s" % (
        sweep.name, ", ".join("%s %d" % item for item in counts.items())))
    series = list(memory_series(counts, coarse, only))
    if no_seccomp:
        tap.result(True, "%s, system calls # SKIP no user notification by seccomp here" % sweep.name)
        return part_of(series)
    counts = sweep.trace("trace")
    tap.note("%s, system calls: %s" % (
        sweep.name, ", ".join("%s %d" % item for item in counts.items())))
    unknown = set(counts) - set(CALLS) - set(HARMLESS)
    tap.result(not unknown, "%s, every call has its errors: %d kinds, %d calls" % (
        sweep.name, len(counts), sum(counts.values())), str(unknown))
    calls = list(call_series(counts, coarse, only, sweep.sanitized))
    return found + part_of(calls + series)


def run(job):
    at, plan, until = job
    if time.monotonic() > until:
        return at, None
    try:
        return at, the_sweep.run(plan)
    except Exception as error:  # pylint: disable=broad-except # must come home as a finding
        return at, Outcome(False, 0, False, "%s: %r" % (plan, error))


the_sweep = None  # of the life that is being swept, for the processes of the pool


def sweep_all(tap, sweep, series, jobs):
    """All plans of all series, side by side; (points, memory, lives that gave up)."""
    global the_sweep  # pylint: disable=global-statement
    the_sweep = sweep
    points = memory = given_up = 0
    seconds = float(os.environ.get("SWEEP_SECONDS", "inf"))
    until = time.monotonic() + seconds
    plans = [(at, plan, until) for at, one in enumerate(series) for plan in one.plans]
    if until != float("inf"):
        random.Random(os.environ.get("SWEEP_SEED", "1")).shuffle(plans)
        tap.note("%s: %d points, if there is time" % (sweep.name, len(plans)))
    for one in series:
        one.left = len(one.plans)
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for at, outcome in pool.imap_unordered(run, plans):
            one = series[at]
            if outcome is None:
                one.at_least, outcome = 0, Outcome(False, 0, False, None)
            points += outcome.struck
            given_up += outcome.given_up
            memory = max(memory, outcome.memory)
            one.struck += outcome.struck
            one.left -= 1
            if outcome.wrong is not None:
                one.wrong.append(outcome.wrong)
            if one.left == 0:
                for text in one.wrong[:int(os.environ.get("SWEEP_SHOW", "4"))]:
                    tap.note(text)
                tap.result(not one.wrong and one.struck >= one.at_least, "%s, %s: %d points" % (
                    sweep.name, one.title, one.struck), "%d of them went wrong" % len(one.wrong))
        pool.close()
        pool.join()
    return points, memory, given_up


def part_of(series):
    """SWEEP_PART of them: of all points every so many-th, so that each part has all kinds."""
    part, parts = map(int, os.environ.get("SWEEP_PART", "1/1").split("/"))
    number = -1
    for one in series:
        plans = []
        for plan in one.plans:
            number += 1
            if number % parts == part - 1:
                plans.append(plan)
        one.plans = plans
        if parts > 1:
            one.at_least = 0
    return [one for one in series if one.plans]


def main():
    program, tool = storage.program_with_faults(), storage.program(
        "FAILING_CALLS", "tests/crash/failing_calls")
    with open(program, "rb") as file:
        if b"__tsan_init" in file.read():
            storage.skip_all("ThreadSanitizer's runtime does not start behind another malloc; the "
                             "builds without it are swept")
    coarse = os.environ.get("SWEEP_FAILING", "coarse") != "full"
    only = re.compile(os.environ.get("SWEEP_ONLY", ""))
    no_seccomp = subprocess.run([tool, os.devnull, "trace", "/bin/true"], check=False,
                                stderr=subprocess.DEVNULL).returncode == NO_SECCOMP
    tap, jobs = storage.Tap(), int(os.environ.get("SWEEP_JOBS", "6"))
    lives = os.environ.get("SWEEP_LIFE", " ".join(scenario.LIVES)).split()
    points, memory, given_up, sanitized = 0, 0, 0, False
    with storage.Scratch() as scratch:
        tls = scenario.prepare(scratch)
        for name in lives:
            parts = scenario.LIVES[name]
            why = parts.missing(program)
            if why is not None:
                tap.result(True, "life %s # SKIP %s" % (name, why))
                continue
            sweep = Sweep(scratch, name, parts, program, os.path.abspath(tool), tls)
            sanitized = sweep.sanitized
            series = all_series(tap, sweep, coarse, only, no_seccomp)
            sweep.end()
            found = sweep_all(tap, sweep, series, jobs)
            points, memory, given_up = points + found[0], max(memory, found[1]), given_up + found[2]
        tap.note("%d points swept, at most %d KiB resident%s" % (
            points, memory >> 10,
            ", with sanitizers; their runtime ended %d lives itself" % given_up
            if sanitized else ""))
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
