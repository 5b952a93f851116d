"""Builds the compiled codecs into this checkout, as an installation of the package does; ``--into`` names another
folder.

It is for work in a checkout that is not installed, after a change of a C file, and for the container image, where the
codecs have a layer of their own. pyproject.toml says, once for all these ways, how the code is compiled. Besides it
only the C sources are needed. A failure is an error here, while an installation continues without the codecs.
"""

import argparse
import os
import sys
import tempfile
import tomllib
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from setuptools import Distribution, Extension

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = Path("deca_node", "numerics", "codecs", "_codec")


def main() -> None:
    """Build, and print the path of the library."""
    parser = argparse.ArgumentParser(description="Build the compiled codecs.")
    parser.add_argument(
        "--into", type=Path, default=ROOT, help="folder in which to put deca_node/numerics/codecs/_codec..."
    )
    into = parser.parse_args().into.resolve()
    before = {path: path.stat().st_mtime_ns for path in libraries(into)}
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        build = Distribution({"ext_modules": [extension()]}).get_command_obj("build_ext")
        build.force, build.build_lib, build.build_temp = True, str(into), temporary
        build.ensure_finalized()
        build.run()
    built = [path for path in libraries(into) if path.stat().st_mtime_ns != before.get(path)]
    if not built:
        sys.exit("the compiled codecs could not be built; the compiler's output is above")
    print(built[0])


def extension() -> Extension:
    """The library as pyproject.toml describes it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (described,) = project["tool"]["setuptools"]["ext-modules"]
    return Extension(**{key.replace("-", "_"): value for key, value in described.items()})


def libraries(folder: Path) -> list[Path]:
    """The library's files in a folder, for all Pythons that could load them."""
    files = (folder / LIBRARY.with_name(LIBRARY.name + suffix) for suffix in EXTENSION_SUFFIXES)
    return [file for file in files if file.exists()]


if __name__ == "__main__":
    main()
