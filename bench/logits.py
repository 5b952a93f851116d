"""``python -m bench.logits``: the memory of logits at a vocabulary of 152,000, with the loss in chunks and without.

A Llama of one narrow layer, so that logits are nearly all there is. Each row is a process of its own: the peak of its
RSS in one forward and backward pass, less what it had just before, and the CPU seconds of the pass.
"""

import json
import os
import resource
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from bench.harness import MIB, ROOT, Row, parser, shared_job, write_results

VOCABULARY, HIDDEN = 152_000, 128


def main() -> None:
    """Measure, print the table and write ``logits.json``."""
    options = parser("Memory of the logits at a vocabulary of 152,000.")
    options.set_defaults(length=1024)
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="precisions of the model")
    arguments = options.parse_args()
    job = shared_job(arguments) | {"length": 64 if arguments.quick else arguments.length}
    places = [(dtype, cut) for dtype in arguments.dtypes for cut in (False, True)]
    rows = [measured(job | {"dtype": dtype, "cut": cut}) for dtype, cut in places]
    table = Table(title=f"{job['batch']} x {job['length']} tokens, {VOCABULARY:,} entries", title_justify="left")
    for heading in ("dtype", "loss", "peak MiB", "CPU s", "loss in nats"):
        table.add_column(heading)
    for row in rows:
        figures = (f"{row['peak_mib']:,.0f}", f"{row['cpu_seconds']:.1f}", f"{row['loss']:.6f}")
        table.add_row(row["dtype"], "chunks" if row["cut"] else "whole", *figures)
    Console().print(table)
    Console().print(f"written to {write_results('logits', arguments, {'job': job, 'rows': rows})}")


def measured(job: Row) -> Row:
    """One pass in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "bench.logits", "--child", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=3600)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found


def run_child(job: Row) -> Row:
    """The pass of one row."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from deca_node.numerics.data.batches import Batch
    from deca_node.numerics.learning import chunked
    from deca_node.numerics.learning.loss import nll_sum

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=job["length"],
    )
    model = LlamaForCausalLM(config).to(getattr(torch, job["dtype"])).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers" in name)
    if not job["cut"]:
        chunked.CHUNK_BYTES = 1 << 50
    ids = torch.randint(VOCABULARY, (job["batch"], job["length"]))
    cpu = torch.device("cpu")
    torch.autograd.backward(nll_sum(model, Batch(ids[:, :8], ids[:, :8]), cpu))
    assert not job["cut"] or chunked.chunkable(model)
    before, began = peak(), time.process_time()
    loss = nll_sum(model, Batch(ids, ids), cpu) / (ids.numel() - len(ids))
    torch.autograd.backward(loss)
    spent = time.process_time() - began
    return job | {"peak_mib": (peak() - before) / MIB, "cpu_seconds": round(spent, 2), "loss": float(loss.detach())}


def peak() -> int:
    """The most memory that this process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(run_child(json.loads(sys.argv[2]))))
    else:
        main()
