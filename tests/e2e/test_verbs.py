"""The verbs that look at nodes, against real ones: what doctor, top, debug, eval and export make of a run under way."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from deca_node.cli.main import main
from deca_node.daemon.diagnosis.preflight import folder_size
from deca_node.lab.rigs.processes import LOOPBACK, free_ports
from tests.e2e.testbed import Testbed, ask, look
from tests.patience import PATIENCE_SECONDS

LONG = {"--rounds": "500", "--inner-steps": "8"}
"""More than the test waits for."""
RUN = LONG | {"--sequence-length": "16", "--batch-size": "2", "--learning-rate": "0.001", "--topology": "full"}


def asked(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    """What a verb says as JSON."""
    capsys.readouterr()
    assert main([*(str(word) for word in words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def doctor(testbed: Testbed, capsys: pytest.CaptureFixture[str], code: int = 0, **changes: str) -> dict[str, Any]:
    """Findings by check, for a newcomer to the run."""
    own = {"--name": "west", "--listen": f"{LOOPBACK}:{free_ports(1)[0]}", "--model": testbed.model}
    own |= {"--data": testbed.data("west"), "--peers": testbed.folder / "peers.txt", "--device": "cpu"}
    flags = own | RUN | {"--" + name.replace("_", "-"): value for name, value in changes.items()}
    words = [word for pair in flags.items() for word in pair]
    found = asked(capsys, "doctor", "--insecure", "--load", *words, code=code)
    return {finding["check"]: finding for finding in found["findings"]}


@pytest.mark.slow
def test_a_run_under_way(testbed: Testbed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(testbed.folder)
    testbed.peers("north", "south")
    north, south = (testbed.start(name, rounds=500, inner_steps=8) for name in ("north", "south"))
    for node in (north, south):
        look(node, lambda status: status.checkpoint.activation is not None, "a checkpoint")

    found = doctor(testbed, capsys)
    assert {finding["verdict"] for finding in found.values()} == {"ok"}
    assert abs(found["clock"]["facts"]["offsets_seconds"]["north"]) < PATIENCE_SECONDS
    assert folder_size(north.directory) < found["disk"]["facts"]["needed_bytes"]
    other = doctor(testbed, capsys, code=13, learning_rate="0.002")
    assert {check for check, finding in other.items() if finding["verdict"] == "failed"} == {"peer north", "peer south"}
    assert "learning_rate is 0.002 at this node and 0.001 at north" in other["peer north"]["says"]

    rows = asked(capsys, "top", "--dir", north.directory, "--every", "2")["peers"]
    assert [row["name"] for row in rows] == ["south"]
    assert rows[0]["sent_bytes_per_second"] > 0 and rows[0]["received_bytes_per_second"] > 0

    bundle = asked(capsys, "debug", "--dir", north.directory, "north.tar.gz")
    assert bundle["problem"] == "" and {"status.json", "events.jsonl", "settings.json"} <= set(bundle["files"])
    with tarfile.open("north.tar.gz") as tar:
        settings = json.load(tar.extractfile("north/settings.json"))  # type: ignore[arg-type]
    assert settings["run"]["rounds"] == {"value": 500, "unit": "", "where": "--rounds"}

    for node in (north, south):
        ask(node, "stop")
        assert node.process.wait(PATIENCE_SECONDS) == 0
    mean = asked(capsys, "export", "--average", "mean", north.directory, south.directory)
    assert mean["copies"] == 2 and Path("mean/model.safetensors").is_file()
    data = testbed.data("north")
    losses = {
        name: asked(capsys, "eval", data, *flags)["loss"]
        for name, flags in (
            ("start", ("--model", testbed.model, "--sequence-length", "16")),
            ("node", ("--dir", north.directory)),
            ("mean", ("--model", "mean", "--sequence-length", "16")),
        )
    }
    assert losses["node"] < losses["start"] and losses["mean"] < losses["start"]
