"""Two pods of the StatefulSet, from the first start to the end of the run."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.cli.main import main
from deca_node.lab.rigs.processes import LocalNodes, free_ports
from tests.deploy.pods import NODE, Pods, make_volumes, on_ports
from tests.e2e.testbed import until
from tests.patience import PATIENCE_SECONDS

PODS = ("deca-0", "deca-1")
RUN = 'rounds = 1\ninner_steps = 4\nsequence_length = 16\nbatch_size = 2\ntopology = "full"\n'


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Pods]:
    ports = free_ports(2 * len(PODS))
    make_volumes(tmp_path, PODS, RUN)
    with LocalNodes() as nodes:
        made = Pods(tmp_path, nodes, len(PODS), on_ports(PODS, ports[:2]), on_ports(PODS, ports[2:]))
        yield made
    made.end()


@pytest.mark.slow
def test_a_pod_is_stopped_and_all_finish(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pods.start("deca-0")
    until(lambda: pods.probe("deca-0", "startupProbe") == 200, "the model to be loaded")
    assert pods.probe("deca-0", "livenessProbe") == 200
    assert pods.probe("deca-0", "readinessProbe") == 503

    # As the kubelet ends a pod: first preStop, then SIGTERM.
    _, *command = NODE["lifecycle"]["preStop"]["exec"]["command"]
    monkeypatch.setenv("DECA_DIR", str(pods.directory("deca-0")))
    assert main(command) == 0
    monkeypatch.delenv("DECA_DIR")
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(PATIENCE_SECONDS) == 0, first.log_text(20)

    both = [pods.start(name) for name in PODS]
    for node in both:
        until(lambda node=node: "the node stays" in node.log_text(), f"{node.name} to be done")
    assert [pods.probe(name, "readinessProbe") for name in PODS] == [200, 200], "a complete node stays ready"
    for node in both:
        node.process.send_signal(signal.SIGTERM)
    pods.nodes.wait(PATIENCE_SECONDS)
    assert all((node.directory / "final" / "model.safetensors").exists() for node in both)
