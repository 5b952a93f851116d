"""From eight nodes to a thousand: how well graphs agree, and what that costs."""
