"""senders: the listeners of the soak and who talks to them: good clients, which remember what
they were promised, and vandals.

A listener is a line in LISTENERS; it is left out where one of its sinks is.
"""

import math
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time

import ledger as books

PATIENCE = 60
STILL = 5
TOO_LARGE = 5 << 20
# A header of each version, with a TLV (PP2_TYPE_NOOP).
PROXY = (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 11000\r\n",
         b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x11" + bytes((192, 0, 2, 7, 192, 0, 2, 1)) +
         b"\x12\x67\x2a\xf8" + b"\x04\x00\x02ok")


class Listener:
    """framing, reply: as in its text.  `sinks`: where its messages go.  `sizes`: the largest
    usual one and the largest of all.  `refuses`: resets of good clients are in order."""

    def __init__(self, name, framing, reply, sinks, text="", **options):
        self.name, self.framing, self.reply, self.sinks, self.text = name, framing, reply, sinks, text
        self.clients = options.pop("clients", 1)
        self.messages = options.pop("messages", 8)
        self.sizes = options.pop("sizes", (2000, 300000))
        self.pause = options.pop("pause", .3)
        self.tls = options.pop("tls", False)
        self.proxy = options.pop("proxy", False)
        self.local = options.pop("local", False)
        self.refuses = options.pop("refuses", False)
        self.tool = options.pop("tool", False)
        assert not options


LISTENERS = (
    Listener("eof", "eof", "receipt", ["s"], messages=1, clients=2),
    Listener("quiet", "eof", "none", ["f"], 'quiet_timeout = "300ms";', messages=1, sizes=(2000, 4000)),
    Listener("line", "line", "receipt", ["f", "s"], "buffer_size = {buffer};", messages=50),
    Listener("mark", "delimiter", "echo", ["f"],
             'delimiter = "<EOF>"; keep_delimiter = true; max_messages = 1;', messages=1),
    Listener("silent", "line", "none", ["f"], messages=30),
    Listener("length", "length", "receipt", ["s"], 'length_bytes = 8; length_order = "little";',
             tls=True, clients=2),
    Listener("large", "netstring", "receipt", ["s"], 'rate_limit = {{ connection = "{rate}M"; '
             'listener = "16M"; }};', sizes=(20000, 3 << 20)),
    Listener("octet", "octet-counted", "receipt", ["f"], "max_in_flight = {flight};", proxy=True,
             messages=30),
    Listener("mllp", "mllp", "receipt", ["c"], tls=True, proxy=True, messages=3, pause=.5,
             sizes=(2000, 30000)),
    Listener("few", "line", "receipt", ["f"], "max_connections_per_address = 2;", clients=4,
             refuses=True),
    Listener("turn", "netstring", "receipt", ["f"], "max_connections = 2;", clients=4),
    Listener("hand", "netstring", "receipt", ["hf"], messages=20),
    Listener("run", "netstring", "receipt", ["hc"], messages=3, pause=.5, sizes=(2000, 30000)),
    Listener("stream", "netstring", "receipt", ["n"], messages=20),
    Listener("topic", "netstring", "receipt", ["k"], messages=20),
    Listener("local", "netstring", "receipt", ["s"], local=True),
    Listener("tool", "netstring", "receipt", ["s"], tool=True, messages=1, sizes=(20000, 1 << 20)),
)
BINARY = ("eof", "length", "netstring", "octet-counted")


def encode(listener, data):
    return {"eof": lambda: data,
            "line": lambda: data + b"\n",
            "delimiter": lambda: data + b"<EOF>",
            "length": lambda: struct.pack("<Q", len(data)) + data,
            "netstring": lambda: b"%d:%s," % (len(data), data),
            "octet-counted": lambda: b"%d %s" % (len(data), data),
            "mllp": lambda: b"\x0b" + data + b"\x1c\r"}[listener.framing]()


def reset(sock):
    """What a client that is killed leaves.  A wrapped socket has a descriptor, too."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Clock(threading.Thread):
    """Notices when this process stood still itself, as on a machine whose disk or processors
    were others' for a while: then a client was silent, and the daemon may have let go of it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.gaps = []  # (when it ended, how long it was)

    def run(self):
        while True:
            before = time.monotonic()
            time.sleep(.25)
            now = time.monotonic()
            if now > before + STILL:
                self.gaps.append((now, now - before))

    def stood_still(self, since):
        """For how long, at most at a time."""
        return max([length for end, length in self.gaps if end > since], default=0)


class Gate:
    """Where clients wait while the daemon is to be looked at in peace."""

    def __init__(self):
        self.changed, self.is_open, self.waiting = threading.Condition(), True, 0

    def enter(self):
        with self.changed:
            self.waiting += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.is_open)
            self.waiting -= 1

    def shut(self, count):
        """False: not that many have come to it in time."""
        with self.changed:
            self.is_open = False
            return self.changed.wait_for(lambda: self.waiting == count, PATIENCE)

    def lift(self):
        with self.changed:
            self.is_open = True
            self.changed.notify_all()


class Client(threading.Thread):
    """What good ones and vandals share.  `soak` has address(), listeners, ledger, gate, kills,
    complain().  None of them has a connection while it waits at the gate."""

    def __init__(self, soak, prefix, seed):
        super().__init__(daemon=True)
        self.soak, self.prefix, self.stopping = soak, prefix, False
        self.chance = random.Random(seed)
        self.sent = self.served = self.refused = 0
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE

    def connect(self, listener, polite=True, source=None):
        address = self.soak.address(listener)
        if listener.local:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(PATIENCE)
            sock.connect(address)
        else:
            sock = socket.create_connection(address, PATIENCE, (source, 0) if source else None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if listener.proxy and polite:
                sock.sendall(self.chance.choice(PROXY))
            if listener.tls and polite:
                sock = self.tls.wrap_socket(sock)
            return sock
        except OSError:
            sock.close()
            raise

    def message(self, listener):
        """(name, bytes)"""
        usual, largest = listener.sizes
        size = self.chance.randrange(40, usual) if self.chance.random() < .97 \
            else int(2 ** self.chance.uniform(10, math.log2(largest)))
        name = "%s.%d" % (self.prefix, self.sent)
        self.sent += 1
        data = books.proof(name, size)
        return name, data if listener.framing in BINARY else books.as_text(data)

    def pause(self, seconds):
        time.sleep(self.chance.uniform(0, 2 * seconds))


class Good(Client):
    """Sends messages, wants to be told of each, and an orderly close."""

    def __init__(self, soak, listener, number):
        super().__init__(soak, "%s-%d" % (listener.name, number), listener.name + str(number))
        self.listener = listener
        soak.ledger.open(self.prefix, listener.sinks, again=listener.tool and soak.kills)

    def run(self):
        while not self.stopping:
            self.soak.gate.enter()
            began = time.monotonic()
            try:
                if self.listener.tool:
                    self.run_tool()
                else:
                    self.exchange()
                self.served += 1
            except OSError as error:
                self.refused += 1
                time.sleep(.5)  # the clock is told of it, too
                if self.soak.clock.stood_still(began) > 0:
                    self.soak.did["exchanges ended as all stood still"] += 1
                elif not self.listener.refuses and not self.soak.kills:
                    self.soak.complain("%s: message %d, after %.1f s: %r" % (
                        self.prefix, self.sent - 1, time.monotonic() - began, error))
            self.pause(self.listener.pause)

    def exchange(self):
        listener, waiting = self.listener, []
        sock = self.connect(listener)
        received = sock.makefile("rb")
        try:
            for _ in range(self.chance.randint(1, listener.messages)):
                name, data = self.message(listener)
                sock.sendall(encode(listener, data))
                waiting.append((name, data))
                if listener.reply == "receipt" and listener.framing != "eof":
                    while len(waiting) > self.chance.randrange(8):
                        self.receipt(received, *waiting.pop(0))
            if listener.framing == "eof" and "quiet_timeout" not in listener.text:
                sock.shutdown(socket.SHUT_WR)
            for name, data in list(waiting):
                if listener.reply == "receipt":
                    self.receipt(received, name, data)
                elif listener.reply == "echo":
                    expected = data + b"<EOF>"
                    echo = received.read(len(expected))
                    if echo != expected:
                        raise OSError("echo of %s: %r" % (name, echo[:80]))
                    self.soak.ledger.acknowledge(name)
            if listener.tls:
                sock = sock.unwrap()
            elif listener.framing != "eof":
                sock.shutdown(socket.SHUT_WR)
            rest = sock.recv(100) if listener.tls else received.read(100)
            if rest:
                self.soak.complain("%s: more than was asked for: %r" % (self.prefix, rest))
            # A killed daemon's kernel may close in order: then only words are a receipt.
            if listener.reply == "none" and not self.soak.kills:
                for name, _ in waiting:
                    self.soak.ledger.acknowledge(name)
        finally:
            received.close()
            sock.close()

    def receipt(self, received, name, data):
        line = received.readline()
        words = line.decode("ascii", "replace").split()
        if not line.endswith(b"\n"):
            raise ConnectionError("%s: no receipt: %r" % (name, line))
        if words[0] == "OK":
            if int(words[2]) != len(data):
                self.soak.complain("%s of %d bytes: %r" % (name, len(data), line))
            self.soak.ledger.acknowledge(name, words[1])
        elif not self.soak.kills:
            self.soak.complain("%s: %r" % (name, line))

    def run_tool(self):
        """cistern send; one in four is killed."""
        name, data = self.message(self.listener)
        process = subprocess.Popen(
            [self.soak.tool, "send", "--receipt", "--retry-for", "1m", "--no-progress",
             "-f", self.listener.framing, "%s:%d" % self.soak.address(self.listener)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if self.chance.random() < .25:
            try:
                process.stdin.write(data)
                self.pause(.01)
            finally:
                process.kill()
                process.communicate()
            return
        _, error = process.communicate(data)
        if process.returncode == 0:
            self.soak.ledger.acknowledge(name)
        else:
            self.soak.complain("cistern send: %d: %r" % (process.returncode, error))


class Vandal(Client):
    """One evil a connection."""

    def __init__(self, soak, number):
        super().__init__(soak, "vandal-%d" % number, "vandal%d" % number)
        self.evils = (self.half, self.half, self.nonsense, self.silent, self.deaf, self.slow,
                      self.too_large, self.not_let_in, self.http)
        self.listener = None
        # What is sent whole but never waited for may be there or not.
        for listener in soak.listeners:
            soak.ledger.open("%s-%s" % (self.prefix, listener.name), listener.sinks)
        self.base = self.prefix

    def run(self):
        while not self.stopping:
            self.soak.gate.enter()
            self.listener = self.chance.choice(self.soak.listeners)
            self.prefix = "%s-%s" % (self.base, self.listener.name)
            try:
                self.chance.choice(self.evils)()
            except OSError:
                self.refused += 1
            self.served += 1
            self.pause(.05)

    def half(self):
        """Part of a message, and gone.  An orderly end would make it whole where the
        framing says so, and so would silence."""
        if "quiet_timeout" in self.listener.text:
            return
        data = encode(self.listener, self.message(self.listener)[1])
        sock = self.connect(self.listener)
        sock.sendall(data[:self.chance.randrange(1, len(data) - 1)])
        self.pause(.01)
        if self.listener.framing in ("eof", "line") or self.chance.random() < .5:
            reset(sock)
        else:
            sock.close()

    def nonsense(self):
        """Bytes that no framing here, no PROXY header and no handshake begins with."""
        if self.listener.tls or self.listener.proxy or \
                self.listener.framing in ("netstring", "octet-counted", "mllp"):
            sock = self.connect(self.listener, polite=self.chance.random() < .5)
            sock.sendall(b"x" + self.chance.randbytes(self.chance.randrange(5000)))
            sock.recv(100)
            sock.close()

    def silent(self):
        sock = self.connect(self.listener, polite=self.chance.random() < .5)
        self.pause(.5)
        reset(sock)

    def deaf(self):
        """Never reads an answer."""
        sock = self.connect(self.listener)
        messages = 1 if self.listener.messages == 1 else 20
        for _ in range(messages):
            sock.sendall(encode(self.listener, self.message(self.listener)[1]))
        if self.listener.messages == 1 and self.listener.framing == "eof":
            sock.close()
        else:
            self.pause(.1)
            reset(sock)

    def slow(self):
        """A byte at a time.  Not where silence ends a message."""
        if "quiet_timeout" in self.listener.text:
            return
        data = encode(self.listener, self.message(self.listener)[1])
        sock = self.connect(self.listener)
        for byte in data[:30]:
            sock.sendall(bytes((byte,)))
            time.sleep(.03)
        reset(sock)

    def too_large(self):
        """More than max_message_size.  What comes back is an answer or a reset."""
        if self.listener.tls or self.listener.name == "large" or self.chance.random() < .8:
            return
        sock = self.connect(self.listener)
        sock.sendall(encode(self.listener, b"A" * TOO_LARGE))
        answer = sock.recv(100)
        if answer and not answer.startswith(b"REJECT too-large"):
            self.soak.complain("too large, and answered: %r" % answer)
        sock.close()

    def not_let_in(self):
        if self.listener.local or self.listener.proxy:
            return
        sock = self.connect(self.listener, polite=False, source="127.0.0.3")
        try:
            sock.sendall(b"x")
            if sock.recv(1) == b"":
                self.soak.complain("127.0.0.3 was not reset")
        except ConnectionError:
            pass
        sock.close()

    def http(self):
        sock = socket.create_connection(self.soak.status_address, PATIENCE)
        sock.sendall(self.chance.choice((b"GET / HTTP/1.0\r\n\r\n", b"GET /none HTTP/1.1\r\n",
                                         b"\0" * 9000, b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\n")))
        self.pause(.1)
        reset(sock)


def everybody(soak, vandals):
    good = [Good(soak, listener, number) for listener in soak.listeners
            for number in range(listener.clients) if not listener.tool or os.access(soak.tool, os.X_OK)]
    return good + [Vandal(soak, number) for number in range(vandals)]
