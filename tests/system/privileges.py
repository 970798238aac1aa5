#!/usr/bin/env python3
"""privileges: from root, who binds a port below 1024, to a user without any right, for
good and in every thread; and what belongs to whom then.  Most of it takes root.
"""

import os
import shutil
import socket
import stat
import subprocess
import sys

from manager import Service, send, wait_for
from storage import Scratch, Tap, program, skip_all

USER, GROUP = 65534, 65534
NOTHING = "0000000000000000"

CONFIG = """
address = "127.0.0.1"; port = {1}; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "{0}/made/spill"; pid_file = "{0}/pid"; deliver = [ "s" ];
sinks = {{ s = {{ type = "spool"; directory = "{0}/users/spool"; min_free = 0; }}; }};
{2}
"""
BECOME = 'user = "%d"; group = "%d";' % (USER, GROUP)


def low_port():
    """One below 1024 that nobody has."""
    for port in range(1023, 0, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port below 1024 is free")


def unprivileged_from():
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 1024


def unleaked():
    """The leak check of a sanitizer traces the process, whose memory is nobody's to read."""
    options = os.environ.get("ASAN_OPTIONS", "")
    return {"ASAN_OPTIONS": (options + ":" if options else "") + "detect_leaks=0"}


def start(directory, config, **more):
    return Service(directory, config, env=unleaked(), **more)


def setting(scratch, name):
    """A directory of root's with one of the user's in it, and the program."""
    directory = os.path.join(scratch, name)
    os.makedirs(os.path.join(directory, "users"))
    os.mkdir(os.path.join(directory, "made"))
    os.chown(os.path.join(directory, "users"), USER, GROUP)
    os.chmod(directory, 0o755)
    return directory


def netstring(data):
    return b"%d:%s," % (len(data), data)


def from_root(tap, scratch):
    directory = setting(scratch, "from_root")
    port = low_port()
    log = os.path.join(directory, "users", "log")
    daemon = start(directory, CONFIG.format(directory, port, BECOME + 'log = { target = "%s"; };'
                                            % log))
    try:
        wait_for("ready", lambda: os.path.exists(log) and b" ready: " in open(log, "rb").read() or
                 daemon.process.poll() is not None)
        if daemon.process.poll() is not None:
            tap.note(daemon.log())
        threads = daemon.task_status()
        wrong = [task for task in threads if
                 task["Uid"].split() != [str(USER)] * 4 or
                 task["Gid"].split() != [str(GROUP)] * 4 or
                 task["Groups"].split() != [str(GROUP)] or task["NoNewPrivs"] != "1" or
                 any(task[name] != NOTHING for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"))]
        one = threads[0]
        tap.note("port %d; /proc/%d/status: " % (port, daemon.process.pid) + "; ".join(
            "%s: %s" % (name, " ".join(one[name].split())) for name in (
                "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs")))
        tap.result(len(threads) >= 4 and not wrong,
                   "none of %d threads has a right that an ordinary user has not" % len(threads))
        if wrong:
            tap.note(repr(wrong[0]))
        receipts = send(("127.0.0.1", port), netstring(b"x") + netstring(bytes(5 << 20)))
        tap.result([line.split()[0] for line in receipts.splitlines()] == ["OK", "OK"],
                   "messages are accepted on port %d, large ones too" % port)
        new = os.path.join(directory, "users", "spool", "new")
        owners = {os.stat(os.path.join(new, name)).st_uid for name in os.listdir(new)}
        spill = os.stat(os.path.join(directory, "made", "spill"))
        tap.result(owners == {USER} and os.stat(log).st_uid == USER and
                   (spill.st_uid, spill.st_gid, stat.S_IMODE(spill.st_mode)) ==
                   (USER, GROUP, 0o700),
                   "what it stores, its log and the directory that root made are that user's")
        os.rename(log, log + ".1")
        daemon.signal(10)
        wait_for("the log", lambda: os.path.exists(log) and b"reopened" in open(log, "rb").read())
        tap.result(os.stat(log).st_uid == USER, "the log is opened anew by that user")
        os.chmod(daemon.config, 0o600)
        daemon.signal(1)
        wait_for("a reload", lambda: b"reload-refused" in open(log, "rb").read())
        tap.result(b"for a reload `user`, too" in open(log, "rb").read(),
                   "a reload of a file that only root can read is refused, and the log says why")
        pid_file = os.path.join(directory, "pid")
        with open(pid_file, encoding="ascii") as file:
            tap.result(int(file.read()) == daemon.process.pid, "the pid file is there")
        tap.result(daemon.stop() == 0 and os.path.getsize(pid_file) == 0,
                   "and empty afterwards, in a directory that is root's")
    finally:
        daemon.end()


def traps(tap, scratch):
    """What the user could have put where root makes something."""
    directory = setting(scratch, "traps")
    users = os.path.join(directory, "users")
    victim = os.path.join(directory, "victim")
    with open(victim, "w", encoding="ascii") as file:
        file.write("root's\n")
    os.symlink(victim, os.path.join(users, "link"))
    os.symlink(directory, os.path.join(users, "here"))
    config = CONFIG.format(directory, 0, BECOME + "%s")
    cases = (
        ("a pid file that is a link", config.replace(directory + "/pid", users + "/link") % "",
         73),
        ("a pid file behind a link",
         config.replace(directory + "/pid", users + "/here/new") % "", 77),
        ("a spill directory behind a link",
         config.replace("made/spill", "users/here/new") % "", 73),
        ("a log that is a link", config % ('log = { target = "%s/link"; };' % users), 77),
        ("a log where that user may not make one",
         config % ('log = { target = "%s/log"; };' % directory), 77),
    )
    for what, text, code in cases:
        daemon = start(directory, text)
        got = daemon.wait()
        said = daemon.log().strip()
        with open(victim, encoding="ascii") as file:
            tap.result(got == code and file.read() == "root's\n" and
                       os.stat(victim).st_uid == 0 and
                       not os.path.exists(os.path.join(directory, "new")),
                       "%s: %d" % (what, got))
        tap.note(said.splitlines()[-1] if said else "")


def staying_root(tap, scratch):
    directory = setting(scratch, "staying_root")
    daemon = start(directory, CONFIG.format(directory, 0, "")).ready()
    try:
        tap.result(len(daemon.events("running-as-root")) == 1 and
                   all(task["NoNewPrivs"] == "1" for task in daemon.task_status()),
                   "who stays root is warned, and nothing it runs gains privileges")
        pid_file = os.path.join(directory, "pid")
        tap.result(daemon.stop() == 0 and not os.path.exists(pid_file), "its pid file is removed")
    finally:
        daemon.end()


def ordinary(tap, scratch):
    """Started by an ordinary user, as systemd does it."""
    directory = setting(scratch, "ordinary")
    copy = shutil.copy(program(), directory)
    users = os.path.join(directory, "users")
    port = low_port()

    def config(where, more):
        return CONFIG.format(directory, where, more).replace(
            directory + "/pid", users + "/pid").replace("made/spill", "users/spill")

    become = ("setpriv", "--reuid=%d" % USER, "--regid=%d" % GROUP, "--clear-groups")
    daemon = start(directory, config(0, BECOME), path=copy, wrapper=become).ready()
    try:
        tap.result(not daemon.events("running-as-root"), "who is that user already, starts")
        tap.result(daemon.stop() == 0 and not os.path.exists(users + "/pid"), "and stops")
    finally:
        daemon.end()
    for other in ('user = "54321"; group = "%d";' % GROUP, 'user = "%d"; group = "54321";' % USER):
        daemon = start(directory, config(0, other), path=copy, wrapper=become)
        tap.result(daemon.wait() == 77 and "only root can become" in daemon.log(),
                   "who is somebody else: 77, %s" % other)
    if unprivileged_from() <= port:
        tap.skip("ports below 1024", "anybody may have them here")
        return
    daemon = start(directory, config(port, BECOME), path=copy, wrapper=become)
    tap.result(daemon.wait() == 77 and "CAP_NET_BIND_SERVICE" in daemon.log(),
               "without the capability, port %d: 77 and what it takes" % port)
    capable = ("--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service")
    daemon = start(directory, config(port, BECOME), path=copy, wrapper=become + capable).ready()
    try:
        answer = send(("127.0.0.1", port), netstring(b"x"))
        tap.result(answer.startswith("OK ") and all(
            int(task["CapEff"], 16) == 1 << 10 and task["CapAmb"] == NOTHING
            for task in daemon.task_status()),
            "with it, port %d is served, and it is not passed on" % port)
        tap.result(daemon.stop() == 0, "and stops")
    finally:
        daemon.end()


def unknown(tap, scratch):
    """Found out by -t already."""
    path = os.path.join(scratch, "unknown.conf")
    for text, line in (('port = 0;\nuser = "no-such-user-here";', 2),
                       ('group = "root";', 1), ('user = "root";', 1),
                       ('user = "%d";\ngroup = "no-such-group-here";' % USER, 1)):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        test = subprocess.run([program(), "-t", "-c", path], capture_output=True, text=True)
        tap.result(test.returncode == 78 and "%s:%d: user " % (path, line) in test.stderr,
                   "-t: " + test.stderr.strip()[len(path) + 1:])


def main():
    if program() is None:
        print("Bail out! no cisternd")
        return 1
    tap = Tap()
    os.umask(0o022)  # what is root's here is root's alone
    with Scratch() as scratch:
        os.chmod(scratch, 0o755)
        unknown(tap, scratch)
        if os.geteuid() != 0:
            skip_all("not root")
        for test in (from_root, traps, staying_root, ordinary):
            test(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
