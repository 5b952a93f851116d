"""A bad frame costs its sender's edge, and nothing else."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step
from tests.numerics.saving.checkpoint_runs import SCHEDULE, SETTINGS, make, parameters, tiny_data

NAMES = ("a", "b", "c")
NOT_A_NUMBER = b"\x00\x00\xc0\x7f"
"""Where an int8 frame has its first scale."""
REASONS = {
    "short": "bad-length",
    "not finite": "not-finite",
    "code": "bad-codes",
    "state": "not-finite",
    "a million times": "wild-norm",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Frames(dict[FrameId, bytearray]):
    """The frames of all nodes in plain memory."""

    def view(self, frame: FrameId) -> memoryview:
        return memoryview(self[frame])


def trio(folder: Path, signal: str = "none") -> tuple[dict[str, Trainer], Frames]:
    """Three trainers with different data in their first activation; keyframes are written, edges are not open yet."""
    folder.mkdir()
    frames = Frames()
    settings = replace(SETTINGS, signal=signal)
    trainers = {
        name: make(folder / name, settings=settings, frames=frames.view, data=tiny_data(5 + i))
        for i, name in enumerate(NAMES)
    }
    for name, trainer in trainers.items():
        frames[keyframe(name)] = bytearray(trainer.ready().sizes.keyframe_bytes[SCHEDULE[0].block])
        trainer.obey(c.Activate(SCHEDULE[0], keyframe(name)))
    return trainers, frames


def keyframe(name: str) -> FrameId:
    return FrameId(name, FrameKind.KEYFRAME, 0, 0)


def update(name: str) -> FrameId:
    return FrameId(name, FrameKind.UPDATE, 0, 0)


def connect(trainers: dict[str, Trainer], name: str) -> e.TrainerEvent:
    others = tuple(c.Neighbour(peer, 1 / 3, keyframe(peer)) for peer in NAMES if peer != name)
    return trainers[name].obey(c.Connect(0, others, keyframe(name)))


def half_steps(trainers: dict[str, Trainer], frames: Frames, signal: bool = False) -> None:
    for name, trainer in trainers.items():
        sizes = trainer.ready().sizes
        nbytes = sizes.update_bytes[SCHEDULE[0].block] + signal * sizes.signal_bytes[SCHEDULE[0].block]
        frames[update(name)] = bytearray(nbytes)
        trainer.obey(c.HalfStep(Step(0, 0), True, update(name)))


def mix(trainer: Trainer, peers: tuple[str, ...] = ("b", "c")) -> e.Mixed:
    flows = tuple(c.Flow(peer, update(peer), update("a")) for peer in peers)
    event = trainer.obey(c.Mix(Step(0, 0), flows, True))
    assert isinstance(event, e.Mixed)
    return event


@pytest.mark.parametrize("harm", ["short", "not finite", "code", "a million times"])
def test_a_malformed_keyframe_costs_its_edge_only(harm: str, tmp_path: Path) -> None:
    trainers, frames = trio(tmp_path / "trio")
    spoil(frames, keyframe("c"), harm)
    event = connect(trainers, "a")
    assert isinstance(event, e.Connected)
    ((peer, reason, sentence),) = event.refused
    assert (peer, reason) == ("c", REASONS[harm])
    assert sentence.startswith("c sent")
    public = trainers["a"].engine.public
    assert public is not None
    assert set(public.edges) == {"b"}


@pytest.mark.parametrize("harm", ["short", "not finite", "code", "state", "a million times"])
def test_a_malformed_update_costs_its_edge_only(harm: str, tmp_path: Path) -> None:
    """The node ends as if it did not have the edge in this mix."""
    found = []
    for folder, peers in (("spoilt", ("b", "c")), ("without", ("b",))):
        trainers, frames = trio(tmp_path / folder)
        assert all(connect(trainers, name) == e.Connected(0) for name in NAMES)
        half_steps(trainers, frames)
        if folder == "spoilt":
            spoil(frames, update("c"), harm)
        event = mix(trainers["a"], peers)
        refused = [(peer, reason) for peer, reason, _ in event.refused]
        assert refused == ([("c", REASONS[harm])] if folder == "spoilt" else [])
        assert all(sentence.startswith("c sent") for _, _, sentence in event.refused)
        found.append(parameters(trainers["a"]))
    assert torch.equal(*found)


def test_a_malformed_signal_costs_its_edge_only(tmp_path: Path) -> None:
    trainers, frames = trio(tmp_path / "trio", signal="v")
    for name in NAMES:
        connect(trainers, name)
    half_steps(trainers, frames, signal=True)
    spoil(frames, update("b"), "not finite", trainers["a"].ready().sizes.update_bytes[SCHEDULE[0].block])
    assert [refused[:2] for refused in mix(trainers["a"]).refused] == [("b", "not-finite")]


def test_an_inflated_signal_costs_its_edge_only(tmp_path: Path) -> None:
    """A v-signal with 2^100 as the largest mean is finite, but no honest node sends it."""
    trainers, frames = trio(tmp_path / "trio", signal="v")
    for name in NAMES:
        connect(trainers, name)
    half_steps(trainers, frames, signal=True)
    at = trainers["a"].ready().sizes.update_bytes[SCHEDULE[0].block]
    frames[update("b")][at : at + 4] = struct.pack("<f", 100.0)
    assert [refused[:2] for refused in mix(trainers["a"]).refused] == [("b", "wild-signal")]


def test_all_neighbours_may_be_refused(tmp_path: Path) -> None:
    """The step is folded as if the node were alone, and the visit continues."""
    trainers, frames = trio(tmp_path / "trio")
    for name in NAMES:
        connect(trainers, name)
    half_steps(trainers, frames)
    for peer in ("b", "c"):
        spoil(frames, update(peer), "not finite")
    assert [refused.peer for refused in mix(trainers["a"]).refused] == ["b", "c"]
    trainers["a"].obey(c.HalfStep(Step(0, 1), True, None))
    assert trainers["a"].obey(c.Freeze(0)) == e.Frozen(0)


def spoil(frames: Frames, frame: FrameId, harm: str, at: int = 0) -> None:
    match harm:
        case "short":
            frames[frame] = frames[frame][:-1]
        case "not finite":
            frames[frame][at : at + 4] = NOT_A_NUMBER
        case "code":
            frames[frame][at + 4] = 0x80
        case "a million times":
            magnify(frames[frame], 1e6)
        case "state":
            frames[frame][-4:] = NOT_A_NUMBER


def magnify(frame: bytearray, times: float) -> None:
    """Multiply every number of an int8 frame; in a keyframe of zeros every scale becomes the factor."""
    codes = torch.frombuffer(frame, dtype=torch.uint8)
    for at in range(0, len(frame) - 24, 260):
        scale = codes[at : at + 4].clone().view(torch.float32)
        codes[at : at + 4] = torch.where(scale > 1e-30, scale * times, times).view(torch.uint8)
