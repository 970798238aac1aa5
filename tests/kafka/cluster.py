"""cluster: what the tests of tests/kafka share: a mock cluster that they command, and a
daemon with a sink `k` that delivers to it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(TOP, "..", "crash"), os.path.join(TOP, "..", "system")]

import storage  # noqa: E402
from manager import Service, connect, wait_for  # noqa: E402

PRODUCE, METADATA, INIT_PRODUCER_ID = 0, 3, 22

# What a broker says (the protocol's numbers).
UNKNOWN_TOPIC, NOT_LEADER, REQUEST_TIMED_OUT, TOO_LARGE = 3, 6, 7, 10
NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND = 19, 20
TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED = 29, 31
OUT_OF_ORDER_SEQUENCE, INVALID_PRODUCER_EPOCH = 45, 47
STORAGE_ERROR, UNKNOWN_PRODUCER_ID, INVALID_RECORD = 56, 59, 87
DISCONNECT = -195

CONFIG = """
address = "127.0.0.1"; port = %(port)s; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "%(scratch)s"; deliver = "k"; shutdown_timeout = %(shutdown)s; %(more)s
sinks = { k = { type = "kafka"; brokers = [ %(brokers)s ]; topic = "%(topic)s"; %(sink)s }; };
"""


def mock_missing():
    """Why there is nothing to test, or nothing to test with; None: there is."""
    path = storage.program()
    if path is None:
        return "no cisternd ($CISTERND)"
    if "without Kafka" in version():
        return "built without Kafka"
    with open(path, "rb") as file:
        if b"__tsan_init" in file.read() and "LD_PRELOAD" not in os.environ:
            # librdkafka's threads are C11's, of which ThreadSanitizer does not know.
            threads = storage.program("KAFKA_THREADS", "tests/kafka/threads.so")
            if threads is None:
                return "no threads.so ($KAFKA_THREADS), without which ThreadSanitizer ends it"
            os.environ["LD_PRELOAD"] = os.path.abspath(threads)
            os.environ["TSAN_OPTIONS"] = "%s suppressions=%s" % (
                os.environ.get("TSAN_OPTIONS", ""), os.path.join(TOP, "threads.supp"))
    if storage.program("KAFKA_MOCK", "tests/kafka/mock") is None:
        return "no mock cluster ($KAFKA_MOCK)"
    return None


def mock_program():
    """Skips all where it is missing."""
    why = mock_missing()
    if why is not None:
        storage.skip_all(why)
    return storage.program("KAFKA_MOCK", "tests/kafka/mock")


def version():
    return subprocess.run([storage.program(), "-V"], capture_output=True, text=True,
                          check=True).stdout


class Record:
    def __init__(self, line):
        parts = line.rstrip("\n").split("\t")
        self.partition, self.time = int(parts[0]), int(parts[1])
        self.key, self.value = (None if part == "-" else bytes.fromhex(part)
                                for part in parts[2:4])
        pairs = [part.split("=", 1) for part in parts[4:]]
        self.names = [name for name, _ in pairs]
        self.headers = {name: bytes.fromhex(value).decode() for name, value in pairs}
        self.id = self.headers.get("Cistern-Id")


class Mock:
    def __init__(self, scratch, brokers=3):
        self.scratch, self.files, self.readers = scratch, {}, 0
        self.process = subprocess.Popen(self.command(brokers), text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.brokers = self.process.stdout.readline().split()[1].split(",")

    @staticmethod
    def command(brokers):
        return [mock_program(), str(brokers)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(storage.DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def tell(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        if answer.split()[:1] != ["ok"]:
            raise RuntimeError("mock: %r: %r" % (words, answer))
        return answer[3:]

    def topic(self, name, partitions=1):
        """Makes it, and from now on reads it."""
        self.tell("topic", name, partitions)
        self.files[name] = os.path.join(self.scratch, "topic-" + name)
        self.tell("consume", name, partitions, self.files[name])
        return name

    def records(self, name, count=0):
        """All that has come; waits until there are so many."""
        def look():
            with open(self.files[name], encoding="ascii") as file:
                lines = file.read().splitlines(keepends=True)
            if lines and not lines[-1].endswith("\n"):
                lines.pop()
            return [lines] if len(lines) >= count else None
        return [Record(line) for line in wait_for("%d records" % count, look)[0]]

    def until(self, topic, value):
        """Values of a topic with one partition once this one is among them; else None."""
        found = [record.value for record in self.records(topic)]
        return found if value in found else None

    def errors(self, *codes, api=PRODUCE):
        self.tell("errors", api, *codes)


class Broker(Mock):
    """The brokers of broker.py, which look at sequences and make trouble by themselves."""

    @staticmethod
    def command(brokers):
        return [sys.executable, os.path.join(TOP, "broker.py")]


class Kafka(Service):
    """A daemon with a kafka sink `k`."""

    def __init__(self, scratch, brokers, topic, sink="", more="", shutdown=20, port=0, **service):
        self.scratch, self.port = scratch, port
        super().__init__(scratch, self.settings(brokers, topic, sink, more, shutdown), **service)

    def settings(self, brokers, topic, sink="", more="", shutdown=20):
        return CONFIG % {"scratch": self.scratch, "topic": topic, "sink": sink, "more": more,
                         "shutdown": shutdown, "port": self.port,
                         "brokers": ", ".join(json.dumps(broker) for broker in brokers)}

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.end()

    def reload(self, text):
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(text)
        def count():
            return len(self.events("reloaded")) + bool(self.events("reload-refused"))
        before = count()
        self.signal(signal.SIGHUP)
        wait_for("a reload", lambda: count() > before)

    def ask(self, *messages):
        """Sends them and waits; the receipts, "OK" without id and size."""
        return [line if not line.startswith("OK") else "OK" for line in self.lines(*messages)]

    def lines(self, *messages):
        client = connect(self.address())
        client.sendall(frame(*messages))
        return answers(client)

    def account(self):
        found = re.search(r"received (\d+) messages: (\d+) accepted, (\d+) refused, (\d+) failed, "
                          r"(\d+) in flight", self.log())
        names = ("received", "accepted", "refused", "failed", "in_flight")
        return dict(zip(names, map(int, found.groups())))

    def finish(self, tap, what):
        """Stops it; the accounts must add up and no sanitizer may complain."""
        code = self.stop()
        account = self.account() if code == 0 else {}
        good = (code == 0 and account["in_flight"] == 0 and
                account["received"] == account["accepted"] + account["refused"] + account["failed"] and
                not re.search(r"Sanitizer|runtime error| bug", self.log()))
        if not tap.result(good, "%s: an orderly stop, accounts in order" % what):
            tap.note("exit %s, %s\n%s" % (code, account, self.log()[-3000:]))
        return account

    def connections_busy(self, client):
        """Whether all that a client has sent was read."""
        with open("/proc/net/tcp", encoding="ascii") as table:
            lines = [line.split() for line in table][1:]
        mine, port = client.getsockname()[1], self.address()[1]
        for fields in lines:
            local, peer = (int(fields[n].split(":")[1], 16) for n in (1, 2))
            if (local, peer) == (port, mine):
                return int(fields[4].split(":")[1], 16) == 0
        return False

    def threads(self):
        return len(os.listdir("/proc/%d/task" % self.process.pid))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def processor(self):
        """Seconds of processor time so far."""
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def frame(*messages):
    return b"".join(b"%d:%s," % (len(message), message) for message in messages)


def answers(client):
    """Receipts until the close, or the reset that follows what was not accepted."""
    received = b""
    with client:
        try:
            client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(65536):
                received += chunk
        except OSError:
            pass
    return received.decode().splitlines()


def pause():
    time.sleep(0.01)
