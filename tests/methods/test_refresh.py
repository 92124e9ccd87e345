"""Stage 0 again as an epoch begins: the sets are those of the model as it is then."""

from dataclasses import asdict, fields

import pytest
import torch

from lrmoclip.config import device, load
from lrmoclip.core.candidates import Candidates, select_candidates
from lrmoclip.core.heads import supervised_logits
from lrmoclip.cost import flops
from lrmoclip.cost.charges import cost_rows, saving_row
from lrmoclip.cost.plan.jobs import Jobs
from lrmoclip.cost.plan.workload import Workload
from lrmoclip.data.batches import collate
from lrmoclip.methods.axes import REPAIR
from lrmoclip.train import memory
from lrmoclip.train.memory import Rows
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.summary import run_summary
from tests.cost.made import CONFIGS, DEVICES, FAMILIES, FULL, shape
from tests.cost.made import RESTRICTED as STORED
from tests.support.runs import (
    REFRESH,
    RESTRICTED,
    STAGE0,
    make_model,
    make_records,
    make_run,
    make_source,
    point,
)

EPOCHS = {"epochs": 3}  # of 12 records, three steps each
CHOSEN = [7, 0, 3, 3]


def assert_same(got: Candidates, want: Candidates) -> None:
    for part in fields(Candidates):
        torch.testing.assert_close(getattr(got, part.name), getattr(want, part.name), msg=part.name)


def selected(model, data, chosen, **limits) -> Candidates:
    """A fresh Stage 0 of these records, from dense logits."""
    batch = collate(data, chosen)
    with torch.no_grad():
        logits = supervised_logits(model.eval(), batch.input_ids, batch.supervised)
    return select_candidates(logits, batch.gold, **limits)


@pytest.mark.parametrize("narrower", [None, (0.9, 1, 3)])
def test_refreshed_sets_are_a_fresh_stage0_of_the_current_model(narrower):
    data, general = make_records(), make_records(seed=5)
    model = make_model()
    source, other = make_source(model, data), make_source(model, general)
    if narrower:
        source = TrainingSet(data, source.store.narrow(*narrower))
    run = make_run(model, {**REFRESH, "replay": 0.5}, source, general=other)
    for _ in range(3):
        run.step()
    stale = source.store.batch(CHOSEN)

    run.refresh()

    assert run.model.training
    limits = STAGE0.model_dump(include={"coverage", "k_min", "k_max"})
    read = dict(zip(limits, narrower, strict=True)) if narrower else limits
    (domain, _), (replayed, _) = run.streams
    got = domain.sets(CHOSEN, run.model.device)
    assert_same(got, selected(run.model, data, CHOSEN, **read))
    assert_same(
        replayed.sets(CHOSEN, run.model.device), selected(run.model, general, CHOSEN, **limits)
    )
    assert not torch.equal(got.log_z, stale.log_z)
    assert_same(source.store.batch(CHOSEN), stale)  # the store stays as it is


def test_every_epoch_but_the_first_begins_with_one():
    model, data = make_model(), make_records()
    log = train(make_run(model, REFRESH, make_source(model, data), EPOCHS))

    assert [row["step"] for row in log if "refresh_s" in row] == [3, 6]
    assert {row["refreshed_tokens"] for row in log[3:7:3]} == {data.tokens}
    plain = train(make_run(model, RESTRICTED, make_source(model, data), EPOCHS))
    assert not any("refresh_s" in row for row in plain)
    assert [row["loss"] for row in plain[:3]] == [row["loss"] for row in log[:3]]
    assert plain[3]["loss"] != log[3]["loss"]


def test_an_epoch_that_ends_within_a_step_begins_with_the_next():
    data = make_records(10)  # steps of four: 0-3, 4-7, 8-9 and 0-1, 2-5, 6-9, 0-3
    run = make_run(make_model(), REFRESH, make_source(make_model(), data), EPOCHS)
    log = train(run)
    assert [row["step"] for row in log if "refresh_s" in row] == [3, 5]


def test_the_same_seed_gives_the_same_bits():
    model = make_model()
    source = make_source(model, make_records())

    def weights() -> torch.Tensor:
        run = make_run(model, REFRESH, source, EPOCHS)
        train(run, ProbeBatch(4))
        return torch.cat([p.flatten() for p in run.model.parameters()])

    assert torch.equal(weights(), weights())


def test_less_mass_leaks_than_without():
    warm = make_run(make_model(), {}, TrainingSet(make_records(seed=5)), {"epochs": 30})
    train(warm)
    model = warm.model.eval()
    source = make_source(model, make_records(), k_max=20)

    def outside(axes: dict) -> list[float]:
        log = train(make_run(model, axes, source, {"epochs": 8}), ProbeBatch(12))
        return [row["outside_mass"] for row in log if "outside_mass" in row]

    fresh, stale = outside(REFRESH), outside(RESTRICTED)
    assert fresh[0] == stale[0]
    assert fresh[-1] < stale[-1] / 2


def test_its_record_says_how_often_how_long_and_how_large():
    model, data = make_model(), make_records()
    run = make_run(model, REFRESH, make_source(model, data), EPOCHS)
    log = train(run, ProbeBatch(4))
    summary = run_summary(log, run)

    assert summary["refreshes"] == 2 and summary["refreshed_tokens"] == 2 * data.tokens
    steps, refreshes = (
        sum(row[key] for row in log if key in row) for key in ("step_s", "refresh_s")
    )
    assert summary["train_s"] == pytest.approx(steps + refreshes) and refreshes > 0
    first = run.domain.store.manifest["statistics"]
    sizes = [first["set_size_mean"], *(row["set_size_mean"] for row in log[3:7:3])]
    assert summary["set_size_mean"] == pytest.approx(sum(sizes) / 3)
    assert summary["gold_in_set"] == first["gold_in_set"]  # the base's


def test_its_cost_is_charged():
    timings = {
        "shape": asdict(shape(FAMILIES["qwen3"])), "supervised_share": 0.5, "device": "cpu: test",
        "step_s": {"m": 0.036, "full_ft": 0.072}, "stage0_s": 7.2, "stage0_tokens": 900,
        "fisher_share": 0.5,
    }  # fmt: skip
    plain = {
        "scale": "micro", "base": "b", "domain": "d", "method": "m", "seed": 1, "steps": 100,
        "tokens": 5400, "train_s": 9.0, "probe_s": 1.0, "probe_tokens": 700,
        "peak_memory_mb": 300.0, "set_size_mean": 4.0,
    }  # fmt: skip
    refreshed = plain | {"refreshed_tokens": 5 * 900}  # six epochs
    of = shape(FAMILIES["qwen3"])
    method = point(**REFRESH)

    (stage0, before, *_), (same, after, *_) = (
        cost_rows(run, method, timings, 2.0) for run in (plain, refreshed)
    )
    assert (stage0["stage"], before["stage"]) == ("stage0", "stage1") and same == stage0
    more = 3600 * (after["device_hours"] - before["device_hours"])
    assert more == pytest.approx(5 * 7.2)
    forward = 4500 * flops.forward(of, 0.5)
    assert after["flops_model"] - before["flops_model"] == pytest.approx(forward)
    ratios = [saving_row(run, method, FULL, timings, seeds=2) for run in (plain, refreshed)]
    assert ratios[1]["step_ratio"] == ratios[0]["step_ratio"]
    assert ratios[1]["cost_ratio"] - ratios[0]["cost_ratio"] == pytest.approx(36 / 7.2)


def test_memory_is_asked_for_where_sets_are_collected_beside_a_run(tiny_scale):
    of, batches = shape(FAMILIES["qwen3"]), [Rows(8, 100, 50), Rows(8, 200, 50)]
    mine = memory.refresh_bytes(of, point(**REFRESH), batches, tiny_scale)

    assert memory.refresh_bytes(of, STORED, batches, tiny_scale) == 0
    alone = memory.stage0_bytes(of, batches[1], tiny_scale)
    assert mine == alone + memory.kept_bytes(of, point(**REFRESH))


def test_it_is_a_repair():
    assert point(**REFRESH).objective.family == REPAIR


def test_the_plan_counts_its_stage0():
    """Three epochs are two refreshes."""
    scale = load(CONFIGS / "paper.yaml")
    jobs = Jobs(Workload(scale), scale, "qwen3-4b", device.load(DEVICES)["h100-80gb"])
    assert scale.stage1.epochs == 3

    more = jobs.train("telecom", "lr_refresh").seconds - jobs.train("telecom", "lr_adamw").seconds

    assert more == pytest.approx(2 * jobs.stage0("telecom").seconds)
