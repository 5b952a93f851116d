"""``demo``: what it makes before any node starts. Whole demos run in the slow tests and when a release is checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deca_node.lab.demo import demo
from tests.lab.demo.test_toy_model import TINY

Deca = Callable[..., Any]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is made in a second."""
    make = demo.make_toy_model
    monkeypatch.setattr(demo, "make_toy_model", lambda folder, _, progress: make(folder, TINY, progress))


@pytest.mark.usefixtures("_small")
def test_a_model_and_texts_without_any_training(deca: Deca) -> None:
    kept = Path("deca-demo/together/north/final")
    kept.mkdir(parents=True)
    outcome = deca("demo", "--prepare", "--nodes", "2")
    assert (outcome.code, outcome.err) == (0, "")
    assert "The model is in deca-demo/model" in outcome.out.replace("\n", " ")
    assert Path("deca-demo/model/model.safetensors").exists()
    assert len(list(Path("deca-demo/data").glob("*.jsonl"))) == 2
    assert kept.exists(), "the results of an earlier demo stay"
    again = deca("demo", "--prepare", "--nodes", "2")
    assert "(made before)" in again.out


def test_a_testbed_is_not_prepared(deca: Deca) -> None:
    outcome = deca("demo", "--prepare", "--testbed")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--testbed starts nodes, and --prepare starts none" in outcome.err
