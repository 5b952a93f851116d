"""The graph of neighbours. Every node computes the same graph from the same member names.

Names are sorted first, so the order of the peers file does not matter. Members come and go, so every graph is defined
for any number of members. Where the textbook graph is not, the nearest one that is takes its place::

    ring            i - i+1                                        two neighbours each
    exponential     i - i+1, i+2, i+4, i+8 ... round the ring       up to 2 log2 n
    torus           rows x columns, both wrap round                 four; a ring where n is prime
    hypercube       i - j where one bit of the number differs       log2 n; where n is no power of two, the
                                                                    corners from n on are left out
    full            every pair                                      n - 1
    edges           the pairs in the run's settings                 as listed
    erdos-renyi     every pair with the same chance, redrawn until connected
    random-regular  ``degree`` each, wired at random, connected
    pairs           a random perfect matching, another one at each activation
    one-peer-exponential
                    i - j where bit k of the number differs, k the next bit at each visit of a block; numbers that have
                    no such partner are paired in their order

In the last two a node has one neighbour at a time; where their number is odd, one node is alone. They are connected
over time, so the final flush, after which all copies agree, has a random-regular graph instead.
An incomplete hypercube is connected, since clearing a bit of a corner's number gives a smaller number, which exists.
"""

import hashlib
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import combinations

from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.errors import SettingsError

Graph = dict[str, frozenset[str]]
"""Each member's neighbours. Symmetric, without self-loops."""

Pairs = Iterable[tuple[int, int]]
"""Edges between the numbers of sorted names. A pair may occur twice, or join a number with itself."""

DRAWS_MAX = 10_000
"""The most drawings of an Erdős-Rényi graph until it is connected. If all fail, the edge probability is too low."""

_DRAWN = ("erdos-renyi", "random-regular")

SWAPS_PER_EDGE = 10
"""Exchanges of ends per edge. After so many the graph shows no trace of the lattice that it began as."""


def graph(members: Iterable[str], settings: RunSettings, activation: int = 0, blocks: int | None = None) -> Graph:
    """The neighbours of every member during one activation; random graphs change every ``redraw_every``
    activations. The result is cached, so the caller must not change it.

    With ``blocks``, the number of the model's blocks, the activations after the last round are those of the final
    flush. Without, each is one of a round.

    Listed edges whose members are absent are ignored; :func:`check_edges` is stricter. Raises SettingsError if no
    erdos-renyi graph of this size and probability is connected.
    """
    names = tuple(sorted(members))
    if settings.topology in MATCHINGS:
        round_, position = divmod(activation, blocks or 1)
        if blocks is not None and round_ >= settings.rounds_of(blocks):
            return final_graph(names, settings)
        # Each block meets every bit in turn, whatever the numbers of blocks and of members have in common.
        return _matching(names, settings, activation if settings.topology == "pairs" else round_ + position)
    draw = activation // settings.redraw_every if settings.redraw_every else 0
    return _graph(names, settings, draw if settings.topology in _DRAWN else 0)


def turns(
    members: Iterable[str], settings: RunSettings, activation: int, blocks: int | None = None
) -> tuple[Graph, ...]:
    """The graphs that take turns within one activation; the first is :func:`graph`, over which parameters travel.

    One, unless ``partners = step``. Then ceil(log2 n) matchings, of which a moment signal that travels alone takes the
    next one each time (:meth:`Schedule.turn`). In ``one-peer-exponential`` these are all bits, from that of the
    activation on; in ``pairs`` each is drawn by dice of its own, and seldom repeats a pair.
    """
    names = tuple(sorted(members))
    first = graph(names, settings, activation, blocks)
    round_, position = divmod(activation, blocks or 1)
    final = blocks is not None and round_ >= settings.rounds_of(blocks)
    if settings.partners == "visit" or final:
        return (first,)
    count = max(1, (len(names) - 1).bit_length())
    if settings.topology == "pairs":
        return _turns_of_pairs(names, settings, activation, count)
    return tuple(_matching(names, settings, round_ + position + turn) for turn in range(count))


def final_graph(members: Iterable[str], settings: RunSettings, activation: int = 0) -> Graph:
    """The neighbours of every member in the final flush, which is connected."""
    if settings.topology not in MATCHINGS:
        return graph(members, settings, activation)
    return _random_regular(tuple(sorted(members)), settings, 0)


@lru_cache(maxsize=64)
def _graph(names: Sequence[str], settings: RunSettings, draw: int) -> Graph:
    if settings.topology == "edges":
        listed = {pair for text in settings.edges.split() if (pair := next(_splits(text, names), None))}
        return _joined(names, ((names.index(a), names.index(b)) for a, b in listed))
    if settings.topology == "erdos-renyi":
        return _erdos_renyi(names, settings, draw)
    if settings.topology == "random-regular":
        return _random_regular(names, settings, draw)
    return _joined(names, _FIXED[settings.topology](len(names)))


def check_edges(members: Iterable[str], settings: RunSettings) -> None:
    """Raise SettingsError if ``edges`` do not fit the members at the start of the run: an edge to an unknown name, an
    edge that can be read in two ways, or a graph in several parts. Other topologies always fit."""
    if settings.topology != "edges":
        return
    names = sorted(members)
    for text in settings.edges.split():
        readings = list(_splits(text, names))
        if not readings:
            raise SettingsError(f"edges: {text!r} does not join two members by their names, as in {_example(names)!r}")
        if len(readings) > 1:
            first, second = (" with ".join(reading) for reading in readings[:2])
            raise SettingsError(f"edges: {text!r} may join {first} or {second}; rename a node")
    found = graph(names, settings)
    if not connected(found):
        apart = ", ".join(sorted(set(names) - _reached(found, names[0])))
        raise SettingsError(
            f"edges: no path leads from {names[0]} to {apart}, so their models would never agree; add an edge"
        )


def connected(graph: Graph) -> bool:
    """Whether every member can be reached from every other."""
    return not graph or len(_reached(graph, min(graph))) == len(graph)


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    border = [start]
    while border:
        name = border.pop()
        if name not in seen:
            seen.add(name)
            border.extend(graph[name] - seen)
    return seen


def _joined(names: Sequence[str], pairs: Pairs) -> Graph:
    neighbours: dict[str, set[str]] = {name: set() for name in names}
    for i, j in pairs:
        if i != j:
            neighbours[names[i]].add(names[j])
            neighbours[names[j]].add(names[i])
    return {name: frozenset(near) for name, near in neighbours.items()}


# --- regular shapes ---------------------------------------------------------------------------------


def _ring(count: int) -> Pairs:
    return ((i, (i + 1) % count) for i in range(count))


def _exponential(count: int) -> Pairs:
    return ((i, (i + (1 << k)) % count) for i in range(count) for k in range((count - 1).bit_length()))


def _torus(count: int) -> Pairs:
    """Number i is in row i // columns. The torus is as square as the divisors of the count allow."""
    rows = max((d for d in range(1, count + 1) if count % d == 0 and d * d <= count), default=1)
    columns = count // rows
    for i in range(count):
        row, column = divmod(i, columns)
        yield i, row * columns + (column + 1) % columns
        yield i, (row + 1) % rows * columns + column


def _hypercube(count: int) -> Pairs:
    bits = range((count - 1).bit_length())
    return ((i, i | 1 << k) for i in range(count) for k in bits if i | 1 << k < count)


def _full(count: int) -> Pairs:
    return combinations(range(count), 2)


_FIXED: dict[str, Callable[[int], Pairs]] = {
    "ring": _ring,
    "exponential": _exponential,
    "torus": _torus,
    "hypercube": _hypercube,
    "full": _full,
}


# --- drawn at random --------------------------------------------------------------------------------


def _erdos_renyi(names: Sequence[str], settings: RunSettings, draw: int) -> Graph:
    """The chance of a pair depends on its two names alone, so that nodes that disagree about a third member still
    agree on this edge."""
    probability = settings.edge_probability
    for attempt in range(DRAWS_MAX):
        dice = f"{settings.seed}:{draw}:{attempt}"
        chances = ((pair, _chance(dice, names[pair[0]], names[pair[1]])) for pair in _full(len(names)))
        drawn = _joined(names, (pair for pair, chance in chances if chance < probability))
        if connected(drawn):
            return drawn
    raise SettingsError(
        f"edge_probability = {probability}: no connected graph of {len(names)} nodes in {DRAWS_MAX} draws; "
        "raise it, or choose topology = 'ring'"
    )


def _chance(dice: str, a: str, b: str) -> float:
    """A number between 0 and 1, evenly distributed and equal on all nodes for equal arguments."""
    digest = hashlib.blake2b(f"{dice}:{a}\0{b}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _random_regular(names: Sequence[str], settings: RunSettings, draw: int) -> Graph:
    """Begin with a ring in which each number is joined to its nearest, then let pairs of edges exchange their ends,
    which keeps every degree. If there are too few nodes, all are joined. If nodes times degree is odd, one node has one
    neighbour fewer."""
    rng = random.Random(f"{settings.seed}:random-regular:{len(names)}:{draw}")
    count = len(names)
    if count - 1 <= settings.degree:
        return _joined(names, _full(count))
    edges = list(_lattice(count, settings.degree))
    while True:
        _rewire(edges, SWAPS_PER_EDGE * len(edges), rng)
        drawn = _joined(names, edges)
        if connected(drawn):
            return drawn


def _lattice(count: int, degree: int) -> Iterator[tuple[int, int]]:
    """Each number with the ``degree`` // 2 that follow it, and for an odd degree also with the opposite number."""
    yield from ((i, (i + k) % count) for i in range(count) for k in range(1, degree // 2 + 1))
    if degree % 2:
        yield from ((i, i + count // 2) for i in range(count // 2))


def _rewire(edges: list[tuple[int, int]], swaps: int, rng: random.Random) -> None:
    """Turn a-b, c-d into a-d, c-b ``swaps`` times, unless that joins a number with itself or two numbers twice."""
    there = {frozenset(edge) for edge in edges}
    for _ in range(swaps):
        first, second = rng.sample(range(len(edges)), 2)
        (a, b), (c, d) = edges[first], edges[second][:: rng.choice((1, -1))]
        if a != d and c != b and frozenset((a, d)) not in there and frozenset((c, b)) not in there:
            there -= {frozenset((a, b)), frozenset((c, d))}
            there |= {frozenset((a, d)), frozenset((c, b))}
            edges[first], edges[second] = (a, d), (c, b)


# --- one neighbour at a time ------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _matching(names: Sequence[str], settings: RunSettings, draw: int) -> Graph:
    if settings.topology == "pairs":
        return _joined(names, _pairs(names, f"{settings.seed}:pairs:{draw}"))
    return _joined(names, _one_peer(len(names), draw))


@lru_cache(maxsize=64)
def _turns_of_pairs(names: Sequence[str], settings: RunSettings, draw: int, count: int) -> tuple[Graph, ...]:
    used: set[tuple[int, int]] = set()
    found = []
    for turn in range(count):
        pairs = list(_pairs(names, f"{settings.seed}:pairs:{draw}" + (f":{turn}" if turn else ""), used))
        used.update(pairs)
        found.append(_joined(names, pairs))
    return tuple(found)


def _pairs(names: Sequence[str], dice: str, used: Collection[tuple[int, int]] = ()) -> Pairs:
    """Of all pairs by their dice the lowest, then the lowest of those left, and so on; those that were ``used`` come
    last. A pair's dice depend on its two names alone, so nodes that disagree about a third member still agree on most
    pairs."""

    def rank(pair: tuple[int, int]) -> tuple[bool, float]:
        return pair in used, _chance(dice, names[pair[0]], names[pair[1]])

    free = set(range(len(names)))
    for i, j in sorted(_full(len(names)), key=rank):
        if i in free and j in free:
            free -= {i, j}
            yield i, j


def _one_peer(count: int, turn: int) -> Pairs:
    bit = 1 << turn % max(1, (count - 1).bit_length())
    yield from ((i, i | bit) for i in range(count) if not i & bit and i | bit < count)
    alone = [i for i in range(count) if i ^ bit >= count]
    yield from zip(alone[::2], alone[1::2], strict=False)


# --- listed -----------------------------------------------------------------------------------------


def _splits(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every way to read ``a-b`` as two different members, since names may contain hyphens."""
    for at, letter in enumerate(text):
        a, b = text[:at], text[at + 1 :]
        if letter == "-" and a != b and a in names and b in names:
            yield a, b


def _example(names: Sequence[str]) -> str:
    return "-".join(names[:2]) if len(names) > 1 else "a-b"
