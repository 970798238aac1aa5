#!/usr/bin/env python3
"""sweep: every call of the storage path fails, one after the other: for each k the k-th
one, once and from then on, until a run has no k-th call.

In each run nothing may be acknowledged that is not there, nothing half may stand in
new/, nobody may wait for an answer for ever, the daemon must end in order, and where
it is built with sanitizers these must be content.  Where a call failed once, the
next messages must be accepted again.

SWEEP_STEP: look at every so many-th k only (1).  SWEEP_ERRORS: ENOSPC,EIO.
"""

import concurrent.futures
import os
import re
import shutil
import socket
import sys

sys.dont_write_bytecode = True
import storage  # noqa: E402

MESSAGES = 5
SIZES = (300, 0, 700000, 40, 3000)
START_CODES = (69, 71, 73, 74, 77, 78)
GIVE_UP = 400  # runs have some 100 calls


def exchange(port, name, size):
    """One message on a connection of its own: the answer, b"" for a reset or an end."""
    data = storage.message(name, size)
    try:
        with socket.create_connection(("127.0.0.1", port), storage.DEADLINE) as connection:
            connection.sendall(b"%d:%s," % (len(data), data))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while True:
                piece = connection.recv(4096)
                if not piece:
                    return answer
                answer += piece
    except socket.timeout:
        return b"STUCK"
    except OSError:
        return b""


def look(directory, sinks, acknowledged, refused):
    """What is wrong with what is left."""
    if sinks == ("f",):
        log = os.path.join(directory, "log")
        if not os.path.exists(log):
            return "no file" if acknowledged else None
        found = storage.check_file(log, acknowledged)
        there = open(log, "rb").read()
    else:
        if not os.path.isdir(os.path.join(directory, "spool", "new")):
            return "no spool" if acknowledged else None
        found = storage.check_spool(directory, acknowledged)
        new, there = os.path.join(directory, "spool", "new"), b""
        for entry in os.listdir(new):
            with open(os.path.join(new, entry), "rb") as file:
                there += file.read(100)
    if found.lost or found.torn:
        return "lost %r, torn %r" % (found.lost, found.torn)
    for name in refused:
        if name.encode() + b"\0" in there:
            return "refused, but there: " + name
    return None


def run(program, scratch, sinks, k, error, times):
    """(whether the k-th call was there, what is wrong or None)"""
    directory = os.path.join(scratch, "%s-%d-%s-%s" % (sinks[0], k, error, times))
    os.mkdir(directory)
    trace = os.path.join(directory, "trace")
    daemon = storage.Daemon(directory, sinks, {
        "CISTERN_FAULT": "%d:%s:%s" % (k, error, times), "CISTERN_FAULT_TRACE": trace}, program)

    def struck():
        with open(trace, encoding="ascii", errors="replace") as file:
            return [line for line in file if line.startswith("!")]

    if not daemon.wait_ready():
        code, text = daemon.wait(), daemon.text()
        if code not in START_CODES or "Sanitizer" in text:
            return True, "start: code %s\n%s" % (code, text)
        return bool(struck()), None if struck() else "start: code %s" % code
    acknowledged, refused, last = {}, [], b""
    for number, size in enumerate(SIZES):
        name = "sweep%d" % number
        before = len(struck())
        last = exchange(daemon.port, name, size)
        if last == b"STUCK":
            daemon.kill()
            return True, "stuck: " + name
        if last.startswith(b"OK "):
            acknowledged[last.split()[1].decode()] = (
                name, len(storage.message(name, size)))
        else:
            refused.append(name)
            if not struck():
                daemon.kill()
                return False, "refused without a fault: %r" % last
            if times == "once" and before:
                daemon.kill()
                return True, "refused after the fault was gone: %s %r" % (name, last)
    code, text = daemon.stop(), daemon.text()
    there = struck()
    if code != 0 or re.search("Sanitizer|runtime error", text):
        return bool(there), "end: code %s\n%s" % (code, text)
    said = re.search(" (error|warning) ", text)
    if there and refused and not said and "malloc/" not in there[0]:
        return True, "nothing was said\n" + text
    # The next start cuts off what could not be cut before.
    daemon = storage.Daemon(directory, sinks)
    if not daemon.wait_ready() or daemon.stop() != 0:
        return bool(there), "the next start:\n" + daemon.text()
    # What cannot be taken back stays, too, but whole, and never acknowledged.  Without
    # memory for the answer a message that was stored may end with a reset.
    if times == "on" or (there and "malloc/" in there[0]):
        refused = ()
    wrong = look(directory, sinks, acknowledged, refused)
    if wrong is None:
        shutil.rmtree(directory)
    return bool(there), wrong


def main():
    program = storage.program_with_faults()
    step = int(os.environ.get("SWEEP_STEP", "1"))
    errors = os.environ.get("SWEEP_ERRORS", "ENOSPC,EIO").split(",")
    tap = storage.Tap()
    with storage.Scratch() as scratch, \
            concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        for sinks in (("s",), ("f",)):
            for error in errors:
                for times in ("once", "on"):
                    runs, wrong, k, more = 0, [], 1, True
                    while more and k < GIVE_UP * 4:
                        some = range(k, k + 8 * step, step)
                        k += 8 * step
                        for at, (there, what) in zip(some, pool.map(
                                lambda at: run(program, scratch, sinks, at, error, times), some)):
                            runs += there
                            more = more and there
                            if what:
                                wrong.append("%d: %s" % (at, what))
                    for text in wrong[:5]:
                        tap.note(text)
                    tap.result(not wrong and runs > 0 and not more, "%s, %s %s: %d calls" % (
                        {"s": "spool", "f": "file"}[sinks[0]], error, times, runs))
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
