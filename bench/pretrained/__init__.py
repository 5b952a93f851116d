"""The same questions as in :mod:`bench.convergence`, on pretrained models, real labelled text and today's baselines.

::

    packages  models and texts out of package managers, checked by their hashes, in a cache of the user
    texts     sentences with their labels and domains -> tasks  each node's records, by label or by domain
    start     the start model: MiniLM with a head that is fitted on texts that no node holds
    methods   one cell: every node has the model itself, and the node's own engine does all that follows a gradient
    tables    lines of JSON -> tables and verdicts in docs/RESULTS.md -> overview  the tables over all tasks

Cells, tuning and comparisons are those of :mod:`bench.convergence`. ``python -m bench.pretrained`` continues where it
was stopped. Every finished cell is a line in ``bench/results/pretrained`` and does not run again.
"""
