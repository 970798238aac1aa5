"""brokers: what sinks of brokers talk to in a life of scenario.py: a stand-in for a nats-server,
and a mock cluster of Kafka's for all lives of a process.

The server belongs to one life.  It tells what it has stored before it says so, and hangs up on
the first message that is published to it, so that in each life a connection is lost and made
again.
"""

import base64
import json
import os
import subprocess
import sys
import time

import storage

for room in ("kafka", "nats"):
    sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", room))
import cluster  # noqa: E402  (of kafka)
import stand_in  # noqa: E402

PORT = 11100
NOBODY = 11101  # nothing listens there
STREAM = "LIFE"
TOPIC = "life"
MAX_PAYLOAD = 1 << 16
READER_WAIT = 5  # seconds for what a broker has acknowledged to be read back from it


def missing(name, program):
    """Why a build cannot talk to it here; else None."""
    if name == "kafka" and storage.program("KAFKA_MOCK", "tests/kafka/mock") is None:
        return "no mock cluster ($KAFKA_MOCK)"
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stdout
    return "built without %s" % name if {"nats": "libnats", "kafka": "librdkafka"}[
        name] not in said else None


class Nats(stand_in.StandIn):
    """A server with one stream, on an address of the life's; its threads end with close."""

    def __init__(self, address, path):
        self.path, self.ids, self.hangs_up = path, {}, True
        super().__init__(STREAM, "life.*", self.store, (address, PORT), MAX_PAYLOAD)

    def store(self, headers, data):
        with self.lock:
            hangs_up, self.hangs_up = self.hangs_up, False
            if hangs_up:
                raise stand_in.HangUp
            id_ = stand_in.header(headers, "Nats-Msg-Id")
            known = id_ in self.ids
            if not known:
                self.tell(id_, headers, data)
                self.ids[id_] = len(self.ids) + 1
            return {"stream": STREAM, "seq": self.ids[id_], **({"duplicate": True} if known else {})}

    def tell(self, id_, headers, data):
        if stand_in.header(headers, "Cistern-Claim") is not None:
            with open(json.loads(data)["claim"], "rb") as file:
                data = file.read()
        with open(self.path, "a", encoding="ascii") as out:
            out.write(json.dumps({"id": id_, "data_base64": base64.b64encode(data).decode()}) + "\n")


class Kafka:
    """A mock cluster, and what has come into its topic."""

    def __init__(self, scratch):
        self.scratch = os.path.join(scratch, "kafka.%d" % os.getpid())
        os.mkdir(self.scratch)
        self.mock = cluster.Mock(self.scratch, 1)
        self.mock.topic(TOPIC)
        self.brokers, self.file = ",".join(self.mock.brokers), self.mock.files[TOPIC]

    def close(self):
        self.mock.__exit__()

    def end(self):
        """How much there is now, in whole records: one of the life before may be on its way."""
        with open(self.file, "rb") as file:
            return file.read().rfind(b"\n") + 1

    def copy(self, begin, ids, path):
        """Writes what has come since into a file of records, once these ids are among it, or
        that has taken too long."""
        until = time.monotonic() + READER_WAIT
        while True:
            with open(self.file, "rb") as file:
                file.seek(begin)
                lines = file.read().split(b"\n")[:-1]
            records = [cluster.Record(line.decode()) for line in lines]
            if time.monotonic() > until or set(ids) <= {record.id for record in records}:
                break
            time.sleep(storage.NO_READ)
        with open(path, "w", encoding="ascii") as out:
            for record in records:
                out.write(json.dumps({"id": record.id, "data_base64":
                                      base64.b64encode(record.value).decode()}) + "\n")
