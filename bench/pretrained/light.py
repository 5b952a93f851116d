"""The node's engine with Adam's half step in one pass over memory, for long sweeps.

The node's own half step measures the moments, slice by slice, for its metrics. A cell needs none of these figures. So
here torch's fused Adam takes the step, which is the same formula up to rounding (``tests/bench/test_pretrained.py``
compares them). Everything else is the node's engine as it is.
"""

import torch
from torch import Tensor

from deca_node.numerics import deca
from deca_node.numerics.engine import BlockEngine, EngineFigures


class LightEngine(BlockEngine):
    """An engine whose half step reports nothing. The parameters do not decay."""

    def _half_step(self, gamma: float, grad: Tensor) -> EngineFigures:
        """x_half = x - gamma u, and the half moments, in place."""
        x, hyper = self.flat.master, self.hyper
        if self.moments is None:
            self.moments = deca.Moments(torch.zeros_like(x), torch.zeros_like(x))
        vectors = [[x], [grad], [self.moments.m], [self.moments.v], []]
        torch._fused_adam_(
            *vectors,
            [torch.tensor(float(self.counts.gradients))],
            lr=gamma,
            beta1=hyper.alpha1,
            beta2=hyper.alpha2,
            eps=hyper.epsilon,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
        )
        self._half_figures, self._scales = {}, torch.zeros(len(self.flat.spans))
        return {}


def light(hyper: deca.Hyper) -> bool:
    """Whether a run with these settings may have a light engine: nothing but Adam's own half step is asked for."""
    return hyper.discrepancy != "rms" and hyper.bias_correction == "alpha" and not hyper.weight_decay
