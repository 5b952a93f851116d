"""What one GPU says of this project, in one run of under ten minutes: ``bench/gpu.sh``.

::

    shapes   the configs of published models, and tiny ones of the same kinds for a dry run on a CPU
    parts    the codecs' kernels, single steps beside the plan and other methods, two ranks
    ranks    one node with one rank, and with two, from start to end

Every part uses what the other benches have: the tests and the bench of the codecs, the trials of :mod:`bench.trial`,
``deca-node plan`` and ``deca-node start``. Weights are random, so nothing is downloaded. After every part the results
are written, so that a machine that is taken away leaves those that are done.
"""
