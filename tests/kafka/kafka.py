#!/usr/bin/env python3
"""kafka: what a kafka sink hands on, with what key, headers and time, and what becomes of
messages when brokers say no, are slow or gone, and when the daemon is told to stop or reload.

Arguments: the tests to run, as in `kafka.py fatal reload`; all without any.
"""

import datetime
import http.client
import os
import re
import subprocess
import sys
import threading
import time

import cluster
from cluster import Kafka, Mock, answers, frame, storage
from manager import connect, wait_for

OUTCOMES = (
    # what a broker says, the receipt, and whether that is trouble
    ("a leader that is none any more", cluster.NOT_LEADER, "OK", False),
    ("a time that is over on the broker", cluster.REQUEST_TIMED_OUT, "OK", False),
    ("too few replicas", cluster.NOT_ENOUGH_REPLICAS, "OK", False),
    ("too few replicas, after the fact", cluster.NOT_ENOUGH_REPLICAS_AFTER_APPEND, "OK", False),
    ("a broker's disk", cluster.STORAGE_ERROR, "OK", False),
    ("a connection that breaks", cluster.DISCONNECT, "OK", False),
    ("a producer that nobody knows", cluster.UNKNOWN_PRODUCER_ID, "OK", False),
    ("a message that is too large", cluster.TOO_LARGE, "REJECT too-large", False),
    ("a sequence out of order", cluster.OUT_OF_ORDER_SEQUENCE, "RETRY unavailable", True),
    ("an epoch that is over", cluster.INVALID_PRODUCER_EPOCH, "RETRY unavailable", True),
    ("a record that is not valid", cluster.INVALID_RECORD, "RETRY unavailable", True),
    ("no permission for the topic", cluster.TOPIC_AUTHORIZATION_FAILED, "RETRY unavailable", True),
)
# Whatever the bytes are.
BYTES = [b"", b"\0", b"\r\n", b"hello", bytes(range(256)), b"\xff\xfe" * 500, "\u00e4".encode(),
         b"x" * 4095, b"y" * 70000]
tap = storage.Tap()


def values(records):
    return [record.value for record in records]


def ready(daemon):
    """What /readyz says."""
    address = re.search(r"status-listening: .*?(127\.0\.0\.1:\d+)", daemon.log()).group(1)
    connection = http.client.HTTPConnection(address, timeout=storage.DEADLINE)
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
    connection.close()
    return status


def works(daemon, patience=storage.DEADLINE):
    """Sends until one is accepted: trouble is over."""
    return wait_for("an OK", lambda: daemon.ask(b"again") == ["OK"], patience)


def test_records(scratch, mock):
    """What is in the topic is what was sent."""
    topic = mock.topic("records", 3)
    before = time.time()
    with Kafka(scratch, mock.brokers, topic) as daemon:
        lines = daemon.lines(*BYTES)
        records = {record.id: record for record in mock.records(topic, len(BYTES))}
        ids = [line.split()[1] for line in lines]
        tap.result([records[i].value for i in ids] == BYTES, "any bytes arrive as they are")
        tap.result(records[ids[0]].value == b"", "no bytes are an empty value, not none")
        tap.result(all(record.key is None for record in records.values()), "key none")
        good = all(
            record.names == ["Cistern-Id", "Cistern-Listener", "Cistern-Peer", "Cistern-Local",
                             "Cistern-Time", "Cistern-Size", "Cistern-Ended"] and
            record.headers["Cistern-Listener"] == "main" and
            re.fullmatch(r"127\.0\.0\.1:\d+", record.headers["Cistern-Peer"]) and
            record.headers["Cistern-Local"] == "127.0.0.1:%d" % daemon.address()[1] and
            record.headers["Cistern-Size"] == str(len(record.value)) and
            record.headers["Cistern-Ended"] == "frame" for record in records.values())
        tap.result(good, "headers say where a message is from")
        stamp = records[ids[0]].headers["Cistern-Time"]
        when = datetime.datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(
            tzinfo=datetime.timezone.utc).timestamp()
        tap.result(before - 1 <= when <= time.time() + 1 and
                   records[ids[0]].time == int(round(when * 1e6)) // 1000,
                   "a record's time is the message's")
        daemon.finish(tap, "records")


def test_keys(scratch, mock):
    path = os.path.join(scratch, "local")
    for key in ("peer", "id"):
        topic = mock.topic("key-" + key, 8)
        with Kafka(scratch, mock.brokers, topic, 'key = "%s";' % key,
                   'listeners = { main = {}; six = { address = "::1"; }; '
                   'local = { address = "unix:%s"; }; };' % path) as daemon:
            first = daemon.lines(*(b"%d" % n for n in range(50)))
            daemon.lines(*(b"%d" % n for n in range(50, 100)))
            six = connect(daemon.address("six"))
            six.sendall(frame(b"six"))
            answers(six)
            local = connect(path)
            local.sendall(frame(b"local"))
            answers(local)
            records = mock.records(topic, 102)
            if key == "id":
                tap.result(all(record.key == record.id.encode() for record in records) and
                           len({record.partition for record in records}) > 3, "key id",
                           repr(first[:2]))
            else:
                keys = {record.value: record.key for record in records}
                own = [r for r in records if r.value not in (b"six", b"local")]
                tap.result({r.key for r in own} == {b"127.0.0.1"} and keys[b"six"] == b"::1" and
                           keys[b"local"] == b"unix",
                           "key peer is the peer's address, whatever its port",
                           repr(set(keys.values())))
                tap.result(len({r.partition for r in own}) == 1 and
                           values(own) == [b"%d" % n for n in range(100)],
                           "what a peer sends stays in order, over connections")
            daemon.finish(tap, "key " + key)


def test_sizes(scratch, mock):
    """At the limit, in one piece, in many, and from a file."""
    topic = mock.topic("sizes")
    limit = 20000
    with Kafka(scratch, mock.brokers, topic, 'properties = [ "message.max.bytes=%d" ];' % limit,
               "buffer_size = 4096;") as daemon:
        largest = 0
        for size in range(limit - 700, limit + 2):  # headers and framing count, too
            if size % 50 and size < limit - 60:
                continue
            answer = daemon.ask(b"m" * size)
            if answer == ["OK"]:
                largest = max(largest, size)
            elif answer != ["REJECT too-large"]:
                tap.note("%d: %r" % (size, answer))
                largest = -1
                break
        tap.result(limit - 700 <= largest < limit, "a message just too large is refused",
                   "largest %d" % largest)
        tap.result(daemon.ask(b"m" * (limit + 1), b"small") == ["REJECT too-large", "OK"],
                   "one that is refused does not take others along")
        good = all(set(value) <= set(b"m") or value == b"small"
                   for value in values(mock.records(topic)))
        tap.result(good, "what came in pieces is whole")
        tap.result(not daemon.events("sink-failing"), "and is no trouble of the sink")
        daemon.finish(tap, "sizes")
    with Kafka(scratch, mock.brokers, topic, "", 'memory_limit = "64K"; buffer_size = 4096;'
               ) as daemon:
        data = os.urandom(900000)
        before = len(mock.records(topic))
        tap.result(daemon.ask(data) == ["OK"] and
                   values(mock.records(topic, before + 1))[-1] == data,
                   "a message past memory_limit, which lies in a file, is whole")
        daemon.finish(tap, "a file")
    with Kafka(scratch, mock.brokers, topic, 'properties = [ "queue.buffering.max.kbytes=10" ];'
               ) as daemon:
        tap.result(daemon.ask(b"q" * 50000, b"small") == ["REJECT too-large", "OK"],
                   "one that the library's queue can never hold is too large")
        daemon.finish(tap, "a small queue")


def test_outcomes(scratch, mock):
    for name, code, wanted, trouble in OUTCOMES:
        topic = mock.topic("outcome") if "outcome" not in mock.files else "outcome"
        with Kafka(scratch, mock.brokers, topic, 'timeout = "10s";') as daemon:
            works(daemon)
            mock.errors(code)
            judged = b"judge me: %d" % code
            answer = daemon.ask(judged)
            mock.tell("clear", cluster.PRODUCE)
            said = bool(daemon.events("sink-failing"))
            tap.result(answer == [wanted] and said == trouble, "%s: %s" % (name, wanted),
                       "%r\n%s" % (answer, daemon.log()))
            works(daemon)
            if trouble:
                daemon.wait_event("sink-well")
            tap.result(daemon.ask(b"behind %d" % code) == ["OK"], "%s: afterwards all is well" % name)
            found = wait_for("all before it", lambda: mock.until(topic, b"behind %d" % code))
            tap.result(found.count(judged) == (wanted == "OK"),
                       "%s: what was accepted is there once, and nothing else" % name)
            daemon.finish(tap, name)


def test_fatal(scratch, mock):
    """A producer that has given up is replaced, and what it had is answered."""
    topic = mock.topic("fatal", 4)
    with Kafka(scratch, mock.brokers, topic) as daemon:
        works(daemon)
        mock.errors(cluster.OUT_OF_ORDER_SEQUENCE)
        asked = daemon.ask(*(b"%d" % n for n in range(500)))
        tap.result(len(asked) == 500 and set(asked) <= {"OK", "RETRY unavailable"} and
                   "RETRY unavailable" in asked, "all in flight is answered", repr(set(asked)))
        tap.result(len(daemon.wait_event("kafka-renewed")) == 1, "and the log says so once")
        works(daemon)
        tap.result(daemon.ask(b"500") == ["OK"], "and the new one works")
        kept = {b"%d" % n for n in range(501) if n == 500 or asked[n] == "OK"}
        wait_for("what was acknowledged", lambda: b"500" in values(mock.records(topic)))
        tap.result(kept <= set(values(mock.records(topic))),
                   "what was acknowledged meanwhile is there")
        daemon.finish(tap, "fatal")


def test_batches(scratch, mock):
    """A topic that takes less than a batch of ours: nobody is refused for good."""
    topic = mock.topic("batches")
    with Kafka(scratch, mock.brokers, topic, 'properties = [ "linger.ms=50" ];') as daemon:
        works(daemon)
        mock.errors(cluster.TOO_LARGE)
        asked = daemon.ask(*(b"%d" % n for n in range(100)))
        tap.result(len(asked) == 100 and asked.count("RETRY unavailable") > 1 and
                   not [a for a in asked if a.startswith("REJECT")],
                   "a batch that is refused is no message's fault", repr(set(asked)))
        daemon.wait_event("kafka-batches", "500000 bytes")
        works(daemon)
        daemon.finish(tap, "batches")


def test_brokers_down(scratch, mock):
    topic = mock.topic("down", 3)
    mock.tell("down", -1)
    with Kafka(scratch, mock.brokers, topic, 'timeout = "1s";',
               'status = { port = 0; };') as daemon:
        daemon.wait_event("sink-failing", "topic down: ")
        tap.result(True, "brokers down at the start are no reason not to start, but said at once")
        tap.result(ready(daemon) == 503, "/readyz is 503")
        tap.result(daemon.ask(b"lost") == ["RETRY unavailable"], "no broker: RETRY unavailable")
        tap.result(len(daemon.events("sink-failing")) == 1, "an episode is said once")
        spent = daemon.processor()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            cluster.pause()
        spent = daemon.processor() - spent
        tap.result(spent < 0.3, "waiting for brokers costs little", "%.2f s in one" % spent)
        mock.tell("up", -1)
        daemon.wait_event("sink-well")
        tap.result(ready(daemon) == 200, "their return is seen without a message, and by /readyz")
        tap.result(daemon.ask(b"found") == ["OK"], "and messages are accepted")
        for broker in (1, 2, 3):
            mock.tell("down", broker)
            asked = daemon.ask(*(b"%d" % n for n in range(30)))
            tap.result(len(asked) == 30 and
                       set(asked) <= {"OK", "RETRY timeout", "RETRY unavailable"},
                       "broker %d is down: each is answered" % broker, repr(set(asked)))
            mock.tell("up", broker)
            works(daemon)
        daemon.finish(tap, "brokers down")


def test_patience(scratch, mock):
    """A short absence is waited for."""
    topic = mock.topic("patience")
    with Kafka(scratch, mock.brokers, topic) as daemon:
        works(daemon)
        mock.tell("down", -1)
        client = connect(daemon.address())
        client.sendall(frame(b"wait"))
        daemon.wait_event("kafka-library", "FAIL")
        mock.tell("up", -1)
        tap.result(answers(client)[0].startswith("OK"), "brokers that come back within timeout")
        mock.tell("rtt", -1, 300)
        tap.result(daemon.ask(b"slow") == ["OK"], "slow brokers")
        mock.tell("rtt", -1, 0)
        daemon.finish(tap, "patience")
    with Kafka(scratch, mock.brokers, topic, 'timeout = "1s";') as daemon:
        works(daemon)
        mock.tell("rtt", -1, 4000)
        tap.result(daemon.ask(b"too slow") == ["RETRY timeout"],
                   "brokers that do not answer: RETRY timeout")
        mock.tell("rtt", -1, 0)
        works(daemon)
        daemon.finish(tap, "timeout")


def test_no_topic(scratch, mock):
    topic = mock.topic("missing")
    mock.tell("topic_error", topic, cluster.UNKNOWN_TOPIC)
    with Kafka(scratch, mock.brokers, topic, 'timeout = "1s"; properties = '
               '[ "topic.metadata.propagation.max.ms=0" ];') as daemon:
        daemon.wait_event("sink-failing", "Unknown topic or partition")
        asked = daemon.ask(*(b"%d" % n for n in range(50)))
        tap.result(asked == ["RETRY unavailable"] * 50, "no such topic: temporary, and said",
                   repr(asked[:3]))
        mock.tell("topic_error", topic, 0)
        daemon.wait_event("sink-well")
        tap.result(daemon.ask(b"now") == ["OK"], "once it is there, it is found")
        daemon.finish(tap, "no topic")


def test_queue_full(scratch, mock):
    """A small queue of the library's is back-pressure."""
    topic = mock.topic("full", 2)
    with Kafka(scratch, mock.brokers, topic,
               'properties = [ "queue.buffering.max.messages=7" ];') as daemon:
        mock.tell("rtt", -1, 20)
        asked = daemon.ask(*(b"%d" % n for n in range(400)))
        mock.tell("rtt", -1, 0)
        tap.result(asked == ["OK"] * 400, "400 messages through a queue of 7", repr(set(asked)))
        found = sorted(int(value) for value in values(mock.records(topic, 400)))
        tap.result(found == list(range(400)), "each is there, once")
        daemon.finish(tap, "queue full")


def test_reload(scratch, mock):
    """Other settings make another sink; the old one finishes first."""
    topic, other = mock.topic("before", 2), mock.topic("after", 2)
    with Kafka(scratch, mock.brokers, topic) as daemon:
        works(daemon)
        threads, total, stop = daemon.threads(), [], threading.Event()

        def send():
            while not stop.is_set():
                total.extend(daemon.ask(*(b"%d" % n for n in range(20))))
        senders = [threading.Thread(target=send) for _ in range(4)]
        for sender in senders:
            sender.start()
        for n in range(6):
            daemon.reload(daemon.settings(mock.brokers, (other, topic)[n % 2],
                                          'timeout = "%ds";' % (20 + n)))
        stop.set()
        for sender in senders:
            sender.join()
        tap.result(set(total) == {"OK"}, "six reloads while busy: all accepted", repr(set(total)))
        records = mock.records(topic) + mock.records(other)
        tap.result(len(wait_for("all", lambda: len(mock.records(topic)) + len(mock.records(other))
                                >= len(total) + 1 and [1])) == 1 and records,
                   "and all are in one topic or the other")
        wait_for("old producers to end", lambda: daemon.threads() <= threads)
        tap.result(True, "no thread of an old producer is left")
        descriptors = daemon.descriptors()
        with open(daemon.config, encoding="utf-8") as file:
            good = file.read()
        daemon.reload(good.replace('timeout = ', 'properties = [ "ssl.ca.location=/nowhere", '
                                   '"security.protocol=ssl" ]; timeout = '))
        tap.result(daemon.events("reload-refused") != [] and daemon.ask(b"still") == ["OK"],
                   "a reload with a file that is not there is refused", daemon.log()[-2000:])
        tap.result(daemon.descriptors() <= descriptors + 2, "without a leak")
        daemon.finish(tap, "reload")


def test_stop(scratch, mock):
    """A stop waits as long as it may, and no longer."""
    topic = mock.topic("stop")
    with Kafka(scratch, mock.brokers, topic, 'timeout = "1h";', shutdown=1) as daemon:
        works(daemon)
        mock.tell("down", -1)
        client = connect(daemon.address())
        client.sendall(frame(*(b"%d" % n for n in range(100))))
        daemon.wait_event("kafka-library", "FAIL")
        daemon.signal()
        asked = answers(client)
        tap.result(asked == ["RETRY shutdown"] * 100, "no broker at a stop: RETRY shutdown",
                   repr(asked[:3]))
        daemon.finish(tap, "stop while down")
        mock.tell("up", -1)
    with Kafka(scratch, mock.brokers, topic, 'timeout = "1h";', shutdown=600) as daemon:
        works(daemon)
        mock.tell("rtt", -1, 700)
        client = connect(daemon.address())
        client.sendall(frame(b"last"))
        wait_for("it to be taken", lambda: daemon.connections_busy(client))
        daemon.signal()
        tap.result(answers(client)[0].startswith("OK"), "what is on its way at a stop is waited for")
        mock.tell("rtt", -1, 0)
        daemon.finish(tap, "stop while busy")
    with Kafka(scratch, ["127.0.0.1:9"], "nowhere", 'timeout = "1h";', shutdown=600) as daemon:
        client = connect(daemon.address())
        client.sendall(frame(b"never"))
        wait_for("it to be taken", lambda: daemon.connections_busy(client))
        daemon.signal()
        daemon.wait_event("stopping")
        daemon.signal()
        answers(client)
        daemon.finish(tap, "a second signal")


def test_name_server(scratch, mock):
    """A name server that does not answer holds a thread of the library's, and not us."""
    del mock
    library = os.path.join(scratch, "slow.so")
    source = os.path.join(scratch, "slow.c")
    with open(source, "w", encoding="ascii") as file:
        file.write("#include <netdb.h>\n#include <unistd.h>\n"
                   "int getaddrinfo(const char *n, const char *s, const struct addrinfo *h,"
                   " struct addrinfo **r) { (void)n; (void)s; (void)h; (void)r; sleep(%d);"
                   " return EAI_AGAIN; }\n" % (2 * storage.DEADLINE))
    with open(storage.program(), "rb") as file:
        built = file.read()
    if b"__asan_init" in built or subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", library, source], check=False,
            capture_output=True).returncode != 0:
        tap.result(True, "a name server # SKIP AddressSanitizer wants to come first, or no compiler")
        return
    with Kafka(scratch, ["broker.example.com"], "t", 'timeout = "1s";', shutdown=1,
               env={"LD_PRELOAD": " ".join([library, os.environ.get("LD_PRELOAD", "")]),
                    # A thread of the library's is left behind, which is the point.
                    "TSAN_OPTIONS": os.environ.get("TSAN_OPTIONS", "") + " report_thread_leaks=0"}) as daemon:
        client = connect(daemon.address())
        client.sendall(frame(b"hello"))
        wait_for("it to be taken", lambda: daemon.connections_busy(client))
        daemon.signal()
        asked = answers(client)
        tap.result(asked in (["RETRY shutdown"], ["RETRY unavailable"], ["RETRY timeout"]),
                   "a name server that hangs: answered", repr(asked))
        daemon.finish(tap, "a name server that hangs")
        tap.result(daemon.events("kafka-left") != [], "and the log says what was left")


def test_configuration(scratch, mock):
    """-t tells what librdkafka would say, and asks nobody."""
    def check(sink, brokers='"127.0.0.1:9"'):
        path = os.path.join(scratch, "check.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write('sinks = { k = { type = "kafka"; brokers = [ %s ];\ntopic = "t"; %s }; };'
                       % (brokers, sink))
        done = subprocess.run([storage.program(), "-t", "-c", path], capture_output=True,
                              text=True, check=False)
        return done.returncode, done.stdout + done.stderr
    tap.result(check('properties = [ "compression.type=lz4" ];')[0] == 0, "-t: a good file")
    for what, sink, text in (
            ("a file that is not there",
             'properties = [ "security.protocol=ssl", "ssl.ca.location=/nowhere" ];', "ssl.ca.location"),
            ("properties that do not go together",
             'properties = [ "queuing.strategy=lifo" ];', "queuing.strategy"),
            ("an unknown property", 'properties = [ "linger=1" ];', '"linger"'),
            ("a property that is a setting", 'properties = [ "acks=1" ];', "replicas")):
        code, said = check(sink)
        tap.result(code == 78 and text in said and ":1:" in said + ":1:" and "check.conf:" in said,
                   "-t: " + what, said)
    path = os.path.join(scratch, "check.conf")
    check('properties = [ "linger.ms=7", "sasl.password=secret=\\"x\\"" ]; key = "peer";',
          '"a:1", "[::1]:2"')
    dump = subprocess.run([storage.program(), "-T", "-c", path], capture_output=True, text=True,
                          check=True).stdout
    with open(path, "w", encoding="utf-8") as file:
        file.write(dump)
    again = subprocess.run([storage.program(), "-T", "-c", path], capture_output=True, text=True,
                           check=True).stdout
    tap.result(dump == again and "linger.ms=7" in dump and "[::1]:2" in dump,
               "-T is read back to the same", dump)
    done = subprocess.run([storage.program(), "-V"], capture_output=True, text=True, check=True)
    tap.result("librdkafka 2" in done.stdout or "librdkafka 1" in done.stdout, "-V says so")


def main():
    cluster.mock_program()
    for name, test in sorted(globals().items()):
        if name.startswith("test_") and (len(sys.argv) == 1 or name[5:] in sys.argv):
            with storage.Scratch() as scratch, Mock(scratch) as mock:
                tap.note(name)
                test(scratch, mock)
    raise SystemExit(tap.end())


main()
