#!/usr/bin/env python3
"""broker: three brokers in one process, for what librdkafka's mock cluster does not do: they
look at the sequence of each batch as Kafka's do, so that an idempotent producer can be told
to try again while more of its requests are on their way.

    broker.py

Says "brokers HOST:PORT,..." and then, for each line of standard input, "ok" or "failed":

    topic NAME PARTITIONS
    consume NAME PARTITIONS FILE    all that comes into it is written there, as mock.c does
    trouble SHARE                   so many of 1,000 batches meet with trouble, by chance
    tell                            "ok" and what was done so far, in words

Trouble is one of: an error that says "try again", before anything is stored or after; a
connection cut before the batch is stored, or after, so that its answer is lost.

Of the protocol there is what librdkafka asks a producer's brokers for: ApiVersions,
Metadata 0 to 2, InitProducerId 0 to 1, Produce 3 to 7, batches of records (version 2) without compression.
"""

import asyncio
import collections
import random
import struct
import sys
import threading
import time

PRODUCE, FETCH, METADATA, API_VERSIONS, INIT_PRODUCER_ID = 0, 1, 3, 18, 22
VERSIONS = {PRODUCE: (3, 7), FETCH: (0, 4), METADATA: (0, 2), API_VERSIONS: (0, 3), INIT_PRODUCER_ID: (0, 1)}
UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, NOT_LEADER, TIMED_OUT = 3, 5, 6, 7
NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS_AFTER_APPEND, STORAGE_ERROR = 19, 20, 56
CORRUPT, UNSUPPORTED_VERSION, OUT_OF_ORDER_SEQUENCE, INVALID_PRODUCER_EPOCH = 2, 35, 45, 47
BEFORE = (LEADER_NOT_AVAILABLE, NOT_LEADER, TIMED_OUT, NOT_ENOUGH_REPLICAS, STORAGE_ERROR)
AFTER = (TIMED_OUT, NOT_ENOUGH_REPLICAS_AFTER_APPEND)
REMEMBERED = 5  # batches of a producer whose repetition is known, as in Kafka
BATCH = struct.Struct(">qiibIhiqqqhii")


class Reader:
    """Numbers and texts of a request, in order."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value, = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def bytes(self, form="i"):
        size = self.take(form)
        if size < 0:
            return None
        self.at += size
        return self.data[self.at - size:self.at]

    def text(self):
        return self.bytes("h")

    def varint(self):
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value >> 1 ^ -(value & 1)

    def short_bytes(self):
        size = self.varint()
        if size < 0:
            return None
        self.at += size
        return self.data[self.at - size:self.at]


def text(value):
    return struct.pack(">h", len(value)) + value


def array(items):
    items = list(items)
    return struct.pack(">i", len(items)) + b"".join(items)


def hexadecimal(value):
    return "-" if value is None else value.hex()


class Partition:
    """What is stored, and what each producer stored last."""

    def __init__(self, number, leader):
        self.number, self.leader, self.offset = number, leader, 0
        self.producers = {}  # producer: (epoch, [(first sequence, last, offset)])

    def append(self, records, out, count):
        """(error, offset).  The checks are those of Kafka's ProducerStateManager."""
        (_, _, _, magic, _, attributes, _, base, _, producer, epoch, first, number) = \
            BATCH.unpack_from(records)
        if magic != 2 or attributes & 7:
            return CORRUPT, -1
        last = first + number - 1
        known, batches = self.producers.get(producer, (None, []))
        if known == epoch:
            for batch in batches:
                if batch[:2] == (first, last):
                    count["repetitions"] += 1
                    return 0, batch[2]
            if first != batches[-1][1] + 1:
                count["out of order"] += 1
                return OUT_OF_ORDER_SEQUENCE, -1
        elif known is not None and epoch < known:
            return INVALID_PRODUCER_EPOCH, -1
        elif known is not None and first != 0:
            count["out of order"] += 1
            return OUT_OF_ORDER_SEQUENCE, -1
        else:
            batches = []
        offset = self.offset
        self.producers[producer] = epoch, (batches + [(first, last, offset)])[-REMEMBERED:]
        self.offset += number
        count["batches"] += 1
        count["records"] += number
        if out is not None:
            out.write("".join(self.lines(records, base, number)))
            out.flush()
        return 0, offset

    def lines(self, records, base, number):
        reader = Reader(records)
        reader.at = BATCH.size
        for _ in range(number):
            reader.varint()
            reader.at += 1
            when = base + reader.varint()
            reader.varint()
            parts = ["%d" % self.number, "%d" % when, hexadecimal(reader.short_bytes()),
                     hexadecimal(reader.short_bytes())]
            for _ in range(reader.varint()):
                name = reader.short_bytes().decode()
                parts.append(name + "=" + hexadecimal(reader.short_bytes()))
            yield "\t".join(parts) + "\n"


class Cluster:
    def __init__(self):
        self.topics, self.files, self.ports = {}, {}, []
        self.producers = int(time.time())
        self.share, self.chance = 0, random.Random(1)
        self.count = collections.Counter()
        self.connections = 0

    async def serve(self):
        for node in (1, 2, 3):
            server = await asyncio.start_server(
                lambda reader, writer, node=node: self.connection(node, reader, writer), "127.0.0.1", 0)
            self.ports.append(server.sockets[0].getsockname()[1])
        print("brokers " + ",".join("127.0.0.1:%d" % port for port in self.ports), flush=True)

    async def connection(self, node, reader, writer):
        self.connections += 1
        try:
            while True:
                size, = struct.unpack(">i", await reader.readexactly(4))
                request = Reader(await reader.readexactly(size))
                api, version, number = request.take("h"), request.take("h"), request.take("i")
                request.text()
                answer = self.answer(node, api, version, request)
                if answer is None:
                    break
                writer.write(struct.pack(">ii", 4 + len(answer), number) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    def answer(self, node, api, version, request):
        """None: the connection is cut."""
        if api == API_VERSIONS:
            return self.versions(version)
        if api == METADATA:
            return self.metadata(version, request)
        if api == INIT_PRODUCER_ID:
            self.producers += 1
            self.count["producers"] += 1
            return struct.pack(">ihqh", 0, 0, self.producers, 0)
        if api == PRODUCE:
            return self.produce(node, version, request)
        sys.stderr.write("broker: a request of kind %d\n" % api)
        return None

    @staticmethod
    def versions(version):
        rows = [struct.pack(">hhh", api, *range_) for api, range_ in VERSIONS.items()]
        if version < 3:
            return struct.pack(">h", 0) + array(rows) + (struct.pack(">i", 0) if version else b"")
        return struct.pack(">hb", 0, len(rows) + 1) + b"".join(row + b"\0" for row in rows) + bytes(5)

    def metadata(self, version, request):
        count = request.take("i")
        wanted = [request.text() for _ in range(count)]
        if count < 0 or (count == 0 and version == 0):
            wanted = list(self.topics)
        rack = struct.pack(">h", -1) if version >= 1 else b""
        answer = array(struct.pack(">i", node) + text(b"127.0.0.1") + struct.pack(">i", port) + rack
                       for node, port in enumerate(self.ports, 1))
        if version >= 2:
            answer += struct.pack(">h", -1)
        if version >= 1:
            answer += struct.pack(">i", 1)
        return answer + array(
            struct.pack(">h", 0 if name in self.topics else UNKNOWN_TOPIC) + text(name) +
            (b"\0" if version >= 1 else b"") + array(
                struct.pack(">hii", 0, part.number, part.leader) + 2 * array(
                    struct.pack(">i", node) for node in (1, 2, 3))
                for part in self.topics.get(name, ())) for name in wanted)

    def produce(self, node, version, request):
        request.text()
        request.take("h")
        request.take("i")
        topics, cut = [], False
        for _ in range(request.take("i")):
            name, parts = request.text(), []
            for _ in range(request.take("i")):
                number, records = request.take("i"), request.bytes()
                error, offset, is_cut = self.store(node, name, number, records)
                cut |= is_cut
                parts.append(struct.pack(">ihqq", number, error, offset, -1) +
                             (struct.pack(">q", 0) if version >= 5 else b""))
            topics.append(text(name) + array(parts))
        return None if cut else array(topics) + struct.pack(">i", 0)

    def store(self, node, name, number, records):
        """(error, offset, whether the connection is cut)"""
        partition = self.topics[name][number]
        if partition.leader != node:
            return NOT_LEADER, -1, False
        kind = self.chance.randrange(4) if self.chance.randrange(1000) < self.share else None
        if kind in (0, 1):
            self.count["errors before" if kind == 0 else "cuts before"] += 1
            return (self.chance.choice(BEFORE) if kind == 0 else 0), -1, kind == 1
        error, offset = partition.append(records, self.files.get(name), self.count)
        if error != 0 or kind is None:
            return error, offset, False
        self.count["errors after" if kind == 2 else "cuts after"] += 1
        return (self.chance.choice(AFTER) if kind == 2 else 0), -1, kind == 3

    def obey(self, words):
        if words[0] == "topic":
            self.topics[words[1].encode()] = [Partition(n, n % 3 + 1) for n in range(int(words[2]))]
        elif words[0] == "consume":
            self.files[words[1].encode()] = open(words[3], "w", encoding="ascii")
        elif words[0] == "trouble":
            self.share = int(words[1])
        elif words[0] == "tell":
            return "ok " + ", ".join("%d %s" % (count, what) for what, count in sorted(self.count.items()))
        else:
            return "failed"
        return "ok"

    def commands(self, loop):
        async def obey(line):
            print(self.obey(line.split()), flush=True)
        for line in sys.stdin:
            asyncio.run_coroutine_threadsafe(obey(line), loop).result()
        loop.call_soon_threadsafe(loop.stop)


def main():
    loop = asyncio.new_event_loop()
    cluster = Cluster()
    loop.run_until_complete(cluster.serve())
    threading.Thread(target=cluster.commands, args=(loop,), daemon=True).start()
    loop.run_forever()


if __name__ == "__main__":
    main()
