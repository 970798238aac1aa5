#!/usr/bin/env python3
"""mixture: clients of all sorts at once, large messages and small ones, in pieces of any
size, and every message comes out byte for byte, in its sender's order.

Environment: CISTERND (./cisternd), MIXTURE_SEED (1), MIXTURE_ROUNDS (1).
"""

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import storage  # noqa: E402

CLIENTS = 12
# Around a page, a read and a chunk.
SIZES = (0, 1, 100, 4095, 8192, 65535, 65536, 65537, 262144, 2097151)
CASES = (
    ("line", ""),
    ("line", "buffer_size = 3000; max_in_flight = 100;"),
    ("length", "max_in_flight = 3;"),
    ("length", 'buffer_size = 1000; memory_limit = "3M";'),
)


def wait_port(daemon):
    for line in daemon.stderr:
        if "listening: listener main on" in line:
            return int(line.split(" on ")[1].split()[0].rsplit(":", 1)[1])
    raise RuntimeError("it does not start")


def framed(framing, message, chance):
    if framing == "length":
        return len(message).to_bytes(4, "big") + message
    return message + (b"\r\n" if chance.random() < .5 else b"\n")


class Client(threading.Thread):
    def __init__(self, number, seed, framing, port):
        super().__init__(daemon=True)
        self.number, self.framing, self.port = number, framing, port
        self.chance = random.Random(seed * 1000 + number)
        self.sent, self.problem = [], "it has not ended"

    def message(self, large):
        size = self.chance.randint(0, 300)
        if large:
            size = self.chance.choice(SIZES + (self.chance.randint(0, 400000),) * 4)
        message = b"%d:%d:" % (self.number, len(self.sent)) + b"%c" % (97 + size % 26) * size
        return message + (b"\rx" if self.chance.random() < .3 else b"")

    def run(self):
        try:
            self.send()
            self.problem = None
        except OSError as error:
            self.problem = str(error)

    def send(self):
        large = self.chance.random() < .5
        connection = socket.create_connection(("127.0.0.1", self.port), storage.DEADLINE)
        waiting = bytearray()
        for _ in range(self.chance.randint(1, 40 if large else 3000)):
            self.sent.append(self.message(large))
            waiting += framed(self.framing, self.sent[-1], self.chance)
            while len(waiting) > self.chance.choice((0, 200000, 1000000)):
                piece = self.chance.choice((1, 100, 4096, 65536, 300000, len(waiting)))
                connection.sendall(waiting[:piece])
                del waiting[:piece]
        connection.sendall(waiting)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b"":
            raise OSError("an answer")
        connection.close()


def received(path):
    """What each client's messages were, in the order of the file."""
    of = {}
    with open(path, encoding="ascii") as records:
        for line in records:
            record = json.loads(line)
            data = record["data"].encode() if "data" in record \
                else base64.b64decode(record["data_base64"])
            of.setdefault(data.split(b":")[0], []).append(data)
    return of


def mix(tap, scratch, case, seed):
    framing, more = CASES[case]
    directory = os.path.join(scratch, "%d.%d" % (case, seed))
    os.mkdir(directory)
    config = os.path.join(directory, "cistern.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write('port = 0; address = "127.0.0.1"; framing = "%s"; %s deliver = ["f"];'
                   'spill_directory = "%s"; sinks = { f = { type = "file"; path = "%s/out";'
                   'format = "json"; sync = false; }; };' % (framing, more, directory, directory))
    daemon = subprocess.Popen([storage.program(), "-c", config], stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    said = []
    port = wait_port(daemon)
    reader = threading.Thread(target=lambda: said.extend(daemon.stderr), daemon=True)
    reader.start()
    clients = [Client(number, seed, framing, port) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(storage.DEADLINE)
    daemon.send_signal(signal.SIGTERM)
    code = daemon.wait(storage.DEADLINE)
    reader.join(storage.DEADLINE)
    daemon.stderr.close()
    of = received(os.path.join(directory, "out"))
    wrong = ["client %d: %s" % (c.number, c.problem or "other messages than it sent")
             for c in clients if c.problem or of.get(b"%d" % c.number) != c.sent]
    good = tap.result(code == 0 and not wrong, "%s; %s (%d messages, seed %d)" % (
        framing, more, sum(len(client.sent) for client in clients), seed))
    if not good:
        tap.note("exit code %d\n%s\n%s" % (code, "\n".join(wrong), "".join(said)))


def main():
    if storage.program() is None:
        storage.skip_all("there is no cisternd")
    tap = storage.Tap()
    seed = int(os.environ.get("MIXTURE_SEED", "1"))
    with storage.Scratch() as scratch:
        for turn in range(int(os.environ.get("MIXTURE_ROUNDS", "1"))):
            for case in range(len(CASES)):
                mix(tap, scratch, case, seed + turn)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
