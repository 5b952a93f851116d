"""Which parameters of a model text reaches.

Some models also see or hear. Text passes by the parts that do: their gradient would always be zero. They stay as they
are, in no block::

    whole model
      +-- tower for pictures, for sounds ...     frozen
      +-- projector into the text model          frozen
      +-- text model                             trained, but for layers that attend to pictures
      +-- output head                            trained
"""

from collections.abc import Iterator

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from deca_node.numerics.model.classifier import CLASSIFIER

CROSS_LAYER = "CrossAttentionDecoderLayer"
"""The end of the class name of layers that do nothing without a picture."""
WAITING = ("encoder_attn", "encoder_attn_layer_norm", "crossattention", "visual_projection")
"""Names of modules that attend to the output of an encoder, or bring it into the text model."""


def unreached(model: nn.Module) -> set[int]:
    """The ids of all parameters that text does not reach; none in a model of text alone."""
    config = getattr(model, "config", None)
    if not isinstance(model, PreTrainedModel) or not isinstance(config, PreTrainedConfig):
        return set()
    found = {id(p) for part in _other_parts(model, config) for p in part.parameters()}
    text = _text_model(model, config)
    if text is not None:
        found |= {id(p) for p in model.parameters()} - {
            id(p) for part in (text, *_heads(model)) for p in part.parameters()
        }
    return found


def _other_parts(model: PreTrainedModel, config: PreTrainedConfig) -> Iterator[nn.Module]:
    """Models within the model that take something else than tokens, and parts that wait for their output."""
    kinds = (type(config), type(config.get_text_config()))
    for name, module in model.named_modules():
        other = isinstance(module, PreTrainedModel) and not isinstance(module.config, kinds)
        waits = type(module).__name__.endswith(CROSS_LAYER) or name.rpartition(".")[2] in WAITING
        if waits or (other and module.main_input_name != "input_ids"):
            yield module


def _text_model(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel | None:
    """The text model within a model of several parts; None if the model has no such part."""
    text = config.get_text_config()
    if text is config:
        return None
    inner = (module for module in model.modules() if isinstance(module, PreTrainedModel) and module is not model)
    return next((module for module in inner if isinstance(module.config, type(text))), None)


def _heads(model: PreTrainedModel) -> Iterator[nn.Module]:
    """What turns the text model's output into logits or labels, and what turns tokens into its input."""
    yield from (part for part in (model.get_output_embeddings(), model.get_input_embeddings()) if part is not None)
    if type(model).__name__.endswith(CLASSIFIER):
        yield from (part for name, part in model.named_children() if name != model.base_model_prefix)
