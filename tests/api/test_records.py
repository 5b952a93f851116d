"""Steps, visits and evaluations from the lines that a node adds to metrics.jsonl."""

import json
from pathlib import Path
from typing import Any

from deca_node.api.records import Evaluation, Follower, Step, Visit, read_records


def step(ordinal: int, block: int, inner: int, **more: Any) -> str:
    facts = {"kind": "step", "time": 1.0, "node": "north", "round": 0, "block": block, "inner": inner}
    return json.dumps(facts | {"ordinal": ordinal, "loss": 2.0 + ordinal, "step_seconds": 0.5} | more) + "\n"


EVALUATION = json.dumps(
    {"kind": "eval", "time": 1.5, "node": "north", "when": "round 1", "loss": 1.25, "tokens": 64, "ordinal": 4}
)


def test_a_step_counts_from_one_and_has_its_figures(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(step(5, 1, 2, grad_norm=0.5, late=True))
    (found,) = read_records(path)
    assert isinstance(found, Step)
    assert (found.round, found.block, found.step, found.done, found.loss) == (1, 2, 3, 6, 7.0)
    assert found.figures["grad_norm"] == 0.5
    assert "late" not in found.figures


def test_a_visit_is_complete_when_another_begins_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    assert list(follower.new()) == []
    path.write_text(step(0, 0, 0) + step(1, 0, 1, loss=None) + EVALUATION + "\n" + step(2, 1, 0))
    kinds = [type(record) for record in follower.new()]
    assert kinds == [Step, Step, Evaluation, Visit, Step]
    with path.open("a") as file:
        file.write(step(3, 1, 1))
    *_, last = follower.rest()
    assert isinstance(last, Visit)
    assert (last.block, last.steps, last.done, last.seconds, last.loss) == (2, 2, 4, 1.0, 4.5)
    assert list(follower.rest()) == []


def test_only_what_comes_after_the_start_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(step(0, 0, 0) + '{"kind": "st')
    follower = Follower(path)
    text = path.read_text().removesuffix('{"kind": "st')
    path.write_text(text + step(1, 0, 1))
    assert [record.done for record in follower.new() if isinstance(record, Step)] == [2]


def test_a_new_run_begins_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(step(0, 0, 0) * 3)
    follower = Follower(path)
    path.rename(tmp_path / "metrics-before.jsonl")
    assert list(follower.new()) == []
    path.write_text(step(0, 0, 0))
    assert [type(record) for record in follower.new()] == [Step]


def test_half_a_line_waits_for_its_end_and_other_lines_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    follower = Follower(path)
    line = step(0, 0, 0)
    path.write_text('{"kind": "metrics"}\n[1]\nnonsense\n' + line[:20])
    assert list(follower.new()) == []
    with path.open("a") as file:
        file.write(line[20:])
    assert [type(record) for record in follower.new()] == [Step]


def test_a_file_that_is_missing_has_no_records(tmp_path: Path) -> None:
    assert list(read_records(tmp_path / "none")) == []
    assert list(Follower(tmp_path / "none").rest()) == []
