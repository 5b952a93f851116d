"""The verbs of ``deca-node``, one module each.

::

    init        run.toml, node.toml and peers.txt, from flags or a few questions
    start       run this machine's node
    lend        lend this server's devices to the node of the same party on another server
    join        the same, with the run's settings taken from a member
    status      where the node stands
    top         the peers, live
    members     who takes part in the run
    events      the newest log lines of a running node
    logs        the log file, of a running or an ended node
    requests    pause, resume, checkpoint, stop and leave: requests that the node answers with a sentence
    export      a node's model as a Hugging Face checkpoint, or the mean of several members' copies
    push        the tuned model to the Hugging Face hub, with a model card
    eval        loss, perplexity and accuracy of a model on a file of records
    generate    what the tuned model writes after a prompt, beside the start model
    chat        a conversation with both
    writing     `generate` and `chat`: the models that are asked, and the flags they share
    report      how a run went, as one HTML page
    demo        several nodes on this machine
    testbed     ``demo --testbed``: four nodes that stay until Ctrl-C
    data        what is learnt of a file of records, before a start
    doctor      checks before a start
    plan        memory, bytes and time of a run, before it starts
    cert        certificates: its seven verbs are steps of one procedure
    config      the settings, and where each value comes from
    debug       the files that an error report needs
    completion  completion of verbs and flags in the shell
    version     installed versions
"""
