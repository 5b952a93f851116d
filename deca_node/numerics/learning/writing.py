"""Text that a language model writes: the continuation of a prompt, or its answer in a chat.

A prompt is given to the model as training gives it a text: with the tokens that begin a text, and without the one that
ends it. A chat goes through the tokenizer's own template.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, TextStreamer

from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.model.quiet import quiet
from deca_node.protocol.errors import DataError, ModelError

Heard = Callable[[str], object]
"""Takes a piece of text as soon as it is written."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How each token is chosen. ``temperature`` 0 takes the likeliest; above 0 it is drawn from ``seed``, among the
    likeliest tokens whose shares add up to ``top_p``."""

    tokens: int
    temperature: float
    top_p: float
    seed: int


def complete(loaded: LoadedModel, prompt: str, choice: Choice, heard: Heard | None = None) -> str:
    """The text that follows ``prompt``. Raises DataError if the prompt does not fit the model, ModelError for a
    classifier."""
    ids = loaded.tokenizer(prompt, verbose=False)["input_ids"]
    end = loaded.tokenizer.eos_token_id
    if len(ids) > 1 and ids[-1] == end:
        ids = ids[:-1]
    if not ids:
        ids = [_first_token(loaded)]
    return _write(loaded, ids, choice, heard)


def answer(loaded: LoadedModel, messages: Sequence[Mapping[str, str]], choice: Choice, heard: Heard | None) -> str:
    """The model's answer to a chat of ``{"role": ..., "content": ...}``. Raises ModelError where the tokenizer has no
    chat template, and as :func:`complete` does."""
    tokenizer = loaded.tokenizer
    if not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer in {loaded.folder} has no chat template; give one with --chat-template, or use "
            "deca-node generate"
        )
    try:
        ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)["input_ids"]
    except Exception as error:  # templates raise errors of their own, such as for a role that they do not know
        raise DataError(f"the chat template refuses this chat: {error}") from error
    return _write(loaded, list(ids), choice, heard)


def _write(loaded: LoadedModel, ids: Sequence[int], choice: Choice, heard: Heard | None) -> str:
    if loaded.labels:
        raise ModelError(f"the model in {loaded.folder} sorts texts into labels and writes none; use deca-node eval")
    limit, model = loaded.positions_max, loaded.model
    if limit is not None and len(ids) >= limit:
        raise DataError(f"the prompt has {len(ids)} tokens, and the model takes fewer than {limit}; shorten it")
    room = choice.tokens if limit is None else min(choice.tokens, limit - len(ids))
    prompt = torch.tensor([ids], device=next(model.parameters()).device)
    model.eval()
    with quiet(), torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(choice.seed)
        written: Tensor = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            generation_config=_config(loaded, choice, room),
            streamer=_Streamer(loaded.tokenizer, heard) if heard else None,
        )
    return str(loaded.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True))


def _config(loaded: LoadedModel, choice: Choice, room: int) -> GenerationConfig:
    """How to generate, whatever the checkpoint's own generation_config.json says, but for its ends of a text."""
    drawn: dict[str, Any] = {"temperature": choice.temperature, "top_p": choice.top_p, "top_k": 0}
    ends = _ends(loaded)
    return GenerationConfig(
        max_new_tokens=room,
        do_sample=choice.temperature > 0,
        eos_token_id=ends,
        pad_token_id=ends[0] if ends else 0,
        bos_token_id=loaded.tokenizer.bos_token_id,
        **(drawn if choice.temperature > 0 else {}),
    )


def _ends(loaded: LoadedModel) -> list[int]:
    own = getattr(loaded.model.generation_config, "eos_token_id", None)
    found = own if isinstance(own, list) else [own]
    return list(dict.fromkeys(each for each in [*found, loaded.tokenizer.eos_token_id] if each is not None))


def _first_token(loaded: LoadedModel) -> int:
    """What an empty prompt stands for: the token that begins a text, or that ends the one before."""
    tokenizer = loaded.tokenizer
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise DataError("the prompt is empty, and this model has no token that begins a text; give a prompt")


class _Streamer(TextStreamer):
    """Hands the text on as it is written, in pieces that end between words."""

    def __init__(self, tokenizer: Any, heard: Heard) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._heard = heard

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """A piece of text, and whether it is the last."""
        self._heard(text)
