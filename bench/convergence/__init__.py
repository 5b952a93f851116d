"""Does joint tuning beat tuning alone, full parameters beat LoRA, and signals pay? Methods x seeds x settings.

::

    corpora  text of installed packages, split into domains -> tasks  each node's sequences, Dirichlet(0.25)
    cells    one method, one seed, one setting              -> runs   all nodes, step by step -> a line of JSON
    tuning   the step size of every method, on other seeds and other text
    tables   lines of JSON -> tables, curves, verdicts

``python -m bench.convergence`` goes on where it was stopped: every cell that is done is a line in
``bench/results/convergence``, and is not done again.
"""
