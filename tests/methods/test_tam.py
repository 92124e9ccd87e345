"""The optimizer `tam` against torch's AdamW where the alignment stands still, and its paper's
equations in float64."""

import math

import pytest
import torch

from lrmoclip.methods.optimizers.tam import TAM
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.run_state import RunState
from tests.support.runs import LORA, make_model, make_records, make_run

AXES = {"optimizer": {"name": "tam"}}
LR, BETAS, DECAY = 0.02, (0.8, 0.95), 0.1
SHAPES = [(5, 7), (6,), (1,)]


def make_parameters(dtype=torch.double) -> list[torch.nn.Parameter]:
    dice = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(s, generator=dice).to(dtype)) for s in SHAPES]


def make_gradients(steps: int) -> list[list[torch.Tensor]]:
    dice = torch.Generator().manual_seed(0)
    return [[torch.randn(s, generator=dice).double() for s in SHAPES] for _ in range(steps)]


def build(parameters, weight_decay: float = DECAY, **own) -> torch.optim.Optimizer:
    named = {str(i): p for i, p in enumerate(parameters)}
    same = {"lr": LR, "betas": BETAS, "weight_decay": weight_decay}
    return TAM(**own).build(torch.nn.Module(), named, **same)


def take(parameters, optimizer, gradients) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.to(p.dtype)
    optimizer.step()


def cosine(a: list[float], b: list[float]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def loop(theta: torch.Tensor, gradients: list[torch.Tensor]) -> torch.Tensor:
    """The equations, an entry at a time, of one tensor."""
    x, (beta1, beta2), s = theta.flatten().tolist(), BETAS, 0.0
    m, v = [0.0] * len(x), [0.0] * len(x)
    for t, g in enumerate((drawn.flatten().tolist() for drawn in gradients), 1):
        s = 0.9 * s + 0.1 * cosine(g, m)
        d = (1 + s) / 2
        for i in range(len(x)):
            m[i] = beta1 * m[i] + (1e-8 + d) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            x[i] -= LR * (m_hat / (math.sqrt(v_hat) + 1e-8) + DECAY * x[i])
    return torch.tensor(x, dtype=torch.double).reshape(theta.shape)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.double, 1e-12), (torch.float32, 2e-4)], ids=["double", "float32"]
)
def test_its_steps_are_the_papers(dtype, rtol):
    ours, gradients = make_parameters(dtype), make_gradients(20)
    wanted = [
        loop(p.detach().double(), [drawn[i] for drawn in gradients]) for i, p in enumerate(ours)
    ]
    optimizer = build(ours)
    for drawn in gradients:
        take(ours, optimizer, drawn)

    for found, want in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found.double(), want, rtol=rtol, atol=rtol)


def adamw(parameters, scale: float) -> torch.optim.Optimizer:
    """AdamW at `scale` times the rate, with the same decay."""
    return torch.optim.AdamW(parameters, lr=scale * LR, betas=BETAS, weight_decay=DECAY / scale)


def test_without_an_alignment_it_is_adamw_at_another_rate():
    """d stays at 1/2, and the momentum, a sum, is 1 / (1 - beta1) times AdamW's average."""
    ours, theirs = make_parameters(), make_parameters()
    still, other = build(ours, smoothing=1.0, epsilon=0.0), adamw(theirs, 0.5 / (1 - BETAS[0]))
    for gradients in make_gradients(20):
        take(ours, still, gradients)
        take(theirs, other, gradients)

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_gradients_that_agree_are_not_damped():
    """A gradient that never turns has d = 1/2 once, as no momentum is there yet, and then 1."""
    ours = make_parameters()
    optimizer = build(ours, weight_decay=0.0, smoothing=0.0, epsilon=0.0)
    [gradients] = make_gradients(1)
    for step in range(1, 8):
        take(ours, optimizer, gradients)
        for p, g in zip(ours, gradients, strict=True):
            # 1/2 beta1^(t - 1) and the sum of beta1^k below it
            share = BETAS[0] ** (step - 1) / 2
            share += (1 - BETAS[0] ** (step - 1)) / (1 - BETAS[0])
            torch.testing.assert_close(optimizer.state[p]["exp_avg"], share * g, rtol=1e-12, atol=0)
    assert TAM().measures(optimizer)["damping"] == pytest.approx(1.0)


def test_a_gradient_against_the_momentum_counts_for_nothing():
    ours = make_parameters()
    optimizer = build(ours, weight_decay=0.0, smoothing=0.0, epsilon=0.0)
    [gradients] = make_gradients(1)
    take(ours, optimizer, gradients)
    take(ours, optimizer, [-3 * g for g in gradients])

    for p, g in zip(ours, gradients, strict=True):
        kept = BETAS[0] * g / 2
        torch.testing.assert_close(optimizer.state[p]["exp_avg"], kept, rtol=1e-12, atol=1e-14)


def test_the_size_of_a_gradient_changes_no_alignment():
    found = []
    for size in (1e-9, 1.0, 1e9):
        ours = make_parameters()
        optimizer = build(ours)
        for gradients in make_gradients(5):
            take(ours, optimizer, [size * g for g in gradients])
        found.append(TAM().measures(optimizer)["damping"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-9)
    assert 0 < found[0] < 1


def test_a_tensor_without_gradient_stays():
    ours = make_parameters()
    before = [p.detach().clone() for p in ours]
    take(ours, build(ours, weight_decay=0.0), [torch.zeros_like(p) for p in ours])

    for p, old in zip(ours, before, strict=True):
        assert torch.equal(p, old)


def run_of(axes: dict, **more):
    return make_run(make_model(), axes, TrainingSet(make_records()), **more)


@pytest.mark.parametrize("axes", [AXES, {**AXES, **LORA}], ids=["full", "lora"])
def test_a_run_moves_every_tensor_and_is_the_same_each_time(axes):
    run, again = run_of(axes), run_of(axes)
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    log = train(run)
    train(again)

    for name, p in run.parameters.items():
        assert not torch.equal(p, before[name]), name
        assert torch.equal(p, again.parameters[name]), name
    assert all(0 < row["damping"] < 1 for row in log[:-1])


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
