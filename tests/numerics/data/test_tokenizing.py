"""Tokens of records, and which of them are learnt."""

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from deca_node.numerics.data import tokenizing
from deca_node.numerics.data.formats.sources import BadRecords
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, Record, TextRecord
from deca_node.numerics.data.tokenizing import RecordTokenizer
from deca_node.protocol.errors import DataError
from tests.numerics.data.byte_tokens import (
    CHAT,
    MARKED_TEMPLATE,
    PLAIN_TEMPLATE,
    SOURCE,
    byte_tokenizer,
    encode,
    text_of,
    trained_text,
)

# --- what is trained on -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bos", "eos", "text", "whole", "trained"),
    [
        (False, True, "a b", "a b</s>", "a b</s>"),
        (True, True, "a b", "<s>a b</s>", "a b</s>"),
        (True, True, "<s>a b</s>", "<s>a b</s>", "a b</s>"),
        (False, True, "<s>a b", "<s>a b</s>", "<s>a b</s>"),
        (False, False, "a b", "a b", "a b"),
    ],
)
def test_a_text_is_trained_on_up_to_its_end(bos: bool, eos: bool, text: str, whole: str, trained: str) -> None:
    """BOS and EOS stand exactly once, and BOS is never trained on where the tokenizer puts it."""
    tokens = encode(TextRecord(SOURCE, text), byte_tokenizer(bos=bos, eos=eos))
    assert (text_of(tokens.ids), trained_text(tokens)) == (whole, trained)


@pytest.mark.parametrize(
    ("prompt", "completion", "whole", "trained"),
    [
        ("2+2=", "4", "<s>2+2=4</s>", "4</s>"),
        ("", "4", "<s>4</s>", "4</s>"),
        ("<s>2+2=", "4</s>", "<s>2+2=4</s>", "4</s>"),
    ],
)
def test_of_a_completion_the_prompt_is_only_read(prompt: str, completion: str, whole: str, trained: str) -> None:
    tokens = encode(CompletionRecord(SOURCE, prompt, completion), byte_tokenizer(bos=True))
    assert (text_of(tokens.ids), trained_text(tokens)) == (whole, trained)


def test_prompt_and_completion_share_no_token() -> None:
    """With a merge across the boundary in the vocabulary, tokenizing both at once would join them."""
    vocabulary = {"a": 0, "b": 1, "ab": 2, "</s>": 3}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    tokens = encode(CompletionRecord(SOURCE, "a", "b"), tokenizer)
    assert tokens.ids.tolist() == [0, 1, 3]
    assert tokens.trained.tolist() == [False, True, True]


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, MARKED_TEMPLATE], ids=["prefixes", "generation mark"])
def test_of_a_chat_the_assistants_turns_are_trained_on(template: str) -> None:
    """With and without a generation mark in the template; the tokens are those of the template, no more."""
    tokenizer = byte_tokenizer(template, bos=True)
    tokens = encode(ChatRecord(SOURCE, tuple(CHAT)), tokenizer)
    assert tokens.ids.tolist() == tokenizer.apply_chat_template(CHAT)["input_ids"]
    assert trained_text(tokens) == "Fine 😀.|\nStill fine.|\n"


def test_records_of_all_kinds_keep_their_order() -> None:
    records: list[Record] = [
        TextRecord(SOURCE, "one"),
        ChatRecord(SOURCE, ({"role": "user", "content": "two"}, {"role": "assistant", "content": "three"})),
        CompletionRecord(SOURCE, "four", "five"),
        TextRecord(SOURCE, "six"),
    ]
    encoded = RecordTokenizer(byte_tokenizer(PLAIN_TEMPLATE), BadRecords(skip=False)).encode(records)
    assert [trained_text(tokens) for tokens in encoded] == ["one</s>", "three|\n", "five</s>", "six</s>"]


def test_a_long_text_is_tokenized_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after newlines, else before spaces, else anywhere; nothing is lost."""
    text = "one two\nthree four five six seven" + "x" * 30 + "\n\n end"
    whole = encode(TextRecord(SOURCE, text), byte_tokenizer())
    monkeypatch.setattr(tokenizing, "_PIECE_CHARACTERS", 10)
    monkeypatch.setattr(tokenizing, "_CALL_CHARACTERS", 25)
    pieces = list(tokenizing._pieces(text))
    assert "".join(pieces) == text
    assert pieces[:4] == ["one two\n", "three", " four", " five six"]
    assert max(map(len, pieces)) <= 10
    assert encode(TextRecord(SOURCE, text), byte_tokenizer()).ids.tolist() == whole.ids.tolist()


@pytest.mark.parametrize("cut", [False, True])
def test_the_library_below_is_called_as_the_tokenizer_would_call_it(cut: bool) -> None:
    """Special tokens are found and nothing is cut, although the file may ask for it."""
    tokenizer = byte_tokenizer(specials=["<tool>"])
    if cut:
        tokenizer.backend_tokenizer.enable_truncation(3)
        tokenizer.backend_tokenizer.enable_padding(length=50)
    texts = ["a long text<tool> with a token</s> in it", "x", "Fine 😀."]
    bodies = list(RecordTokenizer(tokenizer, BadRecords(skip=False))._of_texts(texts))
    assert [body.tolist() for body in bodies] == tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert tokenizing._backend(tokenizer) is not None


def test_a_tokenizer_with_a_way_of_its_own_keeps_it() -> None:
    class Own(PreTrainedTokenizerFast):  # type: ignore[misc]
        def _encode_plus(self, text: Any, **more: Any) -> Any:
            return {"input_ids": [[7] * len(one) for one in text] if isinstance(text, list) else [7] * len(text)}

    tokens = encode(TextRecord(SOURCE, "abc"), Own(tokenizer_object=byte_tokenizer().backend_tokenizer))
    assert tokens.ids.tolist() == [7, 7, 7]


STRICT_TEMPLATE = "{{ raise_exception('roles must alternate') }}"
LOUD_TEMPLATE = (  # the last turn looks different from those before, and contents are not what they were
    "{% for m in messages %}{% if loop.last %}<think></think>{% endif %}{{ m['content'] | upper }}|{% endfor %}"
)
EMPTY_MARK_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% generation %}{% endgeneration %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (None, CHAT, "a chat, but the tokenizer has no chat template; name one with chat_template"),
        (STRICT_TEMPLATE, CHAT, "the chat template cannot render the chat (roles must alternate)"),
        (LOUD_TEMPLATE, CHAT, "the assistant's turn (message 3) cannot be told apart in the rendering"),
        (EMPTY_MARK_TEMPLATE, CHAT, "the chat template leaves no token in the assistant's turns"),
    ],
)
def test_chats_that_cannot_be_used_are_named(template: str | None, messages: list[dict[str, str]], said: str) -> None:
    record = ChatRecord(SOURCE, tuple(messages))
    with pytest.raises(DataError) as caught:
        encode(record, byte_tokenizer(template))
    assert str(caught.value).startswith(f"notes.jsonl line 3: {said}")
    bad = BadRecords(skip=True)
    assert len(RecordTokenizer(byte_tokenizer(template), bad).encode([record, TextRecord(SOURCE, "x")])) == 1
    assert bad.count == 1


def test_a_tokenizer_that_puts_a_space_in_front_of_every_text() -> None:
    """As Llama 2's does. The completion goes on from the prompt, and so do the pieces of a long text."""
    tokenizer = spaced_tokenizer()
    for prompt, completion in (("def f(", "x):"), ("Answer: ", "yes"), ("Answer:", " yes"), ("", "yes"), ("a", "\nb")):
        tokens = encode(CompletionRecord(SOURCE, prompt, completion), tokenizer)
        assert tokenizer.decode(tokens.ids[:-1]) == prompt + completion
        alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert tokens.ids[~tokens.trained].tolist() == alone, "the prompt's tokens are those of the prompt alone"


def test_pieces_of_a_long_text_get_no_space_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "one two\nthree four five six seven" + "x" * 30 + "\n\n end"
    whole = encode(TextRecord(SOURCE, text), spaced_tokenizer())
    monkeypatch.setattr(tokenizing, "_PIECE_CHARACTERS", 10)
    pieces = encode(TextRecord(SOURCE, text), spaced_tokenizer())
    assert spaced_tokenizer().decode(pieces.ids) == spaced_tokenizer().decode(whole.ids) == text + "</s>"


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character, with a space in front of every text; merges join a space with what follows it."""
    letters = [*dict.fromkeys("▁defansweryofilhtuxbcgvA:()\n0123456789")]
    vocabulary = {"<unk>": 0, "</s>": 1} | {letter: k for k, letter in enumerate(letters, start=2)}
    merges = [("▁", letter) for letter in letters[1:]]
    vocabulary |= {"▁" + letter: len(vocabulary) + k for k, letter in enumerate(letters[1:])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def test_a_text_without_tokens_is_named() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    with pytest.raises(DataError, match=r"notes\.jsonl line 3: the tokenizer makes no tokens of it"):
        encode(TextRecord(SOURCE, "b"), PreTrainedTokenizerFast(tokenizer_object=backend))
