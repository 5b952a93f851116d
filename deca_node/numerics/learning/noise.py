"""Noise on the embeddings of a batch while it is learnt (NEFTune: Jain et al., arXiv 2310.05914).

::

    embeddings [b, L, d]  +=  uniform in +- alpha / sqrt(L d)

The noise comes from torch's own generator, which checkpoints hold, so a resumed run draws the same noise. A model that
is judged has none.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


def add_noise(model: nn.Module, alpha: float) -> None:
    """From now on add noise of this size to what the input embeddings put out in training. 0: none."""
    if not alpha:
        return

    def noisy(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        bound = alpha / math.sqrt(output.shape[-2] * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-bound, bound)

    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    embedding.register_forward_hook(noisy)
