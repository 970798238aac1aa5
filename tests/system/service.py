#!/usr/bin/env python3
"""service: what cisternd tells the service manager, and when its watchdog goes hungry: a
worker's thread is really stopped (ptrace), not made to say that it is.
"""

import ctypes
import os
import re
import signal
import sys
import time

from manager import Manager, Service, connect, finish, send, wait_for
from storage import Scratch, Tap, program

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "line";
spill_directory = "{0}"; {1}
"""
SECOND = 1000000
WATCHDOG = 4 * SECOND  # a tick each second

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_CONT, PTRACE_DETACH = 0x4206, 0x4207, 7, 17
WALL = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request, task):
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, task, None, None) == -1:
        raise OSError(ctypes.get_errno(), "ptrace: " + os.strerror(ctypes.get_errno()))


def task_named(daemon, name):
    base = "/proc/%d/task" % daemon.process.pid
    for task in os.listdir(base):
        with open(os.path.join(base, task, "comm"), encoding="ascii") as file:
            if file.read().strip() == name:
                return int(task)
    raise LookupError(name)


def states(tap, scratch):
    """READY, STATUS with figures that live, STOPPING with the time that it may take."""
    manager = Manager(scratch)
    daemon = Service(scratch, CONFIG.format(scratch, "shutdown_timeout = 7;"), manager=manager)
    try:
        manager.wait("READY")
        tap.result(len(daemon.events("listening")) == 1, "READY=1 comes when clients can connect")
        tap.result(all(answer.startswith("OK ") for answer in
                       send(daemon.address(), b"one\ntwo\nthree\n").splitlines()),
                   "and messages are accepted then")
        client = connect(daemon.address())
        client.sendall(b"half a mess")
        status = manager.wait("STATUS", lambda text: "accepted 3" in text and
                              re.search(r"\b1 connections", text))["STATUS"]
        tap.result(re.match(r"1 connections, [0-9]+ messages/s, 0 in flight; accepted 3, "
                            r"refused 0, failed 0, discarded 0$", status) is not None,
                   "STATUS=" + status)
        tap.result(not manager.said("WATCHDOG"), "no sign of life that nobody asked for")
        began = time.monotonic()
        daemon.signal()
        said = manager.wait("STOPPING", since=began)
        tap.result(said == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": str((7 + 13) * SECOND)},
                   "STOPPING=1 and the time it may take are one datagram: %r" % said)
        status = manager.wait("STATUS", since=began)["STATUS"]
        tap.result(status.startswith("stopping: 1 connections"), "STATUS=" + status)
        client.sendall(b"age\n")
        tap.result(finish(client).startswith("OK ") and daemon.wait() == 0, "an orderly stop")
        tap.result(len(manager.said("READY")) == 1 and len(manager.said("STOPPING")) == 1,
                   "each said once")
    finally:
        daemon.end()


def background(tap, scratch):
    """With -d another process than the one that was started is the service."""
    manager = Manager(scratch)
    pid_file = os.path.join(scratch, "pid")
    daemon = Service(scratch, CONFIG.format(scratch, 'pid_file = "%s"; log = { target = "%s"; };'
                     % (pid_file, os.path.join(scratch, "log"))), manager=manager,
                     arguments=["-d"])
    code = daemon.wait()
    with open(pid_file, encoding="ascii") as file:
        pid = int(file.read())
    said = manager.wait("READY")
    tap.result(code == 0 and said.get("MAINPID") == str(pid) and pid != daemon.process.pid,
               "-d: %r" % said)
    os.kill(pid, signal.SIGTERM)
    manager.wait("STOPPING")
    wait_for("the end", lambda: not os.path.exists(pid_file))


def watchdog(tap, scratch):
    """A worker that is stuck stops the feeding, is named once, and is missed no longer
    once it turns again."""
    manager = Manager(scratch)
    daemon = Service(scratch, CONFIG.format(scratch, "shutdown_timeout = 0;"), manager=manager,
                     env={"WATCHDOG_USEC": str(WATCHDOG)})
    try:
        manager.wait("READY")
        wait_for("signs of life", lambda: len(manager.said("WATCHDOG")) >= 3)
        times = [when for when, said in manager.datagrams if "WATCHDOG" in said]
        widest = max(b - a for a, b in zip(times, times[1:]))
        tap.result(widest < WATCHDOG / SECOND / 2, "fed every %.2f s, of %.0f s" % (
            widest, WATCHDOG / SECOND))
        task = task_named(daemon, "worker-1")
        try:
            ptrace(PTRACE_SEIZE, task)
        except OSError as error:
            tap.skip("a stuck worker", error)
        else:
            ptrace(PTRACE_INTERRUPT, task)
            os.waitpid(task, WALL)
            stopped = time.monotonic()
            line = daemon.wait_event("worker-stuck")[0]
            tap.result("worker 1 " in line, "the log names it: " + line.split(": ", 1)[1])
            named = time.monotonic()
            # Longer than the manager would have waited for.
            wait_for("more ticks", lambda: time.monotonic() > stopped + WATCHDOG / SECOND + 0.5)
            hungry = len(manager.said("WATCHDOG", since=named))
            tap.result(hungry == 0, "no sign of life for %.1f s (%d)" % (
                time.monotonic() - named, hungry))
            tap.result(len(daemon.events("worker-stuck")) == 1, "which is said once")
            freed = time.monotonic()
            ptrace(PTRACE_DETACH, task)
            manager.wait("WATCHDOG", since=freed)
            daemon.wait_event("worker-turns", "worker 1 ")
            tap.result(True, "fed again once it turns")
        # A stop that may take as long as it takes asks for more time again and again,
        # and is a sign of life, too, though one worker may have ended.
        client = connect(daemon.address())
        client.sendall(b"first\n")
        client.recv(100)
        client.sendall(b"half a mess")
        began = time.monotonic()
        daemon.signal()
        wait_for("time", lambda: len(manager.said("STOPPING", since=began)) >= 3)
        wait_for("life", lambda: len(manager.said("WATCHDOG", since=began)) >= 3)
        tap.result(len(daemon.events("worker-stuck")) <= 1,
                   "a long stop asks for time and shows life: " +
                   manager.said("EXTEND_TIMEOUT_USEC")[-1])
        client.sendall(b"age\n")
        tap.result(finish(client).startswith("OK ") and daemon.wait() == 0, "and ends in order")
    finally:
        daemon.end()


def stopped_worker(daemon, name):
    task = task_named(daemon, name)
    ptrace(PTRACE_SEIZE, task)
    ptrace(PTRACE_INTERRUPT, task)
    os.waitpid(task, WALL)
    return task


def hang_up(daemon, times):
    daemon.signal(signal.SIGHUP)
    wait_for("a HUP to be seen", lambda: len(daemon.events("reopened")) == times)


def reloads(tap, scratch):
    """HUP while a worker has not taken over what the HUP before brought: one reload more, for
    all that came, when it has; none when a TERM has come."""
    manager = Manager(scratch)
    daemon = Service(scratch, CONFIG.format(scratch, ""), manager=manager)
    try:
        daemon.ready()
        manager.wait("READY")
        try:
            task = stopped_worker(daemon, "worker-1")
        except OSError as error:
            tap.skip("reloads at a time", error)
            return
        began = time.monotonic()
        hang_up(daemon, 1)
        with open(daemon.config, "w", encoding="ascii") as file:
            file.write(CONFIG.format(scratch, "idle_timeout = 7;"))
        hang_up(daemon, 2)
        hang_up(daemon, 3)
        tap.result(not daemon.events("reloaded") and not manager.said("READY", since=began),
                   "nothing is in force as long as a worker stands still")
        ptrace(PTRACE_DETACH, task)
        wait_for("two reloads", lambda: len(daemon.events("reloaded")) == 2)
        manager.wait("READY", since=began)
        said = daemon.events("reloaded")
        # Whether the first reload has read the file before or after we wrote it is chance.
        tap.result(sum("listeners changed: main" in line for line in said) == 1,
                   "then the last file is: " + said[1], said[0])
        tap.result(len(manager.said("RELOADING", since=began)) == 3 and
                   len(manager.said("READY", since=began)) == 1, "READY=1 comes at the end, once")
        task = stopped_worker(daemon, "worker-0")
        hang_up(daemon, 4)
        hang_up(daemon, 5)
        daemon.signal()
        daemon.wait_event("stopping")
        ptrace(PTRACE_DETACH, task)
        tap.result(daemon.wait() == 0 and len(daemon.events("reloaded")) == 3,
                   "a TERM comes before what still waits")
    finally:
        daemon.end()


def left_alone(tap, scratch):
    """Without a manager nothing ticks; one that is gone harms nobody."""
    daemon = Service(scratch, CONFIG.format(scratch, "")).ready()

    def switches():
        return sum(int(task["voluntary_ctxt_switches"]) for task in daemon.task_status())

    try:
        send(daemon.address(), b"x\n")
        # What the start and the message have left to do is done soon.
        before = switches()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            time.sleep(1.2)
            after = switches()
            if after == before:
                break
            before = after
        tap.result(after == before, "idle, no thread wakes up")
        tap.result(daemon.stop() == 0, "without a manager")
    finally:
        daemon.end()
    gone = Manager(scratch)
    os.unlink(gone.path)
    daemon = Service(scratch, CONFIG.format(scratch, ""), manager=gone).ready()
    try:
        answer = send(daemon.address(), b"x\n")
        tap.result(answer.startswith("OK ") and daemon.stop() == 0 and
                   len(daemon.events("service-manager")) == 1,
                   "a manager that is gone: said once")
    finally:
        daemon.end()


def main():
    tap = Tap()
    if program() is None:
        print("Bail out! no cisternd")
        return 1
    with Scratch() as scratch:
        for test in (states, background, watchdog, reloads, left_alone):
            directory = os.path.join(scratch, test.__name__)
            os.mkdir(directory)
            test(tap, directory)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
