"""One family: a tiny random model of it goes the way of a run, from a folder to a folder.

Made and saved by transformers; loaded, cut into blocks, every block trained for a few steps, saved and loaded again by
deca-node. The measured memory is that of the lowest block, whose backward pass crosses all layers.
"""

import ctypes
import gc
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as ENCODERS
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES as SEEING
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as CLASSIFIERS

from bench.families.tiny import VOCABULARY, tiny_config
from bench.harness import Row
from deca_node.numerics.data.batches import AnyBatch, Batch, LabelledBatch
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.forecast.shapes import meta_model, model_shape
from deca_node.numerics.forecast.tracing import trace
from deca_node.numerics.learning.isolation import Way, way_of
from deca_node.numerics.learning.loss import backward
from deca_node.numerics.model.blocks import partition
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import LoadedModel, load_model
from deca_node.numerics.model.save import save_model
from deca_node.numerics.saving.start_values import nothing
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import ModelError
from deca_node.protocol.planning.case import Case, Machine
from deca_node.protocol.planning.memory import activation_bytes
from deca_node.storage.model_files import read_headers

CPU = torch.device("cpu")
STEPS = 2
TRAINED = RunSettings(sequence_length=32, batch_size=2)
MEASURED = RunSettings(sequence_length=256, batch_size=4)
LABELS = ("no", "yes")
DRAFTS = "a drafting model: it reads keys and values of the model that it drafts for, and does nothing alone"
IMPOSSIBLE = {
    "gemma3n": "its tower for pictures needs the library timm; `gemma3n_text` is the same model without the tower",
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), DRAFTS),
    "layoutlmv2": "it needs the library detectron2, which no package registry has",
}
"""Families of which no tiny model can be made, and why."""
COMPOSED = {"musicgen", "musicgen_melody"}
"""Families of several models in one folder, which no class for language models makes: only the config is written."""


def families() -> list[str]:
    """The names of all families."""
    return sorted({*DECODERS, *CLASSIFIERS})


def task_of(family: str) -> str:
    """Decoders are trained as language models, encoders as classifiers."""
    encoder = family in ENCODERS and family in CLASSIFIERS
    return "language" if family in DECODERS and not encoder else "classification"


def trial(family: str, folder: Path) -> Row:
    """What becomes of the family. ``outcome`` is trained, refused (``says`` has the words), or unmade where there is no
    tiny model of it."""
    torch.manual_seed(0)
    row: Row = {"family": family, "task": task_of(family)}
    if family in IMPOSSIBLE:
        return row | {"outcome": "unmade", "says": IMPOSSIBLE[family]}
    try:
        row |= make(family, folder)
    except Exception as problem:  # noqa: BLE001  (architectures fail in many ways)
        return row | {"outcome": "unmade", "says": f"{type(problem).__name__}: {problem}".splitlines()[0][:200]}
    head = Head(LABELS, 0) if row["task"] == "classification" else None
    try:
        loaded = load_model(str(folder), head=head)
        blocks = partition(loaded.model, 1)
    except ModelError as problem:
        return row | {"outcome": "refused", "says": str(problem).replace(f"{folder}: ", "").replace(str(folder), "")}
    row |= {"blocks": [block.name for block in blocks], "outcome": "trained"}
    row["frozen"] = row["parameters"] - sum(block.elements for block in blocks)
    if head is None:
        row["records"] = way_of(loaded.model).value
    row |= train(loaded, row["task"])
    row["measured_bytes"] = measured(loaded, row["task"])
    return row | reloaded(loaded, folder, head) | plan_of(family, folder)


def planned(family: str, folder: Path) -> Row:
    """What the plan says of the memory that :func:`trial` measures, and whether its blocks are those of the run."""
    make(family, folder)
    return plan_of(family, folder)


def plan_of(family: str, folder: Path) -> Row:
    """The same for a folder that is there."""
    head = Head(LABELS, 0) if task_of(family) == "classification" else None
    model = meta_model(str(folder), MEASURED.sequence_length, head)
    shape, traced = model_shape(model, 1), trace(model, MEASURED, attention="auto", device="cpu")
    if traced:
        shape = traced.into(shape)
    machine = Machine(micro_batch=0, gradient_checkpointing=False, one_memory=True)
    case = Case.of(MEASURED, shape, ["alone"], machine)
    block = shape.blocks[0]
    return {
        "planned_bytes": activation_bytes(case, block),
        "traced": traced is not None,
        "planned_blocks": [block.name for block in shape.blocks],
    }


def make(family: str, folder: Path) -> Row:
    """Write a tiny model of the family, with a tokenizer."""
    config = tiny_config(family)
    if task_of(family) == "classification":
        config.id2label = dict(enumerate(LABELS))
        auto: Any = AutoModelForSequenceClassification
    else:
        auto = AutoModelForMultimodalLM if family in SEEING else AutoModelForCausalLM
    if family in COMPOSED:
        config.save_pretrained(folder)
        return {"class": "", "parameters": 0}
    with torch.device("meta"):
        elements = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    if elements > 1 << 23:
        raise ValueError(f"the smallest model has {elements:,} parameters")
    model: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        # Sizes that do not go together are no fault of deca-node's.
        if not config.is_encoder_decoder:
            model(input_ids=torch.full((1, 32), 5), **({"use_cache": False} if task_of(family) == "language" else {}))
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{k}": k for k in range(VOCABULARY - 8)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w3", eos_token="w2", pad_token="w0").save_pretrained(
        folder
    )
    return {"class": type(model).__name__, "parameters": sum(parameter.numel() for parameter in model.parameters())}


def batch_of(task: str, settings: RunSettings) -> AnyBatch:
    """A batch of random tokens: of language two records in a row."""
    rng, shape = random.Random(7), (settings.batch_size, settings.sequence_length)
    ids = torch.tensor([[rng.randrange(4, VOCABULARY - 8) for _ in range(shape[1])] for _ in range(shape[0])])
    if task == "classification":
        labels = torch.arange(shape[0]) % 2
        return LabelledBatch(ids, torch.ones_like(ids), torch.zeros_like(ids), labels)
    positions = torch.arange(shape[1]).remainder(shape[1] // 2).expand(shape)
    return Batch(ids, ids.clone(), positions)


def train(loaded: LoadedModel, task: str) -> Row:
    """Train every block for a few steps."""
    model, batch = loaded.model, batch_of(task, TRAINED)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = []
    for block in partition(model, 1):
        engine = BlockEngine.of(model, block, TRAINED, nothing)
        for _ in range(STEPS):
            losses.append(engine.half_step(1e-3, lambda: backward(model, batch, 0, CPU))["loss"])
            engine.mix_sound([], True)
        engine.freeze()
    inside = {name for block in partition(model, 1) for name in block.parameters}
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    row = {
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "finite": all(map(torch.isfinite, map(torch.tensor, losses))),
    }
    return row | {"unmoved": sorted(inside - moved)[:5], "strayed": sorted(moved - inside)[:5]}


def measured(loaded: LoadedModel, task: str) -> int:
    """Bytes that a forward and a backward pass take at their peak, beside the model and the block's own vectors."""
    model, batch = loaded.model, batch_of(task, MEASURED)
    if isinstance(batch, Batch) and way_of(model) is Way.ROWS:
        batch = Batch(batch.input_ids, batch.labels)  # two short rows may take more than a long one
    engine = BlockEngine.of(model, partition(model, 1)[0], MEASURED, nothing)
    run: Callable[[], float] = lambda: backward(model, batch, 0, CPU)  # noqa: E731
    engine.half_step(1e-5, run)  # what is made once is there
    engine.mix_sound([], True)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    engine.flat.collect(run)
    peak = _resident("VmHWM")
    engine.freeze()
    return peak - before


def reloaded(loaded: LoadedModel, folder: Path, head: Head | None) -> Row:
    """Whether the saved model is the trained one, and holds every tensor that the start model's files hold."""
    out = save_model(loaded.model, loaded.tokenizer, folder.with_name("out"), beside=loaded.beside)
    again = load_model(str(out), head=head)
    lost = sorted(read_headers(folder).keys() - read_headers(out).keys())
    return {"equal": parameter_hash(again.model) == parameter_hash(loaded.model), "lost": lost[:5]}


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024
