#!/usr/bin/env python3
"""abuse: what TLS lets a client do at length: change its keys without end, show a chain of
certificates without end.  Others are served meanwhile, and nothing is taken for what it is not.

abuse.py [NAME]...: only the tests of these names.
"""

import ctypes
import ctypes.util
import os
import select
import socket
import subprocess
import sys
import threading

import peer
import storage

FLOOD = 60000  # changes of keys: some 0.7 s of a worker's time
DEPTH = 9      # authorities in between


class Library:
    """OpenSSL itself: Python's ssl does not change keys."""

    def __init__(self):
        name = ctypes.util.find_library("ssl")
        self.ssl = ctypes.CDLL(name or "libssl.so.3")
        crypto = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
        self.crypto = crypto
        pointer = ctypes.c_void_p
        for library, function, result, arguments in (
                (self.ssl, "TLS_client_method", pointer, []),
                (self.ssl, "SSL_CTX_new", pointer, [pointer]),
                (self.ssl, "SSL_CTX_free", None, [pointer]),
                (self.ssl, "SSL_new", pointer, [pointer]),
                (self.ssl, "SSL_free", None, [pointer]),
                (self.ssl, "SSL_set_fd", ctypes.c_int, [pointer, ctypes.c_int]),
                (self.ssl, "SSL_connect", ctypes.c_int, [pointer]),
                (self.ssl, "SSL_set0_wbio", None, [pointer, pointer]),
                (self.ssl, "SSL_key_update", ctypes.c_int, [pointer, ctypes.c_int]),
                (self.ssl, "SSL_do_handshake", ctypes.c_int, [pointer]),
                (self.ssl, "SSL_write", ctypes.c_int, [pointer, ctypes.c_char_p, ctypes.c_int]),
                (self.ssl, "SSL_read", ctypes.c_int, [pointer, ctypes.c_char_p, ctypes.c_int]),
                (crypto, "BIO_s_mem", pointer, []),
                (crypto, "BIO_new", pointer, [pointer]),
                (crypto, "BIO_read", ctypes.c_int, [pointer, ctypes.c_char_p, ctypes.c_int])):
            getattr(library, function).restype = result
            getattr(library, function).argtypes = arguments


class Changing:
    """A client that changes its keys; what it writes is kept until it is asked for."""

    def __init__(self, library, port):
        self.library = library
        self.socket = socket.create_connection(("127.0.0.1", port), storage.DEADLINE)
        self.socket.settimeout(None)
        self.context = library.ssl.SSL_CTX_new(library.ssl.TLS_client_method())
        self.session = library.ssl.SSL_new(self.context)
        library.ssl.SSL_set_fd(self.session, self.socket.fileno())
        if library.ssl.SSL_connect(self.session) != 1:
            raise RuntimeError("no handshake")
        self.outward = library.crypto.BIO_new(library.crypto.BIO_s_mem())
        library.ssl.SSL_set0_wbio(self.session, self.outward)

    def change(self, count, both=False):
        """both: the other side has to change its keys, too."""
        for _ in range(count):
            if self.library.ssl.SSL_key_update(self.session, 1 if both else 0) != 1 or \
                    self.library.ssl.SSL_do_handshake(self.session) != 1:
                raise RuntimeError("the keys cannot be changed")

    def write(self, data):
        self.library.ssl.SSL_write(self.session, data, len(data))

    def taken(self):
        data, room = b"", ctypes.create_string_buffer(1 << 20)
        while (n := self.library.crypto.BIO_read(self.outward, room, len(room))) > 0:
            data += room.raw[:n]
        return data

    def read(self):
        room = ctypes.create_string_buffer(65536)
        n = self.library.ssl.SSL_read(self.session, room, len(room))
        return room.raw[:n] if n > 0 else b""

    def close(self):
        self.library.ssl.SSL_free(self.session)
        self.library.ssl.SSL_CTX_free(self.context)
        self.socket.close()


def start(scratch, settings):
    config = peer.CONFIG.replace("workers = 2", "workers = 1").replace('level = "debug"', 'level = "info"')
    return peer.Daemon(scratch, 'framing = "line"; deliver = "s"; ' + settings + peer.SPOOL, config)


def exchange(port):
    client = peer.Peer(port, peer.context("1.3"))
    client.put(b"good\n")
    client.send()
    answer = b""
    while not answer.endswith(b"\n"):
        try:
            answer += client.tls.read(1000)
        except peer.ssl.SSLWantReadError:
            client.fill()
    client.put_close()
    client.send()
    client.receive()
    return answer


def changes_of_keys(tap, scratch):
    """Nothing but changes of keys, as fast as they are taken: the others have their turn."""
    daemon = start(scratch, "")
    client = Changing(Library(), daemon.port)
    client.change(FLOOD)
    client.write(b"at last\n")
    flood = client.taken()
    tap.note("%d bytes" % len(flood))
    sender = threading.Thread(target=client.socket.sendall, args=(flood,))
    sender.start()
    answers = [exchange(daemon.port) for _ in range(3)]
    early = not select.select([client.socket], [], [], 0)[0]
    sender.join()
    tap.result(early, "others are answered before the last of %d is looked at" % FLOOD)
    tap.result(all(answer.startswith(b"OK ") for answer in answers), "and well")
    tap.result(client.read().endswith(b" 7\n"), "so is the message behind them")
    client.close()
    daemon.end(tap, "changes of keys")


def changes_before_the_end(tap, scratch):
    """A message behind changes of keys, past max_messages: no orderly end may claim it."""
    daemon = start(scratch, "max_messages = 1; ")
    library, wrong = Library(), []

    def behave(count, both):
        client = Changing(library, daemon.port)
        client.write(b"first\n")
        client.change(count, both)
        client.write(b"second\n")
        client.socket.sendall(client.taken())
        answer = client.read()
        try:
            while client.socket.recv(65536):
                pass
            end = "fin"
        except ConnectionResetError:
            end = "reset"
        # A reset may overtake the receipt.
        if end != "reset" or (answer and not answer.endswith(b" 5\n")):
            wrong.append("%d changes: %r, %s" % (count, answer, end))
        client.close()

    clients = [threading.Thread(target=behave, args=(count, both))
               for count in (0, 1, 30, 33, 200, 1500) for both in (False, True)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    good = not wrong
    tap.note("\n".join(wrong))
    tap.result(good, "each ends with a reset")
    account = daemon.end(tap, "changes before the end")
    tap.result(account.get("accepted") == account.get("received") == 12, "and has one message")


def authority(scratch, name, issuer):
    base = os.path.join(scratch, name)
    with open(base + ".ext", "w", encoding="ascii") as out:
        out.write("basicConstraints=critical,CA:TRUE\n")
    peer.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                 base + ".key", "-subj", "/CN=" + name, "-out", base + ".csr")
    ca = os.path.join(scratch, issuer)
    peer.openssl("x509", "-req", "-in", base + ".csr", "-CA", ca + ".pem", "-CAkey", ca + ".key",
                 "-CAcreateserial", "-days", "30", "-extfile", base + ".ext", "-out", base + ".pem")


def long_chain(tap, scratch):
    """A client's certificate may be so many authorities away from the one that is known."""
    peer.certificate(scratch, "ca", "/CN=the authority")
    above = ["ca"]
    for n in range(DEPTH + 1):
        authority(scratch, "a%d" % n, above[-1])
        above.append("a%d" % n)
    for name, issuer in (("near", "a%d" % (DEPTH - 1)), ("far", "a%d" % DEPTH)):
        peer.certificate(scratch, name, "/CN=" + name, issuer)
        chain = above[1:above.index(issuer) + 1]
        with open(os.path.join(scratch, name + ".pem"), "a", encoding="ascii") as out:
            for link in reversed(chain):
                with open(os.path.join(scratch, link + ".pem"), encoding="ascii") as one:
                    out.write(one.read())
    settings = peer.CONFIG.replace('server.key";', 'server.key"; client_ca = "{directory}/ca.pem"; '
                                   "require_client_certificate = true;")
    daemon = peer.Daemon(scratch, 'deliver = "s"; ' + peer.SPOOL, settings)
    answers = {}
    for name in ("near", "far"):
        try:
            client = peer.Peer(daemon.port, peer.context("1.3", scratch, name))
            client.put(b"from " + name.encode())
            client.put_close()
            client.send()
            answers[name] = client.receive()[0]
        except (OSError, ConnectionError) as error:
            answers[name] = str(error).encode()
    tap.result(answers["near"].startswith(b"OK "), "%d in between: %r" % (DEPTH, answers["near"]))
    tap.result(not answers["far"].startswith(b"OK "), "%d in between: %r" % (DEPTH + 1, answers["far"]))
    daemon.wait_log(" tls-failed .*: bad-certificate: certificate chain too long")
    daemon.end(tap, "a long chain")


if __name__ == "__main__":
    sys.exit(peer.run_all((changes_of_keys, changes_before_the_end, long_chain)))
