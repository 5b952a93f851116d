"""``tune``: one party's node from its start to its tuned model, in one call."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from deca_node.api.given import Peers, Records
from deca_node.api.node import Node, Result
from deca_node.api.records import Evaluation, Step, Visit

if TYPE_CHECKING:
    from deca_node.api.progress import Progress
    from deca_node.api.typed import Settings


def tune(
    model: str | Path | None = None,
    data: Records | None = None,
    peers: Peers = None,
    *,
    run: str | Path | None = None,
    config: str | Path | None = None,
    progress: "Progress | bool | None" = None,
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
