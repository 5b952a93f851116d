"""Which visit of a block does a file hold? Blocks change one at a time, so a model is a list of block versions.

A node that was away, or that joins late, takes from its donors the versions that it has not got. What travels is
the difference to the common start, in the keyframe's codec; a block that was never visited is the start itself.
"""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class BlockVersion:
    """A block as it was frozen at the end of an activation; ``activation`` -1 is the common start."""

    block: str
    activation: int


@dataclass(frozen=True)
class Delta:
    """A file on this node's disk with Q8(x - x0) of a block version: the codec's bytes, and nothing else."""

    version: BlockVersion
    path: str
