"""A run of one's own against the kept study: does it lie where a new base may lie?"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy.stats

from lrmoclip.core.errors import UserError

KEYS = ["scale", "domain", "method", "measure"]
COMPARED = [*KEYS, "mine", "kept", "low", "high", "verdict", "chance"]
INSIDE, OUTSIDE = "inside", "outside"


def compare(mine: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """A row for each measure of a method and domain that both have; frames of `study.csv`.

    low, high: where 95 of 100 new bases would lie. chance: of a new base to lie as far off or
    farther, by Student's t. UserError where nothing is in common, and for a kept study of one base,
    which cannot say how bases differ.
    """
    both = mine.merge(kept, on=KEYS, suffixes=("", "_kept"))
    both = both[both["prediction_kept"].notna() & both["mean"].notna()]
    if both.empty:
        raise UserError(
            "Nothing to compare: no measure of a method and domain is in both, with its prediction",
            "Name a study.csv that was kept of several bases, and one of the same scale",
        )
    return pd.DataFrame(_compared(both), columns=COMPARED)


def _compared(both: pd.DataFrame) -> Iterator[dict]:
    for row in both.to_dict("records"):
        kept, width = row["mean_kept"], row["prediction_kept"]
        off = abs(row["mean"] - kept)
        yield {
            **{key: row[key] for key in KEYS},
            "mine": row["mean"],
            "kept": kept,
            "low": kept - width,
            "high": kept + width,
            "verdict": INSIDE if off <= width else OUTSIDE,
            "chance": _chance(off, width, row["prediction_df_kept"]),
        }


def _chance(off: float, width: float, df: float) -> float:
    if width == 0:
        return 1.0 if off == 0 else 0.0
    scaled = off / width * scipy.stats.t.ppf(0.975, df)
    return float(2 * scipy.stats.t.sf(scaled, df))


def words(table: pd.DataFrame) -> str:
    """A line for each row, the most surprising first, and what all of them say."""
    lines = []
    for row in table.sort_values("chance").itertuples():
        place = f"{row.domain}, {row.method}, {row.measure.replace('_', ' ')}"
        said = f"{row.mine:.4g}, kept {row.kept:.4g}, a new base within {row.low:.4g} to"
        lines.append(f"{row.verdict}: {place}: {said} {row.high:.4g} ({_surprise(row.chance)})")
    outside, number = int((table["verdict"] == OUTSIDE).sum()), len(table)
    expected = 0.05 * number
    return "\n".join(
        [
            *lines,
            "",
            f"{outside} of {number} lie outside, where {expected:.1f} would by chance alone. "
            + _judged(outside, number),
        ]
    )


def _surprise(chance: float) -> str:
    if chance >= 0.2:
        return "no surprise"
    if chance < 0.001:
        return "less than one new base in a thousand is as far off"
    return f"one new base in {round(1 / chance)} is as far off"


def _judged(outside: int, number: int) -> str:
    # Rows share runs and are not independent: the binomial is a guide, not a test.
    likely = scipy.stats.binom.sf(outside - 1, number, 0.05) if outside else 1.0
    if likely > 0.05:
        return "Your run agrees with what is kept."
    if np.isclose(outside, number):
        return "Your run is another experiment: nothing of it is where it was."
    return "That is more than chance explains: look at these rows, and at the base's own first."
