"""What the paper claims and its reviewers asked, as workflow/config/claims.yaml has it: statements,
and what is compared to decide them. `decide` makes `claims.csv` of a scale's study."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field, model_validator
from tabulate import tabulate

from lrmoclip.config import Scale
from lrmoclip.config.parts import Budget
from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import Name, Positive, PositiveShare, Text, Typed
from lrmoclip.report import paired, verdicts
from lrmoclip.report.paired import Grid
from lrmoclip.report.statistics import over_bases
from lrmoclip.report.tables import number, read
from lrmoclip.report.verdicts import NOT_SUPPORTED, NOT_TESTABLE, NOT_YET, SUPPORTED, Effect

CLAIMS = [
    *("claim", "statement", "comparison", "effect", "ci_low", "ci_high", "p_adjusted", "verdict"),
    *("depends_on", "evidence", "measure", "of_interest", "detectable"),
]
UNITS = {"kl_general": " nats", "kl_domain": " nats", "nll_general": " nats", "drift": ""}
WORDS = {
    paired.GAIN: "gain",
    paired.EXACT: "gain by greedy answers",
    paired.LOSS: "skill lost",
    "kl_general": "KL on general text",
    "drift": "drift of the weights",
}


class Comparison(Typed):
    """A method against the best of some others (by gain on validation, each at its choice), on a
    measure of `report.paired`, both as chosen at a budget, the mean over the scale's domains.

    of_interest: the smallest effect that would matter, in the measure's unit. variants: in words,
    what the paper does not state, and the comparison with it instead: another method or budget.
    """

    method: Name
    against: Annotated[list[Name], Field(min_length=1)]
    measure: Literal[tuple(paired.MEASURES)]
    budget: Budget
    of_interest: Positive
    variants: dict[Text, "Variant"] = Field(default_factory=dict)


class Variant(Typed):
    method: Name | None = None
    budget: Budget | None = None

    @model_validator(mode="after")
    def _varies(self):
        if self.method is None and self.budget is None:
            raise ValueError("a variant names another method or another budget")
        return self


class Claim(Typed):
    """A statement, and one thing that decides it: tests (of an invariant, by path), comparisons,
    saving (at least this share of the training cost), interior (choices lie inside what was tried),
    not_testable or not_yet (why)."""

    statement: Text
    tests: list[Text] = Field(default_factory=list)
    compare: list[Comparison] = Field(default_factory=list)
    saving: PositiveShare | None = None
    interior: bool = False
    not_testable: Text | None = None
    not_yet: Text | None = None

    @model_validator(mode="after")
    def _one_way(self):
        ways = ("tests", "compare", "saving", "interior", "not_testable", "not_yet")
        if sum(bool(getattr(self, way)) for way in ways) != 1:
            raise ValueError(f"one of {', '.join(ways)} decides a claim. Name one")
        return self


class Claims(Typed):
    """method: the paper's. scale: whose study decides. equal_rates: pairs of methods that are held
    against each other at the same rates."""

    method: Name
    scale: Name
    claims: Annotated[dict[str, Claim], Field(min_length=1)]
    equal_rates: list[Annotated[list[Name], Field(min_length=2, max_length=2)]] = Field(
        default_factory=list
    )


@dataclass(frozen=True)
class Study:
    """What claims are decided from. choices: the frame of `learning_rates.csv`; savings: that of
    `savings.csv`, empty where nothing was timed."""

    scale: Scale
    grids: Mapping[tuple[str, str], Grid]
    choices: pd.DataFrame
    savings: pd.DataFrame

    @property
    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for domain, _ in self.grids))


def check(stated: Claims, scale: Scale, path: Path) -> None:
    """UserError for a method, measure or budget that the scale's study does not have."""
    study = scale.study
    if study is None:
        raise UserError(f"{scale.path}: no key 'study'", "Say what the study runs")
    for name, claim in stated.claims.items():
        for each in claim.compare:
            sides = [(m, each.budget) for m in (each.method, *each.against)]
            for varied in each.variants.values():
                budget = each.budget if varied.budget is None else varied.budget
                sides += [(varied.method or each.method, budget)]
                sides += [(method, budget) for method in each.against]
            for method, budget in sides:
                place = f"{path}: claims.{name}"
                if budget not in scale.tuning.budgets:
                    raise UserError(
                        f"{place}: budget {budget:g} is none of tuning.budgets",
                        f"Known: {', '.join(f'{b:g}' for b in scale.tuning.budgets)}",
                    )
                if scale.at_budget(method, budget) not in scale.in_study:
                    raise UserError(
                        f"{place}: {method} at a budget of {budget:g} is not in the study",
                        f"Add it to study in {scale.path}",
                    )


def decide(stated: Claims, study: Study) -> pd.DataFrame:
    """The frame of `claims.csv`: a row a comparison, or a claim that needs none. p is adjusted by
    Holm over all comparisons; variants are beside the family, each by its own p."""
    rows, effects = [], []
    for name, claim in stated.claims.items():
        head = {"claim": name, "statement": claim.statement}
        if not claim.compare:
            rows.append((head | _without_comparison(claim, stated, study), None))
        for each in claim.compare:
            against = _best(each.against, each.budget, study)
            found = _effect(each.method, against, each.measure, each.budget, study)
            rows.append((head | {"against": against}, each))
            effects.append(found)
    adjusted = iter(zip(effects, verdicts.holm([found.p for found in effects]), strict=True))
    table = [
        row if each is None else _compared(row, each, *next(adjusted), study) for row, each in rows
    ]
    return pd.DataFrame(table, columns=CLAIMS)


def comparisons(stated: Claims) -> int:
    return sum(len(claim.compare) for claim in stated.claims.values())


def _compared(row: dict, each: Comparison, found: Effect, p: float, study: Study) -> dict:
    against, budget = row.pop("against"), each.budget
    verdict = verdicts.verdict(found, p, each.of_interest)
    return row | {
        "comparison": f"{each.method} against {against}, {WORDS.get(each.measure, each.measure)} "
        f"at a loss of at most {budget:g}",
        "effect": round(found.estimate, 3),
        "ci_low": round(found.low, 3),
        "ci_high": round(found.high, 3),
        "p_adjusted": round(p, 4),
        "verdict": verdict,
        "depends_on": "; ".join(_hangs_on(each, against, verdict, study)),
        "evidence": "; ".join(_by_domain(each, against, study)),
        "measure": each.measure,
        "of_interest": each.of_interest,
        "detectable": round(found.detectable, 3),
    }


def _hangs_on(each: Comparison, against: str, verdict: str, study: Study) -> Iterable[str]:
    """The settings with which the verdict is another one, and domains that contradict."""
    for words, varied in each.variants.items():
        method = varied.method or each.method
        budget = each.budget if varied.budget is None else varied.budget
        other = _best(each.against, budget, study) if len(each.against) > 1 else against
        found = _effect(method, other, each.measure, budget, study)
        said = verdicts.verdict(found, found.p, each.of_interest)
        if said != verdict:
            yield f"{words}: {said} ({_signed(found, each.measure)})"
    found = [
        _effect(each.method, against, each.measure, each.budget, study, [d]) for d in study.domains
    ]
    if any(one.low > 0 for one in found) and any(one.high < 0 for one in found):
        yield "the domain"


def _by_domain(each: Comparison, against: str, study: Study) -> Iterable[str]:
    for domain in study.domains:
        found = _effect(each.method, against, each.measure, each.budget, study, [domain])
        yield f"{domain} {_signed(found, each.measure)}"
    outside = [
        f"{method} on {domain}"
        for method in (each.method, against)
        for domain in study.domains
        if not _choice(method, domain, each.budget, study)["within"]
    ]
    if outside:
        yield f"no setting within the budget: {', '.join(outside)}"


def _signed(found: Effect, measure: str) -> str:
    unit = UNITS.get(measure, "")
    return f"{found.estimate:+.3g} [{found.low:.3g}, {found.high:.3g}]{unit}"


def _effect(
    method: str, against: str, measure: str, budget: float, study: Study, domains=None
) -> Effect:
    """Positive where it favours `method`; the mean over domains."""
    outcomes = []
    for domain in domains or study.domains:
        one, other = (
            study.grids[domain, study.scale.at_budget(name, budget)].outcomes(measure)
            for name in (method, against)
        )
        sign = 1 if measure in paired.MORE_IS_BETTER else -1
        outcomes += [sign * (a - b) for a, b in zip(one, other, strict=True)]
    found = over_bases(outcomes)
    return verdicts.effect(float(found.mean), float(found.standard_error), float(found.df))


def _best(methods: list[str], budget: float, study: Study) -> str:
    """Of several, the one with the most gain on validation, in the mean over the domains."""
    if len(methods) == 1:
        return methods[0]
    gains = {
        method: sum(_choice(method, d, budget, study)["domain_gain"] for d in study.domains)
        for method in methods
    }
    return max(gains, key=lambda method: gains[method])


def _choice(method: str, domain: str, budget: float, study: Study) -> pd.Series:
    name, chosen = study.scale.at_budget(method, budget), study.choices
    rows = chosen[(chosen["method"] == name) & (chosen["domain"] == domain)]
    if rows.empty:
        raise UserError(
            f"{study.scale.rates_path}: nothing of {name} on {domain}", "Tune it and keep it"
        )
    return rows.iloc[0]


def _without_comparison(claim: Claim, stated: Claims, study: Study) -> dict:
    if claim.tests:
        return _by_tests(claim)
    if claim.saving:
        return _saving(claim.saving, stated.method, study.savings)
    if claim.interior:
        return _interior(study)
    reason = claim.not_testable or claim.not_yet
    return {"verdict": NOT_TESTABLE if claim.not_testable else NOT_YET, "evidence": reason}


def _by_tests(claim: Claim) -> dict:
    links = (f"[{Path(path).stem.removeprefix('test_')}]({path})" for path in claim.tests)
    return {"verdict": SUPPORTED, "evidence": f"property tests: {', '.join(links)}"}


def _saving(wanted: float, method: str, savings: pd.DataFrame) -> dict:
    """Cost ratios and their bound: of a step no more can be saved than the head's share."""
    rows = savings[savings["method"] == method] if len(savings) else savings
    if not len(rows):
        return {"verdict": NOT_YET, "evidence": "nothing was timed"}
    ratios, most = rows["cost_ratio"], rows["head_share"].max()
    evidence = (
        f"cost ratio {number(ratios.min(), 2)} to {number(ratios.max(), 2)}; the head is at most "
        f"{number(100 * most, 0)} % of a step, and bounds the saving"
    )
    possible = most >= wanted or (ratios <= 1 - wanted).any()
    return {"verdict": NOT_YET if possible else NOT_SUPPORTED, "evidence": evidence}


def _interior(study: Study) -> dict:
    names = set(study.scale.in_study)
    rows = study.choices[study.choices["method"].isin(names)]
    edges = rows[rows["edge"]]
    said = f"{len(rows) - len(edges)} of {len(rows)} choices lie inside the rates that were tried"
    if len(edges):
        on_edge = ", ".join(f"{r.method} on {r.domain}" for r in edges.itertuples())
        said += f"; on an edge: {on_edge}"
    return {"verdict": SUPPORTED if edges.empty else NOT_SUPPORTED, "evidence": said}


def markdown(table: pd.DataFrame) -> str:
    """`claims.csv` as README shows it."""
    rows = []
    for row in table.astype(object).fillna("").to_dict("records"):
        effect = ""
        if row["effect"] != "":
            unit = UNITS.get(row["measure"], " points")
            effect = f"{row['effect']:+.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}]{unit}"
        measured = row["comparison"] or row["evidence"]
        hangs = f"; hangs on {row['depends_on']}" if row["depends_on"] else ""
        rows.append([row["claim"], row["statement"], measured, effect, row["verdict"] + hangs])
    headers = ["", "statement", "what was compared", "effect [95 %]", "verdict"]
    return tabulate(rows, headers, "github", disable_numparse=True) + "\n"


def kept(stated: Claims, reference: Path) -> pd.DataFrame:
    """The kept `claims.csv` of the scale that decides; where none is kept, what needs no study."""
    path = Path(reference) / stated.scale / "claims.csv"
    if path.exists():
        return read(path, CLAIMS)
    rows = []
    for name, claim in stated.claims.items():
        found = {"verdict": NOT_YET, "evidence": claim.not_yet or "nothing is kept"}
        if claim.tests:
            found = _by_tests(claim)
        rows.append({"claim": name, "statement": claim.statement, **found})
    return pd.DataFrame(rows, columns=CLAIMS)
