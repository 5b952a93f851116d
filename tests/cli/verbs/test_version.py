"""``deca-node version --check``: whether the installed version could go on with a run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deca_node import __version__
from deca_node.cli.verbs.version import numbers
from deca_node.protocol.agreed.agreement import settings_fields
from deca_node.protocol.agreed.run import RunSettings

Deca = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]


def node(**fields: str) -> Path:
    folder = Path("deca-data/north")
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    agreement = settings_fields(RunSettings()) | {"model": "ab", "blocks": "body:4", **fields}
    (folder / "run.json").write_text(json.dumps({"fingerprint": "f" * 64, "agreement": agreement}))
    return folder


def test_the_numbers_are_those_of_the_page_on_compatibility(deca: Deca) -> None:
    outcome = deca("version", "--check")
    assert outcome.code == 0
    assert "updates       protocol 2\n" in outcome.out
    page = (ROOT / "docs" / "COMPATIBILITY.md").read_text()
    assert "protocol of updates | the number in every greeting (2 now)" in page
    assert "likewise (1 and 1 now)" in page
    assert numbers() == {
        "updates": "protocol 2",
        "membership": "protocol 1",
        "fetching": "protocol 1",
        "checkpoints": "format 1",
    }


def test_a_folder_from_which_this_version_can_go_on(deca: Deca) -> None:
    node()
    found = json.loads(deca("version", "--check", "--json").out)
    assert (found["deca-node"], found["running node"], found["checkpoint"]) == (__version__, "none", "none yet")


def test_settings_of_a_later_version_are_named(deca: Deca) -> None:
    node(warp="9")
    outcome = deca("version", "--check", "--dir", "deca-data/north")
    assert outcome.code == 13
    assert "has settings that this version does not know: warp; go on with the version that began it" in outcome.err


def test_a_checkpoint_of_another_format_is_named(deca: Deca) -> None:
    checkpoint = node() / "checkpoints" / "000001-00000"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text(json.dumps({"format": 7}))
    outcome = deca("version", "--check")
    assert outcome.code == 13
    assert re.search(r"its format is 7, and this version reads 1; this version cannot go on", outcome.err)


def test_a_folder_that_is_not_there(deca: Deca) -> None:
    outcome = deca("version", "--check", "--dir", "nowhere")
    assert (outcome.code, "there is no folder nowhere" in outcome.err) == (3, True)
