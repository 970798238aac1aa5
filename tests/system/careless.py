#!/usr/bin/env python3
"""careless: what a careless hand does to a spool while cisternd hands on what is in it, and
what one message, one file or one reload must not do to all others.
"""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time

from forward import Forward, TOOL, command_sink, file_sink, ids, publish, run_all  # first: crash/ has one, too
from commands import SANITIZED
from manager import connect, wait_for
from privileges import unleaked
from storage import program

OLD = "01AN4Z07BY79KA1307SR9"  # of 2016; five digits more make an id
NOBODY = 65534


def queue(scratch, *words):
    subprocess.run([TOOL, "queue", "-d", scratch + "/spool", "--quiet", *words], check=True)


def cleared(tap, scratch):
    """failed/ and done/ are cleared away, or moved to make room."""
    spool = os.path.join(scratch, "spool")
    with Forward(scratch, command_sink("read m; test $m = good", scratch), "keep = true;") as daemon:
        daemon.ask(b"good", b"bad")
        daemon.wait_files("done", 1)
        daemon.wait_files("failed", 1)
        shutil.rmtree(spool + "/failed")
        shutil.rmtree(spool + "/done")
        daemon.ask(b"good", b"bad")
        daemon.wait_files("new", 0)
        tap.result(len(daemon.files("failed")) == 1 and len(daemon.files("done")) == 1,
                   "removed, they are made again")
        os.rename(spool + "/done", spool + "/done.1")
        os.mkdir(spool + "/done")
        wait_for("another done/", lambda: not is_open(daemon, spool + "/done.1"))
        daemon.ask(b"good")
        daemon.wait_files("done", 1)
        tap.result(len(os.listdir(spool + "/done.1")) == 1, "moved away and made again, it is the new one")
        tap.result(not daemon.events("forward-disk"), "no trouble of the disk")
        tap.result(daemon.stop() == 0, "it stops in order")


def is_open(daemon, path):
    fds = "/proc/%d/fd" % daemon.process.pid
    try:
        return path in [os.readlink(os.path.join(fds, fd)) for fd in os.listdir(fds)]
    except FileNotFoundError:
        return True  # one was closed meanwhile: look again


def moved(tap, scratch):
    """The spool is moved away and made again."""
    spool = os.path.join(scratch, "spool")
    with Forward(scratch, file_sink(scratch)) as daemon:
        daemon.ask(b"before")
        daemon.wait_records(1)
        daemon.wait_files("new", 0)
        os.rename(spool, scratch + "/old")
        for name in ("", "/tmp", "/failed", "/new"):
            os.mkdir(spool + name)
        wait_for("another new/", lambda: not is_open(daemon, scratch + "/old/failed"))
        daemon.ask(b"1", b"2", b"3")
        daemon.wait_records(4)
        daemon.wait_files("new", 0)
        tap.result([record["data"] for record in daemon.records()] == ["before", "1", "2", "3"] and
                   not os.listdir(scratch + "/old/new"),
                   "what comes goes to the directory that has the name", str(daemon.records()))
        tap.result(daemon.stop() == 0, "it stops in order")


def held(tap, scratch):
    """hold and delete reach what waits in memory."""
    got = os.path.join(scratch, "got")
    with Forward(scratch, command_sink('read m; echo $m >>$1/got; while ! test -e $1/go; do sleep .05; done',
                                       scratch, more="max_processes = 1;")) as daemon:
        names = ids(daemon.ask(*[b"%d" % n for n in range(20)]))
        wait_for("the first", lambda: os.path.exists(got))
        queue(scratch, "hold", *names[10:15])
        queue(scratch, "delete", "--force", *names[15:])
        open(scratch + "/go", "w", encoding="ascii").close()
        daemon.wait_files("new", 0)
        queue(scratch, "release", "ALL")
        wait_for("what was released", lambda: len(open(got, encoding="ascii").read().split()) >= 15)
        daemon.wait_files("new", 0)
        with open(got, encoding="ascii") as file:
            told = file.read().split()
        tap.result(told == [str(n) for n in range(15)],
                   "what is on hold waits, what is deleted is gone", str(told))
        tap.result(daemon.stop() == 0, "it stops in order")


def unreadable(tap, scratch):
    """More files that cannot be read than may be put aside: others go on."""
    new = scratch + "/spool/new"
    os.makedirs(new)
    for n in range(5000):
        os.close(os.open("%s/%s%05d.copied.192.0.2.1-5" % (new, OLD, n), os.O_CREAT | os.O_WRONLY, 0))
    deliver = '"s"'
    if os.geteuid() == 0:
        for path in (scratch, scratch + "/spool", new):
            os.chown(path, NOBODY, NOBODY)
        deliver += '; user = "nobody"'
    with Forward(scratch, file_sink(scratch), deliver=deliver, env=unleaked()) as daemon:
        daemon.ask(b"readable")
        tap.result(daemon.wait_records(1)[0]["data"] == "readable", "5,000 files that cannot be read "
                   "hold up nobody")
        tap.result(len(daemon.events("forward-unreadable")) == 1 and
                   not daemon.events("forward-stopped"), "they are said once")
        for n in range(5000):
            os.chmod("%s/%s%05d.copied.192.0.2.1-5" % (new, OLD, n), 0o644)
        daemon.wait_records(5001)
        daemon.wait_files("new", 0)
        tap.result(True, "and are handed on once they can be")
        tap.result(daemon.stop() == 0, "it stops in order")


def poison(tap, scratch):
    """A message that brings the target into trouble each time does not hold up others."""
    disk = scratch + "/d"
    os.mkdir(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False,
                      capture_output=True).returncode != 0:
        tap.result(True, "a message too large for a disk # SKIP cannot mount a tmpfs")
        return
    daemon = Forward(scratch, 'f = { type = "file"; path = "%s/out"; format = "line"; };' % disk)
    try:
        daemon.ready()
        daemon.ask(b"x" * 100000)
        daemon.wait_event("forward-failing")
        daemon.ask(*[b"small%d" % n for n in range(20)])
        daemon.wait_files("new", 1)
        with open(disk + "/out", encoding="ascii") as file:
            tap.result(sorted(file.read().split()) == sorted("small%d" % n for n in range(20)),
                       "what the disk has room for goes on")
        said = len(daemon.events("forward-failing"))
        tap.result(said < 15, "said %d times" % said)
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        daemon.wait_files("new", 0)
        tap.result(os.path.getsize(disk + "/out") > 100000, "and the large one when it fits")
        tap.result(daemon.stop() == 0, "it stops in order")
    finally:
        daemon.end()
        subprocess.run(["umount", disk], check=True)


def failing(tap, scratch):
    """Forty messages that fail for now, each time, are no reason not to try others."""
    with Forward(scratch, command_sink('read m; test $m != bad || exit 75; echo $m >>$1/got', scratch,
                                       more="max_processes = 2;")) as daemon:
        daemon.ask(*[b"bad"] * 40)
        daemon.wait_event("forward-failing")
        daemon.ask(*[b"%d" % n for n in range(50)])
        daemon.wait_files("new", 40)
        with open(scratch + "/got", encoding="ascii") as file:
            tap.result(sorted(file.read().split()) == sorted(str(n) for n in range(50)),
                       "forty that fail again and again hold up nobody")
        tap.result(daemon.stop() == 0, "it stops in order")


def foreign(tap, scratch):
    """Names that no spool gives: an editor's copy, one that would break a header."""
    with Forward(scratch, file_sink(scratch)) as daemon:
        names = [OLD + tail for tail in ("00001.main.192.0.2.1-5~", "00002.ma in.192.0.2.1-5",
                                         "00003.main\r\nX: y.192.0.2.1-5", "00004.main.#192.0.2.1",
                                         "00005.main..", "00006..x", "00007.main.\u00e4")]
        for name in names[:4] + names[5:]:
            publish(scratch, name, b"foreign")
        good = OLD + "00008.m-a_in.2001:db8::1%2-9"
        publish(scratch, good, b"ours")
        daemon.wait_records(1)
        daemon.ask(b"last")
        daemon.wait_records(2)
        daemon.wait_files("new", 6)
        tap.result([record["data"] for record in daemon.records()] == ["ours", "last"],
                   "they are left alone", str(daemon.records()))
        # An attribute that somebody has written: a name that is none counts for nothing.
        queue(scratch, "delete", "--force", "ALL")
        path = os.path.join(scratch, "spool", "new", ".x")
        with open(path, "wb"):
            pass
        try:
            os.setxattr(path, "user.cistern", b"time=1 listener=a\r\nX:y ended=reset")
        except OSError:
            tap.result(True, "an attribute with a line in it # SKIP no attributes there")
        else:
            os.rename(path, os.path.join(os.path.dirname(path), good))
            record = daemon.wait_records(3)[2]
            tap.result(record["listener"] == "m-a_in" and record["ended"] == "reset",
                       "an attribute with a line in it", str(record))
        tap.result(daemon.stop() == 0, "it stops in order")


def aliases(tap, scratch):
    """Two spools in one directory, under two names."""
    os.makedirs(scratch + "/there")
    os.symlink("there", scratch + "/link")
    for one, other, wrong in (("there", "there/", True), ("there", "link", True),
                              ("nowhere", "./nowhere/.//", True), ("nowhere", "nowhere2", False),
                              ("there", "nowhere", False)):
        with open(scratch + "/conf", "w", encoding="ascii") as file:
            file.write('sinks = { a = { type = "spool"; directory = "%s/%s"; forward = "console"; };\n'
                       'b = { type = "spool"; directory = "%s/%s"; }; };\n' %
                       (scratch, one, scratch, other))
        checked = subprocess.run([program(), "-t", "-c", scratch + "/conf"], check=False,
                                 capture_output=True, text=True)
        found = "a directory of its own" in checked.stdout + checked.stderr
        tap.result(found == wrong and checked.returncode == (78 if wrong else 0),
                   "%s and %s are %s" % (one, other, "one" if wrong else "two"))


def background(tap, scratch):
    """A spool that forwards to a console that is lost in the background."""
    master, slave = pty.openpty()
    with open(scratch + "/conf", "w", encoding="ascii") as file:
        file.write('port = 0; address = "127.0.0.1"; deliver = "s"; spill_directory = "%s";\n'
                   'sinks = { s = { type = "spool"; directory = "%s/spool"; forward = "console"; }; };\n'
                   'pid_file = "%s/pid";\n' % (scratch, scratch, scratch))
    started = subprocess.run([program(), "-d", "-c", scratch + "/conf"], check=False, stdout=slave,
                             stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    tap.result(started.returncode == 78 and "sink s delivers to the console" in started.stderr,
               "is refused: %d %s" % (started.returncode, started.stderr.strip()))
    if started.returncode == 0:
        with open(scratch + "/pid", encoding="ascii") as file:
            os.kill(int(file.read()), signal.SIGTERM)
    background_reload(tap, scratch, slave)
    os.close(master)
    os.close(slave)


def background_reload(tap, scratch, terminal):
    """Nor does a reload lose messages there, a listener's or a spool's."""
    def write(deliver, forward):
        with open(scratch + "/conf", "w", encoding="ascii") as file:
            file.write('port = 0; address = "127.0.0.1"; spill_directory = "%s"; pid_file = "%s/pid";\n'
                       'log = { target = "%s/log"; }; deliver = "%s"; sinks = { %s s = { type = "spool"; '
                       'directory = "%s/spool"; min_free = 0; forward = "%s"; }; };\n' % (
                           scratch, scratch, scratch, deliver, file_sink(scratch), scratch, forward))

    def refused():
        with open(scratch + "/log", encoding="utf-8") as log:
            return [line for line in log if "which is lost in the background (-d)" in line]

    write("f", "f")
    started = subprocess.run([program(), "-d", "-c", scratch + "/conf"], check=False, stdout=terminal,
                             stdin=subprocess.DEVNULL)
    tap.result(started.returncode == 0, "a daemon that loses nothing starts")
    with open(scratch + "/pid", encoding="ascii") as file:
        number = int(file.read())
    for count, places in enumerate((("console", "f"), ("f", "console")), 1):
        write(*places)
        os.kill(number, signal.SIGHUP)
        wait_for("a refusal", lambda n=count: len(refused()) == n)
    lines = refused()
    tap.result("listener main delivers" in lines[0] and "sink s delivers" in lines[1],
               "and takes no file that does: " + lines[1].strip())
    os.kill(number, signal.SIGTERM)
    wait_for("its end", lambda: not os.path.exists(scratch + "/pid"))


def memory(tap, scratch):
    """Each reload leaves a spool behind for as long as a connection lasts, but not what that
    knew of 20,000 files."""
    new = scratch + "/spool/new"
    os.makedirs(new)
    for n in range(20000):
        os.close(os.open("%s/%s%05d.waits.192.0.2.1-5" % (new, OLD, n), os.O_CREAT | os.O_WRONLY, 0o600))
    with Forward(scratch, command_sink("exit 75", scratch)) as daemon:
        clients, sizes = [], []
        for n in range(8):
            daemon.wait_event("forward-failing")
            wait_for("it fails again", lambda n=n: len(daemon.events("forward-failing")) == n + 1)
            clients.append(connect(daemon.address()))
            clients[-1].sendall(b"x\n")
            clients[-1].recv(100)
            sizes.append(resident(daemon))
            daemon.rewrite('retry_max = "10%dms"' % (n % 2), 'retry_max = "10%dms"' % ((n + 1) % 2))
            daemon.reload()
        grown = sizes[-1] - sizes[1]
        tap.result(SANITIZED or grown < 10000, "six reloads cost %d KiB%s" % (
            grown, " # SKIP a sanitizer keeps what was freed" if SANITIZED else ""))
        for client in clients:
            client.close()
        tap.result(daemon.stop() == 0, "it stops in order")


def resident(daemon):
    with open("/proc/%d/statm" % daemon.process.pid, encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def lasting(tap, scratch):
    """A reload while a program is at work: what was handed on is waited for, and said to be."""
    with Forward(scratch, command_sink('echo >>$1/began; while ! test -e $1/go; do sleep .05; done',
                                       scratch)) as daemon:
        daemon.ask(b"1")
        wait_for("a program", lambda: os.path.exists(scratch + "/began"))
        daemon.rewrite('retry_max = "100ms"', 'retry_max = "101ms"')
        daemon.reload()
        line = daemon.wait_event("forward-waits")[0]
        tap.result("the configuration before" in line, "said: " + line)
        open(scratch + "/go", "w", encoding="ascii").close()
        daemon.wait_files("new", 0)
        time.sleep(0.1)
        tap.result(os.path.getsize(scratch + "/began") == 1, "and it was run once")
        tap.result(daemon.stop() == 0, "it stops in order")


if __name__ == "__main__":
    sys.exit(run_all((cleared, moved, held, unreadable, poison, failing, foreign, aliases, background,
                      memory, lasting)))
