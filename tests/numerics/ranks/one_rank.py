"""A rank beside the first, as a process of its own: each line on its standard input is a trainer to take part in."""

import sys

from deca_node.daemon.trainer import messages
from deca_node.numerics.ranks.follower import follow

for line in sys.stdin.buffer:
    setup = messages.decode(line).body
    assert isinstance(setup, messages.FollowerSetup)
    wanted = setup.wanted
    follow(setup.options, setup.rank, wanted.devices, wanted.folder, wanted.sharded, lambda: None)
