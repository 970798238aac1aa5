"""ledger: who sent what, what was promised, and what is stored.  A message proves itself, so
it is judged without its sender; a sender's messages are numbered, so all that is remembered
of each is two bytes, and hours of them fit into memory.  (Ids are kept where one may come twice.)
"""

import array
import base64
import hashlib
import random
import threading

ACKNOWLEDGED = 1 << 15  # the other bits: one a sink


def proof(name, size):
    """Bytes of about that size that say whose they are and that they are whole; never empty."""
    head = b"\0" + name.encode() + b"\0"
    filler = random.Random(name).randbytes(max(0, size - len(head) - 32))
    return head + filler + hashlib.sha256(head + filler).digest()


def as_text(data):
    return base64.b64encode(data)


def name_of(data):
    """The name in a message that is whole, else None."""
    if data.endswith(b"<EOF>"):
        data = data[:-5]
    if data[:1] != b"\0":
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError:
            return None
    end = data.find(b"\0", 1)
    if data[:1] != b"\0" or end < 0 or hashlib.sha256(data[:-32]).digest() != data[-32:]:
        return None
    return data[1:end].decode("ascii", "replace")


class Ledger:
    """All calls from any thread."""

    def __init__(self, sinks, repeats=()):
        """repeats: sinks that may get a message twice, under one id."""
        self.repeats = set(repeats)
        self.bits = {sink: 1 << number for number, sink in enumerate(sinks)}
        self.lock = threading.Lock()
        self.books = {}      # prefix: two bytes a message
        self.owed = {}       # prefix: the sinks that its messages go to, as bits
        self.again = set()   # prefixes that may send a message twice
        self.ids = {}        # name: {"receipt": id, sink: id}, until all of them are known
        self.stored = dict.fromkeys(sinks, 0)
        self.acknowledged = 0
        self.problems = []

    def open(self, prefix, sinks, again=False):
        with self.lock:
            self.books[prefix] = array.array("H")
            self.owed[prefix] = sum(self.bits[sink] for sink in sinks)
            if again:
                self.again.add(prefix)

    def complain(self, text):
        with self.lock:
            self.problems.append(text)

    def mark(self, name, bit, where, identity):
        """With the lock held."""
        prefix, number = name.rsplit(".", 1)
        number = int(number)
        book = self.books.get(prefix)
        if book is None:
            self.problems.append("%s: nobody sent it" % name)
            return
        if len(book) <= number:
            book.extend([0] * (number + 1 - len(book)))
        if book[number] & bit and prefix not in self.again and where not in self.repeats:
            self.problems.append("%s is twice in %s" % (name, where))
        book[number] |= bit
        if bit != ACKNOWLEDGED and not self.owed[prefix] & bit:
            self.problems.append("%s does not belong into %s" % (name, where))
        if identity is not None and prefix not in self.again:
            seen = self.ids.setdefault(name, {})
            seen[where] = identity
            if len(set(seen.values())) > 1:
                self.problems.append("%s has several ids: %s" % (name, seen))
            if book[number] == ACKNOWLEDGED | self.owed[prefix] and where not in self.repeats:
                del self.ids[name]

    def acknowledge(self, name, identity=None):
        with self.lock:
            self.acknowledged += 1
            self.mark(name, ACKNOWLEDGED, "receipt", identity)

    def store(self, sink, identity, data):
        name = name_of(data)
        with self.lock:
            self.stored[sink] += 1
            if name is None:
                self.problems.append("%s in %s is half, or nobody's: %r" % (identity, sink, data[:60]))
            else:
                self.mark(name, self.bits[sink], sink, identity)

    def lost(self):
        """Names that were acknowledged and are not in all of their sinks."""
        with self.lock:
            return ["%s.%d" % (prefix, number) for prefix, book in self.books.items()
                    for number, seen in enumerate(book)
                    if seen & ACKNOWLEDGED and seen & self.owed[prefix] != self.owed[prefix]]
