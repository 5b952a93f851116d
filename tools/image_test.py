"""``make image-test``: builds the image, runs the compose testbed with its overlays, and prints what it saw, with
figures.

The Dockerfile and the compose files are used as they are. One more overlay shortens the run (:mod:`image_testbed`). If
no container engine is installed, one is made (:mod:`container_engine`). Then the images of the overlays are made from
Debian's packages under their names. Grafana is left out where its image cannot be had.

``TORCH_INDEX`` is passed to the build, as in docs/DEPLOYMENT.md. ``TORCH_WHEELS`` names a folder with torch's wheel,
which is served to the build on loopback.

``--short`` is the part that ``make test`` runs where an engine has the image of an earlier ``make image-test``: one
build on top of its layers, and one short run of four nodes.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from container_engine import Engine, EngineError, MadeEngine, find_engine, installed_engine
from earlier_version import EARLIER, unpack
from image_testbed import NODES, Testbed
from run_checks import IMAGE_TAG, LAYERS_LABEL, sum_of_layers
from torch_index import index_of_last_build, torch_index

ROOT = Path(__file__).resolve().parent.parent
TAG = IMAGE_TAG
CHANGED, OLD = f"{TAG}-changed", f"{TAG}-earlier"
"""The image after a changed line, and the image with the earlier version."""

NETSHOOT, PROMETHEUS, GRAFANA = "nicolaka/netshoot:v0.13", "prom/prometheus:v3.5.0", "grafana/grafana:12.1.0"
NEW_LAYERS_MEGABYTES_MAX = 5.0
ROUNDS, ROUNDS_SHORT, ROUNDS_UPGRADED, ROUNDS_LONG = 6, 1, 12, 400
ALERTS_PROVOKED = ("DecaNodeDown", "DecaPeerUnreachable")
CHECKPOINT_EVERY = 12
"""As in docker/compose.yaml: the most steps that a killed node may repeat."""

FOR_EARLIER: dict[str, str | None] = {"DECA_CHECKPOINT_EVERY": None}
"""Variables of compose.yaml that the earlier version does not bear: with this one it lost `DECA_DIR`."""

FOR_LATER: dict[str, str | None] = {"DECA_PACKING": "concatenated"}
"""The values of new settings that stand for the earlier behaviour, as docs/OPERATIONS.md says."""

LOAD_CODEC = "import sys; from deca_node.storage.compiled import load_built; sys.exit(load_built() is None)"

Figures = dict[str, Any]


class ImageTest:
    """The parts of the test in their order. Each returns its figures."""

    def __init__(self, engine: Engine, repository: Path, work: Path, index: str) -> None:
        self.engine, self.repository, self.work, self.index = engine, repository, work, index
        self.testbed = partial(Testbed, engine, repository, work)

    @property
    def made(self) -> bool:
        return isinstance(self.engine, MadeEngine)

    # --- parts ---------------------------------------------------------------------------------------

    def build(self) -> Figures:
        """The image is built, and built again after one changed line. The images of other parts are made."""
        self.engine.for_building()
        seconds = self._build(TAG)
        before = self._layers(TAG)
        with (self.repository / "deca_node" / "__init__.py").open("a") as changed:
            changed.write("# one more line\n")
        again = self._build(CHANGED)
        fresh = sum(size for layer, size in self._layers(CHANGED).items() if layer not in before) / 1e6
        if fresh > NEW_LAYERS_MEGABYTES_MAX:
            raise EngineError(f"after one changed line the new layers have {fresh:.2f} MB")
        self._build_earlier()
        if isinstance(self.engine, MadeEngine):
            _make_companions(self.engine)
        return {
            "build_seconds": round(seconds, 1),
            "image_megabytes": self._megabytes(TAG),
            "rebuild_seconds_after_one_line": round(again, 1),
            "new_layers_megabytes_after_one_line": round(fresh, 2),
        }

    def run_killed_and_changed(self) -> Figures:
        """Four nodes tune a model; one is killed and returns; the image changes during the run."""
        self.engine.for_running()
        testbed = self.testbed(TAG, rounds=ROUNDS)
        testbed.remove()
        began = time.monotonic()
        healthy = testbed.up()
        testbed.until(lambda: testbed.steps("north") > 3, "steps of north")
        testbed.compose("exec", "-T", "north", "python", "-c", LOAD_CODEC)
        testbed.compose("kill", "south")
        at_kill = testbed.steps("north")
        testbed.until(lambda: testbed.steps("north") > at_kill + 3, "steps of north without south")
        testbed.compose("start", "south")
        testbed.until(lambda: testbed.gradient_steps("south")[0] > 0, "south to train again")
        _, repeated = _gradient_steps(testbed, "south", CHECKPOINT_EVERY)
        testbed.images = dict.fromkeys(testbed.images, CHANGED)
        testbed.up()
        testbed.until(testbed.complete, "the end of the run")
        members = testbed.compose("exec", "-T", "north", "deca-node", "members")
        return {
            "healthy_seconds": round(healthy, 1),
            "run_seconds": round(time.monotonic() - began, 1),
            "steps_repeated_after_kill": repeated,
            "members_seen": sum(name in members for name in NODES),
            "largest_difference_of_tuned_models": testbed.models_apart(),
            "exit_codes": testbed.stop(),
        }

    def run_upgraded(self) -> Figures:
        """A run of the earlier version is upgraded node by node: both versions train together, and no step is lost."""
        self.engine.for_running()
        if not self.engine.run("docker", "images", "--quiet", OLD):
            return {"upgrade": "not run: the history does not reach back to the earlier version"}
        testbed = self.testbed(OLD, rounds=ROUNDS_UPGRADED)
        testbed.remove()
        testbed.images |= {"certificates": TAG, "inputs": TAG}
        testbed.environment = dict.fromkeys(NODES, FOR_EARLIER)
        began = time.monotonic()
        testbed.up()
        testbed.until(lambda: all(testbed.steps(name) > 3 for name in NODES), "steps of the earlier version")
        away: dict[str, float] = {}
        for name in reversed(NODES):
            testbed.images[name], testbed.environment[name] = TAG, FOR_LATER
            away[name] = round(testbed.up("--no-deps", name), 1)
            _wait_for_steps(testbed)
        upgraded_at = testbed.steps("north")
        testbed.until(testbed.complete, "the end of the upgraded run")
        return {
            "upgrade_from": EARLIER[:12],
            "upgrade_seconds_until_healthy": away,
            "upgrade_done_at_step": upgraded_at,
            "upgrade_run_seconds": round(time.monotonic() - began, 1),
            "upgrade_steps_done_and_repeated": {name: _gradient_steps(testbed, name, 0) for name in NODES},
            "upgrade_largest_difference_of_tuned_models": testbed.models_apart(),
            "upgrade_exit_codes": testbed.stop(),
        }

    def run_observed_on_bad_links(self) -> Figures:
        """Chaos and observability together: promtool runs the alerts' unit tests, every alert is evaluated, and two are
        provoked."""
        testbed = self.testbed(TAG, "compose.chaos.yaml", "compose.observability.yaml", rounds=ROUNDS_LONG)
        testbed.remove()
        there = self._pull(NETSHOOT, PROMETHEUS, GRAFANA)
        if not there[NETSHOOT] or not there[PROMETHEUS]:
            raise EngineError(f"the images of the overlays are neither here nor in a registry: {there}")
        rules = f"{self.engine.repository}/docker/observability:/rules:ro"
        promtool = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "promtool", "--volume", rules]
        self.engine.run(*promtool, PROMETHEUS, "test", "rules", "/rules/alerts_test.yaml")
        left_out = [] if there[GRAFANA] else ["--scale", "grafana=0"]
        testbed.compose("up", "--detach", "--pull", "never", "--no-build", *left_out)
        testbed.until(lambda: testbed.steps("north") > 3, "steps on bad links")
        said = testbed.compose("logs", "--no-log-prefix", "--no-color", "chaos-north").strip()
        evaluated = testbed.until(lambda: _evaluated(testbed), "Prometheus to evaluate every rule")
        targets = testbed.until(lambda: _targets_up(testbed), "Prometheus to scrape every node")
        fired = _provoke_alerts(testbed)
        testbed.remove()
        return {
            "chaos": said.splitlines()[-1].removeprefix("\033[2K"),
            "targets_up": targets,
            "rules_evaluated": len(evaluated),
            "alerts_provoked_seconds": fired,
            "grafana": "started" if there[GRAFANA] else "left out: its image is not here and cannot be pulled",
        }

    def build_and_run_shortly(self) -> Figures:
        """One build on top of the layers that are there, and a short run of four nodes."""
        seconds = self._build(TAG)
        testbed = self.testbed(TAG, rounds=ROUNDS_SHORT)
        testbed.remove()
        began = time.monotonic()
        testbed.up()
        testbed.compose("exec", "-T", "north", "python", "-c", LOAD_CODEC)
        testbed.until(testbed.complete, "the end of the run")
        return {
            "build_seconds": round(seconds, 1),
            "image_megabytes": self._megabytes(TAG),
            "run_seconds": round(time.monotonic() - began, 1),
            "largest_difference_of_tuned_models": testbed.models_apart(),
            "exit_codes": testbed.stop(),
        }

    # --- what the parts stand on ---------------------------------------------------------------------

    def _build(self, tag: str) -> float:
        began = time.monotonic()
        folder = self.engine.repository
        command = ["docker", "build", "--progress", "plain", "--build-arg", f"TORCH_INDEX={self.index}"]
        command += [*self._build_flags(), "--file", str(folder / "docker" / "Dockerfile")]
        command += ["--label", f"{LAYERS_LABEL}={sum_of_layers()}"]
        self.engine.run(*command, "--target", "cpu", "--tag", tag, str(folder), log=self.work / "build.log")
        return time.monotonic() - began

    def _build_flags(self) -> list[str]:
        """The build reaches the index on this machine's loopback only in the machine's own network."""
        flags = self.engine.build_flags()
        return flags or (["--network", "host"] if "//127.0.0.1:" in self.index else [])

    def _build_earlier(self) -> None:
        """The earlier version in this version's image, with the same dependencies. It has no compiled codec."""
        folder = self.work / "earlier"
        shutil.rmtree(folder, ignore_errors=True)
        if not unpack(folder):
            self.engine.run("docker", "image", "rm", OLD, check=False)
            return
        site = self.engine.run("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", TAG, "-c",
                               "import sysconfig; print(sysconfig.get_path('purelib'))").strip()  # fmt: skip
        lines = [f"FROM {TAG}", "USER 0:0", f"RUN rm -r {site}/deca_node", f"COPY deca_node {site}/deca_node"]
        (folder / "Dockerfile").write_text("\n".join([*lines, "USER 10001:10001", ""]))
        inside = self.engine.work / folder.relative_to(self.work)
        self.engine.run("docker", "build", *self._build_flags(), "--tag", OLD, str(inside))

    def _megabytes(self, tag: str) -> int:
        return round(int(self.engine.run("docker", "image", "inspect", "--format", "{{.Size}}", tag)) / 1e6)

    def _layers(self, tag: str) -> dict[str, float]:
        """Bytes by layer."""
        found = json.loads(self.engine.run("docker", "image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))
        lines = self.engine.run("docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}}", tag)
        sizes = [float(line) for line in lines.split() if float(line) > 0]
        return dict(zip(reversed(found), sizes, strict=False))

    def _pull(self, *images: str) -> dict[str, bool]:
        """Which of these images are here, or were pulled now."""
        for image in images:
            if not self.engine.run("docker", "images", "--quiet", image) and not self.made:
                self.engine.run("docker", "pull", "--quiet", image, check=False)
        return {image: bool(self.engine.run("docker", "images", "--quiet", image)) for image in images}


def _wait_for_steps(testbed: Testbed) -> None:
    """Wait until every node has done a step more, or has done all."""
    before = {name: testbed.steps(name) for name in NODES}
    testbed.until(
        lambda: all(testbed.steps(name) > before[name] for name in NODES) or testbed.complete(), "steps of all nodes"
    )


def _gradient_steps(testbed: Testbed, name: str, repeated_max: int) -> tuple[int, int]:
    done, repeated = testbed.gradient_steps(name)
    if repeated > repeated_max:
        raise EngineError(f"{name} did {repeated} steps twice, and {repeated_max} is the most")
    return done, repeated


def _make_companions(engine: MadeEngine) -> None:
    engine.image(NETSHOOT, "RUN apt-get update && apt-get install -y --no-install-recommends iproute2")
    engine.image(
        PROMETHEUS,
        "RUN apt-get update && apt-get install -y --no-install-recommends prometheus",
        "RUN install -d -o nobody -g nogroup /prometheus",
        "USER nobody",
        'ENTRYPOINT ["prometheus", "--storage.tsdb.path=/prometheus"]',
    )


def _provoke_alerts(testbed: Testbed) -> dict[str, float]:
    """Kill south, and wait until both alerts fire; after how many seconds each did."""
    began = time.monotonic()
    testbed.compose("kill", "chaos-south", "south")
    fired: dict[str, float] = {}

    def both() -> bool:
        for rule in _evaluated(testbed) or []:
            if rule["state"] == "firing" and rule["name"] in ALERTS_PROVOKED:
                fired.setdefault(rule["name"], round(time.monotonic() - began, 1))
        return len(fired) == len(ALERTS_PROVOKED)

    testbed.until(both, "the alerts to fire")
    return fired


def _evaluated(testbed: Testbed) -> list[dict[str, Any]] | None:
    data = testbed.ask("http://prometheus:9090/api/v1/rules")
    rules = [rule for group in data["groups"] for rule in group["rules"]] if data else []
    return rules if rules and all(rule["health"] == "ok" for rule in rules) else None


def _targets_up(testbed: Testbed) -> int | None:
    data = testbed.ask("http://prometheus:9090/api/v1/targets?state=active")
    up = sum(target["health"] == "up" for target in data["activeTargets"]) if data else 0
    return up if up == len(NODES) else None


def copy_sources(target: Path) -> Path:
    """A copy of all files that git knows, as they are in the working tree, which the test may change."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def parts(test: ImageTest, given: argparse.Namespace) -> list[Callable[[], Figures]]:
    """The parts that the flags ask for."""
    if given.short:
        return [test.build_and_run_shortly]
    bad_links = [] if given.quick else [test.run_observed_on_bad_links]
    return [test.build, test.run_killed_and_changed, test.run_upgraded, *bad_links]


def run(test: ImageTest, given: argparse.Namespace) -> Figures:
    """Run the parts, and say what each saw."""
    figures: Figures = {"engine": "made from Debian's packages" if test.made else "the machine's"}
    for part in parts(test, given):
        print(f"-- {' '.join((part.__doc__ or '').split())}", flush=True)
        began = time.monotonic()
        found = part()
        figures |= found
        print(f"   done in {time.monotonic() - began:.0f} s: {found}", flush=True)
    return figures


def main() -> None:
    """Run the requested parts, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / ".image-test", help="folder for the engine and its images")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--quick", action="store_true", help="leave out bad links and alerts, which take ten minutes")
    which.add_argument("--short", action="store_true", help="one build and one short run, with the machine's engine")
    given = parser.parse_args()
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    engine: Engine | None = None
    began = time.monotonic()
    try:
        print("-- the engine", flush=True)
        sources = copy_sources(work / "sources")
        engine = installed_engine(sources, work) if given.short else find_engine(sources, work)
        if engine is None:
            raise EngineError("no container engine answers")
        if given.short:
            figures = run(ImageTest(engine, sources, work, index_of_last_build(work)), given)
        else:
            with torch_index(work) as index:
                (work / "torch-index").write_text(index)
                figures = run(ImageTest(engine, sources, work, index), given)
    except EngineError as problem:
        sys.exit(f"image-test: {problem}")
    finally:
        if engine is not None:
            engine.close()
    figures["seconds"] = round(time.monotonic() - began)
    (work / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}}  {value}")


if __name__ == "__main__":
    main()
