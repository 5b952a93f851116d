"""Rank 0's part: it hands out the work of every batch, and sums up what the ranks made of it.

::

    gradient    order, changed blocks, batch -->  each rank: forward, backward  --> sum of gradients, rows of figures
    scores      order, changed blocks, one batch for each rank                  --> rows of scores

Whatever changes the model at rank 0 (a mix, a checkpoint, a donor's version) is told to :meth:`Leader.changed`. The
other ranks get the bits of these blocks with the next order, so all ranks compute with the same parameters.
"""

import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn

from deca_node.numerics.data.batches import AnyBatch
from deca_node.numerics.learning.loss import score
from deca_node.numerics.learning.privacy import Losses, Privacy
from deca_node.numerics.model.blocks import Block
from deca_node.numerics.ranks.group import Group, Meeting
from deca_node.numerics.ranks.orders import End, Gradient, Judge, Order, to_word
from deca_node.numerics.ranks.shares import add_gradient, share_of, timed

Figures = dict[str, float]


class Leader:
    """The ranks of one trainer, for its rank 0. They meet at ``store`` in ``place``. ``devices`` has one per rank of
    this server, this one's first, and ``elsewhere`` the names of those that other servers lend."""

    sharded = False
    """Whether each rank holds a part of the model."""

    def __init__(
        self, store: Meeting, place: str, devices: Sequence[torch.device], elsewhere: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._place = place
        self._devices = devices
        self._elsewhere = elsewhere
        self._device = devices[0]
        self._group: Group | None = None
        self._changed: set[int] = set()
        self.figures: Figures = {}
        """Of the newest gradient: seconds and peak bytes of every rank, as ``rank.0.compute_seconds``."""

    @property
    def device(self) -> torch.device:
        """The device of rank 0."""
        return self._device

    @property
    def names(self) -> tuple[str, ...]:
        """The devices of all ranks."""
        return (*map(str, self._devices), *self._elsewhere)

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return len(self._devices) + len(self._elsewhere)

    @property
    def ranks_here(self) -> int:
        """The number of ranks on this server."""
        return len(self._devices)

    @property
    def home(self) -> torch.device:
        """The device to load the model on."""
        return self._device

    def take_up(self, model: nn.Module) -> None:
        """The model has been loaded and hashed, and nothing has changed it yet. Raises RankLostError or ModelError."""

    def join(self, model: nn.Module, blocks: Sequence[Block], micro_batch: int, seed: int) -> None:
        """Wait for the other ranks; ``model`` and its ``blocks`` are what all of them have loaded. Raises
        RankLostError."""
        self._model, self._micro_batch, self._seed = model, micro_batch, seed
        named = dict(model.named_parameters())
        self._parameters = [[named[name] for name in block.parameters] for block in blocks]
        self._changed = set(range(len(blocks)))
        self._group = self.meet()

    def meet(self) -> Group:
        """Wait for the other ranks. Raises RankLostError or TrainerError."""
        return Group(self._store, 0, self.ranks, self._device)

    def changed(self, block: int) -> None:
        """The parameters of a block are about to change, or have changed."""
        self._changed.add(block)

    def gradient(self, block: int, grad: Tensor, batch: AnyBatch, step: object) -> float:
        """Make ``grad``, which is zero, the gradient of a batch's mean loss; returns that loss. ``step`` names the step
        among all of the run."""
        order = Gradient(block, max(batch.predicted, 1), self._draw(step))
        return float(self._shared(order, grad, batch)[:, 0].sum())

    def private_gradient(self, block: int, grad: Tensor, batch: AnyBatch, privacy: Privacy, step: object) -> float:
        """Make ``grad`` the private gradient of a batch of records; returns their mean loss."""
        rows = self._shared(Gradient(block, 1, self._draw(step), privacy.clip), grad, batch)
        return privacy.noised(grad, Losses(float(rows[:, 0].sum()), int(rows[:, 1].sum())))

    def scores(self, batches: Iterable[AnyBatch], labels: int) -> Iterator[tuple[Tensor, int]]:
        """What :func:`~deca_node.numerics.learning.loss.score` says of each batch, and the batch's count."""
        rest = iter(batches)
        while some := list(islice(rest, self.ranks)):
            self._tell(Judge(labels), some)
            own = score(self._model, some[0], self._device, labels)
            rows = self._joined.rows(own)
            yield from ((row, batch.predicted) for row, batch in zip(rows, some, strict=False))

    def end(self) -> None:
        """Let the other ranks end."""
        if self._group is not None:
            self._tell(End(), [])
            self._group.leave()
        shutil.rmtree(self._place, ignore_errors=True)

    @property
    def _joined(self) -> Group:
        assert self._group is not None, "the ranks have joined before there is work"
        return self._group

    def _tell(self, order: Order, batches: Sequence[AnyBatch]) -> None:
        renewed = [] if isinstance(order, End) else sorted(self._changed)
        self._joined.tell(*to_word(order, renewed, batches))
        for block in renewed:
            self._renew(block)
            self._changed.discard(block)

    def _renew(self, block: int) -> None:
        self._joined.renew(self._parameters[block])

    def _shared(self, order: Gradient, grad: Tensor, batch: AnyBatch) -> Tensor:
        """Do the order on all ranks, and sum the gradients up in ``grad``; returns the ranks' rows of figures."""
        self._tell(order, [batch])
        share = share_of(batch, 0, self.ranks)
        work = partial(add_gradient, self._model, grad, share, order, self._micro_batch, self._device)
        row = timed(work, self._device)
        self._joined.sum_up(grad)
        return self._measured(row)

    def _measured(self, row: Tensor) -> Tensor:
        """The rows of all ranks, with their figures kept."""
        rows = self._joined.rows(row)
        for rank, (_, _, seconds, peak) in enumerate(rows.tolist()):
            self.figures[f"rank.{rank}.compute_seconds"] = seconds
            self.figures[f"rank.{rank}.peak_bytes"] = peak
        return rows

    def _draw(self, step: object) -> int:
        return random.Random(f"{self._seed}:{step}").getrandbits(31)
