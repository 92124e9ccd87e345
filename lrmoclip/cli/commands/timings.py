"""Time steps of several methods in turns."""

from contextlib import ExitStack
from pathlib import Path

from lrmoclip.cli.options import add, add_bench, add_several, bench, share


def options(command) -> None:
    add_bench(command)
    add(command, "out")
    add_several(command, "methods", str)


def run(methods: list[str], out: Path, **given) -> None:
    """Write the seconds of every method's step, of Stage 0 and of the Fisher."""
    import torch

    from lrmoclip.core import artefacts, sharding
    from lrmoclip.cost import charges, stopwatch

    found = bench(**given)
    share(found.scale)
    sharding.join()
    with ExitStack() as held:
        draft = None
        if sharding.place()[0] == 0:
            draft = held.enter_context(artefacts.loose(out, charges.KIND))
        torch.set_num_threads(found.scale.threads.train)
        measured = stopwatch.timings(found, methods)
        if draft is not None:
            draft.about |= measured
