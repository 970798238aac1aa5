#!/usr/bin/env python3
"""forward: what a spool with `forward` hands on, when, with which facts, and what becomes of
what cannot be; and what becomes of a message that goes to several sinks.
"""

import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import time

from manager import Service, connect, finish, wait_for
from storage import Scratch, Tap, program

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "line";
spill_directory = "%(scratch)s"; deliver = %(deliver)s; shutdown_timeout = 10;
status = { address = "127.0.0.1"; port = 0; };
sinks = { s = { type = "spool"; directory = "%(scratch)s/spool"; min_free = 0; forward = "f";
                retry_min = "20ms"; retry_max = "100ms"; %(spool)s };
          %(target)s };
"""
TOOL = os.environ.get("CISTERN", "./cistern")
OLD = "01AN4Z07BY79KA1307SR9X4MV3"  # of 2016


def file_sink(scratch, name="f", more=""):
    return '%s = { type = "file"; path = "%s/%s.out"; format = "json"; %s };' % (
        name, scratch, name, more)


def command_sink(script, *arguments, name="f", more=""):
    argv = ["/bin/sh", "-c", script, "sh", *arguments]
    return '%s = { type = "command"; run_as_root = true; argv = [ %s ]; %s };' % (
        name, ", ".join(json.dumps(word) for word in argv), more)


class Forward(Service):
    """A daemon whose spool `s` hands on to a sink `f`."""

    def __init__(self, scratch, target, spool="", deliver='"s"', **service):
        self.scratch = scratch
        super().__init__(scratch, CONFIG % {"scratch": scratch, "target": target, "spool": spool,
                                            "deliver": deliver}, **service)

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.end()

    def ask(self, *messages):
        client = connect(self.address())
        client.sendall(b"".join(message + b"\n" for message in messages))
        try:
            return finish(client).splitlines()
        except ConnectionResetError:
            return []

    def rewrite(self, old, new):
        with open(self.config, encoding="utf-8") as file:
            text = file.read()
        assert old in text
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))

    def reload(self):
        before = len(self.events("reloaded"))
        self.signal(1)
        wait_for("a reload", lambda: len(self.events("reloaded")) > before)

    def files(self, state="new"):
        return sorted(os.listdir(os.path.join(self.scratch, "spool", state)))

    def records(self, name="f"):
        path = os.path.join(self.scratch, name + ".out")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.endswith("\n")]

    def wait_records(self, count, name="f"):
        return wait_for("%d records: %s" % (count, self.log()),
                        lambda: len(self.records(name)) >= count and self.records(name))

    def wait_files(self, state, count):
        return wait_for("%d in %s" % (count, state), lambda: len(self.files(state)) == count)

    def get(self, path):
        address = re.search(r"status service on http://(127\.0\.0\.1:\d+)/", self.log()).group(1)
        with socket.create_connection(address.split(":")) as client:
            client.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return answer.decode()

    def calls(self):
        """Times that the forwarder's thread has waited."""
        for task in self.task_status():
            if task["Name"].startswith("fwd-"):
                return int(task["voluntary_ctxt_switches"])
        raise RuntimeError("no such thread")


def publish(scratch, name, data):
    """As a consumer or an operator would: under another name first."""
    new = os.path.join(scratch, "spool", "new")
    with open(os.path.join(new, ".x"), "wb") as file:
        file.write(data)
    os.rename(os.path.join(new, ".x"), os.path.join(new, name))


def ids(answers):
    return [line.split()[1] for line in answers if line.startswith("OK ")]


def simple(tap, scratch):
    """At once, in order, with all facts; the same facts after a restart."""
    with Forward(scratch, file_sink(scratch), 'keep = true;') as daemon:
        answers = daemon.ask(*[b"%d" % n for n in range(2000)])
        records = daemon.wait_records(2000)
        tap.result([record["data"] for record in records] == [str(n) for n in range(2000)] and
                   [record["id"] for record in records] == ids(answers),
                   "what one connection sent arrives in its order")
        daemon.wait_files("done", 2000)
        tap.result(not daemon.files() and not daemon.files("failed"), "keep: it lies in done/")
        daemon.ask(b"facts", b"x" * 300000)
        fresh, large = daemon.wait_records(2002)[2000:]
        tap.result(large["data"] == "x" * 300000, "a large one is read from its file")
        daemon.wait_files("done", 2002)
        for name in daemon.files("done")[2000:]:
            subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", "requeue",
                            "--force", name], check=True)
        again = daemon.wait_records(2004)[2002:]
        tap.result(again == [fresh, large], "what is requeued arrives with the facts that it had",
                   "%r\n%r" % (fresh, again[0]))
        daemon.wait_files("new", 0)
        publish(scratch, OLD + ".else.2001:db8::1-99", b"foreign")
        record = daemon.wait_records(2005)[2004]
        tap.result(record["id"] == OLD and record["listener"] == "else" and
                   record["peer"] == "[2001:db8::1]:99" and record["data"] == "foreign" and
                   record["time"].startswith("2016-06-13T"), "a file that somebody put there", repr(record))
        publish(scratch, "README", b"not ours")
        os.mkdir(os.path.join(scratch, "spool", "new", OLD + ".a.dir"))
        daemon.wait_event("forward-foreign")
        daemon.ask(b"after")
        daemon.wait_records(2006)
        daemon.wait_files("new", 2)
        tap.result(len(daemon.events("forward-foreign")) == 1, "what is none of ours stays, said once")
        # Idle: a look a second, and no more.
        time.sleep(1.2)
        before, at = daemon.calls(), time.monotonic()
        time.sleep(3)
        rate = (daemon.calls() - before) / (time.monotonic() - at)
        tap.result(rate < 3, "idle, it wakes %.1f times a second" % rate)
        tap.result(daemon.stop() == 0, "it stops in order")


def peers(tap, scratch):
    """Who sent a message is known of it after a while on disk, too: a local process as well."""
    top = '"s"; listeners = { a = { address = "unix:%s/socket"; }; b*c = { port = 0; }; }; ' \
          'backlog = 1024' % scratch
    with Forward(scratch, file_sink(scratch), "keep = true;", deliver=top) as daemon:
        wanted = []
        for listener in ("a", r"b\*c"):
            client = connect(daemon.address(listener))
            wanted.append("unix:%d" % os.getpid() if listener == "a" else
                          "%s:%d" % client.getsockname())
            client.sendall(b"x\n")
            finish(client)
        fresh = daemon.wait_records(2)
        tap.result([record["peer"] for record in fresh] == wanted and
                   [record["listener"] for record in fresh] == ["a", "b*c"], repr(wanted))
        daemon.wait_files("done", 2)
        subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", "requeue", "ALL"],
                       check=True)
        tap.result(sorted(daemon.wait_records(4)[2:], key=lambda record: record["id"]) == fresh,
                   "the same from disk")
        tap.result(daemon.stop() == 0, "it stops in order")


def refused(tap, scratch):
    """Poison goes to failed/; what fails for now is tried again; others go on."""
    script = ('m=$(cat); case $m in poison*) exit 1;; slow*) n=$(cat $1/n 2>/dev/null || echo 0); '
              'echo $((n+1)) >$1/n; test $n -ge 3 || exit 75;; esac; echo $m >>$1/got')
    got = os.path.join(scratch, "got")
    with Forward(scratch, command_sink(script, scratch, more="max_processes = 1;")) as daemon:
        answers = daemon.ask(b"a", b"poison", b"slow", b"b")
        tap.result(len(ids(answers)) == 4, "all are accepted once in the spool")
        daemon.wait_files("new", 0)
        with open(got, encoding="ascii") as file:
            tap.result(file.read() == "a\nb\nslow\n", "what fails for now does not hold up others")
        tap.result([name.split(".")[0] for name in daemon.files("failed")] == ids(answers)[1:2],
                   "what is refused lies in failed/")
        tap.result("refused" in daemon.events("forward-refused")[0] and
                   not daemon.events("forward-failing"), "its reason is in the log")
        metrics = daemon.get("/metrics")
        tap.result('cistern_sink_messages_total{sink="f",outcome="retried"} 3' in metrics and
                   'cistern_sink_messages_total{sink="f",outcome="refused"} 1' in metrics,
                   "tries are counted")
        tap.result(daemon.stop() == 0, "it stops in order")


def trouble(tap, scratch):
    """A target that is down: messages are accepted; it is tried now and then, and when it is
    back, all arrive in order."""
    with Forward(scratch, command_sink(
            'echo >>$1/tries; test -e $1/up || exit 75; cat >>$1/got; echo >>$1/got', scratch,
            more="max_processes = 1;")) as daemon:
        answers = daemon.ask(*[b"%03d" % n for n in range(300)])
        tap.result(len(ids(answers)) == 300, "accepted while the target is down")
        line = daemon.wait_event("forward-failing")
        tap.result("unavailable" in line[0], "said: " + line[0])
        tap.result("200 OK" in daemon.get("/readyz"), "and ready")
        tries = os.path.join(scratch, "tries")
        before = os.path.getsize(tries)
        time.sleep(1.0)
        rate = os.path.getsize(tries) - before
        tap.result(rate <= 30, "tried %d times in a second, not 300" % rate)
        tap.result(len(daemon.events("forward-failing")) == 1, "said once")
        open(os.path.join(scratch, "up"), "w", encoding="ascii").close()
        daemon.wait_event("forward-well")
        daemon.wait_files("new", 0)
        with open(os.path.join(scratch, "got"), encoding="ascii") as file:
            tap.result(sorted(file.read().split()) == ["%03d" % n for n in range(300)],
                       "all have arrived, once each")
        tap.result(daemon.stop() == 0, "it stops in order")
    # One that says itself that it cannot: a file whose directory is gone.
    os.mkdir(os.path.join(scratch, "d"))
    target = 'f = { type = "file"; path = "%s/d/out"; format = "line"; };' % scratch
    with Forward(scratch, target) as daemon:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", scratch + "/d"],
                       check=False, capture_output=True)
        if not os.path.ismount(scratch + "/d"):
            tap.result(True, "a full disk # SKIP cannot mount a tmpfs")
            return
        try:
            daemon.signal(10)
            daemon.wait_event("reopened")
            with open(scratch + "/d/fill", "wb", buffering=0) as file:  # no room for one either
                try:
                    while file.write(b"x" * 4096):
                        pass
                except OSError:
                    pass
            daemon.ask(*[b"%0999d" % n for n in range(200)])
            daemon.wait_event("forward-failing")
            tap.result("200 OK" in daemon.get("/readyz"), "ready, as the spool takes messages")
            daemon.ask(b"late")
            subprocess.run(["mount", "-o", "remount,size=8m", scratch + "/d"], check=True)
            daemon.wait_files("new", 0)
            with open(scratch + "/d/out", encoding="ascii") as file:
                got = file.read().split()
            tap.result(sorted(set(got)) == sorted(["%0999d" % n for n in range(200)] + ["late"]),
                       "when the disk has room again, all arrive")
            tap.result(len(daemon.events("forward-failing")) == 1 and
                       len(daemon.events("forward-well")) == 1, "an episode is said once")
            tap.result(daemon.stop() == 0, "it stops in order")
        finally:
            daemon.end()
            subprocess.run(["umount", scratch + "/d"], check=True)


def ages(tap, scratch):
    """max_age, on hold, and a requeue that makes it new."""
    with Forward(scratch, command_sink('cat >>$1/got; test -e $1/up || exit 75', scratch),
                 'max_age = 1;') as daemon:
        answers = daemon.ask(b"old", b"held")
        subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", "hold", "--force",
                        ids(answers)[1]], check=True)
        daemon.wait_files("failed", 1)
        tap.result("expired" in daemon.wait_event("forward-refused")[0] and
                   len(daemon.files("hold")) == 1, "expired; what is on hold is not looked at")
        open(os.path.join(scratch, "up"), "w", encoding="ascii").close()
        subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", "requeue", "--force",
                        "ALL"], check=True)
        subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", "release", "--force",
                        "ALL"], check=True)
        daemon.wait_files("new", 0)
        tap.result(not daemon.files("failed") and not daemon.files("hold"),
                   "what is requeued or released has its time anew")
        tap.result(daemon.stop() == 0, "it stops in order")


def reloads(tap, scratch):
    """forward that comes, changes and goes with a reload; a connection that stays."""
    first, second = file_sink(scratch), file_sink(scratch, "g")
    with Forward(scratch, first + second, deliver='"s"') as daemon:
        stays = connect(daemon.address())
        stays.sendall(b"before\n")
        daemon.wait_records(1)
        daemon.rewrite('forward = "f";', 'forward = "g";')
        daemon.reload()
        daemon.ask(b"new")
        daemon.wait_records(1, "g")
        stays.sendall(b"old\n")
        daemon.wait_records(2, "g")
        tap.result(len(daemon.records()) == 1, "from then on all goes to the new target")
        finish(stays)
        daemon.rewrite('forward = "g";', "")
        daemon.reload()
        daemon.ask(b"kept")
        daemon.wait_files("new", 1)
        time.sleep(1.5)
        tap.result(len(daemon.files()) == 1, "without forward it stays")
        daemon.rewrite("min_free = 0;", 'min_free = 0; forward = "f";')
        daemon.reload()
        tap.result(daemon.wait_records(2)[1]["data"] == "kept", "with forward again it goes")
        for _ in range(20):
            daemon.rewrite('retry_max = "100ms";', 'retry_max = "101ms";')
            daemon.reload()
            daemon.rewrite('retry_max = "101ms";', 'retry_max = "100ms";')
            daemon.reload()
            daemon.ask(b"again")
        daemon.wait_records(22)
        daemon.wait_files("new", 0)
        tap.result(len(daemon.records()) == 22, "forty reloads: each message once")
        daemon.stop()
    # Another process on the same directory waits for its turn: first this one, ...
    lock = os.open(os.path.join(scratch, "spool", "new"), os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with Forward(scratch, file_sink(scratch)) as daemon:
        daemon.ask(b"locked")
        daemon.wait_event("forward-waits")
        tap.result(len(daemon.records()) == 22 and len(daemon.files()) == 1,
                   "who has not the directory's lock hands nothing on, and says so")
        os.close(lock)
        daemon.wait_records(23)
        daemon.wait_files("new", 0)
        # ... then another daemon.
        other = Forward(scratch, file_sink(scratch, more="sync = false;")).ready()
        with other:
            other.ask(b"by the other")
            daemon.wait_records(24)
            tap.result(len(daemon.records()) == 24, "one process hands on from a directory")
            daemon.stop()
            other.ask(b"alone")
            tap.result(other.wait_records(25)[24]["data"] == "alone", "and the other when that has ended")
            tap.result(other.stop() == 0, "it stops in order")


def stops(tap, scratch):
    """A stop waits for what is with the target, not for what is not."""
    with Forward(scratch, command_sink('cat >/dev/null; echo >>$1/began; sleep 2; echo >>$1/ended',
                                       scratch, more="max_processes = 1;")) as daemon:
        daemon.ask(*[b"%d" % n for n in range(20)])
        wait_for("a program", lambda: os.path.exists(scratch + "/began"))
        tap.result(daemon.stop() == 0, "it stops")
        began, ended = os.path.getsize(scratch + "/began"), os.path.getsize(scratch + "/ended")
        left = len(daemon.files())
        tap.result(began == ended and left + ended == 20,
                   "what was under way ended in order, %d wait for the next start" % left)
    with Forward(scratch, command_sink('echo >>$1/sleeps; sleep 60', scratch)) as daemon:
        wait_for("programs", lambda: os.path.exists(scratch + "/sleeps"))
        daemon.signal()
        daemon.wait_event("stopping")
        began = time.monotonic()
        tap.result(daemon.stop() == 0 and time.monotonic() - began < 9, "a second signal stops at once")
        tap.result(len(daemon.files()) == left, "and nothing is lost")


def fan_out(tap, scratch):
    """A message for two sinks: accepted by both, refused when one refuses; a slow one holds up
    its own messages only."""
    slow = command_sink('m=$(cat); case $m in bad) exit 1;; esac; '
                        'while ! test -e $1/go; do sleep 0.05; done', scratch, name="slow")
    more = '\nlisteners = { main = { deliver = [ "fast", "slow" ]; }; ' \
           'other = { port = 0; deliver = [ "fast" ]; }; };\n'
    with Forward(scratch, file_sink(scratch, "f") + file_sink(scratch, "fast") + slow,
                 deliver='"s";' + more + 'backlog = 1024') as daemon:
        held = connect(daemon.address())
        held.sendall(b"both\n")
        tap.result(daemon.wait_records(1, "fast")[0]["data"] == "both", "the fast sink has it")
        client = connect(daemon.address("other"))
        client.sendall(b"".join(b"%d\n" % n for n in range(1000)))
        tap.result(len(ids(finish(client).splitlines())) == 1000 and
                   len(daemon.records("fast")) == 1001, "others go on at their speed")
        held.settimeout(0.3)
        try:
            early = held.recv(100)
        except socket.timeout:
            early = None
        tap.result(early is None, "but it is not accepted while the slow one has it not")
        open(os.path.join(scratch, "go"), "w", encoding="ascii").close()
        held.settimeout(30)
        tap.result(finish(held).startswith("OK "), "and is when both have it")
        client = connect(daemon.address())
        client.sendall(b"bad\n")
        answer = client.recv(100)
        client.close()
        tap.result(answer == b"REJECT refused\n", "refused by one is refused")
        tap.result(daemon.stop() == 0, "it stops in order")


def described(tap, scratch):
    """What the attribute of a file says of its message, as after a restart."""
    said = b"time=1795459315123456 local=192.0.2.1:11000 ended=quiet listener=a*b subject=CN=a b,O=c d"
    odd = b"time=99999999999999999999 local=x ended=never listener=" + 300 * b"l" + b" nothing"
    with Forward(scratch, file_sink(scratch)) as daemon:
        new = os.path.join(scratch, "spool", "new")
        for name, attribute in (OLD + ".a_b.192.0.2.9-1", said), (OLD + ".main.unix-7", odd):
            with open(os.path.join(new, ".x"), "wb") as file:
                file.write(b"bytes")
            try:
                os.setxattr(os.path.join(new, ".x"), "user.cistern", attribute)
            except OSError as error:
                tap.result(True, "facts of an attribute # SKIP %s" % error)
                return
            os.rename(os.path.join(new, ".x"), os.path.join(new, name))
        daemon.wait_files("new", 0)
        found = {record["peer"]: record for record in daemon.wait_records(2)}
        record = found["192.0.2.9:1"]
        tap.result(record["time"] == "2026-11-23T18:41:55.123456Z" and record["ended"] == "quiet" and
                   record["local"] == "192.0.2.1:11000" and record["listener"] == "a*b" and
                   record["tls_subject"] == "CN=a b,O=c d" and record["data"] == "bytes",
                   "a message has the facts that were kept with it", repr(record))
        record = found["unix:7"]
        tap.result(record["time"].startswith("2016-06-13T") and record["ended"] == "fin" and
                   record["listener"] == "main" and "tls_subject" not in record,
                   "and those of its name where an attribute makes no sense", repr(record))
        tap.result(daemon.stop() == 0, "it stops in order")


def tended(tap, scratch):
    """An operator removes what waits."""
    with Forward(scratch, command_sink('test -e $1/up || exit 75; cat >>$1/got', scratch)) as daemon:
        daemon.ask(b"a", b"b", b"c")
        daemon.wait_event("forward-failing")
        subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", "delete", "--force",
                        "ALL"], check=True)
        daemon.wait_event("forward-well", "nothing waits any more")
        open(os.path.join(scratch, "up"), "w", encoding="ascii").close()
        daemon.ask(b"later")
        daemon.wait_files("new", 0)
        with open(os.path.join(scratch, "got"), encoding="ascii") as file:
            tap.result(file.read() == "later", "when nothing waits any more, the trouble is over")
        tap.result(daemon.stop() == 0, "it stops in order")


def late(tap, scratch):
    """More have expired than are looked at in a turn; what is young is handed on meanwhile."""
    count = 2500
    with Forward(scratch, file_sink(scratch)) as daemon:
        tap.result(daemon.stop() == 0, "it makes the spool")
    for n in range(count):
        with open("%s/spool/new/%s%05d.main.unix" % (scratch, OLD[:-5], n), "wb"):
            pass
    time.sleep(1.2)
    with Forward(scratch, file_sink(scratch), "max_age = 1;") as daemon:
        daemon.ask(b"young")
        daemon.wait_files("failed", count)
        tap.result([record["data"] for record in daemon.wait_records(1)] == ["young"],
                   "what is too old is not handed on")
        tap.result(daemon.stop() == 0, "it stops in order")
        said = daemon.events("forward-refused")
        tap.result(len(said) == 101 and "%d more messages" % (count - 100) in said[-1],
                   "a hundred are named in the log, and how many more there were", repr(said[-1:]))


def run_all(tests):
    """Those named on the command line, or all, until one fails; the exit code."""
    if program() is None:
        print("1..0 # SKIP no cisternd")
        return 0
    tap = Tap()
    for test in tests:
        if sys.argv[1:] and test.__name__ not in sys.argv[1:]:
            continue
        with Scratch() as scratch:
            failed = tap.failed
            tap.note(test.__name__)
            test(tap, scratch)
            if tap.failed > failed:
                raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(run_all((simple, peers, refused, trouble, ages, reloads, stops, fan_out, described, tended,
                      late)))
