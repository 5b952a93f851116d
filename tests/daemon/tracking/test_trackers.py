"""Trackers get the node's numbers, in a process of their own, and never hold up the node."""

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deca_node.daemon.logs import log
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.tracking import relay
from deca_node.daemon.tracking.choice import trackers
from deca_node.daemon.tracking.relay import Relay
from deca_node.daemon.tracking.services import SERVICES, Begin, MLflow, WandB
from deca_node.daemon.tracking.tensorboard import TensorBoard
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError, StorageError
from tests.e2e.testbed import ROOT
from tests.patience import PATIENCE_SECONDS

RECORDER = """
import json, os

def note(*words):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(words) + "\\n")

class Settings(dict):
    def __init__(self, **given):
        super().__init__(given)

class Run:
    def define_metric(self, *words, **more):
        note("define", *words, more)
    def log(self, figures):
        note("log", figures)
    def finish(self):
        note("finish")

def init(**given):
    note("init", given)
    return Run()
"""
"""What is used of the package wandb, as a recorder. It stands for the service in a process of its own."""


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.WARNING, "deca")
    return lambda: [record.getMessage() for record in caplog.records]


def begin(folder: Path) -> Begin:
    return Begin("wards", "demo", "north", "north-1234", str(folder), {"rounds": 2})


def environment(folder: Path, code: str) -> Mapping[str, str]:
    """A child process's environment in which ``wandb`` is this code."""
    (folder / "packages").mkdir()
    (folder / "packages" / "wandb.py").write_text(code)
    path = os.pathsep.join([str(folder / "packages"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "NOTES": str(folder / "notes")}


def test_numbers_reach_the_service_in_their_order(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    tracker = Relay("wandb", begin(tmp_path), environment(tmp_path, RECORDER))
    for step in range(300):
        tracker.add("step", {"loss": 3.0 - step, "where": "a text", "big": 1e300}, step)
    tracker.add("eval", {"loss": float("nan")}, 300)
    tracker.close()
    tracker.finish(PATIENCE_SECONDS)
    first, *notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert first[0] == "init"
    wanted = {"project": "wards", "group": "demo", "name": "north", "id": "north-1234", "resume": "allow"}
    assert wanted.items() <= first[1].items()
    assert first[1]["config"] == {"rounds": 2}
    assert first[1]["settings"]["x_disable_meta"] is True
    logged = [note[1] for note in notes if note[0] == "log"]
    assert len(logged) == 301
    assert logged[17] == {"steps done": 17, "step/loss": -14.0, "step/big": 1e300}
    assert notes[-1] == ["finish"]
    assert warnings() == []


def test_a_service_that_fails_costs_curves_and_no_more(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    code = "class Settings:\n    def __init__(self, **_): pass\ndef init(**_): raise ValueError('no\\n key')\n"
    tracker = Relay("wandb", begin(tmp_path), environment(tmp_path, code))
    tracker._process.wait(PATIENCE_SECONDS)
    for step in range(3):
        tracker.add("step", {"loss": 1.0}, step)
    tracker.close()
    tracker.finish(PATIENCE_SECONDS)
    (warning,) = warnings()
    assert warning.startswith("curves no longer go to wandb: ValueError: no key (see ")
    assert warning.endswith("training goes on")


def test_a_service_that_is_slow_loses_numbers_and_never_holds_up_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    os.mkfifo(tmp_path / "gate")
    code = RECORDER.replace(
        "def init(**given):\n", f"def init(**given):\n    open({str(tmp_path / 'gate')!r}).close()\n"
    )
    monkeypatch.setattr(relay, "WAITING_BYTES_MAX", 100_000)
    tracker = Relay("wandb", begin(tmp_path), environment(tmp_path, code))
    for step in range(20_000):
        tracker.add("step", {"loss": 1.0}, step)
    (warning,) = warnings()
    assert "wandb takes the curves more slowly than they come; some are lost" in warning
    assert len(tracker._waiting) < 200_000
    (tmp_path / "gate").open("w").close()
    tracker.finish(PATIENCE_SECONDS)
    notes = (tmp_path / "notes").read_text().splitlines()
    assert 100 < len(notes) < 20_000
    assert json.loads(notes[-1]) == ["finish"]


def test_mlflow_begins_once_and_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def call(name: str) -> Callable[..., Any]:
        def record(*words: Any, **more: Any) -> Any:
            calls.append((name, words, more))
            return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

        return record

    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(**{name: call(name) for name in names}))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracker.example")
    service = MLflow(begin(tmp_path))
    service.add({"step/loss": 2.0, "step/norm": float("inf")}, 5)
    service.add({"step/norm": float("nan")}, 6)
    service.close()
    assert [name for name, _, _ in calls] == ["set_experiment", "start_run", "log_params", "log_metrics", "end_run"]
    assert calls[0][1] == ("wards",)
    assert calls[1][2]["tags"]["mlflow.user"] == "north"
    assert calls[3][1:] == (({"step/loss": 2.0},), {"step": 5})
    calls.clear()
    MLflow(begin(tmp_path))
    assert [(name, more) for name, _, more in calls] == [("set_experiment", {}), ("start_run", {"run_id": "abc"})]


def test_mlflow_without_an_address_writes_into_the_nodes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")
    fake = SimpleNamespace(set_experiment=lambda _: None, start_run=lambda **_: None)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    (tmp_path / "mlflow-run").write_text("abc\n")
    MLflow(begin(tmp_path))
    assert os.environ["MLFLOW_TRACKING_URI"] == (tmp_path / "mlruns").as_uri()
    assert os.environ["MLFLOW_ALLOW_FILE_STORE"] == "true"


@pytest.mark.parametrize("service", sorted(SERVICES))
@pytest.mark.slow
def test_the_real_services_offline(service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is installed, the real package writes its offline files."""
    pytest.importorskip(service, reason=f"the extra {service} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    tracker = Relay(service, begin(tmp_path), {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)})
    tracker.add("step", {"loss": 1.5}, 1)
    tracker.finish(PATIENCE_SECONDS)
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb" if service == "wandb" else "mlruns/*/*/metrics/step/loss"))


# --- what the settings ask for --------------------------------------------------------------------------


def test_the_setting_is_a_list_of_known_names() -> None:
    assert NodeSettings(track="wandb, mlflow,wandb").trackers == ("wandb", "mlflow")
    assert NodeSettings(tensorboard="curves", track="wandb").trackers == ("tensorboard", "wandb")
    with pytest.raises(SettingsError, match="track = 'wand' is not one of tensorboard, wandb, mlflow; did you mean 'w"):
        NodeSettings(track="wand")


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'deca-node\[mlflow\]'"):
        trackers(NodeSettings(track="mlflow"), "north", RunSettings(), tmp_path)


def test_nothing_is_begun_that_was_not_asked_for(tmp_path: Path) -> None:
    made = trackers(NodeSettings(), "north", RunSettings(), tmp_path)
    made.add("step", {"loss": 1.0}, 1)
    made.close()
    made.finish()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_by_name_writes_into_the_nodes_folder(tmp_path: Path) -> None:
    made = trackers(NodeSettings(track="tensorboard"), "north", RunSettings(), tmp_path)
    made.add("step", {"loss": 1.0}, 1)
    made.close()
    assert len(list((tmp_path / "track" / "tensorboard").iterdir())) == 1
    assert isinstance(made._receivers[0], TensorBoard)


def test_a_service_gets_settings_and_a_name_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Begin] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    monkeypatch.setattr("deca_node.daemon.tracking.choice.Relay", lambda _service, begin: begun.append(begin))
    for _ in range(2):
        trackers(NodeSettings(track="wandb", track_project="wards"), "[::1]:7001", RunSettings(), tmp_path)
    first, second = begun
    assert first == second
    assert first.project == "wards"
    assert first.id.startswith("---1--7001-")
    assert str(tmp_path) not in json.dumps(dict(first.settings))


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: True)
    (tmp_path / "track").write_text("in the way")
    with pytest.raises(StorageError, match="no curves can go to wandb"):
        trackers(NodeSettings(track="wandb"), "north", RunSettings(), tmp_path)


def test_both_services_are_known() -> None:
    assert {"wandb": WandB, "mlflow": MLflow} == SERVICES
