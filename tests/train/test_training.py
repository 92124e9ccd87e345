"""Stage 1: what each axis does, determinism, and that a restricted step never sees V columns."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from lrmoclip.core.heads import supervised_logits
from lrmoclip.data.batches import Encoded, collate
from lrmoclip.data.order import indices
from lrmoclip.methods.axes import Context
from lrmoclip.methods.objectives.restricted import outside_union
from lrmoclip.train.fisher import fisher_diagonal
from lrmoclip.train.probes import ProbeBatch, loss_spikes, rises
from lrmoclip.train.run import Run, TrainingSet, schedule, train
from lrmoclip.train.stage0 import is_cold
from tests.conftest import Allocations
from tests.support.runs import (
    EWC,
    LORA,
    MOCLIP,
    RESTRICTED,
    SAMPLED,
    make_model,
    make_records,
    make_run,
    make_source,
)


def test_only_answers_and_the_end_of_sequence_are_supervised():
    data = make_records(2)
    batch = collate(data, [0, 1])
    for row, i in enumerate([0, 1]):
        ids, start = data.ids[i].tolist(), data.prompt_lengths[i]
        supervised = batch.supervised[row].nonzero().squeeze(1).tolist()
        assert supervised == list(range(start - 1, len(ids) - 1))
        assert batch.targets[row, supervised].tolist() == ids[start:]


def test_padding_changes_no_logits():
    model, data = make_model().eval(), make_records(3)
    alone = collate(data, [0])
    padded = collate(data, [0, 2])
    with torch.no_grad():
        one = supervised_logits(model, alone.input_ids, alone.supervised)
        both = supervised_logits(model, padded.input_ids, padded.supervised)
    torch.testing.assert_close(both[: len(one)], one)


def test_a_full_step_is_a_step_of_torch_on_dense_cross_entropy():
    model, data = make_model(), make_records()
    run = make_run(model, {}, TrainingSet(data))
    reference = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(
        reference.parameters(),
        lr=1e-2 * schedule(0, 6, 0.3),
        betas=(0.9, 0.99),
        weight_decay=0.01,
    )
    batch = collate(data, next(indices(len(data), 4, 7)))
    logits = reference(batch.input_ids).logits
    F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
    optimizer.step()
    run.step()
    for mine, theirs in zip(run.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("point", [RESTRICTED, SAMPLED, {**RESTRICTED, **MOCLIP}])
def test_a_restricted_step_holds_no_tensor_of_positions_by_vocabulary(point):
    vocabulary, hidden = 4096, 4
    model = make_model(vocabulary, 4)
    run = make_run(model, point, make_source(model, make_records(vocabulary=vocabulary)))
    with Allocations() as seen:
        positions = run.step()["supervised"]
    assert positions > hidden  # so that N x V would be larger than the matrix itself
    assert seen.numel <= vocabulary * hidden  # the gradient of the matrix, and nothing wider
    assert (positions, vocabulary) not in seen.shapes


def test_the_full_step_does_hold_one_so_the_watch_works():
    model = make_model(4096, 4)
    run = make_run(model, {}, TrainingSet(make_records(vocabulary=4096)))
    with Allocations() as seen:
        positions = run.step()["supervised"]
    assert (positions, 4096) in seen.shapes


def test_the_probe_streams_over_the_vocabulary():
    model, data = make_model(10_000, 4), make_records(vocabulary=10_000)
    run = make_run(model, RESTRICTED, make_source(model, data))
    with Allocations() as seen:
        ProbeBatch(12).measure(run)
    assert (len(data.gold), 10_000) not in seen.shapes
    assert (len(data.gold), 4096) in seen.shapes


def test_the_probe_measures_dense_cross_entropy_and_outside_mass():
    model, data = make_model(), make_records(4)
    source = make_source(make_model(), data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    measured = ProbeBatch(4).measure(make_run(model, RESTRICTED, source))
    batch, sets = collate(data, [0, 1, 2, 3]), source.store.batch([0, 1, 2, 3])
    with torch.no_grad():
        logits = model.eval()(batch.input_ids).logits[batch.supervised].double()
    inside = torch.zeros_like(logits, dtype=torch.bool)
    inside[sets.rows, sets.ids] = True
    outside = logits.softmax(1).masked_fill(inside, 0).sum(1).mean()
    assert measured["outside_mass"] == pytest.approx(float(outside), rel=1e-5)
    expected = float(F.cross_entropy(logits, batch.gold))
    assert measured["probe_cross_entropy"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("point", [{}, RESTRICTED, SAMPLED, {**RESTRICTED, **MOCLIP}])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(point):
    model = make_model()
    source = make_source(model, make_records())

    def weights(seed: int) -> torch.Tensor:
        run = make_run(model, point, source, seed=seed)
        train(run, ProbeBatch(4))
        return torch.cat([p.flatten() for p in run.model.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_probe_does_not_change_the_training():
    model = make_model()
    source = make_source(model, make_records())
    with_probe, without = (make_run(model, RESTRICTED, source) for _ in range(2))
    train(with_probe, ProbeBatch(4))
    train(without)
    for one, other in zip(with_probe.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lora_trains_adapters_only_and_merges_into_an_ordinary_model():
    model, data = make_model(), make_records()
    run = make_run(model, LORA, TrainingSet(data))
    assert all("lora_" in name for name in run.parameters)
    train(run)
    merged = run.merged()
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert torch.equal(merged.get_input_embeddings().weight, model.get_input_embeddings().weight)
    changed = [
        n for n, p in merged.named_parameters() if not torch.equal(p, model.get_parameter(n))
    ]
    assert changed and all("proj" in name for name in changed)


def test_replay_adds_general_records_and_leaves_the_domains_alone():
    model, domain, general = make_model(), make_records(), make_records(seed=5)
    plain = make_run(model, {}, TrainingSet(domain))
    replay = make_run(model, {"replay": 0.5}, TrainingSet(domain), general=TrainingSet(general))
    [(one, *_)], _ = plain.draw()
    [(same, *_), (extra, *_)], _ = replay.draw()
    assert torch.equal(one.input_ids, same.input_ids) and torch.equal(one.targets, same.targets)
    assert len(extra.input_ids) == 2  # half of a batch of four
    known = {tuple(ids[:-1].tolist()) for ids in general.ids}
    for row in extra.input_ids:
        assert tuple(token for token in row.tolist() if token) in known


def test_a_step_with_replay_is_one_on_the_mean_over_both_parts():
    model, domain, general = make_model(), make_records(), make_records(seed=5)
    run = make_run(model, {"replay": 0.5}, TrainingSet(domain), general=TrainingSet(general))
    twin = make_run(model, {"replay": 0.5}, TrainingSet(domain), general=TrainingSet(general))
    parts, _ = twin.draw()
    gold = torch.cat([part.batch.gold for part in parts])
    with torch.no_grad():
        logits = [model.eval()(batch.input_ids).logits[batch.supervised] for batch, *_ in parts]
    expected = F.cross_entropy(torch.cat(logits), gold)
    assert run.step()["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_replayed_records_bring_their_own_sets():
    model, domain, general = make_model(), make_records(), make_records(seed=5)
    source, other = make_source(model, domain), make_source(model, general)
    run = make_run(model, {**RESTRICTED, "replay": 0.5}, source, general=other)
    for batch, sets, _ in run.draw()[0]:
        assert len(sets) == len(batch.gold)
        gold = torch.zeros(len(sets), dtype=torch.bool)
        gold[sets.rows[sets.ids == batch.gold[sets.rows]]] = True
        assert gold.all()
    assert math.isfinite(run.step()["loss"])


def test_ewc_pulls_towards_the_base_by_its_closed_form():
    model, data = make_model(), make_records()
    fisher = {n: torch.full_like(p, 0.5) for n, p in model.named_parameters()}
    run = make_run(model, EWC, TrainingSet(data), fisher=fisher)
    plain = make_run(model, {}, TrainingSet(data))
    with torch.no_grad():
        for r in (run, plain):
            for parameter in r.model.parameters():
                parameter.add_(0.1)
    # strength / 2 * F * drift^2 a parameter: 8 / 2 * 0.5 * 0.01
    expected = 0.02 * sum(p.numel() for p in model.parameters())
    assert run.step()["loss"] - plain.step()["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_fisher_is_the_mean_square_of_per_sequence_gradients():
    model, data = make_model().eval(), make_records(3)
    dice = torch.Generator().manual_seed(0)
    found = fisher_diagonal(model, [collate(data, [i]) for i in range(3)], dice)
    dice = torch.Generator().manual_seed(0)
    expected = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for i in range(3):
        batch = collate(data, [i])
        log_p = model(batch.input_ids).logits[batch.supervised].log_softmax(1)
        drawn = torch.multinomial(log_p.detach().exp(), 1, generator=dice)
        gradients = torch.autograd.grad(log_p.gather(1, drawn).sum(), list(model.parameters()))
        for name, gradient in zip(expected, gradients, strict=True):
            expected[name] += gradient.square() / 3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-9)


def test_negatives_are_distinct_and_outside_the_union():
    union = torch.tensor([1, 3, 4])
    drawn = outside_union(union, 10, 5, torch.Generator().manual_seed(0))
    assert len(set(drawn.tolist())) == 5
    assert not set(drawn.tolist()) & set(union.tolist())
    everything = outside_union(union, 10, 64, torch.Generator().manual_seed(0))
    assert sorted(everything.tolist()) == [0, 2, 5, 6, 7, 8, 9]


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])


@pytest.mark.parametrize("point", [{}, {**RESTRICTED, **MOCLIP, "replay": 0.5}])
def test_a_step_in_several_passes_is_the_same_step(point):
    model, replay = make_model(), point.get("replay", 0)
    domain, general = (make_source(make_model(), make_records(seed=seed)) for seed in (0, 5))

    def trained(**micro_batch) -> tuple[int, dict[str, torch.Tensor]]:
        run = make_run(model, point, domain, micro_batch, general=general)
        losses = torch.tensor([row["loss"] for row in train(run)[:-1]])
        return len(run.draw()[0]), {"weights": weights(run), "losses": losses}

    passes, want = trained()
    assert passes == (2 if replay else 1)
    for micro_batch, expected in ((1, 4 + 4 * replay), (3, 2 + 2 * replay)):
        passes, found = trained(micro_batch=micro_batch)
        assert passes == int(expected)
        torch.testing.assert_close(found, want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("adapter", [{}, LORA])
def test_recomputed_activations_cost_no_bit_and_save_memory(adapter):
    source, found = TrainingSet(make_records(64)), {}
    for recompute in (False, True):
        settings = {"batch_size": 64, "gradient_checkpointing": recompute}
        run = make_run(make_model(), adapter, source, settings)
        with Allocations() as seen:
            parts, _ = run.draw()
            loss = run.loss.of(Context(run.model, *parts[0][:2], None, run.dice))
        held = seen.live  # by the graph
        loss.backward()
        run.optimizer.step()
        found[recompute] = weights(run), held
    assert torch.equal(found[True][0], found[False][0])
    assert found[True][1] < found[False][1] / 2


def test_a_run_may_take_records_of_similar_length_together():
    dice = torch.Generator().manual_seed(0)
    lengths = torch.randint(5, 60, (200,), generator=dice).tolist()
    data = Encoded([torch.ones(n, dtype=torch.int64) for n in lengths], [2] * 200, 0, 1)
    model, padding = make_model(), {}
    for bucketed in (False, True):
        settings = {"epochs": 1.0, "batch_size": 8, "length_buckets": bucketed}
        run = make_run(model, {}, TrainingSet(data), settings)
        steps = [run.draw() for _ in range(run.steps)]
        assert sum(measures["tokens"] for _, measures in steps) == data.tokens
        fed = sum(part.batch.input_ids.numel() for parts, _ in steps for part in parts)
        padding[bucketed] = fed - data.tokens
    assert padding[True] < padding[False] / 4


def test_the_rate_rises_over_the_warmup_and_falls_to_zero():
    factors = [schedule(step, steps=6, warmup=0.3) for step in range(7)]
    assert factors == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("values", "spikes"),
    [
        ([3, 2, 1.5, 1.2, 1.0, 0.9], 0),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.05], 0),  # below the floor of 0.1 nats
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.2], 1),
        ([3.0, 2.0, 1.0, 1.5, 1.2, 3.9], 0),  # median 1.5, deviations 1.5 .5 .5 0 .3: MAD 0.5
        ([3.0, 2.0, 1.0, 1.5, 1.2, 4.1], 1),  # so the bound is 1.5 + 5 x 0.5 = 4.0
        ([1.0, 1.1, 1.0, 1.1, 9.0, 1.0, 9.0], 2),
    ],
)
def test_a_spike_is_far_above_the_running_median(values, spikes):
    assert loss_spikes(values) == spikes


def test_warnings_say_what_they_mean():
    assert is_cold(None) is None and is_cold(0.95) is None
    assert "45.0 %" in is_cold(0.45) and "zero" in is_cold(0.45)
    assert rises([]) is None and rises([0.01, 0.04]) is None and rises([0.2, 0.3]) is None
    assert "0.010 to 0.200" in rises([0.01, 0.2])
