#!/usr/bin/env python3
"""proxies: PROXY headers by others: the examples of its specification, HAProxy with and without
TLVs and with its health checks, nginx: whose message it is, and what it is, byte for byte.
"""

import os
import re
import socket
import subprocess
import sys
import time

import kit
import storage

SETTINGS = 'framing = "line"; proxy_protocol = true; proxy_from = "127.0.0.1"; deliver = "f"; ' \
    'sinks = {{ f = {{ type = "file"; path = "{directory}/f.json"; sync = false; }}; }};'
MAXIMAL6 = ":".join(["ffff"] * 8)
# proxy-protocol.txt, sections 2.1 and 2.2: (header, the peer that it names; None: the proxy).
EXAMPLES = (
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"),
    (("PROXY TCP6 %s %s 65535 65535\r\n" % (MAXIMAL6, MAXIMAL6)).encode(), "[%s]:65535" % MAXIMAL6),
    (b"PROXY UNKNOWN\r\n", None),
    (("PROXY UNKNOWN %s %s 65535 65535\r\n" % (MAXIMAL6, MAXIMAL6)).encode(), None),
    # Version 2: LOCAL without and with an address block, AF_UNSPEC, IPv4 with PP2_TYPE_AUTHORITY.
    (b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0", None),
    (b"\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c" + bytes(12), None),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x00\0\0", None),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x1a" +
     bytes((192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 4, 1, 0xbb)) + b"\x02\0\x0bexample.org", "192.168.0.1:56324"),
)
HAPROXY = """global
    log stderr format raw local0
defaults
    mode tcp
    timeout connect 30s
    timeout client 30s
    timeout server 30s
%s"""
# What a server line says, and whether HAProxy asks all the time whether it is there.
HAPROXY_WAYS = (
    ("send-proxy", "send-proxy"),
    ("send-proxy-v2", "send-proxy-v2"),
    ("send-proxy-v2 with TLVs", "send-proxy-v2 proxy-v2-options unique-id,crc32c,ssl,cert-cn,ssl-cipher"),
    ("send-proxy with checks", "send-proxy check check-send-proxy inter 50ms"),
    ("send-proxy-v2 with checks (LOCAL)", "send-proxy-v2 check check-send-proxy inter 50ms"),
)


MANY = 20  # connections, of which only five are messages


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def connect(port, process=None):
    """Once somebody listens there."""
    until = time.monotonic() + storage.DEADLINE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), storage.DEADLINE)
        except ConnectionRefusedError:
            if time.monotonic() > until or (process is not None and process.poll() is not None):
                raise
            time.sleep(.02)


def exchange(sock, data):
    """Sends, closes our side, and waits for the other.  Our address."""
    name = "%s:%d" % sock.getsockname()
    with sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1000):
            pass
    return name


def specification(tap, directory):
    daemon = kit.start(directory, SETTINGS, False)
    expected = []
    for number, (header, peer) in enumerate(EXAMPLES):
        text = b"message %d" % number
        name = exchange(connect(daemon.port), header + text + b"\n")
        expected.append((peer or name, text))
    found = [(peer, data) for _, peer, _, data in kit.records(directory)]
    tap.result(found == expected, "the specification's %d headers" % len(EXAMPLES),
               "%s\n%s" % (found, expected))
    daemon.end(tap, "the specification's headers")


def through(tap, directory, name, process, port):
    """Whose the message is after it went through the proxy."""
    text = ("through " + name).encode()
    peer = exchange(connect(port, process), text + b"\n")
    kit.wait(lambda: any(data == text for _, _, _, data in kit.records(directory)))
    found = [(who, data) for _, who, _, data in kit.records(directory) if data == text]
    tap.result(found == [(peer, text)], "%s: its client's address, and the bytes" % name,
               "%s, not %s" % (found, peer))


def seen(daemon):
    """Connections that its log tells of."""
    return len(set(re.findall(r"main#(\d+) ", daemon.text())))


def haproxy(tap, directory):
    program = kit.find(["haproxy"], "haproxy")
    if isinstance(program, str):
        tap.skip("HAProxy", program)
        return
    daemon = kit.start(directory, SETTINGS, False)
    ports = free_ports(len(HAPROXY_WAYS))
    text = HAPROXY % "".join(
        "listen l%d\n    bind 127.0.0.1:%d\n    unique-id-format %%pid-%%rt\n"
        "    server s 127.0.0.1:%d %s\n" % (number, port, daemon.port, way)
        for number, (port, (_, way)) in enumerate(zip(ports, HAPROXY_WAYS)))
    path = os.path.join(directory, "haproxy.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
    with open(os.path.join(directory, "haproxy.log"), "w+", encoding="utf-8") as log:
        process = subprocess.Popen([program.path, "-db", "-f", path], stdout=log, stderr=log,
                                   env=program.env)
        try:
            for port, (name, _) in zip(ports, HAPROXY_WAYS):
                through(tap, directory, "HAProxy, " + name, process, port)
            # Two checks every 50 ms: some have come.
            kit.wait(lambda: seen(daemon) > MANY)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        said = log.read()
    text = daemon.text()
    tap.result(seen(daemon) > MANY and not re.search(r" is DOWN|Layer4", said) and
               " message-discarded" not in text and " connection-refused" not in text,
               "HAProxy's checks find it up, and leave no complaint (%d connections)" % seen(daemon),
               said)
    daemon.end(tap, "HAProxy")


def nginx(tap, directory):
    program = kit.find(["nginx"], "libnginx-mod-stream", fetched_first=True)
    module = None if isinstance(program, str) else \
        program.under("/usr/lib/nginx/modules/ngx_stream_module.so")
    if module is None:
        tap.skip("nginx", program if isinstance(program, str) else
                 "nginx is there without its stream module (Debian: libnginx-mod-stream)")
        return
    daemon = kit.start(directory, SETTINGS, False)
    port, = free_ports(1)
    path = os.path.join(directory, "nginx.conf")
    with open(path, "w", encoding="ascii") as file:
        file.write('load_module %s;\ndaemon off; pid %s/nginx.pid; error_log stderr;\n'
                   '%sevents { }\nstream { server { listen 127.0.0.1:%d; proxy_pass 127.0.0.1:%d; '
                   "proxy_protocol on; } }\n" % (module, directory,
                                                 "user root; " if os.getuid() == 0 else "", port,
                                                 daemon.port))
    process = subprocess.Popen([program.path, "-p", directory, "-c", path], env=program.env,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        through(tap, directory, "nginx, proxy_protocol", process, port)
    finally:
        process.terminate()
        process.wait()
    daemon.end(tap, "nginx")


def main():
    kit.need()
    tap = storage.Tap()
    with storage.Scratch() as directory:
        for test in (specification, haproxy, nginx):
            where = os.path.join(directory, test.__name__)
            os.mkdir(where)
            test(tap, where)
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
