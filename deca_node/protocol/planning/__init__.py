"""What a run costs, computed before it starts.

::

    case        the inputs of a plan: settings, model, members, machine
    traffic     bytes on the wire
    memory      memory of a node while a block is active
    duration    seconds of compute and transfer
    disk        bytes in a node's folder
    units       bytes and seconds as text
"""
