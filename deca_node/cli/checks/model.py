"""Checks of the model: its shape and its files, the memory that training it takes, and loading it on trial."""

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deca_node.cli.checks.known import Known
from deca_node.daemon.diagnosis.findings import Finding, failed, passed, warned
from deca_node.daemon.settings.before_start import check_paths
from deca_node.daemon.settings.parts import machine_of, trainer_options
from deca_node.protocol.errors import ModelError
from deca_node.protocol.planning.case import Case, ModelShape
from deca_node.protocol.planning.memory import MEMORY_SHARE_MAX, block_memory, is_sharded
from deca_node.protocol.planning.units import bytes_text

BLOCKS_NAMED_MAX = 5


def check_model(known: Known) -> Iterator[Finding]:
    """Compare config.json with the headers of the weights; the weights themselves are not read."""
    loaded = known.settings
    check_paths(dataclasses.replace(loaded.node, dir=""))
    known.say("model (importing torch)")
    from deca_node.numerics.forecast.fitting import planned_ranks
    from deca_node.numerics.forecast.shapes import NotHereError, local_folder, model_shape, planned_model
    from deca_node.numerics.forecast.tracing import trace, with_activations

    try:
        model = planned_model(loaded.node.model, loaded.run)
    except NotHereError:
        yield _fetched_later(loaded.node.model)
        return
    shape = model_shape(model, loaded.run.block_layers, loaded.node.model)
    known.say("model (tracing a step)")
    kind, known.ranks = planned_ranks(loaded.node.device, loaded.node.devices, loaded.node.ranks_elsewhere)
    shape = with_activations(shape, trace(model, loaded.run, attention=loaded.node.attention, device=kind))
    known.model = model
    _note_model(known, shape)
    yield from _check_files(known, local_folder(loaded.node.model), shape)


def _fetched_later(source: str) -> Finding:
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        says = f"{source!r} is not a folder here, and HF_HUB_OFFLINE is set and it is not in the cache"
        return failed("model", says, "unset the variable, or name a local folder")
    says = f"not checked: {source!r} is not on this machine"
    return warned("model", says, "nothing: the start fetches it; to check it before, fetch it with `hf download`")


def _check_files(known: Known, folder: Path, shape: ModelShape) -> Iterator[Finding]:
    from deca_node.numerics.forecast.fitting import dtypes_text, named
    from deca_node.numerics.forecast.shapes import planned_model
    from deca_node.numerics.model.beside import Beside
    from deca_node.numerics.model.classifier import Head, labels_of, of_head
    from deca_node.numerics.model.load import check_generation
    from deca_node.numerics.model.stored import fit
    from deca_node.storage.model_files import holds_weights, read_headers

    run, head = known.settings.run, Head.of(known.settings.run)
    says = f"{shape.elements:,} parameters in {len(shape.blocks)} blocks"
    if shape.frozen:
        says += f", of which {shape.frozen:,} are frozen, since text does not reach them"
    if head:
        known.agreed["classes"] = ", ".join(labels_of(known.model.config))
    if not Path(known.settings.node.model).expanduser().is_dir() and not holds_weights(folder):
        yield warned("model", f"{says}; the weights are not checked", "nothing: the start fetches the weights")
        return
    check_generation(folder, head)
    stored = read_headers(folder)
    found = fit(planned_model(str(folder), run), stored)
    missing = [name for name in found.missing if not (head and of_head(known.model, name))]
    if found.wrong:
        raise ModelError(f"{folder}: the weights do not fit config.json: {named(list(found.wrong))}")
    if missing:
        raise ModelError(f"{folder}: the weights lack {named(missing)}")
    says = f"{says}, stored as {dtypes_text(stored)}"
    notes = list(Beside.of(folder, known.model, classifies=head is not None).told())
    if notes:
        yield warned(
            "model", "; ".join([says, *notes]), "nothing, if this is as you mean it", parameters=shape.elements
        )
    else:
        yield passed("model", says, parameters=shape.elements)


def _note_model(known: Known, shape: ModelShape) -> None:
    loaded = known.settings
    known.agreed["blocks"] = " ".join(f"{block.name}:{block.elements}" for block in shape.blocks)
    names = known.own.expected if known.own else frozenset({"this node", "another"})
    known.case = Case.of(loaded.run, shape, names, machine_of(loaded.node))


def check_memory(known: Known) -> Iterator[Finding]:
    """Compare the plan for each block with the memory that is free now."""
    from deca_node.numerics.forecast.fitting import free_memory

    assert known.case is not None
    node = known.settings.node
    device, free = free_memory(node.device, node.devices)
    known.case = known.case.on(one_memory=device == "cpu", ranks=known.ranks)
    known.case = known.case.on(sharded=is_sharded(known.case, node.parallel, free))
    blocks = [block_memory(known.case, block) for block in known.case.model.blocks]
    peak = max(blocks, key=lambda block: block.total_bytes)
    facts: dict[str, Any] = {"device": device, "free_bytes": free, "peak_bytes": peak.total_bytes}
    facts["blocks_bytes"] = {block.block: block.total_bytes for block in blocks}
    says = f"training block {peak.block} takes the most: {bytes_text(peak.total_bytes)}"
    if known.case.machine.sharded:
        says += f", the model sharded over {known.ranks} ranks,"
    if known.ranks > 1:
        others = f" at rank 0, and {bytes_text(peak.follower_bytes)} at each other rank"
        says += " in all ranks together" if device == "cpu" else others
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
    with tempfile.TemporaryDirectory(prefix="deca-node-doctor-") as folder:
        data = load_data(trainer_options(run, node), model, progress, Path(folder, "tokens"))
        said = [*told(data, run.sequence_length)]
    if known.case is not None:
        said.append(length_told(run, len(known.case.model.blocks), len(data.train)))
    summary = "; ".join(said)
    says = f"reading model and data took {time.monotonic() - began:.1f} s: {summary}"
    yield passed("load", says, model_sha256=known.agreed["model"], tokens=data.summary.tokens)
