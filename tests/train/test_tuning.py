"""Trials and the choice among them by docs/tuning.md, against hand-made sweeps; and what a sweep
takes for a finding."""

import json
import shutil

import pandas as pd
import pytest
import torch

from lrmoclip.config import load
from lrmoclip.core.errors import UserError
from lrmoclip.train import tuning
from lrmoclip.train.choosing import choose, contenders, means, replaced
from lrmoclip.train.workbench import Workbench
from tests.conftest import TINY


def row(lr: float, gain: float | None, loss: float | None, settings: dict | None = None, seed=0):
    return {
        "scale": "micro", "base": "b", "domain": "d", "method": "m", "lr": lr,
        "settings": json.dumps(settings or {}), "seed": seed, "domain_gain": gain,
        "general_loss": loss, "kl_general": 0.5, "reason": "" if gain is not None else "nan",
    }  # fmt: skip


def sweep(rows: list[tuple], method: str = "m") -> pd.DataFrame:
    return pd.DataFrame([row(*each) for each in rows]).assign(method=method)


@pytest.fixture
def scale():
    found = load(TINY)
    tuned = found.tuning.model_copy(update={"budgets": [2.0, 5.0, 15.0], "settings": 2})
    return found.model_copy(update={"tuning": tuned})


def by_method(swept: pd.DataFrame, scale) -> pd.DataFrame:
    return choose(swept, scale).set_index("method")


def test_the_most_gain_within_each_budget_is_chosen(scale):
    found = by_method(sweep([(1e-4, 5, 1), (1e-3, 30, 4), (1e-2, 50, 14), (2e-2, 60, 30)]), scale)

    assert found["lr"].to_dict() == {"m_b2": 1e-4, "m": 1e-3, "m_b15": 1e-2}
    assert found["within"].all() and found["budget"].to_list() == [2, 5, 15]
    assert found["edge"].to_dict() == {"m_b2": True, "m": False, "m_b15": False}
    assert (found["lr_net"] == 1e-2).all()  # gain minus loss: 4, 26, 36, 30


def test_a_method_without_a_setting_within_the_budget_is_said_to_have_none(scale):
    found = by_method(sweep([(1e-4, 30, 9), (1e-3, 50, 12)]), scale)

    assert found["within"].to_dict() == {"m_b2": False, "m": False, "m_b15": True}
    assert found.loc["m", "lr"] == 1e-4  # the least loss


def test_equals_go_to_the_smaller_loss_and_then_to_the_lower_rate(scale):
    assert by_method(sweep([(1e-4, 20, 2), (1e-3, 20, 1)]), scale).loc["m", "lr"] == 1e-3
    assert by_method(sweep([(1e-3, 20, 1), (1e-4, 20, 1)]), scale).loc["m", "lr"] == 1e-4


def test_seeds_of_a_trial_are_averaged_before_the_choice(scale):
    rows = [(1e-4, 20, 4), (1e-3, 30, 4), (1e-3, 2, 4, None, 1)]

    found = by_method(sweep(rows), scale)

    assert found.loc["m", "lr"] == 1e-4
    assert [trial["domain_gain"] for trial in means(map(lambda r: row(*r), rows))] == [20, 16]


def test_a_trial_that_diverged_with_any_seed_is_never_chosen(scale):
    rows = [(1e-4, 1, 0), (1e-3, 9, 0), (1e-3, None, None, None, 1), (1e-2, None, None)]
    assert by_method(sweep(rows), scale).loc["m", "lr"] == 1e-4


def test_each_method_has_its_own_rows_in_the_order_of_the_sweeps(scale):
    both = pd.concat([sweep([(1e-4, 1, 0)], "z"), sweep([(1e-3, 1, 0)], "a")])
    assert list(choose(both, scale)["method"]) == ["z_b2", "z", "z_b15", "a_b2", "a", "a_b15"]


def test_a_method_that_diverged_everywhere_is_said(scale):
    with pytest.raises(UserError, match="diverged at every rate"):
        choose(sweep([(1e-4, None, None)]), scale)


def test_choices_of_other_methods_stay_where_some_are_replaced(scale):
    kept = choose(pd.concat([sweep([(1e-4, 1, 0)], "a"), sweep([(1e-4, 2, 0)], "b")]), scale)
    merged = replaced(kept, choose(sweep([(1e-2, 9, 0)], "a"), scale))
    rates = merged[merged["budget"] == 5].set_index("method")["lr"]
    assert rates.to_dict() == {"b": 1e-4, "a": 1e-2}


def with_knobs(scale, **knobs):
    point = scale.points["ewc"].model_validate(
        scale.points["ewc"].model_dump()
        | {"knobs": {k.replace("__", "."): v for k, v in knobs.items()}}
    )
    return scale.model_copy(update={"points": {**scale.points, "ewc": point}})


def test_every_method_has_as_many_trials(scale):
    knobs = with_knobs(scale, penalty__strength=[1.0, 10.0])
    plain, knobbed = tuning.grid(knobs, "full_ft"), tuning.grid(knobs, "ewc")

    assert len(plain) == len(knobbed) == 4
    assert [trial.lr for trial in plain] == [1e-3, 2.15e-3, 4.64e-3, 1e-2]
    assert {trial.lr for trial in knobbed} == {1e-3, 1e-2}
    assert {trial.settings["penalty.strength"] for trial in knobbed} == {1.0, 10.0}


def test_a_choice_on_an_edge_extends_its_range_once(scale):
    knobs = with_knobs(scale, penalty__strength=[1.0, 10.0, 100.0])
    at = {"penalty.strength": 100.0}
    rows = [row(lr, g, 1, at) for lr, g in ((1e-4, 1), (1e-3, 5), (1e-2, 9))]

    found = list(tuning.beyond(rows, knobs, "ewc"))

    assert tuning.Trial(0.1, at) in found
    beyond = {(t.lr, t.settings["penalty.strength"]) for t in found} - {(0.1, 100.0)}
    assert beyond == {(1e-3, 1000.0), (1e-2, 1000.0)}


def test_a_choice_within_the_range_extends_nothing(scale):
    rows = [row(lr, g, 1) for lr, g in ((1e-4, 1), (1e-3, 9), (1e-2, 5))]
    assert not list(tuning.beyond(rows, scale, "full_ft"))


def test_what_is_near_a_choice_is_looked_at_once_more():
    rows = [row(1e-4, 1, 0), row(1e-3, 9, 4), row(2e-3, 12, 6.5), row(1e-2, 50, 20)]

    assert [found["lr"] for found in contenders(rows, 5.0)] == [1e-3, 2e-3]


@pytest.fixture
def bench(edit, tiny_base, tiny_data, store) -> Workbench:
    scale = load(edit(TINY, {"tuning/learning_rates": [1e-3, 1.0]}))
    return Workbench(scale, "qwen3-s0", "telecom", tiny_base, tiny_data, store)


def test_a_rate_at_which_training_diverges_is_an_empty_row(bench, monkeypatch):
    scored, train = [], tuning.train

    def diverging(run):
        if run.optimizer.param_groups[0]["initial_lr"] == 1.0:
            with torch.no_grad():
                next(iter(run.parameters.values())).fill_(float("nan"))
        return train(run)

    monkeypatch.setattr(tuning, "train", diverging)
    found = {"domain_gain": 1.0, "general_loss": 0.0}
    monkeypatch.setattr(tuning, "_judge", lambda _: lambda model: scored.append(model) or found)
    fine, diverged, lower = tuning.sweep(bench, "full_ft")
    assert len(scored) == 2 and lower["lr"] == pytest.approx(1e-6) and fine["domain_gain"] == 1.0
    assert diverged["lr"] == 1.0 and diverged["domain_gain"] is None
    assert "the loss is nan" in diverged["reason"]


def test_a_damaged_store_is_no_divergence(bench, tmp_path, monkeypatch):
    damaged = tmp_path / "stage0"
    shutil.copytree(bench.store, damaged)
    shard = next(damaged.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-9])
    monkeypatch.setattr(tuning, "_judge", lambda _: None)
    bench = Workbench(bench.scale, bench.base, bench.domain, bench.checkpoint, bench.data, damaged)
    with pytest.raises(UserError, match=shard.name):
        tuning.sweep(bench, "lr_moclip")
