#!/usr/bin/env python3
"""recipes: those of the README, word for word but for paths, ports and networks, each with
the clients that it is for.
"""

import contextlib
import glob
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys

for room in ("tls", "kafka"):
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", room))
from manager import Service, connect, finish, wait_for  # noqa: E402
from storage import DEADLINE, Scratch, Tap, program, skip_all  # noqa: E402
import cluster  # noqa: E402
import peer  # noqa: E402

# tests/kafka has a kit of the same name.
nats = importlib.util.module_from_spec(importlib.util.spec_from_file_location("nats_cluster", os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "..", "nats", "cluster.py")))
nats.__spec__.loader.exec_module(nats)

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "README.md")
HERE = """
address = "127.0.0.1"; spill_directory = "{0}";
"""


def recipes():
    """{title: settings}"""
    with open(README, encoding="utf-8") as file:
        text = file.read().split("\n## Recipes\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"^\*\*([^*]+)\*\*[^\n]*\n(?:[^\n]+\n)*\n((?:    [^\n]*\n)+)", text, re.M)
    return {title: re.sub(r"^    ", "", settings, flags=re.M) for title, settings in found}


def start(scratch, settings):
    settings = re.sub(r"^port( *)= \d+;", r"port\1= 0;", settings, flags=re.M)
    if "port" not in settings:
        settings += "port = 0;\n"
    settings = re.sub(r'"/(?:var|etc)/[^"]*/([^/"]+)"', r'"%s/\1"' % scratch, settings)
    settings = settings.replace("192.0.2.0/24", "127.0.0.0/8").replace('"5s"', '"200ms"')
    return Service(scratch, HERE.format(scratch) + settings).ready()


def spooled(scratch, count):
    """The first so many messages of the only spool, in order."""
    def look():
        names = sorted(glob.glob(os.path.join(scratch, "*", "new", "*")))
        return names if len(names) >= count else None
    found = []
    for name in wait_for("%d messages" % count, look):
        with open(name, "rb") as file:
            found.append(file.read())
    return found


def run(*command, data=b""):
    return subprocess.run(command, input=data, capture_output=True, timeout=DEADLINE, check=False)


def at(service):
    return "127.0.0.1:%d" % service.address()[1]


def shell(tap, scratch, service):
    port = str(service.address()[1])
    done = run(program("CISTERN", "./cistern"), "send", at(service), README)
    with open(README, "rb") as file:
        text = file.read()
    tap.result(done.returncode == 0 and spooled(scratch, 1) == [text],
               "cistern send, without --receipt either", repr(done))
    done = run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/%s; echo disk full >&3; exec 3>&-" % port)
    tap.result(done.returncode == 0 and spooled(scratch, 2)[1] == b"disk full\n", "bash alone", repr(done))
    if shutil.which("nc"):
        done = run("nc", "-N", "127.0.0.1", port, data=b"hello\n")
        tap.result(spooled(scratch, 3)[2] == b"hello\n" and
                   re.fullmatch(rb"OK \w{26} 6\n", done.stdout), "nc -N, which shows the receipt", repr(done))


def tutorial(tap, scratch, service):
    client = connect(service.address())
    client.sendall(b"This is a test<EOF>")
    got = b""
    while piece := client.recv(1000):
        got += piece
    client.close()
    tap.result(got == b"This is a test<EOF>", "sent, echoed, closed by the server", repr(got))


def hl7(tap, scratch, service):
    message = rb"MSH|^~\&|LAB|A|||20260101||ORU^R01|1|P|2.5" + b"\rPID|1\r"
    done = run(program("CISTERN", "./cistern"), "send", "--tls", "--tls-ca",
               os.path.join(scratch, "server.pem"), "-f", "mllp", at(service), data=message)
    tap.result(done.returncode == 0 and spooled(scratch, 1) == [message], "cistern send --tls -f mllp",
               repr(done))
    done = run("openssl", "s_client", "-quiet", "-no_ign_eof", "-connect", at(service),
               data=b"\x0b" + message + b"\x1c\r")
    tap.result(spooled(scratch, 2)[1] == message, "openssl s_client", repr(done))


def calls(tap, scratch, service, mock):
    records = [b"2026-01-01 10:00:0%d,100,200,%d" % (n, n) for n in range(5)]
    client = connect(service.address())
    client.sendall(b"\r\n".join(records) + b"\n")
    finish(client)
    path = os.path.join(scratch, "calls.json")
    with open(path, "rb") as file:
        tap.result([b'"data":"%s"' % record in line for record, line in zip(records, file)] == [True] * 5,
                   "lines become records")
    tap.result([record.value for record in mock.records("calls", 5)] == records, "and go to Kafka, in order")
    os.rename(path, path + ".1")
    service.signal(1)
    service.wait_event("reopened")
    finish_line = connect(service.address())
    finish_line.sendall(b"after\n")
    finish(finish_line)
    with open(path, "rb") as file:
        tap.result(b'"data":"after"' in file.read(), "and the file turns")


def printer(tap, scratch, service):
    client = connect(service.address())
    client.sendall(b"^XA^FDlabel^FS^XZ")  # and never closes
    tap.result(spooled(scratch, 1) == [b"^XA^FDlabel^FS^XZ"], "a driver that never closes")
    client.close()
    client = connect(service.address())
    job = b"%!PS\n" + os.urandom(20000000)
    client.sendall(job)
    client.shutdown(socket.SHUT_WR)
    client.recv(1)
    tap.result(spooled(scratch, 2)[1] == job, "a job of 20 MB, and a close")
    client.close()


LP = """#!/bin/sh
test ! -e {0}/jam || exit 75
cat >{0}/printed/tmp.$CISTERN_ID && mv {0}/printed/tmp.$CISTERN_ID {0}/printed/$CISTERN_ID
"""


def printed(tap, scratch, service):
    """Whose printer is jammed at first."""
    jobs = [b"%!PS\n" + os.urandom(1000 * n) for n in range(5)]
    jam, ready = os.path.join(scratch, "jam"), os.path.join(scratch, "printed")
    for job in jobs:
        client = connect(service.address())
        client.sendall(job)
        client.shutdown(socket.SHUT_WR)
        tap.result(client.recv(1) == b"", "jammed: accepted all the same")
        client.close()
    tap.result(sorted(spooled(scratch, 5)) == sorted(jobs) and os.listdir(ready) == [],
               "all wait on disk")
    os.unlink(jam)
    wait_for("the printer", lambda: len(os.listdir(ready)) == 5 and not glob.glob(
        os.path.join(scratch, "jobs", "new", "*")))
    found = []
    for name in os.listdir(ready):
        with open(os.path.join(ready, name), "rb") as file:
            found.append(file.read())
    tap.result(sorted(found) == sorted(jobs), "and are printed when it works again, once each")


def stream(tap, scratch, service, servers):
    lines = [b"line %d of \xff bytes" % n for n in range(20)]
    client = connect(service.address())
    client.sendall(b"\n".join(lines) + b"\n")
    receipts = finish(client).splitlines()
    tap.result(len(receipts) == 20 and all(line.startswith("OK ") for line in receipts), "a receipt a line",
               repr(receipts))
    found = {headers["Nats-Msg-Id"]: (subject, data) for subject, headers, data in servers.messages("INTAKE")}
    tap.result([found.get(receipt.split()[1]) for receipt in receipts] ==
               [("intake.main", line) for line in lines] and len(found) == 20,
               "each is in the stream under its id, and nothing else is", repr(found))


KNOWN = {"The same, printed": printed, "Into NATS JetStream": stream, "Shell scripts": shell, "The .NET tutorial's asynchronous client": tutorial, "HL7": hl7,
         "Call records": calls, "Print jobs": printer}


def missing(settings):
    """Why a recipe cannot be tried here; else None."""
    version = subprocess.run([program(), "-V"], capture_output=True, text=True, check=True).stdout
    if '"kafka"' in settings:
        return cluster.mock_missing()
    if '"nats"' in settings:
        return nats.missing()
    if "tls" in settings and ("without TLS" in version or shutil.which("openssl") is None):
        return "TLS or openssl(1) is missing"
    return None


def surroundings(scratch, stack, settings):
    """What a recipe takes for granted; the settings as they are here, and a broker."""
    broker = ()
    if "tls" in settings:
        peer.certificate(scratch, "server", "/CN=localhost")
    if '"kafka"' in settings:
        broker = (stack.enter_context(cluster.Mock(scratch)),)
        broker[0].topic("calls")
        settings = settings.replace("192.0.2.9:9092", broker[0].brokers[0])
    if '"nats"' in settings:
        broker = (stack.enter_context(nats.Cluster(os.path.join(scratch, "nats"), 3)),)
        broker[0].add_stream("INTAKE", ["intake.>"], 3)
        for name, server in zip(("n1", "n2", "n3"), broker[0].servers):
            settings = settings.replace("nats://" + name, "nats://127.0.0.1:%d" % server.port)
    if "/usr/bin/lp" in settings:
        path = os.path.join(scratch, "lp")
        with open(path, "w", encoding="ascii") as file:
            file.write(LP.format(scratch))
        os.chmod(path, 0o755)
        os.mkdir(os.path.join(scratch, "printed"))
        with open(os.path.join(scratch, "jam"), "wb"):
            pass
        settings = settings.replace('"/usr/bin/lp" ];', '"%s" ];%s' % (
            path, "" if os.geteuid() else " run_as_root = true;"))
    return settings, broker


def main():
    for name, default in (("CISTERND", "./cisternd"), ("CISTERN", "./cistern")):
        if program(name, default) is None:
            skip_all("there is no %s" % default)
    tap = Tap()
    found = recipes()
    tap.result(set(KNOWN) == set(found), "each of the README is tried here: %s" % ", ".join(found))
    for title, settings in found.items():
        if title not in KNOWN:
            continue
        why = missing(settings)
        if why is not None:
            tap.skip(title, why)
            continue
        with Scratch() as scratch, contextlib.ExitStack() as stack:
            settings, more = surroundings(scratch, stack, settings)
            service = start(scratch, settings)
            try:
                tap.note(title)
                KNOWN[title](tap, scratch, service, *more)
                tap.result(service.stop() == 0, "%s: an orderly stop" % title)
            finally:
                service.end()
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
