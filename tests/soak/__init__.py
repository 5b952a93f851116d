"""``make soak MINUTES=60``: four real nodes for a long time under everything that happens to nodes.

::

    schedule   what happens when, drawn from a seed
    world      the nodes, their network, their certificates, and what can be done to them
    figures    what came of it, and which promises were broken
    run        an undisturbed run, then the same run under the schedule
"""
