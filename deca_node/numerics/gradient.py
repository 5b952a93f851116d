"""Where the gradient of a step comes from: the next batch, or with privacy a sample of the records; computed here, or
shared among the trainer's ranks."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from deca_node.numerics.data.batches import Batches, make_batch
from deca_node.numerics.learning.loss import backward
from deca_node.numerics.learning.privacy import Privacy
from deca_node.numerics.learning.tasks import Data
from deca_node.numerics.model.blocks import Block, FlatBlock
from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.ranks.leader import Leader
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.options import Note, TrainerOptions


class Gradients:
    """Gradients of one node's own data. ``leader`` shares the work, if there are several ranks."""

    def __init__(
        self,
        options: TrainerOptions,
        loaded: LoadedModel,
        data: Data,
        seed: int,
        leader: Leader | None,
        device: torch.device,
    ) -> None:
        self.batches = Batches(data.train, options.settings.batch_size, seed)
        self._options = options
        self._model = loaded.model
        self._data = data
        self._leader = leader
        self._device = device
        self._privacy = self._private(len(data.train)) if options.dp_noise else None

    @property
    def private(self) -> bool:
        """Whether the gradients are private."""
        return self._privacy is not None

    def figures(self) -> Mapping[str, float]:
        """Figures of the newest gradient, for metrics and status."""
        private = self._privacy.figures() if self._privacy else {}
        return {**private, **(self._leader.figures if self._leader else {})}

    def join(self, blocks: tuple[Block, ...]) -> None:
        """Wait until the other ranks have loaded the model, too. Raises RankLostError."""
        self._numbers = {block.name: number for number, block in enumerate(blocks)}
        if self._leader:
            self._leader.join(self._model, blocks, self._options.micro_batch, self._options.seed)

    def backward(self, flat: FlatBlock, step: Step) -> float:
        """Add the gradient of a step to the block's, within :meth:`FlatBlock.collect`; returns the mean loss."""
        if self._privacy is not None:
            return self._private_backward(self._privacy, flat, step)
        batch = self.batches.next()
        if self._leader is None:
            return backward(self._model, batch, self._options.micro_batch, self._device)
        assert flat.grad is not None, "a backward pass outside of collect"
        return self._leader.gradient(self._numbers[flat.block.name], flat.grad, batch, step)

    def changed(self, block: Block) -> None:
        """The parameters of a block change."""
        if self._leader:
            self._leader.changed(self._numbers[block.name])

    def announce(self, steps: int, note: Note) -> None:
        """Report the privacy budget that so many further steps will spend. Raises SettingsError if it is over the
        limit."""
        if self._privacy is None:
            return
        planned = self._privacy.check(max(0, steps))
        spent, delta = self._privacy.epsilon, self._options.dp_delta
        note(f"private gradients: epsilon = {spent:.3g} spent so far, {planned:.3g} at the end, at delta = {delta:g}")

    def _private_backward(self, privacy: Privacy, flat: FlatBlock, step: Step) -> float:
        """A private gradient: one backward pass per record, with that record's own mean loss."""
        assert flat.grad is not None, "a backward pass outside of collect"
        privacy.spend()
        rows = privacy.rows()
        if not len(rows):
            return privacy.collect(flat.grad, ())
        batch = make_batch(self._data.train, rows)
        if self._leader is not None:
            return self._leader.private_gradient(self._numbers[flat.block.name], flat.grad, batch, privacy, step)
        examples = [partial(backward, self._model, single, 0, self._device) for single in batch.split(1)]
        return privacy.collect(flat.grad, examples)

    def _private(self, examples: int) -> Privacy:
        options = self._options
        return Privacy(
            Path(options.directory),
            examples,
            options.settings.batch_size,
            sigma=options.dp_noise,
            clip=options.dp_clip,
            delta=options.dp_delta,
            epsilon_max=options.dp_epsilon,
            chunk=options.settings.inner_steps,
            device=self._device,
        )
