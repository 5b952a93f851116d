"""Rules of the house that no linter knows: what stays pure, what stays light, how long things may grow.

The import arrow itself is written as contracts in pyproject.toml. Here are the rules that need a look into
the syntax tree (``protocol`` is pure), a fresh interpreter (importing the CLI is cheap) or a second file
(every dependency is pinned, explained and used; every error is in the page of troubles).
"""

import ast
import dataclasses
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.agreed.run import RunSettings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deca_node"
GENERATED = PACKAGE / "daemon" / "wire_pb"

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

SERIALIZERS_THAT_RUN_CODE = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}

PURE_MODULES = {
    *("abc", "bisect", "collections", "copy", "dataclasses", "difflib", "enum", "fractions", "functools", "hashlib"),
    *("heapq", "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "struct", "textwrap"),
    *("types", "typing", "zlib", "deca_node"),
}
"""What ``protocol`` may import: modules without clock, files, network, processes or threads.
``random`` is among them for ``random.Random(seed)`` only."""

IMPURE_BUILTINS = {"open", "print", "input", "eval", "exec", "__import__", "breakpoint", "hash", "id"}
"""``hash`` and ``id`` differ between processes, so nodes would not agree on what follows from them."""

HEAVY_FOR_CLI = {"torch", "transformers", "tokenizers", "grpc", "google.protobuf", "pydantic", "plotly", "numpy"}
HEAVY_FOR_DAEMON = {"torch", "transformers", "tokenizers"}


def python_files(*folders: str) -> list[Path]:
    """Our Python files in these folders of the repository, generated ones left out."""
    files = (file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")))
    return [file for file in files if GENERATED not in file.parents]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Names of all modules that are imported anywhere in a file, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def top_level_names(tree: ast.AST) -> set[str]:
    return {module.split(".")[0] for module in imported_modules(tree)}


def impurities(tree: ast.AST) -> Iterator[str]:
    """What in a file of ``protocol`` would read chance, a clock or the outside."""
    yield from (f"import of {name}" for name in sorted(top_level_names(tree) - PURE_MODULES))
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="random", names=names) if [alias.name for alias in names] != ["Random"]:
                yield f"line {node.lineno}: only Random may be taken from random"
            case ast.Attribute(value=ast.Name(id="random"), attr=attr) if attr != "Random":
                yield f"line {node.lineno}: random.{attr} draws from the process-wide generator"
            case ast.Call(func=ast.Attribute(attr="Random") | ast.Name(id="Random"), args=[], keywords=[]):
                yield f"line {node.lineno}: Random() without a seed"
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_BUILTINS:
                yield f"line {node.lineno}: {name}()"


def modules_loaded_by(package: str) -> set[str]:
    """Names of the modules in ``sys.modules`` after a fresh interpreter imported all modules of a package."""
    code = (
        "import importlib, pkgutil, sys\n"
        f"package = importlib.import_module({package!r})\n"
        "for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "    if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("file", python_files("deca_node/protocol"), ids=name_of)
def test_protocol_is_pure(file: Path) -> None:
    assert list(impurities(ast.parse(file.read_text()))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "def f():\n    from socket import socket",
        "import random\nrandom.shuffle(names)",
        "from random import choice",
        "from random import Random\nrng = Random()",
        "key = hash(name)",
        "from . import run",
    ],
)
def test_what_is_not_pure_is_found(source: str) -> None:
    assert list(impurities(ast.parse(source)))


@pytest.mark.parametrize("source", ["import random\nrng = random.Random(seed)", "import deca_node.protocol.agreed.run"])
def test_what_is_pure_passes(source: str) -> None:
    assert list(impurities(ast.parse(source))) == []


@pytest.mark.parametrize(
    ("package", "heavy"),
    [("deca_node.cli", HEAVY_FOR_CLI), ("deca_node.api", HEAVY_FOR_CLI), ("deca_node.daemon", HEAVY_FOR_DAEMON)],
)
def test_importing_is_light(package: str, heavy: set[str]) -> None:
    """``deca-node --help`` answers at once, and the daemon's process never holds torch."""
    assert modules_loaded_by(package) & heavy == set()


def test_nothing_that_unpickles_is_imported() -> None:
    """A checkpoint or a frame must never be able to run code."""
    files = python_files("deca_node", "bench", "tools")
    found = {name_of(file): top_level_names(ast.parse(file.read_text())) & SERIALIZERS_THAT_RUN_CODE for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_modules_fit_the_eye() -> None:
    files = python_files("deca_node", "bench", "tools")
    lengths = {name_of(file): len(file.read_text().splitlines()) for file in files}
    assert {file: length for file, length in lengths.items() if length > MODULE_LINES_MAX} == {}


def test_functions_fit_the_eye() -> None:
    too_long = [
        f"{name_of(file)}:{node.lineno} {node.name}"
        for file in python_files("deca_node", "bench", "tools", "tests")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_imports_point_down() -> None:
    """The contracts of pyproject.toml hold."""
    run([str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"])


GENERATORS = [ROOT / "tools" / "compile_protos.py", *sorted((ROOT / "tools").glob("write_*.py"))]
"""``make proto`` runs the first, ``make docs`` all that are named ``write_*``: a new one is found by its name."""


@pytest.mark.parametrize("tool", GENERATORS, ids=lambda tool: tool.stem)
def test_generated_files_are_fresh(tool: Path) -> None:
    run([sys.executable, str(tool), "--check"])


def run(command: list[str]) -> None:
    """Run a checking command in the repository; fail with its own words."""
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def normalized(requirement: str) -> str:
    """The name in a requirement or a pin, in the one spelling that PyPI compares by."""
    name = re.split(r"[<>=~!;\[ ]", requirement, maxsplit=1)[0]
    return name.lower().replace("_", "-")


def dependencies() -> tuple[list[str], list[str]]:
    """Names of the run-time and of the development dependencies in pyproject.toml, fuzzing among the latter."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    development = extras["dev"] + extras["fuzz"] + extras["mutants"]
    return [normalized(line) for line in project["dependencies"]], [normalized(line) for line in development]


def test_every_dependency_is_pinned_and_explained() -> None:
    run_time, development = dependencies()
    pins = {normalized(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    explained = (ROOT / "docs" / "DEPENDENCIES.md").read_text()
    for name in run_time + development:
        assert name in pins, f"{name} has no exact version in constraints.txt"
        assert f"| {name} |" in explained, f"{name} has no line in docs/DEPENDENCIES.md"


def test_every_run_time_dependency_is_used() -> None:
    """The generated message classes are what uses protobuf."""
    trees = [ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")]
    imported = {module for tree in trees for module in imported_modules(tree)}
    imported |= {".".join(module.split(".")[:depth]) for module in imported for depth in (1, 2)}
    imported_as = {"grpcio": "grpc", "huggingface-hub": "huggingface_hub", "protobuf": "google.protobuf"}
    imported_as |= {"grpcio-health-checking": "grpc_health", "prometheus-client": "prometheus_client"}
    assert [name for name in dependencies()[0] if imported_as.get(name, name) not in imported] == []


PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
DATED = {"docs/LOG.md", "CHANGELOG.md"}
"""Pages that tell of the past, when files had other names."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links in Markdown, ``[text](path)``; those to other sites are not followed."""
    links = re.findall(r"(?:\]\(|src=\")([^)#\s\"]+)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


CODE = ("deca_node", "tests", "bench", "tools")


@pytest.mark.parametrize("page", [page for page in PAGES if name_of(page) not in DATED], ids=name_of)
def test_paths_in_documents_exist(page: Path) -> None:
    """Paths in backticks that begin with a folder of the repository or of ``deca_node``."""
    folders = {path.name for path in [*ROOT.iterdir(), *PACKAGE.iterdir()] if path.is_dir()}
    paths = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|c|h|js|proto|toml|yaml|sh))`", page.read_text())
    ours = [path for path in paths if path.partition("/")[0] in folders]
    assert [path for path in ours if not (ROOT / path).exists() and not (PACKAGE / path).exists()] == []
    # A name alone follows a path in the same room.
    names = re.findall(r"`([\w.-]+\.(?:py|c|h))`", page.read_text())
    assert [name for name in names if not any(next((ROOT / each).rglob(name), None) for each in CODE)] == []


def test_the_walks_through_the_code_name_what_is_there() -> None:
    """Every function in the walks of docs/ARCHITECTURE.md is defined, the first of a row in the row's file."""
    defined = {file: set(re.findall(r"(?:def|class) (\w+)", file.read_text())) for file in PACKAGE.rglob("*.py")}
    everything = set().union(*defined.values())
    rows = re.findall(
        r"^\| \d+\. .*? \| `([\w./]+)` \| (.*) \|$", (ROOT / "docs" / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 20
    for path, functions in rows:
        first, *others = re.findall(r"`([\w.]+)`", functions)
        assert set(first.split(".")) <= defined[PACKAGE / path], (path, first)
        for name in others:
            assert name.endswith(".c") or set(name.removeprefix("deca.").split(".")) <= everything, (path, name)


ROOM_MODULES = range(4, 13)


def test_rooms_have_a_usual_size_or_a_reason() -> None:
    """The section of docs/ARCHITECTURE.md names every room that is smaller or larger, and no other."""
    sizes = {init.parent: len(list(init.parent.glob("*.py"))) - 1 for init in PACKAGE.rglob("__init__.py")}
    floors = {PACKAGE, *PACKAGE.iterdir(), GENERATED}
    unusual = {str(room.relative_to(PACKAGE)) for room, size in sizes.items() if size not in ROOM_MODULES}
    unusual -= {str(floor.relative_to(PACKAGE)) for floor in floors}
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    section = page.partition("## Rooms that are smaller or larger than usual\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^- `([\w/]+)`", section, re.MULTILINE)) == unusual


# --- every default of a setting is written once ------------------------------------------------------

SETTINGS: dict[str, type] = {
    field.name: type(field.default) for kind in (RunSettings, NodeSettings) for field in dataclasses.fields(kind)
}
NAMES_OF_MANY_THINGS = {"name", "seed"}
"""Settings whose names other things bear as well: everything has a name, and every random generator a seed."""
OWN_RECIPES = {"deca_node/lab/demo/toy_model.py:Recipe"}
"""The first training of the toy model is no run of nodes, and its recipe is written there only."""


def defaults(tree: ast.AST) -> Iterator[tuple[str, str, ast.expr]]:
    """Owner, name and value of every default in a signature or in the body of a class."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                a = node.args
                positional = [*a.posonlyargs, *a.args]
                given = [*positional[len(positional) - len(a.defaults) :], *a.kwonlyargs]
                values = [*a.defaults, *a.kw_defaults]
                yield from ((node.name, arg.arg, v) for arg, v in zip(given, values, strict=True) if v is not None)
            case ast.ClassDef(name=owner, body=body):
                for line in body:
                    match line:
                        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                            yield owner, name, value


def repeated_defaults(tree: ast.AST) -> Iterator[str]:
    """Literal defaults that bear the name of a setting, and are of its type. Numbers are one type here."""
    for owner, name, value in defaults(tree):
        match value:
            case (
                ast.Constant(value=literal)
                | ast.Call(
                    func=ast.Name(id="field"), keywords=[ast.keyword(arg="default", value=ast.Constant(value=literal))]
                )
            ) if name in SETTINGS and name not in NAMES_OF_MANY_THINGS:
                kinds = {float if kind is int else kind for kind in (type(literal), SETTINGS[name])}
                if len(kinds) == 1:
                    yield f"{owner}: {name} = {literal!r}"


def test_a_default_of_a_setting_is_written_once() -> None:
    """Where it stands twice the two drift apart, and one of them is not what the documentation says."""
    found = {
        f"{name_of(file)}:{repeated}"
        for file in python_files("deca_node", "bench", "tools")
        for repeated in repeated_defaults(ast.parse(file.read_text()))
    }
    assert {place for place in found if place.partition(": ")[0] not in OWN_RECIPES} == set()


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("def f(codec: str = 'int8', rounds=4): ...", 2),
        ("async def f(*, device='cpu'): ...", 1),
        ("class Hyper:\n    discrepancy: str = 'precond'\n    epsilon: float = field(default=0)", 2),
        ("def f(codec: str, dtype: str = RunSettings.dtype, labels=(), device=None): ...", 0),
        ("class Hyper:\n    discrepancy: str\n    signal: bool = False\n    seed: int = 0", 0),
    ],
)
def test_a_repeated_default_is_found(source: str, count: int) -> None:
    """Whether or not it is equal to the setting's; a name alone, or a value of another type, is something else."""
    assert len(list(repeated_defaults(ast.parse(source)))) == count


# --- every error is in docs/TROUBLESHOOTING.md -----------------------------------------------------

OURS = re.compile(
    r"(?!Value|Key|OS|Type|Runtime|Interrupted|NotImplemented|Assertion|Lookup|Browser|StreamBroken)\w+Error"
)
"""Classes of errors that a person can meet: not Python's own, not a test's browser's, and not those that are passed on
as the reason of something else."""
PIECE_LETTERS_MIN = 9
EDGES = " .,/\"'"
ELSEWHERE = {"deca_node/daemon/trainer/arena.py", "deca_node/protocol/membership/profiles.py"}
"""Books and constants that are wrong only where the program is: their errors are internal ones (code 70)."""


def constant_text(node: ast.AST, named: dict[str, ast.expr]) -> str:
    """The words of a message that stand in the code; a gap for everything else."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(constant_text(part, named) for part in parts)
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return constant_text(left, named) + constant_text(right, named)
        case ast.IfExp(body=body, orelse=orelse):
            return constant_text(body, named) + GAP + constant_text(orelse, named)
        case ast.Name(id=name) if name in named:
            return constant_text(named[name], named)
        case ast.Call(func=ast.Attribute(value=template, attr="format")):
            return re.sub(r"\{[^}]*\}", GAP, constant_text(template, named))
    return GAP


GAP = "\0"


def errors_of(tree: ast.Module) -> Iterator[tuple[int, str, list[str]]]:
    """Line, class and arguments' words of every error of ours that a module raises."""
    named = {
        t.id: a.value for a in tree.body if isinstance(a, ast.Assign) for t in a.targets if isinstance(t, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind) | ast.Attribute(attr=kind), args=words)):
                if OURS.fullmatch(kind):
                    yield node.lineno, kind, [constant_text(word, named) for word in words]


def undocumented(tree: ast.Module, page: str) -> list[str]:
    """Errors of which no longer piece stands in the page. Of those of the wire the reason's code must."""
    missing = []
    for line, kind, words in errors_of(tree):
        if kind == "WireError":
            found = GAP in words[0] or f"`{words[0]}`" in page
        else:
            pieces = re.split(r"[\0;:(){}]|, | and | or ", GAP.join(words))
            long = [piece.strip(EDGES) for piece in pieces if len(piece.strip(EDGES)) >= PIECE_LETTERS_MIN]
            found = not long or any(piece in page for piece in long)
        if not found:
            missing.append(f"{line}: {kind} {GAP.join(words).replace(GAP, '...')}")
    return missing


def test_every_error_is_among_the_troubles() -> None:
    page = " ".join((ROOT / "docs" / "TROUBLESHOOTING.md").read_text().split())
    files = [file for file in python_files("deca_node") if name_of(file) not in ELSEWHERE]
    missing = {name_of(file): undocumented(ast.parse(file.read_text()), page) for file in files}
    assert {name: errors for name, errors in missing.items() if errors} == {}


def test_an_error_that_is_no_trouble_yet_is_found() -> None:
    code = ast.parse(
        'raise DataError(f"the moon over {place} is not made of cheese")\nraise WireError("moonlit", "far")'
    )
    assert len(undocumented(code, "nothing")) == 2
    assert undocumented(code, "| `is not made of cheese` | | \n `moonlit`") == []
