"""How long one step of the engine takes, and in how much memory, against the ``badam`` package."""
