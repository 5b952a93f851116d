"""What a node says of its own state."""

from deca_node.protocol import events as e
from deca_node.protocol.agreed.agreement import ModelFacts
from deca_node.protocol.agreed.frames import FrameSizes
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.node.node import Node
from tests.defaults import default_policy


def test_waiting_for_a_peer_is_told_from_waiting_for_the_trainer_whatever_the_peer_is_called() -> None:
    node = Node("north", ["north", "trainer-2"], RunSettings(topology="full"), default_policy())
    assert (node.state.awaits(), node.state.awaits_trainer) == ("its trainer (loading)", True)
    sizes = FrameSizes(keyframe_bytes=(8,), update_bytes=(8,), signal_bytes=(0,), v_bytes=(0,))
    node.handle(e.TrainerReady(ModelFacts("ab", ("head",), (4,)), sizes), 0.0)
    assert (node.state.awaits(), node.state.awaits_trainer) == ("peers: trainer-2", False)
