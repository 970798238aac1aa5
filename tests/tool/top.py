#!/usr/bin/env python3
"""top: `cistern top` against a service that says what a test wants it to say: figures
and rates, hostile texts, broken answers; and in a terminal of its own.
"""

import copy
import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import threading
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402

HOSTILE = "\x1b[2J\x1b]0;title\x07\x9b31m\r\n\u202e\t\x01end"
STATUS = {
    "version": "0.1.0", "pid": 4711, "started": "2026-11-22T10:00:00.000000Z",
    "now": "2026-11-22T11:00:00.000000Z", "uptime": 3600.0,
    "configuration": "/etc/cistern/cistern.conf", "workers": 2, "ready": True, "not_ready": [],
    "memory": {"messages": 1048576, "limit": 268435456, "resident": 20971520},
    "listeners": [{
        "name": "main", "addresses": ["0.0.0.0:11000", "[::]:11000"],
        "connections": {"active": 3, "accepted": 100, "refused": {"address-limit": 7}},
        "bytes": 5000000,
        "messages": {"received": 1000, "accepted": 990, "refused": 1, "failed": 2, "in_flight": 7,
                     "discarded": {"reset": 3, "timeout": 1}}}],
    "sinks": [{"name": "console", "type": "console", "state": "ok", "waiting": 4,
               "messages": {"accepted": 990, "refused": 1, "failed": 2, "retried": 0}}],
    "connections": [
        {"id": 17, "listener": "main", "peer": "192.0.2.1:5140", "age": 12.5, "bytes": 1000,
         "messages": 10, "in_flight": 1, "waits_for": "client"},
        {"id": 18, "listener": "main", "peer": "[2001:db8::1]:99", "age": 3000.0, "bytes": 900000,
         "messages": 20, "in_flight": 0, "waits_for": "sinks", "tls_subject": "CN=labs"}],
    "connections_left_out": 0,
}


class Service(kit.Server):
    """A status service: each look finds more."""

    def __init__(self, change=None, answer=None):
        self.looks, self.requests, self.change, self.answer = 0, [], change, answer
        super().__init__(self.serve)

    def document(self):
        status = copy.deepcopy(STATUS)
        status["uptime"] += self.looks * 2.0
        status["listeners"][0]["bytes"] += self.looks * 4096
        status["listeners"][0]["messages"]["received"] += self.looks * 600
        status["connections"][0]["bytes"] += self.looks * 2048
        status["sinks"][0]["messages"]["accepted"] += self.looks * 10
        if self.change:
            self.change(status, self.looks)
        return status

    def serve(self, number, connection):
        request = b""
        while b"\r\n\r\n" not in request:
            piece = connection.recv(65536)
            if not piece:
                return
            request += piece
        self.requests.append(request)
        if self.answer:
            connection.sendall(self.answer(json.dumps(self.document()).encode()))
        else:
            body = json.dumps(self.document()).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                               b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.looks += 1


def once(service, *arguments):
    done = kit.run("top", "--once", "--interval", "100ms", *arguments, service.at)
    service.close()
    return done


def check_once(_):
    service = Service()
    done = once(service)
    text = done.out.decode()
    lines = text.splitlines()
    rows = {line.split()[0]: line.split() for line in lines if line}
    good = done.code == 0 and not done.err and "\x1b" not in text and \
        rows["cistern"][1:6] == ["0.1.0", "pid", "4711", "up", "60m"] and "ready" in lines[0] and \
        rows["main"][1:] == ["3", "300", "2.0K", "7", "7", "4", "0.0.0.0:11000", "[::]:11000"] and \
        rows["console"][1:] == ["console", "ok", "4", "5", "0", "3", "0"] and \
        rows["17"][1:] == ["main", "192.0.2.1:5140", "12s", "1.0K", "0", "3.0K", "10", "1", "client"] \
        and rows["18"][-2:] == ["sinks", "CN=labs"] and text.index("\n         17") < \
        text.index("\n         18") and "memory for messages 1.0M of 256M, resident 20M" in text
    host = ("Host: " + service.at).encode()
    good = good and service.requests[0].startswith(b"GET /status.json HTTP/1.1\r\n") and \
        host in service.requests[0] and len(service.requests) == 2
    return not good and repr(done)


def check_sorting(_):
    def order(*arguments):
        text = once(Service(), *arguments).out.decode()
        return [line.split()[0] for line in text.splitlines() if line.split()[0] in ("17", "18")]

    for arguments, expected in ((["--sort", "connection"], "17"), (["--sort", "bytes"], "18"),
                                (["-s", "age"], "18"), (["-s", "age", "-r"], "17"),
                                (["-s", "in-flight"], "17"), (["-s", "waits-for"], "17"),
                                (["-s", "peer"], "17"), (["-s", "message-rate"], "17")):
        if order(*arguments)[0] != expected:
            return repr((arguments, order(*arguments)))
    return None


def check_json(_):
    done = once(Service(), "--json")
    found = json.loads(done.out)
    good = done.code == 0 and done.out.count(b"\n") == 1 and \
        found["listeners"][0]["messages_per_second"] == 300 and \
        found["listeners"][0]["bytes_per_second"] == 2048 and found["listeners"][0]["refused"] == 7 \
        and found["sinks"][0]["accepted_per_second"] == 5 and len(found["connections"]) == 2 and \
        found["connections"][0]["id"] == 17 and found["connections"][0]["bytes_per_second"] == 1024 \
        and found["ready"] is True and found["connections"][1]["tls_subject"] == "CN=labs"
    return not good and repr(done)


def check_hostile_texts(_):
    def change(status, looks):
        for part in (status["listeners"][0], status["sinks"][0]):
            part["name"] = HOSTILE
        status["sinks"][0]["why"] = status["version"] = HOSTILE
        status["ready"], status["not_ready"] = False, [HOSTILE, 5, None]
        status["connections"][0]["peer"] = status["connections"][0]["tls_subject"] = HOSTILE
        status["connections"][1]["waits_for"] = "nul\0" + HOSTILE
        status["connections"][1]["id"] = 2 ** 70
        status["connections"].append("none")
        status["connections"].append({"bytes": "many", "peer": {"a": 1}})
        status["memory"] = []

    done, objects = once(Service(change)), once(Service(change), "--json")
    bad = [byte for byte in done.out + objects.out if byte < 32 and byte != 10]
    text = done.out.decode()
    if done.code or objects.code or bad or "\u202e" in text or "\u009b" in text or "NOT READY" \
            not in text or "\\x1B[2J" not in text:
        return repr((done, bad))
    json.loads(objects.out)
    return None


def check_answers_of_all_kinds(_):
    def chunked(body):
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(
            b"%x\r\n%s\r\n" % (len(piece), piece) for piece in
            (body[:1], body[1:100], body[100:])) + b"0\r\n\r\n"

    for answer, code in (
            (chunked, 0), (lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + body, 0),
            (lambda body: b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", 69),
            (lambda body: b"HTTP/1.1 200 OK\r\n\r\n{}", 76),
            (lambda body: b"HTTP/1.1 200 OK\r\n\r\n{", 76), (lambda body: b"\x1b[2J\r\n\r\n", 76),
            (lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100000, 76),
            (lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + body, 76),
            (lambda body: b"x" * 100000, 76), (lambda body: b"", 76)):
        done = once(Service(answer=answer))
        if done.code != code or (code and not done.err) or "\x1b" in done.err:
            return repr((answer(b"{}")[:60], done))
    return None


def check_who_resets(_):
    service = kit.Server(lambda number, connection: (connection.recv(65536), kit.reset(connection)))
    done = kit.run("top", "--once", service.at)
    service.close()
    return (done.code != 69 or "reset" not in done.err) and repr(done)


def check_who_is_not_there(_):
    service = kit.Server(lambda number, connection: None)
    service.close()
    for arguments, code in ((["--once", service.at], 69), (["--once", "no-such.invalid"], 68),
                            (["--once", "https://localhost"], 64), (["--sort", "x"], 64),
                            (["-i", "1ms"], 64), (["-i", "soon"], 64), (["--nonsense"], 64),
                            (["a", "b"], 64), ([service.at], 64)):
        done = kit.run("top", *arguments)
        if done.code != code or not done.err:
            return repr((arguments, done))
    return None


def check_a_restart_in_between(_):
    def change(status, looks):
        if looks:
            status.update(pid=4712, uptime=1.0)
            status["listeners"][0]["bytes"] = 0

    done = once(Service(change))
    text = done.out.decode()
    return (done.code or "messages/s -" not in text or "pid 4712" not in text) and repr(done)


class Terminal:
    """top in a terminal, and what it has shown."""

    def __init__(self, *arguments, rows=24, columns=100):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            time.sleep(0.05)
            os.execv(kit.tool(), ["cistern", "top", "--interval", "100ms"] + list(arguments))
        self.size(rows, columns)
        self.seen = b""

    def size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self):
        return termios.tcgetattr(self.master)[3] & (termios.ICANON | termios.ECHO)

    def wait(self, wanted, after=0):
        """Until it has shown that."""
        until = time.monotonic() + kit.DEADLINE
        while wanted not in self.seen[after:]:
            if time.monotonic() > until or not self.more():
                raise RuntimeError("%r not in %r" % (wanted, self.seen[-2000:]))
        return len(self.seen)

    def more(self):
        if not select.select([self.master], [], [], 1)[0]:
            return True
        try:
            piece = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += piece
        return bool(piece)

    def press(self, keys):
        os.write(self.master, keys)

    def end(self):
        """Its exit status, with all it wrote read."""
        while self.more():
            pass
        status = os.waitpid(self.pid, 0)[1]
        modes = self.modes()
        os.close(self.master)
        return os.waitstatus_to_exitcode(status), modes


LEAVE = b"\x1b[?1049l"


def many(status, looks):
    status["connections"] = [dict(STATUS["connections"][0], id=1000 + n, bytes=n, peer="10.0.0.%d:1" % n)
                             for n in range(200)]
    status["connections"][3]["tls_subject"] = HOSTILE


def check_the_terminal(_):
    service = Service(many)
    terminal = Terminal(service.at)
    before = terminal.modes()
    at = terminal.wait(b"MSG/S")
    terminal.wait(b"BYTES/S*")
    during = terminal.modes()
    terminal.press(b"s")
    at = terminal.wait(b"MSG/S*", at)
    for _ in range(5):
        terminal.press(b"\x1b[D")
    at = terminal.wait(b"CONNECTION*", at)
    at = terminal.wait(b" 1000 ", at)
    terminal.press(b"\x1b[F")
    at = terminal.wait(b" 1199 ", at)
    terminal.press(b"\x1b[5~")
    at = terminal.wait(b" 1185 ", at)
    terminal.press(b"\x1b[H" + b"\x1b[B" * 30)
    at = terminal.wait(b" 1030 ", at)
    terminal.press(b"\x1b[A" * 30 + b"\x1b[Z\xff" + b"\x1bx")
    at = terminal.wait(b" 1000 ", at)
    terminal.press(b"\x1b[6~" * 3)
    at = terminal.wait(b" 1036 ", at)
    terminal.press(b"r")
    terminal.press(b"\x1b[H")
    at = terminal.wait(b" 1199 ", at)
    terminal.size(10, 40)
    os.kill(terminal.pid, signal.SIGWINCH)
    time.sleep(0.3)
    terminal.more()
    start = len(terminal.seen)
    terminal.wait(b"\x1b[H", start)
    terminal.wait(b"\x1b[J", terminal.seen.rindex(b"\x1b[H"))
    frame = terminal.seen[start:].replace(b"\r\r\n", b"\r\n").split(b"\x1b[H")[1].split(b"\x1b[J")[0]
    terminal.press(b"q")
    code, after = terminal.end()
    service.close()
    lines = frame.replace(b"\x1b[K", b"").replace(b"\x1b[7m", b"").replace(b"\x1b[0m", b"").split(b"\r\n")
    good = code == 0 and before == after and during == 0 and terminal.seen.endswith(LEAVE) and \
        len(lines) <= 10 and max(len(line) for line in lines) <= 40 and b"\x1b[2J" not in terminal.seen
    return not good and repr((code, before, during, after, lines))


def check_space_looks_at_once(_):
    service = Service()
    terminal = Terminal("--interval", "1h", service.at)
    terminal.wait(b"BYTES/S*")
    until = time.monotonic() + kit.DEADLINE
    while service.looks < 1 and time.monotonic() < until:
        time.sleep(.005)  # it counts a look when it has answered
    terminal.press(b" ")
    while service.looks < 2 and time.monotonic() < until:
        terminal.more()
    terminal.press(b"q")
    code, _ = terminal.end()
    service.close()
    return (code != 0 or service.looks != 2) and repr((code, service.looks))


def check_stopped_and_continued(_):
    """^Z gives the terminal back, and fg takes it again."""
    service = Service()
    terminal = Terminal(service.at)
    before = terminal.modes()
    at = terminal.wait(b"BYTES/S*")
    os.kill(terminal.pid, signal.SIGTSTP)
    at = terminal.wait(LEAVE, at)
    stopped = os.waitpid(terminal.pid, os.WUNTRACED)[1]
    given = terminal.modes()
    os.kill(terminal.pid, signal.SIGCONT)
    at = terminal.wait(b"\x1b[?1049h", at)
    terminal.wait(b"BYTES/S*", at)
    terminal.press(b"q")
    code, after = terminal.end()
    service.close()
    return (code != 0 or not os.WIFSTOPPED(stopped) or given != before or after != before) and \
        repr((code, stopped, before, given, after))


def check_given_back_on_any_end(_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV):
        service = Service()
        terminal = Terminal(service.at)
        before = terminal.modes()
        terminal.wait(b"BYTES/S*")
        os.kill(terminal.pid, number)
        code, after = terminal.end()
        service.close()
        # A sanitizer may have its own way to go down.
        if (code != -number and number != signal.SIGSEGV) or before != after or \
                LEAVE not in terminal.seen:
            return repr((number, code, before, after))
    return None


def check_a_service_that_goes_and_comes(_):
    service = Service()
    terminal = Terminal(service.at)
    at = terminal.wait(b"BYTES/S*")
    service.answer = lambda body: b"HTTP/1.1 500 No\r\n\r\n"
    at = terminal.wait(b"HTTP status 500", at)
    terminal.wait(b"pid 4711", at)
    service.answer = None
    at = terminal.wait(b"\x1b[Hcistern 0.1.0", at)
    terminal.press(b"q")
    code, _ = terminal.end()
    service.close()
    return code != 0 and repr(code)


def main():
    done = kit.run("--version")
    if b"top: no" in done.out:
        kit.storage.skip_all("cistern was built without jansson")
    tests = kit.Tests()
    with kit.storage.Scratch() as directory:
        tests.all(sys.modules[__name__], directory)
        if tests.failed:
            raise SystemExit(tests.end())
    return tests.end()


if __name__ == "__main__":
    sys.exit(main())
