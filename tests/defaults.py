"""What parts of a node are told by default, as the settings have it, with changes."""

import dataclasses
from typing import Any

from deca_node.daemon.settings import parts
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.visit.policy import Policy


def default_policy(**changes: Any) -> Policy:
    """The policy of a node that sets nothing, with ``changes`` to its fields."""
    return dataclasses.replace(parts.policy_of(NodeSettings()), **changes)
