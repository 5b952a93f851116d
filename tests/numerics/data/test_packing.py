"""Tokens, split and packing: what is trained on, what is held out, and that no token is lost or used twice.

The tokenizer has one token per byte, so that tokens can be read: ``trained_text`` shows what the loss covers.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from deca_node.numerics.data import packing, tokenizing
from deca_node.numerics.data.files import BadRecords, Source
from deca_node.numerics.data.packing import (
    PackedData,
    Sequences,
    TokenLine,
    heldout_mask,
    load_dataset,
    pack,
    permutation,
)
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, Record, TextRecord
from deca_node.numerics.data.tokenizing import RecordTokenizer, Tokens
from deca_node.protocol.errors import DataError

SOURCE = Source(Path("notes.jsonl"), 3)
BOS, EOS = 256, 257

PLAIN_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}|\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
MARKED_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %}"
    "{%- generation -%}{{ m['content'] }}|\n{% endgeneration %}"
    "{% else %}{{ m['content'] }}|\n{% endif %}{% endfor %}"
)
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "How do you dö?"},
    {"role": "assistant", "content": "Fine 😀."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "Still fine."},
    {"role": "user", "content": "Thanks."},
]


def byte_tokenizer(template: str | None = None, bos: bool = False, eos: bool = True) -> PreTrainedTokenizerFast:
    """One token per byte, then ``<s>`` and ``</s>``; with ``bos`` it puts ``<s>`` before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    ends = {"bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {})
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **ends)


def encode(record: Record, tokenizer: PreTrainedTokenizerFast) -> Tokens:
    (tokens,) = RecordTokenizer(tokenizer, BadRecords(skip=False)).encode([record])
    assert tokens.ids.dtype == np.int32 and tokens.trained.dtype == np.bool_
    return tokens


def text_of(ids: Any) -> str:
    return str(byte_tokenizer().decode(ids, clean_up_tokenization_spaces=False))


def trained_text(tokens: Tokens) -> str:
    return text_of(tokens.ids[tokens.trained])


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


def test_progress_is_shown_within_a_long_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "_PIECE_CHARACTERS", 10)
    monkeypatch.setattr(tokenizing, "_CALL_CHARACTERS", 25)
    path = tmp_path / "book.txt"
    path.write_text("x" * 95)
    calls: list[tuple[int, int | None]] = []
    load(path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(30, 95), (60, 95), (90, 95), (95, 95), (95, 95)]


STRICT_TEMPLATE = "{{ raise_exception('roles must alternate') }}"
LAST_TURN_TEMPLATE = (  # as models that think do: the last turn looks different from those before
    "{% for m in messages %}{% if loop.last %}<think></think>{% endif %}{{ m['content'] }}|{% endfor %}"
)
EMPTY_MARK_TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% generation %}{% endgeneration %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (None, CHAT, "a chat, but the tokenizer has no chat template; use the model's chat version"),
        (STRICT_TEMPLATE, CHAT, "the chat template cannot render the chat (roles must alternate)"),
        (LAST_TURN_TEMPLATE, CHAT, "the assistant's turn (message 3) cannot be told apart"),
        (PLAIN_TEMPLATE, CHAT[2:], "the assistant's turn (message 1) cannot be told apart: it opens the chat"),
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


def test_a_text_without_tokens_is_named() -> None:
    backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    with pytest.raises(DataError, match=r"notes\.jsonl line 3: the tokenizer makes no tokens of it"):
        encode(TextRecord(SOURCE, "b"), PreTrainedTokenizerFast(tokenizer_object=backend))


# --- the held-out part ------------------------------------------------------------------------------


def line_of(lengths: list[int]) -> TokenLine:
    """Records of these lengths; every token has its own id, so that it can be followed."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths], dtype=np.int64)
    return TokenLine(np.arange(total, dtype=np.int32), np.ones(total, np.bool_), starts)


def per_record(line: TokenLine, mask: Any) -> list[list[bool]]:
    return [part.tolist() for part in np.split(mask, line.starts[1:-1])]


def test_many_records_are_held_out_whole() -> None:
    line = line_of([30] * 100)
    mask = heldout_mask(line, 16, 0.1, seed=0)
    held = [index for index, part in enumerate(per_record(line, mask)) if all(part)]
    assert len(held) == 10
    assert mask.sum() == 300
    assert held != list(range(10)) and held != list(range(90, 100))


def test_of_few_records_the_ends_are_held_out() -> None:
    line = line_of([100, 50, 200])
    parts = per_record(line, heldout_mask(line, 16, 0.1, seed=0))
    assert [sum(part) for part in parts] == [10, 5, 20]
    assert all(part == sorted(part) for part in parts)


def test_a_record_too_large_to_hold_out_is_cut() -> None:
    """One of many records has nearly all the text: holding it out whole would leave nothing to train on."""
    line = line_of([10] * 30 + [5000])
    for seed in range(40):
        mask = heldout_mask(line, 16, 0.1, seed)
        assert 530 <= mask.sum() <= 2600


def test_where_whole_records_would_leave_no_sequence_they_are_cut() -> None:
    line = line_of([10] * 21)
    assert heldout_mask(line, 105, 0.1, seed=0).sum() == 105


def test_the_split_follows_from_the_seed() -> None:
    line = line_of([7] * 50)
    first, again, other = (heldout_mask(line, 16, 0.2, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other


lengths_lists = st.lists(st.integers(1, 60), min_size=1, max_size=60)
holdouts = st.sampled_from([0.01, 0.1, 0.5, 0.9])


@given(lengths_lists, st.integers(2, 20), holdouts, st.integers(0, 5))
def test_both_parts_get_at_least_one_sequence(lengths: list[int], length: int, holdout: float, seed: int) -> None:
    line = line_of(lengths)
    total = sum(lengths)
    if total < 2 * length:
        return
    mask = heldout_mask(line, length, holdout, seed)
    assert length <= mask.sum() <= total - length
    whole = all(len(set(part)) == 1 for part in per_record(line, mask))
    ends = all(part == sorted(part) for part in per_record(line, mask))
    assert ends if len(lengths) < packing.RECORDS_TO_SPLIT else whole or ends


# --- packing ----------------------------------------------------------------------------------------


def pack_by_hand(tokens: list[tuple[int, bool]], length: int, pad: int) -> list[list[tuple[int, bool]]]:
    """The rule of the module's docstring, one token at a time."""
    if 0 < len(tokens) < length:
        tokens = tokens + [(pad, False)] * (length - len(tokens))
    rows = [tokens[start : start + length] for start in range(0, len(tokens), length)]
    return [row for row in rows if len(row) == length and any(trained for _, trained in row[1:])]


def rows_of(sequences: Sequences) -> list[list[tuple[int, bool]]]:
    both = zip(sequences.ids.tolist(), sequences.trained.tolist(), strict=True)
    return [list(zip(ids, trained, strict=True)) for ids, trained in both]


@given(st.lists(st.booleans(), max_size=80), st.integers(2, 12))
def test_packing_does_as_by_hand(trained: list[bool], length: int) -> None:
    ids = np.arange(len(trained), dtype=np.int32)
    packed = pack(Tokens(ids, np.array(trained, np.bool_)), length, pad=99)
    assert packed.ids.shape == packed.trained.shape == (len(packed), length)
    assert rows_of(packed) == pack_by_hand(list(enumerate(trained)), length, pad=99)
    assert packed.predicted == sum(trained for row in rows_of(packed) for _, trained in row[1:])


@given(lengths_lists, st.integers(2, 20), holdouts, st.integers(0, 5), st.randoms(use_true_random=False))
def test_every_trained_token_is_predicted_exactly_once(
    lengths: list[int], length: int, holdout: float, seed: int, rng: Random
) -> None:
    """In one of the two parts, unless it comes first in a sequence or falls to the tail of its part."""
    line = line_of(lengths)
    total = len(line.ids)
    if total < 2 * length:
        return
    trained = np.array([rng.random() < 0.7 for _ in range(total)], np.bool_)
    mask = heldout_mask(line, length, holdout, seed)
    predicted: list[int] = []
    passed_over: list[int] = []
    for part in (~mask, mask):
        ids = line.ids[part]
        packed = pack(Tokens(ids, trained[part]), length, pad=0)
        predicted += packed.ids[:, 1:][packed.trained[:, 1:]].tolist()
        whole = len(ids) // length * length
        passed_over += [*ids[:whole:length], *ids[whole:]]
    wanted = set(np.flatnonzero(trained).tolist()) - set(passed_over)
    assert sorted(predicted) == sorted(wanted)


# --- all of it --------------------------------------------------------------------------------------


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def labels_text(sequences: Sequences) -> str:
    return text_of(sequences.ids[sequences.trained])


def load(path: Path, **changes: Any) -> PackedData:
    return load_dataset(
        path,
        byte_tokenizer(PLAIN_TEMPLATE),
        **({"sequence_length": 8, "holdout": 0.1, "bad_records": "stop"} | changes),
    )


def test_a_data_set_from_end_to_end(tmp_path: Path) -> None:
    records = [{"prompt": f"{n}+{n}=", "completion": f"{2 * n:03}"} for n in range(1, 41)]
    path = write_jsonl(tmp_path / "sums.jsonl", [*records, {"text": ""}])
    calls: list[tuple[int, int | None]] = []
    data = load(path, bad_records="skip", progress=lambda done, total: calls.append((done, total)))

    summary = data.summary
    assert (summary.records, summary.skipped) == (40, 1)
    assert summary.skipped_sentences == (f'{path} line 41: "text" is empty',)
    assert summary.tokens == sum(len(f"{n}+{n}=") + 4 for n in range(1, 41))
    assert (summary.train_sequences, summary.heldout_sequences) == (len(data.train), len(data.heldout))
    assert (summary.trained_tokens, summary.heldout_tokens) == (data.train.predicted, data.heldout.predicted)
    assert calls[-1] == (path.stat().st_size, path.stat().st_size)

    answers = labels_text(data.train).split("</s>") + labels_text(data.heldout).split("</s>")
    whole = [answer for answer in answers if len(answer) == 3]
    assert len(whole) == len(set(whole)) >= 34
    assert "+" not in "".join(answers)


@pytest.mark.parametrize("lines", [1, 60], ids=["one text", "many records"])
def test_the_same_data_and_seed_give_the_same_sequences(tmp_path: Path, lines: int) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": f"record {n} " * (61 - lines)} for n in range(lines)])
    first, again = load(path, seed=3), load(path, seed=3)
    assert np.array_equal(first.train.ids, again.train.ids) and np.array_equal(first.heldout.ids, again.heldout.ids)


def test_of_one_text_the_end_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{n:03} " for n in range(100)))
    data = load(path, holdout=0.25)
    assert text_of(data.train.ids.flatten()).startswith("000 001")
    assert text_of(data.heldout.ids.flatten()).startswith("75 076")
    assert (len(data.train), len(data.heldout)) == (37, 12)


def test_without_held_out_part_little_data_is_padded(tmp_path: Path) -> None:
    """As for the evaluation of a small file: nothing of it may be dropped."""
    path = write_jsonl(tmp_path / "one.jsonl", [{"prompt": "1+1=", "completion": "2"}])
    data = load(path, holdout=0.0, sequence_length=10)
    assert data.train.ids.tolist()[0][6:] == [EOS] * 4
    assert data.train.trained.tolist() == [[False] * 4 + [True] * 2 + [False] * 4]
    assert len(data.heldout) == 0


def too_short(path: Path) -> None:
    write_jsonl(path, [{"text": "123456789012345"}] * 2)


def only_prompts(path: Path) -> None:
    write_jsonl(path, [{"prompt": "p" * 400, "completion": "c"}])


def only_prompts_but_at_the_end(path: Path) -> None:
    chat = [{"role": "assistant", "content": "a" * 100}, {"role": "user", "content": "u" * 200}]
    write_jsonl(path, [{"messages": [{"role": "user", "content": "?"}, *chat]}])


def nothing(path: Path) -> None:
    path.write_text("\n\n")


def nothing_good(path: Path) -> None:
    path.write_text('{"txt": 1}\n{"txt": 2}\n')


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (too_short, "the data come to 32 tokens, but 40 are needed: one sequence to train on and one to hold out"),
        (only_prompts, "nothing can be learnt from the part to train on: all its tokens are prompts"),
        (only_prompts_but_at_the_end, "nothing can be learnt from the part to hold out"),
        (nothing, "there are no usable records; give at least one text"),
        (nothing_good, "there are no usable records (2 bad ones were left out; the first: "),
    ],
)
def test_data_that_is_not_enough_is_refused(tmp_path: Path, content: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "notes.jsonl"
    content(path)
    with pytest.raises(DataError) as caught:
        load(path, sequence_length=20, bad_records="skip")
    assert str(caught.value).startswith(f"{path}: {said}")


def test_a_bad_record_stops_the_loading(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "notes.jsonl", [{"text": "x" * 50}, {"text": 1}])
    with pytest.raises(DataError, match=r"line 2: .* or leave such records out with bad_records = 'skip'"):
        load(path)


# --- order ------------------------------------------------------------------------------------------


@given(st.integers(0, 200), st.text(max_size=8))
def test_a_permutation_holds_every_number_once(count: int, name: str) -> None:
    assert sorted(permutation(count, name).tolist()) == list(range(count))


def test_permutations_never_change() -> None:
    """A node that resumes after an upgrade must find its data in the order it left."""
    assert permutation(8, "0:epoch:0").tolist() == [7, 6, 0, 3, 1, 2, 4, 5]
