"""The choice of a learning rate from a sweep, against a hand-made one."""

import pandas as pd
import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.train.tuning import choose


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
