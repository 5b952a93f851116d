"""The planted faults. Each is a mistake that somebody could make: one line of a module that reads a little differently.

A fault names its module, the text there, and the text that replaces it. The text must stand in the module exactly once.
So a fault whose module has changed is noticed, and must be written anew.
"""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Fault:
    """One fault. ``finders`` are seeds of storms that find it."""

    name: str
    what: str
    module: str
    text: str
    instead: str
    finders: tuple[int, ...] = ()

    @property
    def path(self) -> Path:
        """The module's file."""
        return ROOT / (self.module.replace(".", "/") + ".py")

    def plant(self, source: str) -> str:
        """The module's source with the fault. Raises AssertionError unless the text stands there once."""
        found = source.count(self.text)
        assert found == 1, f"{self.name}: its text stands {found} times in {self.module}, expected once"
        return source.replace(self.text, self.instead)


VISIT, NODE, AGREED = "deca_node.protocol.visit", "deca_node.protocol.node", "deca_node.protocol.agreed"
MEMBERSHIP, EXCHANGE = "deca_node.protocol.membership", "deca_node.numerics.exchange"

FAULTS = (
    Fault(
        "close-names-own-step",
        "a close names the last own update instead of the last flow that was applied",
        f"{VISIT}.closing",
        "self._edges.activation, edge.applied, reason, orderly",
        "self._edges.activation, self._edges.encoded, reason, orderly",
        (0,),
    ),
    Fault(
        "late-flow-lost",
        "flows that come late are taken, and never applied",
        f"{VISIT}.visit",
        "        flows = self.edges.take_flows()\n",
        "        flows = [f for f in self.edges.take_flows() if f[1].inner >= self.edges.encoded]\n",
        (7,),
    ),
    Fault(
        "late-by-one-less",
        "an edge that is as late as the run allows is dropped",
        f"{VISIT}.visit",
        "if self.edges.behind(edge) > allowed:",
        "if self.edges.behind(edge) >= allowed:",
        (0,),
    ),
    Fault(
        "no-deadline-at-the-end",
        "the wait for the last flows of a visit has no deadline",
        f"{VISIT}.visit",
        "            self._move(VisitCause.NO_STEP)\n            self._wait.begin(now, self._parting_seconds())\n",
        "            self._move(VisitCause.NO_STEP)\n",
        (0,),
    ),
    Fault(
        "no-deadline-at-the-beginning",
        "the wait for edges to open has no deadline",
        f"{VISIT}.visit",
        "        self._wait.begin(now, self._rules.open_waits.seconds())\n",
        "",
        (0,),
    ),
    Fault(
        "own-updates-kept",
        "own updates are kept until the end of the visit, so that memory grows with its steps",
        f"{VISIT}.edges",
        "return any(edge.after(edge.applied) <= inner <= edge.last for edge in self.live())",
        "return True",
        (1,),
    ),
    Fault(
        "rest-without-end",
        "a neighbour that was late once never gets an edge again",
        f"{VISIT}.waits",
        "self._until[peer] = activation + 1 + rest",
        "self._until[peer] = activation + 1 + rest * 1000",
        (0,),
    ),
    Fault(
        "uneven-not-counted",
        "flows that one end of a lost edge has applied, and the other never will, are not counted",
        f"{VISIT}.closing",
        '        self._counters["flows_uneven_max"] += self._edges.uneven_max(self._rules.late_steps)\n',
        "",
        (0,),
    ),
    Fault(
        "weight-too-large",
        "the Metropolis weight lacks the share of the node itself",
        f"{AGREED}.weights",
        "return min(share / (1 + degree), peer_share / (1 + peer_degree)) / share",
        "return min(share / max(degree, 2), peer_share / max(peer_degree, 2)) / share",
        (0,),
    ),
    Fault(
        "share-of-one-end",
        "w_ij forgets to divide by the node's own share",
        f"{AGREED}.weights",
        "peer_share / (1 + peer_degree)) / share",
        "peer_share / (1 + peer_degree)) / SHARE_ONE",
        (5,),
    ),
    Fault(
        "joins-one-late",
        "a member that returns is counted one activation after the one that it has announced",
        f"{NODE}.roster",
        "if 0 <= ready <= activation} - self._refused",
        "if 0 <= ready <= max(0, activation - 1)} - self._refused",
        (0,),
    ),
    Fault(
        "one-peer-ahead-is-enough",
        "a node counts itself as left behind when a single peer is ahead of it",
        f"{NODE}.roster",
        "return ahead > 0 and 2 * ahead >= len(training)",
        "return ahead > 0",
        (0,),
    ),
    Fault(
        "offer-outlives-its-stream",
        "the offer of a peer is kept when the stream to the peer is lost",
        f"{NODE}.node",
        "        self.state.visits.offers.drop(event.peer)\n",
        "",
        (22,),
    ),
    Fault(
        "sign-of-a-difference",
        "an edge opens with k_i - k_j instead of k_j - k_i",
        f"{EXCHANGE}.flows",
        "torch.sub(k_j, k_i, out=e[start:stop])",
        "torch.sub(k_i, k_j, out=e[start:stop])",
        (1,),
    ),
    Fault(
        "keyframe-forgotten",
        "the public copy begins at the common start and leaves the own keyframe out",
        f"{EXCHANGE}.flows",
        "torch.add(origin(start, stop).to(device), k, out=self.x_hat[start:stop])",
        "torch.add(origin(start, stop).to(device), 0.0 * k, out=self.x_hat[start:stop])",
        (1,),
    ),
    Fault(
        "share-forgotten",
        "a flow is mixed in with its whole weight, without gamma_c",
        f"{EXCHANGE}.mix",
        "        self._gamma_c = gamma_c\n",
        "        self._gamma_c = 1.0\n",
        (1,),
    ),
    Fault(
        "refutation-too-weak",
        "a member refutes with the incarnation of the accusation instead of a greater one",
        f"{MEMBERSHIP}.naming",
        "self._announce(replace(own, incarnation=own.incarnation + 1), now)",
        "self._announce(own, now)",
        (3,),
    ),
    Fault(
        "stale-incarnation-accepted",
        "facts of an older incarnation win if their state is graver",
        f"{MEMBERSHIP}.facts",
        "        ours = (self.boot, self.incarnation, self.state)\n"
        "        return ours > (other.boot, other.incarnation, other.state)",
        "        ours = (self.boot, self.state, self.incarnation)\n"
        "        return ours > (other.boot, other.state, other.incarnation)",
        (3,),
    ),
    Fault(
        "rumour-without-end",
        "a rumour is told for ever",
        f"{MEMBERSHIP}.rumours",
        "if told.times >= times_max:",
        "if told.times >= times_max * 10_000:",
        (3,),
    ),
    Fault(
        "suspicion-without-deadline",
        "a suspected member is never given up",
        f"{MEMBERSHIP}.membership",
        "            begun = self._suspicions[facts.name] = Suspicion.begin(now, view.size, view.profile, accuser)\n"
        '            view.alarms.set(("suspicion", facts.name), begun.deadline)\n',
        "            self._suspicions[facts.name] = Suspicion.begin(now, view.size, view.profile, accuser)\n",
        (193,),
    ),
)
