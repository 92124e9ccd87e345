"""Which runs enter the tables: every finished one that is as the config has it, each other said."""

from pathlib import Path

import pytest

from lrmoclip.cli.commands.tables import _without_reference
from lrmoclip.config import Scale
from lrmoclip.report import scored
from tests.support import handmade
from tests.support.handmade import REPLAYED, write_run, write_study
from tests.support.made import reseal

BASE = "of 0"  # the weights of the handmade base


@pytest.fixture
def scale(tmp_path) -> Scale:
    """The handmade runs' scale, with rates."""
    rates = tmp_path / "rates.csv"
    rows = [f"qwen3-s0,telecom,{method},0.001" for method in ("full_ft", "lr_moclip")]
    rates.write_text("\n".join(["base,domain,method,lr", *rows]))
    return handmade.scale().model_copy(update={"learning_rates": str(rates), "path": rates})


@pytest.fixture
def study(tmp_path, scale) -> list[Path]:
    """Runs that say that they were trained as the config has them."""
    paths = write_study(tmp_path / "results")
    for path in paths[1:]:
        as_the_config_has_it(path, scale)
    return paths


def as_the_config_has_it(path: Path, scale: Scale, **changes) -> None:
    method = path.parts[-3]
    made = {"config": scale.run_settings(scale.method(method), 0.001), "base": BASE}
    reseal(path.with_name("run.json"), provenance=made | changes)


def left_out(paths, scale: Scale) -> dict[tuple[str, str], str]:
    """Why, by method and seed."""
    found = scored.left_out(scored.load(paths, scale), scale)
    return {(path.parts[-3], path.parts[-2]): words for path, words in found.items()}


def test_runs_as_the_config_has_them_all_count(study, scale):
    assert left_out(study, scale) == {}


def test_a_method_that_is_not_known_any_more_is_left_out(study, scale, tmp_path):
    old = write_run(tmp_path / "results", "old", 1, REPLAYED[1], record={"provenance": {}})
    assert left_out([*study, old], scale) == {("old", "seed1"): "the config has no method 'old'"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"config": "another"}, "other settings"), ({"base": "another"}, "another base model")],
)
def test_a_run_of_other_settings_or_another_base_is_left_out(study, scale, changes, words):
    as_the_config_has_it(study[1], scale, **changes)
    [(run, why)] = left_out(study, scale).items()
    assert run == ("full_ft", "seed1") and words in why


def test_a_run_whose_rate_is_another_now_is_left_out(study, scale):
    path = scale.rates_path
    path.write_text(path.read_text().replace("lr_moclip,0.001", "lr_moclip,0.002"))
    other = scale.model_copy()  # reads the file again
    why = left_out(study, other)
    assert set(why) == {("lr_moclip", "seed1"), ("lr_moclip", "seed2")}


def test_every_finished_run_is_found_and_no_other(study, tmp_path):
    results = tmp_path / "results"
    unfinished = results / ".seed9.partial" / "new"
    unfinished.mkdir(parents=True)
    (unfinished / "metrics.json").touch()
    (results / "micro" / "telecom" / "lora" / "seed1").mkdir(parents=True)  # not scored yet
    assert scored.finished(results) == sorted(study)


def test_a_place_without_full_fine_tuning_is_said(study, scale):
    runs = scored.load(study, scale)
    assert _without_reference(runs) == []
    [row] = _without_reference([run for run in runs if run.method != "full_ft"])
    assert (row["domain"], row["method"], row["seed"]) == ("telecom", "full_ft", None)
    assert "no cost ratio" in row["warning"]
