"""servers: what is measured: the limits, cisternd and its peers, as processes.

Each is started for one run of one load and stopped after it.  A peer that is not
installed, or knows no way to serve a load, is left out, and bench.py says why.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time

PATIENCE = 60  # seconds: for whatever has to happen


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Failure(Exception):
    pass


class Server:
    """A process that listens on `port`.  `output` is the file that it writes, or None;
    `promises` that a closed connection means that all is there."""

    promises = False

    def __init__(self, directory):
        self.directory = directory  # its own, removed after the run
        self.output = None
        self.port = None
        self.process = None

    def spawn(self, arguments, **options):
        self.log = open(os.path.join(self.directory, "log"), "w+")
        options.setdefault("stdout", subprocess.DEVNULL)
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stderr=self.log,
            start_new_session=True, **options)

    def wait_until(self, what, happened):
        end = time.monotonic() + PATIENCE
        while not happened():
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                said = " / ".join(self.log.read().splitlines()[:3])
                raise Failure(f"it {what} ({said})" if said else f"it {what}")
            time.sleep(.005)

    def cpu(self):
        """Seconds of all its threads, those that have ended included."""
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def resident(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup") as rollup:
            return int(re.search(r"^Rss: +(\d+) kB", rollup.read(), re.M)[1]) * 1024

    def stop(self):
        if self.process is None:
            return
        try:
            self.process.terminate()
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pass
        # Its children, if it has any, are of its session's group.
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.log.close()


class Limit(Server):
    promises = True

    def start(self, load, programs, threads=1):
        mode, *options = load.limit
        path = os.path.join(self.directory, "output")
        if mode in ("files", "spool"):
            os.mkdir(path)
        if mode != "discard" and mode != "echo":
            options += ["-o", path]
        if threads > 1:
            options += ["-t", str(threads)]
        self.spawn([os.path.join(programs, "limit"), mode, *options], stdout=subprocess.PIPE)
        word = self.process.stdout.readline().split()
        if len(word) != 2:
            raise Failure("limit: no port")
        self.port = int(word[1])


class Cisternd(Server):
    promises = True

    def start(self, load, program, threads=1, wrapper=()):
        config = os.path.join(self.directory, "cistern.conf")
        os.mkdir(os.path.join(self.directory, "spool"))
        with open(config, "w") as file:
            file.write(self.config(load, threads))
        self.spawn([*wrapper, program, "-c", config])
        self.wait_until("did not become ready", lambda: " ready: " in self.said())
        self.port = int(re.search(r"listener main on 127\.0\.0\.1:(\d+)", self.said())[1])

    def config(self, load, threads):
        sink = load.sink.replace("@DIR@", self.directory)
        return f"""workers = {threads}; address = "127.0.0.1"; port = 0; backlog = 4096;
idle_timeout = 0; spill_directory = "{self.directory}"; pid_file = "{self.directory}/pid";
{load.listener}
deliver = ["sink"];
sinks = {{ sink = {{ {sink} }}; }};
"""

    def said(self):
        with open(os.path.join(self.directory, "log")) as log:
            return log.read()


class Peer(Server):
    """Others.  `arguments` gives their command line for a load, or None where they
    have no way to do the like."""

    command = None
    loads = ()
    share = 1  # of the messages of `short`: a process a connection takes its time

    def available(self, load):
        if load.name not in self.loads:
            return f"{self.command} is not made for it"
        path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/opt/fluent-bit/bin"
        self.path = shutil.which(self.command, path=path)
        return None if self.path else f"{self.command} is not installed"

    def start(self, load, _programs):
        self.port = free_port()
        self.output = os.path.join(self.directory, "output") if load.lines else None
        self.spawn(self.arguments(load))
        self.wait_until("does not listen", lambda: accepts(self.port))

    def configuration(self, text):
        path = os.path.join(self.directory, "conf")
        with open(path, "w") as file:
            file.write(text)
        return path


class Socat(Peer):
    command = "socat"
    loads = ("bulk", "short", "echo")
    share = .02

    def arguments(self, load):
        listen = f"TCP-LISTEN:{self.port},bind=127.0.0.1,fork,reuseaddr,backlog=1024"
        if load.name == "echo":
            return [self.path, listen, "PIPE"]
        return [self.path, "-b", "65536", "-u", listen, "OPEN:/dev/null"]


class Ncat(Peer):
    command = "ncat"
    loads = ("bulk", "short")
    share = .02

    def arguments(self, load):
        return [self.path, "-n", "-l", "-k", "-m", "1024", "--recv-only", "127.0.0.1",
                str(self.port)]


class Xinetd(Peer):
    command = "xinetd"
    loads = ("short",)
    share = .02

    def arguments(self, load):
        conf = self.configuration(f"""defaults
{{
\tinstances = UNLIMITED
\tper_source = UNLIMITED
\tcps = 1000000 1
}}
service bench
{{
\ttype = UNLISTED
\tbind = 127.0.0.1
\tport = {self.port}
\tsocket_type = stream
\tprotocol = tcp
\twait = no
\tuser = {os.environ.get("USER") or "root"}
\tserver = {shutil.which("dd")}
\tserver_args = of=/dev/null bs=65536 status=none
}}
""")
        return [self.path, "-dontfork", "-f", conf,
                "-filelog", os.path.join(self.directory, "messages"),
                "-pidfile", os.path.join(self.directory, "pid")]


class Rsyslog(Peer):
    command = "rsyslogd"
    loads = ("short", "lines", "idle")

    def arguments(self, load):
        target = self.output or "/dev/null"
        conf = self.configuration(f"""global(workDirectory="{self.directory}" net.enableDNS="off")
module(load="imptcp" threads="1")
main_queue(queue.type="FixedArray" queue.size="500000" queue.dequeueBatchSize="4096")
template(name="bare" type="string" string="%rawmsg%\\n")
input(type="imptcp" address="127.0.0.1" port="{self.port}"
      socketBacklog="4096" supportOctetCountedFraming="off")
action(type="omfile" file="{target}" template="bare" ioBufferSize="256k")
""")
        return [self.path, "-n", "-i", os.path.join(self.directory, "pid"), "-f", conf]


class SyslogNg(Peer):
    command = "syslog-ng"
    loads = ("short", "lines", "idle")

    def arguments(self, load):
        target = self.output or "/dev/null"
        version = subprocess.run([self.path, "--version"], capture_output=True, text=True,
                                 check=True).stdout
        version = re.search(r"(\d+\.\d+)", version)[1]
        conf = self.configuration(f"""@version: {version}
options {{ use-dns(no); dns-cache(no); keep-hostname(yes); stats-freq(0); flush-lines(1000);
\tlog-fifo-size(1000000); }};
source s {{ network(transport(tcp) ip(127.0.0.1) port({self.port}) max-connections(50000)
\tlog-iw-size(500000) log-fetch-limit(1000) flags(no-parse)); }};
destination d {{ file("{target}" template("$MSG\\n")); }};
log {{ source(s); destination(d); flags(flow-control); }};
""")
        return [self.path, "-F", "--no-caps", "-f", conf,
                "-R", os.path.join(self.directory, "persist"),
                "-p", os.path.join(self.directory, "pid"),
                "-c", os.path.join(self.directory, "control")]


class FluentBit(Peer):
    command = "fluent-bit"
    loads = ("lines", "idle")

    def arguments(self, load):
        directory, name = os.path.split(self.output or "/dev/null")
        return [self.path, "-q", "-f", "1", "-i", "tcp", "-p", "listen=127.0.0.1",
                "-p", f"port={self.port}", "-p", "format=none", "-p", "buffer_size=1024",
                "-p", "chunk_size=256", "-o", "file", "-m", "*", "-p", f"path={directory}",
                "-p", f"file={name}", "-p", "format=template", "-p", "template={log}"]


PEERS = (Socat, Ncat, Xinetd, Rsyslog, SyslogNg, FluentBit)
