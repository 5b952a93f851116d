"""deca-node: several parties fine-tune one language model together, peer to peer.

::

    import deca_node

    result = deca_node.tune("./Qwen2.5-0.5B", "north.jsonl", "peers.txt", name="north", insecure=True)
    model, tokenizer = result.load()

docs/PYTHON.md has the Python interface by example. A name is imported when it is used, so ``import deca_node`` is
cheap; ``__init__.pyi`` says the same to editors and type checkers.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PLACES = {
    "tune": "waiting",
    "wait": "waiting",
    "load": "loading",
    "Tuned": "loading",
    "local_peers": "local",
    "Settings": "typed",
    **dict.fromkeys(("Node", "NodeError", "Result", "Event"), "node"),
    **dict.fromkeys(("Step", "Visit", "Evaluation"), "records"),
    **dict.fromkeys(("Progress", "LiveTable", "Lines"), "progress"),
}
"""Public names, and the module of :mod:`deca_node.api` that has each."""

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'deca_node' has no attribute {name!r}")
    # By name, because an import statement here would be an import of everything by every module below.
    return getattr(importlib.import_module(f"deca_node.api.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
