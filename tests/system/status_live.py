#!/usr/bin/env python3
"""status_live: the status service while what it tells of changes: a worker that stands still,
reloads that take sinks and the service itself away, connections in each of their states.
"""

import json
import os
import re
import signal
import socket
import struct
import sys
import threading

from manager import Service, connect, wait_for
from service import (PTRACE_CONT, PTRACE_DETACH, PTRACE_INTERRUPT, PTRACE_SEIZE, WALL, ptrace,
                     task_named)
from status import CONFIG, ask, metrics, raw, status_port, total
from storage import DEADLINE, Scratch, Tap, program


def stalled(tap, scratch):
    """A worker that stands still (ptrace): who asks is answered by the others, also who has given up,
    and too many are told so; once it turns again, its late answers do no harm."""
    service = Service(scratch, CONFIG.format(scratch, "", "")).ready()
    task = task_named(service, "worker-0")
    try:
        port = status_port(service)
        try:
            ptrace(PTRACE_SEIZE, task)
        except OSError as error:
            tap.skip("a stalled worker", error)
            task = None
            return
        ptrace(PTRACE_INTERRUPT, task)
        os.waitpid(task, WALL)
        first = json.loads(ask(port, "/status.json")[1])
        second = json.loads(ask(port, "/status.json")[1])
        tap.result(first["workers"] == second["workers"] == 2, "the live connections are told without it")
        for path in (b"/", b"/status.json") * 30:
            with socket.create_connection(("127.0.0.1", port), DEADLINE) as client:
                client.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
        tap.result(ask(port, "/healthz")[0].status in (200, 503), "60 who do not wait for an answer")
        answers = []

        def curious():
            answers.append(raw(port, b"GET /status.json HTTP/1.0\r\n\r\n")[9:12])
        crowd = [threading.Thread(target=curious) for _ in range(60)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        tap.result(set(answers) <= {b"200", b"503", b""} and b"200" in answers, "60 who do: %s" % set(answers))
        wait_for("the reason", lambda: "does not turn" in ask(port, "/readyz")[1])
        tap.result(ask(port, "/readyz")[0].status == 503 and ask(port, "/healthz")[0].status == 503 and
                   not json.loads(ask(port, "/status.json")[1])["ready"], "it is not ready, and not well")
        ptrace(PTRACE_CONT, task)
        held = [socket.create_connection(("127.0.0.1", port), DEADLINE)]
        # What was in force before the last reload is closed by the next one, whoever still waits.
        for address in ("127.0.0.2", "127.0.0.3"):
            with open(service.config, "w", encoding="utf-8") as file:
                file.write(CONFIG.format(scratch, "", "").replace(
                    "status = {", 'status = { address = "%s";' % address))
            service.signal(signal.SIGHUP)
            line = service.wait_event("status-listening", address + ":")[-1]
            port = int(line.rsplit(":", 1)[1].split("/")[0])
            if address == "127.0.0.2":
                service.wait_event("reloaded")
                ptrace(PTRACE_INTERRUPT, task)
                os.waitpid(task, WALL)
                for _ in range(4):
                    held.append(socket.create_connection((address, port), DEADLINE))
                    held[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        ptrace(PTRACE_DETACH, task)
        task = None
        wait_for("it is ready again", lambda: raw(
            port, b"GET /readyz HTTP/1.0\r\n\r\n", 20, address)[9:12] == b"200")
        for client in held:
            client.close()
        tap.result(service.stop() == 0, "an orderly stop")
    finally:
        if task is not None:
            try:
                ptrace(PTRACE_DETACH, task)
            except OSError: # it turns, or has never been ours
                pass
        service.end()


def changes(tap, scratch):
    """What reloads take away: sinks are told of as long as they have counted, the service itself
    is gone at once; an address that all can reach is named in the log."""
    service = Service(scratch, CONFIG.format(scratch, "", "")).ready()

    def change(config):
        count = len(service.events("reloaded"))
        with open(service.config, "w", encoding="utf-8") as file:
            file.write(config)
        service.signal(signal.SIGHUP)
        wait_for("the reload", lambda: len(service.events("reloaded")) > count)
    try:
        port = status_port(service)
        client = connect(service.address())
        client.sendall(b"one\n")
        tap.result(client.recv(100).startswith(b"OK "), "a message")
        client.close()
        config = CONFIG.format(scratch, "", "").replace("\"spool\";", "\"console\";", 1)
        without = re.sub("sinks = .*\n", "", config)
        change(without)
        figures = metrics(port)
        found = json.loads(ask(port, "/status.json")[1])
        body = ask(port, "/")[1]
        tap.result(figures['cistern_sink_messages_total{sink="spool",outcome="accepted"}'] == 1 and
                   [s["name"] for s in found["sinks"]] == ["console"] and "spools" not in found and
                   '<th scope="row" class="t">none' in body.split('id="spools"')[1].split("</table>")[0],
                   "a sink that is gone has its counts, and is not among the sinks", repr(found))
        change(without.replace("status = {", 'status = { address = "*";'))
        line = service.wait_event("status-exposed")
        tap.result(bool(line), "all addresses: %d warnings" % len(line))
        everywhere = int(re.findall(r"http://0\.0\.0\.0:(\d+)/", service.log())[-1])
        tap.result(b" 200 " in raw(everywhere, b"GET /healthz HTTP/1.0\r\n\r\n")[:20], "and it answers")
        change(re.sub("status = .*\n", "", without))

        def refused():
            try:
                socket.create_connection(("127.0.0.1", everywhere), DEADLINE).close()
            except ConnectionRefusedError:
                return True
            return False
        tap.result(refused(), "without the group nobody listens")
        tap.result(service.stop() == 0, "an orderly stop")
    finally:
        service.end()


def waits(tap, scratch):
    """What each connection waits for; more of them than the page shows."""
    more = """hold = {{ deliver = "slow"; max_in_flight = 1; }};
        proxied = {{ proxy_protocol = true; proxy_from = "127.0.0.1"; }};
        paced = {{ rate_limit = {{ connection = 1000; }}; }};
        echo = {{ reply = "echo"; deliver = "console"; framing = "length"; }};
        closed = {{ max_messages = 1; }};""".replace("{{", "{").replace("}}", "}")
    sinks = """slow = { type = "command"; argv = [ "/bin/sleep", "100" ]; run_as_root = true; };
        console = { type = "console"; format = "raw"; }; spool = """
    config = CONFIG.format(scratch, more, "").replace("spool = ", sinks, 1)
    service = Service(scratch, config).ready()
    try:
        port = status_port(service)
        clients = {name: connect(service.address(name)) for name in
                   ("main", "hold", "proxied", "paced", "echo", "closed")}
        clients["hold"].sendall(b"one\ntwo\n")
        clients["paced"].sendall(b"x" * 100000)
        clients["closed"].sendall(b"all\n")
        clients["echo"].setblocking(False)
        frame, sent = struct.pack(">I", 900000) + b"e" * 900000, 0

        def pour():
            """Echoes that nobody reads."""
            nonlocal sent
            try:
                while True:
                    sent += clients["echo"].send(frame[sent % len(frame):])
            except BlockingIOError:
                pass

        def found():
            pour()
            return {c["listener"]: c["waits_for"] for c in json.loads(ask(port, "/status.json")[1])[
                "connections"]}
        expected = {"main": "client", "hold": "sinks", "proxied": "proxy-header", "paced": "rate",
                    "echo": "replies", "closed": "close"}
        try:
            wait_for("all of them", lambda: found() == expected)
        except TimeoutError:
            pass
        got = found()
        tap.result(got == expected, "each says what it waits for: %s" % got)
        crowd = [connect(service.address()) for _ in range(520)]
        wait_for("the crowd", lambda: total(metrics(port), "cistern_connections_active") >= 520)
        shown = re.search(r"500 of 52\d", ask(port, "/")[1])
        tap.result(shown is not None, "the page shows %s" % (shown and shown.group()))
        for client in [*crowd, *clients.values()]:
            client.close()
        service.signal()
        service.wait_event("stop-timeout")
        tap.result(service.wait() == 0, "an orderly stop")
    finally:
        service.end()


def short_of_memory(tap, scratch):
    """Messages that nobody takes fill memory_limit: not ready, and why, until they are gone."""
    config = CONFIG.format(scratch, "", "").replace("spool = ", """slow = { type = "command";
        argv = [ "/bin/sleep", "100" ]; run_as_root = true; }; spool = """, 1).replace(
            'deliver = "spool";', 'deliver = "slow"; memory_limit = "1M"; max_in_flight = 1000000;')
    service = Service(scratch, config).ready()
    try:
        port = status_port(service)
        clients = [connect(service.address()) for _ in range(4)]
        for client in clients:
            client.setblocking(False)

        def reason():
            for client in clients:
                try:
                    client.send((b"m" * 500 + b"\n") * 1000)
                except BlockingIOError:
                    pass
            return "memory_limit is reached" in ask(port, "/readyz")[1]
        wait_for("the reason", reason)
        tap.result(ask(port, "/readyz")[0].status == 503, "not ready, and why")
        for client in clients:
            client.close()
        service.signal()
        service.wait_event("stop-timeout")
        tap.result(service.wait() == 0, "an orderly stop")
    finally:
        service.end()


def main():
    tap = Tap()
    if program() is None:
        print("1..0 # SKIP there is no cisternd")
        return 0
    for test in (stalled, changes, waits, short_of_memory):
        with Scratch() as scratch:
            test(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
