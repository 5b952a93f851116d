"""Processes of a trainer that start within a moment: each is forked from one that has loaded torch already.

They run :mod:`deca_node.daemon.trainer.child` as production does. Python's own fork server forks them.
"""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, cast

import pytest

# The fork server imports this module, so its children find in memory all that a trainer loads.
import deca_node.numerics.forecast.parallel
import deca_node.numerics.ranks.sharded
import deca_node.numerics.trainer  # noqa: F401
from deca_node.daemon.trainer import child, messages, rank
from deca_node.numerics.ranks.follower import follow

CONTEXT = multiprocessing.get_context("forkserver")


def fork_ranks(patch: pytest.MonkeyPatch) -> "list[Forked]":
    """From now on, have a :class:`~deca_node.daemon.trainer.rank.RankProcess` fork its process; returns a list that
    all of them are added to."""
    started: list[Forked] = []

    def spawn(*descriptors: int) -> "subprocess.Popen[bytes]":
        started.append(Forked(serve, *map(Inherited, descriptors)))
        return cast("subprocess.Popen[bytes]", started[-1])

    patch.setattr(rank, "_spawn", spawn)
    return started


def fork_follower(setup: messages.FollowerSetup) -> "Forked":
    """A rank beside the first, whose part this process takes."""
    return Forked(take_part, setup)


class Forked:
    """A forked process, with as much of ``subprocess.Popen`` as a rank's process needs."""

    def __init__(self, work: Callable[..., None], *given: Any) -> None:
        CONTEXT.set_forkserver_preload([__name__])
        self._process = CONTEXT.Process(target=work, args=given, daemon=True)
        self._process.start()
        self.pid = self._process.pid
        self.returncode: int | None = None

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        self._process.join()
        assert self._process.exitcode is not None
        self.returncode = self._process.exitcode
        return self.returncode

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


class Inherited:
    """A descriptor, which becomes one of the process that it is given to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return here, (reduction.DupFd(self._descriptor),)


def here(given: Any) -> int:
    """The descriptor in this process."""
    return int(given.detach())


def serve(*descriptors: int) -> None:
    """Be the process."""
    sys.argv[1:] = map(str, descriptors)
    sys.exit(child.main())


def take_part(setup: messages.FollowerSetup) -> None:
    """Be a rank beside the first."""
    wanted = setup.wanted
    follow(setup.options, setup.rank, wanted.devices, wanted.place, wanted.sharded, lambda: None)
