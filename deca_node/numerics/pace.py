"""How long a gradient step takes on this machine, tried before a run: the model is loaded, and a few blocks take steps.

The trial writes nothing and talks to nobody. Its batches are random tokens in full sequences, of which as many are
learnt as of the records: the time of a step does not depend on what the tokens say. Of the records the first few
thousand are tokenized. The process must be prepared as a trainer's is (``set_before_torch``, ``settle_memory``), or
steps take several times as long.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

import torch

from deca_node.numerics.data.batches import IGNORED, Batch
from deca_node.numerics.data.formats.sources import BadRecords, Reading
from deca_node.numerics.data.records import RecordReader
from deca_node.numerics.data.templates import use_template
from deca_node.numerics.data.tokenizing import RecordTokenizer, runs
from deca_node.numerics.device import choose_devices, share_threads
from deca_node.numerics.engine import BlockEngine
from deca_node.numerics.learning.loss import backward
from deca_node.numerics.learning.prepared import load_for, prepare
from deca_node.numerics.model.blocks import Block, partition
from deca_node.numerics.model.load import LoadedModel
from deca_node.numerics.saving.start_values import nothing
from deca_node.protocol.errors import DataError
from deca_node.protocol.options import TrainerOptions
from deca_node.protocol.planning.length import fitting_sequence
from deca_node.storage.data_sources import data_sources

RECORDS_MAX = 5000
BLOCKS_MAX = 3
"""Blocks that take steps: the first, the middle and the last one. The backward pass ends at the block."""
STEPS_MAX, SECONDS_MAX = 5, 3.0
"""Each of them takes so many steps, or for so long, after a first one that warms up."""


@dataclass(frozen=True)
class Pace:
    """What was tried: the model's ``blocks`` and ``parameters``, seconds of a gradient step in the mean over blocks,
    and seconds of loading. The data make about so many ``sequences`` of ``sequence_length`` tokens, before any are held
    out."""

    blocks: int
    parameters: int
    step_seconds: float
    load_seconds: float
    sequences: float
    sequence_length: int


@dataclass(frozen=True)
class _Looked:
    """Tokens of each of the first records (``lengths``), the share of them that is learnt, and the ``share`` of all
    data that these records are."""

    lengths: list[int]
    learnt: float
    share: float

    def sequences(self, length: int) -> float:
        """About how many sequences all records fill: two that are longer than half of one do not share one."""
        return max(sum(self.lengths) / length, sum(each > length / 2 for each in self.lengths)) / self.share


def try_pace(options: TrainerOptions, say: Callable[[str], None] = lambda stage: None) -> Pace:
    """Load the model, choose a sequence length that suits the records, and take steps of a few blocks.

    ``options.settings`` gives the batch size and all else. Raises ModelError, DataError or TrainerError as a start
    would.
    """
    began = time.monotonic()
    device = choose_devices(options.device, options.devices)[0]
    share_threads(options.threads, 1)
    say("loading the model")
    loaded = load_for(options, device)
    prepare(loaded, options)
    say("tokenizing records")
    found = _look(options, loaded)
    length = fitting_sequence(found.lengths, loaded.positions_max)
    load_seconds = time.monotonic() - began
    blocks = partition(loaded.model, options.settings.block_layers)
    options = replace(options, settings=replace(options.settings, sequence_length=length))
    batch = _batch(options, loaded, found.learnt)
    seconds = [_step_seconds(options, loaded, block, batch, say) for block in _some(blocks)]
    parameters = sum(block.elements for block in blocks)
    return Pace(len(blocks), parameters, sum(seconds) / len(seconds), load_seconds, found.sequences(length), length)


def _some(blocks: tuple[Block, ...]) -> Iterator[Block]:
    """Blocks from the first to the last, spread evenly."""
    count = min(BLOCKS_MAX, len(blocks))
    for number in range(count):
        yield blocks[round(number * (len(blocks) - 1) / max(count - 1, 1))]


def _look(options: TrainerOptions, loaded: LoadedModel) -> _Looked:
    use_template(loaded.tokenizer, options.chat_template)
    bad, reading = BadRecords(skip=options.bad_records == "skip"), Reading.of(options.data_format, options.columns)
    readers = [RecordReader(source.place, bad, reading) for source in data_sources(options.data) if not source.is_hub]
    records = chain.from_iterable(readers)
    encoder, lengths, learnt = RecordTokenizer(loaded.tokenizer, bad), list[int](), 0
    for run in runs(islice(records, RECORDS_MAX), lambda record: record.characters):
        for tokens in encoder.encode(run):
            lengths.append(len(tokens))
            learnt += int(tokens.trained.sum())
    if not lengths:
        raise DataError(f"{options.data}: there are no usable records on this machine; give at least one")
    done, total = (sum(getattr(each, name) for each in readers) for name in ("bytes_done", "bytes_total"))
    all_read = next(records, None) is None or not total
    return _Looked(lengths, learnt / sum(lengths), 1.0 if all_read else min(done / total, 1.0))


def _batch(options: TrainerOptions, loaded: LoadedModel, learnt: float) -> Batch:
    """Random tokens, of which this share is learnt."""
    shape = (options.settings.batch_size, options.settings.sequence_length)
    ids = torch.randint(loaded.model.config.get_text_config().vocab_size, shape)
    return Batch(ids, ids.masked_fill(torch.rand(shape) >= learnt, IGNORED))


def _step_seconds(
    options: TrainerOptions, loaded: LoadedModel, block: Block, batch: Batch, say: Callable[[str], None]
) -> float:
    """Seconds of one gradient step of a block."""
    say(f"trying a step of {block.name}")
    settings, device = options.settings, next(loaded.model.parameters()).device
    engine = BlockEngine.of(loaded.model, block, settings, nothing)
    learn = partial(backward, loaded.model, batch, options.micro_batch, device)
    _step(engine, learn, settings.learning_rate)
    began, steps = time.monotonic(), 0
    while steps < STEPS_MAX and (not steps or time.monotonic() - began < SECONDS_MAX):
        _step(engine, learn, settings.learning_rate)
        steps += 1
    took = (time.monotonic() - began) / steps
    engine.freeze()
    return took


def _step(engine: BlockEngine, learn: Callable[[], float], gamma: float) -> None:
    engine.half_step(gamma, learn)
    engine.mix([], fold=True)
