"""Fisher diagonal of the base on general data, for EWC."""

from pathlib import Path

from lrmoclip.cli.options import add, add_scale, bench


def options(command) -> None:
    add_scale(command)
    add(command, "base", "checkpoint", "data", "out")


def run(out: Path, **given) -> None:
    from lrmoclip.train.workbench import REPLAY

    write(bench(domain=REPLAY, **given), out)


def write(bench, out: Path) -> None:
    """Of the first `fisher_records` general records, one at a time."""
    import torch
    from safetensors.torch import save_file

    from lrmoclip.core import artefacts, provenance
    from lrmoclip.data.batches import collate
    from lrmoclip.train.fisher import KIND, fisher_diagonal

    scale = bench.scale
    with artefacts.file(out, KIND) as made:
        bound = {**bench.identity, "data": bench.data_hash(bench.domain)}
        torch.set_num_threads(scale.threads.train)
        count = min(scale.ewc.fisher_records, len(bench.general))
        batches = (collate(bench.general, [i]).to(bench.model.device) for i in range(count))
        dice = torch.Generator().manual_seed(0)
        found = fisher_diagonal(bench.model, batches, dice, bench.precision)
        tensors = {name: value.cpu() for name, value in found.items()}
        save_file(tensors, made.path / Path(out).name)
        made.about |= provenance.stamp(**bound, precision=bench.precision)
