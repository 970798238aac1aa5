#!/usr/bin/env python3
"""send_tls: `cistern send --tls` against a server that looks at what it is shown: whom the
tool trusts, what it shows, and that nothing cut off is taken for an answer.
"""

import os
import shutil
import ssl
import subprocess
import sys

sys.dont_write_bytecode = True
import kit  # noqa: E402

OK = b"OK 01ARZ3NDEKTSV4RRFFQ69G5FAV %d\n"
EXTENSIONS = """
[ca]
basicConstraints = critical, CA:true
[named]
subjectAltName = DNS:localhost
[address]
subjectAltName = IP:127.0.0.1
[other]
subjectAltName = DNS:elsewhere.example
"""


def openssl(*arguments):
    subprocess.run(["openssl"] + list(arguments), check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def certificates(directory):
    """A CA, one that nobody trusts, and what the first has signed; paths by name."""
    config = kit.write(directory, "extensions", EXTENSIONS.encode())
    paths = {}
    for name in ("ca", "stranger"):
        paths[name] = os.path.join(directory, name + ".pem")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", os.path.join(directory, name + ".key"), "-out", paths[name],
                "-subj", "/CN=" + name, "-days", "2")
    for name in ("named", "address", "other"):
        paths[name] = os.path.join(directory, name + ".pem")
        key, request = os.path.join(directory, name + ".key"), os.path.join(directory, "request")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                key, "-out", request, "-subj", "/CN=" + name)
        openssl("x509", "-req", "-in", request, "-CA", paths["ca"], "-CAkey",
                os.path.join(directory, "ca.key"), "-CAcreateserial", "-out", paths[name],
                "-days", "2", "-extfile", config, "-extensions", name)
    return paths


class Server(kit.Server):
    """What it was sent, or the error that ended it, in self.got."""

    def __init__(self, certificate, answer=None, client_ca=None, version=None, end="orderly"):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, certificate[:-4] + ".key")
        self.context.sni_callback = lambda sock, name, context: self.names.append(name)
        if version:
            self.context.maximum_version = version
        if client_ca:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(client_ca)
        self.got, self.names, self.subjects, self.end, self.answer = [], [], [], end, answer
        super().__init__(self.serve)

    def serve(self, number, connection):
        try:
            tls = self.context.wrap_socket(connection, server_side=True,
                                           suppress_ragged_eofs=False)
            if self.end == "early":
                tls.recv(100)
                kit.reset(tls)
                return
            pieces = []
            while True:
                piece = tls.recv(65536)
                if not piece:
                    break
                pieces.append(piece)
            self.subjects.append(tls.getpeercert())
            self.got.append(b"".join(pieces))
            if self.answer:
                tls.sendall(self.answer(self.got[-1]))
            if self.end == "orderly":
                tls.unwrap()
            tls.close()
        except (ssl.SSLError, OSError) as error:
            self.got.append(error)


def attempt(paths, *arguments, certificate="named", data=b"hello", host="localhost", **more):
    server = Server(paths[certificate], **more)
    done = kit.send("--tls", *arguments, "%s:%d" % (host, server.port), data=data)
    server.close()
    return done, server


def check_trusts_whom_it_is_told_to(paths):
    for arguments, certificate, host, code in (
            (["--tls-ca", paths["ca"]], "named", "localhost", 0),
            (["--tls-ca", paths["ca"]], "address", "127.0.0.1", 0),
            (["--tls-ca", paths["ca"]], "other", "localhost", 76),
            (["--tls-ca", paths["ca"]], "named", "127.0.0.1", 76),
            (["--tls-ca", paths["ca"], "--tls-name", "elsewhere.example"], "other", "localhost", 0),
            (["--tls-ca", paths["stranger"]], "named", "localhost", 76),
            ([], "named", "localhost", 76),
            (["--tls-insecure"], "other", "localhost", 0),
            (["--tls-ca", os.devnull], "named", "localhost", 66)):
        done, server = attempt(paths, *arguments, certificate=certificate, host=host)
        if done.code != code or (code == 0) != (server.got == [b"hello"]) or (code and not done.err):
            return repr((arguments, certificate, host, done, server.got))
        if code == 76 and "certificate" not in done.err:
            return repr(done)
        if code == 0 and host == "localhost" and server.names != \
                ["elsewhere.example" if "--tls-name" in arguments else "localhost"]:
            return "SNI: %r" % server.names
    return None


def check_files_that_are_none_are_named(paths):
    for option, file, text in (("--tls-ca", "/nowhere.pem", "No such file"),
                               ("--tls-ca", __file__, "no certificates in PEM"),
                               ("--tls-cert", "/nowhere.pem", "No such file"),
                               ("--tls-cert", __file__, "no certificate in PEM")):
        done, _ = attempt(paths, option, file)
        if done.code != 66 or file not in done.err or text not in done.err:
            return repr((option, done))
    return None


def check_an_untrusted_server_is_not_tried_again(paths):
    done, server = attempt(paths, "--retry", "3", "--retry-delay", "1ms")
    return (done.code != 76 or server.connections != 1) and repr((done, server.connections))


def check_large_messages_with_receipts_in_both_versions(paths):
    data = os.urandom(3000000)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        done, server = attempt(paths, "--tls-ca", paths["ca"], "-r", "-i", "-f", "netstring", data=data,
                               version=version, answer=lambda got: OK % (len(got) - 9))
        if done.code or server.got != [b"%d:%s," % (len(data), data)] or len(done.out) != 27:
            return repr((version, done, [len(got) for got in server.got]))
    return None


def check_shows_its_certificate(paths):
    options = ["--tls-ca", paths["ca"], "--tls-cert", paths["other"], "--tls-key",
               paths["other"][:-4] + ".key"]
    done, server = attempt(paths, *options, client_ca=paths["ca"])
    if done.code or "other" not in repr(server.subjects):
        return repr((done, server.got))
    # In 1.3 the refusal of a client comes after its handshake.
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        none, _ = attempt(paths, *options[:2], client_ca=paths["ca"], version=version)
        if none.code not in (75, 76):
            return repr((version, none))
    wrong, _ = attempt(paths, *options[:-1], paths["ca"][:-6] + "ca.key", client_ca=paths["ca"])
    return wrong.code != 66 and repr(wrong)


def check_what_is_cut_off_is_no_answer(paths):
    options = ["--tls-ca", paths["ca"]]
    for end in ("cut", "early"):
        done, server = attempt(paths, *options, end=end, data=b"x" * 1000000)
        if done.code != 75:
            return repr((end, done, server.got))
    # With a receipt the rest does not matter.
    done, _ = attempt(paths, *options, "-r", "-f", "netstring", end="cut", answer=lambda got: OK % 5)
    return done.code and repr(done)


def check_no_tls_there(paths):
    server = kit.Server(lambda number, connection: connection.sendall(b"220 hello\r\n"))
    done = kit.send("--tls", "--tls-ca", paths["ca"], server.at, data=b"x")
    server.close()
    return done.code != 76 and repr(done)


def main():
    if b"TLS: no" in kit.run("--version").out:
        kit.storage.skip_all("cistern was built without OpenSSL")
    if shutil.which("openssl") is None:
        kit.storage.skip_all("openssl(1) is not installed")
    tests = kit.Tests()
    with kit.storage.Scratch() as directory:
        tests.all(sys.modules[__name__], certificates(directory))
    return tests.end()


if __name__ == "__main__":
    sys.exit(main())
