"""What a model would be like in memory, from its config.json alone.

The model is built on torch's meta device, where tensors have shapes and no storage, and is cut into blocks by
the very function that cuts the real one. So the plan of an 8B model takes a second and no weights, and its
blocks are those of the run.
"""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.exchange.signals import m_codec, v_nbytes
from deca_node.numerics.learning.dropout import set_dropout
from deca_node.numerics.model.blocks import Block, decoder_layers, gathered_units, partition
from deca_node.numerics.model.classifier import CLASSIFIER, Head
from deca_node.numerics.model.facts import check_sequence_length, positions_max
from deca_node.numerics.model.limits import described_model
from deca_node.numerics.model.load import read_config
from deca_node.numerics.model.quiet import quiet
from deca_node.numerics.model.reach import unreached
from deca_node.numerics.model.stored import untie_stored_apart
from deca_node.protocol.agreed.run import MOMENT_BITS, RunSettings
from deca_node.protocol.errors import ModelError
from deca_node.protocol.planning.case import BlockShape, ModelShape
from deca_node.storage.model_files import brief, holds_weights, read_headers


class NotHereError(ModelError):
    """A hub id of which nothing is on this machine yet."""


INNER_WIDTHS = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
"""What architectures call the width between the two matrices of a feed-forward layer."""


def meta_model(source: str, sequence_length: int, head: Head | None = None) -> PreTrainedModel:
    """The model of a local folder, or of a hub id whose config.json is in the local cache, without its weights: a
    causal language model, or with ``head`` a classifier.

    A config that names no dtype counts as float32. Nothing is fetched. Weights are looked at, where they are there, to
    see whether those that the config ties are equal. Raises ModelError, also where the model has no positions for
    ``sequence_length`` tokens.
    """
    folder = local_folder(source)
    with quiet():
        config = read_config(folder, head)
        check_sequence_length(sequence_length, positions_max(config), folder)
        model = described_model(config, folder, head)
        if holds_weights(folder):
            untie_stored_apart(model, read_headers(folder))
    return model


def planned_model(source: str, settings: RunSettings) -> PreTrainedModel:
    """The model of a run with these settings; see :func:`meta_model`."""
    model = meta_model(source, settings.sequence_length, Head.of(settings))
    set_dropout(model, settings.dropout)
    return model


def model_shape(model: PreTrainedModel, block_layers: int, name: str = "") -> ModelShape:
    """The blocks of a model and the widths that memory depends on. Raises ModelError where it cannot be cut."""
    config = model.config.get_text_config()
    return ModelShape(
        name=name,
        blocks=_block_shapes(model, partition(model, block_layers)),
        dtype_bytes=next(model.parameters()).element_size(),
        frozen=_frozen_elements(model),
        layer=max(map(_elements, decoder_layers(model))),
        together=_elements(model) - sum(map(_elements, gathered_units(model))),
        layers=len(decoder_layers(model)),
        hidden=_width(model),
        intermediate=_inner_width(config, _width(model)),
        # Of a classifier's logits too little is kept to count; each token has at most one per label.
        vocabulary=model.config.num_labels if type(model).__name__.endswith(CLASSIFIER) else config.vocab_size,
    )


def local_folder(source: str) -> Path:
    """The folder of a model on this machine. Raises NotHereError for a hub id that is not in the local cache, and
    ModelError."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists() or source.startswith((".", "/", "~")):
        raise ModelError(f"there is no folder {source!r} to read a model from")
    try:
        found = try_to_load_from_cache(source, "config.json")
    except ValueError as error:  # not an id at all
        raise ModelError(f"{source!r} is not a folder here, and not an id on the hub either: {brief(error)}") from error
    if not isinstance(found, str):
        raise NotHereError(
            f"{source!r} is not a folder here, and its config.json is not in the Hugging Face cache; a plan needs "
            f"no more than that file: hf download {source} config.json"
        )
    return Path(found).parent


def _block_shapes(model: PreTrainedModel, blocks: tuple[Block, ...]) -> tuple[BlockShape, ...]:
    """Bottom up, as the blocks are. The head's matrix multiplies on top, wherever a tied one belongs."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    layer_of = _layer_of_each_parameter(model)
    head = _head_parameters(model)
    head_elements = sum(sizes[name] for name in head)
    shapes: list[BlockShape] = []
    for block in reversed(blocks):
        inside = [name for name in block.parameters if name in layer_of]
        layers = len({layer_of[name] for name in inside})
        multiplied = sum(sizes[name] for name in inside)
        shape = BlockShape(
            name=block.name,
            elements=block.elements,
            largest_tensor=max(sizes[name] for name in block.parameters),
            layers=layers,
            layers_from=layers + (shapes[-1].layers_from if shapes else 0),
            multiplied=multiplied + sum(sizes[name] for name in head & set(block.parameters)),
            multiplied_from=multiplied + (shapes[-1].multiplied_from if shapes else head_elements),
            frame_bytes={name: codec.nbytes(block.elements) for name, codec in CODECS.items()},
            v_bytes=v_nbytes(block.elements),
            m_bytes={bits: m_codec(bits).nbytes(block.elements) for bits in MOMENT_BITS},
        )
        shapes.append(shape)
    return tuple(reversed(shapes))


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _frozen_elements(model: PreTrainedModel) -> int:
    frozen = unreached(model)
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) in frozen)


def _layer_of_each_parameter(model: PreTrainedModel) -> dict[str, int]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: number
        for number, layer in enumerate(decoder_layers(model))
        for parameter in layer.parameters()
        if id(parameter) in names
    }


def _head_parameters(model: PreTrainedModel) -> set[str]:
    """Names of what turns hidden states into logits; a tied matrix under its first name."""
    head = model.get_output_embeddings()
    own = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def _width(model: PreTrainedModel) -> int:
    """The width of hidden states: that of the widest layer's input where the config has none of its own, as with
    layers over bytes around layers over patches."""
    named = getattr(model.config.get_text_config(), "hidden_size", None)
    if named is not None:
        return int(named)
    layers = (module for layer in decoder_layers(model) for module in layer.modules())
    return max(module.in_features for module in layers if isinstance(module, nn.Linear))


def _inner_width(config: PreTrainedConfig, hidden: int) -> int:
    named = (getattr(config, name, None) for name in INNER_WIDTHS)
    found = next((width for width in named if width), 4 * hidden)
    # Some architectures have a width for every layer.
    return int(max(found) if isinstance(found, list | tuple) else found)
