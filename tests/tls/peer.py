"""peer: what the tests of tests/tls share: certificates, a daemon that speaks TLS, and a
client that decides itself which of its records leave together.
"""

import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(TOP, "..", "crash"))

import storage  # noqa: E402

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; spill_directory = "{directory}";
shutdown_timeout = 20; max_message_size = "16M";
log = {{ target = "stderr"; level = "debug"; }};
tls = {{ certificate = "{directory}/server.pem"; key = "{directory}/server.key"; }};
{more}
"""
SPOOL = 'sinks = {{ s = {{ type = "spool"; directory = "{directory}/spool"; sync = false; min_free = 0; }}; }};'


def need():
    """Skips all where there is nothing to test, or nothing to test with."""
    path = storage.program()
    if path is None:
        storage.skip_all("no cisternd ($CISTERND)")
    version = subprocess.run([path, "-V"], capture_output=True, text=True, check=True).stdout
    if "without TLS" in version:
        storage.skip_all("built without TLS")
    if subprocess.run(["openssl", "version"], capture_output=True, check=False).returncode != 0:
        storage.skip_all("the command openssl is missing")
    return version


def openssl(*arguments):
    subprocess.run(("openssl",) + arguments, check=True, stdin=subprocess.DEVNULL,
                   capture_output=True)


def certificate(directory, name, subject, issuer=None, days="30"):
    """NAME.pem and NAME.key; signed by itself without an issuer."""
    base = os.path.join(directory, name)
    common = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8",
              "-keyout", base + ".key", "-subj", subject]
    if issuer is None:
        openssl("req", "-x509", *common, "-out", base + ".pem", "-days", days,
                "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    else:
        ca = os.path.join(directory, issuer)
        openssl("req", *common, "-out", base + ".csr")
        openssl("x509", "-req", "-in", base + ".csr", "-CA", ca + ".pem", "-CAkey", ca + ".key",
                "-CAcreateserial", "-days", days, "-out", base + ".pem")
    os.chmod(base + ".key", 0o600)


def is_sanitized():
    """Whether the daemon's memory is not what it would be."""
    return subprocess.run(["grep", "-q", "__asan_init\\|__tsan_init", storage.program()],
                          check=False).returncode == 0


class Daemon(storage.Daemon):
    """cisternd with TLS on a directory that has server.pem; `ports` by listener."""

    def __init__(self, directory, more=SPOOL, config=CONFIG, output=None):
        self.directory = directory
        path = os.path.join(directory, "cistern.conf")
        with open(path, "w", encoding="utf-8") as out:
            out.write(config.replace("{more}", more).format(directory=directory))
        number = len([name for name in os.listdir(directory) if name.endswith(".stderr")])
        self.log = os.path.join(directory, "%d.stderr" % number)
        self.log_file = open(self.log, "wb")
        self.process = subprocess.Popen([storage.program(), "-c", path], stdin=subprocess.DEVNULL,
                                        stdout=output or self.log_file, stderr=self.log_file)
        self.ports = {}
        until = time.monotonic() + storage.DEADLINE
        while " ready: " not in self.text():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("not ready:\n" + self.text())
            time.sleep(0.005)
        for name, port in re.findall(r" listening: listener (\S+) on 127\.0\.0\.1:(\d+)", self.text()):
            self.ports[name] = int(port)
        self.port = next(iter(self.ports.values()))

    def wait_log(self, pattern, count=1):
        until = time.monotonic() + storage.DEADLINE
        while len(re.findall(pattern, self.text())) < count:
            if time.monotonic() > until:
                raise RuntimeError("the log lacks %s x %d:\n%s" % (pattern, count, self.text()[-4000:]))
            time.sleep(0.01)

    def account(self):
        found = re.search(r"received (\d+) messages: (\d+) accepted, (\d+) refused, (\d+) failed, "
                          r"(\d+) in flight; discarded (\d+)", self.text())
        names = ("received", "accepted", "refused", "failed", "in_flight", "discarded")
        return dict(zip(names, map(int, found.groups())))

    def end(self, tap, what):
        """Stops it; the accounts must add up and no sanitizer may complain."""
        code = self.stop()
        text = self.text()
        account = self.account() if code == 0 else {}
        good = (code == 0 and account["in_flight"] == 0 and
                account["received"] == account["accepted"] + account["refused"] + account["failed"] and
                not re.search(r"Sanitizer|runtime error| bug", text))
        tap.result(good, "%s: an orderly stop, accounts in order" % what)
        if not good:
            tap.note(text[-3000:])
        return account

    def memory(self):
        """KiB of it that are resident."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def processor(self):
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def context(version, directory=None, name=None):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    ctx.minimum_version = ctx.maximum_version = VERSIONS[version]
    if name is not None:
        base = os.path.join(directory, name)
        ctx.load_cert_chain(base + ".pem", base + ".key")
    return ctx


class Peer:
    """A TLS client whose records go nowhere until they are sent."""

    def __init__(self, port, ctx, handshake=True):
        self.socket = socket.create_connection(("127.0.0.1", port), storage.DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = ctx.wrap_bio(self.inward, self.outward)
        self.finished = b""  # what ends a TLS 1.3 handshake, not sent yet
        if handshake:
            self.handshake()

    def handshake(self, hold=False):
        """hold: the last flight stays with us, to leave with the data."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.send()
                self.fill()
        if hold:
            self.finished = self.outward.read()
        else:
            self.send()

    def fill(self):
        data = self.socket.recv(65536)
        if data:
            self.inward.write(data)
        else:
            self.inward.write_eof()
        return bool(data)

    def put(self, data, record=16384):
        """Encrypts, in records of so many bytes."""
        for at in range(0, len(data), record):
            self.tls.write(data[at:at + record])

    def put_close(self):
        """Our close_notify.  The other's is not waited for."""
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass

    def taken(self):
        """What is to be sent."""
        data = self.finished + self.outward.read()
        self.finished = b""
        return data

    def send(self):
        self.socket.sendall(self.taken())

    def fin(self):
        self.socket.shutdown(socket.SHUT_WR)

    def rst(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive(self):
        """All that the daemon says, and how it ends: "orderly" (close_notify, FIN),
        "reset", or "cut" (a FIN without close_notify)."""
        data, end = b"", None
        while end is None:
            try:
                while True:
                    some = self.tls.read(65536)
                    if not some:
                        end = "closing"
                        break
                    data += some
            except ssl.SSLWantReadError:
                try:
                    self.fill()
                except ConnectionResetError:
                    end = "reset"
            except ssl.SSLZeroReturnError:
                end = "closing"
            except ssl.SSLError as error:
                end = "cut" if "EOF" in str(error).upper() else "alert: " + str(error)
        if end == "closing":
            try:
                end = "orderly" if self.socket.recv(65536) == b"" else "bytes past close_notify"
            except ConnectionResetError:
                end = "reset"
        self.socket.close()
        return data, end


def delivered(directory):
    """Contents of the spool, by id."""
    new = os.path.join(directory, "spool", "new")
    contents = {}
    for name in os.listdir(new) if os.path.isdir(new) else []:
        with open(os.path.join(new, name), "rb") as file:
            contents[name.split(".")[0]] = file.read()
    return contents


def run_all(tests):
    """Those named on the command line, or all; the exit code."""
    tap = storage.Tap()
    need()
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        tap.note("%s: %s" % (test.__name__, test.__doc__))
        failed = tap.failed
        try:
            with storage.Scratch() as scratch:
                certificate(scratch, "server", "/CN=localhost")
                test(tap, scratch)
                if tap.failed > failed:
                    raise RuntimeError(test.__name__)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            tap.result(False, "%s: %s" % (test.__name__, str(error)[-1500:].replace("\n", "\n# ")))
    return tap.end()
