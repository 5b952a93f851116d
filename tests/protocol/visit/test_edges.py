"""One edge from its offer to its end, row by row of the state table, and both of its ends at once."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.edges import NOTHING, Edge, EdgeState, Exchange

STEPS = (0, 1, 2, 3)
KEYFRAME = FrameId("b", FrameKind.KEYFRAME, 0, 0)


def update(inner: int, sender: str = "b") -> FrameId:
    return FrameId(sender, FrameKind.UPDATE, 0, inner)


def exchange_in(state: EdgeState) -> Exchange:
    """Two steps are encoded, the flow of step 0 is applied, b's update of step 1 in hand, and the edge in ``state``."""
    exchange = Exchange(0, 1, STEPS, ["b"])
    if state is EdgeState.OFFERED:
        return exchange
    exchange.open("b", 1, KEYFRAME)
    exchange.encoded = 0
    exchange.arrive("b", update(0))
    exchange.take_flows()
    exchange.encoded = 1
    exchange.arrive("b", update(1))
    if state is not EdgeState.OPEN:
        exchange.close(exchange.edges["b"])
    if state is EdgeState.SETTLED:
        exchange.closed_by_peer("b", 1)
    if state is EdgeState.CLOSED:
        exchange.closed_by_peer("b", 0)
    assert exchange.edges["b"].state is state
    return exchange


def their_offer(exchange: Exchange) -> None:
    exchange.open("b", 1, KEYFRAME)


def close_here(exchange: Exchange) -> None:
    exchange.close(exchange.edges["b"])


def their_close(exchange: Exchange) -> None:
    exchange.closed_by_peer("b", 1)


def their_even_close(exchange: Exchange) -> None:
    exchange.closed_by_peer("b", 0)


def link_lost(exchange: Exchange) -> None:
    exchange.lose(exchange.edges["b"])


def take_flows(exchange: Exchange) -> None:
    exchange.take_flows()


S = EdgeState
EVENTS = (their_offer, close_here, their_close, their_even_close, link_lost, take_flows)
TABLE: dict[EdgeState, tuple[EdgeState, ...]] = {
    S.OFFERED: (S.OPEN, S.CLOSED, S.CLOSED, S.CLOSED, S.CLOSED, S.OFFERED),
    S.OPEN: (S.OPEN, S.CLOSING, S.SETTLED, S.CLOSED, S.CLOSED, S.OPEN),
    S.CLOSING: (S.CLOSING, S.CLOSING, S.SETTLED, S.CLOSED, S.CLOSED, S.CLOSING),
    S.SETTLED: (S.SETTLED, S.SETTLED, S.SETTLED, S.SETTLED, S.CLOSED, S.CLOSED),
    S.CLOSED: (S.CLOSED, S.CLOSED, S.CLOSED, S.CLOSED, S.CLOSED, S.CLOSED),
}


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [(before, event, after) for before, row in TABLE.items() for event, after in zip(EVENTS, row, strict=True)],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_table(before: EdgeState, event: Callable[[Exchange], None], after: EdgeState) -> None:
    exchange = exchange_in(before)
    event(exchange)
    assert exchange.edges["b"].state is after


@pytest.mark.parametrize(
    ("state", "answered"),
    [(S.OFFERED, False), (S.OPEN, True), (S.CLOSING, False), (S.SETTLED, False), (S.CLOSED, False)],
)
def test_only_an_open_edge_answers_a_close(state: EdgeState, answered: bool) -> None:
    """Each end says once how far it went: as the answer, or as the closing that crossed the other's on its way."""
    assert exchange_in(state).closed_by_peer("b", 0) is answered


def test_weights_are_those_of_both_degrees() -> None:
    exchange = Exchange(0, 2, STEPS, ["b", "c"])
    exchange.open("b", 5, KEYFRAME)
    exchange.open("c", 1, KEYFRAME)
    assert [edge.weight for edge in exchange.opened()] == [1 / 6, 1 / 3]


def test_an_offer_without_an_edge_is_declined() -> None:
    exchange = Exchange(0, 1, STEPS, ["b"])
    assert not exchange.open("c", 1, KEYFRAME)
    assert exchange.open("b", 1, KEYFRAME)
    assert not exchange.open("b", 1, KEYFRAME)
    timed_out = Exchange(0, 1, STEPS, ["b"])
    timed_out.close(timed_out.edges["b"])
    assert not timed_out.open("b", 1, KEYFRAME)


def test_withdrawing_gives_back_all_that_came_and_allows_a_new_offer() -> None:
    exchange = Exchange(0, 1, STEPS, ["b"])
    exchange.open("b", 1, KEYFRAME)
    exchange.arrive("b", update(0))
    assert exchange.withdraw("b") == [KEYFRAME, update(0)]
    assert exchange.withdraw("b") == []
    exchange.offer("b")
    assert exchange.edges["b"] == Edge("b")


# --- flows ------------------------------------------------------------------------------------------


def flows(exchange: Exchange) -> list[int]:
    return [frame.inner for _, frame in exchange.take_flows()]


def test_flows_are_taken_once_in_order_and_not_before_the_own_update_is_there() -> None:
    exchange = Exchange(0, 1, STEPS, ["b"])
    exchange.open("b", 1, KEYFRAME)
    exchange.arrive("b", update(0))
    assert flows(exchange) == [] and not exchange.due()
    exchange.encoded = 1
    exchange.arrive("b", update(1))
    exchange.arrive("b", update(2))
    assert exchange.due()
    assert flows(exchange) == [0, 1]
    assert flows(exchange) == []
    exchange.encoded = 2
    assert flows(exchange) == [2]


@pytest.mark.parametrize("wrong", [0, 2, 3])
def test_gaps_and_replays_are_refused_with_a_sentence(wrong: int) -> None:
    exchange = Exchange(0, 1, STEPS, ["b"])
    exchange.open("b", 1, KEYFRAME)
    assert exchange.arrive("b", update(0))
    with pytest.raises(WireError, match=f"b sent the update of inner step {wrong} of activation 0, expected that of 1"):
        exchange.arrive("b", update(wrong))
    assert exchange.arrive("b", update(1))


def test_an_update_from_beyond_the_end_is_of_no_use() -> None:
    """In a final flush the other end may count more members, and so mix more often."""
    exchange = exchange_in(S.OPEN)
    assert not exchange.arrive("b", update(STEPS[-1] + 1))
    assert exchange.arrive("b", update(2)), "and what comes in its turn is taken"


@pytest.mark.parametrize("state", [S.OFFERED, S.CLOSED])
def test_updates_over_no_edge_are_of_no_use(state: EdgeState) -> None:
    assert not exchange_in(state).arrive("b", update(0))
    assert not Exchange(0, 1, STEPS, []).arrive("b", update(0))


def test_only_steps_that_mix_count() -> None:
    exchange = Exchange(0, 1, (1, 3, 4), ["b"])
    exchange.open("b", 1, KEYFRAME)
    [edge] = exchange.opened()
    exchange.arrive("b", update(1))
    assert exchange.waiting_for(1, lag=0) == []
    assert exchange.waiting_for(3, lag=0) == [edge]
    assert exchange.waiting_for(3, lag=1) == []
    assert exchange.behind(edge, 4) == 2
    exchange.arrive("b", update(3))
    assert exchange.behind(edge, 4) == 1


def test_own_updates_are_needed_until_every_edge_has_applied_its_flow() -> None:
    exchange = Exchange(0, 2, STEPS, ["b", "c"])
    assert exchange.needed_from() == 0
    for peer in "bc":
        exchange.open(peer, 2, KEYFRAME)
    exchange.encoded = 1
    for inner in (0, 1):
        exchange.arrive("b", update(inner))
    exchange.arrive("c", update(0, "c"))
    exchange.take_flows()
    assert exchange.needed_from() == 1
    exchange.close(exchange.edges["c"])
    assert exchange.needed_from() == 1, "the other end may say that it went further"
    exchange.lose(exchange.edges["c"])
    assert exchange.needed_from() == 2


# --- closing ----------------------------------------------------------------------------------------


def test_while_the_other_end_has_not_answered_nothing_flows() -> None:
    exchange = exchange_in(S.CLOSING)
    assert flows(exchange) == [] and not exchange.due()
    assert exchange.arrive("b", update(2)), "it was sent before the closing was heard"


def test_an_end_that_is_behind_catches_up_and_lets_the_rest_go() -> None:
    exchange = exchange_in(S.CLOSING)
    exchange.arrive("b", update(2))
    exchange.encoded = 2
    exchange.closed_by_peer("b", 1)
    assert flows(exchange) == [1]
    assert exchange.leftovers() == [update(2)]
    assert exchange.leftovers() == []


def test_a_claim_to_have_applied_what_was_never_sent_is_cut_to_what_was() -> None:
    exchange = exchange_in(S.OPEN)
    exchange.closed_by_peer("b", 999)
    assert exchange.edges["b"].limit == 1
    assert flows(exchange) == [1]
    assert exchange.edges["b"].state is S.CLOSED


def test_a_lost_edge_gives_back_what_was_not_applied() -> None:
    exchange = exchange_in(S.OPEN)
    assert exchange.lose(exchange.edges["b"]) == [update(1)]
    assert exchange.leftovers() == []


def test_keyframes_are_given_away_once_those_of_closed_edges_too() -> None:
    exchange = Exchange(0, 2, STEPS, ["b", "c"])
    for peer in "bc":
        exchange.open(peer, 2, FrameId(peer, FrameKind.KEYFRAME, 0, 0))
    exchange.lose(exchange.edges["c"])
    assert [frame.sender for frame in exchange.take_keyframes()] == ["b", "c"]
    assert exchange.take_keyframes() == []


def test_when_all_ends_everything_that_was_not_applied_is_given_back() -> None:
    exchange = exchange_in(S.OPEN)
    assert exchange.end() == [update(1)]
    assert exchange.end() == [] and exchange.edges["b"].state is S.CLOSED


def test_how_much_a_lost_edge_may_leave_uneven() -> None:
    exchange, found = Exchange(0, 1, STEPS, ["b"]), []
    for encoded in (NOTHING, *STEPS):
        exchange.encoded = encoded
        found.append(exchange.uneven_max(late_steps=2))
    assert found == [0, 1, 2, 3, 3]


class Ends:
    """Two ends of one edge and the ordered streams between them; ``applied`` collects each end's flows."""

    def __init__(self) -> None:
        self.ends = {name: Exchange(0, 1, STEPS, [peer]) for name, peer in ("ab", "ba")}
        self.mail: dict[str, list[tuple[str, int]]] = {"a": [], "b": []}
        self.applied: dict[str, list[int]] = {"a": [], "b": []}
        for name, peer in ("ab", "ba"):
            self.ends[name].open(peer, 1, FrameId(peer, FrameKind.KEYFRAME, 0, 0))

    def edge(self, name: str) -> Edge:
        return next(iter(self.ends[name].edges.values()))

    def act(self, name: str, what: str) -> None:
        """One thing that can happen at one end."""
        peer = "b" if name == "a" else "a"
        end, edge = self.ends[name], self.edge(name)
        if what == "encode" and end.encoded < STEPS[-1]:
            end.encoded += 1
            if edge.state is S.OPEN:
                self.mail[peer].append(("update", end.encoded))
        elif what == "mix":
            self.applied[name] += [frame.inner for _, frame in end.take_flows()]
        elif what == "close" and edge.state is S.OPEN:
            self.mail[peer].append(("close", edge.applied))
            end.close(edge)
        elif what == "hear" and self.mail[name]:
            self.hear(name, peer, *self.mail[name].pop(0))

    def hear(self, name: str, peer: str, kind: str, inner: int) -> None:
        end, edge = self.ends[name], self.edge(name)
        if kind == "update":
            end.arrive(peer, update(inner, peer))
        elif end.closed_by_peer(peer, inner):
            self.mail[peer].append(("close", edge.applied))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["encode", "mix", "close", "hear"])), max_size=60))
def test_both_ends_stop_at_the_same_flow(acts: list[tuple[str, str]]) -> None:
    """Whatever happens in whatever order, and whoever closes, or both: once all mail is read, both ends have applied
    the same flows, each once and in order."""
    ends = Ends()
    for name, what in acts:
        ends.act(name, what)
    ends.act("a", "close")
    for _ in range(40):
        for name in "ab":
            ends.act(name, "hear")
            ends.act(name, "mix")
    assert ends.edge("a").state is ends.edge("b").state is S.CLOSED
    assert ends.applied["a"] == ends.applied["b"] == list(range(len(ends.applied["a"])))
