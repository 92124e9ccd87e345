"""The restricted loss, forward and backward, against losses over the whole vocabulary."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lrmoclip.core.candidates import Candidates
from lrmoclip.core.losses import restricted_linear_cross_entropy
from lrmoclip.cost.stopwatch import time_in_turns
from lrmoclip.speed.measure import against, bandwidth, extra_mb, row

PACKAGES = ("cut-cross-entropy", "liger-kernel")
DENSE = "torch linear + cross_entropy"
OURS, ROWS = "restricted, dense gradient", "restricted, row-wise gradient"
POSITIONS, HIDDEN, VOCABULARY, MEAN_K = 512, 1024, 151_936, 64
ZIPF = 1.45  # exponent at which the sets' union has about 4,500 rows
# Least speed-ups of the two gradients against each baseline.
TARGETS = {DENSE: (10, 25), "cut-cross-entropy": (9, 20), "Liger": (9, 20)}
CENTRE = {"N": 256, "K": 32, "V": 32_768, "d": 256}
CROSSING = ((256, 128, 16), (256, 576, 32), (512, 1024, 64))  # N, d, K
RANGES = {
    "N": (64, 128, 256, 512, 1024),
    "K": (8, 16, 32, 64, 128),
    "V": (8_192, 16_384, 32_768, 65_536, 131_072),
    "d": (64, 128, 256, 512, 1024),
}


class Problem:
    """Hidden states, an output matrix and sets whose tokens come from a Zipf law (exponent 0:
    uniform). `within`: only so many tokens, spread over the vocabulary, are ever drawn."""

    def __init__(
        self, n: int, d: int, vocab: int, mean_k: int, zipf: float, device: torch.device,
        within: int | None = None,
    ) -> None:  # fmt: skip
        dice = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(n, d, generator=dice).to(device).requires_grad_()
        self.weight = (0.02 * torch.randn(vocab, d, generator=dice)).to(device).requires_grad_()
        drawn = within or vocab
        odds = torch.arange(1, drawn + 1) ** -zipf
        sizes = torch.randint(1, 2 * mean_k, (n,), generator=dice)  # mean_k on average
        # The largest of odds / exponential: a draw without replacement.
        rows = [
            (odds / torch.empty(drawn).exponential_(generator=dice)).topk(k).indices
            for k in sizes.tolist()
        ]
        ids = torch.cat(rows) * (vocab // drawn)
        offsets = F.pad(sizes.cumsum(0), (1, 0))
        zeros = torch.zeros(n)
        self.sets = Candidates(ids, offsets, zeros.bool(), ids * 0.0, zeros, zeros).to(device)
        self.gold = self.sets.ids[self.sets.offsets[:-1]]

    def gradients(self, loss: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        """The loss and its gradients, which nobody holds afterwards but the caller."""
        loss(self.hidden, self.weight).backward()
        gradients = [self.hidden.grad, self.weight.grad]
        self.hidden.grad = self.weight.grad = None
        return gradients

    def restricted(self, **options) -> Callable[[], list[Tensor]]:
        return lambda: self.gradients(
            lambda h, w: restricted_linear_cross_entropy(h, w, self.sets, self.gold, **options)
        )

    def dense(self) -> list[Tensor]:
        return self.gradients(lambda h, w: F.cross_entropy(F.linear(h, w), self.gold))

    def cut_cross_entropy(self) -> list[Tensor]:
        from cut_cross_entropy import linear_cross_entropy

        impl = "cce" if self.hidden.is_cuda else "torch_compile"  # the only one for CPUs
        return self.gradients(lambda h, w: linear_cross_entropy(h, w, self.gold, impl=impl))

    def liger(self) -> list[Tensor]:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        fused = LigerFusedLinearCrossEntropyLoss()
        return self.gradients(lambda h, w: fused(w, h, self.gold))


def against_others(device: torch.device) -> list[dict]:
    """Speed-up and extra memory at one shape, for sets of a Zipf law and, the worst, uniform."""
    return _compare(device, "zipf", ZIPF) + _compare(device, "uniform", 0.0)


def _compare(device: torch.device, case: str, zipf: float) -> list[dict]:
    problem = Problem(POSITIONS, HIDDEN, VOCABULARY, MEAN_K, zipf, device)
    contestants = {
        OURS: problem.restricted(),
        ROWS: problem.restricted(sparse_grad=True),
        DENSE: problem.dense,
    }
    absent = {}
    if case == "zipf":  # the others do not see the sets
        others = {"cut-cross-entropy": problem.cut_cross_entropy, "Liger": problem.liger}
        for name, call in others.items():
            try:
                call()
                contestants[name] = call
            except (ImportError, RuntimeError) as error:
                problem.hidden.grad = problem.weight.grad = None
                absent[name] = f"does not run here: {' '.join(str(error).split())[:120]}"
    seconds = time_in_turns(contestants, rounds=5)
    memory = {name: extra_mb(contestants[name], device) for name in (OURS, ROWS, DENSE)}
    union, floor = len(problem.sets.union()), _floor(problem, bandwidth(device))
    shape = f"N={POSITIONS}, d={HIDDEN}, V={VOCABULARY}, K={MEAN_K}, union={union}"
    rows = []
    for name, least in TARGETS.items():
        for ours, speedup in zip((OURS, ROWS), least, strict=True):
            target = f">= {speedup}" if case == "zipf" else None
            if name in contestants:
                notes = {"note": shape, "floor_seconds": floor[ours]}
                rows.append(
                    against("loss", case, seconds, ours, name, target, speedup=True, **notes)
                )
            elif name in absent:
                rows.append(
                    row("loss", case, "speed-up", None, target, contestant=ours, baseline=name,
                        note=absent[name])
                )  # fmt: skip
    for ours in (OURS, ROWS):
        rows.append(
            row("loss", case, "extra memory", memory[ours] / memory[DENSE],
                "< 0.03" if case == "zipf" else None, contestant=ours, baseline=DENSE,
                extra_mb=memory[ours], baseline_extra_mb=memory[DENSE], note=shape)
        )  # fmt: skip
    return rows


def _floor(problem: Problem, rate: float) -> dict[str, float]:
    """Seconds that the bytes alone take: the union's rows read and their gradients written, and
    for a dense gradient V x d zeros written."""
    rows = len(problem.sets.union()) * problem.weight.shape[1] * 4
    return {OURS: (rows + rows + problem.weight.nbytes) / rate, ROWS: 2 * rows / rate}


def crossover(device: torch.device) -> list[dict]:
    """The two paths by how many products of the block there are for each pair, from which
    `kernels.BLOCK_PER_PAIR` was read."""
    rows = []
    for n, d, k in CROSSING:
        for fill in (1, 2, 4, 8, 16):
            vocab = 2 * k * fill
            # Exponent 0.2: nearly uniform over a small vocabulary, so the union is all of it.
            problem = Problem(n, d, vocab, k, 0.2, device)
            paths = {p: problem.restricted(path=p, sparse_grad=True) for p in ("gather", "union")}
            seconds = time_in_turns(paths, rounds=9)
            pairs = len(problem.sets.ids)
            note = f"block / pairs = {n * len(problem.sets.union()) / pairs:.1f}"
            case = f"N={n}, d={d}, K={k}, union={len(problem.sets.union())}"
            rows.append(against("crossover", case, seconds, "gather", "union", note=note))
    return rows


def scaling(device: torch.device) -> list[dict]:
    """Seconds as N, K, V or d grows, the others at their centre, and the slopes in log-log."""
    rows = []
    for axis, values in RANGES.items():
        found = {name: [] for name in (OURS, ROWS, DENSE)}
        for value in values:
            at = CENTRE | {axis: value}
            problem = Problem(at["N"], at["d"], at["V"], at["K"], 1.0, device, within=4096)
            calls = {
                OURS: problem.restricted(),
                ROWS: problem.restricted(sparse_grad=True),
                DENSE: problem.dense,
            }
            for name, seconds in time_in_turns(calls, rounds=9).items():
                found[name].append(seconds)
                rows.append(row("scaling", f"{axis}={value}", "seconds", seconds, contestant=name))
        for name, seconds in found.items():
            slope = float(np.polyfit(np.log(values), np.log(seconds), 1)[0])
            target = "<= 0.1" if (axis, name) == ("V", ROWS) else None
            rows.append(row("scaling", axis, "log-log slope", slope, target, contestant=name))
    return rows
