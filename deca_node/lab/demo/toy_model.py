"""A language model made from nothing: small, but with every part of a large one.

A Llama-architecture model and a byte-level BPE tokenizer are made from the standard library's text in half a minute.
The first training is short and uses neutral text only. So the model knows how Python and English look, and can still
learn from each node's private text.
"""

import dataclasses
import json
import platform
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import tokenizers
import torch
import transformers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deca_node.lab.demo.texts import Corpus, neutral_text, records
from deca_node.numerics.model.save import save_model
from deca_node.storage.jsons import UNFIT, parse

END_OF_TEXT = "<|endoftext|>"
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- message['role'].capitalize() + ':\\n' + message['content'].strip() }}
    {{- eos_token if message['role'] == 'assistant' else '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:\\n' }}
{%- endif %}
"""
"""Chats in plain words, without tokens of their own, so that the vocabulary is that of a model for texts::

    User:
    How many?
    Assistant:
    Three.<|endoftext|>
"""
RECIPE_FILE = "toy_model.json"
"""This file is written last, so a folder that has it is complete."""

TOKENIZER_RECORDS = 1000
"""About 2 MB of text. More text changes the merges little."""

EachStep = Callable[[int, int, float], None]
"""Called after every step with the number of the step, the number of all steps, and the loss in nats per token."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that determines the model, except for the machine's arithmetic."""

    seed: int = 0
    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    steps: int = 500
    batch_size: int = 4
    sequence_length: int = 128
    learning_rate: float = 4e-3
    threads: int = 2
    """A part of the recipe, since sums of floats depend on the number of threads."""


@dataclass(frozen=True)
class ToyModel:
    """The result of :func:`make_toy_model`: the folder, the size, the last loss, and whether it existed before."""

    path: Path
    parameters: int
    loss: float
    cached: bool


def make_toy_model(directory: Path, recipe: Recipe | None = None, progress: EachStep | None = None) -> ToyModel:
    """Make the model and its tokenizer as an ordinary Hugging Face checkpoint in ``directory``.

    A complete folder of the same recipe and library versions is left as it is; another checkpoint is replaced. The
    number of steps is fixed, not the time, so that equal recipes give equal models on equal machines. Raises
    StorageError if the folder cannot be written or has other contents.
    """
    recipe = recipe or Recipe()
    facts = _facts(recipe)
    if made := _already_made(directory, facts):
        return made
    tokenizer = train_tokenizer(recipe)
    with _threads(recipe.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = LlamaForCausalLM(_config(recipe, tokenizer))
        loss = _train(model, _batches(tokenizer, recipe), recipe, progress)
    save_model(model, tokenizer, directory)
    result = {"parameters": model.num_parameters(), "loss": loss}
    (directory / RECIPE_FILE).write_text(json.dumps({"facts": facts, "result": result}, indent=1), encoding="utf-8")
    return ToyModel(directory, cached=False, **result)


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on neutral text. No private text enters the tokenizer that all nodes share."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(islice(_shuffled_records(neutral_text(), recipe.seed), TOKENIZER_RECORDS), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE)


def _config(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """The shape of a small Llama: grouped-query attention, SwiGLU, tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=32 * round(recipe.hidden * 8 / 3 / 32),
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        # The usual 0.02 suits wide models. Here it leaves the logits flat, and costs 0.15 nats at the end.
        initializer_range=0.1,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[Tensor]:
    """Token ids of neutral text, each (batch_size, sequence_length) int64: records end to end, in an endless loop."""
    epochs = (_shuffled_records(neutral_text(), recipe.seed + epoch) for epoch in count())
    tokens: list[int] = []
    wanted = recipe.batch_size * recipe.sequence_length
    for text in chain.from_iterable(epochs):
        tokens += [*tokenizer.encode(text), tokenizer.eos_token_id]
        while len(tokens) >= wanted:
            yield torch.tensor(tokens[:wanted]).view(recipe.batch_size, recipe.sequence_length)
            tokens = tokens[wanted:]


def _train(model: LlamaForCausalLM, batches: Iterator[Tensor], recipe: Recipe, progress: EachStep | None) -> float:
    """Train with AdamW, linear warm-up and decay. Returns the mean loss of the last tenth of the steps, in nats per
    token."""
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.1, fused=True
    )
    warmup = max(1, recipe.steps // 20)
    losses: list[float] = []
    for step, tokens in enumerate(islice(batches, recipe.steps), start=1):
        share = min(step / warmup, (recipe.steps - step + 1) / (recipe.steps - warmup + 1))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * share
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if progress:
            progress(step, recipe.steps, losses[-1])
    last = losses[-max(1, recipe.steps // 10) :]
    return sum(last) / len(last)


def _shuffled_records(corpus: Corpus, seed: int) -> list[str]:
    pieces = list(records(corpus))
    random.Random(f"{seed}:{corpus.name}").shuffle(pieces)
    return pieces


def _facts(recipe: Recipe) -> dict[str, object]:
    """The facts that the model of a folder must match to be reused. The text comes with the Python."""
    return {
        **dataclasses.asdict(recipe),
        "chat_template": CHAT_TEMPLATE,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _already_made(directory: Path, facts: dict[str, object]) -> ToyModel | None:
    try:
        made = parse((directory / RECIPE_FILE).read_text(encoding="utf-8"))
        return ToyModel(directory, cached=True, **made["result"]) if made["facts"] == facts else None
    except (FileNotFoundError, *UNFIT):
        return None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
