"""Plots as inline SVG. Colours are classes of report.py's style, so that they fit light and dark."""

import html
import math

WIDTH, LEFT, RIGHT = 900, 190, 24
ROW, AXIS = 26, 34
SERIES = 7  # colours of the style
FONT_WIDTH = 6.4  # of a character, about


def escape(text):
    return html.escape(str(text), quote=True)


def nice_step(most, steps):
    """The smallest of 1, 2, 5 x 10^n with which @steps reach @most."""
    power = 10 ** math.floor(math.log10(most / steps))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * steps >= most * 0.9999)


class Axis:
    """From 0 to at least @most, over @length units from @start; @length below 0: upwards."""

    def __init__(self, most, start, length, steps=5):
        self.step = nice_step(most or 1, steps)
        self.count = max(1, math.ceil((most or 1) / self.step - 1e-9))
        self.start, self.scale = start, length / (self.step * self.count)

    def at(self, value):
        return self.start + value * self.scale

    def ticks(self):
        return [(self.at(self.step * i), f"{round(self.step * i, 9):,g}") for i in range(self.count + 1)]


def text(x, y, words, anchor="start", name=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{name}">{escape(words)}</text>'


def line(x1, y1, x2, y2, name):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{name}"/>'


def rect(x, y, width, height, name, title):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{max(height, 0):.1f}" class="{name}">'
            f"<title>{escape(title)}</title></rect>")


def dot(x, y, name, title, radius=4):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="{name}"><title>{escape(title)}</title></circle>'


def frame(parts, height, label, width=WIDTH):
    return f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def _ground(axis, top, bottom, unit):
    for x, label in axis.ticks():
        yield line(x, top, x, bottom, "grid")
        yield text(x, bottom + 16, label, "middle")
    yield text(WIDTH - RIGHT, bottom + 31, unit, "end")


def legend(names, y=14, left=LEFT):
    x = left
    for index, name in enumerate(names):
        yield f'<rect x="{x:.1f}" y="{y - 10}" width="11" height="11" class="fill{index % SERIES}"/>'
        yield text(x + 16, y, name)
        x += 34 + FONT_WIDTH * len(name)


def dots(label, unit, rows, limits=()):
    """@rows: (name, values), a dot for each value and a stroke at their median; @limits: (name, value), lines."""
    top = 8 + 16 * len(limits)
    bottom = top + ROW * len(rows) + 6
    values = [value for _, some in rows for value in some] + [value for _, value in limits]
    axis = Axis(max(values, default=1) * 1.03, LEFT, WIDTH - LEFT - RIGHT)
    parts = list(_ground(axis, top, bottom, unit))
    for index, (name, value) in enumerate(limits):
        x, y = axis.at(value), 12 + 16 * index
        parts += [line(x, y - 8, x, bottom, "limit")]
        parts += [text(x + 5, y, name) if x < WIDTH * 0.6 else text(x - 5, y, name, "end")]
    for index, (name, some) in enumerate(rows):
        y = top + ROW * (index + 0.5) + 3
        parts.append(text(LEFT - 10, y + 4, name, "end"))
        parts += [dot(axis.at(value), y, f"fill{index % SERIES} run", f"{name}: {value:.6g} {unit}") for value in some]
        if some:
            middle = sorted(some)[len(some) // 2] if len(some) % 2 else sum(sorted(some)[len(some) // 2 - 1:][:2]) / 2
            parts.append(line(axis.at(middle), y - 9, axis.at(middle), y + 9, "median"))
    return frame(parts, bottom + AXIS + 2, label)


def stacked(label, unit, names, rows, apart=()):
    """@rows: (name, {name of a part: value}); the parts of @apart are drawn pale: they don't count."""
    top, bottom = 26, 26 + ROW * len(rows) + 6
    axis = Axis(max((sum(parts.get(name, 0) for name in names) for _, parts in rows), default=1) * 1.1, LEFT,
                WIDTH - LEFT - RIGHT)
    out = [*legend(names, left=LEFT), *_ground(axis, top, bottom, unit)]
    for number, (row, values) in enumerate(rows):
        at, y = 0, top + ROW * number + 5
        out.append(text(LEFT - 10, y + 13, row, "end"))
        for index, name in enumerate(names):
            value = values.get(name, 0)
            style = f"fill{index % SERIES}" + (" pale" if name in apart else "")
            out.append(rect(axis.at(at), y, value * axis.scale, ROW - 8, style, f"{row}, {name}: {value} {unit}"))
            at += value
        counted = sum(values.get(name, 0) for name in names if name not in apart)
        out.append(text(axis.at(at) + 6, y + 13, f"{counted:,}"))
    return frame(out, bottom + AXIS + 2, label)


def rounds(label, steps):
    """@steps: (us, wire bytes, dirty bits/s, link bits/s, name) of each round. Bars as wide as a round took and as high
    as the link carried, so that the area is the bytes; the dirty rate is a line over each."""
    width, left, top, height = WIDTH, 60, 40, 150
    bottom = top + height
    along = Axis(sum(step[0] for step in steps) / 1000, left, width - left - RIGHT, steps=8)
    up = Axis(max(max(step[2], step[3]) for step in steps) / 1e9, bottom, -height, steps=4)
    out = list(legend(("link rate; area: bytes", "in the pause", "dirty rate"), left=left))
    for y, words in up.ticks():
        out += [line(left, y, width - RIGHT, y, "grid"), text(left - 6, y + 4, words, "end")]
    for x, words in along.ticks():
        out.append(text(x, bottom + 16, words, "middle"))
    out += [text(left - 6, top - 10, "Gbit/s", "end"), text(width - RIGHT, bottom + 31, "ms", "end")]
    begin, free = 0, left
    for number, (us, wire, dirty, link, name) in enumerate(steps):
        x, end = along.at(begin / 1000), along.at((begin + us) / 1000)
        style = "fill1" if number == len(steps) - 1 else "fill0"
        title = (f"{name}: {us / 1000:.2f} ms, {wire / 2**20:.1f} MiB, "
                 f"link {link / 1e9:.2f}, dirty {dirty / 1e9:.2f} Gbit/s")
        out.append(rect(x, up.at(link / 1e9), max(end - x - 0.6, 1), bottom - up.at(link / 1e9), style, title))
        out.append(line(x, up.at(dirty / 1e9), max(end, x + 2), up.at(dirty / 1e9), "stroke2"))
        words = f"{wire / 2**20:.0f} MiB"
        if x >= free and end - x > FONT_WIDTH * len(words):
            out.append(text((x + end) / 2, min(up.at(link / 1e9) + 14, bottom - 3), words, "middle", "inside"))
        begin += us
    return frame(out, bottom + AXIS + 2, label)


def growth(label, unit, series):
    """@series: (name, [(size in GiB, value)], dashed): over the logarithm of the size."""
    left, top, height, width = 60, 40, 200, WIDTH
    bottom = top + height
    points = [point for _, some, _ in series for point in some]
    most = max((value for _, value in points), default=1)
    up = Axis(most * 1.02, bottom, -height, steps=4)
    sizes = sorted({size for size, _ in points}) or [1]
    spread = max(1, math.log2(sizes[-1] / sizes[0])) if len(sizes) > 1 else 1

    def across(size):
        return left + 30 + math.log2(size / sizes[0]) / spread * (width - left - RIGHT - 60)

    out = list(legend([name for name, _, _ in series], left=left))
    for y, words in up.ticks():
        out += [line(left, y, width - RIGHT, y, "grid"), text(left - 6, y + 4, words, "end")]
    out += [text(across(size), bottom + 16, f"{size} GiB", "middle") for size in sizes]
    out.append(text(left - 6, top - 10, unit, "end"))
    for index, (name, some, dashed) in enumerate(series):
        path = " ".join(f"{across(size):.1f},{up.at(value):.1f}" for size, value in some)
        out.append(f'<polyline class="stroke{index % SERIES}{" dashed" if dashed else ""}" points="{path}"/>')
        out += [dot(across(size), up.at(value), f"fill{index % SERIES}", f"{name}, {size} GiB: {value:.6g} {unit}")
                for size, value in some if not dashed]
    return frame(out, bottom + AXIS, label)
