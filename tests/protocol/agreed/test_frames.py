"""Sizes of frames: with a signal at the exchanges that carry one, and none for frames that do not exist in the run."""

import dataclasses

import pytest

from deca_node.protocol.agreed.frames import CHUNK_BYTES, FrameKind, FrameSizes, frame_framing_bytes
from deca_node.protocol.agreed.run import FINAL_MIXES_MAX, RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step

SETTINGS = RunSettings(rounds=1, inner_steps=6, flush_mixes=2, signal="v", signal_every=1)
SIZES = FrameSizes(keyframe_bytes=(100, 10), update_bytes=(200, 20), signal_bytes=(7, 3), v_bytes=(7, 3))


def schedule(**changes: object) -> Schedule:
    return Schedule(dataclasses.replace(SETTINGS, **changes), 2, 3)


@pytest.mark.parametrize(
    ("changes", "inners"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"signal_every": 2}, [0, 2, 4]),
        ({"signal_every": 5}, [0]),
        ({"mix_every": 2}, [1, 3]),
        ({"mix_every": 2, "signal_every": 2}, [1]),
        ({"mix_every": 4}, [3]),
        ({"mix_every": 9}, []),
        ({"inner_steps": 1}, []),
        ({"signal": "none"}, []),
    ],
)
def test_which_exchanges_carry_a_signal(changes: dict[str, object], inners: list[int]) -> None:
    """The first of a visit and every N-th after it carry one. The last with a gradient and flush mixes carry none."""
    made = schedule(**changes)
    for activation in (0, 1):
        assert [i for i in range(made[activation].steps) if made.signals(Step(activation, i))] == inners
    assert not any(made.signals(Step(activation, i)) for activation in (2, 3) for i in range(3)), "the final flush"


FIRST = {"signal": "mv", "moments_every": 1, "mix_every": 4}


@pytest.mark.parametrize(
    ("changes", "carried"),
    [
        (FIRST, "vm vm vm xvm vm x x x"),
        (FIRST | {"mix_every": 9}, "vm vm vm vm vm x x x"),
        (FIRST | {"moments_every": 2}, "vm - vm x vm x x x"),
        (FIRST | {"v_every": 2}, "vm m vm xm vm x x x"),
        (FIRST | {"v_every": 0}, "vm m m xm m x x x"),
        (FIRST | {"signal": "v"}, "v v v xv v x x x"),
        ({"signal": "mv", "mix_every": 2}, "- xvm - xvm - x x x"),
        ({"signal": "mv", "mix_every": 2, "v_every": 2}, "- xvm - xm - x x x"),
        ({"signal": "none"}, "x x x x x x x x"),
    ],
)
def test_what_the_updates_of_a_visit_carry(changes: dict[str, object], carried: str) -> None:
    """Moments at their own cadence, parameters at theirs; v at every N-th signal; sizes follow."""
    made, sizes = schedule(**changes), FrameSizes((100, 10), (200, 20), (57, 13), (7, 3))
    for activation in (0, 1):
        words = []
        for step in (Step(activation, i) for i in range(8)):
            content = made.content(step)
            words.append("x" * content.parameters + "v" * content.v + "m" * content.m if made.mixes(step) else "-")
        assert " ".join(words) == carried
    for inner, word in enumerate(carried.split()):
        wanted = (200 if "x" in word else 20) + 7 * ("v" in word) + 50 * ("m" in word)
        found = sizes.nbytes(made, FrameKind.UPDATE, Step(0, inner))
        assert found == (None if word == "-" else wanted)
    assert all(made.content(Step(2, i)) == (True, False, False) for i in range(3)), "the final flush"


@pytest.mark.parametrize(
    ("kind", "step", "nbytes"),
    [
        (FrameKind.KEYFRAME, Step(0, 0), 100),
        (FrameKind.KEYFRAME, Step(3, 0), 10),
        (FrameKind.UPDATE, Step(0, 1), 207),
        (FrameKind.UPDATE, Step(1, 3), 23),
        (FrameKind.UPDATE, Step(0, 5), 200),
        (FrameKind.UPDATE, Step(0, 7), 200),
        (FrameKind.UPDATE, Step(2, 2), 200),
        # What no run has: another activation, a keyframe in the middle, a step without an exchange or after the last.
        (FrameKind.KEYFRAME, Step(4, 0), None),
        (FrameKind.KEYFRAME, Step(-1, 0), None),
        (FrameKind.KEYFRAME, Step(0, 1), None),
        (FrameKind.UPDATE, Step(4, 1), None),
        (FrameKind.UPDATE, Step(0, 0), None),
        (FrameKind.UPDATE, Step(0, 8), None),
        # A final flush may be longer at a node that counts more members, but not without end.
        (FrameKind.UPDATE, Step(2, 3), 200),
        (FrameKind.UPDATE, Step(2, FINAL_MIXES_MAX), None),
        (FrameKind.UPDATE, Step(0, -1), None),
    ],
)
def test_sizes_follow_from_kind_and_step(kind: FrameKind, step: Step, nbytes: int | None) -> None:
    assert SIZES.nbytes(schedule(mix_every=2), kind, step) == nbytes


def test_the_largest_frame() -> None:
    assert SIZES.largest == 207
    assert FrameSizes((300,), (200,), (0,), (0,)).largest == 300


@pytest.mark.parametrize(
    ("activation", "inner", "nbytes", "framing"),
    [
        # One chunk: tag and length of the chunk, kind, checksum, total, tag and length of the data.
        (0, 0, 100, 2 + 2 + 9 + 2 + 2),
        (0, 0, 127, 3 + 2 + 9 + 2 + 2),
        (0, 0, 128, 3 + 2 + 9 + 3 + 3),
        (1, 0, 100, 2 + 2 + 2 + 9 + 2 + 2),
        (1, 127, 100, 2 + 2 + 4 + 9 + 2 + 2),
        (128, 128, 100, 2 + 2 + 6 + 9 + 2 + 2),
        (0, 0, 0, 0),
    ],
)
def test_the_wire_adds_fields_around_each_chunk(activation: int, inner: int, nbytes: int, framing: int) -> None:
    assert frame_framing_bytes(activation, inner, nbytes) == framing


def test_every_chunk_but_the_first_has_an_offset_too() -> None:
    one = frame_framing_bytes(0, 0, CHUNK_BYTES)
    two = frame_framing_bytes(0, 0, 2 * CHUNK_BYTES)
    assert two - 2 * one == 1 + (CHUNK_BYTES.bit_length() + 6) // 7
