"""Selects the few elements of a group that topk sends, and writes their places.

A place in a group of up to 1024 elements has ten bits. First comes a byte per element with the low eight bits, then a
byte for every four elements with their high two bits, the first element in the lowest bits. Places rise, so a set of
places has one encoding, and a duplicate is found by comparing neighbours.
"""

import torch
from torch import Tensor

HIGHS_PER_BYTE = 4


def nbytes(count: int) -> int:
    """Bytes that ``count`` places take."""
    return count + -(-count // HIGHS_PER_BYTE)


def select(x: Tensor, count: int) -> Tensor:
    """Places of the ``count`` largest magnitudes in each row of x (float32 [groups, width]), rising.

    Returns int64 [groups, count]. Of equal magnitudes the first are taken, and NaN before all others.
    """
    largest_first = x.abs().sort(dim=1, descending=True, stable=True).indices
    return largest_first[:, :count].sort(1).values


def pack(places: Tensor, out: Tensor) -> None:
    """Write places (int64 [groups, count]) into bytes (uint8 [groups, nbytes(count)])."""
    count = places.shape[1]
    out[:, :count].copy_(places & 255)
    short = -count % HIGHS_PER_BYTE
    highs = torch.nn.functional.pad(places >> 8, (0, short)).unflatten(1, (out.shape[1] - count, HIGHS_PER_BYTE))
    out[:, count:].copy_((highs << _shifts(places.device)).sum(2))


def unpack(packed: Tensor, count: int) -> Tensor:
    """The inverse of :func:`pack`: int64 [groups, count], each in 0..1023."""
    lows, highs = packed[:, :count].long(), packed[:, count:].long()
    highs = (highs.unsqueeze(2) >> _shifts(packed.device) & 3).flatten(1)
    return lows + (highs[:, :count] << 8)


def rising(places: Tensor, width: int) -> bool:
    """Whether :func:`select` can give these places for rows of this width: within it, rising, none twice."""
    if places.numel() == 0:
        return True
    return bool((places[:, 1:] > places[:, :-1]).all() and (places[:, -1] < width).all())


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(0, 2 * HIGHS_PER_BYTE, 2, device=device)
