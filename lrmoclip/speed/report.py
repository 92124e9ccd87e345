"""benchmarks.csv as a reader sees it: the targets as a Markdown table, the scaling as a plot."""

from pathlib import Path

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lrmoclip.core.errors import UserError
from lrmoclip.report.figures import STYLE
from lrmoclip.speed.loss import CENTRE, DENSE, OURS, ROWS

AXES = {
    "N": "N, supervised positions",
    "K": "K, mean set size",
    "V": "V, vocabulary",
    "d": "d, hidden size",
}
LOOKS = {DENSE: ("#0072B2", "o"), OURS: ("#D55E00", "s"), ROWS: ("#009E73", "D")}


def markdown(table: pd.DataFrame) -> str:
    """Every row that has a target, and the store's; then how it was measured. A block a device."""
    return "\n".join(_block(rows) for _, rows in table.groupby("device", sort=False))


def _block(table: pd.DataFrame) -> str:
    rows = table[table["target"].notna() | (table["figure"] == "store")]
    shown = pd.DataFrame(
        {
            "figure": rows["figure"] + ", " + rows["case"],
            "ours": rows["contestant"],
            "against": rows["baseline"].fillna("–"),
            "measure": rows["measure"],
            "measured": [_value(v, n) for v, n in zip(rows["value"], rows["note"], strict=True)],
            "target": rows["target"].str.replace("<=", "≤").str.replace(">=", "≥").fillna("–"),
            "met": rows["met"].map({True: "yes", False: "**no**"}).fillna("–"),
        }
    )
    made = table.iloc[0]
    packages = made["versions"].split("; ")
    wanted = ("python", "torch", "transformers", "cut-cross-entropy", "adam-atan2-pytorch")
    listed = ", ".join(p for p in packages if p.rsplit(" ", 1)[0] in wanted)
    return (
        f"{shown.to_markdown(index=False, disable_numparse=True)}\n\n"
        f"On {made['device']}; {listed}; commit {made['commit'][:7]}. Contestants in turns in one "
        "process, medians. Speed-up: their time over ours; time ratio: ours over theirs; extra "
        "memory: the allocator's peak beyond inputs and returned gradients, ours over theirs.\n"
    )


def _value(value: float, note: str) -> str:
    return note if pd.isna(value) else f"{value:.3g}"


def scaling_plot(table: pd.DataFrame, out_png: Path, out_svg: Path) -> None:
    """Seconds against N, K, V and d in log-log, a panel each, with the fitted slopes."""
    points = table[(table["figure"] == "scaling") & (table["measure"] == "seconds")]
    if points.empty:
        raise UserError("no rows of the figure scaling to draw", "Make benchmarks.csv again")
    slopes = table[table["measure"] == "log-log slope"].set_index(["case", "contestant"])["value"]
    with matplotlib.rc_context(sns.axes_style("ticks") | STYLE):
        figure = Figure(figsize=(13, 4.2))
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        for axes, (axis, label) in zip(
            figure.subplots(1, 4, sharey=True), AXES.items(), strict=True
        ):
            of_axis = points[points["case"].str.startswith(f"{axis}=")]
            for name, group in of_axis.groupby("contestant", sort=False):
                x = group["case"].str.removeprefix(f"{axis}=").astype(int)
                colour, marker = LOOKS[name]
                slope = f"{slopes[axis, name]:+.2f}"
                axes.loglog(x, 1e3 * group["value"], color=colour, marker=marker, label=name)
                where = (x.iloc[-1], 1e3 * group["value"].iloc[-1])
                axes.annotate(
                    slope,
                    where,
                    (0, -16 if name == ROWS else 8),
                    textcoords="offset points",
                    ha="right",
                    color=colour,
                )
            others = ", ".join(f"{k}={v}" for k, v in CENTRE.items() if k != axis)
            axes.set_title(f"at {others}", fontsize=10)
            axes.set_xlabel(label)
            axes.margins(y=0.12)
            sns.despine(ax=axes)
        figure.axes[0].set_ylabel("forward and backward, ms")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, title="Numbers at the curves: fitted slopes in log-log",
            loc="outside lower center", ncols=3, frameon=False,
        )  # fmt: skip
        figure.savefig(out_png, dpi=160, metadata={"Software": None})
        figure.savefig(out_svg, metadata={"Date": None})
