"""What a record is: one thing to learn from. A text, a prompt with its completion, or a chat.

::

    {"text": "Seen in clinic today ..."}
    {"prompt": "Summarise: ...", "completion": "..."}
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": [{"role": "user", "content": "..."}], "completion": [{"role": "assistant", "content": "..."}]}

Kinds may be mixed, and further keys are allowed. A text file is one text. How files become objects and texts is the
business of :mod:`deca_node.numerics.data.files`; what is learnt of a record, of
:mod:`deca_node.numerics.data.tokenizing`.

**Messages** are those of OpenAI's interface. A content is a string, a list of text parts, or null beside tool calls.
The assistant's turns are learnt, except those with ``"weight": 0`` or ``"train": false``; of the last form above, only
those of the completion. ``tools`` beside the messages, and ``chat_template_kwargs``, are given to the chat template.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deca_node.numerics.data.files import Reader
from deca_node.numerics.data.formats.lines import parse_object
from deca_node.numerics.data.formats.sources import Source
from deca_node.numerics.data.formats.values import filled, json_type, some_keys, string
from deca_node.protocol.errors import DataError

ASSISTANT = "assistant"
_FORMATS = 'a record needs "text", or "prompt" and "completion", or "messages"'


@dataclass(frozen=True)
class TextRecord:
    """Text to continue: the loss covers all of it."""

    source: Source
    text: str

    @property
    def characters(self) -> int:
        """Length of the text."""
        return len(self.text)


@dataclass(frozen=True)
class CompletionRecord:
    """A prompt (it may be empty) and its completion: the loss covers the completion."""

    source: Source
    prompt: str
    completion: str

    @property
    def characters(self) -> int:
        """Length of prompt and completion."""
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class ChatRecord:
    """A conversation: the loss covers the assistant's turns, except those whose numbers are ``unlearnt``.

    Every message has a ``role`` and a ``content``, both strings; its other keys are kept for the chat template, which
    gets ``tools`` (those that the assistant may call) and ``options`` as well.
    """

    source: Source
    messages: tuple[Mapping[str, Any], ...]
    unlearnt: frozenset[int] = frozenset()
    tools: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Length of all contents."""
        return sum(len(message["content"]) for message in self.messages)

    @property
    def learnt(self) -> list[int]:
        """The numbers of the messages that are learnt."""
        turns = enumerate(self.messages)
        return [k for k, message in turns if message["role"] == ASSISTANT and k not in self.unlearnt]


Record = TextRecord | CompletionRecord | ChatRecord


class RecordReader(Reader[Record]):
    """Texts, prompts with completions, and chats."""

    formats = _FORMATS
    takes_shapes = True

    def record(self, value: Mapping[str, Any], source: Source) -> Record:
        """See :func:`record_of`."""
        return record_of(value, source)

    def whole(self, source: Source, text: str) -> Record:
        """Any text file is a text."""
        return TextRecord(source, text)


def parse_record(line: bytes, source: Source) -> Record:
    """One line of JSON as a record. Raises DataError that names the source and what is wrong with the line."""
    return record_of(parse_object(line, source, _FORMATS), source)


def record_of(value: Mapping[str, Any], source: Source) -> Record:
    """An object as a record. Where several kinds would fit: messages, then prompt, then text.

    Raises DataError that names the source and what is wrong with the object.
    """
    if "messages" in value:
        return _chat(value, source, _messages(value["messages"], source), context=0)
    if "prompt" in value and "completion" in value:
        if isinstance(value["prompt"], list) and isinstance(value["completion"], list):
            context = _messages(value["prompt"], source, "prompt")
            answer = _messages(value["completion"], source, "completion")
            return _chat(value, source, context + answer, len(context))
        return CompletionRecord(source, string(value, "prompt", source), filled(value, "completion", source))
    if "text" in value:
        return TextRecord(source, filled(value, "text", source))
    for key, other in (("prompt", "completion"), ("completion", "prompt")):
        if key in value:
            raise DataError(f'{source}: "{key}" is there but "{other}" is missing')
    raise DataError(f"{source}: {_FORMATS}, but the keys are {some_keys(value)}")


# --- chats ------------------------------------------------------------------------------------------


def _chat(
    value: Mapping[str, Any], source: Source, messages: tuple[Mapping[str, Any], ...], context: int
) -> ChatRecord:
    """A chat of which the first ``context`` messages are only read."""
    turns = [k for k, message in enumerate(messages) if message["role"] == ASSISTANT]
    unlearnt = frozenset(k for k in turns if k < context or not _counts(messages[k], k + 1, source))
    filled_turns = [k for k in turns if messages[k]["content"].strip() or messages[k].get("tool_calls")]
    if not filled_turns:
        raise DataError(f'{source}: the chat has no turn of role "{ASSISTANT}" with any content to learn from')
    if not set(filled_turns) - unlearnt:
        raise DataError(f'{source}: no turn of role "{ASSISTANT}" is to be learnt: all have weight 0 or train = false')
    options = value.get("chat_template_kwargs") or {}
    if not isinstance(options, dict):
        raise DataError(f'{source}: "chat_template_kwargs" must be an object, not {json_type(options)}')
    return ChatRecord(source, messages, unlearnt, _tools(value.get("tools"), source), options)


def _messages(value: Any, source: Source, key: str = "messages") -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f'{source}: "{key}" must be a list of at least one message')
    return tuple(_message(message, number, source) for number, message in enumerate(value, start=1))


def _message(message: Any, number: int, source: Source) -> Mapping[str, Any]:
    """The message with a content that is a string, and with arguments of tool calls as objects where they are JSON."""
    if not isinstance(message, dict):
        raise DataError(f"{source}: message {number} is {json_type(message)} instead of an object")
    where = f"of message {number} "
    calls = message.get("tool_calls")
    if "role" not in message or ("content" not in message and not calls):
        raise DataError(f'{source}: message {number} has no "{"content" if "role" in message else "role"}"')
    string(message, "role", source, where)
    if calls is not None:
        message = {**message, "tool_calls": [_call(call, number, source) for call in _list(calls, number, source)]}
    content = message.get("content")
    if content is None and calls:
        return {**message, "content": ""}
    if isinstance(content, list):
        return {**message, "content": "".join(_part(part, number, source) for part in content)}
    string(message, "content", source, where)
    return message


def _list(calls: Any, number: int, source: Source) -> list[Any]:
    if not isinstance(calls, list):
        raise DataError(f'{source}: "tool_calls" of message {number} must be a list, not {json_type(calls)}')
    return calls


def _call(call: Any, number: int, source: Source) -> Mapping[str, Any]:
    """A tool call. OpenAI gives arguments as the text of a JSON object, and most chat templates want the object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(f'{source}: a tool call of message {number} has no "function" with a "name"')
    try:
        arguments = json.loads(function.get("arguments"))  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def _part(part: Any, number: int, source: Source) -> str:
    """The text of one part of a content."""
    if isinstance(part, str):
        return string({"content": part}, "content", source, f"of message {number} ")
    if isinstance(part, dict) and "text" in part:
        return string(part, "text", source, f"of message {number} ")
    kind = str(part.get("type", "without a type"))[:30] if isinstance(part, dict) else json_type(part)
    raise DataError(f"{source}: message {number} holds a part that is no text ({kind}); only text can be learnt")


def _counts(message: Mapping[str, Any], number: int, source: Source) -> bool:
    """Whether a turn of the assistant is learnt, by its ``weight`` or ``train``."""
    weight, train = message.get("weight"), message.get("train")
    if weight not in (None, 0, 1):
        raise DataError(f'{source}: "weight" of message {number} must be 0 or 1')
    if train is not None and not isinstance(train, bool):
        raise DataError(f'{source}: "train" of message {number} must be true or false, not {json_type(train)}')
    return weight != 0 and train is not False


def _tools(value: Any, source: Source) -> tuple[Mapping[str, Any], ...]:
    """The tools beside the messages; some sets have them as the text of a JSON list."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError):
            raise DataError(f'{source}: "tools" is a string, and not that of a JSON list') from None
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise DataError(f'{source}: "tools" must be a list of objects')
    return tuple(value)
