"""The share of a node's own tokens that is held out: it is never trained on, nor read as context.

There are two ways. Whole records are held out, in a random order by the seed, until the share is reached. Or the end of
every record is held out, in proportion; that is for texts, since the end of a completion is worth little without its
prompt::

    concatenated      whole records if there are 20 or more, else the ends. Each part gets L tokens at least
    isolated, none    whole records, one at least; the ends where fewer than 20 texts are longer than L on average

Where one record is so large that training would lose half of its own share to it, the ends are held out instead, or
among chats and prompts that record is passed over.
"""

from pathlib import Path

import numpy as np

from deca_node.numerics.data.sequences import Mask, Places, TokenLine, permutation
from deca_node.protocol.errors import DataError

RECORDS_TO_SPLIT = 20
"""From this many records on, the held-out part is made of whole records."""


def heldout_mask(path: Path, line: TokenLine, length: int, holdout: float, seed: int, *, whole: bool) -> Mask:
    """Which tokens are held out, bool [n]: the share ``holdout`` < 1 of them, for sequences of ``length`` tokens.

    ``whole`` says that records are not concatenated. Raises DataError where there is too little data for two parts.
    """
    if not holdout:
        return np.zeros(len(line), np.bool_)
    return _isolated(path, line, length, holdout, seed) if whole else _concatenated(path, line, length, holdout, seed)


def _concatenated(path: Path, line: TokenLine, length: int, holdout: float, seed: int) -> Mask:
    _check_enough(path, line, length)
    target = min(max(round(len(line) * holdout), length), len(line) - length)
    lengths = np.diff(line.starts)
    if len(lengths) >= RECORDS_TO_SPLIT:
        held = _until(lengths, target, seed)
        kept = len(line) - lengths[held].sum()
        if kept >= max(length, (len(line) - target) / 2):
            return np.repeat(held, lengths)
    return _ends(line, target)


def _isolated(path: Path, line: TokenLine, length: int, holdout: float, seed: int) -> Mask:
    total, lengths, texts = len(line), np.diff(line.starts), bool(line.texts.all())
    few = len(lengths) == 1 or (len(lengths) < RECORDS_TO_SPLIT and total > len(lengths) * length)
    if texts and few:
        _check_enough(path, line, length)
        return _ends(line, min(max(round(total * holdout), length), total - length))
    if len(lengths) < 2:
        raise DataError(f"{path}: there is one record, but 2 are needed: one to train on and one to hold out")
    target = min(max(round(total * holdout), 1), total - 1)
    held = _until(lengths, target, seed)
    if total - lengths[held].sum() < (total - target) / 2:
        if texts and total >= 2 * length:
            return _ends(line, target)
        held = _within(lengths, target, seed)
    return np.repeat(held, lengths)


def _until(lengths: Places, target: int, seed: int) -> Mask:
    """Records in a random order, until they come to ``target`` tokens; bool [records]."""
    order = permutation(len(lengths), f"{seed}:heldout")
    count = np.searchsorted(np.cumsum(lengths[order]), target) + 1
    held = np.zeros(len(lengths), np.bool_)
    held[order[:count]] = True
    return held


def _within(lengths: Places, target: int, seed: int) -> Mask:
    """Records in the same order, without those that would go beyond ``target`` tokens; the shortest if all would."""
    held, room = np.zeros(len(lengths), np.bool_), target
    for record in permutation(len(lengths), f"{seed}:heldout"):
        if lengths[record] <= room:
            held[record] = True
            room -= lengths[record]
    if not held.any():
        held[lengths.argmin()] = True
    return held


def _ends(line: TokenLine, target: int) -> Mask:
    """The last tokens of every record, in proportion, ``target`` in all."""
    mask = np.zeros(len(line), np.bool_)
    # Differences of rounded-down sums: each record's share is off by less than a token, and all come to the target.
    shares = np.diff(line.starts * target // len(line))
    for end, share in zip(line.starts[1:], shares, strict=True):
        mask[end - share : end] = True
    return mask


def _check_enough(path: Path, line: TokenLine, length: int) -> None:
    total, needed = len(line), 2 * length
    if total < needed:
        raise DataError(
            f"{path}: the data come to {total:,} tokens, but {needed:,} are needed: one sequence to train on and one "
            f"to hold out, of {length:,} tokens each; add data, or lower sequence_length on all nodes"
        )
