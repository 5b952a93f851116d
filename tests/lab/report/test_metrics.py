"""Reading of metrics, also of a node that was killed while it wrote."""

import json
import math
from pathlib import Path

import pytest

from deca_node.lab.report.metrics import HeldoutFigures, Metrics, read_metrics
from deca_node.protocol.errors import DataError

PLACE = {"time": 10.5, "kind": "step", "node": "a", "round": 0, "block": 2, "inner": 3, "ordinal": 29}
FIGURES = {"bytes_sent": 100, "bytes_received": 90, "step_seconds": 0.5, "some_later_figure": 7}
BARE = PLACE | FIGURES
STEP = BARE | {"loss": 4.25, "consensus_distance": 1e-4, "disagreement_rms": 2e-4}
EVALUATION = {"time": 11.0, "kind": "eval", "node": "a", "when": "round 1", "loss": 4.0, "tokens": 99, "ordinal": 30}


def write(path: Path, *lines: object, tail: str = "") -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return path


def test_steps_and_evaluations_are_read(tmp_path: Path) -> None:
    metrics = read_metrics(write(tmp_path / "m", STEP, EVALUATION))
    [step] = metrics.steps
    assert (step.round, step.block, step.inner, step.ordinal, step.loss) == (0, 2, 3, 29, 4.25)
    assert (step.consensus_distance, step.disagreement, step.bytes_sent) == (1e-4, 2e-4, 100)
    assert metrics.evaluations == (HeldoutFigures(time=11.0, when="round 1", ordinal=30, loss=4.0),)


def test_a_mix_without_gradient_or_exchange_has_no_such_figures(tmp_path: Path) -> None:
    [step] = read_metrics(write(tmp_path / "m", BARE)).steps
    assert (step.loss, step.consensus_distance, step.disagreement) == (None, None, None)


def test_a_loss_that_is_no_number_is_kept(tmp_path: Path) -> None:
    [step] = read_metrics(write(tmp_path / "m", {**STEP, "loss": math.nan})).steps
    assert step.loss is not None and math.isnan(step.loss)


def test_unknown_kinds_are_passed_over(tmp_path: Path) -> None:
    assert read_metrics(write(tmp_path / "m", {"kind": "weather"}, STEP)).unreadable == 0


@pytest.mark.parametrize("tail", ['{"time": 12.0, "ki', '{"time": 1}\n', "[]\n", "3\n", '"text"\n', "\n"])
def test_lines_cut_short_are_counted(tmp_path: Path, tail: str) -> None:
    metrics = read_metrics(write(tmp_path / "m", STEP, tail=tail))
    assert (len(metrics.steps), metrics.unreadable) == (1, 1)


def test_no_metrics_yet(tmp_path: Path) -> None:
    assert read_metrics(write(tmp_path / "m")) == Metrics()


def test_a_missing_file_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_metrics(tmp_path / "none")


def test_bytes_count_over_all_starts_of_a_node(tmp_path: Path) -> None:
    """The second life begins with more bytes than the first had, so that only its own word tells them apart."""
    first = [STEP | {"life": 1, "bytes_sent_before": 0, "bytes_received_before": 0}]
    last = {"kind": "metrics", "time": 11.0, "life": 1, "bytes_sent": 120, "bytes_received": 95}
    last |= {"bytes_sent_before": 0, "bytes_received_before": 0, "values": {}}
    second = STEP | {"ordinal": 30, "bytes_sent": 500, "life": 2, "bytes_sent_before": 120, "bytes_received_before": 95}
    metrics = read_metrics(write(tmp_path / "m", *first, last, second))
    assert [step.bytes_sent for step in metrics.steps] == [100, 620]
    assert (metrics.bytes_sent, metrics.bytes_received, metrics.lives) == (620, 185, 2)


def test_bytes_of_a_file_that_names_no_lives_count_on_where_they_fall(tmp_path: Path) -> None:
    lines = [STEP | {"ordinal": 29 + i, "bytes_sent": sent} for i, sent in enumerate((40, 42, 0, 5))]
    metrics = read_metrics(write(tmp_path / "m", *lines))
    assert [step.bytes_sent for step in metrics.steps] == [40, 42, 42, 47]
    assert (metrics.bytes_sent, metrics.lives) == (47, 2)


def test_steps_that_are_done_again_count_once_and_an_absence_parts_them(tmp_path: Path) -> None:
    ordinals = (0, 1, 2, 1, 2, 7, 8)
    measured = [EVALUATION | {"ordinal": ordinal} for ordinal in (0, 2, 8)]
    metrics = read_metrics(write(tmp_path / "m", *(STEP | {"ordinal": o} for o in ordinals), *measured))
    assert [[step.ordinal for step in span] for span in metrics.spans()] == [[0, 1, 2], [1, 2], [7, 8]]
    assert [[each.ordinal for each in group] for group in metrics.measured()] == [[0, 2], [8]]
    assert metrics.done == 5
