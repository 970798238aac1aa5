#!/usr/bin/env python3
"""order: what strace(1) sees of a lone message: its bytes synced, then its name, then
its directory synced (and, when somebody has just made that, its own name before), then its
receipt; and for a file: written, synced, receipt.
"""

import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import storage  # noqa: E402

CALLS = "openat,write,writev,pwrite64,fdatasync,fsync,syncfs,linkat,renameat,renameat2," \
    "sendto,sendmsg,close"


def steps(lines):
    """The calls that matter, in the order in which they came back."""
    begun, order = {}, []
    for line in lines:
        found = re.match(r"(\d+) +(<\.\.\. )?(\w+)", line)
        if not found:
            continue
        process, resumed, name = found.groups()
        if line.rstrip().endswith("<unfinished ...>"):
            begun[process] = line
            continue
        if resumed:
            line = begun.pop(process) + line
        if "O_TMPFILE" in line:
            order.append("file")
        elif name in ("write", "writev") and "the message" in line and "OK " not in line:
            order.append("bytes")
        elif name in ("fdatasync", "fsync", "syncfs"):
            order.append("directory" if re.search(r"fsync\(\d+<[^>]*/new>", line) else "sync")
        elif name in ("linkat", "renameat", "renameat2"):
            order.append("name")
        elif '"OK ' in line:
            order.append("receipt")
    return order


def watch(tap, scratch, sink, expected, anew=False, linked=False):
    """anew: with new/ moved away and made again, meanwhile.  linked: the file is reached
    through a symbolic link, and has its name in another directory than that."""
    directory = os.path.join(scratch, sink + ".anew" * anew + ".linked" * linked)
    os.mkdir(directory)
    if linked:
        os.mkdir(directory + "/elsewhere")
        os.symlink("elsewhere/log", directory + "/log")
        open(directory + "/log", "wb").close()
    output = os.path.join(directory, "strace")
    daemon = storage.Daemon(directory, (sink,), wrapper=(
        "strace", "-f", "-y", "-s", "200", "-e", "trace=" + CALLS, "-o", output))
    if not daemon.wait_ready():
        raise RuntimeError(daemon.text())
    if anew:
        os.rename(directory + "/spool/new", directory + "/spool/before")
        os.mkdir(directory + "/spool/new")
    with open(output, "rb") as file:
        start = file.read()
    client = subprocess.run(
        [sys.executable, "-c", "import socket,sys\n"
         "s = socket.create_connection(('127.0.0.1', %d), 30)\n"
         "s.sendall(b'11:the message,'); s.shutdown(1)\n"
         "sys.exit(not s.recv(100).startswith(b'OK '))" % daemon.port], check=False)
    # strace ends with the daemon; the signal is the daemon's.
    with open("/proc/%d/task/%d/children" % ((daemon.process.pid,) * 2), encoding="ascii") as file:
        os.kill(int(file.read().split()[0]), 15)
    code = daemon.wait()
    with open(output, "rb") as file:
        file.seek(len(start))
        order = steps(file.read().decode(errors="replace").splitlines(True))
    order = order[:order.index("receipt") + 1] if "receipt" in order else order
    what = sink + ", in another new/" * anew + ", through a link" * linked
    tap.result(client.returncode == 0 and code == 0, "%s: one message" % what)
    tap.result(order == expected, "%s: %s" % (what, ", ".join(order)))
    if linked:
        tap.result(re.search(rb"syncfs\(\d+<[^>]*/elsewhere/log>", start) is not None,
                   "%s: its name is synced where it is" % what)


def main():
    if shutil.which("strace") is None:
        storage.skip_all("strace is not installed")
    works = subprocess.run(["strace", "-f", "-o", "/dev/null", "true"], check=False,
                           stderr=subprocess.DEVNULL)
    if works.returncode != 0:
        storage.skip_all("strace may not trace here (ptrace)")
    sanitized = subprocess.run(["grep", "-q", "__asan_init", storage.program()],
                               check=False)
    if sanitized.returncode == 0:
        storage.skip_all("AddressSanitizer's leak check traces, too")
    tap = storage.Tap()
    with storage.Scratch() as scratch:
        watch(tap, scratch, "s", ["file", "bytes", "sync", "name", "directory", "receipt"])
        watch(tap, scratch, "s", ["file", "bytes", "sync", "name", "sync", "directory", "receipt"],
              True)
        watch(tap, scratch, "f", ["bytes", "sync", "receipt"])
        watch(tap, scratch, "f", ["bytes", "sync", "receipt"], linked=True)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
