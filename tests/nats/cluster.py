"""cluster: real nats-servers with JetStream, one or three of them, on ports that the kernel
chose, in a directory of their own; they can be killed, frozen and started again.  And a
client that is just enough to ask about streams and to read one back, byte for byte.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "crash"))
sys.path.insert(0, os.path.join(HERE, "..", "system"))
import storage  # noqa: E402
from manager import Service, wait_for  # noqa: E402

DEADLINE = storage.DEADLINE
NO_PEERS = 10005  # the servers of a new cluster do not all know each other yet
AHEAD = 250  # messages that are read between two acknowledgements
CONFIG = """
server_name: {name}
listen: 127.0.0.1:{port}
jetstream {{ store_dir: "{directory}/js", max_file_store: 4G, max_memory_store: 64M }}
{cluster}
{more}
"""
CLUSTER = """cluster {{ name: test, listen: 127.0.0.1:{port}, no_advertise: true,
 routes: [ {routes} ] }}"""


def missing(server=True):
    """Why there is nothing to test, or nothing to test it with; else None.  server=False: a
    stand-in needs no nats-server."""
    if storage.program() is None:
        return "there is no cisternd"
    said = subprocess.run([storage.program(), "-V"], stdout=subprocess.PIPE, text=True, check=True)
    if "NATS: libnats" not in said.stdout:
        return "this cisternd was built without NATS"
    if server and shutil.which("nats-server") is None:
        return "there is no nats-server"
    return None


def require(server=True):
    """Skips the whole test where something is missing."""
    why = missing(server)
    if why is not None:
        storage.skip_all(why)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Server:
    """One nats-server."""

    def __init__(self, directory, name, port, cluster="", more=""):
        self.directory, self.name, self.port = os.path.join(directory, name), name, port
        os.makedirs(self.directory, exist_ok=True)
        self.config = os.path.join(self.directory, "conf")
        self.process = None
        self.frozen = False
        self.write(cluster, more)

    def write(self, cluster="", more=""):
        with open(self.config, "w", encoding="utf-8") as out:
            out.write(CONFIG.format(name=self.name, port=self.port, directory=self.directory,
                                    cluster=cluster, more=more))

    def start(self):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(["nats-server", "-c", self.config],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self):
        """Until it accepts connections."""
        def look():
            if self.process.poll() is not None:
                with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
                    raise RuntimeError("nats-server has ended:\n" + log.read()[-2000:])
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                return False
        wait_for("nats-server", look)

    def kill(self, number=signal.SIGKILL):
        if self.process is None:
            return
        if self.frozen:
            self.thaw()
        self.process.send_signal(number)
        self.process.wait(DEADLINE)
        self.process = None

    def freeze(self):
        """As if the network to it were cut: nothing is answered, nothing is closed."""
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)
        self.frozen = False


class Cluster:
    """count servers, started; with three of them one cluster."""

    def __init__(self, directory, count=1, more=""):
        ports = free_ports(2 * count)
        routes = ", ".join('"nats://127.0.0.1:%d"' % port for port in ports[count:])
        self.servers = []
        for i in range(count):
            cluster = CLUSTER.format(port=ports[count + i], routes=routes) if count > 1 else ""
            self.servers.append(Server(directory, "n%d" % i, ports[i], cluster, more))
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.servers:
            server.kill()

    def start(self):
        for server in self.servers:
            if server.process is None:
                server.start()
        for server in self.servers:
            server.wait()

    def urls(self):
        return "[ %s ]" % ", ".join('"nats://127.0.0.1:%d"' % s.port for s in self.servers)

    def client(self, **options):
        """Connected to one that answers."""
        for server in self.servers:
            if server.process is not None and not server.frozen:
                return Client(server.port, **options)
        raise RuntimeError("no server runs")

    def request(self, subject, payload=None, patience=DEADLINE):
        """An answer of the API that is no error of an election; while there is no leader
        nobody answers, and who has one by then is not told of it."""
        def look():
            try:
                with self.client(patience=2) as client:
                    answer = client.request(subject, payload or {})
            except (OSError, ValueError):
                return None
            error = answer.get("error", {})
            if error.get("code") in (500, 503) or error.get("err_code") == NO_PEERS:
                return None
            return answer
        return wait_for(subject, look, patience)

    def add_stream(self, name, subjects, replicas=1, **more):
        answer = self.request("$JS.API.STREAM.CREATE." + name,
                              dict({"name": name, "subjects": subjects, "storage": "file",
                                    "num_replicas": replicas, "retention": "limits",
                                    "discard": "new"}, **more))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def update_stream(self, name, **more):
        config = self.info(name)["config"]
        config.update(more)
        return self.request("$JS.API.STREAM.UPDATE." + name, config)

    def info(self, name):
        return self.request("$JS.API.STREAM.INFO." + name)

    def count(self, name):
        return self.info(name)["state"]["messages"]

    def messages(self, name):
        """All of a stream, in order: (subject, {header: value}, bytes)."""
        def look():
            try:
                with self.client() as client:
                    return [[message for _, _, message in client.copy(name)[1]]]
            except (OSError, ValueError):
                return None
        return wait_for("reading " + name, look)[0]

    def copies(self, name, patience=DEADLINE, keep=None):
        """What each server's copy of a stream holds: {server: see Client.copy}."""
        copies = {}

        def look():
            try:
                with self.client() as client:
                    server, copy = client.copy(name, copies, keep)
            except (OSError, ValueError):
                return False
            if copy is not None:
                copies[server] = copy
            return len(copies) == len(self.servers)
        wait_for("reading each copy of " + name, look, patience)
        return copies


class Client:
    """One connection, one thread.  OSError: it was lost, or no answer came in time."""

    def __init__(self, port, options=None, patience=10):
        self.socket = socket.create_connection(("127.0.0.1", port), patience)
        self.file = self.socket.makefile("rb", 1 << 20)
        self.inbox = "_INBOX.%d.%d" % (os.getpid(), time.monotonic_ns())
        self.number = 0
        self.early = []
        self.reply = None  # where the last message wants its acknowledgement
        self.file.readline()  # INFO
        self.send("CONNECT %s\r\nPING\r\n" % json.dumps(dict(
            {"verbose": False, "headers": True, "no_responders": True}, **(options or {}))))
        line = self.file.readline()
        if not line.startswith((b"PONG", b"INFO")):
            raise OSError("refused: %r" % line)
        self.send("SUB %s.* 1\r\n" % self.inbox)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, text):
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def receive(self):
        """The next message: (subject, headers, bytes)."""
        while True:
            line = self.file.readline()
            if not line:
                raise OSError("closed")
            words = line.split()
            if words[0] == b"PING":
                self.send("PONG\r\n")
            elif words[0] == b"-ERR":
                raise OSError(line.decode())
            elif words[0] == b"MSG":
                data = self.file.read(int(words[-1]) + 2)[:-2]
                self.reply = words[3] if len(words) == 5 else None
                return words[1].decode(), {}, data
            elif words[0] == b"HMSG":
                length, total = int(words[-2]), int(words[-1])
                self.reply = words[3] if len(words) == 6 else None
                data = self.file.read(total + 2)[:-2]
                lines = data[:length].decode().split("\r\n")
                headers = dict(l.split(": ", 1) for l in lines[1:] if ": " in l)
                headers[""] = lines[0]
                return words[1].decode(), headers, data[length:]

    def request(self, subject, payload):
        self.number += 1
        data = json.dumps(payload).encode()
        reply = "%s.%d" % (self.inbox, self.number)
        self.send(b"PUB %s %s %d\r\n%s\r\n" % (subject.encode(), reply.encode(), len(data), data))
        while True:
            found, headers, answer = self.receive()
            if found == reply:
                if " 503" in headers.get("", ""):
                    raise OSError("nobody answers " + subject)
                return json.loads(answer)
            self.early.append(((found, headers, answer), self.reply))  # of a consumer that has just been made

    def copy(self, stream, but=(), keep=None):
        """What one copy of a stream holds, up to its own end, which is not the other copies'
        where they have come to differ: (server, [(sequence, when it was taken in seconds since
        1970, message)]); message: (subject, {header: value}, bytes), or what `keep` makes of
        these.  A consumer that is itself in one copy reads that of its own server, and which
        that is, is chance; None: one of `but`."""
        info = self.request("$JS.API.STREAM.INFO." + stream, {})
        if "error" in info:
            raise ValueError(info["error"])
        deliver = "DELIVER" + self.inbox[6:]
        self.send("SUB %s 2\r\n" % deliver)
        made = self.request("$JS.API.CONSUMER.CREATE." + stream, {
            "stream_name": stream, "config": {"deliver_subject": deliver, "ack_policy": "all",
                                              "max_ack_pending": 2 * AHEAD, "ack_wait": 60 * 10 ** 9,
                                              "deliver_policy": "all", "mem_storage": True,
                                              "num_replicas": 1}})
        if "error" in made:
            raise ValueError(made["error"])
        server = made.get("cluster", {}).get("leader")
        if server in but:
            return server, None
        found, pending = [], info["state"]["messages"]
        while pending:
            early = bool(self.early)
            message, reply = self.early.pop(0) if early else (self.receive(), self.reply)
            # $JS.ACK.STREAM.CONSUMER.TIMES.SEQUENCE.NUMBER.NANOSECONDS.PENDING
            words = reply.split(b".")
            found.append((int(words[5]), int(words[7]) / 1e9, keep(*message) if keep else message))
            pending = int(words[8])
            # Or the server would send until it takes us for slow, and hang up.
            if len(found) % AHEAD == 0:
                self.send(b"PUB %s 0\r\n\r\n" % reply)
        return server, found


CISTERN = """
address = "127.0.0.1"; workers = %(workers)d; spill_directory = "%(directory)s";
shutdown_timeout = 5; framing = "netstring"; reply = "receipt"; max_message_size = "64M";
status = { port = 0; };
%(top)s
sinks = { n = { type = "nats"; servers = %(servers)s; stream = "S"; %(sink)s };
%(more)s };
"""


class Daemon(Service):
    """cisternd with a nats sink `n`."""

    def __init__(self, directory, servers, sink='subject = "intake.{listener}";',
                 top='port = 0; deliver = "n";', more="", workers=2, text=None, **service):
        os.makedirs(directory, exist_ok=True)
        self.directory, self.status = directory, None
        self.text = text or CISTERN % {"directory": directory, "servers": servers, "sink": sink,
                               "top": top, "more": more, "workers": workers}
        super().__init__(directory, self.text, **service)

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.end()

    def rewrite(self, old, new):
        self.text = self.text.replace(old, new)
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(self.text)

    def open(self):
        """The stream is there and can be written to."""
        self.wait_readiness(True)
        return self

    def readiness(self):
        """What /readyz says: (whether it is ready, the text)."""
        if self.status is None:  # a log may be long
            self.status = int(re.search(r"status-listening.*?127\.0\.0\.1:(\d+)", self.log()).group(1))
        with socket.create_connection(("127.0.0.1", self.status), DEADLINE) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            answer = read_all(connection)
        return answer.split()[1] == b"200", answer.partition(b"\r\n\r\n")[2].decode()

    def wait_readiness(self, ready, text=""):
        return wait_for("readiness %s: %s" % (ready, self.log()), lambda: (
            lambda found: found[0] == ready and text in found[1])(self.readiness()))

    def ask(self, *messages, listener="main", patience=DEADLINE):
        """Sends them on one connection; the receipts, without ids and sizes."""
        with socket.create_connection(self.address(listener), patience) as connection:
            for message in messages:
                connection.sendall(b"%d:%s," % (len(message), message))
            connection.shutdown(socket.SHUT_WR)
            received = read_all(connection)
        return [line.split()[0] if line.startswith("OK") else line
                for line in received.decode().splitlines()]


def read_all(connection):
    """Until the close, or the reset that follows what was not accepted."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data
