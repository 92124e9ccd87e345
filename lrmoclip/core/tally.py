"""Statistics of candidate sets, gathered part by part: what is held does not grow with positions.

gold_in_set is the share of positions, those of end of sequence apart, whose gold token the base's
own set holds."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lrmoclip.core.candidates import Candidates

QUANTILES = (0.05, 0.5, 0.95)


@dataclass
class Tally:
    """Sums over the positions given to `add`. End-of-sequence positions, most of which any base
    gets right, are counted apart where `eos_id` is known."""

    eos_id: int | None = None
    outside: float = 0.0
    sizes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    held: list[int] = field(default_factory=lambda: [0, 0])  # golds in their set: text, eos
    seen: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, sets: Candidates, targets: Tensor) -> None:
        """sets of N positions, on the CPU, and their targets (N,); empty rows do not count."""
        live = sets.sizes > 0
        sizes = torch.bincount(sets.sizes[live], minlength=len(self.sizes))
        sizes[: len(self.sizes)] += self.sizes
        self.sizes = sizes  # (largest + 1,): how many rows have each size
        self.outside += float(sets.log_outside[live].double().exp().sum())
        is_eos = targets[live] == (-1 if self.eos_id is None else self.eos_id)
        in_set = ~sets.gold_forced[live]
        for kind, chosen in enumerate((~is_eos, is_eos)):
            self.seen[kind] += int(chosen.sum())
            self.held[kind] += int(in_set[chosen].sum())

    def summary(self) -> dict:
        """Plain numbers, None where there is nothing to take a mean of. outside_mass is a mean of
        probabilities, set sizes include a forced gold token."""
        positions = sum(self.seen)
        entries = int((self.sizes * torch.arange(len(self.sizes))).sum())
        return {
            "positions": positions,
            "gold_in_set": _ratio(self.held[0], self.seen[0]),
            "gold_in_set_eos": _ratio(self.held[1], self.seen[1]),
            "set_size_mean": _ratio(entries, positions),
            "set_size_max": max(len(self.sizes) - 1, 0),
            "set_size_quantiles": {str(q): self._quantile(q) for q in QUANTILES},
            "outside_mass": _ratio(self.outside, positions),
        }

    def _quantile(self, share: float) -> int | None:
        """The smallest size that this share of the rows does not exceed."""
        enough = self.sizes.cumsum(0) >= share * sum(self.seen)
        return int(enough.nonzero()[0]) if sum(self.seen) else None


def _ratio(total: float, count: int) -> float | None:
    return total / count if count else None
