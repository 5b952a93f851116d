"""A node's settings before a start: blanks are filled in, and what a person can still correct is refused.

The checks run once, before anything is started, so later code need not check again.
"""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from deca_node.daemon.settings.address import Address, is_loopback
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.daemon.settings.texts import expanded_path
from deca_node.protocol.errors import DataError, ModelError, SettingsError, StorageError
from deca_node.storage.data_sources import data_sources, expanded

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


def settle(node: NodeSettings, name: str, listen: Address) -> NodeSettings:
    """The settings with the node's name and address filled in, and with ``~`` in paths expanded."""
    model = expanded_path(node.model) if node.model.startswith("~") else node.model
    return dataclasses.replace(
        node,
        name=name,
        listen=str(listen),
        dir=expanded_path(node.dir) if node.dir else str(Path("deca-data") / name),
        data=expanded(node.data),
        chat_template=expanded_path(node.chat_template) if node.chat_template else "",
        model=model,
    )


def check_required(node: NodeSettings, *names: str) -> None:
    """Check that none of these settings is empty. Raises SettingsError."""
    for name in names:
        if not getattr(node, name):
            raise SettingsError(f"{name} is not set; give --{name}, DECA_{name.upper()}, or {name} in node.toml")


def check_paths(node: NodeSettings) -> None:
    """Check that the model, the data and the node's folder are usable. Raises ModelError, DataError or StorageError."""
    _check_model(node.model)
    for source in data_sources(node.data):
        if source.is_hub:
            continue
        if not Path(source.place).exists():
            raise DataError(f"there is no data at {source.place}")
        if not os.access(source.place, os.R_OK):
            raise DataError(f"the data at {source.place} may not be read by this user")
    if node.chat_template:
        try:
            Path(node.chat_template).open("rb").close()
        except OSError as error:
            raise DataError(f"the chat template at {node.chat_template} cannot be read: {error.strerror}") from error
    if Path(node.dir).exists() and not Path(node.dir).is_dir():
        raise StorageError(f"{node.dir} must be this node's folder, but it is a file; choose another --dir")


def check_plaintext(insecure: int, listen: str, peers: Iterable[str]) -> str:
    """Check that plaintext is allowed between these hosts; returns a warning for the user.

    With one ``--insecure`` a node listens on loopback addresses only and dials loopback addresses only. With two it
    may use any network. Raises SettingsError.
    """
    if insecure >= 2:
        return f"listening on {listen} in plaintext: anyone on the path can read and change what the nodes exchange"
    if not is_loopback(listen):
        raise SettingsError(
            f"with one --insecure a node listens on loopback addresses only, and {listen} is not one; "
            "give --insecure twice to use plaintext on any network"
        )
    for host in peers:
        if not is_loopback(host):
            raise SettingsError(
                f"with one --insecure a node dials loopback addresses only, and the peer at {host} is elsewhere; "
                "give --insecure twice to use plaintext on any network"
            )
    return f"listening on {listen} in plaintext, within this machine only"


def _check_model(model: str) -> None:
    path = Path(model)
    if path.exists() or model.startswith((".", "/")):
        if not path.is_dir():
            raise ModelError(f"there is no folder {model}; a model is a folder with config.json and *.safetensors")
    elif not HUB_ID.fullmatch(model):
        raise ModelError(f"there is no folder {model}, and {model} is not the id of a model on the hub (ORG/NAME)")
