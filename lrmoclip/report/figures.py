"""The forgetting plot: what each method gained in its domain against what it lost elsewhere.

Everything drawn is read from table 1; the same table gives the same bytes.
"""

from collections.abc import Mapping
from functools import partial
from itertools import product
from operator import itemgetter
from pathlib import Path

import matplotlib
import pandas as pd
import seaborn as sns
import textalloc
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lrmoclip.methods.axes import BASELINE, REPAIR, REPLAY
from lrmoclip.report.render import stand_ins
from lrmoclip.report.tables import PREDICTED

# Okabe & Ito's colours, told apart by colour-blind readers; markers repeat them in grey print.
COLOURS = {BASELINE: "#0072B2", REPLAY: "#D55E00", REPAIR: "#009E73"}
MARKERS = {BASELINE: "o", REPLAY: "s", REPAIR: "D"}
WORDS = {
    BASELINE: "Full-vocabulary baselines",
    REPLAY: "Logits Replay",
    REPAIR: "Our repairs of it",
}
STYLE = {
    "svg.hashsalt": "lrmoclip",  # ids in the SVG are the same each time
    "svg.fonttype": "none",  # text stays text: it can be searched, and read aloud
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the same on every machine
    "font.size": 11,
}


def forgetting_plot(
    table1: pd.DataFrame, families: Mapping[str, str], out_png: Path, out_svg: Path
) -> None:
    """Draws `table1`: a row of panels for each scale and base, a column for each domain.

    families: by method, the family of its objective (`methods.axes`).

    x: general score lost; y: domain score gained over the base model, both in points, with the
    95 % half-widths of `forgetting` and of `domain_score`. The base is the origin. Methods
    without either number are left out, and so are predicted rows.
    """
    table1 = table1[table1["status"] != PREDICTED]
    bases = list(dict.fromkeys(zip(table1["scale"], table1["base"], strict=True)))
    domains = list(dict.fromkeys(table1["domain"]))
    with matplotlib.rc_context(sns.axes_style("ticks") | STYLE):
        figure = Figure(figsize=(max(7.2, 5.8 * len(domains)), 4.6 * len(bases) + 1.2))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
        grid = figure.subplots(len(bases), len(domains), squeeze=False)
        panels = []
        for (scale, base), line in zip(bases, grid, strict=True):
            for domain, axes in zip(domains, line, strict=True):
                key = pd.Series({"scale": scale, "base": base, "domain": domain})
                points = _points(table1[(table1[key.index] == key).all(axis=1)], families)
                axes.set_title(f"{domain}, {base} ({scale})", loc="left", weight="bold", size=12)
                panels.append((axes, points, _draw(axes, points)))
        drawn = [f for f in COLOURS if any(f in set(p["family"]) for _, p, _ in panels)]
        _explain(figure, drawn, stand_ins(table1))
        # Labels are placed in pixels, so the layout must be final first.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes, points, texts in panels:
            _label(axes, points, texts)
        figure.savefig(out_png, dpi=200, metadata={"Software": None})
        figure.savefig(out_svg, metadata={"Date": None})


def _points(rows: pd.DataFrame, families: Mapping[str, str]) -> pd.DataFrame:
    """One row a method: lost, gained, their half-widths, family."""
    base = rows.loc[rows["method"] == "base", "domain_score"].mean()
    points = pd.DataFrame(
        {
            "method": rows["method"],
            "lost": rows["forgetting"],
            "gained": rows["domain_score"] - base,
            "lost_ci": rows["forgetting_ci"].fillna(0),
            "gained_ci": rows["domain_score_ci"].fillna(0),
            "family": rows["method"].map(families),
        }
    )
    return points[rows["method"] != "base"].dropna()


def _draw(axes: Axes, points: pd.DataFrame) -> list[Text]:
    """The panel without its labels; returns the texts that labels must not cover."""
    cross = {"color": "0.85", "linewidth": 0.8, "zorder": 0}
    axes.axhline(0, **cross)
    axes.axvline(0, **cross)
    for family, group in points.groupby("family"):
        x, y = group["lost"], group["gained"]
        bars = {"fmt": "none", "ecolor": COLOURS[family], "elinewidth": 0.9, "alpha": 0.35}
        axes.errorbar(x, y, group["gained_ci"], group["lost_ci"], **bars, zorder=1)
        look = {"color": COLOURS[family], "marker": MARKERS[family], "s": 48}
        sns.scatterplot(x=x, y=y, **look, ax=axes, zorder=3)
    axes.plot(0, 0, "+", color="0.3", markersize=11, markeredgewidth=1.6)
    axes.margins(0.14)
    axes.set(
        xlabel="General score lost, points (left is better)",
        ylabel="Domain score gained, points (up is better)",
    )
    sns.despine(ax=axes)
    grey = {"color": "0.45", "fontsize": 10}
    axes.set_title("↖ better", loc="right", style="italic", **grey)
    where = {"textcoords": "offset points", "va": "top", "zorder": 0}
    return [axes.annotate("base", (0, 0), (7, -5), **where, **grey)]


def _explain(figure: Figure, families: list[str], warning: str) -> None:
    """The title, the families' legend, what the lines are, and a warning."""
    figure.suptitle("What fine-tuning gains in its domain and loses elsewhere", fontsize=14)
    figure.legend(
        handles=[
            Line2D([], [], color=COLOURS[f], marker=MARKERS[f], linestyle="", label=WORDS[f])
            for f in families
        ],
        title=f"Lines: 95 % intervals over seeds and items. {warning}".strip(),
        title_fontsize=10,
        fontsize=10,
        loc="outside lower center",
        ncols=max(1, len(families)),
        columnspacing=1.2,
        handletextpad=0.2,
        frameon=False,
    )


def _label(axes: Axes, points: pd.DataFrame, texts: list[Text]) -> None:
    """Names every method beside its point, with a thin leader line to it.

    textalloc leaves out what has no room, so orders are tried until all labels are there and no
    leader crosses another's marker: first off the interval bars, then over them.
    """
    if points.empty:
        return
    x, y = points[["lost", "gained"]].to_numpy().T
    colours = [COLOURS[family] for family in points["family"]]
    taken = {"x_scatter": [*x, 0], "y_scatter": [*y, 0], "scatter_sizes": [5] * (len(x) + 1)}
    rules = {"avoid_label_lines_overlap": True, "avoid_crossing_label_lines": True}
    rules |= {"margin": 0.002, "min_distance": 0.015, "max_distance": 0.3, "nbr_candidates": 1500}
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}
    look = {"textsize": 10.5, "textcolor": colours, "va": "bottom", "bbox": box, "zorder": 2}
    look |= {"linecolor": colours, "linewidth": 0.7, "plot_kwargs": {"zorder": 2}}
    place = partial(textalloc.allocate, axes, x, y, list(points["method"]), **taken | rules | look)
    # The corners come column by column, so a line through them crosses the box too.
    fixed = [axes.transData.inverted().transform(t.get_window_extent().corners()) for t in texts]
    bars = [line for item in axes.findobj(LineCollection) for line in item.get_segments()]
    spots = axes.transData.transform(points[["lost", "gained"]].to_numpy())
    markers = [Bbox.from_extents(*(spot - 5), *(spot + 5)) for spot in spots]
    fewest = sum(marker.contains(*spot) for marker in markers for spot in spots)
    axes.autoscale(False)  # leaders must not change the limits
    attempts = []
    for lines, seed in product([fixed + bars, fixed], range(20)):
        xs, ys = zip(*(line.T for line in lines), strict=True)
        attempt = partial(place, x_lines=xs, y_lines=ys, priority_strategy=seed)
        *_, labels, leaders = attempt(draw_all=False)
        paths = [axes.transData.transform_path(line.get_path()) for line in leaders if line]
        crossed = sum(path.intersects_bbox(marker) for path in paths for marker in markers)
        for artist in filter(None, [*labels, *leaders]):
            artist.remove()
        attempts.append((faults := (labels.count(None), crossed), attempt))
        if faults == (0, fewest):
            break
    min(attempts, key=itemgetter(0))[1](draw_all=True)
