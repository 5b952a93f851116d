"""``deca-node push``: the card says what is true of the run and nothing of the parties; the hub is a recorder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Deca = Callable[..., Any]

STEP = {"kind": "step", "time": 1.0, "node": "north", "round": 0, "block": 0, "inner": 0, "step_seconds": 0.1}
EVALUATION = {"kind": "eval", "time": 1.0, "node": "north", "tokens": 64}


class FakeHub:
    """Takes what HfApi would send."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls

    def create_repo(self, repo: str, **how: Any) -> str:
        self.calls.append(("create_repo", repo, how))
        return f"https://hub.example/{repo}"

    def create_commit(self, repo: str, operations: Any, commit_message: str) -> None:
        self.calls.append(("create_commit", repo, {each.path_in_repo: each for each in operations}, commit_message))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: FakeHub(calls))
    return calls


@pytest.fixture
def folder(deca: Deca, tiny: Path) -> Path:
    node = Path("deca-data") / "north"
    shutil.copytree(tiny, node / "final")
    (node / "lock").touch()
    agreed = {"task": "causal-lm", "rounds": "4", "edges": "north-south", "run_name": "secret-ward", "model": "ab12"}
    (node / "run.json").write_text(json.dumps({"agreement": agreed, "start_model": "/home/ann/Qwen"}))
    (node / "page.json").write_text(json.dumps({"map": {"members": ["north", "south", "east"]}}))
    lines = [
        EVALUATION | {"when": "start", "loss": 3.5, "ordinal": 0},
        STEP | {"ordinal": 0, "loss": 3.0},
        STEP | {"ordinal": 95, "loss": 2.0},
        EVALUATION | {"when": "end", "loss": 2.25, "ordinal": 96},
    ]
    (node / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return node


def card_of(deca: Deca, folder: Path, *flags: str) -> str:
    outcome = deca("push", "wards/notes", "--dry-run", *flags)
    assert (outcome.code, outcome.err) == (0, "")
    return (folder / "model_card.md").read_text()


def test_a_dry_run_writes_the_card_and_lists_the_files(deca: Deca, folder: Path, hub: list[Any]) -> None:
    (folder / "final" / "deca.json").write_text('{"alone": ""}')
    outcome = deca("push", "wards/notes", "--dry-run")
    assert outcome.out.startswith(
        f"wrote {folder / 'model_card.md'}; this would be sent to wards/notes with it:\nconfig"
    )
    assert "model.safetensors  " in outcome.out
    assert "deca.json" not in outcome.out
    assert hub == []
    found = json.loads(deca("push", "wards/notes", "--dry-run", "--json").out)
    assert found["files"]["config.json"] == (folder / "final" / "config.json").stat().st_size


def test_the_card_is_of_the_run_and_names_nobody(deca: Deca, folder: Path) -> None:
    card = card_of(deca, folder, "--license", "apache-2.0", "--base-model", "Qwen/Qwen2.5-0.5B")
    head, _, text = card.partition("\n---\n")
    assert 'base_model: "Qwen/Qwen2.5-0.5B"' in head
    assert 'license: "apache-2.0"' in head
    assert "pipeline_tag: text-generation" in head
    for words in (
        "# notes\n",
        "tuned by 3 parties with deca-node",
        "| steps | 96 |",
        "| held-out loss before | 3.5000 nats per token |",
        "| held-out loss after | 2.2500 nats per token |",
        "| rounds | 4 |",
        "added no noise to its gradients",
    ):
        assert words in text
    for word in ("north", "south", "secret-ward", "/home", "ann", "127.0.0.1", "ab12"):
        assert word not in card


def test_a_path_is_no_base_model_and_a_hub_id_is(deca: Deca, folder: Path) -> None:
    assert "base_model" not in card_of(deca, folder)
    run = json.loads((folder / "run.json").read_text()) | {"start_model": "Qwen/Qwen2.5-0.5B"}
    (folder / "run.json").write_text(json.dumps(run))
    assert 'base_model: "Qwen/Qwen2.5-0.5B"' in card_of(deca, folder)


def test_privacy_and_a_copy_of_its_own_are_said(deca: Deca, folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        noisy = {"ordinal": 96, "privacy_epsilon": 2.5, "privacy_delta": 1e-5}
        file.write(json.dumps(STEP | noisy) + "\n")
    (folder / "final" / "deca.json").write_text(json.dumps({"alone": "south was not there"}))
    card = card_of(deca, folder)
    assert "epsilon = 2.5 at delta = 1e-05" in card
    assert "this copy is not theirs" in card
    assert "south" not in card


def test_a_folder_without_records_still_has_a_card(deca: Deca, folder: Path) -> None:
    for name in ("metrics.jsonl", "page.json", "run.json"):
        (folder / name).unlink()
    card = card_of(deca, folder)
    assert "tuned by several parties" in card
    assert "| steps | 0 |" in card


@pytest.mark.parametrize(("flags", "private"), [((), True), (("--public",), False)])
def test_everything_goes_in_one_commit(
    deca: Deca, folder: Path, hub: list[Any], flags: tuple[str, ...], private: bool
) -> None:
    Path("card.md").write_text("my own words")
    outcome = deca("push", "wards/notes", "--card", "card.md", "--message", "first", *flags)
    assert outcome == (0, "The tuned model is at https://hub.example/wards/notes.\n", "")
    assert hub[0] == ("create_repo", "wards/notes", {"private": private, "exist_ok": True})
    name, repo, operations, message = hub[1]
    assert (name, repo, message) == ("create_commit", "wards/notes", "first")
    assert set(operations) == {path.name for path in (folder / "final").iterdir()} | {"README.md"}
    assert operations["README.md"].path_or_fileobj == b"my own words"
    assert len(hub) == 2


@pytest.mark.usefixtures("folder")
def test_a_refusal_of_the_hub_is_one_sentence(deca: Deca, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(FakeHub):
        def create_repo(self, repo: str, **how: Any) -> str:
            raise OSError("401\n  no token")

    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: Closed([]))
    outcome = deca("push", "wards/notes")
    assert (outcome.code, outcome.out) == (1, "")
    wanted = "error: wards/notes cannot be pushed: 401 no token; log in with `hf auth login`, or set HF_TOKEN\n"
    assert outcome.err == wanted


def test_an_unfinished_run_has_nothing_to_push(deca: Deca, folder: Path) -> None:
    shutil.rmtree(folder / "final")
    outcome = deca("push", "wards/notes")
    assert outcome.code == 10
    assert "is not complete, so there is no tuned model to push" in outcome.err


@pytest.mark.usefixtures("folder")
def test_a_card_that_is_not_there(deca: Deca) -> None:
    outcome = deca("push", "wards/notes", "--card", "none.md")
    assert (outcome.code, "the card none.md cannot be read" in outcome.err) == (10, True)
