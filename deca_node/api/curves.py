"""Curves of a few nodes as a picture: SVG text, small enough to be drawn again every few seconds.

A curve keeps a bounded number of points: where there are too many, each two neighbours become their mean.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

POINTS_MAX = 400
"""An even number: more points than a small picture has columns."""
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 260, 52, 30

Point = tuple[float, float]


class Curve:
    """Values over steps, in the order of their coming."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._pending: list[Point] = []
        self._stride = 1

    def add(self, x: float, y: float) -> None:
        """Add a value. Values that are not finite are left out."""
        if not math.isfinite(y):
            return
        self._pending.append((x, y))
        if len(self._pending) == self._stride:
            self._points.append(_mean(self._pending))
            self._pending = []
        if len(self._points) == POINTS_MAX:
            self._points = [_mean(self._points[i : i + 2]) for i in range(0, POINTS_MAX, 2)]
            self._stride *= 2

    @property
    def points(self) -> list[Point]:
        """The points so far."""
        return [*self._points, *([_mean(self._pending)] if self._pending else [])]


def picture(title: str, lines: Mapping[str, Sequence[Point]], dots: Mapping[str, Sequence[Point]]) -> str:
    """An SVG with a line and a row of dots per name, both in the name's colour. Empty if there is nothing to draw."""
    everything = [point for group in (lines, dots) for points in group.values() for point in points]
    if not everything:
        return ""
    scale = _Scale(everything)
    names = list(dict.fromkeys([*lines, *dots]))
    parts = [f'<text x="{LEFT}" y="14" font-weight="bold">{escape(title)}</text>', *scale.axes()]
    for number, name in enumerate(names):
        color = COLORS[number % len(COLORS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(scale.place, lines.get(name, ())))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-opacity="0.55"/>')
        for x, y in map(scale.place, dots.get(name, ())):
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>')
        at = LEFT + 150 + number * 90
        parts.append(f'<text x="{at}" y="14" fill="{color}">{escape(name[:12])}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
    return f'{head} font-family="sans-serif" font-size="12" fill="currentColor">{"".join(parts)}</svg>'


class _Scale:
    """From steps and values to places in the picture."""

    def __init__(self, points: Sequence[Point]) -> None:
        xs, ys = zip(*points, strict=True)
        self._x, self._y = (0.0, max(*xs, 1.0)), (min(ys), max(ys))
        if self._y[0] == self._y[1]:
            self._y = (self._y[0] - 0.5, self._y[1] + 0.5)

    def place(self, point: Point) -> Point:
        right, bottom = WIDTH - 10, HEIGHT - BOTTOM
        x = LEFT + (point[0] - self._x[0]) / (self._x[1] - self._x[0]) * (right - LEFT)
        y = bottom - (point[1] - self._y[0]) / (self._y[1] - self._y[0]) * (bottom - 28)
        return x, y

    def axes(self) -> list[str]:
        parts = []
        for share in (0.0, 0.5, 1.0):
            value = self._y[0] + share * (self._y[1] - self._y[0])
            y = self.place((0.0, value))[1]
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
            step = share * self._x[1]
            x = self.place((step, self._y[0]))[0]
            anchor = "end" if share == 1.0 else "middle"
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{step:,.0f}</text>')
        return parts


def _mean(points: Sequence[Point]) -> Point:
    return points[-1][0], sum(y for _, y in points) / len(points)
