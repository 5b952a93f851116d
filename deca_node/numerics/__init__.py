"""Everything a node computes: torch and transformers, without network, processes or asyncio.

::

    trainer    obeys the protocol's commands and answers with events
    pace       how long a gradient step takes on this machine, tried before a run
    gradient   where the gradient of a step comes from
    saving/    checkpoints, exports and other files that hold tensors
    engine     one activation of one block, from thaw to freeze
    ranks/     one trainer on several devices: ranks that share every batch
    forecast/  what a run would need, found without loading weights
    exchange/  public copies and edges: updates out, flows in
    learning/  losses, private gradients, evaluation
    codecs/    float32 numbers to bytes and back
    data/      files of records to batches of tokens
    deca       the equations of the method
    device     the torch devices that settings name
    model/     Hugging Face folders in and out; the parameters cut into blocks
"""
