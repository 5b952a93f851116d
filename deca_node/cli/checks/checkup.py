"""The checks of ``deca-node doctor``, one after the other: what each needs, and what its answer means for a start.

What fails is a finding and ends nothing; what cannot be checked without it is said to be left out.
"""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deca_node.daemon.diagnosis.findings import Finding, Verdict, failed, passed, skipped, warned
from deca_node.daemon.settings.address import Address
from deca_node.daemon.settings.node_settings import check_paths, check_plaintext, check_required, settle
from deca_node.daemon.settings.own_address import Place, find_place
from deca_node.daemon.settings.peers_file import read_peers
from deca_node.daemon.settings.sources import Loaded
from deca_node.protocol.agreed.agreement import Agreement, mismatch, settings_fields
from deca_node.protocol.agreed.topology import check_edges
from deca_node.protocol.errors import DataError, DecaError, ModelError
from deca_node.protocol.planning.case import Case, Machine, ModelShape
from deca_node.protocol.planning.disk import folder_bytes
from deca_node.protocol.planning.memory import block_memory
from deca_node.protocol.planning.units import bytes_text

if TYPE_CHECKING:
    from deca_node.daemon.diagnosis.probe import Probed
    from deca_node.daemon.security.security import Security

DAY_SECONDS = 86_400.0
MEMORY_SHARE_MAX = 0.9
"""A plan that takes more of the free memory than this is worth a warning: parts of it are estimates."""
SETTINGS_DO = "correct it there; `deca-node config --show` says where every value comes from"


@dataclass
class Checkup:
    """One visit at the doctor's. ``load`` makes the settings, ``say`` hears what is being looked at, ``seconds_max`` is
    what each peer has, and ``really_load`` reads model and data as a trainer would."""

    load: Callable[[], Loaded]
    say: Callable[[str], None]
    seconds_max: float = 5.0
    really_load: bool = False
    _loaded: Loaded | None = None
    _place: "Place | None" = None
    _security: "Security | None" = None
    _case: Case | None = None
    _running: bool = False
    _fields: dict[str, str] = field(default_factory=dict)
    _offsets: dict[str, float] = field(default_factory=dict)

    def run(self) -> Iterator[Finding]:
        """All findings, in the order in which a start would come upon them."""
        for name, needs, check in (
            ("settings", "", self._settings),
            ("certificates", "settings", self._certificates),
            ("peers file", "settings", self._peers_file),
            ("folder", "peers file", self._folder),
            ("listen", "peers file", self._listen),
            ("http", "settings", self._http),
            ("data", "settings", self._data),
            ("model", "settings", self._model),
            ("memory", "model", self._memory),
            ("disk", "model", self._disk),
            *((("load", "model", self._load),) if self.really_load else ()),
            ("peers", "peers file", self._peers),
            ("clock", "", self._clock),
        ):
            self.say(name)
            if needs and not self._has(needs):
                yield skipped(name, needs)
                continue
            try:
                yield from check()
            except DecaError as problem:
                yield failed(name, str(problem), _DO.get(name, ""))

    def _has(self, needs: str) -> bool:
        made = {"settings": self._loaded, "peers file": self._place and self._security, "model": self._case}
        return made[needs] is not None

    @property
    def _settled(self) -> Loaded:
        assert self._loaded is not None
        return self._loaded

    # --- settings and names ---------------------------------------------------------------------------

    def _settings(self) -> Iterator[Finding]:
        loaded = self.load()
        self._loaded = loaded
        self._fields = settings_fields(loaded.run)
        check_required(loaded.node, "model", "data")
        given = sum(source.where != "default" for source in loaded.sources.values())
        yield passed("settings", f"the run is {loaded.run.run_name}; {given} settings are given, the others defaults")

    def _certificates(self) -> Iterator[Finding]:
        from deca_node.daemon.security.security import Security

        security = Security(self._settled.node)
        self._security = security
        left = security.expires_in_seconds
        if left is None:
            yield self._plaintext()
            return
        name, days = security.certified_name, left / DAY_SECONDS
        says = f"this node is {name}, by {security.files.cert if security.files else ''}; {days:.0f} days are left"
        facts = {"name": name, "expires_in_seconds": left}
        if warning := security.warning():
            yield warned("certificates", warning, "deca-node cert request, approve, install", **facts)
        else:
            yield passed("certificates", says, **facts)

    def _plaintext(self) -> Finding:
        insecure = self._settled.node.insecure
        says = "plaintext, and no certificates: a name is what a caller says it is"
        if insecure >= 2:
            return warned("certificates", says, "certificates, unless everybody on the network may read along")
        return passed("certificates", f"{says}; within this machine only")

    def _peers_file(self) -> Iterator[Finding]:
        loaded, security = self._settled, self._security
        certified = security.certified_name if security else ""
        place = find_place(loaded.node, certified)
        if not certified:
            check_plaintext(loaded.node.insecure, place.listen.host, place.hosts)
        check_edges(place.expected, loaded.run)
        self._place = place
        self._loaded = dataclasses.replace(loaded, node=settle(loaded.node, place.name, place.listen))
        others = len(place.expected) - 1
        says = f"this node is {place.name} at {place.advertise}; {others} others are named, {place.wait_for} begin"
        yield passed("peers file", says, names=sorted(place.expected))

    # --- this machine -----------------------------------------------------------------------------------

    def _listen(self) -> Iterator[Finding]:
        from deca_node.daemon.diagnosis.preflight import check_port

        assert self._place is not None
        yield self._unless_it_runs(check_port("listen", self._place.listen, "--listen"))

    def _http(self) -> Iterator[Finding]:
        from deca_node.daemon.diagnosis.preflight import check_port

        if http := self._settled.node.http_address:
            yield self._unless_it_runs(check_port("http", http, "--http"))

    def _unless_it_runs(self, found: Finding) -> Finding:
        """Where this very node runs already, its ports are taken, and should be."""
        if found.verdict is Verdict.FAILED and self._running:
            do = "nothing, if the node that runs here listens there"
            return dataclasses.replace(found, verdict=Verdict.WARNING, do=do)
        return found

    def _folder(self) -> Iterator[Finding]:
        from deca_node.daemon.diagnosis.preflight import check_folder

        found = check_folder(Path(self._settled.node.dir), self._settled.run)
        self._running = "process" in found.facts
        yield found

    def _disk(self) -> Iterator[Finding]:
        from deca_node.daemon.diagnosis.preflight import check_disk

        assert self._case is not None
        yield check_disk(Path(self._settled.node.dir or "deca-data"), folder_bytes(self._case))

    def _clock(self) -> Iterator[Finding]:
        from deca_node.daemon.diagnosis.preflight import check_clock

        node = self._loaded.node if self._loaded else None
        named = [node.peers, node.data, f"{node.model}/config.json"] if node else []
        files = [Path(__file__), *(Path(name).expanduser() for name in named)]
        yield check_clock(time.time(), files, self._offsets)

    # --- data and model -----------------------------------------------------------------------------------

    def _data(self) -> Iterator[Finding]:
        from deca_node.numerics.forecast.data_check import look_through

        node = self._settled.node
        labels = self._labels()
        if labels is None:
            does = "name them: --labels"
            yield warned("data", "not looked at: its labels are the model's own, which are not known yet", does)
            return
        progress = lambda done, total: self.say(f"data, {done / max(total, 1):.0%}")  # noqa: E731
        check = look_through(Path(node.data), progress, labels)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in check.kinds.items()) or "no records"
        facts = {"records": check.records, "bad_records": check.bad, "characters": check.characters}
        if not check.records:
            raise DataError(f"{node.data}: there are no usable records ({check.bad:,} bad ones)")
        if not check.bad:
            yield passed("data", f"{kinds}, {check.characters:,} characters", **facts)
            return
        first = "; ".join(check.sentences[:3])
        says = f"{kinds}, and {check.bad:,} bad ones: {first}"
        if node.bad_records == "skip":
            yield warned("data", says, "nothing, if they may be left out", **facts)
        else:
            yield failed("data", says, "correct them, or --bad-records skip", **facts)

    def _labels(self) -> tuple[str, ...] | None:
        """Those of the run, or of the model's config.json; none for another task, None where they are not known."""
        run, folder = self._settled.run, Path(self._settled.node.model).expanduser()
        if run.task != "classification" or run.label_names:
            return run.label_names
        from deca_node.storage.model_files import read_json

        try:
            found = read_json(folder / "config.json", "")["id2label"]
            return tuple(str(found[number]) for number in sorted(found, key=int))
        except (ModelError, KeyError, TypeError, ValueError):
            return None

    def _model(self) -> Iterator[Finding]:
        loaded = self._settled
        check_paths(dataclasses.replace(loaded.node, dir=""))
        self.say("model (torch is being imported)")
        from deca_node.numerics.forecast.fitting import dtypes_text, misfits, named
        from deca_node.numerics.forecast.shapes import model_shape, planned_model
        from deca_node.numerics.model.classifier import labels_of, of_head
        from deca_node.storage.model_files import read_headers

        model = planned_model(loaded.node.model, loaded.run)
        shape = model_shape(model, loaded.run.block_layers, loaded.node.model)
        self._note_model(shape)
        folder = Path(loaded.node.model).expanduser()
        says = f"{shape.elements:,} parameters in {len(shape.blocks)} blocks"
        if not folder.is_dir():
            yield warned("model", f"{says}; its weights are not looked at", "nothing: they are fetched at the start")
            return
        stored = read_headers(folder)
        wrong, missing = misfits(model, stored)
        if loaded.run.task == "classification":
            missing = [name for name in missing if not of_head(model, name)]
            self._fields["classes"] = ", ".join(labels_of(model.config))
        if wrong:
            raise ModelError(f"{folder}: the weights do not fit config.json: {named(wrong)}")
        if missing:
            yield warned("model", f"{says}; the headers do not name {named(missing)}", "try --load, which reads them")
        else:
            yield passed("model", f"{says}, stored as {dtypes_text(stored)}", parameters=shape.elements)

    def _note_model(self, shape: ModelShape) -> None:
        loaded = self._settled
        self._fields["blocks"] = " ".join(f"{block.name}:{block.elements}" for block in shape.blocks)
        machine = Machine(
            micro_batch=loaded.node.micro_batch, gradient_checkpointing=loaded.node.gradient_checkpointing
        )
        names = self._place.expected if self._place else frozenset({"this node", "another"})
        self._case = Case.of(loaded.run, shape, names, machine)

    def _memory(self) -> Iterator[Finding]:
        from deca_node.numerics.forecast.fitting import free_memory

        assert self._case is not None
        device, free = free_memory(self._settled.node.device)
        self._case = self._case.on(one_memory=device == "cpu")
        blocks = [block_memory(self._case, block) for block in self._case.model.blocks]
        peak = max(blocks, key=lambda block: block.total_bytes)
        facts: dict[str, Any] = {"device": device, "free_bytes": free, "peak_bytes": peak.total_bytes}
        facts["blocks_bytes"] = {block.block: block.total_bytes for block in blocks}
        says = f"{bytes_text(peak.total_bytes)} at most, with {peak.block}"
        if free is None:
            yield warned("memory", f"{says}; nobody says how much is free", "see for yourself", **facts)
            return
        says += f"; {bytes_text(free)} are free on {device}"
        too_large = [block.block for block in blocks if block.total_bytes > free]
        do = "`deca-node plan --memory ...` says which setting helps most"
        if too_large:
            says += f"; {len(too_large)} of {len(blocks)} blocks do not fit: {', '.join(too_large[:5])}"
            yield failed("memory", says, do, **facts)
        elif peak.total_bytes > MEMORY_SHARE_MAX * free:
            yield warned("memory", f"{says}, which is tight", do, **facts)
        else:
            yield passed("memory", says, **facts)

    def _load(self) -> Iterator[Finding]:
        from deca_node.numerics.learning.tasks import load_data, told
        from deca_node.numerics.model.classifier import Head
        from deca_node.numerics.model.facts import check_sequence_length, parameter_hash
        from deca_node.numerics.model.load import load_model
        from deca_node.protocol.options import TrainerOptions

        run, node, began = self._settled.run, self._settled.node, time.monotonic()
        self.say("load: the model")
        model = load_model(node.model, dtype=run.dtype, head=Head.of(run))
        check_sequence_length(run.sequence_length, model.positions_max, model.folder)
        self.say("load: its hash")
        self._fields["model"] = parameter_hash(model.model)
        self.say("load: the data")
        options = TrainerOptions(
            name=node.name,
            settings=run,
            directory="",
            data=node.data,
            holdout=node.holdout,
            bad_records=node.bad_records,
        )
        data = load_data(options, model)
        says = (
            f"model and data are read in {time.monotonic() - began:.1f} s: {'; '.join(told(data, run.sequence_length))}"
        )
        yield passed("load", says, model_sha256=self._fields["model"], tokens=data.summary.tokens)

    # --- peers ---------------------------------------------------------------------------------------------

    def _peers(self) -> Iterator[Finding]:
        from deca_node.daemon.diagnosis.probe import probe_all

        assert self._place is not None and self._security is not None
        targets = self._targets(self._place)
        if not targets:
            yield passed("peers", "nobody is to be called")
            return
        done = 0

        def heard(_: "Probed") -> None:
            nonlocal done
            done += 1
            self.say(f"peers, {done} of {len(targets)}")

        work = probe_all(targets, self._place.name, self._security, self.seconds_max, heard)
        for probed in asyncio.run(work):
            yield self._peer(probed)

    def _targets(self, place: Place) -> list[tuple[str, Address]]:
        """Everybody in the peers file, by name, and the addresses in ``join``."""
        path = Path(self._settled.node.peers).expanduser()
        named = [(peer.name, peer.address) for peer in read_peers(path)] if path.exists() else []
        named = [(name, address) for name, address in named if name != place.name]
        known = {address for _, address in named}
        return named + [("", address) for address in self._settled.node.seeds if address not in known]

    def _peer(self, probed: "Probed") -> Finding:
        name = f"peer {probed.name or probed.address}"
        if probed.clock_ahead_seconds is not None:
            self._offsets[probed.name or probed.address] = probed.clock_ahead_seconds
        facts = {
            "address": probed.address,
            "stage": probed.stage.value,
            "kind": probed.kind.value,
            "seconds": probed.seconds,
            "certificate_expires": probed.expires,
        }
        if probed.offer is None:
            verdict, do = _PEER_DO[probed.kind.value]
            return Finding(name, verdict, f"{probed.address}: {probed.problem}", do, facts)
        differs = _difference(self._fields, probed.offer.agreement, probed.name or probed.address)
        if differs:
            return failed(name, f"{probed.address}: {differs}", "the same run.toml and model on all nodes", **facts)
        at = probed.offer.position
        where = f"at activation {at}" if at >= 0 else "before its first activation"
        return passed(name, f"{probed.address}: greets in {probed.seconds * 1000:.0f} ms, {where}", **facts)


FROM_THE_MODEL = ("model", "blocks", "classes")
"""Fields of an agreement that are not settings."""


def _difference(ours: Mapping[str, str], theirs: Agreement, peer: str) -> str | None:
    """What differs in the fields that are known here; what follows from the model is not, unless it was looked at."""
    known = {name: value for name, value in theirs.fields.items() if name in ours or name not in FROM_THE_MODEL}
    return mismatch(Agreement(dict(ours)), Agreement(known), "this node", peer)


_DO = {
    "settings": SETTINGS_DO,
    "certificates": "see docs/CERTIFICATES.md; `deca-node cert check` looks closer",
    "peers file": "correct the peers file, or --name, --listen",
    "listen": "another --listen",
    "folder": "another --dir",
    "data": "check --data",
    "model": "check --model",
    "memory": "check --device",
    "load": "see the sentence",
}

_PEER_DO: dict[str, tuple[Verdict, str]] = {
    "name": (Verdict.FAILED, "correct the host's name, or the name server's entry"),
    "nobody": (Verdict.WARNING, "start that node, or correct the port: it is waited for"),
    "silent": (Verdict.FAILED, "is the machine up? is the address right? is a firewall between?"),
    "untrusted": (Verdict.FAILED, "both sides need certificates of one federation: docs/CERTIFICATES.md"),
    "unwelcome": (Verdict.FAILED, "ask that node's owner: its lists, its authorities, this node's certificate"),
    "other-node": (Verdict.FAILED, "correct the name or the address in the peers file"),
    "plaintext": (Verdict.FAILED, "certificates on both sides, or --insecure on both"),
    "no-node": (Verdict.FAILED, "correct the address; the same version of deca-node on all nodes"),
    "loading": (Verdict.WARNING, "ask again in a while: which run it takes part in is not known yet"),
}
