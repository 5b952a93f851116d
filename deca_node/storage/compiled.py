"""The shared library of compiled C code: finding it, and loading it. Nothing here needs torch.

Installing the package builds the library where there is a C compiler, and goes on without it where there is none;
``tools/build_native.py`` builds it into a checkout. It is plain C and knows no Python. setuptools builds it like an
extension module, so the import system knows its file, but ctypes loads and calls it. A ctypes call lets other threads
run meanwhile. Two modules call it: :mod:`deca_node.numerics.codecs.native` and
:mod:`deca_node.daemon.wire.checked_copy`.
"""

import ctypes
import os
import warnings
from importlib.util import find_spec

LIBRARY = "deca_node.numerics.codecs._codec"
"""The name under which the import system finds the library's file."""

INTERFACE = 3
"""What ``deca_codec_interface()`` returns in a library that fits this version of the package."""


def load(path: str) -> ctypes.CDLL:
    """Load a library. Raises OSError if it cannot be loaded, or was built from another version of the C code."""
    library = ctypes.CDLL(path)
    found = library.deca_codec_interface()
    if found != INTERFACE:
        raise OSError(f"{path} has interface {found}, not {INTERFACE}")
    return library


def load_built() -> ctypes.CDLL | None:
    """Load the library that was built with the package; None if there is none, or if ``DECA_NATIVE=0`` turns it off.

    A library that does not fit is left out with a warning.
    """
    spec = None if os.environ.get("DECA_NATIVE") == "0" else find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        return None
    try:
        return load(spec.origin)
    except OSError as error:
        warnings.warn(f"codecs run in torch, several times slower: {error}; build it again", stacklevel=2)
        return None
