"""Private texts of the demo, from the library of the Python that runs these tests."""

import json
from pathlib import Path

import pytest

from deca_node.lab.demo.texts import CORPUS_BYTES_MIN, Corpus, neutral_text, private_corpora, records, write_corpus
from deca_node.protocol.errors import DataError

LINE = "a line of source text\n"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A small library: two packages with enough text, one with too little, one of tables, and a module outside of
    all."""
    folder = tmp_path / "library"
    enough = LINE * (CORPUS_BYTES_MIN // len(LINE) + 1)
    for name, text in {"zebra": enough, "email": enough, "tiny": LINE, "encodings": enough}.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    (folder / "email" / "test").mkdir()
    (folder / "email" / "test" / "test_email.py").write_text(LINE)
    (folder / "bisect.py").write_text(LINE)
    (folder / "_sysconfigdata_linux.py").write_text(LINE)
    return folder


def test_every_python_has_enough_for_twelve_nodes() -> None:
    corpora = private_corpora(12)
    assert len({corpus.name for corpus in corpora}) == 12
    assert all(sum(map(len, corpus.documents())) > CORPUS_BYTES_MIN for corpus in corpora)


def test_no_file_belongs_to_two_corpora() -> None:
    files = [file for corpus in (neutral_text(), *private_corpora(12)) for file in corpus.files]
    assert len(files) == len(set(files))


def test_the_first_nodes_have_plenty_of_text() -> None:
    assert all(sum(map(len, corpus.documents())) > 200_000 for corpus in private_corpora(4))


def test_the_python_reference_is_prose_and_not_string_literals() -> None:
    reference = next(corpus for corpus in private_corpora(12) if corpus.name == "pydoc_data")
    text = "\n".join(reference.documents())
    assert "Assert statements are a convenient way to insert debugging assertions\ninto a program:\n" in text
    assert "\\n" not in text[:1000]


def test_preferred_packages_come_first_and_small_ones_and_tables_not_at_all(library: Path) -> None:
    assert [corpus.name for corpus in private_corpora(2, library)] == ["email", "zebra"]


def test_a_packages_own_tests_are_left_out(library: Path) -> None:
    [email] = private_corpora(1, library)
    assert [file.name for file in email.files] == ["__init__.py"]


def test_too_few_packages_are_refused_in_words(library: Path) -> None:
    with pytest.raises(DataError, match=r"has 2 packages with enough text .* too few to give 3 nodes"):
        private_corpora(3, library)


def test_neutral_text_is_what_lies_outside_of_packages(library: Path) -> None:
    assert [file.name for file in neutral_text(library).files] == ["bisect.py"]


def test_a_library_without_source_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no source text"):
        neutral_text(tmp_path)


def test_records_are_the_text_cut_at_line_ends(library: Path) -> None:
    [email] = private_corpora(1, library)
    pieces = list(records(email, chunk_bytes=100))
    assert "".join(pieces) == "".join(email.documents())
    assert {len(piece) for piece in pieces[:-1]} == {5 * len(LINE)}


def test_a_corpus_is_written_as_json_lines_up_to_its_limit(library: Path, tmp_path: Path) -> None:
    [email] = private_corpora(1, library)
    count = write_corpus(email, tmp_path / "email.jsonl", limit_bytes=10_000, seed=1)
    texts = [json.loads(line)["text"] for line in (tmp_path / "email.jsonl").read_text().splitlines()]
    assert count == len(texts) == 4
    assert sum(map(len, texts)) <= 10_000


def test_the_same_seed_draws_the_same_records(tmp_path: Path) -> None:
    [corpus] = private_corpora(1)
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        write_corpus(corpus, tmp_path / name, limit_bytes=20_000, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


def test_bytes_that_are_no_utf8_do_not_stop_anything(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(b"name = 'M\xfcller'\n")
    assert list(Corpus("latin", (tmp_path / "latin.py",)).documents()) == ["name = 'M\N{REPLACEMENT CHARACTER}ller'\n"]
