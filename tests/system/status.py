#!/usr/bin/env python3
"""status: the status service: metrics that add up while traffic flows, clients that mean
harm, readiness and its end, and the page in a real browser.
"""

import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tls"))
import browser  # noqa: E402
from manager import Service, connect, wait_for  # noqa: E402
from storage import DEADLINE, Scratch, Tap, program  # noqa: E402
from peer import certificate  # noqa: E402

CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; reply = "receipt"; framing = "line";
spill_directory = "{0}"; shutdown_timeout = 1;
status = {{ port = 0; hosts = "monitor.example"; }};
deliver = "spool";
listeners = {{ main = {{ }}; {1} }};
sinks = {{ spool = {{ type = "spool"; directory = "{0}/spool"; sync = false; {2} }}; }};
"""


def status_port(service):
    line = service.wait_event("status-listening")[-1]
    return int(re.search(r"http://127\.0\.0\.1:(\d+)/", line).group(1))


def ask(port, path, method="GET", **headers):
    headers.setdefault("Host", "localhost")
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.request(method, path, headers=headers)
    answer = client.getresponse()
    body = answer.read().decode()
    client.close()
    return answer, body


def metrics(port):
    found = {}
    for line in ask(port, "/metrics")[1].splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def total(figures, name):
    return sum(value for key, value in figures.items() if key.split("{")[0] == name)


def balance(figures):
    parts = ["cistern_messages_%s" % part for part in
             ("accepted_total", "refused_total", "failed_total", "in_flight")]
    return total(figures, "cistern_messages_received_total") - sum(total(figures, p) for p in parts)


class Traffic:
    """Senders of lines, who go on until they are told to stop."""

    def __init__(self, address, count=4):
        self.address, self.going, self.sent = address, True, 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self):
        sent = 0
        while self.going:
            client = connect(self.address)
            for _ in range(20):
                client.sendall(b"a line of text\n" * 50)
                got = b""
                while got.count(b"\n") < 50:
                    got += client.recv(65536)
                sent += 50
            client.close()
        with self.lock:
            self.sent += sent

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join()
        return self.sent


def figures(tap, scratch):
    """What is scraped adds up at any moment, never goes back, and follows real traffic."""
    service = Service(scratch, CONFIG.format(scratch, "", "")).ready()
    try:
        port = status_port(service)
        traffic = Traffic(service.address())
        worst, before, back, scrapes = 0.0, {}, [], 0
        until = time.monotonic() + 3
        reloaded = False
        while time.monotonic() < until:
            now = metrics(port)
            scrapes += 1
            worst = max(worst, abs(balance(now)))
            back += [name for name, value in before.items()
                     if ("_total" in name or "_bucket" in name or "_count" in name) and
                     not name.startswith("process_") and now.get(name, 0) < value]
            before = now
            if not reloaded and time.monotonic() > until - 2:
                reloaded = True  # the sink is another one then
                with open(service.config, "w", encoding="utf-8") as file:
                    file.write(CONFIG.format(scratch, "", 'mode = "0600";'))
                service.signal(signal.SIGHUP)
        sent = traffic.stop()
        service.wait_event("reloaded")
        wait_for("all counted", lambda: total(metrics(port), "cistern_messages_accepted_total") == sent)
        now = metrics(port)
        tap.result(worst == 0, "%d scrapes under load: received = accepted + refused + failed + "
                   "in flight" % scrapes, "off by %s" % worst)
        tap.result(not back, "no counter goes back, over a reload either", "\n".join(back[:5]))
        size = now["cistern_received_bytes_total{listener=\"main\"}"]
        tap.result(size == sent * 15 and
                   now['cistern_sink_messages_total{sink="spool",outcome="accepted"}'] == sent and
                   now['cistern_sink_delivery_seconds_count{sink="spool"}'] == sent and
                   now["cistern_message_size_bytes_count"] == sent and
                   now['cistern_message_size_bytes_bucket{le="64"}'] == sent and
                   now["cistern_message_size_bytes_sum"] == sent * 14,
                   "bytes, sizes and outcomes are those of %d messages" % sent)
        text = ask(port, "/metrics")[1]
        if shutil.which("promtool") is None:
            tap.skip("promtool", "it is not installed")
        else:
            result = subprocess.run(["promtool", "check", "metrics"], input=text, text=True,
                                    capture_output=True)
            tap.result(result.returncode == 0 and not result.stdout + result.stderr,
                       "promtool check metrics is silent", result.stdout + result.stderr)
        answer, text = ask(port, "/metrics", Accept="application/openmetrics-text;version=1.0.0,"
                           "text/plain;q=0.5")
        tap.result("application/openmetrics-text" in answer.headers["Content-Type"] and
                   text.endswith("# EOF\n") and "# TYPE cistern_messages_received counter" in text,
                   "OpenMetrics where it is asked for")
        files = len(os.listdir(os.path.join(scratch, "spool", "new")))
        # Counted at the reload, and not again for ten seconds: no more than there are.
        name = 'cistern_spool_messages{sink="spool",state="new"}'
        counted = wait_for("a count", lambda: metrics(port).get(name))
        tap.result(0 < counted <= files, "the spool's files are counted: %d of %d" % (counted, files))
        client = connect(service.address())
        client.sendall(b"one\ntwo\nhalf")
        wait_for("answers", lambda: client.recv(1000))
        found = json.loads(ask(port, "/status.json")[1])
        one = found["connections"][0]
        tap.result(len(found["connections"]) == 1 and one["bytes"] == 12 and one["messages"] == 2 and
                   one["waits_for"] == "client" and one["listener"] == "main" and
                   one["peer"] == "127.0.0.1:%d" % client.getsockname()[1],
                   "status.json has the connection: %s" % json.dumps(one))
        client.close()
        tap.result(found["listeners"][0]["messages"]["received"] == sent + 2 and found["ready"] and
                   found["sinks"][0]["state"] == "ok", "and the same figures")
        tap.result(service.stop() == 0, "an orderly stop")
    finally:
        service.end()


def raw(port, data, patience=20, address="127.0.0.1"):
    client = socket.create_connection((address, port), timeout=patience)
    got = b""
    try:
        client.sendall(data)
        while True:
            more = client.recv(65536)
            if not more:
                break
            got += more
    except OSError:
        pass
    client.close()
    return got


def hostile(tap, scratch):
    """Whoever asks too much, too slowly or in the name of somebody else."""
    service = Service(scratch, CONFIG.format(scratch, "", "")).ready()
    try:
        port = status_port(service)
        codes = {host: ask(port, "/healthz", Host=host)[0].status for host in (
            "127.0.0.1:%d" % port, "[::1]:1", "localhost", "a.localhost", "MONITOR.example:80",
            "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[evil]")}
        tap.result([codes[h] for h in codes] == [200] * 5 + [421] * 4,
                   "only names of ours are answered", repr(codes))
        answer = ask(port, "/")[0]
        policy = answer.headers["Content-Security-Policy"]
        tap.result("default-src 'none'" in policy and "unsafe" not in policy and
                   answer.headers["Cache-Control"] == "no-store" and
                   answer.headers["X-Content-Type-Options"] == "nosniff", "headers: " + policy)
        statuses = [ask(port, "/", method=m)[0].status for m in
                    ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE")]
        tap.result(set(statuses) == {405}, "only GET and HEAD: %s" % statuses)
        head, body = ask(port, "/metrics", method="HEAD")
        tap.result(head.status == 200 and body == "" and int(head.headers["Content-Length"]) > 1000,
                   "HEAD has the length and no body")
        tap.result(ask(port, "/%3Cscript%3E")[0].status == 404, "nothing else is there")
        got = raw(port, b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n" +
                  b"x" * 100000)
        tap.result(b" 200 " not in got[:20], "no body is taken: %r" % got[:30])
        got = raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100000 + b"\r\n\r\n")
        tap.result(b" 200 " not in got[:20], "nor 100 KB of headers: %r" % got[:30])
        got = raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        tap.result(b" 400 " in got[:20], "nor two names: %r" % got[:30])
        raw(port, bytes(range(256)) * 10 + b"\r\n\r\n")
        client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(client)
        answer.begin()
        body = answer.read1(1 << 20)
        while more := answer.read1(1 << 20):
            body += more
        tap.result(body.rstrip().endswith(b"</html>"),
                   "who has closed its side gets all of a page: %d bytes" % len(body))
        client.close()

        def highest():
            with open("/proc/%d/status" % service.process.pid, encoding="ascii") as file:
                return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1))
        before = highest()
        raw(port, b"GET /healthz HTTP/1.0\r\n\r\n" + b"x" * (256 << 20))
        grown = highest() - before
        tap.result(grown < 65536, "256 MB behind a request: %d KiB more memory" % grown)
        crowd = []
        for n in range(1000):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            crowd.append(client)
        began = time.monotonic()
        answers = [ask(port, "/healthz")[0].status for _ in range(3)]
        took = time.monotonic() - began
        fds = len(os.listdir("/proc/%d/fd" % service.process.pid))
        tap.result(answers == [200] * 3 and fds < 200 and took < 8,
                   "beside 1,000 who say nothing: answered in %.1f s, %d descriptors" % (took, fds))
        for client in crowd:
            client.close()
        wait_for("the crowd's end", lambda: len(os.listdir(
            "/proc/%d/fd" % service.process.pid)) < 40)
        # Bytes that trickle in do not keep a connection for ever.
        client = socket.create_connection(("127.0.0.1", port), timeout=1)
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        began, gone = time.monotonic(), False
        while not gone and time.monotonic() < began + 20:
            try:
                client.sendall(b"x")
                gone = client.recv(1) == b""
            except socket.timeout:
                pass
            except OSError:
                gone = True
        took = time.monotonic() - began
        tap.result(gone and 3 < took < 12, "who trickles is gone after %.0f s" % took)
        tap.result(ask(port, "/healthz")[1] == "ok\n" and service.stop() == 0, "all is well then")
    finally:
        service.end()


def moved(tap, scratch):
    """A connection that was answered leaves nothing behind under its descriptor's number:
    a listener that a reload gives that number to is heard."""
    def config(address):
        return CONFIG.format(scratch, "", "").replace(
            "status = {", 'status = { address = "%s";' % address)
    service = Service(scratch, config("127.0.0.1")).ready()
    try:
        answers = [ask(status_port(service), "/healthz")[0].status]
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            with open(service.config, "w", encoding="utf-8") as file:
                file.write(config(address))
            service.signal(signal.SIGHUP)
            line = service.wait_event("status-listening", address + ":")[-1]
            port = int(line.split(address + ":")[1].split("/")[0])
            for _ in range(3):
                got = raw(port, b"GET /healthz HTTP/1.0\r\n\r\n", 3, address)
                answers.append(got.split(b" ")[1:2])
        tap.result(answers == [200] + [[b"200"]] * 9,
                   "moved by a reload just after an answer, it answers", repr(answers))
        tap.result(service.stop() == 0, "an orderly stop")
    finally:
        service.end()


def readiness(tap, scratch):
    """503 while a sink cannot accept, and 200 again; a page that says why."""
    service = Service(scratch, CONFIG.format(scratch, "", "")).ready()
    try:
        port = status_port(service)
        tap.result(ask(port, "/readyz")[0].status == 200, "ready")

        def change(more):
            with open(service.config, "w", encoding="utf-8") as file:
                file.write(CONFIG.format(scratch, "", more))
            count = len(service.events("reloaded"))
            service.signal(signal.SIGHUP)
            wait_for("the reload", lambda: len(service.events("reloaded")) > count)
        change('min_free = "1000000G";')
        client = connect(service.address())
        client.sendall(b"nowhere\n")
        tap.result(client.recv(100) == b"RETRY storage\n", "a message is refused")
        answer, text = ask(port, "/readyz")
        tap.result(answer.status == 503 and text.startswith("sink spool: "), "not ready: " + text.strip())
        found = json.loads(ask(port, "/status.json")[1])
        tap.result(not found["ready"] and found["not_ready"] == [text.strip()] and
                   [s["state"] for s in found["sinks"] if s["name"] == "spool"] == ["trouble"] and
                   "not ready" in ask(port, "/")[1], "status.json and the page say so, too")
        change("min_free = 0;")
        wait_for("ready again", lambda: ask(port, "/readyz")[0].status == 200)
        tap.result(ask(port, "/healthz")[0].status == 200, "and ready again")
        client.close()
        client = connect(service.address())
        client.sendall(b"half")
        wait_for("it", lambda: json.loads(ask(port, "/status.json")[1])["connections"])
        service.signal()
        service.wait_event("stopping")
        answer, text = ask(port, "/readyz")
        tap.result(answer.status == 503 and text == "stopping\n", "not while it stops")
        client.close()
        tap.result(service.wait() == 0, "an orderly stop")
    finally:
        service.end()


# Names have room for 64 characters.
EVIL = ("/CN=<\\/td><img src=x onerror=document.title=1>&\"'"
        "/O=<script>document.title=2<\\/script>\x1b[31m")


def no_descriptors(tap, scratch):
    """Who asks when there is no descriptor waits; the loop does not spin meanwhile, as evhttp
    would have it, and the log says so once."""
    service = Service(scratch, CONFIG.format(scratch, "", "")).ready()
    try:
        port, pid = status_port(service), service.process.pid
        ask(port, "/healthz")
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, resource.prlimit(
            pid, resource.RLIMIT_NOFILE)[1]))
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as asker:
            asker.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            service.wait_event("accept-failed", "the status service cannot accept")
            resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
            asker.settimeout(DEADLINE)
            tap.result(asker.recv(100).startswith(b"HTTP/1.0 200"),
                       "no descriptor: who waited is answered when there are some")
            tap.result(len(service.events("accept-failed")) == 1 and
                       "Error from accept" not in service.log(), "the log says so once",
                       service.log()[-1000:])
        tap.result(service.stop() == 0, "an orderly stop")
    finally:
        service.end()


def page(tap, scratch):
    """In a browser: figures that follow the traffic, names that cannot do anything."""
    certificate(scratch, "ca", "/CN=authority")
    certificate(scratch, "server", "/CN=localhost", "ca")
    certificate(scratch, "client", EVIL, "ca")
    tls = ("tls = {{ tls = {{ certificate = \"{0}/server.pem\"; key = \"{0}/server.key\"; "
           "client_ca = \"{0}/ca.pem\"; }}; }}; a%s = {{ }};" % ("x" * 63)).format(scratch)
    service = Service(scratch, CONFIG.format(scratch, tls, "")).ready()
    chromium = None
    try:
        port = status_port(service)
        context = ssl.create_default_context(cafile=os.path.join(scratch, "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(os.path.join(scratch, "client.pem"), os.path.join(scratch, "client.key"))
        evil = context.wrap_socket(connect(service.address("tls")))
        evil.sendall(b"hello\n")
        evil.recv(100)
        text = ask(port, "/")[1]
        tap.result("<img" not in text and "&lt;img src=x" in text, "a hostile subject is escaped")
        if shutil.which("tidy") is None:
            tap.skip("tidy", "it is not installed")
        else:
            # It does not know of nonces.
            result = subprocess.run(["tidy", "-q", "-e"], text=True, capture_output=True,
                                    input=re.sub(' nonce="[0-9a-f]*"', "", text))
            tap.result(result.returncode == 0, "the page is valid HTML", result.stderr)
        if browser.find() is None:
            tap.skip("the page in Chromium", "it is not installed")
            return
        chromium = browser.Browser(scratch)
        chromium.go("http://127.0.0.1:%d/" % port)
        chromium.wait('document.querySelectorAll("th button").length === 9')
        tap.result(chromium.run('document.getElementById("messages").textContent') == "1 in all",
                   "the page shows one message")
        plain = connect(service.address())
        for n in range(3):
            plain.sendall(b"a message\n" * 500)
        chromium.wait('document.getElementById("messages").textContent === "1,501 in all"')
        tap.result(chromium.run('document.getElementById("active").textContent') == "2",
                   "the figures follow the traffic")
        chromium.wait('document.querySelector("#chart-messages .line").getAttribute("d").length > 20')
        peaks = chromium.run('document.querySelector("#chart-messages b").textContent')
        tap.result(float(peaks.replace(",", "")) > 100, "so does the chart: highest " + peaks)
        subject = chromium.run(
            '[].map.call(document.querySelectorAll("#connections td:last-child"),'
            'function (td) { return td.textContent; }).join("")')
        tap.result("img src=x onerror" in subject and "\\1B" in subject and
                   chromium.run('document.querySelectorAll("img").length') == 0 and
                   chromium.run("document.title") == "cistern: ready",
                   "the script shows a hostile subject as text", subject)

        def bytes_shown():
            return chromium.run('[].map.call(document.querySelectorAll("#connections tbody tr"),'
                                'function (tr) { return tr.cells[4].textContent; }).join()')
        before = bytes_shown()
        chromium.run('document.querySelectorAll("th button")[4].click()')
        after = bytes_shown()
        order = chromium.run('document.querySelectorAll("#connections th")[4].getAttribute("aria-sort")')
        tap.result(before != after and sorted(before.split(",")) == sorted(after.split(",")) and
                   order == "ascending", "connections sort: %s, then %s" % (before, after))
        tap.result(chromium.run("document.documentElement.scrollWidth <= innerWidth"),
                   "nothing is wider than the window")
        chromium.call("Emulation.setDeviceMetricsOverride",
                      {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True})
        tap.result(chromium.run("document.documentElement.scrollWidth <= 360"), "nor than a phone's")
        tap.result(not chromium.errors, "no error in the console", "\n".join(chromium.errors))
        chromium.call("Emulation.setScriptExecutionDisabled", {"value": True})
        chromium.go("http://127.0.0.1:%d/?bare" % port)
        tap.result("1,501 in all" in ask(port, "/")[1], "the figures are there without scripts")
        evil.close()
        plain.close()
        tap.result(service.stop() == 0, "an orderly stop")
    finally:
        if chromium is not None:
            chromium.end()
        service.end()


def main():
    tap = Tap()
    if program() is None:
        print("1..0 # SKIP there is no cisternd")
        return 0
    for test in (figures, hostile, moved, readiness, no_descriptors, page):
        with Scratch() as scratch:
            test(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
