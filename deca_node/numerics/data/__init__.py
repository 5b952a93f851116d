"""The node's own data: from files to batches of tokens. No torch before the last step, and no model at all.
The room ``formats`` below knows the formats of files, and the room ``store`` keeps tokens on disk.

::

    files       a file or folder becomes records, by a reader that knows what an object means; what is told about files
    records     an object becomes a text, a prompt with its completion, or a chat
    chats       a chat becomes text, by the chat template, and where its learnt turns are
    templates   a chat template of the node's own, in place of the tokenizer's
    tokenizing  a record becomes tokens that know whether they are learnt
    lengths     records that are longer than a sequence: divided, truncated or left out, and counted
    choice      which records are held out, by their content; the first start of a node chooses
    holdout     which tokens are held out, by the places of records: the rule of earlier releases
    packing     how records are laid into sequences
    sequences   sequences as lists of pieces of one line of tokens
    dataset     all of this, from a path to two sets of sequences
    labelled    the same for labelled records, which are not packed
    batches     sequences or labelled records become batches, in an order that can be gone on with after a restart
"""
