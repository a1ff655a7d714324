#!/usr/bin/env python3
"""Draws latency against throughput, as SVG, from what `handfast bench tx --rate .. --json` says.

    handfast bench tx --rate 1000,2000,5000,10000 --concurrency 4096 --json > open-loop.json
    python3 docs/plot_latency.py open-loop.json > latency.svg

Each file is one report with a run for each rate; several files are drawn together, each with its
name. Nothing but Python's standard library is needed.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 40, 40, 60
PERCENTILES = {"p50": "#2a7f62", "p99": "#c8732b", "p99_9": "#a03050"}
DASHES = ["", "6 3", "2 3", "8 3 2 3"]


def points(report):
    """Throughput per second and latencies in milliseconds of every run, by throughput."""
    found = []
    for run in report["runs"]:
        latencies = run["latency_us"]
        if latencies:
            found.append((run["committed_per_second"], {p: latencies[p] / 1000 for p in PERCENTILES}))
    return sorted(found, key=lambda point: point[0])


def round_up(value):
    """The next round number."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)


class Plot:
    """A plot with a linear horizontal and a logarithmic vertical axis."""

    def __init__(self, most_x, low_y, high_y):
        self.most_x = round_up(most_x)
        self.low, self.high = math.floor(math.log10(low_y)), math.ceil(math.log10(high_y))
        self.high = max(self.high, self.low + 1)
        self.parts = []

    def x(self, value):
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.most_x

    def y(self, value):
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def add(self, text):
        self.parts.append(text)

    def text(self, x, y, text, anchor="middle", more=""):
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, colour):
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.add(f'<line {ends} stroke="{colour}"/>')

    def axes(self):
        for step in range(6):
            value = self.most_x * step / 5
            self.line(self.x(value), TOP, self.x(value), HEIGHT - BOTTOM, "#e4e4e4")
            self.text(self.x(value), HEIGHT - BOTTOM + 18, f"{value:,.0f}")
        for power in range(self.low, self.high + 1):
            value = 10.0**power
            self.line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), "#e4e4e4")
            self.text(LEFT - 8, self.y(value) + 4, f"{value:g}", "end")
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 16, "committed per second")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.text(20, middle, "latency, ms", more=f'transform="rotate(-90 20 {middle:.0f})"')

    def curve(self, curve, percentile, dash):
        places = [(self.x(x), self.y(latencies[percentile])) for x, latencies in curve]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        colour = PERCENTILES[percentile]
        dashes = f'stroke-dasharray="{dash}"' if dash else ""
        self.add(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" {dashes}/>')
        for x, y in places:
            self.add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')

    def legend(self, names):
        x = LEFT
        for percentile, colour in PERCENTILES.items():
            self.add(f'<rect x="{x}" y="14" width="14" height="4" fill="{colour}"/>')
            self.text(x + 20, 20, percentile.replace("_", "."), "start")
            x += 75
        for name, dash in names:
            dashes = f'stroke-dasharray="{dash}"' if dash else ""
            self.add(f'<line x1="{x}" y1="16" x2="{x + 28}" y2="16" stroke="#555" stroke-width="2" {dashes}/>')
            self.text(x + 34, 20, name, "start")
            x += 44 + 7 * len(name)

    def svg(self):
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        style = 'font-family="sans-serif" font-size="12" fill="#333"'
        back = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        return "\n".join([f"{head} {style}>", back, *self.parts, "</svg>"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path, help="what `bench tx --json` has said")
    files = parser.parse_args().reports
    curves = [(file.stem, points(json.loads(file.read_text()))) for file in files]
    curves = [(name, curve) for name, curve in curves if curve]
    if not curves:
        sys.exit("no run in there has a latency")
    every = [(x, value) for _, curve in curves for x, found in curve for value in found.values()]
    most_x = max(x for x, _ in every)
    if most_x <= 0:
        sys.exit("nothing was committed")
    plot = Plot(most_x, min(y for _, y in every), max(y for _, y in every))
    plot.axes()
    names = [(name, DASHES[at % len(DASHES)]) for at, (name, _) in enumerate(curves)]
    for (_, curve), (_, dash) in zip(curves, names):
        for percentile in PERCENTILES:
            plot.curve(curve, percentile, dash)
    plot.legend(names)
    print(plot.svg())


if __name__ == "__main__":
    main()
