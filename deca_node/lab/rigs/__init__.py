"""Real processes and sockets for demonstrations, tests and measurements.

::

    processes    `deca-node start` as child processes
    proxy        a TCP proxy that slows or cuts a link
    browser      a headless Chromium
"""
