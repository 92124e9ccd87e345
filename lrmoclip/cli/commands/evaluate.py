"""Score checkpoints with lm-evaluation-harness."""

import time
from contextlib import ExitStack
from pathlib import Path

from lrmoclip.cli.options import add, add_data, add_scale, add_several, check_runs
from lrmoclip.config import Scale, fingerprint, load
from lrmoclip.config.parts import Benchmark
from lrmoclip.core.errors import UserError


def options(command) -> None:
    add_scale(command)
    add(command, "base", "domain", "method")
    add_data(command)
    add(command, "base-metrics", "general-from", "done", required=False)
    add_several(command, "models")
    add_several(command, "seeds", int)
    add_several(command, "outs", words="one folder a seed")


def run(config: Path, **given) -> None:
    evaluate(load(config), **given)


def evaluate(
    scale: Scale, base: str, domain: str, method: str, data: Path | list[Path], models: list[Path],
    outs: list[Path], seeds: list[int], base_metrics: Path | None = None,
    general_from: Path | None = None, done: Path | None = None,
) -> None:  # fmt: skip
    """Write metrics.json and samples.parquet into the folder of each seed; `done`, a JSON, when all
    are there. What is there already, of the same weights and settings and this version, stays.

    The base's metrics.json also says on which general benchmarks it is above chance. base_metrics:
    that file, for a method that is to be scored on those alone. general_from: metrics.json of the
    same base with another domain, whose general scores are taken over.
    """
    import pandas as pd
    import torch

    from lrmoclip.core import artefacts, provenance
    from lrmoclip.core.precision import chosen
    from lrmoclip.data import records
    from lrmoclip.evaluate import screening
    from lrmoclip.evaluate.harness import Evaluator
    from lrmoclip.models import checkpoints
    from lrmoclip.report.kinds import EVALUATION, METRICS_FILE, RUN, SAMPLES, SCORED

    check_runs(seeds, outs, models=models)
    scale.base(base)
    if method != "base":
        scale.method(method)
    torch.set_num_threads(scale.threads.evaluate)
    with ExitStack() as held:
        finished = held.enter_context(artefacts.loose(done, SCORED)) if done else None
        drafts = [
            held.enter_context(
                artefacts.loose(Path(out) / METRICS_FILE, EVALUATION, SAMPLES, within=RUN)
            )
            for out in outs
        ]
        folder, known = records.Data(data), None
        general = screening.with_data(scale.general, folder, "test")
        if base_metrics is not None:
            known = _evaluation(base_metrics, base)
            general = screening.worth_scoring(general, known.get("screening", {}))
        taken, taken_items = _general_scores(general_from, base, general)
        benchmarks = [*general.values(), scale.domain(domain)]
        scored = benchmarks[-1:] if taken else benchmarks
        made = provenance.stamp(
            config=fingerprint([benchmarks, scale.evaluation, scale.precision, scale.prompting]),
            data=fingerprint(folder.about["files"]),
            precision=chosen(scale.precision),
        )
        evaluator = None
        for path, seed, draft, out in zip(models, seeds, drafts, outs, strict=True):
            start, model = time.perf_counter(), checkpoints.folder(path)
            checkpoints.check_of(model, scale.name, base, domain, method, seed)
            of = {"scale": scale.name, "base": base, "domain": domain, "method": method}
            of |= {"seed": seed, "weights": model.digest(checkpoints.WEIGHTS)}
            if _is_there(Path(out), of, made):
                draft.give_up()
                print(f"{out}: scored already, of the same weights and this version")
                continue
            evaluator = evaluator or Evaluator.of(scale, scored, folder, "test")
            scores, items = evaluator.checkpoint(model)
            scores, items = taken + scores, taken_items + items
            wall_s = time.perf_counter() - start
            draft.about |= {**of, "rows": scores, "wall_s": wall_s, "provenance": made}
            if method == "base":
                draft.about["screening"] = screening.screen(scores, scale.general, folder.about)
            pd.DataFrame(items).to_parquet(draft.path / SAMPLES, index=False)
            draft.finish()
        if finished is not None:
            finished.about |= {"seeds": seeds}


def _is_there(out: Path, of: dict, made: dict) -> bool:
    """Whether a folder holds a whole evaluation `of` the same, and of the provenance `made`."""
    from lrmoclip.core import artefacts, files, provenance
    from lrmoclip.report.kinds import EVALUATION, METRICS_FILE, SAMPLES

    try:
        record = files.read_sealed(out / METRICS_FILE, EVALUATION)
        artefacts.check_digest(out / SAMPLES, record["files"][SAMPLES], "")
    except UserError:
        return False
    is_of = all(record.get(key) == value for key, value in of.items())
    return is_of and provenance.is_same(record["provenance"], made)


def _evaluation(path: Path, base: str) -> dict:
    """A base's metrics.json. UserError for another file, or one of another base."""
    from lrmoclip.core import files
    from lrmoclip.report.kinds import EVALUATION

    record = files.read_sealed(path, EVALUATION)
    if (record["base"], record["method"]) != (base, "base"):
        raise UserError(f"{path}: not of the base {base}", "Name the metrics.json of that base")
    return record


def _general_scores(
    path: Path | None, base: str, general: dict[str, Benchmark]
) -> tuple[list[dict], list[dict]]:
    """Rows and items of the general benchmarks in another metrics.json of the same base."""
    import pandas as pd

    from lrmoclip.core import artefacts
    from lrmoclip.report.kinds import SAMPLES

    if path is None:
        return [], []
    record, samples = _evaluation(path, base), Path(path).with_name(SAMPLES)
    artefacts.check_digest(samples, record["files"][SAMPLES], "Evaluate the base again")
    items = pd.read_parquet(samples).to_dict("records")
    tasks = {benchmark.task for benchmark in general.values()}
    rows, items = (
        [r for r in found if r["benchmark"] in tasks] for found in (record["rows"], items)
    )
    return rows, items
