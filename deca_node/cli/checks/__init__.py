"""The checks that ``deca-node doctor`` makes before a start.

::

    checkup    the list of checks: their order, and which check needs which
    known      the facts that checks hand on to later checks
    settings   settings, certificates and the peers file
    machine    the node's folder, its ports, the environment, the disk and the clock
    data       the records
    model      the model's shape, the memory it needs, and loading it on trial
    ranks      the processes of a trainer on several devices find each other
    peers      every peer is called and greeted
"""
