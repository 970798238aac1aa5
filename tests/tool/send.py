#!/usr/bin/env python3
"""send: `cistern send` against the real daemon, with every framing, and against servers
that lie, break off and hesitate; its exit status each time.
"""

import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402
from kit import send, write  # noqa: E402

ID = rb"[0-9A-HJKMNP-TV-Z]{26}\n"
OK = b"OK 01ARZ3NDEKTSV4RRFFQ69G5FAV %d\n"

# Name of the listener: its settings, the tool's options.
FRAMINGS = {
    "eof": ("", []),
    "line": ('framing = "line";', ["-f", "line"]),
    "delimiter": ('framing = "delimiter"; delimiter = "<EOF>";',
                  ["-f", "delimiter", "-d", "<EOF>"]),
    "kept": ('framing = "delimiter"; delimiter = "\\\\0"; keep_delimiter = true;',
             ["-f", "delimiter", "-d", "\\0"]),
    "length": ('framing = "length";', ["-f", "length"]),
    "little": ('framing = "length"; length_bytes = 2; length_order = "little"; '
               'length_includes_header = true;',
               ["-f", "length", "--length-bytes", "2", "--length-order", "little",
                "--length-includes-header"]),
    "netstring": ('framing = "netstring";', ["-f", "netstring"]),
    "octet": ('framing = "octet-counted";', ["-f", "octet-counted"]),
    "mllp": ('framing = "mllp";', ["-f", "mllp"]),
}
MORE = """
    small = { framing = "netstring"; max_message_size = 100; reply = "receipt"; };
    small_line = { framing = "line"; max_message_size = 100; reply = "receipt"; };
    small_eof = { max_message_size = 100000; };
    one = { framing = "netstring"; max_messages = 1; reply = "receipt"; };
    local = { address = "unix:%s/socket"; framing = "netstring"; reply = "receipt"; };
"""


def settings(directory):
    lines = []
    for name, (setting, _) in FRAMINGS.items():
        lines.append("%s = { %s };" % (name, setting))
        lines.append('%s_r = { %s reply = "receipt"; };' % (name, setting))
    return "listeners = { %s %s };" % ("\n".join(lines), MORE % directory)


def messages(name):
    plain = [b"hello", b"\xff\x00\r\n\x80" * 20, b"x" * 60000]
    if name in ("line", "line_r"):
        return [b"one", b"\x00t\rwo", b"three" * 20000]
    if name.startswith("kept"):
        return [b"a", b"\r\n" * 50000]
    if not name.startswith("eof"):
        plain.append(b"")
    if not name.startswith("little"):
        plain.append(os.urandom(3000000).replace(b"\x1c", b"a").replace(b"<", b"b"))
    return plain


def check_every_framing_with_and_without_receipts(daemon, directory):
    for framing, (_, options) in FRAMINGS.items():
        for name in (framing, framing + "_r"):
            expected = messages(name)
            receipts = ["-r", "-i"] if name.endswith("_r") else []
            if framing == "line":
                files = [write(directory, "lines", b"\n\r\n".join(expected))]
            else:
                files = [write(directory, "file.%d" % n, data) for n, data in enumerate(expected)]
            done = send(*options, *receipts, daemon.at(name), *files)
            if framing == "kept":
                expected = [data + b"\0" for data in expected]
            found = daemon.take()
            if done.code or done.err or sorted(found) != sorted(expected):
                return "%s: %r: %r" % (name, done, [len(data) for data in found])
            ids = re.findall(ID, done.out)
            if (b"".join(ids) != done.out) or len(ids) != (len(expected) if receipts else 0):
                return "%s: ids: %r" % (name, done)
            if framing != "eof" and found != expected:
                return "%s: not in order" % name
    return None


def check_ids_are_those_of_the_spool(daemon, directory):
    done = send("-f", "netstring", "--receipt", "--print-ids", daemon.at("netstring_r"),
                write(directory, "a", b"1"), write(directory, "b", b"2"))
    names = [name.split(".")[0] for name in sorted(os.listdir(daemon.new))]
    daemon.take()
    return done.out.decode().split() != names and repr((done, names))


def check_standard_input(daemon, _):
    wrong = []
    for arguments in ([], ["-"]):
        for framing in ("eof", "netstring_r", "line"):
            options = FRAMINGS[framing.split("_")[0]][1] + (["-r"] if "_r" in framing else [])
            done = send(*options, daemon.at(framing), *arguments, data=b"in\nput")
            expected = [b"in", b"put"] if framing == "line" else [b"in\nput"]
            if done.code or daemon.take() != expected:
                wrong.append("%s %r" % (framing, done))
    return wrong


def check_no_lines_are_nothing_to_send(daemon, _):
    done = send("-f", "line", daemon.at("line"), data=b"\n\r\n\n")
    return (done.code or daemon.take() or done.err) and repr(done)


def check_what_the_framing_cannot_carry_is_refused_before_a_byte(daemon, directory):
    good = write(directory, "good", b"good")
    for name, data in (("delimiter", b"a<EOF>b"), ("delimiter", b"<EOF>"), ("mllp", b"a\x1c\rb"),
                       ("eof", b""), ("little", b"x" * 65534)):
        done = send(*FRAMINGS[name][1], daemon.at(name), good, write(directory, "bad", data))
        if done.code != 65 or "bad" not in done.err or "nothing was sent" not in done.err or \
                daemon.take():
            return "%s %r: %r" % (name, data[:10], done)
    # The end of a message may begin a delimiter.
    server = kit.Server(lambda number, connection: None)
    done = send("-f", "delimiter", "-d", "aab", server.at, data=b"xa")
    good = send("-f", "delimiter", "-d", "aa", server.at, data=b"xa")
    connections = server.connections
    server.close()
    return (done.code == 65 or good.code != 65 or connections != 1) and repr((done, good))


def check_rejected_is_65_and_the_rest_is_sent(daemon, directory):
    files = [write(directory, "r%d" % n, data) for n, data in
             enumerate((b"first", b"y" * 101, b"third", b"z" * 5000000, b"fifth"))]
    done = send("-f", "netstring", "-r", "-i", daemon.at("small"), *files)
    wrong = []
    if done.code != 65 or daemon.take() != [b"first", b"third", b"fifth"]:
        wrong.append(done)
    if done.err.count("rejected: too-large") != 2 or "r1: rejected" not in done.err:
        wrong.append(done)
    lines = b"one\n" + b"2" * 5000 + b"\nthree\n"
    done = send("-f", "line", "-r", daemon.at("small_line"), data=lines)
    if done.code != 65 or daemon.take() != [b"one", b"three"] or "line 2: rejected" not in done.err:
        wrong.append(done)
    return wrong


def check_a_reset_is_75(daemon, directory):
    done = send(daemon.at("small_eof"), write(directory, "large", b"x" * 5000000))
    # The daemon lingers before it resets, so its end of the stream may be seen first.
    said = "reset" in done.err or "closed before all was sent" in done.err
    return (done.code != 75 or daemon.take() or not said) and repr(done)


def check_as_many_connections_as_the_listener_wants(daemon, directory):
    files = [write(directory, "m%d" % n, b"%d" % n) for n in range(5)]
    one = send("-f", "netstring", "-r", "--per-connection", "1", daemon.at("one"), *files)
    found = daemon.take()
    return (one.code or found != [b"0", b"1", b"2", b"3", b"4"]) and repr((one, found))


def check_more_messages_than_its_window(daemon, directory):
    count = 5000  # OUTBOX_MOST is 4096
    expected = [b"%d" % n for n in range(count)]
    path = write(directory, "many", b"\n".join(expected))
    for name, options in (("line", []), ("line_r", ["-r", "-i"])):
        done = send("-f", "line", *options, daemon.at(name), path)
        found = daemon.take()
        if done.code or found != expected or (options and len(done.out.split()) != count):
            return "%s: %d, %r" % (name, len(found), done)
    return None


def check_a_local_socket_takes_receipts(daemon, directory):
    where = "unix:%s/socket" % daemon.directory
    wrong = [send("-f", "netstring", where, data=b"1")]
    good = send("-f", "netstring", "-r", where, data=b"2")
    if wrong[0].code == 64 and good.code == 0 and daemon.take() == [b"2"]:
        return None
    return wrong + [good]


def check_storage_trouble_is_75_and_tried_again(_, directory):
    """min_free beyond any disk: RETRY storage, until the daemon is started otherwise."""
    place = os.path.join(directory, "full")
    listener = 'framing = "netstring"; reply = "receipt"; max_message_size = 0;'
    daemon = kit.Daemon(place, listener, 'min_free = "8000000T";')
    first = send("-f", "netstring", "-r", daemon.at(), data=b"kept")
    port = daemon.ports["main"]
    results = []
    thread = threading.Thread(target=lambda: results.append(send(
        "-v", "-f", "netstring", "-r", "--retry-for", "60s", "--retry-delay", "50ms", daemon.at(),
        data=b"kept")))
    thread.start()
    time.sleep(0.3)
    daemon.stop()
    daemon = kit.Daemon(place, listener, port=port)
    thread.join(kit.DEADLINE)
    found = daemon.take()
    daemon.stop()
    if first.code != 75 or "storage" not in first.err:
        return repr(first)
    return (results[0].code or found != [b"kept"] or "trying again" not in results[0].err) and \
        repr((results, found))


def check_retry_then_ok_and_nothing_twice(_, directory):
    seen = []

    def behave(number, connection):
        data = kit.read_all(connection)
        seen.append(data)
        if number == 1:
            connection.sendall(OK % 1 + b"RETRY storage\n" + OK % 3)
        elif number == 2:
            connection.sendall(b"RETRY unavailable\n")
        else:
            connection.sendall(OK % 2)

    server = kit.Server(behave)
    files = [write(directory, "n%d" % n, b"x" * n) for n in (1, 2, 3)]
    none = send("-f", "netstring", "-r", server.at, *files)
    server.close()
    seen.clear()
    server = kit.Server(behave)
    done = send("-f", "netstring", "-r", "--retry", "3", "--retry-delay", "10ms", server.at, *files)
    server.close()
    good = none.code == 75 and "storage" in none.err and done.code == 0 and \
        seen == [b"1:x,2:xx,3:xxx,", b"2:xx,", b"2:xx,"]
    return not good and repr((none, done, seen))


def check_retries_come_to_an_end(_, directory):
    del directory
    server = kit.Server(lambda number, connection: kit.reset(connection))
    began = time.monotonic()
    counted = send("--retry", "2", "--retry-delay", "10ms", server.at, data=b"x")
    connections = server.connections
    timed = send("--retry-for", "300ms", "--retry-delay", "20ms", server.at, data=b"x")
    took = time.monotonic() - began
    server.close()
    refused = send("--retry", "2", "--retry-delay", "10ms", server.at, data=b"x")
    return (counted.code != 75 or connections != 3 or timed.code != 75 or took > 20 or
            refused.code != 69) and repr((counted, connections, timed, refused))


def check_nothing_is_sent_again_unasked(_, directory):
    """The receipt is missing: whether it was accepted is unknown."""
    del directory
    server = kit.Server(lambda number, connection: kit.reset(connection)
                        if connection.recv(100) else None)
    done = send("-f", "netstring", "-r", server.at, data=b"x")
    connections = server.connections
    server.close()
    return (done.code != 75 or connections != 1 or "may have been accepted" not in done.err) and \
        repr((done, connections))


def check_a_receipt_cut_anywhere_is_75(_, directory):
    del directory
    receipt = OK % 3
    for at in range(len(receipt) + 1):
        server = kit.Server(lambda number, connection, n=at:
                            (kit.read_all(connection), connection.sendall(receipt[:n])))
        done = send("-f", "netstring", "-r", server.at, data=b"abc")
        server.close()
        if done.code != (0 if at == len(receipt) else 75):
            return "%d: %r" % (at, done)
    return None


def check_protocol_errors_are_76(_, directory):
    del directory
    for answer in (b"250 OK\n", b"x" * 300, OK % 2, OK % 3 + OK % 3, b"OK 1 3\n", b"RETRY \x1b[2J\n"):
        server = kit.Server(lambda number, connection, a=answer:
                            (kit.read_all(connection), connection.sendall(a)))
        done = send("-f", "netstring", "-r", "--retry", "3", server.at, data=b"abc")
        connections = server.connections
        server.close()
        if (done.code, connections) != (76, 1) and answer != OK % 3 + OK % 3:
            return "%r: %r" % (answer, done)
        if answer == OK % 3 + OK % 3 and done.code not in (0, 76):
            return repr(done)
        if "\x1b" in done.err:
            return "controls on the terminal: %r" % done
    # Orderly, but nobody gives receipts there.
    server = kit.Server(lambda number, connection: kit.read_all(connection))
    done = send("-f", "netstring", "-r", "--retry", "9", "--retry-delay", "1ms", server.at, data=b"a")
    server.close()
    return (done.code != 76 or server.connections != 2 or "reply" not in done.err) and repr(done)


def check_silence_of_who_gives_receipts_is_75(_, directory):
    """Behind a proxy that makes closes of resets all servers die, and come back."""
    files = [write(directory, "d%d" % n, b"x" * n) for n in (1, 2)]

    def behave(number, connection):
        data = kit.read_all(connection)
        if number == 1 or number > 5:
            connection.sendall(OK % len(data))

    server = kit.Server(behave)
    done = send("-r", "--retry", "9", "--retry-delay", "1ms", server.at, *files)
    server.close()
    if (done.code, server.connections) != (0, 6):
        return repr((done, server.connections))
    server = kit.Server(lambda number, connection: kit.read_all(connection) and
                        connection.sendall(b"RETRY unavailable\n" if number == 1 else b""))
    done = send("-r", "--retry", "4", "--retry-delay", "1ms", server.at, data=b"x")
    server.close()
    return ((done.code, server.connections) != (75, 5) or "reply =" in done.err) and \
        repr((done, server.connections))


def check_an_early_answer_stops_the_rest(_, directory):
    """A rejection in the middle of a large message; and an OK there is a lie."""
    large = write(directory, "huge", b"x" * 30000000)
    for answer, code in ((b"REJECT too-large\n", 65), (b"RETRY memory\n", 75), (OK % 30000000, 76)):
        got = []

        def behave(number, connection, a=answer, counts=got):
            connection.recv(1000)
            connection.sendall(a)
            try:
                counts.append(len(kit.read_all(connection)))
            except OSError:
                counts.append(0)

        server = kit.Server(behave)
        done = send("-f", "netstring", "-r", server.at, large)
        server.close()
        if done.code != code or got == [30000000]:
            return "%r: %r %r" % (answer, done, got)
    return None


def check_a_close_in_the_middle_is_75(_, directory):
    large = write(directory, "huge", b"x" * 30000000)
    for way in ("fin", "reset"):
        def behave(number, connection, how=way):
            connection.recv(1000)
            if how == "reset":
                kit.reset(connection)

        server = kit.Server(behave)
        codes = [send(server.at, large), send("-r", server.at, large)]
        server.close()
        if [done.code for done in codes] != [75, 75]:
            return "%s: %r" % (way, codes)
    return None


def check_a_close_before_the_end_was_said_is_no_receipt(_, directory):
    """FIN from the server while the message is only half there."""
    large = write(directory, "huge", b"x" * 30000000)

    def behave(number, connection):
        connection.recv(1000)
        connection.shutdown(socket.SHUT_WR)
        kit.read_all(connection)

    server = kit.Server(behave)
    done = send(server.at, large)
    server.close()
    return done.code != 75 and repr(done)


def check_a_close_over_what_was_not_taken_is_75(_, directory):
    """FIN from the server when all is sent, but lies in our kernel: it has read nothing.  Then
    silence, or a reset."""
    data = write(directory, "sent", b"x" * 300000)
    release = threading.Event()

    def wait_state(port, state):
        until = time.monotonic() + kit.DEADLINE
        found = False
        while not found and time.monotonic() < until:
            with open("/proc/net/tcp", encoding="ascii") as file:
                found = any(line.split()[2].endswith(":%04X" % port) and line.split()[3] == state
                            for line in file)
            time.sleep(0.01)

    for end, said in ((lambda connection: release.wait(kit.DEADLINE), "not all was taken"),
                      (kit.reset, "reset")):
        def behave(number, connection, how=end):
            del number
            wait_state(server.port, "04")  # FIN_WAIT1: it has sent all
            connection.shutdown(socket.SHUT_WR)
            wait_state(server.port, "0B")  # CLOSING
            how(connection)

        server = kit.Server(behave, receive=2048)
        done = send(server.at, data)
        release.set()
        server.close()
        if done.code != 75 or said not in done.err:
            return repr(done)
    return None


def check_silence_is_75(_, directory):
    del directory
    release = threading.Event()
    server = kit.Server(lambda number, connection: release.wait(kit.DEADLINE))
    done = send("--timeout", "200ms", server.at, data=b"x")
    release.set()
    server.close()
    return (done.code != 75 or "timeout" not in done.err) and repr(done)


def check_a_changing_file_is_never_accepted(_, directory):
    for options in ([], ["-f", "netstring"], ["-f", "length"]):
        path = write(directory, "changing", b"x" * 20000000)
        got = []

        def behave(number, connection, file=path, list_=got):
            connection.recv(1000)
            with open(file, "ab") as out:
                out.write(b"more")
            try:
                kit.read_all(connection)
                list_.append("whole")
            except OSError:
                list_.append("reset")

        server = kit.Server(behave)
        done = send(*options, "--retry", "2", server.at, path)
        server.close()
        if done.code != 65 or got != ["reset"] or "changed" not in done.err:
            return repr((options, done, got))
    return None


def check_what_vanishes_or_changes_before_its_turn(_, directory):
    """All files are looked at first; what is another by its turn is not sent."""
    one, other = write(directory, "first", b"1"), os.path.join(directory, "second")
    for change, code, said in ((lambda: os.unlink(other), 66, "No such file"),
                               (lambda: write(directory, "second", b"33"), 65, "has changed since"),
                               (lambda: write(directory, "second", b""), 65, "has changed since")):
        for options in [], ["-f", "line"], ["-f", "netstring", "-r", "--per-connection", "1"]:
            write(directory, "second", b"2")

            def behave(number, connection, how=change, receipts="-r" in options):
                if number == 1:
                    how()
                if receipts:
                    connection.recv(100)
                    connection.sendall(OK % 1)
                kit.read_all(connection)

            server = kit.Server(behave)
            done = send("--retry", "3", *options, server.at, one, other)
            connections = server.connections
            server.close()
            # Lines of both may have been read before the connection was there to change one.
            if done.code != code and options != ["-f", "line"] or connections > 2 or \
                    done.code not in (0, code) or (done.code and said not in done.err):
                return repr((code, options, connections, done))
    return None


def check_nowhere_to_copy_to(_, directory):
    """What comes from a pipe needs a temporary file."""
    full = "/dev/full"
    done = [send("127.0.0.1:1", data=b"x", env={"TMPDIR": os.path.join(directory, "nowhere")}),
            send("127.0.0.1:1", data=b"x", env={"TMPDIR": full}),
            send("127.0.0.1:1", data=b"x", env={"TMPDIR": ""})]
    return ([one.code for one in done] != [73, 73, 69] or "TMPDIR" not in done[0].err) and repr(done)


def check_being_killed_is_a_reset(_, directory):
    path = write(directory, "huge", b"x" * 100000000)
    got = []
    started = threading.Event()

    def behave(number, connection):
        connection.recv(1000)
        started.set()
        try:
            kit.read_all(connection)
            got.append("whole")
        except OSError:
            got.append("reset")

    wait = threading.Event()
    server = kit.Server(lambda number, connection: (connection.recv(1000), started.set(),
                                                    wait.wait(kit.DEADLINE),
                                                    behave(number, connection)))
    process = subprocess.Popen([kit.tool(), "send", server.at, path])
    started.wait(kit.DEADLINE)
    process.kill()
    process.wait()
    wait.set()
    server.close()
    return got != ["reset"] and repr(got)


def check_statuses_of_what_cannot_be(daemon, directory):
    at = daemon.at("eof")
    for arguments, code in (
            ([at, os.path.join(directory, "nowhere")], 66), ([at, directory], 66),
            (["no-such-host.invalid:1", "/dev/null"], 65), (["-f", "line"], 64),
            (["no-such-host.invalid:1"], 68), (["127.0.0.1:1"], 69), (["::1:5"], 64),
            (["127.0.0.1:70000"], 64), (["unix:relative"], 64), (["-f", "mime", at], 64),
            (["-f", "delimiter", at], 64), (["-d", "x", at], 64), (["-i", at], 64),
            (["--tls-ca", "x", at], 64), (["--retry", "x", at], 64), (["--timeout", "1y", at], 64),
            (["--nonsense", at], 64), ([], 64), (["-f", "delimiter", "-d", "", at], 64),
            (["-f", "delimiter", "-d", "x" * 1025, at], 64), (["-f", "delimiter", "-d", "\\q", at], 64),
            (["--length-bytes", "3", at], 64), (["--length-bytes", "44", at], 64),
            (["--length-order", "middle", at], 64), (["--retry-for", "soon", at], 64),
            (["--retry-delay", "-1", at], 64), (["--per-connection", "x", at], 64),
            (["--tls", "--tls-key", "x", at], 64), (["--tls", "-r", "unix:/x", at], 64),
            (["unix:/x"], 64), (["--retry", "1", "--retry-delay", "0", "127.0.0.1:1"], 69)):
        done = send(*arguments, data=b"x")
        if done.code != code or not done.err:
            return "%r: %r" % (arguments, done)
    if kit.run().code != 64 or kit.run("frobnicate").code != 64:
        return "without a subcommand"
    for arguments in (["--version"], ["--help"], ["send", "--help"], ["queue", "--help"],
                      ["top", "--help"]):
        done = kit.run(*arguments)
        if done.code or not done.out or done.err:
            return "%r: %r" % (arguments, done)
    with open("/dev/full", "wb") as full:
        code = subprocess.run([kit.tool(), "--version"], stdout=full, stderr=subprocess.DEVNULL,
                              check=False).returncode
    return code != 74 and "a full standard output: %d" % code


def check_progress_only_on_a_terminal(_, directory):
    path = write(directory, "slow", b"x" * 20000000)

    def behave(number, connection):
        until = time.monotonic() + 1.4
        while time.monotonic() < until:
            connection.recv(65536)
            time.sleep(0.02)
        while connection.recv(1 << 20):
            pass

    server = kit.Server(behave)
    master, slave = pty.openpty()
    process = subprocess.Popen([kit.tool(), "send", server.at, path], stderr=slave)
    os.close(slave)
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
    code = process.wait(kit.DEADLINE)
    server.close()
    return (code or b"%" not in seen or not seen.endswith(b"\r\x1b[K")) and repr((code, seen))


def main():
    tests = kit.Tests()
    with kit.storage.Scratch() as directory:
        daemon = kit.Daemon(os.path.join(directory, "d"), settings(os.path.join(directory, "d")))
        tests.all(sys.modules[__name__], daemon, directory)
        tests.result(daemon.stop() == 0, "the daemon ends in order")
        if tests.failed:
            raise SystemExit(tests.end())
    return tests.end()


if __name__ == "__main__":
    sys.exit(main())
