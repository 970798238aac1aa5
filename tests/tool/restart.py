#!/usr/bin/env python3
"""restart: `cistern send` over a daemon that is killed (-9) and started again, many times.
What has a receipt is in the spool, once and byte for byte; the exit status is right each
time.

RESTART_SIZE: of the file (16M; make check-send: 1G).  RESTART_KILLS: how often (4).
RESTART_SEED: to have one run again.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402

SETTINGS = 'reply = "receipt"; max_message_size = 0; memory_limit = "8M"; framing = "%s";'
PIECE = 1 << 20


def bytes_of(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1]] if text[-1] in units else int(text)


def make(path, size, chance):
    """Random bytes without a newline; returns their digest."""
    digest, block = hashlib.sha256(), chance.randbytes(PIECE).replace(b"\n", b"n").replace(b"\r", b"r")
    with open(path, "wb") as file:
        for number in range(0, size, PIECE):
            piece = (b"%020d" % number + block)[:min(PIECE, size - number)]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def digest_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(PIECE), b""):
            digest.update(piece)
    return digest.hexdigest()


def wait_written(daemon, size, is_over):
    """Until the daemon has written that many bytes, or there is no more to wait for."""
    while not is_over():
        with open("/proc/%d/io" % daemon.process.pid, encoding="ascii") as file:
            if int(file.read().split("wchar: ")[1].split()[0]) >= size:
                return True
        time.sleep(0.001)
    return False


def spool(daemon):
    return {name.split(".")[0]: os.path.join(daemon.new, name) for name in os.listdir(daemon.new)}


def over_kills(directory, framing, arguments, size, chance, kills):
    """The tool over a daemon in its lives.  Its Done, the daemon, how often it died."""
    daemon = kit.Daemon(directory, SETTINGS % framing)
    port, done, died = daemon.ports["main"], [], 0
    thread = threading.Thread(target=lambda: done.append(subprocess.run(
        [kit.tool(), "send", "-v", "-r", "-f", framing, "--retry-for", "10m", "--retry-delay",
         "20ms", daemon.at()] + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        check=False)))
    thread.start()
    while died < kills and wait_written(daemon, chance.uniform(0, size),
                                        lambda: not thread.is_alive()):
        daemon.stop(signal.SIGKILL)
        died += 1
        daemon = kit.Daemon(directory, SETTINGS % framing, port=port)
    thread.join()
    result = kit.Done(done[0].returncode, done[0].stdout, done[0].stderr)
    return result, daemon, died


def one_file(tap, directory, path, size, digest, chance, kills):
    place = os.path.join(directory, "one")
    done, daemon, died = over_kills(place, "length", ["--length-bytes", "4", path], size, chance,
                                    kills)
    ids, files = done.out.decode().split(), spool(daemon)
    tap.note("killed %d times, tried again %d times, %d files in the spool" % (
        died, done.err.count("trying again"), len(files)))
    tap.result(died == kills and done.err.count("trying again") >= died, "each kill was a retry")
    good = done.code == 0 and len(ids) == 1 and ids[0] in files
    tap.result(good, "one file of %d bytes: accepted in the end" % size) or tap.note(repr(done))
    tap.result(good and digest_of(files[ids[0]]) == digest, "the receipt's file is the one sent")
    tap.result(all(digest_of(file) == digest for file in files.values()), "whatever else is whole")
    tap.result(daemon.stop() == 0, "the daemon ends in order")
    for file in files.values():
        os.unlink(file)


def many_lines(tap, directory, size, chance, kills):
    """Each line its own message: what was acknowledged before a kill is not sent again."""
    lines = [b"%d:" % n + chance.randbytes(chance.randrange(1, 2 * size // 4000)).hex().encode()
             for n in range(4000)]
    path = kit.write(directory, "lines", b"\n".join(lines) + b"\n")
    place = os.path.join(directory, "lines.d")
    done, daemon, died = over_kills(place, "line", [path], os.path.getsize(path) // kills, chance,
                                    kills)
    ids, files = done.out.decode().split(), spool(daemon)
    found = {}
    for id_, file in files.items():
        with open(file, "rb") as opened:
            found[id_] = opened.read()
    sent = [found.get(id_) for id_ in ids]
    tap.note("killed %d times, tried again %d times, %d lines, %d messages in the spool" % (
        died, done.err.count("trying again"), len(lines), len(files)))
    tap.result(done.code == 0 and len(set(ids)) == len(lines),
               "%d lines: a receipt each" % len(lines)) or tap.note(repr(done))
    tap.result(sorted(line or b"" for line in sent) == sorted(lines),
               "each receipt stands for another line, once")
    tap.result(set(found.values()) == set(lines), "nothing torn, nothing else")
    tap.result(daemon.stop() == 0, "the daemon ends in order")


def without_retries(tap, directory, path, size, digest, chance, kills):
    """Each kill is a 75 (or came too late), no daemon a 69; 0 only when it is there."""
    place = os.path.join(directory, "each")
    seen, wrong = [], []
    for _ in range(kills):
        daemon = kit.Daemon(place, SETTINGS % "netstring")
        process = subprocess.Popen([kit.tool(), "send", "-r", "-i", "-f", "netstring", daemon.at(),
                                    path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_written(daemon, chance.uniform(0, 1.05 * size), lambda p=process: p.poll() is not None)
        daemon.stop(signal.SIGKILL)
        out, err = process.communicate()
        files = spool(daemon)
        seen.append(process.returncode)
        if process.returncode == 0:
            good = digest_of(files[out.decode().strip()]) == digest
        else:
            good = process.returncode in (69, 75) and not out
        if not good:
            wrong.append((process.returncode, out, err))
        for file in files.values():
            os.unlink(file)
    refused = kit.send("-r", "-f", "netstring", daemon.at(), path)
    tap.note("exit statuses: %r" % seen)
    tap.result(not wrong, "without retries the exit status is right") or tap.note(repr(wrong))
    tap.result(refused.code == 69, "69 without a daemon")


def main():
    size = bytes_of(os.environ.get("RESTART_SIZE", "16M"))
    kills = int(os.environ.get("RESTART_KILLS", "4"))
    seed = os.environ.get("RESTART_SEED", str(random.randrange(1 << 30)))
    chance = random.Random(seed)
    tap = kit.Tests()
    tap.note("RESTART_SIZE=%d RESTART_KILLS=%d RESTART_SEED=%s" % (size, kills, seed))
    with kit.storage.Scratch() as directory:
        path = os.path.join(directory, "file")
        digest = make(path, size, chance)
        one_file(tap, directory, path, size, digest, chance, kills)
        without_retries(tap, directory, path, size, digest, chance, kills)
        many_lines(tap, directory, min(size, 16 << 20), chance, kills)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
