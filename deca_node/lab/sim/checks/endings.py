"""What must hold at the end of a storm: how nodes end, what they hold and agree on, and when."""

from collections import Counter

from deca_node.lab.sim.checks.audit import BLOCKS, Audit
from deca_node.lab.sim.cluster import Cluster
from deca_node.lab.sim.drawn import FAIR, KINDS, Storm
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.schedule import Schedule, Step
from deca_node.protocol.agreed.topology import final_graph, turns
from deca_node.protocol.errors import PeersMissingError, TrainerError

FAULTLESS = frozenset(
    {
        "activations_skipped",
        "checkpoints_failed",
        "edges_closed_by_peer",
        "edges_dropped",
        "edges_lost",
        "edges_refused",
        "flows_uneven_max",
        "offers_declined",
        "trainer_deaths",
        "updates_unused",
    }
)
"""Counters that stay zero where there are no faults."""

EXTRA_VISITS = 4
"""Visits that a node may take again after a crash, or wait for while it catches up."""

SECONDS_PER_STEP, SECONDS_PER_VISIT = 3.0, 30.0
"""The most fake seconds that a step and a visit take in fair weather, at the slowest node."""

AGREED = 0.04
"""The largest distance between copies after a whole final flush. They begin 1 to 3 apart, and three mixes with eight
bits leave up to a hundredth of that."""


def check_end(storm: Storm, cluster: Cluster, audit: Audit) -> None:
    """Assert that every surviving node ended properly, holds no frame, and reports uneven flows; and that the nodes
    agree if all took part in the whole flush."""
    crashed = {node.name for node in cluster.past}
    for name, end in cluster.ends.items():
        assert end.exit_code in _exits(storm, name, crashed), f"{name}: {end}"
        assert not cluster.seats[name].frames.held(), f"{name} still holds {cluster.seats[name].frames.held()}"
    assert all(": replay of" in broken for broken in cluster.broken_rules), cluster.broken_rules
    single = [flow for flow in audit.single.values() if not crashed.intersection(flow.ends)]
    assert len(single) <= counted(cluster)["flows_uneven_max"], f"{len(single)} flows are uneven"
    audit.check_uneven(crashed)
    check_stops(cluster)
    check_time(storm, cluster)
    if storm.seed % KINDS == FAIR:
        check_fair(storm, cluster, audit)
    if flushed(storm, cluster):
        assert audit.spread(frozenset(cluster.ends)) < AGREED, f"copies are {audit.spread()} apart"


def check_fair(storm: Storm, cluster: Cluster, audit: Audit) -> None:
    """Assert that fair weather is no storm: every edge of the graph is there in every visit, every flow is applied at
    its step (or the next one, with overlap), and the copies agree."""
    found = {name: count for name, count in counted(cluster).items() if name in FAULTLESS and count}
    assert not found, f"fair weather has brought {found}"
    assert not audit.single, f"{len(audit.single)} flows are uneven in fair weather"
    whole = {activation: _neighbours(storm, activation) for activation in range(_visits(storm))}
    behind = 1 if storm.settings.exchange == "overlap" else 0
    for line in cluster.lines:
        match line.fact:
            case c.Connect(activation=activation, neighbours=near):
                due = whole[activation][line.node]
                assert {n.peer for n in near} == due, f"{line.node} has other edges than {set(due)} in {activation}"
            case c.Mix(step=step, flows=flows):
                late = [flow for flow in flows if flow.ours.inner != step.inner]
                assert behind or not late, f"{line.node} applies {late} late"
    assert audit.spread() < AGREED, f"copies are {audit.spread()} apart"


def _neighbours(storm: Storm, activation: int) -> dict[str, frozenset[str]]:
    """Every node's neighbours in an activation, in whichever of its graphs they meet."""
    graphs = turns(storm.names, storm.settings, activation, BLOCKS)
    steps = Schedule(storm.settings, BLOCKS, final_flush_mixes=1)
    met = {
        steps.turn(step) % len(graphs)
        for inner in range(steps[activation].steps)
        if steps.mixes(step := Step(activation, inner))
    }
    return {name: frozenset().union(*(graphs[turn][name] for turn in met)) for name in storm.names}


def check_time(storm: Storm, cluster: Cluster) -> None:
    """Assert liveness: after the last fault the run ends within the waits that its policy allows."""
    policy, steps = storm.policy, storm.settings.inner_steps + storm.settings.flush_mixes
    fair = storm.seed % KINDS == FAIR
    open_, step = (SECONDS_PER_VISIT, SECONDS_PER_STEP) if fair else (policy.open, policy.step + 1.0)
    visit = open_ + step * (steps + 2) + 2 * policy.farewell + SECONDS_PER_VISIT
    allowed = last_fault(storm) + policy.gather + policy.finish + visit * (_visits(storm) + EXTRA_VISITS)
    assert cluster.now <= allowed, f"the run ended after {cluster.now:.0f} s, at most {allowed:.0f} s are allowed"


def _visits(storm: Storm) -> int:
    return (storm.settings.rounds + 1) * BLOCKS


def last_fault(storm: Storm) -> float:
    """When the last fault of a storm is over, on the fake clock; for those after a number of events, a guess."""
    w = storm.weather
    ends = [cut.at + cut.seconds for cut in w.cuts] + [deaf.at + deaf.seconds for deaf in w.deaf]
    ends += [pause.at + pause.seconds for pause in w.pauses] + [max(death.at, 30.0) for death in w.deaths]
    ends += [max(crash.at, 30.0) + (crash.back or 0.0) for crash in w.crashes]
    ends += [60.0 for ask in w.asks if isinstance(ask.what, e.PauseRequested)]
    return max(ends, default=0.0)


def check_stops(cluster: Cluster) -> None:
    """Assert that no node begins a visit with gradients after it has learned that the run stops before it."""
    known: dict[str, int] = {}
    for line in cluster.lines:
        match line.fact:
            case "crash":
                known.pop(line.node, None)
            case c.AnnounceHeldout(heldout) if heldout.stop_at is not None:
                known[line.node] = heldout.stop_at
            case c.Activate(activation) if activation.inner_steps and activation.index >= known.get(line.node, 1 << 30):
                raise AssertionError(f"{line.node} trains {activation.index} and knows of a stop at {known[line.node]}")


def _exits(storm: Storm, name: str, crashed: set[str]) -> set[int]:
    """The allowed endings. A node that lost its disk may find no donor, and a node that was stopped may lose its
    trainer before the trainer could write a checkpoint."""
    asked = [ask.what for ask in storm.weather.asks if ask.name == name]
    stopped = e.StopRequested() in asked or e.LeaveRequested() in asked
    died = any(death.name == name for death in storm.weather.deaths)
    exits = {0}
    if crashed:
        exits.add(PeersMissingError.exit_code)
    if stopped and died:
        exits.add(TrainerError.exit_code)
    return exits


def counted(cluster: Cluster) -> Counter[str]:
    """The sum of the counters of all nodes, crashed ones included."""
    total: Counter[str] = Counter()
    for node in [seat.node for seat in cluster.seats.values()] + cluster.past:
        total.update(node.state.counters)
    total["stops"] = sum(seat.node.state.stopping.stop_at is not None for seat in cluster.seats.values())
    return total


def flushed(storm: Storm, cluster: Cluster) -> bool:
    """Whether all nodes took part in the whole flush, over every edge of the graph, with nothing late or lost."""
    if storm.settings.final_flush_mixes or set(cluster.ends) != set(storm.names):
        return False
    first = storm.settings.rounds * BLOCKS
    edges: dict[int, dict[str, set[str]]] = {}
    for line in cluster.lines:
        match line.fact:
            case c.Connect(activation=activation, neighbours=near) if activation >= first:
                edges.setdefault(activation, {})[line.node] = {n.peer for n in near}
            case c.Mix(step=step, flows=flows) if any(flow.theirs.inner != step.inner for flow in flows):
                # Late flows do not move the mean, but they overshoot.
                edges.pop(step.activation, None)
            case c.Report(kind="edge-lost" | "edge-dropped" | "edge-closed") if edges:
                return False
    whole = final_graph(storm.names, storm.settings)
    return len(edges) == BLOCKS and all(near == whole for near in edges.values())
