"""Which of several streams between two nodes both of them keep."""

import itertools

from deca_node.daemon.links.pairing import NONE, Pair, StreamNumber


def test_the_leader_takes_one_stream_at_a_time() -> None:
    pair = Pair(7, itertools.count(1), leads=True)
    assert pair.take(1, NONE) == StreamNumber(7, 1)
    assert pair.take(1, NONE) is None, "the peer may not know yet"
    assert pair.take(2, NONE) == StreamNumber(7, 2), "the peer was started again"
    assert pair.take(2, StreamNumber(7, 2)) == StreamNumber(7, 3), "the peer has seen it end"
    pair.end(StreamNumber(7, 2))
    assert pair.take(2, NONE) is None, "what ended was replaced before"
    pair.end(StreamNumber(7, 3))
    assert pair.take(2, NONE) == StreamNumber(7, 4)


def test_the_follower_keeps_what_was_taken_last() -> None:
    pair = Pair(1, itertools.count(1), leads=False)
    assert pair.ended == NONE
    assert pair.follow(StreamNumber(7, 2))
    assert pair.ended == NONE
    assert not pair.follow(StreamNumber(7, 1)), "taken before, heard after"
    pair.end(StreamNumber(7, 2))
    assert pair.ended == StreamNumber(7, 2)
    assert pair.follow(StreamNumber(9, 1)), "the leader was started again"


def test_once_closed_no_stream_is_kept() -> None:
    leader, follower = Pair(7, itertools.count(1), leads=True), Pair(1, itertools.count(1), leads=False)
    for pair in (leader, follower):
        pair.close()
    assert leader.take(1, NONE) is None
    assert not follower.follow(StreamNumber(7, 1))
