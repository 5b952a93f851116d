"""Slots of the shared memory: none is given twice, none is reused while a session sends it, none is past the end."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.trainer.arena import Arena, FrameStore, shared_file
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import StorageError


def frame(number: int, sender: str = "a") -> FrameId:
    return FrameId(sender, FrameKind.UPDATE, 0, number)


def store(slots: int, slot_bytes: int = 100) -> FrameStore:
    descriptor = shared_file()
    try:
        return FrameStore(Arena(descriptor, slot_bytes, slots))
    finally:
        os.close(descriptor)


def test_two_mappings_see_the_same_bytes() -> None:
    descriptor = shared_file()
    ours, theirs = Arena(descriptor, 5000, 3), Arena(descriptor, 5000, 3)
    os.close(descriptor)
    ours.slot(2, 5)[:] = b"hello"
    assert bytes(theirs.slot(2, 5)) == b"hello"


def test_slots_outside_the_arena_are_refused() -> None:
    descriptor = shared_file()
    arena = Arena(descriptor, 100, 2)
    os.close(descriptor)
    for index, nbytes in ((2, 1), (-1, 1), (0, arena.slot_bytes + 1)):
        with pytest.raises(ValueError, match="slot"):
            arena.slot(index, nbytes)


def test_a_frame_that_is_being_sent_keeps_its_slot() -> None:
    books = store(1)
    books.reserve(frame(0), 10)[:] = b"0123456789"
    books.hold(frame(0))
    books.hold(frame(0))
    books.release(frame(0))
    assert frame(0) not in books, "it may not be sent again"
    assert bytes(books.view(frame(0))) == b"0123456789"
    books.unhold(frame(0))
    with pytest.raises(StorageError, match="no slot is free"):
        books.reserve(frame(1), 10)
    books.unhold(frame(0))
    books.reserve(frame(1), 10)


def test_a_frame_is_held_once() -> None:
    books = store(2)
    books.reserve(frame(0), 1)
    with pytest.raises(StorageError, match="already held"):
        books.reserve(frame(0), 1)


@given(st.lists(st.tuples(st.sampled_from(["reserve", "release", "hold", "unhold"]), st.integers(0, 4)), max_size=60))
def test_slots_are_never_shared_and_never_lost(story: list[tuple[str, int]]) -> None:
    books, held, holds, released = store(3), set[int](), dict[int, int](), set[int]()
    for act, number in story:
        if act == "reserve" and number not in held and len(held) < 3:
            books.reserve(frame(number), 10)
            held.add(number)
        elif act == "release" and number in held - released:
            books.release(frame(number))
            released.add(number)
        elif act == "hold" and number in held - released:
            books.hold(frame(number))
            holds[number] = holds.get(number, 0) + 1
        elif act == "unhold" and holds.get(number, 0):
            books.unhold(frame(number))
            holds[number] -= 1
        gone = {n for n in released if not holds.get(n, 0)}
        held -= gone
        released -= gone
        slots = [books.slot(frame(n))[0] for n in held]
        assert len(set(slots)) == len(slots) == len(books) == len(held)


def test_some_slots_are_kept_for_our_own_frames() -> None:
    descriptor = shared_file()
    frames = FrameStore(Arena(descriptor, 100, 3), kept_free=2)
    os.close(descriptor)
    assert frames.has_room()
    frames.reserve(frame(0, "south"), 100)
    assert not frames.has_room()
    frames.reserve(frame(0, "north"), 100)
    frames.release(frame(0, "south"))
    assert not frames.has_room()
