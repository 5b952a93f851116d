"""The walk through the families of models: a tiny one goes all the way, and a refusal keeps its words."""

from pathlib import Path

import pytest

from bench.families.__main__ import in_child, read_known, write
from bench.families.tiny import LAYERS, tiny_config
from bench.families.trial import families, task_of, trial
from tools import write_models_reference


def test_families_are_decoders_and_classifiers() -> None:
    known = families()
    assert {"llama", "gpt2", "mamba", "bert", "albert"} <= set(known)
    assert [task_of(name) for name in ("llama", "bert", "albert")] == ["language", "classification", "classification"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma3"])
def test_configs_are_small(family: str) -> None:
    config = tiny_config(family).get_text_config()
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (LAYERS, 64, 128)


def test_a_family_goes_all_the_way(tmp_path: Path) -> None:
    row = trial("llama", tmp_path / "model")
    assert row["outcome"] == "trained", row
    assert row["blocks"] == row["planned_blocks"] == ["embedding", *(f"layers.{k}" for k in range(LAYERS)), "head"]
    assert row["finite"] and row["equal"] and not row["lost"] and not row["unmoved"] and not row["strayed"]
    assert row["last_loss"] < row["first_loss"]
    assert row["measured_bytes"] > 0 and row["planned_bytes"] > 0
    assert "| `llama` | LlamaForCausalLM | language | 6 | position ids |" in write_models_reference.page(
        {"versions": {"transformers": "5"}, "families": [row]}
    )


def test_a_family_without_a_size_at_the_top_of_its_config_goes_all_the_way(tmp_path: Path) -> None:
    row = trial("blt", tmp_path / "model")
    assert row["outcome"] == "trained", row
    assert row["blocks"] == row["planned_blocks"] == ["embedding", *(f"layers.{k}" for k in range(LAYERS)), "head"]
    assert row["finite"] and row["equal"] and not row["lost"] and not row["strayed"]
    assert row["planned_bytes"] > 0


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("albert", "the weights of 1 layer(s) are those of all 4 layers"),
        ("hrm_text", "(looked for a list of 32 layers, and found one of 4, one of 4)"),
    ],
)
def test_a_family_that_is_refused_keeps_the_words(family: str, words: str, tmp_path: Path) -> None:
    row = trial(family, tmp_path / "model")
    assert row["outcome"] == "refused"
    assert row["says"].endswith(words)
    assert row["says"] in write_models_reference.page({"versions": {"transformers": "5"}, "families": [row]})


def test_a_fault_or_an_end_without_an_answer_is_seen() -> None:
    def fails(_family: str, _folder: Path) -> dict[str, str]:
        raise ValueError("no such thing")

    row = in_child(fails, "llama", 60)
    assert row is not None and (row["outcome"], row["says"]) == ("broken", "ValueError: no such thing")


def test_what_is_known_is_kept_for_the_same_versions(tmp_path: Path) -> None:
    path, rows = tmp_path / "families.json", {"b": {"family": "b"}, "a": {"family": "a"}}
    write(path, {"torch": "2"}, rows, ["a", "b", "c"])
    assert read_known(path, {"torch": "2"}) == rows
    assert read_known(path, {"torch": "3"}) == read_known(tmp_path / "none.json", {}) == {}
