"""Finding out what is wrong: checks before a start, and the bundle for an error report.

::

    findings    the result of one check, as a value
    preflight   checks of this machine: folder, disk, ports, clock
    probe       checks of a peer: name, connection, TLS, greeting
    reach       which pairs will need a relay, by what running members say
    bundle      the files that `deca-node debug` collects
    scrub       removes secrets from text
"""
