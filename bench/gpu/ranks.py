"""``python -m bench.gpu.ranks JOB``: one node alone with one rank, and with two, from start to end.

The node is ``deca-node start`` on a random model of the job's shape. Two ranks share every batch, so they reach the
same loss. The report has the seconds of a step's gradient for either.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench.trial import random_model
from deca_node.lab.demo.toy_model import Recipe, train_tokenizer
from deca_node.lab.rigs.processes import LocalNodes, write_peers

SECONDS_MAX = 240
RECORDS = 64
WARM_UP_STEPS = 2


def main() -> None:
    """Run the job in the first argument (JSON), and print the report as the last line."""
    job = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        model, data = prepare(Path(folder), job)
        rows = [measured(Path(folder), model, data, devices, job) for devices in job["devices"]]
    print(json.dumps(rows))


def prepare(folder: Path, job: dict[str, Any]) -> tuple[Path, Path]:
    """A model's folder with the demo's tokenizer, and a file of records that fill a sequence."""
    vocabulary = min(job["config"]["vocab_size"], Recipe().vocabulary)
    train_tokenizer(Recipe(vocabulary=vocabulary)).save_pretrained(folder / "model")
    random_model(job | {"device": "cpu"}).save_pretrained(folder / "model")
    rng = random.Random(job["seed"])
    texts = (" ".join(str(rng.randrange(10**6)) for _ in range(job["length"])) for _ in range(RECORDS))
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return folder / "model", data


def measured(folder: Path, model: Path, data: Path, devices: str, job: dict[str, Any]) -> dict[str, Any]:
    """One run of a lone node with these devices."""
    peers = write_peers(folder / "peers.txt", ["only"])
    flags = {
        "--insecure": True,
        "--peers": peers,
        "--model": model,
        "--data": data,
        "--devices": devices,
        "--rounds": 1,
        "--inner-steps": job["steps"],
        "--packing": "concatenated",
        "--block-layers": job["block_layers"],
        "--sequence-length": job["length"],
        "--batch-size": job["batch"],
        "--dtype": job["dtype"],
        "--learning-rate": 1e-4,
    }
    with LocalNodes() as nodes:
        node = nodes.start("only", folder / f"out-{devices.replace('*', 'x').replace(':', '-')}", flags)
        nodes.wait(SECONDS_MAX)
    lines = [json.loads(line) for line in (node.directory / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("kind") == "step" and line.get("compute_seconds")]
    losses = [line["loss"] for line in lines if line.get("kind") == "eval"]
    timed = [line["compute_seconds"] for line in steps[WARM_UP_STEPS:]]
    return {"devices": devices, "steps": len(steps), "step_seconds": median(timed), "loss": losses[-1]}


if __name__ == "__main__":
    main()
