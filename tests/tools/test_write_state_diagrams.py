"""The pictures of state machines: drawn from tables, and put between two comments of a page."""

from enum import StrEnum

import pytest

from tools.write_state_diagrams import PAGES, ROOT, TOOL, changes, picture, with_pictures


class Light(StrEnum):
    RED = "red"
    AMBER = "amber"
    GREEN = "green"


class Why(StrEnum):
    GO = "cars wait"
    STOP = "people wait"
    FAULT = "a lamp is broken"


FOUND = [
    (Light.RED, Why.GO, Light.GREEN),
    (Light.RED, Why.FAULT, Light.AMBER),
    (Light.AMBER, Why.FAULT, Light.AMBER),
    (Light.GREEN, Why.STOP, Light.RED),
    (Light.GREEN, Why.FAULT, Light.AMBER),
    (Light.AMBER, Why.GO, Light.RED),
    (Light.AMBER, Why.GO, Light.GREEN),
]


def test_states_that_change_alike_share_a_line() -> None:
    assert picture(FOUND).splitlines() == [
        "RED   -- cars wait ---------> GREEN",
        "AMBER -- cars wait ---------> RED or GREEN",
        "GREEN -- people wait -------> RED",
        "(any) -- a lamp is broken --> AMBER",
    ]


def test_most_states_are_named_by_those_that_are_missing() -> None:
    most = [(light, Why.GO, Light.RED) for light in Light if light is not Light.RED]
    assert picture([*most, (Light.RED, Why.STOP, Light.RED)]).splitlines()[0] == (
        "AMBER, GREEN -- cars wait ----> RED"
    ), "as long as that is no longer than their own names"


@pytest.mark.parametrize("machine", PAGES)
def test_every_picture_stands_once_in_its_page_with_all_states(machine: str) -> None:
    page = (ROOT / "docs" / PAGES[machine]).read_text(encoding="utf-8")
    drawn = page.partition(f"<!-- {machine}: begin")[2].partition(f"<!-- {machine}: end")[0]
    states = {state.name for before, _, after in changes()[machine] for state in (before, after) if state is not None}
    assert [state for state in states if state not in drawn] == []


def test_a_page_keeps_what_stands_around_its_picture() -> None:
    page = f"before\n<!-- edge: begin; written by {TOOL} -->\nold\n<!-- edge: end -->\nafter\n"
    drawn = with_pictures(page, ["edge"])
    assert drawn.startswith("before\n<!-- edge: begin") and drawn.endswith("<!-- edge: end -->\nafter\n")
    assert "OFFERED" in drawn and "old" not in drawn
    assert with_pictures(drawn, ["edge"]) == drawn


def test_a_page_without_the_comments_is_an_error() -> None:
    with pytest.raises(SystemExit, match="the page of the edge must have the comments"):
        with_pictures("nothing", ["edge"])
