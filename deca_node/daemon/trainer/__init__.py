"""The trainer's process, seen from both of its ends.

::

    link       the daemon's end: start the processes, send commands, receive events, notice a death
    rank       one process as the daemon sees it: its socket, its exit code, what it says at its end
    borrowed   the same on another server of the party, which lends a device
    lending    that server's part
    boot       the first lines of the trainer's process: load the node's own package, whatever the search path says
    child      the trainer's end: obey one command at a time
    messages   commands and events as lines of JSON between the two
    arena      shared memory for frames, cut into slots, and the record of which frame is in which slot
"""
