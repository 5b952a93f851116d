"""Writes docs/MODELS.md from bench/results/families.json; with --check, only says whether it is up to date.

``make models`` measures: every family of models that transformers knows as decoders or classifiers, as a tiny random
model.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "MODELS.md"
RESULTS = ROOT / "bench" / "results" / "families.json"

HEAD = """\
# Model families

Every family that transformers {transformers} knows as a decoder or a classifier, as a tiny random model (4 layers, 64
wide, where the family allows it): made and saved by transformers, loaded, every block trained for two steps, saved
and loaded again by deca-node. `make models` measures what is not known yet; `tools/write_models_reference.py` writes
this page from `bench/results/families.json`. Tiny models show whether an architecture works, and not how well a real
model learns.

- **task**: decoders are trained as language models, encoders as classifiers (`task = "classification"`).
- **blocks**: the number of blocks with `block_layers = 1`.
- **records**: how records in one sequence are kept apart ([DATA.md](DATA.md)).
- **frozen**: the share of parameters in no block, since text does not reach them. They are in `final/` as they were.
- **memory**: measured memory of a forward and a backward pass of the lowest block (4 sequences of 256 tokens,
  float32, CPU), divided by the plan's. A number in brackets: the model could not be traced, and the plan is the
  formula for Llama.
- **notes**: parameters within blocks that two steps did not move: most are computed without a gradient by design,
  such as the correction biases of routers.

{counts}.

Everything that was trained came out of the files again as it was in memory, and no tensor of the start
model's files was missing, unless a note says otherwise.
"""
COLUMNS = ("family", "class", "task", "blocks", "records", "frozen", "memory", "notes")


def main(arguments: list[str]) -> int:
    """Write the page, or check it. Returns 1 if it is stale."""
    text = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if arguments == ["--check"]:
        print(f"{PAGE.relative_to(ROOT)} is stale; run: make docs", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    rows = results["families"]
    by_outcome = {outcome: [row for row in rows if row["outcome"] == outcome] for outcome in WORDS}
    counts = Counter(row["outcome"] for row in rows)
    said = ", ".join(f"{counts[outcome]} {words}" for outcome, words in WORDS.items() if counts[outcome])
    missing = sorted(set(results.get("known", ())) - {row["family"] for row in rows})
    if missing:
        said += f"; {len(missing)} more are not measured yet"
    head = HEAD.format(transformers=results["versions"]["transformers"], counts=f"Of {len(rows)} families {said}")
    parts = [head, "## Trained\n", table(COLUMNS, [cells(row) for row in by_outcome["trained"]])]
    for outcome, title in (("refused", "Refused"), ("unmade", "Not tried"), ("broken", "Broken")):
        if by_outcome[outcome]:
            listed = [
                [f"`{row['family']}`", clean(row.get("says") or "ended by the time limit")]
                for row in by_outcome[outcome]
            ]
            parts += [f"## {title}\n", EXPLAINED[outcome], table(("family", "words"), listed)]
    if missing:
        parts += ["## Not measured yet\n", ", ".join(f"`{family}`" for family in missing) + "\n"]
    return "\n".join(parts)


WORDS = {
    "trained": "can be trained",
    "refused": "are refused",
    "unmade": "were not tried",
    "broken": "failed in another way",
}
EXPLAINED = {
    "refused": "The words are those of `start`, `plan` and `doctor`.\n",
    "unmade": "The script makes no tiny model of them. That says nothing about real ones.\n",
    "broken": "The model could be made, and failed on the way.\n",
}


def cells(row: dict[str, Any]) -> list[str]:
    """One family's row."""
    share = row["frozen"] / row["parameters"]
    ratio = row["measured_bytes"] / row["planned_bytes"] if row.get("planned_bytes") else None
    memory = "" if ratio is None else f"{ratio:.2f}" if row.get("traced") else f"({ratio:.2f})"
    return [
        f"`{row['family']}`",
        row["class"],
        row["task"],
        str(len(row["blocks"])),
        row.get("records", ""),
        f"{share:.0%}" if row["frozen"] else "",
        memory,
        "; ".join(notes(row)),
    ]


def notes(row: dict[str, Any]) -> list[str]:
    """What is out of the ordinary."""
    found = [f"not moved: `{name}`" for name in row["unmoved"][:1]]
    found += ["the loss was not finite"] if not row["finite"] else []
    found += ["not equal after loading again"] if not row["equal"] else []
    found += [f"lost: {', '.join(row['lost'])}"] if row["lost"] else []
    found += ["the plan has other blocks"] if row.get("planned_blocks", row["blocks"]) != row["blocks"] else []
    return found


def table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def clean(text: str) -> str:
    """A sentence as it stands in a table."""
    return text.replace("|", "\\|").replace("\n", " ").strip(" :;")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
