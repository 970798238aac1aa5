"""brokers: what sinks of brokers talk to in a life of scenario.py: a server that speaks as
much of NATS as the sink does, and a mock cluster of Kafka's for all lives of a process.

The server belongs to one life and is no real one: it starts in no time, tells what it has
stored before it says so, and hangs up on the first message that is published to it, so
that in each life a connection is lost and made again.
"""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import storage

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kafka"))
import cluster  # noqa: E402

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


class Nats:
    """A server with one stream, on an address of the life's; its thread ends with close."""

    def __init__(self, address, path):
        self.path, self.sequence, self.ids, self.hangs_up = path, 0, {}, True
        self.lock, self.connections = threading.Lock(), set()
        self.listener = socket.create_server((address, PORT))
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the daemon has been faster

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with self.lock:
            self.connections.add(connection)
        try:
            with connection, connection.makefile("rb") as lines:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.talk(connection, lines)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.connections.discard(connection)

    def talk(self, connection, lines):
        subscriptions = {}  # pattern: sid
        connection.sendall(b"INFO %s\r\n" % json.dumps({
            "server_id": "F", "server_name": "f", "version": "2.9.10", "proto": 1, "go": "go1.19",
            "host": "0.0.0.0", "port": PORT, "headers": True, "max_payload": MAX_PAYLOAD,
            "jetstream": True}).encode())
        for line in lines:
            words = line.split()
            if words[:1] == [b"PING"]:
                connection.sendall(b"PONG\r\n")
            elif words[:1] == [b"SUB"]:
                subscriptions[words[1]] = words[-1]
            elif words[:1] in ([b"PUB"], [b"HPUB"]):
                head = int(words[-2]) if words[0] == b"HPUB" else 0
                data = lines.read(int(words[-1]) + 2)[:-2]
                if len(data) + 2 < int(words[-1]):
                    return
                reply = words[2] if len(words) == (5 if head else 4) else None
                answer = self.take(words[1].decode(), data[:head].decode(), data[head:])
                if answer is None:
                    return
                for pattern, sid in subscriptions.items():
                    if reply and re.fullmatch(re.escape(pattern).replace(rb"\*", rb"[^.]+"), reply):
                        connection.sendall(b"MSG %s %s %d\r\n%s\r\n" % (
                            reply, sid, len(answer), answer))

    def take(self, subject, headers, data):
        """The answer; None: there is none, and the connection ends."""
        if subject == "$JS.API.STREAM.INFO." + STREAM:
            return json.dumps({
                "type": "io.nats.jetstream.api.v1.stream_info_response",
                "created": "2026-01-01T00:00:00Z",
                "config": {"name": STREAM, "subjects": ["life.*"], "retention": "limits",
                           "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0,
                           "max_msg_size": -1, "storage": "file", "discard": "new",
                           "num_replicas": 1, "duplicate_window": 120 * 10 ** 9},
                "state": {"messages": self.sequence, "bytes": 0, "first_seq": 1,
                          "first_ts": "2026-01-01T00:00:00Z", "last_seq": self.sequence,
                          "last_ts": "2026-01-01T00:00:00Z", "consumer_count": 0}}).encode()
        found = re.search(r"\r\nNats-Msg-Id: *(\S+)\r\n", headers)
        if not subject.startswith("life.") or found is None:
            return json.dumps({"error": {"code": 503, "err_code": 10008,
                                         "description": "nothing of mine"}}).encode()
        with self.lock:
            hangs_up, self.hangs_up = self.hangs_up, False
            id_, known = found.group(1), found.group(1) in self.ids
            if hangs_up:
                return None
            if not known:
                self.store(id_, headers, data)
                self.sequence += 1
                self.ids[id_] = self.sequence
            return json.dumps({"stream": STREAM, "seq": self.ids[id_],
                               **({"duplicate": True} if known else {})}).encode()

    def store(self, id_, headers, data):
        if "\r\nCistern-Claim:" in headers:
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
        """How much there is now."""
        return os.path.getsize(self.file)

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
