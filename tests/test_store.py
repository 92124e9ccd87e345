"""The candidate store: read as it was written, by record, and refused in one line otherwise."""

import json
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrmoclip.candidates import Candidates, select_candidates
from lrmoclip.errors import UserError
from lrmoclip.store import MANIFEST, TENSORS, CandidateStore

BOUND = {"base": "b", "tokenizer": "t", "data": "d"}


def make_store(lengths: list[int], seed: int = 0, scale: float = 3.0) -> CandidateStore:
    """A store of records with so many supervised positions each, over 12 tokens."""
    dice = torch.Generator().manual_seed(seed)
    positions = sum(lengths)
    logits = scale * torch.randn(positions, 12, generator=dice)
    targets = torch.randint(12, (positions,), generator=dice)
    sets = select_candidates(logits, targets, coverage=0.9, k_min=1, k_max=6)
    return CandidateStore(sets, torch.tensor([0, *lengths]).cumsum(0), {**BOUND, "note": "ü"})


@pytest.fixture
def saved(tmp_path):
    make_store([2, 1, 3]).save(tmp_path / "store")
    return tmp_path / "store"


def refusal(folder, **other: str) -> str:
    """The one line with which a store is refused."""
    with pytest.raises(UserError) as raised:
        CandidateStore.load(folder, BOUND | other)
    assert "\n" not in str(raised.value) and str(folder) in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", [field.name for field in fields(Candidates)])
def test_a_store_comes_back_to_the_bit(tmp_path, name):
    written = make_store([2, 0, 3])

    written.save(tmp_path / "store")
    read = CandidateStore.load(tmp_path / "store", BOUND)

    ours, theirs = getattr(read.candidates, name), getattr(written.candidates, name)
    assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert torch.equal(read.records, written.records)
    assert read.manifest.items() > written.manifest.items()


def test_a_store_of_the_same_content_has_the_same_bytes(saved, tmp_path):
    make_store([2, 1, 3]).save(tmp_path / "again")

    for name in (TENSORS, MANIFEST):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_saving_replaces_an_older_store(saved):
    make_store([4], seed=1).save(saved)

    assert CandidateStore.load(saved, BOUND).records.tolist() == [0, 4]
    assert {p.name for p in saved.parent.iterdir()} == {"store"}


@given(data=st.data(), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_a_batch_is_the_rows_of_its_records_in_their_order(data, lengths):
    store = make_store(lengths, seed=len(lengths))
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))

    batch = store.batch(chosen)

    begin, end = store.candidates.offsets.tolist(), store.candidates.offsets.tolist()[1:]
    rows = [r for i in chosen for r in range(int(store.records[i]), int(store.records[i + 1]))]
    assert batch.sizes.tolist() == [end[r] - begin[r] for r in rows]
    for name in ("ids", "logp", "prob"):
        whole = getattr(store.candidates, name).tolist()
        assert getattr(batch, name).tolist() == [v for r in rows for v in whole[begin[r] : end[r]]]
    for name in ("gold_forced", "log_z", "log_outside"):
        whole = getattr(store.candidates, name).tolist()
        assert getattr(batch, name).tolist() == [whole[r] for r in rows]


@pytest.mark.parametrize("name", ["", TENSORS, MANIFEST])
def test_a_missing_store_says_how_to_make_it(saved, tmp_path, name):
    (saved / name).unlink() if name else saved.rename(tmp_path / "elsewhere")

    assert "no candidate store" in refusal(saved) and "lrmoclip stage0" in refusal(saved)


def flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 1]) + content[-4:]


def in_header(content: bytes) -> bytes:
    return content[:20] + b"\xff" + content[21:]


@pytest.mark.parametrize(
    "damage",
    [flip, in_header, lambda c: c[:-1], lambda c: c[:4], lambda c: b"", lambda c: c + b"0"],
)
def test_damaged_tensors_are_named(saved, damage):
    (saved / TENSORS).write_bytes(damage((saved / TENSORS).read_bytes()))

    assert f"{TENSORS}: damaged" in refusal(saved) and "Delete" in refusal(saved)


def test_tensors_that_are_no_store_are_named_even_with_the_right_checksum(saved):
    from safetensors.torch import save_file

    from lrmoclip import files

    save_file({"other": torch.zeros(2)}, saved / TENSORS)
    manifest = files.read_json(saved / MANIFEST)
    files.write_json(saved / MANIFEST, {**manifest, "sha256": files.sha256(saved / TENSORS)})

    assert f"{TENSORS}: damaged" in refusal(saved)


@pytest.mark.parametrize(
    "text",
    [b"", b'{"base": ', b"[]", b"null", b"\xff"],
    ids=["empty", "cut", "list", "null", "no UTF-8"],
)
def test_a_broken_manifest_is_named(saved, text):
    (saved / MANIFEST).write_bytes(text)

    assert MANIFEST in refusal(saved)


@pytest.mark.parametrize(
    ("key", "words"),
    [("base", "another base model"), ("tokenizer", "another tokenizer"), ("data", "another data")],
)
def test_a_store_of_something_else_is_refused(saved, key, words):
    message = refusal(saved, **{key: "other"})

    assert words in message and "belongs to this run" in message and "lrmoclip stage0" in message


def test_a_store_without_a_hash_is_refused(saved):
    manifest = json.loads((saved / MANIFEST).read_text(encoding="utf-8"))
    del manifest["base"]
    (saved / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    assert "another base model" in refusal(saved)


@pytest.mark.parametrize(("coverage", "k_max"), [(0.9, 10), (0.9, 2), (0.5, 10)])
def test_a_stored_set_narrows_as_a_fresh_one(tmp_path, coverage, k_max):
    # Ten equal tokens: the sum of nine is the coverage up to rounding, so every bit counts.
    logits, targets = torch.zeros(3, 10), torch.tensor([0, 4, 9])
    sets = select_candidates(logits, targets, coverage=0.9, k_min=1, k_max=10)
    CandidateStore(sets, torch.tensor([0, 1, 3]), BOUND).save(tmp_path / "store")

    stored = CandidateStore.load(tmp_path / "store", BOUND).candidates
    narrow = stored.narrow(coverage, 1, k_max, targets)

    fresh = select_candidates(logits, targets, coverage=coverage, k_min=1, k_max=k_max)
    for name in ("ids", "offsets", "gold_forced", "logp"):
        assert torch.equal(getattr(narrow, name), getattr(fresh, name))
