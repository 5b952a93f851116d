"""Messages between daemon and trainer arrive as they were sent."""

from typing import Any

import pytest

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.parts import trainer_options
from deca_node.daemon.trainer import messages
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Activation, BlockNumber, Round, Step

KEYFRAME = FrameId("north", FrameKind.KEYFRAME, 3, 0)
OURS, THEIRS = (FrameId(name, FrameKind.UPDATE, 3, 7) for name in ("north", "south"))

BODIES: list[Any] = [
    c.Activate(Activation(3, Round(1), BlockNumber(2), 48, 2), KEYFRAME),
    c.Activate(Activation(3, Round(1), BlockNumber(2), 48, 2), None),
    c.Connect(3, (c.Neighbour("south", 1 / 3, KEYFRAME),), KEYFRAME),
    c.HalfStep(Step(3, 7), True, OURS),
    c.Mix(Step(3, 7), (c.Flow("south", THEIRS, OURS),), True),
    c.Freeze(3),
    c.Evaluate("round 1"),
    c.Save("final"),
    e.Mixed(Step(3, 7), {"h_rms": 0.5}),
    e.HalfStepped(Step(3, 7), None, {"loss": 1e-300}),
    e.Evaluated("end", 2.5, 100),
    e.TrainerFailed("out of memory", 11),
    trainer_options(RunSettings(seed=3), NodeSettings(name="north", dir="dir", trace=True)),
    messages.ArenaShape(4096, 12),
    messages.Remark("reading"),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: type(body).__name__)
def test_there_and_back(body: Any) -> None:
    slots = {KEYFRAME: (0, 100), OURS: (5, 4096)}
    line = messages.encode(body, slots)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert messages.decode(line) == messages.Envelope(body, slots)


@pytest.mark.parametrize("line", [b"", b"{}", b'{"kind":"Save","body":{}}', b'{"kind":"Nothing","body":{}}', b"[1]"])
def test_anything_else_is_an_error(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        messages.decode(line)
