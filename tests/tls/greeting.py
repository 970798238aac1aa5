#!/usr/bin/env python3
"""greeting: handshakes that have something in front of them, and those that are given up while
the greeter has other things to do.

greeting.py [NAME]...: only the tests of these names.
"""

import os
import re
import socket
import ssl
import sys

import peer
import storage

sys.path.insert(0, os.path.join(peer.TOP, "..", "system"))
from service import PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_SEIZE, WALL, ptrace, task_named  # noqa: E402

BARE = re.sub(r"tls = .*\n", "", peer.CONFIG)
TLS = 'tls = {{ certificate = "{directory}/server.pem"; key = "{directory}/server.key"; %s }};'


def exchange(port, line=b"a line\n"):
    """A line without TLS, and its receipt."""
    with socket.create_connection(("127.0.0.1", port), storage.DEADLINE) as sock:
        sock.sendall(line)
        return sock.recv(200)


def hello(client):
    try:
        client.tls.do_handshake()
    except ssl.SSLWantReadError:
        client.send()


def behind_a_header(tap, scratch):
    """The time for a PROXY header is over, and the handshake has its own."""
    config = BARE.replace("workers = 2", "workers = 1") + """
proxy_from = "127.0.0.1"; idle_timeout = 3;
listeners = {{ main = {{ proxy_protocol = true; %s }};
              plain = {{ framing = "line"; }}; }};""" % (TLS % 'handshake_timeout = "1h";')
    daemon = peer.Daemon(scratch, 'deliver = "s"; ' + peer.SPOOL, config)
    client = peer.Peer(daemon.port, peer.context("1.3"), handshake=False)
    client.socket.sendall(b"PROXY TCP4 192.0.2.1 ")
    # Then it has been accepted, and waits for the rest.
    tap.result(exchange(daemon.ports["plain"]).startswith(b"OK "), "another one is served")
    client.socket.sendall(b"192.0.2.2 1 2\r\n")
    silent = socket.create_connection(("127.0.0.1", daemon.port), storage.DEADLINE)
    daemon.wait_log(" connection-refused .*: not whole in time")
    silent.close()
    try:
        client.handshake()
        client.put(b"in time")
        client.put_close()
        client.send()
        answer, end = client.receive()
    except OSError as error:
        answer, end = b"", str(error)
    tap.result(answer.startswith(b"OK ") and end == "orderly", "who took its time for the handshake: %s" % end)
    daemon.end(tap, "behind a header")


def given_up(tap, scratch):
    """Who is given up before its turn keeps its place for as long as its descriptor, and nothing
    more is done for it: else there were descriptors without end, and a stop would wait."""
    config = BARE + """
listeners = {{ main = {{ max_connections = 10; %s }};
              plain = {{ framing = "line"; }}; }};""" % (TLS % 'handshake_timeout = "1s";')
    daemon = peer.Daemon(scratch, 'deliver = "s"; ' + peer.SPOOL, config)
    greeted = peer.Peer(daemon.port, peer.context("1.3"))
    greeted.put(b"first")
    greeted.put_close()
    greeted.send()
    tap.result(greeted.receive()[1] == "orderly", "one is greeted")
    daemon.wait_log(" connection-closed main#")
    before = daemon.descriptors()
    greeter = task_named(daemon, "greeter-0")
    try:
        ptrace(PTRACE_SEIZE, greeter)
    except OSError as error:
        tap.skip("given up", error)
        daemon.end(tap, "given up")
        return
    ptrace(PTRACE_INTERRUPT, greeter)
    os.waitpid(greeter, WALL)
    first = [peer.Peer(daemon.port, peer.context("1.3"), handshake=False) for _ in range(10)]
    for client in first:
        hello(client)
    daemon.wait_log(" tls-failed main#.*: timeout: |tls-failed .*: timeout: .* more", 1)
    daemon.wait_log(r" connection-closed main#.*: reset", 10)
    later = [peer.Peer(daemon.port, peer.context("1.3"), handshake=False) for _ in range(10)]
    for client in later:
        hello(client)
    for _ in range(8):
        exchange(daemon.ports["plain"])
    # At max_connections each worker holds one more, which waits for its place.
    try:
        storage.wait_for("the plain ones' end", lambda: daemon.descriptors() - before <= 12)
    except TimeoutError:
        pass
    more = daemon.descriptors() - before
    tap.result(more <= 12, "10 are dead, and of 10 more only one a worker is let in (%d)" % more)
    for client in later:
        client.rst()
    ptrace(PTRACE_DETACH, greeter)
    got = []
    for client in first:
        try:
            got.append(len(client.socket.recv(65536)))
        except ConnectionResetError:
            got.append(0)
        client.socket.close()
    tap.result(not any(got), "no step is done for the dead: %s" % got)
    last = peer.Peer(daemon.port, peer.context("1.3"))
    last.put(b"last")
    last.put_close()
    last.send()
    tap.result(last.receive()[1] == "orderly", "and the next one is greeted")
    daemon.end(tap, "given up")


if __name__ == "__main__":
    sys.exit(peer.run_all((behind_a_header, given_up)))
