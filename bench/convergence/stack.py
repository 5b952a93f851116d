"""n copies of one small Llama as one model: every weight has a leading axis for the nodes, every product is a batch of
n.

The nodes of an arm differ in their weights and data, not in their architecture, so one pass serves all of them. On two
cores the calls are the cost, not the arithmetic. The later part of a step is :class:`BlockEngine`'s.
``tests/bench/test_convergence.py`` compares this model with transformers' Llama.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig

from deca_node.numerics.data.batches import IGNORED

Weights = Mapping[str, Tensor]
"""Parameters by their names in transformers' Llama, float32 [n, *shape]."""

ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers that get low-rank updates."""


class Shape(NamedTuple):
    """The fields of a Llama's config that the passes need."""

    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    epsilon: float
    theta: float

    @classmethod
    def of(cls, config: LlamaConfig) -> "Shape":
        """From a config without rope scaling and without biases, like that of the start model."""
        theta = getattr(config, "rope_theta", None) or config.rope_parameters["rope_theta"]
        head_dim = config.hidden_size // config.num_attention_heads
        sizes = (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads, head_dim)
        return cls(*sizes, config.rms_norm_eps, theta)


def logits(shape: Shape, weights: Weights, ids: Tensor) -> Tensor:
    """Next-token logits, [n, b, L, V], of ``ids`` (int64 [n, b, L]) under each node's own weights.

    A classifier reads all tokens but the last, which is the class. It gives [n, b, 2, classes], and the first of the
    two predicts the class.
    """
    score = weights.get("score.weight")
    if score is not None:
        found = linear(hidden(shape, weights, ids[..., :-1])[..., -1:, :], score)
        return found.expand(*ids.shape[:2], 2, -1)
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return linear(hidden(shape, weights, ids), head)


def hidden(shape: Shape, weights: Weights, ids: Tensor) -> Tensor:
    """The output of the last norm, [n, b, L, d]."""
    x = _embedded(weights["model.embed_tokens.weight"], ids)
    cos, sin = _rotations(shape, ids.shape[-1])
    for layer in range(shape.layers):
        name = f"model.layers.{layer}"
        normed = _norm(x, weights[f"{name}.input_layernorm.weight"], shape.epsilon)
        x = x + _adapted(
            weights, f"{name}.self_attn", _attention(shape, weights, f"{name}.self_attn", normed, cos, sin)
        )
        normed = _norm(x, weights[f"{name}.post_attention_layernorm.weight"], shape.epsilon)
        x = x + _adapted(weights, f"{name}.mlp", _mlp(weights, f"{name}.mlp", normed))
    return _norm(x, weights["model.norm.weight"], shape.epsilon)


def losses(found: Tensor, labels: Tensor) -> Tensor:
    """Mean negative log-likelihood of each node's labels, [n]. ``found`` [n, b, l, V] predicts the last l - 1 of
    ``labels`` (int64 [n, b, L])."""
    n, vocabulary = len(found), found.shape[-1]
    targets = labels[..., 1 - found.shape[-2] :].reshape(-1)
    each = F.cross_entropy(
        found[..., :-1, :].reshape(-1, vocabulary), targets, ignore_index=IGNORED, reduction="none"
    ).view(n, -1)
    counted = (targets != IGNORED).view(n, -1).sum(1).clamp_(min=1)
    return each.sum(1) / counted


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T per node: ``x`` [n, ..., in], ``weight`` [n, out, in]."""
    flat = torch.bmm(x.reshape(len(x), -1, x.shape[-1]), weight.mT)
    return flat.view(*x.shape[:-1], weight.shape[1])


def _embedded(weight: Tensor, ids: Tensor) -> Tensor:
    n, vocabulary, width = weight.shape
    offsets = (torch.arange(n) * vocabulary).view(n, *[1] * (ids.dim() - 1))
    return F.embedding(ids + offsets, weight.reshape(n * vocabulary, width))


def _rotations(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    frequencies = 1.0 / shape.theta ** (torch.arange(0, shape.head_dim, 2) / shape.head_dim)
    angles = torch.outer(torch.arange(length).float(), frequencies)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def _attention(shape: Shape, weights: Weights, name: str, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    n, b, length, _ = x.shape

    def heads(part: str, count: int) -> Tensor:
        y = linear(x, weights[f"{name}.{part}.weight"])
        return y.view(n * b, length, count, shape.head_dim).transpose(1, 2)

    q, k, v = (
        heads("q_proj", shape.heads),
        heads("k_proj", shape.key_value_heads),
        heads("v_proj", shape.key_value_heads),
    )
    q, k = (t * cos + _half_turned(t) * sin for t in (q, k))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return linear(y.transpose(1, 2).reshape(n, b, length, -1), weights[f"{name}.o_proj.weight"])


def _half_turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _mlp(weights: Weights, name: str, x: Tensor) -> Tensor:
    gate, up = (linear(x, weights[f"{name}.{part}.weight"]) for part in ("gate_proj", "up_proj"))
    return linear(F.silu(gate) * up, weights[f"{name}.down_proj.weight"])


def _norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
    return scaled * weight.view(len(weight), *[1] * (x.dim() - 2), -1)


def _adapted(weights: Weights, name: str, y: Tensor) -> Tensor:
    """y + U relu(D y) if there is a bottleneck adapter, else y."""
    down = weights.get(f"{name}.adapter_down")
    return y if down is None else y + linear(F.relu(linear(y, down)), weights[f"{name}.adapter_up"])
