"""The messages keep what the oldest version that may take part knows of them (docs/OPERATIONS.md names it).

``earlier_messages.txt`` holds its fields, one per line: message, number, type, name, and the choice it belongs to.
`tests/e2e/test_upgrade.py` runs that version itself, which takes minutes and the history.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from deca_node.daemon.wire_pb import control_pb2, exchange_pb2, membership_pb2, transfer_pb2

EARLIER = (Path(__file__).parent / "earlier_messages.txt").read_text().splitlines()
FILES: tuple[Any, ...] = tuple(
    module.DESCRIPTOR for module in (control_pb2, exchange_pb2, membership_pb2, transfer_pb2)
)
TYPES = {
    number: name.removeprefix("TYPE_").lower() for name, number in vars(FieldDescriptor).items() if name[:5] == "TYPE_"
}


def fields(message: Descriptor) -> Iterator[str]:
    """One line per field of a message and of the messages in it."""
    for each in message.fields:
        named = each.message_type or each.enum_type
        kind = named.full_name if named else TYPES[each.type]
        repeated = "repeated " if each.is_repeated else ""
        # protobuf makes a choice of one, named after the field, of every field that is `optional`.
        chosen = each.containing_oneof and each.containing_oneof.name != f"_{each.name}"
        choice = f" in {each.containing_oneof.name}" if chosen else ""
        yield f"{message.full_name} {each.number} {repeated}{kind} {each.name}{choice}"
    for inner in message.nested_types:
        yield from fields(inner)


def today() -> set[str]:
    """What `earlier_messages.txt` would hold of this version."""
    lines: set[str] = set()
    for file in FILES:
        for message in file.message_types_by_name.values():
            lines |= set(fields(message))
        for enum in file.enum_types_by_name.values():
            lines |= {f"{enum.full_name} = {value.number} {value.name}" for value in enum.values}
        for service in file.services_by_name.values():
            for method in service.methods:
                path = f"/{service.full_name}/{method.name}"
                lines.add(f"{path}: {method.input_type.full_name} -> {method.output_type.full_name}")
    return lines


def breaks(lines: set[str]) -> list[str]:
    """What an earlier node could not bear: fields that are gone or different, new bodies, new fields of a Chunk."""
    gone = [line for line in EARLIER if line not in lines]
    known = {line.split()[0] for line in EARLIER}
    new = [line for line in lines - set(EARLIER) if line.split()[0] in known]
    return gone + [line for line in new if " in " in line or line.split()[0].endswith(".Chunk")]


def test_no_field_was_taken_away_or_changed() -> None:
    assert len(EARLIER) > 100
    assert breaks(today()) == []


def test_what_breaks_is_noticed() -> None:
    (chunk,) = [line for line in EARLIER if line.split()[0].endswith(".Chunk") and line.split()[1] == "1"]
    other = chunk.replace(" 1 ", " 99 ")
    assert breaks(today() - {chunk}) == [chunk]
    assert breaks(today() | {other}) == [other]
    body = next(line for line in EARLIER if " in " in line)
    assert breaks(today() | {f"{body.split()[0]} 98 string x in body"}) == [f"{body.split()[0]} 98 string x in body"]
