"""The settings of one node (``node.toml``).

Settings that all nodes must agree on are in :class:`~deca_node.protocol.agreed.run.RunSettings` (``run.toml``). The
settings here concern one machine only: other nodes never see them, and two nodes of one run may differ in all of them.

A value that no setting may have is refused here; :mod:`deca_node.daemon.settings.before_start` checks the rest.
"""

from dataclasses import dataclass

from deca_node.daemon.settings.address import Address, parse_address
from deca_node.daemon.settings.after_run import stay_seconds
from deca_node.daemon.settings.texts import check_address, listed
from deca_node.protocol.agreed.settings import check_choices, check_limits, setting
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.options import ATTENTIONS, DATA_FORMATS, PARALLELS, RANKS_MAX, check_where, columns_of

TRACKERS = ("tensorboard", "wandb", "mlflow")
TRAINER_PRIORITIES = ("idle", "low", "normal")


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """``node.toml``: the settings of one machine.

    Relative paths start at the working directory. ``~`` is the home folder.
    """

    name: str = setting(
        "", "This node's name. Empty: the name in its certificate, or the name on its own line of the peers file."
    )
    listen: str = setting(
        "",
        "Address to listen on. Empty: the address on this node's own line of the peers file. 0.0.0.0:PORT and "
        "[::]:PORT listen on every address of the machine.",
        unit="host:port",
    )
    advertise: str = setting(
        "",
        "Address under which other nodes reach this node. Empty: the address on its line of the peers file, or "
        "the one it listens on.",
        unit="host:port",
    )
    peers: str = setting("peers.txt", "The peers file. Each line is host:port or name@host:port.", unit="path")
    join: str = setting(
        "",
        "Addresses of members to call first, in addition to the peers file or instead of it. A host name may "
        "stand for many addresses and is looked up again and again.",
        unit="host:port, host:port, ...",
    )
    membership: str = setting(
        "gossip",
        "Which nodes may take part: every node that knows a member and agrees on the run (gossip), or only the "
        "nodes named in the peers file (static).",
        choices=("gossip", "static"),
    )
    network: str = setting(
        "lan",
        "How long membership waits for members that do not answer: nodes at one site (lan), far apart (wan), or "
        "on one machine (local).",
        choices=("lan", "wan", "local"),
    )
    wait_for: int = setting(
        0,
        "Number of nodes, this one included, that must have met before the run begins. 0: the number of lines in "
        "the peers file.",
        unit="nodes",
        low=0,
    )
    model: str = setting(
        "", "Folder of a Hugging Face checkpoint, or the id of a model on the Hugging Face hub.", unit="path or hub id"
    )
    data: str = setting(
        "",
        "This node's private records: a file or a folder, or several with commas between. NAME*2 counts the records of "
        "NAME twice. hf://OWNER/NAME[/SUBSET][:SPLIT][@REVISION] is a data set of the Hugging Face hub. Records never "
        "leave this machine.",
        unit="path",
    )
    dir: str = setting(
        "", "The node's folder, for checkpoints, metrics and the tuned model. Empty: ./deca-data/NAME.", unit="path"
    )

    device: str = setting(
        "auto", "Device to train on: auto, cpu, cuda, cuda:N or mps. auto uses a CUDA device if there is one."
    )
    devices: str = setting(
        "",
        "Devices to train on together, one process (rank) for each: auto (all CUDA devices), cuda:0,cuda:1, cuda*N "
        "(the first N), cpu*N, or N (of what auto finds). Each rank takes its share of every batch. Empty: one rank, "
        "on device.",
    )
    parallel: str = setting(
        "auto",
        "What several ranks share: each holds the whole model (data), or a part of it (shard). auto: data if it fits.",
        choices=PARALLELS,
    )
    ranks_elsewhere: int = setting(
        0,
        "Ranks on other servers of this party (deca-node lend). The trainer starts when all are there.",
        unit="ranks",
        low=0,
        high=RANKS_MAX - 1,
    )
    ranks_at: str = setting(
        "",
        "With ranks_elsewhere: where this node waits for them, in a private network: nothing is encrypted.",
        unit="host:port",
    )
    ranks_secret: str = setting(
        "", "With ranks_elsewhere: file with a secret that they have, too. Not needed on loopback.", unit="path"
    )
    threads: int = setting(
        0, "CPU threads of the trainer, which its ranks share. 0: one per core.", unit="threads", low=0
    )
    trainer_priority: str = setting(
        "low",
        "Priority of the trainer's process: it gets only time that no other process on its cores wants (idle), which"
        " may be none on a machine with other work; or it is nicer by 5 (low), or as the node itself (normal).",
        choices=TRAINER_PRIORITIES,
    )
    attention: str = setting(
        "auto",
        "How attention is computed: as transformers chooses for the model (auto), or by one of its implementations.",
        choices=ATTENTIONS,
    )
    micro_batch: int = setting(
        0, "Sequences per forward pass, to save memory. 0: the whole batch at once.", unit="sequences", low=0
    )
    gradient_checkpointing: bool = setting(
        False, "Compute activations twice instead of keeping them: slower, with less memory."
    )

    holdout: float = setting(
        0.1,
        "Share of this node's records that is held out to measure the loss; the first start decides for good.",
        low=0.0,
        high=0.9,
    )
    eval_every: str = setting("round", "When to measure the held-out loss.", choices=("round", "activation", "never"))
    eval_sequences: int = setting(64, "Largest number of held-out sequences per measurement.", unit="sequences", low=1)
    checkpoint_every: int = setting(
        0,
        "Steps between checkpoints within a visit of a block. 0: checkpoints only at the end of a visit.",
        unit="steps",
        low=0,
    )
    format: str = setting(
        "auto",
        "Format of the data. auto: found by looking, file by file and record by record. text, prompt, messages, "
        "alpaca and sharegpt name the kind of all records; the others name the format of all files, whatever they "
        "are called.",
        choices=DATA_FORMATS,
    )
    columns: str = setting(
        "",
        "Names in the data for the names that records have, as in text=body,label=topic. Empty: the same names.",
        unit="NAME=COLUMN,...",
    )
    chat_template: str = setting(
        "",
        "File with the chat template (Jinja) that chats are rendered with, and that is saved with the tuned model. All "
        "parties should use the same one. Empty: the template of the model's tokenizer.",
        unit="path",
    )
    bad_records: str = setting(
        "stop",
        "What to do with a malformed record: stop the node, or skip the record and count it.",
        choices=("stop", "skip"),
    )

    dp_noise: float = setting(
        0.0,
        "Differential privacy of this node's records: standard deviation of the noise in every gradient, in units"
        " of dp_clip. 0: no noise. Above 0 it needs the extra deca-node[privacy], and every record becomes a "
        "sequence of its own.",
        low=0.0,
        high=1e4,
    )
    dp_clip: float = setting(
        1.0, "With dp_noise: the norm to which each record's gradient of the active block is clipped.", low=1e-12
    )
    dp_delta: float = setting(
        1e-5,
        "With dp_noise: the probability with which the guarantee of epsilon may fail. Choose it well below 1 / "
        "records.",
        low=1e-12,
        high=0.5,
    )
    dp_epsilon: float = setting(
        0.0, "With dp_noise: the largest epsilon that may be spent in this folder. 0: no limit.", low=0.0
    )

    wait_seconds: float = setting(
        0.0, "How long to wait for the expected peers before the run begins. 0: for ever.", unit="seconds", low=0.0
    )
    open_timeout_seconds: float = setting(
        120.0,
        "Longest wait for a neighbour's keyframe at the start of a visit. The node waits less once it knows how "
        "long keyframes take.",
        unit="seconds",
        low=0.1,
    )
    step_timeout_seconds: float = setting(
        120.0,
        "Longest wait for a neighbour's update in a step. The node waits less once it knows how long updates take.",
        unit="seconds",
        low=0.1,
    )
    finish_timeout_seconds: float = setting(
        60.0, "How long a finished node stays so that its neighbours can finish.", unit="seconds", low=0.0
    )
    after_run: str = setting(
        "exit",
        "What a node does when its run is complete: exit, stay until it is told to stop, or stay for a time, as in "
        "'stay 24h' (s, m, h or d). A node that stays has no trainer. It gives its blocks to late nodes and shows its "
        "page.",
    )
    alone: bool = setting(
        False,
        "What a node does that is started again while none of the others is there: wait for them, or (with alone) go "
        "on without them. Its tuned model is then its own, and is marked so.",
    )

    max_upload: float = setting(
        0.0, "Largest rate at which this node sends to all peers together. 0: no limit.", unit="Mbit/s", low=0.0
    )

    transfer_upload: float = setting(
        200.0,
        "Largest rate at which this node sends the model to late nodes, within max_upload. 0: no limit.",
        unit="Mbit/s",
        low=0.0,
    )
    relay: bool = setting(
        False,
        "Relay the connections of two other members of which neither can dial the other, as where both are behind NAT."
        " Without --insecure the relay cannot read them: it sees who talks with whom, when, and how much.",
    )
    relay_upload: float = setting(
        100.0,
        "With relay: largest rate at which this node passes bytes on, for all pairs and both directions together,"
        " within max_upload. 0: no limit.",
        unit="Mbit/s",
        low=0.0,
    )
    relay_pairs: int = setting(
        8, "With relay: largest number of pairs of members that are relayed at one time.", unit="pairs", low=1
    )
    share_losses: bool = setting(
        True,
        "Tell the other members this node's losses and pace, for the view of the whole run on their pages, and for "
        "early_stop_rounds. With dp_noise a node never tells them.",
    )
    share_model: bool = setting(
        True, "Give the start model's files to newcomers that ask for them (deca-node join). Only members can ask."
    )
    http: str = setting(
        "",
        "Address for the dashboard, /metrics, /livez, /readyz and /v1/status, all read-only. Empty: none.",
        unit="host:port",
    )
    http_token: str = setting(
        "",
        "File with the token that the dashboard and /v1 require. Empty: on a loopback address no token is needed,"
        " on other addresses both are closed. none: they are open to all. The probes and /metrics never require a"
        " token.",
        unit="path",
    )
    tls_cert: str = setting(
        "", "This node's certificate and the certificates between it and the authority, in PEM format.", unit="path"
    )
    tls_key: str = setting("", "The certificate's private key, in PEM format, with file mode 0600.", unit="path")
    tls_ca: str = setting("", "Certificates of the authorities whose nodes may take part, in PEM format.", unit="path")
    allow: str = setting(
        "",
        "File with the names or sha256: fingerprints that may take part. Empty: every node with a certificate of "
        "the authorities.",
        unit="path",
    )
    deny: str = setting("", "File with the names or sha256: fingerprints that may not take part.", unit="path")

    norm_limit: float = setting(
        1000.0,
        "Refuse a neighbour's keyframe or update if its norm is more than this many times the norm of this node's"
        " own and of the other neighbours' in the visit, or of the distance that a block can have moved. 0: "
        "refuse none.",
        unit="times",
        low=0.0,
    )
    quarantine_seconds: float = setting(
        60.0,
        "How long to ignore a peer that has broken the rules three times. Each further quarantine is twice as "
        "long, up to an hour. 0: no quarantine.",
        unit="seconds",
        low=0.0,
    )

    insecure: int = setting(
        0,
        "Turn encryption off. Given once (1): for connections within this machine. Given twice (2): for any "
        "network, where everybody on the path can read and change what the nodes exchange.",
        low=0,
        high=2,
    )
    trace: bool = setting(
        False, "Write every step's gradient and parameters into DIR/trace, to check a small run against the equations."
    )
    metrics_every: float = setting(
        60.0,
        "Time between lines with all metrics in DIR/metrics.jsonl. 0: only one such line, at the end. Steps and "
        "evaluations have lines of their own.",
        unit="seconds",
        low=0.0,
    )
    tensorboard: str = setting(
        "",
        "Folder for TensorBoard files; each node makes a folder of its own in it. Empty: none. Needs the extra "
        "deca-node[tensorboard].",
        unit="path",
    )
    track: str = setting(
        "",
        "Trackers that get the run's curves: tensorboard, wandb, mlflow. Each needs the extra of its name. The "
        "services' own variables (WANDB_*, MLFLOW_*) say where they are; offline their files lie in DIR/track. They "
        "get numbers, the run's settings and this node's name.",
        unit="NAME,...",
    )
    track_project: str = setting(
        "", "With track: the project of Weights & Biases, or the experiment of MLflow. Empty: deca-node."
    )
    log_level: str = setting(
        "info", "Lowest level of log lines to print.", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "text",
        "Format of log lines: text for people, or JSON objects with node, round, block, step and peer for "
        "programs (json).",
        choices=("text", "json"),
    )
    log_file: bool = setting(
        True,
        "Write the log lines to DIR/node.log, too, for deca-node logs: the newest 15 MB, in three parts. Trouble with "
        "this file never stops the node.",
    )

    def __post_init__(self) -> None:
        check_limits(self)
        check_where(
            self.device, self.devices, self.parallel, self.ranks_elsewhere, self.ranks_at, private=self.dp_noise > 0
        )
        stay_seconds(self.after_run)
        for name in ("listen", "advertise", "http", "ranks_at"):
            check_address(name, getattr(self, name))
        for seed in listed(self.join):
            check_address("join", seed)
        columns_of(self.columns)
        check_choices("track", listed(self.track), TRACKERS)
        tls = [name for name in ("tls_cert", "tls_key", "tls_ca") if getattr(self, name)]
        if tls and len(tls) < 3:
            raise SettingsError(f"{' and '.join(tls)} alone is not enough: set tls_cert, tls_key and tls_ca together")
        if self.dp_epsilon and not self.dp_noise:
            raise SettingsError(
                f"dp_epsilon = {self.dp_epsilon:g} limits the cost of private gradients, but with dp_noise = 0 "
                "there are none: set dp_noise, or leave dp_epsilon out"
            )
        if tls and self.insecure:
            raise SettingsError("insecure and tls_cert contradict each other; leave one out")

    @property
    def ranks_address(self) -> Address | None:
        """``ranks_at`` as an address; None where no other server lends ranks."""
        return parse_address(self.ranks_at) if self.ranks_at else None

    @property
    def listen_address(self) -> Address | None:
        """``listen`` as an address; None where the peers file decides."""
        return parse_address(self.listen) if self.listen else None

    @property
    def advertise_address(self) -> Address | None:
        """``advertise`` as an address; None where it follows from the other settings."""
        return parse_address(self.advertise) if self.advertise else None

    @property
    def http_address(self) -> Address | None:
        """``http`` as an address; None where the node answers no HTTP on a port."""
        return parse_address(self.http) if self.http else None

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in ``track``, and TensorBoard where it has a folder of its own."""
        named = ["tensorboard"] if self.tensorboard else []
        return tuple(dict.fromkeys([*named, *listed(self.track)]))

    @property
    def seeds(self) -> tuple[Address, ...]:
        """The addresses in ``join``."""
        return tuple(parse_address(seed) for seed in listed(self.join))
