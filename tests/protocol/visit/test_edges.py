"""One edge from its offer to its end, in every state and at every event; then both of its ends at once."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.errors import WireError
from deca_node.protocol.visit.edges import NOTHING, Edge, Edges
from deca_node.protocol.visit.phases import EdgeState

STEPS = (0, 1, 2, 3)
ALL = dict.fromkeys("abc", STEPS)
"""The exchanges with every neighbour."""

KEYFRAME = FrameId("b", FrameKind.KEYFRAME, 0, 0)


def update(inner: int, sender: str = "b") -> FrameId:
    return FrameId(sender, FrameKind.UPDATE, 0, inner)


def edges_in(state: EdgeState) -> Edges:
    """Two steps are encoded, the flow of step 0 is applied, b's update of step 1 in hand, and the edge in ``state``."""
    edges = Edges(0, 1, ALL, ["b"])
    if state is EdgeState.OFFERED:
        return edges
    edges.open("b", 1, KEYFRAME)
    edges.encode(0)
    edges.arrive("b", update(0))
    edges.take_flows()
    edges.encode(1)
    edges.arrive("b", update(1))
    if state is not EdgeState.OPEN:
        edges.close(edges.by_peer["b"])
    if state is EdgeState.SETTLED:
        edges.closed_by_peer("b", 1)
    if state is EdgeState.CLOSED:
        edges.closed_by_peer("b", 0)
    assert edges.by_peer["b"].state is state
    return edges


def their_offer(edges: Edges) -> None:
    edges.open("b", 1, KEYFRAME)


def close_here(edges: Edges) -> None:
    edges.close(edges.by_peer["b"])


def their_close(edges: Edges) -> None:
    edges.closed_by_peer("b", 1)


def their_even_close(edges: Edges) -> None:
    edges.closed_by_peer("b", 0)


def link_lost(edges: Edges) -> None:
    edges.lose(edges.by_peer["b"])


def take_flows(edges: Edges) -> None:
    edges.take_flows()


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
def test_table(before: EdgeState, event: Callable[[Edges], None], after: EdgeState) -> None:
    edges = edges_in(before)
    event(edges)
    assert edges.by_peer["b"].state is after


@pytest.mark.parametrize(
    ("state", "answered"),
    [(S.OFFERED, False), (S.OPEN, True), (S.CLOSING, False), (S.SETTLED, False), (S.CLOSED, False)],
)
def test_only_an_open_edge_answers_a_close(state: EdgeState, answered: bool) -> None:
    """Each end says once up to which flow it went: in its answer, or in a close that crossed the other end's."""
    assert edges_in(state).closed_by_peer("b", 0) is answered


def test_weights_are_those_of_both_degrees() -> None:
    edges = Edges(0, 2, ALL, ["b", "c"])
    edges.open("b", 5, KEYFRAME)
    edges.open("c", 1, KEYFRAME)
    assert [edge.weight for edge in edges.opened()] == [1 / 6, 1 / 3]


def test_an_offer_without_an_edge_is_declined() -> None:
    edges = Edges(0, 1, ALL, ["b"])
    assert not edges.open("c", 1, KEYFRAME)
    assert edges.open("b", 1, KEYFRAME)
    assert not edges.open("b", 1, KEYFRAME)
    timed_out = Edges(0, 1, ALL, ["b"])
    timed_out.close(timed_out.by_peer["b"])
    assert not timed_out.open("b", 1, KEYFRAME)


def test_withdrawing_gives_back_all_that_came_and_allows_a_new_offer() -> None:
    edges = Edges(0, 1, ALL, ["b"])
    edges.open("b", 1, KEYFRAME)
    edges.arrive("b", update(0))
    assert edges.withdraw("b") == [KEYFRAME, update(0)]
    assert edges.withdraw("b") == []
    edges.offer("b")
    assert edges.by_peer["b"] == Edge("b", STEPS)


# --- flows ------------------------------------------------------------------------------------------


def flows(edges: Edges) -> list[int]:
    return [frame.inner for _, frame in edges.take_flows()]


def test_flows_are_taken_once_in_order_and_not_before_the_own_update_is_there() -> None:
    edges = Edges(0, 1, ALL, ["b"])
    edges.open("b", 1, KEYFRAME)
    edges.arrive("b", update(0))
    assert flows(edges) == [] and not edges.due()
    edges.encode(1)
    edges.arrive("b", update(1))
    edges.arrive("b", update(2))
    assert edges.due()
    assert flows(edges) == [0, 1]
    assert flows(edges) == []
    edges.encode(2)
    assert flows(edges) == [2]


@pytest.mark.parametrize("wrong", [0, 2, 3])
def test_gaps_and_replays_are_refused_with_a_sentence(wrong: int) -> None:
    edges = Edges(0, 1, ALL, ["b"])
    edges.open("b", 1, KEYFRAME)
    assert edges.arrive("b", update(0))
    with pytest.raises(WireError, match=f"b sent the update of inner step {wrong} of activation 0, expected that of 1"):
        edges.arrive("b", update(wrong))
    assert edges.arrive("b", update(1))


def test_an_update_from_beyond_the_end_is_of_no_use() -> None:
    """In a final flush the other end may count more members, and so mix more often."""
    edges = edges_in(S.OPEN)
    assert not edges.arrive("b", update(STEPS[-1] + 1))
    assert edges.arrive("b", update(2)), "and what comes in its turn is taken"


@pytest.mark.parametrize("state", [S.OFFERED, S.CLOSED])
def test_updates_over_no_edge_are_of_no_use(state: EdgeState) -> None:
    assert not edges_in(state).arrive("b", update(0))
    assert not Edges(0, 1, ALL, []).arrive("b", update(0))


def test_only_steps_that_mix_count() -> None:
    edges = Edges(0, 1, {"b": (1, 3, 4)}, ["b"])
    edges.open("b", 1, KEYFRAME)
    [edge] = edges.opened()
    edges.encode(1)
    edges.arrive("b", update(1))
    assert edges.waiting_for(lag=0) == []
    edges.encode(3)
    assert edges.waiting_for(lag=0) == [edge]
    assert edges.waiting_for(lag=1) == []
    edges.encode(4)
    assert edges.behind(edge) == 2
    edges.arrive("b", update(3))
    assert edges.behind(edge) == 1
    edges.arrive("b", update(4))
    assert edges.behind(edge) == 0


# --- partners that change within a visit ------------------------------------------------------------


def turns() -> Edges:
    """Exchanges with b at even steps and with c at odd ones, all of them open."""
    edges = Edges(0, 1, {"b": (0, 2, 4), "c": (1, 3)}, "bc")
    for peer in "bc":
        edges.open(peer, 1, KEYFRAME if peer == "b" else None)
    return edges


def test_an_update_goes_to_the_neighbour_whose_turn_it_is() -> None:
    edges = turns()
    assert [[edge.peer for edge in edges.due_at(inner)] for inner in range(6)] == [
        ["b"],
        ["c"],
        ["b"],
        ["c"],
        ["b"],
        [],
    ]
    edges.close(edges.by_peer["b"])
    assert [[edge.peer for edge in edges.due_at(inner)] for inner in range(3)] == [[], ["c"], []]
    assert edges.lead_on(3) and not edges.lead_on(4)


def test_each_neighbour_is_waited_for_at_its_own_steps_only() -> None:
    edges = turns()
    for inner in (0, 1):
        edges.encode(inner)
    assert [edge.peer for edge in edges.waiting_for(lag=0)] == ["b", "c"]
    assert [edge.peer for edge in edges.waiting_for(lag=1)] == ["b"]
    edges.arrive("b", update(0))
    edges.arrive("c", update(1, "c"))
    assert edges.waiting_for(lag=0) == [] and edges.uneven() == edges.opened()
    assert flows(edges) == [0, 1]
    assert edges.uneven() == [], "the flow of step 1 is none of b's"
    with pytest.raises(WireError, match="inner step 4 of activation 0, expected that of 2"):
        edges.arrive("b", update(4))
    assert not edges.arrive("c", update(4, "c")), "no exchange of c"


def test_lateness_counts_the_exchanges_of_this_node_from_the_first_that_is_missing() -> None:
    edges = turns()
    edges.encode(0)
    edges.arrive("b", update(0))
    for inner in (1, 2, 3):
        edges.encode(inner)
    assert [edges.behind(edge) for edge in edges.opened()] == [2, 3]
    assert edges.needs(0), "the flow of step 0 is not taken yet"
    edges.take_flows()
    assert not edges.needs(0) and edges.needs(1), "c's end may still be applied"


def test_ends_that_expect_different_exchanges_have_those_that_both_expect() -> None:
    edges = Edges(0, 1, {"b": (0, 2, 4), "c": (1, 3)}, "bc")
    edges.open("b", 1, KEYFRAME, (0, 1, 4, 9))
    edges.open("c", 1, None, ())
    assert [edge.steps for edge in edges.opened()] == [(0, 4), ()]
    for inner in (0, 1, 2):
        edges.encode(inner)
    edges.arrive("b", update(0))
    assert flows(edges) == [0] and edges.uneven() == []
    assert [edges.behind(edge) for edge in edges.opened()] == [0, 0]


def test_a_claim_between_two_exchanges_of_an_edge_is_cut_to_the_one_before() -> None:
    edges = turns()
    for inner in (0, 1):
        edges.encode(inner)
    edges.arrive("b", update(0))
    edges.closed_by_peer("b", 1)
    assert edges.by_peer["b"].limit == 0
    assert flows(edges) == [0] and edges.by_peer["b"].state is S.CLOSED


def test_own_updates_are_needed_until_every_edge_has_applied_its_flow() -> None:
    edges = Edges(0, 2, ALL, ["b", "c"])
    assert not needed(edges), "no edge is open"
    for peer in "bc":
        edges.open(peer, 2, KEYFRAME)
    edges.encode(1)
    for inner in (0, 1):
        edges.arrive("b", update(inner))
    edges.arrive("c", update(0, "c"))
    edges.take_flows()
    assert needed(edges)[0] == 1
    edges.close(edges.by_peer["c"])
    assert needed(edges)[0] == 1, "the other end may say that it went further"
    edges.lose(edges.by_peer["c"])
    assert needed(edges)[0] == 2


def test_a_closed_edge_needs_what_was_sent_before_and_nothing_since() -> None:
    """Its other end may not answer before the visit ends, and own updates must not pile up until then."""
    edges = Edges(0, 2, ALL, ["b", "c"])
    for peer in "bc":
        edges.open(peer, 2, KEYFRAME)
    edges.encode(1)
    edges.close(edges.by_peer["c"])
    for inner in (2, 3):
        edges.encode(inner)
    for inner in (0, 1, 2):
        edges.arrive("b", update(inner))
    edges.take_flows()
    assert needed(edges)[:3] == [0, 1, 3], "0 and 1 for c, 3 for b"
    edges.arrive("c", update(0, "c"))
    edges.closed_by_peer("c", 3)
    assert edges.by_peer["c"].limit == 1, "a claim to have applied what was never sent is cut"
    edges.take_flows()
    assert needed(edges)[:2] == [1, 3]


def needed(edges: Edges) -> list[int]:
    return [inner for inner in range(10) if edges.needs(inner)]


# --- closing ----------------------------------------------------------------------------------------


def test_while_the_other_end_has_not_answered_nothing_flows() -> None:
    edges = edges_in(S.CLOSING)
    assert flows(edges) == [] and not edges.due()
    assert edges.arrive("b", update(2)), "it was sent before the closing was heard"


def test_an_end_that_is_behind_catches_up_and_lets_the_rest_go() -> None:
    edges = edges_in(S.CLOSING)
    edges.arrive("b", update(2))
    edges.encode(2)
    edges.closed_by_peer("b", 1)
    assert flows(edges) == [1]
    assert edges.leftovers() == [update(2)]
    assert edges.leftovers() == []


def test_a_claim_to_have_applied_what_was_never_sent_is_cut_to_what_was() -> None:
    edges = edges_in(S.OPEN)
    edges.closed_by_peer("b", 999)
    assert edges.by_peer["b"].limit == 1
    assert flows(edges) == [1]
    assert edges.by_peer["b"].state is S.CLOSED


def test_a_lost_edge_gives_back_what_was_not_applied() -> None:
    edges = edges_in(S.OPEN)
    assert edges.lose(edges.by_peer["b"]) == [update(1)]
    assert edges.leftovers() == []


def test_keyframes_are_given_away_once_those_of_closed_edges_too() -> None:
    edges = Edges(0, 2, ALL, ["b", "c"])
    for peer in "bc":
        edges.open(peer, 2, FrameId(peer, FrameKind.KEYFRAME, 0, 0))
    edges.lose(edges.by_peer["c"])
    assert [frame.sender for frame in edges.take_keyframes()] == ["b", "c"]
    assert edges.take_keyframes() == []


def test_when_all_ends_everything_that_was_not_applied_is_given_back() -> None:
    edges = edges_in(S.OPEN)
    assert edges.end() == [update(1)]
    assert edges.end() == [] and edges.by_peer["b"].state is S.CLOSED


def test_how_much_a_lost_edge_may_leave_uneven() -> None:
    edges, found = Edges(0, 1, ALL, ["b"]), []
    for encoded in (NOTHING, *STEPS):
        if encoded != NOTHING:
            edges.encode(encoded)
        found.append(edges.uneven_max(late_steps=2))
    assert found == [0, 1, 2, 3, 3]


class Ends:
    """Two ends of one edge and the ordered streams between them; ``applied`` collects each end's flows."""

    def __init__(self) -> None:
        self.ends = {name: Edges(0, 1, ALL, [peer]) for name, peer in ("ab", "ba")}
        self.mail: dict[str, list[tuple[str, int]]] = {"a": [], "b": []}
        self.applied: dict[str, list[int]] = {"a": [], "b": []}
        for name, peer in ("ab", "ba"):
            self.ends[name].open(peer, 1, FrameId(peer, FrameKind.KEYFRAME, 0, 0))

    def edge(self, name: str) -> Edge:
        return next(iter(self.ends[name].by_peer.values()))

    def act(self, name: str, what: str) -> None:
        """One thing of those that can happen at one end."""
        peer = "b" if name == "a" else "a"
        end, edge = self.ends[name], self.edge(name)
        if what == "encode" and end.encoded < STEPS[-1]:
            end.encode(end.encoded + 1)
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
    """In any order of events, and whichever end closes, or both: once all mail is read, both ends have applied the same
    flows, each once and in order."""
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


def test_what_edges_that_ended_never_apply_is_handed_back_once() -> None:
    edges = Edges(0, 2, ALL, ["b", "c"])
    for peer in "bc":
        edges.open(peer, 1, None)
        edges.arrive(peer, update(0, peer))
        edges.close(edges.by_peer[peer])
        edges.closed_by_peer(peer, NOTHING)
    assert edges.leftovers() == [update(0, "b"), update(0, "c")]
    assert edges.leftovers() == []


def test_an_edge_that_the_trainer_refuses_goes_back_to_the_last_flow_that_it_has_applied() -> None:
    edges = edges_in(EdgeState.OPEN)
    edge = edges.by_peer["b"]
    assert (edge.mixed, edge.applied) == (NOTHING, 0)
    edges.mixed()
    assert edge.mixed == 0
    edges.take_flows()
    assert edge.applied == 1
    edges.refused(edge)
    assert edge.applied == 0


def test_a_gap_is_told_from_a_replay() -> None:
    edges = Edges(0, 1, ALL, ["b"])
    edges.open("b", 1, None)
    reasons = []
    for inner in (1, 0, 0, 2, 1):
        try:
            edges.arrive("b", update(inner))
        except WireError as problem:
            reasons.append((problem.reason, str(problem)))
    said = "b sent the update of inner step {} of activation 0, expected that of {}"
    assert reasons == [
        ("out-of-order", said.format(1, 0)),
        ("replay", said.format(0, 1)),
        ("out-of-order", said.format(2, 1)),
    ]
