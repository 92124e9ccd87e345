"""`lrmoclip keep`: rates go where the config reads them, and rates of others stay."""

from pathlib import Path

import pandas as pd
import pytest

from lrmoclip.cli.commands.keep import keep
from lrmoclip.config import load
from lrmoclip.core.errors import UserError
from tests.conftest import TINY
from tests.support.made import run

HEAD = "scale,base,domain,method,lr,settings,seed,domain_gain,general_loss"


def sweep(folder: Path, method: str, best: float, scale: str = "tiny") -> Path:
    """A sweep of three rates, made by hand, of which `best` gains most."""
    rows = [
        f"{scale},qwen3-s0,telecom,{method},{lr},{{}},0,{20 if lr == best else 5},1"
        for lr in (0.001, 0.002, 0.003)
    ]
    path = folder / f"{method}.csv"
    path.write_text("\n".join([HEAD, *rows]))
    return path


@pytest.fixture
def tuned(tmp_path):
    """`tuned(method=rate, ...)`: a file of rates, as the workflow makes one of its sweeps."""

    def make(**rates: float) -> Path:
        sweeps = [sweep(tmp_path, method, lr) for method, lr in rates.items()]
        out = tmp_path / "results" / "learning_rates.csv"
        assert run("learning-rates", config=TINY, sweeps=sweeps, out=out) == 0
        return out

    return make


@pytest.fixture
def config(edit, tmp_path) -> Path:
    """The tiny scale, its kept rates beside it: of one scale, so without that column."""
    (tmp_path / "learning_rates.csv").write_text(
        "base,domain,method,lr\nqwen3-s0,telecom,full_ft,0.5\nqwen3-s0,nl2sql,full_ft,0.4\n"
    )
    return edit(TINY, {"learning_rates": "learning_rates.csv"})


def test_rates_of_these_methods_are_replaced_and_others_stay(config, tuned, capsys):
    assert run("keep", configs=config, rates=tuned(full_ft=0.002, lora=0.003)) == 0

    scale = load(config)
    assert scale.chosen("qwen3-s0", "telecom", "full_ft").lr == 0.002
    assert scale.chosen("qwen3-s0", "telecom", "lora").lr == 0.003
    assert scale.chosen("qwen3-s0", "nl2sql", "full_ft").lr == 0.4
    assert capsys.readouterr().out.startswith("2 of 3 rates replaced in ")


def test_what_is_kept_says_by_which_commit_and_holds_the_sweeps(config, tuned):
    run("keep", configs=config, rates=tuned(full_ft=0.002))
    run("keep", configs=config, rates=tuned(lora=0.003))

    rates = pd.read_csv(config.with_name("learning_rates.csv")).set_index(["domain", "method"])
    assert rates["commit"].notna().to_dict() == {
        ("nl2sql", "full_ft"): False, ("telecom", "full_ft"): True, ("telecom", "lora"): True,
    }  # fmt: skip
    sweeps = pd.read_csv(config.with_name("tuning.csv"))
    assert sweeps["method"].value_counts().to_dict() == {"full_ft": 3, "lora": 3}


def test_keeping_the_same_again_changes_nothing(config, tuned):
    run("keep", configs=config, rates=tuned(full_ft=0.002))
    before = {path.name: path.read_text() for path in config.parent.glob("*.csv")}

    run("keep", configs=config, rates=config.parent / "results" / "learning_rates.csv")

    assert {path.name: path.read_text() for path in config.parent.glob("*.csv")} == before


def test_the_first_rates_of_a_scale_make_its_file(edit, tuned):
    config = edit(TINY, {"learning_rates": "own.csv"})

    run("keep", configs=config, rates=tuned(full_ft=0.002))

    assert load(config).chosen("qwen3-s0", "telecom", "full_ft").lr == 0.002
    assert config.with_name("own_tuning.csv").exists()


def test_rates_that_were_changed_by_hand_are_refused(config, tuned, capsys):
    rates = tuned(full_ft=0.002)
    rates.write_text(rates.read_text().replace("0.002", "0.2"))
    before = config.with_name("learning_rates.csv").read_text()

    assert run("keep", configs=config, rates=rates) == 2

    assert "damaged" in capsys.readouterr().err
    assert config.with_name("learning_rates.csv").read_text() == before


def test_one_config_is_named_for_each_file(config, tuned, capsys):
    assert run("keep", configs=[config, config], rates=tuned(full_ft=0.002)) == 2
    assert "differ in number" in capsys.readouterr().err


def test_what_is_no_file_of_rates_is_refused(config, tuned):
    rates = tuned(full_ft=0.002)
    rates.with_name("tuning_provenance.json").unlink()
    with pytest.raises(UserError, match="tuning_provenance"):
        keep(load(config), rates)


def test_a_missing_rate_names_the_command_that_makes_it(config):
    with pytest.raises(UserError) as raised:
        load(config).chosen("qwen3-s0", "telecom", "ewc")
    assert "snakemake --cores all tuning keep --config scales=" in str(raised.value)
    assert "tiny.yaml methods=ewc" in str(raised.value)
