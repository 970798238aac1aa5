"""stand_in: as much of a nats-server as a sink speaks to, with one stream.

It starts in no time, and does what no real one does when told to: whoever makes one says what
becomes of each message (`take`), and which subscriptions get lost (`lost`).
"""

import json
import re
import socket
import threading

VERSION = {"server_id": "S", "server_name": "stand-in", "version": "2.9.10", "proto": 1,
           "headers": True, "jetstream": True}
UNLIMITED = {"max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msg_size": -1}
BEGIN = "2026-01-01T00:00:00Z"
INFO = "$JS.API.STREAM.INFO."


class HangUp(Exception):
    """A message gets no answer, and its connection ends."""


class StandIn:
    """A server, until close."""

    def __init__(self, stream, subject, take, address=("127.0.0.1", 0), max_payload=4096):
        """take(headers, data): what a message on any other subject than those of JetStream is
        answered with, None for nothing.  In the thread of its connection."""
        self.take = take
        self.info = {"type": "io.nats.jetstream.api.v1.stream_info_response", "created": BEGIN,
                     "config": {"name": stream, "subjects": [subject], "retention": "limits",
                                "storage": "file", "discard": "new", "num_replicas": 1,
                                "duplicate_window": 120 * 10 ** 9, **UNLIMITED},
                     "state": {"messages": 0, "bytes": 0, "first_seq": 0, "first_ts": BEGIN,
                               "last_seq": 0, "last_ts": BEGIN, "consumer_count": 0}}
        self.hello = {**VERSION, "max_payload": max_payload}
        self.lost = set()  # (number of a connection, number of a subscription of it), from 0 on
        self.inboxes = []  # patterns that were subscribed to
        self.lock, self.connections, self.n_connections = threading.Lock(), set(), 0
        self.listener = socket.create_server(address)
        self.url = "nats://%s:%d" % self.listener.getsockname()
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
            with self.lock:
                self.connections.add(connection)
                number, self.n_connections = self.n_connections, self.n_connections + 1
            threading.Thread(target=self.serve, args=(connection, number), daemon=True).start()

    def serve(self, connection, number):
        try:
            with connection, connection.makefile("rb") as lines:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.talk(connection, number, lines)
        except (OSError, ValueError, HangUp):
            pass
        finally:
            with self.lock:
                self.connections.discard(connection)

    def talk(self, connection, number, lines):
        subscriptions = []  # (pattern, id)
        connection.sendall(b"INFO %s\r\n" % json.dumps(self.hello).encode())
        for line in lines:
            words = line.split()
            if words[:1] == [b"PING"]:
                connection.sendall(b"PONG\r\n")
            elif words[:1] == [b"SUB"]:
                subscriptions.append((words[1], words[-1]))
                if b"*" in words[1]:
                    self.inboxes.append(words[1])
            elif words[:1] in ([b"PUB"], [b"HPUB"]):
                head = int(words[-2]) if words[0] == b"HPUB" else 0
                data = lines.read(int(words[-1]) + 2)[:-2]
                if len(data) < int(words[-1]):
                    return
                reply = words[2] if len(words) == (5 if head else 4) else None
                answer = self.answer(words[1].decode(), data[:head].decode(), data[head:])
                if answer is None or reply is None:
                    continue
                text = json.dumps(answer).encode()
                for at, (pattern, id_) in enumerate(subscriptions):
                    if (number, at) not in self.lost and matches(pattern, reply):
                        connection.sendall(b"MSG %s %s %d\r\n%s\r\n" % (reply, id_, len(text), text))

    def answer(self, subject, headers, data):
        if subject == INFO + self.info["config"]["name"]:
            return self.info
        return self.take(headers, data)


def matches(pattern, subject):
    return re.fullmatch(re.escape(pattern).replace(rb"\*", rb"[^.]+"), subject) is not None


def header(headers, name):
    """The value of a message's header; None: it has no such."""
    found = re.search(r"\r\n%s: *(.*?)\r\n" % re.escape(name), headers)
    return found.group(1) if found else None
