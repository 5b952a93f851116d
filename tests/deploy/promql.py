"""A small evaluator of the PromQL that the alerts use, so that their unit tests run where no promtool is installed.

The syntax tree comes from promql-parser. Supported are instant selectors with ``offset``, numbers, ``time``, ``abs``,
``changes``, ``increase``, comparisons and arithmetic with a number or a vector, ``and``, ``or``, ``unless`` with ``on``
and ``ignoring``, and ``sum by``. Anything else raises NotImplementedError. Where promtool is installed, it runs the
same file of tests, so both must agree.

Source: the Prometheus documentation, "Querying basics", "Operators" and "Unit testing for rules".
"""

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import promql_parser as p

LOOKBACK_SECONDS = 300.0
"""An instant selector takes the newest sample that is younger than this; Prometheus' default."""

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]


@dataclass(frozen=True)
class Series:
    """A metric's name, its labels, and its samples as (seconds, value), oldest first."""

    name: str
    labels: Labels
    samples: tuple[tuple[float, float], ...]


COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}


def read_series(written: str, values: str, interval: float) -> Series:
    """One entry of ``input_series``: ``name{label="value"}`` and its values in promtool's notation."""
    name, inner = re.fullmatch(r"(\w+)(?:\{(.*)\})?", written).groups()  # type: ignore[union-attr]
    labels = frozenset(re.findall(r'(\w+)="([^"]*)"', inner or ""))
    numbers = [value for word in values.split() for value in _expanded(word)]
    samples = tuple((i * interval, value) for i, value in enumerate(numbers) if value is not None)
    return Series(name, labels, samples)


def _expanded(word: str) -> Iterator[float | None]:
    """``_``, ``_x3``, ``7``, ``7x3`` (four sevens) and ``7+2x3`` (7, 9, 11, 13)."""
    if found := re.fullmatch(r"_(?:x(\d+))?", word):
        yield from [None] * int(found[1] or 1)
    elif found := re.fullmatch(r"(-?[\d.]+|NaN|[+-]?Inf)(?:([+-][\d.]+)?x(\d+))?", word):
        start, step, more = float(found[1]), float(found[2] or 0), int(found[3] or 0)
        yield from (start + i * step for i in range(more + 1))
    else:
        raise NotImplementedError(word)


@dataclass(frozen=True)
class Moment:
    """Evaluates expressions over ``series`` at one time, in seconds."""

    series: Sequence[Series]
    now: float

    def value(self, node: Any) -> Any:
        """A number, or a vector: values by labels, without the metric's name."""
        match node:
            case p.NumberLiteral():
                return node.val
            case p.ParenExpr():
                return self.value(node.expr)
            case p.UnaryExpr():
                return _each(self.value(node.expr), operator.neg)
            case p.VectorSelector():
                return self._instant(node)
            case p.Call():
                return self._call(node.func.name, node.args)
            case p.AggregateExpr():
                return self._sum(node)
            case p.BinaryExpr():
                return self._binary(node)
        raise NotImplementedError(type(node).__name__)

    def _matching(self, selector: Any) -> Iterator[Series]:
        for series in self.series:
            labels = dict(series.labels)
            if series.name == selector.name and all(_fits(m, labels) for m in selector.matchers.matchers):
                yield series

    def _instant(self, selector: Any) -> Vector:
        at = self.now - _offset_seconds(selector)
        found: Vector = {}
        for series in self._matching(selector):
            values = [value for when, value in series.samples if at - LOOKBACK_SECONDS < when <= at]
            if values:
                found[series.labels] = values[-1]
        return found

    def _call(self, name: str, args: Sequence[Any]) -> Any:
        if name == "time":
            return self.now
        if name == "abs":
            return _each(self.value(args[0]), abs)
        if name in ("changes", "increase"):
            return self._over_range(name, args[0])
        raise NotImplementedError(name)

    def _over_range(self, name: str, matrix: Any) -> Vector:
        length = matrix.range.total_seconds()
        found: Vector = {}
        for series in self._matching(matrix.vector_selector):
            inside = [(when, value) for when, value in series.samples if self.now - length <= when <= self.now]
            if name == "changes" and inside:
                pairs = pairwise(inside)
                found[series.labels] = float(sum(one != other for (_, one), (_, other) in pairs))
            elif name == "increase" and len(inside) > 1:
                # Prometheus stretches what was seen to the whole range; the tests cover the range, so nothing is added.
                found[series.labels] = inside[-1][1] - inside[0][1]
        return found

    def _sum(self, node: Any) -> Vector:
        if str(node.op) != "sum" or node.modifier is None:
            raise NotImplementedError(str(node.op))
        kept = set(node.modifier.labels)
        found: Vector = {}
        for labels, value in self.value(node.expr).items():
            key = frozenset(pair for pair in labels if pair[0] in kept)
            found[key] = found.get(key, 0.0) + value
        return found

    def _binary(self, node: Any) -> Any:
        word, left, right = str(node.op), self.value(node.lhs), self.value(node.rhs)
        key = _key_of(node.modifier)
        if word in ("and", "unless"):
            there = {key(labels) for labels in right}
            return {labels: value for labels, value in left.items() if (key(labels) in there) == (word == "and")}
        if word == "or":
            there = {key(labels) for labels in left}
            return left | {labels: value for labels, value in right.items() if key(labels) not in there}
        return _paired(word, left, right, key)


def _paired(word: str, left: Any, right: Any, key: Callable[[Labels], Labels]) -> Any:
    if isinstance(left, dict) and isinstance(right, dict):
        others = {key(labels): value for labels, value in right.items()}
        pairs = {labels: (value, others[key(labels)]) for labels, value in left.items() if key(labels) in others}
    elif isinstance(left, dict):
        pairs = {labels: (value, right) for labels, value in left.items()}
    elif isinstance(right, dict):
        pairs = {labels: (left, value) for labels, value in right.items()}
    else:
        return ARITHMETIC[word](left, right)
    if word in COMPARISONS:
        # A comparison filters: the vector's own values pass.
        own = 0 if isinstance(left, dict) else 1
        return {labels: pair[own] for labels, pair in pairs.items() if COMPARISONS[word](*pair)}
    return {labels: ARITHMETIC[word](*pair) for labels, pair in pairs.items()}


def _key_of(modifier: Any) -> Callable[[Labels], Labels]:
    """By which labels two sides are matched."""
    matching = getattr(modifier, "matching", None)
    if matching is None:
        return lambda labels: labels
    named, on = set(matching.labels), str(matching.type).endswith("Include")
    return lambda labels: frozenset(pair for pair in labels if (pair[0] in named) == on)


def _each(value: Any, function: Callable[[float], float]) -> Any:
    return {labels: function(v) for labels, v in value.items()} if isinstance(value, dict) else function(value)


def _fits(matcher: Any, labels: Mapping[str, str]) -> bool:
    value, word = labels.get(matcher.name, ""), str(matcher.op).rpartition(".")[2]
    same = re.fullmatch(matcher.value, value) is not None if word.endswith("Re") else value == matcher.value
    return same != word.startswith("Not")


def _offset_seconds(selector: Any) -> float:
    return selector.offset.total_seconds() if selector.offset is not None else 0.0


def seconds(written: str) -> float:
    """``1h30m`` in seconds."""
    parts = re.findall(r"(\d+)(ms|[smhd])", written) if written else []
    return math.fsum(int(n) * {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for n, unit in parts)


def firing(rule: Mapping[str, Any], series: Sequence[Series], at: float, interval: float) -> set[Labels]:
    """Labels of the alerts of ``rule`` that fire at a time, evaluated every ``interval`` seconds from 0 on."""
    tree, patience = p.parse(rule["expr"]), seconds(rule.get("for", ""))
    since: dict[Labels, float] = {}
    now = 0.0
    while now <= at:
        active = Moment(series, now).value(tree)
        since = {labels: since.get(labels, now) for labels in active}
        now += interval
    last = now - interval
    return {labels for labels, began in since.items() if last - began >= patience}
