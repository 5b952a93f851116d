"""What all nodes of a run must have in common, and what follows from it.

::

    settings     how a setting is declared: default, help, unit and limits in one place
    run          the settings of a run (run.toml)
    agreement    what two nodes compare when they meet; the fingerprint of a run
    schedule     which block is trained when; steps, activations and ordinals
    frames       names and sizes of what travels
    topology     the graph of neighbours
    weights      mixing weights, and how fast a graph comes to agree
"""
