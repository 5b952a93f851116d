"""Collects what a person needs to find a node's error into one file, without secrets.

The bundle has facts about things, not the things: the public part of certificates, the names and sizes of files, and
nothing of the data. Every text passes the scrubber (:mod:`deca_node.daemon.diagnosis.scrub`) first.
"""

import datetime as dt
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deca_node.daemon.diagnosis.scrub import Scrubber
from deca_node.protocol.errors import DecaError, StorageError
from deca_node.storage.folder import LOG, METRICS, SETTINGS
from deca_node.storage.jsons import UNFIT, parse
from deca_node.storage.manifest import DamagedError, checkpoints, read_manifest

METRICS_BYTES_MAX = 1 << 20
"""The bundle takes this much from the end of metrics.jsonl and of other files."""
ENTRIES_MAX = 10_000
"""The listing of the folder has at most this many entries."""
SECRET_BYTES_MAX = 1 << 20
KEPT_AS_IT_IS = ("run.json", "run.toml")
"""Files of the folder that go into the bundle after cleaning."""

README = """\
Collected by deca-node debug at {when}, to find an error of this node.

{contents}

Removed from these files: {removed}.
Never included: keys, tokens, records of the data, weights, the values of environment variables.
Included: names and addresses of members, paths of this machine, log lines. Look through the files before you send them.
"""


def collect(
    directory: Path, heard: Mapping[str, bytes], versions: Mapping[str, str]
) -> tuple[dict[str, bytes], Scrubber]:
    """The bundle's files by name, cleaned, and the scrubber, which has counted what it removed. ``heard`` holds the
    answers of the running node, by file name."""
    settings = _settings(directory)
    scrubber = Scrubber(secrets(directory, settings))
    texts = {name: content.decode(errors="replace") for name, content in heard.items()}
    texts["versions.json"] = _json(dict(versions))
    texts["machine.json"] = _json(_machine(directory))
    texts["listing.json"] = _json(list(_listing(directory)))
    texts["checkpoints.json"] = _json(list(_checkpoints(directory)))
    texts["certificates.json"] = _json(_certificates(settings))
    texts["metrics-tail.jsonl"] = _tail(directory / METRICS)
    texts["log-tail.jsonl"] = _tail(directory / LOG)
    for name in (SETTINGS, *KEPT_AS_IT_IS):
        if (directory / name).is_file():
            texts[name] = _tail(directory / name)
    cleaned = {name: scrubber.clean(text) for name, text in sorted(texts.items()) if text}
    cleaned["README.txt"] = _readme(cleaned, scrubber)
    return {name: text.encode() for name, text in cleaned.items()}, scrubber


def write_bundle(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into a new tar.gz that only this user may read. Raises StorageError."""
    folder, now = out.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz"), time.time()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now), 0o600
            tar.addfile(entry, io.BytesIO(content))
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(buffer.getvalue())
    except FileExistsError:
        raise StorageError(f"{out} exists already; give the name of a new file") from None
    except OSError as problem:
        raise StorageError(f"the bundle cannot be written to {out}: {problem.strerror}") from None


def secrets(directory: Path, settings: Mapping[str, Any]) -> Iterator[str]:
    """The secrets that this node's settings name, and all keys in the folders where keys usually are."""
    named = [_value(settings, name) for name in ("tls_key", "http_token", "ranks_secret")]
    folders = [directory, Path("deca-certs"), *(Path(path).parent for path in named if path)]
    paths = {Path(path) for path in named if path and path != "none"}
    paths |= {path for folder in folders if folder.is_dir() for path in folder.glob("*.key")}
    for path in sorted(paths):
        try:
            with path.open("rb") as file:
                yield file.read(SECRET_BYTES_MAX).decode(errors="replace").strip()
        except OSError:
            continue


# --- the bundle's files --------------------------------------------------------------------------------


def _readme(files: Mapping[str, str], scrubber: Scrubber) -> str:
    contents = "\n".join(f"{len(text.encode()):>10,}  {name}" for name, text in files.items())
    removed = ", ".join(f"{kind} ({count} times)" for kind, count in scrubber.removed.items()) or "nothing"
    when = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    return README.format(when=when, contents=contents, removed=removed)


def _settings(directory: Path) -> dict[str, Any]:
    try:
        return dict(parse((directory / SETTINGS).read_text(encoding="utf-8"))["node"])
    except (OSError, *UNFIT):
        return {}


def _value(settings: Mapping[str, Any], name: str) -> str:
    found = settings.get(name)
    return str(found.get("value", "")) if isinstance(found, dict) else ""


def _machine(directory: Path) -> dict[str, Any]:
    uname = os.uname()
    try:
        memory: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        disk: dict[str, int] | None = shutil.disk_usage(directory)._asdict()
    except (OSError, ValueError):
        memory = disk = None
    return {
        "system": f"{uname.sysname} {uname.release} {uname.machine}",
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "memory_bytes": memory,
        "disk_bytes": disk,
        "time": time.time(),
        "variables": sorted(name for name in os.environ if name.startswith("DECA_")),
    }


def _listing(directory: Path) -> Iterator[dict[str, Any]]:
    for number, path in enumerate(sorted(directory.rglob("*"))):
        if number >= ENTRIES_MAX:
            yield {"path": "...", "left_out": True}
            return
        try:
            facts = path.lstat()
        except OSError:
            continue
        kind = "folder" if path.is_dir() else "file"
        yield {
            "path": str(path.relative_to(directory)),
            "kind": kind,
            "bytes": facts.st_size,
            "modified": facts.st_mtime,
            "mode": f"{facts.st_mode & 0o7777:04o}",
        }


def _checkpoints(directory: Path) -> Iterator[dict[str, Any]]:
    for folder in checkpoints(directory):
        try:
            manifest = read_manifest(folder)
        except DamagedError as problem:
            yield {"checkpoint": folder.name, "damaged": str(problem)}
            continue
        yield {
            "checkpoint": folder.name,
            "fingerprint": manifest.agreement.fingerprint,
            "written": manifest.written,
            "blocks": {name: block.activation for name, block in manifest.blocks.items()},
            "active": manifest.active.block if manifest.active else None,
        }


def _certificates(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The public facts of the node's certificate and of its authorities."""
    from deca_node.daemon.security import certificates as certs
    from deca_node.daemon.security.enrolment import node_files

    usual = node_files(Path("deca-certs"), _value(settings, "name") or "NAME")
    found: dict[str, Any] = {}
    for what, given, otherwise in (
        ("certificate", _value(settings, "tls_cert"), usual.cert),
        ("authorities", _value(settings, "tls_ca"), usual.ca),
    ):
        path = Path(given) if given else otherwise
        try:
            chain = certs.read_certificates(path)
        except DecaError as problem:
            found[what] = {"path": str(path), "problem": str(problem)}
            continue
        found[what] = {"path": str(path), "chain": [_public_facts(each) for each in chain]}
    return found


def _public_facts(certificate: Any) -> dict[str, str]:
    from deca_node.daemon.security import certificates as certs

    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "valid_from": certs.stamp(certificate.not_valid_before_utc),
        "valid_until": certs.stamp(certificate.not_valid_after_utc),
        "fingerprint": f"sha256:{certs.fingerprint_of(certificate)}",
    }


def _tail(path: Path) -> str:
    """The last complete lines of a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - METRICS_BYTES_MAX, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text if size <= METRICS_BYTES_MAX else text.partition("\n")[2]


def _json(fact: Any) -> str:
    return json.dumps(fact, indent=1) + "\n"
