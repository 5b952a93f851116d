"""Tokens as texts that a person can read."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTES_MAX = 4
"""Bytes of the longest character in UTF-8: so many tokens may make one character."""
_BROKEN = "\ufffd"


def spelled(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[str]:
    """The text of each token. Where several tokens make one character, the last of them has it and the others are
    empty."""

    def decode(tokens: list[int]) -> str:
        text = tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text)

    # Some tokenizers (Llama 2's) drop a space at the beginning of a text, so that every token is read behind a letter.
    letter = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
    before = len(decode(letter)) if letter else 0
    texts: list[str] = []
    waiting: list[int] = []
    for token in ids:
        waiting.append(token)
        text = decode([*letter, *waiting])[before:]
        if text.endswith(_BROKEN) and len(waiting) < BYTES_MAX:
            continue
        texts += [""] * (len(waiting) - 1) + [text]
        waiting = []
    if waiting:
        texts += [""] * (len(waiting) - 1) + [decode([*letter, *waiting])[before:]]
    return texts
