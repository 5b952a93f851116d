"""The two state machines that peers speak to, as one target: the run's, and the membership's."""

from tests.fuzz import gossip, machine
from tests.fuzz.decoders import Decoder, Target

TARGET = Target(
    "machines",
    (
        Decoder("node", machine.drive, machine.seeds, refuses=()),
        Decoder("membership", gossip.drive, gossip.seeds, refuses=()),
    ),
)
