"""kit: what the tests of tests/hostile share: a daemon whose every figure is read, a good
client that measures, attacks, and how one is told from the other.

HOSTILE_FULL=1: all of it, in several rounds, with times judged.  Without it the attacks
are small, and nothing is asserted that depends on time.
"""

import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.abspath(__file__))
for place in ("system", "crash", "tls"):
    sys.path.insert(0, os.path.join(TOP, "..", place))

import storage  # noqa: E402
from manager import DEADLINE, Service, wait_for  # noqa: E402
from status import ask, balance, metrics, status_port, total  # noqa: E402

FULL = os.environ.get("HOSTILE_FULL") == "1"
ROUNDS = int(os.environ.get("HOSTILE_ROUNDS", "5")) if FULL else 1
KIB, MIB = 1024, 1024 * 1024
BASE = 24 * MIB  # chunks of listeners (2 MiB each and worker), queues, thread stacks in use
PROGRAMS = os.environ.get("HOSTILE", "tests/hostile")


def is_sanitized():
    """Whether the daemon's memory is not what it would be."""
    path = storage.program()
    linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
    return bool(re.search(r"lib[at]san", linked)) or subprocess.run(
        ["grep", "-q", "__asan_init\\|__tsan_init", path], check=False).returncode == 0


def program(name):
    return os.path.join(PROGRAMS, name)


def need():
    """Skips all where there is nothing to attack, or nothing to do it with."""
    if storage.program() is None:
        storage.skip_all("no cisternd ($CISTERND)")
    for name in ("attack", "probe"):
        if not os.access(program(name), os.X_OK):
            storage.skip_all("no %s (make check builds it)" % program(name))


def descriptors_raise(most):
    """So many open files for us and our children, or as many as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), max(hard, most)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def words(line):
    """name=value ... as a dictionary, numbers as numbers."""
    found = {}
    for word in line.split():
        name, _, value = word.partition("=")
        try:
            found[name] = float(value) if "." in value else int(value)
        except ValueError:
            found[name] = value
    return found


class Daemon(Service):
    """A cisternd with the status service; what it used is read from /proc."""

    started = []  # run_all ends those that a test has left

    def __init__(self, directory, config, **how):
        how.setdefault("path", storage.program() and os.path.abspath(storage.program()))
        super().__init__(directory, config, **how)
        Daemon.started.append(self)
        self.ready()
        self.directory = directory
        self.status = status_port(self)

    def port(self, listener="main"):
        return self.address(listener)[1]

    def metrics(self):
        return metrics(self.status)

    def balance(self):
        return balance(self.metrics())

    def healthy(self):
        answer, body = ask(self.status, "/healthz")
        return answer.status, body.strip()

    def is_ready(self):
        answer, body = ask(self.status, "/readyz")
        return answer.status, body.strip()

    def connections(self):
        return total(self.metrics(), "cistern_connections_active")

    def processor(self):
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name="VmRSS"):
        """Bytes; VmHWM: the most since the last peak_forget."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as status:
            return int(re.search(name + r":\s+(\d+)", status.read()).group(1)) * KIB

    def peak_forget(self):
        with open("/proc/%d/clear_refs" % self.process.pid, "w", encoding="ascii") as file:
            file.write("5")

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def threads(self):
        return len(os.listdir("/proc/%d/task" % self.process.pid))

    def holdings(self):
        return self.descriptors(), self.threads()

    def settle(self, before):
        """Waits until it has no more descriptors and threads than it had: whether.  Asking
        the status service takes a descriptor for a moment, so that comes first."""
        try:
            wait_for("no connection", lambda: self.connections() == 0)
            wait_for("nothing left", lambda: all(
                now <= then for now, then in zip(self.holdings(), before)))
        except TimeoutError:
            return False
        return True

    def finish(self, tap, what):
        """An orderly stop, and what it says of all messages must add up: the account."""
        code = self.stop()
        text = self.log()
        found = re.search(r"received (\d+) messages: (\d+) accepted, (\d+) refused, (\d+) failed, "
                          r"(\d+) in flight; discarded (\d+)", text)
        account = dict(zip(("received", "accepted", "refused", "failed", "in_flight", "discarded"),
                           map(int, found.groups()))) if found else {}
        good = (code == 0 and bool(account) and account["in_flight"] == 0 and
                account["received"] == account["accepted"] + account["refused"] + account["failed"]
                and not re.search(r"Sanitizer|runtime error", text))
        tap.result(good, "%s: it ends in order, %s" % (what, ", ".join(
            "%s %d" % (name.replace("_", " "), n) for name, n in account.items() if n)),
                   "exit code %s\n%s" % (code, text[-3000:]))
        return account


class Running:
    """A program of ours that ends with a line of words, once its input has ended."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def line(self):
        """The next line that it says, and not a byte more: the rest is for finish."""
        said = b""
        while not said.endswith(b"\n") and (byte := os.read(self.process.stdout.fileno(), 1)):
            said += byte
        return said.decode().strip()

    def finish(self):
        out, errors = self.process.communicate(timeout=600)
        lines = [line for line in out.splitlines() if "=" in line]
        found = words(lines[-1]) if lines else {}
        found["errors"] = errors
        if not lines:
            raise RuntimeError("%s: exit %s\n%s%s" % (
                self.process.args, self.process.returncode, out, errors))
        return found

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


class Attack(Running):
    """`attack`, once its first round is over."""

    def __init__(self, mode, port, **options):
        arguments = [program("attack"), mode, "-p", port]
        if not FULL:
            arguments.append("-k")  # nothing is measured: it may have its share of a busy machine
        for name, value in options.items():
            if value is True:
                arguments += ["-" + name]
            elif value is not None:
                arguments += ["-" + name, value]
        super().__init__(*arguments)
        if self.line() != "pressing":
            raise RuntimeError("%s: %s" % (mode, self.process.communicate()[1]))


class Probe:
    """The good client's runs, and all receipts that it was given."""

    def __init__(self, directory, port, tag="probe", address=None):
        self.list = os.path.join(directory, tag + ".receipts")
        self.tag = tag
        self.arguments = [program("probe"), "-p", port, "-l", self.list, "-L", 600]
        self.arguments += ["-a", address] if address else []
        self.number = 0
        self.expected = {}

    def start(self, seconds, interval=1000):
        self.number += 1
        return Running(*self.arguments, "-t", seconds, "-i", interval, "-g",
                       "%s-%d" % (self.tag, self.number))

    def run(self, seconds, interval=1000):
        return self.start(seconds, interval).finish()

    def check(self, path):
        """(receipts, those whose message is not stored as it was sent)."""
        wanted, tags = set(), re.compile(
            rb'"id":"(\w+)".*"data":"%s-\d+ (\d+) \.*"' % self.tag.encode())
        with open(self.list, encoding="ascii") as file:
            for line in file:
                wanted.add(tuple(line.split()))
        stored = set()
        with open(path, "rb") as file:
            for line in file:
                found = tags.search(line)
                if found:
                    stored.add((found.group(1).decode(), found.group(2).decode()))
        return len(wanted), len(wanted - stored)


class Rounds:
    """Latencies of rounds, quiet and attacked in turn; the verdict is over their medians."""

    def __init__(self):
        self.quiet, self.attacked = [], []

    def median(self, runs, name):
        """A run on a machine that stood still may have none of a kind."""
        return statistics.median([run[name] for run in runs if name in run] or [float("inf")])

    def ratio(self, kind):
        name = kind + "_p99"
        return self.median(self.attacked, name) / self.median(self.quiet, name)

    def text(self, kind):
        return "%s p50 %.0f -> %.0f us, p99 %.0f -> %.0f us (%.2f; rounds %s -> %s)" % (
            kind, self.median(self.quiet, kind + "_p50"), self.median(self.attacked, kind + "_p50"),
            self.median(self.quiet, kind + "_p99"), self.median(self.attacked, kind + "_p99"),
            self.ratio(kind), "/".join("%.0f" % run.get(kind + "_p99", -1) for run in self.quiet),
            "/".join("%.0f" % run.get(kind + "_p99", -1) for run in self.attacked))


    def verdict(self, tap, kind):
        """Within twice.  A machine is not quiet enough to tell where quiet rounds differ by
        more than that, or their p99 is more than five times their p50."""
        quiet = [run.get(kind + "_p99", float("inf")) for run in self.quiet]
        spread = max(quiet) / min(quiet)
        tail = self.median(self.quiet, kind + "_p99") / self.median(self.quiet, kind + "_p50")
        if not self.ratio(kind) <= 2 and (spread > 2 or tail > 5):
            tap.skip("p99: " + self.text(kind), "not judged: this machine is not quiet (without an "
                 "attack rounds differ by %.1f, p99 is %.1f times p50)" % (spread, tail))
        else:
            tap.result(self.ratio(kind) <= 2, "p99 within twice the quiet one: " + self.text(kind))


class Table:
    """What docs/RELIABILITY.md shows: printed at the end as its rows."""

    def __init__(self, tap, *names):
        self.tap = tap
        self.rows = [names, ["---"] * len(names)]

    def row(self, *cells):
        self.rows.append([str(cell) for cell in cells])

    def end(self):
        for row in self.rows:
            self.tap.note("| %s |" % " | ".join(row))


def now():
    return time.monotonic()


def run_all(tests, prepare=None, first=None):
    """The tests, or those that are named; each in a directory of its own.  first: the
    results of others, which these follow."""
    tap = first or storage.Tap()
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        failed = tap.failed
        try:
            with storage.Scratch() as scratch:
                if prepare is not None:
                    prepare(scratch)
                test(tap, scratch)
                if tap.failed > failed:
                    raise RuntimeError(test.__name__)
        except (RuntimeError, OSError, TimeoutError, AssertionError) as error:
            tap.result(False, "%s: %s" % (test.__name__, str(error)[-3000:].replace("\n", "\n# ")))
        finally:
            while Daemon.started:
                Daemon.started.pop().end()
    return tap


__all__ = ["Attack", "BASE", "DEADLINE", "Daemon", "FULL", "KIB", "MIB", "Probe", "ROUNDS",
           "Rounds", "Running", "Table", "ask", "descriptors_raise", "is_sanitized", "need", "now",
           "program", "run_all", "storage", "total", "wait_for"]
