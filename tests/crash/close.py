#!/usr/bin/env python3
"""close: the close is the receipt, also when the daemon is killed: a message whose
connection was closed in order is in the spool, whole.  For a killed process the kernel
closes, which must be a reset.

CRASH_CYCLES: how often (20 at most in `make check`).
"""

import os
import random
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
import storage  # noqa: E402

CLIENTS = 8
storage.CONFIG = storage.CONFIG.replace('reply = "receipt"; framing = "netstring";', "")


class Client(threading.Thread):
    def __init__(self, port, name):
        super().__init__(daemon=True)
        self.port, self.name_, self.closed, self.sent = port, name, [], 0

    def run(self):
        while True:
            name = "%s.%d" % (self.name_, self.sent)
            data = storage.message(name, 50 + 997 * (self.sent % 30))
            try:
                with socket.create_connection(("127.0.0.1", self.port), storage.DEADLINE) as c:
                    self.sent += 1
                    c.sendall(data)
                    c.shutdown(socket.SHUT_WR)
                    if c.recv(1) == b"":
                        self.closed.append((name, data))
            except ConnectionRefusedError:
                return
            except OSError:
                continue


def stored(directory):
    new = os.path.join(directory, "spool", "new")
    found = set()
    for entry in os.listdir(new):
        with open(os.path.join(new, entry), "rb") as file:
            found.add(file.read())
    return found


def main():
    cycles = min(int(os.environ.get("CRASH_CYCLES", "20")), 200)
    chance = random.Random(os.environ.get("CRASH_SEED", "7"))
    tap = storage.Tap()
    if storage.program() is None:
        storage.skip_all("there is no cisternd")
    sent = closed = lost = torn = 0
    with storage.Scratch() as directory:
        for number in range(cycles):
            daemon = storage.Daemon(directory)
            if not daemon.wait_ready():
                raise RuntimeError(daemon.text())
            clients = [Client(daemon.port, "%d-%d" % (number, n)) for n in range(CLIENTS)]
            for client in clients:
                client.start()
            until = time.monotonic() + chance.uniform(0.05, 0.3)
            while time.monotonic() < until:
                time.sleep(storage.NO_READ)
            daemon.kill()
            for client in clients:
                client.join(storage.DEADLINE)
            found = stored(directory)
            torn += sum(not storage.is_whole(data) for data in found)
            for client in clients:
                sent += client.sent
                closed += len(client.closed)
                lost += sum(data not in found for _, data in client.closed)
            storage.clear_spool(directory)
        tap.result(lost == 0 and torn == 0, "%d kills: %d sent, %d closed in order, %d of them "
                   "lost, %d torn" % (cycles, sent, closed, lost, torn))
        tap.result(0 < closed < sent, "some were closed in order, and some not")
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
