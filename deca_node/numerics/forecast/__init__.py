"""Before the start: what a run would need, and what is wrong with its model and data. No weights are read here.

::

    shapes        a model's blocks and sizes from its config.json alone
    tracing       the memory of activations, by a step without storage
    parallel      whether the ranks of a trainer share a batch only, or the model as well
    guesses       answers for architectures that ask for numbers in such a step
    fitting       what the weight files hold, in words, and how much memory is free
    data_check    a look through the data: records by kind, and the bad ones
    record_check  the first records as the tokenizer reads them
    survey        the data with the tokenizer: what is learnt of it, and what is lost on the way to sequences
    surveyed      what that found
    spelling      tokens as texts that a person can read
"""
