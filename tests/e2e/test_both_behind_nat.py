"""Two members that are both behind NAT: their connections go through a member that relays."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from bench.links.wire import Line, NotPermittedError, Wire
from deca_node.daemon.status.facts import PeerRow, Status
from deca_node.lab.rigs.processes import NodeProcess
from deca_node.protocol.node.phases import Phase
from tests.e2e.faults import figure, kill, one_view, seconds_until
from tests.e2e.test_trust import Federation
from tests.e2e.testbed import Testbed, ask, largest_difference, largest_of, look, metrics, shimmed, until
from tests.patience import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

PORT = 7001
SYN, ACK, TCP = 0x02, 0x10, 6
NAMES = ("east", "north", "south", "west")


@dataclass
class Nat(Wire):
    """A wire on which some machines can call out, and cannot be called from outside of their own site. Addresses are
    not translated, since no node looks at the address that a caller comes from."""

    sites: dict[str, str] = field(default_factory=dict)
    """The site of each namespace that is behind NAT."""

    def _passes(self, source: Line, to: Line, packet: bytes) -> bool:
        site = self.sites.get(to.namespace)
        if site is None or self.sites.get(source.namespace) == site:
            return True
        return not (packet[9] == TCP and packet[(packet[0] & 15) * 4 + 13] & (SYN | ACK) == SYN)


class Machines:
    """A machine for each node, with certificates. ``sites`` names the site of each that is behind NAT."""

    def __init__(self, testbed: Testbed, wire: Nat, federation: Federation, sites: Mapping[str, str]) -> None:
        self._testbed = testbed
        self._wire = wire
        self._lines = dict(zip(NAMES, wire.lines, strict=True))
        self._flags = {name: federation.certify(name) for name in NAMES}
        self._sites = {self._lines[name].namespace: site for name, site in sites.items()}
        peers = (f"{name}@{line.address}:{PORT}\n" for name, line in self._lines.items())
        (testbed.folder / "peers.txt").write_text("".join(peers))

    def within(self, name: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._lines[name].namespace)

    def start(
        self,
        *relays: str,
        names: Sequence[str] = NAMES,
        nat: bool = True,
        environment: Mapping[str, str] | None = None,
        **flags: Any,
    ) -> list[NodeProcess]:
        """Start nodes; of them these relay."""
        self._wire.sites = self._sites if nat else {}
        return [
            self._testbed.start(
                name,
                environment,
                within=self.within(name),
                relay=True if name in relays else None,
                network="local",
                **self._flags[name],
                **flags,
            )
            for name in names
        ]

    def doctor(self, name: str) -> dict[str, Any]:
        """What `deca-node doctor` finds on this machine, by check."""
        files = [f"--{key.replace('_', '-')}={value}" for key, value in self._flags[name].items() if value]
        folder = self._testbed.folder
        words = [f"--name={name}", f"--peers={folder / 'peers.txt'}", f"--dir={folder / 'doctor'}", "--json"]
        command = [*self.within(name), sys.executable, "-P", "-m", "deca_node", "doctor", *words, *files]
        told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        return {finding["check"]: finding for finding in json.loads(told.stdout)["findings"]}


@pytest.fixture
def wire() -> Iterator[Nat]:
    try:
        with Nat(len(NAMES), bits_per_second=1e9, seconds_one_way=0.001) as made:
            assert isinstance(made, Nat)
            yield made
    except NotPermittedError as problem:
        pytest.skip(str(problem))


@pytest.fixture
def federation(testbed: Testbed, capsys: pytest.CaptureFixture[str]) -> Federation:
    return Federation(testbed.folder / "wards", capsys)


def peer(status: Status, name: str) -> PeerRow:
    return next((row for row in status.peers if row.name == name), PeerRow(name=name))


def relayed(one: NodeProcess, other: str, relay: str) -> None:
    """Wait until the exchange stream between two nodes is up, and this member relays between them."""
    look(one, lambda status: any(p.name == other and p.state == "up" for p in status.peers), "a stream")
    look(one, lambda status: peer(status, other).relay == relay, f"{other} to be reached through {relay}")


def status_of(node: NodeProcess) -> Status:
    return look(node, lambda _: True, "its status")


def last(node: NodeProcess, metric: str) -> Any:
    """The newest value of a metric in a node's file."""
    return metrics(node, "metrics")[-1]["values"][metric]


def test_a_run_with_relayed_pairs_ends_like_one_without(wire: Nat, testbed: Testbed, federation: Federation) -> None:
    """East is alone behind one NAT, north and south are behind another: two pairs need west, which relays."""
    machines = Machines(testbed, wire, federation, {"east": "left", "north": "right", "south": "right"})
    flags = {"rounds": 2, "inner_steps": 10}
    north, south, west = machines.start("west", names=NAMES[1:], **flags)
    until(lambda: one_view([north, south, west]), "all but east to meet")
    for node in (north, south, west):
        look(node, lambda status: status.phase == Phase.GATHERING, "the model to be loaded")
    found = machines.doctor("east")
    for name in ("north", "south"):
        says = found[f"peer {name}"]["says"]
        assert "west cannot dial this node either, so this pair needs a relay, and west relays" in says
    (east,) = machines.start(names=["east"], **flags)
    nodes = [east, north, south, west]
    for name in ("north", "south"):
        relayed(east, name, "west")
    assert peer(status_of(north), "south").relay == ""
    testbed.wait()
    assert largest_difference(nodes) < 1e-3
    for node in nodes:
        assert metrics(node, "step")[-1].get("edges_lost", 0) == 0, node.log_text(30)

    sent = {node.name: last(node, "deca_peer_sent_bytes_total") for node in (north, south)}
    exchanged = sum(nbytes for told in sent.values() for kind, nbytes in told.items() if kind.startswith("east "))
    last_of_relay = last(west, "deca_relayed_bytes_total")
    assert last_of_relay > exchanged > 0
    passed = last(east, "deca_peer_relayed_bytes_total")
    assert passed["north"] > 0 and passed["south"] > 0 and passed["west"] == 0
    assert "relaying between east and north" in west.log_text()

    relayed_run = (testbed.folder / "out").rename(testbed.folder / "relayed")
    testbed.nodes.nodes.clear()
    machines.start(nat=False, **flags)
    testbed.wait()
    figure(
        "relayed pairs",
        relayed_bytes=last_of_relay,
        exchanged_bytes=exchanged,
        against_a_run_without=largest_of(*(run / "east" / "final" for run in (relayed_run, testbed.folder / "out"))),
    )


def test_a_relay_that_is_killed_is_replaced(wire: Nat, testbed: Testbed, federation: Federation) -> None:
    """East and north are behind NATs of their own; south and west relay. The one that does is killed midway, and the
    pair goes on through the other. Only connections matter here, so the nodes' trainers need no torch."""
    machines = Machines(testbed, wire, federation, {"east": "left", "north": "right"})
    quick = {**shimmed("quick"), "QUICK_TRAINER_SECONDS": "0.1"}
    flags = {"open_timeout_seconds": 10, "finish_timeout_seconds": 10}
    nodes = machines.start("south", "west", environment=quick, rounds=20, inner_steps=40, **flags)
    east, north = nodes[:2]
    look(east, lambda status: peer(status, "north").edge == "open", "an edge through a relay")
    killed = next(node for node in nodes[2:] if node.name in peer(status_of(east), "north").relay)
    left = [node for node in nodes if node is not killed]
    second = left[2]
    kill(testbed.nodes, killed)
    seconds = seconds_until(lambda: f"is reached through {second.name}" in north.log_text(), "the other relay")
    figure("a relay is killed", seconds_until_the_next_one=seconds)
    relayed(east, "north", second.name)
    look(east, lambda status: peer(status, "north").edge == "open", "an edge through the other relay")
    assert status_of(second).relayed_bytes_total > 0
    for node in left:
        ask(node, "stop")
    testbed.wait()
