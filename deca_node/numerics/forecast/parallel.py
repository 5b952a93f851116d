"""Whether the ranks of a trainer share a batch only, or the model as well: ``parallel = auto`` goes by the plan."""

from collections.abc import Sequence

import torch

from deca_node.numerics.forecast.fitting import free_memory
from deca_node.numerics.forecast.shapes import NotHereError, model_shape, planned_model
from deca_node.protocol.options import Note, TrainerOptions
from deca_node.protocol.planning.case import Case, GraphFacts, Machine
from deca_node.protocol.planning.memory import is_sharded, peak_memory
from deca_node.protocol.planning.units import bytes_text

DEGREE = 2
"""The neighbours that are counted: the trainer does not know yet how many there will be."""


def shards_model(options: TrainerOptions, devices: Sequence[torch.device], note: Note) -> bool:
    """Whether a trainer with several devices shards the model. Raises ModelError."""
    if options.parallel != "auto" or options.dp_noise:
        return options.parallel == "shard"  # with privacy, a record's gradient is needed whole at one rank
    try:
        case = _case(options, devices)
    except NotHereError:
        note("the model is not on this machine yet, so each rank takes all of it (parallel = auto)", "warning")
        return False
    name, free = free_memory(options.device, options.devices)
    if free is None or not is_sharded(case, options.parallel, free):
        return False
    whole, has = bytes_text(peak_memory(case).total_bytes), bytes_text(free)
    note(
        f"the model is sharded over the ranks: with a whole one at each, training takes {whole}; {name} has {has} free"
    )
    return True


def _case(options: TrainerOptions, devices: Sequence[torch.device]) -> Case:
    settings = options.settings
    shape = model_shape(planned_model(options.model, settings), settings.block_layers, options.model)
    machine = Machine(
        micro_batch=options.micro_batch,
        gradient_checkpointing=options.gradient_checkpointing,
        one_memory=devices[0].type == "cpu",
        ranks=len(devices) + len(options.elsewhere),
    )
    nodes = DEGREE + 1
    mixing = GraphFacts(nodes, nodes, DEGREE, DEGREE, 1.0, 0.0, 1, DEGREE)
    return Case(settings, shape, tuple(map(str, range(nodes))), mixing, machine)
