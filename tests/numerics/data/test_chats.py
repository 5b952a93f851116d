"""What is learnt of a chat, in the rendering of templates as model families have them."""

import json
from typing import Any

import pytest

from deca_node.numerics.data.chats import Chat, encode
from deca_node.numerics.data.formats.sources import BadRecords
from deca_node.numerics.data.records import ChatRecord, parse_record
from deca_node.numerics.data.sequences import RecordTokens
from deca_node.numerics.data.tokenizing import RecordTokenizer
from deca_node.protocol.errors import DataError
from tests.numerics.data import chat_templates as templates
from tests.numerics.data.byte_tokens import SOURCE, byte_tokenizer

SPECIALS = (
    *("<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|start|>", "<|message|>"),
    *("<|channel|>", "<|return|>", "<|call|>", "<|User|>", "<|Assistant|>", "<|output|>", "<think>", "</think>"),
    *(
        "[INST]",
        "[/INST]",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<start_of_turn>",
        "<end_of_turn>",
    ),
)
ONE = [{"role": "user", "content": "Q1"}, {"role": "assistant", "content": "First."}]
TWO = [*ONE, {"role": "user", "content": "Q2"}, {"role": "assistant", "content": "Second."}]
SYSTEM = [{"role": "system", "content": "Brief."}, *TWO]
THOUGHT = [
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFirst.", "thinking": "hm"},
]
THOUGHTS = [
    *THOUGHT,
    {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "<think>\noh\n</think>\n\nSecond.", "thinking": "oh"},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
CALLS = [
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "42"},
    {"role": "assistant", "content": "It is 42."},
]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def record_of(messages: list[dict[str, Any]], **more: Any) -> ChatRecord:
    record = parse_record(json.dumps({"messages": messages, **more}).encode(), SOURCE)
    assert isinstance(record, ChatRecord)
    return record


def learnt(template: str, messages: list[dict[str, Any]], **more: Any) -> list[str]:
    """The learnt stretches, one after the other."""
    tokenizer = byte_tokenizer(template, specials=SPECIALS)
    chat = Chat(tokenizer, record_of(messages, **more))
    tokens = encode(tokenizer, chat.text, chat.learnt())
    assert tokenizer.decode(tokens.ids) == chat.text
    found, before = [], False
    for token, trained in zip(tokens.ids.tolist(), tokens.trained.tolist(), strict=True):
        if trained and not before:
            found.append([])
        if trained:
            found[-1].append(token)
        before = trained
    return [str(tokenizer.decode(ids)) for ids in found]


EMPTY = "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        ("THINKING", ONE, [f"{EMPTY}First.<|im_end|>\n"]),
        ("THINKING", TWO, ["First.<|im_end|>\n", f"{EMPTY}Second.<|im_end|>\n"]),
        ("THINKING", SYSTEM, ["First.<|im_end|>\n", f"{EMPTY}Second.<|im_end|>\n"]),
        ("THINKING", THOUGHT, ["<think>\nhm\n</think>\n\nFirst.<|im_end|>\n"]),
        ("THINKING", THOUGHTS, ["First.<|im_end|>\n", "<think>\noh\n</think>\n\nSecond.<|im_end|>\n"]),
        ("THINKING", CALLS, ['<call>look {"x": 1}</call><|im_end|>\n', f"{EMPTY}It is 42.<|im_end|>\n"]),
        ("ENDED", ONE, ["First.<|end|>\n</s>"]),
        ("ENDED", TWO, ["First.<|end|>\n", "Second.<|end|>\n</s>"]),
        ("ENDED", SYSTEM, ["First.<|end|>\n", "Second.<|end|>\n</s>"]),
        ("RETURNED", ONE, ["<|channel|>final<|message|>First.<|return|>"]),
        ("RETURNED", TWO, ["<|channel|>final<|message|>First.", "<|channel|>final<|message|>Second.<|return|>"]),
        (
            "RETURNED",
            [{k: v if k != "content" else v.split("\n\n")[-1] for k, v in m.items()} for m in THOUGHTS],
            [
                "<|channel|>final<|message|>First.",
                "<|channel|>analysis<|message|>oh<|end|><|start|>assistant<|channel|>final<|message|>Second.<|return|>",
            ],
        ),
        ("RETURNED", CALLS, [' to=look<|message|>{"x": 1}<|call|>', "<|channel|>final<|message|>It is 42.<|return|>"]),
        ("ASKED", ONE, ["First.</s>"]),
        ("ASKED", TWO, ["First.</s>", "Second.</s>"]),
        ("ASKED", CALLS, ['<|call|>look {"x": 1}</s>', "It is 42.</s>"]),
        ("OPENED", ONE, ["First.</s>"]),
        ("OPENED", TWO, ["First.</s>", "Second.</s>"]),
        ("INSTRUCTED", ONE, [" First.</s>"]),
        ("INSTRUCTED", TWO, [" First.</s>", " Second.</s>"]),
        ("INSTRUCTED", SYSTEM, ["First.</s>", "Second.</s>"]),
        ("INSTRUCTED", CALLS, None),
        ("DATED", TWO, ["First.<|eot_id|>", "Second.<|eot_id|>"]),
        ("DATED", SYSTEM, ["First.<|eot_id|>", "Second.<|eot_id|>"]),
        ("STRICT", TWO, ["First.<end_of_turn>\n", "Second.<end_of_turn>\n"]),
        ("SILENT", TWO, ["First.<|im_end|>\n", "Second.<|im_end|>\n"]),
        ("CHATML", ONE, ["First.<|im_end|>\n"]),
        ("CHATML", SYSTEM, ["First.<|im_end|>\n", "Second.<|im_end|>\n"]),
        ("TAGGED", TWO, ["First.<|im_end|>\n", "Second.<|im_end|>\n"]),
    ],
)
def test_what_is_learnt_of_a_chat(template: str, messages: list[dict[str, Any]], expected: list[str] | None) -> None:
    found = learnt(getattr(templates, template), messages)
    if expected is None:
        assert len(found) == 2 and "look" in found[0] and found[1].endswith("It is 42.</s>")
    else:
        assert found == expected


@pytest.mark.parametrize("chat", [ONE, TWO], ids=["one turn", "two turns"])
@pytest.mark.parametrize("family", templates.GENERATED)
def test_tags_make_no_difference(family: str, chat: list[dict[str, Any]]) -> None:
    """What is found without tags is what the template itself would name, up to and with the end of each turn."""
    plain, tagged = getattr(templates, family), templates.with_tags(family)
    assert "generation %}" in tagged and "{% generation %}" not in plain
    assert learnt(tagged, chat) == learnt(plain, chat)


FAMILIES = ["THINKING", "ENDED", "RETURNED", "ASKED", "OPENED", "INSTRUCTED", "DATED", "SILENT"]


@pytest.mark.parametrize("template", FAMILIES)
def test_turns_that_do_not_count_are_not_learnt(template: str) -> None:
    """Whichever key says so, and with every way of finding turns."""
    for key in ({"weight": 0}, {"train": False}):
        chat = [*TWO[:1], {**TWO[1], **key}, *TWO[2:]]
        found = learnt(getattr(templates, template), chat)
        assert any("Second" in text for text in found) and not any("First" in text for text in found)
        chat = [*TWO[:3], {**TWO[3], **key}]
        found = learnt(getattr(templates, template), chat)
        assert any("First" in text for text in found) and not any("Second" in text for text in found)


def test_of_tagged_turns_those_that_count_are_learnt() -> None:
    chat = [TWO[0], {**TWO[1], "weight": 0}, *TWO[2:]]
    assert learnt(templates.TAGGED, chat) == ["Second.<|im_end|>\n"]


def test_a_chat_may_be_opened_by_the_assistant() -> None:
    opened = [{"role": "assistant", "content": "Hello."}, *ONE]
    assert learnt(templates.ENDED, opened) == ["Hello.<|end|>\n", "First.<|end|>\n</s>"]
    assert learnt(templates.DATED, opened) == ["Hello.<|eot_id|>", "First.<|eot_id|>"]


def test_of_prompt_and_completion_as_messages_the_completion_is_learnt() -> None:
    record = parse_record(json.dumps({"prompt": TWO[:3], "completion": TWO[3:]}).encode(), SOURCE)
    assert isinstance(record, ChatRecord)
    tokenizer = byte_tokenizer(templates.ENDED, specials=SPECIALS)
    chat = Chat(tokenizer, record)
    tokens = encode(tokenizer, chat.text, chat.learnt())
    assert tokenizer.decode(tokens.ids[tokens.trained]) == "Second.<|end|>\n</s>"
    assert "First." in chat.text


def test_tools_and_options_reach_the_template() -> None:
    tokenizer = byte_tokenizer(templates.THINKING, specials=SPECIALS)
    chat = Chat(tokenizer, record_of(ONE, tools=TOOLS))
    assert "Tools: look" in chat.text and not chat.notes["tools"]
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m.content }}{{ mood }}|{% endfor %}")
    assert Chat(tokenizer, record_of(ONE, chat_template_kwargs={"mood": "!"})).text == "Q1!|First.!|"


def encoder_text(tokens: RecordTokens) -> str:
    return str(byte_tokenizer(specials=SPECIALS).decode(tokens.ids[tokens.trained]))


def test_what_a_template_leaves_out_is_counted() -> None:
    """And a turn that would be empty, since the template has no word for calls, teaches nothing."""
    bad = BadRecords(skip=True)
    encoder = RecordTokenizer(byte_tokenizer(templates.ENDED, specials=SPECIALS), bad)
    records = [record_of(CALLS, tools=TOOLS), record_of(ONE)]
    learnt_text = [encoder_text(tokens) for tokens in encoder.encode(records)]
    assert "42." in learnt_text[0] and "look" not in learnt_text[0]
    assert (encoder.notes["tools"], encoder.notes["calls"], encoder.notes["system"]) == (1, 1, 0)
    encoder.encode([record_of(CALLS[:2])])
    assert bad.count == 1 and "leaves no token in the assistant's turns" in bad.sentences[0]
    encoder = RecordTokenizer(byte_tokenizer(templates.INSTRUCTED, specials=SPECIALS), bad)
    encoder.encode([record_of(SYSTEM)])
    assert encoder.notes["system"] == 1


def test_a_developer_is_a_system_where_the_template_knows_none() -> None:
    known = (
        "{% for m in messages if m.role in ('system', 'user', 'assistant') %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    )
    chat = [{"role": "developer", "content": "Brief."}, *ONE]
    assert Chat(byte_tokenizer(known), record_of(chat)).text == "[system]Brief.[user]Q1[assistant]First."
    every = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    assert Chat(byte_tokenizer(every), record_of(chat)).text.startswith("[developer]Brief.")


def test_a_date_that_a_template_tells_is_always_the_same() -> None:
    """A node that goes on tomorrow must learn from the same tokens."""
    chat = Chat(byte_tokenizer(templates.DATED, specials=SPECIALS), record_of(ONE))
    assert "Today: 01 Jan 2025<|eot_id|>" in chat.text


def test_a_template_that_knows_no_system_says_so() -> None:
    with pytest.raises(DataError, match=r"the chat template cannot render the chat \(System role not supported\)"):
        RecordTokenizer(byte_tokenizer(templates.STRICT), BadRecords(skip=False)).encode([record_of(SYSTEM)])


def test_what_answers_look_like_does_not_matter() -> None:
    """A question that looks like a header, an answer that stands in the question, and characters of private use."""
    odd = [
        {"role": "user", "content": "<|assistant|>\nFirst.<|end|>\n"},
        {"role": "assistant", "content": "First."},
        {"role": "user", "content": "\ue000\ue001\ue002"},
        {"role": "assistant", "content": "\ue000\ue001\ue002 First."},
    ]
    assert learnt(templates.ENDED, odd) == ["First.<|end|>\n", "\ue000\ue001\ue002 First.<|end|>\n</s>"]
    assert learnt(templates.RETURNED, odd)[0] == "<|channel|>final<|message|>First."
