"""Generates the Python classes of the messages in ``proto/deca/v1`` into ``deca_node/daemon/wire_pb``.

The .proto files import each other by a path that suits any language (``deca/v1/exchange.proto``), and protoc turns that
into ``from deca.v1 import exchange_pb2``. There is no top-level package ``deca`` here. So these imports, and the module
name in the messages, are rewritten to the package of the files. Only messages are generated: services are registered by
hand.

With ``--check`` nothing is written, and the exit code is 1 if the package differs from what would be generated.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO_ROOT = ROOT / "proto"
PROTO_PACKAGE = "deca.v1"
TARGET_PACKAGE = "deca_node.daemon.wire_pb"
TARGET = ROOT.joinpath(*TARGET_PACKAGE.split("."))

INIT = '''"""Message classes of the wire, generated from proto/ by ``make proto``. Do not edit."""\n'''


def main() -> None:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description="Generate Python message classes from proto/.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the generated files are stale")
    check = parser.parse_args().check
    wanted, present = generate(), read_folder(TARGET)
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    if check and stale:
        sys.exit(f"{TARGET.relative_to(ROOT)}: {', '.join(stale)} not fresh. Run: make proto")
    if not check:
        write(wanted, stale)


def generate() -> dict[str, str]:
    """The contents that the package should have, as file name -> text."""
    protos = sorted(str(path) for path in PROTO_ROOT.joinpath(*PROTO_PACKAGE.split(".")).glob("*.proto"))
    if not protos:
        sys.exit(f"There are no .proto files in {PROTO_ROOT.relative_to(ROOT)}/{PROTO_PACKAGE.replace('.', '/')}.")
    with tempfile.TemporaryDirectory() as folder:
        outputs = (f"--proto_path={PROTO_ROOT}", f"--python_out={folder}", f"--pyi_out={folder}")
        command = [sys.executable, "-W", "ignore", "-m", "grpc_tools.protoc", *outputs, *protos]
        if subprocess.run(command, check=False).returncode:
            sys.exit("protoc refused the .proto files; its output is above.")
        generated = read_folder(Path(folder).joinpath(*PROTO_PACKAGE.split(".")))
    return {"__init__.py": INIT} | {name: rename_package(text) for name, text in generated.items()}


def rename_package(text: str) -> str:
    """Point imports and ``__module__`` at the package of the generated files.

    The serialized descriptor keeps the name ``deca.v1``, which is the protobuf package of the messages: the two
    patterns match only Python.
    """
    old = re.escape(PROTO_PACKAGE)
    text = re.sub(rf"^from {old} import ", f"from {TARGET_PACKAGE} import ", text, flags=re.MULTILINE)
    return re.sub(rf"'{old}\.(\w+_pb2)'", rf"'{TARGET_PACKAGE}.\1'", text)


def read_folder(folder: Path) -> dict[str, str]:
    """The texts of a package's Python files and stubs, by file name."""
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.py*") if path.is_file()}


def write(wanted: dict[str, str], stale: list[str]) -> None:
    """Bring the package up to date, and write only files that differ."""
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (TARGET / name).write_text(wanted[name], encoding="utf-8")
        else:
            (TARGET / name).unlink()
    print(f"{TARGET.relative_to(ROOT)}: {len(wanted)} files, {len(stale)} changed")


if __name__ == "__main__":
    main()
