"""stores: what reads the daemon's sinks, as their users do, while it fills them: checks each
message, enters it in the ledger, and removes it, so that hours need no more disk than minutes.

A kind of sink is a line in SINKS (brokers': in brokers.py) and a class with turn() and poll().
"""

import base64
import json
import os
import re
import time


class Lines:
    """A file that grows and is turned: whole lines, each once."""

    def __init__(self, path):
        self.path, self.file, self.rest, self.turned = path, None, b"", None
        self.held = False

    def hold(self):
        """Its writer was killed: what follows the last whole line is torn, and the next one cuts
        it off.  Until that is there nothing is read."""
        if self.file is not None:
            self.file.seek(-len(self.rest), os.SEEK_CUR)
        self.rest, self.held = b"", True

    def turn(self):
        """What logrotate does; USR1 has to follow.  False: the last turn is not over yet, or what
        would be turned is not being read yet, and would be removed unread."""
        if self.turned is not None or self.file is None or not os.path.exists(self.path):
            return False
        os.rename(self.path, self.path + ".1")
        return True

    def turn_over(self):
        """The daemon has said that it has another file open."""
        self.turned = time.monotonic()

    def lines(self):
        if self.held:
            return
        if self.file is None:
            if not os.path.exists(self.path):
                return
            self.file = open(self.path, "rb")
        data = self.file.read()
        if data:
            *whole, self.rest = (self.rest + data).split(b"\n")
            if self.turned is not None:
                self.turned = time.monotonic()  # what was under way
            yield from whole
        elif self.turned is not None and time.monotonic() > self.turned + 2 and \
                os.path.exists(self.path):
            self.file.close()
            os.unlink(self.path + ".1")
            self.file, self.turned = None, None
            if self.rest:
                yield self.rest
            self.rest = b""


class File(Lines):
    """A file sink of json."""

    def __init__(self, sink, directory, ledger):
        super().__init__(os.path.join(directory, sink.name + ".json"))
        self.sink, self.ledger = sink, ledger

    def poll(self):
        for line in self.lines():
            try:
                record = json.loads(line)
                data = record["data"].encode() if "data" in record else \
                    base64.b64decode(record["data_base64"])
            except (ValueError, KeyError):
                self.ledger.complain("torn in %s: %r" % (self.sink.name, line[:80]))
                continue
            if len(data) != record["size"]:
                self.ledger.complain("%s: size is not that of its data" % record["id"])
            self.enter(record, data)

    def enter(self, record, data):
        self.ledger.store(self.sink.name, record["id"], data)


class Broken(File):
    """The incomplete sink: nothing in it may be called whole."""

    REASONS = ("reset", "timeout", "too-large", "malformed", "incomplete", "shutdown")

    def enter(self, record, data):
        self.ledger.stored[self.sink.name] += 1
        if record["ended"] not in self.REASONS:
            self.ledger.complain("%s is put aside as %s" % (record["id"], record["ended"]))


class Directory:
    """A file a message, ID first in its name."""

    def __init__(self, sink, directory, ledger):
        self.path = os.path.join(directory, sink.name, "new")
        self.sink, self.ledger = sink, ledger
        os.makedirs(self.path, exist_ok=True)

    def turn(self):
        return False

    def poll(self):
        for entry in os.listdir(self.path):
            if entry.startswith("."):
                continue
            path = os.path.join(self.path, entry)
            with open(path, "rb") as file:
                data = file.read()
            os.unlink(path)
            self.ledger.store(self.sink.name, entry.split(".", 1)[0], data)


class Sink:
    """`front`: it gets its messages from a spool of that name, which forwards to it."""

    def __init__(self, name, text, kind, front=None):
        self.name, self.text, self.kind, self.front = name, text, kind, front

    def deliver(self):
        return self.front or self.name

    def type(self):
        return re.match(r'type = "(\w+)"', self.text).group(1)


# A command that keeps what it gets, and one that fails now and then.
KEEP = ("cat >{directory}/%s/new/.$CISTERN_ID.$$ && "
        "mv {directory}/%s/new/.$CISTERN_ID.$$ {directory}/%s/new/$CISTERN_ID")
FRONT = '{front} = {{ type = "spool"; directory = "{directory}/{front}"; forward = "{name}"; ' \
        'retry_min = "20ms"; retry_max = "500ms"; min_free = 0; mode = {mode}; }};\n'
SINKS = (
    Sink("f", 'type = "file"; path = "{directory}/f.json"; format = "json"; mode = {mode};', File),
    Sink("s", 'type = "spool"; directory = "{directory}/s"; min_free = 0; mode = {mode};', Directory),
    Sink("c", 'type = "command"; max_processes = {processes}; run_as_root = true; '
              'argv = [ "/bin/sh", "-c", "' + KEEP % ("c", "c", "c") + '" ];', Directory),
    Sink("hf", 'type = "file"; path = "{directory}/hf.json"; format = "json"; mode = {mode};', File,
         front="hf_in"),
    Sink("hc", 'type = "command"; max_processes = {processes}; run_as_root = true; argv = [ '
               '"/bin/sh", "-c", "test $(($$ % 8)) != 0 || exit 75; ' + KEEP % ("hc", "hc", "hc") +
               '" ];', Directory, front="hc_in"),
    Sink("broken", 'type = "file"; path = "{directory}/broken.json"; sync = false;', Broken),
)
