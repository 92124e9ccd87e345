"""The forgetting plot: what it names, and that the same table gives the same bytes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lrmoclip.methods.axes import BASELINE, REPAIR, REPLAY
from lrmoclip.report.figures import WORDS, forgetting_plot
from lrmoclip.report.render import STAND_INS
from lrmoclip.report.tables import TABLE1

METHODS = {  # general points lost, domain points gained; some nearly on top of each other
    "base": (0.0, 0.0),
    "full_ft": (21.4, 58.0),
    "lora": (14.0, 44.0),
    "ewc": (0.8, 39.0),
    "lr_moclip": (14.9, 30.0),
    "lr_adamw": (11.7, 31.0),
    "lr_union_adamw": (20.9, 58.6),
    "lr_sampled_adamw": (21.0, 58.1),
}
FAMILIES = {
    method: REPAIR if "union" in method or "sampled" in method else REPLAY
    for method in METHODS if method.startswith("lr_")
}  # fmt: skip
TASKS = {"micro": "micro_mmlu micro_math", "families": "micro_mmlu micro_math"}


def table(bases=("qwen3-s0",), domains=("telecom",), scale="micro", methods=METHODS):
    rows = [
        {
            **{"scale": scale, "base": base, "domain": domain, "method": method, "seeds": 3},
            **{"domain_score": 25 + gained, "domain_score_ci": 2.0},
            **{"forgetting": lost, "forgetting_ci": 1.5 if lost else np.nan},
            **{"status": "measured", "general_tasks": TASKS.get(scale, "mmlu arc_easy")},
        }
        for base in bases
        for domain in domains
        for method, (lost, gained) in methods.items()
    ]
    return pd.DataFrame(rows).reindex(columns=TABLE1)


def draw(table1: pd.DataFrame, folder: Path) -> tuple[bytes, str]:
    families = {method: FAMILIES.get(method, BASELINE) for method in table1["method"]}
    forgetting_plot(table1, families, folder / "plot.png", folder / "plot.svg")
    return (folder / "plot.png").read_bytes(), (folder / "plot.svg").read_text()


def test_every_method_is_named_and_the_same_table_gives_the_same_bytes(tmp_path):
    png, svg = draw(table(), tmp_path)
    assert png.startswith(b"\x89PNG")
    words = ["better", "General score lost", "telecom, qwen3-s0 (micro)", STAND_INS]
    for text in [*METHODS, *words, *WORDS.values()]:
        assert text in svg
    assert draw(table(), tmp_path) == (png, svg)
    assert not re.search(r"\d{4}-\d\d-\d\dT", svg)


def test_there_is_a_panel_for_each_base_and_domain(tmp_path):
    few = {method: METHODS[method] for method in ["base", "full_ft", "lr_moclip"]}
    bases, domains = ["qwen3-s0", "gemma-s0"], ["telecom", "nl2sql"]
    _, svg = draw(table(bases, domains, "small", few), tmp_path)
    assert all(f"{domain}, {base} (small)" in svg for base in bases for domain in domains)
    assert svg.count(">lr_moclip<") == 4
    assert STAND_INS not in svg


def test_methods_without_a_score_are_left_out(tmp_path):
    half = table()
    half.loc[half["method"] == "ewc", "forgetting"] = np.nan
    _, svg = draw(half, tmp_path)
    assert ">ewc<" not in svg and ">lora<" in svg


def test_predicted_rows_are_not_drawn(tmp_path):
    mixed = table()
    mixed.loc[mixed["method"] == "ewc", "status"] = "predicted"
    _, svg = draw(mixed, tmp_path)
    assert ">ewc<" not in svg and ">lora<" in svg


@pytest.mark.parametrize("scale", ["families", "smollm2"])
def test_only_the_benchmarks_of_the_micro_world_are_called_stand_ins(scale, tmp_path):
    _, svg = draw(table(scale=scale, methods={"base": (0, 0), "full_ft": (3, 20)}), tmp_path)
    assert (STAND_INS in svg) == (scale == "families")


def test_a_table_of_the_base_alone_can_be_drawn(tmp_path):
    _, svg = draw(table(methods={"base": (0, 0)}), tmp_path)
    assert "better" in svg


@pytest.mark.parametrize("seed", range(3))
def test_labels_cover_neither_each_other_nor_markers(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    apart, close = rng.uniform(5, 50, (5, 2)), rng.normal(30, 2, (5, 2))
    methods = {f"method_{i}": spot for i, spot in enumerate(np.concatenate([apart, close]))}
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    families = dict.fromkeys(methods, BASELINE)
    forgetting_plot(table(methods={"base": (0, 0), **methods}), families, Path(), Path())
    [axes] = figures[0].axes
    texts = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
    assert set(texts) == {*methods, "base"}
    markers = axes.transData.transform(list(methods.values()))
    markers = [Bbox.from_extents(*(spot - 4.5), *(spot + 4.5)) for spot in markers]
    for name in methods:
        label = texts.pop(name)
        assert label.count_overlaps([*texts.values(), *markers]) == 0
        assert Bbox.union([label, axes.bbox]).extents == pytest.approx(axes.bbox.extents)
