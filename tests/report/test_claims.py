"""The table of claims says what the kept tables say, and no more."""

import pandas as pd
import pytest

from lrmoclip.edge.typed import read_yaml
from lrmoclip.report.claims import NOT_SUPPORTED, UNKNOWN, Claims, markdown
from tests.support import ROOT

METHODS = ("lr_moclip", "full_ft")


def stated(**claim) -> Claims:
    about = {"method": METHODS[0], "reference": METHODS[1], "scales": ["micro"]}
    return Claims.model_validate({**about, "claims": {"C": {"statement": "It works", **claim}}})


def keep(root, scores=(50.0, 60.0), ratios=(0.9, 0.8), share=0.3) -> None:
    """Two domains: the method's and full fine-tuning's scores and costs."""
    folder = root / "micro"
    folder.mkdir()
    rows = [
        {"base": "b", "domain": domain, "method": method, "domain_score": score}
        for domain in ("telecom", "nl2sql")
        for method, score in zip(METHODS, scores, strict=True)
    ]
    pd.DataFrame(rows).to_csv(folder / "table1.csv", index=False)
    saved = [{"method": METHODS[0], "cost_ratio": ratio, "head_share": share} for ratio in ratios]
    pd.DataFrame(saved).to_csv(folder / "savings.csv", index=False)


def cells(table: str) -> list[str]:
    return [cell.strip() for cell in table.splitlines()[-1].strip("|").split("|")]


def test_scores_stand_beside_each_other_without_a_verdict(tmp_path):
    keep(tmp_path)
    row = cells(markdown(stated(column="domain_score", depends_on="a setting"), tmp_path))
    assert row == [
        "C", "It works", "micro: telecom 50.0 vs 60.0, nl2sql 50.0 vs 60.0",
        "unknown: depends on a setting",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "share", "verdict"),
    [
        ((0.9, 0.8), 0.3, NOT_SUPPORTED),  # neither is, nor could it be
        ((0.9, 0.8), 0.5, UNKNOWN),  # it could be
        ((0.9, 0.55), 0.3, UNKNOWN),  # somewhere it is
    ],
)
def test_a_saving_is_not_supported_where_it_neither_is_nor_can_be(tmp_path, ratios, share, verdict):
    keep(tmp_path, ratios=ratios, share=share)
    row = cells(markdown(stated(saving=0.4), tmp_path))
    assert row[3] == verdict
    assert f"{min(ratios):.2f} to {max(ratios):.2f}" in row[2]


@pytest.mark.parametrize("claim", [{"column": "domain_score"}, {"saving": 0.4}, {}])
def test_nothing_kept_is_nothing_known(tmp_path, claim):
    assert cells(markdown(stated(**claim), tmp_path))[2:] == ["nothing yet", UNKNOWN]


def test_every_claim_of_the_paper_has_a_row_and_its_tests_are_there():
    ours = read_yaml(ROOT / "workflow" / "config" / "claims.yaml", Claims)
    assert list(ours.claims) == [f"C{n}" for n in range(1, 10)]
    for claim in ours.claims.values():
        assert all((ROOT / path).exists() for path in claim.tests)
    assert all("Stage 0" in ours.claims[c].depends_on for c in ("C4", "C5"))
