"""From eight nodes to a thousand: how fast graphs agree, and the cost."""
