#!/usr/bin/env python3
"""queue: `cistern queue` on spools: made by hand for every selection and every name, and
beside a running daemon with consumers that take messages away under its hands.
"""

import json
import os
import pty
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DAY = 86400


def ulid(age, number=0):
    """An id of that many seconds ago."""
    value = (int((time.time() - age) * 1000) << 80) | number
    return "".join(ALPHABET[(value >> shift) & 31] for shift in range(125, -5, -5))


class Spool:
    """A spool by hand: names, and the tool on it."""

    def __init__(self, directory, *states):
        self.path = directory
        for state in ("new", "tmp", "failed") + states:
            os.makedirs(os.path.join(directory, state))

    def add(self, age, listener="main", peer="192.0.2.1-5140", state="new", data=b"data", number=0):
        id_ = ulid(age, number)
        kit.write(os.path.join(self.path, state), "%s.%s.%s" % (id_, listener, peer), data)
        return id_

    def ids(self, state):
        path = os.path.join(self.path, state)
        return sorted(name.split(".")[0] for name in os.listdir(path)) if os.path.isdir(path) else []

    def queue(self, *arguments, **more):
        return kit.run("queue", "-d", self.path, *arguments, **more)

    def listed(self, *arguments):
        done = self.queue("list", "--json", *arguments)
        if done.code:
            raise RuntimeError(repr(done))
        return [json.loads(line) for line in done.out.splitlines()]


def check_the_table_and_its_total(scratch):
    spool = Spool(scratch, "hold")
    empty = spool.queue()
    ids = [spool.add(3 * DAY, peer="2001:db8::1-5140", state="failed"), spool.add(7200, data=b"x" * 2048),
           spool.add(30, listener="labels", peer="unix-12", state="hold")]
    done = spool.queue()
    lines = done.out.decode().splitlines()
    good = done.code == 0 and empty.out == b"-- 0 bytes in 0 messages.\n" and len(lines) == 5 and \
        [line.split()[0] for line in lines[1:4]] == ids and \
        lines[1].split()[3:] == ["3d", "4", "main", "[2001:db8::1]:5140", "failed"] and \
        lines[2].split()[3:] == ["2h", "2.0K", "main", "192.0.2.1:5140", "new"] and \
        lines[3].split()[5:] == ["labels", "unix:12", "hold"] and \
        lines[4] == "-- 2.0K in 3 messages, 1 on hold, 1 failed."
    return not good and repr((empty, done))


def check_json_has_all_of_it(scratch):
    spool = Spool(scratch)
    id_ = spool.add(100, data=b"12345")
    found = spool.listed()
    good = len(found) == 1 and found[0]["id"] == id_ and found[0]["size"] == 5 and \
        99 < found[0]["age"] < 160 and found[0]["listener"] == "main" and \
        found[0]["peer"] == "192.0.2.1:5140" and found[0]["state"] == "new" and \
        found[0]["spool"] == spool.path and found[0]["file"] == id_ + ".main.192.0.2.1-5140" and \
        found[0]["time"].endswith("Z")
    return not good and repr(found)


def check_selections(scratch):
    spool = Spool(scratch, "hold", "done")
    a, b, c = spool.add(10, number=1), spool.add(4000, "labels", "192.0.2.9-1", number=2), \
        spool.add(9 * DAY, "lab-2", "2001:db8::7-9", number=3)
    d, e = spool.add(50, state="failed"), spool.add(60, state="done")

    def ids(*arguments):
        return sorted(message["id"] for message in spool.listed(*arguments))

    for arguments, expected in (
            ([], [a, b, c, d]), (["--state", "all"], [a, b, c, d, e]), (["--state", "done"], [e]),
            (["--state", "new", "--state", "done"], [a, b, c, e]), (["--older", "1h"], [b, c]),
            (["--older", "1h", "--newer", "1d"], [b]), (["--newer", "30s"], [a]),
            (["--listener", "lab*"], [b, c]), (["--listener", "lab"], []),
            (["--peer", "192.0.2.9"], [b]), (["--peer", "192.0.2.9:1"], [b]),
            (["--peer", "192.0.2.*", "--state", "new"], [a, b]), (["--peer", "2001:db8::7"], [c]),
            (["--peer", "[2001:db8::7]:9"], [c]), (["*.labels.*"], [b]), ([a], [a]),
            ([a.lower()], [a]), ([c[:10]], [c]), ([a, b], [a, b]), (["*", "--older", "1d"], [c]),
            ([a + ".main.192.0.2.1-5140"], [a])):
        if ids(*arguments) != sorted(expected):
            return "%r: %r" % (arguments, ids(*arguments))
    wrong = [spool.queue("show", "01"), spool.queue("delete", "0"), spool.queue("show", "ZZZ"),
             spool.queue("hold", d), spool.queue("delete", a, "ZZZ"), spool.queue("delete"),
             spool.queue("expire"), spool.queue("expire", "ALL"), spool.queue("--state", "odd"),
             spool.queue("hold", "--state", "done"), spool.queue("hold", "--to-failed", "ALL"),
             spool.queue("list", "--nonsense"), spool.queue("remove", "ALL"), spool.queue("ALL", "show"),
             spool.queue("--older", "soon"), spool.queue("--newer", "")]
    codes = [done.code for done in wrong]
    if codes != [64, 64, 66, 66, 66, 64, 64, 64, 64, 64, 64, 64, 64, 66, 64, 64]:
        return "%r %r" % (codes, wrong)
    # What a script says whose variable is empty, or 0, is no message at all.
    only = Spool(os.path.join(scratch, "only"))
    only.add(10)
    kit.write(os.path.join(only.path, "new"), "foreign", b"1")
    done = [only.queue("delete", ""), only.queue("delete", "*.x", ""), only.queue("show", ""),
            only.queue("delete", "--newer", "0", "--state", "new"),
            only.queue("delete", "--older", "0s", "--state", "new"),
            only.queue("delete", "--listener", "")]
    if [one.code for one in done] != [64] * 5 + [0] or len(os.listdir(os.path.join(only.path, "new"))) != 2:
        return repr(done)
    # What there was of it was done.
    return ids("--state", "all") != sorted([b, c, d, e]) and repr(ids("--state", "all"))


def check_hold_release_requeue_delete_expire(scratch):
    spool = Spool(scratch, "done")
    a, b, c = [spool.add(age, number=age) for age in (10, 20, 3 * DAY)]
    steps = [spool.queue("hold", a)]
    at = [spool.ids("hold"), spool.ids("new")]
    steps += [spool.queue("hold", "ALL"), spool.queue("release", "--newer", "15s")]
    at += [spool.ids("new")]
    steps += [spool.queue("release", "ALL"), spool.queue("expire", "--older", "1d", "--to-failed")]
    at += [spool.ids("failed"), spool.ids("hold")]
    steps += [spool.queue("requeue", c), spool.queue("expire", "--older", "1d", "-n")]
    at += [spool.ids("new")]
    steps += [spool.queue("hold", a), spool.queue("expire", "--older", "1s"), spool.queue(
        "delete", "-q", "ALL")]
    at += [spool.ids("new"), spool.ids("hold")]
    expected = [[a], sorted([b, c]), [a], [c], [], sorted([a, b, c]), [], []]
    good = at == expected and not any(step.code or step.err for step in steps) and \
        steps[0].out == b"1 message put on hold\n" and steps[-1].out == b"" and \
        oct(os.stat(os.path.join(scratch, "hold")).st_mode) == \
        oct(os.stat(os.path.join(scratch, "new")).st_mode)
    return not good and repr((at, steps))


def check_what_root_makes_is_the_daemons(scratch):
    """A state's directory has the owner of new/; an owner without a name is a number."""
    spool = Spool(scratch)
    a = spool.add(10, data=b"")
    if os.geteuid() != 0:
        return None  # only root can give away
    for path in (os.path.join(scratch, "new"), os.path.join(scratch, "new", os.listdir(scratch + "/new")[0])):
        os.chown(path, 4242424, 4242425)
    show, held = spool.queue("show", a), spool.queue("hold", a)
    made = os.stat(os.path.join(scratch, "hold"))
    good = held.code == 0 and (made.st_uid, made.st_gid) == (4242424, 4242425) and \
        b"owner     4242424, mode" in show.out and show.out.endswith(b"\n")
    return not good and repr((show, held, made))


def check_show_and_cat(scratch):
    spool = Spool(scratch)
    data = b"one\x1b[2J\n" + bytes(range(256)) * 300
    a, b = spool.add(20, data=data), spool.add(10, data=b"two", number=1)
    show, cat = spool.queue("show", a), spool.queue("cat", a, b)
    if show.code or cat.code or cat.out != data + b"two" or b"one\\x1B[2J" not in show.out or \
            b"\x1b" in show.out or b"192.0.2.1:5140" not in show.out:
        return repr((show, cat.code, len(cat.out)))
    for raw in ([], ["--raw"]):
        code, seen = on_terminal([kit.tool(), "queue", "-d", scratch, "cat", a] + raw)
        if code or (b"\x1b[2J" in seen) != bool(raw):
            return "on a terminal: %r" % seen[:100]
    return None


def on_terminal(command, answer=None):
    pid, master = pty.fork()
    if pid == 0:
        os.execv(command[0], command)
    if answer is not None:
        os.write(master, answer)
    seen = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen


def check_deleting_asks_on_a_terminal(scratch):
    spool = Spool(scratch)
    ids = [spool.add(10), spool.add(9, number=1)]
    command = [kit.tool(), "queue", "-d", scratch, "delete", "ALL"]
    code, seen = on_terminal(command, b"n\n")
    if code or b"Delete 2 messages?" not in seen or spool.ids("new") != sorted(ids):
        return "n: %r" % seen
    code, seen = on_terminal(command, b"y\n")
    if code or spool.ids("new"):
        return "y: %r" % seen
    spool.add(10)
    code, seen = on_terminal(command + ["-f"])
    return (code or b"?" in seen or spool.ids("new")) and "-f: %r" % seen


def check_links_and_odd_files_are_left_alone(scratch):
    outside = os.path.join(scratch, "outside")
    os.makedirs(outside)
    secret = kit.write(outside, "secret", b"secret")
    spool = Spool(os.path.join(scratch, "spool"))
    new = os.path.join(spool.path, "new")
    link = ulid(10) + ".main.unix"
    os.symlink(secret, os.path.join(new, link))
    os.mkdir(os.path.join(new, ulid(11) + ".main.unix"))
    os.mkfifo(os.path.join(new, ulid(12) + ".main.unix"))
    kit.write(new, ".hidden", b"1")
    steps = [spool.queue("cat", "*"), spool.queue("hold", "ALL"), spool.queue("delete", "ALL")]
    if any(step.code or b"secret" in step.out for step in steps) or len(os.listdir(new)) != 4 or \
            "no regular file" not in steps[0].err:
        return repr(steps)
    # A state that is a link leads nowhere, neither does a pattern.
    os.symlink(outside, os.path.join(spool.path, "hold"))
    done = [spool.queue(), spool.queue("cat", "../../outside/secret"),
            spool.queue("hold", "ALL")]
    return (any(step.code == 0 for step in done) or not os.path.exists(secret)) and repr(done)


def check_hostile_names_are_harmless(scratch):
    spool = Spool(scratch)
    for name in ("\x1b[2J\x07", "a\nb", "%s%n%n", "x" * 250, ulid(5) + ".\x1b]0;t\x07.peer-\x1b[1m"):
        kit.write(os.path.join(scratch, "new"), name, b"1")
    table, objects, show = spool.queue(), spool.queue("--json"), spool.queue("show", "*")
    parsed = [json.loads(line) for line in objects.out.splitlines()]
    for out in (table, objects, show):
        if out.code or b"\x1b" in out.out or b"\x07" in out.out:
            return repr(out)
    if len(parsed) != 5 or len(table.out.splitlines()) != 7:
        return repr((parsed, table))
    done = spool.queue("delete", "a\nb", "x" * 250)
    return (done.code or len(os.listdir(os.path.join(scratch, "new"))) != 3) and repr(done)


def check_never_over_another_file(scratch):
    spool = Spool(scratch, "hold")
    id_ = spool.add(10, data=b"new")
    spool.add(10, data=b"held", state="hold")
    name = os.listdir(os.path.join(scratch, "new"))[0]
    os.rename(os.path.join(scratch, "hold", os.listdir(os.path.join(scratch, "hold"))[0]),
              os.path.join(scratch, "hold", name))
    done = spool.queue("hold", "--state", "new", id_)
    with open(os.path.join(scratch, "hold", name), "rb") as file:
        kept = file.read()
    return (done.code != 74 or kept != b"held" or len(spool.ids("new")) != 1) and repr(done)


def check_finds_spools_by_configuration(scratch):
    spools = [Spool(os.path.join(scratch, name)) for name in ("one", "two")]
    ids = [spool.add(10 + n, number=n) for n, spool in enumerate(spools)]
    config = kit.write(scratch, "cistern.conf", (
        'deliver = ["a", "b"]; sinks = { a = { type = "spool"; directory = "%s"; }; '
        'b = { type = "spool"; directory = "%s"; }; };' % tuple(s.path for s in spools)).encode())
    none = kit.write(scratch, "none.conf", b"port = 1;")
    bad = kit.write(scratch, "bad.conf", b"prot = 1;")
    done = kit.run("queue", "-c", config)
    codes = [kit.run("queue", "-c", path).code for path in
             (none, bad, os.path.join(scratch, "nowhere"))]
    other = [kit.run("queue", "-d", os.path.join(scratch, "nowhere")).code,
             kit.run("queue", "-d", scratch).code]
    good = done.code == 0 and all(id_.encode() in done.out for id_ in ids) and \
        b"2 messages" in done.out and spools[1].path.encode() + b":\n" in done.out and \
        codes[:2] == [78, 78] and codes[2] != 0 and other == [66, 66]
    return not good and repr((done, codes, other))


def check_without_permission_it_says_what_to_do(scratch):
    if os.geteuid() != 0:
        return None  # only root can become somebody else
    spool = Spool(os.path.join(scratch, "spool"))
    spool.add(10)
    os.chmod(scratch, 0o755)
    os.chmod(os.path.join(spool.path, "new"), 0o755)
    for mode, action in ((0o755, "hold"), (0o755, "delete"), (0o700, "list")):
        os.chmod(spool.path, mode)
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                               kit.tool(), "queue", "-d", spool.path, action, "ALL"], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 77 or b"as root" not in done.stderr:
            return "%s: %r" % (action, done)
    return len(spool.ids("new")) != 1 and "it was touched"


def check_beside_a_daemon_and_consumers(scratch):
    """Each message ends up with one consumer, whatever is held and released meanwhile."""
    daemon = kit.Daemon(scratch, 'framing = "line"; reply = "receipt";')
    work = os.path.join(scratch, "spool", "work")
    os.makedirs(work)
    count, stop, problems = 1500, threading.Event(), []
    spool = os.path.join(scratch, "spool")

    def consume(number):
        while not stop.is_set():
            for name in sorted(os.listdir(daemon.new)):
                try:
                    os.rename(os.path.join(daemon.new, name),
                              os.path.join(work, "%s.%d" % (name, number)))
                except FileNotFoundError:
                    pass
            time.sleep(0.001)

    def meddle():
        while not stop.is_set():
            for command in ("hold", "release", "list"):
                done = kit.run("queue", "-d", spool, command, "*")
                if done.code or done.err:
                    problems.append(done)

    threads = [threading.Thread(target=consume, args=(n,)) for n in range(2)] + \
        [threading.Thread(target=meddle) for _ in range(2)]
    for thread in threads:
        thread.start()
    data = b"".join(b"%d\n" % n for n in range(count))
    done = kit.send("-f", "line", "-r", "-i", daemon.at(), data=data)
    stop.set()
    for thread in threads:
        thread.join()
    released = kit.run("queue", "-d", spool, "release", "ALL")
    found = {}
    for path in (work, daemon.new):
        for name in os.listdir(path):
            with open(os.path.join(path, name), "rb") as file:
                found.setdefault(name[:26], []).append(file.read())
    code = daemon.stop()
    good = done.code == 0 and not problems and code == 0 and released.code == 0 and \
        sorted(found) == sorted(done.out.decode().split()) and \
        sorted(int(data[0]) for data in found.values()) == list(range(count)) and \
        all(len(data) == 1 for data in found.values())
    return not good and repr((done.code, problems[:3], len(found), released))


def main():
    tests = kit.Tests()
    with kit.storage.Scratch() as directory:
        module = sys.modules[__name__]
        for name in [name for name in vars(module) if name.startswith("check_")]:
            def alone(function=vars(module)[name], path=os.path.join(directory, name[6:26])):
                os.makedirs(path)
                return function(path)

            setattr(module, name, alone)
        tests.all(module)
        if tests.failed:
            raise SystemExit(tests.end())
    return tests.end()


if __name__ == "__main__":
    sys.exit(main())
