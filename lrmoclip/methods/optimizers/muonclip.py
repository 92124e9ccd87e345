"""MuonClip (Kimi K2, 2025, https://arxiv.org/abs/2507.20534, Algorithm 1): Muon at Adam's root mean
square, after each step of which QK-clip bounds the attention's logits.

    M = beta M + G      W -= lr * (0.2 sqrt(max(m, n)) newton_schulz(M) + weight_decay * W)
    of a head whose largest logit S in the step's forward passes is above tau:
    W_q *= sqrt(tau / S), W_k *= sqrt(tau / S)

Where heads share their keys (grouped queries) W_q takes the whole tau / S and W_k stays, as K2 does
with the part of its keys that all heads share."""

import math
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import Positive
from lrmoclip.methods.axes import Optimizer
from lrmoclip.methods.optimizers.adamuon import matrices_apart, newton_schulz

if TYPE_CHECKING:
    from torch import Tensor, nn


class MuonClip(Optimizer):
    """tau bounds the logits; momentum is beta. What is no matrix of the body moves by AdamW.

    QK-clip acts where the weights of queries and keys are trained and no norm follows them.
    Elsewhere, as in Qwen3 (QK-norm) or under an adapter, this is Muon alone: a warning says so, and
    nothing is logged as `qk_clipped`. The logits are the exact ones of every causal pair, but for
    padding at the right; a layer's are in memory at once, (B, heads, T, T).
    """

    name: Literal["muonclip"] = "muonclip"
    tau: Positive = 100.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    ns_steps: Annotated[int, Field(ge=1, le=99)] = 5

    state: ClassVar[int] = 2  # of what AdamW moves; of a matrix one
    passes: ClassVar[float] = 800  # on a CPU, at a width of 576, which it grows with

    def build(self, model, parameters, *, lr, betas, weight_decay, telemetry=False):
        from lrmoclip.core.sharding import shard_like, whole

        def move(m: "Tensor", state: dict) -> "Tensor":
            o = shard_like(newton_schulz(whole(m), self.ns_steps), m)
            return o * (0.2 * math.sqrt(max(m.shape)))

        settings = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        optimizer = matrices_apart(model, parameters, move, momentum=self.momentum, **settings)
        optimizer.watched = list(_watched(model, set(parameters.values()), self.tau))
        if not optimizer.watched:
            warnings.warn(
                "muonclip: this is Muon alone; QK-clip has nothing to act on, for queries and keys "
                "are normalised or their weights are not trained",
                stacklevel=2,
            )
        optimizer.register_step_post_hook(lambda *_: [heads.clip() for heads in optimizer.watched])
        return optimizer

    def measures(self, optimizer) -> dict[str, float]:
        """How many heads the last step clipped, and the largest logit of any, before that."""
        if not optimizer.watched:
            return {}
        return {
            "qk_clipped": sum(heads.clipped for heads in optimizer.watched),
            "max_logit": max(heads.largest for heads in optimizer.watched),
        }


def _watched(model: "nn.Module", trained: set, tau: float) -> "Iterator[Heads]":
    """The heads that QK-clip can act on. UserError for a model whose heads it does not know."""
    kinds = ({"q_proj", "k_proj"}, {"query_key_value"})
    found = [m for m in model.modules() if any(kind <= set(m._modules) for kind in kinds)]
    if not found or not all(hasattr(m, "scaling") and _rotation(m) for m in found):
        raise UserError(
            f"muonclip: no queries and keys that it knows in {type(model).__name__}",
            "It knows q_proj and k_proj, or query_key_value, with rotary positions",
        )
    for attention in found:
        heads = Heads(model, attention, tau)
        free = not any("norm" in name for name in attention._modules)
        if free and all(p in trained for _, _, _, held in heads.sides for p in held):
            heads.watch()
            yield heads


def _rotation(attention: "nn.Module"):
    return getattr(sys.modules[type(attention).__module__], "apply_rotary_pos_emb", None)


class Heads:
    """The heads of one attention module: what was clipped, and the largest logits since then."""

    clipped, largest = 0, -math.inf

    def __init__(self, model: "nn.Module", attention: "nn.Module", tau: float) -> None:
        self.model, self.attention, self.tau = model, attention, tau
        self.size = getattr(attention, "head_dim", None) or attention.head_size
        self.padding: Tensor | None = None  # (B, T)
        self.tops: Tensor | None = None  # (heads,)
        self.outputs: dict[nn.Module, Tensor] = {}
        fused = getattr(attention, "query_key_value", None)
        both = (fused, fused) if fused else (attention.q_proj, attention.k_proj)
        # Of queries and keys: the projection, of how many parts its rows for a head are, which of
        # them is meant, and the weights.
        self.sides = [
            (module, 3 if fused else 1, i if fused else 0, list(module.parameters()))
            for i, module in enumerate(both)
        ]

    def watch(self) -> None:
        self.model.get_input_embeddings().register_forward_pre_hook(self._read)
        for projection in {module for module, *_ in self.sides}:
            projection.register_forward_hook(self._keep)
        self.attention.register_forward_hook(self._measure, with_kwargs=True)

    def _read(self, _, args) -> None:
        import torch

        from lrmoclip.core.padding import padding_tokens

        ids = args[0]
        known = torch.isin(ids, ids.new_tensor(padding_tokens(self.model)))
        self.padding = known.flip(1).cumprod(1).flip(1).bool()  # at the right alone

    def _keep(self, projection, _, output) -> None:
        if projection.training:  # and not where a probe measures
            self.outputs[projection] = output.detach()

    def _measure(self, attention, _, given, __) -> None:
        if not attention.training:
            return
        q, k = (self._of_heads(*side).float() for side in self.sides)  # (B, heads, T, size)
        q, k = _rotation(attention)(q, k, *given["position_embeddings"])
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        logits = (q @ k.mT).mul_(attention.scaling)
        later = logits.new_ones(logits.shape[-2:]).bool().triu_(1)
        logits.masked_fill_(later | self.padding[:, None, :, None], -math.inf)
        tops = logits.amax((0, 2, 3))
        self.tops = tops if self.tops is None else self.tops.maximum(tops)
        self.outputs.clear()

    def _of_heads(self, projection, parts: int, part: int, _) -> "Tensor":
        output = self.outputs[projection]
        return output.unflatten(-1, (-1, parts, self.size))[..., part, :].transpose(1, 2)

    def clip(self) -> None:
        """Scale the weights of heads whose largest logit is above tau."""
        from lrmoclip.core.sharding import everyone

        if self.tops is None:
            return
        tops = [max(of_head) for of_head in zip(*everyone(self.tops.tolist()), strict=True)]
        factors = [self.tau / max(self.tau, top) for top in tops]
        self.clipped, self.largest, self.tops = sum(f < 1 for f in factors), max(tops), None
        (*_, of_q), (*_, of_k) = self.sides
        if own_keys := len(of_q[0]) == len(of_k[0]):
            factors = [math.sqrt(factor) for factor in factors]
        if self.clipped:
            for _, parts, part, held in self.sides[: 1 + own_keys]:
                for p in held:
                    _scale(p, parts, part, factors)


def _scale(p: "Tensor", parts: int, part: int, factors: list[float]) -> None:
    """Multiply one part of each head's rows by the head's factor."""
    import torch

    from lrmoclip.core.sharding import shard_like

    with torch.no_grad():
        rows = torch.ones(len(factors), parts, len(p) // len(factors) // parts, dtype=p.dtype)
        rows[:, part] = torch.tensor(factors, dtype=p.dtype)[:, None]
        rows = rows.view(-1, *[1] * (p.dim() - 1)).to(p.device)
        p.mul_(shard_like(rows, p))
