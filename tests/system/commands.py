#!/usr/bin/env python3
"""commands: what a command sink runs, with what, how many at a time, and what becomes of
messages when programs fail, hang, print, leave children behind or cannot be run.

COMMAND_MESSAGES: how many go through in the long run (500; make check-command: 10,000).
"""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time

from manager import Service, connect, finish, wait_for
from storage import Scratch, Tap, program

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "%(scratch)s"; deliver = "c"; %(more)s
sinks = { c = { type = "command"; run_as_root = true; argv = [ %(argv)s ]; %(sink)s }; };
"""
MESSAGES = int(os.environ.get("COMMAND_MESSAGES", "500"))


def is_sanitized():
    """Whether the daemon was built with a sanitizer, by what it is linked to."""
    with open(program(), "rb") as file:
        built = file.read()
    return b"__tsan_init" in built or b"__asan_init" in built


SANITIZED = program() is not None and is_sanitized()

# What the program sees, as JSON into the file that it is given.
PROBE = r"""
import fcntl, hashlib, json, os, re, resource, sys
def attempt(what):
    try:
        what()
        return "done"
    except OSError as error:
        return type(error).__name__
first = sys.stdin.buffer.read()
os.lseek(0, 0, os.SEEK_SET)
second = sys.stdin.buffer.read()
os.lseek(0, -1 if first else 0, os.SEEK_END)
fds = {}
for name in os.listdir("/proc/self/fd"):
    try:
        fds[name] = os.readlink("/proc/self/fd/" + name)
    except OSError:
        pass
status = dict(re.findall(r"^(\w+):\s*(.*)$", open("/proc/self/status").read(), re.M))
umask = os.umask(0)
found = {"env": dict(os.environ), "fds": fds, "cwd": os.getcwd(), "umask": umask,
         "digest": hashlib.sha256(first).hexdigest(), "again": first == second,
         "last": os.read(0, 10).hex(), "mode": fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE,
         "write": attempt(lambda: os.write(0, b"x")), "size": len(first),
         "terminal": attempt(lambda: os.open("/dev/tty", os.O_RDWR)),
         "blocked": status["SigBlk"], "ignored": status["SigIgn"], "uid": os.getuid(),
         "leader": os.getsid(0) == os.getpid() == os.getpgrp(), "argv": sys.argv,
         "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0]}
if "memfd" in fds["0"]:
    found["reopen"] = attempt(lambda: os.write(os.open("/proc/self/fd/0", os.O_RDWR), b"x"))
with open(sys.argv[1] + ".new", "w") as file:
    json.dump(found, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


def frame(*messages):
    return b"".join(b"%d:%s," % (len(message), message) for message in messages)


class Command(Service):
    """A daemon with a command sink `c`."""

    def __init__(self, scratch, argv, sink="", more="", **service):
        self.text = CONFIG % {"scratch": scratch, "sink": sink, "more": more,
                              "argv": ", ".join(json.dumps(word) for word in argv)}
        super().__init__(scratch, self.text, **service)

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.end()

    def ask(self, *messages):
        client = connect(self.address())
        client.sendall(frame(*messages))
        return self.answers(client)

    @staticmethod
    def answers(client):
        """Receipts until the close, or the reset that follows what was not accepted."""
        received = b""
        with client:
            client.shutdown(socket.SHUT_WR)
            try:
                while chunk := client.recv(65536):
                    received += chunk
            except ConnectionResetError:
                pass
        return [line if not line.startswith("OK") else "OK"
                for line in received.decode().splitlines()]

    def events(self, name):
        """Those about a connection, too: there are colons in its peer."""
        return re.findall(r"^\S+ \w+ %s(?: .*)?: .*$" % name, self.log(), re.M)

    def said(self, name):
        """What the events say behind "sink c: message ID: "."""
        return re.findall(r"^\S+ \w+ %s .*?: sink c: (message \S+): (.*)$" % name, self.log(),
                          re.M)

    def children(self):
        """{pid: state} of those that are the daemon's own."""
        found = {}
        for name in os.listdir("/proc"):
            try:
                with open("/proc/%s/stat" % name, encoding="utf-8") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except (OSError, IndexError):
                continue
            if int(fields[1]) == self.process.pid:
                found[int(name)] = fields[0]
        return found

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def resident(self, field="VmRSS"):
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as file:
            return int(re.search(r"%s:\s*(\d+)" % field, file.read()).group(1))


def shell(script, *arguments):
    return ["/bin/sh", "-c", script, "sh", *arguments]


def gone(pid):
    """No such process, or only its status is left."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def statuses(tap, scratch):
    with Command(scratch, shell('s=$(cat); case $s in k*) kill -${s#k} $$; sleep 9;; esac; '
                                'exit $s')) as daemon:
        expected = {b"0": "OK", b"75": "RETRY unavailable", b"1": "REJECT refused",
                    b"2": "REJECT refused", b"74": "REJECT refused", b"76": "REJECT refused",
                    b"127": "REJECT refused", b"255": "REJECT refused",
                    b"k9": "RETRY unavailable", b"k15": "RETRY unavailable",
                    b"k11": "RETRY unavailable"}
        for message, answer in expected.items():
            tap.result(daemon.ask(message) == [answer], "%s: %s" % (message.decode(), answer))
        tap.result(daemon.ask(*expected) == list(expected.values()),
                   "all of them at once, answered in order")
        tap.result(daemon.events("command-failed"), "failures are in the log")
        tap.result(not daemon.events("sink-failing"), "but are no trouble of the sink")
        failed = len([1 for answer in expected.values() if answer != "OK"])
        tap.result(daemon.stop() == 0 and
                   "received %d messages: 2 accepted, 12 refused, 8 failed, 0 in flight"
                   % (2 + 2 * failed) in daemon.log(), "all is accounted for")


def surroundings(tap, scratch):
    """What the program has, and has not."""
    out = os.path.join(scratch, "found")
    # A descriptor that leaks into the daemon, a full environment, SIGCHLD ignored.
    wrapper = [sys.executable, "-c", "import os, signal, sys; os.dup2(1, 77); "
               "signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
               "signal.signal(signal.SIGHUP, signal.SIG_IGN); "
               "os.execv(sys.argv[1], sys.argv[1:])"]

    def probe(daemon, message):
        if os.path.exists(out):
            os.unlink(out)
        answer = daemon.ask(message)
        with open(out, encoding="utf-8") as file:
            return answer, json.load(file)

    argv = [sys.executable, "-c", PROBE, out, "$(id)", "", "a b;\"'"]
    with Command(scratch, argv, more='memory_limit = "1M"; max_message_size = "64M";',
                 wrapper=wrapper, env={"SECRET": "x"}) as daemon:
        answer, found = probe(daemon, b"$(touch x)\0\xff\r\n")
        tap.result(answer == ["OK"], "an exit is seen where SIGCHLD was ignored")
        env = found["env"]
        env.pop("LC_CTYPE", None)  # Python's own
        port = str(daemon.address()[1])
        tap.result(sorted(env) == sorted(
            ["PATH", "LANG", "HOME"] + ["CISTERN_" + name for name in
             ("ID", "LISTENER", "PEER", "LOCAL", "TIME", "SIZE", "ENDED")]),
            "the environment: " + " ".join(sorted(env)))
        tap.result(re.match("[0-9A-HJKMNP-TV-Z]{26}$", env["CISTERN_ID"]) is not None and
                   env["CISTERN_LISTENER"] == "main" and
                   re.match(r"127\.0\.0\.1:\d+$", env["CISTERN_PEER"]) is not None and
                   env["CISTERN_LOCAL"] == "127.0.0.1:" + port and env["CISTERN_SIZE"] == "14" and
                   re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", env["CISTERN_TIME"])
                   is not None and env["CISTERN_ENDED"] == "frame", "its values: %r" % env)
        tap.result(found["argv"][1:] == argv[3:], "the arguments are those of the file")
        tap.result(sorted(found["fds"]) == ["0", "1", "2"] and "memfd" in found["fds"]["0"],
                   "no descriptor but three: %r" % found["fds"])
        tap.result(found["mode"] == os.O_RDONLY and found["write"] == "OSError" and
                   found["reopen"] == "PermissionError", "its input is sealed")
        # Two are ignored by Python; 32 and 33 are libc's own, which nobody can set.
        ignored = int(found["ignored"], 16) & ~(
            1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1 | 1 << 31 | 1 << 32)
        tap.result(int(found["blocked"], 16) == 0 and ignored == 0,
                   "no signal is blocked, none ignored: %r" % found["ignored"])
        tap.result(found["cwd"] == "/" and found["umask"] == 0o77 and found["leader"] and
                   found["terminal"] == "OSError" and found["files"] <= 1024,
                   "working directory, umask, session, limit")
        tap.result(found["last"] == "0a" and found["again"], "it can seek")
        wrong = []
        for data in (b"", b"\0", os.urandom(1000), os.urandom(200000), b"\0" * 900000,
                     os.urandom(3000000), os.urandom(20000000)):
            answer, found = probe(daemon, data)
            if answer != ["OK"] or found["size"] != len(data) or not found["again"] or \
                    found["digest"] != hashlib.sha256(data).hexdigest() or \
                    sorted(found["fds"]) != ["0", "1", "2"]:
                wrong.append((len(data), answer, found))
        tap.result(not wrong, "messages of all sizes arrive as they are: %r" % wrong)
        tap.result("memfd" not in found["fds"]["0"] and found["mode"] == os.O_RDONLY,
                   "a large one is the file that it was spilled to")
        tap.result(daemon.stop() == 0, "an orderly stop")


def hanging(tap, scratch):
    pids = os.path.join(scratch, "pids")
    script = ("sh -c 'trap \"\" TERM; echo $$ >>\"$1\"; while :; do sleep 1; done' sh \"$1\" & "
              "%s echo $$ >>\"$1\"; while :; do sleep 0.1; done")
    for trap, what, least in (("", "ends at TERM", 0.3), ("trap '' TERM;", "ignores TERM", 5.3)):
        if os.path.exists(pids):
            os.unlink(pids)
        with Command(scratch, shell(script % trap, pids), 'timeout = "300ms";') as daemon:
            began = time.monotonic()
            answer = daemon.ask(b"x")
            took = time.monotonic() - began
            tap.result(answer == ["RETRY timeout"] and took >= least,
                       "one that hangs and %s: %r after %.1f s" % (what, answer, took))
            with open(pids, encoding="ascii") as file:
                seen = [int(line) for line in file]
            wait_for("children are left", lambda s=seen: all(gone(pid) for pid in s))
            tap.result(len(seen) == 2 and not daemon.children(), "its child is gone, too")
            tap.result(daemon.stop() == 0, "an orderly stop")
    script = 'trap "exit 0" TERM; while :; do sleep 0.05; done'
    with Command(scratch, shell(script), 'timeout = "300ms";') as daemon:
        tap.result(daemon.ask(b"x") == ["RETRY timeout"], "exit 0 after the timeout is too late")


def odd(tap, scratch):
    """Programs that do not do what one would expect of them."""
    with Command(scratch, shell("sleep 2 & exit 0")) as daemon:
        began = time.monotonic()
        answer = daemon.ask(b"x")
        tap.result(answer == ["OK"] and time.monotonic() - began < 1.9 and not daemon.children(),
                   "one that leaves a child behind, which keeps its output, is not waited for")
    with Command(scratch, shell("exec <&-; exec >&- 2>&-; exit 0")) as daemon:
        tap.result(daemon.ask(b"x" * 100000) == ["OK"], "one that closes all it was given")
    with Command(scratch, ["/bin/true"]) as daemon:
        tap.result(daemon.ask(b"x" * 1000000, b"", b"y") == ["OK"] * 3, "one that never reads")


def printing(tap, scratch):
    size = 100000000 if SANITIZED else 1000000000
    with Command(scratch, shell("yes 'a line of text' | head -c %d; "
                                "head -c %d /dev/zero >&2" % (size // 2, size // 2))) as daemon:
        before = daemon.resident()
        tap.result(daemon.ask(b"x") == ["OK"], "one that prints %d bytes" % size)
        lines = daemon.events("command-output")
        tap.result(len(lines) == 101 and os.path.getsize(daemon.log_path) < 50000,
                   "%d lines of it are in the log" % len(lines))
        tap.result(re.search(r"\.\.\. and \d{8,} bytes more", lines[-1]) is not None,
                   "which says how much is missing")
        tap.result(daemon.resident() - before < 4000, "nothing of it is kept")
    script = r"printf 'one\n\033[31mred\0\177\302\205\n\n'; head -c 5000 /dev/zero; printf 'end' >&2"
    with Command(scratch, shell(script)) as daemon:
        id_ = finish_id(daemon)
        lines = daemon.said("command-output")
        tap.result([line[1] for line in lines][:3] ==
                   ["one", r"\x1B[31mred\x00\x7F\xC2\x85", ""] and
                   all(line[0] == "message " + id_ for line in lines),
                   "controls are shown, and each line has the message's id", "\n".join(
                       "%s: %s" % (line[0], line[1][:200]) for line in lines))
        tap.result(len(lines) == 4 and len(lines[3][1]) < 4200 and
                   lines[3][1].endswith("(the line goes on)"), "a long line is cut")


def finish_id(daemon):
    client = connect(daemon.address())
    client.sendall(frame(b"x"))
    return finish(client).split()[1]


def at_once(tap, scratch):
    run = os.path.join(scratch, "run")
    os.mkdir(run)
    script = 'touch "$1/$$"; sleep 0.1; set -- "$1" "$1"/*; echo n=$(($# - 1)); sleep 0.1; rm "$1/$$"'
    with Command(scratch, shell(script, run)) as daemon:
        clients = [connect(daemon.address()) for _ in range(4)]
        for client in clients:
            client.sendall(frame(*[b"x"] * 6))
        answers = [answer for client in clients for answer in daemon.answers(client)]
        counts = [int(n) for n in re.findall(r": n=(\d+)$", daemon.log(), re.M)]
        tap.result(answers == ["OK"] * 24 and max(counts) == 4 and len(counts) == 24,
                   "four at a time, never more: %r" % counts)


def many(tap, scratch):
    """Every outcome, many times; nothing is left of any."""
    kinds = [(b"0\n", "OK"), (b"0\n", "OK"), (b"75\n", "RETRY unavailable"), (b"1\n", "REJECT refused")]
    with Command(scratch, shell('read -r s; exit "$s"')) as daemon:
        daemon.ask(*[b"0\n"] * 20)
        fds, resident, began = daemon.fds(), daemon.resident(), time.monotonic()
        wrong = 0
        for at in range(0, MESSAGES, 500):
            batch = [kinds[n % 4] for n in range(at, min(at + 500, MESSAGES))]
            answers = daemon.ask(*[message for message, _ in batch])
            wrong += answers != [answer for _, answer in batch]
        took = time.monotonic() - began
        tap.result(wrong == 0, "%d messages, %d a second: receipts are as contracted"
                   % (MESSAGES, MESSAGES / took))
        tap.result(not daemon.children(), "no zombie: %r" % daemon.children())
        wait_for("descriptors are left", lambda: daemon.fds() <= fds)
        tap.result(daemon.fds() == fds, "no descriptor is left")
        more = daemon.resident() - resident
        tap.result(more < (40000 if SANITIZED else 1500), "%d KiB more memory" % more)
        refused, failed = MESSAGES // 4, MESSAGES // 4
        tap.result(daemon.stop() == 0 and "received %d messages: %d accepted, %d refused, %d "
                   "failed, 0 in flight" % (MESSAGES + 20, MESSAGES - refused - failed + 20,
                                            refused, failed) in daemon.log(),
                   "all is accounted for")
        tap.result(len(daemon.events("command-failed")) < 12 + took and
                   re.search(r"command-failed: sink c: \d+ more commands failed", daemon.log())
                   is not None, "the log is not flooded")


def stopping(tap, scratch):
    script = "trap '' TERM; echo started; while :; do sleep 0.1; done"
    with Command(scratch, shell(script), "max_processes = 2;",
                 'shutdown_timeout = "500ms";') as daemon:
        client = connect(daemon.address())
        client.sendall(frame(*[b"x"] * 7))
        wait_for("two run", lambda: len(daemon.events("command-output")) == 2)
        children = list(daemon.children())
        began = time.monotonic()
        daemon.signal()
        answers = daemon.answers(client)
        code = daemon.wait()
        tap.result(answers == ["RETRY shutdown"] * 7 and code == 0,
                   "a stop while some run and some wait: %r" % answers)
        tap.result(time.monotonic() - began < 6 and all(gone(pid) for pid in children),
                   "they are ended in time")
    with Command(scratch, shell("echo started; sleep 0.5")) as daemon:
        client = connect(daemon.address())
        client.sendall(frame(b"x"))
        wait_for("it runs", lambda: daemon.events("command-output"))
        daemon.signal()
        tap.result(daemon.answers(client) == ["OK"] and daemon.wait() == 0,
                   "a stop lets what runs finish")
    with Command(scratch, shell("echo started; sleep 0.5")) as daemon:
        client = connect(daemon.address())
        client.sendall(frame(b"x", b"y"))
        wait_for("it runs", lambda: daemon.events("command-output"))
        with open(daemon.config, "w", encoding="utf-8") as file:
            file.write(re.sub(r"sinks = .*", "", daemon.text).replace('"c"', '"console"'))
        daemon.signal(signal.SIGHUP)
        daemon.wait_event("reloaded")
        tap.result(daemon.answers(client) == ["OK", "OK"], "so does a reload that removes the sink")
        tap.result(daemon.stop() == 0 and daemon.process.returncode == 0, "an orderly stop")


def trouble(tap, scratch):
    """A program that is not there any more; no descriptors."""
    path = os.path.join(scratch, "program")
    shutil.copy("/bin/true", path)
    with Command(scratch, [path]) as daemon:
        tap.result(daemon.ask(b"x") == ["OK"], "a program")
        os.rename(path, path + ".away")
        tap.result(daemon.ask(b"x", b"y") == ["RETRY unavailable"] * 2 and
                   len(daemon.events("sink-failing")) == 1,
                   "that is gone is trouble, said once")
        time.sleep(1.2)
        tap.result(not daemon.events("sink-well"), "as long as it is gone")
        os.rename(path + ".away", path)
        daemon.wait_event("sink-well")
        tap.result(daemon.ask(b"x") == ["OK"], "and not when it is back")
        client = connect(daemon.address())
        daemon.ask(b"x")
        pid, limits = daemon.process.pid, resource.prlimit(daemon.process.pid,
                                                           resource.RLIMIT_NOFILE)
        for more in range(6):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (daemon.fds() + more, limits[1]))
            client.sendall(frame(b"x"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        client.sendall(frame(b"x"))
        wait_for("trouble", lambda: len(daemon.events("sink-failing")) == 2)
        client.sendall(frame(b"x"))
        answers = daemon.answers(client)
        tap.result(answers[-2:] == ["RETRY unavailable"] * 2 and
                   set(answers) <= {"OK", "RETRY unavailable"}, "no descriptors: %r" % answers)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        wait_for("it is well again", lambda: len(daemon.events("sink-well")) >= 2)
        tap.result(daemon.ask(b"x") == ["OK"] and daemon.stop() == 0, "and then there are")


def more_than_descriptors(tap, scratch):
    """More programs than descriptors, and then less than are open."""
    setting = "max_processes = 64;"
    with Command(scratch, ["/bin/sh", "-c", "sleep .2"], setting,
                 wrapper=("/bin/sh", "-c", 'ulimit -n 100; exec "$@"', "sh")) as daemon:
        daemon.wrapped = False  # it is exec's
        tap.result(daemon.ask(b"x") == ["OK"], "a program is waited for")
        client = connect(daemon.address())
        client.sendall(frame(*[b"x"] * 8))
        wait_for("programs", lambda: len(list(daemon.children())) >= 2)
        before = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (4, 100))
        tap.result(set(daemon.answers(client)) <= {"OK", "RETRY unavailable"}, "as well")
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, before)
        tap.result(daemon.stop() == 0, "an orderly stop")


def configured(tap, scratch):
    """What is wrong with a file is said before anything is served."""
    plain = os.path.join(scratch, "plain")
    with open(plain, "w", encoding="ascii"):
        os.chmod(plain, 0o644)
    config = os.path.join(scratch, "test.conf")
    for argv, said in ((["/nowhere/at/all"], "which is not there"), ([plain], "not executable"),
                       ([scratch], "which is no file"), (["true"], "absolute path"), ([], "empty list")):
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG % {"scratch": scratch, "more": "", "sink": "",
                                 "argv": ", ".join(json.dumps(word) for word in argv)})
        for options in (["-t"], []):
            run = subprocess.run([program(), *options, "-c", config], capture_output=True,
                                 text=True, check=False, timeout=60)
            tap.result(run.returncode == 78 and said in run.stdout + run.stderr and
                       ":4: " in run.stdout + run.stderr, "%r %s: %s" % (argv, options, said))
    argv = ["/bin/true", "", "a b", "\"q\" \\ $x `y` 'z'", "tab\tnewline\n", "\u00fc"]
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG % {"scratch": scratch, "more": "", "sink": "timeout = 0;", "argv":
                             ", ".join(json.dumps(word, ensure_ascii=False) for word in argv)})
    dumps = []
    for _ in range(2):
        dumps.append(subprocess.run([program(), "-T", "-c", config], capture_output=True,
                                    check=False, timeout=60).stdout)
        with open(config, "wb") as file:
            file.write(dumps[-1])
    tap.result(dumps[0] == dumps[1] and all(text in dumps[0].decode() for text in (
        'argv = [ "/bin/true", "", "a b", ', "max_processes = 4;", "timeout = 0;",
        "run_as_root = true;")), "-T prints what is read back to the same", dumps[0].decode())
    if os.getuid() != 0:
        tap.result(True, "as root nothing is run # SKIP not root")
        return
    text = (CONFIG % {"scratch": scratch, "more": "", "argv": '"/bin/true"',
                      "sink": ""}).replace("run_as_root = true;", "")
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    run = subprocess.run([program(), "-c", config], capture_output=True, text=True, check=False,
                         timeout=60)
    tap.result(run.returncode == 78 and "commands are not run as root" in run.stderr,
               "as root nothing is run: " + run.stderr.splitlines()[-1])
    os.chmod(scratch, 0o777)
    with Command(scratch, shell("id -u; echo $HOME"), more='user = "nobody";') as daemon:
        id_ = finish_id(daemon)
        seen = [line for _, line in daemon.said("command-output")]
        tap.result(seen[0] not in ("0", "") and len(id_) == 26 and daemon.stop() == 0,
                   "but as somebody else: %r" % seen)


def main():
    tap = Tap()
    if program() is None:
        tap.result(False, "there is a cisternd")
        return tap.end()
    wanted = sys.argv[1:]
    for test in (statuses, surroundings, hanging, odd, printing, at_once, many, stopping, trouble, more_than_descriptors,
                 configured):
        if wanted and test.__name__ not in wanted:
            continue
        with Scratch() as scratch:
            test(tap, scratch)
            for name in sorted(os.listdir(scratch)):
                if name.endswith(".log"):
                    with open(os.path.join(scratch, name), encoding="utf-8", errors="replace") as log:
                        text = log.read()
                    if re.search(r"Sanitizer|runtime error", text):
                        tap.result(False, test.__name__ + ": no complaint", text[-4000:])
            if tap.failed:
                raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
