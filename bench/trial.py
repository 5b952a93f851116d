"""One trial in a new process: a random model, one block of it, a few steps, and a report as JSON.

Arms (``job["arm"]``): ``gradient`` runs forward and backward passes only and frees every gradient at once. ``deca`` is
this project's engine with any number of neighbours. ``badam`` is the ``badam`` package around torch's AdamW. These have
the same weights, the same batch and the same block. ``adamw`` is torch's AdamW on all parameters in the model's own
precision. ``lora`` is the ``peft`` package with rank 16 on all linear layers, and AdamW on its matrices. The last two
know no blocks.

Memory is the peak resident set of the process during the arm (thaw, edges, steps, freeze), less its resident set before
the model was built. That baseline includes what imports and a first tiny backward pass load for good. Weights,
gradients, optimizer state, frames, activations and torch's workspace are above it.
"""

import gc
import hashlib
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.data.batches import Batch
from deca_node.numerics.engine import BlockEngine, NewEdge
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.learning.loss import backward
from deca_node.numerics.model.blocks import Block, partition
from deca_node.numerics.model.facts import count_parameters, model_bytes
from deca_node.numerics.saving.start_values import StartValues, nothing
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.agreed.schedule import PARAMETERS

SIZES: dict[str, dict[str, int]] = {
    "full": {"vocab_size": 32_000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12},
    "quick": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3},
}
LEARNING_RATE = 3e-4  # So large that a bfloat16 norm moves within ten steps, and so small that the arms stay together.

LORA_RANK = 16

Job = dict[str, Any]
Gradient = Callable[[], float]
Steps = list[tuple[float, float]]
"""Per step: the seconds of wall time, and the seconds of CPU time of all threads."""


def main() -> None:
    """Run the job in the first argument (JSON), and print the report as the last line."""
    print(json.dumps(run(json.loads(sys.argv[1]))))


def run(job: Job) -> Job:
    """Prepare, measure and report one trial."""
    torch.set_num_threads(job["threads"])
    warm_up(job)
    baseline = resident_bytes()
    model = random_model(job["size"], job["dtype"], job["seed"])
    block = block_at(partition(model, 1), job["position"])
    before = digests(model)
    losses: list[float] = []
    gradient = gradient_of(model, job, losses)
    gc.collect()
    reset_peak()
    steps = ARMS[job["arm"]](model, block, gradient, job)
    peak = peak_bytes()
    after = digests(model)
    return {
        "block": block.name,
        "block_elements": block.elements,
        "block_parameters": list(block.parameters),
        "parameters": count_parameters(model),
        "model_bytes": model_bytes(model),
        "baseline_bytes": baseline,
        "peak_bytes": peak - baseline,
        "seconds": [wall for wall, _ in steps],
        "cpu_seconds": [cpu for _, cpu in steps],
        "losses": losses,
        "changed": sorted(name for name in before if before[name] != after.get(name)),
        "trained": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
    }


# --- the arms ---------------------------------------------------------------------------------------


def run_gradient(model: PreTrainedModel, block: Block, gradient: Gradient, job: Job) -> Steps:
    """Forward and backward passes for the block. Gradients are freed one by one."""

    def let_go(parameter: torch.Tensor) -> None:
        parameter.grad = None

    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in block.parameters)
        if name in block.parameters:
            parameter.register_post_accumulate_grad_hook(let_go)
    return [timed(gradient) for _ in range(job["steps"])]


def run_badam(model: PreTrainedModel, block: Block, gradient: Gradient, job: Job) -> Steps:
    """The badam package on one block. Its moments start at zero, as ours do."""
    sys.path.insert(0, job["packages"])
    from badam import BlockOptimizer  # type: ignore[import-not-found]

    with warnings.catch_warnings(action="ignore"):  # badam warns that a float32 model saves less memory
        optimizer = BlockOptimizer(
            base_optimizer=torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0),
            named_parameters_list=list(model.named_parameters()),
            block_prefix_list=[list(block.parameters)],
            switch_block_every=10**9,
            start_block=0,
            switch_mode="fixed",
            verbose=0,
        )

    def step() -> None:
        gradient()
        optimizer.step()

    return [timed(step) for _ in range(job["steps"])]


def run_adamw(model: PreTrainedModel, block: Block, gradient: Gradient, job: Job) -> Steps:
    """Full fine-tuning, as is usual."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    return [timed(lambda: stepped(gradient, optimizer)) for _ in range(job["steps"])]


def run_lora(model: PreTrainedModel, block: Block, gradient: Gradient, job: Job) -> Steps:
    """LoRA by peft, which inserts its float32 matrices into the model."""
    sys.path.insert(0, job["packages"])
    from peft import LoraConfig, inject_adapter_in_model  # type: ignore[import-not-found]

    inject_adapter_in_model(LoraConfig(r=LORA_RANK, lora_alpha=2 * LORA_RANK, target_modules="all-linear"), model)
    trained = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in trained:
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    return [timed(lambda: stepped(gradient, optimizer)) for _ in range(job["steps"])]


def stepped(gradient: Gradient, optimizer: torch.optim.Optimizer) -> None:
    """One step of an ordinary optimizer."""
    gradient()
    optimizer.step()
    optimizer.zero_grad()


def run_deca(model: PreTrainedModel, block: Block, gradient: Gradient, job: Job) -> Steps:
    """The engine from thaw to freeze. The neighbours are equal to this node in every bit, so that they cost as much as
    any neighbours and the losses stay those of Adam. The network's copying of frames is not timed."""
    settings = RunSettings(learning_rate=LEARNING_RATE)
    peers = [f"peer{i}" for i in range(job["neighbours"])]
    with tempfile.TemporaryDirectory() as folder:
        engine = activate(model, block, settings, peers, Path(folder))
    nbytes = engine.layout.nbytes(PARAMETERS) if peers else 0
    ours, *theirs = (torch.empty(nbytes, dtype=torch.uint8) for _ in range(1 + len(peers)))
    flows = [FlowBytes(peer, codes, ours) for peer, codes in zip(peers, theirs, strict=True)]

    def half_step() -> None:
        engine.half_step(LEARNING_RATE, gradient)
        if peers:
            engine.encode_update(ours)

    steps: Steps = []
    for _ in range(job["steps"]):
        first = timed(half_step)
        for codes in theirs:
            codes.copy_(ours)
        second = timed(lambda: engine.mix(flows, fold=True))
        steps.append((first[0] + second[0], first[1] + second[1]))
    engine.freeze()
    return steps


def activate(
    model: PreTrainedModel, block: Block, settings: RunSettings, peers: list[str], folder: Path
) -> BlockEngine:
    """Thaw the block and open its edges, as :class:`Trainer` does. x0 is written to ``folder`` and read from there."""
    origin = StartValues(folder).origin(model, block) if peers else nothing
    engine = BlockEngine.of(model, block, settings, origin)
    keyframe = torch.empty(KEYFRAME_CODEC.nbytes(block.elements) if peers else 0, dtype=torch.uint8)
    if peers:
        engine.keyframe(keyframe)
    engine.connect([NewEdge(peer, 1 / (1 + len(peers)), keyframe) for peer in peers], keyframe)
    return engine


ARMS: dict[str, Callable[[PreTrainedModel, Block, Gradient, Job], Steps]] = {
    "gradient": run_gradient,
    "badam": run_badam,
    "adamw": run_adamw,
    "lora": run_lora,
    "deca": run_deca,
}

# --- what the arms work on --------------------------------------------------------------------------


def random_model(size: str, dtype: str, seed: int) -> PreTrainedModel:
    """A Llama-like model with untied embeddings, in training mode and in ``dtype`` from the start."""
    config = LlamaConfig(
        **SIZES[size],
        num_attention_heads=SIZES[size]["hidden_size"] // 64,
        max_position_embeddings=2048,
        use_cache=False,
    )
    torch.manual_seed(seed)
    former = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        return LlamaForCausalLM(config).train()
    finally:
        torch.set_default_dtype(former)


def block_at(blocks: tuple[Block, ...], position: str) -> Block:
    """The first block (embedding), a block in the middle of the layers, or the last (final norm and head)."""
    return blocks[{"first": 0, "middle": len(blocks) // 2, "last": len(blocks) - 1}[position]]


def gradient_of(model: PreTrainedModel, job: Job, losses: list[float]) -> Gradient:
    """Forward and backward passes on one fixed batch. ``losses`` collects every loss."""
    generator = torch.Generator().manual_seed(job["seed"])
    tokens = torch.randint(SIZES[job["size"]]["vocab_size"], (job["batch"], job["length"]), generator=generator)
    batch = Batch(tokens, tokens)

    def gradient() -> float:
        losses.append(backward(model, batch, 0, torch.device("cpu")))
        return losses[-1]

    return gradient


def digests(model: PreTrainedModel) -> dict[str, str]:
    """A hash of every parameter's bytes, which shows later which parameters changed."""
    return {
        name: hashlib.blake2b(parameter.detach().view(torch.uint8).numpy().data).hexdigest()
        for name, parameter in model.named_parameters()
    }


# --- measuring --------------------------------------------------------------------------------------


def warm_up(job: Job) -> None:
    """One step of a tiny model, so that the one-time memory of the libraries is below the baseline."""
    small = job | {"size": "quick", "steps": 1, "neighbours": 1}
    model = random_model("quick", job["dtype"], 0)
    block = block_at(partition(model, 1), "middle")
    run_deca(model, block, gradient_of(model, small, []), small)
    gc.collect()


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call, and its CPU time in all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def resident_bytes() -> int:
    """Resident bytes of this process."""
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Restart the peak at the present resident set. Only Linux can; elsewhere the peak is that of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes() -> int:
    """The largest resident set since :func:`reset_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
