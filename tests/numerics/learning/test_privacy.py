"""Private gradients: what is clipped, drawn, added and counted; the books outlive a crash."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from deca_node.numerics.data.packing import firsts
from deca_node.numerics.data.sequences import TokenLine
from deca_node.numerics.exchange.frames import SenderState
from deca_node.numerics.learning.privacy import LEDGER, Ledger, Privacy
from deca_node.numerics.trainer import Trainer
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.errors import SettingsError, StorageError, TrainerError
from tests.numerics.data.lines import parts_of
from tests.numerics.saving.checkpoint_runs import SCHEDULE, SETTINGS, make, tiny_data

CPU = torch.device("cpu")
ELEMENTS = 4000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def privacy(folder: Path, sigma: float = 1.0, clip: float = 2.0, epsilon_max: float = 0.0, chunk: int = 5) -> Privacy:
    settings = {"sigma": sigma, "clip": clip, "delta": 1e-5, "epsilon_max": epsilon_max}
    return Privacy(folder, 1000, 50, chunk=chunk, device=CPU, **settings)  # type: ignore[arg-type]


def adding(grad: Tensor, own: Tensor, loss: float) -> Callable[[], float]:
    def backward() -> float:
        grad.add_(own)
        return loss

    return backward


# --- the mechanism ----------------------------------------------------------------------------------


def test_each_record_counts_up_to_its_clip(tmp_path: Path) -> None:
    """Without noise to speak of: the sum of min(1, C / |g|) g over the batch size, whatever was drawn."""
    grad = torch.full((3,), 9.0)
    small, large = torch.tensor([0.6, 0.8, 0.0]), torch.tensor([0.0, 300.0, 400.0])
    loss = privacy(tmp_path, sigma=1e-9).collect(grad, [adding(grad, small, 1.0), adding(grad, large, 4.0)])
    torch.testing.assert_close(grad, (small + torch.tensor([0.0, 1.2, 1.6])) / 50)
    assert loss == 2.5


def test_one_record_moves_the_sum_by_its_clip_at_most(tmp_path: Path) -> None:
    """Sensitivity, for records of any size, with and without it."""
    rng, mechanism = np.random.default_rng(0), privacy(tmp_path, sigma=1e-9)
    for size in (0.0, 1e-3, 1.0, 1e6):
        parts = [torch.tensor(rng.normal(size=20) * s, dtype=torch.float32) for s in (1.0, 3.0, size)]
        sums = []
        for drawn in (parts, parts[:2]):
            grad = torch.zeros(20)
            mechanism.collect(grad, [adding(grad, part, 0.0) for part in drawn])
            sums.append(grad * 50)
        assert float((sums[0] - sums[1]).norm()) <= 2.0 * (1 + 1e-4)


def test_the_noise_has_the_size_that_is_accounted_for(tmp_path: Path) -> None:
    """sigma C / batch per element, also where nobody was drawn; and it is new every time and in every process."""
    first, second = torch.zeros(ELEMENTS), torch.zeros(ELEMENTS)
    mechanism = privacy(tmp_path, sigma=1.5, clip=2.0)
    assert mechanism.collect(first, []) == 0.0
    mechanism.collect(second, [])
    other = torch.zeros(ELEMENTS)
    privacy(tmp_path, sigma=1.5, clip=2.0).collect(other, [])
    for noise in (first, second, other):
        assert float(noise.std()) == pytest.approx(1.5 * 2.0 / 50, rel=0.05)
        assert abs(float(noise.mean())) < 5 * 1.5 * 2.0 / 50 / math.sqrt(ELEMENTS)
    for one, two in ((first, second), (first, other)):
        assert abs(float(torch.corrcoef(torch.stack((one, two)))[0, 1])) < 0.1


def test_every_record_is_drawn_by_itself_with_the_chance_that_is_accounted_for(tmp_path: Path) -> None:
    mechanism = privacy(tmp_path)
    draws = [mechanism.rows() for _ in range(400)]
    sizes = np.array([len(rows) for rows in draws])
    counts = np.bincount(np.concatenate(draws), minlength=1000)
    assert sizes.mean() == pytest.approx(50, rel=0.05) and sizes.std() == pytest.approx(math.sqrt(47.5), rel=0.2)
    assert counts.mean() == pytest.approx(20, rel=0.05) and counts.std() == pytest.approx(math.sqrt(19), rel=0.2)
    assert all((np.diff(rows) > 0).all() for rows in draws)


def test_a_record_without_a_finite_gradient_is_no_step(tmp_path: Path) -> None:
    grad = torch.zeros(3)
    assert math.isnan(privacy(tmp_path).collect(grad, [adding(grad, torch.tensor([math.nan, 0.0, 0.0]), 1.0)]))


# --- the books --------------------------------------------------------------------------------------


def test_epsilon_is_that_of_the_gaussian_mechanism(tmp_path: Path) -> None:
    """Where everybody is drawn, T steps are one Gaussian mechanism with sigma / sqrt(T): within a tenth of the exact
    delta(epsilon) of Balle and Wang (arXiv 1805.06530), and never below it."""
    everybody = Privacy(
        tmp_path, 50, 50, sigma=8.0, clip=1.0, delta=1e-5, epsilon_max=0.0, chunk=10, device=CPU
    )  # fmt: skip
    found, mu = everybody.check(40), math.sqrt(40) / 8.0

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        delta = normal(mu / 2 - middle / mu) - math.exp(middle) * normal(-mu / 2 - middle / mu)
        low, high = (middle, high) if delta > 1e-5 else (low, middle)
    assert high <= found <= 1.12 * high


def test_steps_are_counted_before_they_are_taken_and_outlive_a_crash(tmp_path: Path) -> None:
    one = privacy(tmp_path)
    assert one.epsilon == 0.0 and not (tmp_path / LEDGER).exists()
    one.spend()
    assert json.loads((tmp_path / LEDGER).read_text())["spent"] == [[1.0, 0.05, 5]]
    for _ in range(4):
        one.spend()
    assert Ledger(tmp_path).entries == ((1.0, 0.05, 5),)
    one.spend()
    assert Ledger(tmp_path).entries == ((1.0, 0.05, 10),)
    again = privacy(tmp_path, sigma=2.0)
    assert again.epsilon == one.epsilon > 0.0
    again.spend()
    assert Ledger(tmp_path).entries == ((1.0, 0.05, 10), (2.0, 0.05, 5))
    assert again.epsilon > one.epsilon
    assert again.figures() == {"privacy_epsilon": again.epsilon, "privacy_delta": 1e-5}


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"spent": [[1, 2]]}', '{"spent": [["x", 1, 2]]}', "\x00\xff"])
def test_books_that_cannot_be_read_are_no_empty_books(content: str, tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_bytes(content.encode("latin-1"))
    with pytest.raises(StorageError, match=r"privacy.json cannot be read .* it is unknown how much privacy is spent"):
        privacy(tmp_path)


def test_a_run_that_would_cost_too_much_is_refused_with_the_noise_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"beyond dp_epsilon = 1; dp_noise = (\S+) would stay within it") as refusal:
        privacy(tmp_path, sigma=0.8, epsilon_max=1.0).check(2000)
    enough = float(str(refusal.value).split("dp_noise = ")[2].split()[0])
    assert 0.9 < privacy(tmp_path, sigma=enough * 1.01, epsilon_max=1.0).check(2000) <= 1.0


def test_what_is_spent_already_leaves_no_noise_that_would_do(tmp_path: Path) -> None:
    Ledger(tmp_path).write([(0.5, 0.05, 10_000)])
    with pytest.raises(SettingsError, match="too much of it is spent already for any noise"):
        privacy(tmp_path, epsilon_max=1.0).check(10)


def test_a_spent_budget_ends_training(tmp_path: Path) -> None:
    mechanism = privacy(tmp_path, sigma=3.0, epsilon_max=1.0, chunk=20)
    with pytest.raises(
        TrainerError, match=r"^the privacy budget is spent: the next 20 steps would bring epsilon from 0"
    ):
        exhaust(mechanism)
    assert 0.0 < mechanism.epsilon <= 1.0


def exhaust(mechanism: Privacy) -> None:
    for _ in range(10_000):
        mechanism.spend()


def test_without_the_accountant_a_sentence_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(SettingsError, match=r"pip install 'deca-node\[privacy\]'"):
        privacy(tmp_path)


# --- in the trainer ---------------------------------------------------------------------------------


def private_trainer(folder: Path, frames: dict[FrameId, bytearray], **chosen: float) -> Trainer:
    folder.mkdir(exist_ok=True)
    options = {"dp_noise": 1.0, "dp_clip": 0.5, **chosen}
    return make(folder, settings=SETTINGS, frames=lambda frame: memoryview(frames[frame]), data=tiny_data(5), **options)


def test_a_trainers_step_is_private_and_says_nothing_of_its_time(tmp_path: Path) -> None:
    frames: dict[FrameId, bytearray] = {}
    trainer = private_trainer(tmp_path, frames)
    keyframe, update = (FrameId("a", kind, 0, 0) for kind in (FrameKind.KEYFRAME, FrameKind.UPDATE))
    sizes = trainer.ready().sizes
    frames[keyframe] = bytearray(sizes.keyframe_bytes[SCHEDULE[0].block])
    frames[update] = bytearray(sizes.update_bytes[SCHEDULE[0].block])
    trainer.obey(c.Activate(SCHEDULE[0], keyframe))
    trainer.obey(c.Connect(0, (c.Neighbour("b", 0.5, keyframe),), keyframe))
    for inner in range(2):
        done = trainer.obey(c.HalfStep(Step(0, inner), True, update))
        assert isinstance(done, e.HalfStepped)
        trainer.obey(c.Mix(Step(0, inner), (), True))
    assert done.scalars["privacy_epsilon"] > 0.0 and done.scalars["privacy_delta"] == 1e-5
    elements = trainer.engine.elements
    expected = 1.0 * 0.5 / SETTINGS.batch_size * math.sqrt(elements)
    assert done.scalars["grad_norm"] == pytest.approx(expected, rel=0.3), "mostly noise, of the right size"
    state = SenderState.read(torch.frombuffer(frames[update], dtype=torch.uint8)[-20:], "a")
    assert state.step_seconds == 0.0 and state.m_rms > 0.0
    assert Ledger(tmp_path).entries[0][2] == SETTINGS.inner_steps


def test_two_nodes_with_one_seed_draw_different_noise(tmp_path: Path) -> None:
    """Whoever knows the run's seed and a node's name must not be able to take the noise off again."""
    grads = []
    for name in ("one", "two"):
        trainer = private_trainer(tmp_path / name, {})
        trainer.obey(c.Activate(SCHEDULE[0], None))
        trainer.obey(c.HalfStep(Step(0, 0), True, None))
        assert trainer.engine.flat.grad is not None
        grads.append(trainer.engine.flat.grad.clone())
    assert abs(float(torch.corrcoef(torch.stack(grads))[0, 1])) < 0.5
    assert not torch.equal(grads[0], grads[1])


def test_a_private_node_takes_one_record_per_sequence() -> None:
    """Cut off at the length, padded to it; held-out tokens are not in it; what teaches nothing is left out."""
    learnt = np.array([False] * 3 + [True] * 8)
    line = TokenLine.of(np.arange(1, 12, dtype=np.int32), learnt, np.array([0, 3, 5, 11]), np.zeros(3, np.bool_))
    kept = parts_of(line, np.arange(11) < 9)
    assert [firsts(line, kept, length, pad=0).useful().gather(np.arange(2)).ids.tolist() for length in (3, 5)] == [
        [[4, 5, 0], [6, 7, 8]],
        [[4, 5, 0, 0], [6, 7, 8, 9]],
    ]
    found = firsts(line, kept, 5, pad=0).useful().gather(np.arange(2))
    assert found.trained.tolist() == [[False, True, False, False], [False, True, True, True]]
    assert (found.positions == np.arange(4)).all()
