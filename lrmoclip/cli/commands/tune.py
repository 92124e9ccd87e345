"""Sweep the learning rates of one method on validation splits."""

from contextlib import ExitStack
from pathlib import Path

from lrmoclip.cli.options import add, add_bench, bench, share


def options(command) -> None:
    add_bench(command)
    add(command, "method", "out")


def run(method: str, out: Path, **given) -> None:
    """Write the validation scores at every rate of the grid."""
    import pandas as pd
    import torch

    from lrmoclip.core import artefacts, files, provenance, sharding
    from lrmoclip.train.memory import refuse_if_too_large
    from lrmoclip.train.tuning import KIND, sweep

    found = bench(**given)
    share(found.scale)
    sharding.join()
    with ExitStack() as held:
        draft = None
        if sharding.place()[0] == 0:
            draft = held.enter_context(artefacts.file(out, KIND))
        found.check(method)
        refuse_if_too_large(found, method)
        torch.set_num_threads(found.scale.threads.train)
        rows = sweep(found, method)
        if draft is not None:
            table = pd.DataFrame(rows).to_csv(index=False)
            files.write_text(draft.path / Path(out).name, table)
            draft.about |= provenance.stamp()
