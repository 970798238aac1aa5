#!/usr/bin/env python3
"""completion: completions/cistern in a bash of its own; and that it, --help and cistern(1)
name the same options.
"""

import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
import kit  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
FILE = os.path.join(os.environ.get("COMPLETIONS", os.path.join(HERE, "..", "..", "completions")),
                    "cistern")
MANDIR = os.environ.get("MANDIR", os.path.join(HERE, "..", "..", "man"))


def complete(*words):
    """What bash offers for the last word."""
    script = ('. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
              '[ "${1##*/}" = cisternd ] && _cisternd || _cistern; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", FILE] + list(words), check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.stderr:
        raise RuntimeError(done.stderr.decode())
    return set(done.stdout.decode().split())


def long_options(text):
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def check_words(_):
    tool = kit.tool()
    for words, expected in (
            (("",), {"send", "queue", "top", "--version", "--help"}), (("s",), {"send"}),
            (("send", "--framing", "m"), {"mllp"}), (("send", "--tls-k"), {"--tls-key"}),
            (("send", "--retry", ""), set()), (("queue", "re"), {"release", "requeue"}),
            (("queue", "list", "--state", "d"), {"done"}), (("top", "-s", "w"), {"waits-for"})):
        if complete(tool, *words) != expected:
            return repr((words, complete(tool, *words)))
    return complete("cisternd", "--d") != {"--dump", "--daemon"} and repr(complete("cisternd", "--d"))


def check_ids(scratch):
    id_ = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    os.makedirs(os.path.join(scratch, "new"))
    kit.write(os.path.join(scratch, "new"), id_ + ".main.unix", b"1")
    found = complete(kit.tool(), "queue", "-d", scratch, "cat", "01")
    return found != {id_} and repr(found)


def check_options_are_the_same_everywhere(_):
    with open(os.path.join(MANDIR, "cistern.1"), encoding="utf-8") as file:
        page = set("--" + name for name in re.findall(r"Fl Fl ([a-z-]+)", file.read()))
    for command in ("send", "queue", "top"):
        told = long_options(kit.run(command, "--help").out.decode())
        offered = complete(kit.tool(), command, "--")
        if told != offered:
            return "%s: --help and completion: %r" % (command, told ^ offered)
        if told - page - {"--help"}:
            return "%s: not in cistern(1): %r" % (command, told - page)
    return None


def main():
    if shutil.which("bash") is None:
        kit.storage.skip_all("bash is not installed")
    tests = kit.Tests()
    with kit.storage.Scratch() as directory:
        tests.all(sys.modules[__name__], directory)
    return tests.end()


if __name__ == "__main__":
    sys.exit(main())
