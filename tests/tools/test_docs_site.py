"""Links of the documentation, as the site has them."""

import pytest

from tools.docs_site import PAGES_BESIDE, ROOT, site_link

DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("target", "folder", "expected"),
    [
        ("GUIDE.md#install", DOCS, "[x](GUIDE.md#install)"),
        ("../SECURITY.md#limits", DOCS, "[x](SECURITY.md#limits)"),
        ("docs/GUIDE.md", ROOT, "[x](GUIDE.md)"),
        ("docs/images/scale.svg", ROOT, "[x](images/scale.svg)"),
        ("../proto/deca/v1/control.proto", DOCS, "x"),
        ("LICENSE", ROOT, "x"),
    ],
)
def test_a_link_leads_to_a_page_of_the_site_or_is_text(target: str, folder: object, expected: str) -> None:
    assert site_link(f"[x]({target})", "x", target, folder) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["https://semver.org", "#install", "mailto:a@b"])
def test_other_links_stay(target: str) -> None:
    assert site_link("whole", "x", target, DOCS) == "whole"


def test_every_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    pages = [path.name for path in DOCS.glob("*.md")] + list(PAGES_BESIDE)
    assert [page for page in pages if f"- {page}\n" not in menu] == []
