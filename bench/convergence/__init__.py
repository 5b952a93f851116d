"""Joint tuning against tuning alone, full parameters against LoRA, and the worth of signals: methods x seeds x
settings.

::

    corpora  text of installed packages, split into domains -> tasks  each node's sequences, Dirichlet(0.25)
    cells    one method, one seed, one setting              -> runs   all nodes, step by step -> a line of JSON
    tuning   the step size of every method, on other seeds and other text
    tables   lines of JSON -> tables, curves, verdicts

``python -m bench.convergence`` continues where it was stopped. Every finished cell is a line in
``bench/results/convergence`` and does not run again.
"""
