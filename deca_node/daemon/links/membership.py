"""Runs the membership state machine: packets come from the control links, deadlines from the event loop's clock.

:mod:`deca_node.protocol.membership.membership` makes every decision. Its commands are performed within the call that
caused them, so that none is late.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from deca_node.daemon.links.conduct import Refusals
from deca_node.daemon.links.hearsay import Hearsay
from deca_node.daemon.logs import say
from deca_node.daemon.wire.packets import decode_packet, encode_packet
from deca_node.protocol.commands import Report
from deca_node.protocol.errors import WireError
from deca_node.protocol.events import DeadlinePassed
from deca_node.protocol.membership import messages
from deca_node.protocol.membership.membership import Membership


class Hears(Protocol):
    """Receives the news of the membership."""

    def view_changed(self, view: messages.Changed) -> None:
        """The members have changed, or an address, or the activation from which on a member counts."""

    def name_taken(self, sentence: str) -> None:
        """Another process holds this node's name: this process must end."""


class Swim:
    """The SWIM membership of one node. ``send(name, address, payload)`` sends a datagram; its failure comes back
    through :meth:`failed`. ``book`` counts refusals."""

    def __init__(
        self,
        membership: Membership,
        send: Callable[[str, str, bytes], None],
        hears: Hears,
        book: Refusals,
    ) -> None:
        self.membership = membership
        self.lost: dict[str, str] = {}
        """Members that were given up, each with the reason as a sentence, until they are heard of again."""
        self.hearsay = Hearsay(lambda name: name in membership.members)
        self._book = book
        self._send = send
        self._hears = hears
        self._alarm: asyncio.TimerHandle | None = None

    def tell(self, event: messages.MembershipEvent) -> None:
        """Handle an event. The commands that follow from it are performed before this returns."""
        loop = asyncio.get_running_loop()
        for command in self.membership.handle(event, loop.time()):
            self._perform(command)
        self._set_alarm(loop)

    def packet(self, name: str, payload: bytes) -> None:
        """Handle a packet from ``name``. A malformed packet, or one in another member's name, is only counted."""
        try:
            packet = decode_packet(payload)
            if packet.sender.name != name:
                raise WireError("forged", f"{name} sent a packet in the name of {packet.sender.name}")
        except WireError as problem:
            self._book.blame(name, problem)
            return
        if self.membership.foreign(packet):
            self._book.count("mismatch")
        else:
            self.hearsay.take(packet.progress, self.membership.own.name)
        self.tell(messages.PacketReceived(packet))

    def failed(self, address: str) -> None:
        """A packet to this address could not be delivered."""
        self.tell(messages.SendFailed(address))

    def close(self) -> None:
        """Cancel the next deadline."""
        if self._alarm:
            self._alarm.cancel()

    def _set_alarm(self, loop: asyncio.AbstractEventLoop) -> None:
        self.close()
        deadline = self.membership.next_deadline()
        if deadline is not None and not self.membership.ended:
            self._alarm = loop.call_at(deadline, self.tell, DeadlinePassed())

    def _with_news(self, packet: messages.Packet) -> messages.Packet:
        """The packet with news of the members' progress, unless it is a list of members and so large already."""
        if isinstance(packet.body, messages.PushPull | messages.Taken | messages.Claim):
            return packet
        return replace(packet, progress=self.hearsay.pick())

    def _perform(self, command: messages.MembershipCommand) -> None:
        match command:
            case messages.Send():
                self._send(command.name, command.address, encode_packet(self._with_news(command.packet)))
            case messages.Changed():
                self._hears.view_changed(command)
            case messages.MemberUp() | messages.MemberLeft():
                self.lost.pop(command.name, None)
                say(command.sentence, peer=command.name)
            case messages.MemberDown():
                self.lost[command.name] = command.sentence
                say(command.sentence, "warning", peer=command.name)
            case messages.NameTaken():
                self._hears.name_taken(command.sentence)
            case Report():
                say(command.sentence, command.level, peer=command.about)
