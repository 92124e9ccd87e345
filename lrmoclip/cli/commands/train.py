"""Train one method, seed after seed: Stage 1."""

import resource
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

from lrmoclip.cli.options import add, add_bench, add_several, bench, check_runs, share


def options(command) -> None:
    add_bench(command)
    add(command, "method")
    add_several(command, "seeds", int)
    add_several(command, "outs", words="one folder a seed")
    add(command, "done", required=False)


def run(method: str, seeds: list[int], outs: list[Path], done: Path | None = None, **given) -> None:
    found = bench(**given)
    share(found.scale)
    train(found, method, seeds, outs, done)


def train(bench, method: str, seeds: list[int], outs: list[Path], done: Path | None = None) -> None:
    """Write model/, training.csv and run.json into the folder of each seed; `done`, a JSON, when
    all are there.

    A run that is there already, of the same inputs and this version, stays. One that died goes on
    from its last run state, kept beside its folder until the run is whole. As one of several
    processes of a torchrun, train one shard of each.
    """
    import torch

    from lrmoclip.core import artefacts, sharding
    from lrmoclip.report.kinds import RUN, TRAINED
    from lrmoclip.train.memory import refuse_if_too_large

    check_runs(seeds, outs)
    sharding.join()
    lead = sharding.place()[0] == 0
    with ExitStack() as held:
        finished = held.enter_context(artefacts.loose(done, TRAINED)) if lead and done else None
        drafts = [held.enter_context(artefacts.folder(out, RUN)) if lead else None for out in outs]
        bench.check(method)
        refuse_if_too_large(bench, method)
        torch.set_num_threads(bench.scale.threads.train)
        for seed, out, draft in zip(seeds, outs, drafts, strict=True):
            _train(bench, method, seed, Path(out), draft)
        if finished is not None:
            finished.about |= {"seeds": seeds}


def _train(bench, method: str, seed: int, out: Path, draft) -> None:
    import pandas as pd

    from lrmoclip.core import artefacts, files, provenance, sharding
    from lrmoclip.core.holding import partial_of
    from lrmoclip.models import checkpoints
    from lrmoclip.report.kinds import RUN, RUN_FILE
    from lrmoclip.train.departure import departure
    from lrmoclip.train.probes import ProbeBatch
    from lrmoclip.train.run import train as take_steps
    from lrmoclip.train.run_state import RunState
    from lrmoclip.train.summary import run_summary

    start, scale = time.perf_counter(), bench.scale
    lr, point = scale.chosen(bench.base, bench.domain, method)
    bound = bench.bound(point, lr, seed)
    made = provenance.stamp(**bound)
    if any(sharding.everyone(draft is not None and _is_there(out, made))):
        if draft is not None:
            draft.give_up()
            print(f"{out}: there already, of the same inputs and this version")
        return
    state = RunState(partial_of(out) / "state", bound, scale.stage1.checkpoint_steps)
    run = bench.run(point, lr, seed)
    log = take_steps(run, ProbeBatch(scale.stage1.probe_records), state)
    model = run.merged()
    if draft is None:
        return
    summary = run_summary(log, run)
    if run.ranks == 1:  # a device may have no room for the base beside a sharded run
        summary |= departure(bench, model)
    for message in summary["warnings"]:
        warnings.warn(f"{bench.domain}, {method}, seed {seed}: {message}", stacklevel=1)
    folder = draft.path / "model"
    folder.mkdir()
    checkpoints.save(folder, model, bench.tokenizer)
    of = checkpoints.of(scale.name, bench.base, bench.domain, method, seed)
    artefacts.seal(folder, checkpoints.KIND, {**of, **made})
    files.write_text(draft.path / "training.csv", pd.DataFrame(log).to_csv(index=False))
    record = {
        "scale": scale.name, "base": bench.base, "domain": bench.domain, "method": method,
        "seed": seed, "lr": lr, **summary, "wall_s": time.perf_counter() - start,
        "peak_memory_mb": _peak_memory_mb(), "devices": run.ranks, "precision": run.precision,
        "weights": files.sha256(folder / checkpoints.WEIGHTS), "provenance": made,
    }  # fmt: skip
    files.write_sealed(draft.path / RUN_FILE, RUN, record)
    draft.about |= of | made
    draft.finish()
    state.remove()


def _is_there(out: Path, made: dict) -> bool:
    """Whether a folder holds a whole run of the provenance `made`."""
    from lrmoclip.core import artefacts, provenance
    from lrmoclip.core.errors import UserError
    from lrmoclip.report.kinds import RUN

    try:
        folder = artefacts.Folder(out, RUN, "lrmoclip train")
        for name in folder.about["files"]:
            folder.file(name)
    except UserError:
        return False
    return provenance.is_same(folder.about, made)


def _peak_memory_mb() -> float:
    """Peak of the device's allocator, or of this process's resident memory on a CPU, in MB.

    A high-water mark: of the seeds that one process trains, a later one shows earlier peaks, too.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
