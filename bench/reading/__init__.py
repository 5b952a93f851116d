"""How fast data become tokens, and in how much memory.

::

    corpus    text of any size, a tokenizer made for it, and a tiny model
    trial     one way to read, in a process of its own
    large     a node on more data than its memory: it starts, is killed, goes on, trains, and starts again
"""
