"""Which parameters decay under ``weight_decay``: matrices, but no norms, biases and embeddings.

A norm's scale and a bias are few numbers that decay would only pull away from where they work. An embedding's row has a
gradient only when its token occurs, so a rare token would fade. A head that is tied to the embedding is the embedding.
"""

from collections.abc import Iterator, Sequence

from torch import nn

from deca_node.numerics.model.blocks import Span

RATES = {"A_log"}
"""Names of parameters that are the logarithms of a state space's rates: near zero is no natural place for them."""


def decays(model: nn.Module, layout: Sequence[Span], weight_decay: float) -> tuple[float, ...]:
    """lambda of each parameter in ``layout``: ``weight_decay``, or 0 where the parameter does not decay."""
    if not weight_decay:
        return (0.0,) * len(layout)
    spared = set(_spared(model))
    return tuple(0.0 if span.name in spared else weight_decay for span in layout)


def _spared(model: nn.Module) -> Iterator[str]:
    """The names of the parameters that do not decay."""
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters(recurse=False)}
    owners = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        owner, _, own_name = name.rpartition(".")
        norm = "norm" in type(owners[owner]).__name__.lower()
        vector = parameter.numel() == max(parameter.shape, default=1)
        # The biases of many experts are the rows of a matrix.
        if vector or own_name.endswith("bias") or own_name in RATES or norm or id(parameter) in embeddings:
            yield name
