"""A trainer of the idle class that hardly gets a core is noticed; one that waits for peers is not."""

import subprocess
import sys

import pytest

from deca_node.process.starving import LOOKS_KEPT, CoreTime, StarvationMeter, core_time, is_idle_class

LOOKS = 2 * LOOKS_KEPT


def looked(ran: float, waited: float, *, idle: bool = True) -> StarvationMeter:
    """A meter after ten looks, between which the process ran and waited for so many seconds."""
    times = iter([CoreTime(100.0 + n * ran, 50.0 + n * waited) for n in range(LOOKS)])
    meter = StarvationMeter(lambda _: next(times), lambda _: idle)
    for _ in range(LOOKS):
        meter.look(7)
    return meter


def test_a_process_that_wants_cores_and_gets_none_starves() -> None:
    meter = looked(ran=0.5, waited=4.5)
    assert meter.share == pytest.approx(0.1)
    assert meter.sentence.startswith("the trainer starves: it had a core for 10 % of the time")


@pytest.mark.parametrize(
    ("ran", "waited", "idle"),
    [(4.0, 1.0, True), (0.0, 0.1, True), (0.0, 0.0, True), (0.5, 4.5, False)],
    ids=["it gets its share", "it has little work", "it waits for peers", "it is of another class"],
)
def test_any_other_does_not(ran: float, waited: float, idle: bool) -> None:
    assert looked(ran, waited, idle=idle).sentence == ""


def test_the_sentence_ends_with_its_cause() -> None:
    ran = waited = 0.0
    meter = StarvationMeter(lambda _: CoreTime(ran, waited), lambda _: True)
    said = []
    for look in range(4 * LOOKS_KEPT):
        hungry = LOOKS_KEPT <= look < 2 * LOOKS_KEPT
        ran, waited = ran + (0.2 if hungry else 4.8), waited + (4.8 if hungry else 0.2)
        meter.look(7)
        said.append(bool(meter.sentence))
    assert said.index(True) >= LOOKS_KEPT
    assert not any(said[3 * LOOKS_KEPT :])


def test_another_process_begins_anew_and_none_is_silent() -> None:
    meter = looked(ran=0.1, waited=4.9)
    meter.look(None)
    assert meter.share is None
    meter = StarvationMeter(lambda pid: CoreTime(pid, 100.0 * pid), lambda _: True)
    for pid in (1, 2, 3):
        meter.look(pid)
        assert meter.share is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux counts this")
def test_the_system_counts() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    times = core_time(process.pid)
    assert times is None or times.ran >= 0.2
    assert not is_idle_class(process.pid)
    process.communicate(b"\n")
    assert core_time(process.pid) is None
