"""The start model of every cell: a small Llama trained on the modules at the top of the standard library.

No text of the tasks is among them, so that the cells fine-tune. The recipe is seeded and its model is cached. It uses
one thread, since sums of floats depend on the number of threads.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bench.harness import ROOT
from deca_node.lab.demo.toy_model import Recipe, make_toy_model
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.facts import parameter_hash
from deca_node.numerics.model.load import load_model

FOLDER = ROOT / "build" / "convergence" / "start"

RECIPE = Recipe(
    vocabulary=512,
    hidden=64,
    layers=3,
    heads=4,
    key_value_heads=2,
    steps=2500,
    batch_size=16,
    sequence_length=32,
    threads=1,
)


class Start(NamedTuple):
    """The model, frozen; its tokenizer; and the first digits of the hash of its parameters."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sha256: str


def start_model(folder: Path = FOLDER, recipe: Recipe = RECIPE, labels: Sequence[str] = ()) -> Start:
    """Make the model, or load it from the cache. The first time takes one to four minutes. With ``labels`` it is a
    classifier, with the head that a node would draw for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    make_toy_model(folder, recipe, _show)
    head = Head(tuple(labels), seed=0) if labels else None
    loaded = load_model(str(folder), dtype="float32", head=head)
    return Start(loaded.model.requires_grad_(False), loaded.tokenizer, parameter_hash(loaded.model)[:16])


def threads(count: int) -> None:
    """Set torch's threads for all that follows."""
    torch.set_num_threads(count)


def _show(done: int, steps: int, loss: float) -> None:
    if done % 250 == 0:
        print(f"making the start model: step {done} of {steps}, loss {loss:.3f}", flush=True)
