#!/usr/bin/env python3
"""forward: how fast a spool with `forward` hands on what waits in it, and what that costs.

Makes FORWARD_FILES files (1000000) of FORWARD_SIZE bytes (200) in a spool under $TMPDIR,
starts the daemon on it with a file as the target (sync = true), and prints how long it
took until it was ready, until the first message had arrived and until all had, and the
most memory that it had.  FORWARD_SHUFFLED=1: the files were made in no order.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CONFIG = """
address = "127.0.0.1"; port = 0; workers = 1; deliver = "s"; spill_directory = "%(where)s";
sinks = {
    s = { type = "spool"; directory = "%(where)s/spool"; min_free = 0; forward = "f"; };
    f = { type = "file"; path = "%(where)s/target"; format = "line"; };
};
"""


def ulid(number):
    """The id of the number-th message, a millisecond after the one before."""
    value = (1700000000000 + number) << 80 | random.getrandbits(80)
    return "".join(DIGITS[value >> shift & 31] for shift in range(125, -1, -5))


def fill(where, count, size, shuffled):
    new = os.path.join(where, "spool", "new")
    os.makedirs(new)
    order = list(range(count))
    if shuffled:
        random.shuffle(order)
    at = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    for number in order:
        fd = os.open("%s.main.192.0.2.1-%d" % (ulid(number), 1024 + number % 60000),
                     os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640, dir_fd=at)
        os.write(fd, (b"%09d " % number).ljust(size, b"x"))
        os.close(fd)
    os.close(at)
    return new


def peak(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as file:
        return int(re.search(r"^VmHWM:\s*(\d+) kB", file.read(), re.M).group(1)) / 1024


def seconds(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main():
    count = int(os.environ.get("FORWARD_FILES", "1000000"))
    size = int(os.environ.get("FORWARD_SIZE", "200"))
    shuffled = os.environ.get("FORWARD_SHUFFLED") == "1"
    where = tempfile.mkdtemp(prefix="cistern-bench.")
    target = os.path.join(where, "target")
    try:
        new = fill(where, count, size, shuffled)
        config = os.path.join(where, "cistern.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write(CONFIG % {"where": where})
        began = time.monotonic()
        with open(os.path.join(where, "log"), "wb") as log:
            daemon = subprocess.Popen([os.environ["CISTERND"], "-c", config],
                                      stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        ready = first = None
        while True:
            if ready is None:
                with open(os.path.join(where, "log"), "rb") as log:
                    if b" ready: " in log.read():
                        ready = time.monotonic() - began
            there = os.path.getsize(target) if os.path.exists(target) else 0
            if there > 0 and first is None:
                first = time.monotonic() - began
            if there >= count * (size + 1):
                break
            if daemon.poll() is not None or time.monotonic() - began > 600:
                print("it did not finish: %d bytes of %d" % (there, count * (size + 1)))
                return 1
            time.sleep(0.005)
        took = time.monotonic() - began
        while os.listdir(new):
            time.sleep(0.01)
        most, cpu = peak(daemon.pid), seconds(daemon.pid)
        daemon.terminate()
        daemon.wait()
        in_order = True
        with open(target, "rb") as file:
            for number, line in enumerate(file):
                in_order = in_order and int(line[:9]) == number
        print("%d files of %d bytes%s: ready after %.3f s, the first one handed on after %.2f s, "
              "all after %.1f s (%.0f a second, %.1f s of CPU), at most %.1f MiB resident, %s"
              % (count, size, ", shuffled" if shuffled else "", ready, first, took,
                 count / (took - first), cpu, most, "in order" if in_order else "NOT IN ORDER"))
        return 0 if in_order else 1
    finally:
        shutil.rmtree(where, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
