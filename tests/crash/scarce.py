#!/usr/bin/env python3
"""scarce: the machine has no memory left, for real: the daemon's address space is limited to
what it has and a little more, step by step, while it is told to read a large file.

libconfig looks at none of its allocations, and OpenSSL and glibc do not get over all of
theirs; cistern makes sure that there is memory before it asks them (memory_is_there).  So a
reload is refused, or done; the daemon serves as before, and reloads when there is memory.
"""

import os
import re
import resource
import sys
import time

sys.dont_write_bytecode = True
import scenario  # noqa: E402
import storage  # noqa: E402

STEPS = int(os.environ.get("SCARCE_STEPS", "40"))
STEP = 1 << 20
BLOCKS = 20000  # a few MB once read


def write_large(life):
    """The file with a list that takes megabytes to read; not twice the same."""
    life.write_config("idle_timeout = 6;")
    with open(life.config, encoding="ascii") as file:
        text = file.read()
    blocks = ", ".join('"10.%d.%d.0/24"' % (n >> 8, n & 255) for n in range(BLOCKS))
    with open(life.config, "w", encoding="ascii") as out:
        out.write(text.replace('"192.0.2.0/24"', '"192.0.2.0/24", ' + blocks))


def reload(life):
    """What became of it: "reloaded", "reload-refused", or None."""
    before = len(re.findall(" (reloaded|reload-refused)", life.text()))
    life.signal(1)
    until = time.monotonic() + 20
    while time.monotonic() < until and not life.is_over():
        said = re.findall(r" (reloaded|reload-refused)(?::| )", life.text())
        if len(said) > before:
            time.sleep(storage.NO_READ)  # the refusal's last line
            return re.findall(r" (reloaded|reload-refused)(?::| )", life.text())[-1]
        time.sleep(storage.NO_READ)
    return None


def address_space(life):
    with open("/proc/%d/status" % life.daemon(), encoding="ascii") as file:
        return int(re.search(r"VmSize:\s+(\d+)", file.read()).group(1)) << 10


def main():
    program = storage.program()
    if program is None:
        storage.skip_all("no cisternd ($CISTERND)")
    with open(program, "rb") as file:
        if re.search(rb"__[at]san_init", file.read()):
            storage.skip_all("a sanitizer's shadow takes all of the address space")
    tap = storage.Tap()
    with storage.Scratch() as scratch:
        life = scenario.Life(os.path.join(scratch, "life"), next(scenario.addresses()),
                             program=program, tls=scenario.prepare(scratch))
        tap.result(life.wait_ready() and not life.exchanges("a"), "it serves")
        hard = resource.prlimit(life.daemon(), resource.RLIMIT_AS)[1]
        write_large(life)
        outcomes = {}
        for step in range(STEPS):
            resource.prlimit(life.daemon(), resource.RLIMIT_AS,
                             (address_space(life) + step * STEP, hard))
            outcome = reload(life)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            if outcome is None:
                break
        tap.result(None not in outcomes and not life.is_over(),
                   "%d reloads at the end of the address space: %s" % (
                       sum(outcomes.values()), outcomes), life.text()[-1000:])
        tap.result(outcomes.get("reload-refused", 0) > 0, "some of them found no memory")
        tap.result(outcomes.get("reloaded", 0) > 0, "others did")
        if not life.is_over():
            resource.prlimit(life.daemon(), resource.RLIMIT_AS, (hard, hard))
            life.write_config("idle_timeout = 7;")
            tap.result(reload(life) == "reloaded", "with memory it reloads",
                       life.text()[-1000:])
            tap.result(not life.exchanges("b"), "and serves")
        life.stop()
        tap.result(life.judge(True) == [], "nothing acknowledged is missing, and the account "
                   "balances", str(life.problems))
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
