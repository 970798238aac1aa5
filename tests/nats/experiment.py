#!/usr/bin/env python3
"""experiment: many clients, a cluster of three nats-servers with a stream in three copies, and
nothing that stays up: servers are killed, cut off and started again, one at a time, and
cisternd is killed and started again.  At the end the whole cluster stops for a while.

Every message that a client was told OK for is in each copy of the stream, once by its id, byte
for byte; whatever else is there (an answer that was lost) was sent by a client, and is there
once, too.  What the servers acknowledged and then lost is no failure of cisternd's, but only
where they are convicted by their own words, message by message (taken_back); it is counted.

Then the same with a spool in front of the sink, which forwards: nobody is refused while the
cluster is gone, and what the spool has taken is in the stream when it is back.

NATS_MESSAGES (3,000, and with less than 8,000 only three of the six things happen, with the
spool one; make check-nats: 100,000), NATS_SEED (1); NATS_SPOOL=0 or 1: only without, or with
the spool.
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

MESSAGES = int(os.environ.get("NATS_MESSAGES", "3000"))
EVERYTHING = MESSAGES >= 8000
SEED = int(os.environ.get("NATS_SEED", "1"))
SPOOLS = {"": (False, True), "0": (False,)}.get(os.environ.get("NATS_SPOOL", ""), (True,))
CLIENTS = 16
AHEAD = 32
PATIENCE = 10 * DEADLINE


def payload(number):
    """Another one for each number; of any bytes, mostly small."""
    chance = random.Random(SEED << 32 | number)
    size = chance.choice((0, 10, 100, 100, 300, 300, 1000, 1000, 5000)) if number % 500 else 100000
    return b"%d:" % number + chance.randbytes(size)


class Work:
    """The messages that nobody has been told OK for."""

    def __init__(self):
        self.lock = threading.Lock()
        self.todo = list(range(MESSAGES - 1, -1, -1))
        self.accepted = {}  # id: number
        self.answers = {}
        self.allowed = 0  # so many may have been sent by now
        self.done = threading.Event()

    def take(self):
        with self.lock:
            if len(self.todo) <= MESSAGES - self.allowed:
                return None
            return self.todo.pop()

    def give_back(self, numbers):
        with self.lock:
            self.todo.extend(numbers)

    def answered(self, number, line):
        words = line.split()
        with self.lock:
            self.answers[words[0] + " " + words[1] if words[0] != "OK" else "OK"] = \
                self.answers.get(words[0] + " " + words[1] if words[0] != "OK" else "OK", 0) + 1
            if words[0] != "OK":
                self.todo.append(number)
                return False
            if words[1] in self.accepted:
                raise RuntimeError("an id twice: " + line)
            self.accepted[words[1]] = number
            if len(self.accepted) == MESSAGES:
                self.done.set()
            return True


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
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as connection:
            receipts = connection.makefile("rb")
            for _ in range(500):  # then another connection
                while len(waiting) < AHEAD:
                    number = self.work.take()
                    if number is None:
                        break
                    waiting.append(number)
                    data = payload(number)
                    connection.sendall(b"%d:%s," % (len(data), data))
                if not waiting:
                    return
                line = receipts.readline()
                if not line.endswith(b"\n"):
                    raise OSError("the end")
                good = self.work.answered(waiting[0], line.decode())
                waiting.pop(0)
                if not good:
                    time.sleep(0.01)


class Chaos:
    def __init__(self, cluster, daemon_of, work, spool):
        self.spool = spool
        self.cluster, self.daemon_of, self.work = cluster, daemon_of, work
        self.daemon = daemon_of()
        self.daemon.ready()
        self.done = []
        self.quota = 0
        self.logs = ""

    def whole(self):
        """All three copies are the same again: else the next kill might take the last one."""
        def look():
            info = self.cluster.info("S")
            replicas = info.get("cluster", {}).get("replicas", [])
            return len(replicas) == 2 and all(r["current"] and not r.get("offline") for r in replicas)
        wait_for("the cluster is whole", look, PATIENCE)

    def progress(self, count):
        """Some more messages have been accepted."""
        target = min(self.work.allowed, len(self.work.accepted) + count)
        wait_for("progress past %d of %d: %r\n%s" % (
            len(self.work.accepted), MESSAGES, self.work.answers, self.daemon.log()[-2000:]),
            lambda: len(self.work.accepted) >= target, PATIENCE)

    def leader(self):
        name = self.cluster.info("S")["cluster"]["leader"]
        return next(s for s in self.cluster.servers if s.name == name)

    def server(self, leads):
        leader = self.leader()
        return leader if leads else next(s for s in self.cluster.servers if s is not leader)

    def kill_server(self, leads, number=signal.SIGKILL):
        server = self.server(leads)
        server.kill(number)
        self.progress(self.quota // 2)
        server.start()
        server.wait()
        self.whole()

    def freeze(self, leads):
        server = self.server(leads)
        server.freeze()
        self.progress(self.quota // 2)
        server.thaw()
        self.whole()

    def kill_daemon(self):
        self.daemon.process.kill()
        self.daemon.process.wait(DEADLINE)
        self.logs += self.daemon.log()
        self.daemon = self.daemon_of()
        self.daemon.ready()

    def run(self):
        steps = [
            ("a follower is killed", lambda: self.kill_server(False)),
            ("cisternd is killed", self.kill_daemon),
            ("the leader is killed", lambda: self.kill_server(True)),
            ("the leader is cut off", lambda: self.freeze(True)),
            ("cisternd is killed again", self.kill_daemon),
            ("the leader is stopped", lambda: self.kill_server(True, signal.SIGTERM)),
        ]
        if not EVERYTHING:
            steps = steps[2:3] if self.spool else steps[1:4]
        rounds = max(1, MESSAGES // 20000)
        self.quota = MESSAGES * 9 // 10 // (rounds * len(steps))
        for what, step in steps * rounds:
            # Most of them are still to be sent when it happens.
            self.work.allowed += self.quota
            self.progress(self.quota // 8)
            step()
            self.progress(MESSAGES)  # all that may be sent so far
            self.done.append(what)


def full_stop(tap, chaos, work):
    """All servers at once, and clients go on."""
    for server in chaos.cluster.servers:
        server.kill()
    work.allowed = MESSAGES
    if chaos.spool:
        wait_for("all are accepted", work.done.is_set, PATIENCE)
        new = os.path.join(chaos.daemon.directory, "spool", "new")
        tap.result(len(os.listdir(new)) > 0, "without a cluster the spool takes all")
    else:
        before = work.answers.get("RETRY unavailable", 0)
        wait_for("it says that it is not ready", lambda: not chaos.daemon.readiness()[0], PATIENCE)
        tap.result(True, "without a cluster it says that it is not ready")
        wait_for("refusals", lambda: work.answers.get("RETRY unavailable", 0) > before + 20,
                 PATIENCE)
    for server in chaos.cluster.servers:
        server.start()
    for server in chaos.cluster.servers:
        server.wait()
    wait_for("all are accepted: %r" % work.answers, work.done.is_set, PATIENCE)
    if chaos.spool:
        wait_for("the spool drains", lambda: not os.listdir(new), PATIENCE)
    else:
        wait_for("it is ready", lambda: chaos.daemon.readiness()[0], PATIENCE)
    tap.result(True, "the cluster is back, and all %d are accepted" % MESSAGES)


def stored(log):
    """{id: [(when, sequence)]}: what the servers' answers said."""
    told = {}
    for when, name, sequence in re.findall(
            r"^(\S+)Z debug nats-stored: sink n: (\S+) is message (\d+) of the stream", log, re.M):
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


def compare(tap, cluster, log, work):
    told = stored(log)
    silent = [name for name in work.accepted if name not in told]
    tap.result(not silent, "the log has the stream's word for each OK (%d not: %s)" % (
        len(silent), " ".join(silent[:5])))
    found = cluster.copies("S", PATIENCE)
    copies = {server: {sequence: (when, headers["Nats-Msg-Id"]) for sequence, when, _, headers, _ in copy}
              for server, copy in found.items()}
    lost, excused, twice, wrong = [], [], 0, 0
    for server, copy in found.items():
        ids, extra = {}, 0
        for _, _, _, headers, data in copy:
            name = headers["Nats-Msg-Id"]
            ids[name] = ids.get(name, 0) + 1
            number = int(data.partition(b":")[0])
            wrong += data != payload(number)
            extra += name not in work.accepted
            wrong += work.accepted.get(name, number) != number
        twice += sum(n > 1 for n in ids.values())
        tap.note("%s: %d in its copy, %d of them whose answer was lost" % (server, len(copy), extra))
        for name in work.accepted:
            if name not in ids:
                why = taken_back(told, copies, server, name)
                (lost if why is None else excused).append(why or "%s in %s, told %r" % (
                    name, server, told.get(name)))
    tap.result(not lost, "all that was acknowledged is in each copy (%d of %d missing: %s)" % (
        len(lost), len(work.accepted), "; ".join(lost[:5])))
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
                            for copy in copies.values()) for name in work.accepted)
    if elsewhere:
        tap.note("%d are in no copy where their answer said" % elsewhere)
    tap.result(twice == 0, "each once (%d twice)" % twice)
    tap.result(wrong == 0, "byte for byte (%d wrong)" % wrong)


def experiment(tap, spool):
    tap.note("with a spool in front" if spool else "the sink alone")
    with storage.Scratch() as scratch, Cluster(scratch + "/nats", 3) as cluster:
        cluster.add_stream("S", ["intake.>"], 3, duplicate_window=600 * 10 ** 9)
        port, = free_ports(1)
        top = 'log = { level = "debug"; }; port = %d; deliver = "%s";' % (port, "s" if spool else "n")
        more = 's = { type = "spool"; directory = "%s/d/spool"; forward = "n"; min_free = 0; ' \
            'retry_max = "2s"; };' % scratch if spool else ""
        sink = 'subject = "intake.{listener}"; timeout = %d;' % (5 if spool else 15 if EVERYTHING else 8)
        work = Work()

        def start():
            return Daemon(scratch + "/d", cluster.urls(), sink, top, more)
        begun = time.monotonic()
        chaos = Chaos(cluster, start, work, spool)
        with chaos.daemon:
            clients = [Client(work, port) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            try:
                chaos.run()
                tap.result(True, "; ".join(chaos.done))
                full_stop(tap, chaos, work)
                chaos.whole()
                for client in clients:
                    client.join(DEADLINE)
                problems = [client.problem for client in clients if client.problem]
                tap.result(not problems, "clients: %r" % (problems or work.answers))
                code = chaos.daemon.stop()
                log = chaos.daemon.log()
                tap.result(code == 0 and " 0 in flight" in log, "an orderly stop: %s" %
                           re.findall("received .*", log))
                compare(tap, cluster, chaos.logs + log, work)
            except TimeoutError as error:
                tap.result(False, str(error)[-4000:].replace("\n", "\n# "))
            finally:
                work.done.set()
                chaos.daemon.__exit__()
        tap.note("%d messages in %.0f s; answers: %r" % (MESSAGES, time.monotonic() - begun,
                                                         work.answers))
        if tap.failed:
            tap.note((chaos.logs + chaos.daemon.log())[-6000:])


def main():
    require()
    tap = storage.Tap()
    for spool in SPOOLS:
        experiment(tap, spool)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
