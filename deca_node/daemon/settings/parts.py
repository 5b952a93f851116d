"""What parts of a node are told of its settings, so that no part keeps defaults of its own."""

from typing import Any

from deca_node.daemon.settings.after_run import stay_seconds
from deca_node.daemon.settings.node_settings import NodeSettings
from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.membership.profiles import PROFILES
from deca_node.protocol.options import TrainerOptions
from deca_node.protocol.planning.case import Machine
from deca_node.protocol.visit.policy import Policy

SPREAD_INTERVALS = 20
"""Intervals of gossip in which news reaches all members, with a margin: it takes about log n of them."""


def policy_of(node: NodeSettings) -> Policy:
    """How long the node waits for others, and how often it evaluates and writes checkpoints."""
    return Policy(
        gather=node.wait_seconds,
        open=node.open_timeout_seconds,
        step=node.step_timeout_seconds,
        finish=node.finish_timeout_seconds,
        stay=node.after_run != "exit",
        stay_seconds=stay_seconds(node.after_run),
        alone=node.alone,
        eval_every=node.eval_every,
        # Without noise the loss would tell about private records.
        tells_loss=node.share_losses and not node.dp_noise,
        spread=SPREAD_INTERVALS * PROFILES[node.network].gossip_interval,
        checkpoint_every=node.checkpoint_every,
    )


def trainer_options(run: RunSettings, node: NodeSettings) -> TrainerOptions:
    """What the node's trainer needs; ``dir`` is taken as it stands.

    Raises SettingsError if the run would have a private node tell how much data it has."""
    if node.dp_noise and run.weights == "tokens":
        raise SettingsError(
            "dp_noise with weights = 'tokens': a node would tell its peers how many tokens it trains on, which the "
            "guarantee does not cover; take part in a run with weights = 'equal'"
        )
    return TrainerOptions(
        name=node.name,
        settings=run,
        directory=node.dir,
        model=node.model,
        data=node.data,
        device=node.device,
        devices=node.devices,
        parallel=node.parallel,
        threads=node.threads,
        attention=node.attention,
        micro_batch=node.micro_batch,
        gradient_checkpointing=node.gradient_checkpointing,
        holdout=node.holdout,
        eval_sequences=node.eval_sequences,
        bad_records=node.bad_records,
        data_format=node.format,
        columns=node.columns,
        chat_template=node.chat_template,
        norm_limit=node.norm_limit,
        trace=node.trace,
        dp_noise=node.dp_noise,
        dp_clip=node.dp_clip,
        dp_delta=node.dp_delta,
        dp_epsilon=node.dp_epsilon,
    )


def machine_of(node: NodeSettings, **known: Any) -> Machine:
    """The node's machine as a plan sees it; ``known`` are the fields of Machine that the settings do not hold."""
    return Machine(micro_batch=node.micro_batch, gradient_checkpointing=node.gradient_checkpointing, **known)
