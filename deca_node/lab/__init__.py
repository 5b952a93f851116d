"""Runs made for watching, reporting and testing: everything here starts or imitates nodes, and no node needs it.

::

    demo/      `deca-node demo` and `deca-node testbed`, with the model and the texts that they train
    report/    HTML reports of runs
    sim/       clusters and swarms on one thread, with a fake clock and a fake network
    rigs/      real nodes, a bad link and a browser, for demonstrations, tests and measurements
"""
