"""A model sharded over the ranks by PyTorch's FSDP2: each rank holds a part of every parameter.

::

    at rest            rank r has rows [r n, (r + 1) n) of every parameter, n = ceil(rows / ranks)
    forward, backward  a layer's parameters are gathered at all ranks just before it, and freed right after it
    gradients          summed over the ranks; each rank keeps those of its own rows, and of the active block only

The layers are gathered one by one, and embeddings of their own, too. The rest of the model (norm and head, and tied
embeddings) is gathered once per pass. Rank 0 reads and writes whole parameters, one at a time.

Sources: torch.distributed.fsdp.fully_shard (docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from deca_node.numerics.learning.chunked import leave_whole
from deca_node.numerics.model.blocks import Block, BlockGradient, FlatBlock, gathered_units, spans
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.values import Values, bring
from deca_node.numerics.ranks.group import Group
from deca_node.protocol.errors import ModelError


class Shards:
    """This rank's parts of a model. What moves whole parameters has to be called at all ranks at once."""

    def __init__(self, model: nn.Module, group: Group) -> None:
        """Shard ``model``, which lies in the CPU's memory, over the group's devices. Raises ModelError."""
        self.model = model
        self._group = group
        # Ranks whose batches are cut into other numbers of chunks would gather in another order, and wait forever.
        leave_whole(model)
        self.root = shard(model, DeviceMesh.from_group(group.tensors, group.device.type))
        self.named: Mapping[str, Any] = dict(model.named_parameters())
        for parameter in self.named.values():
            parameter.requires_grad_(False)

    def here(self, name: str) -> Tensor:
        """This rank's part of a parameter, flat; changes of it are changes of the model."""
        part: Tensor = self.named[name].to_local()
        return part.view(-1)

    def place(self, name: str, rank: int) -> tuple[int, int]:
        """The elements [start, stop) of a parameter that a rank holds."""
        return _place(self.named[name].shape, rank, self._group.size)

    @torch.no_grad()
    def read(self, name: str) -> Tensor | None:
        """The whole parameter, at rank 0; None at the others."""
        if self._group.rank:
            self._group.give(self.here(name), 0)
            return None
        whole = torch.empty(self.named[name].shape, dtype=self.named[name].dtype, device=self._group.device)
        self.gather(name, self.here(name), whole.view(-1))
        return whole

    @torch.no_grad()
    def write(self, name: str, start: int, stop: int, flat: Tensor | None) -> None:
        """Set elements [start, stop) of a parameter to rank 0's ``flat``, [stop - start] of any dtype."""
        if self._group.rank:
            own_start, own_stop = self.place(name, self._group.rank)
            first, last = max(start, own_start), min(stop, own_stop)
            if first < last:
                self._group.take(self.here(name)[first - own_start : last - own_start], 0)
            return
        assert flat is not None, "rank 0 has what is written"
        for rank in range(self._group.size):
            own_start, own_stop = self.place(name, rank)
            first, last = max(start, own_start), min(stop, own_stop)
            if first >= last:
                continue
            part = flat[first - start : last - start].to(self._group.device, self.named[name].dtype)
            if rank:
                self._group.give(part, rank)
            else:
                self.here(name)[first - own_start : last - own_start].copy_(part)

    def gather(self, name: str, own: Tensor, whole: Tensor) -> None:
        """At rank 0: fill ``whole``, flat, from its ``own`` part and from what the others give of this parameter."""
        start, stop = self.place(name, 0)
        whole[start:stop].copy_(own)
        for rank in range(1, self._group.size):
            start, stop = self.place(name, rank)
            self._group.take(whole[start:stop], rank)

    def rest(self) -> None:
        """Free what a pass without a backward pass has left gathered."""
        self.root.reshard()


class ShardGradient(BlockGradient):
    """The gradient of this rank's part of one block."""

    def here(self, tensor: Tensor) -> Tensor:
        part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
        return part


class GatheredBlock(FlatBlock):
    """The active block at rank 0 of a sharded model: its master and its gradient are whole here. The ranks' parts of
    its parameters are renewed before they are used, and when it is frozen."""

    @torch.no_grad()
    def __init__(self, shards: Shards, read: Callable[[str], Tensor], block: Block, device: torch.device) -> None:
        self.block = block
        self.spans = self.held = spans(shards.model, block)
        self._device = device
        self._parameters, self._hooks = [], []
        self.grad = None
        self.stale = False
        """Whether the ranks have other values than the master."""
        self.frozen: Callable[[], None] = lambda: None
        """To be called when the block is frozen, while the master is still here."""
        self.master = torch.empty(block.elements, dtype=torch.float32, device=device)
        for span in self.spans:
            self.master[span.start : span.stop].copy_(read(span.name).view(-1))

    def publish(self) -> None:
        """The master has changed."""
        self.stale = True

    @torch.no_grad()
    def freeze(self) -> None:
        """Give the ranks their parts, and free master and gradient."""
        self.frozen()
        self.grad = None
        self.master = torch.empty(0)


class ShardedValues(Values):
    """A sharded model's parameters, at rank 0: whole, one at a time. ``read``, ``write`` and ``thaw`` have the other
    ranks do their part."""

    sharded = True

    def __init__(
        self,
        shards: Shards,
        read: Callable[[str], Tensor],
        write: Callable[[str, int, Tensor], None],
        thaw: Callable[[Block], FlatBlock],
    ) -> None:
        super().__init__(shards.model)
        self._read, self._write, self._thaw = read, write, thaw
        bring(shards.model, self)

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name)

    def put(self, name: str, start: int, flat: Tensor) -> None:
        self._write(name, start, flat)

    def thaw(self, block: Block) -> FlatBlock:
        return self._thaw(block)


def mark(model: nn.Module) -> Tensor:
    """A number that tells a model's parameters from others, float64 [1]: ranks on several servers read files of their
    own, and a model of parts of two models would be none."""
    return torch.tensor([int(parameter_hash(model)[:13], 16)], dtype=torch.float64)


def shard(model: nn.Module, mesh: DeviceMesh) -> FSDPModule:
    """Shard a model's layers, its embeddings and the rest. Raises ModelError."""
    check_shardable(model)
    # Gradients are summed in float32 over the ranks, as those of micro-batches are.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for unit in gathered_units(model):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    root = fully_shard(model, mesh=mesh, mp_policy=policy)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # A plain sum: each rank counts its tokens as a part of the whole batch.
            module.set_force_sum_reduction_for_comms(True)
            module.set_gradient_divide_factor(1.0)
            # Of experts some may get no token at one rank, and some at another.
            module.set_reduce_scatter_unused_params(True)
    return root


def check_shardable(model: nn.Module) -> None:
    """Raise ModelError if FSDP2 cannot shard a model as this module does it."""
    kind = type(model).__name__
    if scalars := [name for name, p in model.named_parameters() if not p.dim()]:
        raise ModelError(f"{kind} cannot be sharded: {scalars[0]} is a single number; set parallel = 'data'")
    units = [{id(p) for p in unit.parameters()} for unit in gathered_units(model)]
    owners = Counter(each for unit in units for each in unit)
    if any(count > 1 for count in owners.values()):
        raise ModelError(f"{kind} cannot be sharded: several of its layers share parameters; set parallel = 'data'")
    if len({p.dtype for p in model.parameters()}) > 1:
        raise ModelError(
            f"{kind} cannot be sharded: its parameters are of several dtypes; set dtype, or parallel = 'data'"
        )


def _place(shape: torch.Size, rank: int, ranks: int) -> tuple[int, int]:
    """The elements of a parameter that are at a rank: equal numbers of rows, as FSDP2 shares them out."""
    rows = -(-shape[0] // ranks)
    width = shape[1:].numel()
    return min(rank * rows, shape[0]) * width, min((rank + 1) * rows, shape[0]) * width
