"""One member at a time, packet by packet: how it answers, which facts it takes as true, which news it passes on."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.protocol.agreed.identity import RunIdentity, identity_of
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.stopping import Heldout
from deca_node.protocol.commands import Report
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.alarms import Alarms
from deca_node.protocol.membership.facts import BOOT_MAX, MemberFacts, MemberState, draw_boot
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.naming import RETURNED_CHALLENGES
from deca_node.protocol.membership.profiles import LAN, Profile
from deca_node.protocol.membership.rumours import Rumour, Rumours, heldout_bytes

ALIVE, SUSPECT, DEAD, LEFT = MemberState
A, B, C = (MemberFacts(name, f"{name}:1", boot=100) for name in "abc")


class Member:
    """Member a, started at 0.0, and the commands that it gave out."""

    def __init__(
        self,
        *known: MemberFacts,
        allowed: frozenset[str] | None = None,
        profile: Profile = LAN,
        run: RunIdentity | None = None,
    ) -> None:
        self.machine = Membership(A, profile, Random(1), allowed, run)
        self.now = 0.0
        self.said: list[messages.MembershipCommand] = []
        self.hear(messages.Started(()))
        for facts in known:
            self.receive(facts, messages.Gossip())

    def hear(self, event: messages.MembershipEvent) -> list[messages.MembershipCommand]:
        out = self.machine.handle(event, self.now)
        self.said += out
        return out

    def receive(self, sender: MemberFacts, body: messages.Body, *rumours: Rumour) -> list[messages.MembershipCommand]:
        return self.hear(messages.PacketReceived(messages.Packet(sender, body, rumours)))

    def wait(self, seconds: float) -> list[messages.MembershipCommand]:
        """Let deadlines pass; returns the commands given out meanwhile."""
        end, start = self.now + seconds, len(self.said)
        while (deadline := self.machine.next_deadline()) is not None and deadline <= end:
            self.now = deadline
            self.hear(DeadlinePassed())
        self.now = end
        return self.said[start:]

    def state(self, name: str) -> MemberState:
        return self.machine.members[name].state


def bodies(commands: list[messages.MembershipCommand], kind: type[messages.Body], to: str = "") -> list[messages.Body]:
    sends = [c for c in commands if isinstance(c, messages.Send) and (not to or c.address == to)]
    return [send.packet.body for send in sends if isinstance(send.packet.body, kind)]


# --- the order of news ------------------------------------------------------------------------------

FACTS = st.builds(
    MemberFacts,
    st.just("b"),
    st.just("b:1"),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(MemberState),
)


@given(FACTS, FACTS)
def test_of_two_pieces_of_news_one_is_newer_or_they_are_equal(one: MemberFacts, other: MemberFacts) -> None:
    assert one.newer_than(other) + other.newer_than(one) == (one != other)


@given(st.permutations([replace(B, incarnation=i, state=s) for i in (0, 1) for s in (ALIVE, SUSPECT, DEAD)]))
def test_what_is_believed_does_not_depend_on_the_order_of_news(news: list[MemberFacts]) -> None:
    """SWIM section 4.2. The death of an unknown member is no news, so b is known."""
    member = Member(B)
    for facts in news:
        member.receive(C, messages.Gossip(), Rumour(facts, "c"))
    assert member.machine.members["b"] == replace(B, incarnation=1, state=DEAD)


def test_a_later_start_has_the_greater_boot() -> None:
    assert 0 < draw_boot(1.7e9, Random(1)) < draw_boot(1.7e9 + 0.002, Random(2)) <= BOOT_MAX
    assert draw_boot(1.7e9, Random(1)) == 1_700_000_000_000 * 2**20 + Random(1).getrandbits(20)


# --- probing ----------------------------------------------------------------------------------------


def test_a_silent_member_is_asked_directly_then_by_others_then_suspected_then_given_up() -> None:
    member = Member(B)
    said = member.wait(1.0)
    assert bodies(said, messages.Ping, "b:1")
    assert not bodies(said, messages.PingReq)
    member = Member(B, C)
    said = member.wait(2.0)
    assert bodies(said, messages.PingReq), "the other is asked to try"
    member.wait(2.0)
    assert SUSPECT in (member.state("b"), member.state("c"))
    member.wait(60.0)
    assert [member.state(name) for name in "bc"] == [DEAD, DEAD]
    assert list(member.machine.view()) == ["a"]
    assert len([c for c in member.said if isinstance(c, messages.MemberDown)]) == 2


def test_an_answer_through_another_counts() -> None:
    member = Member(B, C)
    while not (asked := bodies(member.said, messages.PingReq)):
        member.wait(0.1)
    request = asked[-1]
    assert isinstance(request, messages.PingReq)
    relay = C if request.target == "b" else B
    member.receive(relay, messages.Ack(request.seq))
    member.wait(0.45)
    assert member.state(request.target) is ALIVE


def test_only_the_named_target_answers_a_ping() -> None:
    member = Member(B)
    assert bodies(member.receive(B, messages.Ping(7, "a")), messages.Ack) == [messages.Ack(7)]
    assert not bodies(member.receive(B, messages.Ping(8, "someone")), messages.Ack)


def test_a_relay_passes_the_answer_on_and_says_when_there_is_none() -> None:
    member = Member(B, C)
    (ping,) = bodies(member.receive(B, messages.PingReq(7, "c", "c:1")), messages.Ping, "c:1")
    assert isinstance(ping, messages.Ping)
    assert bodies(member.wait(0.45), messages.Nack, "b:1") == [messages.Nack(7)]
    assert bodies(member.receive(C, messages.Ack(ping.seq)), messages.Ack, "b:1") == [messages.Ack(7)], (
        "late is better than never"
    )
    assert not bodies(member.receive(C, messages.Ack(ping.seq)), messages.Ack), "once"


def failed_probes(*, nacks: bool) -> int:
    """How many probes of silent members end within 8 s; the helpers send nacks, or nothing at all."""
    member = Member(B, C)
    for _ in range(80):
        for send in member.wait(0.1):
            match send:
                case messages.Send(name=name, packet=messages.Packet(body=messages.PingReq(seq=seq))) if nacks:
                    member.receive(B if name == "b" else C, messages.Nack(seq))
    return member.machine.counters["probes_failed"]


def test_missing_nacks_make_this_node_probe_less_often() -> None:
    """A helper that does not even answer shows that this node itself is slow (LHA-Probe)."""
    assert failed_probes(nacks=False) < failed_probes(nacks=True)


def test_a_failed_send_spares_the_timeout() -> None:
    member = Member(B, C)
    while not (
        pinged := [s for s in member.said if isinstance(s, messages.Send) and isinstance(s.packet.body, messages.Ping)]
    ):
        member.wait(0.05)
    assert bodies(member.hear(messages.SendFailed(pinged[-1].address)), messages.PingReq)


# --- suspicion and refutation -----------------------------------------------------------------------


@pytest.mark.parametrize("state", [SUSPECT, DEAD, LEFT])
def test_a_member_refutes_what_is_said_of_it(state: MemberState) -> None:
    member = Member(B)
    member.receive(B, messages.Ping(1, "a"), Rumour(replace(A, incarnation=4, state=state), "c"))
    assert member.machine.own == replace(A, incarnation=5)


def test_whoever_is_believed_dead_is_told_so_first() -> None:
    """Lifeguard's buddy system: the ack to a suspected member carries the suspicion."""
    member = Member(B)
    member.receive(C, messages.Gossip(), Rumour(replace(B, state=DEAD), "c"))
    told = [c.packet.rumours[0].facts for c in member.receive(B, messages.Ping(1, "a")) if isinstance(c, messages.Send)]
    assert replace(B, state=DEAD) in told
    back = replace(B, incarnation=1)
    assert [c for c in member.receive(back, messages.Gossip()) if isinstance(c, messages.MemberUp)]
    assert member.state("b") is ALIVE


def test_a_death_in_a_list_is_a_suspicion_only() -> None:
    member = Member(B, C)
    member.receive(C, messages.PushPull(1, (replace(B, state=DEAD),), wants_reply=False))
    assert member.state("b") is SUSPECT
    assert "b" in member.machine.view()


def test_who_overslept_accuses_nobody() -> None:
    """After 30 s of standing still, overdue answers and overdue deadlines come at once. The answers go first."""
    member = Member(B, C)
    member.receive(C, messages.Gossip(), Rumour(replace(B, state=SUSPECT), "c"))
    member.now += 30.0
    member.hear(DeadlinePassed())
    assert member.state("b") is SUSPECT
    assert member.machine.counters["overslept"] == 1


def test_a_suspected_member_is_asked_until_it_is_given_up() -> None:
    """Every ping tells the member that it is suspected. Its answer is the refutation."""
    member = Member(B)
    member.receive(C, messages.Gossip(), Rumour(replace(B, state=SUSPECT), "c"))
    assert len(bodies(member.wait(5.0), messages.Ping, "b:1")) >= 4
    member.receive(replace(B, incarnation=1), messages.Ack(10**6))
    assert member.state("b") is ALIVE


def test_the_dead_are_forgotten_in_the_end_unless_the_membership_is_static() -> None:
    profile = replace(LAN, forget=300.0)
    gossiping, static = Member(B, profile=profile), Member(B, allowed=frozenset("ab"), profile=profile)
    for member in (gossiping, static):
        member.receive(B, messages.Gossip(), Rumour(replace(B, state=DEAD), "c"))
        member.wait(400.0)
    assert "b" not in gossiping.machine.members
    assert static.state("b") is DEAD


# --- names ------------------------------------------------------------------------------------------

NEWER = replace(B, boot=200, address="new:1")


def challenged() -> tuple[Member, messages.Ping]:
    """Member a, which has heard from a second b, and the ping that it sends to the address of the first."""
    member = Member(B)
    said = member.receive(NEWER, messages.PushPull(1, (), wants_reply=True))
    asked = [c for c in said if isinstance(c, messages.Send) and c.address == "b:1" and c.name == ""]
    assert len(asked) == 1
    ping = asked[0].packet.body
    assert isinstance(ping, messages.Ping)
    return member, ping


def test_a_name_whose_holder_answers_is_taken() -> None:
    member, ping = challenged()
    said = member.receive(B, messages.Ack(ping.seq))
    assert bodies(said, messages.Taken, "new:1") == [messages.Taken(B)]
    assert member.machine.members["b"].boot == B.boot


@pytest.mark.parametrize("how", ["refused", "silent", "another answers"])
def test_a_name_whose_holder_is_gone_passes_on(how: str) -> None:
    member, ping = challenged()
    if how == "refused":
        member.hear(messages.SendFailed("b:1"))
    elif how == "silent":
        member.wait(LAN.challenge)
    else:
        member.receive(NEWER, messages.Ack(ping.seq))
    assert member.machine.members["b"].boot == NEWER.boot
    assert member.machine.view()["b"].address == "new:1"


def test_a_newcomer_whose_name_is_taken_ends_with_a_sentence() -> None:
    member = Member(B)
    (end,) = member.receive(B, messages.Taken(replace(A, boot=5, address="elder:1")))
    assert isinstance(end, messages.NameTaken)
    assert "elder:1" in end.sentence
    assert member.machine.ended
    assert member.machine.next_deadline() is None
    assert member.receive(B, messages.Ping(1, "a")) == []


def test_an_established_member_asks_the_other_holder_itself() -> None:
    member = Member(B)
    member.wait(60.0)
    member.receive(replace(B, incarnation=1), messages.Gossip())
    member.wait(60.0 + LAN.challenge * RETURNED_CHALLENGES)
    rival = replace(A, boot=300, address="rival:1")
    assert bodies(member.receive(B, messages.Taken(rival)), messages.Claim, "rival:1") == [messages.Claim(0, A.boot)]
    said = member.receive(rival, messages.Claim(0, 300))
    assert bodies(said, messages.Claim), "the elder stays and says so"
    said = member.receive(rival, messages.Claim(0, 50))
    assert [c for c in said if isinstance(c, messages.NameTaken)], "to an elder it gives way"


def test_news_of_a_dead_namesake_are_outgrown() -> None:
    """A restart under a clock that went backwards: news of the process before have the greater boot."""
    member = Member(B)
    member.receive(B, messages.Gossip(), Rumour(replace(A, boot=900, incarnation=7, state=DEAD), "c"))
    assert 900 < member.machine.own.boot <= 900 + 2**20


# --- seeds, readiness, leaving, limits --------------------------------------------------------------


def test_seeds_are_called_until_they_answer() -> None:
    member = Member()
    member.hear(messages.SeedsChanged(("b:1", "x:1", A.address)))
    said = member.wait(60.0)
    calls = len(bodies(said, messages.PushPull, "x:1"))
    assert 60 / (1.5 * LAN.seed_pause_max) <= calls <= 40
    assert not bodies(said, messages.PushPull, A.address)
    member.hear(messages.SeedsChanged(()))
    assert not bodies(member.wait(60.0), messages.PushPull, "x:1")


def test_readiness_is_told_and_seen() -> None:
    member = Member(B)
    (changed,) = [c for c in member.hear(messages.SetReady(12)) if isinstance(c, messages.Changed)]
    assert changed.ready_from == {"a": 12, "b": -1}
    said = member.receive(replace(B, incarnation=1, ready_from=13), messages.Gossip())
    assert [c.ready_from for c in said if isinstance(c, messages.Changed)] == [{"a": 12, "b": 13}]


def test_held_out_losses_are_told_and_seen() -> None:
    """They are news of their member, spread like its readiness, and stay while it is suspected."""
    member, own, theirs = Member(B), Heldout(((0, 3.0),)), Heldout(((0, 2.5), (1, None)), 12)
    member.hear(messages.SetHeldout(own))
    assert member.machine.own.heldout == own
    told = member.receive(replace(B, incarnation=1, heldout=theirs), messages.Ping(7, "a"))
    (changed,) = [c for c in told if isinstance(c, messages.Changed)]
    assert changed.heldout == {"a": own, "b": theirs}
    (ack,) = [c for c in told if isinstance(c, messages.Send) and isinstance(c.packet.body, messages.Ack)]
    assert ack.packet.sender.heldout == own
    assert member.machine.members["b"].heldout == theirs


def test_leaving_is_said_by_the_member_itself_and_final() -> None:
    member = Member(B, C)
    said = member.hear(messages.Leave())
    assert {c.address for c in said if isinstance(c, messages.Send)} == {"b:1", "c:1"}
    assert all(c.packet.sender.state is LEFT for c in said if isinstance(c, messages.Send))
    assert member.machine.ended
    member = Member(B)
    said = member.receive(replace(B, state=LEFT), messages.Gossip())
    assert [(c.name, c.sentence) for c in said if isinstance(c, messages.MemberLeft)] == [("b", "b has left the run")]
    member.receive(C, messages.Gossip(), Rumour(replace(B, state=DEAD), "c"), Rumour(B))
    assert member.state("b") is LEFT


def test_static_membership_refuses_names_and_counts_them() -> None:
    member = Member(allowed=frozenset("ab"))
    said = member.receive(C, messages.Ping(1, "a"))
    assert [type(c) for c in said] == [Report]
    member.receive(B, messages.Gossip(), Rumour(C))
    assert set(member.machine.view()) == {"a", "b"}
    assert member.machine.counters["names_refused"] == 2


X, Y = identity_of(RunSettings(run_name="x")), identity_of(RunSettings(run_name="y"))


@pytest.mark.parametrize("body", [messages.Ping(1, "a"), messages.PushPull(1, (C,), wants_reply=True)])
def test_a_packet_of_another_run_is_counted_and_nothing_of_it_is_learned(body: messages.Body) -> None:
    member = Member(run=X)
    packet = messages.Packet(B, body, (Rumour(C),), Y)
    said = member.hear(messages.PacketReceived(packet)) + member.hear(messages.PacketReceived(packet))
    assert [c.sentence for c in said if isinstance(c, Report)] == [
        "b at b:1 is refused: the run differs: run_name is x at a and y at b"
    ], "named once, and not answered"
    assert list(member.machine.view()) == ["a"] and not member.machine.members
    assert member.machine.counters["strangers_refused"] == 2


def test_a_stranger_under_this_members_own_name_takes_no_part_in_naming() -> None:
    member = Member(run=X)
    said = member.hear(messages.PacketReceived(messages.Packet(replace(A, boot=999), messages.Claim(0, 1), (), Y)))
    assert [type(c) for c in said] == [Report] and not member.machine.ended


def test_packets_say_the_run_and_those_that_say_none_are_taken() -> None:
    member = Member(run=X)
    member.receive(B, messages.Gossip())
    assert set(member.machine.view()) == {"a", "b"}
    assert all(c.packet.run == X for c in member.wait(3.0) if isinstance(c, messages.Send))


def test_a_flood_of_names_meets_a_limit() -> None:
    member = Member()
    crowd = tuple(replace(B, name=f"m{i}", address=f"m:{i}") for i in range(LAN.members_max + 10))
    member.receive(B, messages.PushPull(1, crowd, wants_reply=False))
    assert len(member.machine.members) == LAN.members_max
    assert member.machine.counters["members_over_limit"] > 0


# --- rumours and alarms -----------------------------------------------------------------------------


def test_the_least_told_rumours_go_first_and_none_is_told_too_often() -> None:
    rumours = Rumours()
    for facts in (A, B, C):
        rumours.add(Rumour(facts))
    two = 2 * Rumour(A).nbytes
    told = [rumour.facts.name for _ in range(6) for rumour in rumours.take(two, 4)]
    assert sorted(told) == sorted("abc" * 4)
    assert not rumours
    rumours.add(Rumour(A))
    rumours.add(Rumour(replace(A, incarnation=1)))
    assert [rumour.facts.incarnation for rumour in rumours.take(1400, 4)] == [1]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 100), st.booleans())))
def test_alarms_ring_as_a_plain_dictionary_would(steps: list[tuple[str, int, bool]]) -> None:
    alarms, plain = Alarms(), {}
    for name, when, cancel in steps:
        if cancel:
            alarms.cancel((name, ""))
            plain.pop((name, ""), None)
        else:
            alarms.set((name, ""), when)
            plain[(name, "")] = when
        assert alarms.next() == min(plain.values(), default=None)
    alarms.shift(5.0)
    rung = []
    while (key := alarms.pop_due(1000.0)) is not None:
        rung.append(plain[key])
    assert rung == sorted(plain.values())


@pytest.mark.parametrize(
    ("told", "nbytes"), [(Heldout(), 0), (Heldout(((0, 1.0), (1, None))), 34), (Heldout(((0, 1.0),), 3), 23)]
)
def test_a_rumour_is_as_long_as_what_it_tells(told: Heldout, nbytes: int) -> None:
    assert heldout_bytes(told) == nbytes
    assert Rumour(replace(B, heldout=told), "cä").nbytes == 48 + nbytes + 1 + 3 + 3


def test_as_many_rumours_ride_along_as_there_is_room_for() -> None:
    rumours = Rumours()
    for facts in (A, B, C):
        rumours.add(Rumour(facts))
    assert [told.facts.name for told in rumours.take(2 * 52, 5)] == ["a", "b"]
    assert [told.facts.name for told in rumours.take(2 * 52 - 1, 5)] == ["c"], "the least told go first"
    assert rumours.take(51, 5) == ()
