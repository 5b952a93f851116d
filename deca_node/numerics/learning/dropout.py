"""Dropout, as the run has it instead of the model's config.

Architectures name their probabilities in many ways. What takes part in a step is a module of torch that drops
elements, or a number that a module keeps for attention; both are set here, and the config in ``final/`` stays as it
was. The share of layers that are skipped whole (``layerdrop``) is something else and stays too.

Torch's own generator draws what is dropped. Checkpoints hold its state, so a resumed run drops the same.
"""

from torch import nn

from deca_node.protocol.agreed.run import OWN_DROPOUT
from deca_node.protocol.errors import ModelError

MODULES = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def set_dropout(model: nn.Module, probability: float) -> None:
    """Let every dropout of the model have this probability while it learns. :data:`OWN_DROPOUT`: the model's own.

    Raises ModelError if the model has none.
    """
    if probability == OWN_DROPOUT:
        return
    found = [(module, name) for module in model.modules() for name in _named(module)]
    if not found:
        raise ModelError(
            f"dropout = {probability:g}, but {type(model).__name__} has no dropout; leave dropout = {OWN_DROPOUT:g}"
        )
    for module, name in found:
        setattr(module, name, probability)


def _named(module: nn.Module) -> list[str]:
    """The names of a module's probabilities."""
    if isinstance(module, MODULES):
        return ["p"]
    numbers = {name: value for name, value in vars(module).items() if type(value) in (int, float)}
    return [name for name in numbers if "drop" in name and "layer" not in name and "token" not in name]
