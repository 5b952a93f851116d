"""The cost for a node of giving block versions to late nodes."""
