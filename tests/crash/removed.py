#!/usr/bin/env python3
"""removed: an address comes and goes under clients that connect as fast as they can.
Who has been connected is served; nobody is reset in the instant of the close.

RELOADS / 4 rounds, of 0.7 s each (40, so ten).
"""

import os
import signal
import socket
import sys
import time

sys.dont_write_bytecode = True
import reload  # noqa: E402
import storage  # noqa: E402

ROUNDS = reload.RELOADS // 4
CLIENTS = 4
STAYS = 0.03  # seconds that the address is there ...
GOES = 0.65   # ... and is not; it takes half a second to be closed

CONFIG = """
address = "127.0.0.1"; workers = 2; spill_directory = "{directory}"; deliver = "f";
sinks = {{ f = {{ type = "file"; path = "{directory}/log"; format = "line"; sync = false; }}; }};
listeners = {{ main = {{ port = 0; }}; {more} }};
"""


def hammer(port, until):
    """How many were served, how many dropped."""
    served = dropped = 0
    while time.monotonic() < until:
        with socket.socket() as client:
            client.settimeout(0.02)
            try:
                client.connect(("127.0.0.1", port))
            except OSError:
                continue
            client.settimeout(storage.DEADLINE)
            try:
                client.sendall(b"z")
                client.shutdown(socket.SHUT_WR)
                good = client.recv(1) == b""
            except OSError:
                good = False
            served += good
            dropped += not good
    return served, dropped


def start(port, until):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, b"%d %d" % hammer(port, until))
        os._exit(0)
    os.close(theirs)
    return child, ours


def main():
    tap = storage.Tap()
    with storage.Scratch() as directory:
        port = reload.free_ports(1)[0]
        without, with_it = (CONFIG.format(directory=directory, more=more)
                            for more in ("", "gone = { port = %d; };" % port))
        daemon = reload.Daemon(directory, without)
        daemon.wait_for(r" ready: ")
        until = time.monotonic() + ROUNDS * (STAYS + GOES)
        children = [start(port, until) for _ in range(CLIENTS)]
        while time.monotonic() < until:
            daemon.reload(with_it)
            time.sleep(STAYS)
            daemon.reload(without)
            time.sleep(GOES)
        sums = [0, 0]
        for child, ours in children:
            for i, number in enumerate(os.read(ours, 100).split()):
                sums[i] += int(number)
            os.waitpid(child, 0)
        tap.result(sums[0] > 0 and sums[1] == 0, "%d served, %d dropped, in %d rounds"
                   % (sums[0], sums[1], ROUNDS))
        daemon.process.send_signal(signal.SIGTERM)
        tap.result(daemon.wait() == 0 and daemon.seen == "", "it has no complaint")
        tap.note(daemon.seen[:2000])
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
