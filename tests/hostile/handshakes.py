#!/usr/bin/env python3
"""handshakes: TLS clients that give up, or never get to the point, and a good one beside them.

A real ClientHello is abandoned at every byte, and the second flight of TLS 1.2 and 1.3
(with a client's certificate in it) at every byte, too: the client says nothing more, and
handshake_timeout has to end each.  Then records that are too large, empty or torn, hellos
that never end, chains of certificates that are too long, and clients that want to
negotiate anew.  The good client, its receipts, memory, descriptors, threads and the
account as in clients.py; make check-hostile judges its p99 in the same way.

handshakes.py [NAME]...: only these.
"""

import os
import select
import socket
import ssl
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402
import peer  # noqa: E402
from clients import HEAD, SANITIZED  # noqa: E402
from kit import FULL, KIB, MIB, ROUNDS, storage  # noqa: E402

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "line"; backlog = 1024;
spill_directory = "{directory}"; memory_limit = "16M"; shutdown_timeout = 5;
log = {{ target = "stderr"; level = "info"; }};
status = {{ port = 0; }};
deliver = "s"; sinks = {{ s = {{ type = "file"; path = "{directory}/log"; sync = false; }}; }};
listeners = {{
  main = {{ }};
  tls = {{ idle_timeout = "1h"; tls = {{ certificate = "{directory}/server.pem"; key = "{directory}/server.key";
    handshake_timeout = "{patience}s"; }}; }};
  known = {{ idle_timeout = "1h"; tls = {{ certificate = "{directory}/server.pem"; key = "{directory}/server.key";
    client_ca = "{directory}/ca.pem"; handshake_timeout = "{patience}s"; }}; }};
}};
"""
RATE = 300  # whole handshakes a second: three tenths of a processor for our arithmetic alone
GREETING = 80 * KIB  # a connection in its handshake: its own cost, and OpenSSL's (64 KiB or so)
STEP = 1 if FULL else 16


class Idle:
    """Our own part as an attacker gets only the time that is left."""

    def __enter__(self):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

    def __exit__(self, *_):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def hello(version):
    outward = ssl.MemoryBIO()
    tls = peer.context(version).wrap_bio(ssl.MemoryBIO(), outward)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outward.read()


def ends(sockets):
    """Waits until all are ended by the daemon: {"fin": n, "reset": n, "open": n}."""
    found = {"fin": 0, "reset": 0, "open": len(sockets)}
    poller = select.poll()
    by_fd = {}
    for sock in sockets:
        sock.setblocking(False)
        by_fd[sock.fileno()] = sock
        poller.register(sock, select.POLLIN)
    until = kit.now() + kit.DEADLINE
    while by_fd and kit.now() < until:
        for fd, _ in poller.poll(500):
            try:
                end = None if by_fd[fd].recv(65536) else "fin"
            except OSError:
                end = "reset"
            if end is not None:
                found[end] += 1
                found["open"] -= 1
                poller.unregister(fd)
                by_fd.pop(fd).close()
    for sock in by_fd.values():
        sock.close()
    return found


def pace(due):
    """Waits until then, and says when the next is to come: RATE a second and no more, so that
    those who come late do not come all at once."""
    time.sleep(max(0, due - kit.now()))
    return max(due, kit.now() - 1 / RATE) + 1 / RATE


class Site:
    """A daemon and the good client, quiet first."""

    def __init__(self, tap, scratch, name, table):
        self.tap, self.scratch, self.name, self.table = tap, scratch, name, table
        self.daemon = kit.Daemon(scratch, CONFIG.format(directory=scratch, patience=1))
        self.probe = kit.Probe(scratch, self.daemon.port("main"))
        self.rounds = kit.Rounds()
        self.messages = self.probe.run(1)["messages"]
        self.before = self.daemon.holdings()
        self.daemon.peak_forget()
        self.began = self.daemon.memory()
        self.spent = self.lasted = 0.0
        self.clients = 0

    def attack(self, what, clients, seconds=2):
        """Rounds of it: `what` attacks while the good client measures.  The good client is
        started first: a child is as idle as its parent, and would measure how idle it is."""
        daemon = self.daemon
        self.clients = clients
        for _ in range(ROUNDS):
            if FULL:
                self.rounds.quiet.append(self.probe.run(1))
            running = self.probe.start(seconds if FULL else 1)
            cpu, since = daemon.processor(), kit.now()
            with Idle():
                what()
            self.rounds.attacked.append(running.finish())
            self.spent += daemon.processor() - cpu
            self.lasted += kit.now() - since

    def end(self, acts):
        tap, daemon, rounds, name = self.tap, self.daemon, self.rounds, self.name
        good = rounds.quiet + rounds.attacked
        tap.result(all(run["failed"] == 0 for run in good), "%s: the good client is served" % name,
                   "".join(run["errors"] for run in good))
        tap.result(daemon.settle(self.before), "descriptors and threads are back: %r, %r" % (
            self.before, daemon.holdings()))
        grown = daemon.memory("VmHWM") - self.began
        allowed = 16 * MIB + kit.BASE + self.clients * GREETING
        if not SANITIZED:
            tap.result(grown < allowed, "memory grew by %.1f MiB at most, of %.1f allowed" % (
                grown / MIB, allowed / MIB))
        if FULL:
            for kind in ("held", "fresh"):
                rounds.verdict(tap, kind)
            self.table.row(name, acts, *["%.0f → %.0f µs (%.2f)" % (
                rounds.median(rounds.quiet, kind + "_p99"),
                rounds.median(rounds.attacked, kind + "_p99"), rounds.ratio(kind))
                for kind in ("held", "fresh")],
                "%.0f %%" % (100 * self.spent / self.lasted), "%.1f MiB" % (grown / MIB),
                "%d, %d" % (self.before[0], daemon.descriptors()))
        account = daemon.finish(tap, name)
        receipts, missing = self.probe.check(os.path.join(self.scratch, "log"))
        messages = self.messages + sum(run["messages"] for run in good)
        tap.result(receipts == messages and missing == 0,
                   "each of its %d receipts is that of a message stored" % receipts)
        late = sum(run["late"] for run in good)
        tap.result(messages <= account.get("received", 0) <= messages + late, "and nobody else's message was taken")


def first_flight(tap, scratch, table):
    """As many as there are bytes, again and again; at the last byte the server answers."""
    for version in peer.VERSIONS:
        name = "TLS %s ClientHello abandoned at every byte" % version
        site = Site(tap, scratch, name, table)
        blob = os.path.join(scratch, "hello")
        with open(blob, "wb") as file:
            file.write(hello(version))
        length = os.path.getsize(blob)
        found = {}

        def attack():
            # One more than there are bytes: all of them, too.
            nonlocal found
            found = kit.Attack("blob", site.daemon.port("tls"), n=length + 1, r=500, f=blob,
                               t=(length + 1) // 500 + 2).finish()
        site.attack(attack, length + 1)
        # A reset that follows the FIN of a refused handshake may be seen as that.
        tap.result(found["left"] == 0 and found["reset"] + found["fin"] == found["opened"] > 0,
                   "%s: all %d are ended, %d by a reset (of %d bytes)" % (
                       name, found["opened"], found["reset"], length), str(found))
        site.end("%d, 500/s" % (length + 1))
        os.unlink(os.path.join(scratch, "log"))
        os.unlink(site.probe.list)


def second_flight(tap, scratch, table):
    """What ends the handshake, with a certificate in it, stops at every byte."""
    for version in peer.VERSIONS:
        name = "TLS %s second flight abandoned at every byte" % version
        site = Site(tap, scratch, name, table)
        ctx = peer.context(version, scratch, "sender")
        length, expected, sum_of = None, 0, {"fin": 0, "reset": 0, "open": 0}

        def flight(client):
            """The handshake up to what is to be sent last."""
            sent = False
            while True:
                try:
                    client.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    if sent and client.outward.pending:
                        break  # 1.2: the server is to answer to this
                    client.send()
                    sent = True
                    client.fill()
            return client.outward.read()

        def attack():
            nonlocal length, expected
            held, at, late, due = [], 0, 0, kit.now()
            while length is None or at < length:
                due = pace(due)
                client = peer.Peer(site.daemon.port("known"), ctx, handshake=False)
                try:
                    last = flight(client)
                    client.socket.sendall(last[:min(at, len(last) - 1)])
                except OSError:
                    client.socket.close()
                    late += 1  # we were too slow for handshake_timeout
                    if late > 100:
                        raise
                    continue
                length = len(last)  # a signature has a byte more or less each time
                held.append(client.socket)
                at += STEP
            expected += len(held)
            for end, n in ends(held).items():
                sum_of[end] += n
        site.attack(attack, 600, 3)
        tap.result(sum_of["open"] == 0 and sum_of["reset"] + sum_of["fin"] == expected > 0,
                   "%s: all %d are reset (of %d bytes, each %d.)" % (
                       name, sum_of["reset"], length, STEP), str(sum_of))
        site.end("%d, %d/s" % (sum_of["reset"] // ROUNDS, RATE))
        os.unlink(os.path.join(scratch, "log"))
        os.unlink(site.probe.list)


def hellos(tap, scratch, table):
    """Whole ClientHellos, again and again: the dearest that a client can ask for."""
    name = "TLS ClientHellos, whole, nothing after them"
    site = Site(tap, scratch, name, table)
    blob = os.path.join(scratch, "hello")
    with open(blob, "wb") as file:
        file.write(hello("1.3"))
    length, found = os.path.getsize(blob), {}
    clients, rate = (1000, RATE) if FULL else (50, 50)

    def attack():
        nonlocal found
        found = kit.Attack("blob", site.daemon.port("tls"), n=clients, r=rate, f=blob, o=length,
                           m=length, t=4 if FULL else 2).finish()
    site.attack(attack, clients, 3)
    tap.result(found["left"] == 0 and found["reset"] + found["fin"] == found["opened"] > 0,
               "%s: all %d are ended, %d by a reset" % (name, found["opened"], found["reset"]),
               str(found))
    site.end("%d, %d/s" % (clients, rate))


def records(tap, scratch, table):
    """Records and hellos that no client should send, before and after the handshake."""
    name = "TLS records too large, empty, torn; hellos without end"
    site = Site(tap, scratch, name, table)
    first = hello("1.2")
    body = first[5:]
    large = bytes((22, 3, 3, 255, 255))
    before = {
        "a record of 65535 bytes": large + b"\1" * 20000,
        "a hello of 16 MiB": bytes((22, 3, 1, 64, 0, 1, 255, 255, 255)) + b"\0" * 16380 * 4,
        "a hello in records of a byte": b"".join(bytes((22, 3, 1, 0, 1, byte)) for byte in body[:-1]),
        "empty records": bytes((22, 3, 1, 0, 0)) * 2000,
        "an alert, again and again": bytes((21, 3, 3, 0, 2, 1, 90)) * 2000,
        "application data": bytes((23, 3, 3, 0, 100)) + b"x" * 100,
        "SSLv2": bytes((128, 46, 1, 0, 2, 0, 21, 0, 0, 0, 16)) + b"x" * 40,
    }
    after = {
        "a record of 65535 bytes": bytes((23, 3, 3, 255, 255)) + b"\1" * 40000,
        "a record that is one byte too large": bytes((23, 3, 3, 65, 1)) + b"\1" * 16641,
        "empty records": bytes((23, 3, 3, 0, 0)) * 2000,
        "a record that is not encrypted so": bytes((23, 3, 3, 0, 100)) + b"\1" * 100,
        "a hello": first,
    }
    times = 20 if FULL else 1
    sum_of, expected = {"fin": 0, "reset": 0, "open": 0}, 0

    def pour(sock, data):
        try:
            sock.sendall(data)
        except OSError:
            pass  # it is reset already

    def attack():
        nonlocal expected
        held = []
        for _ in range(times):
            for data in before.values():
                sock = socket.create_connection(("127.0.0.1", site.daemon.port("tls")), kit.DEADLINE)
                pour(sock, data)
                held.append(sock)
            for version in peer.VERSIONS:
                for data in after.values():
                    client = peer.Peer(site.daemon.port("tls"), peer.context(version))
                    pour(client.socket, data)
                    held.append(client.socket)
        expected += len(held)
        for end, n in ends(held).items():
            sum_of[end] += n
    site.attack(attack, 500, 2)
    # A reset that follows the FIN of a refused handshake may be seen as that.
    tap.result(sum_of["open"] == 0 and sum_of["reset"] + sum_of["fin"] == expected > 0,
               "%s: all %d are ended, %d by a reset" % (name, expected, sum_of["reset"]), str(sum_of))
    site.end("%d" % (expected // ROUNDS))


def certificates(tap, scratch, table):
    """A chain of a hundred certificates, one of an unknown authority, and good ones, many."""
    name = "TLS client certificates: chains of 100, strangers, abandoned"
    site = Site(tap, scratch, name, table)
    with open(os.path.join(scratch, "sender.pem"), encoding="ascii") as file:
        one = file.read()
    with open(os.path.join(scratch, "ca.pem"), encoding="ascii") as file:
        issuer = file.read()
    with open(os.path.join(scratch, "chain.pem"), "w", encoding="ascii") as file:
        file.write(one + issuer * 250)
    with open(os.path.join(scratch, "sender.key"), encoding="ascii") as key, \
            open(os.path.join(scratch, "chain.key"), "w", encoding="ascii") as file:
        file.write(key.read())
    contexts = [peer.context(version, scratch, who) for version in peer.VERSIONS
                for who in ("chain", "stranger", "sender")]
    times = 15 if FULL else 1
    sum_of, expected = {"fin": 0, "reset": 0, "open": 0}, 0

    def attack():
        nonlocal expected
        held = []
        for _ in range(times):
            for ctx in contexts:
                client = peer.Peer(site.daemon.port("known"), ctx, handshake=False)
                try:
                    client.handshake()
                except OSError:
                    pass
                try:
                    client.socket.shutdown(socket.SHUT_WR)  # no close_notify: cut
                except OSError:
                    pass
                held.append(client.socket)
        expected += len(held)
        for end, n in ends(held).items():
            sum_of[end] += n
    site.attack(attack, 500, 2)
    # A reset that follows the FIN of a refused handshake may be seen as that.
    tap.result(sum_of["open"] == 0 and sum_of["reset"] + sum_of["fin"] == expected > 0,
               "%s: all %d are ended, %d by a reset" % (name, expected, sum_of["reset"]), str(sum_of))
    site.end("%d" % (expected // ROUNDS))


def renegotiations(tap, scratch, table):
    """Clients that ask for a second handshake, as often as they can."""
    name = "TLS 1.2 renegotiation"
    site = Site(tap, scratch, name, table)
    times, refused = (10 if FULL else 2), 0

    def attack():
        nonlocal refused
        clients = [subprocess.Popen(
            ["openssl", "s_client", "-connect", "127.0.0.1:%d" % site.daemon.port("tls"), "-tls1_2"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(times)]
        for client in clients:
            # The command is taken when it comes alone.
            output = b""
            while b"---\nR" not in output and b"Extended master secret" not in output:
                output += os.read(client.stdout.fileno(), 4096)
            for _ in range(5):
                try:
                    client.stdin.write(b"R\n")
                    client.stdin.flush()
                except BrokenPipeError:
                    break
            output += client.communicate()[0]
            refused += b"RENEGOTIATING" in output and b"verify return" not in \
                output.split(b"RENEGOTIATING", 1)[1]
    site.attack(attack, times, 2)
    tap.result(refused == times * ROUNDS, "%s: all %d are refused" % (name, times * ROUNDS),
               "%d" % refused)
    site.end("%d" % times)


def prepare(scratch):
    peer.certificate(scratch, "server", "/CN=localhost")
    peer.certificate(scratch, "ca", "/CN=the authority")
    peer.certificate(scratch, "other", "/CN=another authority")
    peer.certificate(scratch, "sender", "/CN=sender", "ca")
    peer.certificate(scratch, "stranger", "/CN=stranger", "other")


def main():
    kit.need()
    peer.need()
    if not hasattr(os, "SCHED_IDLE"):
        storage.skip_all("no SCHED_IDLE")
    shown = storage.Tap()
    table = kit.Table(shown, *HEAD)

    def with_table(test):
        def run(tap, scratch):
            test(tap, scratch, table)
        run.__name__ = test.__name__
        return run
    tap = kit.run_all([with_table(test) for test in (
        first_flight, second_flight, hellos, records, certificates, renegotiations)], prepare)
    if FULL:
        table.end()
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
