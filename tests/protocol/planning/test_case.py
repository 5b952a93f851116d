"""The plan of a run, held against what it plans: the wire, the state machine, and a link simulated step by step."""

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deca_node.daemon.wire import framing as wire
from deca_node.protocol import commands as c
from deca_node.protocol import events as e
from deca_node.protocol.agreed import sizes
from deca_node.protocol.agreed.frames import FrameId, FrameKind
from deca_node.protocol.agreed.run import ModelFacts, RunSettings
from deca_node.protocol.agreed.schedule import Step
from deca_node.protocol.agreed.sizes import FrameSizes
from deca_node.protocol.agreed.topology import graph
from deca_node.protocol.errors import SettingsError
from deca_node.protocol.node.node import Node
from deca_node.protocol.planning import case as cost
from deca_node.protocol.planning.case import BlockShape, Case, Machine, ModelShape, Traffic
from deca_node.protocol.visit.waits import Patience

NAMES = ("a", "b", "c", "d", "e")
HIDDEN, INTERMEDIATE, VOCABULARY = 8, 32, 100


def block(name: str, elements: int, layers: int = 0, layers_from: int = 0, multiplied_from: int = 0) -> BlockShape:
    frame_bytes = {"fp32": 4 * elements, "bf16": 2 * elements, "int8": elements + 4, "int4": elements // 2 + 4}
    return BlockShape(
        name=name,
        elements=elements,
        largest_tensor=elements // 2,
        layers=layers,
        layers_from=layers_from,
        multiplied=elements if name != "embedding" else 0,
        multiplied_from=multiplied_from,
        frame_bytes=frame_bytes,
        signal_bytes={"none": 0, "v": 4 + elements // 100, "mv": elements + 8},
    )


MODEL = ModelShape(
    name="three blocks",
    blocks=(
        block("embedding", 3000, layers_from=1, multiplied_from=1500),
        block("layers.0", 1000, layers=1, layers_from=1, multiplied_from=1500),
        block("head", 500, multiplied_from=500),
    ),
    dtype_bytes=4,
    layers=1,
    hidden=HIDDEN,
    intermediate=INTERMEDIATE,
    vocabulary=VOCABULARY,
)


def case(nodes: int = 5, machine: Machine | None = None, **settings: Any) -> Case:
    given = {
        "rounds": 2,
        "inner_steps": 5,
        "flush_mixes": 1,
        "final_flush_mixes": 3,
        "topology": "ring",
        "signal": "none",
    }
    return Case.of(RunSettings(**{**given, **settings}), MODEL, NAMES[:nodes], machine)


# --- bytes ------------------------------------------------------------------------------------------


def wire_bytes(frame: FrameId, nbytes: int) -> int:
    data = memoryview(bytes(nbytes))
    offsets = range(0, nbytes, sizes.CHUNK_BYTES)
    chunks = (wire.encode_chunk(frame, at, nbytes, data[at : at + sizes.CHUNK_BYTES]) for at in offsets)
    return sum(len(chunk) for chunk in chunks)


# Around the sizes at which a varint grows by a byte, and around whole chunks.
SIZES = st.one_of(
    st.integers(1, 40_000),
    st.sampled_from([k * sizes.CHUNK_BYTES + d for k in (1, 2, 3) for d in (-40, -1, 0, 1, 127, 128)]),
)
POSITIONS = st.one_of(st.integers(0, 300), st.integers(16_000, 17_000))


@given(kind=st.sampled_from(FrameKind), activation=POSITIONS, inner=POSITIONS, nbytes=SIZES)
def test_framing_is_that_of_the_wire(kind: FrameKind, activation: int, inner: int, nbytes: int) -> None:
    framing = sizes.frame_framing_bytes(activation, inner, nbytes)
    assert nbytes + framing == wire_bytes(FrameId("a", kind, activation, inner), nbytes)


@dataclasses.dataclass
class Town:
    """Nodes whose messages arrive at once and whose trainers are done at once; ``sent`` lists their frames."""

    nodes: dict[str, Node]
    sent: list[tuple[str, FrameId]] = dataclasses.field(default_factory=list)

    def live(self) -> None:
        facts = ModelFacts("hash", tuple(b.name for b in MODEL.blocks), tuple(b.elements for b in MODEL.blocks))
        ready = e.TrainerReady(facts, FrameSizes((0,), (0,), (0,)))
        todo: deque[tuple[str, e.Event]] = deque((name, ready) for name in self.nodes)
        while todo:
            name, event = todo.popleft()
            for command in self.nodes[name].handle(event, 0.0):
                todo.extend(self.consequences(name, command))

    def consequences(self, name: str, command: c.Command) -> Iterator[tuple[str, e.Event]]:
        match command:
            case c.Meet():
                yield from ((name, e.PeerUp(peer, -1)) for peer in self.nodes if peer != name)
            case c.Activate():
                yield name, e.Activated(command.activation.index)
            case c.Connect():
                yield name, e.Connected(command.activation)
            case c.HalfStep():
                yield name, e.HalfStepped(command.step, command.update)
            case c.Mix():
                yield name, e.Mixed(command.step)
            case c.Freeze():
                yield name, e.Frozen(command.activation)
            case c.Checkpoint():
                yield name, e.Checkpointed(command.position, "here")
            case c.Evaluate():
                yield name, e.Evaluated(command.when, 0.0, 1)
            case c.Save():
                yield name, e.Saved(command.name)
            case c.SendOpen():
                self.sent.append((name, command.keyframe))
                yield command.peer, e.OpenReceived(name, command.activation, command.degree, command.keyframe)
            case c.SendUpdate():
                self.sent.append((name, command.update))
                yield command.peer, e.UpdateReceived(name, command.update)
            case c.SendBye():
                yield command.peer, e.ByeReceived(name)
            case _:
                assert not isinstance(command, c.SendClose), command


def frame_sizes(settings: RunSettings) -> FrameSizes:
    """As a trainer says them: codes, 20 bytes of state, and a signal."""
    return FrameSizes(
        tuple(b.frame_bytes["int8"] for b in MODEL.blocks),
        tuple(b.frame_bytes[settings.codec] + 20 for b in MODEL.blocks),
        tuple(b.signal_bytes[settings.signal] for b in MODEL.blocks),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"topology": "erdos-renyi"},
        {"mix_every": 2, "codec": "int4"},
        {"mix_every": 9, "codec": "fp32", "flush_mixes": 0},
        {"exchange": "overlap", "block_order": "shuffled", "final_flush_mixes": 0},
        {"signal": "v", "signal_every": 3},
        {"signal": "mv", "signal_every": 2, "mix_every": 2, "inner_steps": 9, "codec": "int4"},
    ],
)
def test_planned_bytes_are_what_nodes_send(settings: dict[str, Any]) -> None:
    """Frame by frame, as the state machine asks for them and the wire writes them."""
    planned = case(**settings)
    town = Town({name: Node(name, NAMES, planned.settings, Patience()) for name in NAMES})
    town.live()
    frames = frame_sizes(planned.settings)
    payload: Counter[tuple[str, FrameKind]] = Counter()
    total: Counter[str] = Counter()
    for name, frame in town.sent:
        nbytes = frames.nbytes(planned.schedule, frame.kind, Step(frame.activation, frame.inner))
        assert nbytes is not None
        payload[name, frame.kind] += nbytes
        total[name] += wire_bytes(frame, nbytes)
    for name, sent in cost.planned_bytes(planned).items():
        assert sent.keyframe_bytes == payload[name, FrameKind.KEYFRAME]
        assert sent.update_bytes == payload[name, FrameKind.UPDATE]
        assert sent.total_bytes == total[name] > 0


def test_a_node_alone_sends_nothing() -> None:
    alone = case(nodes=1)
    assert cost.planned_bytes(alone) == {"a": Traffic()}
    assert cost.run_seconds(alone).transfer == 0.0
    assert cost.memory(alone, MODEL.blocks[0]).frames_bytes == 0


def test_visits_add_up_to_the_run() -> None:
    planned = case()
    visits = [cost.edge_traffic(planned, [index]).total_bytes for index in range(len(planned.schedule))]
    assert sum(visits) == cost.edge_traffic(planned, range(len(planned.schedule))).total_bytes


# --- memory -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype_bytes", "degree", "expected"), [(4, 3, 16 + 12), (2, 3, 20 + 12), (4, 1, 20), (4, 0, 12), (2, 0, 16)]
)
def test_state_per_element(dtype_bytes: int, degree: int, expected: int) -> None:
    assert cost.state_bytes_per_element(dtype_bytes, degree) == expected


def test_memory_adds_up() -> None:
    planned = case(dtype="bfloat16")
    found = cost.memory(planned, MODEL.blocks[0])
    assert found.model_bytes == 2 * 4500
    assert found.state_bytes == (20 + 4 * 2) * 3000 + 2 * 1500
    assert found.frames_bytes == 3 * 2 * 4096, "three senders, two frames each, whole pages"
    both = cost.memory(planned.under(signal="mv"), MODEL.blocks[0])
    assert both.frames_bytes == 3 * 2 * 2 * 4096, "an update with both moments takes 3004 + 20 + 3008 bytes"
    assert found.total_bytes == found.model_bytes + found.state_bytes + found.activation_bytes
    together = cost.memory(planned.on(one_memory=True), MODEL.blocks[0])
    assert together.total_bytes == found.total_bytes + found.frames_bytes
    assert cost.peak_memory(planned) == max(
        (cost.memory(planned, b) for b in MODEL.blocks), key=lambda m: m.total_bytes
    )


def test_activations_follow_the_backward_pass() -> None:
    """The fewer layers lie above a block, the less it needs; and a micro-batch divides all of it."""
    planned = case(batch_size=8)
    embedding, layer, head = (cost.activation_bytes(planned, b) for b in MODEL.blocks)
    assert layer > embedding > head > 0
    assert cost.activation_bytes(planned.on(micro_batch=2), MODEL.blocks[0]) == embedding // 4
    assert cost.activation_bytes(planned.on(micro_batch=64), MODEL.blocks[0]) == embedding
    tokens = 8 * 512
    kept = cost.activation_bytes(planned.on(gradient_checkpointing=True), MODEL.blocks[0]) - head
    assert kept == tokens * 4 * (HIDDEN + (6 + 3) * HIDDEN + (3 + 1) * INTERMEDIATE)


# --- time -------------------------------------------------------------------------------------------


def simulated_overlap(computes: float, transfers: dict[int, float], inner_steps: int) -> float:
    """The trainer and the link, step by step: at an exchange the one before must have arrived, at the last its own."""
    now = arrived = 0.0
    for inner in range(inner_steps):
        now += computes
        if inner in transfers:
            before, arrived = arrived, max(now, arrived) + transfers[inner]
            now = max(now, arrived if inner == inner_steps - 1 else before)
    return now


@given(
    steps=st.integers(1, 20),
    mix_every=st.integers(1, 7),
    signal_every=st.integers(1, 3),
    step_seconds=st.floats(0.01, 10.0),
    mbit=st.floats(0.01, 100.0),
)
def test_overlap_is_what_a_simulated_link_takes(
    steps: int, mix_every: int, signal_every: int, step_seconds: float, mbit: float
) -> None:
    link = Machine(bits_per_second=1e6 * mbit)
    every = {"inner_steps": steps, "mix_every": mix_every, "signal_every": signal_every}
    planned = case(machine=link, exchange="overlap", signal="mv", **every)
    planned = planned.on(flops_per_second=cost.flops_per_second(planned, step_seconds))
    layer = MODEL.blocks[1]
    found = cost.gradient_seconds(planned, layer)
    exchanges = [i for i in range(steps) if i == steps - 1 or (i + 1) % mix_every == 0]
    sent = dict.fromkeys(exchanges, layer.frame_bytes["int8"] + 20)
    for inner in exchanges[:-1][::signal_every]:
        sent[inner] += layer.signal_bytes["mv"]
    transfers = {inner: cost.transfer_seconds(planned, nbytes) for inner, nbytes in sent.items()}
    assert found.total == pytest.approx(simulated_overlap(found.compute / steps, transfers, steps))
    lockstep = cost.gradient_seconds(cost.with_exchange(planned, "lockstep"), layer)
    assert lockstep.total == pytest.approx(found.compute + sum(transfers.values()))
    assert max(found.compute, found.transfer) <= found.total * (1 + 1e-9) <= lockstep.total * (1 + 2e-9)


def test_a_transfer_shares_the_link_among_the_neighbours() -> None:
    planned = case(topology="full", machine=Machine(bits_per_second=8e3, latency_seconds=0.5))
    framed = 996 + sizes.frame_framing_bytes(1, 1, 996)
    assert cost.transfer_seconds(planned, 996) == pytest.approx(0.5 + 4 * framed / 1e3)


def test_a_measured_step_sets_the_speed() -> None:
    planned = case()
    timed = planned.on(flops_per_second=cost.flops_per_second(planned, 2.5))
    steps = [cost.gradient_seconds(timed, b).compute / 5 for b in MODEL.blocks]
    assert sum(steps) / len(steps) == pytest.approx(2.5)
    assert steps[1] > steps[0] > steps[2], "a layer multiplies, an embedding only looks up, a head lies on top"
    again = cost.run_seconds(timed.on(gradient_checkpointing=True))
    assert again.compute > cost.run_seconds(timed).compute == pytest.approx(2 * 3 * 5 * 2.5)


def test_arithmetic_of_a_step() -> None:
    """2 per multiplied element forward, 2 back through what lies above, 2 for the block's own weights."""
    planned = case(sequence_length=16, batch_size=2)
    products, attention = 1500 + 1500 + 1000, 1 + 2 * 1
    assert cost.step_flops(planned, MODEL.blocks[1]) == 2 * 16 * (2 * products + 4 * 16 * HIDDEN * attention)


def test_the_run_is_rounds_and_a_flush() -> None:
    planned = case(machine=Machine(bits_per_second=1e5))
    keyframes, updates = (
        sum(cost.transfer_seconds(planned, b.frame_bytes["int8"] + more) for b in MODEL.blocks) for more in (0, 20)
    )
    run = cost.run_seconds(planned)
    # 2 rounds of a keyframe and 5 + 1 updates per block, then a flush of a keyframe and 3.
    assert run.transfer == pytest.approx((2 + 1) * keyframes + (2 * 6 + 3) * updates)
    assert cost.final_flush_seconds(planned) == pytest.approx(keyframes + 3 * updates)
    assert run.total == pytest.approx(run.compute + run.transfer)
    assert run.bound_by == "network"
    assert cost.run_seconds(planned.on(bits_per_second=1e15, latency_seconds=0.0)).bound_by == "compute"


# --- agreement --------------------------------------------------------------------------------------


def test_mixing_figures() -> None:
    full = case(topology="full").mixing
    assert (full.nodes, full.edges, full.degree_min, full.degree_max) == (5, 10, 4, 4)
    assert full.left_per_mix == pytest.approx(0.0, abs=1e-9)
    assert full.spectral_gap == pytest.approx(1.0)
    ring = case().mixing
    assert (ring.edges, ring.degree_max) == (5, 2)
    assert ring.spectral_gap == pytest.approx(1.0 - ring.left_per_mix)
    assert case(exchange="overlap").mixing.left_per_mix > ring.left_per_mix, "gamma_c is a half"


def test_seldom_mixes_leave_more_per_step() -> None:
    often, seldom = case(inner_steps=6), case(inner_steps=6, mix_every=3)
    assert cost.left_per_step(often) == pytest.approx(often.mixing.left_per_mix)
    assert cost.left_per_step(seldom) ** 3 == pytest.approx(often.mixing.left_per_mix)


def test_only_the_graph_is_reckoned_anew() -> None:
    planned = case(nodes=4)
    assert planned.under(codec="int4").mixing is planned.mixing
    assert planned.under(topology="full").mixing.edges == 6
    assert planned.under(final_flush_mixes=0).final_flush_mixes == planned.mixing.mixes_to_agree


def test_topk_flows_slowly_and_flushes_long() -> None:
    """What it saves in bytes it takes in mixes; the plan says both."""
    frame_bytes = {**MODEL.blocks[0].frame_bytes, "topk": 10}
    model = dataclasses.replace(
        MODEL, blocks=tuple(dataclasses.replace(block, frame_bytes=frame_bytes) for block in MODEL.blocks)
    )
    settings = RunSettings(topology="full", codec="topk", rounds=1)
    planned = Case.of(settings, model, NAMES[:4])
    assert planned.final_flush_mixes == 163
    assert planned.mixing.left_per_mix == pytest.approx(1 - 0.125)
    assert cost.update_bytes(planned, planned.model.blocks[0]) == 10 + 20
    assert planned.under(codec="int8").final_flush_mixes == 3


@pytest.mark.parametrize("every", [1, 3])
def test_bytes_follow_a_graph_that_is_drawn_again(every: int) -> None:
    planned = case(nodes=5, topology="erdos-renyi", redraw_every=every)
    sent = cost.planned_bytes(planned)
    for name in planned.members:
        degrees = [
            len(graph(planned.members, planned.settings, index // every * every)[name])
            for index in range(len(planned.schedule))
        ]
        each = [cost.edge_traffic(planned, [index]).times(degree) for index, degree in enumerate(degrees)]
        assert sent[name] == sum(each, cost.Traffic())
    assert len({traffic.total_bytes for traffic in sent.values()}) > 1


def test_edges_that_do_not_fit_are_refused_before_a_run() -> None:
    with pytest.raises(SettingsError, match=r"^edges: 'a-z' does not join two members"):
        case(topology="edges", edges="a-z")
