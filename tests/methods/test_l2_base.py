"""The uniform pull to the base, against its closed form and against EWC with a Fisher of ones."""

import copy

import pytest
import torch

from lrmoclip.cost import flops
from lrmoclip.methods import Need
from lrmoclip.methods.penalties.ewc import Ewc
from lrmoclip.methods.penalties.l2_base import L2Base
from lrmoclip.train import memory
from lrmoclip.train.run import TrainingSet, train
from tests.cost.made import FAMILIES, shape
from tests.support.runs import LORA, make_model, make_records, make_run, point

AXES = {"penalty": {"name": "l2_base", "strength": 8.0}}


def moved(parameters: dict) -> None:
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=dice, dtype=parameter.dtype))


def test_it_is_ewc_with_a_fisher_of_ones_in_value_and_gradient():
    shapes = {"a": (3, 4), "b": (5,)}
    found = {}
    for name, entry in {"ours": L2Base(strength=8.0), "ewc": Ewc(strength=8.0)}.items():
        own = {k: torch.nn.Parameter(torch.ones(s, dtype=torch.double)) for k, s in shapes.items()}
        penalty = entry.start(own, {k: torch.ones_like(p) for k, p in own.items()})
        assert penalty() == 0
        moved(own)
        penalty().backward()
        found[name] = penalty().detach(), {k: p.grad for k, p in own.items()}

    torch.testing.assert_close(found["ours"], found["ewc"], rtol=1e-12, atol=0)


def test_a_step_adds_half_the_strength_times_the_squared_drift():
    data = make_records()
    pulled, plain = (make_run(make_model(), axes, TrainingSet(data)) for axes in (AXES, {}))
    with torch.no_grad():
        for run in (pulled, plain):
            for parameter in run.parameters.values():
                parameter.add_(0.1)

    weights = sum(p.numel() for p in plain.parameters.values())
    more = pulled.step()["loss"] - plain.step()["loss"]
    assert more == pytest.approx(8 / 2 * 0.01 * weights, rel=1e-4)


@pytest.mark.parametrize("adapter", [{}, LORA])
def test_a_stronger_pull_ends_nearer_to_where_it_began(adapter):
    base, data = make_model(), make_records()

    def drift(strength: float) -> float:
        axes = {**adapter, "penalty": {"name": "l2_base", "strength": strength}}
        run = make_run(base, axes, TrainingSet(data), {"weight_decay": 0.0})
        start = copy.deepcopy({n: p.detach() for n, p in run.parameters.items()})
        train(run)
        return sum(float((p - start[n]).square().sum()) for n, p in run.parameters.items())

    assert 0 < drift(100.0) < drift(1e-6) / 2


def test_it_needs_nothing_and_keeps_one_value_a_weight():
    mine, full = point(**AXES), point()

    assert not mine.needs and Need.FISHER in point(penalty={"name": "ewc", "strength": 1.0}).needs
    of = shape(FAMILIES["qwen3"])
    more = memory.kept_bytes(of, mine) - memory.kept_bytes(of, full)
    assert more == 4 * of.parameters
    assert flops.training(mine, of, 0.5, 0) == flops.training(full, of, 0.5, 0)
