"""The command ``deca-node``.

::

    main         finds the verb, and turns every error into a sentence and an exit code
    verb_table   the verbs, each with its sentence in ``deca-node --help``
    verbs/       what each verb does
    views/       what verbs print
    checks/      what ``deca-node doctor`` looks at
    hints        the right word where a person typed a wrong one
    missing      everything that a start lacks, named at once
    client       which node is meant: the flag ``--dir``
    options      every setting as a flag
    data_options  the flags of verbs that read records without a node
    variables    an environment variable for every flag
    reference    the settings as a commented file and as a table for the documentation
    invocation   the flag ``--debug``, which every verb takes
"""
