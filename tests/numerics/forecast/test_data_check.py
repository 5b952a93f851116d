"""The first records are looked at before torch is imported, so that a wrong file is told at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.numerics.forecast.data_check import FIRST_RECORDS, first_look, known_labels
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import DataError
from deca_node.protocol.options import TrainerOptions

LABELLED = RunSettings(task="classification", labels="good, bad")


def options(data: Path, run: RunSettings = LABELLED, **settings: str) -> TrainerOptions:
    return trainer_options(run, NodeSettings(name="north", model="model", data=str(data), dir="north", **settings))


def records(path: Path, *labels: str) -> Path:
    path.write_text("".join(json.dumps({"text": "a stay", "label": label}) + "\n" for label in labels))
    return path


def test_an_unknown_label_is_refused_in_its_line(tmp_path: Path) -> None:
    data = records(tmp_path / "d.jsonl", "good", "goood")
    with pytest.raises(DataError, match=r"d\.jsonl line 2: .*none of the run's labels"):
        first_look(options(data))
    first_look(options(data, bad_records="skip"))


def test_texts_are_looked_at_too_and_only_the_first_of_many(tmp_path: Path) -> None:
    data = records(tmp_path / "d.jsonl", *["good"] * FIRST_RECORDS)
    first_look(options(data, RunSettings()))
    with data.open("a") as file:
        file.write("broken\n")
    first_look(options(data, RunSettings()))
    data.write_text("broken\n")
    with pytest.raises(DataError, match="line 1"):
        first_look(options(data, RunSettings()))


def test_labels_that_only_the_hub_knows_are_left_to_the_trainer(tmp_path: Path) -> None:
    run = RunSettings(task="classification")
    assert known_labels(run, "someone/model") is None
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"1": "bad", "0": "good"}}))
    assert known_labels(run, str(tmp_path)) == ("good", "bad")
    first_look(options(tmp_path / "missing.jsonl", run))


def test_torch_is_not_needed() -> None:
    code = "import sys, deca_node.numerics.forecast.data_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
