"""What a node knows of the members: which of them have left it behind."""

import pytest

from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.node.roster import NOT_TRAINING, Roster

NAMES = ("a", "b", "c", "d", "e")
BLOCKS, ROUNDS = 2, 8


def roster(topology: str, **positions: int) -> Roster:
    found = Roster("a", NAMES, RunSettings(rounds=ROUNDS, topology=topology), None)
    found.blocks = BLOCKS
    for peer, position in positions.items():
        found.came(peer, position)
    return found


def test_half_of_the_training_peers_have_to_be_past_the_activation() -> None:
    assert not roster("full", b=4, c=3, d=3).behind(3)
    assert roster("full", b=4, c=3, d=NOT_TRAINING).behind(3)
    assert not roster("full", b=NOT_TRAINING).behind(3)
    assert not roster("full").behind(0)


@pytest.mark.parametrize("topology", MATCHINGS)
def test_of_pairs_the_partner_counts(topology: str) -> None:
    """Quick pairs may be visits ahead, and wait for a slow node where they meet it; now and then a node has none."""
    settings = RunSettings(rounds=ROUNDS, topology=topology)
    for activation in range(ROUNDS * BLOCKS):
        later = range(activation, ROUNDS * BLOCKS)
        met = [(at, peer) for at in later for peer in graph(NAMES, settings, at, BLOCKS)["a"]]
        ahead = dict.fromkeys(NAMES[1:], activation + 20)
        assert roster(topology, **ahead).behind(activation)
        if met:
            at, partner = met[0]
            assert not roster(topology, **ahead | {partner: at}).behind(activation)
            assert roster(topology, **dict.fromkeys(ahead, activation) | {partner: at + 1}).behind(activation)
            # A partner that does not train says nothing of the run.
            assert roster(topology, **ahead | {partner: NOT_TRAINING}).behind(activation)


def test_who_meets_nobody_before_the_flush_is_to_be_there_for_the_flush() -> None:
    """Of five nodes one is alone in the last visit of pairs."""
    settings, flush = RunSettings(rounds=ROUNDS, topology="pairs"), ROUNDS * BLOCKS
    alone = next(name for name, near in graph(NAMES, settings, flush - 1, BLOCKS).items() if not near)
    for position, left in ((flush, False), (flush + 1, True)):
        found = Roster(alone, NAMES, settings, None)
        found.blocks = BLOCKS
        for peer in {*NAMES} - {alone}:
            found.came(peer, position)
        assert found.behind(flush - 1) is left


@pytest.mark.parametrize("topology", MATCHINGS)
def test_in_the_final_flush_all_count(topology: str) -> None:
    flush = ROUNDS * BLOCKS
    assert roster(topology, b=flush + 1, c=flush + 1, d=flush, e=flush).behind(flush)
    assert not roster(topology, b=flush + 1, c=flush, d=flush, e=flush).behind(flush)


def test_where_nodes_have_several_neighbours_those_that_are_none_count_as_well() -> None:
    assert not roster("ring", b=4, c=0, d=0, e=0).behind(0), "one of a's two neighbours, and one of four peers"
    assert roster("ring", b=4, c=4, d=0, e=0).behind(0)
