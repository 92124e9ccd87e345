"""The candidate store: read as it was written, by record, and refused in one line otherwise."""

import json
import math
import multiprocessing
import os
import pickle
import re
import shutil
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from lrmoclip import Candidates, CandidateStore, StoreWriter, select_candidates
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.core.shards import GRID
from lrmoclip.core.store import MANIFEST, shard_name
from tests.conftest import Allocations
from tests.support.made import reseal, write_json

BOUND = {"base": "b", "tokenizer": "t", "data": "d"}
LIMITS = {"coverage": 0.9, "k_min": 1, "k_max": 6}
VOCABULARY, EOS = 12, 3
examples = settings(
    max_examples=60, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def make_positions(lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, V) and targets (N,) of records with so many positions each; none is ignored."""
    dice = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(sum(lengths), VOCABULARY, generator=dice)
    return logits, torch.randint(VOCABULARY, (sum(lengths),), generator=dice)


def feed(writer: StoreWriter, lengths: list[int], stop: int | None = None, seed: int = 0) -> None:
    """Add the records that the writer does not hold yet, up to `stop`, two at a time."""
    logits, targets, batch = *make_positions(lengths, seed), 2
    for start in range(writer.records, len(lengths) if stop is None else stop, batch):
        begin, end = sum(lengths[:start]), sum(lengths[: start + batch])
        sets = select_candidates(logits[begin:end], targets[begin:end], **LIMITS)
        writer.add(sets, targets[begin:end], lengths[start : start + batch])


def new_writer(folder: Path, **more) -> StoreWriter:
    given = {"vocabulary": VOCABULARY, "settings": LIMITS, "eos_id": EOS, "shard_positions": 4}
    return StoreWriter(folder, **{"bound": BOUND, **given, **more})


def write(folder: Path, lengths: list[int], seed: int = 0, **more) -> Path:
    with new_writer(folder, **more) as writer:
        feed(writer, lengths, seed=seed)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def saved(tmp_path) -> Path:
    """Two shards: of the records 0 and 1, and of the record 2."""
    return write(tmp_path / "store", [3, 1, 3])


def refusal(folder: Path, **other: str) -> str:
    """The one line with which a store is refused."""
    with pytest.raises(UserError) as raised:
        CandidateStore.load(folder, BOUND | other)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    return str(raised.value)


def assert_stored(got: Candidates, want: Candidates) -> None:
    """All to the bit but the log-probabilities, which are the probabilities' own."""
    for name in ("ids", "offsets", "gold_forced", "prob", "log_z", "log_outside"):
        ours, theirs = getattr(got, name), getattr(want, name)
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs), name
    assert got.logp.dtype == torch.float32
    torch.testing.assert_close(got.logp, want.logp, rtol=1e-6, atol=1e-6)


@given(data=st.data(), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=8))
@examples
def test_a_batch_is_the_sets_of_its_records_in_their_order(tmp_path, data, lengths):
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    store = CandidateStore.load(write(tmp_path / "store", lengths), BOUND)

    got = store.batch(chosen)

    logits, targets = make_positions(lengths)
    rows = [r for i in chosen for r in range(sum(lengths[:i]), sum(lengths[: i + 1]))]
    assert len(store) == len(lengths)
    assert_stored(got, select_candidates(logits[rows], targets[rows], **LIMITS))


def test_positions_without_a_target_come_back_empty(tmp_path):
    logits, targets = make_positions([3])
    targets[1] = -100
    sets = select_candidates(logits, targets, **LIMITS)
    with new_writer(tmp_path / "store") as writer:
        writer.add(sets, targets, [3])

    store = CandidateStore.load(tmp_path / "store", BOUND)

    assert_stored(store.batch([0]), sets)
    assert store.describe()["positions"] == 2


@pytest.mark.parametrize("index", [3, -1])
def test_a_record_that_is_not_there_is_refused(saved, index):
    with pytest.raises(IndexError, match="records are 0 to 2"):
        CandidateStore.load(saved, BOUND).batch([0, index])


def stored(folder: Path, sets: Candidates, targets: torch.Tensor, **more) -> CandidateStore:
    """One record of all positions."""
    with new_writer(folder, **more) as writer:
        writer.add(sets, targets, [len(targets)])
    return CandidateStore.load(folder, BOUND)


def test_log_probabilities_of_any_size_are_kept(tmp_path):
    logits = torch.tensor(
        [[0.0, -80, -87, -88, -100, -103.5, -104, -300, -6e4, -1e5, *[-3e38] * 2]]
    )
    targets, limits = torch.tensor([1]), {"coverage": 1.0, "k_min": 12, "k_max": 12}
    sets = select_candidates(logits, targets, **limits)

    got = stored(tmp_path / "store", sets, targets, settings=limits).batch([0])

    assert torch.equal(got.ids, torch.arange(12))
    torch.testing.assert_close(got.logp[:9], logits[0, :9], rtol=3e-7, atol=0.5 / GRID)
    torch.testing.assert_close(got.logp[:3], logits[0, :3], rtol=3e-7, atol=0)
    assert (got.logp[9:] < -65_000).all()  # zero in any float, as are all below -104
    torch.testing.assert_close(got.prob, sets.prob, rtol=0, atol=2**-126)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=VOCABULARY))
@examples
def test_every_float32_probability_is_kept_to_the_bit(tmp_path, values):
    prob = torch.tensor(sorted(values, reverse=True))
    n = len(prob)
    sets = Candidates(
        torch.arange(n), torch.tensor([0, n]), torch.tensor([False]),
        prob.double().log().clamp(-200).float(), torch.zeros(1), torch.zeros(1), prob,
    )  # fmt: skip
    limits = {"coverage": 1.0, "k_min": n, "k_max": n}

    got = stored(tmp_path / "store", sets, torch.tensor([0]), settings=limits).batch([0]).prob

    normal = prob >= torch.finfo(torch.float32).tiny
    assert torch.equal(got[normal], prob[normal])
    torch.testing.assert_close(got, prob, rtol=0, atol=2**-126)


@pytest.mark.parametrize(("k", "theirs"), [(50, 127), (128, 344)])
def test_a_position_takes_the_bytes_that_the_formula_says(tmp_path, k, theirs):
    vocabulary, n = 151_936, 2048
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary // k, (n, k), generator=dice) * k + torch.arange(k)
    logp = (-4 - torch.rand(n, k, generator=dice) * 27.9).sort(1, descending=True).values
    sets = Candidates(
        ids.flatten(), torch.arange(n + 1) * k, torch.zeros(n, dtype=torch.bool),
        logp.flatten(), torch.zeros(n), torch.full((n,), -1.0),
    )  # fmt: skip
    limits = {"coverage": 1.0, "k_min": 1, "k_max": k}
    with new_writer(tmp_path / "store", vocabulary=vocabulary, settings=limits) as writer:
        writer.add(sets, ids[:, 0].clone(), [32] * (n // 32))

    described = CandidateStore.load(tmp_path / "store", BOUND).describe()

    size = sum(p.stat().st_size for p in (tmp_path / "store").glob("*.safetensors"))
    assert described["bytes"] == size and described["bytes_per_position"] == size / n
    # An id of 18 bits and a code of 29 for each candidate, the row's size and gold's place, log_z
    # and log_outside; what a record adds is below one per cent.
    position = (k * (18 + 29) + 2 * k.bit_length()) / 8 + 8
    assert size / n == pytest.approx(position, rel=0.01)
    assert k * 18 / 8 < theirs < size / n < 2.4 * theirs


def test_a_description_counts_what_is_stored(tmp_path):
    lengths = [3, 0, 5, 1, 2, 4]
    described = CandidateStore.load(write(tmp_path / "store", lengths), BOUND).describe()

    logits, targets = make_positions(lengths)
    sets = select_candidates(logits, targets, **LIMITS)
    in_set, is_eos = (~sets.gold_forced).double(), targets == EOS
    sizes = sorted(sets.sizes.tolist())
    assert is_eos.any()
    assert described["positions"] == 15 and described["records"] == 6
    assert described["gold_in_set"] == pytest.approx(float(in_set[~is_eos].mean()))
    assert described["gold_in_set_eos"] == pytest.approx(float(in_set[is_eos].mean()))
    assert described["set_size_mean"] == pytest.approx(sum(sizes) / 15)
    assert described["set_size_max"] == sizes[-1]
    # The smallest size that 5, 50 and 95 % of 15 rows do not exceed: the 1st, 8th and 15th.
    assert described["set_size_quantiles"] == {"0.05": sizes[0], "0.5": sizes[7], "0.95": sizes[14]}
    assert described["outside_mass"] == pytest.approx(float(sets.log_outside.exp().mean()))


def test_a_store_of_nothing_is_a_store(tmp_path):
    store = CandidateStore.load(write(tmp_path / "store", []), BOUND)

    assert len(store) == 0 and len(store.batch([])) == 0
    assert store.describe()["gold_in_set"] is None


# Reading


class Served(Dataset):
    def __init__(self, store: CandidateStore, chosen: list[list[int]]) -> None:
        self.store, self.chosen = store, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: int) -> Candidates:
        return self.store.batch(self.chosen[i])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_loader_read_what_the_trainer_would(saved, start):
    store = CandidateStore.load(saved, BOUND).narrow(0.9, 1, 2)
    chosen = [[2, 0], [1], [0, 0, 1], [2, 1]]
    loader = DataLoader(
        Served(store, chosen), batch_size=None, num_workers=2, multiprocessing_context=start
    )

    for got, indices in zip(loader, chosen, strict=True):
        want = store.batch(indices)
        for name in ("ids", "offsets", "gold_forced", "logp", "log_z", "log_outside", "prob"):
            assert torch.equal(getattr(got, name), getattr(want, name))


def test_loading_maps_a_store_instead_of_reading_it_into_memory(tmp_path):
    n, k, records = 100_000, 50, 1000
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(2**17, (n, k), generator=dice) * k + torch.arange(k)  # distinct in a row
    logp = torch.linspace(-3, -20, k).expand(n, k)
    sets = Candidates(
        ids.flatten(), torch.arange(n + 1) * k, torch.zeros(n, dtype=torch.bool),
        logp.flatten(), torch.zeros(n), torch.full((n,), -1.0),
    )  # fmt: skip
    limits = {"coverage": 1.0, "k_min": 1, "k_max": k}
    with new_writer(tmp_path / "store", vocabulary=2**23, settings=limits) as writer:
        writer.add(sets, ids[:, 7].clone(), [n // records] * records)
    CandidateStore.load(write(tmp_path / "warm", [1]), BOUND).batch([0])

    before = own_memory_kb()
    store = CandidateStore.load(tmp_path / "store", BOUND)
    store.batch([5])
    grown = own_memory_kb() - before
    with Allocations() as seen:
        got = store.batch([5])

    assert torch.equal(got.ids, ids[500:600].flatten())
    assert store.describe()["bytes"] > 20e6 and grown < 5e3
    assert seen.peak < 10 * 8 * 5000  # ten words for each entry of the record
    assert len(pickle.dumps(store)) < 2000  # what a worker is sent


def own_memory_kb() -> int:
    """Memory that no file backs."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text()).group(1))


# Narrower settings


@pytest.mark.parametrize("k_max", [1, 3, 6])
def test_at_the_stored_coverage_a_smaller_k_is_a_fresh_selection(tmp_path, k_max):
    lengths = [5, 0, 9, 7]
    store = CandidateStore.load(write(tmp_path / "store", lengths), BOUND)

    got = store.narrow(0.9, 1, k_max).batch([0, 1, 2, 3])

    logits, targets = make_positions(lengths)
    want = select_candidates(logits, targets, coverage=0.9, k_min=1, k_max=k_max)
    for name in ("ids", "offsets", "gold_forced", "log_z"):
        assert torch.equal(getattr(got, name), getattr(want, name))
    torch.testing.assert_close(got.log_outside, want.log_outside, rtol=0, atol=1e-5)


def zipf_rows(n: int, vocabulary: int, exponent: float) -> torch.Tensor:
    """(N, V) logits of a Zipf law, each row in an order of its own and a little off."""
    dice = torch.Generator().manual_seed(0)
    law = -exponent * torch.arange(1, vocabulary + 1).log()
    order = torch.rand(n, vocabulary, generator=dice).argsort(1)
    return law[order] + 0.01 * torch.randn(n, vocabulary, generator=dice)


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.2])  # 0: flat, where sums of many tokens are near
@pytest.mark.parametrize("narrower", [(0.95, 1, 128), (0.9, 1, 128), (0.5, 4, 100), (0.3, 1, 8)])
def test_a_narrower_setting_is_a_fresh_selection(tmp_path, exponent, narrower):
    logits, targets = zipf_rows(300, 200, exponent), torch.arange(300) % 200
    wide = {"coverage": 0.99, "k_min": 4, "k_max": 150}
    sets = select_candidates(logits, targets, **wide)
    store = stored(tmp_path / "store", sets, targets, settings=wide, vocabulary=200)

    got = store.narrow(*narrower).batch([0])

    limits = dict(zip(wide, narrower, strict=True))
    assert_stored_narrow(got, select_candidates(logits, targets, **limits))


def assert_stored_narrow(got: Candidates, want: Candidates) -> None:
    for name in ("ids", "offsets", "gold_forced", "prob", "log_z"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    torch.testing.assert_close(got.log_outside, want.log_outside, rtol=0, atol=1e-5)


@given(
    logits=st.lists(st.floats(-20, 0, width=32) | st.integers(-3, 0), min_size=3, max_size=12),
    high=st.floats(0.1, 1),
    chosen=st.integers(0, 11),
    side=st.sampled_from([-1, 0, 1]),
)
@examples
def test_a_coverage_at_a_prefix_sum_is_decided_to_the_last_bit(
    tmp_path, logits, high, chosen, side
):
    logits, targets = torch.tensor([logits], dtype=torch.float32), torch.tensor([0])
    wide = {"coverage": high, "k_min": 1, "k_max": 12}
    sets = select_candidates(logits, targets, **wide)
    sums = sets.prob.double().cumsum(0)
    met = float(sums[min(chosen, len(sums) - 1)])
    coverage = min(math.nextafter(met, side * math.inf) if side else met, high)

    store = stored(tmp_path / "store", sets, targets, settings=wide)
    got = store.narrow(coverage, 1, 12).batch([0])

    want = select_candidates(logits, targets, coverage=coverage, k_min=1, k_max=12)
    assert torch.equal(got.ids, want.ids) and torch.equal(got.gold_forced, want.gold_forced)


def test_probabilities_made_elsewhere_may_miss_their_coverage_by_rounding(tmp_path):
    logp = torch.tensor([0.6, 0.3 - 1e-7, 0.1]).log()  # as if selected where 0.3 was a bit larger
    sets = Candidates(
        torch.arange(2), torch.tensor([0, 2]), torch.tensor([False]), logp[:2], *torch.zeros(2, 1)
    )

    got = stored(tmp_path / "store", sets, torch.tensor([0])).narrow(0.9, 1, 5).batch([0])

    assert got.ids.tolist() == [0, 1]


def test_narrowing_leaves_the_store_as_it_is(saved):
    store = CandidateStore.load(saved, BOUND)
    before = store.batch([0, 2])

    narrow = store.narrow(0.5, 1, 2).batch([0, 2])

    assert torch.equal(store.batch([0, 2]).ids, before.ids)
    assert narrow.sizes.sum() < before.sizes.sum()


@pytest.mark.parametrize(
    ("wider", "words"),
    [((0.95, 1, 6), "coverage 0.9"), ((0.9, 2, 6), "k_min 1"), ((0.9, 1, 7), "k_max 6")],
)
def test_a_setting_wider_than_the_stored_one_is_refused(saved, wider, words):
    with pytest.raises(UserError, match=f"store: stored at {words}, cannot be read at"):
        CandidateStore.load(saved, BOUND).narrow(*wider)


# Writing


def test_a_store_of_the_same_content_has_the_same_bytes(saved, tmp_path):
    again = write(tmp_path / "again", [3, 1, 3])

    assert content(again) == content(saved)
    assert set(content(saved)) == {MANIFEST, shard_name(0), shard_name(1)}


def test_writing_replaces_an_older_store(saved):
    write(saved, [2], seed=1)

    assert len(CandidateStore.load(saved, BOUND)) == 1
    assert {p.name for p in saved.parent.iterdir()} == {"store"}


LENGTHS = [3, 1, 0, 4, 2, 3, 5, 1]
PATCHED = [(os, "replace"), (os, "rename"), (os, "unlink"), (shutil, "rmtree")]


def write_and_die(folder: Path, step: int, before: bool) -> None:
    """Write a store; at the so-manieth change of a name, be killed just before or after it."""
    seen = 0

    def deadly(change):
        def changed(*args, **kwargs):
            nonlocal seen
            seen += 1
            fatal = seen == step
            if fatal and before:
                os.kill(os.getpid(), signal.SIGKILL)
            change(*args, **kwargs)
            if fatal:
                os.kill(os.getpid(), signal.SIGKILL)

        return changed

    for module, name in PATCHED:
        setattr(module, name, deadly(getattr(module, name)))
    write(folder, LENGTHS)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_writer_killed_at_any_step_resumes_to_the_same_bytes(tmp_path, before):
    want = content(write(tmp_path / "undisturbed", LENGTHS))
    context = multiprocessing.get_context("fork")
    shards = len(want) - 1
    assert shards == 4
    steps = 0
    while True:
        folder = write(tmp_path / f"{steps}" / "store", [2], seed=9)  # an older one in its place
        child = context.Process(target=write_and_die, args=(folder, steps + 1, before))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        assert content(write(folder, LENGTHS)) == want
        assert [p.name for p in folder.parent.iterdir()] == ["store"]
        steps += 1
    assert steps >= 1 + shards + 1 + 3  # a manifest, one a shard, the last; old, new, old's end


@pytest.mark.parametrize(("batches", "held"), [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8)])
def test_a_writer_goes_on_after_its_last_whole_shard(tmp_path, batches, held):
    feed(new_writer(tmp_path / "store"), LENGTHS, 2 * batches)  # and no close

    with new_writer(tmp_path / "store") as writer:
        assert writer.records == held
        feed(writer, LENGTHS)

    assert content(tmp_path / "store") == content(write(tmp_path / "undisturbed", LENGTHS))


def test_a_shard_that_was_not_full_is_made_again(tmp_path):
    feed(new_writer(tmp_path / "store", shard_positions=6), LENGTHS, 6)  # 4 + 4 positions, then 5

    assert new_writer(tmp_path / "store", shard_positions=6).records == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"bound": {**BOUND, "base": "other"}},
        {"bound": {**BOUND, "tokenizer": "other"}},
        {"bound": {**BOUND, "data": "other"}},
        {"settings": {**LIMITS, "batch_size": 3}},
        {"vocabulary": 13},
        {"eos_id": None},
        {"shard_positions": 5},
        {"provenance": {"commit": "other"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_shards_made_with_other_arguments_are_thrown_away_in_words(tmp_path, changed):
    feed(new_writer(tmp_path / "store", **changed), LENGTHS, 6, seed=1)  # other sets, unfinished

    with pytest.warns(UserWarning, match="begun with other settings"):
        writer = new_writer(tmp_path / "store")

    assert writer.records == 0
    feed(writer, LENGTHS)
    writer.close()
    assert content(tmp_path / "store") == content(write(tmp_path / "undisturbed", LENGTHS))


@pytest.mark.parametrize("damage", ["flipped", "missing", "stray", "manifest"])
def test_what_is_damaged_in_an_unfinished_store_is_made_again(tmp_path, damage):
    feed(new_writer(tmp_path / "store"), LENGTHS, 6)
    partial = tmp_path / ".store.partial" / "new"
    if damage == "flipped":
        shard = (partial / shard_name(1)).read_bytes()
        (partial / shard_name(1)).write_bytes(shard[:-5] + bytes([shard[-5] ^ 1]) + shard[-4:])
    elif damage == "missing":
        (partial / shard_name(1)).unlink()
    elif damage == "stray":
        (partial / shard_name(3)).write_bytes(b"half")
    else:
        (partial / MANIFEST).write_bytes(b"{")

    with new_writer(tmp_path / "store") as writer:
        assert writer.records == {"stray": 6, "manifest": 0}.get(damage, 2)
        feed(writer, LENGTHS)

    assert content(tmp_path / "store") == content(write(tmp_path / "undisturbed", LENGTHS))


def test_a_writer_that_fails_keeps_its_shards_and_nothing_else(tmp_path):
    for lengths, left in (([1], []), ([3, 1], [".store.partial"])):
        with pytest.raises(RuntimeError), new_writer(tmp_path / "store") as writer:
            feed(writer, lengths)
            raise RuntimeError

        assert [p.name for p in tmp_path.iterdir()] == left


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"records": [2]}, "3 in all"),
        ({"records": [4, -1]}, "3 in all"),
        ({"targets": torch.tensor([0, 1])}, r"targets must be int64 \(3,\)"),
        ({"targets": torch.tensor([-1, -1, -1])}, "are these its targets"),
        ({"logp": math.nan}, "must be finite"),
    ],
)
def test_what_does_not_fit_is_refused_as_it_is_added(tmp_path, changed, words):
    logits, targets = make_positions([3])
    good = {"targets": targets, "records": [3]}
    sets = select_candidates(logits, targets, **LIMITS)
    sets.logp[0] = changed.pop("logp", sets.logp[0])

    with pytest.raises(ValueError, match=words):
        new_writer(tmp_path / "store").add(sets, **good | changed)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    logits, targets = make_positions([3])
    sets = select_candidates(logits, targets, coverage=1.0, k_min=12, k_max=12)

    with pytest.raises(ValueError, match=r"ids must lie in \[0, 11\)"):
        new_writer(tmp_path / "store", vocabulary=11).add(sets, targets, [3])


def test_a_folder_that_cannot_be_written_is_named_before_the_work(tmp_path):
    (tmp_path / "taken").write_text("kept")

    with pytest.raises(UserError, match="taken/store: cannot be written"):
        new_writer(tmp_path / "taken" / "store")


# Refusals


@pytest.mark.parametrize("name", ["", MANIFEST])
def test_a_missing_store_says_how_to_make_it(saved, tmp_path, name):
    (saved / name).unlink() if name else saved.rename(tmp_path / "elsewhere")

    assert "no candidate store" in refusal(saved) and "Make it first" in refusal(saved)


def test_an_unfinished_store_says_how_to_go_on(tmp_path):
    feed(new_writer(tmp_path / "store"), LENGTHS, 4)

    assert "unfinished: go on with lrmoclip stage0" in refusal(tmp_path / "store")


@given(data=st.data())
@examples
def test_any_flipped_bit_is_found_and_its_file_named(tmp_path, data):
    folder = tmp_path / "store"
    if not folder.exists():
        write(folder, [3, 1, 3])
    name = data.draw(st.sampled_from([MANIFEST, shard_name(0), shard_name(1)]))
    good = (folder / name).read_bytes()
    place, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    flipped = bytes([good[place] ^ (1 << bit)])

    (folder / name).write_bytes(good[:place] + flipped + good[place + 1 :])
    message = refusal(folder)
    (folder / name).write_bytes(good)

    # A flipped hash of the bound is that of another store.
    assert name in message or "made from another" in message


@pytest.mark.parametrize("name", [MANIFEST, shard_name(0), shard_name(1)])
@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:4], lambda c: b"", lambda c: c * 2]
)
def test_a_file_of_another_length_is_named(saved, name, damage):
    (saved / name).write_bytes(damage((saved / name).read_bytes()))

    assert name in refusal(saved) and "Delete" in refusal(saved)


def test_a_missing_shard_is_named(saved):
    (saved / shard_name(1)).unlink()

    assert f"{shard_name(1)}: damaged (the shard is missing)" in refusal(saved)


def test_a_shard_that_is_not_listed_is_named(saved):
    shutil.copy(saved / shard_name(1), saved / shard_name(2))

    assert f"{shard_name(2)}: damaged (the manifest does not list it)" in refusal(saved)


def test_shards_that_changed_places_are_refused(saved):
    one, two = (saved / shard_name(0)).read_bytes(), (saved / shard_name(1)).read_bytes()
    (saved / shard_name(0)).write_bytes(two)
    (saved / shard_name(1)).write_bytes(one)

    assert shard_name(0) in refusal(saved)


def test_a_file_that_is_no_shard_is_named_even_with_the_right_checksum(tmp_path):
    from safetensors.torch import save_file

    saved = write(tmp_path / "store", [3])
    save_file({"other": torch.zeros(2)}, saved / shard_name(0))
    digests = files.read_json(saved / MANIFEST)["files"]
    reseal(saved / MANIFEST, files=digests | {shard_name(0): files.sha256(saved / shard_name(0))})

    assert f"{shard_name(0)}: damaged" in refusal(saved)


@pytest.mark.parametrize(
    "text",
    [b"", b'{"base": ', b"[]", b"null", b"\xff", b"{}"],
    ids=["empty", "cut", "list", "null", "no UTF-8", "nothing"],
)
def test_a_broken_manifest_is_named(saved, text):
    (saved / MANIFEST).write_bytes(text)

    assert MANIFEST in refusal(saved)


def test_a_manifest_that_was_edited_is_refused(saved):
    manifest = json.loads((saved / MANIFEST).read_text(encoding="utf-8"))
    manifest["settings"]["coverage"] = 0.99
    write_json(saved / MANIFEST, manifest)

    assert f"{MANIFEST}: changed since it was made" in refusal(saved)


@pytest.mark.parametrize(
    ("key", "words"),
    [("base", "another base model"), ("tokenizer", "another tokenizer"), ("data", "another data")],
)
def test_a_store_of_something_else_is_refused(saved, key, words):
    message = refusal(saved, **{key: "other"})

    assert words in message and "belongs to this run" in message and "lrmoclip stage0" in message


def test_a_smaller_k_min_shortens_rows_at_the_stored_coverage(tmp_path):
    logits, targets = make_positions([40])
    logits[:, 0] += 20 - logits[:, 0]  # one token covers all
    wide = LIMITS | {"k_min": 4}
    with new_writer(tmp_path / "store", settings=wide) as writer:
        writer.add(select_candidates(logits, targets, **wide), targets, [40])

    got = CandidateStore.load(tmp_path / "store", BOUND).narrow(**LIMITS).batch([0])

    want = select_candidates(logits, targets, **LIMITS)
    assert torch.equal(got.ids, want.ids) and torch.equal(got.offsets, want.offsets)


def test_a_store_of_another_format_or_without_an_end_is_refused(saved):
    manifest = files.read_sealed(saved / MANIFEST, "store")
    for broken, words in (
        ({**manifest, "format": 1}, "a store of format 1, where this version reads 2"),
        ({k: manifest[k] for k in manifest if k != "statistics"}, "an unfinished store"),
    ):
        files.write_sealed(saved / MANIFEST, "store", broken)
        assert words in refusal(saved) and "Delete" in refusal(saved)


def test_closing_twice_is_closing_once(tmp_path):
    with new_writer(tmp_path / "store") as writer:
        feed(writer, LENGTHS)
        writer.close()
    writer.close()

    assert content(tmp_path / "store") == content(write(tmp_path / "undisturbed", LENGTHS))


def test_nothing_can_be_added_to_a_closed_writer(tmp_path):
    logits, targets = make_positions([3])
    with new_writer(tmp_path / "store") as writer:
        feed(writer, LENGTHS)
    before = content(tmp_path / "store")

    with pytest.raises(ValueError, match="closed"):
        writer.add(select_candidates(logits, targets, **LIMITS), targets, [3])

    assert content(tmp_path / "store") == before


def test_a_writer_that_an_error_ended_cannot_be_closed(tmp_path):
    with pytest.raises(KeyError), new_writer(tmp_path / "store") as writer:
        feed(writer, LENGTHS)
        raise KeyError

    with pytest.raises(ValueError, match="an error ended the writer"):
        writer.close()


def test_a_second_writer_of_a_store_is_refused_and_the_first_one_is_whole(tmp_path):
    with new_writer(tmp_path / "store") as first:
        feed(first, LENGTHS, 4)
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* is writing it"):
            new_writer(tmp_path / "store")
        feed(first, LENGTHS)

    assert content(tmp_path / "store") == content(write(tmp_path / "undisturbed", LENGTHS))


def test_a_users_folder_is_not_written_over(tmp_path):
    files.write_text(tmp_path / "store" / "thesis.tex", "years")

    with pytest.raises(UserError, match=r"holds thesis\.tex"):
        new_writer(tmp_path / "store")

    assert (tmp_path / "store" / "thesis.tex").read_text() == "years"


def test_a_shard_that_goes_after_loading_is_named(saved):
    store = pickle.loads(pickle.dumps(CandidateStore.load(saved, BOUND)))
    (saved / shard_name(1)).unlink()

    with pytest.raises(UserError, match=shard_name(1)):
        store.batch([2])
