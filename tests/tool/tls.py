#!/usr/bin/env python3
"""tls: `cistern send --tls` and cisternd itself, both ends ours: what each of them refuses
reaches no sink, what is cut off between them is neither delivered nor taken for accepted.
"""

import json
import os
import shutil
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
import kit  # noqa: E402
import send_tls  # noqa: E402

LISTENERS = """
tls = {{ certificate = "{named}"; key = "{named_key}"; }};
sinks = {{ s = {{ type = "spool"; directory = "{directory}/spool"; min_free = 0; }};
	records = {{ type = "file"; path = "{directory}/records"; format = "json"; }}; }};
deliver = [ "s", "records" ];
listeners = {{
	plain = {{ max_message_size = "4M"; }};
	receipts = {{ framing = "netstring"; reply = "receipt"; max_message_size = "4M"; }};
	other = {{ tls = {{ certificate = "{other}"; key = "{other_key}"; }}; }};
	known = {{ reply = "receipt"; framing = "netstring";
		tls = {{ certificate = "{named}"; key = "{named_key}"; client_ca = "{ca}";
			require_client_certificate = true; }}; }};
	new = {{ reply = "receipt"; framing = "netstring";
		tls = {{ certificate = "{named}"; key = "{named_key}"; min_version = "1.3"; }}; }};
	rsa = {{ tls = {{ certificate = "{rsa}"; key = "{rsa_key}"; }}; }};
	clear = {{ tls = false; }};
}};
"""


def wait(condition):
    until = time.monotonic() + kit.DEADLINE
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    return None


class Relay(kit.Server):
    """Between a client and the daemon.  `there` and `back`: so many bytes pass that way,
    then the stream ends, without a close_notify."""

    def __init__(self, port, there=None, back=None):
        self.to, self.limits, self.passed = port, (there, back), [0, 0]
        super().__init__(self.relay)

    def copy(self, source, sink, way):
        limit = self.limits[way]
        try:
            while True:
                piece = source.recv(65536)
                if limit is not None:
                    piece = piece[:limit - self.passed[way]]
                if not piece:
                    break
                self.passed[way] += len(piece)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
            # The rest goes nowhere: a close with bytes unread would be a reset.
            while source.recv(65536):
                pass
        except OSError:
            for one in (source, sink):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def relay(self, number, client):
        with socket.create_connection(("127.0.0.1", self.to), kit.DEADLINE) as server:
            back = threading.Thread(target=self.copy, args=(server, client, 1))
            back.start()
            self.copy(client, server, 0)
            back.join()


def send(daemon, paths, listener, *arguments, data=b"hello", ca="ca", host="localhost", port=None):
    more = ["-r", "-f", "netstring"] if listener in ("receipts", "known", "new") else []
    return kit.send("--tls", "--tls-ca", paths[ca], *more, *arguments,
                    "%s:%d" % (host, port or daemon.ports[listener]), data=data)


def identity(paths, name, key=None):
    return ["--tls-cert", paths[name], "--tls-key", paths[key or name][:-4] + ".key"]


def check_messages_of_all_sizes_with_and_without_receipts(daemon, paths):
    for listener in ("plain", "receipts"):
        for size in (1, 16384, 16385, 3000000):
            data = os.urandom(size)
            done = send(daemon, paths, listener, data=data)
            if done.code or daemon.take() != [data]:
                return repr((listener, size, done))
    return None


def check_a_server_that_is_not_trusted_gets_nothing(daemon, paths):
    for listener, ca, host, word in (("plain", "stranger", "localhost", "certificate"),
                                     ("other", "ca", "localhost", "elsewhere.example"),
                                     ("plain", "ca", "127.0.0.1", "named")):
        done = send(daemon, paths, listener, ca=ca, host=host)
        if done.code != 76 or "certificate" not in done.err or daemon.take():
            return repr((listener, ca, host, word, done))
    done = send(daemon, paths, "other", "--tls-name", "elsewhere.example")
    return (done.code or daemon.take() != [b"hello"]) and repr(done)


def check_a_client_that_is_not_known_delivers_nothing(daemon, paths):
    for arguments in ([], identity(paths, "unknown")):
        done = send(daemon, paths, "known", *arguments)
        if done.code not in (75, 76) or daemon.take() or not done.err:
            return repr((arguments, done))
    done = send(daemon, paths, "known", *identity(paths, "address"))
    if done.code or daemon.take() != [b"hello"]:
        return repr(done)
    with open(os.path.join(daemon.directory, "records"), encoding="utf-8") as file:
        record = [json.loads(line) for line in file][-1]
    return "address" not in record.get("tls_subject", "") and repr(record)


def check_only_the_newest_version(daemon, paths):
    done = send(daemon, paths, "new")
    return (done.code or daemon.take() != [b"hello"]) and repr(done)


def check_one_of_both_without_tls(daemon, paths):
    done = send(daemon, paths, "clear", "--timeout", "1s")  # each waits for the other
    if done.code != 69 or daemon.take():
        return repr(done)
    done = kit.send(daemon.at("plain"), data=b"in the clear")
    return (done.code not in (75, 76) or daemon.take()) and repr(done)


def check_what_is_too_large_is_rejected(daemon, paths):
    data = os.urandom(5 << 20)
    done = send(daemon, paths, "receipts", data=data)
    if done.code != 65 or "too-large" not in done.err:
        return repr(done)
    done = send(daemon, paths, "plain", data=data)
    return (done.code != 75 or daemon.take()) and repr(done)


def check_what_is_cut_off_on_its_way_is_not_delivered(daemon, paths):
    data = os.urandom(1000000)
    for listener in ("plain", "receipts"):
        # All that the client sends; its last record alone (close_notify) takes 24 bytes.
        whole = Relay(daemon.ports[listener])
        done = send(daemon, paths, listener, data=data, port=whole.port)
        whole.close()
        if done.code or daemon.take() != [data]:
            return repr((listener, done))
        for short in (500000, 40, 24, 1):
            discards = daemon.text().count(" message-discarded ")
            relay = Relay(daemon.ports[listener], there=whole.passed[0] - short)
            done = send(daemon, paths, listener, data=data, port=relay.port)
            relay.close()
            if listener == "receipts" and short <= 24:
                # A netstring is whole without the end of its connection; its receipt may
                # have been lost.
                found = wait(daemon.take)
                good = found == [data] and done.code in (0, 75)
            else:
                good = done.code == 75 and wait(
                    lambda: daemon.text().count(" message-discarded ") > discards) and not daemon.take()
            if not good:
                return repr((listener, short, done))
    return None


def check_an_answer_that_is_cut_off_is_none(daemon, paths):
    whole = Relay(daemon.ports["rsa"])
    done = send(daemon, paths, "rsa", port=whole.port)
    whole.close()
    if done.code or daemon.take() != [b"hello"]:
        return repr(done)
    # Within its handshake, without its close_notify, and within that.
    for short in (1000, 24, 1):
        relay = Relay(daemon.ports["rsa"], back=whole.passed[1] - short)
        done = send(daemon, paths, "rsa", port=relay.port)
        relay.close()
        if done.code != (69 if short == 1000 else 75) or "cut off" not in done.err or (
                short < 1000 and wait(daemon.take) != [b"hello"]):
            return repr((short, done))
    return None


def check_retries_over_what_is_cut_off(daemon, paths):
    """The first way is too short, the second is not: the message is there once."""
    relay = Relay(daemon.ports["plain"], there=100000)

    def relayed(number, client):
        relay.passed = [0, 0]
        if number == 2:
            relay.limits = (None, None)
        relay.relay(number, client)
    relay.behave = relayed
    data = os.urandom(1000000)
    done = send(daemon, paths, "plain", "--retry", "3", "--retry-delay", "1ms", data=data,
                port=relay.port)
    relay.close()
    return (done.code or relay.connections != 2 or daemon.take() != [data]) and repr(done)


def rsa(directory, paths):
    """A certificate whose signatures are all of one length."""
    base = os.path.join(directory, "rsa")
    send_tls.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", base + ".key", "-out",
                     base + ".csr", "-subj", "/CN=rsa")
    send_tls.openssl("x509", "-req", "-in", base + ".csr", "-CA", paths["ca"], "-CAkey",
                     paths["ca"][:-4] + ".key", "-CAcreateserial", "-out", base + ".pem", "-days", "2",
                     "-extfile", os.path.join(directory, "extensions"), "-extensions", "named")
    return base + ".pem"


def main():
    if b"TLS: no" in kit.run("--version").out:
        kit.storage.skip_all("cistern was built without OpenSSL")
    if shutil.which("openssl") is None:
        kit.storage.skip_all("openssl(1) is not installed")
    if kit.storage.program() is None:
        kit.storage.skip_all("no cisternd")
    tests = kit.Tests()
    with kit.storage.Scratch() as directory:
        paths = send_tls.certificates(directory)
        paths["unknown"] = paths["stranger"]
        paths["rsa"] = rsa(directory, paths)
        place = os.path.join(directory, "daemon")
        config = {name: paths[name] for name in ("named", "other", "rsa", "ca")}
        config.update({name + "_key": paths[name][:-4] + ".key" for name in ("named", "other", "rsa")})
        daemon = kit.Daemon(place, LISTENERS.format(directory=place, **config), spool=None)
        tests.all(sys.modules[__name__], daemon, paths)
        tests.result(daemon.stop() == 0, "the daemon ends in order")
    return tests.end()


if __name__ == "__main__":
    sys.exit(main())
