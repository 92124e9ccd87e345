"""Runs of methods: trained, scored, tuned, timed."""

import time
import warnings
from contextlib import ExitStack
from pathlib import Path

from lrmoclip.cli.commands.process import check_runs, peak_memory_mb, set_threads
from lrmoclip.config import scale as config
from lrmoclip.config.scale import Scale
from lrmoclip.core import artefacts, files, provenance
from lrmoclip.core.claims import partial_of
from lrmoclip.core.errors import UserError
from lrmoclip.data import records
from lrmoclip.models import checkpoints
from lrmoclip.report.evaluations import EVALUATION, METRICS_FILE, RECORD, RUN, SAMPLES
from lrmoclip.train.workbench import Workbench


def train(bench: Workbench, method: str, seeds: list[int], outs: list[Path]) -> None:
    """Train one method with each seed; write model/, training.csv and run.json into its folder.

    As one of several processes of a torchrun, train one shard of each. A run that died goes on from
    its last run state, kept beside its folder until the run is whole.
    """
    from lrmoclip.cost.plan import refuse_if_too_large
    from lrmoclip.train import sharding

    check_runs(seeds, outs)
    sharding.join()
    with ExitStack() as claimed:
        drafts = [
            claimed.enter_context(artefacts.folder(out, RUN)) if sharding.place()[0] == 0 else None
            for out in outs
        ]
        bench.check(method)
        refuse_if_too_large(bench, method)
        set_threads(bench.scale["threads"]["train"])
        for seed, out, draft in zip(seeds, outs, drafts, strict=True):
            _train(bench, method, seed, Path(out), draft)


def _train(
    bench: Workbench, method: str, seed: int, out: Path, draft: artefacts.Draft | None
) -> None:
    import pandas as pd

    from lrmoclip.train.run_state import Checkpoint
    from lrmoclip.train.summary import run_summary
    from lrmoclip.train.training import train as train_run

    start, scale = time.perf_counter(), bench.scale
    lr = scale.learning_rate(bench.base, bench.domain, method)
    bound = bench.bound(method, lr, seed)
    every = scale["stage1"].get("checkpoint_steps")
    checkpoint = Checkpoint(partial_of(out) / "state", bound, every)
    run = bench.run(method, lr, seed)
    log = train_run(run, bench.probe(method), checkpoint)
    model = run.merged()
    if draft is None:
        return
    made = provenance.stamp(**bound)
    summary = run_summary(log, bench.source(method), scale["stage1"])
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
        "peak_memory_mb": peak_memory_mb(), "devices": run.ranks,
        "weights": files.sha256(folder / checkpoints.WEIGHTS), "provenance": made,
    }  # fmt: skip
    files.write_sealed(draft.path / RECORD, RUN, record)
    draft.about |= of | made
    draft.finish()
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

    from lrmoclip.evaluate import screening
    from lrmoclip.evaluate.harness import Evaluator

    check_runs(seeds, outs, models=models)
    scale.base(base)
    if method != "base":
        scale.method(method)
    set_threads(scale["threads"]["evaluate"])
    with ExitStack() as claimed:
        drafts = [
            claimed.enter_context(artefacts.loose(Path(out) / METRICS_FILE, EVALUATION, SAMPLES))
            for out in outs
        ]
        folder, known = records.folder(data), None
        general = screening.with_data(scale["general"], folder, "test")
        if base_metrics is not None:
            known = _evaluation(base_metrics, base)
            general = screening.worth_scoring(general, known.get("screening", {}))
        taken, taken_items = _general_scores(general_from, base, general)
        benchmarks = [*general.values(), scale.domain(domain)]
        scored = benchmarks[-1:] if taken else benchmarks
        evaluator = Evaluator.of(scale, scored, folder, "test")
        for path, seed, draft in zip(models, seeds, drafts, strict=True):
            start, model = time.perf_counter(), checkpoints.folder(path)
            checkpoints.check_of(model, scale.name, base, domain, method, seed)
            scores, items = evaluator.checkpoint(model)
            scores, items = taken + scores, taken_items + items
            draft.about |= {
                "scale": scale.name, "base": base, "domain": domain, "method": method,
                "seed": seed, "weights": model.digest(checkpoints.WEIGHTS), "rows": scores,
                "wall_s": time.perf_counter() - start,
                "provenance": provenance.stamp(
                    config=config.fingerprint([benchmarks, scale["evaluation"]])
                ),
            }  # fmt: skip
            if method == "base":
                draft.about["screening"] = screening.screen(scores, scale["general"], folder.about)
            pd.DataFrame(items).to_parquet(draft.path / SAMPLES, index=False)
            draft.finish()


def _evaluation(path: Path, base: str) -> dict:
    """A base's metrics.json. UserError for another file, or one of another base."""
    record = files.read_sealed(path, EVALUATION)
    if (record["base"], record["method"]) != (base, "base"):
        raise UserError(f"{path}: not of the base {base}", "Name the metrics.json of that base")
    return record


def _general_scores(
    path: Path | None, base: str, general: dict[str, dict]
) -> tuple[list[dict], list[dict]]:
    """Rows and items of the general benchmarks in another metrics.json of the same base."""
    import pandas as pd

    if path is None:
        return [], []
    record, samples = _evaluation(path, base), Path(path).with_name(SAMPLES)
    artefacts.check_digest(samples, record["files"][SAMPLES], "Evaluate the base again")
    items = pd.read_parquet(samples).to_dict("records")
    tasks = {benchmark["task"] for benchmark in general.values()}
    rows, items = (
        [r for r in found if r["benchmark"] in tasks] for found in (record["rows"], items)
    )
    return rows, items


def tune(bench: Workbench, method: str, out: Path) -> None:
    """Write the validation scores of one method at every rate of the grid."""
    import pandas as pd

    from lrmoclip.cost.plan import refuse_if_too_large
    from lrmoclip.train import sharding
    from lrmoclip.train.tuning import sweep

    sharding.join()
    with ExitStack() as claimed:
        lead = sharding.place()[0] == 0
        draft = claimed.enter_context(artefacts.file(out, "tuning")) if lead else None
        bench.check(method)
        refuse_if_too_large(bench, method)
        set_threads(bench.scale["threads"]["train"])
        rows = sweep(bench, method)
        if draft is not None:
            table = pd.DataFrame(rows).to_csv(index=False)
            files.write_text(draft.path / Path(out).name, table)
            draft.about |= provenance.stamp()


def learning_rates(sweeps: list[Path], out: Path) -> None:
    """Write the chosen rate of every base, domain and method, the sweeps themselves beside it."""
    import pandas as pd

    from lrmoclip.report.tables import read
    from lrmoclip.train.tuning import SWEEP, choose

    out = Path(out)
    with artefacts.loose(
        out.with_name("tuning_provenance.json"), "learning rates", out.name, "tuning.csv"
    ) as made:
        swept = pd.concat([read(path, SWEEP) for path in sweeps], ignore_index=True)
        files.write_text(made.path / "tuning.csv", swept.to_csv(index=False))
        files.write_text(made.path / out.name, choose(swept).to_csv(index=False))
        made.about |= provenance.stamp()


def timings(bench: Workbench, methods: list[str], out: Path) -> None:
    """Write the seconds of every method's step, of Stage 0 and of the Fisher, taken in turns of as
    many as the memory holds."""
    from lrmoclip.cost import costs
    from lrmoclip.cost.plan import timing_groups
    from lrmoclip.train import sharding

    sharding.join()
    with ExitStack() as claimed:
        lead = sharding.place()[0] == 0
        draft = claimed.enter_context(artefacts.loose(out, costs.TIMINGS)) if lead else None
        set_threads(bench.scale["threads"]["train"])
        groups = timing_groups(bench, methods)
        measured = costs.timings(bench, groups, bench.scale["timing"]["rounds"])
        if draft is not None:
            draft.about |= measured
