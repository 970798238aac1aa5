"""inventory: what a process has: descriptors by kind, threads by name, resident memory; and how
much of each a configuration explains when nobody is there.
"""

import collections
import os
import re
import struct

import storage

# What a link in /proc/PID/fd begins with; what begins with none of these is a file.
KINDS = (("socket:", "sockets"), ("pipe:", "pipes"), ("/memfd:", "memfds"),
         ("anon_inode:[eventfd]", "eventfds"), ("anon_inode:[eventpoll]", "epolls"),
         ("anon_inode:[signalfd]", "signalfds"), ("anon_inode:[pidfd]", "pidfds"), ("pidfd:", "pidfds"),
         ("anon_inode:", "others"))
NAMES = ("sockets", "eventfds", "epolls", "signalfds", "pipes", "pidfds", "memfds", "files", "others")
# The main thread and a nats sink's keeper, and those of libnats, which are called as who made
# them: that may be either.
MAIN = "cisternd, libnats"
# What a sink of each kind has: an eventfd that hurries it, the file that it writes to; two
# writers' new/ and tmp/, and the lock; a connection.  Threads: "NAME-SINK".
SINKS = {
    "console": {"eventfds": 1, "cons": 1},
    "file": {"eventfds": 1, "files": 1, "file": 1},
    "command": {"eventfds": 1, "cmd": 1},
    "spool": {"files": 5, "spool": 2},
    "forward": {"eventfds": 1, "epolls": 1, "files": 2, "fwd": 1},  # besides its spool: new/, failed/
    "nats": {"sockets": 1, "nats": 1},
    "kafka": {"sockets": 1, "kafka": 1, "report": 1},
}
# Of the process itself: standard input to error, and the log; the status service's listener.
ITSELF = {"epolls": 1, "eventfds": 1, "signalfds": 1, "files": 4, "sockets": 1, "census": 1,
          MAIN: 1}
# How many pipes and threads libraries have is theirs to say; that they stay the same is not.
PIPES_OF = ("kafka",)
THEIRS = {"kafka": r"rdk:.*|kafka-end", "nats": "cisternd, libnats"}


def kind(link):
    return next((name for start, name in KINDS if link.startswith(start)), "files")


def sockets(pid, names):
    """What they are, by their links; names: of ports."""
    found = {}
    with open("/proc/%d/net/tcp" % pid, encoding="ascii") as table:
        for fields in [line.split() for line in table][1:]:
            ports = [int(fields[n].split(":")[1], 16) for n in (1, 2)]
            found["socket:[%s]" % fields[9]] = "socket of %s to port %s (state %s)" % (
                names.get(ports[0], "a client"), ports[1], fields[3])
    return found


def links(pid):
    found, directory = [], "/proc/%d/fd/" % pid
    for entry in os.listdir(directory):
        try:
            found.append(os.readlink(directory + entry))
        except FileNotFoundError:
            continue
    return found


def threads(pid):
    """How many of each name."""
    found, directory = collections.Counter(), "/proc/%d/task/" % pid
    for task in os.listdir(directory):
        try:
            with open(directory + task + "/comm", encoding="ascii", errors="replace") as file:
                name = file.read().strip()
                found[MAIN if name == "cisternd" or name.startswith("keep-") else name] += 1
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def resident(pid):
    """KiB."""
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))


def heap_environment(path):
    """Of a program that is to count there what it has allocated (heap.c).  Sanitizers have their
    own malloc."""
    counter = storage.program("SOAK_COUNTER", "tests/soak/heap.so")
    with open(storage.program(), "rb") as file:
        if counter is None or re.search(b"__[at]san_init", file.read()):
            return {}
    before = os.environ.get("LD_PRELOAD")
    return {"SOAK_HEAP": path, "LD_PRELOAD": os.path.abspath(counter) + (":" + before if before else "")}


def heap(path):
    """Bytes and blocks; None: nobody counts."""
    if path is None or not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return struct.unpack("qq", file.read(16))


class Inventory:
    """At one moment.  kinds: how many descriptors of each; descriptors: which, in words."""

    def __init__(self, pid, ports=None, counted=None):
        names = {port: name for name, port in (ports or {}).items()}
        every, known = links(pid), sockets(pid, names) if ports else {}
        self.kinds = dict.fromkeys(NAMES, 0)
        self.kinds.update(collections.Counter(map(kind, every)))
        self.descriptors = collections.Counter(
            known.get(link, re.sub(r"\[\d+\]", "", link)) for link in every)
        self.threads = threads(pid)
        self.resident = resident(pid)
        self.heap = heap(counted)

    def __eq__(self, other):
        return isinstance(other, Inventory) and self.descriptors == other.descriptors and \
            self.threads == other.threads

    def text(self):
        return "%s; %d threads" % (", ".join("%d %s" % (count, name) for name, count in
                                             self.kinds.items() if count), sum(self.threads.values()))

    def more_than(self, other):
        """What it has that the other does not have, in words."""
        return ", ".join("%d %s" % (count, what) for what, count in sorted(
            (self.descriptors - other.descriptors + (self.threads - other.threads)).items()))
