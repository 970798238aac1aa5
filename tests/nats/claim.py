#!/usr/bin/env python3
"""claim: a message that is too large lies in a spool, and a reference to it is published: what
becomes of its file when a reference may be in the stream, and when none is.  Against a stand-in
for a server, which answers as it is told.
"""

import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Daemon, require, storage, wait_for  # noqa: E402
from stand_in import HangUp, StandIn, header  # noqa: E402

FULL = {"error": {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}}
STORED = {"stream": "S", "seq": 7}
LARGE = b"x" * 5000


class Server(StandIn):
    """`plan`: what it does with each message, in turn: an answer, None for none, or "leave": it
    ends the connection."""

    def __init__(self):
        self.plan = []
        self.claims = []  # their paths, in the order in which they came
        super().__init__("S", "intake.>", self.follow)

    def follow(self, headers, _):
        self.claims.append(header(headers, "Cistern-Claim"))
        planned = self.plan.pop(0) if self.plan else STORED
        if planned == "leave":
            raise HangUp
        return planned


class Setup:
    """The server and a daemon with the spool `p` for what is too large."""

    def __init__(self, scratch, top='port = 0; deliver = "n";', more="", timeout="20s"):
        self.new = scratch + "/claims/new"
        self.server = Server()
        more += 'p = { type = "spool"; directory = "%s/claims"; min_free = 0; };' % scratch
        self.daemon = Daemon(scratch + "/d", json.dumps(self.server.url),
                             'subject = "intake.{listener}"; claim_check = "p"; timeout = "%s";' %
                             timeout, top=top, more=more)

    def __enter__(self):
        self.daemon.ready()
        self.daemon.open()
        return self

    def __exit__(self, *_):
        self.daemon.__exit__()
        self.server.close()

    def files(self):
        return sorted(os.path.join(self.new, name) for name in os.listdir(self.new))


def certain(tap, scratch):
    with Setup(scratch) as setup:
        setup.server.plan = [FULL]
        tap.result(setup.daemon.ask(LARGE) == ["RETRY storage"] and len(setup.server.claims) == 1 and
                   not setup.files(), "one reference, refused: its file is taken away")
        tap.result(setup.daemon.ask(LARGE) == ["OK"] and setup.files() == setup.server.claims[1:],
                   "one that is stored has its file")
        tap.result(setup.daemon.stop() == 0, "it stops in order")


def another(tap, scratch):
    """The first reference may be in the stream; the second one is refused."""
    with Setup(scratch) as setup:
        setup.server.plan = ["leave", FULL]
        answers = setup.daemon.ask(LARGE)
        tap.result(answers == ["RETRY storage"] and len(setup.server.claims) == 2 and
                   setup.files() == setup.server.claims[:1],
                   "the file of a reference that may be in the stream stays", repr(answers))
        tap.result(len(setup.daemon.events("nats-claim-left")) == 1, "the log says so")
        tap.result(setup.daemon.stop() == 0, "it stops in order")


def again(tap, scratch):
    """The same from a spool that hands on: the first try ends without an answer."""
    spool = 'q = { type = "spool"; directory = "%s/q"; min_free = 0; forward = "n"; ' \
            'retry_min = "300ms"; retry_max = "300ms"; };' % scratch
    with Setup(scratch, 'port = 0; deliver = "q";', spool, timeout="1s") as setup:
        # Sent again after four seconds only, so one reference a try.
        setup.server.plan = [None, FULL, None, STORED]
        tap.result(setup.daemon.ask(LARGE) == ["OK"], "the spool has it")
        wait_for("a first try", lambda: setup.server.claims)
        written = os.stat(setup.server.claims[0]).st_mtime_ns
        wait_for("the end", lambda: not os.listdir(scratch + "/q/new"))
        tap.result(len(setup.server.claims) == 4 and len(set(setup.server.claims)) == 1 and
                   setup.files() == setup.server.claims[:1], "all tries name one file")
        tap.result(os.stat(setup.server.claims[0]).st_mtime_ns == written,
                   "a try that is refused does not take away what an earlier one refers to")
        tap.result(setup.daemon.stop() == 0, "it stops in order")


def main():
    require(server=False)
    tap = storage.Tap()
    for test in (certain, another, again):
        with storage.Scratch() as scratch:
            tap.note(test.__name__)
            test(tap, scratch)
    return tap.end()


if __name__ == "__main__":
    sys.exit(main())
