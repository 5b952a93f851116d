"""Objects as other tools write them become objects as records have them.

::

    Alpaca      {"instruction": "...", "input": "...", "output": "...", "history": [["...", "..."]], "system": "..."}
    ShareGPT    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}], "system": "..."}

Both become chats. Of Alpaca, the instruction and its input are one message, with a newline between them.
"""

import json
from collections.abc import Mapping
from typing import Any

from deca_node.numerics.data.formats.sources import Reading, Source
from deca_node.numerics.data.formats.values import json_type, some_keys, string
from deca_node.protocol.errors import DataError

ALPACA, SHAREGPT = "Alpaca", "ShareGPT"
NEEDS = {
    "text": ("text",),
    "prompt": ("prompt", "completion"),
    "messages": ("messages",),
    "alpaca": ("instruction", "output"),
    "sharegpt": ("conversations",),
}
"""The keys that an object must have, by the setting ``format``."""
KNOWN = ("completion", "conversations", "instruction", "label", "messages", "output", "prompt", "text")
"""Keys of which a table needs at least one."""
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("observation", "tool", "function", "function_response"), "tool"),
    "system": "system",
}
_CALL = "function_call"
OPTIONAL = frozenset({"input", "history", "system", "tools", "text_pair", "chat_template_kwargs"})
"""Names that a record can do without: in a table the field is empty then, or null, and no column at all."""


def renamed(value: Mapping[str, Any], source: Source, reading: Reading) -> Mapping[str, Any]:
    """The object with its columns under the names that records have. Raises DataError where a column is missing that
    the record cannot do without."""
    if not reading.columns:
        return value
    found = dict(value)
    for name, column in reading.columns.items():
        if column in value:
            found[name] = value[column]
        elif name not in OPTIONAL:
            raise DataError(f'{source}: there is no "{column}", which columns names for "{name}"')
    return found


def shaped(value: Mapping[str, Any], source: Source, reading: Reading) -> tuple[Mapping[str, Any], str]:
    """The object as records have it, and the name of its shape where that is a foreign one. Raises DataError."""
    needs = NEEDS.get(reading.kind)
    if needs:
        if not all(key in value for key in needs):
            keys = " and ".join(f'"{key}"' for key in needs)
            raise DataError(f"{source}: format = {reading.kind} needs {keys}, but the keys are {some_keys(value)}")
        value = {key: inner for key, inner in value.items() if key in needs or key not in KNOWN}
    value = {**value, **{key: _parsed(value[key]) for key in ("messages", "conversations") if key in value}}
    if "messages" in value or ("prompt" in value and "completion" in value):
        return value, ""
    if "conversations" in value:
        return _chat(value, _conversation(value, source)), SHAREGPT
    if "instruction" in value and "output" in value:
        return _chat(value, _alpaca(value, source)), ALPACA
    return value, ""


def _parsed(value: Any) -> Any:
    """A list that a table holds as the text of JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _chat(value: Mapping[str, Any], messages: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The messages, with what stands beside them for the chat template."""
    return {"messages": messages, **{key: value[key] for key in ("tools", "chat_template_kwargs") if key in value}}


def _system(value: Mapping[str, Any], source: Source) -> list[Mapping[str, Any]]:
    text = string(value, "system", source) if value.get("system") is not None else ""
    return [{"role": "system", "content": text}] if text else []


def _alpaca(value: Mapping[str, Any], source: Source) -> list[Mapping[str, Any]]:
    asked = string(value, "instruction", source)
    if value.get("input") is not None and (more := string(value, "input", source)):
        asked = f"{asked}\n{more}"
    return [
        *_system(value, source),
        *_history(value.get("history"), source),
        {"role": "user", "content": asked},
        {"role": "assistant", "content": string(value, "output", source)},
    ]


def _history(value: Any, source: Source) -> list[Mapping[str, Any]]:
    pairs = _parsed(value) or []
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError(f'{source}: "history" must be a list of pairs, each a question and its answer')
    turns = [(role, text) for pair in pairs for role, text in zip(("user", "assistant"), pair, strict=True)]
    return [{"role": role, "content": string({"history": text}, "history", source)} for role, text in turns]


def _conversation(value: Mapping[str, Any], source: Source) -> list[Mapping[str, Any]]:
    turns = value["conversations"]
    if isinstance(turns, dict):
        turns = _turned(turns, source)
    if not isinstance(turns, list) or not turns:
        raise DataError(f'{source}: "conversations" must be a list of at least one message')
    messages = [_turn(turn, number, source) for number, turn in enumerate(turns, start=1)]
    return messages if messages[0].get("role") == "system" else [*_system(value, source), *messages]


def _turned(columns: Mapping[str, Any], source: Source) -> list[Mapping[str, Any]]:
    """Messages from one list per key, as older versions of ``datasets`` store them."""
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise DataError(f'{source}: "conversations" is an object, and not one of lists of one length')
    return [dict(zip(columns, turn, strict=True)) for turn in zip(*columns.values(), strict=True)]


def _turn(turn: Any, number: int, source: Source) -> Mapping[str, Any]:
    if not isinstance(turn, dict):
        raise DataError(f"{source}: message {number} is {json_type(turn)} instead of an object")
    if "role" in turn:
        return turn
    for key in ("from", "value"):
        if key not in turn:
            raise DataError(f'{source}: message {number} has no "{key}"')
        string(turn, key, source, f"of message {number} ")
    rest = {key: inner for key, inner in turn.items() if key not in ("from", "value")}
    if turn["from"] == _CALL:
        return {"role": "assistant", "content": "", "tool_calls": _calls(turn["value"], number, source), **rest}
    if turn["from"] not in ROLES:
        raise DataError(f'{source}: "from" of message {number} is none of {", ".join((*ROLES, _CALL))}')
    return {"role": ROLES[turn["from"]], "content": turn["value"], **rest}


def _calls(text: str, number: int, source: Source) -> list[Mapping[str, Any]]:
    """The tools that a turn calls: the text of one call or of a list of them, each with name and arguments."""
    found = _parsed(text)
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise DataError(f'{source}: message {number} is from {_CALL}, and no JSON of calls with a "name"')
    return [{"type": "function", "function": call} for call in calls]
