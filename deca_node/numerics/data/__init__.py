"""The node's own data: from files to batches of tokens. No torch before the last step, and no model at all.

::

    files       a file or folder becomes JSON objects and texts; encodings and broken files
    records     an object becomes a text, a prompt with its completion, or a chat
    tokenizing  a record becomes tokens that know whether they are learnt
    packing     records become sequences; a share of them is held out
    labelled    the same for labelled records, which are not packed
    batches     sequences or labelled records become batches, in an order that can be gone on with after a restart
"""
