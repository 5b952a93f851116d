"""HTTP: a port for reading, and a socket in the node's folder for its owner.

::

    server         probes, metrics and status, and the limits of a connection
    guard          who may read what on the port
    dashboard      the page at / and the data that it draws (dashboard.html, .js, .css)
    connections    how many connections there may be, and which one gives way to a newcomer
    admin_socket   the socket in the node's folder: all that the port gives, log lines, requests such as stop
    unix_socket    a Unix socket at a path of any length
    page_file      DIR/page.json: the page's last data, for a report after the node has ended
"""
