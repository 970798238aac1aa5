"""curve: the samples of a soak as a drawing: a panel a figure, over the time."""

from xml.sax.saxutils import escape

# (column, title, divisor)
PANELS = (
    ("resident", "resident memory, MiB", 1024),
    ("descriptors", "descriptors", 1),
    ("eventfds", "of these eventfds", 1),
    ("threads", "threads", 1),
    ("connections", "connections", 1),
    ("rate", "messages a second", 1),
)
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.small { font-size: 11px; fill: #555 }
.line { fill: none; stroke: #2a6f97; stroke-width: 1.2 }
.axis { stroke: #bbb; stroke-width: 1 }
.warm { fill: #b8c4cc; opacity: .3 }
.ground { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .small { fill: #aaa } .ground { fill: #1b1f23 }
  .line { stroke: #61a5c2 } .axis { stroke: #555 } .warm { fill: #4a555e }
}
"""
LEFT, WIDTH, HEIGHT, GAP = 64, 700, 90, 48
GAP_SECONDS = 15  # without a sample, which are a second apart, and longer at a rest


def columns(points, count):
    """Of each of `count` columns of the time (0 to 1) the lowest and the highest: no peak is lost."""
    bins = {}
    for at, value in points:
        bins.setdefault(min(int(at * count), count - 1), []).append(value)
    for number in sorted(bins):
        yield from ((number / count, min(bins[number])), ((number + .5) / count, max(bins[number])))


def pieces(samples):
    """Lists of those that follow each other: nothing is drawn where nothing was seen."""
    piece = []
    for sample in samples:
        if piece and sample["second"] > piece[-1]["second"] + GAP_SECONDS:
            yield piece
            piece = []
        piece.append(sample)
    yield piece


def svg(samples, warm, title):
    """samples: dictionaries with `second` and the columns of PANELS; warm: seconds that are not
    judged."""
    last = samples[-1]["second"] or 1
    parts, y = ['<text x="16" y="24">%s</text>' % escape(title)], 40
    for column, label, divisor in PANELS:
        values = [sample[column] / divisor for sample in samples]
        top = max(values) * 1.1 or 1
        y += GAP
        parts.append('<text class="small" x="%d" y="%d">%s: %.5g to %.5g</text>'
                     % (LEFT, y - 8, escape(label), min(values), max(values)))
        parts.append('<rect class="warm" x="%d" y="%d" width="%.1f" height="%d"/>'
                     % (LEFT, y, min(warm / last, 1) * WIDTH, HEIGHT))
        for piece in pieces(samples):
            known = [(sample["second"] / last, sample[column] / divisor) for sample in piece]
            points = " ".join("%.1f,%.1f" % (LEFT + x * WIDTH, y + HEIGHT - value / top * HEIGHT)
                              for x, value in columns(known, WIDTH // 2))
            parts.append('<polyline class="line" points="%s"/>' % points)
        for value in (0, top / 1.1):
            at = y + HEIGHT - value / top * HEIGHT
            parts.append('<line class="axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>'
                         % (LEFT, LEFT + WIDTH, at, at))
            parts.append('<text class="small" x="%d" y="%.1f" text-anchor="end">%.4g</text>'
                         % (LEFT - 6, at + 4, value))
        y += HEIGHT
    y += 20
    unit, name = (60, "min") if last >= 180 else (1, "s")
    step = next(n for n in (1, 2, 5, 10, 20, 30, 60, 120, 240, 1e9) if last / unit / n <= 12)
    at = 0
    while at * unit <= last:
        parts.append('<text class="small" x="%.1f" y="%d" text-anchor="middle">%d %s</text>'
                     % (LEFT + at * unit / last * WIDTH, y, at, name))
        at += step
    width, y = LEFT + WIDTH + 30, y + 16
    return ('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
            'role="img" aria-label="%s">\n<style>%s</style>\n'
            '<rect class="ground" width="%d" height="%d"/>\n' % (
                width, y, width, y, escape(title), STYLE, width, y) + "\n".join(parts) + "\n</svg>\n")
