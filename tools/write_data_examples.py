"""Writes what ``deca-node data --show`` prints of each format into docs/DATA.md; with --check, only checks the page.

The files are those of docs/data. Parquet, Arrow and compressed ones are made from their twins in JSON Lines.
"""

import contextlib
import gzip
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from deca_node.cli.main import main as deca_node  # noqa: E402  (the tool runs from a checkout that is not installed)

PAGE = ROOT / "docs" / "DATA.md"
FILES = ROOT / "docs" / "data"
BEGIN, END = "<!-- examples: begin; written by tools/write_data_examples.py -->\n", "<!-- examples: end -->\n"
VOCABULARY = 2000


class Example(NamedTuple):
    """A file with its flags, the JSON Lines that say the same, and whether the figures are shown too."""

    title: str
    file: str
    twin: str
    flags: tuple[str, ...] = ()
    show: int = 2
    figures: bool = False


EXAMPLES = (
    Example("Messages, as OpenAI has them", "messages.jsonl", "messages", figures=True),
    Example("Prompt with completion, as texts and as messages", "prompts.jsonl", "prompts"),
    Example("Alpaca, a JSON array", "alpaca.json", "alpaca"),
    Example("ShareGPT, with a tool", "sharegpt.json", "sharegpt"),
    Example("CSV from a spreadsheet, with a name of its own", "export.csv", "export", ("--columns", "text=body")),
    Example(
        "TSV with Alpaca's columns under other names",
        "dolly.tsv",
        "dolly",
        ("--format", "alpaca", "--columns", "input=context,output=response"),
    ),
    Example("Parquet", "alpaca.parquet", "alpaca", show=1),
    Example("A folder that datasets saved", "saved", "sharegpt", show=1),
    Example("Compressed JSON Lines: gzip", "prompts.jsonl.gz", "prompts", show=1),
    Example("Compressed JSON Lines: Zstandard", "messages.jsonl.zst", "messages", show=1),
    Example("A folder of texts", "notes", "notes"),
    Example("A text in UTF-16", "utf16.txt", "notes", show=1),
    Example(
        "Labelled records",
        "export.csv",
        "labelled",
        ("--columns", "text=body,label=topic", "--labels", "weather, harbour"),
    ),
)


def main(arguments: list[str]) -> int:
    """Write the examples into the page, or check them. Returns 1 if they are stale."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    page = f"{before}{BEGIN}\n{''.join(examples())}{END}{rest.partition(END)[2]}"
    if page == text:
        return 0
    if arguments == ["--check"]:
        print(f"The examples in {PAGE.relative_to(ROOT)} are stale; run: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def examples() -> Iterator[str]:
    """Each example as Markdown."""
    with tempfile.TemporaryDirectory() as made:
        prepare(Path(made))
        for example in EXAMPLES:
            command = ["data", example.file, "--model", "model", "--show", str(example.show), *example.flags]
            shown = " ".join(f'"{word}"' if " " in word else word for word in command)
            printed = printed_by(Path(made), command)
            if not example.figures:
                printed = printed.partition("\ntokens  ")[0] + "\n"
            yield f"**{example.title}.** `deca-node {shown}`\n\n```\n{printed.strip()}\n```\n\n"


def printed_by(folder: Path, command: Sequence[str]) -> str:
    """What the command prints in the folder. A command that fails is an error."""
    out, here = io.StringIO(), Path.cwd()
    os.environ["NO_COLOR"] = "1"
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out):
            code = deca_node(list(command))
    finally:
        os.chdir(here)
    assert code == 0, f"deca-node {' '.join(command)} ended with {code}"
    return out.getvalue()


# --- the files --------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """All files of the examples, and a folder with a tokenizer."""
    shutil.copytree(FILES, folder, dirs_exist_ok=True)
    _make_tokenizer(folder / "model")
    _make_columnar(folder)
    (folder / "prompts.jsonl.gz").write_bytes(gzip.compress((folder / "prompts.jsonl").read_bytes()))
    text = (folder / "notes" / "monday.txt").read_text(encoding="utf-8")
    (folder / "utf16.txt").write_bytes(text.encode("utf-16"))


def _make_tokenizer(folder: Path) -> None:
    """A tokenizer that knows the words of the files, and a config of a model that has no weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|im_start|>", "<|im_end|>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, min_frequency=1, special_tokens=specials, initial_alphabet=letters, show_progress=False
    )
    files = sorted(path for path in FILES.rglob("*") if path.is_file())
    raw.train_from_iterator((path.read_text(encoding="utf-8-sig") for path in files), trainer)
    template = (FILES / "template.jinja").read_text(encoding="utf-8")
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", chat_template=template).save_pretrained(folder)
    LlamaConfig(vocab_size=raw.get_vocab_size(), eos_token_id=0, bos_token_id=None).save_pretrained(folder)


def _make_columnar(folder: Path) -> None:
    import pyarrow
    from datasets import Dataset, DatasetDict, disable_progress_bars
    from pyarrow import parquet

    disable_progress_bars()
    parquet.write_table(
        pyarrow.Table.from_pylist(_with_nulls(_rows(folder / "alpaca.json"))), folder / "alpaca.parquet"
    )
    train = Dataset.from_list(_with_nulls(_rows(folder / "sharegpt.json")))
    DatasetDict({"train": train, "test": train}).save_to_disk(str(folder / "saved"))
    with pyarrow.output_stream(str(folder / "messages.jsonl.zst"), compression="zstd") as out:
        out.write((folder / "messages.jsonl").read_bytes())


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _with_nulls(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with all columns, null where a row has none: as a table has them."""
    names = sorted({name for row in rows for name in row})
    return [{name: row.get(name) for name in names} for row in rows]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
