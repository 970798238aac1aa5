#!/usr/bin/env python3
"""experiment: many clients, a cluster of three nats-servers with a stream in three copies, and
nothing that stays up: servers are killed, cut off and started again, one at a time, and
cisternd is killed and started again.  At the end the whole cluster stops for a while.

Half of the clients send straight into the stream; the others into a spool which forwards to
it: there nobody is refused while the cluster is gone, and what the spool has taken is in the
stream when it is back.

Every message that a client was told OK for is in each copy of the stream, once by its id, byte
for byte; whatever else is there (an answer that was lost) was sent by a client, and is there
once, too.  What the servers acknowledged and then lost is no failure of cisternd's, but only
where they are convicted by their own words, message by message (taken_back); it is counted.

NATS_MESSAGES (100,000; with less than 8,000 only three of the seven things happen,
with the spool alone one), NATS_ROUNDS: how often they happen (1; make check-nats: 5), NATS_SEED (1);
NATS_SPOOL=0 or 1: all straight, or all into the spool.
"""

import datetime
import os
import random
import re
import signal
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, Daemon, DEADLINE, free_ports, require, storage, wait_for  # noqa: E402

MESSAGES = int(os.environ.get("NATS_MESSAGES", "100000"))
EVERYTHING = MESSAGES >= 8000
ROUNDS = int(os.environ.get("NATS_ROUNDS", "1"))
SEED = int(os.environ.get("NATS_SEED", "1"))
STRAIGHT, SPOOLED = "straight", "spooled"
WAYS = {"0": (STRAIGHT,), "1": (SPOOLED,)}.get(os.environ.get("NATS_SPOOL", ""), (STRAIGHT, SPOOLED))
CLIENTS = 48
AHEAD = 64
A_CONNECTION = 500  # messages
PATIENCE = 10 * DEADLINE
SIZES = (0, 10, 100, 100, 300, 300, 1000, 1000, 5000)
LARGE = 100000
BYTES = random.Random(SEED).randbytes(2 * LARGE)


def payload(number):
    """Another one for each number; of any bytes, mostly small."""
    size = SIZES[number % 7919 % len(SIZES)] if number % 500 else LARGE
    at = number * 7919 % LARGE
    return b"%d:%b:%d" % (number, BYTES[at:at + size], number)


class Work:
    """The messages of one way that nobody has been told OK for."""

    def __init__(self, way, first, count):
        self.way, self.first, self.count = way, first, count
        self.lock = threading.Lock()
        self.todo = list(range(first + count - 1, first - 1, -1))
        self.accepted = {}  # id: number
        self.answers = {}
        self.allowed = 0  # so many may have been sent by now
        self.done = threading.Event()

    def take(self, count):
        with self.lock:
            count = min(count, len(self.todo) - (self.count - self.allowed))
            taken = self.todo[len(self.todo) - count:][::-1] if count > 0 else []
            del self.todo[len(self.todo) - len(taken):]
            return taken

    def give_back(self, numbers):
        with self.lock:
            self.todo.extend(reversed(numbers))

    def answered(self, numbers, lines):
        """Whether all were accepted."""
        refused = []
        with self.lock:
            for number, line in zip(numbers, lines):
                words = line.split()
                kind = words[0] if words[0] == "OK" else words[0] + " " + words[1]
                self.answers[kind] = self.answers.get(kind, 0) + 1
                if kind != "OK":
                    refused.append(number)
                elif words[1] in self.accepted:
                    raise RuntimeError("an id twice: " + line)
                else:
                    self.accepted[words[1]] = number
            self.todo.extend(reversed(refused))
            if len(self.accepted) == self.count:
                self.done.set()
        return not refused

    def refusals(self):
        with self.lock:
            return sum(count for kind, count in self.answers.items() if kind != "OK")


class Client(threading.Thread):
    """Sends, some messages ahead of their receipts; sends again what was not accepted."""

    def __init__(self, work, port):
        super().__init__(daemon=True)
        self.work, self.port, self.problem = work, port, None

    def run(self):
        while not self.work.done.is_set():
            waiting = []
            try:
                self.connection(waiting)
            except OSError:
                pass
            except Exception as error:  # told at the end
                self.problem = error
                return
            self.work.give_back(waiting)
            time.sleep(0.05)

    def connection(self, waiting):
        numbers, left, rest = self.work.take(AHEAD), A_CONNECTION, b""
        waiting.extend(numbers)
        if not numbers:
            return
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as connection:
            while True:
                left -= len(numbers)
                connection.sendall(b"".join(b"%d:%b," % (len(data), data)
                                            for data in map(payload, numbers)))
                if not waiting:
                    return
                piece = connection.recv(65536)
                if not piece:
                    raise OSError("the end")
                *lines, rest = (rest + piece).split(b"\n")
                told = waiting[:len(lines)]
                del waiting[:len(lines)]
                if not self.work.answered(told, [line.decode() for line in lines]):
                    time.sleep(0.5)
                numbers = []
                if left > 0 and len(waiting) <= AHEAD // 2:
                    numbers = self.work.take(min(left, AHEAD - len(waiting)))
                    waiting.extend(numbers)


class Chaos:
    def __init__(self, cluster, daemon_of, works):
        self.cluster, self.daemon_of, self.works = cluster, daemon_of, works
        self.daemon = daemon_of()
        self.daemon.ready()
        self.done = []
        self.logs = ""

    def whole(self):
        """All three copies are the same again: else the next kill might take the last one."""
        def look():
            info = self.cluster.info("S")
            replicas = info.get("cluster", {}).get("replicas", [])
            return len(replicas) == 2 and all(r["current"] and not r.get("offline") for r in replicas)
        wait_for("the cluster is whole", look, PATIENCE)

    def quota(self, work):
        """Messages between two blows."""
        return work.count * 9 // 10 // (ROUNDS * len(self.steps()))

    def allow(self):
        """The half of a quota: one before the blow, one when it has been dealt."""
        for work in self.works:
            work.allowed += self.quota(work) // 2

    def progress(self, part, but=None):
        """So much of a quota has been accepted more, or all that may be sent so far."""
        works = [work for work in self.works if work.way != but]
        targets = [min(work.allowed, len(work.accepted) + int(part * self.quota(work)))
                   for work in works]
        try:
            wait_for("progress", lambda: all(len(work.accepted) >= target for work, target in
                                             zip(works, targets)), PATIENCE)
        except TimeoutError:
            raise TimeoutError("no progress past %r of %r: %r\n%s" % (
                [len(work.accepted) for work in works], targets,
                [work.answers for work in works], self.daemon.log()[-2000:])) from None

    def leader(self):
        name = self.cluster.info("S")["cluster"]["leader"]
        return next(s for s in self.cluster.servers if s.name == name)

    def server(self, leads):
        leader = self.leader()
        return leader if leads else next(s for s in self.cluster.servers if s is not leader)

    def kill_server(self, leads, number=signal.SIGKILL):
        server = self.server(leads)
        server.kill(number)
        self.allow()
        self.progress(1 / 2)
        server.start()
        server.wait()
        self.whole()

    def freeze(self, leads):
        server = self.server(leads)
        server.freeze()
        self.allow()
        self.progress(1 / 2)
        server.thaw()
        self.whole()

    def part(self):
        """The leader alone has no majority: it may say nothing, and the spool takes all."""
        leader = self.leader()
        others = [server for server in self.cluster.servers if server is not leader]
        for server in others:
            server.freeze()
        before = {work.way: work.refusals() for work in self.works}
        self.allow()
        self.progress(1 / 2, but=STRAIGHT)
        for work in self.works:
            if work.way == STRAIGHT:
                wait_for("refusals: %r" % work.answers, lambda work=work:
                         work.refusals() > before[work.way], PATIENCE)
        for server in others:
            server.thaw()
        self.whole()

    def kill_daemon(self):
        self.daemon.process.kill()
        self.daemon.process.wait(DEADLINE)
        self.allow()
        self.logs += self.daemon.log()
        self.daemon = self.daemon_of()
        self.daemon.ready()

    def steps(self):
        steps = [
            ("a follower is killed", lambda: self.kill_server(False)),
            ("cisternd is killed", self.kill_daemon),
            ("the leader is killed", lambda: self.kill_server(True)),
            ("the leader is cut off", lambda: self.freeze(True)),
            ("cisternd is killed again", self.kill_daemon),
            ("the leader is stopped", lambda: self.kill_server(True, signal.SIGTERM)),
            ("two of three are cut off", self.part),
        ]
        if EVERYTHING:
            return steps
        return steps[2:3] if WAYS == (SPOOLED,) else steps[1:4]

    def run(self, tap):
        for what, step in self.steps() * ROUNDS:
            begun = time.monotonic()
            self.allow()
            self.progress(1 / 8)
            step()
            self.progress(1)
            self.done.append(what)
            tap.note("%s: %.1f s" % (what, time.monotonic() - begun))


def full_stop(tap, chaos):
    """All servers at once, and clients go on."""
    begun = time.monotonic()
    for server in chaos.cluster.servers:
        server.kill()
    before = {work.way: work.allowed for work in chaos.works}
    for work in chaos.works:
        work.allowed = work.count
    new = os.path.join(chaos.daemon.directory, "spool", "new")
    for work in chaos.works:
        if work.way == SPOOLED:
            wait_for("all are accepted", work.done.is_set, PATIENCE)
            count = len(os.listdir(new))
            tap.result(count >= work.count - before[work.way] > 0,
                       "without a cluster the spool takes all (%d wait in it)" % count)
    for work in chaos.works:
        if work.way == STRAIGHT:
            refused = work.answers.get("RETRY unavailable", 0)
            wait_for("it says that it is not ready", lambda: not chaos.daemon.readiness()[0], PATIENCE)
            tap.result(True, "without a cluster it says that it is not ready")
            wait_for("refusals", lambda: work.answers.get("RETRY unavailable", 0) > refused + 20,
                     PATIENCE)
    for server in chaos.cluster.servers:
        server.start()
    for server in chaos.cluster.servers:
        server.wait()
    for work in chaos.works:
        wait_for("all are accepted: %r" % work.answers, work.done.is_set, PATIENCE)
        if work.way == SPOOLED:
            wait_for("the spool drains", lambda: not os.listdir(new), PATIENCE)
    wait_for("it is ready", lambda: chaos.daemon.readiness()[0], PATIENCE)
    tap.result(True, "the cluster is back, and all %d are accepted (%.1f s)" % (
        MESSAGES, time.monotonic() - begun))


def stored(log):
    """{id: [(when, sequence)]}: what the servers' answers said."""
    told = {}
    for when, name, sequence in re.findall(
            r"^(\S+)Z debug nats-stored: sink [nm]: (\S+) is message (\d+) of the stream", log, re.M):
        when = datetime.datetime.fromisoformat(when + "+00:00").timestamp()
        told.setdefault(name, []).append((when, int(sequence)))
    return told


def taken_back(told, copies, lacking, name):
    """Why a message which its sender was told OK for, and which a copy does not have, was lost
    by the servers: they answered that it is at a sequence, where that copy has another one.
    That the answer was not some other message's, taken for this one's by mistake, is shown by
    one of two things: another copy has it where the answer said; or the one that is there came
    to the stream only after the answer was here.  None: nothing shows it."""
    for when, sequence in told.get(name, []):
        there = copies[lacking].get(sequence)
        if there is None:
            continue
        right = [server for server, copy in copies.items() if copy.get(sequence, (0, ""))[1] == name]
        text = "%s: at %d by its answer, at %.3f; there is %s, of %.6f, in the copy of %s" % (
            name, sequence, when, there[1], there[0], lacking)
        if right:
            return text + "; but %s has it there" % ", ".join(right)
        if there[0] >= when + 0.001:  # the log's times have milliseconds
            return text + ", which came later"
    return None


class Seen:
    """A message in a copy, without its bytes."""

    __slots__ = ("id", "number", "good")

    def __init__(self, headers, data):
        self.id = headers["Nats-Msg-Id"]
        self.number = int(data.partition(b":")[0])
        self.good = data == payload(self.number)


def compare(tap, cluster, log, works):
    accepted = {name: number for work in works for name, number in work.accepted.items()}
    told = stored(log)
    silent = [name for name in accepted if name not in told]
    tap.result(not silent, "the log has the stream's word for each OK (%d not: %s)" % (
        len(silent), " ".join(silent[:5])))
    found = cluster.copies("S", PATIENCE, lambda _, headers, data: Seen(headers, data))
    copies = {server: {sequence: (when, seen.id) for sequence, when, seen in copy}
              for server, copy in found.items()}
    lost, excused, twice, wrong = [], [], 0, 0
    for server, copy in found.items():
        ids, extra = {}, 0
        for _, _, seen in copy:
            ids[seen.id] = ids.get(seen.id, 0) + 1
            extra += seen.id not in accepted
            wrong += not seen.good or accepted.get(seen.id, seen.number) != seen.number
        twice += sum(n > 1 for n in ids.values())
        tap.note("%s: %d in its copy, %d of them whose answer was lost" % (server, len(copy), extra))
        for name in accepted:
            if name not in ids:
                why = taken_back(told, copies, server, name)
                (lost if why is None else excused).append(why or "%s in %s, told %r" % (
                    name, server, told.get(name)))
    tap.result(not lost, "all that was acknowledged is in each copy (%d of %d missing: %s)" % (
        len(lost), len(accepted), "; ".join(lost[:5])))
    if excused:
        tap.note("%d that the servers acknowledged and then lost; so they say:" % len(excused))
        tap.note("\n".join(excused[:10]))
    one, *others = copies.values()
    sequences = set(one).union(*others)
    differ = [n for n in sorted(sequences) if len({copy.get(n, (0, ""))[1] for copy in copies.values()}) > 1]
    if differ:
        tap.note("the copies differ in %d of %d places, from %d on: %r" % (
            len(differ), len(sequences), differ[0],
            {server: copy.get(differ[0]) for server, copy in copies.items()}))
    elsewhere = sum(not any(copy.get(n, (0, ""))[1] == name for _, n in told.get(name, ())
                            for copy in copies.values()) for name in accepted)
    if elsewhere:
        tap.note("%d are in no copy where their answer said" % elsewhere)
    tap.result(twice == 0, "each once (%d twice)" % twice)
    tap.result(wrong == 0, "byte for byte (%d wrong)" % wrong)


CONFIG = """log = { level = "debug"; }; deliver = "n"; listeners = { %s };"""
KEPT = """
s = { type = "spool"; directory = "%s/spool"; forward = "m"; min_free = 0; retry_max = "2s"; };
m = { type = "nats"; servers = %s; stream = "S"; subject = "intake.{listener}"; timeout = 5; };
"""


def experiment(tap):
    with storage.Scratch() as scratch, Cluster(scratch + "/nats", 3) as cluster:
        begun = time.monotonic()
        cluster.add_stream("S", ["intake.>"], 3, duplicate_window=600 * 10 ** 9)
        directory = scratch + "/d"
        listeners = {way: (port, "s" if way == SPOOLED else "n") for way, port in
                     zip(WAYS, free_ports(len(WAYS)))}
        top = CONFIG % " ".join('%s = { port = %d; deliver = "%s"; };' % (way, port, sink)
                                for way, (port, sink) in listeners.items())
        sink = 'subject = "intake.{listener}"; timeout = 8;'
        more = KEPT % (directory, cluster.urls()) if SPOOLED in WAYS else ""
        share = MESSAGES // len(WAYS)
        works = [Work(way, n * share, share if n else MESSAGES - share * (len(WAYS) - 1))
                 for n, way in enumerate(WAYS)]
        chaos = Chaos(cluster, lambda: Daemon(directory, cluster.urls(), sink, top, more), works)
        with chaos.daemon:
            clients = [Client(work, listeners[work.way][0]) for work in works
                       for _ in range(CLIENTS // len(works))]
            for client in clients:
                client.start()
            try:
                chaos.run(tap)
                tap.result(True, "; ".join(chaos.done))
                full_stop(tap, chaos)
                chaos.whole()
                for client in clients:
                    client.join(DEADLINE)
                problems = [client.problem for client in clients if client.problem]
                tap.result(not problems, "clients: %r" % (problems or
                                                          {work.way: work.answers for work in works}))
                code = chaos.daemon.stop()
                log = chaos.daemon.log()
                tap.result(code == 0 and " 0 in flight" in log, "an orderly stop: %s" %
                           re.findall("received .*", log))
                reading = time.monotonic()
                compare(tap, cluster, chaos.logs + log, works)
                tap.note("read and compared in %.1f s" % (time.monotonic() - reading))
            except TimeoutError as error:
                tap.result(False, str(error)[-4000:].replace("\n", "\n# "))
            finally:
                for work in works:
                    work.done.set()
                chaos.daemon.__exit__()
        tap.note("%d messages in %.0f s" % (MESSAGES, time.monotonic() - begun))
        if tap.failed:
            tap.note((chaos.logs + chaos.daemon.log())[-6000:])


def main():
    require()
    tap = storage.Tap()
    experiment(tap)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
