"""The parts of a node, each by itself: what it remembers, what it says, what follows from the two."""

from collections import Counter

import pytest

from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.agreed.topology import final_graph
from deca_node.protocol.node.catching_up import CatchingUp
from deca_node.protocol.node.node import TRAINER_DEATHS_MAX, Node, _visit, _visits
from deca_node.protocol.node.phases import Phase
from deca_node.protocol.node.roster import NOT_TRAINING, Roster
from deca_node.protocol.node.state import NodeState
from deca_node.protocol.node.visits import Offers, Visits
from deca_node.protocol.visit.rules import Pace
from tests.defaults import default_policy

SETTINGS = RunSettings(rounds=2, inner_steps=2, flush_mixes=1, topology="full")
SIZES = FrameSizes(keyframe_bytes=(8, 8), update_bytes=(8, 8), signal_bytes=(0, 0), v_bytes=(0, 0))
MODEL = ModelFacts("ab", ("body", "head"), (4, 4))


def key(peer: str, activation: int) -> FrameId:
    return FrameId(peer, FrameKind.KEYFRAME, activation, 0)


def offer(peer: str, activation: int) -> e.OpenReceived:
    return e.OpenReceived(peer, activation, 1, key(peer, activation))


# --- the roster -------------------------------------------------------------------------------------


def test_a_node_counts_in_its_own_graph_whatever_the_others_say() -> None:
    roster = Roster("a", ("a", "b"), SETTINGS, None)
    roster.know({"b": 0})
    assert roster.taking_part == {"a": 0, "b": 0} and roster.members == ("a", "b")
    roster.know({"a": 3, "b": 5})
    assert roster.taking_part == {"a": 3, "b": 5}
    assert roster.final_graph(4) == {"a": frozenset()}
    assert roster.final_graph(5) == {"a": frozenset("b"), "b": frozenset("a")}
    roster.know({"a": -1, "b": 0})
    assert roster.taking_part == {"b": 0}, "a node that is away takes no part in decisions"


def test_members_count_in_the_graph_from_when_they_are_ready_unless_they_refuse() -> None:
    roster = Roster("a", ("a", "b", "c", "d"), SETTINGS, None)
    roster.blocks = 2
    roster.know({"a": 0, "b": 2, "c": -1, "d": 0})
    assert roster.graph(1) == {"a": frozenset("d"), "d": frozenset("a")}
    assert roster.graph(2)["a"] == frozenset("bd")
    assert roster.disagrees("d") and not roster.disagrees("d")
    assert roster.graph(1) == {"a": frozenset()} and roster.refused == frozenset("d")
    assert roster.turns(2) == (frozenset("b"),)
    roster.came("d", 1)
    assert roster.graph(1)["a"] == frozenset("d") and not roster.refused


def test_a_run_waits_for_as_many_as_were_asked_for() -> None:
    roster = Roster("a", ("a", "b", "c"), SETTINGS, None)
    assert not roster.gathered and roster.missing == "b, c" and roster.shared
    roster.came("b", NOT_TRAINING)
    assert not roster.gathered and roster.missing == "c"
    roster.came("c", NOT_TRAINING)
    roster.went("c")
    assert roster.gathered and roster.up == {"b"}, "members that were met once need not stay"
    some = Roster("a", ("a",), SETTINGS, 4)
    some.came("x", 0)
    assert some.missing == "2 more" and not some.gathered
    assert not Roster("a", ("a",), SETTINGS, None).shared and Roster("a", ("a",), SETTINGS, None).gathered


def test_disagreement_is_counted_in_three_ways() -> None:
    roster = Roster("a", ("a", "b", "c", "d", "e"), SETTINGS, None)
    roster.disagrees("b")
    assert roster.shunned and not roster.outvoted and not roster.outcast
    roster.came("c", 0)
    assert not roster.shunned, "as many as refuse it"
    roster.disagrees("d")
    assert roster.shunned and not roster.outvoted and not roster.outcast
    roster.disagrees("e")
    assert roster.outvoted and roster.outcast, "three of five"
    assert 2 * len(roster.refused) == 6
    even = Roster("a", ("a", "b", "c", "d"), SETTINGS, None)
    even.disagrees("b")
    even.disagrees("c")
    assert even.outvoted and not even.outcast, "half is not most"


def test_peers_are_unfinished_until_they_say_goodbye_or_refuse() -> None:
    roster = Roster("a", ("a", "b", "c"), SETTINGS, None)
    roster.came("x", 2)
    assert roster.unfinished == ["b", "c", "x"]
    roster.finished("b")
    roster.disagrees("c")
    assert roster.unfinished == ["x"]
    roster.came("b", 2)
    assert roster.unfinished == ["b", "x"], "it says so again on every new stream"


def test_positions_hold_as_long_as_the_stream() -> None:
    roster = Roster("a", ("a", "b", "c"), SETTINGS, None)
    assert roster.farthest == NOT_TRAINING and not roster.busy(0)
    roster.came("b", 3)
    roster.came("c", 1)
    assert roster.farthest == 3 and roster.busy(3) and not roster.busy(4)
    roster.went("b")
    roster.went("b")
    assert roster.farthest == 1 and roster.up == {"c"}


def test_every_member_that_was_ever_known_counts() -> None:
    roster = Roster("a", ("a", "b"), SETTINGS, 3)
    assert roster.ever == 3, "as many as the run was to begin with"
    for peer in "xyz":
        roster.came(peer, 0)
    roster.know({"a": 0, "v": 0})
    assert roster.ever == 5, "a, v and the three that were met"


# --- offers that wait -------------------------------------------------------------------------------


def test_the_newest_offer_of_each_peer_waits_for_its_activation() -> None:
    said: list[c.Command] = []
    offers = Offers(said.append)
    for peer, activation in (("c", 2), ("b", 1), ("b", 2), ("d", 3)):
        offers.hold(offer(peer, activation))
    assert said == [c.Release(key("b", 1))], "the older offer of b was replaced"
    assert offers.waiting(2) and offers.waiting(3) and not offers.waiting(1)
    offers.withdrawn("d", 2)
    offers.withdrawn("stranger", 2)
    assert offers.waiting(3), "it is of another activation"
    assert offers.due(2) == [offer("b", 2), offer("c", 2)] and offers.due(2) == []
    offers.hold(offer("a", 3))
    assert offers.all() == [offer("a", 3), offer("d", 3)] and offers.all() == []
    offers.hold(offer("d", 3))
    offers.withdrawn("d", 3)
    assert said[1:] == [c.Release(key("d", 3))]


class One:
    """The visits of node a, which has met b and c, and everything that they say."""

    def __init__(self) -> None:
        self.said: list[c.Command] = []
        self.counters: Counter[str] = Counter()
        self.roster = Roster("a", ("a", "b", "c"), SETTINGS, None)
        self.roster.blocks = 2
        for peer in "bc":
            self.roster.came(peer, 0)
        self.pace = Pace("a", SETTINGS, default_policy())
        self.visits = Visits("a", self.roster, self.pace, self.counters, self.said.append)
        self.schedule = Schedule(SETTINGS, 2, final_flush_mixes=1)

    def begin(self, activation: int, inner: int = 0) -> set[str]:
        """Begin a visit. Returns the peers to which it has edges."""
        self.visits.begin(self.schedule, Step(activation, inner), 1.0)
        assert self.visits.current is not None
        return set(self.visits.current.edges.by_peer)


def test_late_neighbours_get_no_edge_except_in_the_final_flush() -> None:
    one = One()
    assert one.pace.rests.late("b", 0) == 1 and one.pace.rests.late("b", 2) == 2
    assert [one.begin(activation) for activation in (2, 3)] == [{"c"}, {"c"}]
    assert one.begin(4) == {"b", "c"}, "the first visit of the flush"
    one.roster.went("c")
    assert one.begin(4) == {"b"}


def test_a_visit_that_is_resumed_declines_what_waited_for_it() -> None:
    one = One()
    one.visits.offers.hold(offer("b", 1))
    one.visits.offers.hold(offer("c", 2))
    assert one.begin(1, inner=1) == set()
    close = c.SendClose("b", 1, -1, "a resumes activation 1 without edges")
    assert one.said == [c.Release(key("b", 1)), close, c.HalfStep(Step(1, 1), True, None)]
    assert one.counters["offers_declined"] == 1 and one.visits.offers.waiting(2)


def test_messages_find_their_visit_also_the_one_before() -> None:
    one = One()
    one.begin(0)
    one.begin(1)
    for activation in (0, 1, 7):
        frame = FrameId("b", FrameKind.UPDATE, activation, 0)
        one.visits.update_received(e.UpdateReceived("b", frame), 2.0)
        one.visits.update_received(e.UpdateReceived("b", frame), 2.0)
        assert one.said[-1] == c.Release(frame)
    assert one.counters["updates_unused"] == 6
    one.visits.offers.hold(offer("b", 5))
    one.visits.close_received(e.CloseReceived("b", 5, -1, ""), 2.0)
    assert one.said[-1] == c.Release(key("b", 5)) and not one.visits.offers.waiting(5)


def flush_alone(one: One, *, flows: int) -> None:
    """Play the visits of the final flush to their ends, with so many flows in each."""
    for activation in (4, 5):
        one.begin(activation)
        visit = one.visits.current
        assert visit is not None
        visit.activated(0.0)
        visit.deadline_passed(99.0)
        visit.connected(e.Connected(activation), 99.0)
        one.counters["flows_applied"] += flows
        one.visits.frozen()


def test_a_final_flush_without_flows_makes_a_model_of_its_own() -> None:
    one, other = One(), One()
    one.counters["flows_applied"] = 7
    flush_alone(one, flows=0)
    assert one.visits.left_alone == "no other node took part in the final flush of 2 of 2 blocks"
    flush_alone(other, flows=1)
    assert other.visits.left_alone == ""
    one.visits.adopted()
    assert one.visits.left_alone == "" and one.visits.current is None
    one.begin(0)
    assert one.visits.left_alone == "", "a visit with gradients does not count"


def test_a_close_at_the_last_step_reaches_its_visit_with_the_time() -> None:
    one = One()
    one.roster.went("c")
    one.begin(0)
    visit = one.visits.current
    assert visit is not None
    one.visits.offers.hold(offer("b", 0))
    one.visits.activated(e.Activated(0), 1.0)
    visit.connected(e.Connected(0), 2.0)
    for inner in range(3):
        assert c.HalfStep(Step(0, inner), inner < 2, FrameId("a", FrameKind.UPDATE, 0, inner)) in one.said
        visit.half_stepped(e.HalfStepped(Step(0, inner), FrameId("a", FrameKind.UPDATE, 0, inner)), 3.0)
        if inner < 2:
            one.visits.update_received(e.UpdateReceived("b", FrameId("b", FrameKind.UPDATE, 0, inner)), 3.5)
            visit.mixed(e.Mixed(Step(0, inner)), 3.6)
    one.visits.close_received(e.CloseReceived("b", 0, 1, "b is tired"), 4.0)
    assert c.SendClose("b", 0, 1, "in answer", True) in one.said
    assert c.Freeze(0) in one.said
    assert one.counters["edges_closed_by_peer"] == 1


# --- catching up ------------------------------------------------------------------------------------


def test_a_node_that_catches_up_asks_once_and_says_so_once() -> None:
    said: list[c.Command] = []
    away = CatchingUp(said.append)
    for _ in range(2):
        away.leave(Step(3, 0))
        away.ask(Step(3, 0))
    sentence = "peers are past activation 3: catching up with them"
    assert said == [c.AnnounceReady(-1), c.Report("behind", sentence), c.Fetch(4)]
    assert away.away and away.fetched(e.Fetched(6, ()), wanted=True)
    assert said[3:] == [c.Adopt(Step(6, 0), ())]
    away.adopted(Step(6, 0))
    assert said[4:] == [c.Checkpoint(Step(6, 0)), c.AnnounceReady(6)] and not away.away
    away.back(Step(7, 0))
    assert len(said) == 6, "it is back already"


def test_blocks_for_a_model_that_is_lost_are_asked_for_anew() -> None:
    said: list[c.Command] = []
    away = CatchingUp(said.append)
    away.trainer_died()
    away.ask(Step(1, 0))
    assert away.fetched(e.Fetched(2, ()), wanted=False), "nothing was under way as the trainer died"
    away.ask(Step(1, 0))
    away.trainer_died()
    assert not away.fetched(e.Fetched(2, ()), wanted=True)
    away.ask(Step(1, 0))
    assert away.fetched(e.Fetched(2, ()), wanted=True)
    assert said == [c.Fetch(2), c.Fetch(2), c.Fetch(2), c.Adopt(Step(2, 0), ())]


def test_attempts_to_fetch_pause_longer_each_time_until_one_succeeds() -> None:
    said: list[c.Command] = []
    away = CatchingUp(said.append)
    failed = e.FetchFailed("no donor is there")
    assert [away.failed(failed) for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert said[0] == c.Report("fetch-failed", "no donor is there; trying again in 1 s", "warning")
    away.ask(Step(0, 0))
    away.trainer_died()
    away.failed(failed)
    away.ask(Step(0, 0))
    assert away.fetched(e.Fetched(1, ()), wanted=True), "the failure has ended the attempt that was stale"
    assert away.failed(failed) == 1.0


# --- the state --------------------------------------------------------------------------------------


def state(early_stop_rounds: int = 0, **policy: float) -> NodeState:
    settings = RunSettings(rounds=2, inner_steps=2, flush_mixes=1, early_stop_rounds=early_stop_rounds)
    made = NodeState("a", ("a", "b"), settings, default_policy(**policy))
    made.plan(2)
    return made


def test_a_node_begins_at_the_beginning() -> None:
    fresh = NodeState("a", ("a", "b"), SETTINGS, default_policy())
    assert (fresh.next, fresh.left_out, fresh.at, fresh.position) == (Step(0, 0), range(0), None, NOT_TRAINING)
    assert not fresh.planned and fresh.visit is None
    assert [fresh.trainer_deaths.next() for _ in range(8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    fresh.plan(2)
    assert fresh.planned and len(fresh.schedule) == 6 and fresh.at == Step(0, 0)
    assert fresh.roster.blocks == 2 and fresh.graph(0) == {"a": frozenset("b"), "b": frozenset("a")}


def test_a_run_that_stopped_early_leaves_visits_out() -> None:
    stopped = state(early_stop_rounds=1)
    stopped.next = Step(2, 0)
    stopped.settle_next()
    assert stopped.next == Step(2, 0) and stopped.left_out == range(0)
    stopped.heard_losses({"b": Heldout(stop_at=2)})
    stopped.settle_next()
    assert stopped.next == Step(4, 0) and stopped.left_out == range(2, 4)
    stopped.settle_next()
    assert stopped.left_out == range(2, 4)


@pytest.mark.parametrize(
    ("position", "folder"),
    [(Step(0, 0), ""), (Step(1, 0), ""), (Step(2, 0), "candidate-1"), (Step(4, 0), "candidate-2"), (Step(6, 0), "")],
)
def test_models_are_kept_after_whole_rounds(position: Step, folder: str) -> None:
    for patience in (0, 1):
        there = state(early_stop_rounds=patience)
        there.next = position
        assert there.to_keep == (folder if patience else "")


def test_a_loss_is_told_after_whole_rounds_only() -> None:
    there = state(early_stop_rounds=1)
    for position in (Step(0, 0), Step(1, 0), Step(2, 0), Step(6, 0)):
        there.next = position
        there.measured(e.Evaluated("now", 3.0, 10))
        assert there.evaluated_at == position.activation
    assert there.stopping.own.losses == ((0, 3.0), (1, 3.0))


def test_a_node_that_is_away_judges_nothing() -> None:
    there = state(early_stop_rounds=1)
    there.next = Step(4, 0)
    told = {"b": Heldout(((0, 1.0), (1, 2.0), (2, 2.0)))}
    there.stopping.own = Heldout()
    for number in range(3):
        there.stopping.measured(number, 2.0, 10)
    there.take_commands()
    there.catching_up.away = True
    there.heard_losses(told)
    assert not there.take_commands()
    there.catching_up.away = False
    there.heard_losses(told)
    assert [command.number for command in there.take_commands() if isinstance(command, c.KeepBest)] == [0]


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (Phase.GATHERING, "peers: b"),
        (Phase.LEAVING, "peers to finish: b"),
        (Phase.FETCHING, "donors: blocks that were trained while this node was away"),
        (Phase.AWAITING_TURN, "its turn: peers train activation 3, this node joins at the next"),
        (Phase.STAYING, "nothing: the run is complete (deca-node stop ends the node)"),
        (Phase.PAUSED, "a request to go on (deca-node resume)"),
        (Phase.KEEPING, "its trainer (keeping)"),
    ],
)
def test_a_node_says_what_it_waits_for(phase: Phase, words: str) -> None:
    there = state()
    there.phase, there.next = phase, Step(3, 0)
    assert there.awaits() == words
    assert there.awaits_trainer == (phase is Phase.KEEPING)
    assert there.position == (NOT_TRAINING if phase in (Phase.FETCHING, Phase.AWAITING_TURN) else 3)


# --- the node ---------------------------------------------------------------------------------------


def gathering(**policy: float) -> Node:
    node = Node("a", ("a", "b"), SETTINGS, default_policy(**policy))
    node.handle(e.TrainerReady(MODEL, SIZES), 10.0)
    return node


def test_a_trainer_that_dies_too_often_ends_the_node() -> None:
    node = gathering()
    died = e.TrainerFailed("killed", 11, died=True)
    for deaths in range(1, TRAINER_DEATHS_MAX + 1):
        said = node.handle(died, 20.0)
        assert said[-1] == c.RestartTrainer(2.0 ** (deaths - 1))
        node.handle(e.TrainerReady(MODEL, SIZES), 21.0)
    assert node.state.counters["trainer_deaths"] == TRAINER_DEATHS_MAX
    assert node.handle(died, 22.0)[-1] == c.Finish(11, "killed")


def test_checkpoints_that_fail_are_counted_and_told() -> None:
    node = gathering()
    for count in (1, 2):
        said = node.handle(e.CheckpointFailed(Step(1, 0), "the disk is full"), 11.0)
        assert said == [c.Report("checkpoint-failed", "no checkpoint was written: the disk is full", "error")]
        assert node.state.counters["checkpoints_failed"] == count


def test_nothing_is_due_before_its_time() -> None:
    node = gathering(gather=30.0)
    assert node.next_deadline() == 40.0
    assert node.handle(e.DeadlinePassed(), 39.9) == []
    [finish] = node.handle(e.DeadlinePassed(), 40.0)
    assert finish == c.Finish(9, "waited 30 s for peers: b; start them, or wait longer with --wait")


def test_offers_are_declined_while_a_node_catches_up() -> None:
    node = gathering()
    said = node.handle(offer("b", 2), 11.0)
    assert c.SendClose("b", 2, -1, "a is catching up") in said and node.state.phase is Phase.FETCHING
    said = node.handle(offer("b", 5), 13.0)
    assert said[-1] == c.SendClose("b", 5, -1, "a is catching up")
    node.handle(e.FetchFailed("no donor is there"), 14.0)
    assert node.next_deadline() == 15.0
    assert c.Fetch(1) in node.handle(e.DeadlinePassed(), 15.0)


def test_a_refusal_is_told_once_as_a_warning_about_the_peer() -> None:
    node = Node("a", ("a", "b", "c", "d"), SETTINGS, default_policy())
    node.handle(e.TrainerReady(MODEL, SIZES), 10.0)
    sentence = "no agreement with b: another run"
    assert node.handle(e.PeerRefused("b", "another run"), 11.0) == [c.Report("refused", sentence, "warning", "b")]
    assert node.handle(e.PeerRefused("b", "another run"), 12.0) == []
    [finish] = node.handle(e.PeerRefused("c", "another run"), 13.0)
    assert finish == c.Finish(7, "no agreement with c: another run")


def test_a_node_that_goes_on_alone_notes_when_its_visit_begins() -> None:
    node = Node("a", ("a", "b"), SETTINGS, default_policy(regather=5.0, alone=True))
    node.handle(e.TrainerReady(MODEL, SIZES, Step(1, 0)), 10.0)
    assert node.next_deadline() == 15.0
    node.handle(e.DeadlinePassed(), 15.0)
    assert node.state.phase is Phase.VISITING and node.state.visit_began == 15.0
    alone = Node("a", ("a",), SETTINGS, default_policy())
    alone.handle(e.TrainerReady(MODEL, SIZES, Step(1, 0)), 20.0)
    assert alone.state.phase is Phase.VISITING and alone.state.visit_began == 20.0


def test_a_node_that_gave_up_waiting_for_the_others_stays_for_its_time() -> None:
    node = Node("a", ("a", "b"), SETTINGS, default_policy(finish=4.0, stay=True, stay_seconds=30.0), saved_before=False)
    node.handle(e.TrainerReady(MODEL, SIZES, Step(6, 0)), 10.0)
    node.state.evaluated_at = 6
    node.handle(e.Evaluated("end", 1.0, 1), 11.0)
    node.handle(e.Saved("final"), 12.0)
    assert node.state.phase is Phase.LEAVING and node.next_deadline() == 16.0
    said = node.handle(e.DeadlinePassed(), 16.0)
    assert node.state.phase is Phase.STAYING and node.next_deadline() == 46.0
    sentence = (
        "the run is complete; gave up waiting for peers to finish: b; the node stays, so that it can be looked at, "
        "for 30 s, or until it is told to stop"
    )
    assert said == [c.Report("complete", sentence), c.DismissTrainer()]
    assert node.handle(e.DeadlinePassed(), 46.0) == [c.Finish(0, "the run is complete", for_good=True)]


def test_the_graph_of_the_final_flush_is_that_of_the_topology() -> None:
    settings = RunSettings(topology="erdos-renyi", seed=5)
    roster = Roster("a", "abcde", settings, None)
    assert roster.final_graph(3) == final_graph("abcde", settings, 3) != final_graph("abcde", settings, 0)


def test_an_offer_that_waits_is_declined_once_the_node_cannot_catch_up() -> None:
    """The node had caught up and waited for its turn. The peer went on without it, and no donor is there."""
    node = gathering()
    node.handle(e.PeerUp("b", 3), 11.0)
    assert c.Adopt(Step(3, 0), ()) in node.handle(e.Fetched(3, ()), 12.0)
    node.handle(e.Adopted(Step(3, 0)), 13.0)
    assert node.state.phase is Phase.AWAITING_TURN and not node.state.catching_up.away
    assert c.Fetch(4) in node.handle(offer("b", 4), 14.0)
    said = node.handle(e.FetchFailed("no donor is there"), 15.0)
    assert [command for command in said if isinstance(command, c.SendClose | c.AnnounceReady)] == [
        c.AnnounceReady(NOT_TRAINING),
        c.SendClose("b", 4, -1, "a is catching up"),
    ]
    assert node.next_deadline() == 16.0


def test_a_node_that_leaves_within_a_visit_waits_for_the_other_end_for_a_moment() -> None:
    node = Node("a", ("a", "b"), SETTINGS, default_policy(regather=5.0, farewell=3.0, step=20.0, open=20.0, floor=20.0))
    node.handle(e.TrainerReady(MODEL, SIZES, Step(1, 0)), 0.0)
    node.handle(e.PeerUp("b", 1), 1.0)
    node.handle(e.Activated(1), 2.0)
    node.handle(offer("b", 1), 3.0)
    node.handle(e.Connected(1), 4.0)
    ours = FrameId("a", FrameKind.UPDATE, 1, 0)
    node.handle(e.HalfStepped(Step(1, 0), ours), 5.0)
    assert node.next_deadline() == 25.0
    said = node.handle(e.LeaveRequested(), 6.0)
    assert c.SendClose("b", 1, -1, "a stops for now", orderly=True) in said
    assert node.next_deadline() == 9.0
    said = node.handle(e.DeadlinePassed(), 9.0)
    assert c.Checkpoint(Step(1, 1)) in said
    assert node.handle(e.Checkpointed(Step(1, 1), ""), 10.0)[-1] == c.Finish(0, "the node left the run as asked", True)


def test_what_comes_over_edges_and_from_the_trainer_reaches_the_visits() -> None:
    node = gathering()
    seen: list[tuple[object, ...]] = []
    _visits(lambda *given: seen.append(given))(node, "an update", 3.0)
    assert seen == [(node.state.visits, "an update", 3.0)]
    one = One()
    one.begin(0)
    node.state.visits.current = one.visits.current
    _visit(lambda *given: seen.append(given))(node, "an answer", 4.0)
    assert seen[1:] == [(one.visits.current, "an answer", 4.0)]


def test_offers_are_declined_as_a_node_ends() -> None:
    node = Node("a", ("a", "b", "c"), SETTINGS, default_policy())
    node.handle(e.TrainerReady(MODEL, SIZES), 10.0)
    node.handle(e.PeerUp("b", 0), 11.0)
    node.handle(offer("b", 0), 12.0)
    said = node.handle(e.StopRequested(), 13.0)
    assert c.SendClose("b", 0, -1, "a ends") in said
    assert said[-1] == c.Finish(0, "the node stopped as asked; start it again to go on from here")


def test_a_model_that_is_not_kept_is_an_error_in_the_log() -> None:
    there = state()
    there.measured(e.Evaluated("round 1", 1.0, 1, problem="the disk is full"))
    assert there.take_commands() == [
        c.Report("not-kept", "the model of round 1 is not kept: the disk is full", "error")
    ]


def test_the_flush_is_planned_for_those_that_count_at_the_beginning() -> None:
    made = NodeState("a", ("a", "b"), RunSettings(topology="ring", exchange="overlap", rounds=2), default_policy())
    made.roster.know({"a": 0, "b": 1})
    made.plan(2)
    assert made.schedule[4].flush_mixes == 3, "b comes later; the two would need 14"
