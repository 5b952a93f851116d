"""The bound on sizes: honest neighbours stay within it, and a peer that goes beyond it is refused."""

import pytest
import torch

from deca_node.numerics.codecs.base import Codec
from deca_node.numerics.codecs.formats import CODECS
from deca_node.numerics.exchange.norms import Norms
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import Schedule
from deca_node.protocol.errors import WireError

SETTINGS = RunSettings(rounds=4, inner_steps=48, learning_rate=5e-5, lr_schedule="cosine", lr_warmup=0.05)
SCHEDULE = Schedule(SETTINGS, 10, 4)
codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=list(CODECS))


def norms(activation: int = 0, limit: float = 1000.0) -> Norms:
    made = Norms.of(limit, SETTINGS, SCHEDULE, SCHEDULE[activation])
    assert made is not None
    return made


def refusal(book: Norms, peer: str, **sizes: float) -> str:
    try:
        book.check(peer, sizes)
    except WireError as problem:
        return problem.reason if peer in str(problem) and "norm_limit = 1000" in str(problem) else "said nothing"
    return ""


def test_step_and_path_follow_the_schedule() -> None:
    first, last, flush = (norms(activation) for activation in (0, 39, 40))
    assert 0 < first.step < 5e-5, "the warm-up is not over"
    assert 0 < last.step < first.step < norms(5).step
    assert first.path == pytest.approx(48 * 5e-5)
    assert last.path == flush.path == pytest.approx(4 * 48 * 5e-5)


def test_the_first_step_of_all_is_measured_by_the_learning_rate() -> None:
    """At the first step there is nothing to compare with: keyframes are zero, and our own gradient may be zero."""
    book = norms(5)
    book.ours(x=0.0)
    book.take("b", {"x": 0.0})
    assert refusal(book, "b", x=50 * book.step) == ""
    assert refusal(book, "b", x=1e6 * book.step) == "wild-norm"


def test_whoever_slept_or_walked_far_is_within_the_bound() -> None:
    """A neighbour that comes back from far away pulls the others by about its own distance, and is itself as far from
    them as they have moved."""
    book = norms(30)
    book.ours(x=1e-7)
    for peer in "bcd":
        book.take(peer, {"x": 1e-4})
    assert refusal(book, "e", x=book.path) == ""
    book = norms(30)
    book.ours(x=book.path)
    assert refusal(book, "b", x=0.0) == ""


def test_a_minority_of_liars_does_not_lift_the_bound() -> None:
    book = norms(10)
    book.ours(x=1e-4)
    before = book.bound("b", "x")
    for liar in ("l1", "l2"):
        book.take(liar, {"x": 0.09})
    for honest in "cde":
        book.take(honest, {"x": 1e-4})
    assert book.bound("b", "x") == before
    assert refusal(book, "l1", x=1.0) == "wild-norm", "its own frames are no measure for it"


def test_nobody_climbs_step_by_step() -> None:
    """Accepted frames pull this node along, and its own frames grow with them, up to the path of all steps."""
    book, size = norms(39), 1e-4
    for _ in range(20):
        found = book.bound("liar", "x")
        assert found is not None
        size = found
        book.take("liar", {"x": size})
        book.ours(x=0.3 * size)
    assert size == pytest.approx(1000 * 4 * 48 * 5e-5)


@pytest.mark.parametrize("kind", ["v", "m"])
def test_signals_may_differ_as_gradients_do(kind: str) -> None:
    book = norms()
    assert refusal(book, "b", **{kind: 1e30}) == "", "nothing to compare it with"
    book.ours(**{kind: 1e-6})
    assert refusal(book, "b", **{kind: 0.9}) == ""
    assert refusal(book, "b", **{kind: 1.1}) == "wild-signal"


def test_a_size_that_is_no_number_is_refused() -> None:
    assert refusal(norms(), "b", x=float("nan")) == "wild-norm"
    assert refusal(norms(), "b", x=float("inf")) == "wild-norm"


def test_it_may_be_turned_off() -> None:
    assert Norms.of(0.0, SETTINGS, SCHEDULE, SCHEDULE[0]) is None


@codecs
@pytest.mark.parametrize("n", [1, 255, 1024, 5000])
def test_the_norm_of_codes_is_that_of_what_was_encoded_or_more(codec: Codec, n: int) -> None:
    """The norm is at least the RMS of the decoded numbers and at most their largest magnitude."""
    x = torch.randn(n, generator=torch.Generator().manual_seed(n)) * 1e-4
    codes = torch.empty(codec.nbytes(n), dtype=torch.uint8)
    codec.encode(x, codes)
    rms = codec.decode(codes, 0, n).square().mean().sqrt().item()
    found = codec.measure(codes, n)
    assert rms * (1 - 1e-5) <= found.rms <= found.largest * (1 + 1e-6)
    codec.encode(x * 1e6, codes)
    assert codec.measure(codes, n).rms == pytest.approx(1e6 * found.rms, rel=1e-2)
