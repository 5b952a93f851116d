"""The report of one node is its own page in one file, with the node's last data inside."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from deca_node.daemon.logs import EventLog
from deca_node.daemon.web.page_file import LastPage
from deca_node.lab.report.page_report import has_page, write_page_report
from deca_node.protocol.errors import DataError
from tests.daemon.status.test_book import Desk
from tests.daemon.web.fake_admin import STATUS, FakeAdmin
from tests.lab.report.test_report import metrics_file

ODD = "</script><b>"


def folder_of_a_node(folder: Path) -> Path:
    """A folder as a node leaves it."""
    desk = Desk()
    desk.begin()
    status = STATUS.__class__(**{**vars(STATUS), "warning": ODD})
    admin = FakeAdmin()
    admin.now = status
    asyncio.run(LastPage(folder, admin, desk.book, EventLog()).write())
    metrics_file(folder / "metrics.jsonl")
    record = {"fingerprint": "f" * 64, "agreement": {"run_name": "wards", "rounds": "2"}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def told(page: str) -> dict[str, Any]:
    """The data inside the page."""
    (answers,) = re.findall(r'<script id="told" type="application/json">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(answers))


def test_everything_is_inside_and_nothing_can_be_fetched(tmp_path: Path) -> None:
    write_page_report(tmp_path / "report.html", folder_of_a_node(tmp_path))
    page = (tmp_path / "report.html").read_text()
    found = told(page)
    assert found["status"]["name"] == "north"
    assert [member["name"] for member in found["members"]] == ["north", "south"]
    assert found["map"]["members"] == ["north", "south"]
    assert found["history"]["columns"]["ordinal"] == list(range(8))
    assert found["history"]["evaluations"] == [[0, 5.5, "start"]]
    assert found["agreed"]["rounds"] == "2"
    rest = page.replace(get_plotlyjs(), "")
    assert re.findall(r'(?:src|href)="([^"#]+)"', rest) == []
    assert "default-src 'none'" in rest and "connect-src" not in rest


def test_names_from_elsewhere_cannot_end_the_script(tmp_path: Path) -> None:
    write_page_report(tmp_path / "report.html", folder_of_a_node(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert told(page)["status"]["warning"] == ODD
    assert ODD not in page.replace(get_plotlyjs(), "")


def test_a_page_that_was_not_kept_or_cannot_be_read(tmp_path: Path) -> None:
    assert not has_page(tmp_path)
    (tmp_path / "page.json").write_text("{")
    assert has_page(tmp_path)
    with pytest.raises(DataError, match="cannot be read; remove it"):
        write_page_report(tmp_path / "report.html", tmp_path)
