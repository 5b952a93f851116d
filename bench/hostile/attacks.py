"""Attacks: members that send well-formed nonsense, and one that sends malformed updates.

A hostile node trains and mixes as the others do, so that its lies stay close enough to do harm. It lies about its own
values. With a the values of the block when its edges opened, x its true values, and gamma the step size, it claims::

    noise      x + 20 gamma z, z standard normal and new at every exchange
    sign-flip  a - (x - a): all progress of the neighbourhood, undone
    scaled     a + 10 (x - a): ten times the progress
    nan        updates whose first scale is no number
    inflated   the truth, but a second moment that is 10^6 times too large (needs signal = v)
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deca_node.numerics.deca import Moments
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e

ATTACKS = ("noise", "sign-flip", "scaled", "nan", "inflated")
NOISE_STEPS = 20.0
SCALE = 10.0
INFLATION = 1e6

Claim = Callable[[Tensor, Tensor], Tensor]
"""Turns the true values of a block, and its values when its edges opened, into the values that the node claims."""


class HostileTrainer(Trainer):
    """A production trainer whose updates lie in one of the ways of :data:`ATTACKS`."""

    def __init__(self, attack: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._attack = attack
        self._chance = torch.Generator().manual_seed(self._options.seed)

    def _connect(self, command: c.Connect) -> e.Connected:
        connected = super()._connect(command)
        public = self.engine.public
        if public is not None and self._attack in ("noise", "sign-flip", "scaled"):
            began, honest = self.engine.flat.master.clone(), public.difference
            public.difference = lambda x, out: honest(self._claim(x, began), out)  # type: ignore[method-assign]
        if self._attack == "inflated":
            layout = self.engine.layout
            write = layout.write_signals

            def inflated(moments: Moments, parts: Any, feedback: Any = None) -> None:
                write(Moments(moments.m, moments.v * INFLATION), parts, feedback)

            object.__setattr__(layout, "write_signals", inflated)
        return connected

    def _half_step(self, command: c.HalfStep) -> e.HalfStepped:
        done = super()._half_step(command)
        if command.update and self._attack == "nan":
            self._tensor(command.update)[:4] = torch.tensor([math.nan]).view(torch.uint8)
        return done

    def _claim(self, x: Tensor, began: Tensor) -> Tensor:
        if self._attack == "noise":
            size = NOISE_STEPS * self._settings.learning_rate
            return x + size * torch.randn(x.shape, generator=self._chance)
        return began + (SCALE if self._attack == "scaled" else -1.0) * (x - began)
