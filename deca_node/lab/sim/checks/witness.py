"""A witness: what every node was told, what it does, and whether the one follows from the other.

It sees every event and command of a cluster, with a model of its own for each node: the members that the node was
told of, its streams, the offers that reached it, the updates that it holds. From that follow the node's neighbours, the
edges that it has to offer, the weight of each edge, the updates that a mix may wait for, and when an edge is late. A
node that does otherwise is wrong, even if all nodes agree with each other.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from deca_node.lab.sim.checks.audit import tokens_of
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameKind
from deca_node.protocol.agreed.run import MATCHINGS, RunSettings
from deca_node.protocol.agreed.schedule import Activation, Schedule, Step
from deca_node.protocol.agreed.topology import Graph, turns
from deca_node.protocol.node.node import Node
from deca_node.protocol.node.phases import Phase
from deca_node.protocol.visit.phases import EdgeState, VisitPhase

WAITS = (VisitPhase.OPENING, VisitPhase.WAITING, VisitPhase.DRAINING)
"""The phases of a visit that wait for other nodes."""

INTERRUPTIONS = (e.PauseRequested, e.StopRequested, e.LeaveRequested, e.TrainerFailed)

OWN_HELD_MAX = 10
"""The own updates that a node may hold, beyond D: the one that travels, and those that commands in the queue read."""

DECLINES = re.compile(r"^\w+ (pauses|ends|is catching up|opens no edge|resumes activation)")
"""The reasons with which an offer is declined: of an edge that is not open, no flow was applied."""

REST = re.compile(r"no edge to it for (\d+) more activation")


@dataclass
class _Seen:
    """One node in one life, as the witness knows it."""

    name: str
    ready: dict[str, int]
    up: set[str] = field(default_factory=set)
    shares: dict[str, int] = field(default_factory=dict)
    """The shares in the mean of the node and of its peers, as told."""
    rests: dict[str, int] = field(default_factory=dict)
    """The activation from which on a late neighbour gets an edge again."""
    event: e.Event | None = None
    told: dict[str, int] = field(default_factory=dict)
    """The positions of peers, as last told."""
    visit: Activation | None = None
    steps: list[int] = field(default_factory=list)
    """The inner steps of the current visit at which updates are exchanged."""
    meets: dict[str, list[int]] = field(default_factory=dict)
    """The same by neighbour: those at which it is this node's turn with it."""
    named: dict[tuple[int, str], tuple[int, ...]] = field(default_factory=dict)
    """The steps that peers have offered with, by activation."""
    near: frozenset[str] = frozenset()
    keyed: frozenset[str] = frozenset()
    """The neighbours with which it exchanges parameters."""
    wanted: set[str] = field(default_factory=set)
    interrupted: bool = False
    offered: set[str] = field(default_factory=set)
    degrees: dict[tuple[int, str], int] = field(default_factory=dict)
    """The degrees that peers have offered with, by activation, over the streams that live."""
    newest: dict[tuple[int, str], int] = field(default_factory=dict)
    applied: dict[tuple[int, str], int] = field(default_factory=dict)
    """The step of the last flow that was handed to the trainer, by activation and peer; and that it has applied."""
    mixed: dict[tuple[int, str], int] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    encoded: list[int] = field(default_factory=list)
    """The steps of the current visit whose own update is encoded."""
    uneven: int = 0


class Witness:
    """``uneven`` counts, by activation, node and peer, the flows that the node has declared to be uneven at most."""

    def __init__(self, names: Iterable[str], settings: RunSettings, blocks: int) -> None:
        self.uneven: Counter[tuple[int, str, str]] = Counter()
        self._names = tuple(names)
        self._settings = settings
        self._schedule = Schedule(settings, blocks, final_flush_mixes=1)
        self._seen = {name: self._fresh(name) for name in self._names}

    def _fresh(self, name: str) -> _Seen:
        return _Seen(name, dict.fromkeys(self._names, 0))

    def reborn(self, name: str) -> None:
        """A node that crashed is back."""
        self._seen[name] = self._fresh(name)

    def see(self, node: Node, event: e.Event, given: list[c.Command]) -> None:
        """Take in an event and the commands that followed from it, and check them."""
        seen = self._seen[node.name]
        self._event(seen, event)
        for command in given:
            self._command(seen, command, node)
        if isinstance(event, e.Activated) and not seen.interrupted:
            missing = (seen.wanted & seen.up) - seen.offered
            assert not missing, f"{seen.name} offers no edge to {missing} for activation {event.activation}"
        index = event.activation if isinstance(event, e.CloseReceived) else seen.visit.index if seen.visit else None
        lost = [r.about for r in given if isinstance(r, c.Report) and r.kind == "edge-lost"]
        self._count_uneven(seen, node, index, lost)
        self._check_wait(node)

    def _count_uneven(self, seen: _Seen, node: Node, activation: int | None, lost: list[str]) -> None:
        """Note what a node declares about the edges that it has lost now, or about all of its edges."""
        declared = node.state.counters["flows_uneven_max"]
        if declared != seen.uneven and activation is not None:
            for peer in lost or self._names:
                self.uneven[activation, seen.name, peer] += (declared - seen.uneven) // max(1, len(lost))
            seen.uneven = declared

    def _check_wait(self, node: Node) -> None:
        """Every wait for peers has a deadline."""
        visit = node.state.visit if node.state.phase is Phase.VISITING else None
        waits = visit is not None and visit.phase in WAITS
        assert not waits or node.next_deadline() is not None, f"{node.name} waits for ever: {node.state.awaits()}"

    # --- what a node hears --------------------------------------------------------------------------

    def _event(self, seen: _Seen, event: e.Event) -> None:
        seen.event = event
        match event:
            case e.MembersChanged(ready_from=ready):
                seen.ready = {**ready, seen.name: ready.get(seen.name, 0)}
            case e.PeerUp(peer=peer, activation=activation, share=share):
                seen.up.add(peer)
                seen.shares[peer] = share
                seen.told[peer] = activation
                seen.ready.setdefault(peer, 0)
            case e.PeerDown(peer=peer):
                self._lost(seen, peer)
            case e.OpenReceived(peer=peer, activation=activation, degree=degree, steps=steps):
                seen.degrees[activation, peer] = degree
                seen.named[activation, peer] = steps
                seen.told[peer] = activation
                seen.newest.pop((activation, peer), None)
            case e.PeerProgress(peer=peer, activation=activation) if peer in seen.up:
                seen.told[peer] = activation
            case e.UpdateReceived(peer=peer, update=update):
                seen.newest[update.activation, peer] = update.inner
            case e.CloseReceived(peer=peer, activation=activation):
                if seen.visit is not None and seen.visit.index == activation:
                    seen.open.discard(peer)
                    seen.wanted.discard(peer)
            case e.HalfStepped(step=step, update=update) if update is not None:
                seen.encoded.append(step.inner)
            case e.Connected(refused=refused) | e.Mixed(refused=refused):
                seen.open -= {one.peer for one in refused}
                self._mixed(seen, {one.peer for one in refused})
            case e.TrainerReady():
                # A visit that a checkpoint had goes on without edges, and without being activated.
                seen.visit, seen.open, seen.applied, seen.mixed = None, set(), {}, {}
        seen.interrupted |= isinstance(event, INTERRUPTIONS)

    def _mixed(self, seen: _Seen, refused: set[str]) -> None:
        """The trainer has answered: it has applied all flows but those of the peers that it refuses."""
        if seen.visit is None:
            return
        for peer in refused:
            seen.applied[seen.visit.index, peer] = seen.mixed.get((seen.visit.index, peer), -1)
        seen.mixed = dict(seen.applied)

    def _lost(self, seen: _Seen, peer: str) -> None:
        seen.up.discard(peer)
        seen.open.discard(peer)
        seen.told.pop(peer, None)
        for key in [key for key in seen.degrees if key[1] == peer]:
            del seen.degrees[key]

    # --- what a node does ---------------------------------------------------------------------------

    def _command(self, seen: _Seen, command: c.Command, node: Node) -> None:
        match command:
            case c.Meet(share=share):
                assert share == self._share(seen.name), f"{seen.name} tells the share {share}"
                seen.shares[seen.name] = share
            case c.Activate():
                self._activate(seen, command)
            case c.SendOpen():
                self._send_open(seen, command)
            case c.SendUpdate(peer=peer, update=update):
                assert update.inner in seen.meets[peer], f"{seen.name} sends {update} to {peer}, whose turn it is not"
            case c.Connect():
                self._connect(seen, command)
            case c.SendClose(peer=peer, activation=activation, applied=applied, reason=reason):
                due = seen.applied.get((activation, peer), -1)
                declined = applied == -1 and DECLINES.search(reason)
                assert applied == due or declined, (
                    f"{seen.name} tells {peer} that it has applied flow {applied}, and it is {due}"
                )
                if seen.visit is not None and seen.visit.index == activation:
                    seen.open.discard(peer)
            case c.Report(kind="edge-dropped", sentence=sentence, about=peer):
                self._dropped(seen, sentence, peer)
            case c.Report(kind="behind") if not isinstance(seen.event, e.FetchFailed):
                self._behind(seen, node.state.next.activation)
            case c.Mix():
                self._mix(seen, command)

    def _activate(self, seen: _Seen, command: c.Activate) -> None:
        index = command.activation.index
        seen.applied = {key: step for key, step in seen.applied.items() if key[0] != index}
        seen.visit, seen.encoded, seen.interrupted = command.activation, [], False
        seen.open, seen.offered = set(), set()
        graphs = self._graphs(seen, index)
        seen.keyed = graphs[0][seen.name]
        seen.meets = self._meets(seen.name, command.activation, graphs)
        seen.steps = sorted({inner for steps in seen.meets.values() for inner in steps})
        seen.near = frozenset(seen.meets)
        assert (command.keyframe is not None) == bool(seen.keyed), f"{seen.name} should have neighbours {seen.keyed}"
        flush = not command.activation.inner_steps
        rested = {peer for peer in seen.near if flush or seen.rests.get(peer, 0) <= index}
        seen.wanted = rested & seen.up

    def _graphs(self, seen: _Seen, activation: int) -> tuple[Graph, ...]:
        names = {name for name, ready in seen.ready.items() if 0 <= ready <= activation} | {seen.name}
        return turns(names, self._settings, activation, self._schedule.blocks)

    def _meets(self, name: str, activation: Activation, graphs: Sequence[Graph]) -> dict[str, list[int]]:
        """The steps by neighbour. A step with parameters is the first graph's, and the k-th with moments alone, counted
        from the visit's first moment signal on, that of graph k."""
        meets: dict[str, list[int]] = {}
        for inner in range(activation.steps):
            step = Step(activation.index, inner)
            alone = not self._schedule.parameters(step)
            if alone and not self._schedule.signals(step):
                continue
            turn = inner // self._settings.moments_every if alone else 0
            for peer in graphs[turn % len(graphs)][name]:
                meets.setdefault(peer, []).append(inner)
        return meets

    def _degree(self, seen: _Seen) -> int:
        return 1 if self._settings.partners == "step" and seen.visit and seen.visit.inner_steps else len(seen.near)

    def _send_open(self, seen: _Seen, command: c.SendOpen) -> None:
        peer, degree = command.peer, self._degree(seen)
        assert peer in seen.near, f"{seen.name} offers {peer} an edge, and its neighbours are {set(seen.near)}"
        assert command.degree == degree, f"{seen.name} says that its degree is {command.degree}, and it is {degree}"
        keyed = command.keyframe is not None
        assert keyed == (peer in seen.keyed), f"{seen.name} sends {peer} a keyframe: {keyed}, and should not"
        named = list(command.steps) or seen.steps
        assert named == seen.meets[peer], f"{seen.name} names the steps {named} to {peer}, due {seen.meets[peer]}"
        seen.offered.add(peer)

    def _connect(self, seen: _Seen, command: c.Connect) -> None:
        for near in command.neighbours:
            theirs = seen.degrees.get((command.activation, near.peer))
            assert theirs is not None, f"{seen.name} opens an edge to {near.peer}, whose offer is gone with its stream"
            own, other = seen.shares[seen.name], seen.shares[near.peer]
            due = min(own / (1 + self._degree(seen)), other / (1 + theirs)) / own
            assert abs(near.weight - due) < 1e-9, f"{seen.name} gives {near.peer} the weight {near.weight}, due {due}"
            if named := seen.named[command.activation, near.peer]:
                # Both ends must expect an exchange, and one without a keyframe has no parameters.
                keyed = near.keyframe is not None
                seen.meets[near.peer] = [
                    inner
                    for inner in seen.meets[near.peer]
                    if inner in named and (keyed or not self._schedule.parameters(Step(command.activation, inner)))
                ]
            if (command.activation, near.peer) in seen.newest or near.peer in seen.up:
                seen.open.add(near.peer)

    def _share(self, name: str) -> int:
        """The node's tokens in thousandths of an ordinary node's, from a quarter to four times as much."""
        if self._settings.weights == "equal":
            return 1000
        return max(250, min(4000, round(1000 * tokens_of(name) / self._settings.weight_tokens)))

    def _dropped(self, seen: _Seen, sentence: str, peer: str) -> None:
        assert seen.visit is not None
        if rest := REST.search(sentence):
            seen.rests[peer] = seen.visit.index + 1 + int(rest[1])
        if "more than" in sentence and "behind" in sentence:
            behind = self._behind_by(seen, peer)
            assert behind > self._settings.late_steps, f"{seen.name} drops {peer}, which is {behind} exchanges late"

    def _behind_by(self, seen: _Seen, peer: str) -> int:
        """By how many of this node's exchanges the first update that is missing of a peer is behind its own newest."""
        assert seen.visit is not None
        newest = seen.newest.get((seen.visit.index, peer), -1)
        missing = [inner for inner in seen.meets[peer] if newest < inner]
        return sum(inner >= missing[0] for inner in seen.encoded) if missing else 0

    def _behind(self, seen: _Seen, activation: int) -> None:
        """At least half of the peers that train are ahead of a node that counts itself as left behind. In matchings the
        neighbours of the next activation with any count, where one of them trains."""
        train = {peer: position for peer, position in seen.told.items() if position >= 0}
        visits = self._settings.rounds_of(self._schedule.blocks) * self._schedule.blocks
        for index in range(activation, visits if self._settings.topology in MATCHINGS else 0):
            if near := self._graphs(seen, index)[0][seen.name]:
                if near & train.keys():
                    activation, train = index, {peer: train[peer] for peer in near if peer in train}
                break
        told = list(train.values())
        ahead = sum(position > activation for position in told)
        assert ahead and 2 * ahead >= len(told), f"{seen.name} counts as left behind, and {ahead} of {told} are ahead"

    def _mix(self, seen: _Seen, command: c.Mix) -> None:
        """A mix that no deadline has brought about misses no update that the exchange allows to wait for."""
        for flow in command.flows:
            seen.applied[flow.theirs.activation, flow.peer] = flow.theirs.inner
        inner = command.step.inner
        waited = command.fold and not isinstance(seen.event, e.DeadlinePassed)
        if not waited or seen.encoded[-1:] != [inner] or seen.visit is None:
            return
        overlapped = self._settings.exchange == "overlap" and inner < seen.visit.inner_steps - 1
        late = {peer for peer in seen.open if self._behind_by(seen, peer) > (1 if overlapped else 0)}
        assert not late, f"{seen.name} mixes step {inner} without waiting for {late}"

    # --- memory -------------------------------------------------------------------------------------

    def check_frames(self, node: Node, held: Iterable[object]) -> None:
        """Assert that a node holds no more own updates than its run can need."""
        own = [
            f for f in held if getattr(f, "sender", "") == node.name and getattr(f, "kind", None) is FrameKind.UPDATE
        ]
        allowed = self._settings.late_steps + OWN_HELD_MAX
        assert len(own) <= allowed, f"{node.name} holds {len(own)} own updates, at most {allowed} are of use"


def check_pace(node: Node) -> None:
    """Assert that no end of an open edge is further ahead of the other than the run allows."""
    visit = node.state.visit
    if visit is None or not visit.exchanging or visit.edges.encoded < 0:
        return
    for edge in visit.edges.by_peer.values():
        if edge.state is EdgeState.OPEN:
            ahead = visit.edges.behind(edge)
            assert ahead <= node.state.settings.late_steps + 1, f"{node.name} is {ahead} exchanges ahead of {edge.peer}"
