#!/usr/bin/env python3
"""power: every state that a loss of power could leave, as far as chance finds them.

The build with fault points records its storage calls and the moments of its answers.
The model takes the record up to some line, drops any subset of what no sync had made
durable by then (writes whole or in part, cuts, names), and looks: everything
answered for must be there byte for byte, and every name in new/ must stand for the
whole of its message.  A call's effect may be there from its beginning; a sync covers
what had ended before the sync began.

POWER_STATES: how many (10000, over all runs).  POWER_SEED: to have one run again.
The model is put to the test, too: with the syncs of one kind left out of the record it
must find what is wrong.
"""

import json
import os
import random
import sys

sys.dont_write_bytecode = True
import storage  # noqa: E402

BLOCK = 4096
O_CREAT, O_DIRECTORY, O_TMPFILE = 0o100, 0o200000, 0o20200000
NEVER = float("inf")


class Call:
    def __init__(self, line, name, arguments):
        self.begin, self.end = line, NEVER
        self.name, self.arguments, self.result = name, arguments, None


class Operation:
    """A write, a cut or a name; what a crash may take while it is not durable."""

    def __init__(self, call, kind, **what):
        self.begin, self.end = call.begin, call.end
        self.durable = NEVER
        self.kind = kind
        self.__dict__.update(what)


class Inode:
    def __init__(self):
        self.operations = []

    def content(self, line, chance):
        """What is on the disk when the power goes at this line."""
        data = bytearray()
        for operation in self.operations:
            if operation.begin >= line:
                continue
            take = 1.0 if operation.durable < line else chance.random() * 1.5 - 0.25
            if take <= 0.0:
                continue
            if operation.kind == "cut":
                del data[operation.size:]
                continue
            part = operation.data
            if take < 1.0:  # some blocks of it; the length may be ahead of them
                part = part[:int(len(part) * take) // BLOCK * BLOCK or int(len(part) * take)]
                if chance.random() < 0.3:
                    part = part + bytes(len(operation.data) - len(part))
            if len(data) < operation.at:
                data.extend(bytes(operation.at - len(data)))
            data[operation.at:operation.at + len(part)] = part
        return bytes(data)

    def settled(self, line):
        """All that ever happens to it is durable by then."""
        return all(operation.durable < line for operation in self.operations)


class Model:
    """The filesystem, from the record of what was done to it."""

    def __init__(self, trace, without=()):
        self.names = {}    # path: its operations, in order
        self.accepted = []  # (line, what)
        self.inodes = []
        self.descriptors = {}
        self.current = {}  # path: inode, in the order of the record
        self.pending = []  # operations that no sync has covered: (owner, operation)
        self.without = without
        self.lines = 0
        calls = {}
        for self.lines, line in enumerate(trace):
            mark, rest = line[0], line[2:].rstrip("\n")
            if mark == ">":
                number, _, name, *arguments = rest.split(" ", 3)
                call = calls[number] = Call(self.lines, name, (arguments or [""])[0])
                self.begin(call)
            elif mark == "<":
                number, result, *_ = rest.split(" ")
                call = calls.pop(number)
                call.end, call.result = self.lines, int(result)
                if call.result != -1:
                    getattr(self, "do_" + call.name, lambda call: None)(call)
            elif mark == "=":
                self.accepted.append((self.lines, rest.split(" ", 1)[1]))
        self.lines += 1

    def begin(self, call):
        # The descriptor may be another file's by the time the line of the end is read.
        words = call.arguments.split(" ")
        call.file = self.descriptors.get(words[0]) if words else None
        call.covers = list(self.pending) if "sync" in call.name else ()
        if call.name == "link":
            call.source = self.descriptors.get(words[1].rsplit("/", 1)[1])

    def path(self, directory, name):
        return os.path.normpath(name if name.startswith("/")
                                else os.path.join(self.descriptors[directory], name))

    def add(self, owner, operations, operation):
        operations.append(operation)
        self.pending.append((owner, operation))

    def name(self, call, path, inode):
        self.current[path] = inode
        self.add(os.path.dirname(path), self.names.setdefault(path, []),
                 Operation(call, "name", inode=inode))

    def do_open(self, call):
        directory, flags, name = call.arguments.split(" ", 2)
        flags = int(flags, 16)
        if name.startswith("/proc/self/fd/"):
            self.descriptors[str(call.result)] = self.descriptors[name.rsplit("/", 1)[1]]
            return
        path = self.path(directory, name)
        if flags & O_DIRECTORY:
            self.descriptors[str(call.result)] = path
            return
        if path not in self.current and flags & O_CREAT:
            self.inodes.append(Inode())
            self.name(call, path, self.inodes[-1])
        self.descriptors[str(call.result)] = self.current.get(path)

    def do_tmpfile(self, call):
        self.inodes.append(Inode())
        self.descriptors[str(call.result)] = self.inodes[-1]

    def do_write(self, call):
        _, at, _, digits = call.arguments.split(" ")
        if isinstance(call.file, Inode) and call.result > 0:
            self.add(call.file, call.file.operations, Operation(
                call, "write", at=int(at), data=bytes.fromhex(digits)[:call.result]))

    do_writev = do_pwrite = do_write

    def do_ftruncate(self, call):
        self.add(call.file, call.file.operations,
                 Operation(call, "cut", size=int(call.arguments.split(" ")[1])))

    def do_link(self, call):
        _, _, directory, name = call.arguments.split(" ")
        self.name(call, self.path(directory, name), call.source)

    def do_rename(self, call):
        old_directory, old, directory, name = call.arguments.split(" ")
        old = self.path(old_directory, old)
        self.name(call, self.path(directory, name), self.current[old])
        self.name(call, old, None)

    def do_unlink(self, call):
        directory, name = call.arguments.split(" ")
        path = self.path(directory, name)
        if path in self.current:
            self.name(call, path, None)

    def sync(self, call, everything):
        if (call.name if isinstance(call.file, Inode) or everything
                else "directory") in self.without:
            return
        for owner, operation in call.covers:
            if (everything or owner is call.file or owner == call.file) and \
                    operation.durable is NEVER:
                operation.durable = call.end
        self.pending = [(owner, operation) for owner, operation in self.pending
                        if operation.durable is NEVER]

    def do_fdatasync(self, call):
        self.sync(call, False)

    do_fsync = do_fdatasync

    def do_syncfs(self, call):
        self.sync(call, True)

    def look_up(self, path, line, chance):
        """The inode that a name stands for when the power goes; None: no name."""
        inode = None
        for operation in self.names.get(path, ()):
            if operation.durable < line or (operation.begin < line and chance.random() < 0.5):
                inode = operation.inode
        return inode


class SpoolJudge:
    """Finds what is wrong in states of a spool."""

    def __init__(self, model, directory, acknowledged):
        self.model, self.whole = model, {}
        new = os.path.join(directory, "spool", "new")
        self.expected = {}
        for path in model.names:
            if os.path.dirname(path) == new:
                id_ = os.path.basename(path).split(".", 1)[0]
                self.expected[path] = storage.message(*acknowledged[id_])
        self.answered = {os.path.join(new, name): line for line, name in model.accepted}

    def judge(self, line, chance):
        for path, expected in self.expected.items():
            operations = self.model.names[path]
            if operations[0].begin >= line:
                continue
            if self.whole.get(path, NEVER) < line:
                continue  # durable, and seen to be right
            inode = self.model.look_up(path, line, chance)
            if inode is None:
                if self.answered.get(path, NEVER) < line:
                    return "lost: " + path
                continue
            if inode.content(line, chance) != expected:
                return "half: " + path
            if operations[-1].durable < line and inode.settled(line):
                self.whole[path] = line
        return None


class FileJudge:
    """The same in states of a json file: what was answered for is a line of it."""

    def __init__(self, model, directory, acknowledged):
        self.model = model
        self.path = os.path.join(directory, "log")
        self.expected = {id_: storage.message(*what) for id_, what in acknowledged.items()}

    def judge(self, line, chance):
        answered = {id_ for at, id_ in self.model.accepted if at < line}
        inode = self.model.look_up(self.path, line, chance)
        if inode is None:
            return "the file is gone" if answered else None
        content = inode.content(line, chance)
        for record in content.split(b"\n")[:-1]:
            try:
                record = json.loads(record)
            except ValueError:
                continue
            if storage.record_data(record) == self.expected[record["id"]]:
                answered.discard(record["id"])
        return "lost: " + ", ".join(answered) if answered else None


def record(directory, sinks, trace, program, env):
    """A life of the daemon with its record; id: message."""
    env = dict(env, CISTERN_FAULT_TRACE=trace)
    daemon = storage.Daemon(directory, sinks, env, program)
    if not daemon.wait_ready():
        raise RuntimeError(daemon.text())

    def sizes(seed):
        chance = random.Random(seed)
        while True:
            yield chance.choice((0, 50, 300, 5000, 40000, 120000))

    clients = [storage.Client(daemon.port, "power%d" % n, sizes(n), limit=24) for n in range(5)]
    for client in clients:
        client.start()
    acknowledged = {}
    for client in clients:
        client.join(storage.DEADLINE)
        acknowledged.update(client.acknowledged)
    code = daemon.stop()
    if code != 0 or len(acknowledged) != 5 * 24:
        raise RuntimeError("code %s, %d acknowledged\n%s" % (
            code, len(acknowledged), daemon.text()))
    return acknowledged


def search(judge, lines, states, chance):
    """Looks at states; the first thing that is wrong, or None."""
    for _ in range(states):
        line = chance.randrange(lines + 1)
        wrong = judge.judge(line, chance)
        if wrong:
            return "line %d: %s" % (line, wrong)
    return None


def main():
    program = storage.program_with_faults()
    states = int(os.environ.get("POWER_STATES", "10000"))
    seed = os.environ.get("POWER_SEED", str(random.randrange(1 << 30)))
    chance = random.Random(seed)
    tap = storage.Tap()
    tap.note("POWER_SEED=%s POWER_STATES=%d" % (seed, states))
    runs = (
        ("spool", ("s",), {}, SpoolJudge, (("fdatasync", "syncfs"), ("directory", "syncfs"))),
        ("spool with names in tmp/", ("s",), {"CISTERN_FAULT": "tmpfile/1:EOPNOTSUPP:on"},
         SpoolJudge, (("fdatasync", "syncfs"), ("directory", "syncfs"))),
        ("file", ("f",), {}, FileJudge, (("fdatasync",), ("directory",))),
        # Its first sync is that of its directory, when it has just been made.
        ("file, at the second try", ("f",), {"CISTERN_FAULT": "fsync/1:ENOSPC"}, FileJudge, ()),
    )
    with storage.Scratch() as scratch:
        for name, sinks, env, judge, broken in runs:
            directory = os.path.join(scratch, name.split(" ")[-1].strip("/"))
            os.mkdir(directory)
            path = directory + ".trace"
            acknowledged = record(directory, sinks, path, program, env)
            with open(path, encoding="ascii") as file:
                trace = file.readlines()
            model = Model(trace)
            wrong = search(judge(model, directory, acknowledged), model.lines,
                           states // len(runs) + 1, chance)
            tap.note("%s: %d messages, %d lines of record" % (name, len(acknowledged), model.lines))
            tap.result(wrong is None and len(model.accepted) == len(acknowledged),
                       "%s: all of %d states are right%s" % (
                           name, states // len(runs) + 1, "" if wrong is None else ": " + wrong))
            for without in broken:
                model = Model(trace, without)
                wrong = search(judge(model, directory, acknowledged), model.lines, states, chance)
                tap.result(wrong is not None,
                           "%s: without %s the model finds fault" % (name, " and ".join(without)))
            if env:
                tap.result(any(" rename " in line or line.startswith("! fsync")
                               for line in trace), name + ": it was so")
        if tap.failed:
            raise SystemExit(tap.end())
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
