"""The tables of a scale as a reader sees them, aligned text for the console or Markdown.

Everything shown is read from the files that `lrmoclip tables` wrote; nothing is computed from runs.
"""

from pathlib import Path

import pandas as pd
from tabulate import tabulate

from lrmoclip.report.counted import PERPLEXITY
from lrmoclip.report.tables import PREDICTED, number, read

SPLIT = "test"
CONSOLE, MARKDOWN = "simple", "github"  # tabulate's names
NONE = "–"
LEGEND = (
    "Scores in percent ± half-width of the 95 % interval over seeds and items; forgetting: "
    "points of general score lost (less is better); cost ratio: device hours over those of full_ft."
)
STAND_INS = "Micro benchmarks are synthetic stand-ins."
PREDICTIONS = "Predicted: from the cost model; nobody has run it."
SIZES_LEGEND = (
    "Resolution: half-width of the 95 % interval of a score of 50 % on so many items, and of a "
    "paired difference when a quarter of the items change."
)
GENERAL_LEGEND = (
    "The base's scores in percent ± half-width of Wilson's 95 % interval; p: one-sided exact "
    "binomial test against chance. General score and forgetting average over benchmarks without "
    "a note."
)
SCORES_LEGEND = "Means over seeds, in percent."
PERPLEXITY_LEGEND = "×: a perplexity after training over the base's."
REGIMES_LEGEND = (
    "Gold in set: how often the base's own set held the gold token, at all supervised positions "
    "and at ends of sequence alone. Outside mass: probability outside the sets before training, "
    "and after it by method."
)
SAVINGS_LEGEND = (
    "Against full_ft, on {devices}. Steps alone, then with Stage 0 and Fisher in full (cost ratio) "
    "or shared among the seeds (amortised). The head's share is that of the vocabulary projection "
    "in a full_ft step's FLOPs: no restricted loss can save more."
)


def report(folder: Path, style: str = CONSOLE) -> str:
    """All tables of one scale's folder that say how well its methods did and at what cost."""
    table, metrics, general = (read(folder / f"{n}.csv") for n in ("table1", "metrics", "general"))
    parts = [
        table1(table, style),
        sizes(table),
        empty_results(metrics, table),
        screened(general, style),
        scores(general, metrics, table, style),
        savings(read(folder / "savings.csv"), style),
    ]
    return "\n".join(part for part in parts if part)


def table1(table: pd.DataFrame, style: str = CONSOLE) -> str:
    """Table 1, a heading for each base, and its legend."""
    parts = []
    for (scale, base), rows in table.groupby(["scale", "base"], sort=False):
        predicted = rows["status"] == PREDICTED
        cells = {
            "domain": rows["domain"],
            "method": rows["method"].where(~predicted, rows["method"] + f" ({PREDICTED})"),
            "seeds": rows["seeds"].astype(str).where(~predicted, NONE),
            "domain score": _with_width(rows, "domain_score"),
            "exact": _column(rows, "domain_exact", 1),
            "general": _with_width(rows, "general"),
            "forgetting": _with_width(rows, "forgetting"),
            "gold in set %": _column(rows, "gold_in_set", 1),
            "outside mass": _column(rows, "outside_mass", 3),
            "cost ratio": _column(rows, "cost_ratio", 2),
        }
        parts.append(f"{_heading(scale, base, style)}\n{_grid(cells, style)}")
    legend = [LEGEND, *filter(None, [stand_ins(table)])]
    if (table["status"] == PREDICTED).any():
        legend.append(PREDICTIONS)
    return "\n\n".join([*parts, " ".join(legend)]) + "\n"


def stand_ins(table: pd.DataFrame) -> str:
    """A warning where table 1 has general benchmarks of the micro world, else nothing."""
    return STAND_INS if any("micro_" in tasks for tasks in table["general_tasks"]) else ""


def sizes(table: pd.DataFrame) -> str:
    """A sentence a domain of one scale's table 1: training records, test items and what these can
    tell apart."""
    parts = []
    for domain, rows in table.groupby("domain", sort=False):
        most = rows[["train_records", "test_items", "resolution", "domain_chance"]].max()
        words = [f"{number(most['train_records'], 0, NONE)} training records"]
        words += [f"{number(most['test_items'], 0, NONE)} test items"]
        words += [f"a resolution of {number(most['resolution'], 1, NONE)} points"]
        if pd.notna(most["domain_chance"]):
            words.append(f"chance {number(most['domain_chance'], 1)} %")
        parts.append(f"{domain}: {', '.join(words)}.")
    return f"{' '.join(parts)} {SIZES_LEGEND}\n"


def screened(general: pd.DataFrame, style: str = CONSOLE) -> str:
    """general.csv: what the base scores on each benchmark, and which do not count."""
    cells = {
        "base": general["base"],
        "benchmark": general["role"],
        "metric": general["metric"],
        "items": _column(general, "n", 0),
        "chance": _column(general, "chance", 1),
        "base score": _with_width(general, "base_score", "base_ci"),
        "p": ["< 0.0001" if p < 1e-4 else number(p, 4, NONE) for p in general["p"]],
        "resolution": _column(general, "resolution", 1),
        "note": general["note"],
    }
    grid = _grid(cells, style, words=("base", "benchmark", "metric", "note"))
    return f"{grid}\n\n{GENERAL_LEGEND}\n"


def scores(
    general: pd.DataFrame, metrics: pd.DataFrame, table1: pd.DataFrame, style: str = CONSOLE
) -> str:
    """Each method's score on each benchmark that counts, and its perplexity over the base's.

    The methods and their order are those of the measured rows of table 1.
    """
    perplexity = general["note"] == PERPLEXITY
    shown = general[(general["note"] == "") | perplexity]
    if shown.empty:
        return ""
    parts, keys = [], ["base", "domain", "method", "benchmark", "metric"]
    means = metrics[metrics["split"] == SPLIT].groupby(keys)["value"].mean()
    for (scale, base), rows in shown.groupby(["scale", "base"], sort=False):
        cells = {name: [] for name in ["domain", "method", *rows["role"]]}
        for domain, method in _measured(table1, base=base):
            cells["domain"].append(domain)
            cells["method"].append(method)
            for row in rows.itertuples():
                value = means.get((base, domain, method, row.tasks, row.metric))
                cells[row.role].append(_score(value, row, method == "base"))
        parts.append(f"{_heading(scale, base, style)}\n{_grid(cells, style)}")
    legend = f"{SCORES_LEGEND} {PERPLEXITY_LEGEND}" if perplexity.any() else SCORES_LEGEND
    return _folded("Scores by benchmark", "\n\n".join([*parts, legend]) + "\n", style)


def empty_results(metrics: pd.DataFrame, table1: pd.DataFrame) -> str:
    """A sentence a base and domain on the items whose gold SQL gives no rows, if there are any."""
    empty = metrics["metric"] == "execution_accuracy_empty"
    rows = metrics[empty & (metrics["split"] == SPLIT)]
    parts = []
    for (base, domain), found in rows.groupby(["base", "domain"], sort=False):
        means = found.groupby("method")["value"].mean()
        methods = [m for _, m in _measured(table1, base=base, domain=domain) if m in means]
        listed = [f"{method} {number(100 * means[method], 1)}" for method in methods]
        parts.append(
            f"{domain} ({base}): {found['n'].max()} items whose gold result is empty are not in "
            f"the domain score. On them, in percent: {', '.join(listed)}."
        )
    return "\n".join(parts) + "\n" if parts else ""


def regimes(table: pd.DataFrame, style: str = CONSOLE) -> str:
    """regimes.csv of one or more scales: a row a base and domain, methods side by side."""
    keys = ["scale", "base", "domain"]
    after = table.pivot(index=keys, columns="method", values="outside_mass")
    first = table.drop_duplicates(keys).set_index(keys)
    cells = {key: [place[i] for place in first.index] for i, key in enumerate(keys)}
    cells |= {
        "gold in set %": _column(first, "gold_in_set", 1),
        "at ends %": _column(first, "gold_in_set_eos", 1),
        "mean set size": _column(first, "set_size_mean", 1),
        "outside mass before": _column(first, "outside_mass_start", 3),
    }
    for method in table["method"].unique():
        cells[f"after {method}"] = _column(after.loc[first.index], method, 3)
    return f"{_grid(cells, style, words=keys)}\n\n{REGIMES_LEGEND}\n"


def savings(table: pd.DataFrame, style: str = CONSOLE) -> str:
    """savings.csv: the head's share beside what it bounds and what was measured; nothing where no
    full_ft ran."""
    if table.empty:
        return ""
    several = table["base"].nunique() > 1
    cells = {"base": table["base"]} if several else {}
    cells |= {
        "domain": table["domain"],
        "method": table["method"],
        "head's share %": _column(100 * table[["head_share"]], "head_share", 1),
        "mean set size": _column(table, "set_size_mean", 1),
        "step ratio, FLOPs": _column(table, "step_ratio_predicted", 2),
        "step ratio, measured": _column(table, "step_ratio", 2),
        "cost ratio": _column(table, "cost_ratio", 2),
        "amortised": _column(table, "cost_ratio_amortised", 2),
    }
    devices = ", ".join(table["device"].unique())
    legend = SAVINGS_LEGEND.format(devices=devices)
    return f"{_grid(cells, style, words=('base', 'domain', 'method'))}\n\n{legend}\n"


def warnings(table: pd.DataFrame) -> str:
    """warnings.csv: a line a domain and method, with the first of its messages, and of how many
    runs it is where it is of runs."""
    lines = []
    for (domain, method), rows in table.groupby(["domain", "method"], sort=False):
        count, first = rows["seed"].nunique(), rows["warning"].iloc[0]
        of_runs = f", {count} runs, such as" if count else ""
        lines.append(f"warning: {domain}, {method}{of_runs}: {first}")
    return "\n".join(lines) + "\n" if lines else ""


def _heading(scale: str, base: str, style: str) -> str:
    return f"**{base}** ({scale})\n" if style == MARKDOWN else f"{base} ({scale})"


def _folded(summary: str, text: str, style: str) -> str:
    """Markdown that a click unfolds; the console shows it all."""
    if style != MARKDOWN:
        return text
    return f"<details><summary>{summary}</summary>\n\n{text}\n</details>\n"


def _grid(cells: dict, style: str, words: tuple = ("domain", "method")) -> str:
    align = ["left" if name in words else "right" for name in cells]
    return tabulate(cells, "keys", style, disable_numparse=True, colalign=align)


def _measured(table1: pd.DataFrame, **where: str) -> list[tuple[str, str]]:
    """Domain and method of the measured rows of table 1 in which the columns of `where` match."""
    rows = table1[table1["status"] != PREDICTED]
    for name, value in where.items():
        rows = rows[rows[name] == value]
    return list(zip(rows["domain"], rows["method"], strict=True))


def _score(value: float | None, row, is_base: bool) -> str:
    if value is None:
        return NONE
    if row.note != PERPLEXITY:
        return number(100 * value, 1)
    return number(value, 1) if is_base else f"×{number(value / row.base_score, 2)}"


def _column(rows: pd.DataFrame, name: str, decimals: int) -> list[str]:
    return [number(value, decimals, empty=NONE) for value in rows[name]]


def _with_width(rows: pd.DataFrame, name: str, width: str | None = None) -> list[str]:
    """A number with its interval; a predicted one says so in the interval's place."""
    widths = [number(value, 1) for value in rows[width or f"{name}_ci"]]
    shown = [f"{v} ±{w}" if w else v for v, w in zip(_column(rows, name, 1), widths, strict=True)]
    if "status" not in rows:
        return shown
    pairs = zip(shown, _column(rows, name, 1), rows["status"], strict=True)
    return [
        f"{plain} {PREDICTED}" if s == PREDICTED and plain != NONE else v for v, plain, s in pairs
    ]
