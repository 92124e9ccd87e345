"""A run of one's own against a kept study."""

import numpy as np
import pandas as pd
import pytest

from lrmoclip.core.errors import UserError
from lrmoclip.report import study
from lrmoclip.report.compare import INSIDE, OUTSIDE, compare, words
from lrmoclip.report.statistics import prediction


def table(mean, width=np.nan, df=2.0, measures=("domain_gain",)) -> pd.DataFrame:
    rows = [
        {"scale": "micro", "domain": "telecom", "method": "full_ft", "measure": measure,
         "mean": mean, "prediction": width, "prediction_df": df}
        for measure in measures
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=study.STUDY)


@pytest.mark.parametrize(("mine", "verdict"), [(12.0, INSIDE), (14.0, INSIDE), (15.0, OUTSIDE)])
def test_inside_is_within_the_prediction(mine, verdict):
    (row,) = compare(table(mine), table(10.0, 4.0)).to_dict("records")
    assert (row["verdict"], row["low"], row["high"]) == (verdict, 6.0, 14.0)


def test_at_the_end_of_the_interval_one_new_base_in_twenty_is_as_far_off():
    (row,) = compare(table(14.0), table(10.0, 4.0, df=3.3)).to_dict("records")
    assert row["chance"] == pytest.approx(0.05)
    assert "one new base in 20 is as far off" in words(compare(table(14.0), table(10.0, 4.0)))


def test_new_bases_of_the_same_kind_lie_inside_as_often_as_said():
    """3,000 studies of three bases and a fourth base each, of known spread."""
    dice = np.random.default_rng(0)
    drawn = 50 + 4 * dice.standard_normal((3000, 4, 1, 1)) + dice.standard_normal((3000, 4, 2, 1))
    drawn = np.repeat(drawn, 2, axis=-1)
    found = prediction([drawn[:, :3]])
    off = abs(drawn[:, 3].mean(axis=(1, 2)) - drawn[:, :3].mean(axis=(1, 2, 3)))
    assert 0.93 < np.mean(off <= found.half_width) < 0.975


def test_words_say_how_many_lie_outside_and_whether_chance_explains_it():
    names = [f"m{n}" for n in range(40)]
    fine = compare(table(10.5, measures=names), table(10.0, 4.0, measures=names))
    assert "0 of 40 lie outside, where 2.0 would by chance alone. Your run agrees" in words(fine)
    off = compare(table(99.0, measures=names), table(10.0, 4.0, measures=names))
    assert "40 of 40 lie outside" in words(off) and "another experiment" in words(off)


def test_nothing_in_common_and_a_study_of_one_base_are_refused():
    for kept in (table(10.0, 4.0, measures=["other"]), table(10.0)):
        with pytest.raises(UserError, match="Nothing to compare"):
            compare(table(10.0), kept)
