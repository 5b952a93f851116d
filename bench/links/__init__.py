"""Does the exchange hide behind compute on an ordinary line? ``python -m bench.links`` (Linux, as root)."""
