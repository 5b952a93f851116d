"""The rules of a run, as pure functions and one state machine.

Nothing here reads a clock, a file or a socket, and nothing imports torch: facts come in as events,
commands go out, and whoever holds the core performs them. That is why the same code runs in
production, in readable transcripts and in a seeded cluster under a fake clock.
"""
