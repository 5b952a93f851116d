"""Pieces hold whole groups of the codec, and the pool hands out every piece once, whichever donors fail."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.transfer.pieces import PIECE_BYTES, RUN_PIECES_MAX, START, Item, Pool, piece_count, piece_span
from deca_node.daemon.wire.framing import MESSAGE_BYTES_MAX
from deca_node.numerics.codecs.formats import KEYFRAME_CODEC


def test_a_piece_holds_whole_groups_and_fits_into_a_message() -> None:
    """Otherwise pieces of two donors' copies could not be combined."""
    assert KEYFRAME_CODEC.nbytes(1 << 20) == PIECE_BYTES and (1 << 20) % KEYFRAME_CODEC.group == 0
    assert PIECE_BYTES + 100 < MESSAGE_BYTES_MAX


@given(st.integers(0, 5 * PIECE_BYTES))
def test_pieces_cover_a_file(nbytes: int) -> None:
    spans = [piece_span(nbytes, index) for index in range(piece_count(nbytes))]
    assert sum(size for _, size in spans) == nbytes
    assert all(start == index * PIECE_BYTES and size > 0 for index, (start, size) in enumerate(spans))


def test_files_are_called_after_what_they_hold() -> None:
    assert Item(12, "layers.3", 1).file == "layers.3@000012.delta"
    assert Item(START, "config.json", 1).file == "config.json"


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 5))
def test_every_piece_is_carried_once_whoever_fails(seed: int, donors: int, items: int) -> None:
    """Donors take pieces, send some, drop the rest, lose an item or die. The last donor never fails."""
    rng = Random(seed)
    wanted = {Item(i, f"block{i}", 1): list(range(rng.randrange(1, 60))) for i in range(items)}
    names = [f"donor{i}" for i in range(donors)]
    pool = Pool(wanted, dict.fromkeys(names, wanted))
    got: set[tuple[Item, int]] = set()
    turn = 0
    while pool.unfinished:
        turn += 1
        name = rng.choice(names)
        taken = pool.take(name)
        if taken is None:
            continue
        item, pieces = taken
        assert 0 < len(pieces) <= RUN_PIECES_MAX
        here = rng.randrange(len(pieces) + 1) if turn < 50 else len(pieces)
        for index in pieces[:here]:
            assert (item, index) not in got
            got.add((item, index))
            pool.got(item)
        if name != names[-1] and rng.random() < 0.1:
            pool.withdraw(name, rng.choice([item, None]))
        pool.put_back(name, item, pieces[here:])
    assert not any(pool.hopeful(name) for name in names)
    assert len(got) == sum(map(len, wanted.values()))


def test_idle_donors_begin_with_what_nobody_carries_and_then_help() -> None:
    one, two = Item(0, "one", 1), Item(1, "two", 1)
    both = {one, two}
    pool = Pool({one: range(40), two: range(4)}, {"north": both, "south": both, "west": {two}})
    assert pool.take("north") == (one, tuple(range(10))), "a quarter: half of a fair share"
    assert pool.take("south") == (two, (0,))
    assert pool.take("west") == (two, (1,))
    pool.withdraw("south")
    assert pool.take("south") is None and not pool.hopeful("south")
    assert pool.take("west") == (two, (2,))
    assert pool.take("west") == (two, (3,))
    assert pool.take("west") is None and pool.hopeful("west"), "south has a piece still, and may drop it"
