"""HTML reports, each one file that loads nothing from the network.

::

    report         the report of a demo
    run_report     the report of a run, from the folders of its nodes
    page_report    a node's own page as it last stood
    model_card     the model card for `deca-node push`
    result         what a run's losses say about joint tuning
    figures        the charts
    metrics        reads metrics.jsonl
"""
