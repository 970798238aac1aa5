"""kit: what the tests of cistern(1) share: the tool itself, a daemon with any listeners,
and servers that behave as no daemon should.
"""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import storage  # noqa: E402

DEADLINE = storage.DEADLINE
HEAD = """
address = "127.0.0.1"; port = {port}; workers = 1; spill_directory = "{directory}";
shutdown_timeout = 20;
"""
SPOOL = """
deliver = [ "s" ];
sinks = {{ s = {{ type = "spool"; directory = "{directory}/spool"; {spool} }}; }};
"""


def tool():
    return storage.program("CISTERN", "./cistern") or storage.skip_all("no cistern")


class Done:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err.decode(errors="replace")

    def __repr__(self):
        return "exit %s, out %r, err %r" % (self.code, self.out[:500], self.err[:500])


def run(*arguments, data=b"", env=None):
    """cistern, to its end."""
    environment = dict(os.environ)
    environment.update(env or {})
    done = subprocess.run([tool()] + [str(a) for a in arguments], input=data, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE,
                          env=environment)
    return Done(done.returncode, done.stdout, done.stderr)


def send(*arguments, data=b"", env=None):
    return run("send", *arguments, data=data, env=env)


class Daemon:
    """cisternd with the given settings, and the ports of its listeners by name.  spool:
    settings of the spool that it delivers to; None: the settings have all sinks."""

    def __init__(self, directory, settings, spool="min_free = 0;", env=None, path=None, port=0):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.config = os.path.join(directory, "cistern.conf")
        with open(self.config, "w", encoding="utf-8") as out:
            head = HEAD if spool is None else HEAD + SPOOL
            out.write(head.format(directory=directory, spool=spool, port=port) + settings)
        self.new = os.path.join(directory, "spool", "new")
        self.log = os.path.join(directory, "stderr")
        self.file = open(self.log, "ab")
        self.start = self.file.tell()
        environment = dict(os.environ)
        environment.update(env or {})
        self.process = subprocess.Popen([path or storage.program(), "-c", self.config],
                                        stdin=subprocess.DEVNULL, stdout=self.file,
                                        stderr=self.file, env=environment)
        self.ports = {}
        until = time.monotonic() + DEADLINE
        while " ready: " not in self.text():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("cisternd does not start:\n" + self.text())
            time.sleep(0.005)
        for name, port in re.findall(r"listening: listener (\S+) on 127\.0\.0\.1:(\d+)", self.text()):
            self.ports[name] = int(port)

    def text(self):
        with open(self.log, "rb") as log:
            log.seek(self.start)
            return log.read().decode(errors="replace")

    def at(self, name="main"):
        return "127.0.0.1:%d" % self.ports[name]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        self.file.close()
        return code

    def take(self):
        """What lies in new/, in its order, which is then empty."""
        found = []
        for name in sorted(os.listdir(self.new)):
            with open(os.path.join(self.new, name), "rb") as file:
                found.append(file.read())
            os.unlink(os.path.join(self.new, name))
        return found


class Server(threading.Thread):
    """Accepts, and gives each connection to a function of (number, socket)."""

    def __init__(self, behave, receive=None):
        super().__init__(daemon=True)
        self.behave, self.connections = behave, 0
        self.listener = socket.socket()
        if receive is not None:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        self.at = "127.0.0.1:%d" % self.port
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.settimeout(DEADLINE)
            try:
                self.behave(self.connections, connection)
            except OSError:
                pass
            connection.close()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join(DEADLINE)


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_all(connection):
    data = b""
    while True:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece


def write(directory, name, data):
    path = os.path.join(directory, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


class Tests(storage.Tap):
    """A result for each function called check_*, with what it returned when it failed."""

    def all(self, module, *arguments):
        for name, function in sorted(vars(module).items()):
            if not name.startswith("check_"):
                continue
            try:
                wrong = function(*arguments)
            except Exception as error:  # the others shall run all the same
                wrong = "%s: %s (line %d)" % (type(error).__name__, error,
                                              error.__traceback__.tb_next.tb_lineno)
            if wrong:
                self.note(str(wrong))
            self.result(not wrong, name[6:].replace("_", " "))
