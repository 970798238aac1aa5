#!/usr/bin/env python3
"""reload: HUP again and again under load, three files in turn, in which listeners and
sinks come, go and change.

Who has connected is served: each message is acknowledged, and is found once.  A refused
connection is fine where the listener is not in the file at that moment, a reset never.
Descriptors, threads and memory at the end are what they were after the first rounds.

RELOADS: how many (40).  make check-reload: 1,000.
"""

import os
import random
import re
import signal
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
import storage  # noqa: E402

RELOADS = int(os.environ.get("RELOADS", "40"))
CLIENTS = 6

COMMON = """
address = "127.0.0.1"; workers = 2; framing = "netstring"; reply = "receipt"; backlog = 128;
spill_directory = "{directory}"; memory_limit = "{memory}"; shutdown_timeout = 20;
"""

# "always" is in every file, with other settings; the others come and go.
FILES = [
    COMMON + """
listeners = {{
  always = {{ port = 0; deliver = "f"; }};
  sometimes = {{ port = {sometimes}; deliver = "s"; }};
  moves = {{ port = {here}; deliver = [ "s", "f" ]; max_connections = 3; }};
}};
sinks = {{
  f = {{ type = "file"; path = "{directory}/log"; format = "json"; sync = false; }};
  s = {{ type = "spool"; directory = "{directory}/spool"; min_free = 0; sync = false; }};
}};
""",
    COMMON + """
listeners = {{
  always = {{ port = 0; deliver = [ "f", "t" ]; buffer_size = 4096; backlog = 50; }};
  renamed = {{ port = {here}; deliver = "f"; max_in_flight = 2; }};
}};
sinks = {{
  f = {{ type = "file"; path = "{directory}/log"; format = "line"; sync = false; }};
  t = {{ type = "spool"; directory = "{directory}/other"; min_free = 0; sync = false; }};
}};
""",
    COMMON + """
listeners = {{
  always = {{ port = 0; deliver = "s"; max_connections = 4; }};
  sometimes = {{ port = {sometimes}; deliver = "f"; max_connections_per_address = 100; }};
  moves = {{ port = {there}; deliver = "f"; }};
}};
sinks = {{
  f = {{ type = "file"; path = "{directory}/log"; format = "line"; mode = 0600; }};
  s = {{ type = "spool"; directory = "{directory}/spool"; min_free = 0; mode = 0600;
         sync = false; }};
}};
""",
]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Daemon(storage.Daemon):
    """One whose file this test writes."""

    def __init__(self, directory, text):  # pylint: disable=super-init-not-called
        self.directory = directory
        self.config = os.path.join(directory, "cistern.conf")
        self.write(text)
        self.log = os.path.join(directory, "stderr")
        self.log_file = open(self.log, "wb")
        self.process = storage.subprocess.Popen(
            [storage.program(), "-c", self.config], stdin=storage.subprocess.DEVNULL,
            stdout=self.log_file, stderr=self.log_file)
        self.at = 0
        self.seen = ""

    def write(self, text):
        with open(self.config + ".new", "w", encoding="ascii") as out:
            out.write(text)
        os.rename(self.config + ".new", self.config)

    def wait_for(self, pattern):
        """The next line of the log that matches."""
        until = time.monotonic() + storage.DEADLINE
        while time.monotonic() < until:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                log.seek(self.at)
                lines = log.read().splitlines(True)
            for line in lines:
                if not line.endswith("\n"):
                    break
                self.at += len(line.encode())
                found = re.search(pattern, line)
                if found:
                    return found
                if " error " in line or " reload-refused" in line:
                    self.seen += line
            if self.process.poll() is not None:
                raise RuntimeError("it has ended:\n" + self.text())
            time.sleep(0.002)
        raise RuntimeError("no %s:\n%s" % (pattern, self.text()[-4000:]))

    def look(self):
        """Descriptors, threads, KiB."""
        proc = "/proc/%d/" % self.process.pid
        with open(proc + "status", encoding="ascii") as status:
            text = status.read()
        return (len(os.listdir(proc + "fd")), int(re.search(r"Threads:\s+(\d+)", text).group(1)),
                int(re.search(r"VmRSS:\s+(\d+)", text).group(1)))

    def reload(self, text):
        self.write(text)
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(r" (reloaded|stays in force)")


class Client(threading.Thread):
    """Connects, sends up to eight messages, wants a receipt for each and then a FIN."""

    def __init__(self, name, port, must):
        super().__init__(daemon=True)
        self.prefix, self.port, self.must = name, port, must
        self.sent = []
        self.refused = self.served = 0
        self.problems = []
        self.stopping = False

    def run(self):
        while not self.stopping and not self.problems:
            try:
                # Where a listener has just gone nobody answers for a moment.
                connection = socket.create_connection(
                    ("127.0.0.1", self.port), storage.DEADLINE if self.must else 0.03)
            except (ConnectionRefusedError, socket.timeout):
                self.refused += 1
                if self.must:
                    self.problems.append("%s: refused" % self.prefix)
                time.sleep(0.002)
                continue
            except OSError as error:
                self.problems.append("%s: connecting: %s" % (self.prefix, error))
                break
            try:
                with connection:
                    self.exchange(connection)
                self.served += 1
            except OSError as error:
                self.problems.append("%s: connection %d: %s" % (self.prefix, self.served, error))

    def exchange(self, connection):
        connection.settimeout(storage.DEADLINE)
        received = connection.makefile("rb")
        for _ in range(1 + len(self.sent) % 8):
            text = "<%s.%d>" % (self.prefix, len(self.sent))
            self.sent.append(text)
            connection.sendall(b"%d:%s," % (len(text), text.encode()))
            if len(self.sent) % 3 == 0:
                time.sleep(0.002)
            line = received.readline()
            if not line.startswith(b"OK "):
                raise OSError("%s: answered with %r" % (text, line))
        connection.shutdown(socket.SHUT_WR)
        if received.read() != b"":
            raise OSError("more than receipts")


def found(directory):
    """How often each message is there: in the file, in each spool."""
    counts = {}
    with open(os.path.join(directory, "log"), encoding="ascii") as file:
        for line in file:
            # What is not a record of either format matches neither.
            one = re.fullmatch(r'(?:\{"id".*"data":")?(<[a-z0-9.]+>)(?:"\})?\n', line)
            name = one.group(1) if one else "torn: " + line
            counts[name, "log"] = counts.get((name, "log"), 0) + 1
    for spool in ("spool", "other"):
        for entry in os.listdir(os.path.join(directory, spool, "new")):
            with open(os.path.join(directory, spool, "new", entry), encoding="ascii") as file:
                name = file.read()
            counts[name, spool] = counts.get((name, spool), 0) + 1
    return counts


def check(tap, directory, clients, daemon):
    counts = found(directory)
    sent = {text for client in clients for text in client.sent}
    there = {name for name, _ in counts}
    problems = [problem for client in clients for problem in client.problems]
    twice = [key for key, count in counts.items() if count != 1]
    tap.result(not problems, "%d connections: none dropped"
               % sum(client.served for client in clients))
    tap.note("\n".join(problems[:10]))
    tap.result(sent == there, "%d messages: none lost, none that was not sent" % len(sent))
    tap.note("\n".join(sorted(sent ^ there)[:10]))
    tap.result(not twice, "each is there once in a place (%d records)" % len(counts))
    tap.note("\n".join(map(str, twice[:10])))
    account = re.search(r"received (\d+) messages: (\d+) accepted, 0 refused, 0 failed, 0 in fl",
                        daemon.text())
    tap.result(account and int(account.group(1)) == int(account.group(2)) == len(sent),
               "the daemon has counted them, too")
    tap.note("; ".join("%s: %d served, %d not let in" % (
        client.prefix, client.served, client.refused) for client in clients))


def settle(daemon, descriptors):
    """What it has once what was left has been closed."""
    until = time.monotonic() + storage.DEADLINE
    while time.monotonic() < until and descriptors and daemon.look()[0] > descriptors:
        time.sleep(0.02)
    return daemon.look()


def main():
    tap = storage.Tap()
    with storage.Scratch() as directory:
        here, there, sometimes = free_ports(3)
        texts = [text.format(directory=directory, here=here, there=there, sometimes=sometimes,
                             memory=memory) for text, memory in zip(FILES, ("32M", "16M", "24M"))]
        daemon = Daemon(directory, texts[0])
        always = int(daemon.wait_for(r"listening: listener always on .*:(\d+) ").group(1))
        daemon.wait_for(r" ready: ")
        # One that stays, in the first configuration, for ever.
        idle = socket.create_connection(("127.0.0.1", always))
        for i in range(3):
            daemon.reload(texts[(i + 1) % 3])
        time.sleep(0.7)
        quiet = settle(daemon, 0)
        ports = [("always", always, True)] * 3 + [
            ("here", here, False), ("there", there, False), ("sometimes", sometimes, False)]
        clients = [Client("%s%d" % (name, i), port, must)
                   for i, (name, port, must) in enumerate(ports[:CLIENTS])]
        for client in clients:
            client.start()
        began = time.monotonic()
        warm, chance = None, random.Random(1)
        for i in range(RELOADS):
            daemon.reload(texts[(i + 1) % 3])
            time.sleep(chance.choice((0, 0.01, 0.05)))
            if i == min(RELOADS // 2, 200):
                warm = daemon.look()
        took = time.monotonic() - began
        loaded = daemon.look()
        for client in clients:
            client.stopping = True
        for client in clients:
            client.join(storage.DEADLINE)
        while RELOADS % 3 != 0 and (i + 1) % 3 != 0:
            i += 1
            daemon.reload(texts[(i + 1) % 3])
        after = settle(daemon, quiet[0])
        idle.close()
        tap.note("%d reloads in %.1f s; descriptors, threads, KiB resident: %s quiet, %s and %s "
                 "under load, %s at the end" % (RELOADS, took, quiet, warm, loaded, after))
        tap.result(after[:2] == quiet[:2], "descriptors and threads: %d and %d, as before"
                   % after[:2])
        # Sanitizers keep what has been freed.
        with open(storage.program(), "rb") as file:
            sanitized = re.search(b"__[at]san_init", file.read())
        tap.result(sanitized or loaded[2] < warm[2] * 1.1 + 2048, "memory is flat")
        tap.result(daemon.stop() == 0 and daemon.seen == "", "it has no complaint")
        tap.note(daemon.seen[:2000])
        check(tap, directory, clients, daemon)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
