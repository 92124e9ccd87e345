"""Runs on several bases and seeds as arrays of outcomes that pair by item: what every effect of the
study is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lrmoclip.config import Scale
from lrmoclip.config.parts import Benchmark
from lrmoclip.core.errors import UserError
from lrmoclip.evaluate import skill
from lrmoclip.report.counted import Screened, counted
from lrmoclip.report.scored import Scored

GAIN, EXACT, LOSS = "domain_gain", "exact_gain", "general_loss"
FORGOTTEN, LEARNT = "forgotten", "learnt"  # shares of items, adjusted for chance
# One number a run, out of its run.json.
OF_RUNS = ["kl_general", "kl_domain", "nll_general", "drift", "outside_mass", "loss_spikes"]
MORE_IS_BETTER = {GAIN, EXACT, LEARNT}
MEASURES = [GAIN, EXACT, LOSS, FORGOTTEN, LEARNT, *OF_RUNS]


@dataclass(frozen=True)
class Grid:
    """The runs of one method on one domain: B bases, the base models themselves first, by S seeds.

    Every outcome is an array of shape (B, S, n), in points unless said otherwise, the same n items
    in the same order for every method, so that differences of two grids' outcomes are paired.
    """

    scale: Scale
    domain: str
    method: str
    bases: list[Scored]
    runs: list[list[Scored]]  # [base][seed]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs[0]]

    def outcomes(self, measure: str) -> list[np.ndarray]:
        """One array a benchmark that the measure averages over, whose macro average it is:

        domain_gain, exact_gain  points of the domain's score above the base's
        general_loss             points of general skill lost (`evaluate.skill`)
        forgotten, learnt        right before and wrong after, wrong before and right after, less
                                 what guessing explains (`_transitions`)
        others                   a number a run, its only item

        Raises UserError for a measure that these runs do not have.
        """
        if measure in (GAIN, EXACT):
            domain = self.scale.domain(self.domain)
            metric = domain.metric if measure == GAIN else domain.exact
            if metric is None:
                raise UserError(f"{self.domain}: no greedy exact answers", "Name its `exact`")
            return [-self._lost((domain.task, metric))]
        if measure == LOSS:
            return [self.loss_of(role) for role in self.general]
        if measure in (FORGOTTEN, LEARNT):
            return [self._transitions(role, measure) for role in self.general]
        return [self._of_runs(measure)]

    @cached_property
    def general(self) -> dict[str, Benchmark]:
        """By role, the benchmarks that every base is above chance on."""
        return {r: self.scale.general[r] for r in self._chances}

    @cached_property
    def _chances(self) -> dict[str, float]:
        found: list[dict[str, Screened]] = [counted(base, self.scale) for base in self.bases]
        shared = [role for role in self.scale.general if all(f[role].counts for f in found)]
        if not shared:
            raise UserError(f"{self.scale.name}: no benchmark with every base above chance", "")
        return {role: found[0][role].chance for role in shared}

    def loss_of(self, role: str) -> np.ndarray:
        """(B, S, n) points of skill lost on one general benchmark."""
        benchmark = self.scale.general[role]
        weights = skill.weights(benchmark, self._chances.get(role))
        return sum(w * self._lost((benchmark.task, metric)) for metric, w in weights.items())

    def lost_by(self, role: str, metric: str) -> np.ndarray:
        """(B, S, n) points lost on one metric of a general benchmark."""
        return self._lost((self.scale.general[role].task, metric))

    def _transitions(self, role: str, kind: str) -> np.ndarray:
        """Points of items that went from right to wrong (`forgotten`) or back (`learnt`), by the
        main metric, each less what guessing alone explains (https://arxiv.org/abs/2510.17776).

        An item is known or guessed: of two models right in shares a and b that guess among k
        options, (1 - a)(1 - b) / (k - 1) of the items change in each direction by guessing alone.
        It is the same for every item of a run; for no options, nothing.
        """
        benchmark = self.scale.general[role]
        key = (benchmark.task, benchmark.metric)
        before, after = self.before(key) / 100, self._after(key) / 100
        moved = before * (1 - after) if kind == FORGOTTEN else (1 - before) * after
        chance = self._chances.get(role) or 0.0
        wrong = (1 - before.mean(axis=-1)) * (1 - after.mean(axis=-1))
        return 100 * (moved - (chance / (1 - chance) * wrong)[..., None])

    def _lost(self, key: tuple[str, str]) -> np.ndarray:
        return self.before(key) - self._after(key)

    def _after(self, key: tuple[str, str]) -> np.ndarray:
        return 100 * np.array([[self._aligned(run, key) for run in runs] for runs in self.runs])

    def before(self, key: tuple[str, str]) -> np.ndarray:
        """(B, 1, n)."""
        return 100 * np.array([[self._aligned(base, key)] for base in self.bases])

    def _aligned(self, run: Scored, key: tuple[str, str]) -> np.ndarray:
        """(n,), in the order of the first base's items."""
        run.value(*key)
        first = self.bases[0].outcomes[key].index
        if len(alone := first.symmetric_difference(run.outcomes[key].index)):
            raise UserError(
                f"{run.path}: {len(alone)} items of {key[0]} do not pair with {self.bases[0].path}",
                "Evaluate bases and runs on the same data and prompts",
            )
        return run.outcomes[key].reindex(first).to_numpy(dtype=float)

    def _of_runs(self, measure: str) -> np.ndarray:
        values = [[run.record.get(measure) for run in runs] for runs in self.runs]
        if any(value is None for runs in values for value in runs):
            raise UserError(f"{self.method}: its runs have no {measure}", f"Known: {MEASURES}")
        # Twice, for an interval needs two items; equal ones add no variance.
        return np.repeat(np.array(values, dtype=float)[..., None], 2, axis=-1)


def grids(runs: Iterable[Scored], scale: Scale) -> dict[tuple[str, str], Grid]:
    """By domain and method, the grids of the bases of a scale that are one another's replicates.

    runs: the base models among them. UserError for a method that lacks a run on some base, and
    for a base model that is missing.
    """
    found: dict[tuple[str, str], dict[str, list[Scored]]] = {}
    for run in sorted(runs, key=lambda run: (run.key, run.seed)):
        _, base, domain, method = run.key
        found.setdefault((domain, method), {}).setdefault(base, []).append(run)
    bases = [name for name in scale.bases if any(name in group for group in found.values())]
    grids = {}
    for (domain, method), by_base in found.items():
        if method == "base":
            continue
        models = found.get((domain, "base"), {})
        wanted = {run.seed for group in by_base.values() for run in group}
        for base in bases:
            there = {run.seed for run in by_base.get(base, [])}
            if base not in models or there != wanted:
                raise UserError(
                    f"{scale.name}/{base}/{domain}/{method}: seeds {sorted(there)} of "
                    f"{sorted(wanted)}" + ("" if base in models else ", and no base model"),
                    "Finish the study: .venv/bin/snakemake --cores all study",
                )
        first = [models[base][0] for base in bases]
        rows = [by_base[base] for base in bases]
        grids[domain, method] = Grid(scale, domain, method, first, rows)
    return grids
