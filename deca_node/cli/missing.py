"""Everything that a start lacks, named at once: model, data, peers, and a certificate or ``--insecure``."""

from pathlib import Path

from deca_node.cli.client import NODES
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.sources import Loaded
from deca_node.daemon.settings.texts import expanded_path
from deca_node.protocol.errors import SettingsError
from deca_node.storage.folder import SETTINGS

PEERS = "the peers (--peers FILE, or --join HOST:PORT)"
SECURITY = "a certificate, or --insecure"


def check_complete(loaded: Loaded) -> None:
    """Raise SettingsError if a start lacks several things. One thing that is missing has a sentence of its own."""
    missing = [words for words, there in _needs(loaded) if not there]
    if len(missing) < 2:
        return
    listed = f"{', '.join(missing[:-1])} and {missing[-1]}"
    raise SettingsError("\n".join([f"{len(missing)} things are missing: {listed}", *_to_copy(loaded.node)]))


def _needs(loaded: Loaded) -> list[tuple[str, bool]]:
    """Each thing that a start needs, and whether it is there."""
    node = loaded.node
    alone = bool(node.join) or node.wait_for == 1
    peers = alone or loaded.sources["peers"].where != "default" or Path(expanded_path(node.peers)).exists()
    return [
        ("the model (--model)", bool(node.model)),
        ("this node's data (--data)", bool(node.data)),
        (PEERS, peers),
        (SECURITY, bool(node.tls_cert or node.insecure) or _certified()),
    ]


def _certified() -> bool:
    from deca_node.daemon.security.enrolment import names_installed
    from deca_node.daemon.security.security import CERTIFICATES

    return bool(names_installed(Path(CERTIFICATES)))


def _to_copy(node: NodeSettings) -> list[str]:
    """Lines for two nodes on this machine, with what the person has given already, and where to go on from."""
    model = node.model or "./MODEL"
    lines = [
        "To try it with two nodes on this machine, write the peers file, then start one node in each of two terminals:",
        "  printf '%s\\n' north@127.0.0.1:7001 south@127.0.0.1:7002 > peers.txt",
        f"  deca-node start --insecure --name north --model {model} --data {node.data or 'north.jsonl'}",
        f"  deca-node start --insecure --name south --model {model} --data south.jsonl",
        "`deca-node init` asks for all of this and writes it into files.",
    ]
    folders = sorted(path.parent for path in NODES.glob(f"*/{SETTINGS}"))
    return lines + [f"To go on with the last start in {folder}: deca-node start --dir {folder}" for folder in folders]
