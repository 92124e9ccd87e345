"""The paper's claims beside what our kept tables say of each, and no more than they say."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field
from tabulate import tabulate

from lrmoclip.edge.typed import Name, PositiveShare, Text, Typed
from lrmoclip.report.tables import number, read

HOLDS, UNKNOWN = "holds, by tests", "unknown"
NOT_SUPPORTED = "not supported at these scales"
NOTHING = "nothing yet"


class Claim(Typed):
    """A claim and what bears on it, as workflow/config/claims.yaml has it."""

    statement: Text
    tests: list[Text] = Field(default_factory=list)
    column: Name | None = None
    saving: PositiveShare | None = None
    scales: list[Name] = Field(default_factory=list)
    depends_on: Text | None = None


class Claims(Typed):
    """method: the paper's; reference: what it is held against. scales: in the order shown."""

    method: Name
    reference: Name
    scales: list[Name]
    claims: Annotated[dict[str, Claim], Field(min_length=1)]


def markdown(stated: Claims, kept: Path) -> str:
    """A row a claim: what was measured in the kept tables of each scale (folders of `kept`), and
    the verdict."""
    rows = []
    for name, claim in stated.claims.items():
        folders = [Path(kept) / scale for scale in claim.scales or stated.scales]
        there = [folder for folder in folders if (folder / "table1.csv").exists()]
        rows.append([name, claim.statement, *_measured(claim, stated, there)])
    return tabulate(rows, ["", "claim", "measured", "verdict"], "github") + "\n"


def _measured(claim: Claim, stated: Claims, scales: list[Path]) -> tuple[str, str]:
    if claim.tests:
        links = (f"[{Path(path).stem.removeprefix('test_')}]({path})" for path in claim.tests)
        return f"property tests: {', '.join(links)}", HOLDS
    if claim.saving and scales:
        return _saving(claim.saving, stated, scales)
    measured = NOTHING
    if claim.column and scales:
        found = filter(None, (_compared(claim.column, stated, scale) for scale in scales))
        measured = "; ".join(found) or NOTHING
    return measured, f"{UNKNOWN}: depends on {claim.depends_on}" if claim.depends_on else UNKNOWN


def _compared(column: str, stated: Claims, scale: Path) -> str:
    """The method's number beside the reference's, by domain; means over the bases of a scale."""
    table = read(scale / "table1.csv")
    means = table.groupby(["method", "domain"], sort=False)[column].mean().unstack("method")
    if not {stated.method, stated.reference} <= set(means):
        return ""
    parts = [
        f"{domain} {number(row[stated.method], 1)} vs {number(row[stated.reference], 1)}"
        for domain, row in means.iterrows()
    ]
    return f"{scale.name}: {', '.join(parts)}"


def _saving(wanted: float, stated: Claims, scales: list[Path]) -> tuple[str, str]:
    """Cost ratios and their bound: of a step no more can be saved than the head's share."""
    found = pd.concat([read(scale / "savings.csv") for scale in scales])
    rows = found[found["method"] == stated.method]
    if rows.empty:
        return NOTHING, UNKNOWN
    ratios, most = rows["cost_ratio"], rows["head_share"].max()
    measured = (
        f"cost ratio {number(ratios.min(), 2)} to {number(ratios.max(), 2)}; the head is at most "
        f"{number(100 * most, 0)} % of a step, and bounds the saving"
    )
    possible = most >= wanted or (ratios <= 1 - wanted).any()
    return measured, UNKNOWN if possible else NOT_SUPPORTED
