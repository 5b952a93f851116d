"""Frames are released once, and not before the last command that reads them is answered."""

from deca_node.protocol import commands as c
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.visit.loans import Loans

KEYFRAME = FrameId("b", FrameKind.KEYFRAME, 0, 0)


def ours(inner: int) -> FrameId:
    return FrameId("a", FrameKind.UPDATE, 0, inner)


def theirs(inner: int) -> FrameId:
    return FrameId("b", FrameKind.UPDATE, 0, inner)


class Taken:
    """Loans, and the frames that they have released since the last look."""

    def __init__(self) -> None:
        self.said: list[c.Command] = []
        self.loans = Loans(self.said.append)

    def released(self) -> list[FrameId]:
        frames = [command.frame for command in self.said if isinstance(command, c.Release)]
        self.said.clear()
        return frames


def test_answers_come_in_the_order_of_the_commands() -> None:
    taken = Taken()
    taken.loans.lend_all([KEYFRAME])
    taken.loans.lend([theirs(0)], lambda inner: inner >= 0)
    assert taken.released() == [] and taken.loans.lent
    taken.loans.answered()
    assert taken.released() == [KEYFRAME]
    taken.loans.answered()
    assert taken.released() == [theirs(0)] and not taken.loans.lent


def test_own_updates_wait_for_the_slowest_edge() -> None:
    taken = Taken()
    for inner in range(3):
        taken.loans.wrote(ours(inner))
    taken.loans.lend([theirs(0)], lambda inner: inner >= 1)
    taken.loans.lend([theirs(1)], lambda inner: inner >= 1)
    taken.loans.lend_all([])
    for expected in ([theirs(0), ours(0)], [theirs(1)], [ours(1), ours(2)]):
        taken.loans.answered()
        assert taken.released() == expected


def test_with_its_trainer_gone_every_frame_is_let_go_once() -> None:
    taken = Taken()
    taken.loans.wrote(ours(0))
    taken.loans.wrote(ours(1))
    taken.loans.lend([theirs(0)], lambda inner: inner >= 1)
    taken.loans.release_all()
    taken.loans.release_all()
    assert sorted(taken.released()) == [ours(0), ours(1), theirs(0)]
