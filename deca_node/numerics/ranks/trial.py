"""Tries whether the ranks of a trainer can add up, without a model: what ``deca-node doctor`` asks before a run."""

import time
from collections.abc import Sequence

import torch

from deca_node.numerics.device import choose_device
from deca_node.numerics.ranks.group import Group, find_store
from deca_node.numerics.ranks.leader import Leader
from deca_node.protocol.errors import TrainerError

TRIAL_BYTES = 16 << 20
"""The size of the vector that is summed, once to warm up and once more."""


def lead(leader: Leader) -> float:
    """Sum a vector over all ranks, as rank 0; returns the seconds. Raises TrainerError if the sum is wrong."""
    group = leader.meet()
    seconds = _sum(group)
    group.leave()
    leader.end()
    return seconds


def take_part(rank: int, devices: Sequence[str], place: str) -> None:
    """Be another rank of the same. Raises TrainerError or RankLostError."""
    group = Group(find_store(place, len(devices)), rank, len(devices), choose_device(devices[rank]))
    _sum(group)
    group.leave()


def _sum(group: Group) -> float:
    seconds = 0.0
    for _ in range(2):
        vector = torch.full((TRIAL_BYTES // 4,), float(group.rank + 1), device=group.device)
        began = time.perf_counter()
        group.sum_up(vector)
        group.rows(torch.zeros(1, dtype=torch.float64))
        seconds = time.perf_counter() - began
    wanted = group.size * (group.size + 1) / 2
    if group.rank == 0 and not bool((vector == wanted).all()):
        raise TrainerError(f"the ranks sum {group.size} vectors to {float(vector[0])}, and {wanted} is right")
    return seconds
