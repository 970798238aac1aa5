#!/usr/bin/env python3
"""storm: all at once.  Descriptors go, two disks fill, one turns read-only, the clock is set,
a worker stands still, what takes the messages is down, HUP comes, and hostile clients press,
each at random and over one another, while senders go on.

Afterwards all is put right: each listener accepts again, /readyz and /healthz say so, the
account adds up, every receipt is true (the message is there under its id, byte for byte)
and nothing that is there is half.

HOSTILE_SEED: of another storm (it is printed).  HOSTILE_SECONDS: how long (8;
HOSTILE_FULL=1: 150).
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402
from kit import FULL, storage, wait_for  # noqa: E402
from machine import (SANITIZED, SECOND, SINKS, Clock, Senders, command_down, command_up,  # noqa: E402
                     fill, in_taken, settings, unshared)
from manager import Manager  # noqa: E402
from service import PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_SEIZE, WALL, ptrace, task_named  # noqa: E402

SEED = int(os.environ.get("HOSTILE_SEED", random.SystemRandom().randrange(1 << 32)))
SECONDS = float(os.environ.get("HOSTILE_SECONDS", "150" if FULL else "8"))
CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "{directory}"; memory_limit = "16M"; shutdown_timeout = 10; message_timeout = "2s";
idle_timeout = "5s";
status = {{ port = 0; }};
listeners = {{
  spool = {{ deliver = "s"; }};
  file = {{ deliver = "f"; }};
  program = {{ deliver = "c"; }};
}};
sinks = {{ {sinks} }};
"""


class Trouble:
    """Something that is down or up; told apart by its name in the notes."""

    def __init__(self, name, down, up):
        self.name, self.down, self.up = name, down, up
        self.is_down, self.times, self.until = False, 0, 0.0

    def toggle(self, lasts):
        if self.is_down:
            self.up()
            self.is_down = False
        elif self.down() is not False:
            self.is_down = True
            self.times += 1
            self.until = kit.now() + lasts


class Weather:
    """All troubles of one daemon."""

    def __init__(self, scratch, daemon, chance, clock):
        self.scratch, self.daemon, self.chance, self.clock = scratch, daemon, chance, clock
        self.attacks = []
        self.usual = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        self.task = task_named(daemon, "worker-1")
        disk, other = self.place("disk"), self.place("other")
        self.troubles = [
            Trouble("no descriptors", lambda: self.limit(8), lambda: self.limit(self.usual[0])),
            Trouble("the spool's disk full", lambda: self.fill(disk + "/filler"),
                    lambda: self.free(disk + "/filler")),
            Trouble("the file's disk full", lambda: self.fill(other + "/filler"),
                    lambda: self.free(other + "/filler")),
            Trouble("the spool's disk read-only", lambda: self.remount("ro"), lambda: self.remount("rw")),
            Trouble("the program down", lambda: command_down(scratch), lambda: command_up(scratch)),
            Trouble("a worker stopped", self.stop_worker, lambda: ptrace(PTRACE_DETACH, self.task)),
            Trouble("HUP", lambda: daemon.signal(signal.SIGHUP), lambda: None),
            Trouble("an attack", self.attack, lambda: None),
        ]
        if clock is not None:
            self.troubles.append(Trouble("the clock set", self.set_clock, lambda: clock.set(0)))

    def place(self, name):
        return os.path.join(self.scratch, name)

    def limit(self, soft):
        resource.prlimit(self.daemon.process.pid, resource.RLIMIT_NOFILE, (soft, self.usual[1]))

    def fill(self, path):
        """False: it is read-only just then."""
        try:
            fill(path)
        except OSError:
            return False
        return True

    def free(self, path):
        """Also where it cannot be written: then first that is put right."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError:
            self.remount("rw")
            os.unlink(path)

    def remount(self, how):
        """False: somebody is just writing.  rw always works."""
        for _ in range(50):
            if subprocess.run(["mount", "-o", "remount," + how, self.place("disk")], check=False,
                              capture_output=True).returncode == 0:
                return True
            time.sleep(0.002)
        return False

    def stop_worker(self):
        try:
            ptrace(PTRACE_SEIZE, self.task)
        except OSError:
            return False
        ptrace(PTRACE_INTERRUPT, self.task)
        os.waitpid(self.task, WALL)
        return True

    def set_clock(self):
        self.clock.set(self.chance.choice((-1, 1)) * 10 ** self.chance.uniform(0, 8.5))

    def attack(self):
        mode = self.chance.choice(("drip", "silent", "flood", "reset", "half"))
        port = self.daemon.port(self.chance.choice(("spool", "file", "program")))
        many = 500 if FULL else 50
        self.attacks.append((mode, kit.Running(kit.program("attack"), mode, "-p", port, "-n", many,
                                               "-r", many * 2, "-t", 2, "-w", 60)))

    def blow(self, seconds):
        until = kit.now() + seconds
        while kit.now() < until:
            for trouble in self.troubles:
                if trouble.is_down and kit.now() >= trouble.until:
                    trouble.toggle(0)
            trouble = self.chance.choice(self.troubles)
            if not trouble.is_down:
                trouble.toggle(self.chance.uniform(0.2, 2.0))
            time.sleep(self.chance.uniform(0.05, 0.3))
            if self.daemon.process.poll() is not None:
                raise RuntimeError("it has ended: %d\n%s" % (
                    self.daemon.process.returncode, self.daemon.log()[-3000:]))

    def calm(self):
        for trouble in self.troubles:
            if trouble.is_down:
                try:
                    trouble.toggle(0)
                except OSError as error:
                    print("# %s: %s" % (trouble.name, error), flush=True)


def in_spool(scratch, senders):
    return lambda: storage.check_spool(os.path.join(scratch, "disk"), senders.acknowledged())


def in_file(scratch, senders):
    return lambda: storage.check_file(os.path.join(scratch, "other", "log"), senders.acknowledged())


def storm(tap, scratch):
    chance = random.Random(SEED)
    tap.note("seed %d, %.0f s (HOSTILE_SEED, HOSTILE_SECONDS)" % (SEED, SECONDS))
    settings(scratch)
    os.mkdir(os.path.join(scratch, "other"))
    for name in ("disk", "other"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs",
                        os.path.join(scratch, name)], check=True)
    sinks = "".join(SINKS.values()).replace("{directory}/disk/log", "{directory}/other/log")
    manager = Manager(scratch)
    env = {"WATCHDOG_USEC": str(4 * SECOND)}
    clock = None if SANITIZED else Clock(scratch)
    if clock is None:
        tap.note("the clock is left alone: a sanitizer's own stands in the way")
    else:
        env.update(clock.env())
    daemon = kit.Daemon(scratch, CONFIG.format(directory=scratch, sinks=sinks.format(directory=scratch)),
                        manager=manager, env=env)
    weather = None
    try:
        before = daemon.holdings()
        senders = {name: Senders(daemon.port(name), count=3, largest=20000)
                   for name in ("spool", "file", "program")}
        for one in senders.values():
            one.more("OK")
        weather = Weather(scratch, daemon, chance, clock)
        daemon.peak_forget()
        began, cpu = daemon.memory(), daemon.processor()
        weather.blow(SECONDS)
        weather.calm()
        tap.note("what happened: " + ", ".join(
            "%s %d times" % (trouble.name, trouble.times) for trouble in weather.troubles))
        for name, one in senders.items():
            one.more("OK")
            tap.result(True, "%s accepts again, after %d receipts and %d refusals" % (
                name, one.count("OK"), one.count("RETRY")))
        since = kit.now()
        wait_for("200", lambda: daemon.is_ready()[0] == 200 and daemon.healthy()[0] == 200)
        manager.wait("WATCHDOG", since=since)
        tap.result(True, "it is ready, healthy, and feeds its watchdog")
        left = [(mode, found) for mode, found in (
            (mode, attack.finish()) for mode, attack in weather.attacks) if found["left"]]
        tap.result(not left, "%d attacks: each of their connections has ended" % len(weather.attacks),
                   str(left))
        grown = daemon.memory("VmHWM") - began
        tap.result(SANITIZED or grown < 16 * kit.MIB + kit.BASE + 2000 * 8 * kit.KIB,
                   "memory grew by %.1f MiB at most; %.1f s of processor time in %.0f s" % (
                       grown / kit.MIB, daemon.processor() - cpu, SECONDS))
        tap.result(daemon.balance() == 0, "the account adds up while messages come")
        problems = [problem for one in senders.values() for problem in one.stop()]
        tap.result(not problems, "nobody is stuck or told wrong things", "\n".join(problems[:5]))
        tap.result(daemon.settle(before), "descriptors and threads are back: %r, %r" % (
            before, daemon.holdings()))
        account = daemon.finish(tap, "storm")
        receipts = 0
        for name, look in (("spool", in_spool), ("file", in_file), ("program", in_taken)):
            found = look(scratch, senders[name])()
            receipts += found.found
            tap.result(not found.lost and not found.torn and
                       found.found == len(senders[name].acknowledged()),
                       "%s: each of %d receipts is true, nothing is half" % (name, found.found),
                       "lost %r torn %r" % (found.lost[:5], found.torn[:5]))
        tap.result(account.get("accepted", 0) >= receipts, "and the daemon has counted them")
    finally:
        if weather is not None:
            weather.calm()  # a thread that is traced would keep its process from ending
            for _, attack in weather.attacks:
                attack.end()
        daemon.end()
        for name in ("disk", "other"):
            subprocess.run(["umount", "-l", os.path.join(scratch, name)], check=False,
                           capture_output=True)


def main():
    kit.need()
    if not unshared():
        storage.skip_all("mounting needs root, and a namespace for it")
    return kit.run_all((storm,)).end()


if __name__ == "__main__":
    sys.exit(main())
