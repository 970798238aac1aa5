#!/usr/bin/env python3
"""deployment: the files of examples/cluster, as they are but for addresses, ports and paths:
HAProxy, two cisternds, a JetStream of three servers.  What cistern-scaling(7) says of it is
tried here: whose messages they are, what arrives when a part is killed, reloaded or drained,
and what a close means behind HAProxy.

Every message that a sender was told OK for is in the stream, once by its id, byte for byte.

EXAMPLES: where they are (../../examples).
"""

import collections
import os
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
from cluster import (Cluster, DEADLINE, Server, free_ports, read_all, require, storage,  # noqa: E402
                     wait_for)
from manager import Service  # noqa: E402

EXAMPLES = os.path.join(os.environ.get("EXAMPLES", os.path.join(HERE, "..", "..", "examples")),
                        "cluster")
STREAM = "INTAKE"
FRONTENDS = ("stream", "kept")
DESCRIPTORS = 20000  # that HAProxy takes for the example's maxconn
RESETS = 50
MANY = 30  # messages that have to be accepted between two blows


def example(name, *changes):
    """A file with (pattern, replacement) applied, each of which has to be there."""
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        text = file.read()
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        if count == 0:
            raise RuntimeError("%s: there is no %s" % (name, pattern))
    return text


class Node(Server):
    """A nats-server with the example's file."""

    def __init__(self, directory, number, ports, routes):
        self.text = example(
            "nats-server.conf", (r'"0\.0\.0\.0:4222"', '"127.0.0.1:%d"' % ports[number]),
            (r'"0\.0\.0\.0:6222"', '"127.0.0.1:%d"' % routes[number]),
            (r"192\.0\.2\.2([123]):6222", lambda m: "127.0.0.1:%d" % routes[int(m.group(1)) - 1]),
            (r"/var/lib/nats", os.path.join(directory, "n%d" % number, "js")))
        super().__init__(directory, "n%d" % number, ports[number])

    def write(self, cluster="", more=""):
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(self.text)

    def start(self):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(
                ["nats-server", "-c", self.config], env=dict(os.environ, NODE=self.name),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Nodes(Cluster):
    def __init__(self, directory):  # pylint: disable=super-init-not-called
        ports, routes = free_ports(3), free_ports(3)
        self.servers = [Node(directory, number, ports, routes) for number in range(3)]
        self.start()


class Intake:
    """The cisternd of one machine, which is 127.0.0.11 or 127.0.0.12."""

    def __init__(self, directory, number, ports, nodes):
        self.directory = os.path.join(directory, "c%d" % number)
        os.mkdir(self.directory)
        self.host = "127.0.0.1%d" % number
        self.text = 'address = "%s"; spill_directory = "%s";\n' % (self.host, self.directory) + \
            example("cistern.conf", (r"192\.0\.2\.1\b", "127.0.0.1"),
                    (r"port = 11000", "port = %d" % ports["stream"]),
                    (r"port = 11001", "port = %d" % ports["kept"]),
                    (r"port = 11080", "port = %d" % ports["status"]),
                    (r'address = "\*"', 'address = "%s"' % self.host),
                    (r"192\.0\.2\.2([123])", lambda m: "127.0.0.1:%d" %
                     nodes.servers[int(m.group(1)) - 1].port),
                    (r"/var/spool/cistern", os.path.join(self.directory, "spool")))
        self.service = None

    def start(self):
        self.service = Service(self.directory, self.text)
        self.service.ready()

    def kill(self):
        self.service.process.kill()
        self.service.wait()

    def waiting(self):
        """Messages in its spool."""
        return len(os.listdir(os.path.join(self.directory, "spool", "new")))


class HAProxy:
    """With the example's file, as a master with a worker: SIGUSR2 reloads."""

    def __init__(self, directory, ports, fronts):
        self.directory, self.ports = directory, dict(zip(FRONTENDS, fronts))
        self.admin = os.path.join(directory, "admin.sock")
        config = os.path.join(directory, "haproxy.cfg")
        with open(config, "w", encoding="utf-8") as file:
            file.write(example(
                "haproxy.cfg", (r"bind :11000", "bind 127.0.0.1:%d" % fronts[0]),
                (r"bind :11001", "bind 127.0.0.1:%d" % fronts[1]),
                (r"192\.0\.2\.1([12]):11000", r"127.0.0.1\1:%d" % ports["stream"]),
                (r"192\.0\.2\.1([12]):11001", r"127.0.0.1\1:%d" % ports["kept"]),
                (r"check port 11080", "check port %d" % ports["status"]),
                (r"/run/haproxy/admin\.sock", self.admin)))
        with open(os.path.join(directory, "haproxy.log"), "wb") as log:
            self.process = subprocess.Popen(["haproxy", "-W", "-db", "-f", config],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ask(self, command):
        """The admin socket's answer, or nothing while there is none."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(DEADLINE)
                connection.connect(self.admin)
                connection.sendall(command.encode() + b"\n")
                return read_all(connection).decode()
        except OSError:
            if self.process.poll() is not None:
                with open(os.path.join(self.directory, "haproxy.log"), encoding="utf-8") as log:
                    raise RuntimeError("HAProxy has ended:\n" + log.read()) from None
            return ""

    def states(self):
        """{backend/server: state}; who has not been asked yet passes for UP and is left out."""
        rows = [row.split(",") for row in self.ask("show stat").splitlines()]
        if not rows or "check_status" not in rows[0]:
            return {}
        state, check = rows[0].index("status"), rows[0].index("check_status")
        return {row[0] + "/" + row[1]: row[state] for row in rows[1:] if len(row) > check and
                row[1] not in ("FRONTEND", "BACKEND") and row[check].lstrip("* ") not in ("", "INI")}

    def wait(self, state, *servers):
        try:
            wait_for(state, lambda: all(
                self.states().get(server, "").startswith(state) for server in servers))
        except TimeoutError:  # with all that HAProxy has to say about them
            raise TimeoutError("%s of %s: %s\n%s" % (state, servers, self.states(),
                                                     self.ask("show stat"))) from None

    def pid(self):
        found = re.search(r"^Pid: (\d+)", self.ask("show info"), re.M)
        return found and found.group(1)

    def reload(self):
        before = self.pid()
        self.process.send_signal(signal.SIGUSR2)
        wait_for("HAProxy's reload", lambda: self.pid() not in (None, before))

    def end(self):
        self.process.terminate()
        self.process.wait(DEADLINE)


class Deployment:
    """All of it, running."""

    def __init__(self, directory):
        self.directory = directory
        self.parts = []
        try:
            self.nodes = Nodes(os.path.join(directory, "nats"))
            self.parts.append(lambda: self.nodes.__exit__())
            ports = dict(zip(("stream", "kept", "status"), free_ports(3)))
            self.intakes = [Intake(directory, number, ports, self.nodes) for number in (1, 2)]
            for intake in self.intakes:
                self.parts.append(lambda intake=intake: intake.service and intake.service.end())
                intake.start()
            self.haproxy = HAProxy(directory, ports, free_ports(2))
            self.parts.append(self.haproxy.end)
            self.all_up()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in reversed(self.parts):
            part()

    def all_up(self):
        self.haproxy.wait("UP", *(a + "/" + c for a in FRONTENDS for c in ("c1", "c2")))

    def connect(self, frontend, source="127.0.0.1"):
        return socket.create_connection(("127.0.0.1", self.haproxy.ports[frontend]), DEADLINE,
                                        (source, 0))

    def talk(self, frontend, data):
        return talk(lambda: self.connect(frontend), data)

    def drained(self):
        wait_for("spools to drain", lambda: not any(i.waiting() for i in self.intakes))


class Ledger:
    """What senders were told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.sent = set()
        self.ids = []
        self.problems = []

    def told(self, payloads, ids):
        with self.lock:
            self.sent.update(payloads)
            self.ids.extend(ids)

    def problem(self, text):
        with self.lock:
            self.problems.append(text)


class Sender(threading.Thread):
    """`cistern send` again and again, several files at a time; it tries again by itself."""

    def __init__(self, deployment, ledger, number, frontend):
        super().__init__(daemon=True)
        self.directory = os.path.join(deployment.directory, "sender%d" % number)
        os.mkdir(self.directory)
        self.ledger, self.number, self.stopping = ledger, number, False
        self.to = "127.0.0.1:%d" % deployment.haproxy.ports[frontend]

    def run(self):
        turn = 0
        while not self.stopping:
            chance = random.Random(self.number << 32 | turn)
            payloads = [b"%d.%d.%d:" % (self.number, turn, n) + chance.randbytes(chance.choice(
                (0, 10, 100, 1000, 20000))) for n in range(5)]
            paths = []
            for n, payload in enumerate(payloads):
                paths.append(os.path.join(self.directory, str(n)))
                with open(paths[-1], "wb") as file:
                    file.write(payload)
            done = subprocess.run(
                [storage.program("CISTERN", "./cistern"), "send", "--receipt", "--framing", "netstring",
                 "--print-ids", "--retry-for", "60s", "--retry-delay", "50ms", "--verbose", self.to,
                 *paths], capture_output=True, text=True, timeout=2 * DEADLINE, check=False)
            if done.returncode != 0:
                self.ledger.problem(repr(done))
                return
            self.ledger.told(payloads, done.stdout.split())
            turn += 1


def netstring(data):
    return b"%d:%s," % (len(data), data)


def talk(connect, data):
    """All that comes back.  The second: whether the end was a reset."""
    answer = b""
    try:
        with connect() as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
    except OSError:  # a reset, or what follows one
        return answer, True
    return answer, False


def check_peers(tap, deployment, ledger):
    """Clients at several addresses, nc among them."""
    expected = {}
    for number in range(12):
        payload = b"client %d \0\r\n\xff" % number
        frontend = FRONTENDS[number % 2]
        connection = deployment.connect(frontend, "127.0.0.%d" % (40 + number))
        peer = "%s:%d" % connection.getsockname()
        answer, _ = talk(lambda connection=connection: connection, netstring(payload))
        words = answer.decode().split()
        if words[:1] != ["OK"]:
            raise RuntimeError("%s: %r" % (frontend, answer))
        ledger.told([payload], [words[1]])
        expected[words[1]] = (peer, frontend, payload)
    done = subprocess.run(["nc", "-N", "-s", "127.0.0.60", "127.0.0.1",
                           str(deployment.haproxy.ports["kept"])], input=b"5:hello,",
                          capture_output=True, timeout=DEADLINE, check=False)
    words = done.stdout.decode().split()
    tap.result(words[:1] == ["OK"] and words[2:] == ["5"], "nc -N is told OK", repr(done))
    ledger.told([b"hello"], words[1:2])
    deployment.drained()
    found = {headers["Cistern-Id"]: (headers, subject, data)
             for subject, headers, data in deployment.nodes.messages(STREAM)}
    wrong = [(id, found.get(id)) for id, (peer, listener, data) in expected.items()
             if id not in found or found[id][0]["Cistern-Peer"] != peer or
             found[id][0]["Cistern-Listener"] != listener or
             found[id][1] != "intake." + listener or found[id][2] != data]
    tap.result(not wrong and found[words[1]][0]["Cistern-Peer"].startswith("127.0.0.60:"),
               "peers are the clients, not HAProxy; subjects and bytes are right", repr(wrong))
    locals_ = {headers["Cistern-Local"] for headers, _, _ in found.values()}
    tap.result(len(locals_) == 2, "the address is the one that the client connected to", repr(locals_))
    took = [len(re.findall(r"^cistern_messages_accepted_total\S* (?!0$)", metrics(i),
                           re.M)) > 0 for i in deployment.intakes]
    tap.result(all(took), "both cisternds took some", repr(took))


def metrics(intake):
    port = int(re.search(r"status = .*port = (\d+)", intake.text).group(1))
    with socket.create_connection((intake.host, port), DEADLINE) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return read_all(connection).decode()


def check_closes(tap, deployment):
    """What the end of a connection means: nothing, in both directions."""
    def discarded(why):
        return sum(int(count) for intake in deployment.intakes for count in re.findall(
            r'^cistern_messages_discarded_total{.*reason="%s".*} (\d+)$' % why,
            metrics(intake), re.M))
    answer, was_reset = deployment.talk("stream", b"5:hel")
    tap.result(answer == b"REJECT incomplete\n", "half a frame and a close: REJECT incomplete",
               repr(answer))
    tap.note("cisternd's reset arrives as %s behind HAProxy" %
             ("a reset" if was_reset else "an orderly close"))
    answer, _ = deployment.talk("stream", b"2000000:")
    tap.result(answer == b"REJECT too-large\n", "too large: REJECT too-large", repr(answer))
    for _ in range(RESETS):
        connection = deployment.connect("stream")
        connection.sendall(b"20:HALF")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    # One more is incomplete, the one above.
    wait_for("what was reset to be discarded",
             lambda: discarded("reset") + discarded("incomplete") == RESETS + 1)
    tap.result(True, "half a frame and a reset: discarded")
    tap.note("of %d resets by senders %d arrive at cisternd as orderly closes" % (
        RESETS, discarded("incomplete") - 1))


def blow(tap, what, ledger, deal, restore):
    """Something is taken away and comes back; both times messages go on being accepted."""
    def go_on():
        before = len(ledger.ids)
        wait_for("messages while: " + what, lambda: ledger.problems or len(ledger.ids) >= before + MANY)
    deal()
    go_on()
    restore()
    go_on()
    tap.result(not ledger.problems, "messages go on: " + what, "\n".join(ledger.problems))


def check_storm(tap, deployment, ledger):
    first, second = deployment.intakes
    node = deployment.nodes.servers[0]
    senders = [Sender(deployment, ledger, n, FRONTENDS[n % 2]) for n in range(4)]
    held = deployment.connect("kept")  # over the reload
    held.sendall(b"4:one,")
    for sender in senders:
        sender.start()
    try:
        blow(tap, "a cisternd is killed", ledger, first.kill,
             lambda: (first.start(), deployment.all_up()))
        blow(tap, "the other one is killed", ledger, second.kill,
             lambda: (second.start(), deployment.all_up()))
        blow(tap, "a nats-server is killed", ledger, node.kill, lambda: (node.start(), node.wait()))
        blow(tap, "HAProxy is reloaded", ledger, deployment.haproxy.reload, lambda: None)

        def drain():
            for backend in FRONTENDS:
                deployment.haproxy.ask("set server %s/c2 state drain" % backend)
            deployment.haproxy.wait("DRAIN", "stream/c2", "kept/c2")
            tap.result(second.service.stop() == 0, "a cisternd that is drained stops in order")

        def undrain():
            second.start()
            for backend in FRONTENDS:
                deployment.haproxy.ask("set server %s/c2 state ready" % backend)
            deployment.all_up()
        blow(tap, "a cisternd is drained and stopped", ledger, drain, undrain)
    finally:
        for sender in senders:
            sender.stopping = True
        for sender in senders:
            sender.join(2 * DEADLINE)
        held.close()
    again = [problem for problem in ledger.problems]
    tap.result(not again and not any(s.is_alive() for s in senders), "all senders ended with 0",
               "\n".join(again))


def check_outage(tap, deployment, ledger):
    """Without NATS the one listener turns away, the other accepts."""
    for node in deployment.nodes.servers:
        node.kill()
    deployment.haproxy.wait("DOWN", "stream/c1", "stream/c2")
    answer, was_reset = deployment.talk("stream", netstring(b"nowhere"))
    tap.result(not answer and was_reset, "no NATS: the stream's port resets", repr(answer))
    payloads = [b"kept %d" % n for n in range(20)]
    answer, _ = deployment.talk("kept", b"".join(map(netstring, payloads)))
    lines = [line.split() for line in answer.decode().splitlines()]
    tap.result([line[0] for line in lines] == ["OK"] * 20, "no NATS: the spool accepts", repr(answer))
    ledger.told(payloads, [line[1] for line in lines])
    deployment.nodes.start()
    deployment.all_up()
    deployment.drained()
    tap.result(True, "NATS is back: the spools drain, and the port is open")


def check_stream(tap, deployment, ledger):
    deployment.drained()
    found = deployment.nodes.messages(STREAM)
    ids = collections.Counter(headers["Nats-Msg-Id"] for _, headers, _ in found)
    by_id = {headers["Nats-Msg-Id"]: data for _, headers, data in found}
    missing = [id for id in ledger.ids if ids[id] != 1]
    tap.result(not missing and len(set(ledger.ids)) == len(ledger.ids),
               "each of %d messages that were accepted is in the stream, once" % len(ledger.ids),
               "%d are not: %s" % (len(missing), missing[:10]))
    twice = [id for id, count in ids.items() if count > 1]
    tap.result(not twice, "no id is there twice", repr(twice))
    tap.result({by_id.get(id) for id in ledger.ids} == ledger.sent, "their bytes are those sent")
    strange = [data[:40] for data in by_id.values() if data not in ledger.sent and data != b"one"]
    tap.result(not strange, "nothing else is there: no half of a message", repr(strange))
    tap.note("%d in the stream, %d of them sent again under another id" % (
        len(found), len(found) - len(ledger.ids)))


def check_nobody(tap, deployment):
    for intake in deployment.intakes:
        intake.kill()
    deployment.haproxy.wait("DOWN", "stream/c1", "stream/c2", "kept/c1", "kept/c2")
    ends = [deployment.talk(frontend, netstring(b"nobody")) for frontend in FRONTENDS]
    tap.result(ends == [(b"", True)] * 2, "no cisternd: both ports reset", repr(ends))


def main():
    require()
    for name in ("haproxy", "nc"):
        if shutil.which(name) is None:
            storage.skip_all("there is no %s" % name)
    if "-N" not in subprocess.run(["nc", "-h"], capture_output=True, text=True, check=False).stderr:
        storage.skip_all("nc is not OpenBSD's")
    if storage.program("CISTERN", "./cistern") is None:
        storage.skip_all("there is no cistern ($CISTERN)")
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS:
        storage.skip_all("no %d descriptors for HAProxy (ulimit -Hn)" % DESCRIPTORS)
    tap, ledger = storage.Tap(), Ledger()
    with storage.Scratch() as directory:
        with Deployment(directory) as deployment:
            check_peers(tap, deployment, ledger)
            check_closes(tap, deployment)
            check_storm(tap, deployment, ledger)
            check_outage(tap, deployment, ledger)
            check_stream(tap, deployment, ledger)
            check_nobody(tap, deployment)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
