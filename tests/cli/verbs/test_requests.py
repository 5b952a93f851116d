"""The requests, against a node behind a real socket."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from deca_node.daemon.status.facts import Verb
from tests.daemon.web.fake_admin import FakeAdmin

Deca = Callable[..., Any]


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("verb", list(Verb))
def test_requests(deca: Deca, door: FakeAdmin, verb: Verb) -> None:
    assert deca(verb.value)[:2] == (0, f"{verb} will be done\n")
    door.refusal = "the run is over"
    assert deca(verb.value) == (1, "", "error: the run is over\n")
    assert door.asked == [verb, verb]


@pytest.mark.usefixtures("running")
def test_json_holds_the_sentence(deca: Deca) -> None:
    assert json.loads(deca("pause", "--json").out) == {"sentence": "pause will be done"}
