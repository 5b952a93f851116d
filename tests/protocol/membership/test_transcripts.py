"""Transcripts of membership that a person can read, replayed: packets and time go into one member, and the same packets
and reports must come out.

The member is ``a`` at a:1, with boot 100 and the dice of seed 1. A transcript may open with its numbers and rules::

    profile challenge=2             numbers of the profile that differ from LAN
    allowed a b                     the membership is static
    run spring/f1                   the member's run: a name, and the fingerprint of its settings

Then each line that starts with a time is an event. Deadlines before it pass first, each in a line of its own, and
``wait`` is nothing but time. The lines indented below an event are the commands that follow from it::

    0.0 started b:1                         seeds
    1.0 from b/100 ping 7 a ; c/100!dead by b   a packet: its sender, its body, and rumours with their accusers
    2.0 failed b:1                          a packet to this address could not be sent
    30.0 late                               the process stood still until now: no deadline has passed before

A member is ``name/boot``, then ``.incarnation`` unless it is 0, ``!state`` unless it is alive, ``>activation`` if it is
ready, ``@address`` unless it is name:1, ``~losses`` if it tells any. ``next`` and ``counted`` at the end are when the
next deadline is due, and what the member has counted. After an intended change, ``REWRITE_TRANSCRIPTS=1 pytest
tests/protocol/membership/test_transcripts.py`` writes down what the member does now. Then read the difference.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deca_node.protocol.agreed.identity import RunIdentity
from deca_node.protocol.agreed.stopping import NOTHING_TOLD, Heldout
from deca_node.protocol.commands import Report
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership import messages as m
from deca_node.protocol.membership.facts import MemberFacts, MemberState
from deca_node.protocol.membership.membership import Membership
from deca_node.protocol.membership.profiles import LAN
from deca_node.protocol.membership.rumours import Rumour

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
REWRITE = bool(os.environ.get("REWRITE_TRANSCRIPTS"))
FACTS = re.compile(
    r"(?P<name>\w+)/(?P<boot>\d+)(\.(?P<incarnation>\d+))?(!(?P<state>\w+))?(>(?P<ready>\d+))?(@(?P<address>[\w:]+))?"
    r"(~(?P<losses>[\d.,]+))?"
)


class Replay:
    """One member, fed with the events of a transcript."""

    def __init__(self) -> None:
        self.numbers: dict[str, Any] = {}
        self.allowed: frozenset[str] | None = None
        self.run: RunIdentity | None = None
        self.member: Membership | None = None
        self.calls: dict[str, int] = {}
        """The number of the newest question that went to each address."""

    def lines(self, text: str) -> Iterator[str]:
        """The transcript as it is now: the author's lines, and the member's commands below them."""
        for line in text.splitlines():
            if line.startswith(" ") or line.endswith(" deadline"):
                continue
            words = line.partition("#")[0].split()
            match words:
                case ["profile", *changes]:
                    pairs = (word.split("=") for word in changes)
                    self.numbers = {name: type(getattr(LAN, name))(value) for name, value in pairs}
                case ["allowed", *names]:
                    self.allowed = frozenset(names)
                case ["run", run]:
                    self.run = RunIdentity(*run.split("/"))
                case [time, *event]:
                    if event != ["late"]:
                        yield from self.until(float(time))
                    yield line
                    yield from self.tell(event, float(time))
                    continue
            yield line
        assert self.member is not None
        due = self.member.next_deadline()
        yield "    next -" if due is None else f"    next {due:.3f}"
        yield f"    counted {' '.join(f'{name}={n}' for name, n in sorted(self.member.counters.items()))}".rstrip()

    def until(self, time: float) -> Iterator[str]:
        """Let the deadlines before ``time`` pass."""
        while self.member and (due := self.member.next_deadline()) is not None and due < time:
            said = list(map(self.written, self.member.handle(DeadlinePassed(), due)))
            if said:
                yield f"{due:.3f} deadline"
                yield from said

    def tell(self, words: list[str], now: float) -> Iterator[str]:
        self.member = self.member or Membership(
            MemberFacts("a", "a:1", 100), replace(LAN, **self.numbers), Random(1), self.allowed, self.run
        )
        if words != ["wait"]:
            yield from map(self.written, self.member.handle(self.event(words), now))

    def event(self, words: list[str]) -> m.MembershipEvent:
        match words:
            case ["started", *seeds]:
                return m.Started(tuple(seeds))
            case ["late"]:
                return DeadlinePassed()
            case ["seeds", *seeds]:
                return m.SeedsChanged(tuple(seeds))
            case ["ready", activation]:
                return m.SetReady(int(activation))
            case ["tells", *losses]:
                return m.SetHeldout(Heldout(tuple(enumerate(map(float, losses)))))
            case ["failed", address]:
                return m.SendFailed(address)
            case ["stranger", name, address, *sentence]:
                return m.StrangerCalled(name, address, " ".join(sentence))
            case ["leave"]:
                return m.Leave()
            case ["from", sender, *rest]:
                text, _, rumours = " ".join(rest).partition(";")
                run = RunIdentity(*text.split(" of ")[1].strip().split("/")) if " of " in text else None
                body = self.body(facts_of(sender), text.split(" of ")[0].split())
                told = tuple(rumour_of(each.split()) for each in rumours.split(";") if each.strip())
                return m.PacketReceived(m.Packet(facts_of(sender), body, told, run))
        raise ValueError(f"no such event: {words}")

    def body(self, sender: MemberFacts, words: list[str]) -> m.Body:
        """The body of a packet; ``$`` stands for the newest question that went to the sender."""
        kind, *rest = (str(self.calls.get(sender.address, 0)) if word == "$" else word for word in words)
        match kind:
            case "ping":
                return m.Ping(int(rest[0]), rest[1])
            case "ping-req":
                return m.PingReq(int(rest[0]), rest[1], rest[2])
            case "ack":
                return m.Ack(int(rest[0]))
            case "nack":
                return m.Nack(int(rest[0]))
            case "list" | "list?":
                return m.PushPull(int(rest[0]), tuple(map(facts_of, rest[1:])), kind == "list?")
            case "taken":
                return m.Taken(facts_of(rest[0]))
            case "claim":
                return m.Claim(int(rest[0]), int(rest[1]))
        assert kind == "gossip", kind
        return m.Gossip()

    def written(self, command: m.MembershipCommand) -> str:
        match command:
            case m.Send(address, name, packet):
                if seq := getattr(packet.body, "seq", 0):
                    self.calls[address] = seq
                run = f" of {packet.run.name}/{packet.run.fingerprint}" if packet.run else ""
                rumours = "".join(f" ; {rumour(told)}" for told in packet.rumours)
                to = f"to {name} at {address}" if name else f"to {address}"
                return f"    {to}: {facts(packet.sender)} {written_body(packet.body)}{run}{rumours}"
            case m.Changed(members):
                return f"    changed {' '.join(map(facts, members.values()))}"
            case m.NameTaken(sentence):
                return f"    name-taken {sentence}"
            case Report(kind, sentence, level, about):
                return f"    {level} {kind}, about {about}: {sentence}"
            case _:
                return f"    {type(command).__name__.removeprefix('Member').lower()} {command.name}: {command.sentence}"


def written_body(body: m.Body) -> str:
    match body:
        case m.Ping(seq, target):
            return f"ping {seq} {target}"
        case m.PingReq(seq, target, address):
            return f"ping-req {seq} {target} {address}"
        case m.Ack(seq):
            return f"ack {seq}"
        case m.Nack(seq):
            return f"nack {seq}"
        case m.PushPull(seq, members, wants_reply):
            return " ".join(["list?" if wants_reply else "list", str(seq), *map(facts, members)])
        case m.Taken(holder):
            return f"taken {facts(holder)}"
        case m.Claim(rank, started):
            return f"claim {rank} {started}"
        case m.Gossip():
            return "gossip"


def facts(of: MemberFacts) -> str:
    return (
        f"{of.name}/{of.boot}"
        + (f".{of.incarnation}" if of.incarnation else "")
        + (f"!{of.state}" if of.state else "")
        + (f">{of.ready_from}" if of.ready_from >= 0 else "")
        + (f"@{of.address}" if of.address != f"{of.name}:1" else "")
        + (f"~{','.join(str(loss) for _, loss in of.heldout.losses)}" if of.heldout.losses else "")
    )


def facts_of(text: str) -> MemberFacts:
    found = FACTS.fullmatch(text)
    assert found is not None, text
    losses = tuple(enumerate(map(float, found["losses"].split(",")))) if found["losses"] else ()
    return MemberFacts(
        found["name"],
        found["address"] or f"{found['name']}:1",
        int(found["boot"]),
        int(found["incarnation"] or 0),
        MemberState[(found["state"] or "alive").upper()],
        int(found["ready"] or -1),
        Heldout(losses) if losses else NOTHING_TOLD,
    )


def rumour(told: Rumour) -> str:
    return facts(told.facts) + (f" by {told.accuser}" if told.accuser else "")


def rumour_of(words: list[str]) -> Rumour:
    return Rumour(facts_of(words[0]), words[2] if len(words) > 1 else "")


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    now = "\n".join(Replay().lines(text)) + "\n"
    if REWRITE:
        path.write_text(now, encoding="utf-8")
    else:
        assert now.splitlines() == text.splitlines()


def test_members_are_read_as_they_are_written() -> None:
    for text in ("b/100", "b/100.2!suspect>4@c:9~1.5,2.0", "b/7!left", "b/7>0"):
        assert facts(facts_of(text)) == text
