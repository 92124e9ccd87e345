"""Pictures of whole sweeps, from `fronts.csv`: what gain can be had at what loss, and forgetting
over how far a model moved. The same table gives the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrmoclip.methods.axes import BASELINE, REPAIR, REPLAY
from lrmoclip.report.figures import COLOURS, MARKERS, STYLE, WORDS
from lrmoclip.report.fronts import curve, departures

SHOWN = {"domain_gain": "Domain score gained, points", "exact_gain": "The same by greedy answers"}
DASHES = ["-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1))]
SHADES = {
    BASELINE: ["#0072B2", "#56B4E9", "#332288", "#44AA99", "#777777"],
    REPLAY: ["#D55E00", "#E69F00", "#882255", "#CC79A7", "#AA4499"],
    REPAIR: ["#009E73", "#117733", "#999933", "#66AA55", "#225522"],
}


def fronts_plot(
    fronts: pd.DataFrame,
    families: Mapping[str, str],
    budgets: Sequence[float],
    out_png: Path,
    out_svg: Path,
) -> None:
    """A panel a domain and measure: for each method the most gain among its trials that lose no
    more than x, a step a trial of its front; the budgets are vertical lines.

    families: by method, the family of its objective (`methods.axes`), whose colours it has.
    """
    known = fronts[fronts["domain_gain"].notna()]
    domains, looks = list(dict.fromkeys(known["domain"])), _looks(known, families)
    with matplotlib.rc_context(sns.axes_style("ticks") | STYLE):
        figure = _figure(len(domains), 4.9 * len(SHOWN) + 2.4)
        grid = figure.subplots(len(SHOWN), len(domains), squeeze=False, sharex=True)
        for line, (measure, words) in zip(grid, SHOWN.items(), strict=True):
            for domain, axes in zip(domains, line, strict=True):
                _front(axes, known[known["domain"] == domain], measure, looks, budgets)
                axes.set(ylabel=words, xlabel="General skill lost, points, at most")
                axes.set_title(domain, loc="left", weight="bold", size=12)
        figure.suptitle("What can be gained in a domain at what loss elsewhere", fontsize=14)
        _legend(figure, looks, "Each line: all trials of a method, on validation. Grey: budgets.")
        _save(figure, out_png, out_svg)


def _front(axes: Axes, rows: pd.DataFrame, measure: str, looks: dict, budgets) -> None:
    end = 1.6 * max(budgets)
    for budget in budgets:
        axes.axvline(budget, color="0.8", linewidth=1, zorder=0)
    axes.axhline(0, color="0.9", linewidth=0.8, zorder=0)
    for method, look in looks.items():
        trials = rows[(rows["method"] == method) & rows[measure].notna()]
        if trials.empty:
            continue
        trials = trials.sort_values("general_loss")
        best = trials[measure].cummax()
        x = np.append(trials["general_loss"], max(end, trials["general_loss"].max()))
        axes.step(x, np.append(best, best.iloc[-1]), where="post", **look)
    axes.set_xlim(-2, end)
    sns.despine(ax=axes)


def departure_plot(
    fronts: pd.DataFrame, families: Mapping[str, str], out_png: Path, out_svg: Path
) -> None:
    """A panel a domain: points of general skill lost over KL(base || model) on general text, a
    point a trial of any method, and the curve through all of them; named are the methods whose
    trials leave it."""
    known = fronts[fronts["kl_general"].notna() & fronts["general_loss"].notna()]
    domains, leave = list(dict.fromkeys(known["domain"])), departures(fronts)
    with matplotlib.rc_context(sns.axes_style("ticks") | STYLE):
        figure = _figure(len(domains), 6.4)
        panels = figure.subplots(1, len(domains), squeeze=False)[0]
        for domain, axes in zip(domains, panels, strict=True):
            rows = known[known["domain"] == domain]
            for family, colour in COLOURS.items():
                some = rows[rows["method"].map(families) == family]
                look = {"color": colour, "marker": MARKERS[family], "s": 16, "alpha": 0.55}
                axes.scatter(some["kl_general"], some["general_loss"], linewidth=0, **look)
            x, y = curve(rows)
            axes.plot(x, y, color="0.2", linewidth=1.5)
            off = leave[(leave["domain"] == domain) & leave["leaves"]]
            for row in off.itertuples():
                mine = rows[rows["method"] == row.method]
                at = mine.iloc[
                    (mine["general_loss"] - mine["general_loss"].median()).abs().argmin()
                ]
                axes.annotate(
                    row.method, (at["kl_general"], at["general_loss"]), (6, -4),
                    textcoords="offset points", fontsize=9, color=COLOURS[families[row.method]],
                )  # fmt: skip
            axes.set(xscale="log", xlabel="KL(base || model) on general text, nats a token")
            axes.set_ylabel("General skill lost, points")
            axes.set_title(domain, loc="left", weight="bold", size=12)
            sns.despine(ax=axes)
        figure.suptitle("Forgetting over how far the model moved: every trial", fontsize=14)
        handles = [
            Line2D([], [], color=COLOURS[f], marker=MARKERS[f], linestyle="", label=WORDS[f])
            for f in COLOURS
            if f in set(known["method"].map(families))
        ]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=10,
            title="Line: through all trials. Named: methods whose trials leave it.",
            title_fontsize=10,
        )  # fmt: skip
        _save(figure, out_png, out_svg)


def _looks(rows: pd.DataFrame, families: Mapping[str, str]) -> dict[str, dict]:
    """By method, the colour of its family's shades and the dashes of its line."""
    looks, counts = {}, dict.fromkeys(COLOURS, 0)
    for method in sorted(set(rows["method"]), key=lambda name: (families[name], name)):
        family = families[method]
        number = counts[family]
        counts[family] += 1
        shades = SHADES[family]
        looks[method] = {
            "color": shades[number % len(shades)],
            "linestyle": DASHES[number // len(shades) % len(DASHES)],
            "linewidth": 1.6,
        }
    return looks


def _figure(columns: int, height: float) -> Figure:
    figure = Figure(figsize=(max(7.2, 5.8 * columns), height))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    return figure


def _legend(figure: Figure, looks: dict[str, dict], words: str) -> None:
    handles = [Line2D([], [], label=method, **look) for method, look in looks.items()]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=10,
        title=words, title_fontsize=10,
    )  # fmt: skip


def _save(figure: Figure, png: Path, svg: Path) -> None:
    figure.savefig(png, dpi=200, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None})
