#!/usr/bin/env python3
"""bench: cisternd beside raw epoll doing the least that can be done, and its peers.

All run on loopback on one machine at the same time of day, one after the other in each
round, in an order that changes; the first round is thrown away, the medians of the
others count.  Printed are ratios, for absolute figures tell more of the machine.  No
figure fails anything.

    bench.py [--programs DIR] [--only LOAD[,LOAD...]] [--svg FILE] [--markdown FILE]

Environment: CISTERND (./cisternd), BENCH_SCALE (1; .01 takes a minute), BENCH_ROUNDS (5),
BENCH_TMPFS (/dev/shm), BENCH_DISK (the current directory).
"""

import argparse
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import report
from servers import PATIENCE, PEERS, Cisternd, Failure, Limit

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CISTERND = os.environ.get("CISTERND", "./cisternd")
RUN_MOST = 600  # seconds of one run
DISK = os.environ.get("BENCH_DISK", ".")
TMPFS = os.environ.get("BENCH_TMPFS") or (
    "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())


def scaled(count, least=1):
    return max(int(count * SCALE), least)


@dataclass
class Load:
    """What is sent, and what serves it.  `measures` are (title, kind, goal) of
    rate: messages a second, cpu: the server's seconds a message, p99: of answers."""

    name: str
    send: list
    limit: list
    listener: str
    sink: str
    measures: list
    where: str = TMPFS
    lines: int = 0  # bytes that peers write to their file
    memory: bool = False


@dataclass
class Row:
    title: str
    goal: float
    value: float
    low: float
    high: float
    more: bool
    peers: dict = field(default_factory=dict)


NULL = 'type = "file"; path = "/dev/null"; format = "raw"; sync = false;'
MANY = "max_in_flight = 4096;"


def durable(kind, clients, messages, goal=None):
    """Receipts to so many clients, from the disk."""
    sink = ('type = "file"; path = "@DIR@/output"; format = "line";' if kind == "file" else
            'type = "spool"; directory = "@DIR@/spool"; min_free = 0;')
    limit = ["log"] if kind == "file" else ["spool", "-t", "2"]
    return Load(
        f"{kind}-{clients}",
        ["receipts", "-c", clients, "-n", scaled(messages, 20 * clients), "-s", 1024], limit,
        'framing = "line"; reply = "receipt";', sink,
        [(f"durable, {kind} sink, {clients} client{'s' if clients > 1 else ''}", "rate", goal)],
        where=DISK)


def loads():
    stream = scaled(1 << 30, 1 << 20)
    lines = scaled(96 << 20, 1 << 20)
    yield Load("bulk", ["stream", "-c", 4, "-b", stream, "-s", 65536], ["discard"],
               f'framing = "line"; {MANY}', NULL,
               [("bulk: 64 KiB lines", "rate", .85), ("bulk: CPU", "cpu", None)])
    yield Load("large", ["stream", "-c", 4, "-b", stream, "-s", 65536, "-f", "none"], ["files"],
               "max_message_size = 0;",
               'type = "spool"; directory = "@DIR@/spool"; sync = false; min_free = 0;',
               [("large: a message of 1 GB, spool", "rate", .8)])
    yield Load("short", ["short", "-c", 256, "-n", scaled(100000, 1000), "-s", 1024], ["discard"],
               "", NULL,
               [("short: 1 KiB a connection", "rate", .95),
                ("short: CPU a message", "cpu", 1.3)])
    for name, form, goal in (("lines", "line", .6), ("json", "json", 1 / 3)):
        yield Load(name, ["stream", "-c", 8, "-b", lines, "-s", 128], ["file"],
                   f'framing = "line"; {MANY}',
                   f'type = "file"; path = "@DIR@/output"; format = "{form}"; sync = false;',
                   [(f"lines: 128 bytes, format {form}", "rate", goal)],
                   lines=8 * (lines - lines % 128))
    for clients, messages in ((1, 3000), (8, 20000), (64, 60000)):
        yield durable("file", clients, messages)
        yield durable("spool", clients, messages // 3)
    yield durable("file", 256, 100000, .8)
    yield durable("spool", 256, 30000, .8)
    yield Load("echo", ["pingpong", "-c", 64, "-n", scaled(200000, 2000), "-s", 100], ["echo"],
               'framing = "delimiter"; delimiter = "\\n"; keep_delimiter = true; reply = "echo";',
               NULL, [("echo: p99 of 100-byte frames, 64 connections", "p99", 1.3)])
    yield Load("idle", ["idle", "-c", scaled(10000, 1000)], ["discard"], "", NULL,
               [("idle: KB (1000 bytes) resident a connection", "memory", 1.3)], memory=True)


class Bench:
    def __init__(self, programs):
        self.programs = programs
        self.rows, self.notes, self.commands = [], [], []

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)
            self.say(text)

    # One run

    def send(self, load, server, generators=1):
        """Runs the load against the server.  Gives what is measured."""
        arguments = [os.path.join(self.programs, "load"), *map(str, load.send)]
        share = getattr(server, "share", 1) if load.name == "short" else 1
        for option, part in (("-c", 1 / generators), ("-n", share / generators)):
            if option in arguments:
                at = arguments.index(option) + 1
                arguments[at] = str(max(int(int(arguments[at]) * part), 1))
        arguments += ["-p", str(server.port)]
        if load.memory:
            return self.hold(arguments, server)
        cpu = server.cpu()
        begun = time.monotonic()
        senders = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
                   for _ in range(generators)]
        try:
            said = [sender.communicate(timeout=RUN_MOST)[0] for sender in senders]
        except subprocess.TimeoutExpired:
            raise Failure(f"the load was not through after {RUN_MOST} seconds") from None
        finally:
            for sender in senders:
                sender.kill()
                sender.wait()
        if server.output and not server.promises:
            server.wait_until("has not written all",
                              lambda: os.path.exists(server.output) and
                              os.path.getsize(server.output) >= load.lines)
        seconds = time.monotonic() - begun
        results = [dict(word.split("=") for word in text.split()) for text in said]
        failed = sum(int(result.get("failed", 1)) for result in results)
        messages = sum(int(result.get("messages", 0)) for result in results)
        if messages == 0 or (failed > 0 and server.promises):
            raise Failure(f"the load failed ({' '.join(said).strip()})")
        if failed > 0:
            self.note(f"{load.name}: {server.command} reset some of the connections, which are "
                      "not counted")
        # Its own clock begins when the generator does; the wait for files is ours.
        if server.promises and generators == 1:
            seconds = float(results[0]["seconds"])
        return {"rate": messages / seconds, "cpu": (server.cpu() - cpu) / messages,
                "p99": max(float(result.get("p99", 0)) for result in results)}

    def hold(self, arguments, server):
        before = server.resident()
        holder = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True)
        try:
            word = holder.stdout.readline().split()
            if len(word) != 2:
                raise Failure("not all connections were held")
            self.settle(server)
            return {"memory": (server.resident() - before) / int(word[1]) / 1000}
        finally:
            holder.stdin.close()
            holder.wait()

    def settle(self, server):
        """Waits until the server has done with what it was sent."""
        end = time.monotonic() + PATIENCE
        last = None
        while time.monotonic() < end:
            now = (server.cpu(), server.resident())
            if now == last:
                return
            last = now
            time.sleep(.1)

    def run(self, load, contender):
        name, make, start, generators = contender
        directory = tempfile.mkdtemp(prefix="cistern-bench.", dir=load.where)
        server = make(os.path.realpath(directory))
        try:
            start(server, load)
            return self.send(load, server, generators)
        finally:
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)

    # All runs of a load

    def contenders(self, load):
        def limit(server, which):
            server.start(which, self.programs)

        def cisternd(server, which):
            server.start(which, CISTERND)

        def cisternd_on_all(server, which):
            server.start(which, CISTERND, os.cpu_count())

        yield "limit", Limit, limit, 1
        yield "cisternd", Cisternd, cisternd, 1
        # Peers that fork have all processors; so has cisternd, as it is installed.
        if load.name in ("bulk", "short", "lines"):
            yield f"cisternd, {os.cpu_count()} workers", Cisternd, cisternd_on_all, 1
        for peer in PEERS:
            if load.name not in peer.loads:
                continue
            why = peer(None).available(load)
            if why:
                self.note(f"left out: {why}")
                continue

            def start(server, which):
                server.available(which)
                server.start(which, self.programs)

            yield peer.command, peer, start, 1

    def rounds(self, load, contenders):
        """What each contender's rounds gave, by name; one that fails is left out."""
        results = {contender[0]: [] for contender in contenders}
        order = list(contenders)
        for number in range(ROUNDS + 1):
            random.shuffle(order)
            for contender in order:
                name = contender[0]
                if name not in results:
                    continue
                try:
                    result = self.run(load, contender)
                except Failure as failure:
                    self.note(f"{load.name}: left out: {name}: {failure}")
                    del results[name]
                    continue
                if number > 0 or ROUNDS == 0:
                    results[name].append(result)
            self.say(f"{load.name}: round {number} of {ROUNDS}")
        return results

    def compare(self, load):
        results = self.rounds(load, list(self.contenders(load)))
        self.commands.append(
            f"{load.name}: `load {' '.join(map(str, load.send))}` against "
            f"`limit {' '.join(load.limit)}` and cisternd with `{load.listener}` and the sink "
            f"`{load.sink.replace('@DIR@/', '')}`")
        if "limit" not in results or "cisternd" not in results:
            return
        for title, kind, goal in load.measures:
            def values(name):
                return [result[kind] for result in results[name]]

            absolute = kind == "memory"
            base = [1.0] * ROUNDS if absolute else values("limit")
            middle = statistics.median(base)
            each = [value / limit for value, limit in zip(values("cisternd"), base)]
            peers = {name: statistics.median(values(name)) / middle for name in results
                     if name not in ("limit", "cisternd")}
            if kind == "cpu":
                peers = {}  # theirs is in processes that come and go
            self.rows.append(Row(title, goal, statistics.median(values("cisternd")) / middle,
                                 min(each), max(each), kind == "rate", peers))

    # What is not a load for two

    def workers(self, load):
        """Two threads in terms of one, for the limit and for cisternd."""
        def limit(threads):
            return lambda server, which: server.start(which, self.programs, threads)

        def cisternd(threads):
            return lambda server, which: server.start(which, CISTERND, threads)

        results = self.rounds(load, [
            ("limit 1", Limit, limit(1), 2), ("limit 2", Limit, limit(2), 2),
            ("cisternd 1", Cisternd, cisternd(1), 2), ("cisternd 2", Cisternd, cisternd(2), 2)])
        if len(results) < 4:
            return
        middle = {name: statistics.median([one["rate"] for one in results[name]])
                  for name in results}
        each = [two["rate"] / one["rate"]
                for one, two in zip(results["cisternd 1"], results["cisternd 2"])]
        self.rows.append(Row(f"{load.name}: two workers in terms of one", None,
                             middle["cisternd 2"] / middle["cisternd 1"], min(each), max(each),
                             True, {"limit": middle["limit 2"] / middle["limit 1"]}))
        self.commands.append(f"two workers: {load.name} from two generators at once; the limit "
                             f"with `-t 2`, cisternd with `workers = 2`; {os.cpu_count()} "
                             "processors for all of them")

    def calls(self, load):
        """System calls a message, of one worker and its sink: counted by the kernel
        where perf may ask it, else by strace, under which threads sleep more often."""
        messages = 20000
        few = Load(**{**load.__dict__, "send": ["short", "-c", 256, "-n", messages, "-s", 1024]})
        directory = tempfile.mkdtemp(prefix="cistern-bench.", dir=TMPFS)
        server = Cisternd(os.path.realpath(directory))
        counted = os.path.join(directory, "calls")
        perf = ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", counted]
        try:
            if self.runs([*perf, "true"]):
                server.start(few, CISTERND)
                sender = [os.path.join(self.programs, "load"), *map(str, few.send)]
                subprocess.run([*perf, "-p", str(server.process.pid), *sender, "-p",
                                str(server.port)], check=True, stdout=subprocess.DEVNULL)
                total, how = r"^(\d+),", "perf stat -e raw_syscalls:sys_enter"
            elif self.runs(["strace", "-f", "-o", counted, "true"]):
                server.start(few, CISTERND, wrapper=("strace", "-f", "-c", "-o", counted))
                self.send(few, server)
                with open(os.path.join(directory, "pid")) as pid:
                    os.kill(int(pid.read()), signal.SIGTERM)
                server.process.wait(PATIENCE)
                total, how = r"(\d+) +(?:\d+ +)?total", "strace -f -c"
            else:
                self.note("left out: system calls a message: neither perf nor strace may count")
                return
            with open(counted) as table:
                each = int(re.search(total, table.read(), re.M)[1]) / messages
            self.rows.append(Row("short: system calls a message", 4.5, each, each, each, False))
            self.commands.append(f"system calls: `{how}` of cisternd under "
                                 f"`load {' '.join(map(str, few.send))}`")
        finally:
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)

    def runs(self, command):
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            return False

    def framing(self):
        said = subprocess.run([os.path.join(self.programs, "framing_bench")], text=True,
                              stdout=subprocess.PIPE, check=True).stdout
        for pieces, flat, price in re.findall(
                r'pieces="(.*?)" last-to-first-quarter=(\S+) to-largest-pieces=(\S+)', said):
            self.rows.append(Row(f"delimiter, pieces of {pieces}: last to first MiBs", None,
                                 float(flat), float(flat), float(flat), False))
            self.notes.append(f"delimiter framing, pieces of {pieces}: a byte costs {price} "
                              "times what it costs in pieces of 64 KiB (the price of a call)")
        self.commands.append("delimiter framing: `framing_bench`: a message of 16 MiB; what a byte "
                             "of its last quarter costs in terms of one of its first (1 is flat)")


def main():
    parser = argparse.ArgumentParser(description="cisternd beside raw epoll and its peers")
    parser.add_argument("--programs", default="tests/bench", help="where load and limit are")
    parser.add_argument("--only", help="loads, with commas; also workers, calls, framing")
    parser.add_argument("--svg", help="a file for the drawing")
    parser.add_argument("--markdown", help="a file for the table")
    arguments = parser.parse_args()
    only = arguments.only.split(",") if arguments.only else None
    # Whoever ends us so wants nothing left behind either.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bench = Bench(os.path.abspath(arguments.programs))
    every = {load.name: load for load in loads()}

    def wanted(name):
        return only is None or name in only

    unknown = set(only or ()) - set(every) - {"workers", "calls", "framing"}
    if unknown or ROUNDS < 1:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(every)}, "
                     "workers, calls, framing" if unknown else "BENCH_ROUNDS: at least 1")
    for load in every.values():
        if wanted(load.name):
            bench.compare(load)
    if wanted("calls"):
        bench.calls(every["short"])
    if wanted("workers"):
        bench.workers(every["bulk"])
        bench.workers(every["short"])
    if wanted("framing"):
        bench.framing()
    if SCALE != 1:
        bench.notes.insert(0, f"BENCH_SCALE={SCALE:g}: too short to judge by")
    bench.notes.append(f"medians of {ROUNDS} rounds after one that is thrown away; "
                       f"{os.cpu_count()} processors, shared by server and generator; "
                       f"tmpfs: {TMPFS}, disk: {os.path.realpath(DISK)}")
    text = report.markdown(bench.rows, bench.notes, bench.commands)
    print(text, end="")
    for path, content in ((arguments.markdown, text), (arguments.svg, report.svg(bench.rows))):
        if path:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            with open(path, "w") as file:
                file.write(content)


if __name__ == "__main__":
    main()
