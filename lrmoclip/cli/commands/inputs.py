"""What runs start from: what is fetched, data, base models, candidate stores, the Fisher."""

import warnings
from pathlib import Path

from lrmoclip.cli.commands.process import set_threads
from lrmoclip.config import scale as config
from lrmoclip.config.scale import Scale
from lrmoclip.config.schema import CONTEXT
from lrmoclip.core import artefacts, provenance
from lrmoclip.data import records
from lrmoclip.data.batches import collate, encode
from lrmoclip.models import checkpoints
from lrmoclip.train.workbench import Workbench, base_fingerprint


def fetch(scale: Scale, cache: Path | None = None) -> None:
    """Download a scale's models and data sets from the hub and lock them; say where they are."""
    from lrmoclip.models import fetching

    lock = fetching.fetch(scale, cache)
    for repo, entry in lock.repositories.items():
        size = sum(file["size"] for file in entry["files"].values())
        print(f"{repo} at {entry['revision']}: {len(entry['files'])} files, {size / 1e6:,.1f} MB")
    print(f"Locked: {lock.path}")
    if cache is not None:
        print(f"Runs need: export HF_HUB_CACHE={Path(cache).absolute()}")


def data(scale: Scale, out: Path, data_dir: Path | None = None) -> None:
    """Write the scale's data sets: generated, or from a folder of published data or the hub."""
    settings = scale["data"]
    with artefacts.folder(out, records.KIND) as made:
        if settings["generator"] == "micro":
            from lrmoclip.data.micro import world

            world.write(made.path, settings["seed"], settings["sizes"])
        else:
            from lrmoclip.data.published import sources, write
            from lrmoclip.models import hub

            pinned = hub.snapshots(scale) if settings.get("repositories") else None
            source = sources.open_source(settings, data_dir, pinned)
            made.about |= write.write(made.path, settings, source)
        made.about |= provenance.stamp(config=config.fingerprint(settings))


def base(scale: Scale, base: str, data: Path, out: Path) -> None:
    """Save a base model with its tokenizer: pretrained on the scale's text, out of a wheel, or from
    the hub."""
    set_threads(scale["threads"]["pretrain"])
    spec = scale.base(base)
    with artefacts.folder(out, checkpoints.KIND) as made:
        if "wheel" in spec:
            from lrmoclip.models import wheel

            model, tokenizer, facts = wheel.convert(spec)
        elif "hub" in spec:
            from lrmoclip.models import hub

            model, tokenizer, facts = hub.base(scale, spec)
        else:
            model, tokenizer, facts = _pretrained(spec, data)
        checkpoints.save(made.path, model, tokenizer)
        made.about |= checkpoints.of(scale.name, base)
        made.about |= provenance.stamp(config=base_fingerprint(scale, base), **facts)


def _pretrained(spec: dict, data: Path):
    from lrmoclip.data.micro import tokenizer as words
    from lrmoclip.models.scratch import new_model, pretrain

    tokenizer = words.build(spec["vocabulary"])
    model = new_model(spec, tokenizer)
    path = records.folder(data).file(records.split_of("pretraining", "train"))
    text = encode(records.read(path, repeats=True), tokenizer, context=CONTEXT)
    losses = pretrain(model, text, spec)
    return model, tokenizer, {"seed": spec["seed"], "last_loss": losses[-1]}


def stage0(bench: Workbench, out: Path) -> None:
    """Write the candidate store of the bench's training records; goes on where it was killed."""
    from lrmoclip.core.store import StoreWriter
    from lrmoclip.cost.plan import refuse_if_too_large
    from lrmoclip.train.stage0 import collect, is_cold

    settings = bench.scale["stage0"]
    bound = {**bench.identity, "data": bench.data_hash(bench.domain)}
    refuse_if_too_large(bench)
    set_threads(bench.scale["threads"]["train"])
    weight = bench.model.get_output_embeddings().weight
    made = provenance.stamp(
        config=config.fingerprint(settings), dtype=str(weight.dtype).removeprefix("torch.")
    )
    with StoreWriter(
        out,
        bound,
        vocabulary=len(weight),
        settings=settings,
        eos_id=bench.records.eos_id,
        provenance=made,
    ) as writer:
        collect(bench.model, bench.records, settings, writer, bench.precision)
    if words := is_cold(writer.statistics["gold_in_set"]):
        warnings.warn(f"{bench.domain}: {words}", stacklevel=1)


def fisher(bench: Workbench, out: Path) -> None:
    """Write the Fisher diagonal of the base model on general data, for EWC."""
    from safetensors.torch import save_file

    with artefacts.file(out, "fisher") as made:
        bound = {**bench.identity, "data": bench.data_hash("replay")}
        set_threads(bench.scale["threads"]["train"])
        tensors = {name: value.cpu() for name, value in general_fisher(bench).items()}
        save_file(tensors, made.path / Path(out).name)
        made.about |= provenance.stamp(**bound)


def general_fisher(bench: Workbench) -> dict:
    """The Fisher diagonal over the first `fisher_records` general records, one at a time."""
    import torch

    from lrmoclip.methods.objectives import fisher_diagonal

    count = min(bench.scale["ewc"]["fisher_records"], len(bench.general))
    batches = (collate(bench.general, [i]).to(bench.model.device) for i in range(count))
    dice = torch.Generator().manual_seed(0)
    return fisher_diagonal(bench.model, batches, dice, bench.precision)
