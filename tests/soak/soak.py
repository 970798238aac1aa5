#!/usr/bin/env python3
"""soak: a long life with everything on: all framings, TLS, PROXY, limits, receipts and echoes,
all sinks (spools that forward to a file and to a command that fails now and then, a nats-server
that stands still now and then, a mock of Kafka), good clients and vandals, reloads with good
files and bad ones, files turned, the status service asked all the time.

What was acknowledged is stored, once in each of its sinks, whole and under the id of its
receipt; nothing half is anywhere, nothing is left in a spool that forwards; sinks, readers and
the daemon count the same.  Now and then all clients pause, and the daemon is looked at in peace:
then it has the descriptors, by kind, and the threads, by name, that its configuration explains,
to the last.  Resident memory is flat, at rest and, sampled every second, under load.

SOAK_SECONDS (15) or SOAK_MINUTES; SOAK_KILL=yes: kill -9 and a new start again and again; then
memory is not judged.  SOAK_CSV, SOAK_SVG: where samples and their drawing go.  make soak.
"""

import collections
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(TOP, "..", "tls"))
import peer  # noqa: E402
import storage  # noqa: E402
sys.path.insert(0, TOP)  # tests/crash has a brokers.py, too
import brokers  # noqa: E402
import curve  # noqa: E402
import inventory  # noqa: E402
import ledger  # noqa: E402
import senders  # noqa: E402
import stores  # noqa: E402
import verdict  # noqa: E402

SECONDS = float(os.environ["SOAK_MINUTES"]) * 60 if "SOAK_MINUTES" in os.environ \
    else float(os.environ.get("SOAK_SECONDS", "15"))
KILLS = os.environ.get("SOAK_KILL") == "yes"
# Rests, the first before anybody comes.
LAPS = int(min(20, max(2, SECONDS / 10)))

CONFIG = """
address = "127.0.0.1"; workers = 2; spill_directory = "{directory}"; shutdown_timeout = 30;
memory_limit = "4M"; max_message_size = "4M"; idle_timeout = {idle}; backlog = {backlog};
deny = [ "127.0.0.3" ]; proxy_from = [ "127.0.0.1" ]; incomplete = "broken";
log = {{ target = "{directory}/log"; level = "info"; }};
status = {{ address = "127.0.0.1"; port = {status}; }};
listeners = {{ {listeners} {more} }};
sinks = {{ {sinks} }};
"""
TLS = 'tls = { certificate = "%s/server.pem"; key = "%s/server.key"; };'
# What an operator gets wrong: (what is there, what stands in its place).
MISTAKES = (("idle_timeout", "idle_timeuot"), ("workers = 2;", "workers = two;"),
            ("server.key", "none.key"), ('"broken"', '"borken"'), ("sinks = {", "sinks = { 3 = 4;"), ("127.0.0.3", "127.0.0.333"),
            ("netstring", "netsrting"))


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Log(stores.Lines):
    """The daemon's, line by line; what must not be in it is a problem."""

    def __init__(self, directory, books):
        super().__init__(os.path.join(directory, "log"))
        self.books, self.recent, self.count = books, collections.deque(maxlen=5000), 0

    def poll(self):
        for line in self.lines():
            line = line.decode("utf-8", "replace")
            self.count += 1
            self.recent.append((self.count, line))
            # A bad file's errors are what MISTAKES asks for.
            if re.search(r"^\S+ error (?!reload-refused|tls-unusable)| bug:|Sanitizer", line):
                self.books.complain("log: " + line)

    def since(self, count, pattern):
        return next((found for number, line in list(self.recent) if number > count
                     for found in [re.search(pattern, line)] if found), None)


class Soak:
    """The daemon, and what goes on around it."""

    def __init__(self, directory, found):
        self.directory, self.kills, self.brokers = directory, KILLS, found
        self.tool = storage.program("CISTERN", "./cistern") or ""
        self.sinks = list(stores.SINKS) + [brokers.SINKS[kind] for kind in found]
        # What is handed on when its spool's daemon dies is handed on again by the next one.
        self.ledger = ledger.Ledger([sink.name for sink in self.sinks],
                                    [sink.name for sink in self.sinks if sink.front and KILLS])
        self.stores = [sink.kind(sink, directory, self.ledger) for sink in stores.SINKS] + \
            [brokers.SINKS[kind].kind(brokers.SINKS[kind], directory, self.ledger, broker)
             for kind, broker in found.items()]
        self.listeners = [one for one in senders.LISTENERS
                          if set(one.sinks) <= set(self.ledger.stored)]
        self.log = Log(directory, self.ledger)
        ports = free_ports(len(self.listeners) + 2)
        self.ports = dict(zip([one.name for one in self.listeners] + ["more", "status"], ports))
        self.status_address = ("127.0.0.1", self.ports["status"])
        self.chance = random.Random(9)
        self.samples, self.did = [], collections.Counter()
        self.gate, self.looking, self.clock = senders.Gate(), threading.Lock(), senders.Clock()
        self.rests, self.counts, self.usual = [], [], None
        self.stopping, self.account = False, {}
        self.polling = threading.Lock()
        self.errors = open(os.path.join(directory, "stderr"), "wb")
        self.process = None
        self.heap = os.path.join(directory, "heap")
        # As they are taken: a run of hours that fails has a curve, too.
        self.table = open(os.environ["SOAK_CSV"], "w", encoding="ascii") \
            if os.environ.get("SOAK_CSV") else None

    def complain(self, text):
        self.ledger.complain(text)

    def address(self, listener):
        return os.path.join(self.directory, "local") if listener.local \
            else ("127.0.0.1", self.ports[listener.name])

    def config(self):
        chance = self.chance
        values = {"directory": self.directory, "buffer": chance.choice((256, 4096, 65536)),
                  "rate": chance.choice((4, 8)), "flight": chance.choice((2, 20, 1024)),
                  "mode": chance.choice(("0640", "0600")), "processes": chance.choice((2, 4)),
                  "idle": chance.choice((20, 25)), "backlog": chance.choice((128, 1024)),
                  "status": self.ports["status"], "patience": chance.choice((50, 55))}
        for broker in self.brokers.values():
            values.update(broker.values())
        deliver = {sink.name: sink.deliver() for sink in self.sinks}
        listeners = ""
        for one in self.listeners:
            where = 'address = "unix:%s";' % self.address(one) if one.local \
                else "port = %d;" % self.ports[one.name]
            listeners += '%s = { %s framing = "%s"; reply = "%s"; deliver = [ %s ]; %s %s %s };\n' % (
                one.name, where, one.framing, one.reply,
                ", ".join('"%s"' % deliver[name] for name in one.sinks), one.text.format(**values),
                TLS % (self.directory, self.directory) if one.tls else "",
                "proxy_protocol = true;" if one.proxy else "")
        more = chance.choice(("", 'more = { port = %d; deliver = "f"; };' % self.ports["more"]))
        sinks = "".join("%s = { %s };\n" % (sink.name, sink.text.format(**values))
                        for sink in self.sinks)
        sinks += "".join(stores.FRONT.format(front=sink.front, name=sink.name, **values)
                         for sink in self.sinks if sink.front)
        return CONFIG.format(listeners=listeners, more=more, sinks=sinks, **values)

    def write(self, text):
        path = os.path.join(self.directory, "cistern.conf")
        with open(path + ".new", "w", encoding="ascii") as out:
            out.write(text)
        os.rename(path + ".new", path)

    def start(self):
        seen = self.log_count()
        self.process = subprocess.Popen(
            [storage.program(), "-c", os.path.join(self.directory, "cistern.conf")],
            stdin=subprocess.DEVNULL, stdout=self.errors, stderr=self.errors,
            env=dict(os.environ, **inventory.heap_environment(self.heap)))
        self.wait_log(seen, r" ready: ")

    def log_count(self):
        self.poll()
        return self.log.count

    def poll(self):
        with self.polling:
            self.log.poll()
            for store in self.stores:
                store.poll()

    def wait_log(self, seen, pattern):
        until = time.monotonic() + storage.DEADLINE
        while time.monotonic() < until:
            self.poll()
            found = self.log.since(seen, pattern)
            if found:
                return found
            if self.process.poll() is not None:
                with open(self.errors.name, encoding="utf-8", errors="replace") as text:
                    raise RuntimeError("it has ended (%s):\n%s" % (
                        self.process.poll(), text.read()[-4000:]))
            time.sleep(.005)
        raise RuntimeError("the log lacks " + pattern)

    # What an operator does.  Each is over when the daemon has said so.

    def reload(self):
        seen = self.log_count()
        self.write(self.config())
        self.process.send_signal(signal.SIGHUP)
        self.wait_log(seen, r" reloaded: ")
        self.did["reloads"] += 1

    def reload_in_vain(self):
        seen, text = self.log_count(), self.config()
        wrong, right = self.chance.choice(MISTAKES)
        self.write(text.replace(wrong, right))
        self.process.send_signal(signal.SIGHUP)
        self.wait_log(seen, r" reload-refused: .* stays in force")
        self.write(text)
        self.did["refused reloads"] += 1

    def turn(self):
        with self.polling:
            turned = [one for one in self.stores + [self.log] if one.turn()]
        # The log itself is turned, so that the end of the turn is a new file.
        self.process.send_signal(signal.SIGUSR1)
        until = time.monotonic() + storage.DEADLINE
        while not all(os.path.exists(one.path) for one in turned):
            if time.monotonic() > until:
                raise RuntimeError("not opened anew: %s" % [one.path for one in turned])
            time.sleep(.01)
        for one in turned:
            one.turn_over()
        self.did["files turned"] += len(turned)

    def freeze(self):
        """A broker that answers nobody for a while."""
        self.brokers["nats"].freeze()
        time.sleep(self.chance.uniform(0, .5))
        self.brokers["nats"].thaw()
        self.did["frozen brokers"] += 1

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.poll()
        files = [one for one in self.stores if isinstance(one, stores.File)]
        for one in files:
            one.hold()
        self.start()
        for one in files:
            one.held = False
        self.did["kills"] += 1

    def operate(self, seconds):
        acts = [self.reload] * 4 + [self.reload_in_vain] * 2 + [self.turn] * 2
        if "nats" in self.brokers:
            acts += [self.freeze]
            self.freeze()  # in the shortest run, too
        if KILLS:
            acts += [self.kill] * 4
        until = time.monotonic() + seconds
        while time.monotonic() < until and len(self.ledger.problems) < 20:
            self.chance.choice(acts)()
            pause = time.monotonic() + min(self.chance.uniform(0, 2), max(0, until - time.monotonic()))
            while time.monotonic() < pause:
                self.poll()
                time.sleep(.05)

    # What is looked at.

    def metrics(self):
        url = "http://127.0.0.1:%d/metrics" % self.ports["status"]
        with urllib.request.urlopen(url, timeout=storage.DEADLINE) as answer:
            text = answer.read().decode()
        return {(name, labels): float(value) for name, labels, value in
                re.findall(r"^(\w+)(\{[^}]*\})? (\S+)$", text, re.M)}

    def sum(self, metrics, name):
        return sum(value for (key, _), value in metrics.items() if key == "cistern_" + name)

    def look(self):
        return inventory.Inventory(self.process.pid, self.ports, self.heap)

    def sample(self, began):
        has = inventory.Inventory(self.process.pid)
        asked = time.monotonic()
        metrics = self.metrics()
        asked = time.monotonic() - asked
        received = self.sum(metrics, "messages_received_total")
        ended = sum(self.sum(metrics, "messages_" + name)
                    for name in ("accepted_total", "refused_total", "failed_total", "in_flight"))
        if received != ended:
            self.complain("received %d, accounted for %d" % (received, ended))
        with urllib.request.urlopen("http://127.0.0.1:%d/status.json" % self.ports["status"],
                                    timeout=storage.DEADLINE) as answer:
            json.load(answer)
        now = time.monotonic() - began
        last = self.samples[-1] if self.samples else {"second": 0, "messages": 0}
        self.samples.append({
            "second": round(now, 2), "resident": has.resident,
            "descriptors": sum(has.kinds.values()), "threads": sum(has.threads.values()),
            **has.kinds, "connections": int(self.sum(metrics, "connections_active")),
            "message_bytes": int(self.sum(metrics, "memory_message_bytes")),
            "messages": int(received), "reloads": self.did["reloads"],
            "asked_ms": round(asked * 1000), "sync_ms": round(self.sync() * 1000),
            "rate": round(max(0, received - last["messages"]) / max(.1, now - last["second"]), 1)})
        if self.table is not None:
            if len(self.samples) == 1:
                self.table.write(",".join(self.samples[0]) + "\n")
            self.table.write(",".join(map(str, self.samples[-1].values())) + "\n")
            self.table.flush()

    def sync(self):
        """Seconds that the disk takes for one of ours: when all stands still, who did?"""
        began = time.monotonic()
        with open(os.path.join(self.directory, "sync"), "wb") as file:
            file.write(b"x")
            file.flush()
            os.fdatasync(file.fileno())
        return time.monotonic() - began

    def sampler(self):
        began = time.monotonic()
        while not self.stopping:
            try:
                with self.looking:
                    self.sample(began)
            except (OSError, ValueError, AttributeError) as error:
                if not KILLS:
                    self.complain("sample: %r" % error)
            time.sleep(1)

    def touch(self, number):
        """A message to each broker: clients connect when they have something to say."""
        for listener in self.listeners:
            if set(listener.sinks) & {brokers.SINKS[kind].name for kind in self.brokers}:
                client = senders.Good(self, listener, number)
                try:
                    client.exchange()
                except OSError as error:
                    self.complain("%s: %r" % (client.prefix, error))

    def left(self, *rooms):
        """What lies in the spools that hand on."""
        return [os.path.join(sink.front, room, entry) for sink in self.sinks if sink.front
                for room in rooms
                for entry in os.listdir(os.path.join(self.directory, sink.front, room))]

    def is_quiet(self):
        try:
            metrics = self.metrics()
        except OSError:
            return False
        return not self.sum(metrics, "connections_active") and \
            not self.sum(metrics, "messages_in_flight") and not self.left("new")

    def settle(self):
        """What it has when nobody is there: what it had at the first rest, if it comes to that.
        (The status service takes a second to part from whoever has asked.)"""
        until, seen, since = time.monotonic() + storage.DEADLINE, None, 0
        while time.monotonic() < until and not self.is_quiet():
            self.poll()
            time.sleep(.1)
        while time.monotonic() < until:
            self.poll()
            has = self.look()
            if has != seen:
                seen, since = has, time.monotonic()
            if has == self.rests[0] if self.rests else time.monotonic() > since + 2:
                break
            time.sleep(.1)
        return has

    def rest(self):
        """Nobody comes meanwhile.  The same file each time: listeners come and go with reloads."""
        with self.looking:
            seen = self.log_count()
            self.write(self.usual)
            self.process.send_signal(signal.SIGHUP)
            self.wait_log(seen, r" reloaded: ")
            self.touch(100 + len(self.rests))
            self.rests.append(self.settle())
            metrics = self.metrics()
            self.counts.append([int(self.sum(metrics, name + "_total")) for name in
                                ("messages_received", "connections_accepted")])

    def explained(self):
        """How many descriptors of each kind and threads of each name it has at rest."""
        workers, found = 2, collections.Counter(inventory.ITSELF)
        found.update(epolls=workers, eventfds=workers,
                     **{"worker-%d" % number: 1 for number in range(workers)})
        with open(os.path.join(self.directory, "cistern.conf"), encoding="ascii") as file:
            more = re.search("more = ", file.read()) is not None
        for one in self.listeners:
            found.update(sockets=1 if one.local else workers)
        found.update({"greeter-%d" % number: 1 for number in range(0, workers, 2)}
                     if any(one.tls for one in self.listeners) else {})
        found.update(sockets=workers if more else 0)
        for name, kind in [("console", "console")] + [(sink.name, sink.type()) for sink in self.sinks] + [
                (sink.front, kind) for sink in self.sinks if sink.front for kind in ("spool", "forward")]:
            for what, count in inventory.SINKS[kind].items():
                found["%s-%s" % (what, name) if what not in inventory.NAMES else what] += count
        return found

    def stop(self):
        """Sums by sink, before the stop."""
        metrics = self.metrics()
        names = list(self.ledger.stored) + [sink.front for sink in self.sinks if sink.front]
        sums = {name: int(metrics["cistern_sink_messages_total",
                                  '{sink="%s",outcome="accepted"}' % name]) for name in names}
        seen = self.log_count()
        self.process.terminate()
        code = self.process.wait(storage.DEADLINE)
        self.poll()
        found = self.log.since(seen, r"received (\d+) messages: (\d+) accepted, (\d+) refused, (\d+) "
                                     r"failed, (\d+) in flight; discarded (\d+)")
        self.account = dict(zip(("received", "accepted", "refused", "failed", "in flight", "discarded"),
                                map(int, found.groups()))) if found else {}
        return code, sums

    def read_all(self, sums):
        """Until readers have what sinks have counted, or, where counts died, what was promised."""
        until = time.monotonic() + storage.DEADLINE
        while time.monotonic() < until:
            self.poll()
            if not self.ledger.lost() if KILLS else \
                    all(sums[name] == count for name, count in self.ledger.stored.items()):
                break
            time.sleep(.05)


def draw(samples):
    if os.environ.get("SOAK_SVG"):
        title = "cisternd for %.3g minutes: %d messages, %d reloads (grey: warm-up)" % (
            SECONDS / 60, samples[-1]["messages"], samples[-1]["reloads"])
        with open(os.environ["SOAK_SVG"], "w", encoding="utf-8") as out:
            out.write(curve.svg(samples, samples[len(samples) // 5]["second"], title))


def run(tap, directory):
    peer.certificate(directory, "server", "/CN=localhost")
    found = brokers.start(directory, tap)
    try:
        live(tap, directory, found)
    finally:
        for broker in found.values():
            broker.close()


def live(tap, directory, found):
    soak = Soak(directory, found)
    soak.write(soak.config())
    soak.start()
    try:
        for _ in range(3):
            soak.reload()
        with open(os.path.join(directory, "cistern.conf"), encoding="ascii") as file:
            soak.usual = file.read()
        soak.rest()
        clients = senders.everybody(soak, 4)
        soak.clock.start()
        sampler = threading.Thread(target=soak.sampler, daemon=True)
        for thread in clients + [sampler]:
            thread.start()
        for _ in range(LAPS - 1):
            soak.operate(SECONDS / LAPS)
            since = time.monotonic()
            while not soak.gate.shut(len(clients)):
                if soak.clock.stood_still(since) == 0:
                    soak.complain("somebody does not come to an end")
                    break
                since = time.monotonic()
            soak.rest()
            soak.gate.lift()
        soak.operate(SECONDS / LAPS)
        soak.stopping = True
        for client in clients:
            client.stopping = True
        for client in clients + [sampler]:
            client.join(storage.DEADLINE)
        stuck = [client.prefix for client in clients if client.is_alive()]
        soak.rest()
        code, sums = soak.stop()
        soak.read_all(sums)
    finally:
        if soak.process.poll() is None:
            soak.process.kill()
            soak.process.wait()
        soak.errors.close()
    judge(tap, soak, clients, stuck)
    counts = not peer.is_sanitized()
    verdict.judge_rests(tap, soak.rests, soak.explained(), list(found))
    tap.note("KiB resident at rest: %s" % ", ".join(str(rest.resident) for rest in soak.rests))
    if not KILLS and soak.rests[0].heap is not None:
        verdict.judge_heap(tap, soak.rests, SECONDS, soak.counts)
    judge_account(tap, soak, code, sums)
    if not KILLS:
        verdict.judge_load(tap, soak.samples, SECONDS >= verdict.JUDGED_FROM, counts)
    draw(soak.samples)


def judge(tap, soak, clients, stuck):
    tap.note("%s; %d connections of good clients, %d of vandals" % (
        ", ".join("%d %s" % (count, what) for what, count in sorted(soak.did.items())),
        sum(client.served for client in clients if isinstance(client, senders.Good)),
        sum(client.served for client in clients if isinstance(client, senders.Vandal))))
    if soak.clock.gaps:
        tap.note("this process stood still, seconds: %s" % ", ".join(
            "%.0f" % length for _, length in soak.clock.gaps))
    idle = [client.prefix for client in clients if not client.served]
    tap.result(not stuck and not idle, "every client was served, none is stuck",
               "stuck: %s; idle: %s" % (stuck, idle))
    problems = soak.ledger.problems
    tap.result(not problems, "%d receipts, %d records: none half, none twice, ids as in the receipts" % (
        soak.ledger.acknowledged, sum(soak.ledger.stored.values())),
        "\n".join(problems[:20]) + "\n%d problems" % len(problems))
    lost = soak.ledger.lost()
    tap.result(not lost, "every message that was acknowledged is in all of its sinks",
               "%d lost: %s" % (len(lost), lost[:20]))


def judge_account(tap, soak, code, sums):
    left = soak.left("new", "failed", "tmp")
    tap.result(not left, "spools that hand on have nothing left", str(left[:20]))
    handed_on = {sink.name: sums.pop(sink.front) for sink in soak.sinks if sink.front}
    account = soak.account
    good = code == 0 and account and account["in flight"] == account["failed"] == 0 and \
        account["received"] == account["accepted"] + account["refused"] and \
        (KILLS or account["accepted"] >= soak.ledger.acknowledged)
    tap.result(good, "an orderly stop: %s" % account)
    if not KILLS:
        # A life that was killed has taken its counts along.
        tap.result(sums == soak.ledger.stored, "sinks count what their readers found: %s" % sums,
                   "readers: %s" % soak.ledger.stored)
        tap.result(all(sums[name] == count for name, count in handed_on.items()),
                   "what the spools took is what they handed on: %s" % handed_on)


def main():
    peer.need()
    tap = storage.Tap()
    with storage.Scratch() as directory:
        run(tap, directory)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
