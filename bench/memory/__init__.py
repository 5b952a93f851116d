"""How much memory one activation takes, beside the formula that promises it."""
