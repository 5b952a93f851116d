"""What a record is: one thing to learn from. A text, a prompt with its completion, or a chat.

::

    {"text": "Seen in clinic today ..."}
    {"prompt": "Summarise: ...", "completion": "..."}
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

Kinds may be mixed, and further keys are allowed. A text file is one text. How files become objects and texts is the
business of :mod:`deca_node.numerics.data.files`; what is learnt of a record, of
:mod:`deca_node.numerics.data.tokenizing`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deca_node.numerics.data.files import Reader, Source, filled, json_type, parse_object, some_keys, string
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
    """A conversation: the loss covers the assistant's turns.

    Every message has a ``role`` and a ``content``, both strings; its other keys are kept for the chat template.
    """

    source: Source
    messages: tuple[Mapping[str, Any], ...]

    @property
    def characters(self) -> int:
        """Length of all contents."""
        return sum(len(message["content"]) for message in self.messages)


Record = TextRecord | CompletionRecord | ChatRecord


class RecordReader(Reader[Record]):
    """Texts, prompts with completions, and chats."""

    formats = _FORMATS

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
        return ChatRecord(source, _messages(value["messages"], source))
    if "prompt" in value and "completion" in value:
        return CompletionRecord(source, string(value, "prompt", source), filled(value, "completion", source))
    if "text" in value:
        return TextRecord(source, filled(value, "text", source))
    for key, other in (("prompt", "completion"), ("completion", "prompt")):
        if key in value:
            raise DataError(f'{source}: "{key}" is there but "{other}" is missing')
    raise DataError(f"{source}: {_FORMATS}, but the keys are {some_keys(value)}")


def _messages(value: Any, source: Source) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list) or not value:
        raise DataError(f'{source}: "messages" must be a list of at least one message')
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise DataError(f"{source}: message {number} is {json_type(message)} instead of an object")
        for key in ("role", "content"):
            if key not in message:
                raise DataError(f'{source}: message {number} has no "{key}"')
            string(message, key, source, where=f"of message {number} ")
    if not any(message["role"] == ASSISTANT and message["content"].strip() for message in value):
        raise DataError(f'{source}: the chat has no turn of role "{ASSISTANT}" with any content to learn from')
    return tuple(value)
