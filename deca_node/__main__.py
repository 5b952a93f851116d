"""``python -m deca_node`` is ``deca-node``."""

import sys

from deca_node.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
