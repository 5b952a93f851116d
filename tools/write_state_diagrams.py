"""Writes the pictures of the state machines into docs/ from their tables; with --check, only says whether they are up
to date.

A line of a picture has the states before, the reason of the change, and the state after::

    CONNECTING, WAITING -- a step is left --> STEPPING

States that change for the same reason into the same state share a line. A page has a picture between two comments with
the name of its machine.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The tool runs from a checkout that is not installed.
from deca_node.protocol.membership.changes import MEMBER_STATES, UNKNOWN  # noqa: E402
from deca_node.protocol.node.phases import NODE_PHASES  # noqa: E402
from deca_node.protocol.visit.phases import EDGE_STATES, VISIT_PHASES  # noqa: E402

Change = tuple[Any, Any, Any]
"""The state before, the reason of the change (a member of the machine's enumeration), and the state after."""

TOOL = "tools/write_state_diagrams.py"
PAGES = {"node": "ARCHITECTURE.md", "visit": "ARCHITECTURE.md", "edge": "ARCHITECTURE.md", "member": "MEMBERSHIP.md"}
"""The page that shows each machine."""


def changes() -> dict[str, list[Change]]:
    """The changes of every machine, in the order of its table."""
    machines = {table.machine: _by_cause(table.rows) for table in (NODE_PHASES, VISIT_PHASES, EDGE_STATES)}
    # The news are the state after; the table says what they mean.
    news = [(before, change, after) for before, row in MEMBER_STATES.rows.items() for after, change in row.items()]
    return machines | {MEMBER_STATES.machine: news}


def _by_cause(rows: Mapping[Any, Mapping[Any, Any]]) -> list[Change]:
    return [(before, cause, after) for before, row in rows.items() for cause, after in row.items()]


def picture(found: Sequence[Change]) -> str:
    """One line for each reason and its outcome, in the order of the reasons."""
    every = list(dict.fromkeys(before for before, _, _ in found))
    lines: dict[tuple[str, tuple[Any, ...]], list[Any]] = {}
    for reason in type(found[0][1]):
        for before in every:
            after = tuple(to for state, why, to in found if (state, why) == (before, reason))
            if after:
                lines.setdefault((reason, after), []).append(before)
    shown = [(_states(before, every), reason, after) for (reason, after), before in lines.items()]
    left, middle = max(len(states) for states, _, _ in shown), max(len(reason) for _, reason, _ in shown)
    return "".join(
        f"{states.ljust(left)} {f'-- {reason} '.ljust(middle + 4, '-')}--> {' or '.join(map(_name, after))}\n"
        for states, reason, after in shown
    )


def _states(some: Sequence[Any], every: Sequence[Any]) -> str:
    """The names of the states, or of those that are missing if that is shorter."""
    named = ", ".join(map(_name, some))
    missing = [state for state in every if state not in some]
    rest = f"(any but {', '.join(map(_name, missing))})" if missing else "(any)"
    return min(named, rest, key=len) if len(some) > 1 else named


def _name(state: Any) -> str:
    return "(unknown)" if state is UNKNOWN else state.name


def with_pictures(text: str, machines: Iterable[str]) -> str:
    """The page with its present pictures. Raises SystemExit if the comments of one are missing."""
    found = changes()
    for machine in machines:
        begin, end = f"<!-- {machine}: begin; written by {TOOL} -->\n", f"<!-- {machine}: end -->\n"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(
                f"the page of the {machine} must have the comments {begin.strip()} and {end.strip()}, once"
            )
        before, _, rest = text.partition(begin)
        after = rest.partition(end)[2]
        text = f"{before}{begin}\n```\n{picture(found[machine])}```\n\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write the pictures, or check them. Returns 1 if one is stale."""
    stale = []
    for name in dict.fromkeys(PAGES.values()):
        path = ROOT / "docs" / name
        text = path.read_text(encoding="utf-8")
        page = with_pictures(text, (machine for machine, shown_in in PAGES.items() if shown_in == name))
        if page != text:
            stale.append(name)
            if arguments != ["--check"]:
                path.write_text(page, encoding="utf-8")
    if arguments != ["--check"] or not stale:
        return 0
    print(f"Pictures of state machines are stale in {', '.join(stale)}; run: make docs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
