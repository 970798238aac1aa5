#!/usr/bin/env python3
"""spool-consumer: hands each message of a spool to a function.

    spool-consumer.py [--once] DIRECTORY NAME

DIRECTORY is the spool's, NAME this consumer's own; several with different names may
work on one spool.  Replace handle() by what is to be done.  A message may be handed
over twice (after a crash between handle() and the removal): tell by the id.
"""

import fcntl
import os
import sys
import time


def handle(id_, listener, peer, data):
    """Prints the message.  An exception means: try again later."""
    sys.stdout.buffer.write(
        b"%s %s %s %d\n" % (id_.encode(), listener.encode(), peer.encode(), len(data)))
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class Consumer:
    """Claims by renaming, so that one consumer has each message."""

    def __init__(self, directory, name):
        self.new = os.path.join(directory, "new")
        # On the spool's filesystem: renaming is one step.
        self.work = os.path.join(directory, "work", name)
        os.makedirs(self.work, exist_ok=True)
        self.lock = os.open(self.work, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the name is taken

    def process(self, name):
        """True: done with, and gone."""
        path = os.path.join(self.work, name)
        id_, listener, peer = name.split(".", 2)
        with open(path, "rb") as file:
            data = file.read()
        try:
            handle(id_, listener, peer, data)
        except Exception as error:  # whatever it was, the message stays
            print("%s: %s, tried again later" % (name, error), file=sys.stderr)
            return False
        os.unlink(path)
        return True

    def claim(self, name):
        """False: another consumer was faster."""
        try:
            os.rename(os.path.join(self.new, name), os.path.join(self.work, name))
        except FileNotFoundError:
            return False
        return True

    def round(self):
        """Goes through all once; True when nothing failed."""
        good = True
        for name in sorted(os.listdir(self.work)):  # claimed earlier, or failed
            good &= self.process(name)
        for name in sorted(os.listdir(self.new)):  # sorted by name is sorted by time
            if self.claim(name):
                good &= self.process(name)
        return good


def main():
    arguments = sys.argv[1:]
    once = arguments[:1] == ["--once"]
    if len(arguments) != 2 + once:
        sys.exit("usage: %s [--once] DIRECTORY NAME" % sys.argv[0])
    consumer = Consumer(*arguments[once:])
    while True:
        good = consumer.round()
        if once:
            return 0 if good else 1
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
