"""Durations and sizes with two units at most, and texts that cannot steer a terminal."""

import pytest

from deca_node.cli.views.text import duration, printable, size_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (59.4, "59 s"),
        (59.5, "1 min"),
        (306, "5 min 6 s"),
        (3600, "1 h"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**20, "5.0 MiB"), (2**50, "1024.0 TiB")]
)
def test_sizes(nbytes: float, text: str) -> None:
    assert size_text(nbytes) == text


def test_control_characters_are_replaced() -> None:
    assert printable("a\x1b[2J\nb é") == "a�[2J�b é"
