"""The paper's objective, cross-entropy over stored candidate sets, and its variants:

    loss_t = logsumexp(z_j, j in D_t) - z_y

with D_t = S_t, or the union of the batch's sets, or that and tokens drawn outside of it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from lrmoclip.edge.typed import Count
from lrmoclip.methods.axes import (
    REPAIR,
    REPLAY,
    Context,
    Loss,
    Need,
    Objective,
    Shape,
    as_stored,
)
from lrmoclip.methods.objectives.golds import tokens_of, united
from lrmoclip.methods.objectives.naive import naive_losses
from lrmoclip.methods.reading import Reading

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lrmoclip.core.candidates import Candidates
    from lrmoclip.data.batches import Batch, Encoded

    Seen = Callable[[Batch, Candidates | None], Candidates | None]


class Restricted(Reading, Objective):
    """denominator, negatives: as in `restricted_linear_cross_entropy`, so many tokens being
    drawn; base: `naive`. gold: of a position whose gold token the base's own set lacks; it is
    forced into the set, or the position is dropped: its loss counts as zero in the mean over all,
    so that a step is the same in however many passes.

    golds: S_t is united with every token that is gold anywhere in the training data, so
    that what is pushed up at one position is pushed down where it is wrong.

    tail: one constant column stands in the denominator of a position for what the base put outside
    of its set, log Z_t + log rho_t as stored: a "ghost token", as proposed for distillation from
    top-K logits (https://github.com/NVIDIA/Model-Optimizer/pull/2459). Without one, a truncated
    loss is blind to how much mass lies outside
    (https://github.com/verl-project/verl/issues/7856). The column does not move: all logits can
    still rise past it together.

    refresh: Stage 0 is collected again, with the model as it is then, at the start of every epoch
    but the first: sets go stale as a model moves.
    """

    name: Literal["restricted"] = "restricted"
    denominator: Literal["own", "union", "base"] = "own"
    gold: Literal["forced", "dropped"] = "forced"
    negatives: Count | None = None
    golds: bool = False
    tail: bool = False
    refresh: bool = False

    needs: ClassVar[frozenset[Need]] = frozenset({Need.STORE})

    @model_validator(mode="after")
    def _go_together(self):
        if self.negatives and self.denominator != "union":
            raise ValueError("negatives need the union. Set denominator: union")
        if self.tail and (self.denominator != "own" or self.golds):
            raise ValueError("the tail is of the stored sets. Set denominator: own, golds: false")
        if self.golds and self.denominator == "base":
            raise ValueError("denominator: base has no tokens that golds could join")
        return self

    @property
    def family(self) -> str:
        if self.denominator == "base":
            return REPLAY
        changed = self.golds or self.tail or self.refresh or self.gold == "dropped"
        return REPAIR if changed or self.denominator == "union" else REPLAY

    @property
    def refreshes(self) -> bool:
        return self.refresh

    def start(self, data: "Sequence[Encoded]") -> Loss:
        seen = partial(united, tokens_of(data)) if self.golds else as_stored
        return Loss(partial(self._loss, seen), seen)

    def _loss(self, seen: "Seen", context: Context) -> "Tensor":
        from lrmoclip.core.heads import head_of, supervised_hidden

        batch = context.batch
        sets = seen(batch, context.sets)
        hidden = supervised_hidden(context.model, batch.input_ids, batch.supervised)  # (N, d)
        head = head_of(context.model)
        losses = self._losses(hidden, head, sets, batch.gold, context.dice)
        if self.gold == "dropped":
            losses = losses.masked_fill(sets.gold_forced, 0)
        return losses.sum() / max(1, len(losses))

    def _losses(self, hidden, head, sets, gold, dice) -> "Tensor":
        """(N,)."""
        from lrmoclip.core.losses import restricted_linear_cross_entropy

        if self.denominator == "base":
            return naive_losses(hidden, head, sets, gold)
        drawn = None
        if self.negatives:
            drawn = outside_union(sets.union(), len(head.weight), self.negatives, dice)
        return restricted_linear_cross_entropy(
            hidden,
            candidates=sets,
            targets=gold,
            denominator=self.denominator,
            negatives=drawn,
            tail=sets.log_z + sets.log_outside if self.tail else None,
            reduction="none",
            **head._asdict(),
        )

    def products(self, shape: Shape, set_size: float) -> float:
        """With golds, for the size of the united sets; of dropped positions, too."""
        return shape.d * (1 if self.denominator == "base" else set_size)

    def values(self, positions: float, shape: Shape, set_size: float) -> float:
        """`kernels`: the union's block, or set by set where that is smaller; the rows in use.
        With golds those of `full`, as long as nothing is known of the data."""
        if self.golds:
            return super().values(positions, shape, set_size)
        if self.denominator == "base":
            return 3 * positions * shape.d
        pairs = positions * set_size
        union = min(shape.vocabulary, pairs) + (self.negatives or 0)
        block = positions * union
        if self.denominator == "own":
            block = min(block, 4 * pairs)
        return 3 * block + 2 * union * shape.d + 4 * pairs


def outside_union(
    union: "Tensor", vocabulary: int, count: int, dice: "torch.Generator"
) -> "Tensor":
    """`count` distinct token ids (all, if fewer) drawn uniformly outside `union`, int64."""
    import torch

    outside = torch.ones(vocabulary, dtype=torch.bool)
    outside[union.cpu()] = False
    ids = outside.nonzero().squeeze(1)
    return ids[torch.randperm(len(ids), generator=dice)[:count]].to(union.device)
