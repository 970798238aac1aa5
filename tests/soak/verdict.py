"""verdict: whether what the soak has seen of the daemon is flat.

At rest everything is exact: each rest has the descriptors and threads of the first one, to the
last, and these are what the configuration explains.  Under load connections and what keeps them
come and go, so there it is the least of each kind that must not grow: a configuration that
connections keep has its sinks' eventfds, files and threads, but not always.

Of memory, what is allocated at rest counts: to the byte, but for buffers that libraries have at
one rest and not at another, so the least of the later rests is compared with the least of the
earlier ones.  What is resident is what malloc has ever needed at a time.
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
# What is allocated at rest may differ by so many bytes, after so many seconds of warm-up, ...
HEAP_MORE, HEAP_AFTER = 65536, 10
# ... where there are at least so many rests to be compared.
HEAP_RESTS = 4


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


def judge_heap(tap, rests, seconds, counts):
    """counts: messages and connections at each rest; seconds: of load, in all."""
    laps = len(rests) - 1
    judged = [n for n in range(1, laps + 1) if n * seconds / laps >= HEAP_AFTER]
    tap.note("allocated at rest, KiB: %s" % ", ".join("%.1f" % (rest.heap[0] / 1024) for rest in rests))
    if len(judged) < HEAP_RESTS:
        tap.note("that is too short to be judged")
        return
    half = len(judged) // 2
    first, last = (min((rests[n].heap[0], rests[n].heap[1], n) for n in part)
                   for part in (judged[:half], judged[-half:]))
    grown, blocks = last[0] - first[0], last[1] - first[1]
    messages, connections = (counts[last[2]][n] - counts[first[2]][n] for n in range(2))
    tap.result(grown <= HEAP_MORE,
               "allocated at the least at rests %d to %d: %d bytes, in %d blocks, more than at rests %d "
               "to %d, after %d messages and %d connections (at most %d bytes)" % (
                   judged[-half], judged[-1], grown, blocks, judged[0], judged[half - 1], messages,
                   connections, HEAP_MORE))
