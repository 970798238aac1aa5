#!/usr/bin/env python3
"""kill: kill -9 at random moments, and at named points of the storage path, while
clients send messages of all sizes.  What was acknowledged must be there, byte for
byte; whatever is there must be whole.

CRASH_CYCLES: how often (50); half of them at named points where there is a build with
fault points ($CISTERND_FAULTS).  CRASH_SEED: to have one run again.
"""

import os
import random
import sys
import time

sys.dont_write_bytecode = True
import storage  # noqa: E402

CLIENTS = 6
LOG_MOST = 64 << 20  # a larger file is not kept for the next life
POINTS = ("tmpfile", "write", "writev", "fdatasync", "syncfs", "link", "fsync", "close", "fchmod")


def cycle(number, directory, chance, faults, totals):
    """One life of the daemon, on what the last one left."""
    sinks = chance.choice((("s",), ("f",), ("s", "f")))
    point, env, path = "", {}, None
    if faults and number % 2:
        path = faults
        point = "%s/%d:%s" % (chance.choice(POINTS), chance.randrange(1, 60),
                              chance.choice(("kill", "kill-after")))
        env = {"CISTERN_FAULT": point}
    log = os.path.join(directory, "log")
    daemon = storage.Daemon(directory, sinks, env, path)
    if not daemon.wait_ready():
        # Killed at a point that it passed before it was ready: nobody was told anything.
        return daemon.wait() == -9, point
    # What the last life tore was cut off.
    start = os.path.getsize(log) if os.path.exists(log) else 0
    names = ["%d-%d" % (number, n) for n in range(CLIENTS)]
    clients = [storage.Client(daemon.port, name, storage.any_sizes(name)) for name in names]
    for client in clients:
        client.start()
    until = time.monotonic() + (chance.uniform(0.0, 0.25) if not point else 1.0)
    while time.monotonic() < until and daemon.process.poll() is None:
        time.sleep(storage.NO_READ)
    for client in clients:
        client.stopping = True
    daemon.kill()
    found = storage.Found()
    acknowledged = {}
    for client in clients:
        client.join(storage.DEADLINE)
        acknowledged.update(client.acknowledged)
        found.torn.extend(client.problems)
        totals["sent"] += client.sent
    if "s" in sinks:
        storage.check_spool(directory, acknowledged, found)
    if "f" in sinks:
        storage.check_file(log, acknowledged, start, found, last_may_be_torn=True)
    storage.clear_spool(directory)
    if os.path.exists(log) and os.path.getsize(log) > LOG_MOST:
        os.unlink(log)
    os.unlink(daemon.log)
    totals["acknowledged"] += len(acknowledged)
    totals["found"] += found.found // len(sinks)
    totals["lost"] += len(found.lost)
    totals["torn"] += len(found.torn)
    return not found.lost and not found.torn, "%s %s: lost %r, torn %r" % (
        sinks, point, found.lost[:3], found.torn[:3])


def main():
    cycles = int(os.environ.get("CRASH_CYCLES", "50"))
    seed = os.environ.get("CRASH_SEED", str(random.randrange(1 << 30)))
    faults = storage.program("CISTERND_FAULTS", "tests/crash/cisternd")
    chance = random.Random(seed)
    tap = storage.Tap()
    totals = dict.fromkeys(("sent", "acknowledged", "found", "lost", "torn"), 0)
    failed = 0
    with storage.Scratch() as directory:
        tap.note("CRASH_SEED=%s CRASH_CYCLES=%d%s" % (
            seed, cycles, "" if faults else ", no build with fault points"))
        for number in range(cycles):
            good, what = cycle(number, directory, chance, faults, totals)
            if not good:
                failed += 1
                tap.note("cycle %d: %s" % (number, what))
        # The last life's file, as the next start leaves it.
        daemon = storage.Daemon(directory, ("s", "f"))
        tap.result(daemon.wait_ready() and daemon.stop() == 0, "starts and stops in order afterwards")
        log = os.path.join(directory, "log")
        tap.result(not os.path.exists(log) or not storage.check_file(log, {}).torn,
                   "no torn record is left in the file")
        tap.result(not os.listdir(os.path.join(directory, "spool", "tmp")),
                   "nothing is left in tmp/")
        tap.note(" ".join("%s %d" % item for item in totals.items()))
        tap.result(failed == 0 and totals["lost"] == 0 and totals["torn"] == 0,
                   "lost %d, torn %d in %d cycles" % (totals["lost"], totals["torn"], cycles))
        tap.result(totals["acknowledged"] > 0, "some were acknowledged")
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
