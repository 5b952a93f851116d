"""How long a test waits before it fails: one number, so large that a slow or busy machine is no reason to fail.

A test that passes does not wait for it; only one that would never pass does.
"""

PATIENCE_SECONDS = 900.0
