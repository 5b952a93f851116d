r"""A chat as text, by the tokenizer's chat template, and where in that text the assistant's turns are.

::

    <|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\nThree.<|im_end|>\n<|im_start|>user\n...
                                                                 ------------------  learnt: the turn with its end

A template is a program, and nothing in it says where a turn begins. There are three ways to find out, by turn:

**Tags.** The template encloses what the assistant generates in ``{% generation %}``.

**Prefixes.** The chat before the turn, with the header that asks for an answer, renders to a prefix of the whole. The
chat up to the end of the turn renders to a longer prefix. The turn lies between.

**Marks.** Many templates render a prefix differently: they drop the thinking of earlier turns, or put an end mark
behind the last turn only. Then the turn is found within the rendering of the whole chat, by rendering it again with a
mark in place of the turn's content. What is the same before and behind the mark is not content. The turn begins where
the header that asks for an answer ends, and ends where its rendering as the last turn goes on differently.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deca_node.numerics.data.records import ChatRecord
from deca_node.numerics.data.sequences import RecordTokens
from deca_node.protocol.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
MARK = "\ue000\ue001\ue002"
"""Three characters of private use, which no template knows; more of them where a chat has these."""
PROOF = 20
"""So many characters from the end of a content's last line must be found in its turn."""

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
_DAY = {
    "%-d": "1",
    "%d": "01",
    "%B": "January",
    "%b": "Jan",
    "%-m": "1",
    "%m": "01",
    "%Y": "2025",
    "%y": "25",
    "%A": "Wednesday",
    "%a": "Wed",
    "%H": "12",
    "%I": "12",
    "%M": "00",
    "%S": "00",
    "%p": "PM",
}
_FIXED_DATE = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(f" | replace('{code}', '{text}')" for code, text in _DAY.items())
    + " }}{%- endmacro -%}"
)
"""In front of a template that asks for today's date: a restart tomorrow must see the same tokens."""


class Span(NamedTuple):
    """Characters ``low`` to ``high`` (exclusive) of the rendered chat. ``loose``: a token that ``low`` falls into
    belongs to it; ``strict``: a token that ``high`` falls into does not."""

    low: int
    high: int
    loose: bool = False
    strict: bool = False


class Chat:
    """One chat, rendered. Raises what the template raises, where it cannot render the whole of it."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", record: ChatRecord) -> None:
        self._tokenizer = tokenizer
        self._record = record
        self._tools = [dict(tool) for tool in record.tools] or None
        template: str = tokenizer.get_chat_template(tools=self._tools)
        self._tagged = bool(_GENERATION_TAG.search(template))
        self._template = _FIXED_DATE + template if "strftime_now" in template else template
        self._messages, self.text = self._readable()
        self.notes: Counter[str] = Counter()
        """What the template leaves out: "tools" and "system" of the chat, "calls" of so many turns."""
        self.notes["tools"] += bool(record.tools) and self._try(self._messages, tools=False) == self.text
        self.notes["system"] += any(_unseen(self._messages, role, self.text) for role in ("system", "developer"))

    def learnt(self) -> list[Span]:
        """What is learnt: the spans of the turns that count. Raises DataError where a turn cannot be told apart.

        A turn that consists of tool calls which the template leaves out has nothing to learn.
        """
        turns = self._record.learnt
        found = self._by_tags(turns) if self._tagged else {turn: self._span(turn) for turn in turns}
        return [span for turn, span in found.items() if not self._shows_nothing(turn)]

    # --- rendering ----------------------------------------------------------------------------------

    def _readable(self) -> tuple[Messages, str]:
        """The messages in the first form that the template renders and that shows what a developer says, or else in
        the first that it renders; and the text."""
        problem: Exception | None = None
        rendered: list[tuple[Messages, str]] = []
        for messages in _forms(self._record.messages):
            try:
                rendered.append((messages, self._render(messages)))
            except Exception as error:  # noqa: BLE001  (a template is a program by others, and fails as it pleases)
                problem = problem or error
                continue
            if not _unseen(messages, "developer", rendered[-1][1]):
                return rendered[-1]
        if not rendered:
            assert problem is not None, "there is one form at least"
            raise problem
        return rendered[0]

    def _render(self, messages: Messages, ask: bool = False, tools: bool = True) -> str:
        text: str = self._tokenizer.apply_chat_template(
            list(messages),
            tools=self._tools if tools else None,
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=ask,
            **self._record.options,
        )
        return text

    def _try(self, messages: Messages, ask: bool = False, tools: bool = True) -> str | None:
        """The rendering of a part of the chat, which the template may refuse."""
        try:
            return self._render(messages, ask, tools) if messages else None
        except Exception:  # noqa: BLE001
            return None

    # --- three ways ---------------------------------------------------------------------------------

    def _by_tags(self, turns: list[int]) -> dict[int, Span]:
        from transformers.utils.chat_template_utils import render_jinja_template

        _, (tagged,) = render_jinja_template(
            conversations=[list(self._messages)],
            tools=self._tools,
            chat_template=self._template,
            return_assistant_tokens_mask=True,
            **{**self._tokenizer.special_tokens_map, **self._record.options},
        )
        everything = [k for k, message in enumerate(self._messages) if message["role"] == "assistant"]
        if len(tagged) == len(everything):
            return {turn: Span(*span) for turn, span in zip(everything, tagged, strict=True) if turn in turns}
        if turns == everything:
            # Several pieces of one turn, or several turns in one: which is which does not matter.
            return dict(enumerate((Span(*span) for span in tagged), start=-len(tagged)))
        return {turn: self._span(turn) for turn in turns}

    def _span(self, turn: int) -> Span:
        span = self._by_prefixes(turn) or self._by_marks(turn)
        if span is None:
            raise DataError(
                f"{self._record.source}: the assistant's turn (message {turn + 1}) cannot be told apart in the "
                "rendering of the chat template; name one with {% generation %} as chat_template, or write prompt and "
                "completion"
            )
        return span

    def _by_prefixes(self, turn: int) -> Span | None:
        header, so_far = self._try(self._messages[:turn], ask=True), self._up_to(turn)
        if not header or not so_far or not so_far.startswith(header) or not self.text.startswith(so_far):
            return None
        # A template that never asks for an answer has its header behind the prefix.
        parts = None if "add_generation_prompt" in self._template else self._marked(turn, self._messages)
        begin = _common(self.text, parts[0]) if parts else len(header)
        asks = not self.text[len(header) : begin].strip()
        return Span(len(header), len(so_far)) if asks else Span(begin, len(so_far), loose=True)

    def _up_to(self, turn: int) -> str | None:
        """The rendering of the chat that ends with this turn."""
        return self.text if turn == len(self._messages) - 1 else self._try(self._messages[: turn + 1])

    def _by_marks(self, turn: int) -> Span | None:
        begin, end = len(self.text), None
        if parts := self._marked(turn, self._messages):
            begin = _common(self.text, parts[0])
            end = len(self.text) - len(parts[1]) if self.text.endswith(parts[1]) else None
        low, loose = self._low(turn, begin)
        high, strict = self._high(turn, low, end)
        return Span(low, high, loose, strict) if self._proves(turn, low, high) else None

    def _marked(self, turn: int, messages: Messages) -> tuple[str, str] | None:
        """What stands before and behind the content of this turn, which a mark replaces."""
        changed = {**messages[turn], "content": self._mark}
        text = self._try([*messages[:turn], changed, *messages[turn + 1 :]])
        parts = text.split(self._mark) if text else []
        return (parts[0], parts[1]) if len(parts) == 2 else None

    @cached_property
    def _mark(self) -> str:
        mark = MARK
        while mark in self.text:
            mark += MARK
        return mark

    def _low(self, turn: int, begin: int) -> tuple[int, bool]:
        """Where the turn begins; its content begins at ``begin``, or later."""
        before, asked = self._try(self._messages[:turn]), self._try(self._messages[:turn], ask=True)
        if turn == 0:
            before, asked = self.text, self._try(self._messages, ask=True)
        if not before or not asked:
            return begin, True
        header = asked[_common(asked, before) :]
        if turn and self.text.startswith(asked):
            return len(asked), False
        shared = _common(self.text, asked)
        if turn and shared > len(asked) - len(header):
            # They part within the header: it opens a thinking, say, that this turn does not have.
            return shared, False
        found = self.text.find(header, self._end_of(turn - 1)) if header.strip() else -1
        return (found + len(header), False) if 0 <= found <= begin - len(header) else (begin, True)

    def _end_of(self, turn: int) -> int:
        """Where the content of a message ends, as far as it can be told; else 0."""
        parts = self._marked(turn, self._messages) if turn >= 0 else None
        return len(self.text) - len(parts[1]) if parts and self.text.endswith(parts[1]) else 0

    def _high(self, turn: int, low: int, end: int | None) -> tuple[int, bool]:
        """Where the turn ends; its content ends at ``end``, if that is known."""
        if turn == len(self._messages) - 1:
            return len(self.text), False
        last = self._marked(turn, self._messages[: turn + 1])
        if end is not None and end >= low and last is not None:
            shared = _common(self.text[end:], last[1])
            return end + shared, shared < len(last[1])
        asked, so_far = self._try(self._messages[:turn], ask=True), self._up_to(turn)
        if not asked or not so_far or not so_far.startswith(asked):
            return low, False
        shared = _common(self.text[low:], so_far[len(asked) :])
        return low + shared, shared < len(so_far) - len(asked)

    # --- is it right, and is there anything in it? ------------------------------------------------------

    def _proves(self, turn: int, low: int, high: int) -> bool:
        """Whether the end of the content stands in the span, or a tool that is called, if the template shows it."""
        message, text = self._messages[turn], self.text[low:high]
        # The last line, since a thinking before it may be dropped.
        content = message["content"].strip().split("\n")[-1][-PROOF:]
        if content or not message.get("tool_calls"):
            return bool(text) and content in text
        return any(_name(call) in text for call in message["tool_calls"]) or self._hides_calls(turn)

    def _hides_calls(self, turn: int) -> bool:
        """Whether the turn calls tools, and the template shows nothing of it."""
        message = self._messages[turn]
        if not message.get("tool_calls"):
            return False
        plain = {key: value for key, value in message.items() if key != "tool_calls"}
        return self._try([*self._messages[:turn], plain, *self._messages[turn + 1 :]]) == self.text

    def _shows_nothing(self, turn: int) -> bool:
        """Whether all of the turn is tool calls that the template leaves out."""
        if turn < 0 or not self._hides_calls(turn):
            return False
        self.notes["calls"] += 1
        return not self._messages[turn]["content"].strip()


def encode(tokenizer: "PreTrainedTokenizerBase", text: str, spans: Sequence[Span]) -> RecordTokens:
    """The tokens of a rendered chat; those in the spans are learnt."""
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    begins, ends = np.array(out["offset_mapping"], np.int64).reshape(-1, 2).T
    learnt = np.zeros(len(begins), np.bool_)
    for low, high, loose, strict in spans:
        begun = ends > low if loose else begins >= low
        learnt |= begun & (begins < high) & (ends <= high if strict else True)
    return RecordTokens(np.array(out["input_ids"], np.int32), learnt)


def _forms(messages: Messages) -> Iterator[Messages]:
    """The messages as templates may want them: with a system in place of a developer, and with the arguments of tool
    calls as text."""
    plain = [{key: value for key, value in message.items() if value is not None} for message in messages]
    calls = any(message.get("tool_calls") for message in plain)
    for roles in ("developer", "system") if any(m["role"] == "developer" for m in plain) else ("developer",):
        form = [message | ({"role": roles} if message["role"] == "developer" else {}) for message in plain]
        yield form
        if calls:
            yield [_with_text_arguments(message) for message in form]


def _with_text_arguments(message: Mapping[str, Any]) -> Mapping[str, Any]:
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_as_text(call) for call in calls]} if calls else message


def _as_text(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call["function"]
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _unseen(messages: Messages, role: str, text: str) -> bool:
    """Whether a message of this role is not in the text."""
    return any(message["role"] == role and message["content"].strip() not in text for message in messages)


def _name(tool: Mapping[str, Any]) -> str:
    """What a tool or a call of one is called."""
    function = tool.get("function")
    return str((function if isinstance(function, Mapping) else tool).get("name", "\0"))


def _common(one: str, other: str) -> int:
    """How many characters the two begin with alike."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
