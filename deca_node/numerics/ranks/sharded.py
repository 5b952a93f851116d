"""Rank 0 and the others of a sharded model (:mod:`deca_node.numerics.ranks.shards`).

::

    thaw, save      Read, for each parameter    --> rank 0 has it whole, one at a time
    gradient        changed parts of the block, batch --> all ranks: forward, backward --> rank 0: the block's gradient
    freeze, adopt   Write, for each parameter   --> each rank takes its part

The frozen parameters, the gradient of the active block and its values in the model's dtype are sharded. Master,
moments, public copy and the differences to neighbours are at rank 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from deca_node.numerics.data.batches import AnyBatch
from deca_node.numerics.learning.privacy import Losses
from deca_node.numerics.model.blocks import Block, FlatBlock
from deca_node.numerics.ranks.group import Group, others_needed
from deca_node.numerics.ranks.leader import Leader
from deca_node.numerics.ranks.orders import End, Gradient, Judge, Order, Read, Write, from_word
from deca_node.numerics.ranks.shards import GatheredBlock, ShardedValues, ShardGradient, Shards, mark
from deca_node.numerics.ranks.shares import add_even_gradient, score_even, timed
from deca_node.protocol.errors import ModelError


class Passes:
    """The passes of one rank through a sharded model, rank 0 or another."""

    def __init__(self, shards: Shards, group: Group, blocks: Sequence[Block], micro_batch: int) -> None:
        self.shards = shards
        self.group = group
        self._blocks = blocks
        self._micro_batch = micro_batch
        self._gradient: ShardGradient | None = None

    def gradient(self, order: Gradient, batch: AnyBatch) -> tuple[Tensor, ShardGradient]:
        """This rank's row of figures, and its part of the gradient's sum over all ranks."""
        part = self._thawed(order.block)
        torch.manual_seed(order.draw + self.group.rank)
        with others_needed():
            return part.collect(lambda: timed(partial(self._add, order, batch), self.group.device)), part

    def score(self, order: Judge, batches: Sequence[AnyBatch]) -> Tensor:
        """This rank's row of scores."""
        padded = [*batches, *[None] * (self.group.size - len(batches))]
        with others_needed():
            row = score_even(self.shards.model, padded, self.group.rank, self.group.device, order.labels)
        self.shards.rest()
        return row

    def free(self) -> None:
        """Free the gradient of the last block."""
        if self._gradient is not None:
            self._gradient.freeze()
        self._gradient = None

    def _add(self, order: Gradient, batch: AnyBatch) -> Losses:
        rank, ranks, device = self.group.rank, self.group.size, self.group.device
        return add_even_gradient(self.shards.model, batch, order, self._micro_batch, device, rank, ranks)

    def _thawed(self, number: int) -> ShardGradient:
        block = self._blocks[number]
        if self._gradient is None or self._gradient.block != block:
            self.free()
            self._gradient = ShardGradient(self.shards.model, block)
        return self._gradient


class ShardedLeader(Leader):
    """Rank 0 of a sharded model."""

    sharded = True
    _active: GatheredBlock | None = None

    @property
    def home(self) -> torch.device:
        """The CPU: the model is loaded there, and each rank takes its part from there."""
        return torch.device("cpu")

    def take_up(self, model: nn.Module) -> None:
        """Wait for the other ranks, and shard the model."""
        self._group = self.meet()
        if self._elsewhere:
            self._compare(self._group.rows(mark(model)))
        self._shards = Shards(model, self._group)
        ShardedValues(self._shards, self._read, self._write, self._thaw)

    def join(self, model: nn.Module, blocks: Sequence[Block], micro_batch: int, seed: int) -> None:
        """The other ranks are here already."""
        self._model, self._seed = model, seed
        self._numbers = {block.name: number for number, block in enumerate(blocks)}
        self._blocks = blocks
        self._passes = Passes(self._shards, self._joined, blocks, micro_batch)

    def _compare(self, marks: Tensor) -> None:
        for name, other in zip(self.names, marks, strict=True):
            if other != marks[0]:
                raise ModelError(
                    f"the start model on {name} is another one than this node's; copy the model's folder there"
                )

    def changed(self, block: int) -> None:
        """The values of the active block change; those of others are written to the ranks at once."""
        if self._active is not None and self._active.block == self._blocks[block]:
            self._active.stale = True

    def scores(self, batches: Iterable[AnyBatch], labels: int) -> Iterator[tuple[Tensor, int]]:
        """See :meth:`Leader.scores`."""
        rest = iter(batches)
        while some := list(islice(rest, self.ranks)):
            order = Judge(labels)
            self._tell(order, some)
            rows = self._joined.rows(self._passes.score(order, some))
            yield from ((row, batch.predicted) for row, batch in zip(rows, some, strict=False))

    def _tell(self, order: Order, batches: Sequence[AnyBatch]) -> None:
        """Give an order, after the parts of the active block if they have changed."""
        active = self._active
        if active is not None and active.stale and isinstance(order, Gradient | Judge):
            active.stale = False
            for span in active.spans:
                self._write(span.name, 0, active.master[span.start : span.stop])
        super()._tell(order, batches)

    def _shared(self, order: Gradient, grad: Tensor, batch: AnyBatch) -> Tensor:
        assert not order.clip, "private gradients are not sharded"
        self._tell(order, [batch])
        row, part = self._passes.gradient(order, batch)
        assert part.grad is not None and self._active is not None
        for span, own in zip(self._active.spans, part.held, strict=True):
            self._shards.gather(span.name, part.grad[own.start : own.stop], grad[span.start : span.stop])
        return self._measured(row)

    def _read(self, name: str) -> Tensor:
        self._tell(Read(name), [])
        whole = self._shards.read(name)
        assert whole is not None, "this is rank 0"
        return whole

    def _write(self, name: str, start: int, flat: Tensor) -> None:
        stop = start + flat.numel()
        self._tell(Write(name, start, stop), [])
        self._shards.write(name, start, stop, flat)

    def _thaw(self, block: Block) -> FlatBlock:
        self._active = GatheredBlock(self._shards, self._read, block, self._device)
        self._active.frozen = self._freeze
        return self._active

    def _freeze(self) -> None:
        active, self._active = self._active, None
        assert active is not None, "a block is frozen once"
        for span in active.spans:
            self._write(span.name, 0, active.master[span.start : span.stop])
        self._passes.free()


def obey(shards: Shards, group: Group, blocks: Sequence[Block], micro_batch: int) -> None:
    """Do what rank 0 of a sharded model asks, until it ends. Raises RankLostError if it ends in another way."""
    passes = Passes(shards, group, blocks, micro_batch)
    while True:
        order, _, batches = from_word(*group.hear())
        match order:
            case Gradient():
                row, part = passes.gradient(order, batches[0])
                assert part.grad is not None
                for span in part.held:
                    group.give(part.grad[span.start : span.stop], 0)
                group.rows(row)
            case Judge():
                group.rows(passes.score(order, batches))
            case Read():
                shards.read(order.name)
            case Write():
                shards.write(order.name, order.start, order.stop, None)
            case End():
                group.leave()
                return
