"""``deca-node generate`` and ``deca-node chat``: the tuned model beside the start model."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Deca = Callable[..., Any]

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}peer {% endif %}"
SHORT = ("--tokens", "4", "--threads", "1")


@pytest.fixture
def folder(deca: Deca, tiny: Path) -> Path:
    """The folder of a node whose run is complete. The tuned model writes other words than the start model."""
    node = Path("deca-data") / "north"
    shutil.copytree(tiny, node / "final")
    (node / "lock").touch()
    (node / "run.json").write_text(json.dumps({"agreement": {"task": "causal-lm"}, "start_model": str(tiny)}))
    weights = load_file(tiny / "model.safetensors")
    torch.manual_seed(1)
    tuned = {name: torch.randn_like(value) if "embed" in name else value for name, value in weights.items()}
    save_file(tuned, node / "final" / "model.safetensors", {"format": "pt"})
    return node


@pytest.mark.usefixtures("folder")
def test_both_models_write_on(deca: Deca, tiny: Path) -> None:
    outcome = deca("generate", "the node", *SHORT)
    assert (outcome.code, outcome.err) == (0, "")
    start, tuned, rest = outcome.out.split("\n\n")
    assert start.startswith(f"start model, {tiny}:\nthe node")
    assert tuned.startswith("tuned model of deca-data/north:\nthe node")
    assert rest == ""
    found = json.loads(deca("generate", "the node", "--json", *SHORT).out)
    assert found["prompt"] == "the node"
    assert found["start"] != found["tuned"]
    assert start.endswith(found["start"])


@pytest.mark.usefixtures("folder")
def test_what_is_drawn_depends_on_the_seed_alone(deca: Deca) -> None:
    def drawn(seed: str) -> str:
        flags = ("--only", "tuned", "--temperature", "2", "--top-p", "0.9", "--seed", seed, "--json")
        return str(json.loads(deca("generate", "the", *flags, *SHORT).out)["tuned"])

    assert drawn("1") == drawn("1")
    assert len({drawn(str(seed)) for seed in range(5)}) > 1


@pytest.mark.usefixtures("folder")
def test_a_prompt_from_standard_input(deca: Deca, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the block"))
    found = json.loads(deca("generate", "-", "--model", str(tiny), "--json", *SHORT).out)
    assert list(found) == ["prompt", "model"]
    assert found["prompt"] == "the block"


@pytest.mark.usefixtures("folder")
def test_an_empty_prompt_begins_a_text(deca: Deca) -> None:
    assert deca("generate", "", *SHORT).code == 0


@pytest.mark.usefixtures("folder")
def test_a_prompt_that_is_too_long(deca: Deca) -> None:
    outcome = deca("generate", "the " * 70, *SHORT)
    assert (outcome.code, outcome.out) == (6, "")
    assert "error: the prompt has 70 tokens, and the model takes fewer than 64; shorten it\n" in outcome.err


def test_the_answer_never_exceeds_what_the_model_takes(deca: Deca, folder: Path) -> None:
    assert deca("generate", "the " * 62, "--model", str(folder / "final"), "--tokens", "50").code == 0


def test_nothing_in_the_text_moves_the_cursor(deca: Deca, tiny: Path) -> None:
    outcome = deca("generate", "the\x1b[2J\tnode\nis", "--model", str(tiny), *SHORT)
    assert "\x1b" not in outcome.out
    assert "the�[2J\tnode\nis" in outcome.out


# --- chat -----------------------------------------------------------------------------------------------


@pytest.fixture
def template(folder: Path) -> Path:
    path = Path("template.jinja")
    path.write_text(TEMPLATE)
    return path


def test_one_question_and_two_answers(deca: Deca, template: Path, tiny: Path) -> None:
    flags = ("--prompt", "is the node", "--chat-template", str(template))
    outcome = deca("chat", *flags, *SHORT)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"start model, {tiny}:\n")
    assert "\ntuned model of deca-data/north:\n" in outcome.out
    found = json.loads(deca("chat", *flags, "--json", *SHORT).out)
    assert list(found) == ["prompt", "start", "tuned"]
    assert found["tuned"].split() == outcome.out.split("north:\n")[1].split()


def test_the_tuned_models_template_serves_the_start_model(deca: Deca, folder: Path, template: Path) -> None:
    config = folder / "final" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": template.read_text()}))
    assert deca("chat", "--prompt", "the node", *SHORT).code == 0


@pytest.mark.usefixtures("folder")
def test_a_model_without_a_template(deca: Deca) -> None:
    outcome = deca("chat", "--prompt", "the node", *SHORT)
    assert outcome.code == 5
    assert "has no chat template; give one with --chat-template, or use deca-node generate" in outcome.err


def test_a_conversation(deca: Deca, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def answer(_loaded: Any, messages: Any, _choice: Any, heard: Any) -> str:
        asked.append([message["content"] for message in messages])
        heard("well")
        return "well"

    monkeypatch.setattr("deca_node.numerics.learning.writing.answer", answer)
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n/new\nthree\n/quit\nfour\n"))
    outcome = deca("chat", "--only", "tuned", "--system", "be brief", "--chat-template", str(template))
    assert outcome.code == 0
    assert outcome.out.count("well") == 3
    assert asked == [["be brief", "one"], ["be brief", "one", "well", "two"], ["be brief", "three"]]


def test_a_template_that_refuses_the_chat(deca: Deca, template: Path) -> None:
    template.write_text("{{ raise_exception('no such role') }}")
    outcome = deca("chat", "--prompt", "x", "--chat-template", str(template), *SHORT)
    assert outcome.code == 6
    assert "the chat template refuses this chat: no such role" in outcome.err


@pytest.mark.usefixtures("folder")
def test_json_needs_one_question(deca: Deca) -> None:
    assert deca("chat", "--json").code == 2


def test_a_classifier_writes_nothing(deca: Deca, folder: Path) -> None:
    outcome = deca("generate", "the node", "--model", str(a_classifier(folder / "final")), *SHORT)
    assert outcome.code == 5
    assert "sorts texts into labels and writes none; use deca-node eval" in outcome.err


def a_classifier(source: Path) -> Path:
    from transformers import AutoConfig, AutoTokenizer, LlamaForSequenceClassification

    out = source.parent / "classifier"
    config = AutoConfig.from_pretrained(source, num_labels=2, pad_token_id=0)
    LlamaForSequenceClassification(config).save_pretrained(out)
    AutoTokenizer.from_pretrained(source).save_pretrained(out)
    return out
