#!/usr/bin/env python3
"""sandbox: cisternd under what its systemd unit allows, without systemd as init.

The directives are read from the unit and imitated with the kernel's own means, as far
as that goes; those that are not imitated are named in the output, and one that this
test has never heard of fails it.  Takes root, systemd-analyze (for the lists of system
calls) and libseccomp.
"""

import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys

from manager import Manager, wait_for
from storage import Scratch, Tap, skip_all

DEADLINE = 60.0
USER = 65534
UNIT = os.path.join(os.environ.get("GENERATED", "generated"), "systemd", "cisternd.service")

IMITATED = {
    "User", "Group", "UMask", "ReadWritePaths", "CapabilityBoundingSet", "AmbientCapabilities",
    "NoNewPrivileges", "ProtectSystem", "PrivateMounts", "PrivateUsers", "ProtectProc",
    "ProcSubset", "RestrictAddressFamilies", "RestrictNamespaces", "MemoryDenyWriteExecute",
    "SystemCallFilter", "SystemCallErrorNumber", "LimitNOFILE",
}
NOT_IMITATED = {
    "ProtectHome", "PrivateTmp", "PrivateDevices", "DevicePolicy", "ProtectHostname",
    "ProtectClock", "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs",
    "ProtectControlGroups", "RestrictRealtime", "RestrictSUIDSGID", "LockPersonality",
    "RemoveIPC", "KeyringMode", "SystemCallArchitectures",
}
NO_SANDBOX = {
    "Type", "ExecStart", "ExecReload", "WatchdogSec", "Restart", "RestartSec",
    "RestartPreventExitStatus", "TimeoutStopSec", "KillMode", "OOMPolicy", "StateDirectory",
    "StateDirectoryMode", "RuntimeDirectory", "LogsDirectory", "LogsDirectoryMode",
}

CONFIG = """
user = "65534"; group = "65534"; backlog = 1000000;
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "netstring";
spill_directory = "{0}/state"; pid_file = "{0}/state/pid"; shutdown_timeout = 20;
listeners = {{
	stored  = {{ deliver = [ "spool" ]; }};
	written = {{ deliver = [ "file", "console" ]; }};
	local   = {{ address = "unix:{0}/state/socket"; deliver = [ "spool", "file" ]; }};
	handed  = {{ deliver = [ "command" ]; }};
}};
sinks = {{
	spool = {{ type = "spool"; directory = "{0}/state/spool"; min_free = 0; }};
	file  = {{ type = "file"; path = "{0}/state/file"; format = "json"; }};
	command = {{ type = "command"; argv = [ "/bin/sh", "-c",
		"test $(wc -c) = $CISTERN_SIZE && test $(umask) = 0077 && test $(id -u) = 65534" ]; }};
}};
"""

libc = ctypes.CDLL(None, use_errno=True)


# ------------------------------------------------------------------- the unit


def read_unit(path):
    """Directives of [Service] with the values of all their lines."""
    found, section = {}, ""
    with open(path, encoding="utf-8") as unit:
        for line in unit:
            line = line.strip()
            if line.startswith("["):
                section = line
            elif "=" in line and line[0] not in "#;" and section == "[Service]":
                name, value = line.split("=", 1)
                found.setdefault(name, []).append(value)
    return found


def expand(names):
    """The system calls of a list with groups (@name) in it."""
    calls = set()
    for name in names:
        if not name.startswith("@"):
            calls.add(name)
            continue
        text = subprocess.run(["systemd-analyze", "syscall-filter", name], check=True,
                              capture_output=True, text=True).stdout
        lines = [line.strip() for line in text.splitlines()[1:]]
        calls |= expand(line for line in lines if line and not line.startswith("#"))
    return calls


def allowed_calls(lines):
    allowed = set()
    for line in lines:
        if line.startswith("~"):
            allowed -= expand(line[1:].split())
        else:
            allowed |= expand(line.split())
    return allowed | expand(["@default"])


# ---------------------------------------------------------------- the sandbox


class Comparison(ctypes.Structure):
    """scmp_arg_cmp of libseccomp"""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class MountAttributes(ctypes.Structure):
    """mount_attr of mount_setattr(2)"""

    _fields_ = [("set", ctypes.c_uint64), ("clear", ctypes.c_uint64),
                ("propagation", ctypes.c_uint64), ("userns", ctypes.c_uint64)]


def build_filter(unit):
    """SystemCallFilter, RestrictAddressFamilies and RestrictNamespaces, to be loaded."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    allow, refuse, equal = 0x7FFF0000, 0x00050000, 4
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(refuse | errno.EPERM)))
    families = [getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()]
    for name in sorted(allowed_calls(unit["SystemCallFilter"])):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0 or name in ("unshare", "setns"):
            continue
        if name == "clone3":  # its flags cannot be seen, so systemd says that there is none
            code = seccomp.seccomp_rule_add(context, refuse | errno.ENOSYS, number, 0)
        elif name == "socket":
            code = 0
            for family in families:
                only = Comparison(0, equal, family, 0)
                code = code or seccomp.seccomp_rule_add_array(
                    context, allow, number, 1, ctypes.byref(only))
        else:
            code = seccomp.seccomp_rule_add(context, allow, number, 0)
        if code != 0:
            raise OSError(-code, name)
    return lambda: check(seccomp.seccomp_load(context), "seccomp_load")


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def prctl(option, a=0, b=0):
    return libc.prctl(option, ctypes.c_ulong(a), ctypes.c_ulong(b), ctypes.c_ulong(0),
                      ctypes.c_ulong(0))


def set_mount(path, attributes, recursive):
    check(libc.syscall(442, -100, path.encode(), 0x8000 if recursive else 0,
                       ctypes.byref(attributes), ctypes.sizeof(attributes)), "mount_setattr")


def enter(writable, load_filter):
    """In the child, before the program: all that systemd would do.  From the change of
    the user on nothing can be imported: Python may lie where that user cannot look."""
    check(libc.unshare(0x00020000), "unshare(CLONE_NEWNS)")
    check(libc.mount(b"none", b"/", None, 0x44000, None), "mount private")
    check(libc.mount(writable.encode(), writable.encode(), None, 0x1000, None), "mount bind")
    set_mount("/", MountAttributes(set=1), True)
    set_mount(writable, MountAttributes(clear=1), False)
    check(libc.mount(b"proc", b"/proc", b"proc", 14, b"hidepid=invisible,subset=pid"),
          "mount proc")
    os.umask(0o027)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    prctl(4, 1)  # PR_SET_DUMPABLE: or /proc/self/uid_map would be root's
    check(libc.unshare(0x10000000), "unshare(CLONE_NEWUSER)")
    same = b"%d %d 1" % (USER, USER)
    for name, text in (("setgroups", b"deny"), ("uid_map", same), ("gid_map", same)):
        with open("/proc/self/" + name, "wb", buffering=0) as file:
            file.write(text)
    for capability in range(64):
        if prctl(24, capability) != 0:  # PR_CAPBSET_DROP, up to the last one there is
            break
    check(prctl(38, 1), "PR_SET_NO_NEW_PRIVS")
    prctl(65, 1)  # PR_SET_MDWE; kernels before 6.3 have none
    load_filter()


def require_namespaces(directory):
    """Skips all where this machine lets nobody make them, whatever the unit says."""
    child = os.fork()
    if child == 0:
        try:
            enter(directory, lambda: None)
        except OSError as error:
            os.write(2, b"# %s\n" % str(error).encode())
            os._exit(1)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        skip_all("namespaces cannot be made or mounted in here")


# ----------------------------------------------------------------- the daemon


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def port_of(log, listener):
    found = re.search(r"listener %s on 127\.0\.0\.1:(\d+)" % listener, log)
    return ("127.0.0.1", int(found.group(1)))


def send(address, messages):
    """All receipts for messages sent on one connection."""
    kind = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as client:
        client.settimeout(DEADLINE)
        client.connect(address)
        for message in messages:
            client.sendall(b"%d:%s," % (len(message), message))
        client.shutdown(socket.SHUT_WR)
        receipts = b""
        while chunk := client.recv(65536):
            receipts += chunk
    return receipts.decode().splitlines()


def sanitized(environment):
    """The leak check of a sanitizer traces the process, which the sandbox forbids."""
    options = environment.get("ASAN_OPTIONS", "")
    return dict(environment, ASAN_OPTIONS=(options + ":" if options else "") + "detect_leaks=0")


def run(tap, directory, unit):
    state = os.path.join(directory, "state")
    program = shutil.copy(os.environ.get("CISTERND", "./cisternd"), directory)
    config = os.path.join(directory, "cistern.conf")
    with open(config, "w", encoding="utf-8") as file:
        file.write(CONFIG.format(directory))
    os.mkdir(state)
    os.chown(state, USER, USER)
    os.chmod(directory, 0o755)
    require_namespaces(state)
    manager = Manager(directory)
    load_filter = build_filter(unit)
    limit = int(unit["LimitNOFILE"][0])

    def sandbox():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            enter(state, load_filter)
        except OSError as error:  # subprocess does not say which one it was
            os.write(2, b"# the sandbox cannot be entered: %s\n" % str(error).encode())
            raise

    def start(argv, **more):
        return subprocess.Popen(argv, preexec_fn=sandbox, env=sanitized(os.environ), cwd="/",
                                stdin=subprocess.DEVNULL, **more)

    probe = start(["/bin/sh", "-c", """
        test ! -e /proc/sys && test ! -d /proc/1 && test -d /proc/self/fd || exit 1
        ! touch "$1/elsewhere" 2>/dev/null || exit 2
        touch "$1/state/here" && rm "$1/state/here" || exit 3
        ! chown 0 "$1/state" 2>/dev/null || exit 4
        ! unshare -U true 2>/dev/null || exit 5
        """, "sh", directory])
    tap.result(probe.wait(DEADLINE) == 0, "the sandbox is one", "exit code %r" % probe.returncode)

    test = start([program, "-t", "-c", config], stdout=subprocess.PIPE)
    said = test.communicate(timeout=DEADLINE)[0].decode()
    tap.result(test.returncode == 0 and "OK" in said, "the file can be tested there", said)

    os.environ["NOTIFY_SOCKET"] = manager.path
    os.environ["WATCHDOG_USEC"] = "4000000"
    log_path, out_path = os.path.join(directory, "log"), os.path.join(directory, "out")
    with open(log_path, "wb") as log, open(out_path, "wb") as out:
        daemon = start([program, "-c", config], stdout=out, stderr=log)
    try:
        wait_for("the daemon", lambda: b"ready" in read(log_path) or daemon.poll() is not None)
        log = read(log_path).decode()
        if daemon.poll() is not None:
            tap.result(False, "starts there", log)
            return
        manager.wait("READY")
        tap.result(not re.search("warning|error", log), "starts there without a complaint", log)

        with open("/proc/%d/status" % daemon.pid, encoding="ascii") as file:
            status = dict(re.findall(r"^(\w+):[ \t]*(.*)$", file.read(), re.M))
        tap.result(status["NoNewPrivs"] == "1" and status["Seccomp"] == "2" and
                   int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0 and
                   status["Uid"].split() == [str(USER)] * 4, "runs without any privilege",
                   repr(status))

        messages = [b"", b"a message", os.urandom(70000), os.urandom(5 << 20)]
        where = (port_of(log, "stored"), port_of(log, "written"), os.path.join(state, "socket"))
        for address in where:
            receipts = send(address, messages)
            tap.result([line.split()[0] for line in receipts] == ["OK"] * len(messages),
                       "messages of all sizes are accepted at %s" % (address[0] if
                       isinstance(address, tuple) else "a unix socket"), repr(receipts))
        receipts = send(port_of(log, "handed"), messages)
        tap.result([line.split()[0] for line in receipts] == ["OK"] * len(messages),
                   "a command gets them, too", repr(receipts) + read(log_path).decode())
        os.rename(os.path.join(state, "file"), os.path.join(state, "file.1"))
        daemon.send_signal(signal.SIGUSR1)
        wait_for("the new file", lambda: os.path.exists(os.path.join(state, "file")))
        daemon.send_signal(signal.SIGHUP)
        tap.result(send(where[1], [b"after"])[0].startswith("OK"), "goes on after USR1 and HUP")

        new = os.path.join(state, "spool", "new")
        found = sorted(read(os.path.join(new, name)) for name in os.listdir(new))
        tap.result(found == sorted(messages * 2), "the spool has them, byte for byte")
        lines = (read(os.path.join(state, "file.1")) +
                 read(os.path.join(state, "file"))).splitlines()
        sizes = sorted(json.loads(line)["size"] for line in lines)
        tap.result(sizes == sorted([len(m) for m in messages] * 2 + [5]), "and so has the file",
                   repr(sizes))
        manager.wait("WATCHDOG")
        daemon.terminate()
        tap.result(daemon.wait(DEADLINE) == 0, "and stops in order", read(log_path).decode())
        manager.wait("STOPPING")
        tap.result(bool(manager.said("STATUS")), "its manager hears from it: READY, STATUS, "
                   "WATCHDOG, STOPPING", repr(manager.datagrams))
        tap.result(b"EPERM" not in read(log_path) and
                   b"not permitted" not in read(log_path), "nothing it tried was forbidden",
                   read(log_path).decode())
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()
            tap.note(read(log_path).decode())


def main():
    if os.geteuid() != 0:
        skip_all("not root")
    if shutil.which("systemd-analyze") is None:
        skip_all("systemd-analyze is not installed (Debian: systemd)")
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        skip_all("libseccomp is not installed (Debian: libseccomp2)")
    tap = Tap()
    unit = read_unit(UNIT)
    unknown = set(unit) - IMITATED - NOT_IMITATED - NO_SANDBOX
    tap.note("not imitated: " + ", ".join(sorted(NOT_IMITATED & set(unit))))
    tap.result(not unknown, "every directive is known to this test", ", ".join(sorted(unknown)))
    with Scratch() as scratch:
        run(tap, scratch, unit)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
