"""scenario: a short life of the daemon with all its parts, for sweeps that make something
fail in it: a start, messages by every listener to every sink, requests for its status, a
reload, more messages, a stop.  And the judge of what became of it.

A new sink is a row of SINKS, a new listener a row of LISTENERS.  The sinks of brokers have a
life of their own (BROKERS), as they take longer.
"""

import functools
import hashlib
import json
import os
import random
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time

import brokers
import storage

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tls"))
import peer  # noqa: E402

START_CODES = (69, 71, 73, 74, 77, 78)
PATIENCE = float(os.environ.get("SWEEP_PATIENCE", "40"))  # for one answer
LITTLE_PATIENCE = 0.1
MEMORY_MOST = 64 << 20  # resident, without sanitizers

CONFIG = """
workers = 1; memory_limit = "256K"; spill_directory = "{directory}"; shutdown_timeout = 20;
address = "{address}"; idle_timeout = 5; framing = "line"; reply = "receipt"; {user}
status = {{ address = "{address}"; port = 11000; }};
listeners = {{ {listeners} }};
sinks = {{ {sinks} }};
"""

# The message whole under a name that says so: the shell and mv are nobody's but ours.
KEEP = 'cat >"$0/$CISTERN_ID.part" && mv "$0/$CISTERN_ID.part" "$0/$CISTERN_ID"'


def look_spool(directory, name="spool"):
    """(id, bytes) of all that a spool says to be whole."""
    new = os.path.join(directory, name, "new")
    for entry in os.listdir(new) if os.path.isdir(new) else ():
        with open(os.path.join(new, entry), "rb") as file:
            yield entry.split(".", 1)[0], file.read()


def look_records(path):
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    for line in lines[:-1]:
        record = json.loads(line)
        yield record["id"], storage.record_data(record)
    if lines[-1]:
        yield "half a record", lines[-1]


def look_handed(directory, to="handed"):
    """What a spool holds, and what it has handed on: one of them is where a message is, or both."""
    yield from look_spool(directory, "hand")
    yield from look_records(os.path.join(directory, to))


def look_command(directory):
    kept = os.path.join(directory, "kept")
    for entry in os.listdir(kept):
        if not entry.endswith(".part"):
            with open(os.path.join(kept, entry), "rb") as file:
                yield entry, file.read()


# kind: (settings, what it has)
SINKS = {
    "spool": ('type = "spool"; directory = "{directory}/spool"; min_free = 0;', look_spool),
    "file": ('type = "file"; path = "{directory}/log"; format = "json";',
             lambda directory: look_records(os.path.join(directory, "log"))),
    "console": ('type = "console"; format = "json";',
                lambda directory: look_records(os.path.join(directory, "stdout"))),
    "command": ('type = "command"; argv = [ "/bin/sh", "-c", {keep}, "{directory}/kept" ]; '
                'max_processes = 2; run_as_root = true;', look_command),
    "hand": ('type = "spool"; directory = "{directory}/hand"; min_free = 0; forward = "handed"; '
             'retry_min = "10ms"; retry_max = "100ms";', look_handed),
    "handed": ('type = "file"; path = "{directory}/handed"; format = "json";', None),
    "scraps": ('type = "file"; path = "{directory}/scraps"; format = "json";', None),
}


def frame_line(data):
    return data + b"\n"


def frame_netstring(data):
    return b"%d:%s," % (len(data), data)


def frame_octets(data):
    return b"%d %s" % (len(data), data)


def frame_length(data):
    return len(data).to_bytes(4, "big") + data


def frame_mllp(data):
    return b"\x0b" + data + b"\x1c\r"


def frame_tutorial(data):
    return data + b"<EOF>"


# name: (settings, sinks, frame, sizes of messages, how: receipts, echo or close; through)
LISTENERS = {
    "net": ('framing = "netstring"; incomplete = "scraps";', ("spool",), frame_netstring,
            (300, 3000, 80), "receipts", "tcp"),
    "line": ("rate_limit = { listener = \"100M\"; };", ("file",), frame_line, (90, 5000),
             "receipts", "tcp"),
    "bytes": ('framing = "eof"; reply = "none"; incomplete = "scraps";', ("spool",), bytes,
              (70000,), "close", "tcp"),
    "tutorial": ('framing = "delimiter"; delimiter = "<EOF>"; keep_delimiter = true; '
                 'reply = "echo"; max_messages = 1;', ("console",), frame_tutorial, (100,),
                 "echo", "tcp"),
    "length": ('framing = "length"; length_bytes = 4;', ("command",), frame_length, (200,),
               "receipts", "tcp"),
    "large": ('framing = "mllp"; message_timeout = 60; min_rate = 1;', ("spool",), frame_mllp,
              (600000,), "receipts", "tcp"),
    "proxied": ('framing = "octet-counted"; proxy_protocol = true; proxy_from = "127.0.0.0/8"; '
                'allow = [ "192.0.2.0/24" ];', ("spool", "file"), frame_octets, (150, 160),
                "receipts", "proxy"),
    "handing": ('framing = "netstring";', ("hand",), frame_netstring, (130, 3000, 70), "receipts",
                "tcp"),
    "local": ('address = "unix:{directory}/socket";', ("file",), frame_line, (120,), "receipts",
              "unix"),
    "tls": ('tls = {{ certificate = "{directory}/../server.pem"; '
            'key = "{directory}/../server.key"; handshake_timeout = 5; }};', ("spool",), frame_line, (100, 20000),
            "receipts", "tls"),
}
ADDED = "added"  # by the reload
LISTENERS_ADDED = ('', ("file",), frame_line, (110,), "receipts", "tcp")


class Parts:
    """What a life has: tables like those above, and whom it needs beside the daemon."""

    def __init__(self, sinks, listeners, added, brokers=()):
        self.sinks, self.listeners, self.added, self.brokers = sinks, listeners, added, brokers

    def missing(self, program):
        """Why a build cannot have such a life; else None."""
        return next(filter(None, (brokers.missing(one, program) for one in self.brokers)), None)


ALL = Parts(SINKS, LISTENERS, LISTENERS_ADDED)

# What brokers.py plays; `gone` is a server that nobody is, so its spool keeps what it has.
NATS = ('type = "nats"; servers = "nats://{address}:%d"; stream = "LIFE"; subject = "life.{{listener}}"; '
        'timeout = "%ds"; ')
BROKERS = Parts({
    "nats": (NATS % (11100, 5) + 'claim_check = "claims";',
             lambda directory: look_records(os.path.join(directory, "nats"))),
    "claims": ('type = "spool"; directory = "{directory}/claims"; min_free = 0;', None),
    "kafka": ('type = "kafka"; brokers = "{kafka}"; topic = "life"; timeout = "5s"; '
              'properties = [ "reconnect.backoff.ms=10", "reconnect.backoff.max.ms=100" ];',
              lambda directory: look_records(os.path.join(directory, "kafka"))),
    "hand": ('type = "spool"; directory = "{directory}/hand"; min_free = 0; forward = "nats"; '
             'retry_min = "10ms"; retry_max = "100ms";',
             lambda directory: look_handed(directory, "nats")),
    "kept": ('type = "spool"; directory = "{directory}/kept"; min_free = 0; forward = "gone"; '
             'retry_min = "10ms"; retry_max = "100ms";',
             lambda directory: look_spool(directory, "kept")),
    "gone": (NATS % (11101, 1), None),
}, {
    "nats": ('framing = "netstring";', ("nats",), frame_netstring, (130, 70000, 2000), "receipts",
             "tcp"),
    "kafka": ('framing = "netstring";', ("kafka",), frame_netstring, (130, 3000), "receipts", "tcp"),
    "handing": ('framing = "netstring";', ("hand",), frame_netstring, (140, 90), "receipts", "tcp"),
    "keeping": ('framing = "netstring";', ("kept",), frame_netstring, (140,), "receipts", "tcp"),
}, ('framing = "netstring";', ("nats", "kafka"), frame_netstring, (110,), "receipts", "tcp"),
    ("nats", "kafka"))
LIVES = {"all": ALL, "brokers": BROKERS}


@functools.lru_cache(maxsize=None)
def message(name, size):
    """Text that proves itself, of at least 70 bytes."""
    filler = random.Random(name).randbytes(max(0, (size - len(name) - 66) // 2)).hex()
    text = ("%s %s " % (name, filler)).encode()
    return text + hashlib.sha256(text).hexdigest().encode()


def is_whole(data):
    if data.endswith(b"<EOF>"):
        data = data[:-5]
    return data[-64:] == hashlib.sha256(data[:-64]).hexdigest().encode()


class Message:
    def __init__(self, name, listener, data, sinks):
        self.name, self.listener, self.data, self.sinks = name, listener, data, sinks
        self.id = None
        self.accepted = False


class Life:
    """One life of a daemon in a directory, on an address that nobody else has."""

    def __init__(self, directory, address, wrapper=(), env=None, program=None, tls=True,
                 parts=ALL, kafka=None):
        os.mkdir(directory)
        os.mkdir(os.path.join(directory, "kept"))
        self.directory, self.address, self.parts = directory, address, parts
        self.listeners = {name: row for name, row in parts.listeners.items()
                          if tls or name != "tls"}
        self.kafka, self.kafka_begin = kafka, kafka.end() if kafka else 0
        self.nats = brokers.Nats(address, os.path.join(directory, "nats")) \
            if "nats" in parts.brokers else None
        self.config = os.path.join(directory, "cistern.conf")
        self.write_config("")
        self.messages, self.problems = [], []
        self.memory = 0
        self.pid = None
        self.code = None
        self.stdout = open(os.path.join(directory, "stdout"), "wb")
        self.stderr = open(os.path.join(directory, "stderr"), "wb")
        program = os.path.abspath(program or storage.program())
        self.process = subprocess.Popen(
            list(wrapper) + [program, "-c", self.config], env=dict(os.environ, **(env or {})),
            stdin=subprocess.DEVNULL, stdout=self.stdout, stderr=self.stderr)
        self.log_name = wrapper[1] if wrapper else None

    def write_config(self, more):
        keep = '"%s"' % KEEP.replace('"', '\\"')
        where = {"directory": self.directory, "keep": keep, "address": self.address,
                 "kafka": self.kafka.brokers if self.kafka else ""}
        rows = dict(self.listeners)
        if more:
            rows[ADDED] = self.parts.added
        listeners = " ".join(
            "%s = {{ port = %d; deliver = [ %s ]; %s %s }};" % (
                name, 11001 + number, ", ".join('"%s"' % sink for sink in row[1]),
                row[0] if "{{" in row[0] or "{directory}" in row[0]
                else row[0].replace("{", "{{").replace("}", "}}"), more)
            for number, (name, row) in enumerate(rows.items()))
        if "local" in rows:
            listeners = listeners.replace("port = %d; " % self.port("local"), "")
        sinks = " ".join("%s = {{ %s }};" % (name, row[0]) for name, row in self.parts.sinks.items())
        with open(self.config, "w", encoding="ascii") as out:
            out.write(CONFIG.format(listeners=listeners.format(**where), user="",
                                    sinks=sinks.format(**where), **where))

    def port(self, name):
        return 11001 + (list(self.listeners) + [ADDED]).index(name)

    def text(self):
        with open(os.path.join(self.directory, "stderr"), encoding="utf-8",
                  errors="replace") as log:
            return log.read()

    def daemon(self):
        """The daemon's process: our child's child where something stands between."""
        if self.pid is None and self.log_name is None:
            self.pid = self.process.pid
        elif self.pid is None and os.path.exists(self.log_name):
            with open(self.log_name, encoding="ascii", errors="replace") as log:
                found = re.match(r"pid (\d+)\n", log.read())
            self.pid = int(found.group(1)) if found else None
        return self.pid

    def is_over(self):
        return self.process.poll() is not None

    def connects(self):
        """Whether all listeners let somebody in; its log may not have been written."""
        try:
            for name, row in self.listeners.items():
                self.connect(name, row[5], 1).close()
            return True
        except OSError:
            return False

    def wait_ready(self):
        """False when it has ended instead."""
        began = time.monotonic()

        def is_ready():
            return re.search(r" ready: ", self.text()) or (
                not self.is_over() and time.monotonic() > began + 2 and self.connects())
        try:
            storage.wait_for("ready", lambda: is_ready() or self.is_over(), PATIENCE)
        except TimeoutError:
            self.problems.append("neither ready nor ended")
            return True
        return bool(is_ready())

    def patiently(self, call, *arguments):
        """What a socket's call brings; who may wait for ever is left soon."""
        began = time.monotonic()
        while True:
            try:
                return call(*arguments)
            except socket.timeout:
                if self.goes_on() or time.monotonic() > began + PATIENCE:
                    raise

    def send(self, connection, data):
        while data:
            data = data[self.patiently(connection.send, data):]

    def goes_on(self):
        return not self.is_transient and self.struck()

    def wait_handed_on(self):
        """A spool that forwards has nothing left, however often that failed."""
        new = os.path.join(self.directory, "hand", "new")
        try:
            storage.wait_for("handed on", lambda: self.is_over() or not os.path.isdir(new) or
                             not os.listdir(new), PATIENCE)
        except TimeoutError as error:
            self.problems.append("not %s" % error)

    def stuck(self, what):
        """Whoever nobody accepts or answers, as that fails, may wait."""
        if not self.goes_on():
            self.problems.append("stuck: " + what)

    def connect(self, name, through, patience=LITTLE_PATIENCE):
        if through == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(PATIENCE)
            connection.connect(os.path.join(self.directory, "socket"))
            connection.settimeout(patience)
            return connection
        connection = socket.create_connection((self.address, self.port(name)), PATIENCE)
        connection.settimeout(patience)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def exchange(self, name, row, tag):
        """Some messages on a connection of their own; what is known of them afterwards."""
        _, sinks, frame, sizes, how, through = row
        some = [Message("%s.%s%d" % (name, tag, n), name, message("%s.%s%d" % (name, tag, n), s),
                        sinks) for n, s in enumerate(sizes)]
        self.messages += some
        answer, orderly = b"", False
        try:
            with self.connect(name, through) as connection:
                if through == "proxy":
                    self.send(connection, b"PROXY TCP4 192.0.2.9 192.0.2.1 4000 5000\r\n")
                if through == "tls":
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    connection = context.wrap_socket(connection, do_handshake_on_connect=False)
                    self.patiently(connection.do_handshake)
                self.send(connection, b"".join(frame(some_one.data) for some_one in some))
                if through != "tls":
                    connection.shutdown(socket.SHUT_WR)
                while through != "tls" or answer.count(b"\n") < len(some):
                    piece = self.patiently(connection.recv, 65536)
                    if not piece:
                        break
                    answer += piece
                if through == "tls":
                    self.patiently(connection.unwrap).close()
                orderly = True
        except socket.timeout:
            self.stuck("%s, %r" % (some[0].name, answer[:100]))
        except OSError:
            pass
        if how == "close":
            for each in some:
                each.accepted = orderly
        elif how == "echo":
            some[0].accepted = answer == frame_tutorial(some[0].data)
            some[0].data = frame_tutorial(some[0].data)
        else:
            for each, line in zip(some, answer.split(b"\n")[:-1]):
                words = line.decode("ascii", "replace").split()
                each.accepted = len(words) == 3 and words[0] == "OK"
                if each.accepted and int(words[2]) != len(each.data):
                    self.problems.append("%s of %d bytes: %r" % (each.name, len(each.data), line))
                elif each.accepted:
                    each.id = words[1]
                elif words[:1] not in (["RETRY"], ["REJECT"]):
                    self.problems.append("no receipt: %r" % line)
        # A local socket knows no reset.
        if orderly and through != "unix" and not all(each.accepted for each in some):
            self.problems.append("%s: an orderly close, but %r" % (some[0].name, answer[:200]))
        return all(each.accepted for each in some)

    def exchanges(self, tag):
        return [name for name, row in self.listeners.items() if not self.exchange(name, row, tag)]

    def abandon(self):
        """Half a message, and gone: what becomes of it is nobody's receipt."""
        try:
            with self.connect(next(iter(self.listeners)), "tcp") as connection:
                connection.sendall(b"100:abc")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                      b"\1\0\0\0\0\0\0\0")
        except OSError:
            pass

    def ask(self, path):
        """A request for the status; whether it was answered, by whatever."""
        answer = b""
        try:
            with socket.create_connection((self.address, 11000), PATIENCE) as connection:
                connection.settimeout(LITTLE_PATIENCE)
                connection.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
                while True:
                    piece = self.patiently(connection.recv, 65536)
                    if not piece:
                        break
                    answer += piece
        except socket.timeout:
            self.stuck(path)
        except OSError:
            pass
        return answer.startswith(b"HTTP/1")

    def statuses(self):
        return [path for path in ("/metrics", "/status.json", "/", "/healthz", "/readyz")
                if not self.ask(path)]

    def reload(self):
        """HUP with a changed file; whether it is in force."""
        self.write_config("idle_timeout = 6;")
        self.signal(signal.SIGHUP)
        def found():
            return re.search(r" (reloaded|reload-refused|reload-failed):? ", self.text())
        try:
            storage.wait_for("reloaded", lambda: found() or self.is_over(), 3 if self.goes_on() else PATIENCE)
        except TimeoutError:
            return False
        if re.search(r" reloaded: .*; sinks opened:", self.text()):
            self.problems.append("sinks were opened anew, which had not changed")
        return found() is not None and found().group(1) == "reloaded"

    def signal(self, number):
        try:
            os.kill(self.daemon(), number)
        except (ProcessLookupError, TypeError):
            pass

    def look_at_memory(self):
        try:
            with open("/proc/%d/status" % self.daemon(), encoding="ascii") as file:
                self.memory = int(re.search(r"VmHWM:\s+(\d+)", file.read()).group(1)) << 10
        except (OSError, TypeError, AttributeError):
            pass

    def look_at_belongings(self):
        """(descriptors, threads) of the daemon."""
        try:
            return tuple(len(os.listdir("/proc/%d/%s" % (self.daemon(), what)))
                         for what in ("fd", "task"))
        except (OSError, TypeError):
            return 0, 0

    def wait_given_back(self):
        """What others have at their end is enough for this one, too, once connections are gone."""
        def given_back():
            self.belongings = self.look_at_belongings()
            return self.most is None or self.is_over() or all(
                have <= most for have, most in zip(self.belongings, self.most))
        try:
            storage.wait_for("given back", given_back, PATIENCE / 2)
        except TimeoutError as error:
            self.problems.append("not %s: %d descriptors, %d threads, where others have %d and %d" % (
                (error,) + self.belongings + self.most))

    def stop(self):
        self.look_at_memory()
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        try:
            self.code = self.process.wait(PATIENCE + 30)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.code = "stuck"
        self.stdout.close()
        self.stderr.close()
        if self.nats:
            self.nats.close()
        if self.kafka:
            self.kafka.copy(self.kafka_begin, [each.id for each in self.messages if
                                               each.accepted and "kafka" in each.sinks],
                            os.path.join(self.directory, "kafka"))
        return self.code

    def live(self, struck):
        """All of it.  struck(): whether what was to fail has failed by now.  What was refused
        although nothing fails any more is a problem."""
        self.struck = struck
        ready = self.wait_ready()
        if not ready:
            self.wait()
            return False
        before, failed = struck(), self.exchanges("a") + self.statuses()
        self.abandon()
        if failed and not before and not struck():
            self.problems.append("failed without a fault: %s" % failed)
        if self.reload():
            self.exchange(ADDED, self.parts.added, "b")
        elif not struck():
            self.problems.append("the reload failed without a fault")
        before = struck()
        failed = [name for name in self.exchanges("c") + self.statuses()
                  if name not in self.lasting]
        if failed and self.is_transient and before == struck():
            self.problems.append("failed when the fault was gone: %s" % failed)
        if self.is_transient:
            self.wait_handed_on()
            self.wait_given_back()
        self.stop()
        return True

    sanitized = False
    struck = staticmethod(lambda: False)
    lasting = ()  # names of what may not get well again
    belongings, most = (0, 0), None  # descriptors and threads at the end; what they may be
    is_transient = True  # False: what fails goes on to fail, so nobody need be served

    # What is left

    def judge(self, ready, log_may_fail=False):
        """Adds to the problems what is wrong with how it ended and what it has left."""
        text = self.text()
        if re.search("Sanitizer|runtime error|Assertion|\\[err\\]", text):
            self.problems.append("a sanitizer or an assertion")
        if not ready:
            if self.code not in START_CODES:
                self.problems.append("start: code %s" % self.code)
            elif not text.strip() and not log_may_fail:
                self.problems.append("start: code %s, and nothing was said" % self.code)
        else:
            if self.code != 0:
                self.problems.append("end: code %s" % self.code)
            self.judge_account(text, log_may_fail)
        if self.memory > MEMORY_MOST and not self.sanitized:
            self.problems.append("memory: %d KiB" % (self.memory >> 10))
        self.judge_sinks()
        return self.problems

    def judge_account(self, text, log_may_fail):
        said = re.search(r" stopped: received (\d+) messages: (\d+) accepted, (\d+) refused, "
                         r"(\d+) failed, (\d+) in flight", text)
        if said is None:
            if not log_may_fail:
                self.problems.append("no account")
            return
        received, accepted, refused, failed, in_flight = map(int, said.groups())
        if received != accepted + refused + failed + in_flight or in_flight:
            self.problems.append("the account: " + said.group(0))
        if accepted < sum(each.accepted for each in self.messages):
            self.problems.append("more receipts than accepted: " + said.group(0))

    def judge_sinks(self):
        # The target refuses nothing for good.
        failed = os.path.join(self.directory, "hand", "failed")
        if os.path.isdir(failed) and os.listdir(failed):
            self.problems.append("failed: %r" % os.listdir(failed))
        for name, (_, look) in self.parts.sinks.items():
            if look is None:
                continue
            by_id, all_data = {}, set()
            for id_, data in look(self.directory):
                by_id[id_] = data
                all_data.add(data)
                if not is_whole(data):
                    self.problems.append("%s: %s is not whole" % (name, id_))
            for each in self.messages:
                if not each.accepted or name not in each.sinks:
                    continue
                there = each.data in all_data if each.id is None else \
                    by_id.get(each.id) == each.data
                if not there:
                    self.problems.append("%s: acknowledged, not there: %s" % (name, each.name))


def addresses():
    """Addresses of 127/8 that another run of ours is not likely to use."""
    number = 0
    base = "127.%d.%d." % (1 + (os.getpid() >> 8) % 254, os.getpid() % 256)
    while True:
        number = number % 250 + 1
        yield base + str(number)


def prepare(scratch):
    """What all lives share: a certificate.  Whether there is TLS to be tested."""
    version = subprocess.run([storage.program(), "-V"], capture_output=True, text=True,
                             check=True).stdout
    if "without TLS" in version or subprocess.run(
            ["openssl", "version"], capture_output=True, check=False).returncode != 0:
        print("# no TLS here: its listener is left out", flush=True)
        return False
    peer.certificate(scratch, "server", "/CN=localhost")
    return True
