"""The status of a node at every stage of a small run, with a fake clock."""

from collections import Counter
from typing import Any

import pytest

from deca_node.daemon.status.book import Sources, StatusBook
from deca_node.daemon.status.facts import MemberRow, PeerRow, Spread, Status, to_json
from deca_node.daemon.status.steps import StepWatch
from deca_node.daemon.status.warnings import Warnings
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import FrameId, FrameKind, FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.node.node import Node
from deca_node.protocol.refusals import Problem
from tests.defaults import default_policy

RUN = RunSettings(run_name="wards", rounds=2, inner_steps=3, flush_mixes=1, final_flush_mixes=2, topology="full")
READY = e.TrainerReady(
    ModelFacts("ab", ("embedding", "head"), (4, 4)),
    FrameSizes(keyframe_bytes=(8, 8), update_bytes=(8, 8), signal_bytes=(0, 0), v_bytes=(0, 0)),
)
STEPS = 2 * 2 * 4 + 2 * 2
RTT = Spread(0.001, 0.002, 0.003)


class Desk:
    """A node whose events come from the test, and its book."""

    def __init__(self, **sources: Any) -> None:
        self.now = 100.0
        self.node = Node("north", ["north", "south"], RUN, default_policy())
        wall = {"clock": lambda: self.now, "wall": lambda: self.now + 1e9}
        made = Sources(**sources)
        self.book = StatusBook(self.node.state, made, **wall)
        self.steps = StepWatch(self.node.state, made.traffic, **wall, life=made.life)

    def observe(self, event: e.Event) -> None:
        """Show an event to the book alone, without the node."""
        self.book.observe(event, self.steps.observe(event))

    def tell(self, event: e.Event, seconds: float = 0.0) -> None:
        self.now += seconds
        self.observe(event)
        for command in self.node.handle(event, self.now):
            self.book.perform(command)

    def begin(self) -> None:
        """Up to the first step of the first visit, with an edge to south."""
        self.tell(READY)
        self.tell(e.PeerUp("south", -1))
        self.tell(e.Evaluated("start", 3.5, 100))
        self.tell(e.Activated(0))
        self.tell(e.OpenReceived("south", 0, 1, FrameId("south", FrameKind.KEYFRAME, 0, 0)))
        self.tell(e.Connected(0))

    def step(self, inner: int, seconds: float = 2.0, **figures: float) -> None:
        self.half_step(inner, loss=3.0 - inner / 10)
        self.tell(e.UpdateReceived("south", FrameId("south", FrameKind.UPDATE, 0, inner)))
        self.tell(e.Mixed(Step(0, inner), figures), seconds)

    def half_step(self, inner: int, **figures: float) -> None:
        self.tell(e.HalfStepped(Step(0, inner), FrameId("north", FrameKind.UPDATE, 0, inner), figures))

    @property
    def status(self) -> Status:
        return self.book.status()

    @property
    def south(self) -> PeerRow:
        return self.status.peers[0]


def test_the_loss_stays_while_the_last_steps_of_a_visit_only_mix() -> None:
    desk = Desk()
    desk.begin()
    desk.step(2)
    assert desk.status.train_loss == 2.8
    desk.half_step(3)
    desk.tell(e.Mixed(Step(0, 3), {}))
    assert desk.status.figures.keys() == {"wait_seconds"}
    assert desk.status.train_loss == 2.8


def test_before_the_model_is_there() -> None:
    status = Desk().status
    assert (status.name, status.run, status.phase, status.awaits) == (
        "north",
        "wards",
        "loading",
        "its trainer (loading)",
    )
    assert (status.started, status.ready, status.position, status.fingerprint) == (False, False, None, "")
    assert to_json(status)


def test_started_and_then_ready() -> None:
    desk = Desk()
    desk.tell(READY)
    assert (desk.status.started, desk.status.ready, desk.status.phase) == (True, False, "gathering")
    assert len(desk.status.fingerprint) == 64
    desk.tell(e.PeerUp("south", -1))
    assert (desk.status.ready, desk.status.phase) == (True, "evaluating")
    desk.tell(e.Evaluated("start", 3.5, 100))
    assert (desk.status.heldout_loss, desk.status.heldout_when) == (3.5, "start")
    assert (desk.status.phase, desk.status.stage) == ("visiting", "activating")


def test_a_classifier_is_told_of_by_its_shares() -> None:
    desk = Desk()
    desk.begin()
    assert (desk.status.heldout_accuracy, desk.status.heldout_macro_f1) == (None, None)
    desk.tell(e.Evaluated("round 1", 0.5, 40, {"accuracy": 0.75, "macro_f1": 0.625}))
    assert (desk.status.heldout_accuracy, desk.status.heldout_macro_f1) == (0.75, 0.625)


def test_where_it_stands() -> None:
    desk = Desk()
    desk.begin()
    desk.step(0)
    desk.step(1)
    at = desk.status.position
    assert at is not None
    assert (at.round, at.rounds, at.block, at.blocks, at.block_name) == (1, 2, 1, 2, "embedding")
    assert (at.step, at.steps, at.activation, at.activations, at.done, at.total) == (2, 4, 0, 6, 2, STEPS)


def test_where_a_checkpoint_had_it() -> None:
    desk = Desk()
    desk.tell(e.TrainerReady(READY.model, READY.sizes, Step(5, 1)))
    at = desk.status.position
    assert at is not None
    assert (at.round, at.rounds, at.block_name, at.step, at.steps, at.done) == (3, 2, "head", 1, 2, STEPS - 1)


def test_a_run_that_is_done_stays_at_its_end() -> None:
    desk = Desk()
    desk.tell(e.TrainerReady(READY.model, READY.sizes, Step(6, 0)))
    at = desk.status.position
    assert at is not None
    assert (at.activation, at.step, at.done, at.total) == (5, 2, STEPS, STEPS)


def test_pace_and_remaining_time() -> None:
    desk = Desk()
    desk.begin()
    desk.step(0)
    assert desk.status.steps_per_second is None
    desk.step(1)
    desk.step(2)
    assert desk.status.steps_per_second == pytest.approx(0.5)
    assert desk.status.remaining_seconds == pytest.approx((STEPS - 3) / 0.5)
    desk.now += 4.0
    assert desk.status.steps_per_second == pytest.approx(0.25), "who stands still is seen to slow down"
    desk.tell(e.PauseRequested())
    assert desk.status.steps_per_second is None


def test_the_pace_is_that_of_the_last_minute() -> None:
    desk = Desk()
    desk.begin()
    for number in range(400):
        desk.now += 1.0 if number < 200 else 0.5
        desk.observe(e.HalfStepped(Step(0, number % 4), None))
        desk.observe(e.Mixed(Step(0, number % 4)))
    assert len(desk.book._times) == 121, "sixty seconds of two steps each, and the one before"


def test_step_times_fall_into_buckets() -> None:
    desk = Desk()
    desk.begin()
    for inner, seconds in enumerate((9.0, 0.1, 2.0, 500.0)):
        desk.step(inner, seconds)
    seen = desk.status.step_seconds
    assert dict(zip(seen.bounds, seen.counts, strict=True)) | {0.05: 0, 0.1: 1, 1.0: 1, 2.5: 2, 120.0: 2} == dict(
        zip(seen.bounds, seen.counts, strict=True)
    )
    assert (seen.count, seen.sum) == (3, pytest.approx(502.1)), "the first step has none before it"


def test_figures_of_the_newest_step() -> None:
    desk = Desk()
    desk.begin()
    desk.step(0, consensus_distance=1e-4)
    assert (desk.status.train_loss, desk.status.consensus_distance) == (3.0, 1e-4)
    assert desk.status.figures == {"loss": 3.0, "consensus_distance": 1e-4, "wait_seconds": 2.0}


def test_an_edge_and_how_far_it_is_behind() -> None:
    desk = Desk()
    assert (desk.south.state, desk.south.neighbour, desk.south.edge) == ("down", True, "")
    desk.begin()
    assert (desk.south.state, desk.south.edge, desk.south.behind) == ("up", "open", None)
    desk.half_step(0)
    assert desk.south.behind == 1
    desk.tell(e.UpdateReceived("south", FrameId("south", FrameKind.UPDATE, 0, 0)))
    assert desk.south.behind == 0
    desk.tell(e.PeerProgress("south", 0))
    assert desk.south.activation == 0
    desk.tell(e.PeerDown("south", "it hung up"))
    assert (desk.south.state, desk.south.edge, desk.south.activation) == ("down", "closed", None)


def test_a_refusal_is_told_until_it_is_over() -> None:
    desk = Desk(problems=lambda: {"south": Problem("", "nobody answers")})
    assert desk.south.why == "nobody answers"
    desk.tell(READY)
    desk.tell(e.PeerRefused("south", "rounds differ"))
    assert (desk.south.state, desk.south.why) == ("refused", "rounds differ")
    assert "rounds differ" in desk.status.warning or desk.status.phase == "failed"
    desk.tell(e.PeerUp("south", -1))
    assert desk.south.why == "nobody answers"


def test_facts_that_other_parts_know_are_asked_of_them() -> None:
    desk = Desk(
        addresses=lambda: {"south": "10.0.0.2:7001", "west": "10.0.0.3:7001"},
        traffic=lambda: {"south": Counter({"sent.update": 5, "received.control": 7})},
        rtt=lambda: {"south": RTT},
        lag=lambda: RTT,
        refusals=lambda: {"replay": 2},
        members=lambda: [MemberRow(name=name, address="", state="alive") for name in ("north", "south")],
        certificate_expires=lambda: 7.0,
    )
    status = desk.status
    assert [peer.name for peer in status.peers] == ["south", "west"]
    assert (desk.south.address, desk.south.sent_bytes, desk.south.received_bytes, desk.south.rtt) == (
        "10.0.0.2:7001",
        {"update": 5},
        {"control": 7},
        RTT,
    )
    assert (status.loop_lag, status.refusals, status.members) == (RTT, {"replay": 2}, {"alive": 2})
    assert status.certificate_expires == 7.0


def test_checkpoints_and_those_that_failed() -> None:
    desk = Desk()
    desk.tell(READY)
    assert desk.status.checkpoint.age_seconds is None
    desk.book.observe(e.Checkpointed(Step(1, 0), "checkpoints/000001-00000"))
    desk.now += 60
    desk.book.observe(e.CheckpointFailed(Step(1, 2), "the disk is full"))
    row = desk.status.checkpoint
    assert (row.activation, row.step, row.path, row.age_seconds) == (1, 0, "checkpoints/000001-00000", 60)
    assert (row.failures, row.failure) == (1, "the disk is full")
    desk.book.observe(e.Checkpointed(Step(2, 0), "checkpoints/000002-00000"))
    assert (desk.status.checkpoint.failures, desk.status.checkpoint.failure) == (1, "")


def test_the_newest_warning_is_told() -> None:
    desk = Desk()
    desk.book.perform(c.Report("saved", "all is well"))
    assert desk.status.warning == ""
    desk.book.perform(c.Report("edge-lost", "edge to south is gone", "warning"))
    assert desk.status.warning == "edge to south is gone"


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("edge-lost", e.Activated(1)),
        ("edge-dropped", e.Activated(1)),
        ("edge-closed", e.PeerUp("south", 0)),
        ("refused", e.PeerUp("south", 0)),
        ("nobody", e.PeerUp("west", 0)),
        ("fetch-failed", e.Adopted(Step(1, 0))),
        ("checkpoint-failed", e.Checkpointed(Step(1, 0), "")),
        ("trainer-died", READY),
    ],
)
def test_a_warning_ends_when_its_cause_does(kind: str, ends: e.Event) -> None:
    warnings = Warnings()
    warnings.perform(c.Report("alone", "this stays", "warning"))
    warnings.perform(c.Report(kind, "this ends", "warning", "south"))
    warnings.observe(e.PeerDown("south", "it hung up"))
    assert warnings.newest == "this ends"
    warnings.observe(ends)
    assert warnings.newest == "this stays"


def test_a_member_that_was_given_up_says_so_and_why() -> None:
    rows = (MemberRow(name="north", address="", state="alive"), MemberRow(name="south", address="", state="dead"))
    why = "south is given up: it did not answer east"
    desk = Desk(members=lambda: rows, problems=lambda: {"south": Problem("", why)})
    assert (desk.south.member, desk.south.state, desk.south.why) == ("dead", "down", why)


def test_the_last_refusal_is_remembered_when_the_peer_is_up_again() -> None:
    desk = Desk(addresses=lambda: {"south": "127.0.0.1:7002"})
    desk.begin()
    desk.tell(e.PeerDown("south", "the peer closed its stream"))
    desk.tell(e.PeerRefused("south", "rounds is 2 at north and 3 at south"), 5.0)
    assert (desk.south.state, desk.south.refusal) == ("refused", "rounds is 2 at north and 3 at south")
    desk.tell(e.PeerUp("south", -1), 60.0)
    assert (desk.south.state, desk.south.why, desk.south.refused) == ("up", "", 1e9 + 105.0)
    desk.tell(e.PeerDown("south", "the peer closed its stream"), 1.0)
    assert desk.south.refusal == "rounds is 2 at north and 3 at south"
    desk.tell(e.PeerDown("south", "broke the rules (size): a frame of 3 bytes", "size"), 1.0)
    assert desk.south.refusal == "it broke the rules (size): a frame of 3 bytes"
    desk.tell(e.PeerDown("south", "refused us: a chunk that is not the next", "refused"), 1.0)
    assert desk.south.refusal == "it refused us: a chunk that is not the next"


def test_refusals_of_edges_and_of_dials() -> None:
    problems: dict[str, Problem] = {}
    desk = Desk(addresses=lambda: {"south": "127.0.0.1:7002"}, problems=lambda: problems)
    desk.begin()
    assert (desk.south.refusal, desk.south.refused) == ("", None)
    desk.tell(e.CloseReceived("south", 0, -1, "north did not open it in time"), 1.0)
    assert desk.south.refusal == "it closed its edge: north did not open it in time"
    desk.tell(e.CloseReceived("south", 0, -1, "south stops for now", orderly=True), 1.0)
    assert desk.south.refusal == "it closed its edge: north did not open it in time"
    desk.tell(e.CloseReceived("south", 0, 3, "south has mixed as often as it means to", orderly=True), 1.0)
    desk.book.perform(c.SendClose("south", 0, 3, "north has mixed as often as it means to", orderly=True))
    assert desk.south.refusal == "it closed its edge: north did not open it in time"
    desk.book.perform(c.SendClose("south", 1, -1, "south is more than 2 exchanges behind"))
    assert desk.south.refusal == "its edge was closed: south is more than 2 exchanges behind"
    problems["south"] = Problem("refused", "refused us: north is on this node's deny-list")
    desk.book.look()
    problems["south"] = Problem("", "127.0.0.1:7002 does not answer")
    assert desk.south.refusal == "it refused us: north is on this node's deny-list"


def test_a_sentence_about_the_machine_is_told_for_as_long_as_it_holds() -> None:
    starves = "the trainer starves"
    desk = Desk(warning=lambda: starves)
    desk.book.perform(c.Report("edge-lost", "edge to south is gone", "warning"))
    assert desk.status.warning == "the trainer starves"
    starves = ""
    assert desk.status.warning == "edge to south is gone"


def test_a_node_of_another_run_is_shown_with_the_reason_though_it_is_no_member() -> None:
    """It stands in the peers file, so its owner looks for it."""
    desk = Desk()
    desk.tell(e.PeerRefused("mistaken", "the run differs: run_name is x at mistaken and y at north"))
    (row,) = (peer for peer in desk.status.peers if peer.name == "mistaken")
    assert (row.state, row.why) == ("refused", "the run differs: run_name is x at mistaken and y at north")
