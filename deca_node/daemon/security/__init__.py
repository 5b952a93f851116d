"""Who a peer is, and whether it is welcome: certificates, how a node gets one, and the lists.

::

    security        the node's security as a whole, made from its settings
    certificates    reads and checks certificates and keys
    authority       the federation's own authority: approves requests
    enrolment       the node's side: asks for a certificate and installs it
    credentials     the certificate in use, read again whenever its files change
    doorman         compares the name in a Hello with the caller's certificate and with the lists
    tls_only_13     no connection of this process agrees to TLS 1.2
"""
