"""The start model of every cell: a pretrained encoder with a head that already answers.

In the paper no layer is fresh, since a language model is asked for the label. An encoder needs a head. It is fitted
here by regularized regression on the start model's own features of texts that no node holds, so that every block has a
use for its gradients from the first step, at any step size.

The table of tokens is cut to those that occur in the task. The other rows would get no gradient and never change, so
nothing else is different, and a node's state is smaller by three quarters. Of a language model the cut table is also
that of the answers: other tokens than those of the task have no probability.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bench.pretrained import prompted
from bench.pretrained.tasks import SPLITS, Records, Task
from deca_node.numerics.data.batches import LabelledBatch, ordered_batches
from deca_node.numerics.data.labelled import Examples
from deca_node.numerics.learning.loss import class_logits, judging
from deca_node.numerics.model.classifier import Head
from deca_node.numerics.model.load import load_model

RECIPE = "head 1"
"""To be changed when the same model and task would give another start."""

PROMPT_RECIPE = "prompt 1"
"""The same for a model that is asked."""

RIDGE = 1e-2
"""Weight of the squared head in its own loss."""

HEAD_STEPS = 60
JUDGED_AT_ONCE = 32


class Start(NamedTuple):
    """The model, the task in its tokens, and a hash of the weights' file and of the recipe."""

    model: PreTrainedModel
    task: Task
    sha256: str


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder."""
    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return found


def start_model(folder: Path, task: Task) -> Start:
    """Load the model of a Hugging Face folder as a classifier of the task's labels."""
    model = load_model(str(folder), dtype="float32", head=Head(task.labels, seed=0)).model
    task = cut_vocabulary(model, task)
    fit_head(model, task.head)
    return Start(model.requires_grad_(False), task, hash_of(RECIPE, folder))


def prompted_start(folder: Path, task: Task, answers: Sequence[int]) -> Start:
    """Load a language model that is asked for the label; ``answers`` are the labels' tokens."""
    model = prompted.load(folder)
    task = cut_vocabulary(model, task, answers)
    return Start(model.requires_grad_(False), task, hash_of(PROMPT_RECIPE, folder))


def hash_of(recipe: str, folder: Path) -> str:
    """16 hexadecimal digits that stand for the weights' files and the recipe."""
    sha = hashlib.sha256(recipe.encode())
    for file in sorted(folder.glob("*.safetensors")):
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()[:16]


def cut_vocabulary(model: PreTrainedModel, task: Task, first: Sequence[int] = ()) -> Task:
    """Leave only those rows of the table of tokens that the task has, in place, with ``first`` in front; returns the
    task in the new numbers."""
    found = np.unique(np.concatenate([[task.train.examples.pad], *(task.splits[s].examples.ids for s in SPLITS)]))
    kept = np.array([*first, *np.setdiff1d(found, first)], np.int64)
    table = model.get_input_embeddings()
    number = np.full(len(table.weight), -1, np.int32)
    number[kept] = np.arange(len(kept))
    pad = int(number[task.train.examples.pad])
    small = nn.Embedding(len(kept), table.weight.shape[1], padding_idx=pad if table.padding_idx is not None else None)
    with torch.no_grad():
        small.weight.copy_(table.weight[torch.from_numpy(kept)])
    model.set_input_embeddings(small)
    if (head := model.get_output_embeddings()) is not None:
        assert head.weight is table.weight, "the table is that of the answers as well"
        head.weight, head.out_features = small.weight, len(kept)
    model.config.vocab_size, model.config.pad_token_id = len(kept), pad

    def renumbered(records: Records) -> Records:
        e = records.examples
        return Records(Examples(number[e.ids], e.types, e.starts, e.labels, pad), records.strata)

    splits = {name: renumbered(records) for name, records in task.splits.items()}
    return replace(task, splits=splits)


def fit_head(model: PreTrainedModel, records: Records) -> None:
    """Fit the last linear layer on the features that the model has now."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    order = by_length(records.examples)
    logits_of(model, records.examples)
    hook.remove()
    features = torch.cat(seen).double()
    labels = torch.from_numpy(records.examples.labels[order])
    weight = torch.zeros(len(last.weight), features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(last.weight), dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = nn.functional.cross_entropy(features @ weight.T + bias, labels) + RIDGE * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    with torch.no_grad():
        last.weight.copy_(weight)
        last.bias.copy_(bias)


def by_length(examples: Examples) -> NDArray[np.int64]:
    """The numbers of all records, short ones first, so that little of a batch is padding."""
    return np.argsort(np.diff(examples.starts), kind="stable")


@torch.no_grad()
def logits_of(model: PreTrainedModel, examples: Examples) -> Tensor:
    """The classifier's logits for all records, float32 [records, labels], without dropout."""
    found = []
    order = by_length(examples)
    with judging(model):
        for batch in ordered_batches(examples.take(order), JUDGED_AT_ONCE):
            assert isinstance(batch, LabelledBatch)
            found.append(class_logits(model, batch, torch.device("cpu")))
    logits = torch.cat(found)
    back = torch.empty_like(logits)
    back[torch.from_numpy(order)] = logits
    return back
