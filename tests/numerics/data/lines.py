"""Lines of records in which every token has its own id, so that it can be followed."""

import numpy as np
from hypothesis import strategies as st

from deca_node.numerics.data.lengths import Fitted
from deca_node.numerics.data.sequences import Mask, Pieces, TokenLine, pieces_of

lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=60)
holdouts = st.sampled_from([0.01, 0.1, 0.5, 0.9])


def line_of(lengths: list[int], texts: bool | list[bool] = True) -> TokenLine:
    """Records of these lengths, all of them texts or none, or as ``texts`` says of each."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    kinds = np.array(texts if isinstance(texts, list) else [texts] * len(lengths), np.bool_)
    return TokenLine.of(np.arange(total, dtype=np.int32), np.ones(total, np.bool_), starts, kinds)


def whole(line: TokenLine) -> Fitted:
    """All records of the line, whole."""
    return Fitted(line.whole(slice(0, line.records)), bool(line.texts.all()))


def parts_of(line: TokenLine, kept: Mask) -> Pieces:
    """The part of each record that is ``kept``, bool [n] with at most one stretch of each record."""
    found = [
        np.flatnonzero(kept[start:stop]) + start for start, stop in zip(line.starts, line.starts[1:], strict=False)
    ]
    places = [(numbers[0], numbers[-1] + 1) for numbers in found if len(numbers)]
    starts, stops = np.array(places, np.int64).reshape(-1, 2).T
    return pieces_of(line.trained, starts, stops)


def mask_of(line: TokenLine, pieces: Pieces) -> Mask:
    """Which tokens of the line lie in a piece."""
    mask = np.zeros(len(line), np.bool_)
    for start, stop, _, _ in pieces.tolist():
        mask[start:stop] = True
    return mask
