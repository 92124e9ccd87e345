"""bfloat16 computes nearly what float32 does, and leaves weights and what an optimizer holds in
float32."""

import copy

import pytest
import torch

from lrmoclip.config import load
from lrmoclip.core.heads import head_of, supervised_hidden
from lrmoclip.core.precision import PRECISIONS, autocast, chosen
from lrmoclip.data.batches import collate
from lrmoclip.train import stage0
from lrmoclip.train.fisher import fisher_diagonal
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import Run, TrainingSet
from lrmoclip.train.workbench import Workbench
from tests.conftest import TINY, Allocations
from tests.support.runs import (
    MOCLIP,
    RESTRICTED,
    SAMPLED,
    STAGE0,
    make_model,
    make_records,
    make_run,
    make_source,
)

CPU = torch.device("cpu")


def gradients(point: dict, precision: str) -> tuple[Run, float, dict[str, torch.Tensor]]:
    """A run after one step, the step's loss, and the gradients that the optimizer was given."""
    model = make_model()
    source = make_source(copy.deepcopy(model), make_records())
    source = source if "objective" in point else TrainingSet(source.data)
    run = make_run(model, point, source, precision=precision)
    kept = {}
    run.optimizer.register_step_pre_hook(
        lambda *_: kept.update({n: p.grad.clone() for n, p in run.parameters.items()})
    )
    return run, run.step()["loss"], kept


@pytest.mark.parametrize("point", [{}, RESTRICTED, {**SAMPLED, **MOCLIP}])
def test_a_step_in_bfloat16_has_nearly_the_gradients_of_one_in_float32(point):
    _, loss, exact = gradients(point, "float32")
    run, near, found = gradients(point, "bfloat16")

    assert near == pytest.approx(loss, rel=0.01) and near != loss
    one, other = (torch.cat([g.flatten() for g in gs.values()]) for gs in (found, exact))
    assert (one - other).norm() < 0.05 * other.norm()
    state = [v for held in run.optimizer.state.values() for v in held.values()]
    kept = [*found.values(), *run.parameters.values(), *state]
    assert {x.dtype for x in kept} == {torch.float32}


def test_float32_is_no_autocast_even_within_one():
    run, loss, _ = gradients({}, "float32")
    with torch.autocast("cpu", torch.bfloat16):
        _, same, _ = gradients({}, "float32")
    assert same == loss and run.precision == "float32"


def test_the_probe_and_the_fisher_nearly_agree():
    model, data = make_model().eval(), make_records()
    source = make_source(model, data)
    runs = [make_run(model, RESTRICTED, source, precision=p) for p in ("float32", "bfloat16")]
    one, other = (ProbeBatch(4).measure(run) for run in runs)
    assert other == pytest.approx(one, rel=0.01) and other != one

    batches = [collate(data, [i]) for i in range(len(data))]
    found = []
    for precision in ("float32", "bfloat16"):
        dice = torch.Generator().manual_seed(0)
        diagonal = fisher_diagonal(model, batches, dice, precision)
        assert {value.dtype for value in diagonal.values()} == {torch.float32}
        found.append(torch.cat([value.flatten() for value in diagonal.values()]))
    exact, near = found
    assert 0 < (near - exact).norm() < 0.05 * exact.norm()


def test_stage_0_projects_in_float32_what_the_body_computed_in_bfloat16():
    model, data = make_model().eval(), make_records(4)
    head_of(model)
    batch = collate(data, [0, 1, 2, 3])
    with torch.no_grad(), autocast("bfloat16", CPU):
        hidden = supervised_hidden(model, batch.input_ids, batch.supervised)
    log_p = head_of(model).logits(hidden).log_softmax(1)  # (N, V)

    sets, _ = stage0.collect_batch(model, data, 0, STAGE0, "bfloat16")

    torch.testing.assert_close(sets.logp, log_p[sets.rows, sets.ids], rtol=1e-5, atol=1e-5)
    plain, _ = stage0.collect_batch(model, data, 0, STAGE0)
    assert not torch.equal(plain.log_z, sets.log_z)
    torch.testing.assert_close(plain.log_z, sets.log_z, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("keep", [False, True])
def test_casts_of_the_weights_are_kept_only_where_asked(keep):
    model, data = make_model(2048, 64).eval(), make_records(2)
    batch, cast = collate(data, [0]), 2 * 2048 * 64  # bytes of the embedding's
    with Allocations() as seen, torch.no_grad(), autocast("bfloat16", CPU, keep):
        model(input_ids=batch.input_ids, use_cache=False)
        assert (seen.live >= cast) == keep
    assert seen.live < cast


@pytest.mark.parametrize("changes", [{}, {"precision": "bfloat16"}], ids=["absent", "bfloat16"])
def test_a_scales_precision_reaches_its_runs(edit, tiny_base, tiny_data, changes):
    scale = load(edit(TINY, changes))
    bench = Workbench(scale, "qwen3-s0", "telecom", tiny_base, tiny_data)
    expected = changes.get("precision", "float32")

    assert bench.run(bench.point("full_ft"), 1e-3, seed=1).precision == expected


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float32, bfloat16, got 'float16'"):
        autocast("float16", CPU)


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"),
    [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")],
)
def test_auto_is_what_this_cpu_has_instructions_for(monkeypatch, avx512_bf16, amx, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert chosen("auto") == expected
    assert [chosen(name) for name in PRECISIONS] == list(PRECISIONS)
