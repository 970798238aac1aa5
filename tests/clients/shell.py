#!/usr/bin/env python3
"""shell: what people have at hand to send bytes with: nc in its variants, socat, curl, logger,
shells and scripting languages, an HL7 sender, CUPS: which messages arrive, byte for byte, and
what each of them learns when a message is accepted and when it is not.

shell.py [WORD]: only the clients whose names have the word; --table: the table for
docs/RELIABILITY.md.
"""

import re
import subprocess
import sys

import kit
import storage

CLOSE = 'framing = "eof"; reply = "receipt";'
SILENCE = CLOSE + ' quiet_timeout = "300ms";'
LINE = 'framing = "line"; reply = "receipt";'
ONE_LINE = LINE + " max_messages = 1;"
MLLP = 'framing = "mllp";'
TLS = kit.TLS + " "
RECEIPT = r"OK \w{26} \d+\n"
IN_TIME = None
HANGS = "hangs"  # it never ends by itself; it is ended with TERM, once the message is there


class Client:
    """command: a shell's, with {port} and {path} (of the program); `input`: its standard input.
    messages: what is delivered; broken: what is put aside instead.
    ends: the exit status when all was accepted, says: what its output then has ("": no receipt;
    IN_TIME: one only if it comes before the client has left).
    refused: the exit status when the message was not accepted and the connection reset
    (reply = "none"); None: not asked."""

    def __init__(self, name, package, command, listener, messages, **more):
        self.name, self.package, self.command, self.listener = name, package, command, listener
        self.messages = messages
        self.program = more.pop("program", name.split()[0].rstrip(","))
        self.input = more.pop("input", b"one\ntwo\n")
        self.broken = more.pop("broken", [])
        self.ends = more.pop("ends", 0)
        self.says = more.pop("says", RECEIPT if "receipt" in listener else "")
        self.refused = more.pop("refused", None)
        assert not more


BOTH = [b"one\ntwo\n"]
LINES = [b"one", b"two"]
HL7 = b"MSH|^~\\&|LAB|1\rPID|1"
CLIENTS = (
    # OpenBSD's: without -N or -q it never closes its side.
    Client("nc.openbsd -N", "netcat-openbsd", "{path} -N 127.0.0.1 {port}", CLOSE, BOTH, refused=0),
    Client("nc.openbsd -q 1", "netcat-openbsd", "{path} -q 1 127.0.0.1 {port}", CLOSE, BOTH, refused=0),
    Client("nc.openbsd", "netcat-openbsd", "{path} 127.0.0.1 {port}", SILENCE, BOTH),
    Client("nc.openbsd -C", "netcat-openbsd", "{path} -N -C 127.0.0.1 {port}", CLOSE,
           [b"one\r\ntwo\r\n"]),
    Client("nc.openbsd, ended", "netcat-openbsd", "{path} 127.0.0.1 {port}", LINE, LINES, ends=HANGS),
    Client("nc.traditional", "netcat-traditional", "{path} 127.0.0.1 {port}", SILENCE, BOTH),
    Client("nc.traditional -q 1", "netcat-traditional", "{path} -q 1 127.0.0.1 {port}", CLOSE, BOTH,
           refused=0),
    # It does not wait for an answer.
    Client("nc.traditional -q 0", "netcat-traditional", "{path} -q 0 127.0.0.1 {port}", CLOSE, BOTH,
           says=IN_TIME, refused=0),
    Client("ncat", "ncat", "{path} 127.0.0.1 {port}", CLOSE, BOTH, refused=1),
    Client("ncat --send-only", "ncat", "{path} --send-only 127.0.0.1 {port}", CLOSE, BOTH, says="",
           refused=0),
    Client("ncat -C", "ncat", "{path} -C 127.0.0.1 {port}", LINE, LINES),
    # It sends no close_notify: only what has an end of its own is whole.
    Client("ncat --ssl", "ncat", "{path} --ssl 127.0.0.1 {port}", TLS + CLOSE, [], broken=BOTH, says=""),
    Client("ncat --ssl, lines", "ncat", "{path} --ssl 127.0.0.1 {port}", TLS + ONE_LINE, [b"one"],
           input=b"one\n"),
    Client("busybox nc", "busybox", "{path} nc 127.0.0.1 {port}", CLOSE, BOTH, refused=0),
    # It waits half a second for an answer, or as long as -t says.
    Client("socat", "socat", "{path} -t 30 - TCP:127.0.0.1:{port}", CLOSE, BOTH, refused=0),
    Client("socat -u", "socat", "{path} -u - TCP:127.0.0.1:{port}", CLOSE, BOTH, says="", refused=0),
    Client("socat OPENSSL", "socat", "{path} -t 30 - OPENSSL:127.0.0.1:{port},verify=0", TLS + CLOSE,
           BOTH),
    Client("openssl s_client", "openssl",
           "{path} s_client -quiet -no_ign_eof -connect 127.0.0.1:{port}", TLS + LINE, LINES, says=IN_TIME),
    Client("gnutls-cli", "gnutls-bin", "{path} --insecure --logfile=/dev/null -p {port} 127.0.0.1",
           TLS + CLOSE, BOTH),
    # It never closes its side.
    Client("curl telnet://", "curl", "{path} -sS telnet://127.0.0.1:{port}", ONE_LINE, [b"one"],
           input=b"one\n", refused=56),
    Client("curl --haproxy-protocol", "curl",
           "{path} -sS -A x --haproxy-protocol http://127.0.0.1:{port}/",
           'framing = "delimiter"; delimiter = "\\r\\n\\r\\n"; max_messages = 1; proxy_protocol = true; '
           'proxy_from = "127.0.0.1";', None, ends=52),
    Client("bash /dev/tcp", "bash", "{path} -c 'cat >/dev/tcp/127.0.0.1/{port}'", CLOSE, BOTH, says="",
           refused=0),
    Client("bash /dev/tcp, both ways", "bash",
           "{path} -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && cat >&3 && read -r answer <&3 && "
           "echo \"$answer\"'", LINE, LINES, refused=1),
    Client("gawk", "gawk", "{path} 'BEGIN {{ s = \"/inet/tcp/0/127.0.0.1/{port}\"; printf \"one\" |& s; "
           "close(s, \"to\"); if ((s |& getline answer) < 1) exit 1; print answer }}'", CLOSE, [b"one"],
           refused=1),
    Client("python3", "python3", "{path} -c 'import socket, sys; "
           "s = socket.create_connection((\"127.0.0.1\", {port})); s.sendall(sys.stdin.buffer.read()); "
           "s.shutdown(1); print(s.recv(99).decode())'", CLOSE, BOTH, refused=1),
    Client("perl", "perl", "{path} -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:{port}\");"
           "print $s <STDIN>; $s->shutdown(1); defined(sysread($s, $b, 99)) or exit 1; print $b'", CLOSE,
           BOTH, refused=1),
    Client("ruby", "ruby", "{path} -rsocket -e 's = TCPSocket.new(\"127.0.0.1\", {port}); "
           "s.write($stdin.read); s.close_write; puts s.read'", CLOSE, BOTH, refused=1),
    # It ends without waiting for anything.
    Client("logger", "bsdutils", "{path} -T -n 127.0.0.1 -P {port} -t t --rfc5424=notime,nohost,notq",
           LINE, [b"<13>1 - - t - - - one", b"<13>1 - - t - - - two"], says="", refused=0),
    Client("logger --octet-count", "bsdutils",
           "{path} -T -n 127.0.0.1 -P {port} -t t --octet-count --rfc5424=notime,nohost,notq",
           'framing = "octet-counted";', [b"<13>1 - - t - - - one", b"<13>1 - - t - - - two"]),
    Client("logger --rfc3164", "bsdutils", "{path} -T -n 127.0.0.1 -P {port} -t t --rfc3164", LINE,
           [re.compile(rb"<13>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ t: one"),
            re.compile(rb"<13>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ t: two")], says=""),
    # An HL7 sender waits for an answer to each message, whatever it is.
    Client("mllp_send", "python3-hl7", "{path} --file={file} -p {port} 127.0.0.1", MLLP + ' reply = "receipt";', [HL7],
           input=b"\x0b" + HL7 + b"\r\x1c\r", refused=1),
    Client("mllp_send, no answer", "python3-hl7", "{path} --file={file} -p {port} 127.0.0.1", MLLP, [HL7],
           input=b"\x0b" + HL7 + b"\r\x1c\r", ends=HANGS),
    # What CUPS runs for a printer at socket://: it closes its side and waits for ours.
    Client("CUPS", "cups", "DEVICE_URI=socket://127.0.0.1:{port} {path} 1 user title 1 '' {file}",
           'framing = "eof";', BOTH, program="/usr/lib/cups/backend-available/socket", refused=0),
)


def configuration(clients):
    listeners = ""
    for number, client in clients.items():
        listeners += "c%d = {{ %s }};\n" % (number, client.listener)
        if client.refused is not None:
            text = re.sub(r'reply = "\w+"; ?', "", client.listener)
            listeners += "r%d = {{ %s max_message_size = 2; }};\n" % (number, text)
    return 'incomplete = "b"; deliver = "f"; listeners = {{ %s }}; sinks = {{ ' \
        'f = {{ type = "file"; path = "{directory}/f.json"; sync = false; }}; ' \
        'b = {{ type = "file"; path = "{directory}/b.json"; sync = false; }}; }};' % listeners


def run(client, program, port, directory, arrived):
    """(exit status, output), or (HANGS, output)."""
    path = directory + "/input"
    with open(path, "wb") as file:
        file.write(client.input)
    command = client.command.format(port=port, path=program.path, file=path)
    with subprocess.Popen(["/bin/sh", "-c", "exec " + command if "=" not in command.split()[0]
                           else "env " + command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=program.env, start_new_session=True) as process:
        if client.ends == HANGS:
            process.stdin.write(client.input)
            process.stdin.close()
            kit.wait(arrived)
            output = process.stdout.readline() if client.says else b""
            hung = process.poll() is None
            process.terminate()
            output += process.stdout.read()
            return HANGS if hung else process.wait(), output.decode(errors="replace")
        try:
            output, error = process.communicate(client.input, 30)
        except subprocess.TimeoutExpired:
            process.kill()
            return "stuck", ""
        return process.returncode, output.decode(errors="replace") + \
            (error.decode(errors="replace") if process.returncode else "")


def matches(found, expected):
    return len(found) == len(expected) and all(
        want.fullmatch(got) if isinstance(want, re.Pattern) else want == got
        for got, want in zip(found, expected))


def test(tap, daemon, directory, number, client, program):
    def of(listener, name="f.json"):
        return [data for which, _, _, data in kit.records(directory, name) if which == listener]

    expected = client.messages
    if client.name == "curl --haproxy-protocol":
        expected = [b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: x\r\nAccept: */*"
                    % daemon.ports["c%d" % number]]
    name = "c%d" % number
    arrived = lambda: len(of(name)) >= len(expected) and len(of(name, "b.json")) >= len(client.broken)
    status, output = run(client, program, daemon.ports[name], directory, arrived)
    kit.wait(arrived)
    found, broken = of(name), of(name, "b.json")
    tap.result(matches(found, expected) and matches(broken, client.broken),
               "%s: %s" % (client.name, "its messages arrive" if expected else
                           "what it sends is incomplete, and put aside"),
               "delivered %r, put aside %r" % (found, broken))
    ends = "hangs" if client.ends == HANGS else "ends with %s" % client.ends
    if client.says is IN_TIME:
        tap.result(status == client.ends, "%s: it %s, with a receipt or without" % (client.name, ends),
                   "%s: %r" % (status, output))
    else:
        tap.result(status == client.ends and
                   (re.search(client.says, output) if client.says else "OK" not in output),
                   "%s: it %s, and is told %s" % (client.name, ends, "so" if client.says else "nothing"),
                   "%s: %r" % (status, output))
    if client.refused is not None:
        status, output = run(client, program, daemon.ports["r%d" % number], directory, None)
        kit.wait(lambda: of("r%d" % number, "b.json"))
        tap.result(status == client.refused and not of("r%d" % number),
                   "%s: refused, it ends with %d%s" % (
                       client.name, client.refused, "" if client.refused else ", as if all were well"),
                   "%s: %r" % (status, output))


def print_table():
    print("| client | framing, end | what arrives | when accepted | when refused |")
    print("|---|---|---|---|---|")
    for client in CLIENTS:
        settings = "TLS, " if "tls =" in client.listener else ""
        settings += re.search(r'framing = "([a-z-]+)"', client.listener).group(1)
        settings += ", `quiet_timeout`" if "quiet_timeout" in client.listener else ""
        settings += ", `max_messages = 1`" if "max_messages" in client.listener else ""
        arrives = "nothing: incomplete" if client.broken else "as sent" \
            if client.messages in (BOTH, LINES, [b"one"], [HL7], None) else "CRs are added" \
            if client.messages == [b"one\r\ntwo\r\n"] else "with a syslog header"
        ends = "hangs" if client.ends == HANGS else "status %d" % client.ends
        told = "receipt if it comes in time" if client.says is IN_TIME else \
            "receipt" if client.says else "no receipt" if "receipt" in client.listener else "-"
        refused = "" if client.refused is None else "status %d" % client.refused
        print("| %s | %s | %s | %s, %s | %s |" % (client.name, settings, arrives, ends, told, refused))


def main():
    if "--table" in sys.argv:
        print_table()
        return 0
    has_tls = kit.need()
    tap = storage.Tap()
    clients, programs = {}, {}
    for number, client in enumerate(CLIENTS):
        if len(sys.argv) > 1 and sys.argv[1] not in client.name:
            continue
        program = kit.find([client.program], client.package)
        if isinstance(program, str):
            tap.skip(client.name, program)
        elif "tls =" in client.listener and not has_tls:
            tap.skip(client.name, "built without TLS, or no openssl to make a certificate")
        else:
            clients[number], programs[number] = client, program
    with storage.Scratch() as directory:
        daemon = kit.start(directory, configuration(clients), has_tls)
        for number, client in clients.items():
            test(tap, daemon, directory, number, client, programs[number])
        account = daemon.end(tap, "%d clients" % len(clients))
        tap.result(account.get("refused") == account.get("failed") == 0, "and nothing else was refused")
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
