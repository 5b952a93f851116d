"""The trainer's own process: ``python -m deca_node.daemon.trainer.child SOCKET MEMORY``.

Two inherited descriptors are all it has of the node: a socket with commands and events as lines of JSON,
and the shared memory in which frames lie. It obeys one command at a time and answers each with one event.
If it dies the node lives; if the node dies the socket ends, and so does this process.
"""

import contextlib
import os
import signal
import socket
import sys
import traceback
from io import RawIOBase

from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.arena import Arena
from deca_node.daemon.trainer.memory import settle_memory
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.errors import DecaError, TrainerError


class ArenaFrames:
    """The frames a command names, as buffers; the daemon's books say where they lie."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._arena: Arena | None = None
        self.slots: messages.Slots = {}

    def shape(self, shape: messages.ArenaShape) -> None:
        """Map the memory, once the daemon knows how it is cut."""
        self._arena = Arena(self._descriptor, shape.slot_bytes, shape.slots)

    def view(self, frame: FrameId) -> memoryview:
        """The bytes of a frame, to read or to fill."""
        assert self._arena is not None, "frames are named only after the arena was shaped"
        return self._arena.slot(*self.slots[frame])


def main() -> int:
    """Load, then obey until the socket ends."""
    # Terminals and service managers send these to every process of the group; the daemon alone decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = socket.socket(fileno=int(sys.argv[1]))
    frames = ArenaFrames(int(sys.argv[2]))
    stream = connection.makefile("rwb", buffering=0)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            _serve(stream, frames)
        except DecaError as problem:
            stream.write(messages.encode(e.TrainerFailed(str(problem), problem.exit_code)))
        except Exception as problem:  # noqa: BLE001 (whatever it was, the node must hear of it)
            traceback.print_exc()
            stream.write(messages.encode(_failure(problem)))
            return 1
    return 0


def _serve(stream: RawIOBase, frames: ArenaFrames) -> None:
    lines = iter(stream.readline, b"")
    options = messages.decode(next(lines)).body
    if options.threads:
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
    # Several nodes may share one machine's cores; spinning threads would starve each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Tensors of 2 MiB and more lie on huge pages where Linux leaves that to those who ask: encoding differences, which
    # is bound by memory, then takes about a sixth less time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from deca_node.numerics.trainer import Trainer

    def note(sentence: str, level: str = "info") -> None:
        stream.write(messages.encode(messages.Remark(sentence, level)))

    trainer = Trainer.load(options, frames.view, note)
    stream.write(messages.encode(trainer.ready()))
    settle_memory()
    for line in lines:
        envelope = messages.decode(line)
        if isinstance(envelope.body, messages.ArenaShape):
            frames.shape(envelope.body)
            continue
        frames.slots = envelope.slots
        stream.write(messages.encode(trainer.obey(envelope.body)))


def _failure(problem: Exception) -> e.TrainerFailed:
    """An unforeseen end, with advice where the kind of problem is known."""
    text = str(problem).strip().splitlines()
    first = text[0] if text else type(problem).__name__
    advice = ""
    if _out_of_memory(problem):
        advice = "; lower --micro-batch, turn on --gradient-checkpointing, or choose smaller blocks"
    sentence = f"the trainer failed: {type(problem).__name__}: {first}{advice}"
    return e.TrainerFailed(sentence, TrainerError.exit_code, died=True)


def _out_of_memory(problem: Exception) -> bool:
    """Python, a GPU and torch on a CPU each say so in another way."""
    named = type(problem).__name__ == "OutOfMemoryError" or isinstance(problem, MemoryError)
    return named or (isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem))


if __name__ == "__main__":
    sys.exit(main())
