"""brokers: a nats-server and a cluster of librdkafka's mock brokers beside the soak, as the
kits of tests/nats and tests/kafka have them, and the readers of what is stored there.

Where something is missing for one, it is left out, and why is said.
"""

import base64
import importlib.util
import os
import subprocess

import stores

TOP = os.path.dirname(os.path.abspath(__file__))
STREAM, TOPIC = "SOAK", "soak"
AT_A_TIME = 500  # messages of a stream that are read in one go
# A record once read is of no more use on the disk.
DIG_FROM = 16 << 20


def kit(room):
    """Both are called cluster."""
    spec = importlib.util.spec_from_file_location(
        room + "_cluster", os.path.join(TOP, "..", room, "cluster.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Nats:
    """One server; its stream is made before anybody comes."""

    kit = kit("nats")
    missing = kit.missing

    def __init__(self, directory):
        self.cluster = self.kit.Cluster(os.path.join(directory, "nats-server"))
        self.cluster.add_stream(STREAM, ["soak.>"])

    def values(self):
        return {"nats": self.cluster.urls(), "stream": STREAM}

    def freeze(self):
        self.cluster.servers[0].freeze()

    def thaw(self):
        self.cluster.servers[0].thaw()

    def close(self):
        self.cluster.__exit__()


class Kafka:
    """One broker: which of several a client is connected to would be chance."""

    kit = kit("kafka")
    missing = kit.mock_missing

    def __init__(self, directory):
        self.mock = self.kit.Mock(directory, 1)
        self.mock.topic(TOPIC)

    def values(self):
        return {"kafka": '[ "%s" ]' % self.mock.brokers[0], "topic": TOPIC}

    def close(self):
        self.mock.__exit__()


KINDS = {"nats": Nats, "kafka": Kafka}


class Stream:
    """What is in the stream, message for message; what was read is purged."""

    def __init__(self, sink, _, ledger, broker):
        self.sink, self.ledger, self.broker = sink, ledger, broker
        self.next, self.client = 1, None

    def turn(self):
        return False

    def request(self, what, payload):
        return self.client.request("$JS.API.STREAM.%s.%s" % (what, STREAM), payload)

    def poll(self):
        if self.client is None:
            self.client = self.broker.cluster.client()
        first = self.next
        while self.next < first + AT_A_TIME:
            answer = self.request("MSG.GET", {"seq": self.next})
            if answer.get("error", {}).get("code") == 404:
                break  # no more so far
            message = answer["message"]
            headers = dict(line.split(": ", 1) for line in
                           base64.b64decode(message["hdrs"]).decode().split("\r\n") if ": " in line)
            if headers["Cistern-Id"] != headers["Nats-Msg-Id"]:
                self.ledger.complain("a message of two ids: %r" % headers)
            self.ledger.store(self.sink.name, headers["Cistern-Id"],
                              base64.b64decode(message.get("data", "")))
            self.next += 1
        if first // 1000 != self.next // 1000:
            self.request("PURGE", {"seq": self.next})


class Topic(stores.Lines):
    """What the mock's own consumer has written down."""

    def __init__(self, sink, _, ledger, broker):
        super().__init__(broker.mock.files[TOPIC])
        self.sink, self.ledger, self.broker, self.dug = sink, ledger, broker, 0

    def turn(self):
        return False

    def poll(self):
        for line in self.lines():
            record = self.broker.kit.Record(line.decode("ascii"))
            self.ledger.store(self.sink.name, record.id, record.value)
        at = self.file.tell() if self.file else 0
        if at > self.dug + DIG_FROM:
            subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", str(at),
                            self.path], check=True)
            self.dug = at


# kind of broker: its sink
SINKS = {
    "nats": stores.Sink("n", 'type = "nats"; servers = {nats}; stream = "{stream}"; '
                             'subject = "soak.{{listener}}"; timeout = {patience};', Stream),
    "kafka": stores.Sink("k", 'type = "kafka"; brokers = {kafka}; topic = "{topic}"; '
                              'timeout = {patience};', Topic),
}


def start(directory, tap):
    """Those that there can be, by kind."""
    found = {}
    for kind, make in KINDS.items():
        why = make.missing()
        if why is None:
            found[kind] = make(directory)
        else:
            tap.result(True, "a %s sink # SKIP %s" % (kind, why))
    return found
