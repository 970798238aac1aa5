#!/usr/bin/env python3
"""machine: what the machine does to the daemon: descriptors gone, disks that are full,
read-only or broken, a clock that is set, a worker that is stopped.  (What takes the messages and
is away: outage.py.)

Each time senders go on, the trouble comes and goes; meanwhile nothing is said to be
accepted that is not, the log says so once an episode and /readyz or /healthz with it;
afterwards all is as before.  Disks are real filesystems in a mount namespace of their own
(tmpfs; ext4 on a loop device whose own disk is full, so that a sync fails), descriptors
are taken from the running process, the clock is that of clock.c, the worker's thread is
stopped by ptrace.  HOSTILE_FULL=1: for longer and more often.

machine.py [NAME]...: only these.
"""

import itertools
import os
import re
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402
from kit import FULL, MIB, storage, wait_for  # noqa: E402
from manager import Manager  # noqa: E402
from service import PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_SEIZE, WALL, ptrace, task_named  # noqa: E402

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "{directory}"; memory_limit = "16M"; shutdown_timeout = 10;
status = {{ port = 0; }};
deliver = "{deliver}"; {more}
sinks = {{ {sink} }};
"""
SINKS = {
    "s": 's = {{ type = "spool"; directory = "{directory}/disk/spool"; min_free = 0; }};',
    "f": 'f = {{ type = "file"; path = "{directory}/disk/log"; }};',
    "c": 'c = {{ type = "command"; argv = [ "/bin/sh", "{directory}/command" ]; '
         'run_as_root = true; }};',
}
# What is accepted is there under its id, whole; "down" makes it fail as a broker does.
COMMAND = """
test ! -e {directory}/down || exit 75
cat >{directory}/taken/tmp.$CISTERN_ID && mv {directory}/taken/tmp.$CISTERN_ID {directory}/taken/$CISTERN_ID
"""
SECOND = 1000000
DAY = 86400
TIMES = 3 if FULL else 1
EPISODE = 3 if FULL else 0.5  # seconds that a trouble lasts once it is felt
SANITIZED = kit.is_sanitized()


def settings(scratch, deliver="s", more=""):
    for name in ("disk", "taken"):
        os.makedirs(os.path.join(scratch, name), exist_ok=True)
    with open(os.path.join(scratch, "command"), "w", encoding="ascii") as file:
        file.write(COMMAND.format(directory=scratch))
    return CONFIG.format(directory=scratch, deliver=deliver, more=more,
                         sink=SINKS[deliver].format(directory=scratch))


class Senders:
    """Senders who go on until they are told to stop, and what they were told."""

    number = itertools.count()

    def __init__(self, port, count=4, largest=200000):
        first = next(self.number)
        self.clients = [storage.Client(port, "m%d.%d" % (first, i), storage.any_sizes(i, largest))
                        for i in range(count)]
        for client in self.clients:
            client.start()

    def answers(self):
        return [answer.decode() for client in self.clients
                for answer in list(client.answers.values())]

    def count(self, word):
        return sum(answer.startswith(word) for answer in self.answers())

    def more(self, word, n=20, patience=kit.DEADLINE):
        """Waits for n more answers of this kind."""
        before = self.count(word)
        wait_for("%s: %d more" % (word, n), lambda: self.count(word) >= before + n, patience)

    def stop(self):
        for client in self.clients:
            client.stopping = True
        for client in self.clients:
            client.join(kit.DEADLINE)
        return [problem for client in self.clients for problem in client.problems] + \
            ["stuck: " + client.prefix for client in self.clients if client.is_alive()]

    def acknowledged(self):
        found = {}
        for client in self.clients:
            found.update(client.acknowledged)
        return found


def judge(tap, daemon, senders, found, what):
    """All that was acknowledged is there, nothing there is half, the account adds up."""
    problems = senders.stop()
    tap.result(not problems, "%s: nobody is stuck or told wrong things" % what, "\n".join(problems[:5]))
    answers = senders.answers()
    account = daemon.finish(tap, what)
    kinds = {}
    for answer in answers:
        kind = " ".join(answer.split()[:1 if answer.startswith("OK") else 2])
        kinds[kind] = kinds.get(kind, 0) + 1
    found = found()
    tap.result(not found.lost and not found.torn and found.found == len(senders.acknowledged()),
               "%s: each of %d receipts is true" % (what, found.found),
               "lost %r torn %r" % (found.lost[:5], found.torn[:5]))
    tap.note("%s: answers %s" % (what, kinds))
    tap.result(account.get("accepted", 0) >= found.found, "and each is counted")


def in_spool(scratch, senders):
    return lambda: storage.check_spool(os.path.join(scratch, "disk"), senders.acknowledged())


def readiness(tap, daemon, code, what):
    text = None

    def look():
        nonlocal text
        answer, text = daemon.is_ready()
        return answer == code
    wait_for("/readyz %d: %s" % (code, what), look)
    tap.result(True, "%s: /readyz says %d, %s" % (what, code, text.replace("\n", "; ")))


def descriptors(tap, scratch):
    """None is left: who is connected is told so, others wait; then there are some again."""
    daemon = kit.Daemon(scratch, settings(scratch))
    senders = Senders(daemon.port())
    try:
        senders.more("OK")
        pid = daemon.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for _ in range(TIMES):
            held = socket.create_connection(("127.0.0.1", daemon.port()), kit.DEADLINE)
            held.settimeout(kit.DEADLINE)
            message = storage.message("held", 5000)
            frame = b"%d:%s," % (len(message), message)
            held.sendall(frame)
            assert held.recv(100).startswith(b"OK ")
            # No descriptor above those that are never closed: neither sockets nor files.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, usual[1]))
            cpu, since = daemon.processor(), kit.now()
            held.sendall(frame)
            answer = held.recv(100)
            tap.result(answer == b"RETRY storage\n", "no descriptor: %r" % answer)
            late = socket.create_connection(("127.0.0.1", daemon.port()), kit.DEADLINE)
            late.settimeout(kit.DEADLINE)
            late.sendall(frame)
            daemon.wait_event("accept-failed")
            while kit.now() < since + EPISODE + 0.5:
                time.sleep(0.05)
            tap.note("%.2f s of processor time in %.1f s without descriptors" % (
                daemon.processor() - cpu, kit.now() - since))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
            answer = late.recv(100)
            tap.result(answer.startswith(b"OK ") or answer == b"RETRY storage\n",
                       "who waited is served then: %r" % answer)
            def again():
                held.sendall(frame)
                return held.recv(100).startswith(b"OK ")
            wait_for("held", again)
            senders.more("OK")
            held.close()
            late.close()
        wait_for("its descriptors", lambda: daemon.threads() > 0)
        lines = len(daemon.events("accept-failed"))
        tap.result(lines <= 40 * TIMES, "the log has %d lines of it" % lines)
        judge(tap, daemon, senders, in_spool(scratch, senders), "descriptors")
    finally:
        daemon.end()


def mount(scratch, *words):
    place = os.path.join(scratch, "disk")
    subprocess.run(("mount",) + words + (place,), check=True, capture_output=True)
    return place


def unmount(place):
    subprocess.run(("umount", "-l", place), check=False, capture_output=True)


def fill(path):
    """All that is left of the filesystem."""
    with open(path, "wb") as file:
        for size in (MIB, 4096):
            try:
                while True:
                    os.write(file.fileno(), b"\xff" * size)
            except OSError:
                pass


def full_disk(tap, scratch):
    """The disk of both sinks is full, and freed again."""
    for deliver in ("s", "f"):
        os.makedirs(os.path.join(scratch, "disk"), exist_ok=True)
        place = mount(scratch, "-t", "tmpfs", "-o", "size=64m", "tmpfs")
        try:
            daemon = kit.Daemon(scratch, settings(scratch, deliver))
            senders, began = Senders(daemon.port(), largest=20000), kit.now()
            try:
                for _ in range(TIMES):
                    senders.more("OK")
                    fill(os.path.join(place, "filler"))
                    senders.more("RETRY storage")
                    readiness(tap, daemon, 503, "a full disk under %s" % deliver)
                    time.sleep(EPISODE)
                    os.unlink(os.path.join(place, "filler"))
                    senders.more("OK")
                    readiness(tap, daemon, 200, "room again under %s" % deliver)
                failing = len(daemon.events("sink-failing"))
                # Empty messages pass meanwhile, which must not fill the log: 5 in 10 s.
                tap.result(1 <= failing <= 5 * (2 + (kit.now() - began) / 10) and
                           daemon.events("sink-well"),
                           "the log says so, %d times in %d episodes" % (failing, TIMES))
                if deliver == "s":
                    found = in_spool(scratch, senders)
                else:
                    def found():
                        return storage.check_file(os.path.join(place, "log"), senders.acknowledged())
                judge(tap, daemon, senders, found, "a full disk, " + deliver)
            finally:
                daemon.end()
        finally:
            unmount(place)


def flapping(tap, scratch):
    """A full disk takes empty messages and no others: one of each in turn, and the log is
    not filled by it."""
    os.makedirs(os.path.join(scratch, "disk"))
    place = mount(scratch, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    try:
        daemon, began = kit.Daemon(scratch, settings(scratch)), kit.now()
        try:
            fill(os.path.join(place, "filler"))
            client = socket.create_connection(("127.0.0.1", daemon.port()), kit.DEADLINE)
            answers = [exchange(client, message) for _ in range(100)
                       for message in (b"x" * 5000, b"")]
            client.close()
            ok = sum(answer.startswith("OK ") for answer in answers)
            if ok == 0:
                tap.skip("flapping", "this tmpfs takes no empty files when it is full")
            else:
                lines = len(daemon.events("sink-failing"))
                tap.result(1 <= lines <= 5 * (2 + (kit.now() - began) / 10),
                           "%d passed, %d did not: said %d times" % (ok, len(answers) - ok, lines))
            os.unlink(os.path.join(place, "filler"))
            readiness(tap, daemon, 200, "room again")
            daemon.finish(tap, "flapping")
        finally:
            daemon.end()
    finally:
        unmount(place)


def read_only(tap, scratch):
    """The spool's filesystem turns read-only, as one does that has had errors."""
    os.makedirs(os.path.join(scratch, "disk"))
    place = mount(scratch, "-t", "tmpfs", "-o", "size=256m", "tmpfs")
    try:
        daemon = kit.Daemon(scratch, settings(scratch))
        senders = Senders(daemon.port(), largest=20000)
        try:
            for _ in range(TIMES):
                senders.more("OK")
                # Refused as long as a file is just being written.
                wait_for("read-only", lambda: subprocess.run(
                    ["mount", "-o", "remount,ro", place], check=False, capture_output=True).returncode == 0)
                senders.more("RETRY storage")
                readiness(tap, daemon, 503, "a disk that is read-only")
                time.sleep(EPISODE)
                subprocess.run(["mount", "-o", "remount,rw", place], check=True)
                senders.more("OK")
                readiness(tap, daemon, 200, "writable again")
            judge(tap, daemon, senders, in_spool(scratch, senders), "read-only")
        finally:
            daemon.end()
    finally:
        unmount(place)


def broken_disk(tap, scratch):
    """A disk that takes writes and then fails to sync them: ext4 on a loop device whose file
    lies on a filesystem that is full.  Sinks are told late, and by one call only."""
    if shutil.which("mkfs.ext4") is None or not os.path.exists("/dev/loop-control"):
        tap.skip("a disk that fails to sync", "no mkfs.ext4 (e2fsprogs) or no loop devices; "
                 "tests/crash/sweep.py fails the calls instead")
        return
    below = os.path.join(scratch, "below")
    for name in ("below", "disk"):
        os.mkdir(os.path.join(scratch, name))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", below], check=True)
    device = os.path.join(below, "device")
    place = loop = None
    try:
        with open(device, "wb") as file:
            file.truncate(256 * MIB)
        # Blocks of one page below: the loop driver (Linux 6.18) takes a write that was cut
        # short for a whole one, and no sync tells.  Of 1 KiB blocks (what mkfs takes for so
        # small a disk), a request may lie on two pages, of which the second has no place.
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096",
                        "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
                        "-J", "size=4", device], check=True, capture_output=True)
        # The journal and all else that is not data gets a place below: else it is the journal
        # that fails, and the filesystem is read-only from then on.
        with open(device, "r+b") as file:
            end = at = 0
            while at < 256 * MIB:
                at = os.lseek(file.fileno(), end, os.SEEK_HOLE)
                try:
                    end = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    end = 256 * MIB
                os.pwrite(file.fileno(), b"\0" * (end - at), at)
                at = end
        loop = subprocess.run(["losetup", "-f", "--show", device], check=False, capture_output=True,
                              text=True).stdout.strip()
        if not loop or subprocess.run(["mount", loop, os.path.join(scratch, "disk")], check=False,
                                      capture_output=True).returncode != 0:
            tap.skip("a disk that fails to sync", "no loop mount of ext4 here")
            return
        place = os.path.join(scratch, "disk")
        # And requests of one block: what is written whole or not at all.
        with open("/sys/block/%s/queue/max_sectors_kb" % os.path.basename(loop), "w",
                  encoding="ascii") as file:
            file.write("4")
        # What is free has no place below from now on; all else has.
        subprocess.run(["fstrim", place], check=True, capture_output=True)
        daemon = kit.Daemon(scratch, settings(scratch))
        senders = Senders(daemon.port(), largest=20000)
        try:
            for _ in range(TIMES):
                senders.more("OK")
                fill(os.path.join(below, "filler"))
                senders.more("RETRY storage")
                readiness(tap, daemon, 503, "a disk that fails to sync")
                time.sleep(EPISODE)
                os.unlink(os.path.join(below, "filler"))
                try:
                    os.mkdir(os.path.join(place, "try"))
                    os.rmdir(os.path.join(place, "try"))
                except OSError as error:
                    tap.note("the journal has failed, too: %s, and it stays so" % error)
                    break
                senders.more("OK")
                readiness(tap, daemon, 200, "a disk that syncs again")

            def found():
                # What the device has, not what is in the caches.
                subprocess.run(["umount", place], check=True)
                subprocess.run(["mount", loop, place], check=True)
                return in_spool(scratch, senders)()
            judge(tap, daemon, senders, found, "a broken disk")
        finally:
            daemon.end()
    finally:
        if place:
            unmount(place)
        if loop:
            subprocess.run(["losetup", "-d", loop], check=False, capture_output=True)
        unmount(below)


class Clock:
    """The wall clock of one program."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "clock")
        self.set(0)

    def set(self, seconds):
        """So many seconds beside the right time; a write of eight bytes is seen whole."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, struct.pack("<q", int(seconds * SECOND)))
        os.close(fd)

    def env(self):
        return {"LD_PRELOAD": os.path.abspath(kit.program("clock.so")), "HOSTILE_CLOCK": self.path}


def exchange(client, message):
    client.sendall(b"%d:%s," % (len(message), message))
    answer = b""
    while not answer.endswith(b"\n"):
        chunk = client.recv(200)
        if not chunk:
            break
        answer += chunk
    return answer.decode()


def clock(tap, scratch):
    """Set back and forth by seconds, years, to 1970 and past 2106: ids are unique and in
    order on each connection, limits of time do not care."""
    if SANITIZED:
        tap.skip("clock", "a sanitizer's own clock_gettime stands in the way of the test's")
        return
    steps = [0, -1, 1, -3600, DAY, -DAY, 3650 * DAY, -3650 * DAY, 0, 40000 * DAY, -time.time() + 5, 0]
    set_to = Clock(scratch)
    daemon = kit.Daemon(scratch, settings(scratch, "f", """
        listeners = { main = { idle_timeout = "1h"; };
                      slow = { message_timeout = "1s"; idle_timeout = "1h"; };
                      idle = { idle_timeout = "1s"; }; };"""), env=set_to.env())
    senders = Senders(daemon.port(), count=2, largest=2000)
    clients = [socket.create_connection(("127.0.0.1", daemon.port()), kit.DEADLINE) for _ in range(8)]
    ids = [[] for _ in clients]
    ended = []
    try:
        for step in steps * TIMES:
            set_to.set(step)
            slow = socket.create_connection(("127.0.0.1", daemon.port("slow")), kit.DEADLINE)
            slow.sendall(b"100:half")
            idle = socket.create_connection(("127.0.0.1", daemon.port("idle")), kit.DEADLINE)
            for turn in range(20):
                for number, client in enumerate(clients):
                    answer = exchange(client, storage.message("clock.%d" % turn, 100))
                    assert answer.startswith("OK "), answer
                    ids[number].append(answer.split()[1])
            set_to.set(step + 2 * DAY)  # and once more, while they are waited for
            try:
                ended.append("fin" if slow.recv(100) == b"" else "data")
            except ConnectionResetError:
                ended.append("reset")
            ended.append("fin" if idle.recv(100) == b"" else "data")
            slow.close()
            idle.close()
        everything = [one for some in ids for one in some]
        tap.result(all(some == sorted(some) for some in ids),
                   "%d steps of the clock: ids are in order on each connection" % (2 * len(steps) * TIMES))
        tap.result(len(set(everything)) == len(everything), "all %d are different" % len(everything))
        tap.result(set(ended[0::2]) <= {"reset", "data"} and set(ended[1::2]) == {"fin"},
                   "message_timeout and idle_timeout are what they were: %s" % set(ended))
        tap.result(daemon.is_ready()[0] == 200 and daemon.healthy()[0] == 200, "ready and healthy")
        set_to.set(0)
        senders.more("OK")
        for client in clients:
            client.close()

        def found():
            path = os.path.join(scratch, "disk", "log")
            return storage.check_file(path, senders.acknowledged())
        judge(tap, daemon, senders, found, "clock")
        with open(os.path.join(scratch, "disk", "log"), encoding="utf-8") as file:
            times = {re.search(r'"time":"(\d{4})-', line).group(1) for line in file}
        tap.result({"1970", "2036"} <= times or len(times) > 3, "years of records: %s" % sorted(times))
        tap.result(not re.search(r"Assertion| bug", daemon.log()), "and no complaint of libevent's")
    finally:
        daemon.end()


def stalled(tap, scratch):
    """A worker's thread is stopped: the watchdog goes hungry, the log names it, /healthz
    says 503; connections of the other worker do not notice."""
    manager = Manager(scratch)
    daemon = kit.Daemon(scratch, settings(scratch), manager=manager,
                        env={"WATCHDOG_USEC": str(2 * SECOND)})
    try:
        manager.wait("WATCHDOG")
        clients = [socket.create_connection(("127.0.0.1", daemon.port()), kit.DEADLINE) for _ in range(40)]
        message = storage.message("before", 100)
        tap.result(all(exchange(client, message).startswith("OK ") for client in clients),
                   "40 connections are served")
        task = task_named(daemon, "worker-1")
        for _ in range(TIMES):
            named = len(daemon.events("worker-stuck"))
            try:
                ptrace(PTRACE_SEIZE, task)
            except OSError as error:
                tap.skip("a worker that is stopped", str(error))
                break
            ptrace(PTRACE_INTERRUPT, task)
            os.waitpid(task, WALL)
            wait_for("503", lambda: daemon.healthy()[0] == 503)
            tap.result(True, "/healthz: %d %s" % daemon.healthy())
            wait_for("its name", lambda: len(daemon.events("worker-stuck")) > named)
            tap.result("worker 1 " in daemon.events("worker-stuck")[-1], "the log names it")
            hungry = kit.now()
            for client in clients:
                client.sendall(b"%d:%s," % (len(message), message))
                client.setblocking(False)
            def served():
                n = 0
                for client in clients:
                    try:
                        n += client.recv(100, socket.MSG_PEEK).startswith(b"OK ")
                    except BlockingIOError:
                        pass
                return n
            # Those of the other worker; where chance gave it none there is nothing to see.
            with open("/proc/%d/task/%d/stat" % (daemon.process.pid, task), encoding="ascii") as file:
                state = file.read().rsplit(")", 1)[1].split()[0]
            wait_for("others are served", lambda: served() > 0)
            while kit.now() < hungry + 2.5:
                time.sleep(0.05)
            others = served()
            tap.result(state == "t" and 0 < others < 40,
                       "%d of 40 connections are the other worker's, and served meanwhile" % others)
            tap.result(not manager.said("WATCHDOG", since=hungry), "no sign of life in 2.5 s")
            ptrace(PTRACE_DETACH, task)
            for client in clients:
                client.settimeout(kit.DEADLINE)
            tap.result(all(client.recv(100).startswith(b"OK ") for client in clients),
                       "then all others, too")
            wait_for("200", lambda: daemon.healthy()[0] == 200)
            manager.wait("WATCHDOG", since=kit.now() - 0.1)
        for client in clients:
            client.close()
        daemon.finish(tap, "stalled")
    finally:
        daemon.end()


def command_down(scratch):
    with open(os.path.join(scratch, "down"), "w", encoding="ascii"):
        pass


def command_up(scratch):
    os.unlink(os.path.join(scratch, "down"))


def in_taken(scratch, senders):
    def look():
        found = storage.Found()
        for id_, (name, size) in senders.acknowledged().items():
            try:
                with open(os.path.join(scratch, "taken", id_), "rb") as file:
                    whole = file.read() == storage.message(name, size)
            except FileNotFoundError:
                found.lost.append(id_)
                continue
            if whole:
                found.found += 1
            else:
                found.torn.append(id_)
        return found
    return look


def unshared():
    """Whether we may mount what nobody else sees; in a namespace of our own from then on."""
    if os.environ.get("HOSTILE_UNSHARED") == "1":
        return True
    if os.geteuid() != 0 or shutil.which("unshare") is None or subprocess.run(
            ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False,
            capture_output=True).returncode != 0:
        return False
    os.environ["HOSTILE_UNSHARED"] = "1"
    os.execvp("unshare", ["unshare", "-m", sys.executable] + sys.argv)
    return False


def main():
    kit.need()
    mounts = unshared()
    tap = kit.run_all([descriptors, clock, stalled])
    disks = [full_disk, flapping, read_only, broken_disk]
    if mounts:
        return kit.run_all(disks, first=tap).end()
    for test in disks:
        tap.skip(test.__name__, "mounting needs root, and a namespace for it")
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
