"""The rules of a run, as pure functions and state machines.

Nothing here reads a clock, a file or a socket, and nothing imports torch. Facts come in as events, commands go out, and
the caller performs the commands. So the same code runs in production, in readable transcripts and in a seeded cluster
under a fake clock.

::

    node/          the state machine of one node: events in, commands out
    visit/         one visit of a block: edges, frames, waits
    membership/    which nodes take part: SWIM with Lifeguard
    planning/      what a run costs: bytes, memory, time, disk
    agreed/        what all nodes must have in common: settings, schedule, graph, weights, frames
    events         what happened
    commands       what the node asks for
    options        the options of a trainer
    quarantine     peers that are shut out for a while after repeated offences
    refusals       the table of all reasons for refusals
    errors         the errors that a person can act on, each with its exit code
    transitions    state machines as tables, from which the code runs and the pictures are drawn
"""
