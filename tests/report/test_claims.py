"""Claims are decided by what runs measured, and say what they hang on."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lrmoclip import config
from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import read_yaml
from lrmoclip.report import claims, paired, verdicts
from lrmoclip.report.claims import Claims, Study, decide
from tests.support import ROOT
from tests.support.grids import scored
from tests.support.handmade import scale

BASES, SEEDS, ITEMS = ("b0", "b1", "b2"), (1, 2), 300
COMPARE = {"method": "lr_moclip", "against": ["full_ft"], "measure": "domain_gain", "budget": 5.0,
           "of_interest": 5.0}  # fmt: skip


def stated(**claim) -> Claims:
    about = {"method": "lr_moclip", "scale": "micro"}
    return Claims.model_validate({**about, "claims": {"C": {"statement": "It works", **claim}}})


def study(shares: dict[str, float], within: bool = True, savings=None) -> Study:
    """Methods of the study that are right on these shares of the domain's items, by their names at
    a budget; on general items all are as the base is."""
    dice = np.random.default_rng(0)
    general = {("micro_mmlu", "acc"): np.ones(8), ("micro_math", "exact_match"): np.ones(8)}

    def outcomes(share: float) -> dict:
        drawn = {("telecom", m): dice.random(ITEMS) < share for m in ("acc", "exact_match")}
        return {**general, **drawn}

    runs = [scored("base", outcomes(0.3), base=base) for base in BASES]
    runs += [
        scored(method, outcomes(share), base=base, seed=seed, record={"drift": share})
        for method, share in shares.items()
        for base in BASES
        for seed in SEEDS
    ]
    ours = scale()
    shape = next(iter(ours.bases.values()))
    ours = ours.model_copy(update={"bases": dict.fromkeys(BASES, shape)})
    rows = [
        {"domain": "telecom", "method": m, "budget": 5.0, "within": within, "edge": m == "lora",
         "domain_gain": s}
        for m, s in shares.items()
    ]  # fmt: skip
    none = pd.DataFrame()
    return Study(
        ours, paired.grids(runs, ours), pd.DataFrame(rows), none if savings is None else savings
    )


def only(table: pd.DataFrame) -> pd.Series:
    (row,) = table.to_dict("records")
    return pd.Series(row)


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ({"lr_moclip": 0.8, "full_ft": 0.5}, verdicts.SUPPORTED),
        ({"lr_moclip": 0.3, "full_ft": 0.8}, verdicts.NOT_SUPPORTED),
        ({"lr_moclip": 0.55, "full_ft": 0.5}, verdicts.INCONCLUSIVE),
    ],
)
def test_what_is_planted_is_found(shares, verdict):
    row = only(decide(stated(compare=[COMPARE]), study(shares)))
    assert row["verdict"] == verdict
    planted = 100 * (shares["lr_moclip"] - shares["full_ft"])
    assert row["ci_low"] < planted < row["ci_high"]
    assert row["comparison"].startswith("lr_moclip against full_ft, gain at a loss of at most 5")


def test_less_is_better_of_what_is_lost():
    """One number a run, the same with every seed: a t test of three bases' means."""
    found = study({"lr_moclip": 0.2, "full_ft": 0.8})
    for number, runs in enumerate(found.grids["telecom", "lr_moclip"].runs):
        for run in runs:
            run.record["drift"] = 1.0 + number / 10
    row = only(decide(stated(compare=[COMPARE | {"measure": "drift", "of_interest": 0.1}]), found))
    expected = scipy.stats.ttest_1samp([0.8 - 1.0, 0.8 - 1.1, 0.8 - 1.2], 0)
    assert row["effect"] == pytest.approx(-0.3) and row["verdict"] == verdicts.NOT_SUPPORTED
    assert row["p_adjusted"] == pytest.approx(expected.pvalue, abs=1e-4)


def test_the_best_of_several_is_that_of_the_most_gain_on_validation():
    found = study({"lr_moclip": 0.8, "full_ft": 0.5, "lora": 0.6, "ewc": 0.4})
    row = only(decide(stated(compare=[COMPARE | {"against": ["ewc", "lora", "full_ft"]}]), found))
    assert row["comparison"].startswith("lr_moclip against lora,")


def test_a_verdict_that_another_setting_turns_says_so():
    found = study({"lr_moclip": 0.8, "full_ft": 0.5, "lr_moclip_smallest": 0.2})
    varied = {"the smallest sets": {"method": "lr_moclip_smallest"}}
    row = only(decide(stated(compare=[COMPARE | {"variants": varied}]), found))
    assert row["verdict"] == verdicts.SUPPORTED
    assert row["depends_on"].startswith("the smallest sets: not supported (-3")


def test_a_method_without_a_setting_within_the_budget_is_said_to_have_none():
    row = only(decide(stated(compare=[COMPARE]), study({"lr_moclip": 0.8, "full_ft": 0.5}, False)))
    assert (
        "no setting within the budget: lr_moclip on telecom, full_ft on telecom" in row["evidence"]
    )


def test_p_is_adjusted_for_all_comparisons_but_not_for_variants():
    found = study({"lr_moclip": 0.6, "full_ft": 0.5, "lora": 0.55})
    both = [COMPARE, COMPARE | {"against": ["lora"]}]
    alone = [only(decide(stated(compare=[each]), found))["p_adjusted"] for each in both]
    together = decide(stated(compare=both), found)["p_adjusted"]
    np.testing.assert_allclose(together, verdicts.holm(alone), atol=2e-4)


@pytest.mark.parametrize(
    ("ratios", "share", "verdict"),
    [
        ((0.9, 0.8), 0.3, verdicts.NOT_SUPPORTED),  # neither is, nor could it be
        ((0.9, 0.8), 0.5, verdicts.NOT_YET),  # it could be
        ((0.9, 0.55), 0.3, verdicts.NOT_YET),  # somewhere it is
    ],
)
def test_a_saving_is_not_supported_where_it_neither_is_nor_can_be(ratios, share, verdict):
    saved = [{"method": "lr_moclip", "cost_ratio": r, "head_share": share} for r in ratios]
    found = study({"lr_moclip": 0.5}, savings=pd.DataFrame(saved))
    row = only(decide(stated(saving=0.4), found))
    assert (
        row["verdict"] == verdict and f"{min(ratios):.2f} to {max(ratios):.2f}" in row["evidence"]
    )


def test_choices_on_an_edge_are_named():
    found = study({"lora": 0.5, "full_ft": 0.5})
    ours = found.scale.model_copy(
        update={"study": config.scale.Study(seeds=[1], methods=["lora", "full_ft"])}
    )
    row = only(
        decide(stated(interior=True), Study(ours, found.grids, found.choices, found.savings))
    )
    assert row["verdict"] == verdicts.NOT_SUPPORTED
    assert (
        row["evidence"]
        == "1 of 2 choices lie inside the rates that were tried; on an edge: lora on telecom"
    )


def test_what_cannot_be_said_here_has_a_row_with_its_reason():
    for way, verdict in {
        "not_yet": verdicts.NOT_YET,
        "not_testable": verdicts.NOT_TESTABLE,
    }.items():
        row = only(decide(stated(**{way: "no such model"}), study({"lr_moclip": 0.5})))
        assert (row["verdict"], row["evidence"]) == (verdict, "no such model")


@pytest.mark.parametrize("claim", [{}, {"saving": 0.4, "interior": True}])
def test_a_claim_is_decided_in_one_way(claim):
    with pytest.raises(ValueError, match=r"decides a claim\. Name one"):
        stated(**claim)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budget": 7.0}, "claims.C: budget 7 is none of tuning.budgets"),
        ({"method": "magic"}, "claims.C: magic at a budget of 5 is not in the study"),
        ({"budget": 2.0, "method": "lora"}, "claims.C: lora at a budget of 2 is not in the study"),
        ({"variants": {"w": {"method": "odd"}}}, "claims.C: odd at a budget of 5 is not in"),
    ],
)  # fmt: skip
def test_a_claim_about_what_the_study_does_not_run_is_one_line(changes, words):
    ours = config.load(ROOT / "workflow" / "config" / "micro.yaml")
    with pytest.raises(UserError) as raised:
        claims.check(stated(compare=[COMPARE | changes]), ours, "claims.yaml")
    assert words in str(raised.value)


def test_a_measure_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="measure"):
        stated(compare=[COMPARE | {"measure": "vibes"}])


def test_every_claim_and_question_has_a_row_and_its_tests_are_there():
    path = ROOT / "workflow" / "config" / "claims.yaml"
    ours = read_yaml(path, Claims)
    asked = [f"C{n}" for n in range(1, 10)] + [
        "R1a",
        "R1b",
        "R1c",
        "R2a",
        "R2b",
        "R3a",
        "R3b",
        "R3c",
    ]
    assert set(ours.claims) >= set(asked)
    for claim in ours.claims.values():
        assert all((ROOT / test).exists() for test in claim.tests)
    claims.check(ours, config.load(path.with_name(f"{ours.scale}.yaml")), path)


def test_the_table_of_readme_has_effect_and_verdict(tmp_path):
    found = study({"lr_moclip": 0.8, "full_ft": 0.5})
    text = claims.markdown(decide(stated(compare=[COMPARE]), found))
    cells = [cell.strip() for cell in text.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "C" and cells[3].endswith("] points") and cells[4] == "supported"


def test_nothing_kept_is_not_yet_tested(tmp_path):
    row = only(claims.kept(stated(compare=[COMPARE]), tmp_path))
    assert row["verdict"] == verdicts.NOT_YET
