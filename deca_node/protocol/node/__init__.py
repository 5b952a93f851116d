"""One node of a run as a state machine: facts go in, commands come out.

::

    node          the machine: what the node does about every event
    phases        the phases of a node, and the table of what leads from one to another
    state         what a node remembers, and what it shows to others
    roster        the members: who takes part, who has a live stream, where each peer stands
    visits        which visit a message belongs to; offers that came early
    catching_up   how a node that was away takes over what the others did meanwhile
    gathering    which members a node waits for before it trains, and whose refusals end it
    stopping      how the members stop a run early together: losses told, one announcement, one visit
    ending        how a node ends: stopped, failed, or with the run complete
"""
