"""How long it takes two nodes to hand each other a block, beside what they could use instead."""
