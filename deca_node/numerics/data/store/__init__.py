"""Tokens on disk: written once, mapped into memory, and kept until the data or the tokenizer change.

::

    DIR/tokens/KEY/             the data as tokens; KEY follows from all that they depend on
        ids trained             a number and a byte for each token, end to end
        starts texts learnt     for each record: where it begins, whether it is a text, how many tokens are learnt
        store.json              what is told of the data, and the sums of their files
    DIR/tokens/KEY.partial/     the same while it is written, and journal.json: how far it is whole

::

    key         what the tokens depend on, as one hash
    columns     arrays that grow, in memory or in files
    writing     records become columns; an interrupted writing goes on from its journal
    tokens      the data as a line of tokens: from their store, or read, tokenized and written to it
    mixture     several sources with weights
    scratch     arrays that may be larger than memory, and random orders
"""
