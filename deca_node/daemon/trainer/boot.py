"""The first lines of the trainer's process: ``python -I .../boot.py SOCKET MEMORY``.

The daemon runs this file by its path, so this file knows the package that the daemon runs. It loads the package from
there under the name ``deca_node``, whatever else the module search path offers under that name. Then it hands over to
:mod:`deca_node.daemon.trainer.child`.
"""

import importlib.util
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]


def load_own_package() -> None:
    """Import ``deca_node`` from the folder that holds this file. Raises SystemExit if another one is imported already,
    which only a ``sitecustomize`` or a ``.pth`` file can have done."""
    loaded = sys.modules.get("deca_node")
    if loaded is not None:
        if Path(loaded.__file__ or "").resolve().parent != PACKAGE:
            sys.exit(f"the trainer's Python has imported {loaded.__file__} at its start, but the node runs {PACKAGE}")
        return
    spec = importlib.util.spec_from_file_location("deca_node", PACKAGE / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["deca_node"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    load_own_package()

    from deca_node.daemon.trainer import child

    sys.exit(child.main())
