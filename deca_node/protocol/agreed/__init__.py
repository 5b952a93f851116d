"""What all nodes of a run must have in common, and what follows from it.

::

    settings     how a setting is declared: default, help, unit and limits in one place
    run          the settings of a run (run.toml)
    combinations settings that make no sense together
    agreement    the agreement that two nodes compare when they meet; the fingerprint of a run
    identity     which run a node takes part in, as far as the node knows it from its start
    schedule     the order of the blocks; steps, activations and ordinals
    stopping     when a run stops early: the rule by which the members judge their held-out losses
    frames       names and sizes of frames and block versions
    topology     the graph of neighbours
    weights      mixing weights, and how fast a graph reaches agreement
"""
