"""Faults that are planted in the core on purpose, to see whether storms find them.

::

    python -m tests.lab.planted                     every fault, at most 500 storms each
    python -m tests.lab.planted --fault NAME --storms 50
    faults      the faults: a text of a module, and what it is replaced by
    planting    a process that imports the module with the other text
"""
