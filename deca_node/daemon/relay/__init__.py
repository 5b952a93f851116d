"""Relayed connections, for two members of which neither can dial the other.

::

    carrier     the member in the middle: joins two streams, and passes bytes on
    detours     the two ends: who waits where, and who calls through which member
    bridge      an end's TCP connection to its own node, passed through a stream
    survey      what a running member tells `deca-node doctor` of connections
    messages    the messages of these streams
"""
