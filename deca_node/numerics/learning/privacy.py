r"""A differentially private gradient of the active block, and how much privacy it has cost so far.

The method is the Gaussian mechanism on a Poisson sample (DP-SGD; Abadi et al., arXiv 1607.00133). Updates are made of
gradients and of nothing else that depends on the records, so private gradients make private updates::

    each sequence is drawn independently with the chance q = batch_size / N
    g~ = ( sum over the drawn  min(1, C / |g_s|) g_s  +  sigma C z ) / batch_size        z standard normal

g_s is the gradient of one sequence's mean loss in all parameters of the active block, C = ``dp_clip`` and sigma =
``dp_noise``. Each g_s takes a pass of its own, which is exact for every model and takes the time of so many passes.
Everything that is computed from g~ afterwards (moments, updates, the mixes of others) adds no cost.

The protected unit is one record: with private gradients every record is a sequence of its own, cut off at
``sequence_length``. The number of records, and which of them are held out, count as known.

**The books.** Steps are counted before they are taken: ``DIR/privacy.json`` is made durable with the steps of the
coming visit, so that no crash forgets what neighbours have seen. A restart in the middle of a visit therefore counts
some steps twice, and never one too few. The seed of the noise comes from the operating system at every start and is
written nowhere: noise drawn from the run's seed could be subtracted by every member.
"""

import json
import math
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deca_node.protocol.errors import SettingsError, StorageError, TrainerError
from deca_node.storage.durable import write_file
from deca_node.storage.jsons import UNFIT, parse

LEDGER = "privacy.json"
NOT_INSTALLED = (
    "dp_noise is set, but the package opacus, whose accountant tells what a step costs, is not installed here: "
    "pip install 'deca-node[privacy]' (or pip install opacus), or leave the setting out"
)

Entry = tuple[float, float, int]
"""So many steps with one noise multiplier sigma and one sampling rate q: (sigma, q, steps)."""


class Losses(NamedTuple):
    """The sum of the losses of so many examples."""

    total: float
    examples: int


class Ledger:
    """The steps that this node's records were used for, in ``DIR/privacy.json``. It outlives crashes and changed
    settings."""

    def __init__(self, directory: Path) -> None:
        """Raises StorageError where the file is there and cannot be read."""
        self._path = directory / LEDGER
        self.entries: tuple[Entry, ...] = ()
        try:
            if self._path.exists():
                spent = parse(self._path.read_text(encoding="utf-8"))["spent"]
                self.entries = tuple((float(sigma), float(q), int(steps)) for sigma, q, steps in spent)
        except (OSError, *UNFIT) as problem:
            raise StorageError(
                f"{self._path} cannot be read ({problem}), so it is unknown how much privacy is spent; bring the file "
                "back, or remove it if nothing was ever sent from these records"
            ) from None

    def with_steps(self, sigma: float, q: float, steps: int) -> tuple[Entry, ...]:
        """The entries with so many steps added."""
        counted = {(s, r): n for s, r, n in self.entries}
        counted[sigma, q] = counted.get((sigma, q), 0) + steps
        return tuple((s, r, n) for (s, r), n in counted.items())

    def write(self, entries: Sequence[Entry]) -> None:
        """Make the entries durable. Raises StorageError."""
        try:
            write_file(self._path, [json.dumps({"spent": entries}).encode()])
        except OSError as problem:
            raise StorageError(
                f"{self._path} cannot be written ({problem.strerror or problem}); a private step that is not counted "
                "must not be taken: make room, or leave dp_noise out"
            ) from None
        self.entries = tuple(entries)


class Privacy:
    """The private gradient of one node with ``examples`` sequences, and the budget it draws on.

    ``sigma``, ``clip``, ``delta`` and ``epsilon_max`` (0: no limit) are the node's settings; ``batch`` is the run's
    batch size, ``chunk`` how many steps are counted ahead.
    """

    def __init__(
        self,
        directory: Path,
        examples: int,
        batch: int,
        *,
        sigma: float,
        clip: float,
        delta: float,
        epsilon_max: float,
        chunk: int,
        device: torch.device,
    ) -> None:
        self._accountant = _accountant()
        self._ledger = Ledger(directory)
        self._examples, self._batch, self._chunk = examples, batch, chunk
        self._sigma, self.clip, self._delta, self._epsilon_max = sigma, clip, delta, epsilon_max
        self._q = min(1.0, batch / examples)
        self._ahead = 0
        self._loss = 0.0
        self._chance = np.random.default_rng(secrets.randbits(128))
        self._noise = torch.Generator(device).manual_seed(secrets.randbits(63))
        self.epsilon = self._spent(self._ledger.entries)
        """Spent so far, the steps that are counted ahead included."""

    def check(self, steps: int) -> float:
        """What will be spent after so many further steps. Raises SettingsError where that is beyond the limit."""
        planned = self._spent(self._ledger.with_steps(self._sigma, self._q, steps))
        if self._epsilon_max and planned > self._epsilon_max:
            raise SettingsError(
                f"{steps:,} steps with dp_noise = {self._sigma:g} on {self._examples:,} records would bring what is "
                f"spent to epsilon = {planned:.3g} at delta = {self._delta:g}, beyond dp_epsilon = "
                f"{self._epsilon_max:g}{self._advice(steps)}"
            )
        return planned

    def rows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A Poisson sample of the sequences' numbers, int64; now and then it is empty."""
        return np.flatnonzero(self._chance.random(self._examples) < self._q)

    def spend(self) -> None:
        """Count a step before it is taken. Raises TrainerError where the limit does not allow it."""
        if not self._ahead:
            entries = self._ledger.with_steps(self._sigma, self._q, self._chunk)
            epsilon = self._spent(entries)
            if self._epsilon_max and epsilon > self._epsilon_max:
                raise TrainerError(
                    f"the privacy budget is spent: the next {self._chunk:,} steps would bring epsilon from "
                    f"{self.epsilon:.3g} to {epsilon:.3g}, beyond dp_epsilon = {self._epsilon_max:g}; what was trained "
                    "so far is in the newest checkpoint (deca-node export)"
                )
            self._ledger.write(entries)
            self.epsilon, self._ahead = epsilon, self._chunk
        self._ahead -= 1

    def collect(self, grad: Tensor, examples: Sequence[Callable[[], float]]) -> float:
        """Make ``grad`` (float32 [elements]) the private gradient of ``examples``, which each add their own to it.

        Returns the mean loss, which is not private and stays at home; that of the step before where none was drawn.
        """
        return self.noised(grad, clipped_sum(grad, examples, self.clip))

    def noised(self, grad: Tensor, losses: Losses) -> float:
        """Make a sum of clipped gradients private; returns as :meth:`collect`."""
        noise = torch.randn(grad.shape, generator=self._noise, device=grad.device)
        grad.add_(noise, alpha=self._sigma * self.clip).div_(self._batch)
        self._loss = losses.total / losses.examples if losses.examples else self._loss
        return self._loss

    def figures(self) -> Mapping[str, float]:
        """Figures for metrics and status."""
        return {"privacy_epsilon": self.epsilon, "privacy_delta": self._delta}

    def _spent(self, entries: Sequence[Entry]) -> float:
        return self._accountant(entries, self._delta) if entries else 0.0

    def _advice(self, steps: int) -> str:
        """The smallest noise that would stay within the limit, if there is one."""
        low, high = self._sigma, 4.0 * self._sigma
        while self._spent(self._ledger.with_steps(high, self._q, steps)) > self._epsilon_max:
            low, high = high, 4.0 * high
            if high > 1e4 * self._sigma:
                return ": too much of it is spent already for any noise"
        for _ in range(12):
            middle = (low + high) / 2.0
            enough = self._spent(self._ledger.with_steps(middle, self._q, steps)) <= self._epsilon_max
            low, high = (low, middle) if enough else (middle, high)
        return f"; dp_noise = {high:.3g} would stay within it"


def clipped_sum(grad: Tensor, examples: Sequence[Callable[[], float]], clip: float) -> Losses:
    """Make ``grad`` the sum of the examples' own gradients, each clipped to the norm ``clip``; returns their losses.

    A gradient without a finite norm makes all of it NaN, and the losses as well.
    """
    total, losses = torch.zeros_like(grad), []
    for backward in examples:
        grad.zero_()
        losses.append(backward())
        norm = float(torch.linalg.vector_norm(grad))
        total.add_(grad, alpha=min(1.0, clip / norm) if norm and math.isfinite(norm) else 1.0)
        if not math.isfinite(norm):
            total.fill_(math.nan)
            losses[-1] = math.nan
    grad.copy_(total)
    return Losses(sum(losses), len(losses))


def _accountant() -> Callable[[Sequence[Entry], float], float]:
    """epsilon of some steps at a delta: opacus' accountant of Renyi differential privacy (Mironov, arXiv 1702.07476).

    Raises SettingsError where the package is missing.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            from opacus.accountants import RDPAccountant
    except ImportError:
        raise SettingsError(NOT_INSTALLED) from None

    def epsilon(entries: Sequence[Entry], delta: float) -> float:
        accountant = RDPAccountant()
        accountant.history = list(entries)
        # It warns where the best order is at the end of its range; the bound holds all the same.
        with warnings.catch_warnings(action="ignore"):
            return float(accountant.get_epsilon(delta))

    return epsilon
