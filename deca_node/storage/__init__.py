"""Files: what makes them durable, how they are laid out, and how they are read back. No torch, no network.

::

    durable       files and folders that are whole or absent after a crash
    folder        the node's own folder: its lock, run.json, and what is in it
    best          the best model of a run that may stop early, and its candidates
    manifest      checkpoints: which files each one names, and which checkpoint a start may use
    log_parts     the node's log file in parts: moving them along, and reading them in order
    compiled      the shared library of compiled C code: finding it, and loading it
    model_files   the headers of a Hugging Face folder's weight files
    data_sources  the sources that the setting `data` names, with weights
    jsons         JSON from outside: one error type for everything that can be wrong with it
"""
