"""The optimizer `adamuon` against Algorithm 1 of its paper in float64, and Newton-Schulz against
singular value decompositions."""

import math

import pytest
import torch

from lrmoclip.methods.optimizers.adamuon import AdaMuon, newton_schulz
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.run_state import RunState
from tests.support.runs import LORA, make_model, make_records, make_run

AXES = {"optimizer": {"name": "adamuon"}}
LR, DECAY, BETA, BETAS = 0.02, 0.1, 0.95, (0.8, 0.95)
SHAPES = {"tall": (7, 4), "wide": (3, 8), "column": (5, 1), "vector": (6,)}


class Body(torch.nn.Module):
    """An embedding, a head of its own, and between them matrices and a vector."""

    def __init__(self, dtype=torch.double) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(1)
        self.embedding = torch.nn.Embedding(9, 4)
        self.body = torch.nn.ParameterDict(
            {name: torch.nn.Parameter(torch.empty(shape)) for name, shape in SHAPES.items()}
        )
        self.head = torch.nn.Linear(4, 9)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=dice, dtype=torch.double).to(dtype)

    def get_output_embeddings(self):
        return self.head


def built(model, weight_decay: float = DECAY) -> torch.optim.Optimizer:
    named = dict(model.named_parameters())
    return AdaMuon().build(model, named, lr=LR, betas=BETAS, weight_decay=weight_decay)


def make_gradients(model, steps: int) -> list[dict[str, torch.Tensor]]:
    dice = torch.Generator().manual_seed(0)
    return [
        {n: torch.randn(p.shape, generator=dice).double() for n, p in model.named_parameters()}
        for _ in range(steps)
    ]


def take(model, optimizer, gradients) -> None:
    for name, p in model.named_parameters():
        p.grad = gradients[name].to(p.dtype)
    optimizer.step()


def algorithm_1(weight, gradients) -> torch.Tensor:
    """W after these gradients, in the paper's words; sums where the entry has averages."""
    a, b, c = 3.4445, -4.7750, 2.0315
    w, m, v = weight.double(), torch.zeros(1), torch.zeros(1)
    for g in gradients:
        m = BETA * m + g
        o = torch.sign(m) / math.sqrt(m.numel())  # the Frobenius norm of signs
        for _ in range(5):
            o = a * o + b * o @ o.T @ o + c * o @ o.T @ o @ o.T @ o
        v = BETA * v + (1 - BETA) * o * o
        o_hat = o / (v.sqrt() + 1e-8)
        gamma = 0.2 * math.sqrt(o.numel()) / math.sqrt(o_hat.square().sum().item())
        w = w - LR * (gamma * o_hat + DECAY * w)
    return w


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.double, 1e-7), (torch.float32, 1e-4)], ids=["double", "float32"]
)
@pytest.mark.parametrize("name", ["tall", "wide", "column"])
def test_a_matrix_moves_as_the_paper_says(name, dtype, rtol):
    model = Body(dtype)
    drawn = make_gradients(model, 10)
    wanted = algorithm_1(model.body[name].detach(), [g[f"body.{name}"] for g in drawn])
    optimizer = built(model)
    for gradients in drawn:
        take(model, optimizer, gradients)

    torch.testing.assert_close(model.body[name].double(), wanted, rtol=rtol, atol=rtol)


def test_what_is_no_matrix_of_the_body_moves_by_adamw():
    ours, theirs = Body(), Body()
    optimizer, drawn = built(ours), make_gradients(ours, 10)
    other = torch.optim.AdamW(theirs.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY)
    for gradients in drawn:
        take(ours, optimizer, gradients)
        take(theirs, other, gradients)

    moved = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        same = torch.allclose(p, moved[name], rtol=1e-12, atol=1e-14)
        assert same == (name not in ("body.tall", "body.wide", "body.column")), name


def test_a_step_has_the_root_mean_square_it_says():
    model = Body()
    optimizer = built(model, weight_decay=0.0)
    for gradients in make_gradients(model, 5):
        before = {name: p.detach().clone() for name, p in model.body.items()}
        take(model, optimizer, gradients)
        for name in ("tall", "wide", "column"):
            step = (model.body[name] - before[name]) / LR
            assert step.square().mean().sqrt().item() == pytest.approx(0.2, rel=1e-6)


def test_the_size_of_a_gradient_does_not_matter():
    small, large = Body(), Body()
    for model, size in ((small, 1e-6), (large, 1e3)):
        optimizer = built(model)
        for gradients in make_gradients(model, 3):
            take(model, optimizer, {n: size * g for n, g in gradients.items()})

    torch.testing.assert_close(small.body["wide"], large.body["wide"], rtol=1e-9, atol=1e-12)


def test_a_matrix_without_gradient_stays():
    model = Body()
    before = model.body["wide"].detach().clone()
    take(model, built(model, 0.0), {n: torch.zeros_like(p) for n, p in model.named_parameters()})

    assert torch.equal(model.body["wide"], before)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16), (1, 9), (9, 1)])
def test_newton_schulz_comes_near_the_polar_factor(shape, size):
    dice = torch.Generator().manual_seed(2)
    u, _, v = torch.randn(shape, generator=dice, dtype=torch.double).svd()
    spread = torch.linspace(1, 0.05, len(v.T), dtype=torch.double)
    found = newton_schulz((size * u * spread @ v.T).float(), 5).double()

    inner = u.T @ found @ v  # diagonal where the factors are those of the matrix
    assert (inner - inner.diag().diag()).abs().max() < 1e-4
    assert 0.65 < inner.diag().min() <= inner.diag().max() < 1.25


def run_of(axes: dict, **more):
    return make_run(make_model(), axes, TrainingSet(make_records()), **more)


@pytest.mark.parametrize("axes", [AXES, {**AXES, **LORA}], ids=["full", "lora"])
def test_a_run_moves_every_tensor_and_is_the_same_each_time(axes):
    run, again = run_of(axes), run_of(axes)
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    train(run)
    train(again)

    for name, p in run.parameters.items():
        assert not torch.equal(p, before[name]), name
        assert torch.equal(p, again.parameters[name]), name


def test_a_run_orthogonalises_all_that_is_neither_embedding_nor_norm():
    run = run_of(AXES)
    names = {p: name for name, p in run.parameters.items()}
    rest, matrices = ({names[p] for p in g["params"]} for g in run.optimizer.param_groups)
    assert matrices == {name for name in run.parameters if "proj" in name}
    assert rest == set(run.parameters) - matrices != set()


def test_a_run_goes_on_to_the_same_bits(tmp_path):
    state = RunState(tmp_path, {"data": "d"}, every=2)
    undisturbed, died, resumed = run_of(AXES), run_of(AXES), run_of(AXES)
    train(undisturbed)
    for _ in range(4):
        died.step()
    state.save(died, [])
    train(resumed, state=state)

    assert resumed.taken == undisturbed.taken == 6
    for name, p in undisturbed.parameters.items():
        assert torch.equal(p, resumed.parameters[name]), name
