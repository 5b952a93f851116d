"""The documentation as a site, one folder per version; and the hooks with which mkdocs builds it from docs/.

::

    build/docs/0.1.0/       the site of this version
    build/docs/versions.json    all versions there, from which the site's header offers a choice
    build/docs/index.html       leads to the newest

The pages beside docs/ (README, SECURITY and so on) belong to the site as well. Links to other files of the repository
become plain text there, since the site is read without the repository.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES_BESIDE = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
BUILT = ROOT / "build" / "docs"
MARKDOWN_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
SOURCE = re.compile(r'(src=")docs/')
REDIRECT = (
    '<!doctype html>\n<meta http-equiv="refresh" content="0; url={version}/index.html">\n<title>deca-node</title>\n'
)


def main() -> None:
    """Build the site of this version, and offer all versions that are there."""
    sys.path.insert(0, str(ROOT))
    from deca_node import __version__

    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--quiet"]
    subprocess.run([*command, "--site-dir", str(BUILT / __version__)], cwd=ROOT, check=True)
    versions = sorted(
        (path.parent.name for path in BUILT.glob("*/index.html") if path.parent.name != "check"), key=_key
    )
    listed = [{"version": name, "title": name, "aliases": []} for name in reversed(versions)]
    (BUILT / "versions.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    (BUILT / "index.html").write_text(REDIRECT.format(version=versions[-1]), encoding="utf-8")
    print(f"{BUILT / __version__}: open index.html in a browser, or copy {BUILT} to a web server")


def _key(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


# --- hooks of mkdocs ------------------------------------------------------------------------------------


def on_files(files: Any, config: Any) -> Any:
    """Add the pages beside docs/ to the site."""
    from mkdocs.structure.files import File

    for name in PAGES_BESIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links of a page lead to pages of the site."""
    beside = page.file.src_uri in PAGES_BESIDE
    folder = ROOT if beside else ROOT / "docs"
    text = MARKDOWN_LINK.sub(lambda found: site_link(found[0], found[1], found[2], folder), markdown)
    return SOURCE.sub(r"\1", text) if beside else text


def site_link(whole: str, text: str, target: str, folder: Path) -> str:
    """A link as the site has it; its text alone where it leads to a file that the site has not."""
    if re.match(r"[a-z]+:|#", target):
        return whole
    path, mark, anchor = target.partition("#")
    place = Path(os.path.normpath(folder / path)).relative_to(ROOT)
    if str(place) in PAGES_BESIDE:
        return f"[{text}]({place}{mark}{anchor})"
    if place.parts[:1] == ("docs",):
        return f"[{text}]({place.relative_to('docs')}{mark}{anchor})"
    return text


if __name__ == "__main__":
    main()
