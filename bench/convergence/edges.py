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
from deca_node.protocol.agreed.weights import metropolis


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
    """All nodes' engines for one activation, and the edges of the graph."""

    def __init__(self, names: Sequence[str], engines: Sequence[BlockEngine], graph: Graph) -> None:
        """Write keyframes and open the edges, with neighbours in the order of their names."""
        self._near = {name: sorted(graph[name]) for name in names}
        self._engines = dict(zip(names, engines, strict=True))
        self.bytes_sent = 0
        keyframes = {name: self._keyframe(name) for name in names}
        for name, engine in self._engines.items():
            degree = len(self._near[name])
            near = [NewEdge(j, metropolis(degree, len(self._near[j])), keyframes[j]) for j in self._near[name]]
            refused = engine.connect(near, keyframes[name])
            assert not refused, refused
            self.bytes_sent += degree * keyframes[name].numel()

    def mix(self, *, fold: bool, content: Content | None = PARAMETERS) -> None:
        """One mix on every node. ``content`` is what updates carry; without one nothing flows, but h is folded."""
        exchange = content is not None
        frames = {name: self._frame(name, content) for name in self._engines} if content is not None else {}
        for name, engine in self._engines.items():
            near = self._near[name] if exchange else []
            engine.mix([FlowBytes(j, frames[j], frames[name], content) for j in near], fold=fold)
            self.bytes_sent += sum(frames[name].numel() for _ in near)

    def _keyframe(self, name: str) -> Tensor:
        engine = self._engines[name]
        if not self._near[name]:
            return torch.empty(0, dtype=torch.uint8)
        out = torch.empty(KEYFRAME_CODEC.nbytes(engine.elements), dtype=torch.uint8)
        engine.keyframe(out)
        return out

    def _frame(self, name: str, content: Content) -> Tensor:
        engine = self._engines[name]
        if not self._near[name]:
            return torch.empty(0, dtype=torch.uint8)
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
