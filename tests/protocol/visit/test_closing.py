"""How edges end: what is told to the other end, what is counted, what is written to the log."""

from collections import Counter

import pytest

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule
from deca_node.protocol.node.roster import Roster
from deca_node.protocol.node.visits import Visits
from deca_node.protocol.visit.closing import Closing, is_orderly
from deca_node.protocol.visit.edges import Edges, frames_held_max
from deca_node.protocol.visit.loans import Loans
from deca_node.protocol.visit.phases import EdgeState
from deca_node.protocol.visit.rules import Pace, VisitRules
from deca_node.protocol.visit.visit import Visit
from tests.defaults import default_policy

NAMES = ("b", "c")
SETTINGS = RunSettings(rounds=2, inner_steps=3, flush_mixes=1, late_steps=2)


def rules(near: tuple[str, ...] = NAMES) -> VisitRules:
    schedule = Schedule(SETTINGS, 1, final_flush_mixes=1)
    return Pace("a", SETTINGS, default_policy()).rules((frozenset(near),), schedule)


class Ends:
    """One end of two edges in activation 1, with everything that it says."""

    def __init__(self) -> None:
        self.said: list[c.Command] = []
        self.counters: Counter[str] = Counter()
        self.edges = Edges(1, 2, dict.fromkeys(NAMES, (0, 1, 2, 3)), NAMES)
        self.loans = Loans(self.said.append)
        self.rules = rules()
        self.closing = Closing(self.edges, self.loans, self.rules, self.counters, self.said.append)

    def opened(self, applied: int = -1) -> "Ends":
        """The same ends with both edges open, and flows applied up to a step."""
        for name in NAMES:
            self.edges.open(name, 2, FrameId(name, FrameKind.KEYFRAME, 1, 0))
            for inner in range(applied + 1):
                if inner > self.edges.encoded:
                    self.edges.encode(inner)
                self.edges.arrive(name, FrameId(name, FrameKind.UPDATE, 1, inner))
        self.edges.take_flows()
        self.edges.mixed()
        return self

    def closes(self) -> list[tuple[str, int, int, str, bool]]:
        sent = [command for command in self.said if isinstance(command, c.SendClose)]
        return [(s.peer, s.activation, s.applied, s.reason, s.orderly) for s in sent]

    def reports(self) -> list[tuple[str, str, str, str]]:
        return [(r.kind, r.sentence, r.level, r.about) for r in self.said if isinstance(r, c.Report)]


@pytest.mark.parametrize(
    ("reason", "orderly"),
    [
        ("", True),
        ("in answer", True),
        ("a stops for now", True),
        ("a has mixed as often as it means to", True),
        ("a has ended this activation", True),
        ("in answer to what", False),
        ("b is late", False),
    ],
)
def test_orderly_closes_are_known_by_their_words(reason: str, orderly: bool) -> None:
    assert is_orderly(reason) is orderly


def test_a_node_may_hold_twice_d_and_two_keyframes_and_two() -> None:
    assert [frames_held_max(late) for late in (1, 2, 4)] == [6, 8, 12]


def test_a_late_neighbour_is_told_why_and_rests() -> None:
    ends = Ends().opened(applied=1)
    ends.closing.close_late(ends.edges.by_peer["b"], "b is late")
    words = "b is late; no edge to it for 1 more activation"
    assert ends.closes() == [("b", 1, 1, words, False)]
    assert ends.reports() == [
        ("edge-dropped", f"edge to b is closed for this activation: {words}", "warning", "b"),
    ]
    assert ends.rules.rests.resting("b", 2) and not ends.rules.rests.resting("b", 3)
    assert not ends.rules.rests.resting("c", 2)
    assert ends.counters == {"edges_dropped": 1}
    assert ends.edges.by_peer["b"].state is EdgeState.CLOSING


def test_the_second_rest_takes_two_activations_and_says_so() -> None:
    ends = Ends().opened()
    ends.rules.rests.late("b", 0)
    ends.closing.close_late(ends.edges.by_peer["b"], "b is late")
    assert ends.closes()[0][3] == "b is late; no edge to it for 2 more activations"


def test_a_close_is_answered_once_with_the_last_flow() -> None:
    ends = Ends().opened(applied=2)
    ends.closing.closed_by_peer("b", 1, "b is tired")
    assert ends.closes() == [("b", 1, 2, "in answer", True)]
    assert ends.reports() == [("edge-closed", "b closed its edge for this activation: b is tired", "warning", "b")]
    assert ends.counters == {"edges_closed_by_peer": 1}
    ends.closing.closed_by_peer("b", 1, "again")
    ends.closing.closed_by_peer("stranger", 1, "what")
    assert len(ends.closes()) == 1 and ends.counters == {"edges_closed_by_peer": 1}


def test_an_answer_to_an_edge_of_before_ends_the_one_that_its_offer_opened() -> None:
    """The trainer of this node died, and began the activation anew. The peer had closed its end for good by then, so
    what was applied since is uneven, and counted."""
    ends = Ends().opened(applied=1)
    ends.closing.closed_by_peer("b", -1, "in answer")
    assert ends.edges.by_peer["b"].state is EdgeState.CLOSED and ends.edges.is_open("c")
    assert ends.closes() == []
    assert [(kind, about) for kind, _, _, about in ends.reports()] == [("edge-lost", "b")]
    assert ends.counters == {"edges_lost": 1, "flows_uneven_max": 2}


def test_an_answer_that_comes_after_the_visit_counts_its_flows() -> None:
    ends = Ends().opened(applied=1)
    ends.edges.end()
    ends.closing.answer_late("b", -1, "in answer")
    assert ends.closes() == [] and ends.counters == {"flows_uneven_max": 2}
    assert [(kind, about) for kind, _, _, about in ends.reports()] == [("edge-lost", "b")]
    ends.closing.answer_late("c", 0, "c is tired")
    assert ends.closes() == [("c", 1, 1, "a has ended this activation", True)]
    ends.closing.answer_late("c", 1, "in answer")
    assert len(ends.closes()) == 1 and ends.counters == {"flows_uneven_max": 2}


def test_a_stop_is_orderly_and_no_warning() -> None:
    ends = Ends().opened(applied=0)
    ends.closing.stop(ends.edges.opened())
    assert ends.closes() == [(name, 1, 0, "a stops for now", True) for name in NAMES]
    assert not ends.reports() and not ends.counters


def test_a_visit_that_is_given_up_tells_every_open_end() -> None:
    ends = Ends().opened(applied=0)
    ends.closing.abandon("the trainer of a died", offers_sent=False)
    assert ends.closes() == [(name, 1, 0, "the trainer of a died", False) for name in NAMES]
    assert all(edge.state is EdgeState.CLOSED for edge in ends.edges.by_peer.values())
    # One flow of each edge may be uneven: the trainer may not have applied it.
    assert ends.counters == {"flows_uneven_max": 2}


def test_offers_that_were_sent_are_taken_back_when_a_visit_is_given_up() -> None:
    sent, unsent = Ends(), Ends()
    sent.closing.abandon("a ends", offers_sent=True)
    unsent.closing.abandon("a ends", offers_sent=False)
    assert sent.closes() == [(name, 1, -1, "a ends", False) for name in NAMES]
    assert unsent.closes() == []


def test_edges_that_ended_before_count_where_the_trainer_has_frames_of_them() -> None:
    """The trainer may not have applied the flows that it was handed last."""
    ends = Ends().opened(applied=1)
    ends.edges.lose(ends.edges.by_peer["b"])
    ends.loans.lend_all([FrameId("b", FrameKind.UPDATE, 1, 1)])
    ends.closing.abandon("a ends", offers_sent=False)
    assert ends.counters == {"flows_uneven_max": 4}
    ends = Ends().opened(applied=1)
    ends.edges.lose(ends.edges.by_peer["b"])
    ends.closing.abandon("a ends", offers_sent=False)
    assert ends.counters == {"flows_uneven_max": 2}


def test_an_edge_over_which_nothing_flowed_is_even() -> None:
    ends = Ends()
    for name in NAMES:
        ends.edges.open(name, 2, FrameId(name, FrameKind.KEYFRAME, 1, 0))
    ends.edges.encode(0)
    ends.edges.lose(ends.edges.by_peer["b"])
    ends.loans.lend_all([])
    ends.closing.abandon("a ends", offers_sent=False)
    assert ends.counters == {"flows_uneven_max": 1}, "only the edge to c may be uneven"


def test_counts_add_up_over_edges() -> None:
    dropped, lost, closed, late = (Ends().opened(applied=1) for _ in range(4))
    late.edges.end()
    for name in NAMES:
        dropped.closing.close(dropped.edges.by_peer[name], "late")
        lost.closing.lose(lost.edges.by_peer[name], "gone")
        closed.closing.closed_by_peer(name, 1, "tired")
        late.closing.answer_late(name, 0, "in answer")
    assert dropped.counters == {"edges_dropped": 2}
    assert lost.counters == {"edges_lost": 2, "flows_uneven_max": 4}
    assert closed.counters == {"edges_closed_by_peer": 2}
    assert late.counters == {"flows_uneven_max": 2}, "the flow of step 1, on both edges"
    assert late.reports()[1] == (
        "edge-lost",
        "c had closed its edge before this node's trainer began anew",
        "warning",
        "c",
    )


def test_an_edge_that_was_lost_with_the_trainer_says_so() -> None:
    ends = Ends().opened(applied=1)
    ends.closing.closed_by_peer("b", -1, "in answer")
    assert ends.reports()[0][1] == (
        "edge to b is gone for this activation: b has closed it since before this node's trainer began anew"
    )


def test_frames_that_the_trainer_refuses_are_an_offence_and_end_the_edge() -> None:
    """The flows that came with its last command were not applied: the close names the last that was."""
    ends = Ends().opened(applied=0)
    ends.edges.encode(1)
    ends.edges.arrive("b", FrameId("b", FrameKind.UPDATE, 1, 1))
    ends.edges.take_flows()
    ends.closing.refused([e.Refused("b", "corrupt", "its sum is wrong")])
    assert ends.said[0] == c.Offence("b", "corrupt", "its sum is wrong")
    assert ends.closes() == [("b", 1, 0, "its sum is wrong", False)]
    sentence = "edge to b is gone for this activation: b sent a frame that cannot be used: its sum is wrong"
    assert ends.reports() == [("edge-lost", sentence, "warning", "b")]
    assert ends.counters == {"edges_refused": 1, "edges_lost": 1, "flows_uneven_max": 2}
    ends.closing.refused([e.Refused("b", "corrupt", "again")])
    assert len(ends.closes()) == 1 and ends.counters["edges_refused"] == 2, "one that has ended is not closed again"


def test_peers_that_mix_on_are_told_once_when_this_node_is_done() -> None:
    ends = Ends().opened(applied=1)
    ends.closing.mixes_on("b", over=False)
    assert ends.closes() == []
    ends.closing.over()
    assert ends.closes() == [("b", 1, 1, "a has mixed as often as it means to", True)]
    ends.closing.mixes_on("b", over=True)
    assert len(ends.closes()) == 1
    ends.closing.mixes_on("c", over=True)
    ends.closing.mixes_on("stranger", over=True)
    assert ends.closes()[1:] == [("c", 1, 1, "a has mixed as often as it means to", True)]


# --- the same, in a visit ---------------------------------------------------------------------------


class Told:
    """A visit of activation 0 with both neighbours wanted, and everything that it says."""

    def __init__(self, near: tuple[str, ...] = NAMES) -> None:
        self.said: list[c.Command] = []
        self.counters: Counter[str] = Counter()
        self.rules = rules(near)
        planned = self.rules.schedule[0]
        self.visit = Visit(self.rules, planned, near, self.counters, self.said.append)

    def opens(self) -> list[str]:
        return [command.peer for command in self.said if isinstance(command, c.SendOpen)]


def test_a_visit_says_what_it_waits_for() -> None:
    told = Told()
    assert told.visit.awaits() is None
    told.visit.activated(0.0)
    assert told.visit.awaits() == "edges to open: b, c"
    told.visit.take_offer(e.OpenReceived("b", 0, 2, FrameId("b", FrameKind.KEYFRAME, 0, 0)), 0.1)
    assert told.visit.awaits() == "edges to open: c"


def test_a_neighbour_that_comes_while_edges_open_is_offered_one() -> None:
    told = Told()
    told.visit.activated(0.0)
    told.said.clear()
    told.visit.peer_up("b")
    told.visit.peer_up("stranger")
    assert told.opens() == ["b"]


def test_a_neighbour_that_comes_before_the_keyframe_is_offered_an_edge_with_it() -> None:
    told = Told(("b", "c"))
    told.visit.peer_down(e.PeerDown("b", "gone"), 0.0)
    told.visit.peer_up("b")
    assert told.opens() == []
    told.visit.activated(0.0)
    assert sorted(told.opens()) == ["b", "c"]


def test_an_offer_that_is_repeated_changes_nothing() -> None:
    """Streams that broke one upon the other make the peer offer twice over the last of them."""
    told = Told(("b",))
    visits = Visits(
        "a",
        Roster("a", ["a", "b"], SETTINGS, None),
        Pace("a", SETTINGS, default_policy()),
        told.counters,
        told.said.append,
    )
    visits.current = told.visit
    told.visit.activated(0.0)
    offer = e.OpenReceived("b", 0, 1, FrameId("b", FrameKind.KEYFRAME, 0, 0))
    visits.take_offer(offer, 0.1)
    assert told.visit.edges.is_open("b")
    told.said.clear()
    visits.take_offer(offer, 0.2)
    assert told.said == [c.Release(offer.keyframe)] and told.visit.edges.is_open("b")
    visits.take_offer(e.OpenReceived("b", 1, 1, FrameId("b", FrameKind.KEYFRAME, 1, 0)), 0.3)
    assert isinstance(told.said[-1], c.SendClose), "one of an activation that is not here is declined"


def test_an_interrupted_visit_offers_nothing_more() -> None:
    told = Told()
    told.visit.activated(0.0)
    told.visit.interrupt(0.5)
    told.said.clear()
    told.visit.peer_up("b")
    assert told.opens() == []


def test_an_update_of_a_visit_that_is_over_is_let_go_and_counted() -> None:
    told = Told()
    told.visit.abandon("the trainer of a died")
    told.said.clear()
    late = FrameId("b", FrameKind.UPDATE, 0, 1)
    told.visit.update_received(e.UpdateReceived("b", late), 1.0)
    assert told.said == [c.Release(late)]
    assert told.counters["updates_unused"] == 1


def test_an_edge_that_never_opened_is_forgotten_without_frames() -> None:
    assert Ends().edges.withdraw("b") == []
    assert [frame.kind for frame in Ends().opened().edges.withdraw("b")] == [FrameKind.KEYFRAME]


def test_every_update_of_no_use_is_counted() -> None:
    told = Told()
    told.visit.abandon("the trainer of a died")
    for inner in range(3):
        told.visit.update_received(e.UpdateReceived("b", FrameId("b", FrameKind.UPDATE, 0, inner)), 1.0)
    assert told.counters["updates_unused"] == 3


def test_offers_are_taken_back_only_while_they_can_have_been_sent() -> None:
    opening, before = Told(), Told()
    opening.visit.activated(0.0)
    for told in (opening, before):
        told.visit.abandon("a ends")
    closes = [[s.peer for s in told.said if isinstance(s, c.SendClose)] for told in (opening, before)]
    assert closes == [["b", "c"], []]


def test_a_second_interruption_changes_nothing() -> None:
    told = Told()
    told.visit.activated(0.0)
    told.visit.interrupt(0.5)
    told.said.clear()
    told.visit.interrupt(0.6)
    assert told.said == []


def test_a_neighbour_that_is_too_late_is_named_with_the_limit() -> None:
    """D = 2: at the third exchange a neighbour without any update is more than two behind."""
    told = Told(("b",))
    told.visit.activated(0.0)
    told.visit.take_offer(e.OpenReceived("b", 0, 1, FrameId("b", FrameKind.KEYFRAME, 0, 0)), 0.0)
    told.visit.connect_if_open()
    told.visit.connected(e.Connected(0, ()), 0.0)
    for inner in range(3):
        step = next(s for s in reversed(told.said) if isinstance(s, c.HalfStep))
        told.visit.half_stepped(e.HalfStepped(step.step, step.update), float(inner))
        assert told.visit.deadline is not None
        told.visit.deadline_passed(told.visit.deadline)
    [close] = [s for s in told.said if isinstance(s, c.SendClose)]
    assert close.reason == "b is more than 2 exchanges behind; no edge to it for 1 more activation"
    assert close.applied == -1
