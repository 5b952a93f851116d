"""The Python interface with real nodes: two parties in one program, an interrupt, a failure, and what load gives."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import deca_node
from deca_node.protocol.errors import NoAnswerError
from tests.e2e.testbed import ROOT, Testbed, make_tiny_model, until
from tests.patience import PATIENCE_SECONDS

SETTINGS: dict[str, Any] = {
    "insecure": True,
    "threads": 1,
    "rounds": 1,
    "inner_steps": 4,
    "sequence_length": 16,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "topology": "full",
}
LONG: dict[str, Any] = SETTINGS | {"rounds": 10_000, "checkpoint_every": 1}
BLOCKS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def data(folder: Path, name: str) -> Path:
    return Testbed(folder, folder).data(name)


def test_two_parties_in_one_program(tmp_path: Path, model: Path) -> None:
    records: list[Any] = []
    names, peers = ("north", "south"), deca_node.local_peers("north", "south")
    nodes = [
        deca_node.Node(
            model,
            data(tmp_path, name),
            peers,
            name=name,
            dir=tmp_path / name,
            on_step=records.append,
            on_visit=records.append,
            on_evaluation=records.append,
            **SETTINGS,
        )
        for name in names
    ]
    results = deca_node.wait(*nodes, timeout=PATIENCE_SECONDS, progress=False)
    for name, result in zip(names, results, strict=True):
        mine = [record for record in records if record.node == name]
        steps = [record for record in mine if isinstance(record, deca_node.Step)]
        assert result.complete
        assert not result.alone
        assert steps == result.steps
        assert [record for record in mine if isinstance(record, deca_node.Evaluation)] == result.evaluations
        visits = [record for record in mine if isinstance(record, deca_node.Visit)]
        assert len(visits) == 2 * BLOCKS
        assert sum(visit.steps for visit in visits) == len(steps) == steps[-1].done
        assert [record.when for record in result.evaluations] == ["start", "round 1", "end"]
    (one, tokenizer), (other, _) = (result.load() for result in results)
    assert not one.training
    assert tokenizer("the node").input_ids
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    # Once more: the run is complete, and nothing trains.
    again = deca_node.tune(model, data(tmp_path, "north"), peers, name="north", dir=tmp_path / "north", **SETTINGS)
    assert again.complete


def test_a_party_joins_with_an_address_and_its_data(tmp_path: Path, model: Path) -> None:
    """No model, no run settings, no peers file: the member at the address gives them."""
    peers = deca_node.local_peers("north", "late")
    north = deca_node.Node(
        model, data(tmp_path, "north"), peers, name="north", dir=tmp_path / "north", wait_for=2, **SETTINGS
    )
    with north:
        until(lambda: north.look() is not None, "the first member to answer")
        addresses = [peer.partition("@")[2] for peer in peers]
        late = deca_node.Node(
            data=data(tmp_path, "late"),
            join=addresses[0],
            name="late",
            listen=addresses[1],
            dir=tmp_path / "late",
            insecure=True,
            threads=1,
        )
        results = deca_node.wait(north, late, timeout=PATIENCE_SECONDS, progress=False)
    assert all(result.complete and not result.alone for result in results)
    assert late.settings.run == north.settings.run
    (one, _), (other, _) = (result.load() for result in results)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_an_interrupt_stops_in_order_and_the_next_call_goes_on(tmp_path: Path, model: Path) -> None:
    def interrupt(step: deca_node.Step) -> None:
        if step.done > 5:
            raise KeyboardInterrupt

    path = data(tmp_path, "north")
    with pytest.raises(KeyboardInterrupt):
        deca_node.tune(model, path, [], dir=tmp_path / "out", on_step=interrupt, progress=False, **LONG)
    before = deca_node.Node(model, path, [], dir=tmp_path / "out", **LONG).result().steps[-1].done
    assert deca_node.load(tmp_path / "out", start_model=model).tokenizer
    node = deca_node.Node(model, path, [], dir=tmp_path / "out", **LONG)
    with node:
        assert node.status().name == "node"
        # A position is that of the step that comes next.
        until(lambda: (at := node.status().position) and at.done > before + 2, "a further step")
        messages = [event.message for event in node.events(last=100)]
        assert any("activation" in message or "checkpoint" in message for message in messages), messages
        assert node.pause() == "node pauses after the current step"
    assert node.state == "ended"
    assert not node.result().complete
    assert node.result().steps[-1].done > before
    with pytest.raises(NoAnswerError):
        node.status()


def test_a_node_that_fails_says_why(tmp_path: Path, model: Path) -> None:
    node = deca_node.Node(model, tmp_path / "none.jsonl", [], dir=tmp_path / "out", **SETTINGS)
    with pytest.raises(deca_node.NodeError, match="there is no data at") as failure:
        node.wait(timeout=PATIENCE_SECONDS, progress=False)
    assert failure.value.exit_code == 6
    assert node.state == "failed"


def test_a_node_that_stays_is_done(tmp_path: Path, model: Path) -> None:
    node = deca_node.Node(model, data(tmp_path, "north"), [], dir=tmp_path / "out", after_run="stay", **SETTINGS)
    with node:
        result = node.wait(timeout=PATIENCE_SECONDS, progress=False)
        assert result.complete
        assert node.state == "running"
    assert node.state == "ended"


KILLED = """
import os, signal
import deca_node
def end(step):
    os.kill(os.getpid(), signal.SIGKILL)
deca_node.tune({model!r}, {data!r}, [], dir="out", on_step=end, **{settings!r})
"""


def test_a_node_stops_in_order_when_its_program_is_killed(tmp_path: Path, model: Path) -> None:
    code = KILLED.format(model=str(model), data=str(data(tmp_path, "north")), settings=LONG)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    output = tmp_path / "out" / "output.log"
    until(lambda: "stopped" in output.read_text().splitlines()[-1], "the node's last line")
    assert "stopping after the current step" in output.read_text()
    assert any((tmp_path / "out" / "checkpoints").iterdir())
