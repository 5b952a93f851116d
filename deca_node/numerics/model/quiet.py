"""Keeps the transformers library's own output off the terminal. The node reports what matters in its own words."""

import contextlib
from collections.abc import Iterator

from transformers import logging as transformers_logging


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn transformers' progress bars and log messages off; both are as before afterwards."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
