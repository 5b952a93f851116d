"""Links that are slow, or break anywhere: they cost their own edge, and no run."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from deca_node.lab.rigs.processes import LOOPBACK, NodeProcess, free_ports
from deca_node.lab.rigs.proxy import Faults, Proxy
from tests.e2e.testbed import Testbed, largest_difference, metrics, proxied


def start_behind(testbed: Testbed, name: str, proxy: Proxy, **flags: object) -> NodeProcess:
    """A node that is reached through the proxy only, and can itself reach nobody: whatever it dials is sent to a
    port where nobody listens."""
    environment = proxied(free_ports(1)[0])
    listen = f"{LOOPBACK}:{port_of(testbed, name)}"
    return testbed.start(name, environment, listen=listen, advertise=f"{LOOPBACK}:{proxy.port}", **flags)


def peers_through(testbed: Testbed, far: str, proxy: Proxy) -> Path:
    """A peers file for the others, who reach ``far`` through the proxy."""
    lines = (testbed.folder / "peers.txt").read_text().splitlines()
    others = testbed.folder / "peers-others.txt"
    through = f"{far}@{LOOPBACK}:{proxy.port}"
    others.write_text("\n".join(through if line.startswith(f"{far}@") else line for line in lines))
    return others


def port_of(testbed: Testbed, name: str) -> int:
    lines = (testbed.folder / "peers.txt").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}@")).rpartition(":")[2])


@pytest.mark.slow
def test_a_neighbour_that_reads_slowly_costs_its_own_edge_only(testbed: Testbed) -> None:
    """Four nodes, one of which reads 10 kB/s and can itself reach nobody: the others drop its edge and go on.

    The test is slow because on a busy machine nodes wait for each other longer than for the slow one here.
    """
    names = ("a", "b", "c", "z")
    testbed.peers(*names)
    with Proxy(port_of(testbed, "z"), Faults(bytes_per_second=10_000)) as proxy:
        others = peers_through(testbed, "z", proxy)
        flags = {"codec": "fp32", "rounds": 2, "step_timeout_seconds": 1, "open_timeout_seconds": 4}
        nodes = [testbed.start(name, peers=others, **flags) for name in names[:3]]
        slow = start_behind(testbed, "z", proxy, finish_timeout_seconds=1, **flags)
        testbed.wait()
    assert largest_difference(nodes) < 1e-3
    for node in nodes:
        last = metrics(node, "step")[-1]
        assert last["edges_dropped"] >= 1, "the slow edge was dropped"
        # Apart from the slow one nobody was late: what a and b exchanged, they all applied.
        assert last["flows_applied"] >= 2 * len(metrics(node, "step")) * 0.9
    assert metrics(slow, "eval")[-1]["when"] == "end"


@pytest.mark.slow
def test_streams_cut_at_two_hundred_random_bytes(testbed: Testbed) -> None:
    """Whatever four nodes say to each other breaks after a random number of bytes, two hundred times in all; the runs
    end well, and no update counts twice."""
    names = ("a", "b", "c", "d")
    testbed.peers(*names)
    doors = {name: port_of(testbed, name) for name in names}
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(Proxy(doors[name], Faults(cuts=90, cut_bytes_max=60_000, seed=seed)))
            for seed, name in enumerate(names)
        }
        lines = [f"{name}@{LOOPBACK}:{proxy.port}" for name, proxy in proxies.items()]
        (testbed.folder / "peers.txt").write_text("\n".join(lines))
        flags = {"rounds": 100, "inner_steps": 6, "step_timeout_seconds": 5, "open_timeout_seconds": 5}
        nodes = [testbed.start(name, listen=f"{LOOPBACK}:{door}", **flags) for name, door in doors.items()]
        testbed.wait()
        assert sum(proxy.cuts for proxy in proxies.values()) >= 200
    for node in nodes:
        steps = metrics(node, "step")
        assert steps[-1]["edges_lost"] > 0
        assert steps[-1]["flows_applied"] <= 3 * len(steps), "at most one per step and neighbour"
        refusals = json.loads((node.directory / "page.json").read_text())["status"]["refusals"]
        assert not {"replay", "out-of-order", "gap", "checksum"} & refusals.keys(), refusals
        assert metrics(node, "eval")[-1]["when"] == "end"
