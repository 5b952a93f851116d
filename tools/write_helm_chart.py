"""Write the Helm chart ``deploy/helm`` from the files of kustomize: the base, and the components as switches.

::

    base            ->  the templates
    components/gpu  ->  {{ if .Values.gpu.enabled }} around what its patch adds or changes, and so on for each component

The files of kustomize stay the only source. A value of the chart replaces a word of theirs (:data:`WORDS`), or stands
at a path in them (:data:`PLACES`). ``--check`` only says whether the chart is fresh.
"""

import argparse
import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm"
HEAD = "# Made by tools/write_helm_chart.py from deploy/base and deploy/components; change those and run `make docs`.\n"

COMPONENTS = {
    "gpu": ".Values.gpu.enabled",
    "cert-manager": ".Values.certificates.certManager",
    "dashboard": ".Values.dashboard.enabled",
    "monitoring": ".Values.monitoring.enabled",
    "ingress": ".Values.ingress.enabled",
}
"""Each component and the condition under which it is part of the release."""

WORDS = {
    "deca-run-first": "deca-run-{{ .Values.run.name }}",
    "/var/lib/deca/first": "/var/lib/deca/{{ .Values.run.name }}",
    "--model=/inputs/model": "--model={{ .Values.model }}",
    "--data=/inputs/data/$(POD_NAME).jsonl": "--data={{ .Values.data }}",
    "deca-certificates": "{{ .Values.certificates.secret }}",
    "deca-http-token": "{{ .Values.dashboard.tokenSecret }}",
    "deca-page-tls": "{{ .Values.ingress.tlsSecret }}",
}
"""Whole words of the manifests, and what stands for them in templates."""

IMAGE = (
    '"{{ .Values.image.repository }}:{{ if .Values.gpu.enabled }}{{ .Values.gpu.tag }}'
    '{{ else }}{{ .Values.image.tag }}{{ end }}"'
)


NEEDS = (
    "{{- if not .Values.dashboard.enabled }}"
    '{{ fail "ingress.enabled shows the dashboard: set dashboard.enabled too" }}'
    "{{- end }}\n"
)


@dataclass(frozen=True)
class Template:
    """Text that goes into a template as it is; ``lines`` stands on lines of its own below its key."""

    text: str = ""
    lines: str = ""


@dataclass(frozen=True)
class When:
    """A value that is there under a condition, and else ``otherwise``."""

    condition: str
    value: Any = None
    otherwise: Any = None


PLACES: dict[str, dict[str, Any]] = {
    "StatefulSet/deca": {
        "spec/replicas": When('not (kindIs "invalid" .Values.replicas)', Template("{{ int .Values.replicas }}")),
        "spec/template/spec/containers/node/env/DECA_WAIT_FOR/value": Template("{{ .Values.waitFor | quote }}"),
        "spec/template/spec/volumes/inputs/persistentVolumeClaim/claimName": Template("{{ .Values.inputsClaim }}"),
        "spec/template/spec/runtimeClassName": When(
            "and .Values.gpu.enabled .Values.gpu.runtimeClassName", Template("{{ .Values.gpu.runtimeClassName }}")
        ),
        "spec/volumeClaimTemplates/0/spec/resources/requests/storage": Template("{{ .Values.storage.size }}"),
        "spec/volumeClaimTemplates/0/spec/storageClassName": When(
            ".Values.storage.className", Template("{{ .Values.storage.className }}")
        ),
    },
    "Ingress/deca-page": {
        "spec/ingressClassName": When(".Values.ingress.className", Template("{{ .Values.ingress.className }}")),
        "spec/rules/0/host": Template("{{ .Values.ingress.host }}"),
        "spec/tls/0/hosts/0": Template("{{ .Values.ingress.host }}"),
    },
    "NetworkPolicy/deca-page": {
        "spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~metadata.name": Template(
            "{{ .Values.ingress.controllerNamespace }}"
        ),
    },
    "NetworkPolicy/deca-metrics": {
        "spec/ingress/0/from/0/namespaceSelector/matchLabels/kubernetes.io~metadata.name": Template(
            "{{ .Values.monitoring.namespace }}"
        ),
    },
}
"""Values at places of an object; a list's members are found by name or by number."""


def main() -> int:
    """Write the chart, or check it; returns 1 if it is not fresh."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the chart is not fresh")
    made = chart()
    if parser.parse_args().check:
        return check(made)
    for name in _there().keys() - made.keys():
        (CHART / name).unlink()
    for name, text in made.items():
        (CHART / name).parent.mkdir(parents=True, exist_ok=True)
        (CHART / name).write_text(text)
    return 0


def check(made: Mapping[str, str]) -> int:
    """Compare the chart on disk; 1 if a file differs, lacks or is too many."""
    there = _there()
    differ = sorted(name for name in there.keys() | made.keys() if there.get(name) != made.get(name))
    if differ:
        print(f"deploy/helm is not fresh ({', '.join(differ)}): run make docs", file=sys.stderr)
    return int(bool(differ))


def _there() -> dict[str, str]:
    """The chart's files on disk, without the dashboard, which tools/write_monitoring.py writes."""
    files = (path for path in CHART.rglob("*") if path.is_file() and path.name != "dashboard.json")
    return {str(path.relative_to(CHART)): path.read_text() for path in files}


def chart() -> dict[str, str]:
    """Every file of the chart by its path."""
    templates = {f"templates/{name}": HEAD + "".join(parts) for name, parts in _templates().items()}
    own = {"Chart.yaml": HEAD + _chart_file(), "values.yaml": HEAD + _values()}
    return own | templates


# --- the templates -----------------------------------------------------------------------------------


def _templates() -> dict[str, list[str]]:
    """The documents of each template."""
    made: dict[str, list[str]] = {"run.yaml": [_document(_run())]}
    for name in _kustomization("base")["resources"]:
        if name != "namespace.yaml":  # a release has the namespace that `helm --namespace` names
            made[name] = [_document(_with_patches(each)) for each in _load(DEPLOY / "base" / name)]
    for part, condition in COMPONENTS.items():
        for name in _kustomization(f"components/{part}").get("resources", ()):
            documents = _certificates(name) if part == "cert-manager" else _resources(part, name)
            needed = NEEDS if part == "ingress" and name == "ingress.yaml" else ""
            made[f"{part}-{name}"] = ["{{- if " + condition + " }}\n", needed, *documents, "{{- end }}\n"]
    dashboard = _dashboard_map()
    made["monitoring-dashboard.yaml"] = ["{{- if .Values.monitoring.enabled }}\n", dashboard, "{{- end }}\n"]
    return made


def _with_patches(each: Any) -> Any:
    """An object of the base with the patches of all components, each under its condition."""
    for part, condition in COMPONENTS.items():
        for patch in _patches(part):
            each = merged(each, patch, condition) if _target(patch) == _target(each) else each
    return each


def _resources(part: str, name: str) -> list[str]:
    return [_document(each) for each in _load(DEPLOY / "components" / part / name)]


def _certificates(name: str) -> list[str]:
    """The authority's objects once, and a node's certificate as often as the values say."""
    objects = _load(DEPLOY / "components" / "cert-manager" / name)
    nodes = [each for each in objects if _target(each).startswith("Certificate/deca-") and "isCA" not in each["spec"]]
    first = _text(nodes[0])
    if any(_text(each) != first.replace("deca-0", f"deca-{number}") for number, each in enumerate(nodes)):
        raise SystemExit("the certificates of the nodes differ in more than their numbers")
    once = [_document(each) for each in objects if each not in nodes]
    each = _document(nodes[0]).replace("deca-0", "deca-{{ $number }}").replace(".Values", "$.Values")
    loop = "{{- range $number := until (int .Values.certificates.count) }}\n" + each + "{{- end }}\n"
    return [text.replace("deca.example", "{{ $.Values.certificates.federation }}") for text in [*once, loop]]


def _run() -> Any:
    made = _config_map("deca-run-first", {"run.toml": Template(lines="{{ .Values.run.settings | nindent 4 }}")})
    return made | {"immutable": True}


def _dashboard_map() -> str:
    (wanted,) = _kustomization("components/monitoring")["configMapGenerator"]
    ((key, _, file),) = (entry.partition("=") for entry in wanted["files"])
    made = _config_map(wanted["name"], {key: Template(lines='{{ .Files.Get "' + file + '" | nindent 4 }}')})
    made["metadata"]["labels"] = wanted["options"]["labels"]
    return _document(made)


def _config_map(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def merged(base: Any, patch: Any, condition: str) -> Any:
    """A strategic merge under a condition: members of a list are matched by name; null takes a key away."""
    if isinstance(base, dict) and isinstance(patch, dict):
        result = dict(base)
        for key, value in patch.items():
            if value is None:
                result[key] = When(f"not {condition}", base[key])
            elif key not in base:
                result[key] = When(condition, value)
            else:
                result[key] = merged(base[key], value, condition)
        return result
    if isinstance(base, list) and isinstance(patch, list):
        result_list, places = list(base), {_name(each): at for at, each in enumerate(base)}
        for each in patch:
            if _name(each) in places:
                at = places[_name(each)]
                result_list[at] = merged(base[at], each, condition)
            else:
                result_list.append(When(condition, each))
        return result_list
    return base if base == patch else When(condition, patch, base)


def _name(member: Any) -> Any:
    return _name(member.value) if isinstance(member, When) else member["name"]


def _place(thing: Any, path: list[str], value: Any) -> None:
    """Set ``value`` at a path."""
    head, *rest = path
    key: Any = head.replace("~", "/")
    if isinstance(thing, list):
        key = int(head) if head.isdigit() else next(at for at, each in enumerate(thing) if _name(each) == head)
    if rest:
        _place(thing[key], rest, value)
    else:
        thing[key] = value


# --- text --------------------------------------------------------------------------------------------


def _document(each: Any) -> str:
    each = copy.deepcopy(each)
    for path, value in PLACES.get(_target(each), {}).items():
        _place(each, path.split("/"), value)
    return "---\n" + _text(each)


def _text(each: Any) -> str:
    return "".join(f"{line}\n" for line in _lines(each, 0))


def _lines(thing: Any, indent: int) -> Iterator[str]:
    """A mapping or a list as lines of a template."""
    pad = " " * indent
    entries = thing.items() if isinstance(thing, dict) else ((None, member) for member in thing)
    for key, value in entries:
        if isinstance(value, When):
            yield f"{pad}{{{{- if {value.condition} }}}}"
            yield from _entry(key, value.value, indent)
            if value.otherwise is not None:
                yield f"{pad}{{{{- else }}}}"
                yield from _entry(key, value.otherwise, indent)
            yield f"{pad}{{{{- end }}}}"
        else:
            yield from _entry(key, value, indent)


def _entry(key: str | None, value: Any, indent: int) -> Iterator[str]:
    """One entry of a mapping, or with ``key = None`` of a list."""
    pad, start = " " * indent, "-" if key is None else f"{_scalar(key)}:"
    if key == "image":
        yield f"{pad}{start} {IMAGE}"
    elif isinstance(value, Template):
        yield f"{pad}{start} {value.text or '|' + value.lines.replace('{{ ', '{{- ', 1)}"
    elif isinstance(value, (dict, list)) and value:
        if key is None and not _guarded_first(value):
            first, *rest = _lines(value, indent + 2)
            yield f"{pad}- {first.strip()}"
            yield from rest
        else:
            yield f"{pad}{start}"
            yield from _lines(value, indent + 2)
    elif isinstance(value, str) and "\n" in value:
        yield f"{pad}{start} |"
        yield from (f"{pad}  {_escaped(line)}".rstrip() for line in value.removesuffix("\n").split("\n"))
    else:
        yield f"{pad}{start} {_scalar(value)}"


def _guarded_first(value: Any) -> bool:
    first = next(iter(value.values() if isinstance(value, dict) else value))
    return isinstance(first, When)


def _scalar(value: Any) -> str:
    """A scalar as YAML, with the chart's values in place of the words for which they stand."""
    if isinstance(value, str):
        if value in WORDS:
            return f'"{WORDS[value]}"'
        if "{{" in value:
            return yaml.safe_dump(_escaped(value), default_style="'", width=10_000).strip()
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def _escaped(text: str) -> str:
    """The text of another program's template, such as Prometheus's, so that Helm prints it as it is."""
    return text.replace("{{", '{{ "{{" }}')


# --- values ------------------------------------------------------------------------------------------


def _chart_file() -> str:
    version = _tag("overlays/cpu").removesuffix("-cpu")
    return (
        "apiVersion: v2\nname: deca-node\ntype: application\n"
        "description: Fine-tune one language model together, peer to peer, without sharing data.\n"
        f'version: {version}\nappVersion: "{version}"\nkubeVersion: ">=1.29.0-0"\n'
    )


def _values() -> str:
    settings = (DEPLOY / "base" / "run.toml").read_text().rstrip().replace("\n", "\n    ")
    filled = {"CPU_TAG": _tag("overlays/cpu"), "CUDA_TAG": _tag("components/gpu"), "RUN_SETTINGS": settings}
    _, _, text = (ROOT / "tools" / "helm_values.yaml").read_text().partition("\n")
    for word, meant in filled.items():
        text = text.replace(word, meant)
    return text


# --- the files of kustomize --------------------------------------------------------------------------


def _kustomization(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / folder / "kustomization.yaml").read_text())
    return found


def _patches(component: str) -> Iterator[dict[str, Any]]:
    folder = f"components/{component}"
    for patch in _kustomization(folder).get("patches", ()):
        yield from _load(DEPLOY / folder / patch["path"])


def _tag(folder: str) -> str:
    (image,) = _kustomization(folder)["images"]
    return str(image["newTag"])


def _load(file: Path) -> list[Any]:
    return list(yaml.safe_load_all(file.read_text()))


def _target(each: Any) -> str:
    return f"{each['kind']}/{each['metadata']['name']}"


if __name__ == "__main__":
    sys.exit(main())
