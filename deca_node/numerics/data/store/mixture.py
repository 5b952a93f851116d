"""Several sources with weights: how often each record of a source counts in an epoch.

A weight of 2 lays every record of its source out twice; one of 0.5 takes half of them, chosen by the seed; one of 2.5
does both. Only what is trained on has weights: the held-out part has every record once.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deca_node.numerics.data.sequences import PIECE, Pieces, Places, sizes
from deca_node.numerics.data.store.scratch import IN_MEMORY, Scratch, permutation, spans
from deca_node.protocol.errors import SettingsError
from deca_node.storage.data_sources import DataSource


def check_weights(sources: Sequence[DataSource], *, private: bool) -> None:
    """Raises SettingsError where gradients are private and a record would count more than once."""
    heavy = [source for source in sources if source.weight > 1]
    if private and heavy:
        raise SettingsError(
            f"{heavy[0].place} has the weight {heavy[0].weight:g} in data, but with dp_noise no record may count "
            "more than once, since the account of privacy is kept by record; use weights of at most 1"
        )


class Part(NamedTuple):
    """One source's part of a mixture: how many records and tokens an epoch has of it."""

    place: str
    weight: float
    records: int
    tokens: int


def copies(count: int, weight: float, name: str, scratch: Scratch = IN_MEMORY) -> Iterator[Places]:
    """Numbers below ``count``, each as often as ``weight`` says, in chunks; ``name`` chooses where it says a part."""
    for _ in range(int(weight)):
        for part in spans(count):
            yield np.arange(part.start, part.stop)
    more = round((weight - int(weight)) * count)
    if more:
        chosen = np.sort(permutation(count, name, scratch)[:more])
        for part in spans(more):
            yield chosen[part]


def often(numbers: Places, weight: float, name: str) -> Places:
    """These numbers, each as often as ``weight`` says."""
    return numbers[np.concatenate([np.empty(0, np.int64), *copies(len(numbers), weight, name)])]


def mixed(
    pieces: Pieces, ends: Sequence[int], weights: Sequence[tuple[str, float]], seed: int, scratch: Scratch = IN_MEMORY
) -> tuple[Pieces, list[Part]]:
    """Parts of records as often as their sources' weights say; and what the mixture has of each source.

    ``pieces`` are in the order of the line, in which source k ends before the token ``ends[k]``; ``weights`` has its
    place and its weight.
    """
    bounds = [0, *np.searchsorted(pieces["start"], np.array(ends, np.int64)).tolist()]
    told: list[Part] = []

    def parts() -> Iterator[Pieces]:
        for number, (place, weight) in enumerate(weights):
            low, high = bounds[number : number + 2]
            records = tokens = 0
            for numbers in copies(high - low, weight, f"{seed}:mixture:{number}", scratch):
                found = pieces[low + numbers]
                records, tokens = records + len(found), tokens + int(sizes(found).sum())
                yield found
            told.append(Part(place, weight, records, tokens))

    return scratch.collect(PIECE, parts()), told


def told(parts: Sequence[Part]) -> Iterator[str]:
    """A mixture in sentences, one for each source."""
    total = max(sum(part.tokens for part in parts), 1)
    for part in parts:
        yield (
            f"{part.place}, weight {part.weight:g}: {part.records:,} records with {part.tokens:,} tokens to train on, "
            f"{part.tokens / total:.1%} of all"
        )
