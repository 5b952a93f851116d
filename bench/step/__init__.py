"""The time and memory of one step of the engine, compared with the ``badam`` package."""
