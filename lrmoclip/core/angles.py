"""The angle between a tensor's gradient g and its momentum m, and how g is turned to a cap.

Turned is g' = |g| (cos(cap) m / |m| + sin(cap) u), u being the unit vector of g's part across m. As
the update needs it, g' = scale (g + lean m) with scale = sin(cap) / sin(angle) and
lean = |g| / |m| (cot(cap) sin(angle) - cos(angle)).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import torch
from torch import Tensor

Piece = tuple[Tensor, Tensor, Tensor, Tensor]  # parameter, gradient, first and second moment


@dataclass(slots=True, eq=False)
class Turn:
    """One tensor in one step: what there is to know and, once measured, how its gradient turns.

    group    the settings of its parameter group
    steps    how many it has made, this one included
    dtype    what the step computes in
    pieces   what of it lies in this process, cut into views of one shape each
    layout   (device, mesh, placements); the last two are None unless it is a DTensor
    finite   whether the sums over gradient and momentum are, without which there is no angle
    angle    between gradient and momentum, in degrees; NaN where none exists
    turned   whether the step uses scale * (g + lean * m) for g
    """

    group: dict[str, Any]
    steps: float
    dtype: torch.dtype
    pieces: list[Piece]
    layout: tuple[Any, Any, Any]
    finite: bool = True
    angle: float = math.nan
    turned: bool = False
    scale: float = 1.0
    lean: float = 0.0
    sums: tuple[float, float, float] = (0.0, 0.0, 0.0)  # g.m, g.g, m.m

    def resolve(self, across: float) -> None:
        """Set the angle and the turn, `across` being the length of g's part across m."""
        dot, gg, mm = self.sums
        norm_g, norm_m, cap = math.sqrt(gg), math.sqrt(mm), self.group["max_angle"]
        self.angle = math.degrees(math.atan2(across, dot / norm_m))
        spans_plane = across > math.sqrt(torch.finfo(self.dtype).eps) * norm_g
        self.turned = self.angle > cap and spans_plane
        if self.turned:
            self.scale = math.sin(math.radians(cap)) * norm_g / across
            self.lean = across / math.tan(math.radians(cap)) / norm_m - dot / mm


def measure(turns: list[Turn]) -> None:
    """Find each angle and how the gradient turns, with one all-reduce for the DTensors of a mesh.

    Reading g and m once gives g.m, g.g and m.m, and they give |g| sin(angle), by a difference that
    loses digits where sin(angle) is small. Below 1/2 a gradient beyond the cap is read again for
    the norm of g - (g.m / m.m) m. Left as they are: g and m of which one is zero or not finite,
    and a g within sqrt(machine epsilon) radians of m's line, where the two span no plane.
    """
    for turn, sums in zip(turns, _sums(turns, _products), strict=True):
        turn.finite = all(map(math.isfinite, sums))
        if turn.finite and min(sums[1:]) > 0:
            turn.sums = dot, gg, mm = sums
            turn.resolve(math.sqrt(max(0.0, gg - (dot / math.sqrt(mm)) ** 2)))
    beyond = [turn for turn in turns if turn.angle > turn.group["max_angle"]]
    narrow = [turn for turn in beyond if math.sin(math.radians(turn.angle)) < 0.5]
    for turn, (square,) in zip(narrow, _sums(narrow, _residual), strict=True):
        turn.resolve(math.sqrt(square))


def turned(turns: Sequence[Turn], g: list[Tensor], m: list[Tensor]) -> list[Tensor]:
    """The gradients of pieces of one dtype and device, the turned ones among them made anew."""
    chosen = [i for i, turn in enumerate(turns) if turn.turned]
    if not chosen:
        return g
    new = [torch.add(g[i], m[i], alpha=turns[i].lean) for i in chosen]
    scales = g[0].new_tensor([turns[i].scale for i in chosen])
    torch._foreach_mul_(new, scales.unbind())
    replaced = dict(zip(chosen, new, strict=True))
    return [replaced.get(i, x) for i, x in enumerate(g)]


@cache
def working_dtype(parameter: torch.dtype, state: torch.dtype) -> torch.dtype:
    """What a step computes in: float32, or float64 where parameter or state have it."""
    return torch.promote_types(torch.promote_types(parameter, state), torch.float32)


def cast(tensors: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Tensors of one dtype in another; the same list if they have it."""
    return tensors if tensors[0].dtype == dtype else [x.to(dtype) for x in tensors]


def _products(turn: Turn, g: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    return torch.dot(g, m), torch.dot(g, g), torch.dot(m, m)


def _residual(turn: Turn, g: Tensor, m: Tensor) -> tuple[Tensor, ...]:
    dot, _, mm = turn.sums
    rest = torch.sub(g, m, alpha=dot / mm)
    return (torch.dot(rest, rest),)


def _sums(turns: list[Turn], terms: Callable[..., tuple[Tensor, ...]]) -> list[list[float]]:
    """`terms` of each tensor's gradient and momentum, added over its pieces and its shards."""
    layouts: dict[tuple[Any, Any, Any], list[Turn]] = {}
    for turn in turns:
        layouts.setdefault(turn.layout, []).append(turn)
    sums: dict[int, list[float]] = {}
    for (_, mesh, placements), members in layouts.items():
        scalars = [x for turn in members for g, m in _vectors(turn) for x in terms(turn, g, m)]
        width = len(scalars) // sum(len(turn.pieces) for turn in members)
        found = iter(torch.stack(scalars).tolist())  # an accelerator is waited for here
        rows = []
        for turn in members:
            row = list(islice(found, width * len(turn.pieces)))
            rows.append([sum(row[k::width]) for k in range(width)])  # in float64
        if mesh is not None:
            rows = _all_reduced(rows, mesh, placements)
        sums |= zip(map(id, members), rows, strict=True)
    return [sums[id(turn)] for turn in turns]


def _vectors(turn: Turn) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradient and momentum of each piece, (n,)."""
    for _, g, m, _ in turn.pieces:
        [g], [m] = (cast([_aligned(x.flatten())], turn.dtype) for x in (g, m))
        yield (-g if turn.group["maximize"] else g), m


def _aligned(x: Tensor) -> Tensor:
    # A BLAS may add in another order, to other last bits, where an array is not aligned.
    return x.clone() if x.data_ptr() % 64 else x


def _all_reduced(rows: list[list[float]], mesh: Any, placements: Any) -> list[list[float]]:
    """Sums of local shards -> sums of whole tensors, the same on every rank of the mesh."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    local = torch.tensor(rows, dtype=torch.float64, device=mesh.device_type)
    each = [Replicate() if p.is_replicate() else Partial() for p in placements]
    return DTensor.from_local(local, mesh, each, run_check=False).full_tensor().tolist()
