"""The part of all ranks but the first: load the model, then compute what rank 0 asks, until it ends."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from deca_node.numerics.data.batches import AnyBatch
from deca_node.numerics.device import choose_device, share_threads
from deca_node.numerics.learning.isolation import way_of
from deca_node.numerics.learning.loss import score
from deca_node.numerics.learning.prepared import load_for, prepare
from deca_node.numerics.model.blocks import BlockGradient, partition
from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.ranks.group import Group, Meeting, find_store
from deca_node.numerics.ranks.orders import End, Gradient, Judge, from_word
from deca_node.numerics.ranks.sharded import obey
from deca_node.numerics.ranks.shards import Shards, mark
from deca_node.numerics.ranks.shares import add_gradient, share_of, timed
from deca_node.protocol.options import AT, TrainerOptions


def follow(
    options: TrainerOptions, rank: int, devices: Sequence[str], place: str, sharded: bool, loaded: Callable[[], None]
) -> None:
    """Be rank ``rank`` of so many devices' ranks until rank 0 ends; ``place`` is where they meet. ``loaded`` is
    called once the model is loaded, whole or, if it is ``sharded``, this rank's part of it.

    Raises ModelError, TrainerError or RankLostError.
    """
    name, _, host = devices[rank].partition(AT)
    device = choose_device(name)
    together = sum(each.partition(AT)[2] == host for each in devices)
    share_threads(options.threads, together if device.type == "cpu" else 1)
    if sharded:
        _follow_sharded(options, rank, len(devices), place, device, loaded)
        return
    model = load_for(options, device)
    prepare(model, options)
    follower = Follower(options, model)
    loaded()
    follower.serve(find_store(place, len(devices)), rank, len(devices))


def _follow_sharded(
    options: TrainerOptions, rank: int, ranks: int, place: str, device: torch.device, loaded: Callable[[], None]
) -> None:
    model = load_for(options, torch.device("cpu"))
    blocks = partition(model.model, options.settings.block_layers)
    if options.settings.packing == "isolated":
        way_of(model.model)  # which the whole model is asked, as at rank 0
    group = Group(find_store(place, ranks), rank, ranks, device)
    if options.elsewhere:
        group.rows(mark(model.model))
    shards = Shards(model.model, group)
    prepare(model, options)
    loaded()
    obey(shards, group, blocks, options.micro_batch)


class Follower:
    """One rank beside the first. It has no data, no moments and no files."""

    def __init__(self, options: TrainerOptions, loaded: LoadedModel) -> None:
        """``loaded`` is the run's start model, on this rank's device."""
        self._model = loaded.model
        self._micro_batch = options.micro_batch
        self._device = next(loaded.model.parameters()).device
        self._blocks = partition(loaded.model, options.settings.block_layers)
        named = dict(loaded.model.named_parameters())
        self._parameters = [[named[name] for name in block.parameters] for block in self._blocks]
        self._gradient: BlockGradient | None = None

    def serve(self, store: Meeting, rank: int, ranks: int) -> None:
        """Join the others, and obey until rank 0 ends. Raises RankLostError if it ends in another way."""
        group = Group(store, rank, ranks, self._device)
        while True:
            order, renewed, batches = from_word(*group.hear())
            for block in renewed:
                group.renew(self._parameters[block])
            match order:
                case Gradient():
                    self._add_gradient(group, order, batches[0])
                case Judge():
                    self._judge(group, order, batches)
                case End():
                    group.leave()
                    return

    def _add_gradient(self, group: Group, order: Gradient, batch: AnyBatch) -> None:
        flat = self._thawed(order.block)
        torch.manual_seed(order.draw + group.rank)
        share = share_of(batch, group.rank, group.size)
        row = flat.collect(lambda: self._share(flat, share, order))
        assert flat.grad is not None
        group.sum_up(flat.grad)
        group.rows(row)

    def _share(self, flat: BlockGradient, share: AnyBatch | None, order: Gradient) -> Tensor:
        assert flat.grad is not None, "the gradient is collected"
        work = partial(add_gradient, self._model, flat.grad, share, order, self._micro_batch, self._device)
        return timed(work, self._device)

    def _judge(self, group: Group, order: Judge, batches: list[AnyBatch]) -> None:
        row = torch.zeros(1 + order.labels * order.labels, dtype=torch.float64)
        if group.rank < len(batches):
            row = score(self._model, batches[group.rank], self._device, order.labels)
        group.rows(row)

    def _thawed(self, number: int) -> BlockGradient:
        """The gradient of a block; that of the block before it is freed."""
        block = self._blocks[number]
        if self._gradient is None or self._gradient.block != block:
            if self._gradient is not None:
                self._gradient.freeze()
            self._gradient = BlockGradient(self._model, block)
        return self._gradient
