"""What a run costs, computed before it starts.

::

    case        the inputs of a plan: settings, model, members, machine
    traffic     bytes on the wire
    memory      memory of a node while a block is active
    duration    seconds of compute and transfer
    length      rounds and steps that fit a time
    disk        bytes in a node's folder
    units       bytes and seconds as text
"""
