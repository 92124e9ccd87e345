"""The restricted loss and its companions against a dense float64 oracle, and what they promise."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip.core import kernels
from lrmoclip.core.candidates import Candidates, select_candidates
from lrmoclip.core.losses import ewc_penalty, probe, restricted_linear_cross_entropy
from tests.conftest import Allocations
from tests.reference.oracle import dense_logits, restricted_losses, union_losses

IGNORED = -100
# Arguments of the loss; "sampled" adds negatives to the union.
VARIANTS = {
    "gather": {"denominator": "own", "path": "gather"},
    "own by union": {"denominator": "own", "path": "union"},
    "union": {"denominator": "union"},
    "sampled": {"denominator": "union"},
}
EXACT = ["gather", "own by union", "union"]
examples = settings(max_examples=60, deadline=None, derandomize=True)


class Problem:
    """Hidden states, an output matrix, sets of other logits than theirs (a moved model)."""

    def __init__(
        self, seed, n=5, vocab=11, d=4, k_max=3, dtype=torch.float64, bias=True, capped=True
    ):
        self.rng = torch.Generator().manual_seed(seed)
        self.hidden = self.draw(n, d, dtype=dtype)
        self.weight = self.draw(vocab, d, dtype=dtype)
        self.bias = self.draw(vocab, dtype=dtype) if bias else None
        self.cap = torch.tensor(2.5, dtype=torch.float64) if capped else None
        self.targets = torch.randint(vocab, (n,), generator=self.rng)
        logits = self.draw(n, vocab, dtype=torch.float32)
        self.candidates = select_candidates(logits, self.targets, coverage=0.9, k_max=k_max)

    def draw(self, *shape, dtype):
        return torch.randn(*shape, generator=self.rng).to(dtype)

    def ignore(self, *positions):
        self.targets[list(positions)] = IGNORED
        return self

    def negatives(self, m):
        outside = set(range(len(self.weight))) - set(self.candidates.union().tolist())
        return torch.tensor(sorted(outside)[:m], dtype=torch.int64)

    def leaves(self):
        leaves = [self.hidden, self.weight, self.bias, self.cap]
        return [x.requires_grad_() for x in leaves if x is not None]

    def logit_map(self, z):
        return z if self.cap is None else (z / self.cap.to(z.dtype)).tanh() * self.cap.to(z.dtype)

    def options(self, variant, m=3):
        drawn = {"negatives": self.negatives(m)} if variant == "sampled" else {}
        return VARIANTS[variant] | drawn

    def loss(self, variant, **options):
        return restricted_linear_cross_entropy(
            self.hidden,
            self.weight,
            self.candidates,
            self.targets,
            bias=self.bias,
            logit_map=self.logit_map,
            **(self.options(variant) | options),
        )

    def oracle(self, variant):
        z = dense_logits(self.hidden, self.weight, self.bias, self.logit_map)
        sets = [x.tolist() for x in self.candidates.ids.tensor_split(self.candidates.offsets[1:-1])]
        if VARIANTS[variant]["denominator"] == "own":
            return restricted_losses(z, sets, self.targets.tolist())
        negatives = self.negatives(3).tolist() if variant == "sampled" else []
        return union_losses(z, sets, self.targets.tolist(), negatives)


def logit_gradient(loss_of, z):
    """The (N, V) gradient in the logits z, read off a loss of (hidden, weight): hidden = 1."""
    weight = z.T.clone().requires_grad_()
    return torch.autograd.grad(loss_of(torch.eye(len(z), dtype=z.dtype), weight), weight)[0].T


@pytest.mark.parametrize("variant", VARIANTS)
@examples
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 6),
    vocab=st.integers(2, 14),
    k_max=st.integers(1, 14),
    bias=st.booleans(),
    capped=st.booleans(),
    skip=st.booleans(),
)
def test_loss_and_gradients_are_the_oracles(variant, seed, n, vocab, k_max, bias, capped, skip):
    problem = Problem(seed, n, vocab, k_max=k_max, bias=bias, capped=capped)
    if skip:
        problem.ignore(0)
    if variant == "sampled" and not len(problem.negatives(3)):
        variant = "union"
    leaves = problem.leaves()
    upstream = problem.draw(n, dtype=torch.float64)

    got, want = problem.loss(variant, reduction="none"), problem.oracle(variant)

    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    for g, w in zip(
        torch.autograd.grad(got, leaves, upstream, materialize_grads=True),
        torch.autograd.grad(want, leaves, upstream, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("dtype", "grad_rtol"),
    # bfloat16: sums run in float32, so that a gradient is rounded once, to a neighbour at worst.
    [(torch.float32, 1e-4), (torch.bfloat16, 2**-7)],
)
def test_lower_precision_costs_one_rounding(variant, dtype, grad_rtol):
    # 300 positions over 20 tokens: every row of the gradient is a sum of many terms.
    problem = Problem(1, n=300, vocab=20, d=8, k_max=4, dtype=dtype, capped=False)
    if variant == "sampled":
        problem.targets %= 15
        logits = problem.draw(300, 20, dtype=torch.float32)
        logits[:, 15:] = -50
        problem.candidates = select_candidates(logits, problem.targets, coverage=0.9, k_max=4)
    leaves = problem.leaves()

    got, want = problem.loss(variant, reduction="sum"), problem.oracle(variant).sum()

    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)
    for g, w in zip(
        torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves), strict=True
    ):
        assert g.dtype == dtype
        torch.testing.assert_close(g, w.to(g.dtype), rtol=grad_rtol, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradcheck(variant):
    problem = Problem(2)
    negatives = problem.options(variant)

    def loss(hidden, weight, bias, cap):
        return restricted_linear_cross_entropy(
            hidden,
            weight,
            problem.candidates,
            problem.targets,
            bias=bias,
            logit_map=lambda z: (z / cap).tanh() * cap,
            reduction="none",
            **negatives,
        )

    leaves = problem.leaves()
    before = loss(*leaves)
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.equal(loss(*leaves), before)


# What asks for a second derivative, or for the first by another way than backward: loss, inputs.
OTHER_DERIVATIVES = {
    "backward with a graph": lambda f, x: f(x.requires_grad_()).backward(create_graph=True),
    "grad with a graph": lambda f, x: torch.autograd.grad(
        f(x.requires_grad_()), x, create_graph=True
    ),
    "hessian": torch.autograd.functional.hessian,
    "vectorised hessian": lambda f, x: torch.autograd.functional.hessian(f, x, vectorize=True),
    "hvp": lambda f, x: torch.autograd.functional.hvp(f, x, x),
    "func.hessian": lambda f, x: torch.func.hessian(f)(x),
    "func.grad of grad": lambda f, x: torch.func.grad(lambda y: torch.func.grad(f)(y).sum())(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, x])),
    "forward mode": lambda f, x: torch.autograd.functional.jvp(f, x, x, strict=True),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("way", OTHER_DERIVATIVES)
@pytest.mark.parametrize("name", ["hidden", "weight"])
def test_any_derivative_but_the_first_is_refused_in_words(variant, way, name):
    problem = Problem(18, n=4, vocab=40)
    options = problem.options(variant)

    def loss(x):
        inputs = {"hidden": problem.hidden, "weight": problem.weight, name: x}
        return restricted_linear_cross_entropy(
            **inputs, candidates=problem.candidates, targets=problem.targets, **options
        )

    with pytest.raises(RuntimeError, match="the restricted loss is differentiable once"):
        OTHER_DERIVATIVES[way](loss, getattr(problem, name).clone())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["bias", "cap"])
def test_a_second_derivative_in_what_shapes_the_logits_is_right_or_refused(variant, name):
    problem = Problem(19, n=4, vocab=40)
    at = getattr(problem, name)

    def second(loss_of):
        def loss(x):
            setattr(problem, name, x)
            return loss_of(variant).sum()

        return torch.autograd.functional.hessian(loss, at)

    want = second(problem.oracle)
    try:
        got = second(lambda variant: problem.loss(variant, reduction="sum"))
    except RuntimeError as error:
        assert "differentiable once" in str(error)
    else:
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("variant", VARIANTS)
def test_torch_compile_around_the_loss_changes_no_bit(variant):
    problem = Problem(20, n=12, vocab=60, d=8, dtype=torch.float32)
    leaves = problem.leaves()
    seen = []

    def twice(scale):
        hidden, problem.hidden = problem.hidden, problem.hidden * scale
        loss = problem.loss(variant) * scale
        problem.hidden = hidden
        return loss

    def backend(graph, _):
        seen.append(graph)
        return graph

    want = twice(2.0)
    compiled = torch.compile(twice, backend=backend)(2.0)

    assert seen  # what stands around the loss
    assert torch.equal(compiled, want)
    pairs = [torch.autograd.grad(loss, leaves) for loss in (compiled, want)]
    assert all(map(torch.equal, *pairs))
    torch.compiler.reset()


def test_the_sums_that_decide_a_set_are_not_compiled():
    problem = Problem(21, n=12, vocab=60, d=8, dtype=torch.float32)
    logits, graphs = problem.draw(12, 60, dtype=torch.float32), []
    calls = [
        lambda: select_candidates(logits, problem.targets, coverage=0.9, k_max=9),
        lambda: problem.candidates.narrow(0.5, 1, 3, problem.targets),
        lambda: probe(problem.hidden, problem.weight, problem.candidates, problem.targets),
    ]

    for call in calls:
        torch.compile(call, backend=lambda graph, _: graphs.append(graph) or graph)()

    assert graphs == []
    torch.compiler.reset()


@pytest.mark.parametrize("path", ["auto", "gather", "union"])
@pytest.mark.parametrize("token", [7, 9])
def test_a_token_twice_in_a_set_is_refused(path, token):
    ids, targets = torch.tensor([3, 7, 9, 7, 9, 8, token]), torch.tensor([3, 8])
    none = torch.zeros(2)
    sets = Candidates(ids, torch.tensor([0, 3, 7]), none.bool(), ids * 0.0, none, none)
    hidden, weight = torch.randn(2, 4), torch.randn(10, 4)

    with pytest.raises(ValueError, match=f"supervised row 1 holds token {token} twice"):
        restricted_linear_cross_entropy(hidden, weight, sets, targets, path=path)


def test_a_token_twice_in_a_set_weighs_once_in_the_union():
    ids, targets = torch.tensor([3, 7, 7, 8]), torch.tensor([3, 8])
    none = torch.zeros(2)
    offsets = [torch.tensor([0, 3, 4]), torch.tensor([0, 2, 3])]
    twice = Candidates(ids, offsets[0], none.bool(), ids * 0.0, none, none)
    once = Candidates(ids[[0, 1, 3]], offsets[1], none.bool(), torch.zeros(3), none, none)
    hidden, weight = torch.randn(2, 4), torch.randn(10, 4, requires_grad=True)

    losses = [
        restricted_linear_cross_entropy(hidden, weight, sets, targets, denominator="union")
        for sets in (twice, once)
    ]
    grads = [torch.autograd.grad(loss, weight)[0] for loss in losses]

    assert torch.equal(*losses) and torch.equal(*grads)


@pytest.mark.parametrize("variant", VARIANTS)
def test_sets_selected_in_inference_mode_train(variant):
    problem = Problem(22, n=4, vocab=40)
    leaves, logits = problem.leaves(), problem.draw(4, 40, dtype=torch.float32)
    runs = []
    for mode in (True, False):
        with torch.inference_mode(mode):
            problem.candidates = select_candidates(logits, problem.targets, coverage=0.5, k_max=4)
        runs.append(torch.autograd.grad(problem.loss(variant), leaves))

    assert all(map(torch.equal, *runs))


def test_auto_takes_the_block_below_the_limit_of_products_for_each_pair(monkeypatch):
    problem = Problem(13, n=60, vocab=40, d=32, k_max=6, dtype=torch.float32)
    leaves, sets = problem.leaves(), problem.candidates
    fill = len(sets) * len(sets.union()) / len(sets.ids)

    def gradients(path):
        return torch.autograd.grad(problem.loss("gather", path=path), leaves)

    gather, union = gradients("gather"), gradients("union")
    assert not all(map(torch.equal, gather, union))  # they differ by rounding
    for limit, want in [(fill, gather), (math.nextafter(fill, math.inf), union)]:
        monkeypatch.setattr(kernels, "BLOCK_PER_PAIR", limit)
        assert all(map(torch.equal, gradients("auto"), want))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_sparse_gradient_is_the_dense_one_and_holds_the_rows_used(variant, dtype):
    problem = Problem(14, n=6, vocab=50, dtype=dtype)
    problem.weight.requires_grad_()
    want = torch.autograd.grad(problem.loss(variant), problem.weight)[0]

    got = torch.autograd.grad(problem.loss(variant, sparse_grad=True), problem.weight)[0]

    assert got.is_sparse and got._nnz() == len(problem.candidates.union()) + 3 * (
        variant == "sampled"
    )
    assert torch.equal(got.to_dense(), want)


def test_a_sparse_gradient_trains_with_an_optimizer_that_takes_it():
    problem = Problem(15, n=6, vocab=50, dtype=torch.float32, bias=False, capped=False)
    problem.weight.requires_grad_()
    optimizer = torch.optim.SparseAdam([problem.weight], lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = problem.loss("gather", sparse_grad=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_an_accumulated_gradient_grows_in_place(variant, tied):
    n, vocab, d = 6, 3000, 8
    problem = Problem(16, n=n, vocab=vocab, d=d, k_max=4, dtype=torch.float32)
    problem.weight.requires_grad_()

    def backward():
        hidden = F.embedding(problem.targets, problem.weight) if tied else problem.hidden
        restricted_linear_cross_entropy(
            hidden, problem.weight, problem.candidates, problem.targets, **problem.options(variant)
        ).backward()

    backward()
    once, place = problem.weight.grad.clone(), problem.weight.grad.data_ptr()
    assert once.layout == torch.strided
    with Allocations() as watch:
        backward()

    torch.testing.assert_close(problem.weight.grad, 2 * once)
    if not tied:  # the embedding's own gradient is V x d
        assert problem.weight.grad.data_ptr() == place
        assert watch.numel < vocab * d


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast_changes_nothing(variant):
    problem = Problem(17, n=30, vocab=60, d=16, dtype=torch.float32)
    leaves = problem.leaves()
    want = [problem.loss(variant), *torch.autograd.grad(problem.loss(variant), leaves)]

    with torch.autocast("cpu", torch.bfloat16):
        loss = problem.loss(variant)
        got = [loss, *torch.autograd.grad(loss, leaves)]

    assert all(map(torch.equal, got, want))


@examples
@given(st.integers(0, 2**20), st.integers(1, 4))
def test_full_and_restricted_gradients_differ_by_twice_the_outside_mass(seed, k_max):
    rng = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(4, 9, generator=rng, dtype=torch.float64)
    targets = torch.randint(9, (4,), generator=rng)
    stale = torch.randn(4, 9, generator=rng)
    sets = select_candidates(stale, targets, coverage=0.9, k_max=k_max)

    full = logit_gradient(lambda h, w: F.cross_entropy(h @ w.T, targets, reduction="sum"), z)
    restricted = logit_gradient(
        lambda h, w: restricted_linear_cross_entropy(h, w, sets, targets, reduction="sum"), z
    )
    rho = probe(torch.eye(4, dtype=z.dtype), z.T, sets, targets).log_outside.exp()

    torch.testing.assert_close((full - restricted).abs().sum(1), 2 * rho, rtol=1e-10, atol=1e-12)


def test_the_sampled_denominator_is_the_full_one_on_average():
    problem = Problem(3, n=3, vocab=12, k_max=1, bias=False, capped=False)
    outside = problem.negatives(12).tolist()
    assert len(outside) > 4
    z = dense_logits(problem.hidden, problem.weight)
    z_gold = z.gather(1, problem.targets[:, None])[:, 0]

    for m in (1, 2, 4):
        denominators = []
        for drawn in itertools.combinations(outside, m):
            losses = restricted_linear_cross_entropy(
                problem.hidden,
                problem.weight,
                problem.candidates,
                problem.targets,
                denominator="union",
                negatives=torch.tensor(drawn),
                reduction="none",
            )
            denominators.append((losses + z_gold).exp())
        torch.testing.assert_close(torch.stack(denominators).mean(0), z.exp().sum(1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_tensor_is_as_large_as_positions_times_vocabulary(variant):
    n, vocab, d = 40, 4000, 8
    problem = Problem(4, n=n, vocab=vocab, d=d, k_max=6)
    problem.leaves()
    options = problem.options(variant)
    with Allocations() as dense:
        torch.autograd.grad((problem.hidden @ problem.weight.T).logsumexp(1).sum(), problem.weight)
    assert dense.numel == n * vocab  # the watch sees what it should

    with Allocations() as forward:
        loss = restricted_linear_cross_entropy(
            problem.hidden, problem.weight, problem.candidates, problem.targets, **options
        )
    with Allocations() as backward:
        loss.backward()

    used = len(problem.candidates.union()) + 3
    assert forward.numel <= max(n * used, n * 7 * d) < vocab * d
    assert backward.numel == vocab * d < n * vocab / 4  # the gradient of the weight


def test_only_rows_of_the_sets_are_read():
    problem = Problem(5, n=4, vocab=40)
    for variant in VARIANTS:
        read = problem.candidates.union()
        if variant == "sampled":
            read = torch.cat([read, problem.negatives(3)])
        unread = torch.ones(40, dtype=torch.bool).index_fill(0, read, False)
        want = problem.loss(variant)
        weight = problem.weight
        problem.weight = weight.masked_fill(unread[:, None], math.nan)

        assert torch.equal(problem.loss(variant), want)
        problem.weight = weight


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_runs_are_identical_to_the_bit(variant, two_threads):
    problem = Problem(6, n=500, vocab=300, d=32, k_max=8, dtype=torch.float32)
    if variant == "sampled":
        problem.candidates = problem.candidates.select(torch.arange(20))
        problem.hidden, problem.targets = problem.hidden[:20], problem.targets[:20]
    leaves = problem.leaves()

    runs = []
    for _ in range(5):
        loss = problem.loss(variant)
        runs.append([loss, *torch.autograd.grad(loss, leaves)])

    assert all(all(map(torch.equal, run, runs[0])) for run in runs[1:])


@pytest.mark.parametrize("variant", EXACT)
def test_reductions_agree_and_ignored_positions_count_for_nothing(variant):
    problem = Problem(7, n=6).ignore(1, 4)

    each = problem.loss(variant, reduction="none")

    assert each[[1, 4]].tolist() == [0, 0]
    torch.testing.assert_close(problem.loss(variant, reduction="sum"), each.sum())
    torch.testing.assert_close(problem.loss(variant), each.sum() / 4)


@pytest.mark.parametrize("variant", EXACT)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("n", [0, 3])
@pytest.mark.parametrize("empty_rows", [True, False])
def test_nothing_supervised_is_zero_loss_and_zero_gradient(variant, reduction, n, empty_rows):
    problem = Problem(8, n=n)
    problem.ignore(*range(n))
    if empty_rows:
        logits = torch.zeros(n, len(problem.weight))
        problem.candidates = select_candidates(logits, problem.targets, coverage=0.9, k_max=2)
    leaves = problem.leaves()

    loss = problem.loss(variant, reduction=reduction)

    assert loss.shape == ((n,) if reduction == "none" else ())
    assert not loss.any()
    for grad in torch.autograd.grad(loss.sum(), leaves, materialize_grads=True):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_a_set_of_gold_alone_has_nothing_to_learn():
    problem = Problem(9, n=1, capped=False)
    logits = torch.nn.functional.one_hot(problem.targets, 11).float() * 50
    problem.candidates = select_candidates(logits, problem.targets, coverage=0.9, k_max=1)
    leaves = problem.leaves()

    loss = problem.loss("gather")

    assert loss == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("variant", EXACT)
def test_sets_of_the_whole_vocabulary_give_the_full_cross_entropy(variant):
    problem = Problem(10, capped=False)
    logits = torch.zeros(len(problem.targets), 11)
    problem.candidates = select_candidates(logits, problem.targets, coverage=1.0, k_max=11)

    want = F.cross_entropy(problem.hidden @ problem.weight.T + problem.bias, problem.targets)

    torch.testing.assert_close(problem.loss(variant), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("variant", EXACT)
@pytest.mark.parametrize("size", [100.0, 1e15])
def test_logits_beyond_all_exponents_give_no_nan(variant, size):
    hidden = torch.tensor([[size], [-size], [size]], requires_grad=True)
    weight = torch.tensor([[size], [-size], [0.0]], requires_grad=True)
    targets = torch.tensor([1, 1, 0])
    sets = select_candidates(torch.zeros(3, 3), targets, coverage=0.5, k_max=3)

    losses = restricted_linear_cross_entropy(
        hidden, weight, sets, targets, reduction="none", **VARIANTS[variant]
    )
    losses.sum().backward()

    torch.testing.assert_close(losses, torch.tensor([2 * size**2, 0, 0]))
    torch.testing.assert_close(hidden.grad, torch.tensor([[2 * size], [0.0], [0.0]]))
    torch.testing.assert_close(weight.grad, torch.tensor([[size], [-size], [0.0]]))


def test_bad_arguments_are_named():
    problem = Problem(11, vocab=40)
    ok = {
        "hidden": problem.hidden,
        "weight": problem.weight,
        "candidates": problem.candidates,
        "targets": problem.targets,
    }
    inside, outside = problem.candidates.union()[:1], problem.negatives(2)
    narrower = problem.weight[: int(problem.candidates.union()[-1])]
    for change, words in [
        ({"denominator": "all"}, "denominator must be"),
        ({"reduction": "avg"}, "reduction must be"),
        ({"path": "fast"}, "path must be"),
        ({"path": "gather", "denominator": "union"}, "path='gather' needs"),
        ({"negatives": outside}, "negatives need denominator='union'"),
        ({"denominator": "union", "negatives": inside}, "outside the union"),
        ({"denominator": "union", "negatives": outside[[0, 0]]}, "distinct"),
        ({"denominator": "union", "negatives": torch.tensor([40])}, r"\[0, 40\)"),
        ({"denominator": "union", "negatives": outside[:0]}, "no negatives"),
        ({"denominator": "union", "negatives": outside.float()}, "negatives must be int64"),
        ({"hidden": problem.hidden[:, :2]}, "hidden must be"),
        ({"hidden": problem.hidden[:2]}, "targets must be"),
        ({"bias": problem.bias[:3]}, "bias must be"),
        ({"targets": problem.targets[:2]}, "targets must be"),
        ({"candidates": problem.candidates.select(torch.tensor([0]))}, "1 candidate rows for 5"),
        ({"targets": problem.negatives(5)}, "hold its target"),
        ({"weight": narrower}, "ids must lie in"),
    ]:
        with pytest.raises(ValueError, match=words):
            restricted_linear_cross_entropy(**{**ok, **change})


@examples
@given(st.integers(0, 2**20), st.integers(1, 13), st.booleans(), st.booleans())
def test_the_probe_is_the_dense_softmax(seed, chunk, bias, skip):
    problem = Problem(seed, bias=bias)
    if skip:
        problem.ignore(2)
    z = dense_logits(problem.hidden, problem.weight, problem.bias, problem.logit_map)
    inside = torch.zeros_like(z, dtype=torch.bool)
    inside[problem.candidates.rows, problem.candidates.ids] = True
    live = problem.targets != IGNORED

    got = probe(
        problem.hidden,
        problem.weight,
        problem.candidates,
        problem.targets,
        bias=problem.bias,
        logit_map=problem.logit_map,
        chunk=chunk,
    )

    rho = z.softmax(1).masked_fill(inside, 0).sum(1).log()
    torch.testing.assert_close(
        got.cross_entropy, F.cross_entropy(z, problem.targets, reduction="none")
    )
    torch.testing.assert_close(got.log_outside, rho.where(live, 0))


def test_the_probe_sees_a_tiny_outside_mass_and_none():
    hidden, weight = torch.eye(1), torch.tensor([[46.0], [0.0], [-1.0]])
    gold = torch.tensor([0])
    alone = select_candidates(weight.T, gold, coverage=0.9, k_max=1)
    whole = select_candidates(weight.T, gold, coverage=1.0, k_min=3, k_max=3)

    got = probe(hidden, weight, alone, gold, chunk=2).log_outside.double().exp().item()

    assert got == pytest.approx((1 + math.exp(-1)) * math.exp(-46), rel=1e-5, abs=0)
    assert probe(hidden, weight, whole, gold, chunk=2).log_outside == -torch.inf


def test_the_probe_needs_no_sets_keeps_no_graph_and_streams():
    problem = Problem(12, n=30, vocab=2000, bias=False)
    problem.leaves()

    with Allocations() as watch:
        got = probe(problem.hidden, problem.weight, None, problem.targets, chunk=100)

    assert got.log_outside is None
    assert not got.cross_entropy.requires_grad
    assert watch.numel <= 30 * 100
    with pytest.raises(ValueError, match="targets must lie in"):
        probe(problem.hidden, problem.weight, None, problem.targets + 2000)


def test_the_ewc_penalty_is_its_closed_form():
    theta = {"a": torch.tensor([1.0, 3.0], requires_grad=True), "b": torch.tensor([[2.0]])}
    anchor = {"a": torch.tensor([0.0, 1.0]), "b": torch.tensor([[5.0]])}
    fisher = {"a": torch.tensor([4.0, 0.5]), "b": torch.tensor([[2.0]])}

    penalty = ewc_penalty(theta, anchor, fisher, strength=10.0)
    penalty.backward()

    assert penalty.item() == 10 / 2 * (4 * 1 + 0.5 * 4 + 2 * 9)
    assert theta["a"].grad.tolist() == [10 * 4 * 1, 10 * 0.5 * 2]


def test_an_ewc_penalty_of_other_names_is_refused():
    x = {"a": torch.ones(1)}
    with pytest.raises(ValueError, match="'b'"):
        ewc_penalty(x, x, {"b": torch.ones(1)}, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        ewc_penalty({}, {}, {}, 1.0)
