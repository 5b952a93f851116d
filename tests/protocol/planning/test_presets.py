"""The ladder of exchanges: fewer bytes from rung to rung, and the first that suits the line and the memory."""

import pytest

from deca_node.protocol.agreed.run import RunSettings
from deca_node.protocol.planning.case import BlockShape, Case, ModelShape
from deca_node.protocol.planning.presets import LADDER, PRESETS, choose, weigh
from tests.protocol.planning.cases import case as small_case

NAMES = tuple(f"node-{number:02d}" for number in range(8))
ELEMENTS = 10_000_000


def layer(number: int) -> BlockShape:
    return BlockShape(
        name=f"layers.{number}",
        elements=ELEMENTS,
        largest_tensor=1_000_000,
        layers=1,
        layers_from=4 - number,
        multiplied=ELEMENTS,
        multiplied_from=(4 - number) * ELEMENTS,
        frame_bytes={"fp32": 4 * ELEMENTS, "bf16": 2 * ELEMENTS, "int8": 10_156_252, "int4": 5_625_000},
        v_bytes=39_067,
        m_bytes={1: 1_406_250, 2: 2_656_250, 4: 5_625_000, 8: 10_156_252},
    )


MODEL = ModelShape("four layers", tuple(map(layer, range(4))), 2, 4, 512, 2048, 10_000)


def case(bits_per_second: float, memory_bytes: float | None = None, **settings: object) -> Case:
    made = Case.of(RunSettings(**settings), MODEL, NAMES, small_case().machine)  # type: ignore[arg-type]
    return made.on(bits_per_second=bits_per_second, latency_seconds=1e-3, memory_bytes=memory_bytes)


def test_each_rung_sends_less_than_the_one_before() -> None:
    weighed = [one for one in weigh(case(1e8)) if one.exchange == "lockstep"]
    assert [one.rung for one in weighed] == list(LADDER)
    sent = [one.sent_bytes for one in weighed]
    assert sent == sorted(sent, reverse=True) and sent[-1] < sent[0] / 4


def test_presets_are_valid_runs_and_leave_the_rest_as_it_is() -> None:
    for rung in PRESETS.values():
        changed = case(1e8, rounds=7).under(**rung.changes(RunSettings()))
        assert changed.settings.rounds == 7 and changed.settings.codec == "int4"
    assert PRESETS["home"].changes(RunSettings(inner_steps=30))["mix_every"] == 30


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_first_rung_under_the_share_is_chosen(share: float) -> None:
    for bits in (1e6, 1e9):
        weighed = tuple(weigh(case(bits)))
        chosen = choose(weighed, share)
        if chosen.share <= share:
            assert all(one.share > share for one in weighed[: weighed.index(chosen)])
        else:
            assert chosen.share == min(one.share for one in weighed), "else the one with the least communication"
    assert choose(tuple(weigh(case(1e12))), 1.0).rung.name == "lan"


def test_memory_decides_before_the_line() -> None:
    every = {one.rung.name: one.memory.total_bytes for one in weigh(case(1e12))}
    limit = (every["lan"] + every["home"]) / 2
    assert choose(tuple(weigh(case(1e12, limit)))).rung.settings["topology"] == "pairs"
    assert choose(tuple(weigh(case(1e12, 1.0)))).memory.total_bytes == min(every.values()), "if none fits, the smallest"


def test_what_is_set_stays() -> None:
    kept = case(1e4, codec="bf16", exchange="overlap", topology="ring")
    weighed = tuple(weigh(kept, keep=("codec", "exchange", "topology")))
    assert {one.exchange for one in weighed} == {"overlap"}
    for one in weighed:
        after = kept.under(**one.changes).settings
        assert (after.codec, after.topology) == ("bf16", "ring")


def test_a_graph_that_is_kept_has_no_partners_that_change() -> None:
    for kept in ({"topology": "ring"}, {"mix_every": 1, "topology": "pairs"}):
        for one in weigh(case(1e4, **kept), keep=tuple(kept)):
            assert case(1e4, **kept).under(**one.changes).settings.partners == "visit"
    assert {one.changes["partners"] for one in weigh(case(1e4))} == {"visit", "step"}
