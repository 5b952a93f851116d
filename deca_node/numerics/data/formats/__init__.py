"""From files to objects and texts, in every format that the node reads. No tokens and no torch.

::

    folders     which files of a folder are taken, and which are left out and why
    opening     compression and encoding: from a file to lines or to one text, as UTF-8
    lines       JSON Lines and JSON arrays
    tables      CSV and TSV
    columnar    Parquet and Arrow
    hub         data sets of the Hugging Face hub
    entries     the format of a file, by its name or as the settings say; its objects and texts, each with its source
    shapes      Alpaca and ShareGPT become chats; columns get the names that records have
    sources     where a record stands, what becomes of bad ones, and what the node tells about its files
    values      the types of JSON values, for error sentences
"""
