"""``deca-node debug``: secrets that were strewn everywhere are nowhere in the bundle, and facts are."""

import gzip
import json
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deca_node.daemon.security.certificates import TlsFiles
from tests.daemon.conftest import Federation
from tests.daemon.web.fake_admin import FakeAdmin, RunningAdmin

Deca = Callable[..., Any]
FOLDER = Path("deca-data") / "north"
TOKEN = "3f9c1b7a5d2e4f60"
RECORD = "Mrs. Example was seen in clinic today"


@pytest.fixture
def files(deca: Deca, tmp_path: Path) -> TlsFiles:
    federation = Federation(tmp_path / "federation")
    return federation.node("north", federation.begin())


@pytest.fixture
def folder(files: TlsFiles) -> Path:
    """A node's folder, with a token, a key and a record of its data near everything that is read."""
    key = files.key.read_text()
    (FOLDER / "start").mkdir(parents=True)
    (FOLDER / "lock").touch()
    Path("token").write_text(TOKEN + "\n")
    Path("north.jsonl").write_text(json.dumps({"text": RECORD}) + "\n")
    values = {"name": "north", "tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca, "http_token": "token"}
    node = {name: {"value": str(value), "unit": "", "where": "node.toml"} for name, value in values.items()}
    node["data"] = {"value": "north.jsonl", "unit": "", "where": "--data"}
    (FOLDER / "settings.json").write_text(json.dumps({"run": {}, "node": node}))
    (FOLDER / "run.json").write_text(json.dumps({"agreement": {"rounds": "4"}, "note": f"token={TOKEN}"}))
    (FOLDER / "metrics.jsonl").write_text(json.dumps({"kind": "step", "loss": 2.5, "oops": key}) + "\n")
    line = {"time": 1.0, "level": "error", "message": f"the answer was Bearer {TOKEN}; out of memory"}
    (FOLDER / "node.log").write_text(json.dumps(line) + "\n")
    (FOLDER / "start" / "embedding.safetensors").write_bytes(b"weights of the embedding")
    (FOLDER / "north.key").write_text(key)
    return FOLDER


@pytest.fixture
def running(folder: Path, files: TlsFiles) -> Iterator[RunningAdmin]:
    door = FakeAdmin(warning=f"somebody asked with Bearer {TOKEN}")
    made = RunningAdmin(folder, door)
    made.say(f"the key is {files.key.read_text()}")
    made.say("round 1/4  block 1/5")
    yield made
    made.close()


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        found = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file}


@pytest.mark.usefixtures("running")
def test_no_secret_is_in_it(deca: Deca, files: TlsFiles) -> None:
    outcome = deca("debug", "north.tar.gz")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("13 files are in north.tar.gz.")
    raw = gzip.decompress(Path("north.tar.gz").read_bytes())
    key = files.key.read_text()
    secrets = [TOKEN, RECORD, "weights of the embedding", *(line for line in key.splitlines() if "-----" not in line)]
    assert [secret for secret in secrets if secret.encode() in raw] == []
    assert b"PRIVATE KEY" not in raw
    assert stat.S_IMODE(Path("north.tar.gz").stat().st_mode) == 0o600


@pytest.mark.usefixtures("running")
def test_the_facts_are_in_it(deca: Deca, files: TlsFiles) -> None:
    assert deca("debug", "north.tar.gz").code == 0
    found = unpacked(Path("north.tar.gz"))
    assert json.loads(found["status.json"])["name"] == "north"
    assert [row["name"] for row in json.loads(found["members.json"])] == ["north", "south"]
    assert "round 1/4  block 1/5" in found["events.jsonl"]
    assert json.loads(found["settings.json"])["node"]["data"] == {
        "value": "north.jsonl",
        "unit": "",
        "where": "--data",
    }
    assert json.loads(found["versions.json"])["deca-node"]
    assert json.loads(found["metrics-tail.jsonl"])["loss"] == 2.5
    assert json.loads(found["log-tail.jsonl"])["message"].endswith("out of memory")
    certificate = json.loads(found["certificates.json"])["certificate"]["chain"][0]
    assert certificate["fingerprint"].startswith("sha256:") and certificate["valid_until"].endswith("UTC")
    listing = {entry["path"]: entry for entry in json.loads(found["listing.json"])}
    assert listing["start/embedding.safetensors"]["bytes"] == len(b"weights of the embedding")
    removed = found["README.txt"].partition("Removed from these files: ")[2].partition(".\n")[0].split(", ")
    assert sorted(removed) == ["a known secret (1 times)", "a private key (2 times)", "a token (2 times)"]
    assert "status.json" in found["README.txt"]


@pytest.mark.usefixtures("folder")
def test_a_node_that_has_ended(deca: Deca) -> None:
    outcome = deca("debug", "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 0
    assert found["problem"].startswith("no node runs in deca-data/north")
    assert found["path"].startswith("deca-debug-north-")
    assert "status.json" not in found["files"] and "listing.json" in found["files"]
    assert found["files"] == list(unpacked(Path(found["path"])))


@pytest.mark.usefixtures("folder")
def test_nothing_is_overwritten(deca: Deca) -> None:
    Path("mine").write_text("my notes")
    outcome = deca("debug", "mine")
    assert (outcome.code, outcome.err) == (10, "error: mine exists already; give the name of a new file\n")
    assert Path("mine").read_text() == "my notes"
    assert deca("debug", "nowhere/out.tar.gz").code == 10


def test_a_folder_that_knows_nothing(deca: Deca) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "lock").touch()
    assert deca("debug", "out.tar.gz").code == 0
    assert "cannot be read" in unpacked(Path("out.tar.gz"))["certificates.json"]
    assert deca("debug", "--dir", "nowhere") == (12, "", "error: there is no folder nowhere\n")
