"""Tokens as texts: together they are the text, whatever a tokenizer does with spaces and bytes."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deca_node.numerics.forecast.spelling import spelled
from tests.numerics.data.byte_tokens import BOS, byte_tokenizer


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """As those of Llama 2: a space belongs to the word behind it, and the one at the beginning is not shown."""
    words = ["<unk>", "▁a", "a", "▁fine", "▁day", "s", "."]
    raw = Tokenizer(models.BPE(vocab={w: k for k, w in enumerate([*words, *"▁finedy"])}, merges=[], fuse_unk=False))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    raw.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


def test_a_character_of_several_tokens_stands_at_the_last() -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer("aü😀b", add_special_tokens=False)["input_ids"]
    assert spelled(tokenizer, ids) == ["a", "", "ü", "", "", "", "😀", "b"]
    assert spelled(tokenizer, [BOS, *ids[:1]]) == ["<s>", "a"]


def test_a_broken_character_is_shown_as_one() -> None:
    tokenizer = byte_tokenizer()
    first = tokenizer("😀", add_special_tokens=False)["input_ids"][:2]
    found = spelled(tokenizer, first)
    assert len(found) == 2 and set("".join(found)) == {"\ufffd"}
    assert spelled(tokenizer, []) == []


@pytest.mark.parametrize("ids", [[3, 4, 5, 6], [1, 3, 4]])
def test_spaces_are_kept(ids: list[int]) -> None:
    words = {1: " a", 3: " fine", 4: " day", 5: "s", 6: "."}
    assert spelled(spaced_tokenizer(), ids) == [words[k] for k in ids]
