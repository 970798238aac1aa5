"""report: the results as Markdown and as a drawing."""

from xml.sax.saxutils import escape


def figure(value):
    return f"{value:.2f}"


def verdict(row):
    if row.goal is None:
        return ""
    well = row.value >= row.goal if row.more else row.value <= row.goal
    return "yes" if well else "no"


def goal(row):
    if row.goal is None:
        return ""
    return ("≥ " if row.more else "≤ ") + f"{row.goal:g}"


def markdown(rows, notes, commands):
    lines = ["| load | goal | cisternd | from – to | reached |", "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row.title} | {goal(row)} | {figure(row.value)} | "
                     f"{figure(row.low)} – {figure(row.high)} | {verdict(row)} |")
    with_peers = [row for row in rows if row.peers]
    if with_peers:
        names = sorted({name for row in with_peers for name in row.peers})
        lines += ["", f"| load | cisternd | {' | '.join(names)} |",
                  "|---|---|" + "---|" * len(names)]
        for row in with_peers:
            cells = [figure(row.peers[name]) if name in row.peers else "" for name in names]
            lines.append(f"| {row.title} | {figure(row.value)} | {' | '.join(cells)} |")
    if notes:
        lines += ["", *[f"- {note}" for note in notes]]
    lines += ["", "Each figure and its command:", "", *[f"- {command}" for command in commands]]
    return "\n".join(lines) + "\n"


STYLE = """
text { font: 13px system-ui, sans-serif; fill: #222 }
.small { font-size: 11px; fill: #555 }
.head { font-weight: 600 }
.bar { fill: #2a6f97 }
.peer { fill: #b8c4cc }
.goal { stroke: #c1121f; stroke-width: 2 }
.axis { stroke: #bbb; stroke-width: 1 }
.ground { fill: #fff }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .small { fill: #aaa } .ground { fill: #1b1f23 }
  .bar { fill: #61a5c2 } .peer { fill: #4a555e } .axis { stroke: #555 }
}
"""

LEFT, SCALE, RIGHT = 330, 380, 90  # label, a ratio of 1, room for figures
BAR, SMALL, GAP = 16, 10, 12


def bar(parts, y, height, value, most, kind, label):
    width = min(value / most, 1) * SCALE
    parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(width, 1):.1f}" '
                 f'height="{height}"/>')
    parts.append(f'<text class="small" x="{LEFT + width + 6:.1f}" '
                 f'y="{y + height - (height - 9) / 2:.1f}">{escape(label)}</text>')


def panel(parts, y, title, rows):
    if not rows:
        return y
    values = [v for row in rows for v in (row.value, row.goal or 0, 1)]
    most = min(max(values), 3)
    parts.append(f'<text class="head" x="16" y="{y}">{escape(title)}</text>')
    top = y = y + GAP
    for row in rows:
        parts.append(f'<text x="16" y="{y + BAR - 3}">{escape(row.title)}</text>')
        bar(parts, y, BAR, row.value, most, "bar", figure(row.value))
        if row.goal is not None:
            x = LEFT + min(row.goal / most, 1) * SCALE
            parts.append(f'<line class="goal" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" '
                         f'y2="{y + BAR + 3}"/>')
        y += BAR + 3
        for name, value in sorted(row.peers.items()):
            bar(parts, y, SMALL, value, most, "peer", f"{name} {figure(value)}")
            y += SMALL + 3
        y += GAP
    x = LEFT + SCALE / most
    parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4}" y2="{y - GAP}"/>')
    parts.append(f'<text class="small" x="{x:.1f}" y="{y + 2}" text-anchor="middle">1</text>')
    return y + 32


def svg(rows):
    parts = []
    y = panel(parts, 28, "Rate, as a share of the limit's (more is better; red: the goal)",
              [row for row in rows if row.more])
    y = panel(parts, y, "Cost, in terms of the limit's or as named (less is better)",
              [row for row in rows if not row.more])
    width = LEFT + SCALE + RIGHT
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
            f'viewBox="0 0 {width} {y}" role="img" aria-label="cisternd beside raw epoll">\n'
            f"<style>{STYLE}</style>\n"
            f'<rect class="ground" width="{width}" height="{y}"/>\n' + "\n".join(parts) +
            "\n</svg>\n")
