"""manager: a stand-in for systemd: it starts cisternd with the sockets and variables that
systemd would give it, and listens to what it says.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
from storage import DEADLINE, program, wait_for  # noqa: E402

# Puts descriptors where LISTEN_FDS wants them, in the process that LISTEN_PID names.
LAUNCH = """
import fcntl, os, sys
given = [int(n) for n in sys.argv[1].split(",") if n]
high = [fcntl.fcntl(n, fcntl.F_DUPFD_CLOEXEC, 100) for n in given]
for n in set(given):
    os.close(n)
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
if given:
    os.environ["LISTEN_PID"] = str(os.getpid())
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


def listening(address="127.0.0.1", backlog=1024):
    """A socket as a socket unit has it: listening, blocking."""
    if isinstance(address, str) and address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(address)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.bind((address, 0))
    sock.listen(backlog)
    return sock


class Manager:
    """The socket that NOTIFY_SOCKET names, and all that came there: (time, {name: value})."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        os.chmod(self.path, 0o777)
        self.datagrams = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            text = self.socket.recv(65536).decode()
            said = dict(line.split("=", 1) for line in text.splitlines())
            self.datagrams.append((time.monotonic(), said))

    def said(self, name, since=0.0):
        return [said[name] for when, said in list(self.datagrams)
                if name in said and when >= since]

    def wait(self, name, test=lambda value: True, since=0.0, patience=DEADLINE):
        """The whole datagram in which it was said."""
        def look():
            for when, said in list(self.datagrams):
                if when >= since and name in said and test(said[name]):
                    return said
            return None
        return wait_for("%s was not said" % name, look, patience)


class Service:
    """cisternd with a configuration, its log on standard error."""

    number = 0

    def __init__(self, directory, config, sockets=(), manager=None, arguments=(), env=None,
                 path=None, wrapper=(), names=None):
        Service.number += 1
        self.wrapped = bool(wrapper)
        self.config = os.path.join(directory, "cistern.conf")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(config)
        self.log_path = os.path.join(directory, "%d.log" % Service.number)
        everything = dict(os.environ, **(env or {}))
        if manager is not None:
            everything["NOTIFY_SOCKET"] = manager.path
        if sockets:
            everything["LISTEN_FDS"] = str(len(sockets))
            if names is None:
                names = [name for name, _ in sockets]
            if names:
                everything["LISTEN_FDNAMES"] = ":".join(names)
        fds = [sock.fileno() for _, sock in sockets]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, ",".join(map(str, fds)), *wrapper,
                 path or os.path.abspath(program()), "-c", self.config, *arguments],
                env=everything, pass_fds=fds, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def events(self, name):
        return re.findall(r"^.* %s(?: [^:]*)?: .*$" % name, self.log(), re.M)

    def wait_event(self, name, text="", patience=DEADLINE):
        def look():
            found = [line for line in self.events(name) if text in line]
            if not found and self.process.poll() is not None:
                raise RuntimeError("ended before it said %s:\n%s" % (name, self.log()))
            return found
        return wait_for("%s: %s" % (name, self.log()), look, patience)

    def ready(self):
        self.wait_event("ready")
        return self

    def address(self, listener="main"):
        found = re.search(r"listener %s on (\S+)" % listener, self.log()).group(1)
        if found.startswith("unix:"):
            return found[5:]
        host, port = found.rsplit(":", 1)
        return (host.strip("[]"), int(port))

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(DEADLINE)

    def stop(self):
        self.signal()
        return self.wait()

    def end(self):
        """Whatever state it is in, it stops at once when it is told twice, and in order: so
        sanitizers can say what they have found, and coverage counts it.  Two signals come as
        one where the first has not been taken yet, so it is told until it has heard."""
        if self.process.poll() is not None:
            return
        if not self.wrapped:
            due = time.monotonic()

            def has_ended():
                nonlocal due
                if self.process.poll() is None and time.monotonic() >= due:
                    self.signal()
                    due += 0.2
                return self.process.returncode is not None
            self.signal(signal.SIGCONT)
            try:
                wait_for("it did not end:\n" + self.log(), has_ended)
                code = self.process.returncode
                # One that has become somebody else cannot be traced, which a leak check wants.
                if code != 0 and "LeakSanitizer has encountered a fatal error" not in self.log():
                    raise RuntimeError("a stop ended with %d:\n%s" % (code, self.log()))
                return
            finally:
                self.kill()
        self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def task_status(self):
        """/proc/PID/task/*/status of all threads, as {name: value}."""
        found = []
        base = "/proc/%d/task" % self.process.pid
        for task in os.listdir(base):
            with open(os.path.join(base, task, "status"), encoding="ascii") as file:
                found.append(dict(re.findall(r"^(\w+):[ \t]*(.*)$", file.read(), re.M)))
        return found


def connect(address):
    family = socket.AF_UNIX if isinstance(address, str) else \
        socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    client = socket.socket(family, socket.SOCK_STREAM)
    client.settimeout(DEADLINE)
    client.connect(address)
    return client


def finish(client):
    """Closes our side, and all that comes until the other does."""
    with client:
        client.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
    return received.decode()


def send(address, data):
    client = connect(address)
    client.sendall(data)
    return finish(client)
