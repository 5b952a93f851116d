"""What the end-to-end tests stand on: nodes as a person would start them, on free ports and in a temporary folder."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deca_node.api.client import NodeClient, read
from deca_node.cli.main import main
from deca_node.daemon.status.facts import Status
from deca_node.lab.rigs.processes import LOOPBACK, LocalNodes, NodeProcess, free_ports, write_peers
from deca_node.protocol.errors import NoAnswerError
from tests.patience import PATIENCE_SECONDS

WORDS = ["the", "a", "node", "peer", "block", "step", "round", "flow", "graph", "edge", "of", "to"]
WORDS += ["and", "in", "is", "it", "was", "mean", "model", "loss", "data", "card"]


def make_tiny_model(path: Path, hidden: int = 32, layers: int = 2) -> Path:
    """A random Llama, of some ten thousand parameters unless told otherwise, with a tokenizer of whole words."""
    vocabulary = {word: number for number, word in enumerate(["<eos>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", unk_token="<unk>")
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


ROOT = Path(__file__).resolve().parents[2]
SHIMS = Path(__file__).with_name("shims")


def shimmed(name: str) -> dict[str, str]:
    """The environment in which a node's processes load the shim ``name`` first."""
    return {"PYTHONPATH": os.pathsep.join([str(SHIMS / name), str(ROOT), os.environ.get("PYTHONPATH", "")])}


def proxied(port: int) -> dict[str, str]:
    """The environment in which a node dials through the proxy at a port of this machine."""
    proxy = f"http://{LOOPBACK}:{port}"
    return {**shimmed("proxied"), "grpc_proxy": proxy, "http_proxy": proxy, "no_proxy": ""}


class Testbed:
    """Nodes on loopback. ``flags`` of :meth:`start` override the defaults of :meth:`_defaults`."""

    __test__ = False

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.nodes = LocalNodes()

    def __enter__(self) -> "Testbed":
        return self

    def __exit__(self, *problem: Any) -> None:
        self.nodes.__exit__(None, None, None)

    def peers(self, *names: str) -> Path:
        return write_peers(self.folder / "peers.txt", names)

    def data(self, name: str) -> Path:
        """Private text: each node prefers other words."""
        path = self.folder / f"{name}.jsonl"
        start = sum(name.encode()) % len(WORDS)
        order = WORDS[start:] + WORDS[:start]
        lines = [" ".join(order[(i * i + j * (1 + i % 3)) % 12] for j in range(24)) for i in range(60)]
        path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        return path

    def start(
        self, name: str, environment: Mapping[str, str] | None = None, /, within: Sequence[str] = (), **flags: Any
    ) -> NodeProcess:
        given = self._defaults(name) | {"--" + key.replace("_", "-"): value for key, value in flags.items()}
        given = {flag: value for flag, value in given.items() if value is not None}
        return self.nodes.start(name, self.folder / "out" / name, given, environment=environment, within=within)

    def join(self, name: str, seed: str, **flags: Any) -> NodeProcess:
        """A newcomer that has nothing but its data and a member's address."""
        given = {"--insecure": True, "--data": self.data(name), "--threads": 1}
        given["--listen"] = f"{LOOPBACK}:{free_ports(1)[0]}"
        given |= {"--peers": self.folder / "none.txt", "--finish-timeout-seconds": 30}
        given |= {"--" + key.replace("_", "-"): value for key, value in flags.items()}
        given = {flag: value for flag, value in given.items() if value is not None}
        return self.nodes.start(name, self.folder / "out" / name, given, verb=("join", seed))

    def _defaults(self, name: str) -> dict[str, Any]:
        return {
            "--insecure": True,
            "--peers": self.folder / "peers.txt",
            "--model": self.model,
            "--data": self.data(name),
            "--threads": 1,
            "--rounds": 1,
            "--inner-steps": 4,
            "--sequence-length": 16,
            "--batch-size": 2,
            "--learning-rate": 1e-3,
            "--topology": "full",
            "--wait": PATIENCE_SECONDS,
            "--finish-timeout-seconds": 30,
        }

    def wait(self, seconds: float = PATIENCE_SECONDS) -> None:
        self.nodes.wait(seconds)


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Poll until ``condition`` gives something; fail with ``what`` after a deadline."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
    return found


def look(node: NodeProcess, good: Callable[[Status], bool], what: str) -> Status:
    """The node's status, once it is good."""

    def attempt() -> Status | None:
        try:
            found = read(Status, NodeClient(node.directory).get("/v1/status"))
        except NoAnswerError:
            return None
        return found if good(found) else None

    status: Status = until(attempt, what)
    return status


def ask(node: NodeProcess, verb: str) -> None:
    """`deca-node VERB`, which must succeed."""
    assert main([verb, "--dir", str(node.directory)]) == 0


def metrics(node: NodeProcess, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind in a node's metrics.jsonl, as far as they are written."""
    path = node.directory / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record for record in records if record["kind"] == kind]


def final_parameters(node: NodeProcess) -> dict[str, torch.Tensor]:
    return load_file(node.directory / "final" / "model.safetensors")


def largest_difference(nodes: list[NodeProcess]) -> float:
    """Over all parameters and all pairs with the first node."""
    return largest_of(*(node.directory / "final" for node in nodes))


def largest_of(*finals: Path) -> float:
    """The same of the folders that tuned models lie in."""
    first, *others = (load_file(folder / "model.safetensors") for folder in finals)
    return max(float((first[name] - other[name]).abs().max()) for other in others for name in first)


@contextmanager
def paused(nodes: Sequence[NodeProcess]) -> Iterator[None]:
    """`deca-node pause` and, in the end, `deca-node resume`: the run waits for what takes its time."""
    for node in nodes:
        ask(node, "pause")
    for node in nodes:
        look(node, lambda status: status.phase == "paused", "the pause")
    yield
    for node in nodes:
        ask(node, "resume")
