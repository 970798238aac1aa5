#!/usr/bin/env python3
"""claim: a message that is too large lies in a spool, and a reference to it is published: what
becomes of its file when a reference may be in the stream, and when none is.  Against a server
of our own, which answers as it is told.
"""

import json
import os
import re
import socket
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Daemon, storage, wait_for  # noqa: E402

INFO = {"server_id": "T", "server_name": "t", "version": "2.9.10", "proto": 1, "headers": True,
        "max_payload": 4096, "jetstream": True}
STREAM = {"type": "io.nats.jetstream.api.v1.stream_info_response", "created": "2026-01-01T00:00:00Z",
          "config": {"name": "S", "subjects": ["intake.>"], "retention": "limits", "storage": "file",
                     "discard": "new", "num_replicas": 1, "max_consumers": -1, "max_msgs": -1,
                     "max_bytes": -1},
          "state": {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0, "consumer_count": 0}}
FULL = {"error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}}
STORED = {"stream": "S", "seq": 7}
LARGE = b"x" * 5000


class Server:
    """A nats-server with one stream.  `plan`: what it does with each message, in turn: an
    answer, None for none, or "leave": it ends the connection."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "nats://127.0.0.1:%d" % self.listener.getsockname()[1]
        self.plan = []
        self.claims = []  # their paths, in the order in which they came
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as lines:
            subscriptions = {}
            try:
                connection.sendall(b"INFO %s\r\n" % json.dumps(INFO).encode())
                while line := lines.readline().split():
                    if not self.take(connection, lines, line, subscriptions):
                        return
            except OSError:
                return

    def take(self, connection, lines, line, subscriptions):
        if line[0] == b"PING":
            connection.sendall(b"PONG\r\n")
        elif line[0] == b"SUB":
            subscriptions[line[1]] = line[-1]
        elif line[0] in (b"PUB", b"HPUB"):
            text = lines.read(int(line[-1]) + 2)
            if line[1].startswith(b"$JS.API"):
                self.answer(connection, subscriptions, line[2], STREAM)
            else:
                found = re.search(rb"Cistern-Claim: *(.*?)\r\n", text)
                self.claims.append(found.group(1).decode() if found else None)
                planned = self.plan.pop(0) if self.plan else STORED
                if planned == "leave":
                    return False
                if planned is not None:
                    self.answer(connection, subscriptions, line[2], planned)
        return True

    @staticmethod
    def answer(connection, subscriptions, reply, what):
        text = json.dumps(what).encode()
        for subject, number in subscriptions.items():
            if subject == reply or subject == reply.rpartition(b".")[0] + b".*":
                connection.sendall(b"MSG %s %s %d\r\n%s\r\n" % (reply, number, len(text), text))

    def close(self):
        self.listener.close()


class Setup:
    """The server and a daemon with the spool `p` for what is too large."""

    def __init__(self, scratch, top='port = 0; deliver = "n";', more="", timeout="20s"):
        self.new = scratch + "/claims/new"
        self.server = Server()
        more += 'p = { type = "spool"; directory = "%s/claims"; min_free = 0; };' % scratch
        self.daemon = Daemon(scratch + "/d", json.dumps(self.server.url),
                             'subject = "intake.{listener}"; claim_check = "p"; timeout = "%s";' %
                             timeout, top=top, more=more)

    def __enter__(self):
        self.daemon.ready()
        self.daemon.open()
        return self

    def __exit__(self, *_):
        self.daemon.__exit__()
        self.server.close()

    def files(self):
        return sorted(os.path.join(self.new, name) for name in os.listdir(self.new))


def certain(tap, scratch):
    with Setup(scratch) as setup:
        setup.server.plan = [FULL]
        tap.result(setup.daemon.ask(LARGE) == ["RETRY storage"] and len(setup.server.claims) == 1 and
                   not setup.files(), "one reference, refused: its file is taken away")
        tap.result(setup.daemon.ask(LARGE) == ["OK"] and setup.files() == setup.server.claims[1:],
                   "one that is stored has its file")
        tap.result(setup.daemon.stop() == 0, "it stops in order")


def another(tap, scratch):
    """The first reference may be in the stream; the second one is refused."""
    with Setup(scratch) as setup:
        setup.server.plan = ["leave", FULL]
        answers = setup.daemon.ask(LARGE)
        tap.result(answers == ["RETRY storage"] and len(setup.server.claims) == 2 and
                   setup.files() == setup.server.claims[:1],
                   "the file of a reference that may be in the stream stays", repr(answers))
        tap.result(len(setup.daemon.events("nats-claim-left")) == 1, "the log says so")
        tap.result(setup.daemon.stop() == 0, "it stops in order")


def again(tap, scratch):
    """The same from a spool that hands on: the first try ends without an answer."""
    spool = 'q = { type = "spool"; directory = "%s/q"; min_free = 0; forward = "n"; ' \
            'retry_min = "300ms"; retry_max = "300ms"; };' % scratch
    with Setup(scratch, 'port = 0; deliver = "q";', spool, timeout="1s") as setup:
        # Sent again after four seconds only, so one reference a try.
        setup.server.plan = [None, FULL, None, STORED]
        tap.result(setup.daemon.ask(LARGE) == ["OK"], "the spool has it")
        wait_for("a first try", lambda: setup.server.claims)
        written = os.stat(setup.server.claims[0]).st_mtime_ns
        wait_for("the end", lambda: not os.listdir(scratch + "/q/new"))
        tap.result(len(setup.server.claims) == 4 and len(set(setup.server.claims)) == 1 and
                   setup.files() == setup.server.claims[:1], "all tries name one file")
        tap.result(os.stat(setup.server.claims[0]).st_mtime_ns == written,
                   "a try that is refused does not take away what an earlier one refers to")
        tap.result(setup.daemon.stop() == 0, "it stops in order")


def main():
    path = storage.program()
    if path is None:
        storage.skip_all("no cisternd")
    with open(path, "rb") as file:
        if b"Nats-Msg-Id" not in file.read():
            storage.skip_all("this cisternd has no nats")
    tap = storage.Tap()
    for test in (certain, another, again):
        with storage.Scratch() as scratch:
            tap.note(test.__name__)
            test(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
