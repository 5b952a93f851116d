"""A node whose connections go through the proxy that the environment names. Nodes ignore such proxies; the tests use
them to part networks without any privilege.

Python imports this module at its start where its folder is on PYTHONPATH.
"""

import sys

if "deca_node" in sys.orig_argv:
    from deca_node.daemon.wire import endpoint

    ignored = {name for name, _ in endpoint.DIRECT}
    endpoint.CHANNEL_OPTIONS = [option for option in endpoint.CHANNEL_OPTIONS if option[0] not in ignored]
