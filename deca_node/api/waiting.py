"""Waiting for nodes: callbacks and progress meanwhile, and no node left behind. ``tune`` is one node and its wait.

Where the wait ends early, the nodes are stopped in order first: each finishes its step and writes a checkpoint. That
holds for an interrupt (Ctrl-C, or a notebook's stop button), for a callback that raises, and for a node that fails.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from deca_node.api.given import Peers, Records
from deca_node.api.node import Node, NodeError, Result
from deca_node.api.progress import Progress, usual_progress
from deca_node.api.records import Evaluation, Step, Visit
from deca_node.protocol.errors import DecaError

if TYPE_CHECKING:
    from deca_node.api.typed import Settings

TICK_SECONDS = 0.2


def wait(*nodes: Node, timeout: float | None = None, progress: Progress | bool | None = None) -> list[Result]:
    """Start the nodes that do not run yet, and wait until each has finished its run or was stopped.

    ``progress`` is True or None for the usual one (a table on a terminal, lines elsewhere, curves in a notebook), False
    for none, or an object of one's own. Raises NodeError if a node fails, or if ``timeout`` seconds have passed;
    KeyboardInterrupt goes through. In every such case all nodes have been stopped.
    """
    shown = usual_progress() if progress is None or progress is True else progress or None
    try:
        for node in nodes:
            if node.state == "new":
                node.start()
        _watch(nodes, timeout, shown)
    except KeyboardInterrupt:
        print("stopping: each node finishes its step and writes a checkpoint", file=sys.stderr)  # noqa: T201
        stop(nodes)
        raise
    except BaseException:
        stop(nodes)
        raise
    finally:
        if shown:
            shown.end(nodes)
    return [node.result() for node in nodes]


def tune(
    model: str | Path | None = None,
    data: Records | None = None,
    peers: Peers = None,
    *,
    run: str | Path | None = None,
    config: str | Path | None = None,
    progress: Progress | bool | None = None,
    on_step: Callable[[Step], object] | None = None,
    on_visit: Callable[[Visit], object] | None = None,
    on_evaluation: Callable[[Evaluation], object] | None = None,
    **settings: Unpack["Settings"],
) -> Result:
    """Tune ``model`` on ``data`` together with ``peers``, and wait for the end.

    The arguments are those of :class:`~deca_node.api.node.Node`. Called again with the same folder, it goes on where
    the node stopped, or returns at once if the run is complete. An interrupt stops the node in order: it writes a
    checkpoint, and KeyboardInterrupt goes through. Raises DecaError if a setting is wrong, NodeError if the node fails.
    """
    node = Node(
        model,
        data,
        peers,
        run=run,
        config=config,
        on_step=on_step,
        on_visit=on_visit,
        on_evaluation=on_evaluation,
        **settings,
    )
    return node.wait(progress=progress)


def stop(nodes: Sequence[Node]) -> None:
    """Stop all nodes, and wait until they have ended. An interrupt meanwhile ends them at once."""
    for node in nodes:
        node.ask_to_stop()
    try:
        for node in nodes:
            node.stop()
    except KeyboardInterrupt:
        for node in nodes:
            node.ask_to_stop()
        for node in nodes:
            node.stop()


def _watch(nodes: Sequence[Node], timeout: float | None, shown: Progress | None) -> None:
    began = time.monotonic()
    while True:
        # In this order: a node that has ended writes nothing more, so the records that follow are its last.
        ended = [node.has_ended() for node in nodes]
        for node, last in zip(nodes, ended, strict=True):
            records = node.deliver(last=last)
            if shown:
                shown.take(node, records)
        if shown:
            shown.show(nodes)
        if all(ended):
            return
        if timeout is not None and time.monotonic() - began > timeout:
            names = ", ".join(node.name for node, last in zip(nodes, ended, strict=True) if not last)
            raise NodeError(f"{names} did not finish within {timeout:g} s", DecaError.exit_code)
        time.sleep(TICK_SECONDS)
