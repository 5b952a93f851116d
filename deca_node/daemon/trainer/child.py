"""The trainer's own process, after :mod:`deca_node.daemon.trainer.boot`; its arguments are SOCKET and MEMORY.

A trainer on several devices has a process for each, its ranks. Rank 0 is all that is said below. The daemon starts the
others when rank 0 asks for them; they obey rank 0 (:mod:`deca_node.numerics.ranks`), and take no memory.

It is joined to the node by two inherited descriptors: a socket for commands and events as lines of JSON, and the shared
memory for frames. It obeys one command at a time and answers each with one event. If this process dies, the node lives
on. If the node dies, the socket closes and this process ends.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from io import RawIOBase
from typing import TYPE_CHECKING

from deca_node.daemon.trainer import messages
from deca_node.daemon.trainer.arena import Arena
from deca_node.process import inherited
from deca_node.process.before_torch import set_before_torch
from deca_node.process.between_servers import listen_at, use_interface_towards
from deca_node.process.memory import collect_seldom, settle_memory
from deca_node.protocol import events as e
from deca_node.protocol.agreed.frames import FrameId
from deca_node.protocol.errors import DecaError, RankLostError, TrainerError
from deca_node.protocol.options import Note, TrainerOptions

if TYPE_CHECKING:
    from deca_node.numerics.ranks.group import Meeting
    from deca_node.numerics.ranks.leader import Leader


class ArenaFrames:
    """The frames that a command names, as buffers. The command says in which slots they are."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._arena: Arena | None = None
        self.slots: messages.Slots = {}

    def shape(self, shape: messages.ArenaShape) -> None:
        """Map the memory, once the daemon has told its shape."""
        self._arena = Arena(self._descriptor, shape.slot_bytes, shape.slots)

    def view(self, frame: FrameId) -> memoryview:
        """The bytes of a frame, to read or to write."""
        assert self._arena is not None, "frames are named only after the arena was shaped"
        return self._arena.slot(*self.slots[frame])


def main() -> int:
    """Load the model, then obey commands until the socket closes."""
    # Terminals and service managers signal the whole process group. The daemon alone acts on signals.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    collect_seldom()
    inherited.set_right()
    connection = socket.socket(fileno=int(sys.argv[1]))
    frames = ArenaFrames(int(sys.argv[2]) if len(sys.argv) > 2 else -1)
    stream = connection.makefile("rwb", buffering=0)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        try:
            _serve(stream, frames)
        except RankLostError as problem:
            stream.write(messages.encode(messages.RankLost(str(problem))))
        except DecaError as problem:
            stream.write(messages.encode(e.TrainerFailed(str(problem), problem.exit_code)))
        except (BrokenPipeError, ConnectionResetError):
            # The node has ended, for example by Ctrl-C while the model loads. There is no reader for a traceback.
            return 0
        except Exception as problem:  # noqa: BLE001 (the node must hear of every failure)
            traceback.print_exc()
            stream.write(messages.encode(_failure(problem)))
            return 1
    return 0


def _serve(stream: RawIOBase, frames: ArenaFrames) -> None:
    lines = iter(stream.readline, b"")
    setup = messages.decode(next(lines)).body
    if isinstance(setup, messages.FollowerSetup):
        _follow(stream, setup)
        return
    if isinstance(setup, messages.Trial):
        _try(stream, setup.options)
        return
    options: TrainerOptions = setup
    set_before_torch(options.threads)
    from deca_node.numerics.forecast.data_check import first_look

    # Without torch, whose import takes many seconds on a busy machine.
    first_look(options)
    from deca_node.numerics.trainer import Trainer

    def note(sentence: str, level: str = "info") -> None:
        stream.write(messages.encode(messages.Remark(sentence, level)))

    trainer = Trainer.load(options, frames.view, note, _leader(stream, options, note))
    stream.write(messages.encode(trainer.ready()))
    settle_memory()
    for line in lines:
        envelope = messages.decode(line)
        if isinstance(envelope.body, messages.ArenaShape):
            frames.shape(envelope.body)
            continue
        frames.slots = envelope.slots
        stream.write(messages.encode(trainer.obey(envelope.body)))
    trainer.end()


def _leader(stream: RawIOBase, options: TrainerOptions, note: Note | None = None) -> "Leader | None":
    """Have the daemon start the other ranks, if the settings ask for several. They load the model meanwhile."""
    if not options.devices and not options.elsewhere:
        return None
    from deca_node.numerics.device import choose_devices
    from deca_node.numerics.forecast.parallel import shards_model

    devices = choose_devices(options.device, options.devices)
    ranks = len(devices) + len(options.elsewhere)
    if ranks == 1:
        return None
    from deca_node.numerics.ranks.leader import Leader
    from deca_node.numerics.ranks.sharded import ShardedLeader

    sharded = note is not None and shards_model(options, devices, note)
    store, place = _meeting(options.meet, ranks)
    leader = (ShardedLeader if sharded else Leader)(store, place, devices, options.elsewhere)
    stream.write(messages.encode(messages.RanksWanted(leader.names, place, sharded)))
    return leader


def _meeting(host: str, ranks: int) -> "tuple[Meeting, str]":
    from deca_node.numerics.ranks.group import open_port, open_store

    if not host:
        return open_store(ranks)
    use_interface_towards(host)
    return open_port(ranks, host, *listen_at(host))


def _try(stream: RawIOBase, options: TrainerOptions) -> None:
    """Try only whether the ranks can add up."""
    set_before_torch(options.threads)
    leader = _leader(stream, options)
    if leader is None:
        stream.write(messages.encode(messages.Tried((), 0, 0.0)))
        return
    from deca_node.numerics.ranks.trial import TRIAL_BYTES, lead

    stream.write(messages.encode(messages.Tried(leader.names, TRIAL_BYTES, lead(leader))))


def _follow(stream: RawIOBase, setup: messages.FollowerSetup) -> None:
    """Be one of the ranks beside the first. The socket tells only that the node has ended."""
    threading.Thread(target=_end_with_the_node, args=(stream,), daemon=True).start()
    set_before_torch(setup.options.threads)
    if setup.options.meet:
        use_interface_towards(setup.options.meet)
    if setup.trial:
        from deca_node.numerics.ranks.trial import take_part

        take_part(setup.rank, setup.wanted.devices, setup.wanted.place)
        return
    from deca_node.numerics.ranks.follower import follow

    wanted = setup.wanted
    follow(setup.options, setup.rank, wanted.devices, wanted.place, wanted.sharded, settle_memory)


def _end_with_the_node(stream: RawIOBase) -> None:
    """A rank may wait for the others in a library that no signal of ours ends."""
    with contextlib.suppress(OSError):
        stream.read(1)
    os._exit(0)


def _failure(problem: Exception) -> e.TrainerFailed:
    """The event for an unexpected error, with advice if memory was short."""
    text = str(problem).strip().splitlines()
    first = text[0] if text else type(problem).__name__
    advice = ""
    if _out_of_memory(problem):
        advice = "; lower --micro-batch, turn on --gradient-checkpointing, or choose smaller blocks"
    sentence = f"the trainer failed: {type(problem).__name__}: {first}{advice}"
    return e.TrainerFailed(sentence, TrainerError.exit_code, died=True)


def _out_of_memory(problem: Exception) -> bool:
    """Python, CUDA and torch on a CPU each report it in their own way."""
    named = type(problem).__name__ == "OutOfMemoryError" or isinstance(problem, MemoryError)
    return named or (isinstance(problem, RuntimeError) and "can't allocate memory" in str(problem))
