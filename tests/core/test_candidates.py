"""Stage 0's sets: their definition as properties, and a plain loop in float64 beside them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip.core import candidates
from lrmoclip.core.candidates import Candidates, select_candidates
from tests.conftest import Allocations
from tests.reference.oracle import select_row

IGNORED = -100
examples = settings(max_examples=150, deadline=None, derandomize=True)
coverages = st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0]) | st.floats(0.001, 1.0)


@st.composite
def positions(draw, ignored=True):
    """logits (N, V) float32, many of them tied, and targets (N,), some of them ignored."""
    n, vocab = draw(st.integers(0, 5)), draw(st.integers(1, 12))
    values = draw(st.sampled_from([st.integers(-2, 2), st.floats(-30, 30, width=32)]))
    row = st.lists(values, min_size=vocab, max_size=vocab)
    gold = st.integers(0, vocab - 1)
    target = gold | st.just(IGNORED) if ignored else gold
    logits = torch.tensor(draw(st.lists(row, min_size=n, max_size=n)), dtype=torch.float32)
    targets = torch.tensor(draw(st.lists(target, min_size=n, max_size=n)), dtype=torch.int64)
    return logits.view(n, vocab), targets


@st.composite
def bounds(draw, at_most=14):
    k_max = draw(st.integers(1, at_most))
    return draw(st.integers(1, k_max)), k_max


def row_ids(candidates: Candidates) -> list[list[int]]:
    return [row.tolist() for row in candidates.ids.tensor_split(candidates.offsets[1:-1])]


def assert_same(got: Candidates, want: Candidates, log_outside_atol: float = 0.0) -> None:
    for name in ("ids", "offsets", "gold_forced", "logp", "log_z", "prob"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    torch.testing.assert_close(got.log_outside, want.log_outside, rtol=0, atol=log_outside_atol)


@examples
@given(positions(), coverages, bounds())
def test_sets_are_those_of_the_plain_loop(batch, coverage, k):
    logits, targets = batch
    k_min, k_max = k
    got = select_candidates(logits, targets, coverage=coverage, k_min=k_min, k_max=k_max)

    assert len(got) == len(targets)
    ids = row_ids(got) if len(got) else []
    logp = got.logp.tensor_split(got.offsets[1:-1])
    for t, gold in enumerate(targets.tolist()):
        if gold == IGNORED:
            assert ids[t] == []
            assert not got.gold_forced[t]
            assert got.log_z[t] == 0
            assert got.log_outside[t] == 0
            continue
        want = select_row(logits[t], gold, coverage, k_min, k_max)
        assert ids[t] == want.ids
        assert got.gold_forced[t] == want.gold_forced
        torch.testing.assert_close(logp[t].double(), want.logp, rtol=1e-6, atol=2e-6)
        assert got.log_z[t].item() == pytest.approx(want.log_z, rel=1e-6, abs=2e-6)
        assert got.log_outside[t].item() == pytest.approx(want.log_outside, rel=1e-6, abs=2e-5)


@examples
@given(positions(ignored=False), coverages, bounds())
def test_a_set_covers_and_none_smaller_does(batch, coverage, k):
    logits, targets = batch
    k_min, k_max = k
    vocab = logits.shape[1]
    got = select_candidates(logits, targets, coverage=coverage, k_min=k_min, k_max=k_max)

    p = logits.softmax(1).double()
    for t, ids in enumerate(row_ids(got) if len(got) else []):
        own = ids[:-1] if got.gold_forced[t] else ids
        mass = p[t, own].sum().item()
        assert min(k_min, vocab) <= len(own) <= k_max
        assert mass >= coverage - 1e-12 or len(own) == min(k_max, vocab)
        if len(own) > k_min:  # the largest set of one less falls short
            assert p[t].topk(len(own) - 1).values.sum().item() < coverage + 1e-12
        assert mass == pytest.approx(p[t].topk(len(own)).values.sum().item())


@examples
@given(positions(ignored=False), coverages, bounds())
def test_gold_is_always_a_candidate(batch, coverage, k):
    logits, targets = batch
    got = select_candidates(logits, targets, coverage=coverage, k_min=k[0], k_max=k[1])

    for ids, gold in zip(row_ids(got) if len(got) else [], targets.tolist(), strict=True):
        assert ids.count(gold) == 1
        assert len(ids) == len(set(ids)) <= k[1] + 1


def test_equal_probabilities_go_by_the_lower_id():
    logits = torch.zeros(1, 5000)
    logits[0, [4000, 17]] = 1.0
    got = select_candidates(logits, torch.tensor([17]), coverage=1.0, k_max=6)

    assert row_ids(got) == [[17, 4000, 0, 1, 2, 3]]


@examples
@given(positions(), coverages, bounds(), st.integers(1, 40))
def test_blocks_of_any_size_give_the_same_bits(batch, coverage, k, block):
    whole = select_candidates(*batch, coverage=coverage, k_min=k[0], k_max=k[1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(candidates, "BLOCK", block)
        got = select_candidates(*batch, coverage=coverage, k_min=k[0], k_max=k[1])

    assert_same(got, whole)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rows_of_many_ties_are_those_of_the_plain_loop(dtype):
    dice = torch.Generator().manual_seed(0)
    logits = torch.randn(24, 3000, generator=dice).to(dtype)
    logits[12:] = logits[12:].mul(3).round()  # a dozen values share all 3000 tokens
    targets = torch.randint(3000, (24,), generator=dice)

    got = row_ids(select_candidates(logits, targets, coverage=0.3, k_max=40))

    want = [select_row(z, y, 0.3, 1, 40).ids for z, y in zip(logits, targets.tolist(), strict=True)]
    assert got == want


def test_temporaries_do_not_grow_with_the_positions(monkeypatch):
    monkeypatch.setattr(candidates, "BLOCK", 4 * 1000)

    def largest(n: int) -> int:
        logits = torch.randn(n, 1000)
        with Allocations() as seen:
            select_candidates(logits, torch.arange(n) % 7, coverage=0.9, k_max=8)
        return seen.numel

    assert largest(40) == largest(4) == 4 * 1000


def test_a_prefix_that_meets_the_coverage_exactly_suffices():
    got = select_candidates(torch.zeros(1, 8), torch.tensor([2]), coverage=0.5, k_max=8)

    assert row_ids(got) == [[0, 1, 2, 3]]


def test_a_forced_gold_stands_last_and_may_exceed_k_max():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    got = select_candidates(logits, torch.tensor([3]), coverage=0.99, k_max=2)

    assert row_ids(got) == [[0, 1, 3]]
    assert got.gold_forced.tolist() == [True]


@pytest.mark.parametrize("spread", [20.0, 60.0, 80.0, 90.0, 103.0, 200.0, 1e4])
def test_an_outside_mass_of_any_size_is_that_of_float64(spread):
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    logits[:, 7] += spread
    got = select_candidates(logits, torch.full((6,), 7), coverage=0.5, k_max=1)

    z = logits.double()
    outside = z.clone().index_fill_(1, torch.tensor([7]), -torch.inf).logsumexp(1)
    want = outside - z.logsumexp(1)
    torch.testing.assert_close(got.log_outside.double(), want, rtol=2e-7, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 9000.0])
def test_a_tiny_outside_mass_is_not_lost(offset):
    logits = torch.tensor([[46.0, 0.0, -1.0, -2.0]]) + offset
    got = select_candidates(logits, torch.tensor([0]), coverage=0.9, k_max=1)

    mass = torch.tensor([0.0, -1.0, -2.0], dtype=torch.float64).exp().sum() * math.exp(-46)
    assert mass < 2e-20
    assert got.log_outside.double().exp().item() == pytest.approx(mass.item(), rel=1e-5, abs=0)


def test_nothing_is_outside_the_whole_vocabulary():
    got = select_candidates(torch.randn(3, 6), torch.tensor([0, 1, 2]), coverage=1.0, k_max=6)

    assert (got.sizes == 6).all()
    assert (got.log_outside == -torch.inf).all()


def test_logits_of_ten_thousand_give_no_nan():
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    got = select_candidates(logits, torch.tensor([1, 2]), coverage=0.9, k_max=1)

    assert row_ids(got) == [[0, 1], [0, 2]]
    assert got.logp[:2].tolist() == [0.0, -2e4]
    assert got.log_outside[0] == -1e4
    for name in ("logp", "log_z", "log_outside", "prob"):
        assert getattr(got, name).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_floating_logits_are_read_as_float32(dtype):
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    targets = torch.tensor([0, 1, IGNORED, 3])
    got = select_candidates(logits, targets, coverage=0.8, k_max=20)

    assert_same(got, select_candidates(logits.float(), targets, coverage=0.8, k_max=20))
    assert {got.logp.dtype, got.log_z.dtype, got.log_outside.dtype} == {torch.float32}
    assert got.ids.dtype == got.offsets.dtype == torch.int64


def test_selection_leaves_its_logits_alone_and_out_of_any_graph():
    logits = torch.randn(3, 7, requires_grad=True)
    before = logits.detach().clone()
    got = select_candidates(logits, torch.tensor([0, 1, 2]), coverage=0.5, k_max=3)

    assert torch.equal(logits, before)
    assert not got.logp.requires_grad


@examples
@given(positions(), st.tuples(coverages, coverages), bounds(), st.data())
def test_a_narrowed_set_is_the_set_of_a_narrower_selection(batch, two, k, data):
    logits, targets = batch
    low, high = sorted(two)
    k_max = data.draw(st.integers(1, k[1]))
    k_min = data.draw(st.integers(1, min(k[0], k_max)))
    wide = select_candidates(logits, targets, coverage=high, k_min=k[0], k_max=k[1])

    got = wide.narrow(low, k_min, k_max, targets)

    want = select_candidates(logits, targets, coverage=low, k_min=k_min, k_max=k_max)
    assert_same(got, want, log_outside_atol=2e-5)


@pytest.mark.parametrize("vocab", [2, 3, 7, 8, 10, 41])
def test_narrowing_decides_ties_with_the_coverage_as_selection_does(vocab):
    logits, targets = torch.zeros(1, vocab), torch.tensor([0])
    wide = select_candidates(logits, targets, coverage=1.0, k_min=vocab, k_max=vocab)

    for k in range(1, vocab + 1):  # sums of k equal probabilities meet k / vocab to the last bits
        want = select_candidates(logits, targets, coverage=k / vocab, k_max=vocab)
        assert_same(wide.narrow(k / vocab, 1, vocab, targets), want, log_outside_atol=2e-5)


def test_narrowing_keeps_a_tiny_outside_mass():
    logits = torch.tensor([[46.0, 0.0, -1.0, -2.0]])
    wide = select_candidates(logits, torch.tensor([0]), coverage=1.0, k_min=2, k_max=2)

    got = wide.narrow(0.9, 1, 1, torch.tensor([0])).log_outside.double().exp().item()

    mass = (1 + math.exp(-1) + math.exp(-2)) * math.exp(-46)
    assert got == pytest.approx(mass, rel=1e-5, abs=0)


def test_a_row_known_to_be_complete_is_kept_whole():
    logits, targets = torch.tensor([[3.0, 2.0, 1.0, 0.5, 0.0]]), torch.tensor([4])
    stored = select_candidates(logits, targets, coverage=0.8, k_max=3)

    got = stored.narrow(0.95, 1, 3, targets, complete=True)

    assert_same(got, stored)


@pytest.mark.parametrize("wider", [(0.95, 1, 3), (0.5, 3, 3), (0.99, 1, 8)])
def test_a_setting_wider_than_the_stored_one_is_refused(wider):
    logits, targets = torch.tensor([[3.0, 2.0, 1.0, 0.5, 0.0]]), torch.tensor([4])
    stored = select_candidates(logits, targets, coverage=0.8, k_max=3)

    with pytest.raises(ValueError, match="wider than the stored one"):
        stored.narrow(*wider, targets)


def test_narrowing_to_foreign_targets_is_refused():
    targets = torch.tensor([0, 1])
    stored = select_candidates(torch.eye(2, 6) * 9, targets, coverage=0.9, k_max=3)

    with pytest.raises(ValueError, match="are these its targets"):
        stored.narrow(0.5, 1, 3, torch.tensor([0, 5]))


@examples
@given(positions(), st.data())
def test_selected_rows_are_the_rows_selected_alone(batch, data):
    logits, targets = batch
    stored = select_candidates(logits, targets, coverage=0.9, k_max=4)
    index = data.draw(st.lists(st.integers(0, len(stored) - 1), max_size=8)) if len(stored) else []
    index = torch.tensor(index, dtype=torch.int64)

    want = select_candidates(logits[index], targets[index], coverage=0.9, k_max=4)
    assert_same(stored.select(index), want)


def test_a_mask_selects_rows_too():
    stored = select_candidates(torch.randn(4, 9), torch.arange(4), coverage=0.9, k_max=4)

    kept = stored.select(torch.tensor([True, False, False, True]))

    assert_same(kept, stored.select(torch.tensor([0, 3])))


@examples
@given(positions(), st.data())
def test_parts_put_together_are_the_whole(batch, data):
    logits, targets = batch
    cut = data.draw(st.integers(0, len(targets)))
    whole = select_candidates(logits, targets, coverage=0.9, k_max=4)
    order = torch.arange(len(whole))

    parts = [whole.select(order[:cut]), whole.select(order[cut:])]

    assert_same(Candidates.cat(parts), whole)


@examples
@given(positions())
def test_rows_sizes_and_union_describe_the_entries(batch):
    logits, targets = batch
    got = select_candidates(logits, targets, coverage=0.9, k_max=4)

    ids = row_ids(got) if len(got) else []
    assert got.sizes.tolist() == [len(row) for row in ids]
    assert got.rows.tolist() == [t for t, row in enumerate(ids) for _ in row]
    assert got.union().tolist() == sorted(set().union(*ids))


def test_probabilities_not_given_are_those_of_logp():
    got = select_candidates(torch.randn(4, 9), torch.arange(4), coverage=0.9, k_max=4)

    six = (got.ids, got.offsets, got.gold_forced, got.logp, got.log_z, got.log_outside)

    torch.testing.assert_close(Candidates(*six).prob, got.prob)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"coverage": 0.0}, "coverage"),
        ({"coverage": 1.1}, "coverage"),
        ({"coverage": math.nan}, "coverage"),
        ({"k_min": 0}, "k_min"),
        ({"k_min": 4}, "k_max"),
        ({"targets": torch.tensor([0, 5])}, r"\[0, 5\)"),
        ({"targets": torch.tensor([0, -1])}, r"\[0, 5\)"),
        ({"targets": torch.tensor([0])}, "targets must be int64"),
        ({"targets": torch.tensor([0.0, 1.0])}, "targets must be int64"),
        ({"logits": torch.zeros(5)}, "logits must be"),
        ({"logits": torch.zeros(2, 5, dtype=torch.int64)}, "logits must be"),
        ({"logits": torch.tensor([[0.0] * 5, [math.nan] + [0.0] * 4])}, "finite"),
        ({"logits": torch.full((2, 5), 1e300, dtype=torch.float64)}, "finite in float32"),
    ],
)
def test_a_bad_argument_is_named(change, words):
    good = {"logits": torch.zeros(2, 5), "targets": torch.tensor([0, 1]), "coverage": 0.9}
    call = {**good, "k_min": 1, "k_max": 3, **change}

    with pytest.raises(ValueError, match=words):
        select_candidates(call.pop("logits"), call.pop("targets"), **call)


def test_logits_of_ignored_positions_are_not_read():
    logits = torch.tensor([[0.0, 1.0], [math.nan, math.inf]])
    got = select_candidates(logits, torch.tensor([0, IGNORED]), coverage=0.9, k_max=2)

    assert got.sizes.tolist() == [2, 0]


def test_putting_nothing_together_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        Candidates.cat([])
