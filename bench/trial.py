"""One trial in a new process: a random model, one block of it, a few steps, and a report as JSON.

Arms (``job["arm"]``): ``gradient`` runs forward and backward passes only and frees every gradient at once. ``deca`` is
this project's engine with any number of neighbours. ``badam`` is the ``badam`` package around torch's AdamW. These have
the same weights, the same batch and the same block. ``adamw`` is torch's AdamW on all parameters in the model's own
precision. ``lora`` is the ``peft`` package with rank 16 on all linear layers, and AdamW on its matrices. The last two
know no blocks.

Memory is the peak resident set of the process during the arm (thaw, edges, steps, freeze), less its resident set before
the model was built. That baseline includes what imports and a first tiny backward pass load for good. Weights,
gradients, optimizer state, frames, activations and torch's workspace are above it. On a GPU it is the peak of what
torch has allocated there; frames are in the host's memory, as those of a node are.

A job may name a ``device``, a ``config`` in place of a size, ``checkpointing``, and a ``budget``: the bytes that torch
may take of a GPU. A trial that needs more reports ``fits: false``.
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
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

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
    if job.get("budget"):
        total = torch.cuda.get_device_properties(device_of(job)).total_memory
        torch.cuda.set_per_process_memory_fraction(job["budget"] / total, device_of(job))
    try:
        return measured(job)
    except torch.OutOfMemoryError:
        return {"fits": False}


def measured(job: Job) -> Job:
    """The report of a trial whose memory is enough."""
    warm_up(job)
    device = device_of(job)
    baseline = used_bytes(device)
    model = random_model(job)
    block = block_at(partition(model, job.get("block_layers", 1)), job["position"])
    before = digests(model)
    losses: list[float] = []
    gradient = gradient_of(model, job, losses)
    gc.collect()
    reset_peak(device)
    steps = ARMS[job["arm"]](model, block, gradient, job)
    peak = peak_bytes(device)
    after = digests(model)
    return {
        "fits": True,
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
    return [timed(gradient, device_of(job)) for _ in range(job["steps"])]


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

    return [timed(step, device_of(job)) for _ in range(job["steps"])]


def run_adamw(model: PreTrainedModel, block: Block, gradient: Gradient, job: Job) -> Steps:
    """Full fine-tuning, as is usual."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    return [timed(lambda: stepped(gradient, optimizer), device_of(job)) for _ in range(job["steps"])]


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
    return [timed(lambda: stepped(gradient, optimizer), device_of(job)) for _ in range(job["steps"])]


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
    device = device_of(job)
    for _ in range(job["steps"]):
        first = timed(half_step, device)
        for codes in theirs:
            codes.copy_(ours)
        second = timed(lambda: engine.mix(flows, fold=True), device)
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


def random_model(job: Job) -> PreTrainedModel:
    """A model with random weights, in training mode and in its ``dtype`` from the start: of the job's ``config``, or a
    Llama-like one of the job's size with untied embeddings."""
    torch.manual_seed(job["seed"])
    former = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, job["dtype"]))
    try:
        with device_of(job):
            made = of_config(job["config"]) if "config" in job else of_size(job["size"])
    finally:
        torch.set_default_dtype(former)
    if job.get("checkpointing"):
        made.gradient_checkpointing_enable({"use_reentrant": False})
    return made.train()


def of_config(facts: Job) -> PreTrainedModel:
    """The model of what a config.json says."""
    made: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**facts, use_cache=False))
    return made


def of_size(size: str) -> PreTrainedModel:
    """One of the benches' own models."""
    heads = SIZES[size]["hidden_size"] // 64
    return LlamaForCausalLM(
        LlamaConfig(**SIZES[size], num_attention_heads=heads, max_position_embeddings=2048, use_cache=False)
    )


def block_at(blocks: tuple[Block, ...], position: str) -> Block:
    """The first block (embedding), a block in the middle of the layers, or the last (final norm and head)."""
    return blocks[{"first": 0, "middle": len(blocks) // 2, "last": len(blocks) - 1}[position]]


def gradient_of(model: PreTrainedModel, job: Job, losses: list[float]) -> Gradient:
    """Forward and backward passes on one fixed batch. ``losses`` collects every loss."""
    generator = torch.Generator().manual_seed(job["seed"])
    tokens = torch.randint(model.config.vocab_size, (job["batch"], job["length"]), generator=generator)
    batch, device = Batch(tokens, tokens), device_of(job)

    def gradient() -> float:
        losses.append(backward(model, batch, 0, device))
        return losses[-1]

    return gradient


def digests(model: PreTrainedModel) -> dict[str, str]:
    """A hash of every parameter's bytes, which shows later which parameters changed."""
    return {name: digest(parameter.detach()) for name, parameter in model.named_parameters()}


def digest(values: torch.Tensor) -> str:
    """A hash of a tensor's bytes; on a GPU the sum of its words, since its bytes would take too long to fetch."""
    if values.is_cuda:
        return str(values.view({2: torch.int16, 4: torch.int32}[values.element_size()]).sum(dtype=torch.int64).item())
    return hashlib.blake2b(values.view(torch.uint8).numpy().data).hexdigest()


# --- measuring --------------------------------------------------------------------------------------


def warm_up(job: Job) -> None:
    """One step of a tiny model, so that the one-time memory of the libraries is below the baseline."""
    small = {key: value for key, value in job.items() if key not in ("config", "checkpointing")}
    small |= {"size": "quick", "steps": 1, "neighbours": 1, "seed": 0}
    model = random_model(small)
    block = block_at(partition(model, 1), "middle")
    run_deca(model, block, gradient_of(model, small, []), small)
    gc.collect()


def device_of(job: Job) -> torch.device:
    """Where the job runs."""
    return torch.device(job.get("device", "cpu"))


def settle(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(function: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of one call until the device has done it, and its CPU time in all threads."""
    settle(device)
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    settle(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def used_bytes(device: torch.device) -> int:
    """Resident bytes of this process, or what torch has allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def reset_peak(device: torch.device) -> None:
    """Restart the peak at the present. Of resident memory only Linux can; elsewhere it is that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """The most memory since :func:`reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
