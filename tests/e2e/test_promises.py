"""What a node promises when things go wrong, tried on real processes: each test shows its figure (``pytest -s``).

Nodes are started in any order, killed, paused, parted and run out of memory and disk; the run goes on.
"""

import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deca_node.lab.rigs.processes import LOOPBACK, NodeProcess, free_ports
from tests.e2e.faults import (
    SmallDisk,
    all_see,
    checkpoints,
    ended,
    figure,
    kill,
    member_rows,
    one_view,
    processes_of,
    seconds_until,
    states,
    steps_done,
    stopped,
    throughout,
    two_views,
    wait_for_steps,
)
from tests.e2e.networks import Namespaces, Network, Switchboard
from tests.e2e.testbed import (
    Testbed,
    ask,
    final_parameters,
    largest_difference,
    look,
    make_tiny_model,
    metrics,
    shimmed,
    until,
)

pytestmark = pytest.mark.slow


VIEW_SECONDS_MAX = 10.0
DEAD_SECONDS_MAX = 15.0
HEAL_SECONDS_MAX = 60.0

LONG = {"rounds": 1000, "inner_steps": 30, "open_timeout_seconds": 10, "step_timeout_seconds": 5}
"""More than any test waits for."""


def trains_with(node: NodeProcess, *peers: str) -> None:
    """Until the node has an open edge to each of these."""
    for peer in peers:
        edge = f"an edge from {node.name} to {peer}"
        look(node, lambda status, p=peer: any(r.name == p and r.edge == "open" for r in status.peers), edge)


def start_together(testbed: Testbed, *names: str) -> list[NodeProcess]:
    """Nodes of a long run that have begun to train."""
    testbed.peers(*names)
    nodes = [testbed.start(name, **LONG) for name in names]
    until(lambda: all(steps_done(node) > 10 for node in nodes), "all to train")
    return nodes


# --- membership -------------------------------------------------------------------------------------


def test_any_order_of_start_leads_to_one_view(testbed: Testbed) -> None:
    """Eight nodes know four addresses, of which three are dead; the one that lives starts last of all."""
    *dead, seed = free_ports(4)
    known = [f"ghost{i}@{LOOPBACK}:{port}\n" for i, port in enumerate(dead)] + [f"node0@{LOOPBACK}:{seed}\n"]
    (testbed.folder / "peers.txt").write_text("".join(known))
    ports = [seed, *free_ports(7)]
    order = [*random.Random(0).sample(range(1, 8), 7), 0]
    flags = {"wait_for": 8, "wait": 0}
    nodes = [testbed.start(f"node{i}", listen=f"{LOOPBACK}:{ports[i]}", **flags) for i in order]
    started = seconds_until(lambda: all(states(node) for node in nodes), "all doors to open")
    seconds = seconds_until(lambda: one_view(nodes), "one view")
    figure("one view", nodes=8, dead_seeds=3, seconds=seconds, seconds_until_all_had_started=started)
    assert seconds <= VIEW_SECONDS_MAX


def test_a_killed_seed_is_dead_soon_and_the_rest_trains_on(testbed: Testbed) -> None:
    """The first address of everybody's peers file, and then another node, are killed for good."""
    nodes = start_together(testbed, "a", "b", "c", "d")
    for victim in ("a", "c"):
        gone = next(node for node in nodes if node.name == victim)
        others = [node for node in nodes if node is not gone]
        before = {node.name: steps_done(node) for node in others}
        kill(testbed.nodes, gone)
        seconds = seconds_until(lambda v=victim, o=others: all_see(o, v, "dead"), f"{victim} to be dead")
        wait_for_steps(others, 60, "the others to train on")
        trains_with(others[0], *(node.name for node in others[1:]))
        steps = min(steps_done(node) - before[node.name] for node in others)
        figure("killed", node=victim, others=len(others), seconds_to_dead=seconds, steps_of_the_rest_since=steps)
        assert seconds <= DEAD_SECONDS_MAX
        nodes = others


def test_a_short_pause_is_no_death_and_a_long_one_is_refuted(testbed: Testbed) -> None:
    """SIGSTOP of node and trainer for 2 s, and for 30 s."""
    *others, sleeper = start_together(testbed, "a", "b", "c", "d")

    def thought_alive() -> bool:
        return all_see(others, "d", "alive", "suspect")

    with stopped(sleeper):
        throughout(2.0, thought_alive, "d was called dead after a short pause")
    throughout(10.0, thought_alive, "d was called dead after a short pause")
    assert not any("d is given up" in node.log_text() for node in others)
    before = [steps_done(node) for node in others]
    began = time.monotonic()
    with stopped(sleeper):
        dead = seconds_until(lambda: all_see(others, "d", "dead"), "d to be dead")
        until(lambda: time.monotonic() >= began + 30.0, "the end of the pause")
    gained = min(steps_done(node) - steps for node, steps in zip(others, before, strict=True))
    back = seconds_until(lambda: one_view([*others, sleeper]), "one view", HEAL_SECONDS_MAX)
    trains_with(sleeper, "a", "b", "c")
    figure("pauses", short_s=2, long_s=30, seconds_to_dead=dead, seconds_to_one_view=back, steps_of_the_rest=gained)
    assert dead <= DEAD_SECONDS_MAX
    assert gained > 0


@pytest.mark.parametrize("kind", [Namespaces, Switchboard])
def test_a_partition_trains_on_both_sides_and_heals(testbed: Testbed, kind: type) -> None:
    names = ("a", "b", "c", "d")
    network: Network
    with kind(testbed, names) as network:
        nodes = [network.start(name, **LONG) for name in names]
        until(lambda: one_view(nodes) and all(steps_done(node) > 10 for node in nodes), "all to train")
        processes = [process.pid for node in nodes for process in processes_of(node)]
        left, right = nodes[:2], nodes[2:]
        network.part(("a", "b"))
        parted = seconds_until(lambda: two_views(left, right), "two views", HEAL_SECONDS_MAX)
        before = [steps_done(node) for node in nodes]
        wait_for_steps(nodes, 60, "both sides to train on")
        steps = min(steps_done(node) - done for node, done in zip(nodes, before, strict=True))
        network.heal()
        healed = time.monotonic()
        seconds = seconds_until(lambda: one_view(nodes), "one view", HEAL_SECONDS_MAX)
        trains_with(nodes[0], "c", "d")
        across = time.monotonic() - healed
        assert [process.pid for node in nodes for process in processes_of(node)] == processes, "nothing was restarted"
    figure(
        f"partition ({kind.__name__.lower()})",
        seconds_to_two_views=parted,
        steps_while_parted_min=steps,
        seconds_to_one_view=seconds,
        seconds_to_edges_across=round(across, 2),
    )


# --- joining and coming back ------------------------------------------------------------------------


def test_a_donor_dies_in_the_middle_of_a_transfer(testbed: Testbed) -> None:
    """A newcomer gets 10 MB from three donors, at 2 Mbit/s each; one is killed once its first pieces have come."""
    testbed.model = make_tiny_model(testbed.folder / "model", hidden=512, layers=4)
    testbed.peers("a", "b", "c")
    flags = {"inner_steps": 6, "rounds": 4, "transfer_upload": 2, "open_timeout_seconds": 20}
    nodes = [testbed.start(name, **flags) for name in ("a", "b", "c")]
    until(lambda: steps_done(nodes[0]) > 42, "every block to be visited")
    for node in nodes:
        ask(node, "pause")
    for node in nodes:
        look(node, lambda status: status.phase == "paused", "the pause")
    seed = (testbed.folder / "peers.txt").read_text().splitlines()[0].partition("@")[2]
    late = testbed.join("late", seed, model=testbed.model)
    incoming = late.directory / "incoming"
    until(lambda: sum(file.read_text().count("\n") - 1 for file in incoming.glob("*.journal")) >= 3, "some pieces")
    kill(testbed.nodes, nodes.pop())
    until(lambda: "fetched " in late.log_text(), "the rest from the other donors")
    for node in nodes:
        ask(node, "resume")
    testbed.wait()
    found = re.search(
        r"fetched ([\d,]+) bytes from (.*) in ([\d.]+) s; bytes fetched twice: ([\d,]+)(.*)", late.log_text()
    )
    assert found
    nbytes, donors, seconds, resent, lost = found.groups()
    figure("donor killed", bytes=nbytes, donors=donors, seconds=seconds, bytes_resent=resent, lost=lost)
    assert resent == "0"
    assert "donors lost: 1" in lost
    assert metrics(late, "step")[-1]["flows_applied"] > 0, "it took part"
    assert largest_difference([*nodes, late]) < 1e-3


def test_a_node_that_returns_with_another_port_is_found(testbed: Testbed) -> None:
    a, b, c = start_together(testbed, "a", "b", "c")
    kill(testbed.nodes, c)
    lines = (testbed.folder / "peers.txt").read_text().splitlines(keepends=True)
    (testbed.folder / "peers-c.txt").write_text("".join(lines[:2]))
    address = f"{LOOPBACK}:{free_ports(1)[0]}"
    c = testbed.start("c", peers=testbed.folder / "peers-c.txt", listen=address, **LONG)

    def found() -> bool:
        rows = [row for node in (a, b) for row in member_rows(node) if row.name == "c"]
        return all(row.address == address and row.state == "alive" for row in rows) and len(rows) == 2

    opened = seconds_until(lambda: states(c), "the door of c")
    seconds = seconds_until(found, "c at its new address")
    trains_with(a, "c")
    trains_with(b, "c")
    figure("another port", seconds_from_start_to_open=opened, seconds_to_be_found=seconds)


def test_four_nodes_are_restarted_one_after_the_other(testbed: Testbed) -> None:
    """SIGTERM, exit 0, a start in the same folder: what was trained is kept to the very step."""
    nodes = {node.name: node for node in start_together(testbed, "a", "b", "c", "d")}
    lost, waits, meanwhile = [], [], []
    for name in ("a", "b", "c", "d"):
        others = [node for other, node in nodes.items() if other != name]
        before = [len(metrics(node, "step")) for node in others]
        nodes[name].process.send_signal(signal.SIGTERM)
        assert ended(testbed.nodes, nodes[name]) == 0
        lines, last = len(metrics(nodes[name], "step")), steps_done(nodes[name])
        nodes[name] = node = testbed.start(name, **LONG)
        waits.append(seconds_until(lambda n=node, k=lines: len(metrics(n, "step")) > k, f"{name} to train again"))
        meanwhile.append(min(len(metrics(n, "step")) - k for n, k in zip(others, before, strict=True)))
        lost.append(max(0, last + 1 - int(metrics(node, "step")[lines]["ordinal"])))
        assert "going on from the checkpoint" in node.log_text()
    wait_for_steps(list(nodes.values()), 30, "all to train on")
    for node in nodes.values():
        ask(node, "stop")
    codes = [ended(testbed.nodes, node) for node in nodes.values()]
    figure("rolling restart", steps_lost=lost, steps_of_others=meanwhile, seconds_away=waits, exit_codes=codes)
    assert lost == [0] * 4
    assert min(meanwhile) > 0, "the others train on"
    assert codes == [0] * 4


# --- memory, disk and files -------------------------------------------------------------------------


def test_a_trainer_out_of_memory_is_reported_and_replaced(testbed: Testbed, tmp_path: Path) -> None:
    """One trainer runs out of memory in Python, its successor in torch, and the next is killed as the kernel would."""
    testbed.peers("north")
    deaths = tmp_path / "deaths"
    deaths.mkdir()
    shim = {**shimmed("memory"), "FAULTS_DEATHS": str(deaths)}
    north = testbed.start("north", shim, inner_steps=100, rounds=1)
    until(lambda: len(list(deaths.iterdir())) == 3, "two trainers to run out of memory")
    count = len(metrics(north, "step"))
    until(lambda: len(metrics(north, "step")) > count + 5, "the third to train")
    processes_of(north)[1].kill()
    testbed.wait()
    log = north.log_text()
    pauses = [float(seconds) for seconds in re.findall(r"starting another in ([\d.]+) s", log)]
    figure("out of memory", deaths=len(pauses), pauses_s=pauses)
    assert log.count("; lower --micro-batch, turn on --gradient-checkpointing, or choose smaller blocks") == 2
    assert "was killed by signal 9 (out of memory?)" in log
    assert pauses == [1.0, 2.0, 4.0], "without a checkpoint in between each pause is longer than the one before"


def test_a_full_disk_costs_checkpoints_and_no_training(testbed: Testbed) -> None:
    testbed.peers("north")
    with SmallDisk(testbed.folder / "out" / "north", mebibytes=16) as disk:
        node = testbed.start("north", rounds=1000, inner_steps=30, checkpoint_every=10)
        try:
            until(lambda: len(checkpoints(node)) == 2, "two checkpoints")
            disk.fill()
            failed = look(node, lambda status: status.checkpoint.failures > 0, "a checkpoint to fail")
            kept = [(folder / "manifest.json").read_bytes() for folder in checkpoints(node)]
            assert failed.position
            done = failed.position.done + 100
            later = look(node, lambda status: bool(status.position and status.position.done > done), "more steps")
            assert [(folder / "manifest.json").read_bytes() for folder in checkpoints(node)] == kept
            disk.make_room()
            freed = time.time()
            again = look(node, lambda status: (status.checkpoint.written or 0) > freed, "the next checkpoint")
            ask(node, "stop")
            assert ended(testbed.nodes, node) == 0
        finally:
            node.process.kill()
            node.process.wait()
    log = node.log_text()
    assert "no checkpoint was written" in log
    assert "No space left on device" in log
    assert again.checkpoint.written
    figure(
        "disk full",
        checkpoints_failed=again.checkpoint.failures,
        steps_while_full=later.position and later.position.done - failed.position.done,
        seconds_from_room_to_checkpoint=round(again.checkpoint.written - freed, 2),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[dict[str, torch.Tensor]]:
    """What a node on its own ends with, if nothing happens to it."""
    with Testbed(tmp_path_factory.mktemp("undisturbed"), tiny_model) as testbed:
        testbed.peers("north")
        node = testbed.start("north", **ALONE)
        testbed.wait()
        yield final_parameters(node)


ALONE = {"inner_steps": 30, "rounds": 4, "checkpoint_every": 10}


@pytest.mark.parametrize("damage", ["a byte is flipped", "the manifest is cut short", "a file is missing"])
def test_a_damaged_checkpoint_costs_some_steps(
    testbed: Testbed, undisturbed: dict[str, torch.Tensor], damage: str
) -> None:
    """The one before it is used, loudly, and the end is the same, bit for bit."""
    testbed.peers("north")
    node = testbed.start("north", **ALONE)
    until(lambda: steps_done(node) > 35 and len(checkpoints(node)) == 2, "two checkpoints")
    kill(testbed.nodes, node)
    *_, before, newest = checkpoints(node)
    victim = newest / "active.safetensors" if (newest / "active.safetensors").exists() else newest / "manifest.json"
    data = bytearray(victim.read_bytes())
    if damage == "a byte is flipped":
        data[len(data) // 2] ^= 1
        victim.write_bytes(data)
    elif damage == "a file is missing":
        victim.unlink()
    else:
        (newest / "manifest.json").write_bytes((newest / "manifest.json").read_bytes()[:100])
    node = testbed.start("north", **ALONE)
    testbed.wait()
    warned = f"checkpoint {newest.name} is damaged and left out" in node.log_text()
    found = final_parameters(node)
    equal = all((found[name] == undisturbed[name]).all() for name in undisturbed)
    figure("damaged checkpoint", damage=damage, went_back_to=before.name, warned=warned, bit_exact=equal)
    assert warned
    assert f"going back to {before.name}" in node.log_text()
    assert equal
