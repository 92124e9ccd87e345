"""The optimizer `mofo` against torch's AdamW, a loop in float64 and counts of what moves."""

import subprocess
import sys

import pytest
import torch

from lrmoclip.methods.optimizers.mofo import MoFO
from lrmoclip.train.run import TrainingSet, train
from lrmoclip.train.run_state import RunState
from tests.support.runs import LORA, make_model, make_records, make_run

AXES = {"optimizer": {"name": "mofo", "fraction": 0.3}}
SETTINGS = {"lr": 0.02, "betas": (0.8, 0.95)}
SHAPES = [(5, 7), (3, 2, 4), (6,), (1, 1)]


def make_parameters(dtype=torch.double) -> list[torch.nn.Parameter]:
    dice = torch.Generator().manual_seed(1)
    return [
        torch.nn.Parameter(torch.randn(s, dtype=torch.double, generator=dice).to(dtype))
        for s in SHAPES
    ]


def make_gradients(steps: int) -> list[list[torch.Tensor]]:
    dice = torch.Generator().manual_seed(0)
    return [
        [torch.randn(s, dtype=torch.double, generator=dice) for s in SHAPES] for _ in range(steps)
    ]


def build(parameters, weight_decay: float, **own) -> torch.optim.Optimizer:
    named = {str(i): p for i, p in enumerate(parameters)}
    return MoFO(**own).build(torch.nn.Module(), named, weight_decay=weight_decay, **SETTINGS)


def take(parameters, optimizer, gradients) -> None:
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.to(p.dtype)
    optimizer.step()


def loop(parameters, gradients, fraction: float, weight_decay: float) -> list[torch.Tensor]:
    """The paper's equations, an entry at a time."""
    lr, (beta1, beta2) = SETTINGS["lr"], SETTINGS["betas"]
    thetas = [p.detach().flatten().tolist() for p in parameters]
    m = [[0.0] * len(theta) for theta in thetas]
    v = [[0.0] * len(theta) for theta in thetas]
    for t, drawn in enumerate(gradients, 1):
        for i, g in enumerate(x.flatten().tolist() for x in drawn):
            m[i] = [beta1 * a + (1 - beta1) * b for a, b in zip(m[i], g, strict=True)]
            v[i] = [beta2 * a + (1 - beta2) * b * b for a, b in zip(v[i], g, strict=True)]
            order = sorted(range(len(g)), key=lambda j, i=i: -abs(m[i][j]))
            count = max(1, int(fraction * len(g))) if len(SHAPES[i]) > 1 else len(g)
            for j in range(len(g)):
                thetas[i][j] *= 1 - lr * weight_decay
            for j in order[:count]:
                below = (v[i][j] / (1 - beta2**t)) ** 0.5 + 1e-8
                thetas[i][j] -= lr * m[i][j] / (1 - beta1**t) / below
    return [
        torch.tensor(x, dtype=torch.double).reshape(s) for x, s in zip(thetas, SHAPES, strict=True)
    ]


def test_all_of_the_entries_is_adamw():
    ours, theirs = make_parameters(), make_parameters()
    built = build(ours, 0.1, fraction=1.0)
    other = torch.optim.AdamW(theirs, weight_decay=0.1, **SETTINGS)
    for gradients in make_gradients(20):
        take(ours, built, gradients)
        take(theirs, other, gradients)

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.double, 1e-12), (torch.float32, 2e-5)], ids=["double", "float32"]
)
def test_its_steps_are_the_papers(dtype, rtol):
    ours, gradients = make_parameters(dtype), make_gradients(20)
    built = build(ours, 0.1, fraction=0.3)
    wanted = loop([p.double() for p in ours], gradients, 0.3, 0.1)
    for drawn in gradients:
        take(ours, built, drawn)

    for found, want in zip(ours, wanted, strict=True):
        torch.testing.assert_close(found.double(), want, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("fraction", [0.01, 0.15, 0.3, 0.99])
def test_so_many_entries_of_a_tensor_move(fraction):
    ours = make_parameters()
    built = build(ours, 0.0, fraction=fraction)
    for gradients in make_gradients(5):
        before = [p.detach().clone() for p in ours]
        take(ours, built, gradients)
        moved = [(p != old).sum().item() for p, old in zip(ours, before, strict=True)]
        shares = [max(1, int(fraction * n)) for n in (35, 24)]
        assert moved == [*shares, 6, 1]


def test_those_with_the_largest_momentum_move_and_not_those_with_the_largest_gradient():
    [p] = parameters = [torch.nn.Parameter(torch.zeros(1, 2))]
    built = build(parameters, 0.0, fraction=0.5)
    take(parameters, built, [torch.tensor([[10.0, 1.0]])])
    first = p.detach().clone()
    take(parameters, built, [torch.tensor([[0.0, 2.0]])])

    assert first[0, 1] == p[0, 1] == 0
    assert p[0, 0] < first[0, 0] < 0


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


def test_to_read_what_methods_there_are_takes_no_torch():
    code = "import sys, lrmoclip.methods; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout.split()
