#!/usr/bin/env python3
"""surroundings: what cisternd is started into, and what stands beside it, can be odd:
descriptors that are closed or few, files that may not grow, pipes in place of files, no
/proc; and bytes that a client calls urgent.  Each test is a defect that was found once.

surroundings.py [NAME]...: only the tests of these names.
"""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

from manager import connect, wait_for
from storage import DEADLINE, Scratch, Tap, program

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 1; framing = "line"; reply = "receipt";
spill_directory = "{0}"; {1}
"""
FILE = 'deliver = "f"; sinks = {{ f = {{ type = "file"; path = "{0}/out"; format = "line"; }}; }};'
LOG = 'log = {{ target = "{0}/log"; }};'


class Odd:
    """cisternd from a shell's command line, which may close what it likes."""

    def __init__(self, directory, settings, redirections="", before="", arguments="", name="c",
                 wrapper=()):
        self.directory = directory
        self.config = os.path.join(directory, name + ".conf")
        self.errors = os.path.join(directory, name + ".stderr")
        self.write(settings)
        self.process = subprocess.Popen(
            [*wrapper, "/bin/sh", "-c", "%s exec '%s' -c '%s' %s %s" % (
                before, os.path.abspath(program()), self.config, arguments, redirections)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(self.errors, "ab"))

    def write(self, settings):
        with open(self.config, "w", encoding="ascii") as out:
            out.write(CONFIG.format(self.directory, settings.format(self.directory)))

    def text(self, file=None):
        with open(file or self.errors, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_log(self, text, file=None):
        def look():
            path = file or self.errors
            return os.path.exists(path) and re.search(text, self.text(path))
        return wait_for("%s in the log" % text, look)

    def ready(self, file=None):
        self.wait_log(" ready: ", file)
        found = re.search(r" on (127\.0\.0\.1):(\d+) \(backlog", self.text(file))
        self.address = (found.group(1), int(found.group(2))) if found else None
        return self

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def stop(self):
        self.signal()
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "killed, as it did not end"


def hear(client):
    """What it says until its end, be that a FIN or a reset."""
    received = b""
    with client:
        try:
            client.shutdown(socket.SHUT_WR)
            while chunk := client.recv(65536):
                received += chunk
        except OSError as error:
            if not received:
                return str(error)
    return received.decode()


def tell(address, data):
    try:
        client = connect(address)
    except OSError as error:
        return str(error)
    client.sendall(data)
    return hear(client)


def stdout_closed(tap, scratch):
    """What is printed to a closed standard output goes nowhere else, and is not accepted."""
    log = os.path.join(scratch, "log")
    daemon = Odd(scratch, LOG + 'sinks = {{ console = {{ type = "console"; format = "line"; }}; }};',
                 ">&-").ready(log)
    answer = tell(daemon.address, b"error forged: by a client\n")
    tap.result(answer == "RETRY storage\n" or answer == "RETRY unavailable\n",
               "a console without standard output accepts nothing: %r" % answer)
    tap.result(daemon.stop() == 0, "an orderly stop")
    tap.result("forged" not in daemon.text(log), "and no client writes lines into the log")


def stdin_closed_in_background(tap, scratch):
    """-d makes /dev/null of 0, 1 and 2: the log must not be one of them."""
    log = os.path.join(scratch, "log")
    pid_file = os.path.join(scratch, "pid")
    daemon = Odd(scratch, LOG + FILE + 'pid_file = "{0}/pid";', "<&- >&- 2>&-", arguments="-d")
    tap.result(daemon.process.wait(DEADLINE) == 0, "it is ready")
    daemon.ready(log)
    answer = tell(daemon.address, b"hello\n")
    tap.result(answer.startswith("OK "), "it accepts: %r" % answer)
    with open(pid_file, encoding="ascii") as file:
        number = int(file.read())
    tap.result(os.readlink("/proc/%d/cwd" % number) == "/", "it keeps no directory busy")
    os.kill(number, signal.SIGTERM)
    try:
        wait_for("the end", lambda: not os.path.exists(pid_file))
        tap.result(True, "it hears signals")
    except TimeoutError:
        os.kill(number, signal.SIGKILL)
        tap.result(False, "it hears signals")
    tap.result(" stopped: received 1 messages: 1 accepted" in daemon.text(log),
               "and still has its log")


def file_size_limit(tap, scratch):
    """A log that may not grow any more is dropped, not the daemon (SIGXFSZ)."""
    log = os.path.join(scratch, "log")
    daemon = Odd(scratch, LOG + FILE).ready(log)
    # ThreadSanitizer would not start with it.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (1024, 1024))
    for _ in range(40):
        before = os.path.getsize(log)
        daemon.signal(signal.SIGUSR1)
        wait_for("a line", lambda: os.path.getsize(log) > before or
                 daemon.process.poll() is not None or os.path.getsize(log) >= 1000)
        if os.path.getsize(log) >= 1000:
            time.sleep(0.01)
    tap.result(daemon.process.poll() is None and os.path.getsize(log) <= 2048,
               "it lives on when the log is full")
    tap.result(tell(daemon.address, b"short\n").startswith("OK "), "it accepts what fits")
    answer = tell(daemon.address, b"x" * 3000 + b"\n")
    tap.result(answer == "RETRY storage\n", "and refuses what does not: %r" % answer)
    tap.result(daemon.stop() == 0, "an orderly stop")


def urgent(tap, scratch):
    """Bytes that are sent as urgent (MSG_OOB) stay where they are in the stream."""
    local = os.path.join(scratch, "local")
    daemon = Odd(scratch, 'listeners = {{ main = {{ }}; behind = {{ proxy_protocol = true; '
                 'proxy_from = "127.0.0.1"; }}; local = {{ address = "unix:{0}/local"; }}; }};' +
                 FILE).ready()
    ports = dict(re.findall(r"listener (\w+) on 127\.0\.0\.1:(\d+)", daemon.text()))
    expected = []
    for name, head in (("main", b""), ("behind", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"),
                       ("local", b"")):
        target = local if name == "local" else ("127.0.0.1", int(ports[name]))
        for at in range(len(head) + 6):
            client = connect(target)
            data = head + b"abcde\n"
            client.sendall(data[:at])
            try:
                client.send(data[at:at + 1], socket.MSG_OOB)
            except OSError:
                tap.note("%s: no urgent bytes: an older kernel" % name)
                client.send(data[at:at + 1])
            time.sleep(0.001)
            client.sendall(data[at + 1:])
            answer = hear(client)
            expected.append("abcde")
            if not answer.endswith(" 5\n"):
                tap.result(False, "%s, byte %d is urgent: %r" % (name, at, answer))
    tap.result(daemon.stop() == 0, "an orderly stop")
    tap.result(daemon.text(os.path.join(scratch, "out")).splitlines() == expected,
               "all %d messages are what was sent" % len(expected))


def pipe_for_a_file(tap, scratch):
    """A named pipe that nobody writes must not stop the daemon for ever at a reload."""
    os.mkfifo(os.path.join(scratch, "pipe"))
    daemon = Odd(scratch, FILE).ready()
    daemon.write(FILE + '\n@include "pipe"\n')
    daemon.signal(signal.SIGHUP)
    try:
        found = daemon.wait_log("reload-refused: .*nobody writes to it")
    except TimeoutError:
        found = None
    tap.result(found is not None, "it is refused, and the log says why")
    tap.result(tell(daemon.address, b"on\n").startswith("OK "), "the daemon goes on")
    tap.result(daemon.stop() == 0, "an orderly stop")
    done = subprocess.run(["/bin/sh", "-c", "(sleep 0.1; echo 'workers = 3;') | '%s' -T -c /dev/stdin" %
                           os.path.abspath(program())], capture_output=True, check=False,
                          timeout=DEADLINE)
    tap.result(b"workers = 3;" in done.stdout, "a pipe that is slow is read")


def signals_too_early(tap, scratch):
    """HUP and USR1 in the middle of a start do not end it; they are seen to afterwards."""
    for number, name in ((signal.SIGHUP, "HUP"), (signal.SIGUSR1, "USR1")):
        late, real = os.path.join(scratch, name + ".pipe"), os.path.join(scratch, name + ".real")
        with open(real, "w", encoding="ascii") as file:
            file.write(FILE.format(scratch))
        os.mkfifo(late)
        writer = os.open(late, os.O_RDWR)
        daemon = Odd(scratch, '\n@include "%s.pipe"\n' % name, name=name)
        fds = "/proc/%d/fd" % daemon.process.pid
        wait_for("a start that reads its file", lambda f=fds, l=late: l in [
            os.path.realpath(os.path.join(f, fd)) for fd in os.listdir(f)])
        daemon.signal(number)
        os.rename(real, late)  # what a reload finds
        os.write(writer, FILE.format(scratch).encode())
        os.close(writer)
        started = wait_for("a start, or its end", lambda d=daemon: d.process.poll() is not None or
                           " ready: " in d.text()) and daemon.process.poll() is None
        tap.result(started, "it starts, %s or not" % name, daemon.text())
        if started:
            daemon.wait_log(" reloaded: " if number == signal.SIGHUP else " reopened: ")
        tap.result(daemon.stop() == 0, "an orderly stop")


def elsewhere(tap, scratch):
    """A file by a relative name, from the background, whose directory is another one; and as
    many descriptors as may be."""
    daemon = Odd(scratch, LOG + FILE + 'pid_file = "{0}/pid";', before="ulimit -Sn 100; cd '%s';" % scratch,
                 arguments="-c c.conf -d")
    log = os.path.join(scratch, "log")
    tap.result(daemon.process.wait(DEADLINE) == 0, "it is ready")
    with open(os.path.join(scratch, "pid"), encoding="ascii") as file:
        number = int(file.read())
    try:
        limits = resource.prlimit(number, resource.RLIMIT_NOFILE)
        tap.result(limits[0] == limits[1] > 100, "the limit of descriptors is raised: %d, %d" % limits)
        daemon.write(LOG + FILE + "idle_timeout = 7;")
        os.kill(number, signal.SIGHUP)
        daemon.wait_log(" reloaded: .*listeners changed: main", log)
        tap.result(True, "the file is found again")
    finally:
        os.kill(number, signal.SIGTERM)
    daemon.wait_log(" stopped: ", log)


def log_moved(tap, scratch):
    """The directory of the log is gone, and comes back: the old one is used on."""
    where, away = os.path.join(scratch, "logs"), os.path.join(scratch, "away")
    os.mkdir(where)
    settings = 'log = {{ target = "{0}/logs/log"; }};' + FILE
    daemon = Odd(scratch, settings).ready(os.path.join(where, "log"))
    os.rename(where, away)
    daemon.signal(signal.SIGHUP)
    log = os.path.join(away, "log")
    daemon.wait_log("log-reopen: cannot reopen the log: No such file", log)
    daemon.wait_log("reload-refused: cannot open the log .*/logs/log: No such file", log)
    tap.result(tell(daemon.address, b"on\n").startswith("OK "), "both are said, and the daemon goes on")
    os.mkdir(where)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(" reloaded: ", os.path.join(where, "log"))
    tap.result(daemon.stop() == 0, "and its log goes where it should, once that is there again")
    os.rename(where, away + ".2")
    daemon = Odd(scratch, settings)
    tap.result(daemon.process.wait(DEADLINE) == 73 and "cannot open the log" in daemon.text(),
               "a start without it is none")


def manager_nowhere(tap, scratch):
    """A service manager whose socket has a name that cannot be."""
    daemon = Odd(scratch, FILE, before="export NOTIFY_SOCKET=here;").ready()
    daemon.wait_log("service-manager: NOTIFY_SOCKET or WATCHDOG_USEC cannot be used")
    tap.result(daemon.stop() == 0, "it is said, and nothing else")


def deaf_at_a_stop(tap, scratch):
    """Who never takes his echoes holds up a stop for shutdown_timeout, and for some moments."""
    daemon = Odd(scratch, 'shutdown_timeout = "100ms"; listeners = {{ main = {{ reply = "echo"; }}; }};' +
                 FILE).ready()
    out = os.path.join(scratch, "out")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(daemon.address)
    client.sendall(b"x" * 10000000 + b"\n")
    wait_for("the message", lambda: os.path.getsize(out) == 10000001)
    tap.result(daemon.stop() == 0, "an orderly stop")
    tap.result(" stop-timeout: " in daemon.text(), "though it had to be hurried")
    client.close()


def cannot_be_printed(tap, scratch):
    """What -t, -T, -V and -h say, to a full disk."""
    config = os.path.join(scratch, "c.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write("port = 0;")
    codes = []
    for option in "-t", "-T", "-V", "-h":
        with open("/dev/full", "wb") as full:
            done = subprocess.run([program(), option, "-c", config], check=False, stdout=full,
                                  stderr=subprocess.PIPE, timeout=DEADLINE)
        codes.append((done.returncode, b"No space left" in done.stderr))
    tap.result(codes == [(74, True)] * 4, "is an error: %r" % codes)
    done = subprocess.run([program(), "-t", "-T", "-c", config], check=False, capture_output=True,
                          timeout=DEADLINE)
    tap.result(done.returncode == 64 and not done.stdout, "-t and -T exclude each other")


def few_descriptors(tap, scratch):
    """A start without enough of them says so, and leaves nothing behind."""
    wrong, limit, started = [], 5, False
    while not started and limit < 200:
        daemon = Odd(scratch, 'pid_file = "{0}/pid"; listeners = {{ main = {{ }}; local = {{ '
                     'address = "unix:{0}/local"; }}; }};' + FILE, before="ulimit -n %d;" % limit,
                     name="n%d" % limit)
        started = wait_for("its end", lambda d=daemon: d.process.poll() is not None or
                           " ready: " in d.text()) and daemon.process.poll() is None
        code = daemon.stop()
        text = daemon.text()
        left = [name for name in ("pid", "local") if os.path.exists(os.path.join(scratch, name))]
        if (started and code != 0) or left or (not started and code not in (71, 73, 127) and
                                               "Sanitizer" not in text):
            wrong.append("%d: exit %s, left %s: %s" % (limit, code, left, text[-300:]))
        limit += 1
    tap.result(started and not wrong, "every start with less than %d ends as it says" % limit,
               "\n".join(wrong))


def reload_without_descriptors(tap, scratch):
    """One that clients have taken all descriptors from lives through any reload."""
    spool = 'deliver = "s"; sinks = {{ f = {{ type = "file"; path = "{0}/out"; }}; ' \
            's = {{ type = "spool"; directory = "{0}/spool"; min_free = 0; forward = "f"; }}; }};'
    daemon = Odd(scratch, FILE, before="ulimit -n 60;").ready()
    number = daemon.process.pid
    clients = []

    def left():
        return 60 - len(os.listdir("/proc/%d/fd" % number))

    while left() > 0:
        clients.append(connect(daemon.address))
        before = time.monotonic()
        while left() > 0 and time.monotonic() < before + 0.02 and len(clients) > 30:
            time.sleep(0.001)
    said = 0
    while clients and len(clients) > 5 and daemon.process.poll() is None:
        daemon.write(spool.replace('/spool"', '/spool%d"' % len(clients)))
        daemon.signal(signal.SIGHUP)
        said += 1
        count = lambda: len(re.findall(r" reload-refused: [^ ]*: refused| reloaded: ", daemon.text()))
        wait_for("the reload", lambda: count() >= said or daemon.process.poll() is not None)
        clients.pop().close()
        time.sleep(0.01)
    tap.result(daemon.process.poll() is None, "%d reloads" % said, daemon.text()[-1000:])
    for client in clients:
        client.close()
    tap.result(daemon.stop() == 0, "an orderly stop")


def without_proc(tap, scratch):
    """Local sockets are there for everybody, and spools work, where /proc is not."""
    hide = "mount -t tmpfs none /proc"
    with open(program(), "rb") as file:
        sanitized = re.search(rb"__[at]san_init", file.read()) is not None
    if sanitized or os.getuid() != 0 or subprocess.run(
            ["unshare", "-m", "/bin/sh", "-c", hide], check=False,
            stderr=subprocess.DEVNULL).returncode != 0:
        tap.skip("without /proc", "sanitizers need it" if sanitized else "nothing can be mounted here")
        return
    daemon = Odd(scratch, 'listeners = {{ main = {{ address = "unix:{0}/local"; }}; }}; deliver = "s"; sinks = {{ s = {{ '
                 'type = "spool"; directory = "{0}/spool"; min_free = 0; }}; }};',
                 before=hide + " &&", wrapper=("unshare", "-m"))
    try:
        wait_for("a start", lambda: " ready: " in daemon.text() or daemon.process.poll() is not None)
        local = os.path.join(scratch, "local")
        good = daemon.process.poll() is None
        tap.result(good, "it starts", daemon.text())
        if good:
            tap.result(os.stat(local).st_mode & 0o777 == 0o666, "everybody may connect")
            tap.result(tell(local, b"hello\n").startswith("OK "), "it accepts")
    finally:
        tap.result(daemon.stop() == 0, "an orderly stop")


def local_socket_removed(tap, scratch):
    """A local socket that somebody has removed is back after a reload, and no other's goes."""
    local = os.path.join(scratch, "local")
    settings = 'listeners = {{ main = {{ address = "unix:{0}/local"; }}; }};' + FILE
    daemon = Odd(scratch, settings).ready()
    first = connect(local)
    first.sendall(b"half")
    os.unlink(local)
    daemon.signal(signal.SIGHUP)
    daemon.wait_log(" reloaded: ")
    answer = tell(local, b"one\n") if os.path.exists(local) else "no such socket"
    tap.result(answer.startswith("OK "), "it can be connected to again: %r" % answer)
    first.sendall(b"\n")
    tap.result(hear(first).startswith("OK "), "who was connected goes on")
    time.sleep(0.6)  # the old socket is closed by then, and must not take the path along
    tap.result(tell(local, b"two\n").startswith("OK "), "and it stays")
    tap.result(daemon.stop() == 0 and not os.path.exists(local), "an orderly stop, nothing left")


def main():
    tap = Tap()
    tests = (stdout_closed, stdin_closed_in_background, file_size_limit, urgent, pipe_for_a_file,
             signals_too_early, elsewhere, log_moved, manager_nowhere, deaf_at_a_stop,
             cannot_be_printed, few_descriptors, reload_without_descriptors, without_proc, local_socket_removed)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        tap.note("%s: %s" % (test.__name__, test.__doc__))
        with Scratch() as scratch:
            failed = tap.failed
            test(tap, scratch)
            if tap.failed > failed:
                tap.note("failed in %s" % test.__name__)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
