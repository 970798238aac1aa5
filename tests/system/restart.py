#!/usr/bin/env python3
"""restart: sockets that the service manager holds and hands over (LISTEN_FDS): restarts
under load refuse nobody, what waits in a backlog is served by the next one, and what
cannot be served is said.
"""

import os
import signal
import socket
import sys
import threading
import time

from manager import Service, connect, finish, listening, send, wait_for
from storage import Client, Scratch, Tap, any_sizes, check_spool, message

RESTARTS = int(os.environ.get("RESTARTS", "5"))
CLIENTS = 6

SPOOL = """
workers = 2; reply = "receipt"; framing = "netstring"; shutdown_timeout = 20;
spill_directory = "{0}"; deliver = [ "s" ]; address = "192.0.2.1"; port = 1;
sinks = {{ s = {{ type = "spool"; directory = "{0}/spool"; min_free = 0; }}; }};
"""
CONSOLE = 'spill_directory = "{0}"; reply = "receipt"; workers = 2; {1}'


class Counting(Client):
    """Counts how its connections fared."""

    connections = refused = cut = 0

    def connection(self):
        self.connections += 1
        try:
            super().connection()
        except ConnectionRefusedError:
            self.refused += 1
            raise ConnectionError("refused") from None
        except OSError:
            self.cut += 1
            raise


def under_load(tap, scratch):
    config = SPOOL.format(scratch)
    with listening() as sock:
        port = sock.getsockname()[1]
        clients = [Counting(port, "c%d" % n, any_sizes(n, 20000)) for n in range(CLIENTS)]
        sizes = [0]

        def acknowledged():
            return sum(len(client.acknowledged) for client in clients)

        for client in clients:
            client.start()
        codes = []
        for _ in range(RESTARTS):
            daemon = Service(scratch, config, [("main", sock)])
            try:
                daemon.ready()
                served = acknowledged()
                wait_for("messages", lambda: acknowledged() > served + 200)
                sizes.append(acknowledged())
                daemon.signal()
                codes.append(daemon.wait())
            finally:
                daemon.end()
        # One that came while nobody was there is served by the next.
        waiting = connect(("127.0.0.1", port))
        early = message("early", 100)
        waiting.sendall(b"%d:%s," % (len(early), early))
        daemon = Service(scratch, config, [("main", sock)]).ready()
        try:
            receipt = finish(waiting)
            for client in clients:
                client.stopping = True
            for client in clients:
                client.join(60)
            codes.append(daemon.stop())
        finally:
            daemon.end()
        tap.result(receipt.startswith("OK ") and receipt.endswith(" %d\n" % len(early)),
                   "a connection that waited in the backlog is served by the next daemon")
        tap.note("%d restarts under load: %d connections, %d refused, %d cut short; "
                 "%d messages acknowledged" % (
                     RESTARTS, sum(c.connections for c in clients),
                     sum(c.refused for c in clients), sum(c.cut for c in clients),
                     acknowledged()))
        tap.result(codes == [0] * (RESTARTS + 1), "every stop is an orderly one: %r" % codes)
        tap.result(sum(c.refused for c in clients) == 0, "no connection was refused")
        problems = [problem for client in clients for problem in client.problems]
        everything = {}
        for client in clients:
            everything.update(client.acknowledged)
        everything[receipt.split()[1]] = ("early", 100)
        found = check_spool(scratch, everything)
        tap.result(found.found == len(everything) and not found.torn and not problems,
                   "no acknowledged message was lost: %d of %d (%d torn, %r)" % (
                       found.found, len(everything), len(found.torn), problems[:3]))


class Closing(threading.Thread):
    """A message a connection, and the close is the receipt; as many programs have it."""

    def __init__(self, port, name):
        super().__init__(daemon=True)
        self.port, self.name_, self.stopping = port, name, False
        self.accepted, self.reset, self.refused, self.sent = [], 0, 0, 0

    def run(self):
        while not self.stopping:
            self.sent += 1
            name = "%s.%d" % (self.name_, self.sent)
            try:
                with connect(("127.0.0.1", self.port)) as client:
                    time.sleep(0.001 * (self.sent % 8))
                    client.sendall(message(name, 100))
                    client.shutdown(socket.SHUT_WR)
                    if client.recv(1) == b"":
                        self.accepted.append(name)
            except ConnectionRefusedError:
                self.refused += 1
            except OSError:
                self.reset += 1


def closes(tap, scratch):
    """The default way, over restarts: an orderly close is never a lie, whatever moment
    the stop comes at."""
    config = SPOOL.format(scratch).replace("netstring", "eof").replace("receipt", "none").replace(
        "spool\"; directory", "spool\"; sync = false; directory")
    with listening() as sock:
        clients = [Closing(sock.getsockname()[1], "e%d" % n) for n in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(RESTARTS):
            before = sum(len(client.accepted) for client in clients)
            daemon = Service(scratch, config, [("main", sock)])
            try:
                daemon.ready()
                wait_for("messages", lambda: sum(len(client.accepted) for client in clients) >
                         before + 100)
                daemon.stop()
            finally:
                daemon.end()
        daemon = Service(scratch, config, [("main", sock)]).ready()
        for client in clients:
            client.stopping = True
        for client in clients:
            client.join(60)
        daemon.stop()
        accepted = {message(name, 100) for client in clients for name in client.accepted}
        new = os.path.join(scratch, "spool", "new")
        for name in os.listdir(new):
            with open(os.path.join(new, name), "rb") as file:
                accepted.discard(file.read())
        tap.note("%d messages, a connection each: %d accepted, %d reset, %d refused" % (
            sum(c.sent for c in clients), sum(len(c.accepted) for c in clients),
            sum(c.reset for c in clients), sum(c.refused for c in clients)))
        tap.result(not accepted and sum(c.refused for c in clients) == 0,
                   "a close in order is a receipt over %d restarts: %d lost" % (
                       RESTARTS, len(accepted)))


def names(tap, scratch):
    """Which listener a socket is for."""
    two = CONSOLE.format(scratch, 'port = 0; address = "127.0.0.1"; '
                                  "listeners = { a = { }; b = { }; };")
    path = os.path.join(scratch, "local")
    with listening() as first, listening() as second, listening(path) as local:
        daemon = Service(scratch, two, [("a", first), ("a", local)])
        try:
            daemon.ready()
            answers = [send(("127.0.0.1", first.getsockname()[1]), b"x"), send(path, b"y"),
                       send(daemon.address("b"), b"z")]
            tap.result(all(answer.startswith("OK ") for answer in answers),
                       "several sockets of one name serve one listener, others have their own")
            said = [line for line in daemon.events("listening") if "service manager" in line]
            tap.result(len(said) == 2, "the log says so")
            tap.result(daemon.stop() == 0 and os.path.exists(path),
                       "a local socket of the manager's is left where it is")
        finally:
            daemon.end()
        for name in ("cisternd.socket", "unknown", None):
            one = CONSOLE.format(scratch, "")
            daemon = Service(scratch, one, [(name, second)], names=[] if name is None else None)
            try:
                daemon.ready()
                answer = send(("127.0.0.1", second.getsockname()[1]), b"x")
                tap.result(answer.startswith("OK ") and daemon.stop() == 0,
                           "a socket named %r is for the only listener" % name)
            finally:
                daemon.end()


def mistakes(tap, scratch):
    """A start that could only half work is none."""
    config = CONSOLE.format(scratch, 'port = 0; address = "127.0.0.1"; '
                                     "listeners = { a = { }; b = { }; };")
    with listening() as good, socket.socket() as deaf, socket.socketpair()[0] as pair, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
        deaf.bind(("127.0.0.1", 0))
        cases = (
            ("for no listener", [("a", good), ("nobody", good)], 78, "is for no listener"),
            ("whose unit's name fits two listeners", [("cisternd.socket", good)], 78,
             "is for no listener"),
            ("that does not listen", [("a", deaf)], 78, "it does not listen"),
            ("that is a connection", [("a", pair)], 78, "it does not listen"),
            ("of datagrams", [("a", datagram)], 78, "not a stream socket"),
        )
        for what, sockets, code, text in cases:
            daemon = Service(scratch, config, sockets)
            got = daemon.wait()
            tap.result(got == code and text in daemon.log(),
                       "a socket %s: %d, %s" % (what, code, text))
            if got != code:
                tap.note(daemon.log())
        daemon = Service(scratch, config, [("a", good)], names=["a", "b"])
        tap.result(daemon.wait() == 71 and "LISTEN_FDNAMES" in daemon.log(),
                   "variables that contradict one another: 71")


def backlog_of_our_own(tap, scratch):
    """A stop ends what waits in a backlog that is nobody's but ours, so that its sender
    knows at once; and lets go of the address."""
    config = CONSOLE.format(scratch, 'port = 0; address = "127.0.0.1"; max_connections = 1; '
                                     "shutdown_timeout = 20; framing = \"line\";")
    daemon = Service(scratch, config).ready()
    try:
        address = daemon.address()
        inside = connect(address)
        inside.sendall(b"first\n")
        inside.recv(100)  # so it is the one that has the place
        inside.sendall(b"half a mess")
        outside = [connect(address) for _ in range(5)]
        for client in outside:
            client.sendall(b"message\n")
        daemon.signal()
        ends = []
        for client in outside:
            try:
                ends.append(client.recv(100))
            except ConnectionResetError:
                ends.append("reset")
            client.close()
        tap.result(ends == ["reset"] * 5, "what waits in a backlog of our own is reset at a stop")
        tap.note(repr(ends))
        inside.sendall(b"age\n")
        receipt = finish(inside)
        tap.result(receipt.startswith("OK ") and daemon.wait() == 0,
                   "and what is in progress is finished: " + receipt.strip())
    finally:
        daemon.end()


def reloads(tap, scratch):
    """A reload goes on with what was handed over, and one that has no listener for it is refused."""
    with listening() as sock:
        daemon = Service(scratch, CONSOLE.format(scratch, ""), [("main", sock)]).ready()

        def change(more, event):
            count = len(daemon.events(event))
            with open(daemon.config, "w", encoding="utf-8") as file:
                file.write(CONSOLE.format(scratch, more))
            daemon.signal(signal.SIGHUP)
            wait_for(event, lambda: len(daemon.events(event)) > count)
        try:
            answers = [send(sock.getsockname(), b"one")]
            change("idle_timeout = 5;", "reloaded")
            answers.append(send(sock.getsockname(), b"two"))
            change("listeners = { other = { port = 0; }; third = { port = 0; }; };", "reload-refused")
            answers.append(send(sock.getsockname(), b"three"))
            tap.result(all(answer.startswith("OK ") for answer in answers),
                       "the socket is served before, between and after reloads: %s" % answers)
            tap.result(daemon.stop() == 0, "an orderly stop")
        finally:
            daemon.end()


def last_words(tap, scratch):
    """Past shutdown_timeout a message in progress is refused in words."""
    config = CONSOLE.format(scratch, 'port = 0; address = "127.0.0.1"; shutdown_timeout = 1; '
                                     'framing = "line";')
    daemon = Service(scratch, config).ready()
    try:
        client = connect(daemon.address())
        client.sendall(b"first\nhalf a mess")
        with client.makefile("rb") as answers:
            first = answers.readline()
            began = time.monotonic()
            daemon.signal()
            second = answers.readline()
        took = time.monotonic() - began
        client.close()
        tap.result(first.startswith(b"OK ") and second == b"RETRY shutdown\n" and took >= 0.9,
                   "past shutdown_timeout: %r after %.2f s" % (second, took))
        tap.result(daemon.wait() == 0, "and the stop is an orderly one")
    finally:
        daemon.end()


def main():
    tap = Tap()
    with Scratch() as scratch:
        for test in (names, mistakes, reloads, backlog_of_our_own, last_words, closes, under_load):
            directory = os.path.join(scratch, test.__name__)
            os.mkdir(directory)
            test(tap, directory)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
