"""Reading the node's data: what counts as a record, what is passed over, and what is said about the rest."""

import contextlib
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.numerics.data.formats.sources import BAD_SENTENCES_MAX, BadRecords, Source
from deca_node.numerics.data.records import ChatRecord, CompletionRecord, Record, RecordReader, TextRecord, parse_record
from deca_node.protocol.errors import DataError

SOURCE = Source(Path("notes.jsonl"), 3)
CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]


def read(path: Path, skip: bool = False) -> list[Record]:
    return list(RecordReader(path, BadRecords(skip)))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(path: Path) -> list[tuple[str, str]]:
    """Name and text of the records of a folder of texts."""
    records = read(path)
    assert all(isinstance(record, TextRecord) for record in records)
    return [(str(r.source.path.relative_to(path)), r.text) for r in records if isinstance(r, TextRecord)]


# --- JSON lines -------------------------------------------------------------------------------------


def test_kinds_may_be_mixed_and_know_their_lines(tmp_path: Path) -> None:
    lines = [
        {"text": "a note", "id": 7},
        {"prompt": "2+2=", "completion": "4"},
        {"messages": [*CHAT, {"role": "user", "content": "", "name": "x"}], "text": "messages come first"},
    ]
    path = write(tmp_path / "notes.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert read(path) == [
        TextRecord(Source(path, 1), "a note"),
        CompletionRecord(Source(path, 3), "2+2=", "4"),
        ChatRecord(Source(path, 5), (*CHAT, {"role": "user", "content": "", "name": "x"})),
    ]


CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}


def chat_of(*messages: dict[str, Any], **more: Any) -> ChatRecord:
    record = parse_record(json.dumps({"messages": messages, **more}).encode(), SOURCE)
    assert isinstance(record, ChatRecord)
    return record


def test_a_message_may_have_no_content_beside_tool_calls() -> None:
    """Null, as OpenAI writes it, or no such key. Arguments become the object that templates want."""
    for message in ({"content": None}, {}, {"content": ""}):
        chat = chat_of(CHAT[0], {"role": "assistant", "tool_calls": [CALL], **message}, *CHAT)
        assert chat.messages[1]["content"] == ""
        assert chat.messages[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": {"x": 1}}
        assert chat.learnt == [1, 3]
    odd = {**CALL, "function": {"name": "look", "arguments": "not JSON"}}
    assert chat_of(CHAT[0], {"role": "assistant", "tool_calls": [odd]}).messages[1]["tool_calls"] == [odd]


def test_a_content_may_be_text_parts() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, "!"]
    assert chat_of({"role": "user", "content": parts}, CHAT[1]).messages[0]["content"] == "Hello!"


def test_weights_say_what_is_learnt() -> None:
    turns = [CHAT[0], {**CHAT[1], "weight": 0}, CHAT[0], {**CHAT[1], "weight": 1}, CHAT[0], {**CHAT[1], "train": False}]
    assert chat_of(*turns).learnt == [3]
    assert chat_of(*turns, CHAT[0], CHAT[1]).learnt == [3, 7]
    assert chat_of({**CHAT[0], "weight": 0}, CHAT[1]).learnt == [1]


def test_prompt_and_completion_may_be_messages() -> None:
    record = parse_record(json.dumps({"prompt": [*CHAT, CHAT[0]], "completion": [CHAT[1]]}).encode(), SOURCE)
    assert isinstance(record, ChatRecord)
    assert (len(record.messages), record.learnt) == (4, [3])


def test_tools_stand_beside_the_messages() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    assert chat_of(*CHAT, tools=tools).tools == tuple(tools)
    assert chat_of(*CHAT, tools=json.dumps(tools)).tools == tuple(tools)
    assert chat_of(*CHAT, tools=None).tools == chat_of(*CHAT, tools="").tools == ()
    assert chat_of(*CHAT, chat_template_kwargs={"enable_thinking": False}).options == {"enable_thinking": False}


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
def test_line_endings_and_byte_order_mark_do_not_matter(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / "notes.jsonl", "\ufeff" + '{"text": "Grüße"}' + ending)
    assert read(path) == [TextRecord(Source(path, 1), "Grüße")]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".JSONL", ".jsonlines", ".jsonl.gz"])
def test_names_that_mean_json_lines(tmp_path: Path, suffix: str) -> None:
    line = b'{"text": "one"}\n'
    path = write(tmp_path / f"notes{suffix}", gzip.compress(line) if suffix.endswith(".gz") else line)
    assert read(path) == [TextRecord(Source(path, 1), "one")]


@given(st.text().filter(str.strip), st.booleans())
def test_what_json_writes_is_read_back(text: str, ascii_only: bool) -> None:
    line = json.dumps({"text": text, "": [None, 1.5]}, ensure_ascii=ascii_only)
    assert parse_record(line.encode(), SOURCE) == TextRecord(SOURCE, text)


def value_lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(
        [
            *("text", "prompt", "completion", "messages", "role", "content", "x"),
            *("tool_calls", "function", "name", "arguments", "weight", "train", "tools", "chat_template_kwargs"),
        ]
    )
    return st.lists(values, max_size=3) | st.dictionaries(keys, values, max_size=4)


json_values = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), value_lists)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_record_or_a_data_error(line: bytes) -> None:
    with contextlib.suppress(DataError):
        record = parse_record(line, SOURCE)
        assert record.characters > 0 or isinstance(record, ChatRecord)


# --- what is said about bad records -----------------------------------------------------------------

BAD_LINES = [
    (b'{"text": "secret"', "not valid JSON (Expecting ',' delimiter at character 18)"),
    (b"[" * 200_000, "not valid JSON (nested too deeply, or a number too long)"),
    (b'{"text": ' + b"9" * 5000 + b"}", "not valid JSON (nested too deeply, or a number too long)"),
    (b'["secret"]', "the line holds an array instead of an object; a record needs"),
    (b'"secret"', "the line holds a string instead of an object"),
    (b"null", "the line holds null instead of an object"),
    (b'{"text": "secret \xff"}', "not UTF-8 (byte 18)"),
    (b'{"text": 5}', '"text" must be a string, not a number'),
    (b'{"text": null}', '"text" must be a string, not null'),
    (b'{"text": " \\n"}', '"text" is empty'),
    (b'{"text": "secret \\ud83d"}', '"text" holds half of a character (character 8)'),
    (b'{"prompt": "secret"}', '"prompt" is there but "completion" is missing'),
    (b'{"completion": "secret"}', '"completion" is there but "prompt" is missing'),
    (b'{"prompt": "secret", "completion": ""}', '"completion" is empty'),
    (b'{"prompt": ["secret"], "completion": "secret"}', '"prompt" must be a string, not an array'),
    (b'{"Text": "secret", "id": 1}', '"messages", but the keys are "Text", "id"'),
    (b"{}", "but the keys are none"),
    (b'{"messages": []}', '"messages" must be a list of at least one message'),
    (b'{"messages": ["secret"]}', "message 1 is a string instead of an object"),
    (b'{"messages": [{"role": "user"}]}', 'message 1 has no "content"'),
    (b'{"messages": [{"content": "secret"}]}', 'message 1 has no "role"'),
    (b'{"messages": [{"role": "user", "content": null}]}', '"content" of message 1 must be a string, not null'),
    (b'{"messages": [{"role": "user", "content": "secret"}]}', 'the chat has no turn of role "assistant"'),
    (b'{"messages": [{"role": "assistant", "content": " "}]}', 'the chat has no turn of role "assistant"'),
    (b'{"messages": [{"role": "assistant", "content": null}]}', '"content" of message 1 must be a string, not null'),
    (b'{"messages": [{"role": "assistant", "content": "secret", "weight": 0}]}', "all have weight 0 or train = false"),
    (b'{"messages": [{"role": "assistant", "content": "secret", "weight": 0.5}]}', '"weight" of message 1 must be 0'),
    (b'{"messages": [{"role": "assistant", "content": "secret", "train": "no"}]}', '"train" of message 1 must be true'),
    (b'{"messages": [{"role": "assistant", "tool_calls": {"a": 1}}]}', '"tool_calls" of message 1 must be a list'),
    (b'{"messages": [{"role": "assistant", "tool_calls": ["secret"]}]}', 'a tool call of message 1 has no "function"'),
    (
        b'{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "secret"}]}]}',
        "message 1 holds a part that is no text (image_url); only text can be learnt",
    ),
    (b'{"messages": [{"role": "user", "content": [5]}]}', "message 1 holds a part that is no text (a number)"),
    (b'{"messages": [{"role": "assistant", "content": "a"}], "tools": {}}', '"tools" must be a list of objects'),
    (
        b'{"messages": [{"role": "assistant", "content": "a"}], "tools": "[secret"}',
        '"tools" is a string, and not that of',
    ),
    (
        b'{"messages": [{"role": "assistant", "content": "a"}], "chat_template_kwargs": 5}',
        '"chat_template_kwargs" must be an object, not a number',
    ),
    (b'{"prompt": [], "completion": []}', '"prompt" must be a list of at least one message'),
    (b'{"prompt": "secret", "completion": [{}]}', '"completion" must be a string, not an array'),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES, ids=[said for _, said in BAD_LINES])
def test_a_bad_line_is_named_but_not_quoted(tmp_path: Path, line: bytes, said: str) -> None:
    path = write(tmp_path / "notes.jsonl", b'{"text": "fine"}\n' + line)
    with pytest.raises(DataError) as caught:
        read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path} line 2: ")
    assert said in sentence
    assert sentence.endswith("; correct it, or leave such records out with bad_records = 'skip'")
    assert "secret" not in sentence


def test_bad_lines_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.jsonl", b'{}\n{"text": "first"}\n' + b"oops\n" * 50 + b'{"text": "last"}\n')
    bad = BadRecords(skip=True)
    assert [record.source.line for record in RecordReader(path, bad)] == [2, 53]
    assert bad.count == 51
    assert len(bad.sentences) == BAD_SENTENCES_MAX
    assert bad.sentences[1] == f"{path} line 3: not valid JSON (Expecting value at character 1)"


def test_a_text_file_in_another_encoding_is_a_bad_record(tmp_path: Path) -> None:
    path = write(tmp_path / "notes.txt", "one\ntwo\nüber".encode("latin-1"))
    with pytest.raises(DataError, match=r"notes.txt: not UTF-8 \(byte 9 in line 3\); convert the file to UTF-8"):
        read(path)
    write(tmp_path / "other.txt", "fine")
    assert len(read(tmp_path, skip=True)) == 1


# --- files and folders ------------------------------------------------------------------------------


def test_a_text_file_is_one_record(tmp_path: Path) -> None:
    path = write(tmp_path / "main.py", "import this\n\nprint()\n")
    assert read(path) == [TextRecord(Source(path), "import this\n\nprint()\n")]


def test_a_folder_is_read_in_sorted_order_without_what_is_not_text(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "b")
    write(tmp_path / "a" / "z.jsonl", '{"text": "z1"}\n{"text": "z2"}\n')
    write(tmp_path / "a" / "c.md.gz", gzip.compress(b"c"))
    write(tmp_path / "c" / "d" / "e.py", "e")
    write(tmp_path / "package.json", "{}")
    write(tmp_path / "blank.txt", " \n")
    write(tmp_path / "image.png", b"\x89PNG\0")
    write(tmp_path / "late.bin", b"text " * 20_000 + b"\0")
    write(tmp_path / ".hidden.txt", "no")
    write(tmp_path / ".git" / "config.txt", "no")
    write(tmp_path / "c" / "__pycache__" / "e.txt", "no")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    assert texts(tmp_path) == [
        ("a/c.md.gz", "c"),
        ("a/z.jsonl", "z1"),
        ("a/z.jsonl", "z2"),
        ("b.txt", "b"),
        ("c/d/e.py", "e"),
    ]


def test_refusals_of_paths(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    write(tmp_path / "hidden" / ".txt", "x")
    cases = [
        (tmp_path / "gone.jsonl", "there is no such file or folder; check the path of the data"),
        (tmp_path / "pipe", "neither a file nor a folder"),
        (tmp_path / "empty", "the folder holds no files"),
        (tmp_path / "hidden", "the folder holds no files"),
        (write(tmp_path / "x.json", '[{"text": "a"}'), "not valid JSON (the end of the array is missing)"),
        (write(tmp_path / "x.bin", b"\0"), "the file is binary (it holds a NUL byte)"),
        (write(tmp_path / "x.txt.gz", b"not gzip"), "cannot be read (Not a gzipped file"),
        (write(tmp_path / "y.txt.gz", gzip.compress(b"cut" * 999)[:-12]), "cannot be read (Compressed file ended"),
        (write(tmp_path / "file", "x") / "below", "cannot be read (Not a directory)"),
    ]
    for path, said in cases:
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: {said}")


def test_a_refusal_by_the_system_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path / "notes.txt", "x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError) as caught:
        read(tmp_path, skip=True)
    assert str(caught.value).startswith(f"{path}: cannot be read (Permission denied)")


def test_the_reader_knows_how_far_it_has_come(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"text": "1"}\n{"text": "2"}\n')
    write(tmp_path / "b.txt", "three")
    write(tmp_path / "c.bin", b"\0" * 7)
    reader = RecordReader(tmp_path, BadRecords(skip=False))
    seen = [(reader.bytes_done, reader.bytes_total) for _ in reader]
    assert seen == [(14, 40), (28, 40), (33, 40)]
    assert reader.bytes_done == 40
