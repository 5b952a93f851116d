r"""What ``deca-node data`` prints: records as tokens with the learnt ones marked, and the figures of the whole.

::

    record 1: notes.jsonl line 1 (chat), 21 tokens, 4 learnt
      <|im_start|>·user·\n
      How· many·?·<|im_end|>·\n
      <|im_start|>·assistant·\n
      ⟦Three·.·<|im_end|>⟧·\n
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.text import Text

from deca_node.cli.views.console import facts_console
from deca_node.cli.views.text import printable

if TYPE_CHECKING:
    from deca_node.numerics.forecast.surveyed import Packed, Shown, Survey

OPEN, CLOSE, BETWEEN = "⟦", "⟧", "·"
LEARNT, MARK = "bold green", "dim"
ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
BAR_COLUMNS = 40
KINDS = {"text": "texts", "prompt": "prompts with completions", "chat": "chats"}
NOTES = {
    "tools": "chats give tools that the chat template leaves out",
    "system": "chats have a message of the system that the chat template leaves out",
    "calls": "turns call tools that the chat template leaves out",
}

Token = tuple[str, bool]


def print_shown(records: Sequence[Shown]) -> None:
    """Print records token by token; a line ends where a token ends a line."""
    console = facts_console()
    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    for number, record in enumerate(records, start=1):
        console.print(f"record {number}: {_heading(record)}", markup=False, soft_wrap=True)
        for line in _lines(record):
            console.print(_line(line, coloured), soft_wrap=True)
        if record.tokens_left_out:
            console.print(f"  ({record.tokens_left_out:,} tokens of its middle are not shown)")
        console.print()


def _heading(record: Shown) -> str:
    learnt = f"label {record.label}" if record.label else f"{sum(record.learnt):,} learnt"
    if record.tokens_left_out:
        learnt = f"{sum(record.learnt):,} of those shown learnt"
    fate = f", {record.fate}" if record.fate else ""
    return printable(f"{record.source} ({record.kind}), {record.count:,} tokens, {learnt}{fate}")


def _lines(record: Shown) -> Iterator[list[Token]]:
    """The tokens that are not empty, in lines as the text has them."""
    line: list[Token] = []
    for text, learnt in zip(record.tokens, record.learnt, strict=True):
        if text:
            line.append((text, learnt))
        if text.endswith("\n"):
            yield line
            line = []
    if line:
        yield line


def _line(tokens: Iterable[Token], coloured: bool) -> Text:
    line = Text("  ")
    for number, (learnt, group) in enumerate(groupby(tokens, key=lambda token: token[1])):
        if number:
            line.append(BETWEEN, style=MARK if coloured else "")
        brackets = ("", "") if coloured or not learnt else (OPEN, CLOSE)
        line.append(brackets[0])
        for place, (text, _) in enumerate(group):
            if place:
                line.append(BETWEEN, style=MARK if coloured else "")
            line.append(readable(text), style=LEARNT if coloured and learnt else "")
        line.append(brackets[1])
    return line


def readable(text: str) -> str:
    """A token's text on one line."""
    return "".join(ESCAPES.get(letter) or printable(letter) for letter in text)


# --- figures ----------------------------------------------------------------------------------------


def print_survey(found: Survey, length: int) -> None:
    """Print the figures of the whole."""
    console = facts_console()
    for name, text in _figures(found, length):
        console.print(f"{name:<12}{printable(text)}", markup=False, soft_wrap=True)


def _figures(found: Survey, length: int) -> Iterator[tuple[str, str]]:
    """Names and sentences; a name is empty where a line goes on from the one above."""
    kinds = ", ".join(f"{count:,} {KINDS.get(kind, kind)}" for kind, count in found.kinds.items())
    yield "records", f"{found.records:,}: {kinds}"
    yield from (("", sentence) for sentence in found.files)
    share = f"; {found.learnt_tokens:,} are learnt ({found.learnt_tokens / max(found.tokens, 1):.1%})"
    yield "tokens", f"{found.tokens:,}{share if found.packed else ''}"
    yield from _lengths(found)
    if found.packed:
        yield from _sequences(found.packed)
    yield from _lost(found, length)
    yield from _named("repeated", f"{found.repeated:,} records repeat an earlier one", found.repeated_named)
    yield from _named("bad", f"{found.bad:,} records are malformed", found.bad_sentences)


def _sequences(packed: Packed) -> Iterator[tuple[str, str]]:
    says = f"{packed.count:,} of at most {packed.length:,} tokens (packing = {packed.packing}), {packed.full:.1%} full"
    yield "sequences", f"{says}; {packed.learnt_tokens:,} tokens are in the loss"
    if packed.empty:
        yield "", f"{packed.empty:,} more are left out: nothing is learnt in them"
    if packed.tail_tokens:
        yield "", f"{packed.tail_tokens:,} tokens behind the last cut are left out"


def _lengths(found: Survey) -> Iterator[tuple[str, str]]:
    ordered = found.lengths.copy()
    ordered.sort()
    middle, most = ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10]
    yield (
        "lengths",
        f"{ordered[0]:,} to {ordered[-1]:,} tokens; half of the records have {middle:,} or fewer, nine in ten "
        f"{most:,} or fewer",
    )
    bins = found.histogram
    largest = max(count for _, _, count in bins)
    wide = len(f"{bins[-1][1]:,}")
    for low, high, count in bins:
        bar = "#" * max(round(BAR_COLUMNS * count / largest), 1 if count else 0)
        yield "", f"{low:>{wide},} to {high:>{wide},} {count:>{len(f'{largest:,}')},} {bar}".rstrip()


def _lost(found: Survey, length: int) -> Iterator[tuple[str, str]]:
    if not found.causes and not found.notes:
        yield "lost", "nothing"
    name = "lost"
    for cause, count in found.causes.items():
        names = found.named.get(cause, ())
        more = ", …" if len(names) < count and names else ""
        where = f" ({', '.join(names)}{more})" if names else ""
        yield name, f"{count:,} records {cause}{where}"
        name = ""
    for note, count in found.notes.items():
        yield name, f"{count:,} {NOTES.get(note, note)}"
        name = ""


def _named(name: str, says: str, sentences: Sequence[str]) -> Iterator[tuple[str, str]]:
    if sentences:
        yield name, says
        yield from (("", sentence) for sentence in sentences)


def document(found: Survey, data: str, length: int) -> dict[str, Any]:
    """The document of ``--json``. Lengths are a histogram there as well."""
    fields = dataclasses.asdict(found)
    fields.pop("lengths")
    bins = [{"from": low, "to": high, "records": count} for low, high, count in found.histogram]
    return {"data": data, "sequence_length": length, "records": found.records, **fields, "lengths": bins}
