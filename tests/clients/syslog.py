#!/usr/bin/env python3
"""syslog: rsyslog and syslog-ng as senders: lines, counted octets, TLS by both of rsyslog's
libraries; and what becomes of their messages when cisternd is killed, stopped or has no room.

CLIENTS=all (make check-clients): the second part, too, which takes a minute; SYSLOG_MESSAGES
(300), SYSLOG_KILLS (3): how many in it.
"""

import os
import re
import socket
import subprocess
import sys
import time

import kit
import storage

MESSAGES = int(os.environ.get("SYSLOG_MESSAGES", "300"))
KILLS = int(os.environ.get("SYSLOG_KILLS", "3"))
SINK = 'deliver = "f"; sinks = {{ f = {{ type = "file"; path = "{directory}/f.json"; }}; }}; '


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Relay:
    """A syslog daemon that takes lines on a port of its own, and sends them on."""

    def __init__(self, program, directory, target, **how):
        self.port = free_port()
        self.directory = os.path.join(directory, "%s.%d" % (type(self).__name__, self.port))
        os.mkdir(self.directory)
        config = os.path.join(self.directory, "conf")
        with open(config, "w", encoding="ascii") as file:
            file.write(self.configuration(program, target, **how))
        self.log = open(os.path.join(self.directory, "log"), "w+b")
        self.process = subprocess.Popen([program.path] + self.arguments(program, config),
                                        env=program.env, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, cwd=self.directory)
        until = time.monotonic() + storage.DEADLINE
        while True:
            try:
                self.feed = socket.create_connection(("127.0.0.1", self.port), storage.DEADLINE)
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.process.kill()
                    self.process.wait()
                    raise RuntimeError(self.said()) from None
                time.sleep(.02)

    def said(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as file:
            return file.read()[-3000:]

    def send(self, lines):
        self.feed.sendall(b"".join(line + b"\n" for line in lines))

    def stop(self):
        self.feed.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Rsyslog(Relay):
    def arguments(self, program, config):
        modules = program.under("/usr/lib/*/rsyslog") if program.root else None
        return ["-n", "-i", os.path.join(self.directory, "pid"), "-f", config] + \
            (["-M", modules] if modules else [])

    def configuration(self, program, target, framing="traditional", driver="", template="bare"):
        tls = 'StreamDriver="%s" StreamDriverMode="1" StreamDriverAuthMode="anon"' % driver \
            if driver else ""
        return """global(workDirectory="%s" net.enableDNS="off" DefaultNetstreamDriverCAFile="%s")
module(load="imptcp")
template(name="bare" type="string" string="%%rawmsg%%")
input(type="imptcp" address="127.0.0.1" port="%d" supportOctetCountedFraming="off")
action(type="omfwd" target="127.0.0.1" port="%d" protocol="tcp" TCP_Framing="%s" template="%s" %s
       action.resumeRetryCount="-1" action.resumeInterval="1"
       queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="16")
""" % (self.directory, os.path.join(os.path.dirname(self.directory), "server.pem"), self.port, target,
       framing, template, tls)


class SyslogNg(Relay):
    def arguments(self, program, config):
        modules = program.under("/usr/lib/syslog-ng/[0-9]*") if program.root else None
        return ["-F", "--no-caps", "-f", config] + \
            ["--%s=%s" % (flag, os.path.join(self.directory, flag))
             for flag in ("persist-file", "pidfile", "control")] + \
            (["--module-path=" + modules] if modules else [])

    def configuration(self, program, target, driver="network", transport="tcp"):
        version = re.search(r"Config version: (\S+)|^syslog-ng \d+ \((\d+\.\d+)", subprocess.run(
            [program.path, "--version"] + ([self.modules(program)] if program.root else []),
            capture_output=True, text=True, env=program.env, check=True).stdout, re.M)
        tls = "tls(peer-verify(no))" if transport == "tls" else ""
        template = 'template("$MSG\\n")' if driver == "network" else ""
        return """@version: %s
options { stats-freq(0); time-reopen(1); use-dns(no); dns-cache(no); keep-hostname(yes); };
source s { network(ip("127.0.0.1") port(%d) transport("tcp") flags(no-parse)); };
destination d { %s("127.0.0.1" port(%d) transport("%s") %s %s); };
log { source(s); destination(d); flags(flow-control); };
""" % (version.group(1) or version.group(2), self.port, driver, target, transport, tls, template)

    def modules(self, program):
        return "--module-path=" + program.under("/usr/lib/syslog-ng/[0-9]*")


# (name, relay, listener, how it sends, what is delivered of a line)
TRADITIONAL = rb"<\d+>\w{3} [ \d]\d \d\d:\d\d:\d\d \S+ %s"
SENDERS = (
    ("rsyslog, lines", Rsyslog, 'framing = "line";', {}, None),
    ("rsyslog, its own format", Rsyslog, 'framing = "line";',
     {"template": "RSYSLOG_TraditionalForwardFormat"}, TRADITIONAL),
    ("rsyslog, counted", Rsyslog, 'framing = "octet-counted";', {"framing": "octet-counted"}, None),
    ("rsyslog, lines, TLS by GnuTLS", Rsyslog, kit.TLS + 'framing = "line";', {"driver": "gtls"}, None),
    ("rsyslog, counted, TLS by OpenSSL", Rsyslog, kit.TLS + 'framing = "octet-counted";',
     {"driver": "ossl", "framing": "octet-counted"}, None),
    ("syslog-ng, network()", SyslogNg, 'framing = "line";', {}, None),
    ("syslog-ng, network(), TLS", SyslogNg, kit.TLS + 'framing = "line";', {"transport": "tls"}, None),
    ("syslog-ng, syslog()", SyslogNg, 'framing = "octet-counted";', {"driver": "syslog"},
     rb"<\d+>1 \S+ \S+ - - - - (?:\xef\xbb\xbf)?%s\n"),
    ("syslog-ng, syslog(), TLS", SyslogNg, kit.TLS + 'framing = "octet-counted";',
     {"driver": "syslog", "transport": "tls"}, rb"<\d+>1 \S+ \S+ - - - - (?:\xef\xbb\xbf)?%s\n"),
)


def line(number):
    return b"<13>Nov 28 18:00:00 host app: message %d" % number


def sends(tap, program, directory, sender):
    """Twenty lines arrive, byte for byte, in their order."""
    name, relay_class, listener, how, pattern = sender
    where = os.path.join(directory, re.sub(r"\W+", "-", name))
    os.mkdir(where)
    daemon = kit.start(where, listener + SINK, True)
    lines = [line(number) for number in range(20)]
    relay = None
    try:
        relay = relay_class(program, where, daemon.port, **how)
        relay.send(lines)
        kit.wait(lambda: len(kit.records(where)) >= len(lines), 30)
        found = [data for _, _, _, data in kit.records(where)]
        said = relay.said()
    finally:
        if relay is not None:
            relay.stop()
        daemon.end(tap, name)
    # Without a template of ours the text begins behind the header that was sent, or at it.
    good = len(found) == len(lines) and all(
        got == want if pattern is None else
        re.fullmatch(pattern % (rb"(?:.* )?" + re.escape(b"message %d" % number)), got)
        for number, (got, want) in enumerate(zip(found, lines)))
    tap.result(good, "%s: what arrives is what was sent, in order" % name,
               "%r\n%s" % (found[:2], said if not found else ""))


class Flow:
    """A relay that always has something to send, one way, to a daemon that comes and goes."""

    def __init__(self, relay_class, program, directory):
        self.directory, self.port = directory, free_port()
        self.sent = 0
        self.daemon = self.start("0")
        try:
            self.relay = relay_class(program, directory, self.port)
        except RuntimeError:
            self.daemon.kill()
            raise

    def start(self, min_free):
        return kit.start(self.directory, 'framing = "line"; idle_timeout = 0; deliver = "s"; '
                         'listeners = {{ main = {{ port = %d; }}; }}; sinks = {{ s = {{ type = "spool"; '
                         'directory = "{directory}/spool"; min_free = "%s"; }}; }};'
                         % (self.port, min_free), True)

    def numbers(self):
        """Of the messages that are stored; each has to be whole."""
        found = []
        for data in kit.peer.delivered(self.directory).values():
            one = re.fullmatch(re.escape(line(0))[:-1] + rb"(\d+)", data)
            found.append(int(one.group(1)) if one else -1)
        return sorted(found)

    def send(self, count):
        for _ in range(count):
            self.relay.send([line(self.sent)])
            self.sent += 1
            time.sleep(.001)

    def arrives(self, number):
        return kit.wait(lambda: number in self.numbers(), 30)


def judge(tap, flow, name, what):
    """All that was sent once it is well again arrives."""
    first = flow.sent
    # What a broken connection takes along is the first after it, which the sender notices by.
    kit.wait(lambda: (flow.send(1), time.sleep(.1), flow.numbers()[-1:] > [first - 1])[2], 30)
    last = flow.sent
    flow.send(20)
    flow.arrives(flow.sent - 1)
    found = flow.numbers()
    lost = sorted(set(range(flow.sent)) - set(found))
    tap.result(-1 not in found and set(range(last, flow.sent)) <= set(found),
               "%s, %s: nothing half is stored, and what is sent afterwards arrives" % (name, what),
               "%r\n%s" % (found[-30:], flow.relay.said()))
    tap.note("%s, %s: %d sent, %d lost by the sender, %d twice" % (
        name, what, flow.sent, len(lost), len(found) - len(set(found))))


def killed(tap, name, program, relay_class, directory):
    flow = Flow(relay_class, program, directory)
    try:
        for _ in range(KILLS):
            flow.send(MESSAGES)
            flow.daemon.kill()
            flow.daemon = flow.start("0")
        judge(tap, flow, name, "killed %d times" % KILLS)
    finally:
        flow.relay.stop()
        flow.daemon.end(tap, name)


def stopped(tap, name, program, relay_class, directory):
    """An orderly restart: who has been told that all was accepted has lost nothing."""
    flow = Flow(relay_class, program, directory)
    try:
        for _ in range(KILLS):
            flow.send(MESSAGES)
            flow.daemon.stop()
            flow.daemon = flow.start("0")
        judge(tap, flow, name, "restarted %d times" % KILLS)
    finally:
        flow.relay.stop()
        flow.daemon.end(tap, name)


def full(tap, name, program, relay_class, directory):
    """No space for a while: every message is refused by a reset."""
    flow = Flow(relay_class, program, directory)
    try:
        flow.send(MESSAGES)
        flow.arrives(flow.sent - 1)
        flow.daemon.stop()
        flow.daemon = flow.start("4T")
        flow.send(MESSAGES)
        flow.daemon.wait_log(" sink-failing", 1)
        flow.daemon.stop()
        flow.daemon = flow.start("0")
        judge(tap, flow, name, "no space for a while")
    finally:
        flow.relay.stop()
        flow.daemon.end(tap, name)


def main():
    if not kit.need():
        storage.skip_all("built without TLS, or no openssl to make a certificate")
    tap = storage.Tap()
    programs = {Rsyslog: kit.find(["rsyslogd"], "rsyslog", fetched_first=True),
                SyslogNg: kit.find(["syslog-ng"], "syslog-ng-core")}
    with storage.Scratch() as directory:
        for sender in SENDERS:
            program, driver = programs[sender[1]], sender[3].get("driver", "")
            if isinstance(program, str):
                tap.skip(sender[0], program)
            elif sender[1] is Rsyslog and driver and not (
                    program.under("/usr/lib/*/rsyslog/lmnsd_%s.so" % driver)):
                tap.skip(sender[0], "rsyslog's module lmnsd_%s is missing" % driver)
            else:
                sends(tap, program, directory, sender)
        for relay_class, program in programs.items():
            for number, test in enumerate((killed, stopped, full)):
                name = relay_class.__name__.lower()
                if isinstance(program, str) or os.environ.get("CLIENTS") != "all":
                    tap.skip("%s, %s" % (name, test.__name__), program
                             if isinstance(program, str) else "it takes long: make check-clients")
                    continue
                where = os.path.join(directory, "%s%d" % (name, number))
                os.mkdir(where)
                test(tap, name, program, relay_class, where)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
