"""An undisturbed run, then the same run under the schedule.

Under the schedule a step takes a while, as with a real model, with neighbours or without; a node that is alone for a
moment must not be a hundred visits further when the others come back. So the hour is not one of computing: the
undisturbed run, without such a pace, is much shorter. A short run at the pace tells how long a round takes.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from deca_node.lab.rigs.processes import NodeProcess
from tests.e2e.faults import steps_done
from tests.e2e.testbed import largest_difference, make_tiny_model, metrics, until
from tests.patience import PATIENCE_SECONDS
from tests.soak.figures import Course, Outcome, outcome, redone
from tests.soak.schedule import NAMES, faults
from tests.soak.world import World

PILOT_ROUNDS = 3
PACE_SECONDS = 0.3
"""Of a step."""
SLOWDOWN = 1.3
"""By how much longer the disturbed run is thought to take."""
QUIET_SHARE, QUIET_SECONDS = 0.1, 60.0
"""So much of the run, or so many seconds of it if that is more, is left when nothing more happens: all are to be there
at the end."""
Say = Callable[[str], None]


def soak(folder: Path, minutes: float, seed: int, say: Say) -> Outcome:
    """Soak four nodes for about so many minutes, after an undisturbed run."""
    model = make_tiny_model(folder / "model")
    pilot = undisturbed(folder / "pilot", model, PILOT_ROUNDS, PACE_SECONDS)
    per_round = round_seconds(folder / "pilot")
    rounds = max(PILOT_ROUNDS, math.ceil(minutes * 60.0 / per_round / SLOWDOWN))
    say(f"a round takes {per_round:.2f} s ({pilot.seconds:.0f} s with the start); {rounds:,} rounds without a fault")
    calm = undisturbed(folder / "calm", model, rounds, 0.0)
    say(f"undisturbed: {calm.seconds:.0f} s, held-out loss {calm.loss:.4f}; now with faults")
    (folder / "soak").mkdir()
    steps = max(calm.steps) + 1
    quiet = max(QUIET_SHARE, QUIET_SECONDS / (rounds * per_round))
    with World(folder / "soak", model, rounds, PACE_SECONDS) as world:
        began = time.monotonic()
        happened = disturb(world, minutes * 60.0, (steps, math.ceil(steps * (1.0 - quiet))), seed, say)
        say("nothing more happens; waiting for the end of the run")
        finish(world)
        rough = course(world, time.monotonic() - began)
    return outcome(
        calm, rough, world.samples, seed=seed, happened=happened, starts=world.starts, troubles=world.troubles
    )


def undisturbed(folder: Path, model: Path, rounds: int, pace: float) -> Course:
    """The run as it should be."""
    folder.mkdir()
    began = time.monotonic()
    with World(folder, model, rounds, pace) as world:
        for name in NAMES:
            world.up(name)
        finish(world)
        assert not world.troubles, world.troubles
        return course(world, time.monotonic() - began)


def round_seconds(folder: Path) -> float:
    """How long a round took at a node that has run there."""
    out = folder / "out" / NAMES[0]
    node = NodeProcess(NAMES[0], out, out.with_suffix(".log"), None)  # type: ignore[arg-type]
    steps = metrics(node, "step")
    return max((steps[-1]["time"] - steps[0]["time"]) / PILOT_ROUNDS, 0.01)


def disturb(world: World, seconds: float, steps: tuple[int, int], seed: int, say: Say) -> Counter[str]:
    """Start the nodes, and let things happen until the time is over; how often what did. Of all ``steps[0]`` steps,
    ``steps[1]`` are done under faults at most."""
    for name in NAMES:
        world.up(name)
    witness = world.running[NAMES[0]]
    until(lambda: steps_done(witness) > 0, "the first steps")
    happened: Counter[str] = Counter()
    end = time.monotonic() + seconds
    for fault in faults(seed):
        time.sleep(fault.after)
        world.look_after()
        done = steps_done(world.running[NAMES[0]])
        if time.monotonic() > end or done >= steps[1]:
            break
        what = f"{fault.kind} {' '.join(fault.names)} {fault.seconds:.0f} s {fault.amount:g}"
        say(f"step {done:,} of {steps[0]:,}: {what}")
        if world.happen(fault):
            happened[fault.kind] += 1
    world.calm()
    world.gather()
    return happened


def finish(world: World) -> None:
    """Wait until the run is complete at every node; one that does not get there in time is a trouble."""
    best, since = -1, time.monotonic()
    while any(world.running[name].process.poll() is None for name in NAMES if name in world.running):
        world.look_after()
        done = max(steps_done(node) for node in world.running.values())
        if done > best:
            best, since = done, time.monotonic()
        if time.monotonic() > since + PATIENCE_SECONDS:
            world.troubles.append(f"no step was done for {PATIENCE_SECONDS:g} s, and the run is not complete")
            return
        time.sleep(1.0)
    world.look_after()


def course(world: World, seconds: float) -> Course:
    """What a run came to."""
    nodes = [world.running[name] for name in NAMES if (world.running[name].directory / "final").exists()]
    if len(nodes) < len(NAMES):
        world.troubles.append(f"only {len(nodes)} of {len(NAMES)} nodes have a tuned model")
    last = {node.name: metrics(node, "eval")[-1] for node in nodes}
    steps = {node.name: metrics(node, "step") for node in nodes}
    logs = [path for path in (world.folder / "out").glob("*.log") if "internal error" in path.read_text()]
    world.troubles += [f"an internal error stands in {path}" for path in logs]
    return Course(
        losses={name: float(record["loss"]) for name, record in last.items() if record["when"] == "end"},
        # Of those with a gradient: how many mixes follow them depends on the neighbours who are there.
        steps=frozenset(int(r["ordinal"]) for lines in steps.values() for r in lines if "loss" in r),
        redone=sum(map(redone, steps.values())),
        distance=largest_difference(nodes) if len(nodes) > 1 else math.inf,
        seconds=seconds,
    )
