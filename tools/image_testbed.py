"""The compose testbed as the image test runs it: the unmodified files, and one more overlay.

The overlay shortens the run, names the image of each service, and publishes ports that nothing else uses, so that a
testbed that already runs on the machine is not disturbed. The project has a name of its own for the same reason.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from container_engine import Engine, EngineError

PROJECT = "deca-image-test"
NODES = ("north", "east", "south", "west")
MODEL_STEPS = 20
PATIENCE_SECONDS = 1200

ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
"""

COMPARE = """
import sys
from safetensors.numpy import load_file
first, *others = [load_file(path) for path in sys.argv[1:]]
print(max(float(abs(first[k].astype("f8") - other[k].astype("f8")).max()) for other in others for k in first))
"""


RECORDS = "cd /var/lib/deca && { [ ! -e metrics.jsonl ] || cat metrics.jsonl; }"
"""Prints a node's record, which is missing until the first step that the node does itself."""


class Testbed:
    """The services of one run. ``images`` and ``environment`` say what the next ``up`` starts, by service."""

    def __init__(self, engine: Engine, repository: Path, work: Path, image: str, *overlays: str, rounds: int) -> None:
        self.engine, self._work, self._overlays = engine, work, overlays
        self.images = dict.fromkeys(("certificates", "inputs", *NODES), image)
        self.environment: dict[str, dict[str, str | None]] = {}
        settings = (repository / "docker" / "testbed" / "run.toml").read_text()
        lines = [f"rounds = {rounds}" if line.startswith("rounds") else line for line in settings.splitlines()]
        (work / "run.toml").write_text("\n".join(lines) + "\n")

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run one command of compose. Returns its output."""
        (self._work / "overlay.yaml").write_text(self._overlay())
        folder = self.engine.repository / "docker"
        files = [folder / "compose.yaml", *(folder / overlay for overlay in self._overlays)]
        files.append(self.engine.work / "overlay.yaml")
        named = [word for file in files for word in ("--file", str(file))]
        return self.engine.run("docker", "compose", "--project-name", PROJECT, *named, *arguments, check=check)

    def up(self, *arguments: str) -> float:
        """Start services from their images, and return after how many seconds they were healthy."""
        began = time.monotonic()
        self.compose("up", "--detach", "--pull", "never", "--no-build", "--wait", *arguments)
        return time.monotonic() - began

    def remove(self) -> None:
        """Remove all containers and volumes, also those of a test that was broken off."""
        self.compose("down", "--volumes", "--remove-orphans")

    # --- what the nodes say -----------------------------------------------------------------------------

    def status(self, name: str) -> dict[str, Any]:
        """What `deca-node status` says; empty where no node answers."""
        said = self.compose("exec", "-T", name, "deca-node", "status", "--json", check=False)
        return json.loads(said) if said.startswith("{") else {}

    def steps(self, name: str) -> int:
        """The steps that a node has done."""
        position = self.status(name).get("position") or {}
        return int(position.get("done", 0))

    def complete(self) -> bool:
        """Whether all nodes have a tuned model."""
        return all(self.status(name).get("phase") == "staying" for name in NODES)

    def gradient_steps(self, name: str) -> tuple[int, int]:
        """How many gradient steps a node did, by its own record, and how many of them it did twice."""
        lines = self.compose("exec", "-T", name, "sh", "-c", RECORDS).splitlines()
        records = [json.loads(line) for line in lines]
        done = Counter(record["ordinal"] for record in records if record.get("kind") == "step" and "loss" in record)
        return len(done), done.total() - len(done)

    def ask(self, url: str) -> Any:
        """Ask a service from north's container, which is in its network and has Python; None where none answers."""
        said = self.compose("exec", "-T", "north", "python", "-c", ASK, url, check=False)
        return json.loads(said)["data"] if said.startswith("{") else None

    def until(self, condition: Callable[[], Any], subject: str) -> Any:
        """Wait for a condition, and return its value."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if time.monotonic() > end:
                logs = self.compose("logs", "--tail", "10", check=False)
                raise EngineError(f"waited {PATIENCE_SECONDS} s for {subject}:\n{logs[-3000:]}")
            time.sleep(2.0)
        return found

    # --- the end ----------------------------------------------------------------------------------------

    def models_apart(self) -> float:
        """The largest difference between any parameter of any two tuned models. Raises EngineError if it is large."""
        for name in NODES:
            self.compose("cp", f"{name}:/var/lib/deca/final", str(self.engine.work / f"tuned-{name}"))
        files = [str(self._work / f"tuned-{name}" / "model.safetensors") for name in NODES]
        command = [sys.executable, "-c", COMPARE, *files]
        apart = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if apart > 1e-3:
            raise EngineError(f"the tuned models are {apart} apart")
        return apart

    def stop(self) -> dict[str, int]:
        """Stop all nodes, remove everything, and return the exit codes. Raises EngineError if one is not 0."""
        self.compose("stop")
        lines = self.compose("ps", "--all", "--format", "{{.Service}} {{.ExitCode}}").splitlines()
        found = {service: int(code) for service, code in (line.split() for line in lines)}
        codes = {name: found[name] for name in NODES}
        self.remove()
        if any(codes.values()):
            raise EngineError(f"the nodes exited with {codes}")
        return codes

    def _overlay(self) -> str:
        run = {"type": "bind", "source": str(self.engine.work / "run.toml"), "target": "/etc/deca/run.toml"}
        services: dict[str, dict[str, Any]] = {name: {"image": image} for name, image in self.images.items()}
        for name in NODES:
            services[name] |= {"volumes": [run | {"read_only": True}]}
            services[name] |= {"environment": self.environment.get(name, {})}
        services["inputs"] |= {"command": ["/inputs", "--steps", str(MODEL_STEPS), *NODES]}
        ports = dict.fromkeys(NODES, 9640)
        if "compose.observability.yaml" in self._overlays:
            ports |= {"prometheus": 9090, "grafana": 3000}
        return _yaml(services, ports)


def _yaml(services: Mapping[str, Mapping[str, Any]], ports: Mapping[str, int]) -> str:
    """The overlay's text. JSON is YAML, but only YAML has the tag that replaces a list instead of adding to it."""
    lines = ["services:"]
    for name in dict.fromkeys([*services, *ports]):
        lines.append(f"  {name}:")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in services.get(name, {}).items()]
        if name in ports:
            lines.append(f'    ports: !override ["127.0.0.1::{ports[name]}"]')
    return "\n".join([*lines, ""])
