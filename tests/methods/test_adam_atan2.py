"""The optimizer `adam_atan2` in a run, against another library's on the same gradients."""

import torch
from adam_atan2_pytorch import AdamAtan2 as Theirs

from lrmoclip.methods.axes import Context
from lrmoclip.methods.optimizers.adam_atan2 import AdamAtan2
from lrmoclip.train.run import TrainingSet, schedule
from tests.support.runs import SETTINGS, make_model, make_records, make_run

BETAS = (0.8, 0.95)


def test_its_steps_are_the_other_librarys():
    ours, theirs = (
        [torch.nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.double).reshape(3, 4))]
        for _ in range(2)
    )
    same = {"lr": 0.02, "betas": BETAS, "weight_decay": 0.1}
    named = {"weight": ours[0]}
    built = AdamAtan2().build(torch.nn.Module(), named, **same)
    other = Theirs(theirs, a=4 / torch.pi, b=1.0, **same)

    dice = torch.Generator().manual_seed(0)
    for _ in range(20):
        gradient = torch.randn(3, 4, dtype=torch.double, generator=dice)
        for parameters, optimizer in ((ours, built), (theirs, other)):
            parameters[0].grad = gradient.clone()
            optimizer.step()

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


def test_a_run_takes_its_first_step_with_it():
    """After one step m / sqrt(v) is the gradient's sign: a warm rate times (4 / pi) atan2(1, 1)."""
    axes, settings = {"optimizer": {"name": "adam_atan2"}}, {"weight_decay": 0.0}
    run, drawn = (
        make_run(make_model(), axes, TrainingSet(make_records()), settings) for _ in range(2)
    )
    before = {name: p.detach().clone() for name, p in run.parameters.items()}
    passes, _ = drawn.draw()
    for batch, sets, share in passes:
        (share * drawn.loss.of(Context(drawn.model, batch, sets, None, drawn.dice))).backward()

    run.step()

    rate = 1e-2 * schedule(0, run.steps, SETTINGS["warmup"])
    for name, parameter in run.parameters.items():
        moved = drawn.parameters[name].grad.abs() > 1e-12
        wanted = before[name] - rate * drawn.parameters[name].grad.sign()
        torch.testing.assert_close(parameter[moved], wanted[moved], rtol=1e-4, atol=1e-7)
