"""A model's parameters by name, each of them whole when it is asked for.

Files are written from them and read into them, and the active block is made of them. Of a model in one place they are
the parameters themselves. A model that is sharded over ranks brings values of its own, which move one parameter at a
time between the ranks (:mod:`deca_node.numerics.ranks.shards`).
"""

from collections.abc import Iterator, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from deca_node.numerics.model.blocks import Block, FlatBlock

_other: "WeakKeyDictionary[nn.Module, Values]" = WeakKeyDictionary()


class Values(Mapping[str, Tensor]):
    """The parameters of a model that lies here as a whole."""

    sharded = False
    """Whether the model lies in parts at several ranks."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._named: Mapping[str, nn.Parameter] = dict(model.named_parameters())

    def __getitem__(self, name: str) -> Tensor:
        """The whole parameter, in its own shape and dtype. It may be the parameter itself, and is not to be changed."""
        return self._named[name].detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def like(self, name: str) -> Tensor:
        """A tensor of the parameter's whole shape and of its dtype, without the numbers."""
        parameter = self._named[name]
        return torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")

    @torch.no_grad()
    def put(self, name: str, start: int, flat: Tensor) -> None:
        """Set elements [start, start + n) of a parameter to ``flat``, [n] of any dtype and on any device."""
        self._named[name].view(-1)[start : start + flat.numel()].copy_(flat)

    def thaw(self, block: Block) -> FlatBlock:
        """Make a block the active one."""
        return FlatBlock(self._model, block)


class BlockValues(Mapping[str, Tensor]):
    """Those of one block, in the order of its names."""

    def __init__(self, values: Values, block: Block) -> None:
        self._values = values
        self._block = block

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._block.parameters)

    def __len__(self) -> int:
        return len(self._block.parameters)

    def like(self, name: str) -> Tensor:
        """See :meth:`Values.like`."""
        return self._values.like(name)

    def put(self, name: str, start: int, flat: Tensor) -> None:
        """See :meth:`Values.put`."""
        self._values.put(name, start, flat)


def values_of(model: nn.Module) -> Values:
    """The values of a model."""
    return _other.get(model) or Values(model)


def bring(model: nn.Module, values: Values) -> None:
    """From now on these are the values of a model."""
    _other[model] = values
