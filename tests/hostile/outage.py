#!/usr/bin/env python3
"""outage: who takes the messages is away for long: a command that fails, a nats-server that
is killed or held up, a cluster of kafka brokers that are gone or lead nothing.

Each time senders go on.  Meanwhile they are told to try again, /readyz says so where the
sink can know, memory and descriptors stay; afterwards all is as before, and every receipt
stands for a message that is there.  HOSTILE_FULL=1: for longer and more often.

outage.py [NAME]...: only these.
"""

import importlib.util
import os
import sys
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402
import machine  # noqa: E402
from kit import MIB, storage, wait_for  # noqa: E402
from machine import EPISODE, SANITIZED, TIMES, judge, readiness  # noqa: E402

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "%s"; memory_limit = "16M"; shutdown_timeout = 10;
status = { port = 0; }; deliver = "b"; sinks = { b = { %s }; };
"""


def kit_of(room):
    """Those of tests/nats and tests/kafka are both called cluster."""
    spec = importlib.util.spec_from_file_location(
        room + "_cluster", os.path.join(kit.TOP, "..", room, "cluster.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nats, kafka = kit_of("nats"), kit_of("kafka")


class Command:
    """Which answers for one message at a time: /readyz knows nothing."""

    told = False
    sizes = 20000

    def __init__(self, scratch):
        self.scratch = scratch
        self.ways = {"fails": (lambda: machine.command_down(scratch),
                               lambda: machine.command_up(scratch))}
        machine.settings(scratch, "c")

    def sink(self):
        return 'type = "command"; argv = [ "/bin/sh", "%s/command" ]; run_as_root = true;' % self.scratch

    def stored(self):
        taken, found = os.path.join(self.scratch, "taken"), {}
        for name in os.listdir(taken):
            if not name.startswith("tmp."):
                with open(os.path.join(taken, name), "rb") as file:
                    found[name] = file.read()
        return found

    def close(self):
        pass


class Nats:
    told = True
    sizes = 20000

    def __init__(self, scratch):
        self.cluster = nats.Cluster(os.path.join(scratch, "nats"))
        self.server = self.cluster.servers[0]
        self.cluster.add_stream("S", ["intake.>"])
        # Held up: connections stay, and nothing is answered.
        self.ways = {"is killed": (self.server.kill, self.cluster.start),
                     "is held up": (self.server.freeze, self.server.thaw)}

    def sink(self):
        return 'type = "nats"; servers = %s; stream = "S"; subject = "intake.{listener}"; ' \
            'timeout = 2;' % self.cluster.urls()

    def stored(self):
        return {headers["Nats-Msg-Id"]: data for _, headers, data in self.cluster.messages("S")}

    def close(self):
        self.cluster.__exit__()


class Kafka:
    told = True
    sizes = 2000  # a partition of the mock cluster keeps 5 MiB, and is read meanwhile

    def __init__(self, scratch):
        self.mock = kafka.Mock(scratch)
        self.topic = self.mock.topic("b", 3)
        self.ways = {"brokers are gone": (lambda: self.mock.tell("down", -1),
                                          lambda: self.mock.tell("up", -1)),
                     "nobody leads": (lambda: self.lead(-1, -1, -1), lambda: self.lead(1, 2, 3))}

    def lead(self, *brokers):
        for partition, broker in enumerate(brokers):
            self.mock.tell("leader", self.topic, partition, broker)

    def sink(self):
        return 'type = "kafka"; brokers = [ %s ]; topic = "%s"; timeout = 2; ' \
            'properties = [ "reconnect.backoff.max.ms=200" ];' % (
                ", ".join('"%s"' % broker for broker in self.mock.brokers), self.topic)

    def stored(self):
        return {record.id: record.value for record in self.mock.records(self.topic)}

    def close(self):
        self.mock.__exit__()


def found_in(broker, senders):
    """Each message that a receipt stands for: the reader of a topic may be a little behind."""
    def look():
        found, stored = storage.Found(), broker.stored()
        for id_, (name, size) in senders.acknowledged().items():
            if id_ not in stored:
                found.lost.append(id_)
            elif stored[id_] != storage.message(name, size):
                found.torn.append(id_)
            else:
                found.found += 1
        return found

    def all_of_it():
        try:
            return wait_for("all of it", lambda: (lambda found: found if not found.lost else None)(look()))
        except TimeoutError:
            return look()
    return all_of_it


def go_away(tap, daemon, senders, broker, way):
    down, up = broker.ways[way]
    for _ in range(TIMES):
        down()
        senders.more("RETRY ")
        if broker.told:
            readiness(tap, daemon, 503, way)
        before, holds = daemon.memory(), daemon.descriptors()
        until = kit.now() + 4 * EPISODE
        while kit.now() < until:
            time.sleep(0.1)
        grown = daemon.memory() - before
        tap.result(SANITIZED or grown < 17 * MIB, "%s for %.0f s: memory grew by %.1f MiB, "
                   "descriptors %d, then %d" % (way, 4 * EPISODE, grown / MIB, holds,
                                                daemon.descriptors()))
        up()
        senders.more("OK")
        readiness(tap, daemon, 200, "no longer: " + way)


def away(tap, scratch, kind):
    name, broker = kind.__name__.lower(), kind(scratch)
    try:
        daemon = kit.Daemon(scratch, CONFIG % (scratch, broker.sink()))
        senders = machine.Senders(daemon.port(), largest=broker.sizes)
        senders.more("OK")
        threads = daemon.threads()
        for way in broker.ways:
            go_away(tap, daemon, senders, broker, way)
        wait_for("threads", lambda: daemon.threads() <= threads + 8)
        tap.note("%s: %d threads, then %d" % (name, threads, daemon.threads()))
        judge(tap, daemon, senders, found_in(broker, senders), "outage, " + name)
    finally:
        broker.close()


def command(tap, scratch):
    away(tap, scratch, Command)


def nats_server(tap, scratch):
    why = nats.missing()
    if why is not None:
        tap.skip("nats", why)
    else:
        away(tap, scratch, Nats)


def kafka_brokers(tap, scratch):
    why = kafka.mock_missing()
    if why is not None:
        tap.skip("kafka", why)
    else:
        away(tap, scratch, Kafka)


if __name__ == "__main__":
    if storage.program() is None:
        storage.skip_all("no cisternd ($CISTERND)")
    sys.exit(kit.run_all([command, nats_server, kafka_brokers]).end())
