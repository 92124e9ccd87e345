"""Arguments that are wrong in one way each: the core names the argument and what is allowed.

A case is a line: what is changed of a sound call, the error, and words of it."""

import numpy as np
import pytest
import torch
import transformers

from lrmoclip import (
    Candidates,
    CandidateStore,
    MoClip,
    StoreWriter,
    restricted_linear_cross_entropy,
    select_candidates,
)
from lrmoclip.core.errors import UserError
from lrmoclip.core.heads import head_of, supervised_hidden, supervised_logits
from lrmoclip.core.losses import ewc_penalty, probe
from tests.conftest import named

N, V, D = 3, 10, 4
LOGITS = torch.randn(N, V, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 2, 3])
SETTING = {"coverage": 0.9, "k_min": 1, "k_max": 8}
SETS = select_candidates(LOGITS, TARGETS, **SETTING)
META = torch.device("meta")
INT = torch.int64


def table(cases):
    return pytest.mark.parametrize(("change", "error", "words"), cases, ids=named)


def check(call, good: dict, change: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        call(**good | change)
    assert "\n" not in str(raised.value)


# Selection and sets

SETTINGS = [
    ({"coverage": "0.9"}, TypeError, r"coverage must be a number in \(0, 1\], got '0.9'"),
    ({"coverage": True}, TypeError, "coverage must be a number"),
    ({"coverage": None}, TypeError, "coverage must be a number"),
    ({"coverage": torch.tensor(0.9)}, TypeError, "coverage must be a number"),
    ({"coverage": 0.9j}, TypeError, "coverage must be a number"),
    ({"coverage": 0}, ValueError, r"coverage must lie in \(0, 1\]"),
    ({"coverage": float("nan")}, ValueError, r"coverage must lie in \(0, 1\]"),
    ({"k_min": 1.0}, TypeError, "k_min must be an integer, got 1.0"),
    ({"k_min": True}, TypeError, "k_min must be an integer"),
    ({"k_min": 9}, ValueError, r"k_max must be at least k_min \(9\)"),
    ({"k_max": 4.0}, TypeError, "k_max must be an integer, got 4.0"),
    ({"k_max": "8"}, TypeError, "k_max must be an integer, got '8'"),
    ({"k_max": None}, TypeError, "k_max must be an integer"),
]


@table([
    *SETTINGS,
    ({"logits": LOGITS.tolist()}, TypeError, "logits must be a tensor, got list"),
    ({"logits": LOGITS.numpy()}, TypeError, "logits must be a tensor, got ndarray"),
    ({"logits": LOGITS[0]}, ValueError, r"logits must be floating \(N, V\)"),
    ({"logits": LOGITS[:, :0]}, ValueError, "V > 0"),
    ({"targets": [1, 2, 3]}, TypeError, "targets must be a tensor, got list"),
    ({"targets": TARGETS.int()}, ValueError, r"targets must be int64 \(3,\), got torch.int32"),
    ({"targets": TARGETS[:, None]}, ValueError, r"targets must be int64 \(3,\)"),
    ({"targets": TARGETS + V}, ValueError, r"targets must lie in \[0, 10\)"),
    ({"ignore_index": None}, TypeError, "ignore_index must be an integer"),
    ({"ignore_index": 1.0}, TypeError, "ignore_index must be an integer"),
])  # fmt: skip
def test_selection(change, error, words):
    check(
        select_candidates, {"logits": LOGITS, "targets": TARGETS, **SETTING}, change, error, words
    )


def test_settings_of_numpy_are_numbers():
    of_numpy = {"coverage": np.float64(0.9), "k_min": np.int64(1), "k_max": np.int32(8)}

    assert torch.equal(select_candidates(LOGITS, TARGETS, **of_numpy).ids, SETS.ids)


@table([
    *[case for case in SETTINGS if "k_min" not in case[0] or case[0]["k_min"] != 9],
    ({"targets": [1, 2, 3]}, TypeError, "targets must be a tensor"),
    ({"targets": TARGETS.float()}, ValueError, "targets must be int64"),
    ({"targets": TARGETS[:2]}, ValueError, r"targets must be int64 \(3,\)"),
    ({"targets": TARGETS + 20}, ValueError, "are these its targets"),
    ({"coverage": 1.0, "k_max": 10}, ValueError, "wider than the stored one"),
])  # fmt: skip
def test_narrowing(change, error, words):
    check(SETS.narrow, {"targets": TARGETS, **SETTING}, change, error, words)


ROWS = {
    "ids": torch.tensor([1, 2, 3]), "offsets": torch.tensor([0, 2, 3]),
    "gold_forced": torch.zeros(2, dtype=torch.bool), "logp": torch.tensor([-0.1, -3.0, -0.01]),
    "log_z": torch.zeros(2), "log_outside": torch.full((2,), -4.0),
}  # fmt: skip


@table([
    ({"ids": [1, 2, 3]}, TypeError, "ids must be a tensor, got list"),
    ({"ids": torch.tensor([1.0, 2, 3])}, ValueError, r"ids must be int64 \(3,\), got"),
    ({"ids": torch.ones(1, 3, dtype=INT)}, ValueError, r"ids must be int64 \(3,\)"),
    ({"offsets": None}, TypeError, "offsets must be a tensor"),
    ({"offsets": torch.zeros(0, dtype=INT)}, ValueError, r"offsets must be int64 \(1,\)"),
    ({"offsets": torch.tensor([0.0, 2, 3])}, ValueError, "offsets must be int64"),
    ({"gold_forced": torch.zeros(2)}, ValueError, r"gold_forced must be bool \(2,\)"),
    ({"gold_forced": torch.zeros(3, dtype=torch.bool)}, ValueError, "gold_forced must be bool"),
    ({"logp": torch.zeros(2)}, ValueError, r"logp must be floating \(3,\)"),
    ({"logp": torch.zeros(3, dtype=INT)}, ValueError, "logp must be floating"),
    ({"log_z": torch.zeros(1)}, ValueError, r"log_z must be floating \(2,\)"),
    ({"log_outside": 0.0}, TypeError, "log_outside must be a tensor"),
    ({"prob": torch.zeros(3, 1)}, ValueError, r"prob must be floating \(3,\)"),
])  # fmt: skip
def test_sets_of_wrong_fields(change, error, words):
    check(Candidates, ROWS, change, error, words)


@table([
    ({"index": [0]}, TypeError, "index must be a tensor"),
    ({"index": 0}, TypeError, "index must be a tensor"),
    ({"index": torch.tensor(0)}, ValueError, r"index must be \(M,\) int64 or \(N,\) bool"),
    ({"index": torch.tensor([0.0])}, ValueError, "index must be"),
    ({"index": torch.ones(3, dtype=torch.uint8)}, ValueError, "index must be"),
    ({"index": torch.tensor([3])}, IndexError, "out of bounds"),
])  # fmt: skip
def test_selecting_rows(change, error, words):
    check(SETS.select, {}, change, error, words)


def test_putting_together_what_is_no_set():
    with pytest.raises(TypeError, match="each of parts must be a Candidates, got Tensor"):
        Candidates.cat([SETS, TARGETS])


# Losses

HIDDEN, WEIGHT = torch.randn(N, D), torch.randn(V, D)
INPUTS = [
    ({"hidden": HIDDEN.tolist()}, TypeError, "hidden must be a tensor"),
    ({"hidden": HIDDEN.long()}, ValueError, "hidden must be floating, got torch.int64"),
    ({"hidden": HIDDEN[0]}, ValueError, r"hidden must be \(N, d\)"),
    ({"hidden": HIDDEN[None]}, ValueError, r"hidden must be \(N, d\)"),
    ({"weight": WEIGHT.numpy()}, TypeError, "weight must be a tensor"),
    ({"weight": WEIGHT.to(torch.int8)}, ValueError, "weight must be floating"),
    ({"weight": WEIGHT.T}, ValueError, r"weight \(V, d\)"),
    ({"weight": WEIGHT[:4]}, ValueError, r"ids must lie in \[0, 4\)"),
    ({"bias": 0.0}, TypeError, "bias must be a tensor"),
    ({"bias": torch.zeros(V, 1)}, ValueError, r"bias must be floating \(10,\)"),
    ({"bias": torch.zeros(V, dtype=INT)}, ValueError, "bias must be floating"),
    ({"bias": torch.zeros(V, device=META)}, ValueError, "bias must lie on cpu as hidden, not meta"),
    ({"logit_map": 2.0}, TypeError, "logit_map must be a function"),
    ({"logit_map": lambda z: z.sum()}, ValueError, "logit_map must be elementwise"),
    ({"logit_map": lambda z: None}, ValueError, "logit_map must be elementwise"),
    ({"targets": TARGETS.tolist()}, TypeError, "targets must be a tensor, got list"),
    ({"targets": TARGETS.float()}, ValueError, "targets must be int64"),
    ({"targets": TARGETS.to(META)}, ValueError, "targets must lie on cpu"),
    ({"candidates": TARGETS}, TypeError, "candidates must be a Candidates, got Tensor"),
    ({"candidates": SETS.select(torch.tensor([0]))}, ValueError, "1 candidate rows for 3"),
    ({"ignore_index": "-100"}, TypeError, "ignore_index must be an integer"),
]


def with_offsets(*offsets: int) -> Candidates:
    more = {"gold_forced": torch.zeros(3, dtype=torch.bool), "logp": torch.zeros(3)}
    zero = torch.zeros(3)
    return Candidates(torch.tensor([1, 2, 3]), torch.tensor(offsets), **more, log_z=zero,
                      log_outside=zero)  # fmt: skip


@table([
    *INPUTS,
    ({"candidates": None}, TypeError, "candidates must be a Candidates, got NoneType"),
    ({"candidates": with_offsets(1, 2, 3, 4)}, ValueError, "offsets must rise from 0 to 3"),
    ({"candidates": with_offsets(0, 1, 2, 4)}, ValueError, "offsets must rise from 0 to 3"),
    ({"candidates": with_offsets(0, 2, 1, 3)}, ValueError, "offsets must rise from 0 to 3"),
    ({"denominator": None}, ValueError, "denominator must be one of 'own', 'union', got None"),
    ({"reduction": ["mean"]}, ValueError, "reduction must be one of"),
    ({"path": 1}, ValueError, "path must be one of"),
    ({"denominator": "union", "negatives": [0]}, TypeError, "negatives must be a tensor"),
    ({"denominator": "union", "negatives": TARGETS[None]}, ValueError, r"int64 \(M,\)"),
    ({"denominator": "union", "tail": torch.zeros(N)}, ValueError, "a tail needs den"),
    ({"tail": [0.0]}, TypeError, "tail must be a tensor"),
    ({"tail": torch.zeros(N, 1)}, ValueError, r"tail must be floating \(3,\)"),
    ({"tail": torch.zeros(N, device=META)}, ValueError, "tail must lie on cpu as hidden, not meta"),
    ({"sparse_grad": None}, TypeError, "sparse_grad must be True or False"),
])  # fmt: skip
def test_the_loss(change, error, words):
    good = {"hidden": HIDDEN, "weight": WEIGHT, "candidates": SETS, "targets": TARGETS}
    check(restricted_linear_cross_entropy, good, change, error, words)


@table([
    *INPUTS,
    ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
    ({"chunk": -4}, ValueError, "chunk must be at least 1"),
    ({"chunk": 4.0}, TypeError, "chunk must be an integer"),
    ({"targets": TARGETS + V}, ValueError, "targets must lie in"),
    ({"candidates": with_offsets(0, 2, 1, 3)}, ValueError, "offsets must rise"),
])  # fmt: skip
def test_the_probe(change, error, words):
    good = {"hidden": HIDDEN, "weight": WEIGHT, "candidates": SETS, "targets": TARGETS}
    check(probe, good, change, error, words)


ONE = {"a": torch.ones(2)}


@table([
    ({"params": [torch.ones(2)]}, TypeError, "params must be a mapping"),
    ({"anchor": {"a": torch.ones(1)}}, ValueError, "of 'a' must have one shape"),
    ({"fisher": {"a": torch.ones(2, 1)}}, ValueError, "of 'a' must have one shape"),
    ({"fisher": None}, TypeError, "fisher must be a mapping"),
    ({"strength": "1"}, TypeError, "strength must be a number"),
])  # fmt: skip
def test_the_ewc_penalty(change, error, words):
    good = {"params": ONE, "anchor": ONE, "fisher": ONE, "strength": 1.0}
    check(ewc_penalty, good, change, error, words)


# The store

BOUND = {"base": "b", "tokenizer": "t", "data": "d"}


@pytest.fixture
def saved(tmp_path):
    with StoreWriter(tmp_path / "store", BOUND, vocabulary=V, settings=SETTING) as writer:
        writer.add(SETS, TARGETS, [1, 0, 2])
    return tmp_path / "store"


@pytest.mark.parametrize(
    ("indices", "error", "words"),
    [
        ([0.0], TypeError, "indices must be integers, got torch.float32"),
        ([True, False, True], TypeError, "indices must be integers, got torch.bool"),
        (torch.tensor([True, False, True]), TypeError, "indices must be integers"),
        (np.array([1.5]), TypeError, "indices must be integers, got torch.float64"),
        (["0"], TypeError, r"indices must be integers, got \['0'\]"),
        ("0", TypeError, "indices must be integers"),
        (None, TypeError, "indices must be integers"),
        (0, ValueError, "indices must be in one row"),
        ([[0, 1]], ValueError, "indices must be in one row"),
        ([3], IndexError, "records are 0 to 2"),
        ([-1], IndexError, "records are 0 to 2"),
    ],
    ids=repr,
)
def test_a_batch(saved, indices, error, words):
    store = CandidateStore.load(saved, BOUND)
    with pytest.raises(error, match=words):
        store.batch(indices)


@pytest.mark.parametrize(
    "indices", [range(3), (0, 1, 2), np.arange(3), torch.arange(3, dtype=torch.int32)], ids=repr
)
def test_a_batch_of_any_integers(saved, indices):
    assert torch.equal(CandidateStore.load(saved, BOUND).batch(indices).ids, SETS.ids)


@table([case for case in SETTINGS if case[0] != {"k_min": 9}])
def test_a_narrower_store(saved, change, error, words):
    check(CandidateStore.load(saved, BOUND).narrow, SETTING, change, error, words)


@table([
    ({"bound": {"base": "b", "data": "d"}}, ValueError, "bound must hold 'tokenizer', the hash"),
    ({"bound": ["b", "t", "d"]}, TypeError, "bound must be a mapping"),
    ({"bound": None}, TypeError, "bound must be a mapping"),
])  # fmt: skip
def test_what_a_store_is_bound_to(saved, change, error, words):
    check(CandidateStore.load, {"folder": saved}, change, error, words)
    good = {"folder": saved.parent / "new", "vocabulary": V, "settings": SETTING}
    check(StoreWriter, good, change, error, words)


@table([
    *[({"settings": SETTING | change}, *rest) for change, *rest in SETTINGS],
    ({"settings": {"coverage": 0.9, "k_max": 8}}, ValueError, "k_min is missing"),
    ({"settings": None}, TypeError, "settings must be a mapping"),
])  # fmt: skip
def test_what_sets_of_a_store_are_selected_with(tmp_path, change, error, words):
    check(StoreWriter, {"folder": tmp_path / "s", "bound": BOUND, "vocabulary": V}, change, error,
          words)  # fmt: skip
    assert not list(tmp_path.iterdir())


def sets(ids: list[list[int]], rows: list[list[float]], forced=(), logp=None, prob=None):
    """Candidates of such ids and probabilities, unless other ones are given."""
    sizes = torch.tensor([0, *map(len, ids)])
    given = torch.tensor([p for row in rows for p in row], dtype=torch.float64)
    zero = torch.zeros(len(ids))
    last = torch.tensor([t in forced for t in range(len(ids))])
    flat = torch.tensor([i for row in ids for i in row], dtype=INT)
    logp = given.log().float() if logp is None else logp
    return Candidates(flat, sizes.cumsum(0), last, logp, zero, zero, prob)


FIRST = torch.tensor([1])
SOUND = {"sets": sets([[1, 2]], [[0.6, 0.35]]), "targets": FIRST, "records": [1]}


@table([
    ({"sets": TARGETS}, TypeError, "sets must be a Candidates, got Tensor"),
    ({"targets": [1]}, TypeError, "targets must be a tensor"),
    ({"targets": FIRST.float()}, ValueError, "targets must be int64"),
    ({"records": [1.0]}, TypeError, "records must be integers"),
    ({"records": [True]}, TypeError, "records must be integers"),
    ({"records": 1}, ValueError, "records must be in one row"),
    ({"records": [2]}, ValueError, "records must be the positions of each record, 1 in all"),
    ({"targets": FIRST + 5}, ValueError, "are these its targets"),
    ({"sets": sets([[1, 10]], [[0.6, 0.35]])}, ValueError, r"ids must lie in \[0, 10\)"),
    ({"sets": sets([[1, 2, 2]], [[0.6, 0.2, 0.2]])}, ValueError, "holds a token twice"),
    ({"sets": sets([[2, 1]], [[0.35, 0.6]])}, ValueError, "by falling probability"),
    ({"sets": sets([[1, 2]], [[0.9, 0.05]], forced=[0])}, ValueError, "must stand last"),
    ({"sets": sets([[1, 2]], [[1.2, 0.1]])}, ValueError, "must be finite and at most 0"),
    ({"sets": sets([[1]], [[0.95]], logp=torch.tensor([-torch.inf]))}, ValueError, "finite"),
    ({"sets": sets([[1]], [[0.95]], prob=torch.tensor([0.5]))}, ValueError, r"exp\(logp\)"),
    ({"sets": sets([[1]], [[0.95]], prob=torch.tensor([torch.nan]))}, ValueError, r"exp\(logp\)"),
    # coverage 0.9, k_min 2, k_max 3
    ({"sets": sets([[1]], [[0.95]])}, ValueError, "row 0 holds 1 tokens of mass 0.95.*k_min 2"),
    ({"sets": sets([[1, 2, 3, 4]], [[0.6, 0.1, 0.1, 0.05]])}, ValueError, "holds 4 tokens"),
    ({"sets": sets([[1, 2]], [[0.4, 0.1]])}, ValueError, "mass 0.500000.*what coverage 0.9"),
    ({"sets": sets([[1, 2]], [[0.6, 0.29]])}, ValueError, "mass 0.890000"),
    ({"sets": sets([[1, 2, 3]], [[0.6, 0.31, 0.05]])}, ValueError, "mass 0.960000"),
    ({"sets": sets([[2, 3, 1]], [[0.5, 0.1, 0.3]], [0])}, ValueError, "by falling probability"),
    ({"sets": sets([[2, 3, 1]], [[0.5, 0.1, 0.05]], [0])}, ValueError, "2 tokens of mass 0.60"),
])  # fmt: skip
def test_sets_that_are_not_what_the_store_says(tmp_path, change, error, words):
    limits = {"coverage": 0.9, "k_min": 2, "k_max": 3}
    writer = StoreWriter(tmp_path / "store", BOUND, vocabulary=V, settings=limits)
    check(writer.add, SOUND, change, error, words)
    assert writer.records == 0


@pytest.mark.parametrize(
    ("sound", "target"),
    [
        (sets([[1, 2]], [[0.6, 0.30000001]]), 1),
        (sets([[1, 2]], [[0.6, 0.3 - 5e-6]]), 1),  # covers but for float32's rounding
        (sets([[1, 2, 3]], [[0.6, 0.3 + 5e-6, 0.05]]), 1),  # and so does this without its last
        (sets([[1, 2]], [[0.95, 0.01]]), 1),  # k_min
        (sets([[1, 2, 3]], [[0.3, 0.2, 0.1]]), 2),  # k_max
        (sets([[1, 2, 3, 7]], [[0.3, 0.2, 0.1, 1e-9]], forced=[0]), 7),
        (sets([[2, 1]], [[0.4, 0.6]], logp=torch.tensor([0.5, 0.5]).log()), 1),  # equals
        (sets([[]], [[]]), -100),
    ],
)  # fmt: skip
def test_sets_that_are(tmp_path, sound, target):
    limits = {"coverage": 0.9, "k_min": 2, "k_max": 3}
    if len(sound.ids) == 2 and float(sound.prob.sum()) > 0.99:
        limits["coverage"] = 1.0
    with StoreWriter(tmp_path / "store", BOUND, vocabulary=V, settings=limits) as writer:
        writer.add(sound, torch.tensor([target]), [1])

    assert torch.equal(CandidateStore.load(tmp_path / "store", BOUND).batch([0]).ids, sound.ids)


# The optimizer; more in test_optim.py


@table([
    ({"params": []}, ValueError, "empty parameter list"),
    ({"params": [{"params": [torch.ones(2)], "lr": "0.1"}]}, TypeError, "lr must be a number"),
    ({"lr": "0.1"}, TypeError, "lr must be a number, finite and >= 0, got '0.1'"),
    ({"lr": torch.ones(2)}, ValueError, "lr must be a number or one in a tensor"),
    ({"betas": 0.9}, ValueError, r"betas must be two numbers in \[0, 1\)"),
    ({"betas": (0.9, None)}, TypeError, "betas must be a number"),
    ({"max_angle": "60"}, TypeError, "max_angle must be a number"),
    ({"state_dtype": float}, ValueError, "state_dtype must be a floating-point torch.dtype"),
    ({"state_dtype": 32}, ValueError, "state_dtype must be a floating-point torch.dtype"),
])  # fmt: skip
def test_the_optimizer(change, error, words):
    check(MoClip, {"params": [torch.ones(2)], "lr": 0.1}, change, error, words)


# Heads

MODEL = transformers.LlamaForCausalLM(
    transformers.LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )
)  # fmt: skip
IDS = torch.tensor([[3, 4, 5], [6, 7, 0]])
ASKED = torch.tensor([[False, True, True], [True, False, False]])


@pytest.mark.parametrize("reach", [supervised_hidden, supervised_logits])
@table([
    ({"input_ids": IDS.tolist()}, TypeError, "input_ids must be a tensor"),
    ({"input_ids": IDS.float()}, ValueError, r"input_ids must be int64 \(B, T\), got"),
    ({"input_ids": IDS[0]}, ValueError, r"input_ids must be int64 \(B, T\)"),
    ({"input_ids": IDS.flip(1)}, UserError, "row 1 begins with the padding token 0"),
    ({"supervised": ASKED.long()}, ValueError, r"supervised must be bool \(2, 3\)"),
    ({"supervised": ASKED[:1]}, ValueError, r"supervised must be bool \(2, 3\)"),
    ({"supervised": None}, TypeError, "supervised must be a tensor"),
    ({"attention_mask": IDS}, ValueError, "attention_mask must be .* 0 at padding, 1 elsewhere"),
    ({"attention_mask": ASKED + 0.5}, ValueError, "attention_mask must be"),
    ({"attention_mask": ASKED[:, :2]}, ValueError, r"attention_mask must be \(2, 3\)"),
    ({"attention_mask": ~ASKED}, ValueError, "must not be 0 at supervised"),
    ({"model": None}, UserError, "NoneType: no vocabulary projection"),
])  # fmt: skip
def test_reaching_the_head(reach, change, error, words):
    check(reach, {"model": MODEL, "input_ids": IDS, "supervised": ASKED}, change, error, words)


def test_what_has_no_head():
    with pytest.raises(UserError, match="str: no vocabulary projection"):
        head_of("gpt2")
