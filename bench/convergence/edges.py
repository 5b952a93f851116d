"""The nodes of one activation and the edges between them, in one process without a wire.

Frames are made, counted and handed over as they would be sent. The engine cannot tell the difference.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deca_node.numerics.codecs.formats import KEYFRAME_CODEC
from deca_node.numerics.engine import BlockEngine, NewEdge
from deca_node.numerics.exchange.flows import FlowBytes
from deca_node.numerics.model.blocks import Block
from deca_node.protocol.agreed.schedule import PARAMETERS, Content
from deca_node.protocol.agreed.topology import Graph
from deca_node.protocol.agreed.weights import SHARE_ONE, Shares, metropolis


class Vectors(nn.Module):
    """The parameters that one node trains now, in the form of the engine: p0, p1, ... of a module, in this order."""

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        """``vectors`` are float32. The module has copies of them."""
        super().__init__()
        self._vectors = nn.ParameterList(v.clone() for v in vectors)

    @property
    def block(self) -> Block:
        """All parameters as one block."""
        return Block("vectors", tuple(n for n, _ in self.named_parameters()), sum(p.numel() for p in self.parameters()))

    def values(self) -> Tensor:
        """All parameters, one after the other, [elements]."""
        return torch.cat([p.detach() for p in self.parameters()])


class Edges:
    """All nodes' engines for one activation, and the edges of its graphs."""

    def __init__(
        self, names: Sequence[str], engines: Sequence[BlockEngine], *graphs: Graph, shares: Shares | None = None
    ) -> None:
        """Write keyframes and open the edges, with neighbours in the order of their names. Several ``graphs`` take
        turns; parameters travel in the first. ``shares`` are those of the nodes in the mean, if they differ."""
        self._turns = [{name: sorted(graph[name]) for name in names} for graph in graphs]
        self._engines = dict(zip(names, engines, strict=True))
        self.bytes_sent = 0
        keyframes = {name: self._keyframe(name) for name in names}
        self._degrees = {name: max(len(near[name]) for near in self._turns) for name in names}
        self._shares = {name: (shares or {}).get(name, SHARE_ONE) for name in names}
        for name, engine in self._engines.items():
            first, *others = (near[name] for near in self._turns)
            near = [NewEdge(j, self._weight(name, j), keyframes[j]) for j in first]
            told = sorted({j for more in others for j in more} - set(first))
            near += [NewEdge(j, self._weight(name, j), None) for j in told]
            refused = engine.connect(near, keyframes[name])
            assert not refused, refused
            self.bytes_sent += len(first) * keyframes[name].numel()

    def mix(self, *, fold: bool, content: Content | None = PARAMETERS, turn: int = 0) -> None:
        """One mix on every node. ``content`` is what updates carry; without one nothing flows, but h is folded. It is
        that of graph number ``turn``, counted on and on."""
        near_of = self._turns[turn % len(self._turns)]
        exchange = content is not None
        frames = {n: self._frame(n, content) for n in self._engines if near_of[n]} if content is not None else {}
        for name, engine in self._engines.items():
            near = near_of[name] if exchange else []
            engine.mix([FlowBytes(j, frames[j], frames[name], content) for j in near], fold=fold)
            self.bytes_sent += sum(frames[name].numel() for _ in near)

    def _weight(self, name: str, peer: str) -> float:
        return metropolis(self._degrees[name], self._degrees[peer], self._shares[name], self._shares[peer])

    def _keyframe(self, name: str) -> Tensor:
        engine = self._engines[name]
        if not self._turns[0][name]:
            return torch.empty(0, dtype=torch.uint8)
        out = torch.empty(KEYFRAME_CODEC.nbytes(engine.elements), dtype=torch.uint8)
        engine.keyframe(out)
        return out

    def _frame(self, name: str, content: Content) -> Tensor:
        engine = self._engines[name]
        out = torch.empty(engine.layout.nbytes(content), dtype=torch.uint8)
        engine.encode_update(out, content=content)
        return out


def state_bytes(engine: BlockEngine) -> int:
    """Bytes that the engine keeps beside the parameters: gradient, moments, what signals left over, x^ and a difference
    per neighbour."""
    kept = [engine.flat.grad, *(engine.moments or ()), engine.feedback]
    if engine.public is not None:
        kept += [engine.public.x_hat, *(edge.e for edge in engine.public.edges.values())]
    return sum(t.numel() * t.element_size() for t in kept if t is not None)
