"""Checks of the model: its shape and its files, the memory that training it takes, and loading it on trial."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, failed, passed, warned
from deca_node.daemon.settings.node_settings import check_paths
from deca_node.daemon.settings.parts import machine_of, trainer_options
from deca_node.protocol.errors import ModelError
from deca_node.protocol.planning.case import Case, ModelShape
from deca_node.protocol.planning.memory import block_memory
from deca_node.protocol.planning.units import bytes_text

MEMORY_SHARE_MAX = 0.9
"""A plan that takes more of the free memory than this is worth a warning: parts of it are estimates."""
BLOCKS_NAMED_MAX = 5


def check_model(known: Known) -> Iterator[Finding]:
    """Compare config.json with the headers of the weights; the weights themselves are not read."""
    loaded = known.settings
    check_paths(dataclasses.replace(loaded.node, dir=""))
    known.say("model (importing torch)")
    from deca_node.numerics.forecast.fitting import dtypes_text, misfits, named
    from deca_node.numerics.forecast.shapes import model_shape, planned_model
    from deca_node.numerics.model.classifier import labels_of, of_head
    from deca_node.storage.model_files import read_headers

    model = planned_model(loaded.node.model, loaded.run)
    shape = model_shape(model, loaded.run.block_layers, loaded.node.model)
    _note_model(known, shape)
    folder = Path(loaded.node.model).expanduser()
    says = f"{shape.elements:,} parameters in {len(shape.blocks)} blocks"
    if not folder.is_dir():
        yield warned("model", f"{says}; the weights are not checked", "nothing: the start fetches the weights")
        return
    stored = read_headers(folder)
    wrong, missing = misfits(model, stored)
    if loaded.run.task == "classification":
        missing = [name for name in missing if not of_head(model, name)]
        known.agreed["classes"] = ", ".join(labels_of(model.config))
    if wrong:
        raise ModelError(f"{folder}: the weights do not fit config.json: {named(wrong)}")
    if missing:
        do = "run doctor with --load, which reads the weights"
        yield warned("model", f"{says}; the headers of the weights do not name {named(missing)}", do)
    else:
        yield passed("model", f"{says}, stored as {dtypes_text(stored)}", parameters=shape.elements)


def _note_model(known: Known, shape: ModelShape) -> None:
    loaded = known.settings
    known.agreed["blocks"] = " ".join(f"{block.name}:{block.elements}" for block in shape.blocks)
    names = known.own.expected if known.own else frozenset({"this node", "another"})
    known.case = Case.of(loaded.run, shape, names, machine_of(loaded.node))


def check_memory(known: Known) -> Iterator[Finding]:
    """Compare the plan for each block with the memory that is free now."""
    from deca_node.numerics.forecast.fitting import free_memory

    assert known.case is not None
    device, free = free_memory(known.settings.node.device)
    known.case = known.case.on(one_memory=device == "cpu")
    blocks = [block_memory(known.case, block) for block in known.case.model.blocks]
    peak = max(blocks, key=lambda block: block.total_bytes)
    facts: dict[str, Any] = {"device": device, "free_bytes": free, "peak_bytes": peak.total_bytes}
    facts["blocks_bytes"] = {block.block: block.total_bytes for block in blocks}
    says = f"training block {peak.block} takes the most: {bytes_text(peak.total_bytes)}"
    if free is None:
        yield warned("memory", f"{says}; the free memory is not known", "compare it with this device's memory", **facts)
        return
    says += f"; {bytes_text(free)} are free on {device}"
    too_large = [block.block for block in blocks if block.total_bytes > free]
    do = "`deca-node plan --memory ...` says which setting helps most"
    if too_large:
        names = ", ".join(too_large[:BLOCKS_NAMED_MAX])
        yield failed("memory", f"{says}; {len(too_large)} of {len(blocks)} blocks do not fit: {names}", do, **facts)
    elif peak.total_bytes > MEMORY_SHARE_MAX * free:
        yield warned("memory", f"{says}; this is close to the limit", do, **facts)
    else:
        yield passed("memory", says, **facts)


def check_load(known: Known) -> Iterator[Finding]:
    """Read model and data whole, as a trainer does."""
    from deca_node.numerics.learning.tasks import length_told, load_data, told
    from deca_node.numerics.model.classifier import Head
    from deca_node.numerics.model.facts import check_sequence_length, parameter_hash
    from deca_node.numerics.model.load import load_model

    run, node, began = known.settings.run, known.settings.node, time.monotonic()
    known.say("load: the model")
    model = load_model(node.model, dtype=run.dtype, head=Head.of(run), attention=node.attention)
    check_sequence_length(run.sequence_length, model.positions_max, model.folder)
    known.say("load: the model's hash")
    known.agreed["model"] = parameter_hash(model.model)
    progress = lambda done, total: known.say(f"load: the data, {done / max(total or 1, 1):.0%}")  # noqa: E731
    data = load_data(trainer_options(run, node), model, progress)
    said = [*told(data, run.sequence_length)]
    if known.case is not None:
        said.append(length_told(run, len(known.case.model.blocks), len(data.train)))
    summary = "; ".join(said)
    says = f"reading model and data took {time.monotonic() - began:.1f} s: {summary}"
    yield passed("load", says, model_sha256=known.agreed["model"], tokens=data.summary.tokens)
