"""What a decoder is, what it may do with bytes, and how one row of bytes becomes many small choices."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deca_node.protocol.errors import DecaError

SENTENCE_LENGTH_MAX = 30_000
"""No refusal is longer, whatever was refused: it goes into logs, and on the wire."""


class Finding(AssertionError):
    """A decoder did what it must not."""


@dataclass(frozen=True)
class Decoder:
    """``decode`` takes any bytes; what it returns does not matter, and of exceptions it may raise ``refuses`` only.
    ``seeds`` are bytes that it takes."""

    name: str
    decode: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    refuses: tuple[type[Exception], ...] = (DecaError,)


class Target(NamedTuple):
    """Decoders that are fuzzed together; the first byte of an input chooses among them."""

    name: str
    decoders: tuple[Decoder, ...]

    def run(self, data: bytes) -> None:
        """One input. Raises what is a finding."""
        if data:
            survive(self.decoders[data[0] % len(self.decoders)], data[1:])

    def seeds(self) -> Iterator[bytes]:
        """Valid inputs for each of its decoders."""
        for index, decoder in enumerate(self.decoders):
            yield from (bytes([index]) + seed for seed in decoder.seeds())


def survive(decoder: Decoder, data: bytes) -> bool:
    """Whether ``data`` was taken; False where it was refused in words. Raises what is a finding."""
    try:
        decoder.decode(data)
    except decoder.refuses as refusal:
        sentence = str(refusal)
        if not 0 < len(sentence) <= SENTENCE_LENGTH_MAX:
            raise Finding(f"{decoder.name} refuses with {len(sentence)} characters: {sentence[:200]!r}") from refusal
        return False
    return True


class Choices:
    """Reads bytes from the front as numbers and pieces; where none are left, zeros and empty pieces."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """The next bytes, at most so many."""
        self._at, start = self._at + count, self._at
        return self._data[start : self._at]

    def number(self, width: int = 1) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(width), "big")

    def of(self, *values: object) -> object:
        """One of several, by the next byte."""
        return values[self.number() % len(values)]

    def piece(self) -> bytes:
        """Two bytes of length, and as many bytes."""
        return self.take(self.number(2))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))


def piece(data: bytes) -> bytes:
    """What :meth:`Choices.piece` reads as ``data``."""
    return len(data).to_bytes(2, "big") + data
