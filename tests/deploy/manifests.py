"""Manifests as plain objects: how they are rendered, and how one point in them is found or taken out.

A point is named by a path, in which ``name=node`` picks from a list the object whose ``name`` is ``node``, a number
picks by position, and any other word picks from a list of strings the one that is equal; ``~`` stands for a slash
within a word::

    spec/template/spec/containers/name=node/args/--dir=~var~lib~deca
"""

import copy
import functools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = tuple(sorted(folder.name for folder in (DEPLOY / "overlays").iterdir()))
KUBECTL = shutil.which("kubectl")

Object = dict[str, Any]
MISSING: Any = object()


@functools.cache
def _rendered(overlay: str) -> tuple[Object, ...]:
    return tuple(render(DEPLOY / "overlays" / overlay))


def render(folder: Path) -> list[Object]:
    """All objects that `kubectl kustomize` makes of a folder."""
    done = subprocess.run([str(KUBECTL), "kustomize", str(folder)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def copy_of_deploy(folder: Path) -> Path:
    """A copy of ``deploy/`` in this folder, to be changed."""
    return Path(shutil.copytree(DEPLOY, folder / "deploy"))


def rendered(overlay: str) -> list[Object]:
    """All objects of an overlay, as `kubectl kustomize` prints them."""
    return copy.deepcopy(list(_rendered(overlay)))


def base_files() -> list[Object]:
    """All objects of the base as they are written: nothing there needs a renderer."""
    listed = yaml.safe_load((DEPLOY / "base" / "kustomization.yaml").read_text())["resources"]
    return [each for name in listed for each in yaml.safe_load_all((DEPLOY / "base" / name).read_text())]


def get(objects: Sequence[Object], target: str) -> Object:
    """The object KIND/NAME; an empty one where there is none."""
    kind, name = target.split("/")
    return next((o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name), {})


def find(thing: Any, path: str) -> Any:
    """What stands at ``path``, or MISSING."""
    for part in path.split("/"):
        key = _key(thing, part)
        if key is None:
            return MISSING
        thing = thing[key]
    return thing


def without(objects: Sequence[Object], target: str, path: str) -> list[Object]:
    """The same objects without what stands at ``path`` of one of them."""
    changed = copy.deepcopy(list(objects))
    *above, last = path.split("/")
    parent = find(get(changed, target), "/".join(above)) if above else get(changed, target)
    key = _key(parent, last)
    assert key is not None, f"{target} has no {path}"
    del parent[key]
    return changed


def pods(objects: Sequence[Object]) -> Iterator[Object]:
    """The pod templates' specs."""
    for each in objects:
        if each["kind"] in {"StatefulSet", "Deployment", "Job"}:
            yield each["spec"]["template"]["spec"]
        elif each["kind"] == "Pod":
            yield each["spec"]


def containers(objects: Sequence[Object]) -> Iterator[Object]:
    """Every container of every pod, initial ones included."""
    for pod in pods(objects):
        yield from (*pod.get("initContainers", ()), *pod["containers"])


def _key(thing: Any, part: str) -> Any:
    """By which key or index ``part`` picks; None where it picks nothing."""
    if isinstance(thing, dict):
        return next((key for key in thing if _spelt(key) == part), None)
    if not isinstance(thing, list):
        return None
    field, _, value = part.partition("=")
    named = [i for i, each in enumerate(thing) if isinstance(each, dict) and _spelt(each.get(field)) == value]
    equal = [i for i, each in enumerate(thing) if _spelt(each) == part]
    by_number = [int(part)] if part.isdigit() and int(part) < len(thing) else []
    return next(iter(named + equal + by_number), None)


def _spelt(word: Any) -> str:
    return str(word).replace("/", "~")
