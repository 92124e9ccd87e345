"""Collect candidate sets: Stage 0."""

import warnings
from pathlib import Path

from lrmoclip.cli.options import add, add_data, add_scale, bench
from lrmoclip.config import fingerprint


def options(command) -> None:
    add_scale(command)
    add(command, "base", "domain", "checkpoint", "out")
    add_data(command)


def run(out: Path, **given) -> None:
    collect(bench(**given), out)


def collect(bench, out: Path) -> None:
    """Write the store of a workbench's training records; go on where a run before was killed."""
    import torch

    from lrmoclip.core import provenance
    from lrmoclip.core.store import StoreWriter
    from lrmoclip.train import stage0
    from lrmoclip.train.memory import refuse_if_too_large

    scale = bench.scale
    bound = {**bench.identity, "data": bench.data_hash(bench.domain)}
    refuse_if_too_large(bench)
    torch.set_num_threads(scale.threads.train)
    weight = bench.model.get_output_embeddings().weight
    made = provenance.stamp(
        config=fingerprint(scale.stage0),
        dtype=str(weight.dtype).removeprefix("torch."),
        precision=bench.precision,
    )
    with StoreWriter(
        out,
        bound,
        vocabulary=len(weight),
        settings=scale.stage0.model_dump(),
        eos_id=bench.records.eos_id,
        provenance=made,
    ) as writer:
        stage0.collect(bench.model, bench.records, scale.stage0, writer, bench.precision)
    if words := stage0.is_cold(writer.statistics["gold_in_set"]):
        warnings.warn(f"{bench.domain}: {words}", stacklevel=1)
