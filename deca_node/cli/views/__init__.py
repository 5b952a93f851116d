"""What the verbs print.

::

    status     a node's status and its members, for ``status`` and ``members``
    top        the table of ``top``
    rates      the rows of that table: bytes per second between two looks, and the order of the rows
    data       records as tokens, and the figures of a file, for ``data``
    plan       a plan as tables and as JSON
    advice     the one change that would help a plan most
    progress   a progress bar, and notes beside the answer
    console    the console for facts: as wide as the terminal, and without line breaks in a pipe
    text       printable names, durations and sizes
"""
