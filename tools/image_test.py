"""``make image-test``: builds the image, runs the compose testbed with its overlays, and prints what it saw, with
figures.

The Dockerfile and the compose files are used as they are. One more overlay shortens the run. If no container engine is
installed, one is made (:mod:`container_engine`). Then the images of the overlays are made from Debian's packages under
their names, and Grafana is left out.

``TORCH_INDEX`` is passed to the build, as in docs/DEPLOYMENT.md. ``TORCH_WHEELS`` names a folder with torch's wheel,
which is served to the build on loopback.
"""

import argparse
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from container_engine import Engine, EngineError, MadeEngine, find_engine

ROOT = Path(__file__).resolve().parent.parent
NODES = ("north", "east", "south", "west")
TAG = "deca-node:0.1.0-cpu"
NETSHOOT, PROMETHEUS = "nicolaka/netshoot:v0.13", "prom/prometheus:v3.5.0"
PATIENCE_SECONDS = 1200
SHORT_RUN = {"rounds": 6, "model_steps": 20}
ALERTS_PROVOKED = ("DecaNodeDown", "DecaPeerUnreachable")

LOOK = """
import json, sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
"""

COMPARE = """
import sys
from safetensors.numpy import load_file
first, *others = [load_file(path) for path in sys.argv[1:]]
print(max(float(abs(first[k].astype("f8") - other[k].astype("f8")).max()) for other in others for k in first))
"""


class ImageTest:
    """The parts of the test in their order. Each returns its figures."""

    def __init__(self, engine: Engine, repository: Path, work: Path) -> None:
        self.engine, self.repository, self.work = engine, repository, work
        self.figures: dict[str, Any] = {"engine": "made from Debian's packages" if self.made else "the machine's"}

    @property
    def made(self) -> bool:
        return isinstance(self.engine, MadeEngine)

    # --- parts ---------------------------------------------------------------------------------------

    def build(self) -> dict[str, Any]:
        """The image, built without a cache, and built again after one changed line."""
        self.engine.for_building()
        seconds = self._build(TAG)
        before = self._layers(TAG)
        with (self.repository / "deca_node" / "__init__.py").open("a") as changed:
            changed.write("# one more line\n")
        again = self._build(TAG + "-next")
        fresh = [size for layer, size in self._layers(TAG + "-next").items() if layer not in before]
        size = int(self.engine.run("docker", "image", "inspect", "--format", "{{.Size}}", TAG))
        if isinstance(self.engine, MadeEngine):
            self.engine.image(NETSHOOT, "RUN apt-get update && apt-get install -y --no-install-recommends iproute2")
            self.engine.image(
                PROMETHEUS,
                "RUN apt-get update && apt-get install -y --no-install-recommends prometheus",
                "RUN install -d -o nobody -g nogroup /prometheus",
                "USER nobody",
                'ENTRYPOINT ["prometheus", "--storage.tsdb.path=/prometheus"]',
            )
        return {
            "build_seconds": round(seconds, 1),
            "image_megabytes": round(size / 1e6),
            "rebuild_seconds_after_one_line": round(again, 1),
            "new_layers_megabytes_after_one_line": round(sum(fresh) / 1e6, 2),
        }

    def run_killed_and_changed(self) -> dict[str, Any]:
        """Four nodes tune a model; one is killed and returns; the image changes during the run."""
        self.engine.for_running()
        compose = self._compose()
        compose("down", "--volumes", "--remove-orphans")
        began = time.monotonic()
        compose("up", "--detach", "--pull", "never", "--no-build", "--wait")
        healthy = time.monotonic() - began
        self._until(lambda: self._steps("north") > 3, "steps of north")
        compose("kill", "south")
        at_kill = self._steps("north")
        self._until(lambda: self._steps("north") > at_kill + 3, "steps of north without south")
        compose("start", "south")
        self._until(lambda: self._steps("south") > 0, "south to come back")
        self.engine.run("docker", "tag", TAG + "-next", TAG)
        compose("up", "--detach", "--pull", "never", "--no-build", "--wait")
        self._until(lambda: all(self._phase(name) == "staying" for name in NODES), "the end of the run")
        seconds = time.monotonic() - began
        models = [self.work / f"tuned-{name}" for name in NODES]
        for name in NODES:
            compose("cp", f"{name}:/var/lib/deca/final", str(self.engine.work / f"tuned-{name}"))
        apart = subprocess.run(
            [sys.executable, "-c", COMPARE, *(str(model / "model.safetensors") for model in models)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        members = compose("exec", "-T", "north", "deca-node", "members")
        compose("stop")
        codes = self._exit_codes()
        compose("down", "--volumes")
        if set(codes.values()) != {0}:
            raise EngineError(f"the nodes exited with {codes}")
        if float(apart) > 1e-3:
            raise EngineError(f"the tuned models are {apart} apart")
        return {
            "healthy_seconds": round(healthy, 1),
            "run_seconds": round(seconds, 1),
            "largest_difference_of_tuned_models": float(apart),
            "members_seen": sum(name in members for name in NODES),
            "exit_codes": codes,
        }

    def run_observed_on_bad_links(self) -> dict[str, Any]:
        """Chaos and observability together: every rule is evaluated, and two alerts are provoked."""
        compose = self._compose("compose.chaos.yaml", "compose.observability.yaml", rounds=400)
        compose("down", "--volumes", "--remove-orphans")
        left_out = ["--scale", "grafana=0"] if self.made else []
        compose("up", "--detach", "--pull", "never" if self.made else "missing", "--no-build", *left_out)
        self._until(lambda: self._steps("north") > 3, "steps on bad links")
        said = compose("logs", "--no-log-prefix", "chaos-north").strip()
        rules = self._until(self._rules, "Prometheus to evaluate every rule")
        targets = self._until(self._targets_up, "Prometheus to scrape every node")
        began = time.monotonic()
        compose("kill", "chaos-south", "south")
        fired: dict[str, float] = {}

        def both() -> bool:
            for rule in self._rules() or []:
                if rule["state"] == "firing" and rule["name"] in ALERTS_PROVOKED:
                    fired.setdefault(rule["name"], round(time.monotonic() - began, 1))
            return len(fired) == len(ALERTS_PROVOKED)

        self._until(both, "the alerts to fire")
        compose("down", "--volumes")
        return {
            "chaos": said.splitlines()[-1],
            "targets_up": targets,
            "rules_evaluated": len(rules),
            "alerts_provoked_seconds": fired,
        }

    # --- what the parts stand on ---------------------------------------------------------------------

    def _build(self, tag: str) -> float:
        began = time.monotonic()
        arguments = [f"--build-arg=TORCH_INDEX={self.figures.get('index', '')}"]
        command = ["docker", "build", "--progress", "plain", *self.engine.build_flags(), *arguments]
        folder = self.engine.repository
        command += ["--file", str(folder / "docker" / "Dockerfile"), "--target", "cpu", "--tag", tag, str(folder)]
        self.engine.run(*command, log=self.work / "build.log")
        return time.monotonic() - began

    def _layers(self, tag: str) -> dict[str, float]:
        """Bytes by layer."""
        found = json.loads(self.engine.run("docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))
        lines = self.engine.run("docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}", tag)
        sizes = [float(line) for line in lines.split() if float(line) > 0]
        return dict(zip(reversed(found), sizes, strict=False))

    def _compose(self, *overlays: str, rounds: int = SHORT_RUN["rounds"]) -> Callable[..., str]:
        settings = (self.repository / "docker" / "testbed" / "run.toml").read_text()
        lines = [f"rounds = {rounds}" if line.startswith("rounds") else line for line in settings.splitlines()]
        (self.work / "run.toml").write_text("\n".join(lines) + "\n")
        run = {
            "type": "bind",
            "source": str(self.engine.work / "run.toml"),
            "target": "/etc/deca/run.toml",
            "read_only": True,
        }
        services: dict[str, Any] = {name: {"volumes": [run]} for name in NODES}
        services["inputs"] = {"command": ["/inputs", "--steps", str(SHORT_RUN["model_steps"]), *NODES]}
        (self.work / "short.yaml").write_text(json.dumps({"services": services}))
        folder = self.engine.repository / "docker"
        files = [folder / "compose.yaml", *(folder / overlay for overlay in overlays), self.engine.work / "short.yaml"]
        command = ["docker", "compose", *(word for file in files for word in ("--file", str(file)))]
        self._command = command
        return partial(self.engine.run, *command)

    def _status(self, name: str) -> dict[str, Any]:
        said = self.engine.run(*self._command, "exec", "-T", name, "deca-node", "status", "--json", check=False)
        return json.loads(said) if said.startswith("{") else {}

    def _steps(self, name: str) -> int:
        position = self._status(name).get("position") or {}
        return int(position.get("done", 0))

    def _phase(self, name: str) -> str:
        return str(self._status(name).get("phase", ""))

    def _exit_codes(self) -> dict[str, int]:
        names = self.engine.run(*self._command, "ps", "--all", "--format", "{{.Service}} {{.ExitCode}}").splitlines()
        found = dict(line.split() for line in names)
        return {name: int(found[name]) for name in NODES}

    def _prometheus(self, path: str) -> Any:
        """Ask Prometheus from north's container, which is in its network and has Python."""
        url = f"http://prometheus:9090{path}"
        said = self.engine.run(*self._command, "exec", "-T", "north", "python", "-c", LOOK, url, check=False)
        return json.loads(said)["data"] if said.startswith("{") else None

    def _rules(self) -> list[dict[str, Any]] | None:
        data = self._prometheus("/api/v1/rules")
        rules = [rule for group in data["groups"] for rule in group["rules"]] if data else []
        return rules if rules and all(rule["health"] == "ok" for rule in rules) else None

    def _targets_up(self) -> int | None:
        data = self._prometheus("/api/v1/targets?state=active")
        up = sum(target["health"] == "up" for target in data["activeTargets"]) if data else 0
        return up if up == len(NODES) else None

    def _until(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := condition()):
            if time.monotonic() > end:
                logs = self.engine.run(*self._command, "logs", "--tail", "10", check=False)
                raise EngineError(f"waited {PATIENCE_SECONDS} s for {what}:\n{logs[-3000:]}")
            time.sleep(2.0)
        return found


@contextmanager
def torch_index(work: Path) -> Iterator[str]:
    """The index for the build: ``TORCH_INDEX``, or the folder ``TORCH_WHEELS`` served on loopback."""
    wheels = os.environ.get("TORCH_WHEELS", "")
    if not wheels:
        yield os.environ.get("TORCH_INDEX", "")
        return
    simple = work / "index" / "simple"
    simple.mkdir(parents=True, exist_ok=True)
    link = simple / "torch"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(wheels).resolve())
    handler = partial(QuietHandler, directory=str(work / "index"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/simple"
    finally:
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a log line per request."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  (the base class names it so)
        """Log nothing."""


def copy_sources(target: Path) -> Path:
    """A copy of all files that git knows, as they are in the working tree, which the test may change."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def main() -> None:
    """Run the requested parts, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".image-test", help="folder for the engine and its images")
    parser.add_argument("--quick", action="store_true", help="leave out bad links and alerts, which take ten minutes")
    given = parser.parse_args()
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    engine: Engine | None = None
    try:
        print("-- the engine", flush=True)
        sources = copy_sources(work / "sources")
        engine = find_engine(sources, work)
        test = ImageTest(engine, sources, work)
        parts = [test.build, test.run_killed_and_changed, test.run_observed_on_bad_links]
        with torch_index(work) as test.figures["index"]:
            for part in parts[:2] if given.quick else parts:
                print(f"-- {(part.__doc__ or '').strip()}", flush=True)
                began = time.monotonic()
                figures = part()
                test.figures |= figures
                print(f"   done in {time.monotonic() - began:.0f} s: {figures}", flush=True)
    except EngineError as problem:
        sys.exit(f"image-test: {problem}")
    finally:
        if engine is not None:
            engine.close()
    del test.figures["index"]
    (work / "figures.json").write_text(json.dumps(test.figures, indent=1) + "\n")
    width = max(map(len, test.figures))
    for name, value in test.figures.items():
        print(f"{name:{width}}  {value}")


if __name__ == "__main__":
    main()
