#!/usr/bin/env python3
"""consumer: the consumers of examples/ against a live spool: two at a time, killed now
and then, must hand over every message that was acknowledged, whole.

EXAMPLES: where they are (../../examples).
"""

import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
import storage  # noqa: E402

EXAMPLES = os.environ.get("EXAMPLES", os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples"))
MESSAGES = 60


def command(kind, directory, name, once):
    """The consumer's, and where it puts what it was given (shell only)."""
    out = os.path.join(directory, "out")
    spool = os.path.join(directory, "spool")
    if kind == "sh":
        flags = ["-1"] if once else []
        return ["sh", os.path.join(EXAMPLES, "spool-consumer.sh")] + flags + [
            spool, name, "sh", "-c",
            'cat >"$0/.$SPOOL_ID.$$" && mv "$0/.$SPOOL_ID.$$" "$0/$SPOOL_ID"', out]
    flags = ["--once"] if once else []
    # The example's handle() replaced, as its reader would.
    script = (
        "import importlib.util, os, sys\n"
        "sys.dont_write_bytecode = True\n"
        "spec = importlib.util.spec_from_file_location('consumer', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "out = sys.argv[2]; sys.argv = sys.argv[1:2] + sys.argv[3:]\n"
        "def handle(id_, listener, peer, data):\n"
        "    assert listener == 'main' and peer.startswith('127.0.0.1-')\n"
        "    path = os.path.join(out, '.%s.%d' % (id_, os.getpid()))\n"
        "    open(path, 'wb').write(data)\n"
        "    os.rename(path, os.path.join(out, id_))\n"
        "module.handle = handle\n"
        "sys.exit(module.main())\n")
    return [sys.executable, "-c", script, os.path.join(EXAMPLES, "spool-consumer.py"), out] + \
        flags + [spool, name]


def consume(tap, scratch, kind):
    directory = os.path.join(scratch, kind)
    out, new = os.path.join(directory, "out"), os.path.join(directory, "spool", "new")
    os.makedirs(out)
    daemon = storage.Daemon(directory)
    if not daemon.wait_ready():
        raise RuntimeError(daemon.text())
    clients = [storage.Client(daemon.port, "c%d" % n, storage.any_sizes(n, 100000),
                              limit=MESSAGES // 3) for n in range(3)]
    consumers = {}

    def start(name):
        consumers[name] = subprocess.Popen(command(kind, directory, name, False),
                                           start_new_session=True)

    def end(name):
        os.killpg(consumers[name].pid, signal.SIGKILL)
        consumers.pop(name).wait()

    start("one")
    start("two")
    for client in clients:
        client.start()
    until = time.monotonic() + storage.DEADLINE
    killed = False
    acknowledged = {}
    while time.monotonic() < until:
        if not killed and os.listdir(out):
            end("one")
            killed = True
            start("one")
        if killed and not any(client.is_alive() for client in clients) and not os.listdir(new):
            break
        time.sleep(0.01)
    for client in clients:
        client.join(storage.DEADLINE)
        acknowledged.update(client.acknowledged)
    for name in list(consumers):
        end(name)
    # What the killed ones had claimed.
    codes = [subprocess.run(command(kind, directory, name, True), check=False,
                            timeout=storage.DEADLINE).returncode for name in ("one", "two")]
    wrong = []
    for id_, what in acknowledged.items():
        path = os.path.join(out, id_)
        if not os.path.exists(path):
            wrong.append("lost " + id_)
        elif open(path, "rb").read() != storage.message(*what):
            wrong.append("torn " + id_)
    tap.note("\n".join(wrong[:5]))
    tap.result(codes == [0, 0] and not os.listdir(new), "%s: the spool is empty" % kind)
    tap.result(not wrong and len(acknowledged) == MESSAGES,
               "%s: %d messages handed over" % (kind, len(acknowledged)))
    tap.result(daemon.stop() == 0, "%s: the daemon ends in order" % kind)


def failing(tap, scratch):
    """What a command refuses stays, and is handed over again."""
    spool = os.path.join(scratch, "synthetic")
    os.makedirs(os.path.join(spool, "new"))
    with open(os.path.join(spool, "new", "01ARZ3NDEKTSV4RRFFQ69G5FAV.main.unix"), "wb") as file:
        file.write(b"bytes")
    script = ["sh", os.path.join(EXAMPLES, "spool-consumer.sh"), "-1", spool, "me"]
    first = subprocess.run(script + ["false"], check=False, stderr=subprocess.DEVNULL)
    second = subprocess.run(script + ["sh", "-c", 'echo "$SPOOL_ID $(cat)"'], check=False,
                            stdout=subprocess.PIPE)
    tap.result(first.returncode != 0 and second.returncode == 0
               and second.stdout == b"01ARZ3NDEKTSV4RRFFQ69G5FAV bytes\n",
               "sh: what failed is tried again")


def main():
    tap = storage.Tap()
    with storage.Scratch() as scratch:
        failing(tap, scratch)
        for kind in ("sh", "py"):
            consume(tap, scratch, kind)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
