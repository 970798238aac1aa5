"""verdict: whether what the soak has seen of the daemon is flat.

At rest everything is exact: each rest has the descriptors and threads of the first one, to the
last, and these are what the configuration explains.  Under load connections and what keeps them
come and go, so there it is the least of each kind that must not grow: a configuration that
connections keep has its sinks' eventfds, files and threads, but not always.  Memory at rest may
differ by what malloc keeps; what a leak of a few bytes a message or a connection comes to is
more than that.
"""

import collections
import re
import statistics

import inventory

# Fewer samples tell nothing of a trend under load.
JUDGED_FROM = 300
# The last third against the first, after warm-up: (times, and more).
MEMORY = (1.05, 1024)
SOCKETS = (1.1, 4)
# A run that is shorter is with one arena (MALLOC_ARENA_MAX): with one for each of many threads
# it takes minutes until all have what they will ever have.  Then rests differ by so many KiB at
# most, after so many seconds of warm-up.
REST_MORE, REST_AFTER = 512, 30


def thirds(samples, column, of):
    """Of the first and the last third, after a fifth of warm-up."""
    values = [sample[column] for sample in samples[len(samples) // 5:]]
    third = max(1, len(values) // 3)
    return of(values[:third]), of(values[-third:])


def judge_load(tap, samples, long, memory_counts):
    columns = [("resident", statistics.median, MEMORY), ("sockets", statistics.median, SOCKETS)]
    columns += [(name, min, (1, 0)) for name in inventory.NAMES if name != "sockets"]
    for column, of, (factor, more) in columns + [("threads", min, (1, 0))]:
        first, last = thirds(samples, column, of)
        text = "%s under load: %d in the first third, %d in the last" % (column, first, last)
        if not (first or last):
            continue
        if column == "resident" and not memory_counts:
            tap.note(text + "; a sanitizer keeps what was freed")
        elif not long:
            tap.note(text + "; too short to be judged")
        else:
            tap.result(last <= first * factor + more, "%s (at most %g times, and %d)" % (
                text, factor, more))


def judge_rests(tap, rests, explained, libraries):
    """rests: inventories, the first before anybody came; libraries: kinds of sinks whose
    libraries have what is theirs."""
    first = rests[0]
    has = collections.Counter(first.kinds) + first.threads
    for name in list(has):
        if any(re.fullmatch(inventory.THEIRS[kind], name) for kind in libraries) or \
                (name == "pipes" and set(libraries) & set(inventory.PIPES_OF)):
            has[name] = explained[name]
    wrong = {name: (has[name], explained[name]) for name in has | explained
             if has[name] != explained[name]}
    tap.result(not wrong, "at rest: %s: what the configuration explains" % first.text(),
               "what: (is, explained): %s\n%s\n%s" % (wrong, first.descriptors, first.threads))
    for number, rest in enumerate(rests[1:], 1):
        if rest != first:
            tap.result(False, "rest %d of %d: %s" % (number, len(rests) - 1, rest.text()),
                       "more: %s; gone: %s" % (rest.more_than(first), first.more_than(rest)))
            return
    tap.result(True, "each of %d rests has the same descriptors and threads" % (len(rests) - 1))


def judge_memory_at_rest(tap, rests, seconds, counts, memory_counts):
    """counts: messages and connections at each rest; seconds: of load, in all."""
    begin = (len(rests) + 2) // 3
    most = rests[begin].resident * MEMORY[0] + MEMORY[1]
    if seconds < JUDGED_FROM:
        begin = next((n for n in range(len(rests)) if n * seconds / (len(rests) - 1) >= REST_AFTER),
                     len(rests) - 1)
        most = rests[begin].resident + REST_MORE
    text = "KiB resident at rest: %s; from rest %d on %d more, with %d messages and %d connections" % (
        ", ".join(str(rest.resident) for rest in rests), begin,
        rests[-1].resident - rests[begin].resident,
        *(counts[-1][n] - counts[begin][n] for n in range(2)))
    if not memory_counts:
        tap.note(text + "; a sanitizer keeps what was freed")
    elif begin == len(rests) - 1:
        tap.note(text + "; too short to be judged")
    else:
        tap.result(rests[-1].resident <= most, text + " (at most %d)" % most)
