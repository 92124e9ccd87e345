"""The plan against kept measurements and closed forms; what must grow with what; what would fit."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lrmoclip.cli.commands import plan
from lrmoclip.config import device, load
from lrmoclip.core.errors import UserError
from lrmoclip.cost.plan import check, table
from lrmoclip.cost.plan.jobs import Job, Jobs, room
from lrmoclip.cost.plan.workload import Workload
from lrmoclip.report.scored import KEYS
from lrmoclip.report.tables import TABLE1
from tests.conftest import DROP
from tests.cost.made import CONFIGS, DEVICES, GB, REFERENCE


@pytest.fixture(scope="module")
def known() -> dict[str, device.Device]:
    return device.load(DEVICES)


@pytest.fixture(scope="module")
def paper() -> Workload:
    return Workload(load(CONFIGS / "paper.yaml"))


@pytest.fixture(scope="module")
def planned(paper, known) -> pd.DataFrame:
    return table.plan(paper, {name: known[name] for name in ("h100-80gb", "rtx-4090")})


def with_free(known: device.Device, gigabytes: float) -> device.Device:
    return known.model_copy(update={"memory_gb": gigabytes})


def test_the_plan_has_every_rule_of_every_method(planned, paper):
    scale = paper.scale
    domains = ["telecom", "nl2sql"]  # but for an optional one

    assert list(planned.columns) == table.PLAN
    assert set(planned["domain"]) == {"", *domains} and "sqleval" in scale.domains
    trained = planned[(planned["rule"] == "train") & (planned["device"] == "h100-80gb")]
    assert len(trained) == len(scale.bases) * len(domains) * len(scale.methods)
    rules = {"base", "fisher", "stage0", "evaluate", "evaluate_base", "timings", "tune", "train"}
    assert set(planned["rule"]) == rules
    keys = set(planned[table.KEY].itertuples(index=False, name=None))  # as a rule's wildcards
    assert {("fisher", "qwen3-4b", "", ""), ("evaluate_base", "qwen3-4b", "telecom", "")} <= keys
    per_job = planned["gpu_hours_per_job"] * planned["jobs"]
    assert planned["gpu_hours"].tolist() == pytest.approx(per_job.tolist(), rel=2e-3)
    assert (planned["what_would_fit"] == "").equals(planned["fits"])


def test_a_larger_base_takes_more_and_a_smaller_device_longer(planned):
    rows = planned.set_index(["rule", "device", "base", "domain", "method"])
    fast, slow = (
        rows.loc["train", name, "qwen3-8b", "telecom", "full_ft"]
        for name in ("h100-80gb", "rtx-4090")
    )
    small = rows.loc["train", "h100-80gb", "qwen3-4b", "telecom", "full_ft"]

    assert slow["wall_hours"] > fast["wall_hours"]
    for column in ("gpu_hours", "peak_memory_gb", "disk_gb", "usd"):
        assert fast[column] > small[column]


def test_a_step_takes_as_long_as_its_flops_where_nothing_else_counts(paper, known):
    """6 N D, of one pass; a third more where activations are computed again, and two thirds of it
    where the weights are frozen."""
    ideal = {"bandwidth": 1e18, "link": 1e18, "launch_s": 0.0}
    jobs = Jobs(paper, paper.scale, "qwen3-4b", known["h100-80gb"].model_copy(update=ideal))
    tokens, supervised, shape = 64 * (62 + 10), 64 * 11, jobs.shape
    whole = 6 * (tokens * shape.body + supervised * shape.head) / jobs.rate("train") / 8

    assert jobs.step_seconds("telecom", "full_ft") == pytest.approx(whole * 4 / 3)
    assert jobs.step_seconds("telecom", "lora") == pytest.approx(whole * 8 / 9)
    assert jobs.step_seconds("telecom", "replay") > jobs.step_seconds("telecom", "full_ft")
    assert jobs.step_seconds("telecom", "lr_adamw") < jobs.step_seconds("telecom", "full_ft")


def test_of_both_bases_all_but_the_large_ones_fisher_fits_eight_gpus(planned):
    """Weights and squares of Qwen3-8B are 65 GB, and the Fisher is made on one device."""
    rows = planned[planned["device"] == "h100-80gb"]
    too_large = rows[~rows["fits"]]

    assert set(too_large["base"]) == {"qwen3-8b"}
    assert set(too_large["rule"]) == {"fisher", "timings"}
    assert set(too_large["what_would_fit"]) == {table.ELSEWHERE}


@pytest.mark.parametrize("rule", ["train", "tune", "evaluate", "stage0"])
def test_what_would_fit_fits(rule, paper, known):
    jobs = Jobs(paper, paper.scale, "qwen3-4b", known["h100-80gb"])
    method = "" if rule == "stage0" else "full_ft"
    needed = jobs.job(rule, "nl2sql", method).memory / GB
    # A little less than it needs, what is lost between tensors and to libraries being on top.
    device = with_free(jobs.device, 0.999 * needed / 0.9 + jobs.device.reserved_gb)
    tight = replace(jobs, device=device)

    words = table.what_would_fit(tight, rule, "nl2sql", method)

    place, value = words.split(": ")
    part, key = place.split(".")
    changed = getattr(jobs.scale, part).model_copy(update={key: int(value)})
    scale = jobs.scale.model_copy(update={part: changed})
    assert 1 <= int(value) < getattr(getattr(jobs.scale, part), key)
    assert replace(tight, scale=scale).job(rule, "nl2sql", method).memory <= room(device)


def test_activations_are_computed_again_where_smaller_batches_do_not_help(known, monkeypatch):
    work = Workload(load(CONFIGS / "smollm2.yaml"))
    jobs = Jobs(work, work.scale, "smollm2-135m", known["cpu-2"])

    def job(self, rule, domain, method):
        return Job(0.0, 0.0 if self.scale.stage1.gradient_checkpointing else float("inf"))

    monkeypatch.setattr(Jobs, "job", job)
    words = table.what_would_fit(jobs, "train", "nl2sql", "full_ft")
    assert words == "stage1.gradient_checkpointing: true"
    assert table.what_would_fit(jobs, "stage0", "nl2sql", "") == table.ELSEWHERE
    assert table.what_would_fit(jobs, "base", "", "") == table.ELSEWHERE


def test_a_predicted_table_has_hours_and_no_scores(planned, paper):
    found = table.predicted_table1(paper.scale, planned)

    assert list(found.columns) == TABLE1 and set(found["status"]) == {"predicted"}
    scores = ["domain_score", "general", "forgetting", "mmlu"]
    assert found[scores].isna().all(axis=None)
    trained = found[found["method"] != "base"]
    assert (trained["device_hours"] > 0).all() and found["device_hours"].isna().any()
    assert not found.duplicated(KEYS).any()


def test_stage0_and_the_fisher_are_charged_in_full(planned, paper):
    hours = planned[planned["device"] == "h100-80gb"]
    hours = hours.set_index(table.KEY)["gpu_hours_per_job"]
    found = table.predicted_table1(paper.scale, planned).set_index(["base", "domain", "method"])
    place = ("qwen3-4b", "nl2sql")

    def charged(method: str) -> float:
        return found.loc[(*place, method), "device_hours"] - hours["train", *place, method]

    assert charged("full_ft") == 0
    assert charged("lr_moclip") == pytest.approx(hours["stage0", *place, ""])
    assert charged("ewc") == pytest.approx(hours["fisher", "qwen3-4b", "", ""])
    ratios = found["cost_ratio"]
    assert (ratios.xs("full_ft", level="method") == 1).all() and ratios[*place, "ewc"] > 1


def test_the_rate_is_fitted_on_full_ft_alone(known, paper, tmp_path):
    true = known["h100-80gb"].achieved.model_copy(update={"bfloat16": 0.2})
    true = known["h100-80gb"].model_copy(update={"achieved": true})
    jobs, steps = Jobs(paper, paper.scale, "qwen3-4b", true), paper.steps("nl2sql")
    rows = [
        dict(zip(KEYS, ("paper", "qwen3-4b", "nl2sql", method), strict=True))
        | {"seed": 1, "stage": "stage1", "device": "8 x NVIDIA H100", "peak_memory_mb": 3e4}
        | {"device_hours": 8 * steps * jobs.step_seconds("nl2sql", method) / 3600}
        for method in ("full_ft", "replay", "lr_moclip")
    ]
    (tmp_path / "paper").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "paper" / "costs.csv", index=False)

    found = check.check(paper, tmp_path, known).set_index(["quantity", "method"])

    step = found.loc["step_s"]
    assert step["fitted"].to_dict() == {"full_ft": True, "lr_moclip": False, "replay": False}
    assert step["error"].abs().max() < 0.002 and step["error_as_stated"].abs().max() < 1
    assert step["achieved_flops"].tolist() == pytest.approx([0.2 * 989e12] * 3, rel=1e-3)
    assert not found.loc["peak_memory_gb"]["fitted"].any()


def test_the_plan_of_micro_is_near_what_was_measured(tmp_path, capsys):
    """The command, too: of a scale without data, whose data are made for it."""
    plan.run(CONFIGS / "micro.yaml", DEVICES, REFERENCE, tmp_path / "plan.csv")

    checked = pd.read_csv(tmp_path / "plan_check.csv")
    assert set(checked["scale"]) >= {"micro", "smollm2"} and list(checked.columns) == check.CHECK
    checked = checked[(checked["scale"] == "micro") & ~checked["fitted"]]
    errors = checked.groupby("quantity")["error"].apply(lambda error: error.abs().median())
    assert errors["step_s"] < 0.1 and errors["stage0_s"] < 0.25 and errors["peak_memory_gb"] < 0.1
    worst = checked.groupby("quantity")["error"].apply(lambda error: error.abs().max())
    # What is kept is of an earlier share of replay, by records.
    assert worst["step_s"] < 0.4 and worst["peak_memory_gb"] < 0.2
    # The stated rate of this CPU is the fitted one: plan.csv is as good as its check.
    assert (checked["error"] - checked["error_as_stated"]).abs().max() < 0.05
    written = pd.read_csv(tmp_path / "plan.csv")
    assert written["fits"].all() and set(written["device"]) == {"cpu-2"}
    assert (tmp_path / "predicted_table1.csv").exists()
    printed = capsys.readouterr().out
    assert "cpu-2" in printed and "step_s" in printed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices/cpu-2/memory_gb": DROP}, ["devices.cpu-2", "no key 'memory_gb'"]),
        ({"devices/cpu-2/achieved/float32": 1.5}, ["achieved.float32", "1.5", "or equal to 1"]),
        ({"devices/cpu-2/sources/date": "lately"}, ["sources.date", "'lately'", "pattern"]),
    ],
)
def test_a_mistake_in_the_devices_is_named(edit, changes, words):
    with pytest.raises(UserError) as raised:
        device.load(edit(DEVICES, changes))

    assert all(word in str(raised.value) for word in words), raised.value


def test_a_cpu_is_as_fast_as_the_threads_it_is_given(known, paper):
    def rate(name: str, count: int) -> float:
        threads = paper.scale.threads.model_copy(update={"train": count})
        scale = paper.scale.model_copy(update={"threads": threads})
        return Jobs(paper, scale, "qwen3-4b", known[name]).rate("train")

    assert rate("cpu-2", 1) == rate("cpu-2", 2) / 2 == rate("cpu-2", 9) / 2
    assert rate("h100-80gb", 1) == rate("h100-80gb", 8) == pytest.approx(0.3 * 989e12)


def test_a_scale_that_states_nothing_says_so(known):
    tiny = Workload(load(Path(__file__).parents[1] / "workflow" / "tiny.yaml"))
    with pytest.raises(UserError, match=r"tiny\.yaml: plan\.replay: nothing is known"):
        table.plan(tiny, {"cpu-2": known["cpu-2"]})
