#!/usr/bin/env python3
"""storm: many clients with receipts send through a kafka sink while brokers fail, go and come
back, and the daemon is killed and started again.  Every message that was acknowledged is in
the topic, byte for byte; and once, but where the mock cluster is cut off from its clients, as it
looks at no sequences.  Brokers that do (broker.py) refuse and lose answers all the time.

storm.py [NAME]...: only these parts.  STORM_MESSAGES: how many are sent (4,000; make check-kafka: 100,000).
"""

import collections
import itertools
import os
import random
import sys
import threading
import time

import cluster
from cluster import Broker, Kafka, Mock, frame, storage
from manager import connect, wait_for

MESSAGES = int(os.environ.get("STORM_MESSAGES", "4000"))
CLIENTS = 24
PARTITIONS = 6
BATCH = max(5, min(40, MESSAGES // 2 // CLIENTS // 16))  # a connection
PACE = 0.6  # seconds between two, at most: the storm lasts for as long as they send
# Refused for good, or to be sent again; or true for all requests (a leader that has moved).
ERRORS = [cluster.INVALID_RECORD, cluster.NOT_LEADER, cluster.REQUEST_TIMED_OUT,
          cluster.NOT_ENOUGH_REPLICAS, cluster.STORAGE_ERROR]
MOVED = 0.3  # seconds that a leader stays moved, so that all requests are told

tap = storage.Tap()


class Sender(threading.Thread):
    """Sends a batch a connection and what was not accepted again, until all of its messages
    are; remembers every receipt."""

    def __init__(self, storm, number, count):
        super().__init__(daemon=True)
        self.storm, self.chance = storm, random.Random(number)
        self.left = ["%d.%d" % (number, n) for n in range(count)]
        self.size = {name: self.any_size() for name in self.left}
        self.acknowledged = {}  # id: name
        self.answers = collections.Counter()
        self.problems = []

    def any_size(self):
        chance = self.chance.random()
        if chance < 0.01:
            return self.chance.randrange(70000, 300000)
        return self.chance.randrange(40, 20000 if chance < 0.05 else 900)

    def run(self):
        until = time.monotonic() + 40 * storage.DEADLINE
        while self.left and time.monotonic() < until:
            names = self.left[:BATCH]
            accepted = self.send(names)
            self.left = [name for name in names if name not in accepted] + self.left[BATCH:]
            time.sleep(self.chance.uniform(0, PACE))
        if self.left:
            self.problems.append("%d were never accepted" % len(self.left))

    def send(self, names):
        accepted, received = set(), b""
        try:
            client = connect(self.storm.address)
        except OSError:
            time.sleep(0.02)  # it is being started again
            return accepted
        with client:
            try:
                client.sendall(frame(*(storage.message(name, self.size[name]) for name in names)))
                client.shutdown(1)
                while chunk := client.recv(65536):
                    received += chunk
            except TimeoutError:
                self.problems.append("stuck")
            except OSError:
                pass  # killed, or reset, which is an answer
        for name, line in zip(names, received.split(b"\n")[:-1]):
            word, *rest = line.decode().split()
            self.answers[line.decode() if word != "OK" else word] += 1
            if word == "OK":
                self.acknowledged[rest[0]] = name
                accepted.add(name)
        return accepted


class Storm:
    def __init__(self, scratch, mock, name, count, timeout="3s"):
        self.topic, self.timeout = mock.topic(name, PARTITIONS), timeout
        self.scratch, self.mock, self.logs, self.daemon = scratch, mock, "", None
        self.port = "0"
        self.start()
        self.address = self.daemon.address()
        self.port = str(self.address[1])
        self.senders = [Sender(self, n, count // CLIENTS) for n in range(CLIENTS)]
        for sender in self.senders:
            sender.start()

    def start(self):
        self.daemon = Kafka(self.scratch, self.mock.brokers, self.topic,
                            'key = "id"; timeout = "%s"; properties = [ ' % self.timeout +
                            '"queue.buffering.max.messages=500", "reconnect.backoff.max.ms=200" ];',
                            'memory_limit = "8M"; buffer_size = 8192;', port=self.port)
        self.daemon.ready()

    def kill(self):
        self.daemon.kill()
        self.logs += self.daemon.log()
        self.start()

    def accepted(self):
        return sum(len(sender.acknowledged) for sender in self.senders)

    def go_on(self, count):
        """Until so many more were accepted, or a while is over."""
        before, until = self.accepted(), time.monotonic() + 3
        while self.is_going_on() and self.accepted() < before + count and time.monotonic() < until:
            time.sleep(0.01)

    def is_going_on(self):
        return any(sender.is_alive() for sender in self.senders)

    def check(self, what, once):
        """Waits for the senders, then for the topic, and compares."""
        for sender in self.senders:
            sender.join()
        problems = [problem for sender in self.senders for problem in sender.problems]
        answers = sum((sender.answers for sender in self.senders), collections.Counter())
        tap.result(not problems, "%s: all are accepted in the end" % what, repr(problems[:5]))
        wanted = {i: (name, sender.size[name]) for sender in self.senders
                  for i, name in sender.acknowledged.items()}

        def look():
            ids = {record.id for record in self.mock.records(self.topic)}
            return wanted.keys() <= ids or None
        try:
            wait_for("all that was acknowledged", look, 30)
            lost = []
        except TimeoutError:
            ids = {record.id for record in self.mock.records(self.topic)}
            lost = [i for i in wanted if i not in ids]
        records = self.mock.records(self.topic)
        tap.result(not lost, "%s: none of %d that were acknowledged is lost" % (what, len(wanted)),
                   repr(lost[:5]))
        torn = [record.id for record in records if not storage.is_whole(record.value) or
                (record.id in wanted and record.value != storage.message(*wanted[record.id]))]
        tap.result(not torn, "%s: each of %d records is as it was sent" % (what, len(records)),
                   repr(torn[:5]))
        twice = [i for i, n in collections.Counter(r.id for r in records).items() if n > 1]
        if once:
            tap.result(not twice, "%s: each is there once" % what, repr(twice[:5]))
        tap.note("%s: answers %s; %d ids twice%s" % (
            what, dict(answers), len(twice), "" if once else
            " (the mock cluster does not look at sequences)"))
        self.daemon.finish(tap, what)
        self.daemon.end()


def injected(scratch):
    """Errors of brokers that stay, and leaders that move."""
    with Mock(scratch) as mock:
        storm, chance = Storm(scratch, mock, "injected", MESSAGES // 2), random.Random(1)
        for n in itertools.count():
            if not storm.is_going_on():
                break
            storm.go_on(MESSAGES // 80)
            if n % 2 == 0:
                mock.tell("clear", cluster.PRODUCE)
                mock.errors(*(chance.choice(ERRORS) for _ in range(chance.randrange(1, 4))))
                continue
            for partition in range(PARTITIONS):
                mock.tell("leader", storm.topic, partition, chance.randrange(1, 4))
            time.sleep(MOVED)
        mock.tell("clear", cluster.PRODUCE)
        storm.check("errors", once=True)


def brokers(scratch):
    """Brokers that go and come back, one at a time and all at once, and cut connections; the
    daemon is killed now and then."""
    with Mock(scratch) as mock:
        storm, chance = Storm(scratch, mock, "brokers", MESSAGES // 2), random.Random(2)
        for n in itertools.count():
            if not storm.is_going_on():
                break
            which = -1 if n % 5 == 4 else 1 + n % 3
            mock.tell("down", which)
            time.sleep(chance.uniform(0.05, 0.4))
            mock.errors(*[cluster.DISCONNECT] * chance.randrange(1, 4))
            mock.tell("up", which)
            if n % 4 == 3:
                storm.kill()
            storm.go_on(MESSAGES // 80)
            mock.tell("clear", cluster.PRODUCE)
        tap.note("%d times a broker or all were gone, %d kills" % (n, n // 4))
        storm.check("brokers", once=False)


def retried(scratch):
    """Brokers that look at sequences: of the batches that come, one in seven is to be tried
    again, was stored although its answer says so, or loses its connection.  With more than one
    request on its way librdkafka 2.0.2 loses some here that it has reported, and repeats
    others: max.in.flight is 1 for that.  The daemon is killed now and then."""
    with Broker(scratch) as broker:
        broker.tell("trouble", 140)
        storm = Storm(scratch, broker, "retried", MESSAGES // 2, "30s")
        for n in itertools.count():
            storm.go_on(MESSAGES // 40)
            if not storm.is_going_on():
                break
            if n % 4 == 3:
                storm.kill()
        broker.tell("trouble", 0)
        tap.note("%d kills; %s" % (n // 4, broker.tell("tell")))
        storm.check("retried", once=True)


def main():
    cluster.mock_program()
    sys.setswitchinterval(0.001)
    for part in (injected, brokers, retried):
        if len(sys.argv) == 1 or part.__name__ in sys.argv[1:]:
            with storage.Scratch() as scratch:
                part(scratch)
    raise SystemExit(tap.end())


if __name__ == "__main__":
    main()
