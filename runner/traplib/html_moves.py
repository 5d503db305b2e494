"""The report's charts of live moves: a histogram of downtime, and the timeline of one move. Plain SVG, drawn here."""

import math
from html import escape as text

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 150, 46, 24
BARS = 24


def section(run):
    """The section on live moves, where there are any."""
    if not run.moves:
        return
    downtimes = sorted(move["downtime_ns"] / 1e6 for move in run.moves)
    middle = downtimes[len(downtimes) // 2]
    yield (f"<section id=moves><h2>Live moves <small>{len(run.moves)}</small></h2>\n<p class=legend>A running guest, sent from one "
           f"visor to another. Downtime: {downtimes[0]:.2f} to {downtimes[-1]:.2f} ms, median {middle:.2f} ms.</p>\n"
           f"<figure><figcaption>Moves by downtime, ms</figcaption>{histogram(downtimes)}</figure>\n")
    longest = max(run.moves, key=lambda move: (len(move["rounds"]), move["total_ns"]))
    yield (f"<figure><figcaption>The move with the most rounds: {text(longest['target'])}, {longest['pages'] * 4096 >> 20} MiB/s written, "
           f"{longest['bytes'] / 1048576:.1f} MiB sent in {longest['total_ns'] / 1e6:.1f} ms</figcaption>{timeline(longest)}</figure>\n")
    yield rounds(longest)
    yield "</section>\n"


def svg(parts, height):
    """A picture of @parts."""
    return f"<svg viewBox='0 0 {WIDTH} {height}' role=img>{''.join(parts)}</svg>"


def label(x, y, words, anchor="middle"):
    """A text."""
    return f"<text x={x:.1f} y={y:.1f} text-anchor={anchor}>{text(words)}</text>"


def axis(x, y, words):
    """A text below the axis, which the edge does not cut."""
    return label(x, y, words, "end" if x > WIDTH - 40 else "middle")


def short(value):
    """A number of milliseconds in two digits."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def histogram(values):
    """Bars over a logarithmic axis, as downtimes differ by orders of magnitude."""
    low, high = math.log10(max(values[0], 1e-3)), math.log10(max(values[-1], 1e-3))
    low, high = math.floor(low * 4) / 4, max(math.ceil(high * 4) / 4, math.floor(low * 4) / 4 + 0.5)
    counts = [0] * BARS
    for value in values:
        at = int((math.log10(max(value, 1e-3)) - low) / (high - low) * BARS)
        counts[min(max(at, 0), BARS - 1)] += 1
    most, step = max(counts), (WIDTH - LEFT - 8) / BARS

    def edge(bar):
        return 10 ** (low + (high - low) * bar / BARS)

    parts = [f"<line x1={LEFT} x2={WIDTH - 8} y1={HEIGHT - BOTTOM} y2={HEIGHT - BOTTOM} />",
             label(LEFT - 6, 14, str(most), "end"), label(LEFT - 6, HEIGHT - BOTTOM, "0", "end")]
    for bar, count in enumerate(counts):
        size = (HEIGHT - BOTTOM - 10) * count / most
        if count:
            parts.append(f"<rect x={LEFT + bar * step + 1:.1f} y={HEIGHT - BOTTOM - size:.1f} width={step - 2:.1f} height={size:.1f}>"
                         f"<title>{edge(bar):.2f} to {edge(bar + 1):.2f} ms: {count}</title></rect>")
    parts += [axis(LEFT + bar * step, HEIGHT - 8, short(edge(bar))) for bar in range(0, BARS + 1, 4)]
    return svg(parts, HEIGHT)


def timeline(move):
    """Each round as a bar over time; what is left behind them is the guest's pause."""
    total, rows = max(move["total_ns"], 1), move["rounds"]
    scale = (WIDTH - LEFT - 8) / total
    height = 18 * (len(rows) + 1) + BOTTOM
    parts = []
    for number, one in enumerate(rows):
        last = number == len(rows) - 1
        parts.append(label(LEFT - 6, 18 * number + 14, f"{number + 1}", "end"))
        parts.append(f"<rect class={'stop' if last else 'round'} x={LEFT + one['began_ns'] * scale:.1f} y={18 * number + 3} "
                     f"width={max(one['took_ns'] * scale, 1):.1f} height=13><title>round {number + 1}: {one['took_ns'] / 1e6:.2f} ms, "
                     f"{one['pages']} pages, {one['dirty']} written meanwhile</title></rect>")
    stopped = move["total_ns"] - move["downtime_ns"]
    parts.append(label(LEFT - 6, 18 * len(rows) + 14, "stop", "end"))
    parts.append(f"<rect class=stop x={LEFT + stopped * scale:.1f} y={18 * len(rows) + 3} width={max(move['downtime_ns'] * scale, 1):.1f} "
                 f"height=13><title>the guest stands still: {move['downtime_ns'] / 1e6:.2f} ms</title></rect>")
    parts += [axis(LEFT + part / 4 * total * scale, height - 8, f"{part / 4 * total / 1e6:.1f} ms") for part in range(5)]
    return svg(parts, height)


def rounds(move):
    """The same as numbers."""
    lines = ["<div class=scroll><table class=counts><thead><tr><th>round<th class=n>began, ms<th class=n>took, ms<th class=n>pages"
              "<th class=n>MiB<th class=n>written meanwhile<tbody>"]
    for number, one in enumerate(move["rounds"], 1):
        lines.append(f"<tr><th>{number}<td class=n>{one['began_ns'] / 1e6:.2f}<td class=n>{one['took_ns'] / 1e6:.2f}<td class=n>{one['pages']}"
                      f"<td class=n>{one['bytes'] / 1048576:.2f}<td class=n>{one['dirty']}")
    return "".join(lines) + "</table></div>\n"
