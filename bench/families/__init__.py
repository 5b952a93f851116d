"""All families of models that transformers knows as decoders or classifiers, each as a tiny random model.

::

    tiny      a small config for a family, by rules on the names of its settings
    trial     one family: made, loaded, cut into blocks, trained, saved, loaded again, its memory measured
    __main__  all of them, each in a process of its own; what was found before is kept
"""
