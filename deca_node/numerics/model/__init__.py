"""The model: read from a Hugging Face folder, cut into blocks, and written as a Hugging Face folder again.

::

    load        a folder or hub id becomes a model and its tokenizer
    save        a model and its tokenizer become a folder, whole or not at all
    facts       size, identity (hash) and longest sequence of a model
    limits      what a config.json may describe before anything is built from it
    classifier  what a classifier needs beside weights: labels, a head, padding
    reach       which parameters text reaches, and which stay frozen
    blocks      the parameters cut into blocks; the active block as one flat vector
    values      each parameter whole when it is asked for, also of a model that is sharded over ranks
    attention   which implementation of attention a model is loaded with
    stored      compares the files' headers with the model of config.json, before a weight is read
    beside      what the files hold beside the model, and where it goes
    quiet       turns the output of transformers off
"""
