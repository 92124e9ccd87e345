"""The restricted loss as a method: how it reads its sets, and what of them it sees."""

import copy

import pytest
import torch

from lrmoclip.core.candidates import select_candidates
from lrmoclip.core.heads import supervised_logits
from lrmoclip.data.batches import collate
from lrmoclip.methods.objectives.restricted import Restricted
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.summary import run_summary
from tests.support.runs import RESTRICTED, make_model, make_records, make_run, make_source

STORED = {"coverage": 0.9, "k_min": 3, "k_max": 5}
WIDE = {"k_min": 3, "k_max": 8}  # beside a coverage of 0.9


def sharp_model() -> torch.nn.Module:
    """One whose sets are of many sizes."""
    model = make_model()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(50)  # the head's, too
    return model


def test_settings_that_are_the_stores_leave_it_as_it_is():
    assert Restricted().narrowed(STORED) is None
    assert Restricted(**STORED).narrowed(STORED) is None
    assert Restricted(k_max=5).narrowed(STORED | {"batch_size": 4}) is None


def test_settings_that_are_not_given_are_the_stores():
    assert Restricted(k_min=1).narrowed(STORED) == STORED | {"k_min": 1}
    assert Restricted(coverage=0.5, k_max=4).narrowed(STORED) == {
        "coverage": 0.5, "k_min": 3, "k_max": 4,
    }  # fmt: skip


@pytest.mark.parametrize("wider", [{"coverage": 0.95}, {"k_min": 4}, {"k_max": 6}])
def test_wider_settings_than_the_stores_are_refused(wider):
    [key] = wider
    with pytest.raises(ValueError, match=rf"^{key}: .* is wider than .* Raise stage0\.{key}"):
        Restricted(**wider).narrowed(STORED)


def test_a_store_of_a_larger_smallest_set_is_read_exactly_at_a_smaller_one():
    model, data = sharp_model(), make_records()
    wide = make_source(model, data, **WIDE).store
    narrowed = Restricted(k_min=1).narrowed(wide.manifest["settings"])
    chosen = list(range(len(data)))

    got = wide.narrow(**narrowed).batch(chosen)

    batch = collate(data, chosen)
    with torch.no_grad():
        logits = supervised_logits(model.eval(), batch.input_ids, batch.supervised)
    want = select_candidates(logits, batch.gold, coverage=0.9, k_min=1, k_max=8)
    assert torch.equal(got.offsets, want.offsets) and torch.equal(got.ids, want.ids)
    assert int(wide.batch(chosen).sizes.min()) == 3 > int(got.sizes.min())


def test_a_wider_stage0_changes_nothing_for_who_reads_it_as_before():
    model, data = sharp_model(), make_records()
    axes = {"objective": {**RESTRICTED["objective"], "coverage": 0.9, "k_min": 1, "k_max": 5}}
    found = []
    for more in ({}, WIDE):
        source = make_source(copy.deepcopy(model), data, **more)
        narrowed = Restricted(**axes["objective"]).narrowed(source.store.manifest["settings"])
        if narrowed:
            source = TrainingSet(data, source.store.narrow(**narrowed))
        run = make_run(model, axes, source)
        summary = run_summary(train(run, ProbeBatch(4)), run)
        sizes = {key: summary[key] for key in ("set_size_mean", "set_size_max", "gold_in_set")}
        found.append((torch.cat([p.flatten() for p in run.model.parameters()]), sizes))

    (one, sizes), (other, same) = found
    assert torch.equal(one, other)
    assert sizes == same and sizes["set_size_max"] <= 6
