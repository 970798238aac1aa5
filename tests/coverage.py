#!/usr/bin/env python3
"""coverage: sums up what gcov says of src: lines and branches by directory, the files that are
reached least, the functions that nobody calls, and, in a file, each hole.

    coverage.py HOLES OBJECT.gcda...

The daemon of the crash tests is built of objects of its own, with fault points; what it has
reached counts as well, as it is the same source.  Where a line has other branches there,
those of the ordinary object stand.
"""

import collections
import json
import os
import subprocess
import sys

PIECE = 40  # objects a call of gcov


class Line:
    """A line of source: how often it ran, its branches, and whose it is."""

    def __init__(self, function):
        self.function = function
        self.count = 0
        self.branches = []

    def add(self, count, branches):
        self.count += count
        if len(branches) == len(self.branches):
            self.branches = [one + other for one, other in zip(self.branches, branches)]
        elif not self.branches:
            self.branches = branches


def documents(objects):
    """gcov's own, ordinary objects first."""
    objects = sorted(objects, key=lambda path: "tests_crash_" in os.path.basename(path))
    for at in range(0, len(objects), PIECE):
        found = subprocess.run(["gcov", "-t", "-j", "-b", *objects[at:at + PIECE]], check=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for line in found.stdout.splitlines():
            if line.startswith(b"{"):
                yield json.loads(line)


def source_name(path):
    """src/DIRECTORY/FILE.c, or None."""
    at = path.rfind("/src/")
    return path[at + 1:] if at != -1 and path.endswith(".c") else None


def read(objects):
    files = collections.defaultdict(dict)
    functions = collections.Counter()
    for document in documents(objects):
        for file in document["files"]:
            name = source_name(file["file"])
            if name is None:
                continue
            for function in file["functions"]:
                functions[name, function["name"]] += function["execution_count"]
            for line in file["lines"]:
                known = files[name].setdefault(line["line_number"], Line(line.get("function_name", "")))
                known.add(line["count"], [branch["count"] for branch in line["branches"]])
    return files, functions


def share(reached, total):
    return 100 * reached / total if total else 100


def count(lines):
    """Lines reached, lines, branches reached, branches."""
    branches = [branch for line in lines for branch in line.branches]
    return [sum(line.count > 0 for line in lines), len(lines),
            sum(branch > 0 for branch in branches), len(branches)]


def write_holes(path, files):
    with open(path, "w", encoding="utf-8") as to:
        for name, lines in sorted(files.items()):
            for number, line in sorted(lines.items()):
                if line.count == 0:
                    to.write(f"{name}:{number}: {line.function}: never\n")
                elif 0 in line.branches:
                    missing = [str(i) for i, branch in enumerate(line.branches) if branch == 0]
                    to.write(f"{name}:{number}: {line.function}: branches {' '.join(missing)} of "
                             f"{len(line.branches)}\n")


def main():
    files, functions = read(sys.argv[2:])
    rooms = collections.defaultdict(lambda: [0, 0, 0, 0])
    least = []
    for name, lines in files.items():
        counts = count(lines.values())
        least.append((share(counts[2], counts[3]), share(counts[0], counts[1]), name))
        for room in os.path.dirname(name), "all":
            rooms[room] = [one + other for one, other in zip(rooms[room], counts)]
    for room, counts in sorted(rooms.items(), key=lambda item: (item[0] == "all", item[0])):
        print(f"{room:14} lines {share(*counts[:2]):5.1f}% of {counts[1]:5}   "
              f"branches {share(*counts[2:]):5.1f}% of {counts[3]:5}")
    print("least reached (branches, lines):")
    for branches, lines, name in sorted(least)[:12]:
        print(f"{branches:6.1f} {lines:6.1f} {name}")
    print("never called:", " ".join(sorted(f"{name}:{function}" for (name, function), calls
                                           in functions.items() if calls == 0)) or "none")
    write_holes(sys.argv[1], files)


if __name__ == "__main__":
    main()
