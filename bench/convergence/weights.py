"""The parameters of all nodes of a run, as one mapping."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bench.convergence.stack import Weights
from deca_node.numerics.model.blocks import Span


def expanded(model: PreTrainedModel, nodes: int) -> Weights:
    """The model's parameters, as every node has them at first, [n, *shape]."""
    return {name: p.detach().expand(nodes, *p.shape) for name, p in model.named_parameters()}


def with_block(weights: Weights, layout: Sequence[Span], flat: Tensor) -> Weights:
    """The weights. Those of one block are views of ``flat``."""
    active = {s.name: flat[:, s.start : s.stop].view_as(weights[s.name]) for s in layout}
    return {**weights, **active}


def distance(weights: Weights) -> float:
    """RMS distance to the mean, over all parameters and nodes."""
    squares = [(w - w.mean(0)).pow(2) for w in weights.values()]
    return float(torch.cat([s.reshape(-1) for s in squares]).mean().sqrt())
