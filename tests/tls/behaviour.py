#!/usr/bin/env python3
"""behaviour: what TLS changes, and what it must not: clients of all kinds, ends, limits,
certificates, and those that mean no good.

behaviour.py [NAME]...: only the tests of these names.
"""

import collections
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time

import peer
import storage

sys.path.insert(0, os.path.join(peer.TOP, "..", "system"))
from service import PTRACE_CONT, PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_SEIZE, WALL, ptrace, task_named  # noqa: E402

SECRET = random.Random(6).randbytes(100000)


def start(scratch, listener="", sink=peer.SPOOL, tls="", top=""):
    config = peer.CONFIG.replace('server.key";', 'server.key"; ' + tls)
    return peer.Daemon(scratch, "deliver = \"%s\"; %s %s %s" % (
        "s" if " s = " in sink else "console", listener, top, sink), config)


# Some set a setting that the common text has; libconfig takes none twice.
def without_receipts(config):
    return config.replace('reply = "receipt";', "")


def foreign_clients(tap, scratch):
    """Each in its own way; all close in order."""
    daemon = start(scratch)
    at = "127.0.0.1:%d" % daemon.port
    versions = {"1.2": ("-tls1_2", "NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS1.2"),
                "1.3": ("-tls1_3", "NORMAL:-VERS-ALL:+VERS-TLS1.3", "TLS1.3")}
    expected = []
    for version, (flag, priority, name) in versions.items():
        commands = {
            "s_client": ["openssl", "s_client", "-connect", at, flag, "-no_ign_eof", "-nocommands"],
            "gnutls-cli": ["gnutls-cli", "--insecure", "--priority", priority, "-p",
                           str(daemon.port), "127.0.0.1"],
            "socat": ["socat", "-t", "20", "-", "OPENSSL:%s,verify=0,openssl-min-proto-version=%s,"
                      "openssl-max-proto-version=%s" % (at, name, name)],
            "Python's ssl": [sys.executable, "-c", "import socket,ssl,sys\n"
                             "c = ssl._create_unverified_context()\n"
                             "c.minimum_version = c.maximum_version = ssl.TLSVersion.%s\n"
                             "s = c.wrap_socket(socket.create_connection(('127.0.0.1', %d)))\n"
                             "s.sendall(sys.stdin.buffer.read())\n"
                             "s.unwrap()\n" % (name.replace(".", "_").replace("S1", "Sv1"), daemon.port)],
        }
        for program, command in commands.items():
            if shutil.which(command[0]) is None:
                tap.note("%s is not installed" % program)
                continue
            message = ("%s %s " % (program, version)).encode() + SECRET.hex().encode()
            before = len(peer.delivered(scratch))
            try:
                subprocess.run(command, input=message, check=False, timeout=30,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                tap.note("%s does not end" % program)
            until = time.monotonic() + storage.DEADLINE
            while len(peer.delivered(scratch)) == before and time.monotonic() < until:
                time.sleep(0.01)
            good = message in peer.delivered(scratch).values()
            tap.result(good, "%s, TLS %s: its message is whole" % (program, version))
            expected.append(message)
    daemon.end(tap, "foreign clients")
    tap.result(sorted(peer.delivered(scratch).values()) == sorted(expected), "and no others")


def renegotiation(tap, scratch):
    """A client that wants to negotiate anew within a stream."""
    daemon = start(scratch, 'framing = "line";')
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", "127.0.0.1:%d" % daemon.port, "-tls1_2"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    client.stdin.write(b"before\n")
    client.stdin.flush()
    daemon.wait_log(" tls-open ")
    until = time.monotonic() + storage.DEADLINE
    while not peer.delivered(scratch) and time.monotonic() < until:
        time.sleep(0.01)
    client.stdin.write(b"R\n")
    client.stdin.flush()
    output = b""
    while b"RENEGOTIATING" not in output:
        output += os.read(client.stdout.fileno(), 4096)
    client.stdin.close()
    output += client.stdout.read()
    client.wait()
    daemon.end(tap, "renegotiation")
    tap.note(output.decode(errors="replace").strip().splitlines()[-1])
    tap.result(list(peer.delivered(scratch).values()) == [b"before"] and
               b"verify return" not in output.split(b"RENEGOTIATING")[1],
               "there is no second handshake, and nothing half is delivered")


def expect_reset(sock):
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    finally:
        sock.close()
    return False


def connect(daemon):
    return socket.create_connection(("127.0.0.1", daemon.port), storage.DEADLINE)


def exchange(port):
    """A line without TLS, and its receipt."""
    with socket.create_connection(("127.0.0.1", port), storage.DEADLINE) as sock:
        sock.sendall(b"a line\n")
        return sock.recv(200)


def deadline(tap, scratch):
    """Silence, and a handshake a byte at a time."""
    daemon = start(scratch, tls='handshake_timeout = "500ms";', top='idle_timeout = "1h";')
    began = time.monotonic()
    silent, dripping = connect(daemon), connect(daemon)
    client = peer.Peer(daemon.port, peer.context("1.3"))
    ended = False
    while not ended and time.monotonic() - began < 10:
        try:
            dripping.sendall(b"\x16" if time.monotonic() - began < 0.01 else b"\x03")
            time.sleep(0.05)
        except OSError:
            ended = True
    tap.result(expect_reset(silent) and ended and time.monotonic() - began < 3,
               "both are reset when handshake_timeout is over")
    daemon.wait_log(" tls-failed .*: timeout: ", 1)
    time.sleep(max(0, began + 1.0 - time.monotonic()))
    client.put(b"in time")
    client.put_close()
    client.send()
    answer, end = client.receive()
    tap.result(answer.startswith(b"OK ") and end == "orderly", "but not who has greeted")
    daemon.end(tap, "deadline")


def steps_elsewhere(tap, scratch):
    """The threads that do the handshakes stand still: others are served, whoever waits too long
    is told so, and a stop waits for the step that is away."""
    config = re.sub(r"tls = .*\n", "", peer.CONFIG) + """
listeners = {{ main = {{ tls = {{ certificate = "{directory}/server.pem"; key = "{directory}/server.key";
                              handshake_timeout = "1s"; }}; }};
              plain = {{ framing = "line"; }}; }};"""
    daemon = peer.Daemon(scratch, 'deliver = "s"; idle_timeout = "1h";' + peer.SPOOL, config)
    ctx = peer.context("1.3")

    def plain():
        return [exchange(daemon.ports["plain"]) for _ in range(8)]
    greeted = peer.Peer(daemon.port, ctx)
    daemon.wait_log(" tls-open ", 1)
    holds = daemon.descriptors()
    greeter = task_named(daemon, "greeter-0")
    try:
        ptrace(PTRACE_SEIZE, greeter)
    except OSError as error:
        tap.skip("steps elsewhere", error)
        daemon.end(tap, "steps elsewhere")
        return

    def hold():
        ptrace(PTRACE_INTERRUPT, greeter)
        os.waitpid(greeter, WALL)
    hold()
    waiting = [peer.Peer(daemon.port, ctx, handshake=False) for _ in range(20)]
    for client in waiting[:10]:
        try:
            client.tls.do_handshake()
        except ssl.SSLWantReadError:
            client.send()
    for client in waiting[5:10]:
        client.socket.shutdown(socket.SHUT_WR)
    tap.result(all(answer.startswith(b"OK ") for answer in plain()), "plain clients are served")
    greeted.put(b"in time")
    greeted.put_close()
    greeted.send()
    answer, end = greeted.receive()
    tap.result(answer.startswith(b"OK ") and end == "orderly", "and who has greeted")
    greeted.socket.close()
    daemon.wait_log(r" connection-closed main#.*: reset", 20)
    tap.result(True, "20 are given up when handshake_timeout is over")
    ptrace(PTRACE_CONT, greeter)
    tap.result(all(expect_reset(client.socket) for client in waiting), "and reset")
    late = peer.Peer(daemon.port, ctx)
    daemon.wait_log(" tls-open ", 2)
    tap.result(daemon.descriptors() == holds, "a new one is greeted; descriptors %d, %d" % (
        holds, daemon.descriptors()))
    late.socket.close()
    daemon.wait_log(r" connection-closed main#", 22)
    hold()
    last = peer.Peer(daemon.port, ctx, handshake=False)
    try:
        last.tls.do_handshake()
    except ssl.SSLWantReadError:
        last.send()
    plain()
    daemon.process.terminate()
    daemon.wait_log(r" connection-closed main#", 23)
    tap.result(daemon.process.poll() is None, "a stop waits for the step that is away")
    ptrace(PTRACE_DETACH, greeter)
    tap.result(expect_reset(last.socket), "whose client is reset")
    daemon.end(tap, "steps elsewhere")


def within_record(tap, scratch):
    """A record of which a part has come is part of a message: its sender does not see an
    orderly close, and silence does not end the message before it."""
    config = without_receipts(peer.CONFIG)
    more = peer.SPOOL + 'deliver = "s"; listeners = {{ idle = {{ idle_timeout = "400ms"; }};' \
        'quiet = {{ quiet_timeout = "800ms"; }}; }};'
    daemon = peer.Daemon(scratch, more, config)
    for version in peer.VERSIONS:
        for cut in (3, 5, 4000):
            client = peer.Peer(daemon.ports["idle"], peer.context(version))
            client.put(SECRET[:10000])
            client.socket.sendall(client.taken()[:cut])
            data, end = client.receive()
            tap.result((data, end) == (b"", "reset"),
                       "%s: %d bytes of a record, then silence: %s" % (version, cut, end))
        client = peer.Peer(daemon.ports["quiet"], peer.context(version))
        client.put(SECRET[:8000])
        client.send()
        client.put(SECRET[8000:16000])
        record = client.taken()
        for at in range(0, len(record), 1000):
            time.sleep(0.2)
            client.socket.sendall(record[at:at + 1000])
        _, end = client.receive()
        contents = list(peer.delivered(scratch).values())
        tap.result(end == "orderly" and contents and set(contents) == {SECRET[:16000]},
                   "%s: a slow record is waited for (%s)" % (version, [len(one) for one in contents]))
        before = len(contents)
        client = peer.Peer(daemon.ports["quiet"], peer.context(version))
        client.put(SECRET[:8000])
        client.send()
        client.put(SECRET[8000:16000])
        client.socket.sendall(client.taken()[:5000])
        _, end = client.receive()
        tap.result(end == "reset" and len(peer.delivered(scratch)) == before,
                   "%s: one that never becomes whole ends nothing" % version)
    daemon.wait_log(" message-discarded .*: timeout: ", 1)
    daemon.end(tap, "within a record")


def plain_text(tap, scratch):
    daemon = start(scratch)
    for text in (b"GET / HTTP/1.0\r\n\r\n", b"This is a test<EOF>", b"\n"):
        client = connect(daemon)
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        tap.result(expect_reset(client), "%r gets a reset, not a close like a receipt" % text)
    daemon.wait_log(" tls-failed .*: not-tls: .*is it meant for a port without", 2)
    daemon.end(tap, "plain text")
    tap.result(peer.delivered(scratch) == {}, "nothing is delivered")


def write_only(tap, scratch):
    """Clients that write, close, and never read."""
    daemon = start(scratch)
    sent = set()
    for version in peer.VERSIONS:
        ctx = peer.context(version)
        for i in range(150):
            message = b"%s %d " % (version.encode(), i) + SECRET[:i * 200]
            client = peer.Peer(daemon.port, ctx)
            client.put(message)
            client.put_close()
            client.send()
            client.socket.close()
            sent.add(message)
    until = time.monotonic() + storage.DEADLINE
    while len(peer.delivered(scratch)) < len(sent) and time.monotonic() < until:
        time.sleep(0.05)
    daemon.end(tap, "write-only")
    tap.result(set(peer.delivered(scratch).values()) == sent, "%d of %d arrive" % (
        len(peer.delivered(scratch)), len(sent)))


def echo(tap, scratch):
    """Large messages back, some of which waited in a file, to a client that reads late."""
    config = peer.CONFIG.replace('"receipt"', '"echo"').replace('"debug"', '"info"')
    daemon = peer.Daemon(scratch, 'framing = "netstring"; deliver = "s";' + peer.SPOOL, config)
    for version in peer.VERSIONS:
        client = peer.Peer(daemon.port, peer.context(version))
        messages = [random.Random(size).randbytes(size) for size in (0, 1, 16385, 3000000, 5, 700001)]
        client.put(b"".join(b"%d:%s," % (len(m), m) for m in messages))
        client.put_close()
        stream = client.taken()
        client.socket.settimeout(storage.DEADLINE)
        client.socket.sendall(stream)
        client.fin()
        daemon.wait_log("ready")
        time.sleep(0.3)  # for the daemon to be stuck, as the client does not read
        answer, end = client.receive()
        tap.result(answer == b"".join(messages) and end == "orderly",
                   "TLS %s: %d bytes come back, after the client's close_notify" % (
                       version, len(answer)))
    daemon.end(tap, "echo")


def one_in_flight(tap, scratch):
    """Pauses after every message: no wake-up is lost."""
    sink = peer.SPOOL.replace("sync = false", "sync = true")
    daemon = start(scratch, 'framing = "line"; max_in_flight = 1;', sink)
    for version in peer.VERSIONS:
        client = peer.Peer(daemon.port, peer.context(version))
        lines = [SECRET[i:i + 40].hex().encode() * (1 + i % 7) for i in range(300)]
        client.put(b"\n".join(lines) + b"\n", 30000)
        client.send()
        client.put_close()
        client.send()
        answer, end = client.receive()
        tap.result(answer.count(b"OK ") == len(lines) and end == "orderly",
                   "TLS %s: %d of %d lines are answered" % (version, answer.count(b"OK "), len(lines)))
    daemon.end(tap, "one in flight")


def outcomes(tap, scratch):
    """The close is the receipt."""
    config = without_receipts(peer.CONFIG).replace('max_message_size = "16M"',
                                                   "max_message_size = 1000")
    daemon = peer.Daemon(scratch, """listeners = {{
        silent = {{ framing = "line"; deliver = "s"; idle_timeout = "300ms"; }};
        telling = {{ framing = "line"; deliver = "s"; reply = "receipt"; }};
        single = {{ framing = "line"; deliver = "s"; max_messages = 1; }}; }};""" + peer.SPOOL, config)

    def exchange(listener, data, close=True, version="1.3"):
        client = peer.Peer(daemon.ports[listener], peer.context(version))
        client.put(data)
        if close:
            client.put_close()
        client.send()
        return client.receive()

    for version in peer.VERSIONS:
        cases = (
            ("silent", b"good\n", True, b"", "orderly", "accepted: close_notify, then a FIN"),
            ("silent", b"good\n", False, b"", "orderly", "the same after idle_timeout"),
            ("silent", b"x" * 2000, True, b"", "reset", "too large: a reset without close_notify"),
            ("telling", b"x" * 2000, True, b"REJECT too-large\n", "reset", "the same with words"),
            ("single", b"one\n", True, b"", "orderly", "max_messages and no more: orderly"),
            ("single", b"one\ntwo\n", True, b"", "reset", "one more than max_messages: a reset"),
        )
        for listener, data, close, answer, end, what in cases:
            got = exchange(listener, data, close, version)
            tap.result(got == (answer, end), "TLS %s, %s" % (version, what))
            if got != (answer, end):
                tap.note("%s: got %r" % (listener, got))
    daemon.end(tap, "outcomes")


def client_certificates(tap, scratch):
    peer.certificate(scratch, "ca", "/CN=the authority")
    peer.certificate(scratch, "other", "/CN=another authority")
    peer.certificate(scratch, "good", "/O=Köln, \"Dom\"/CN=sender\n1", "ca")
    peer.certificate(scratch, "stranger", "/CN=stranger", "other")
    json_sink = 'sinks = {{ s = {{ type = "file"; path = "{directory}/out"; format = "json"; sync = false; }}; }};'
    for required in (True, False):
        daemon = start(scratch, sink=json_sink, tls='client_ca = "{directory}/ca.pem"; '
                       "require_client_certificate = %s;" % ("true" if required else "false"))
        for version in peer.VERSIONS:
            results = {}
            for name in ("good", None, "stranger"):
                try:
                    client = peer.Peer(daemon.port, peer.context(version, scratch, name))
                    client.put(b"from " + str(name).encode())
                    client.put_close()
                    client.send()
                    answer, end = client.receive()
                    results[name] = "accepted" if answer.startswith(b"OK ") else end
                except (OSError, ConnectionError) as error:
                    results[name] = str(error)
            tap.note("TLS %s: %s" % (version, results))
            tap.result(results["good"] == "accepted" and
                       (results[None] == "accepted") == (not required) and
                       results["stranger"] != "accepted" and results["stranger"] != "orderly",
                       "TLS %s, certificate %s: who is let in" % (
                           version, "required" if required else "asked for"))
        if required:
            daemon.wait_log(" tls-failed .*: no-certificate: ", 2)
        daemon.wait_log(" tls-failed .*: bad-certificate: ", 2)
        daemon.end(tap, "client certificates")
    with open(os.path.join(scratch, "out"), encoding="utf-8") as out:
        records = [json.loads(line) for line in out]
    subjects = {record.get("tls_subject") for record in records if record["data"] == "from good"}
    nobody = [record for record in records if record["data"] == "from None"]
    tap.result(len(subjects) == 1 and "tls_subject" not in nobody[0] and len(nobody) == 2,
               "the subject is recorded: %r" % subjects)
    subject = subjects.pop()
    tap.result(subject == 'CN=sender\\0A1,O=Köln\\, \\"Dom\\"', "as RFC 2253 has it, in UTF-8")
    with open(daemon.log, "rb") as log:
        tap.result(b"sender\n1" not in log.read(), "no control characters in the log")


def limits(tap, scratch):
    """Who has not greeted yet counts; who stops in the middle is not waited for."""
    daemon = start(scratch, top="max_connections_per_address = 2;")
    first, second = connect(daemon), connect(daemon)
    daemon.wait_log(" connection-open ", 2)
    try:
        third = expect_reset(connect(daemon))
    except ConnectionResetError:
        third = True
    tap.result(third, "a third connection is reset while two are greeting")
    began = time.monotonic()
    daemon.end(tap, "limits")
    tap.result(time.monotonic() - began < 3, "a stop does not wait for them")
    tap.result(expect_reset(first) and expect_reset(second), "they are reset")


def versions(tap, scratch):
    daemon = start(scratch, tls='min_version = "1.3";')
    try:
        peer.Peer(daemon.port, peer.context("1.2"))
        failed = False
    except OSError:
        failed = True
    daemon.wait_log(" tls-failed .*: protocol: ")
    client = peer.Peer(daemon.port, peer.context("1.3"))
    tap.result(failed and client.tls.version() == "TLSv1.3", "min_version = 1.3")
    client.socket.close()
    daemon.end(tap, "versions")


def dropped(tap, scratch):
    """1,000 connections dropped in the middle of a handshake, twice."""
    config = peer.CONFIG.replace('"debug"', '"info"')
    daemon = peer.Daemon(scratch, 'deliver = "s";' + peer.SPOOL, config)
    ctx = peer.context("1.3")

    def drop(count):
        for i in range(count):
            client = peer.Peer(daemon.port, ctx, handshake=False)
            try:
                client.tls.do_handshake()
            except OSError:
                pass
            hello = client.taken()
            client.socket.sendall(hello[:1 + i % (len(hello) - 1)] if i % 2 == 0 else hello)
            if i % 4 == 3:
                client.socket.recv(100)
            client.rst() if i % 3 == 0 else client.socket.close()
        until = time.monotonic() + storage.DEADLINE
        while daemon.descriptors() > before and time.monotonic() < until:
            time.sleep(0.02)

    before = daemon.descriptors()
    drop(1000)
    memory = daemon.memory()
    drop(1000)
    tap.note("KiB: %d, then %d" % (memory, daemon.memory()))
    tap.result(daemon.descriptors() <= before and (
        peer.is_sanitized() or daemon.memory() - memory < 512), "all is flat")
    lines = len(re.findall(" tls-failed ", daemon.text()))
    tap.result(lines < 100, "the log has %d lines of it" % lines)
    daemon.end(tap, "dropped")


def paused(tap, scratch):
    """100 clients that send 400 KB each, and a sink that takes nothing for a while."""
    reading, writing = os.pipe()
    config = peer.CONFIG.replace('"debug"', '"info"').replace('"receipt"', '"none"')
    daemon = peer.Daemon(scratch, """framing = "line"; max_in_flight = 2; memory_limit = "1M";
        sinks = {{ console = {{ type = "console"; format = "line"; }}; }};""", config, writing)
    os.close(writing)
    lines = [SECRET[i * 100:i * 100 + 4000].hex().encode() for i in range(100)]
    ctx = peer.context("1.3")
    before = daemon.memory()
    clients = []
    for line in lines:
        client = peer.Peer(daemon.port, ctx)
        client.put((line + b"\n") * 50)
        client.put_close()
        client.rest = client.taken()
        client.socket.setblocking(False)
        clients.append(client)

    def push():
        moved = 0
        for client in clients:
            try:
                n = client.socket.send(client.rest) if client.rest else 0
                client.rest = client.rest[n:]
                moved += n
            except BlockingIOError:
                pass
        return moved

    quiet = 0
    while quiet < 20:  # a second without anything taken
        quiet = 0 if push() > 0 else quiet + 1
        time.sleep(0.05)
    grown = daemon.memory() - before
    spent = daemon.processor()
    time.sleep(1)
    spent = daemon.processor() - spent
    tap.note("%d KiB more, of which 1024 are memory_limit; %.2f s of a second's processor" % (
        grown, spent))
    tap.result(peer.is_sanitized() or grown < 1024 + 100 * 64 + 2048,
               "while all are paused memory is bounded")
    tap.result(spent < 0.2, "and nothing spins")
    pieces, size = [], 0
    os.set_blocking(reading, False)
    expected = sum(50 * (len(line) + 1) for line in lines)
    until = time.monotonic() + storage.DEADLINE
    while size < expected and time.monotonic() < until:
        push()
        try:
            pieces.append(os.read(reading, 1 << 20))
            size += len(pieces[-1])
        except BlockingIOError:
            time.sleep(0.001)
    got = collections.Counter(b"".join(pieces).split(b"\n")[:-1])
    tap.result(size == expected and all(got[line] == 50 for line in lines),
               "then all of it is delivered: %d of %d bytes" % (size, expected))
    ends = []
    for client in clients:
        client.socket.settimeout(storage.DEADLINE)
        ends.append(client.receive())
    tap.result(set(ends) == {(b"", "orderly")}, "and every close is orderly")
    os.close(reading)
    daemon.end(tap, "paused")


def idle_cost(tap, scratch):
    """What an idle TLS connection costs."""
    config = peer.CONFIG.replace('"debug"', '"info"')
    for version in peer.VERSIONS:
        daemon = peer.Daemon(scratch, 'deliver = "s"; framing = "line";' + peer.SPOOL, config)
        ctx = peer.context(version)
        warm = [peer.Peer(daemon.port, ctx) for _ in range(50)]
        for client in warm:
            client.put(b"x\n")
            client.send()
        time.sleep(0.5)
        before = daemon.memory()
        clients = [peer.Peer(daemon.port, ctx) for _ in range(400)]
        time.sleep(0.3)
        idle = daemon.memory()
        for client in clients:
            client.put(SECRET.hex().encode()[:16000] + b"\n")
            client.send()
        time.sleep(1)
        used = daemon.memory()
        each, after = (idle - before) / len(clients), (used - before) / len(clients)
        tap.result(peer.is_sanitized() or each < 64 and after < 64,
                   "TLS %s: %.1f KiB idle, %.1f KiB after a record" % (
            version, each, after))
        for client in warm + clients:
            client.socket.close()
        daemon.end(tap, "idle cost")


TESTS = (foreign_clients, renegotiation, deadline, steps_elsewhere, within_record, plain_text, write_only, echo,
         one_in_flight, outcomes, client_certificates, limits, versions, dropped, paused, idle_cost)


if __name__ == "__main__":
    sys.exit(peer.run_all(TESTS))
