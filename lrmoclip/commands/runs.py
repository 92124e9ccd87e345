"""Runs of methods: trained, scored, tuned, timed."""

import time
import warnings
from pathlib import Path

from lrmoclip import checkpoints, config, files, provenance
from lrmoclip.commands.process import check_numbers, peak_memory_mb, set_threads
from lrmoclip.config import Scale
from lrmoclip.errors import UserError
from lrmoclip.workbench import Workbench


def train(bench: Workbench, method: str, seeds: list[int], outs: list[Path]) -> None:
    """Train one method with each seed; write model/, training.csv and run.json into its folder.

    As one of several processes of a torchrun, train one shard of each. A run that died goes on from
    its last checkpoint, kept beside its folder until the run is whole.
    """
    from lrmoclip import sharding
    from lrmoclip.plan import refuse_if_too_large

    check_numbers(seeds=seeds, outs=outs)
    sharding.join()
    bench.check(method)
    refuse_if_too_large(bench, method)
    set_threads(bench.scale["threads"]["train"])
    for seed, out in zip(seeds, outs, strict=True):
        _train(bench, method, seed, Path(out))


def _train(bench: Workbench, method: str, seed: int, out: Path) -> None:
    import pandas as pd

    from lrmoclip.resume import Checkpoint
    from lrmoclip.summary import run_summary
    from lrmoclip.training import train as train_run

    start, scale = time.perf_counter(), bench.scale
    lr = scale.learning_rate(bench.base, bench.domain, method)
    bound = bench.bound(method, lr, seed)
    every = scale["stage1"].get("checkpoint_steps")
    checkpoint = Checkpoint(out.with_name(f".{out.name}.resume"), bound, every)
    run = bench.run(method, lr, seed)
    log = train_run(run, bench.probe(method), checkpoint)
    model = run.merged()
    if run.rank > 0:
        return
    made = provenance.stamp(**bound)
    summary = run_summary(log, bench.source(method), scale["stage1"])
    for message in summary["warnings"]:
        warnings.warn(f"{bench.domain}, {method}, seed {seed}: {message}", stacklevel=1)
    record = {
        "scale": scale.name, "base": bench.base, "domain": bench.domain, "method": method,
        "seed": seed, "lr": lr, **summary, "wall_s": time.perf_counter() - start,
        "peak_memory_mb": peak_memory_mb(), "devices": run.ranks, "provenance": made,
    }  # fmt: skip
    with files.whole(out) as folder:
        (folder / "model").mkdir(parents=True)
        checkpoints.save(folder / "model", model, bench.tokenizer, made)
        files.write_text(folder / "training.csv", pd.DataFrame(log).to_csv(index=False))
        files.write_json(folder / "run.json", record)
    checkpoint.remove()


def evaluate(
    scale: Scale, base: str, domain: str, method: str, data: Path, models: list[Path],
    outs: list[Path], seeds: list[int], base_metrics: Path | None = None,
    general_from: Path | None = None,
) -> None:  # fmt: skip
    """Score checkpoints of one method in one process; write metrics.json and samples.parquet into
    the folder of each seed.

    The base's metrics.json also says on which general benchmarks it is above chance. base_metrics:
    that file, for a method that is to be scored on those alone. general_from: metrics.json of the
    same base with another domain, whose general scores are taken over.
    """
    import pandas as pd

    from lrmoclip import screening
    from lrmoclip.evaluation import Evaluator

    check_numbers(models=models, outs=outs, seeds=seeds)
    set_threads(scale["threads"]["evaluate"])
    facts = screening.manifest(data)
    general = screening.with_data(scale["general"], facts, "test")
    if base_metrics is not None:
        known = files.read_json(base_metrics).get("screening", {})
        general = screening.worth_scoring(general, known)
    taken, taken_items = _general_scores(general_from, base, general)
    benchmarks = [*general.values(), scale.domain(domain)]
    scored = benchmarks[-1:] if taken else benchmarks
    evaluator = Evaluator.of(scale, scored, data, "test")
    for checkpoint, out, seed in zip(models, outs, seeds, strict=True):
        start = time.perf_counter()
        scores, items = evaluator.checkpoint(checkpoint)
        scores, items = taken + scores, taken_items + items
        record = {
            "scale": scale.name, "base": base, "domain": domain, "method": method, "seed": seed,
            "rows": scores, "wall_s": time.perf_counter() - start,
            "provenance": provenance.stamp(
                config=config.fingerprint([benchmarks, scale["evaluation"]])
            ),
        }  # fmt: skip
        if method == "base":
            record["screening"] = screening.screen(scores, scale["general"], facts)
        with files.whole(Path(out) / "samples.parquet") as temporary:
            pd.DataFrame(items).to_parquet(temporary, index=False)
        files.write_json(Path(out) / "metrics.json", record)


def _general_scores(
    path: Path | None, base: str, general: dict[str, dict]
) -> tuple[list[dict], list[dict]]:
    """Rows and items of the general benchmarks in another metrics.json of the same base."""
    import pandas as pd

    if path is None:
        return [], []
    record = files.read_json(path)
    if (record["base"], record["method"]) != (base, "base"):
        raise UserError(
            f"{path}: not of the base {base}", "Name its metrics.json of another domain"
        )
    items = pd.read_parquet(Path(path).with_name("samples.parquet")).to_dict("records")
    tasks = {benchmark["task"] for benchmark in general.values()}
    rows, items = (
        [r for r in found if r["benchmark"] in tasks] for found in (record["rows"], items)
    )
    return rows, items


def tune(bench: Workbench, method: str, out: Path) -> None:
    """Write the validation scores of one method at every rate of the grid."""
    import pandas as pd

    from lrmoclip import sharding
    from lrmoclip.plan import refuse_if_too_large
    from lrmoclip.tuning import sweep

    sharding.join()
    bench.check(method)
    refuse_if_too_large(bench, method)
    set_threads(bench.scale["threads"]["train"])
    rows = sweep(bench, method)
    if sharding.place()[0] == 0:
        files.write_text(out, pd.DataFrame(rows).to_csv(index=False))


def learning_rates(sweeps: list[Path], out: Path) -> None:
    """Write the chosen rate of every base, domain and method, the sweeps themselves beside it."""
    import pandas as pd

    from lrmoclip.tables import read
    from lrmoclip.tuning import choose

    swept = pd.concat([read(path) for path in sweeps], ignore_index=True)
    files.write_text(Path(out).with_name("tuning.csv"), swept.to_csv(index=False))
    files.write_json(Path(out).with_name("tuning_provenance.json"), provenance.stamp())
    files.write_text(out, choose(swept).to_csv(index=False))


def timings(bench: Workbench, methods: list[str], out: Path) -> None:
    """Write the seconds of every method's step, of Stage 0 and of the Fisher, taken in turns of as
    many as the memory holds."""
    from lrmoclip import costs, sharding
    from lrmoclip.plan import timing_groups

    sharding.join()
    set_threads(bench.scale["threads"]["train"])
    groups = timing_groups(bench, methods)
    measured = costs.timings(bench, groups, bench.scale["timing"]["rounds"])
    if sharding.place()[0] == 0:
        files.write_json(out, measured)
