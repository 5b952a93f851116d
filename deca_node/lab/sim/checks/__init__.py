"""What must hold in a cluster, whatever befalls it.

::

    audit       the sum over all copies, which must add up
    dense       the production exchange beside a dense reference of every number
    witness     what each node was told, and whether it acts on it: edges, weights, waits, memory
    endings     how a run ends: exit codes, agreement, time
"""
