"""storage: what the tests of tests/crash share: a daemon to be killed, clients that
remember what they were told, and the look at what is left.

A message carries its own proof: a name, filler made from it, and a digest of both, so
that a file can be judged without its receipt, and a receipt without its sender.
"""

import base64
import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

DEADLINE = 60.0
NO_READ = 0.002
STANDSTILL = 5.0  # seconds; longer between two looks is none of ours

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "netstring";
memory_limit = "2M"; spill_directory = "{directory}"; shutdown_timeout = 20;
{more}
"""

SPOOL = 's = {{ type = "spool"; directory = "{directory}/spool"; min_free = 0; {spool} }};'
FILE = 'f = {{ type = "file"; path = "{directory}/log"; format = "json"; {file} }};'


def wait_for(what, condition, patience=DEADLINE):
    """Time in which we ourselves stood still (stopped, or the machine suspended) does not count:
    those who are waited for stood still, too."""
    left, last = patience, time.monotonic()
    while left > 0:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
        now = time.monotonic()
        left -= min(now - last, STANDSTILL)
        last = now
    raise TimeoutError(what)


class Tap:
    """One line a test, and the exit code."""

    def __init__(self):
        self.number = 0
        self.failed = 0

    def result(self, good, what, why=""):
        self.number += 1
        self.failed += not good
        if not good and why:
            self.note(why)
        print("%s %d - %s" % ("ok" if good else "not ok", self.number, what), flush=True)
        return good

    def skip(self, what, why):
        self.number += 1
        print("ok %d - %s # SKIP %s" % (self.number, what, why), flush=True)

    def note(self, text):
        for line in text.splitlines():
            print("# " + line, flush=True)

    def end(self):
        print("1..%d" % self.number, flush=True)
        return 1 if self.failed else 0


def skip_all(why):
    print("1..0 # SKIP " + why)
    sys.exit(0)


def program(name="CISTERND", default="./cisternd"):
    path = os.environ.get(name, default)
    return path if path and os.access(path, os.X_OK) else None


def program_with_faults():
    """The build with fault points: $CISTERND_FAULTS, or skips all."""
    path = program("CISTERND_FAULTS", "tests/crash/cisternd")
    if path is None:
        skip_all("no cisternd with fault points (configure --enable-fault-points)")
    return path


class Scratch:
    """A directory under $TMPDIR, kept when the test failed."""

    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="cistern-crash.")
        return self.path

    def __exit__(self, kind, value, trace):
        if kind is None:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            print("# kept: " + self.path, flush=True)


def message(name, size):
    """Bytes that prove themselves; at least size of them (0: none at all)."""
    if size == 0:
        return b""
    head = name.encode() + b"\0"
    filler = random.Random(name).randbytes(max(0, size - len(head) - 32))
    return head + filler + hashlib.sha256(head + filler).digest()


def is_whole(data):
    return not data or hashlib.sha256(data[:-32]).digest() == data[-32:]


class Daemon:
    """cisternd on a directory, ready to be sent to."""

    def __init__(self, directory, sinks=("s",), env=None, path=None, spool="", file="", wrapper=(),
                 also=""):
        self.directory = directory
        settings = "".join({"s": SPOOL, "f": FILE}[sink] for sink in sinks)
        more = "deliver = [%s]; sinks = {{ %s %s }};" % (
            ", ".join('"%s"' % sink for sink in sinks), settings,
            also.replace("{", "{{").replace("}", "}}"))
        config = os.path.join(directory, "cistern.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(CONFIG.replace("{more}", more).format(
                directory=directory, spool=spool, file=file))
        number = len([name for name in os.listdir(directory) if name.endswith(".stderr")])
        self.log = os.path.join(directory, "%d.stderr" % number)
        self.log_file = open(self.log, "wb")
        everything = dict(os.environ)
        everything.update(env or {})
        self.process = subprocess.Popen(
            list(wrapper) + [path or program(), "-c", config], env=everything,
            stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file)
        self.port = None

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_ready(self):
        """False when it ended instead."""
        def come_to_it():
            ended = self.process.poll() is not None
            text = self.text()
            found = re.search(r" listening: listener main on 127\.0\.0\.1:(\d+)", text)
            if found and re.search(r" ready: ", text):
                self.port = int(found.group(1))
            return ended or self.port is not None
        try:
            wait_for("ready", come_to_it)
        except TimeoutError as error:
            raise RuntimeError("not ready in time:\n" + self.text()) from error
        return self.port is not None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        return self.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        try:
            code = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "stuck"
        self.log_file.close()
        return code


class Client(threading.Thread):
    """Sends messages one after the other, with up to `ahead` under way on a connection."""

    def __init__(self, port, name, sizes, ahead=4, limit=None):
        super().__init__(daemon=True)
        self.port = port
        self.prefix = name
        self.sizes = sizes
        self.ahead = ahead
        self.limit = limit
        self.acknowledged = {}  # id: (name, size)
        self.answers = {}       # name: the answer
        self.problems = []
        self.stopping = False
        self.sent = 0

    def run(self):
        while not self.stopping and (self.limit is None or self.sent < self.limit):
            try:
                self.connection()
            except ConnectionRefusedError:
                break
            except socket.timeout:
                self.problems.append("stuck: " + self.prefix)
                break
            except OSError:
                continue

    def connection(self):
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as connection:
            waiting, received = [], connection.makefile("rb")
            for _ in range(8):
                if self.stopping or (self.limit is not None and self.sent >= self.limit):
                    break
                name = "%s.%d" % (self.prefix, self.sent)
                data = message(name, next(self.sizes))
                self.sent += 1
                waiting.append((name, len(data)))
                connection.sendall(b"%d:%s," % (len(data), data))
                while len(waiting) >= self.ahead and self.answer(received, waiting):
                    pass
            connection.shutdown(socket.SHUT_WR)
            while waiting and self.answer(received, waiting):
                pass
            rest = received.read()
            if rest:
                self.problems.append("more than was asked for: %r" % rest)

    def answer(self, received, waiting):
        line = received.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError  # died, or reset
        name, size = waiting.pop(0)
        word, *rest = line.decode().split()
        self.answers[name] = line
        if word == "OK":
            if int(rest[1]) != size:
                self.problems.append("%s of %d bytes: %r" % (name, size, line))
            self.acknowledged[rest[0]] = (name, size)
        return True


def any_sizes(seed, largest=2000000):
    """Mostly small, some of every order, now and then none at all."""
    chance = random.Random(seed)
    while True:
        yield 0 if chance.random() < 0.02 else int(2 ** chance.uniform(5, 21)) % largest \
            if chance.random() < 0.3 else chance.randrange(40, 2000)


class Found:
    def __init__(self):
        self.lost = []
        self.torn = []
        self.found = 0


def check_spool(directory, acknowledged, found=None):
    """Looks for every acknowledged message and at every file."""
    found = found or Found()
    new = os.path.join(directory, "spool", "new")
    names = {}
    for entry in os.listdir(new):
        names[entry.split(".", 1)[0]] = entry
        with open(os.path.join(new, entry), "rb") as file:
            if not is_whole(file.read()):
                found.torn.append(entry)
    for id_, (name, size) in acknowledged.items():
        if id_ not in names:
            found.lost.append(id_)
            continue
        with open(os.path.join(new, names[id_]), "rb") as file:
            if file.read() != message(name, size):
                found.torn.append(names[id_])
            else:
                found.found += 1
    return found


def clear_spool(directory):
    new = os.path.join(directory, "spool", "new")
    if os.path.isdir(new):
        for entry in os.listdir(new):
            os.unlink(os.path.join(new, entry))


def record_data(record):
    if "data" in record:
        return record["data"].encode()
    return base64.b64decode(record["data_base64"])


def check_file(path, acknowledged, start=0, found=None, last_may_be_torn=False):
    """The same in the records of a json file, from an offset on."""
    found = found or Found()
    with open(path, "rb") as file:
        file.seek(start)
        lines = file.read().split(b"\n")
    rest = lines.pop()
    if rest and not last_may_be_torn:
        found.torn.append(rest[:80])
    records = {}
    for line in lines:
        try:
            record = json.loads(line)
            data = record_data(record)
        except (ValueError, KeyError):
            found.torn.append(line[:80])
            continue
        if len(data) != record["size"] or not is_whole(data):
            found.torn.append(record["id"])
        records[record["id"]] = data
    for id_, (name, size) in acknowledged.items():
        if id_ not in records:
            found.lost.append(id_)
        elif records[id_] != message(name, size):
            found.torn.append(id_)
        else:
            found.found += 1
    return found
