#!/usr/bin/env python3
"""clients: hostile clients in their thousands, and a good one beside them.

The good one sends a message each millisecond, in turn on a connection that it holds and
on a fresh one.  It is served correctly, whatever the others do: each receipt is that of a
message that is stored.  The daemon lives, its memory stays within memory_limit and a cost
a connection, its descriptors and threads are back where they were, each of the others'
connections is ended by the limit that is meant for it, and the account adds up.

make check-hostile: the good client's p99, in rounds that alternate with quiet ones, is
within twice the quiet one.  The attackers run as SCHED_IDLE, so that they only get the
time that the daemon and the good client leave: on two processors it would be the
generator's appetite that is measured otherwise.  What they cause within the kernel
(loopback delivers in the sender's context) is the daemon's cost, or the machine's.

clients.py [NAME]...: only these.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
import kit  # noqa: E402
from kit import FULL, KIB, MIB, ROUNDS  # noqa: E402

CONFIG = """
address = "{address}"; port = 0; workers = 2; reply = "receipt"; framing = "line"; backlog = 1024;
spill_directory = "{directory}"; memory_limit = "16M"; shutdown_timeout = 5;
log = {{ target = "stderr"; level = "info"; }};
status = {{ port = 0; }};
deliver = "s"; sinks = {{ s = {{ type = "file"; path = "{directory}/log"; sync = false; }}; }};
idle_timeout = "{idle}s"; message_timeout = "{idle}s";
listeners = {{ main = {{ }}; {more} }};
"""
PLAIN = 8 * KIB  # a connection: its struct, a bufferevent, a chain of each buffer, and slack
SANITIZED = kit.is_sanitized()
PROXY_1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n"
PROXY_2 = (b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", 0x21, 0x11, 12 + 23) +
           bytes((192, 0, 2, 1, 192, 0, 2, 2)) + struct.pack(">HH", 56324, 443) +
           struct.pack(">BH", 0x01, 20) + b"h2 and some bytes...")


class Experiment:
    """One attack: (small, full) sizes and rates, and what has to come of it."""

    def __init__(self, name, mode, clients, rate, more="", listener="main", cost=PLAIN, good="main",
                 ends="reset", file=None, limit=1, **options):
        self.name, self.mode, self.more, self.listener = name, mode, more, listener
        self.clients, self.rate = clients[FULL], rate[FULL]
        self.cost, self.good, self.ends = cost, good, ends
        self.file, self.limit = file, limit
        self.options = options


EXPERIMENTS = [
    Experiment("slowloris: a byte a second each, no message ends", "drip",
               (100, 10000), (500, 10000), limit=3 if FULL else 1),
    Experiment("silent connections", "silent", (100, 5000), (500, 5000), ends="fin",
               limit=3 if FULL else 1),
    Experiment("a flood of connections, closed in order", "flood", (50, 500), (500, 3000),
               ends="ours"),
    Experiment("a storm of resets: before accept, after a byte, a message, half of one", "reset",
               (1, 1), (500, 3000), ends="ours"),
    Experiment("one-byte segments of big messages, some of them urgent", "segments",
               (10, 50), (5000, 20000), ends="any", b=20000),
    Experiment("deaf: receipts that are never read, in the smallest window", "deaf",
               (20, 200), (2000, 10000), cost=PLAIN + 128 * KIB, ends="any",
               b=100),
    Experiment("deaf: echoes that are never read", "deaf", (10, 50), (100, 500),
               more='echo = { reply = "echo"; };', listener="echo", cost=PLAIN + 256 * KIB,
               ends="any", b=65536),
    Experiment("half closed, then silence", "half", (50, 500), (200, 1000), ends="fin"),
    Experiment("bytes after the daemon's own close", "late", (50, 200), (500, 2000), ends="any",
               more="late = { max_messages = 1; };", listener="late"),
    Experiment("one address takes all it can get", "silent", (100, 1000), (500, 2000), ends="any",
               more="capped = { max_connections = 40; max_connections_per_address = 20; };", listener="capped",
               good="capped", s="127.9.9.9"),
    Experiment("PROXY v1 headers abandoned at every byte", "blob",
               (len(PROXY_1), 500), (100, 1000), file=PROXY_1, m=len(PROXY_1) - 1, listener="proxied",
               more='proxied = { proxy_protocol = true; proxy_from = "127.0.0.0/8"; };'),
    Experiment("PROXY v2 headers abandoned at every byte", "blob",
               (len(PROXY_2), 500), (100, 1000), file=PROXY_2, m=len(PROXY_2) - 1, listener="proxied",
               more='proxied = { proxy_protocol = true; proxy_from = "127.0.0.0/8"; };'),
]


def look(tap, experiment, result):
    """What the attackers saw."""
    opened, fin, reset, ours = (result[name] for name in ("opened", "fin", "reset", "ours"))
    ended = {"reset": reset + ours, "fin": fin + ours, "ours": ours + reset,
             "any": fin + reset + ours}[experiment.ends]
    tap.result(result["left"] == 0 and opened > 0 and ended == opened - result["failed"], "%s: all %d "
               "are ended (%d FIN, %d reset, %d by themselves)" % (
            experiment.name, opened, fin, reset, ours), str(result))


def run(tap, scratch, experiment, table, address="127.0.0.1"):
    """Rounds of quiet and attack on one daemon."""
    daemon = kit.Daemon(scratch, CONFIG.replace("{more}", experiment.more.replace("{", "{{").replace(
        "}", "}}")).format(
            directory=scratch, address=address, idle=experiment.limit))
    options = dict(experiment.options, n=experiment.clients, r=experiment.rate, a=address)
    if experiment.file is not None:
        options["f"] = os.path.join(scratch, "blob")
        with open(options["f"], "wb") as file:
            file.write(experiment.file)
    probe = kit.Probe(scratch, daemon.port(experiment.good), address=address)
    rounds, off = kit.Rounds(), []
    try:
        first = probe.run(1)
        before = daemon.holdings()
        daemon.peak_forget()
        began = daemon.memory()
        spent, lasted, opened = 0.0, 0.0, 0
        for _ in range(ROUNDS):
            if FULL:
                rounds.quiet.append(probe.run(1))
            lap = experiment.clients // experiment.rate + 1
            cpu, since = daemon.processor(), kit.now()
            attack = kit.Attack(experiment.mode, daemon.port(experiment.listener),
                                t=lap + (2 if FULL else 1), **options)
            running = probe.start(2 if FULL else 1)
            most = max(daemon.connections(), 0)
            off.append(daemon.balance())
            rounds.attacked.append(running.finish())
            if attack.process.poll() is None:
                spent += daemon.processor() - cpu
                lasted += kit.now() - since
            if experiment.mode == "deaf":
                # The daemon lets go of them while they still read nothing.
                kit.wait_for("over", lambda: attack.line() == "over")
                kit.wait_for("no connection", lambda: daemon.connections() == 0)
            result = attack.finish()
            opened = max(opened, most)
            if experiment.mode != "syn":
                look(tap, experiment, result)
        good = [first] + rounds.quiet + rounds.attacked
        tap.result(all(run["failed"] == 0 for run in good), "the good client is served: %d messages" %
                   sum(run["messages"] for run in good), "".join(run["errors"] for run in good))
        settled = daemon.settle(before)
        tap.result(settled, "descriptors and threads are back: %r, %r" % (before, daemon.holdings()))
        grown = daemon.memory("VmHWM") - began
        allowed = 16 * MIB + kit.BASE + experiment.clients * experiment.cost
        if SANITIZED:
            tap.note("the bound on memory is not looked at under sanitizers")
        else:
            tap.result(grown < allowed, "memory grew by %.1f MiB at most, of %.1f allowed; %d "
                       "connections at once" % (grown / MIB, allowed / MIB, opened))
        tap.result(daemon.process.poll() is None and not any(off),
                   "it lives, and the account adds up meanwhile", "off by %s" % off)
        if FULL:
            for kind in ("held", "fresh"):
                rounds.verdict(tap, kind)
            table.row(experiment.name, "%d, %d/s" % (experiment.clients, experiment.rate),
                      *["%.0f → %.0f µs (%.2f)" % (
                          rounds.median(rounds.quiet, kind + "_p99"),
                          rounds.median(rounds.attacked, kind + "_p99"), rounds.ratio(kind))
                        for kind in ("held", "fresh")],
                      "%.0f %%" % (100 * spent / lasted) if lasted else "",
                      "%.1f MiB" % (grown / MIB), "%d, %d" % (before[0], daemon.descriptors()))
        daemon.finish(tap, experiment.name)
        receipts, missing = probe.check(os.path.join(scratch, "log"))
        tap.result(receipts == sum(run["messages"] for run in good) and missing == 0,
                   "each of its %d receipts is that of a message stored" % receipts,
                   "%d are not" % missing)
    finally:
        daemon.end()


def namespace(tap, scratch):
    """In a network of its own: 10.99.0.0/16 is a device that nobody reads, so what is
    answered to a made-up address is lost there, and the connection stays half open."""
    def command(*words):
        subprocess.run(words, check=True, capture_output=True)

    command("ip", "link", "set", "lo", "up")
    command("ip", "tuntap", "add", "nobody", "mode", "tun")
    holder = open("/dev/net/tun", "r+b", buffering=0)
    fcntl.ioctl(holder, 0x400454ca, struct.pack("16sH22x", b"nobody", 0x1001))
    command("ip", "addr", "add", "10.99.0.1/16", "dev", "nobody")
    command("ip", "link", "set", "nobody", "up")
    with holder:
        table = kit.Table(tap, *HEAD)
        before = snmp()
        run(tap, scratch, Experiment("half open: SYNs from made-up addresses", "syn", (1, 1),
                                     (2000, 20000), ends="any"), table, "10.99.0.1")
        after = snmp()
        tap.result(after["SyncookiesSent"] > before["SyncookiesSent"],
                   "the queue was full: %d SYNs were answered by cookies" % (
                       after["SyncookiesSent"] - before["SyncookiesSent"]))
        if FULL:
            table.end()


def snmp():
    with open("/proc/net/netstat", encoding="ascii") as file:
        names, values = [line.split() for line in file if line.startswith("TcpExt:")][:2]
    return dict(zip(names[1:], map(int, values[1:])))


def half_open(tap, scratch):
    """A flood of SYNs whose answers go nowhere."""
    del scratch
    why = None
    if os.geteuid() != 0:
        why = "raw sockets and a network namespace need root"
    elif not shutil.which("unshare") or not shutil.which("ip"):
        why = "unshare (util-linux) or ip (iproute2) is missing"
    elif subprocess.run(["unshare", "-n", "ip", "tuntap", "add", "nobody", "mode", "tun"],
                        capture_output=True, check=False).returncode != 0:
        why = "no network namespace with a tun device may be made here"
    if why:
        tap.skip("half open", why)
        return
    inner = subprocess.run(["unshare", "-n", sys.executable, os.path.abspath(__file__), "namespace"],
                           capture_output=True, text=True, check=False)
    for line in inner.stdout.splitlines():
        if line.startswith("#"):
            print(line)
        elif not line.startswith("1.."):
            tap.result(line.startswith("ok"), line.split(" - ", 1)[-1])
    tap.result(inner.returncode == 0, "half open, in a network of its own", inner.stderr)


HEAD = ("attack", "clients, acts", "p99, connection held", "p99, fresh connection",
        "daemon's processor time", "memory grew by", "descriptors before, after")


def attacks(tap, scratch):
    allowed = kit.descriptors_raise(24000)
    table = kit.Table(tap, *HEAD)
    for number, experiment in enumerate(EXPERIMENTS):
        if allowed < experiment.clients + 1000:
            tap.note("%s: %d connections instead of %d, the limit of open files is %d" % (
                experiment.name, allowed - 1000, experiment.clients, allowed))
            experiment.clients = allowed - 1000
        directory = os.path.join(scratch, str(number))
        os.mkdir(directory)
        run(tap, directory, experiment, table)
    if FULL:
        table.end()


def main():
    kit.need()
    if sys.argv[1:] == ["namespace"]:
        return kit.run_all((namespace,)).end()
    return kit.run_all((attacks, half_open)).end()


if __name__ == "__main__":
    sys.exit(main())
