#!/usr/bin/env python3
"""sink: what a nats sink publishes, what it answers when servers, stream, subject or message
are not as they should be, and what it does while servers come and go.  Against a real
nats-server.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, Daemon, DEADLINE, free_ports, require, storage, wait_for  # noqa: E402

ODD = [b"", b"\0", bytes(range(256)) * 4, b"\r\nPUB x 0\r\n\r\n", "\u00e4\u20ac".encode(), b"x" * 70000]


def facts(tap, scratch):
    """Bytes, subjects and headers, and what the file may say."""
    with Cluster(scratch + "/a") as cluster:
        cluster.add_stream("S", ["intake.>"])
        top = 'listeners = { a = { port = 0; deliver = "n"; }; b*c-d = { port = 0; deliver = "n"; }; };'
        with Daemon(scratch + "/b", cluster.urls(), 'subject = "intake.{listener}.x-{peer}";',
                    top=top) as daemon:
            daemon.open()
            tap.result(daemon.ask(*ODD, listener="a") == ["OK"] * len(ODD), "odd bytes are accepted")
            tap.result(daemon.ask(b"1", listener=r"b\*c-d") == ["OK"], "an odd listener, too")
            found = cluster.messages("S")
            tap.result([data for _, _, data in found] == ODD + [b"1"],
                       "they are in the stream, byte for byte, in order")
            tap.result([subject for subject, _, _ in found] ==
                       ["intake.a.x-127_0_0_1"] * len(ODD) + ["intake.b_c-d.x-127_0_0_1"],
                       "by their subjects, without a wildcard")
            headers = found[2][1]
            tap.result(headers["Nats-Msg-Id"] == headers["Cistern-Id"] and
                       re.match("[0-9A-HJKMNP-TV-Z]{26}$", headers["Cistern-Id"]) is not None and
                       headers["Nats-Expected-Stream"] == "S", "id and stream: %r" % headers)
            tap.result(headers["Cistern-Listener"] == "a" and headers["Cistern-Size"] == "1024" and
                       headers["Cistern-Ended"] == "frame" and
                       re.match(r"127\.0\.0\.1:\d+$", headers["Cistern-Peer"]) is not None and
                       headers["Cistern-Local"] == "127.0.0.1:%d" % daemon.address("a")[1] and
                       re.match(r"\d{4}-.*\.\d{6}Z$", headers["Cistern-Time"]) is not None and
                       "Cistern-Tls-Subject" not in headers, "facts as headers")
            tap.result(len({h["Nats-Msg-Id"] for _, h, _ in found}) == len(found), "ids differ")
            many = [b"%d" % i for i in range(5000)]
            tap.result(daemon.ask(*many, listener="a") == ["OK"] * 5000, "5,000 at once")
            tap.result([data for _, _, data in cluster.messages("S")][-5000:] == many,
                       "in their order")
            tap.result(daemon.stop() == 0, "an orderly stop")
            tap.result(re.search(r"received 5007 messages: 5007 accepted", daemon.log()) is not None,
                       "all is accounted for")


def large(tap, scratch):
    """Too large for the server, for the stream, and claim_check."""
    with Cluster(scratch + "/a", more="max_payload: 4096") as cluster:
        cluster.add_stream("S", ["intake.>"])
        with Daemon(scratch + "/b", cluster.urls()) as daemon:
            daemon.open()
            answers = daemon.ask(b"x" * 3500, b"y" * 4096, b"z", b"w" * 5000000)
            tap.result(answers == ["OK", "REJECT too-large", "OK", "REJECT too-large"],
                       "max_payload: %r" % answers)
            # With its headers it is past max_payload, alone it is not: the server would hang up.
            answers = daemon.ask(*[b"x" * size for size in range(3600, 4097, 8)])
            tap.result("REJECT too-large" in answers and "RETRY unavailable" not in answers and
                       sorted(answers, key=lambda a: a != "OK") == answers, "headers count")
            tap.result(len(daemon.events("nats-connected")) == 1, "the server never hung up")
            cluster.update_stream("S", max_msg_size=1000)
            answers = daemon.ask(b"x" * 2000, b"y" * 10)
            tap.result(answers == ["REJECT too-large", "OK"], "max_msg_size: %r" % answers)
            tap.result(not daemon.events("sink-failing"), "that is no trouble of the sink")
    with Cluster(scratch + "/c", more="max_payload: 4096") as cluster:
        cluster.add_stream("S", ["intake.>"])
        spool = scratch + "/spool"
        more = 'p = { type = "spool"; directory = "%s"; min_free = 0; };' % spool
        with Daemon(scratch + "/d", cluster.urls(), 'subject = "intake.{listener}";'
                    'claim_check = "p";', more=more, top='port = 0; deliver = "n";'
                    'memory_limit = "1M"; ') as daemon:
            daemon.open()
            sizes = [10, 5000, 3000000, 4096]
            messages = [os.urandom(size) for size in sizes]
            tap.result(daemon.ask(*messages) == ["OK"] * 4, "claim_check: all are accepted")
            found = cluster.messages("S")
            tap.result(found[0][2] == messages[0] and "Cistern-Claim" not in found[0][1],
                       "what fits is published itself")
            wrong = []
            for (_, headers, data), message in zip(found[1:], messages[1:]):
                claim = json.loads(data)
                with open(headers["Cistern-Claim"], "rb") as file:
                    if not (file.read() == message and claim["claim"] == headers["Cistern-Claim"] and
                            claim["size"] == len(message) and claim["id"] == headers["Nats-Msg-Id"]
                            and claim["listener"] == "main" and claim["ended"] == "frame"):
                        wrong.append(claim)
            tap.result(not wrong and len(found) == 4, "the others lie in the spool: %r" % wrong)
            tap.result(len(os.listdir(spool + "/new")) == 3, "and nothing else does")
            cluster.update_stream("S", max_msg_size=700)
            tap.result(daemon.ask(b"x" * 1000) == ["OK"] and
                       len(os.listdir(spool + "/new")) == 4, "too large for the stream: the same")
            cluster.update_stream("S", max_msgs=6)
            tap.result(daemon.ask(b"x" * 5000, b"y" * 5000) == ["OK", "RETRY storage"] and
                       len(os.listdir(spool + "/new")) == 5,
                       "what the stream refuses leaves no file")


def trouble(tap, scratch):
    """Streams that are full, gone, another's or never were."""
    with Cluster(scratch + "/a") as cluster:
        with Daemon(scratch + "/b", cluster.urls()) as daemon:
            daemon.wait_readiness(False, "no such stream; make it")
            tap.result(True, "a stream that is not there: readiness says what to do")
            begun = time.monotonic()
            tap.result(daemon.ask(b"1") == ["RETRY unavailable"] and
                       time.monotonic() - begun < 10, "messages are refused at once")
            cluster.add_stream("S", ["intake.>"], max_msgs=3)
            daemon.wait_readiness(True)
            tap.result(daemon.ask(b"1") == ["OK"], "it is made: all is well by itself")
            tap.result(daemon.ask(b"2", b"3", b"4", b"5") ==
                       ["OK", "OK", "RETRY storage", "RETRY storage"], "a full stream")
            daemon.wait_readiness(False, "maximum messages exceeded")
            cluster.update_stream("S", max_msgs=100)
            daemon.wait_readiness(True)
            tap.result(daemon.ask(b"6") == ["OK"], "it has room again")
            tap.result(len(daemon.events("sink-failing")) == 2 and
                       len(daemon.events("sink-well")) == 2, "each is said once, with its end")
            cluster.update_stream("S", subjects=["other"])
            answers = daemon.ask(b"7", b"8")
            tap.result(answers == ["RETRY unavailable"] * 2, "a subject that it lost: %r" % answers)
            daemon.wait_readiness(False, "does not take the subject intake.main")
            cluster.add_stream("T", ["intake.>"])
            answers = daemon.ask(b"9")
            tap.result(answers == ["RETRY unavailable"] and cluster.count("T") == 0,
                       "another stream takes it: it is not stored there: %r" % answers)
            cluster.request("$JS.API.STREAM.DELETE.T")
            cluster.update_stream("S", subjects=["intake.>"])
            daemon.wait_readiness(True)
            tap.result(daemon.ask(b"10") == ["OK"], "well again")
            cluster.request("$JS.API.STREAM.DELETE.S")
            answers = daemon.ask(b"11")
            tap.result(answers == ["RETRY unavailable"], "the stream is removed: %r" % answers)
            daemon.wait_readiness(False, "no such stream")
            tap.result(daemon.stop() == 0, "an orderly stop")
            tap.result(" 0 in flight" in daemon.log(), "all is accounted for")
    with Cluster(scratch + "/c") as cluster, \
            Daemon(scratch + "/d", cluster.urls(), 'subject = "a.{listener}.b"; create = { '
                   'storage = "memory"; max_bytes = "1M"; max_age = "1h"; '
                   'duplicate_window = "30s"; };') as daemon:
        daemon.open()
        config = cluster.info("S")["config"]
        tap.result(config["subjects"] == ["a.*.b"] and config["storage"] == "memory" and
                   config["max_bytes"] == 1 << 20 and config["max_age"] == 3600 * 10 ** 9 and
                   config["duplicate_window"] == 30 * 10 ** 9 and config["discard"] == "new" and
                   config["num_replicas"] == 1, "create: %r" % config)
        tap.result(daemon.ask(b"x") == ["OK"], "and it takes messages")
    with Cluster(scratch + "/e") as cluster:
        cluster.servers[0].kill()
        with open(cluster.servers[0].config, "r+", encoding="utf-8") as file:
            text = re.sub("jetstream.*", "", file.read())
            file.seek(0)
            file.truncate()
            file.write(text)
        cluster.start()
        with Daemon(scratch + "/f", cluster.urls(), 'subject = "a"; timeout = 2;') as daemon:
            daemon.wait_readiness(False, "JetStream is not enabled")
            tap.result(daemon.ask(b"x") == ["RETRY unavailable"], "no JetStream at all")


def later(function, *arguments):
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def outages(tap, scratch):
    """Servers that are down at the start, go, freeze and come back."""
    with Cluster(scratch + "/a") as cluster:
        cluster.add_stream("S", ["intake.>"])
        server = cluster.servers[0]
        server.kill()
        with Daemon(scratch + "/b", cluster.urls()) as daemon:
            daemon.wait_readiness(False, "no server can be reached")
            tap.result(True, "a server that is down at the start is no reason not to start")
            answers = []
            waiting = later(lambda: answers.append(daemon.ask(b"1", b"2")))
            cluster.start()
            waiting.join(DEADLINE)
            tap.result(answers == [["OK", "OK"]], "messages wait for it: %r" % answers)
            daemon.wait_readiness(True)
            server.kill()
            waiting = later(lambda: answers.append(daemon.ask(b"3")))
            daemon.wait_readiness(False, "connection was lost")
            cluster.start()
            waiting.join(DEADLINE)
            tap.result(answers[1:] == [["OK"]], "it is started anew: nobody is refused")
            daemon.wait_readiness(True)
            server.freeze()
            waiting = later(lambda: answers.append(daemon.ask(b"4")))
            wait_for("the silence is noticed", lambda: not daemon.readiness()[0])
            server.thaw()
            waiting.join(DEADLINE)
            tap.result(answers[2:] == [["OK"]], "one that was cut off for a while: the same")
            daemon.wait_readiness(True)
            data = [d for _, _, d in cluster.messages("S")]
            tap.result(data == [b"1", b"2", b"3", b"4"],
                       "each is there once, though sent again: %r" % data)
            server.kill()
            begun = time.monotonic()
            tap.result(daemon.stop() == 0 and time.monotonic() - begun < DEADLINE,
                       "a stop while it is down")
        with Daemon(scratch + "/c", cluster.urls(), 'subject = "intake.x"; timeout = 2;') as daemon:
            begun = time.monotonic()
            answers = daemon.ask(b"5")
            waited = time.monotonic() - begun
            tap.result(answers == ["RETRY unavailable"] and waited > 0.5,
                       "a message waits for timeout, not longer: %r" % answers)
            begun = time.monotonic()
            tap.result(daemon.ask(*[b"x"] * 100) == ["RETRY unavailable"] * 100,
                       "an outage of that length: messages are refused")
            cluster.start()
            daemon.wait_readiness(True)
            tap.result(daemon.ask(b"6") == ["OK"], "until the server is back")
            # What is not acknowledged when the time for a stop is over is SHUTDOWN.
            server.freeze()
            daemon.rewrite("shutdown_timeout = 5", "shutdown_timeout = 1")
            daemon.rewrite("timeout = 2;", "timeout = 60;")
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_event("reloaded")
            answers = []
            waiting = later(lambda: answers.append(daemon.ask(*[b"y"] * 50)))
            wait_for("they have arrived", lambda: received(daemon) == 152)
            code = daemon.stop()
            waiting.join(DEADLINE)
            tap.result(code == 0 and answers in ([["RETRY shutdown"] * 50], [[]]),
                       "a stop that is over: %r %r" % (code, answers))
            tap.result(" 0 in flight" in daemon.log(), "all is accounted for")
            server.thaw()


def states(daemon):
    """Of its threads: (name, state, whether somebody traces it)."""
    for task in os.listdir("/proc/%d/task" % daemon.process.pid):
        with open("/proc/%d/task/%s/status" % (daemon.process.pid, task), encoding="ascii") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        yield fields["Name"], fields["State"][0], fields["TracerPid"].strip() != "0"


def stands_still(daemon, name):
    """Whether a thread is held by its tracer, and not only for a moment."""
    for _ in range(10):
        if (name, "t", True) not in states(daemon):
            return False
        time.sleep(.02)
    return True


def is_connected(port):
    """Whether anybody has a connection to it, perhaps one that only the other side has closed."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        return any(fields[2].endswith(":%04X" % port) and fields[3] in ("01", "08")
                   for fields in [line.split() for line in table])


def lost_meanwhile(tap, scratch):
    """The connection is lost while the sink's thread is at a file: what waits goes on waiting."""
    title = "a connection lost while its thread is busy"
    if shutil.which("strace") is None or subprocess.run(
            ["strace", "-o", os.devnull, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        tap.result(True, title + " # SKIP no strace, or it may not trace here")
        return
    with Cluster(scratch + "/a", more="max_payload: 4096") as cluster:
        cluster.add_stream("S", ["intake.>"])
        more = 'p = { type = "spool"; directory = "%s/spool"; min_free = 0; };' % scratch
        with Daemon(scratch + "/b", cluster.urls(), 'subject = "intake.x"; claim_check = "p";',
                    more=more, top='port = 0; deliver = "n";') as daemon:
            daemon.open()
            tap.result(daemon.ask(b"1", b"w" * 5000) == ["OK", "OK"], "a message, and a claim")
            cluster.update_stream("S", max_msgs=2)
            slow = subprocess.Popen(
                ["strace", "-f", "-o", os.devnull, "-p", str(daemon.process.pid), "-e",
                 "trace=unlinkat", "-e", "inject=unlinkat:delay_enter=4000000"],
                stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for("the tracer", lambda: all(traced and state != "t"
                                               for _, state, traced in states(daemon)))
            answers, first = [], []
            refused = later(lambda: first.append(daemon.ask(b"x" * 5000)))
            wait_for("the thread to be at the claim's file", lambda: stands_still(daemon, "nats-n"))
            waiting = later(lambda: answers.append(daemon.ask(b"2")))
            wait_for("it has arrived", lambda: received(daemon) == 4)
            cluster.servers[0].kill()
            wait_for("the connection to be lost", lambda: not is_connected(cluster.servers[0].port))
            tap.result(stands_still(daemon, "nats-n"), "its thread does not know yet")
            refused.join(DEADLINE)
            slow.terminate()
            slow.wait()
            cluster.start()
            cluster.update_stream("S", max_msgs=9)
            waiting.join(DEADLINE)
            # It may be sent before there is room for it.
            tap.result(first == [["RETRY storage"]] and answers in ([["OK"]], [["RETRY storage"]]),
                       "%s: what came meanwhile waits for the next: %r" % (title, first + answers))


def received(daemon):
    port = int(re.search(r"status-listening.*?127\.0\.0\.1:(\d+)", daemon.log()).group(1))
    with socket.create_connection(("127.0.0.1", port), DEADLINE) as connection:
        connection.sendall(b"GET /status.json HTTP/1.0\r\n\r\n")
        data = b""
        while piece := connection.recv(65536):
            data += piece
    listeners = json.loads(data.partition(b"\r\n\r\n")[2])["listeners"]
    return sum(listener["messages"]["received"] for listener in listeners)


def reload(tap, scratch):
    """A changed sink works beside the old one, under load."""
    with Cluster(scratch + "/a") as cluster:
        cluster.add_stream("S", ["intake.>", "other.>"])
        with Daemon(scratch + "/b", cluster.urls()) as daemon:
            daemon.open()
            counts, stop = [], threading.Event()

            def load(number):
                sent = 0
                while not stop.is_set():
                    answers = daemon.ask(*[b"%d.%d.%d" % (number, sent, i) for i in range(20)])
                    if answers != ["OK"] * 20:
                        counts.append(answers)
                    sent += 1
                counts.append(sent * 20)
            threads = [later(load, number) for number in range(4)]
            for turn in range(6):
                names = ("intake.", "other.")
                daemon.rewrite(names[turn % 2] + "{", names[1 - turn % 2] + "{")
                daemon.process.send_signal(signal.SIGHUP)
                wait_for("reload", lambda t=turn: len(daemon.events("reloaded")) == t + 1)
            stop.set()
            for thread in threads:
                thread.join(DEADLINE)
            wrong = [answers for answers in counts if not isinstance(answers, int)]
            tap.result(not wrong, "nobody is refused: %r" % wrong[:1])
            found = cluster.messages("S")
            tap.result(len(found) == sum(counts) == len({data for _, _, data in found}),
                       "%d messages, each once" % len(found))
            tap.result(len({subject for subject, _, _ in found}) == 2, "by both subjects")
            threads = len(os.listdir("/proc/%d/task" % daemon.process.pid))
            tap.result(threads < 40, "old connections are gone: %d threads" % threads)
            tap.result(daemon.stop() == 0, "an orderly stop")


def make_certificates(directory):
    """An authority, a server's certificate for localhost and one for elsewhere, a client's."""
    os.makedirs(directory)

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=directory,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl("req", "-x509", *new, "-keyout", "no.key", "-out", "no.pem", "-subj", "/CN=other")
    for name, alternative in (("server", "DNS:localhost,IP:127.0.0.1"), ("wrong", "DNS:elsewhere.example"),
                              ("client", "DNS:client")):
        openssl("req", *new, "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
        with open(directory + "/ext", "w", encoding="ascii") as file:
            file.write("subjectAltName=" + alternative)
        openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-days", "2", "-out", name + ".pem", "-extfile", "ext")


def secrets(tap, scratch):
    """TLS, and who is let in."""
    users = """authorization { users: [ { user: cis, password: "se:cret" },
        { user: few, password: few, permissions: { publish: "intake.>", subscribe: "_INBOX.>" } } ] }"""
    with Cluster(scratch + "/a") as cluster:
        server = cluster.servers[0]
        cluster.add_stream("S", ["intake.>"])
        server.kill()
        server.write(more=users)
        cluster.start()
        for url, ready, what in (
                ("cis:se:cret@", True, "a name and a password"), ("few:few@", True,
                 "a user who may not ask about the stream"), ("cis:no@", False, "a wrong password"),
                ("", False, "no password")):
            with Daemon(scratch + "/b", '"nats://%s127.0.0.1:%d"' % (url, server.port),
                        'subject = "intake.x"; timeout = 1;') as daemon:
                daemon.wait_readiness(ready)
                if not ready:
                    daemon.wait_event("sink-failing")
                answers = daemon.ask(b"x")
                tap.result(answers == (["OK"] if ready else ["RETRY unavailable"]),
                           "%s: %r" % (what, answers))
                tap.result("se:cret" not in daemon.log() and "cis:no" not in daemon.log(),
                           "no password in the log")
                if not ready:
                    tap.result("uthorization" in daemon.events("sink-failing")[0],
                               "the log says why: %r" % daemon.events("sink-failing")[0][26:])
                tap.result(daemon.stop() == 0, "an orderly stop")
        server.kill()
        server.write(more='authorization { token: "t0ken" }')
        cluster.start()
        with Daemon(scratch + "/c", '"nats://t0ken@127.0.0.1:%d"' % server.port,
                    'subject = "intake.x";') as daemon:
            daemon.open()
            tap.result(daemon.ask(b"x") == ["OK"], "a token")
    if shutil.which("openssl") is None:
        tap.result(True, "TLS # SKIP there is no openssl")
        return
    pki = scratch + "/pki"
    make_certificates(pki)
    with Cluster(scratch + "/d") as cluster:
        server = cluster.servers[0]
        cluster.add_stream("S", ["intake.>"])

        def serve(certificate, more=""):
            server.kill()
            server.write(more='tls { cert_file: "%s/%s.pem", key_file: "%s/%s.key", '
                         'ca_file: "%s/ca.pem" %s }' % (pki, certificate, pki, certificate, pki, more))
            cluster.start()

        def attempt(what, expected, tls, url="tls://localhost", why=""):
            with Daemon(scratch + "/e", '"%s:%d"' % (url, server.port),
                        'subject = "intake.x"; timeout = 1; %s' % tls) as daemon:
                if expected:
                    daemon.open()
                answers = daemon.ask(b"x")
                tap.result(answers == (["OK"] if expected else ["RETRY unavailable"]),
                           "%s: %r" % (what, answers)) or tap.note(daemon.log())
                if why:
                    tap.result(why in "".join(daemon.events("sink-failing")), "the log says why: %r" %
                               [line[26:] for line in daemon.events("sink-failing")])
        ca = 'ca = "%s/ca.pem";' % pki
        ours = 'certificate = "%s/client.pem"; key = "%s/client.key";' % (pki, pki)
        serve("server")
        attempt("TLS", True, "tls = { %s };" % ca)
        attempt("TLS by the address", True, "tls = { %s };" % ca, "nats://127.0.0.1")
        attempt("an authority that is not ours", False, 'tls = { ca = "%s/no.pem"; };' % pki,
                why="ertificate")
        attempt("an authority that nobody knows", False, "")
        serve("server", ", verify: true")
        attempt("a certificate of ours", True, "tls = { %s %s };" % (ca, ours))
        attempt("none, where one is asked for", False, "tls = { %s };" % ca)
        serve("wrong")
        attempt("a certificate of another host", False, "tls = { %s };" % ca, why="ost")


def configuration(tap, scratch):
    """What -t says, without connecting to anything."""
    directory = scratch + "/t"
    os.makedirs(directory)
    good = 'type = "nats"; servers = "nats://127.0.0.1:1"; subject = "a"; stream = "S";'
    port = free_ports(1)[0]

    def check(sink):
        with open(directory + "/c", "w", encoding="utf-8") as file:
            file.write('port = %d;\nsinks = {\n p = { type = "spool"; directory = "%s"; };\n'
                       ' n = { %s\n };\n f = { type = "spool"; directory = "%s/f"; forward = "n"; };\n'
                       '};\ndeliver = "n";\n' % (port, directory, sink, directory))
        done = subprocess.run([storage.program(), "-t", "-c", directory + "/c"], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
                              timeout=DEADLINE)
        return done.returncode, done.stdout + done.stderr

    with open(directory + "/junk", "w", encoding="ascii") as file:
        file.write("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\nPRIVATE KEY-----\n")
    tap.result(check(good)[0] == 0, "-t: a good file, no server: %r" % (check(good),))
    for servers in ("localhost", "tls://a.example:1", "nats://[::1]:4222", "nats://u:p@h:1",
                    "t0k@h", '[ "a", "b:2" ]'):
        text = servers if servers[0] == "[" else '"%s"' % servers
        found = check(good.replace('"nats://127.0.0.1:1"', text))
        tap.result(found[0] == 0, "-t: servers = %s %r" % (servers, found if found[0] else ""))
    for old, new, expected in (
            ('"nats://127.0.0.1:1"', '"http://x"', "nats://HOST:PORT"),
            ('"nats://127.0.0.1:1"', '"nats://x:0"', "nats://HOST:PORT"),
            ('"nats://127.0.0.1:1"', '"nats://x:99999"', "nats://HOST:PORT"),
            ('"nats://127.0.0.1:1"', '"nats://u:hidden@"', "not shown"),
            ('"nats://127.0.0.1:1"', '"nats://x/path"', "nats://HOST:PORT"),
            ('"nats://127.0.0.1:1"', "[]", "empty list"),
            ('subject = "a"', 'subject = "a.*"', "wildcard"),
            ('subject = "a"', 'subject = "a..b"', "dots"),
            ('subject = "a"', 'subject = "a b"', "space"),
            ('subject = "a"', 'subject = "$JS.x"', "servers' own"),
            ('subject = "a"', 'subject = "a.{size}"', "{listener} and {peer}"),
            ('subject = "a"', 'subject = "a.}"', "without its {"),
            ('subject = "a";', "", 'lacks "subject"'),
            ('stream = "S";', "", 'lacks "stream"'),
            ('"S"', '"S.x"', "stream's name"),
            ('"S";', '"S"; timeout = 0;', "duration"),
            ('"S";', '"S"; credentials = "/nonexistent/c";', "No such file"),
            ('"S";', '"S"; credentials = "%s/junk";' % directory, "credentials"),
            ('"S";', '"S"; tls = { ca = "/nonexistent/c"; };', "No such file"),
            ('"S";', '"S"; tls = { ca = "%s/c"; };' % directory, "certificates (PEM)"),
            ('"S";', '"S"; tls = { ca = "%s/junk"; };' % directory, "junk"),
            ('"S";', '"S"; tls = { certificate = "%s/junk"; };' % directory, 'lacks "key"'),
            ('"S";', '"S"; create = { replicas = 9; };', "from 1 to 5"),
            ('"S";', '"S"; create = { storage = "tape"; };', '"file" or "memory"'),
            ('"S";', '"S"; create = { subjects = "x"; };', "unknown setting"),
            ('"S";', '"S"; claim_check = "q";', "no spool (did you mean"),
            ('"S";', '"S"; claim_check = "n";', "no spool"),
            ('"S";', '"S"; claim_check = "f";', "forwards what it gets")):
        code, said = check(good.replace(old, new))
        tap.result(code == 78 and expected in said and "/c:4: " in said and "hidden" not in said,
                   "-t: %s: %r" % (new or "no " + old, said.partition(": ")[2][:200]))


def main():
    require()
    tap = storage.Tap()
    tests = sys.argv[1:] or ["configuration", "facts", "large", "trouble", "outages", "lost_meanwhile",
                             "reload", "secrets"]
    for name in tests:
        with storage.Scratch() as scratch:
            failed = tap.failed
            try:
                globals()[name](tap, scratch)
            except Exception as error:  # the others shall run all the same
                tap.result(False, "%s: %s: %s (line %d)" % (
                    name, type(error).__name__, str(error)[-3000:].replace("\n", "\n# "),
                    error.__traceback__.tb_next.tb_lineno))
            if tap.failed > failed:
                for root, _, files in os.walk(scratch):
                    for file in files:
                        if file.endswith(".log"):
                            with open(os.path.join(root, file), encoding="utf-8") as log:
                                tap.note("%s:\n%s" % (file, log.read()[-3000:]))
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
