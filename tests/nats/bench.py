#!/usr/bin/env python3
"""bench: messages a second through a nats sink, as a part of what libnats publishes by itself
to the same stream with the same window (publisher.c), both with the sink's headers and with
none.  One server, rounds interleaved, the first one thrown away; only ratios mean anything.

    bench.py [--messages 100000] [--size 200] [--rounds 5] [--replicas 1|3]
"""

import argparse
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from cluster import Cluster, Daemon, require, storage  # noqa: E402

WINDOW = "2048"


def publish(cluster, arguments, headers):
    done = subprocess.run([os.environ["PUBLISHER"], "nats://127.0.0.1:%d" % cluster.servers[0].port,
                           "intake.main", str(arguments.messages), str(arguments.size), WINDOW,
                           str(headers)], stdout=subprocess.PIPE, text=True, check=True)
    count, seconds = done.stdout.split()
    return int(count) / float(seconds)


def through(daemon, arguments):
    done = subprocess.run([os.environ["LOAD"], "stream", "-p", str(daemon.address()[1]), "-c", "4",
                           "-f", "line", "-s", str(arguments.size + 1), "-b",
                           str(arguments.messages // 4 * (arguments.size + 1))],
                          stdout=subprocess.PIPE, text=True, check=True)
    words = done.stdout.split()
    said = dict(zip(words[1::2], words[2::2])) if "=" not in done.stdout else \
        dict(word.split("=") for word in words if "=" in word)
    return int(said["messages"]) / float(said["seconds"])


def main():
    require()
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100000)
    parser.add_argument("--size", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--replicas", type=int, default=1, choices=(1, 3))
    arguments = parser.parse_args()
    rates = {"cisternd": [], "libnats, 9 headers": [], "libnats, an id": []}
    with storage.Scratch() as scratch, Cluster(scratch + "/nats", arguments.replicas) as cluster:
        cluster.add_stream("S", ["intake.>"], arguments.replicas)
        with Daemon(scratch + "/d", cluster.urls()) as daemon:
            daemon.stop()
        daemon.rewrite('framing = "netstring"; reply = "receipt";', 'framing = "line";')
        with Daemon(scratch + "/d", cluster.urls(), text=daemon.text) as daemon:
            daemon.open()
            for _ in range(arguments.rounds + 1):
                rates["libnats, 9 headers"].append(publish(cluster, arguments, 9))
                rates["cisternd"].append(through(daemon, arguments))
                rates["libnats, an id"].append(publish(cluster, arguments, 0))
                cluster.request("$JS.API.STREAM.PURGE.S")
    median = {name: statistics.median(found[1:]) for name, found in rates.items()}
    for name, found in rates.items():
        print("%-20s %8.0f messages/s (%.0f to %.0f), cisternd %.2f of it" % (
            name, median[name], min(found[1:]), max(found[1:]), median["cisternd"] / median[name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
