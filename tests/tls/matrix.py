#!/usr/bin/env python3
"""matrix: not a byte lost, not a message cut short, whatever falls on which boundary.

TLS 1.2 and 1.3 x sizes around every boundary of records and buffers x records large and
small x how the end comes x framings.  No two messages are alike, and
at the end the spool holds exactly what was whole.
"""

import itertools
import random
import ssl
import struct
import sys

import peer
import storage

SIZES = sorted({0, 1, 2, 255, 256, 257, 4095, 4096, 4097, 8191, 8192, 8193, 65535, 65536, 65537,
                131072, 1048576, 1048577} |
               {16384 * n + more for n in (1, 2, 3, 4, 5) for more in (-1, 0, 1)})
LISTENERS = """
listeners = {{
	eof = {{ framing = "eof"; deliver = "s"; }};
	line = {{ framing = "line"; deliver = "s"; }};
	length = {{ framing = "length"; deliver = "s"; }};
	small = {{ framing = "eof"; buffer_size = 256; deliver = "s"; }};
	one = {{ framing = "line"; max_in_flight = 1; deliver = "s"; }};
}};
"""

# How an orderly end leaves: what shares a segment with what.
ORDERLY = ("all at once", "close_notify with the data", "close_notify apart")
CUT = ("FIN", "RST", "FIN within a record", "FIN within close_notify", "a forged record")


def message(name, size):
    return random.Random(name).randbytes(size)


def printable(name, size):
    """One that a line can hold."""
    return message(name, size).hex().encode()[:size]


def orderly(client, data, how, record):
    client.put(data, record)
    if how == "close_notify apart":
        client.send()
    client.put_close()
    client.send()
    client.fin()


def cut(client, data, how, record):
    client.put(data, record)
    if how == "FIN within close_notify":
        client.put_close()
    stream = client.taken()
    if how in ("FIN within a record", "FIN within close_notify"):
        stream = stream[:-1]
    if how == "a forged record":
        stream = stream[:-1] + bytes([stream[-1] ^ 1])
    try:
        client.socket.sendall(stream)
        if how == "RST":
            client.rst()
        else:
            client.fin()
    except OSError:
        pass  # the daemon has had enough of it already


class Matrix:
    def __init__(self, daemon, tap):
        self.daemon = daemon
        self.tap = tap
        self.contexts = {version: peer.context(version) for version in peer.VERSIONS}
        self.sent = {}  # id: bytes
        self.runs = 0
        self.begun = 0  # messages that cannot but be discarded
        self.problems = []

    def client(self, version, listener, hold=False):
        client = peer.Peer(self.daemon.ports[listener], self.contexts[version], handshake=False)
        client.handshake(hold)
        self.runs += 1
        return client

    def receipts(self, client, messages, what):
        """The daemon's answers are these messages', and its end is orderly."""
        answer, end = client.receive()
        lines = answer.decode().splitlines()
        good = end == "orderly" and len(lines) == len(messages)
        for line, message in zip(lines, messages):
            words = line.split()
            good = good and words[0] == "OK" and int(words[2]) == len(message)
            if words[0] == "OK":
                self.sent[words[1]] = message
        if not good:
            self.problems.append("%s: %s, %r" % (what, end, lines[:3]))

    def whole(self, version, listener, size, record, how):
        what = "TLS %s, %s, %d bytes in records of %d, %s" % (version, listener, size, record, how)
        name = "%s.%d" % (listener, self.runs)
        client = self.client(version, listener, how == "all at once" and version == "1.3")
        if listener in ("eof", "small"):
            messages = [message(name, size)] if size > 0 else []
            data = b"".join(messages)
        elif listener == "length":
            # The frames end where the size says; the next one must not be disturbed.
            messages = [message(name, size), b"", message(name + ".", 40)]
            data = b"".join(struct.pack(">I", len(m)) + m for m in messages)
        else:
            messages = [m for m in (printable(name, size), b"x", printable(name + ".", 17)) if m]
            data = b"\n".join(messages)  # the last line has no end but that of the stream
        orderly(client, data, how, record)
        self.receipts(client, messages, what)

    def answered(self, version, size):
        """The receipt comes although nothing follows: no wake-up is lost within a record."""
        client = self.client(version, "line")
        line = printable("answered.%d" % self.runs, size)
        client.put(line + b"\n")
        client.send()
        client.socket.settimeout(10)
        answer = b""
        try:
            while not answer.endswith(b"\n"):
                client.fill()
                try:
                    answer += client.tls.read(1000)
                except ssl.SSLWantReadError:
                    pass
        except (OSError, ssl.SSLError) as error:
            answer += str(error).encode()
        client.socket.close()
        if not answer.startswith(b"OK "):
            self.problems.append("TLS %s, %d bytes and silence: %r" % (version, size, answer))
        else:
            self.sent[answer.split()[1].decode()] = line

    def broken(self, version, listener, size, record, how):
        what = "TLS %s, %s, %d bytes in records of %d, cut: %s" % (
            version, listener, size, record, how)
        name = "cut.%d" % self.runs
        client = self.client(version, listener)
        if listener == "eof":
            data = message(name, size)
        elif listener == "length":
            data = struct.pack(">I", size + 1) + message(name, size)
        else:
            data = printable(name, size)
        cut(client, data, how, record)
        if how == "RST":
            return
        # Of a single record that is broken nothing has begun.
        self.begun += how in ("FIN", "FIN within close_notify") or len(data) > 16384
        answer, end = client.receive()
        if b"OK" in answer or end == "orderly":
            self.problems.append("%s: %s, %r" % (what, end, answer))

    def run(self, sizes):
        for version, size, how in itertools.product(peer.VERSIONS, sizes, ORDERLY):
            for listener in ("eof", "line", "length", "small", "one"):
                for record in (16384, 1000) if listener == "eof" else (16384,):
                    self.whole(version, listener, size, record, how)
        self.say("whole")
        for version, size in itertools.product(peer.VERSIONS, sizes):
            if size > 0 and len(self.problems) < 3:
                self.answered(version, size)
        self.say("answered while the client waits")
        cuts = 0
        for version, size, how in itertools.product(peer.VERSIONS, sizes, CUT):
            for listener in ("eof", "line", "length"):
                if size > 0:
                    self.broken(version, listener, size, 16384, how)
                    cuts += 1
        self.say("cut short")
        return cuts

    def say(self, what):
        self.tap.result(not self.problems, "%d connections, their messages %s" % (self.runs, what))
        for problem in self.problems[:20]:
            self.tap.note(problem)
        self.problems = []
        self.runs = 0


def main():
    tap = storage.Tap()
    tap.note(peer.need())
    sizes = SIZES if len(sys.argv) < 2 else [int(size) for size in sys.argv[1:]]
    with storage.Scratch() as scratch:
        peer.certificate(scratch, "server", "/CN=localhost")
        daemon = peer.Daemon(scratch, LISTENERS + peer.SPOOL)
        matrix = Matrix(daemon, tap)
        cuts = matrix.run(sizes)
        account = daemon.end(tap, "matrix")
        stored = peer.delivered(scratch)
        tap.result(stored == matrix.sent, "%d messages delivered, byte for byte, and %d were sent" %
                   (len(stored), len(matrix.sent)))
        # A reset may overtake the bytes in front of it, so that nothing has begun.
        tap.result(matrix.begun <= account.get("discarded", -1) <= cuts,
                   "%s of %d that were cut are discarded, %d at least" %
                   (account.get("discarded"), cuts, matrix.begun))
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
