"""A demonstration on one machine, made from nothing.

::

    demo         the course of `deca-node demo`: each node alone, then all together, then the report
    testbed      the four nodes of `deca-node testbed`
    inputs       writes the model and the private records of a testbed
    toy_model    the small language model
    texts        the texts: packages of Python's standard library
    live         one line per node while they train
"""
