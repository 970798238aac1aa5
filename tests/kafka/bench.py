#!/usr/bin/env python3
"""bench: messages a second of a kafka sink beside librdkafka's own producer with the same
properties, both to one mock cluster, alternated; medians and spread of the rounds, as ratios.
The first round is thrown away.

Arguments: ROUNDS (5) MESSAGES (200000).
"""

import re
import statistics
import subprocess
import sys

import cluster
from cluster import Kafka, Mock, storage

SIZES = (128, 1024)
SAME = ["linger.ms=0", "sticky.partitioning.linger.ms=10", "max.in.flight=1"]


def through_cistern(scratch, mock, topic, messages, size):
    """From the first byte sent to the last message accepted."""
    with Kafka(scratch, mock.brokers, topic, "", 'listeners = { main = { framing = "line"; reply = "none"; }; };'
               ) as daemon:
        done = subprocess.run(
            [storage.program("LOAD", "tests/bench/load"), "stream", "-p", str(daemon.address()[1]),
             "-c", "8", "-b", str(messages // 8 * size), "-s", str(size), "-f", "line"],
            capture_output=True, text=True, check=True).stdout
        daemon.stop()
        found = re.search(r"messages[ =](\d+).*?seconds[ =]([\d.]+)", done)
        account = daemon.account()
        if account["accepted"] != account["received"] or account["received"] != int(found.group(1)):
            raise RuntimeError(repr((done, account)))
        return int(found.group(1)) / float(found.group(2))


def alone(mock, topic, messages, size, headers, properties):
    path = storage.program("KAFKA_PRODUCE", "tests/kafka/produce")
    return float(subprocess.run([path, ",".join(mock.brokers), topic, str(messages), str(size),
                                 str(headers), *properties], capture_output=True, text=True,
                                check=True).stdout)


def main():
    cluster.mock_program()
    rounds, messages = (int(word) for word in (sys.argv[1:] + ["5", "200000"][len(sys.argv) - 1:]))
    for size in SIZES:
        rates = {}
        with storage.Scratch() as scratch, Mock(scratch) as mock:
            mock.tell("topic", "bench", 6)
            ways = {
                "cisternd": lambda: through_cistern(scratch, mock, "bench", messages, size),
                "librdkafka, 7 headers": lambda: alone(mock, "bench", messages, size - 1, 7, SAME),
                "librdkafka, no headers": lambda: alone(mock, "bench", messages, size - 1, 0, SAME),
                "librdkafka, 7 headers, max.in.flight=5": lambda: alone(
                    mock, "bench", messages, size - 1, 7, SAME[:2]),
                "librdkafka, 7 headers, linger.ms=5": lambda: alone(
                    mock, "bench", messages, size - 1, 7, ["linger.ms=5"]),
            }
            for n in range(rounds + 1):
                for name in sorted(ways, reverse=n % 2 == 0):
                    rate = ways[name]()
                    if n > 0:
                        rates.setdefault(name, []).append(rate)
        base = statistics.median(rates["librdkafka, 7 headers"])
        for name, found in rates.items():
            print("%5d bytes  %-36s %.2f  (%.2f to %.2f)" % (
                size, name, statistics.median(found) / base, min(found) / base, max(found) / base),
                flush=True)


main()
