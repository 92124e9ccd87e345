"""Fronts of trials, by hand, and what leaves the curve of all."""

import json

import numpy as np
import pandas as pd

from lrmoclip.methods.axes import BASELINE, REPLAY
from lrmoclip.report.front_figures import departure_plot, fronts_plot
from lrmoclip.report.fronts import FRONTS, at_equal_rates, departures, fronts

DIVERGED = {"domain_gain": np.nan, "general_loss": np.nan, "reason": "the loss is nan at step 3"}


def trial(lr, gain, loss, method="full_ft", settings=None, seed=0, **more) -> dict:
    head = {"scale": "micro", "base": "b0", "domain": "telecom", "method": method, "lr": lr}
    measures = {"domain_gain": gain, "exact_gain": gain / 2, "general_loss": loss, "drift": 1.0}
    kls = dict.fromkeys(("kl_general", "kl_domain", "nll_general"), abs(loss) / 100)
    settings = json.dumps(settings or {})
    return {**head, "settings": settings, "seed": seed, **measures, **kls, "reason": "", **more}


def test_a_trial_is_on_the_front_if_none_gains_more_and_loses_less():
    trials = [trial(1e-4, 5, 1), trial(2e-4, 4, 2), trial(3e-4, 9, 3), trial(4e-4, 9, 3)]
    table = fronts(pd.DataFrame(trials)).set_index("lr")
    assert list(table["on_front"]) == [True, False, True, True]  # equal ones do not beat each other
    assert set(table["split"]) == {"validation"} and list(table.reset_index()) != []


def test_seeds_of_a_trial_are_one_row_and_a_diverged_one_keeps_its_reason():
    trials = [trial(1e-4, 4, 1), trial(1e-4, 6, 3, seed=1), trial(1.0, 0, 0) | DIVERGED]
    table = fronts(pd.DataFrame(trials))
    assert list(table.columns) == FRONTS
    first, last = table.to_dict("records")
    assert (first["domain_gain"], first["general_loss"], first["seeds"]) == (5, 2, 2)
    assert last["reason"] == "the loss is nan at step 3" and not last["on_front"]
    assert np.isnan(last["domain_gain"])


def test_methods_are_held_against_each_other_at_equal_rates_and_shared_settings():
    trials = [
        trial(1e-4, 5, 1, "full_moclip", {"optimizer.max_angle": 90}),
        trial(1e-4, 8, 2, "full_moclip", {"optimizer.max_angle": 60}),
        trial(1e-4, 4, 3, "lr_moclip", {"optimizer.max_angle": 90, "objective.k_min": 1}),
        trial(2e-4, 9, 9, "lr_moclip", {"optimizer.max_angle": 90, "objective.k_min": 1}),
    ]
    (row,) = at_equal_rates(fronts(pd.DataFrame(trials)), [("lr_moclip", "full_moclip")]).to_dict(
        "records"
    )
    assert (row["lr"], row["domain_gain"], row["general_loss"]) == (1e-4, -1, 2)
    assert (row["method"], row["against"]) == ("lr_moclip", "full_moclip")


def test_a_method_that_forgets_more_than_its_divergence_says_leaves_the_curve():
    dice = np.random.default_rng(0)
    rows = []
    for method, above in {"full_ft": 0, "lora": 0, "ewc": 0, "lr_moclip": 12}.items():
        for number, kl in enumerate(np.geomspace(0.01, 1, 20)):
            loss = 20 + 8 * np.log10(kl) + above + dice.normal(0, 0.5)
            rows.append(trial(1e-4 * (number + 1), 5, loss, method, kl_general=kl))
    found = departures(fronts(pd.DataFrame(rows))).set_index("method")
    assert found.loc["lr_moclip", "leaves"] and found.loc["lr_moclip", "above"] > 6
    assert list(found["trials"]) == [20] * 4


def test_pictures_have_every_method_and_the_same_bytes(tmp_path):
    trials = [
        trial(lr, gain, loss, method)
        for method in ("full_ft", "lr_moclip")
        for lr, gain, loss in [(1e-4, 5, 1), (2e-4, 9, 4), (3e-4, 12, 12), (1e-3, 13, 30)]
    ]
    table, families = fronts(pd.DataFrame(trials)), {"full_ft": BASELINE, "lr_moclip": REPLAY}
    for number in "12":
        fronts_plot(
            table, families, [2, 5], tmp_path / f"f{number}.png", tmp_path / f"f{number}.svg"
        )
        departure_plot(table, families, tmp_path / f"d{number}.png", tmp_path / f"d{number}.svg")
    for name in ("f", "d"):
        for kind in ("png", "svg"):
            first, second = (tmp_path / f"{name}{n}.{kind}" for n in "12")
            assert first.read_bytes() == second.read_bytes()
    svg = (tmp_path / "f1.svg").read_text()
    assert "full_ft" in svg and "lr_moclip" in svg and "telecom" in svg
