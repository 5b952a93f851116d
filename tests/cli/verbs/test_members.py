"""``members``, against a node behind a real socket."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

Deca = Callable[..., Any]


@pytest.mark.usefixtures("running")
def test_members(deca: Deca) -> None:
    out = deca("members").out
    assert re.search(r"north +127.0.0.1:7001 +alive +activation 0 +1f +2", out)
    assert re.search(r"south +127.0.0.1:7002 +suspect +not yet +5 +0", out)


@pytest.mark.usefixtures("running")
def test_json_is_the_nodes_own(deca: Deca) -> None:
    assert [row["name"] for row in json.loads(deca("members", "--json").out)] == ["north", "south"]
