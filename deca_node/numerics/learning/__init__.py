"""Learning: the loss and its gradient, what differs between the tasks, and how good a model is.

::

    loss        the mean negative log-likelihood of a batch: backward passes, and judging without them
    chunked     the loss of long batches and large vocabularies, some tokens at a time
    isolation   how records in one row are kept from seeing each other, by what the model can do
    tasks       what differs between the tasks: which data is read, and how a model is judged on it
    prepared    the start model, loaded and made ready to be trained
    decay       which parameters decay under weight_decay
    noise       noise on the embeddings of a batch while it is learnt
    dropout     the run's own probability of dropout, in place of the model's
    privacy     differentially private gradients, and the books of what they have cost
    writing     the text that a model writes: a continuation, or an answer in a chat
    evaluation  any checkpoint measured on any file of records
    result      what an evaluation found (no torch)
"""
