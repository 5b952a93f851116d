"""Every setting's name and type, for keyword arguments. Written by tools/write_python_settings.py: change the settings,
not this file. docs/CONFIGURATION.md says what each one means, with defaults, units and limits."""

from pathlib import Path
from typing import Literal, TypedDict


class Settings(TypedDict, total=False):
    """The settings of the run, then those of the node. None of them is needed: each has a default."""

    run_name: str
    seed: int
    rounds: int
    epochs: float
    epoch_sequences: int
    inner_steps: int
    block_layers: int
    block_order: Literal["forward", "backward", "shuffled"]
    task: Literal["causal-lm", "classification"]
    labels: str
    sequence_length: int
    packing: Literal["isolated", "concatenated", "none"]
    truncation: Literal["keep-end", "keep-start", "drop"]
    batch_size: int
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    learning_rate: float
    lr_schedule: Literal["constant", "linear", "cosine"]
    lr_warmup: float
    early_stop_rounds: int
    early_stop_gain: float
    lr_warmup_steps: int
    embedding_lr_scale: float
    head_lr_scale: float
    weight_decay: float
    max_grad_norm: float
    neftune_alpha: float
    dropout: float
    alpha1: float
    alpha2: float
    epsilon: float
    discrepancy: Literal["none", "paper", "descent", "precond", "rms", "trivial"]
    h_into: Literal["both", "m", "v"]
    h_part: Literal["full", "consensus"]
    bias_correction: Literal["alpha", "exact"]
    beta1: float
    beta2: float
    signal: Literal["none", "v", "mv"]
    signal_every: int
    moments_every: int
    moment_bits: int
    v_every: int
    topology: Literal[
        "ring",
        "exponential",
        "torus",
        "hypercube",
        "full",
        "erdos-renyi",
        "random-regular",
        "edges",
        "pairs",
        "one-peer-exponential",
    ]
    partners: Literal["visit", "step"]
    edge_probability: float
    degree: int
    redraw_every: int
    edges: str
    weights: Literal["equal", "tokens"]
    weight_tokens: int
    codec: Literal["fp32", "bf16", "int8", "int4", "topk"]
    exchange: Literal["lockstep", "overlap"]
    gamma_c: float
    robust: Literal["none", "clip"]
    robust_neighbours: int
    clip_radius: float
    clip_reach: float
    mix_every: int
    late_steps: int
    flush_mixes: int
    final_flush_mixes: int
    name: str
    listen: str
    advertise: str
    join: str
    membership: Literal["gossip", "static"]
    network: Literal["lan", "wan", "local"]
    wait_for: int
    dir: str | Path
    device: str
    devices: str
    parallel: Literal["auto", "data", "shard"]
    ranks_elsewhere: int
    ranks_at: str
    ranks_secret: str | Path
    threads: int
    trainer_priority: Literal["idle", "low", "normal"]
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"]
    micro_batch: int
    gradient_checkpointing: bool
    holdout: float
    eval_every: Literal["round", "activation", "never"]
    eval_sequences: int
    checkpoint_every: int
    format: Literal[
        "auto",
        "text",
        "prompt",
        "messages",
        "alpaca",
        "sharegpt",
        "jsonl",
        "json",
        "csv",
        "tsv",
        "parquet",
        "arrow",
    ]
    columns: str
    chat_template: str | Path
    bad_records: Literal["stop", "skip"]
    dp_noise: float
    dp_clip: float
    dp_delta: float
    dp_epsilon: float
    wait_seconds: float
    open_timeout_seconds: float
    step_timeout_seconds: float
    finish_timeout_seconds: float
    after_run: str
    alone: bool
    max_upload: float
    transfer_upload: float
    relay: bool
    relay_upload: float
    relay_pairs: int
    share_losses: bool
    share_model: bool
    http: str
    http_token: str | Path
    tls_cert: str | Path
    tls_key: str | Path
    tls_ca: str | Path
    allow: str | Path
    deny: str | Path
    norm_limit: float
    quarantine_seconds: float
    insecure: bool | int
    trace: bool
    metrics_every: float
    tensorboard: str | Path
    track: str
    track_project: str
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["text", "json"]
    log_file: bool
