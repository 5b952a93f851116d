"""What updates, keyframes, deltas and moment signals hold, as the trainer reads them: compiled, and in torch.

Nothing that is taken may stand for a number that is not finite, and what the compiled code takes torch takes too, with
the same bits.
"""

import math

import torch
from torch import Tensor, nn

from deca_node.numerics.codecs.base import FLOAT_TINY, Codec
from deca_node.numerics.codecs.formats import CODECS, KEYFRAME_CODEC
from deca_node.numerics.deca import Counts, Moments
from deca_node.numerics.exchange import signals
from deca_node.numerics.exchange.flows import FlowBytes, PublicCopies
from deca_node.numerics.exchange.frames import FrameLayout, SenderState
from deca_node.numerics.model.blocks import Block
from deca_node.numerics.saving.deltas import apply_delta, check_delta
from deca_node.numerics.saving.start_values import nothing
from tests.fuzz.decoders import Choices, Decoder, Finding, Target
from tests.fuzz.scratch import file

LENGTHS = (1, 63, 70, 256, 300, 1100)
"""Elements of a block: around the groups of every codec."""
NAMES, SIGNALS = tuple(CODECS), ("none", "v", "mv")
CPU = torch.device("cpu")

torch.set_num_threads(1)


def _tensor(data: bytes) -> Tensor:
    """The bytes at an odd address, as a frame may lie in shared memory."""
    return torch.frombuffer(bytearray(b"\0" + data + b"\0"), dtype=torch.uint8)[1:-1]


def _fitted(data: bytes, nbytes: int, lie: int) -> Tensor:
    """As long as it should be, or a little less or more."""
    length = max(0, nbytes + (lie - 248 if lie > 240 else 0))
    return _tensor(data[:length].ljust(length, b"\0"))


# --- codes -------------------------------------------------------------------------------------------


def _codes(data: bytes) -> None:
    """``largest`` and ``decode`` of every codec: codec | length | lie about the bytes | codes."""
    choices = Choices(data)
    codec, n = CODECS[NAMES[choices.number() % len(NAMES)]], LENGTHS[choices.number() % len(LENGTHS)]
    lie = choices.number()
    codes = _fitted(choices.rest(), codec.nbytes(n), lie)
    bound, rms = codec.measure(codes, n, "south")
    x = codec.decode(codes, 0, n)
    if not (math.isfinite(bound) and x.isfinite().all() and x.abs().max() <= bound):
        raise Finding(f"{codec.name} takes codes for {x.abs().max().item()} with the bound {bound}")
    # Codes of -q - 1, which no encoder writes, are larger than the norm supposes.
    if not x.double().square().mean().sqrt() <= 1.15 * rms < math.inf:
        raise Finding(f"{codec.name} takes codes of the norm {x.double().square().mean().sqrt()} for {rms}")
    # Of an odd number in int4 torch counts the nibble that is missing.
    same = 0.5 if codec.name == "int4" and n % 2 else 1e-5
    in_torch, checked = codec._decode(codes)[:n], codec._checked(codes, n, "south")
    if (
        checked.largest != bound
        or not math.isclose(checked.rms, rms, rel_tol=same, abs_tol=FLOAT_TINY)
        or not torch.equal(in_torch.view(torch.int32), x.view(torch.int32))
    ):
        raise Finding(f"{codec.name}: compiled and torch differ")
    start = n // 3
    if not torch.equal(codec.decode(codes, start, n), x[start:]):
        raise Finding(f"{codec.name}: a slice is not a part of the whole")


def _code_seeds() -> list[bytes]:
    return [
        bytes([number, index, 0]) + _encoded(codec, n)
        for number, codec in enumerate(CODECS.values())
        for index, n in enumerate(LENGTHS)
    ]


def _encoded(codec: Codec, n: int) -> bytes:
    out = torch.empty(codec.nbytes(n), dtype=torch.uint8)
    codec.encode(torch.linspace(-1e-3, 2e-3, n), out)
    return bytes(out.tolist())


# --- a whole update ----------------------------------------------------------------------------------


def _update(data: bytes) -> None:
    """An update with its state and signal, taken through an exchange: codec | length | signal | lie | frame."""
    choices = Choices(data)
    codec, n = CODECS[NAMES[choices.number() % len(NAMES)]], LENGTHS[choices.number() % len(LENGTHS)]
    signal = choices.number()
    layout = FrameLayout(codec, n, SIGNALS[signal % 3])
    lie, length = choices.number(), layout.nbytes(layout.content(bool(signal & 4)))
    theirs = _fitted(choices.rest(), length, lie)
    ours = _tensor(_frame(layout, with_signal=bool(signal & 4)))
    (exchanged,) = layout.open([FlowBytes("south", theirs, ours)])
    if not all(math.isfinite(value) for value in exchanged.figures.values()):
        raise Finding("a state that is not finite")
    copies = PublicCopies(codec, n, nothing, _tensor(_encoded(KEYFRAME_CODEC, n)), CPU)
    copies.open("south", 0.5, *(_tensor(_encoded(KEYFRAME_CODEC, n)) for _ in range(2)))
    flow = exchanged.flow
    assert flow is not None
    copies.check([flow])
    for _, e in copies.advance([flow], 0, n):
        if not e.isfinite().all():
            raise Finding("a flow that is not finite")
    _correct(exchanged.moved(0.5), n)


def _correct(moved: signals.Moved | None, n: int) -> None:
    if moved is None:
        return
    correction = signals.Correction([moved], 1.0, Counts(3, 0.2, 0.01), CPU, 0.0)
    assert correction.factors is not None
    if not ((correction.factors >= 0.25 - 1e-5).all() and (correction.factors <= 4.0 + 1e-5).all()):
        raise Finding(f"v is multiplied by {correction.factors}")
    after = correction.apply(Moments(torch.full((n,), 1e-3), torch.full((n,), 1e-6)), 0, n)
    if after.v.isnan().any() or after.m.isnan().any():
        raise Finding("moments that are no numbers")


def _frame(layout: FrameLayout, with_signal: bool) -> bytes:
    out = torch.zeros(layout.nbytes(layout.content(with_signal)), dtype=torch.uint8)
    parts = layout.split(out, "this node")
    assert parts.codes is not None
    layout.codec.encode(torch.linspace(-1e-3, 2e-3, layout.elements), parts.codes)
    SenderState(1.0, 1.0, 1.0, 1.0, 0.1).write(parts.state)
    moments = Moments(torch.linspace(-1.0, 1.0, layout.elements), torch.linspace(0.0, 1.0, layout.elements))
    layout.write_signals(moments, parts)
    return bytes(out.tolist())


def _update_seeds() -> list[bytes]:
    return [
        bytes([number, index, signal, 0])
        + _frame(FrameLayout(codec, LENGTHS[index], SIGNALS[signal % 3]), bool(signal & 4))
        for number, codec in enumerate(CODECS.values())
        for index in (2, 4)
        for signal in (0, 4, 5, 2)
    ]


# --- keyframes and deltas ----------------------------------------------------------------------------


def _keyframe(data: bytes) -> None:
    """A neighbour's keyframe: length | lie | codes."""
    choices = Choices(data)
    n, lie = LENGTHS[choices.number() % len(LENGTHS)], choices.number()
    copies = PublicCopies(CODECS["int8"], n, nothing, _tensor(_encoded(KEYFRAME_CODEC, n)), CPU)
    codes = _fitted(choices.rest(), KEYFRAME_CODEC.nbytes(n), lie)
    copies.open("south", 0.5, codes, _tensor(_encoded(KEYFRAME_CODEC, n)))
    if not copies.edges["south"].e.isfinite().all():
        raise Finding("an edge that is not finite")


def _delta(data: bytes) -> None:
    """A block version from a donor, on the disk."""
    model = nn.Linear(20, 15, bias=False)
    block = Block("layers.0", ("weight",), 300)
    path = file("layers.0@000003.delta", data)
    check_delta(path, model, block)
    apply_delta(path, model, block, nothing)
    if not model.weight.isfinite().all():
        raise Finding("a block that is not finite")


TARGET = Target(
    "updates",
    (
        Decoder("codes", _codes, _code_seeds),
        Decoder("update", _update, _update_seeds),
        Decoder(
            "keyframe",
            _keyframe,
            lambda: [bytes([i, 0]) + _encoded(KEYFRAME_CODEC, n) for i, n in enumerate(LENGTHS)],
        ),
        Decoder("delta", _delta, lambda: [_encoded(KEYFRAME_CODEC, 300)]),
    ),
)
