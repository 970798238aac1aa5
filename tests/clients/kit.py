"""kit: what the tests of tests/clients share: programs that nobody here wrote, installed or
fetched, and a daemon with a listener for each of them.

Daemons that would start, or that cannot be installed side by side (Debian lets there be one
syslog daemon), are not installed: `apt-get download` and `dpkg -x` put them into a directory
of the build, which needs no root.  Only CLIENTS_FETCH=yes (script/test, make check-clients)
goes to the network for that.
"""

import base64
import glob
import json
import os
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(TOP, "..", "tls"))
import peer  # noqa: E402
import storage  # noqa: E402

FETCHED = os.environ.get("CLIENTS_FETCHED", "fetched")
# What a package needs besides itself and is rarely there: names of Debian 12.
WITH = {
    "rsyslog": ("rsyslog-gnutls", "rsyslog-openssl", "libestr0", "libfastjson4", "liblognorm5"),
    "syslog-ng-core": ("libivykis0", "libnet1", "libwrap0", "libjson-c5"),
    "cups": ("libcups2", "libavahi-client3", "libavahi-common3"),
    "libnginx-mod-stream": ("nginx",),
    "gawk": ("libsigsegv2", "libmpfr6", "libreadline8"),
}
CONFIG = """
address = "127.0.0.1"; port = 0; workers = 2; spill_directory = "{directory}"; shutdown_timeout = 20;
log = {{ target = "stderr"; level = "debug"; }}; {more}
"""
TLS = 'tls = {{ certificate = "{directory}/server.pem"; key = "{directory}/server.key"; }};'


def is_installed(package):
    found = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status}", package],
                           capture_output=True, text=True, check=False)
    return found.returncode == 0 and found.stdout == "installed"


def fetch(package):
    """The directory that the package is unpacked in, or None."""
    root = os.path.abspath(os.path.join(FETCHED, package))
    if os.path.isdir(root):
        return root
    if os.environ.get("CLIENTS_FETCH") != "yes" or not shutil.which("dpkg") or \
            not shutil.which("apt-get"):
        return None
    scratch = root + ".new"
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    wanted = [package] + [one for one in WITH.get(package, ()) if not is_installed(one)]
    for one in wanted:
        subprocess.run(["apt-get", "-qq", "download", one], cwd=scratch, check=False,
                       stdin=subprocess.DEVNULL, capture_output=True)
    archives = glob.glob(os.path.join(scratch, "*.deb"))
    if not any(os.path.basename(name).startswith(package + "_") for name in archives):
        shutil.rmtree(scratch)
        return None
    for archive in archives:
        subprocess.run(["dpkg", "-x", archive, scratch], check=True)
        os.unlink(archive)
    os.rename(scratch, root)
    return root


class Program:
    """Where a program is, with the environment that it needs; `root` is "" if it is installed."""

    def __init__(self, path, root):
        self.path, self.root, self.env = path, root, dict(os.environ)
        if root:
            folders = {os.path.dirname(name)
                       for name in glob.glob(root + "/usr/lib/**/*.so*", recursive=True) +
                       glob.glob(root + "/lib/**/*.so*", recursive=True)}
            self.env["LD_LIBRARY_PATH"] = ":".join(sorted(folders))

    def under(self, pattern):
        """The first path below its root that matches."""
        return next(iter(sorted(glob.glob(self.root + pattern, recursive=True))), None)


def find(names, package, fetched_first=False):
    """A Program, or what is to be said when there is none.  names: alternatives, paths or not.
    fetched_first: an installed one may lack what comes in packages beside it."""
    for name in names if not (fetched_first and fetch(package)) else ():
        path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path:
            return Program(path, "")
    root = fetch(package)
    for name in names if root else ():
        for place in ("", "/usr/bin/", "/usr/sbin/", "/bin/"):
            path = root + (name if name.startswith("/") else place + name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return Program(path, root)
    return "%s is missing (Debian: %s; CLIENTS_FETCH=yes fetches it)" % (names[0], package)


def need():
    """Whether there is TLS; skips all without a daemon."""
    path = storage.program()
    if path is None:
        storage.skip_all("no cisternd ($CISTERND)")
    version = subprocess.run([path, "-V"], capture_output=True, text=True, check=True).stdout
    return "without TLS" not in version and shutil.which("openssl") is not None


def start(directory, more, tls):
    """A daemon; `more` is formatted with directory, twice the braces."""
    if tls and not os.path.exists(os.path.join(directory, "server.pem")):
        peer.certificate(directory, "server", "/CN=localhost")
    return peer.Daemon(directory, more, CONFIG)


def records(directory, name="f.json"):
    """[(listener, peer, ended, bytes)] of a file sink of json, in its order."""
    path = os.path.join(directory, name)
    found = []
    if os.path.exists(path):
        with open(path, "rb") as file:
            for line in file:
                one = json.loads(line)
                data = one["data"].encode() if "data" in one else base64.b64decode(one["data_base64"])
                found.append((one["listener"], one["peer"], one["ended"], data))
    return found


def wait(condition, patience=storage.DEADLINE):
    """What it says at last."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(.01)
    return condition()
