#!/usr/bin/env python3
"""lost: something that was written to a server is lost, and the connection lives on: a
subscription to answers, of messages or of a question, that the server never hears of.  Against a
stand-in for a server.
"""

import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Daemon, require, storage, wait_for  # noqa: E402
from stand_in import StandIn, header  # noqa: E402


class Server(StandIn):
    """A stream, and the ids of what it was sent."""

    def __init__(self):
        self.ids, self.mute = [], False
        super().__init__("S", "intake.>", self.store)

    def store(self, headers, _):
        id_ = header(headers, "Nats-Msg-Id")
        known = id_ in self.ids
        self.ids.append(id_)
        return None if self.mute else {"stream": "S", "seq": self.ids.index(id_) + 1,
                                       "duplicate": known}


def daemon(scratch, server, timeout):
    return Daemon(scratch, '"%s"' % server.url,
                  'subject = "intake.{listener}"; timeout = "%s";' % timeout)


def answers(tap, scratch):
    """The subscription to the answers of messages, the first of a connection."""
    server = Server()
    server.lost.add((0, 0))
    with daemon(scratch, server, "12s") as sink:
        sink.open()
        tap.result(sink.ask(b"1", b"2") == ["OK"] * 2, "what was sent is accepted all the same")
        tap.result(len(set(server.ids)) == 2 and len(server.ids) > 2,
                   "it was sent again, under its ids", repr(server.ids))
        tap.result(sink.ask(b"3") == ["OK"] and len(set(server.ids)) == 3, "so is what follows")
        tap.result(len(sink.events("nats-renewed")) == 1, "the log says so")
        tap.result(server.n_connections == 1 and not sink.events("sink-failing"),
                   "the connection is the same, and nobody was refused")
        tap.result(sink.stop() == 0, "it stops in order")
    server.close()


def question(tap, scratch):
    """The second subscription: to the answer of the question whether the stream is there."""
    server = Server()
    server.lost.add((0, 1))
    with daemon(scratch, server, "12s") as sink:
        sink.open()
        tap.result(sink.ask(b"1") == ["OK"] and server.n_connections == 1,
                   "the question is put again, and answered")
        tap.result(sink.stop() == 0, "it stops in order")
    server.close()


def nothing(tap, scratch):
    """No message is ever answered, though there is nothing wrong with the subscription."""
    server = Server()
    server.mute = True
    with daemon(scratch, server, "1s") as sink:
        sink.open()
        while len(server.inboxes) < 3:
            refused = sink.ask(b"x")
        tap.result(refused == ["RETRY timeout"] and len(sink.events("nats-renewed")) == 1,
                   "it is renewed again and again, and said once")
        server.mute = False
        tap.result(sink.ask(b"x") == ["OK"], "then messages are answered")
        wait_for("it is well", lambda: sink.events("sink-well"))
        tap.result(sink.stop() == 0, "it stops in order")
    server.close()


def main():
    require(server=False)
    tap = storage.Tap()
    for test in (answers, question, nothing):
        with storage.Scratch() as scratch:
            tap.note(test.__name__)
            test(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
