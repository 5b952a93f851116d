"""A demonstration on one machine. It downloads nothing: the model and the texts are made from Python's standard
library.

::

    demo         `deca-node demo`: trains each node alone, then all together, and writes a report
    testbed      the four nodes of `deca-node testbed`
    inputs       the model and the private records of a testbed
    toy_model    the small language model
    texts        the texts: packages of Python's standard library
"""
