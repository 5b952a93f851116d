"""Time to a loss over home lines: real nodes, as the defaults and the presets exchange."""
