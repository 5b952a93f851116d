"""Who is whose neighbour? Every node computes the same graph from the same member names.

Names are sorted first, so the order of the peers file does not matter.
"""

import random
from collections.abc import Iterable

from deca_node.protocol.errors import SettingsError
from deca_node.protocol.run import RunSettings

Graph = dict[str, frozenset[str]]
"""Each member's neighbours; symmetric, no self-loops."""

DRAWS_MAX = 10_000
"""Erdős-Rényi graphs are redrawn until connected; past this many draws the edge probability is at fault."""


def graph(members: Iterable[str], settings: RunSettings) -> Graph:
    """The neighbours of every member under the run's topology.

    Raises SettingsError where an erdos-renyi graph of this size and probability is never connected.
    """
    names = sorted(members)
    if settings.topology == "ring":
        return _ring(names)
    if settings.topology == "full":
        return {name: frozenset(names) - {name} for name in names}
    return _erdos_renyi(names, settings.edge_probability, settings.seed)


def connected(graph: Graph) -> bool:
    """Whether every member can be reached from every other."""
    if not graph:
        return True
    seen: set[str] = set()
    border = [min(graph)]
    while border:
        name = border.pop()
        if name not in seen:
            seen.add(name)
            border.extend(graph[name] - seen)
    return len(seen) == len(graph)


def _ring(names: list[str]) -> Graph:
    count = len(names)
    return {name: frozenset({names[i - 1], names[(i + 1) % count]}) - {name} for i, name in enumerate(names)}


def _erdos_renyi(names: list[str], probability: float, seed: int) -> Graph:
    rng = random.Random(f"{seed}:erdos-renyi:{len(names)}")
    for _ in range(DRAWS_MAX):
        neighbours: dict[str, set[str]] = {name: set() for name in names}
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                if rng.random() < probability:
                    neighbours[a].add(b)
                    neighbours[b].add(a)
        drawn = {name: frozenset(near) for name, near in neighbours.items()}
        if connected(drawn):
            return drawn
    raise SettingsError(
        f"edge_probability = {probability}: no connected graph of {len(names)} nodes in {DRAWS_MAX} draws; "
        "raise it, or choose topology = 'ring'"
    )
