"""The choice of a learning rate from a sweep, against a hand-made one; and what a sweep takes for a
finding."""

import shutil

import pandas as pd
import pytest
import torch

from lrmoclip.config import load
from lrmoclip.core.errors import UserError
from lrmoclip.train import tuning
from lrmoclip.train.tuning import choose, replaced
from lrmoclip.train.workbench import Workbench
from tests.conftest import TINY


def sweep(method: str, rows: list[tuple]) -> pd.DataFrame:
    keys = {"scale": "micro", "base": "b", "domain": "d", "method": method}
    return pd.DataFrame(
        [{**keys, "domain_gain": gain, "general_loss": loss, "lr": lr} for lr, gain, loss in rows]
    )


def test_the_best_of_gain_minus_loss_wins_and_the_greedy_choice_stands_beside_it():
    chosen = choose(sweep("m", [(1e-4, 10, 0), (1e-3, 30, 5), (1e-2, 50, 60)])).iloc[0]
    assert (chosen["lr"], chosen["domain_gain"], chosen["general_loss"]) == (1e-3, 30, 5)
    assert (chosen["lr_by_domain"], chosen["general_loss_by_domain"]) == (1e-2, 60)
    assert chosen["interior"]


def test_equals_go_to_the_lower_rate_and_an_edge_is_not_interior():
    chosen = choose(sweep("m", [(1e-2, 20, 0), (1e-4, 20, 0), (1e-3, 10, 0)])).iloc[0]
    assert chosen["lr"] == 1e-4 and not chosen["interior"]


def test_a_rate_that_diverged_is_never_chosen():
    chosen = choose(sweep("m", [(1e-4, 1, 0), (1e-3, 2, 0), (1e-2, None, None)])).iloc[0]
    assert chosen["lr"] == chosen["lr_by_domain"] == 1e-3


def test_each_method_has_its_own_row_in_the_order_of_the_sweeps():
    both = pd.concat([sweep("z", [(1e-4, 1, 0)]), sweep("a", [(1e-3, 1, 0)])])
    assert list(choose(both)["method"]) == ["z", "a"]


def test_a_method_that_diverged_everywhere_is_said():
    with pytest.raises(UserError, match="diverged at every rate"):
        choose(sweep("m", [(1e-4, None, None)]))


def test_rates_of_other_methods_stay_where_some_are_replaced():
    kept = choose(pd.concat([sweep("a", [(1e-4, 1, 0)]), sweep("b", [(1e-4, 2, 0)])]))
    merged = replaced(kept, choose(sweep("a", [(1e-2, 9, 0)])))
    assert dict(zip(merged["method"], merged["lr"], strict=True)) == {"b": 1e-4, "a": 1e-2}
    assert len(replaced(merged, kept)) == 2


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
    monkeypatch.setattr(
        tuning, "_judge", lambda _: lambda model: scored.append(model) or {"domain_gain": 1.0}
    )
    fine, diverged = tuning.sweep(bench, "full_ft")
    assert len(scored) == 1 and fine["domain_gain"] == 1.0
    assert diverged["lr"] == 1.0 and diverged["domain_gain"] is None


def test_a_damaged_store_is_no_divergence(bench, tmp_path, monkeypatch):
    damaged = tmp_path / "stage0"
    shutil.copytree(bench.store, damaged)
    shard = next(damaged.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-9])
    monkeypatch.setattr(tuning, "_judge", lambda _: None)
    bench = Workbench(bench.scale, bench.base, bench.domain, bench.checkpoint, bench.data, damaged)
    with pytest.raises(UserError, match=shard.name):
        tuning.sweep(bench, "lr_moclip")
