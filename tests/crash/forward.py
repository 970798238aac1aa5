#!/usr/bin/env python3
"""forward: a spool that hands on is killed again and again, at random moments and at named
points, and its calls are made to fail.  Afterwards every message that was acknowledged is
in the target, byte for byte and under its id (twice is allowed), nothing waits any more,
nothing is half, and failed/ holds what the target refused and nothing else.

FORWARD_CYCLES: how many lives (16 for each target; make check-forward: 200).
FORWARD_STEP: of the sweep, look at every so many-th call (9; 1 there).
FORWARD_FILES: how many wait in the long backlog (100000; 1000000 there).
FORWARD_SEED: to have one run again.
"""

import concurrent.futures
import os
import random
import re
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import storage  # noqa: E402

CLIENTS = 4
SPOOL = 'forward = "f"; retry_min = "10ms"; retry_max = "200ms";'
POINTS = ("open", "link", "unlink", "rename", "fsync", "write", "writev", "fdatasync", "close",
          "malloc", "fstat", "pread")
BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench", "forward.py")

# A file target, and a program that fails as it likes and refuses what begins with "poison".
FILE = 'f = { type = "file"; path = "%s/target"; format = "json"; };'
COMMAND = """f = { type = "command"; run_as_root = true; timeout = "20s"; max_processes = 4;
    argv = [ "/bin/sh", "-c", "%s", "sh", "%s" ]; };"""
SCRIPT = (r"n=$(od -An -N1 -tu1 /dev/urandom); test $n -ge 50 || exit 75; "
          r"test $n -ge 60 || kill -9 $$; t=$1/out/.$CISTERN_ID.$$; cat >$t || exit 75; "
          r"case $(head -c 6 $t | tr -d '\\0') in poison) rm $t; exit 1;; esac; "
          r"mv $t $1/out/$CISTERN_ID.$$")


class Kind:
    """A target, and what has arrived there."""

    def __init__(self, name):
        self.name = name

    def sinks(self, directory):
        if self.name == "file":
            return FILE % directory
        os.makedirs(os.path.join(directory, "out"), exist_ok=True)
        return COMMAND % (SCRIPT.replace("\\", "\\\\"), directory)

    def arrived(self, directory, acknowledged):
        if self.name == "file":
            return storage.check_file(os.path.join(directory, "target"), acknowledged)
        found = storage.Found()
        there = {}
        out = os.path.join(directory, "out")
        for entry in os.listdir(out):
            if entry.startswith("."):
                continue  # its program was killed
            with open(os.path.join(out, entry), "rb") as file:
                there.setdefault(entry.split(".")[0], set()).add(file.read())
        for id_, (name, size) in acknowledged.items():
            if id_ not in there:
                if not name.startswith("poison"):
                    found.lost.append(id_)
            elif there[id_] != {storage.message(name, size)}:
                found.torn.append(id_)
            else:
                found.found += 1
        return found


def start(directory, kind, env=None, path=None, spool=SPOOL):
    return storage.Daemon(directory, ("s",), env, path, spool=spool, also=kind.sinks(directory))


def entries(directory, state):
    return os.listdir(os.path.join(directory, "spool", state))


def wait_empty(directory, daemon, patience=storage.DEADLINE):
    until = time.monotonic() + patience
    while entries(directory, "new"):
        if time.monotonic() > until or daemon.process.poll() is not None:
            return False
        time.sleep(0.01)
    return True


def life(number, directory, kind, chance, faults, acknowledged, problems):
    env, path, point = {}, None, ""
    if faults and number % 2:
        path = faults
        point = "%s/%d:%s" % (chance.choice(POINTS), chance.randrange(1, 80),
                              chance.choice(("kill", "kill-after")))
        env = {"CISTERN_FAULT": point}
    daemon = start(directory, kind, env, path)
    if not daemon.wait_ready():
        if daemon.wait() != -9:
            problems.append("%s: did not start: %s" % (point, daemon.text()))
        return
    names = ["%s%d-%d" % ("poison" if n == 0 and kind.name == "command" else "m", number, n)
             for n in range(CLIENTS)]
    clients = [storage.Client(daemon.port, name, storage.any_sizes(name, 300000))
               for name in names]
    for client in clients:
        client.start()
    until = time.monotonic() + (chance.uniform(0.0, 0.4) if not point else 1.0)
    while time.monotonic() < until and daemon.process.poll() is None:
        time.sleep(storage.NO_READ)
    for client in clients:
        client.stopping = True
    daemon.kill()
    for client in clients:
        client.join(storage.DEADLINE)
        acknowledged.update(client.acknowledged)
        problems.extend(client.problems)
    os.unlink(daemon.log)


def kills(tap, directory, kind, cycles, chance, faults):
    acknowledged, problems = {}, []
    for number in range(cycles):
        life(number, directory, kind, chance, faults, acknowledged, problems)
    daemon = start(directory, kind)
    done = daemon.wait_ready() and wait_empty(directory, daemon, 4 * storage.DEADLINE)
    tap.result(done, "%s: all has been handed on after %d kills" % (kind.name, cycles),
               daemon.text()[-2000:])
    tap.result(daemon.stop() == 0, "%s: it stops in order" % kind.name)
    found = kind.arrived(directory, acknowledged)
    tap.result(not found.lost and not found.torn and found.found > 0 and not problems,
               "%s: %d acknowledged messages arrived" % (kind.name, found.found),
               "lost %r, torn %r, %r" % (found.lost[:3], found.torn[:3], problems[:3]))
    refused = [entry for entry in entries(directory, "failed")]
    wrong = []
    for entry in refused:
        with open(os.path.join(directory, "spool", "failed", entry), "rb") as file:
            data = file.read()
        if not data.startswith(b"poison") or not storage.is_whole(data):
            wrong.append(entry)
    tap.result(not wrong and (bool(refused) == (kind.name == "command")),
               "%s: failed/ holds the %d that were refused" % (kind.name, len(refused)),
               "%r" % wrong[:3])
    tap.result(not entries(directory, "tmp"), "%s: nothing is left in tmp/" % kind.name)


def one_fault(program, scratch, k, fault):
    """(whether the k-th call was there, what is wrong)"""
    name = "%s-%d" % (re.sub(r"\W", "", fault), k)
    directory = os.path.join(scratch, name)
    os.mkdir(directory)
    trace = os.path.join(directory, "trace")
    point, action = fault.split(":", 1)
    kind = Kind("file")
    spool = SPOOL + (" keep = true;" if point == "rename" else "")
    daemon = start(directory, kind, {"CISTERN_FAULT": "%s/%d:%s" % (point, k, action),
                                     "CISTERN_FAULT_TRACE": trace}, program, spool)
    ready = daemon.wait_ready()
    with open(trace, encoding="ascii", errors="replace") as file:
        early = any(line.startswith("!") for line in file)
    if not ready:
        code, text = daemon.wait(), daemon.text()
        return True, None if code in (69, 71, 73, 74, 77, 78) and "Sanitizer" not in text \
            else "start: %s\n%s" % (code, text)
    clients = [storage.Client(daemon.port, "c%d" % n, iter([300, 0, 70000, 40, 3000] * 2), limit=4)
               for n in range(2)]
    acknowledged = {}
    for client in clients:
        client.start()
    for client in clients:
        client.join(storage.DEADLINE)
        if client.is_alive():
            return True, "stuck"
        acknowledged.update(client.acknowledged)
    # Once only: it gets over it by itself.
    once = action.endswith(":once")
    wrong = None
    if once and not wait_empty(directory, daemon):
        wrong = "it waits still: %r" % entries(directory, "new")
    code, text = daemon.stop(), daemon.text()
    with open(trace, encoding="ascii", errors="replace") as file:
        struck = any(line.startswith("!") for line in file)
    if code != 0 or re.search("Sanitizer|runtime error", text):
        return struck, "end: %s\n%s" % (code, text)
    daemon = start(directory, kind, spool=spool)
    if not daemon.wait_ready() or not wait_empty(directory, daemon) or daemon.stop() != 0:
        wrong = "the next life:\n" + daemon.text()
    found = kind.arrived(directory, acknowledged)
    if found.lost or found.torn:
        wrong = "lost %r, torn %r\n%s" % (found.lost, found.torn, text)
    if entries(directory, "failed"):
        wrong = "failed: %r" % entries(directory, "failed")
    if wrong is None:
        shutil.rmtree(directory)
    return struck or early, wrong


def sweep(tap, scratch, program, step):
    for fault in ("open:EMFILE:once", "open:EACCES:on", "fstat:EIO:once", "pread:EIO:once",
                  "pread:EIO:on", "unlink:EROFS:once", "unlink:EROFS:on", "rename:EIO:once",
                  "rename:EACCES:on", "malloc:ENOMEM:once",
                  "close:EIO:once"):
        runs, wrong, k, more = 0, [], 1, True
        with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
            while more and k < 2000:
                some = range(k, k + 4 * step, step)
                k += 4 * step
                for at, (there, what) in zip(some, pool.map(
                        lambda at: one_fault(program, scratch, at, fault), some)):
                    runs += there
                    more = more and there
                    if what:
                        wrong.append("%d: %s" % (at, what))
        for text in wrong[:3]:
            tap.note(text)
        tap.result(not wrong, "%s: %d calls" % (fault, runs))


def backlog(tap):
    """The bench, as a test: all arrives, in order, in little memory."""
    if not os.access("/dev/shm", os.W_OK):
        tap.result(True, "a long backlog # SKIP no /dev/shm")
        return
    env = dict(os.environ, TMPDIR="/dev/shm", CISTERND=storage.program(),
               FORWARD_FILES=os.environ.get("FORWARD_FILES", "100000"))
    for shuffled in ("0", "1"):
        ran = subprocess.run([sys.executable, BENCH], env=dict(env, FORWARD_SHUFFLED=shuffled),
                             capture_output=True, text=True, timeout=900, check=False)
        found = re.search(r"at most ([\d.]+) MiB", ran.stdout)
        with open(storage.program(), "rb") as file:
            sanitized = b"san_init" in file.read()
        tap.result(ran.returncode == 0 and found is not None and
                   (sanitized or float(found.group(1)) < 48), "a long backlog: " + ran.stdout.strip(),
                   ran.stdout + ran.stderr)


def main():
    cycles = int(os.environ.get("FORWARD_CYCLES", "16"))
    seed = os.environ.get("FORWARD_SEED", str(random.randrange(1 << 30)))
    faults = storage.program("CISTERND_FAULTS", "tests/crash/cisternd")
    chance = random.Random(seed)
    tap = storage.Tap()
    tap.note("FORWARD_SEED=%s FORWARD_CYCLES=%d%s" % (
        seed, cycles, "" if faults else ", no build with fault points"))
    for name in ("file", "command"):
        with storage.Scratch() as directory:
            kills(tap, directory, Kind(name), cycles, chance, faults)
            if tap.failed:
                raise SystemExit(tap.end())
    if faults:
        with storage.Scratch() as scratch:
            sweep(tap, scratch, faults, int(os.environ.get("FORWARD_STEP", "9")))
            if tap.failed:
                raise SystemExit(tap.end())
    else:
        tap.result(True, "calls that fail # SKIP no build with fault points")
    backlog(tap)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
