"""The arrows of the workflow, one function each: read files, call the library, write files.

Paths always come from the caller; nothing here knows the workflow's layout."""

import json
import resource
import time
import warnings
from pathlib import Path

from lrmoclip import checkpoints, config, files, provenance
from lrmoclip.batches import collate, encode
from lrmoclip.config import Scale
from lrmoclip.errors import UserError
from lrmoclip.workbench import Workbench, base_fingerprint

WARNED = ["scale", "base", "domain", "method", "seed", "warning"]  # columns of warnings.csv


def data(scale: Scale, out: Path) -> None:
    """Write the scale's data sets."""
    from lrmoclip.micro import world

    world.write(out, scale["data"]["seed"], scale["data"]["sizes"])


def base(scale: Scale, base: str, data: Path, out: Path) -> None:
    """Pretrain a base model on the scale's text and save it with its tokenizer."""
    from lrmoclip.micro import tokenizer as words
    from lrmoclip.pretraining import new_model, pretrain

    set_threads(scale["threads"]["pretrain"])
    spec = scale.base(base)
    tokenizer = words.build(spec["vocabulary"])
    model = new_model(spec, tokenizer)
    text = encode(files.read_jsonl(Path(data) / "pretraining" / "train.jsonl"), tokenizer)
    losses = pretrain(model, text, spec)
    made = provenance.stamp(config=base_fingerprint(scale, base), seed=spec["seed"])
    with files.whole(out) as folder:
        folder.mkdir()
        checkpoints.save(folder, model, tokenizer, {**made, "last_loss": losses[-1]})


def stage0(bench: Workbench, out: Path) -> None:
    """Write the candidate store of the bench's training records; goes on where it was killed."""
    from lrmoclip.stage0 import collect, is_cold
    from lrmoclip.store import StoreWriter

    settings = bench.scale["stage0"]
    bound = {**bench.identity, "data": bench.data_hash(bench.domain)}
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
        collect(bench.model, bench.records, settings, writer)
    if words := is_cold(writer.statistics["gold_in_set"]):
        warnings.warn(f"{bench.domain}: {words}", stacklevel=1)


def fisher(bench: Workbench, out: Path) -> None:
    """Write the Fisher diagonal of the base model on general data, for EWC."""
    from safetensors.torch import save_file

    _ = bench.identity  # refused before the work, not after it
    set_threads(bench.scale["threads"]["train"])
    tensors = {name: value.cpu() for name, value in general_fisher(bench).items()}
    stamp = {**bench.identity, "provenance": json.dumps(provenance.stamp())}
    with files.whole(out) as temporary:
        save_file(tensors, temporary, metadata=stamp)


def general_fisher(bench: Workbench) -> dict:
    """The Fisher diagonal over the first `fisher_records` general records, one at a time."""
    import torch

    from lrmoclip.objectives import fisher_diagonal

    count = min(bench.scale["ewc"]["fisher_records"], len(bench.general))
    batches = (collate(bench.general, [i]).to(bench.model.device) for i in range(count))
    return fisher_diagonal(bench.model, batches, torch.Generator().manual_seed(0))


def train(bench: Workbench, method: str, seeds: list[int], outs: list[Path]) -> None:
    """Train one method with each seed; write model/, training.csv and run.json into its folder."""
    _check_numbers(seeds=seeds, outs=outs)
    bench.check(method)
    set_threads(bench.scale["threads"]["train"])
    for seed, out in zip(seeds, outs, strict=True):
        _train(bench, method, seed, Path(out))


def _train(bench: Workbench, method: str, seed: int, out: Path) -> None:
    import pandas as pd

    from lrmoclip.summary import run_summary
    from lrmoclip.training import train as train_run

    start, scale = time.perf_counter(), bench.scale
    lr = scale.learning_rate(bench.base, bench.domain, method)
    run = bench.run(method, lr, seed)
    log = train_run(run, bench.probe(method))
    made = provenance.stamp(
        config=config.fingerprint([scale["stage1"], scale.method(method), lr]),
        seed=seed,
        **bench.identity,
    )
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
        checkpoints.save(folder / "model", run.merged(), bench.tokenizer, made)
        files.write_text(folder / "training.csv", pd.DataFrame(log).to_csv(index=False))
        files.write_json(folder / "run.json", record)


def evaluate(
    scale: Scale, base: str, domain: str, method: str, data: Path, models: list[Path],
    outs: list[Path], seeds: list[int],
) -> None:  # fmt: skip
    """Score checkpoints of one method in one process; write metrics.json and samples.parquet into
    the folder of each seed."""
    import pandas as pd

    from lrmoclip.evaluation import Evaluator
    from lrmoclip.tasks import load_tasks

    _check_numbers(models=models, outs=outs, seeds=seeds)
    set_threads(scale["threads"]["evaluate"])
    settings = scale["evaluation"]
    benchmarks = [*scale["general"].values(), scale.domain(domain)]
    tasks = load_tasks(benchmarks, data, "test", settings)
    evaluator = Evaluator(tasks, "test", settings["batch_size"])
    for checkpoint, out, seed in zip(models, outs, seeds, strict=True):
        start = time.perf_counter()
        model = checkpoints.load_model(checkpoint)
        scores, items = evaluator(model, checkpoints.load_tokenizer(checkpoint))
        record = {
            "scale": scale.name, "base": base, "domain": domain, "method": method, "seed": seed,
            "rows": scores, "wall_s": time.perf_counter() - start,
            "provenance": provenance.stamp(config=config.fingerprint([benchmarks, settings])),
        }  # fmt: skip
        with files.whole(Path(out) / "samples.parquet") as temporary:
            pd.DataFrame(items).to_parquet(temporary, index=False)
        files.write_json(Path(out) / "metrics.json", record)


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


def tables(scale: Scale, runs: list[Path], timed: list[Path], out: Path) -> None:
    """Write metrics.csv, table1.csv, costs.csv, savings.csv, warnings.csv and provenance.json of
    one scale.

    runs: folders with metrics.json and, but for the base, run.json. timed: files of `timings`.
    """
    import pandas as pd

    from lrmoclip import costs
    from lrmoclip.tables import metrics_table, table1, to_csv

    by_domain = {(t["base"], t["domain"]): t for t in map(files.read_json, timed)}
    cost_rows, savings, warned = [], {}, []
    for folder in map(Path, runs):
        if not (folder / "run.json").exists():
            continue
        run = files.read_json(folder / "run.json")
        method = scale.method(run["method"])
        times = by_domain[run["base"], run["domain"]]
        evaluation_s = files.read_json(folder / "metrics.json")["wall_s"]
        cost_rows += costs.cost_rows(run, method, times, evaluation_s)
        if "full_ft" in times["step_s"]:
            key = (run["base"], run["domain"], run["method"])
            full = scale.method("full_ft")
            savings[key] = costs.saving_row(run, method, full, times, len(scale["seeds"]))
        warned += [{k: run[k] for k in WARNED[:-1]} | {"warning": w} for w in run["warnings"]]
    metrics = [Path(folder) / "metrics.json" for folder in runs]
    cost_table = pd.DataFrame(cost_rows)
    scores = table1(metrics, cost_table, scale.settings, scale["methods"])
    out = Path(out)
    files.write_text(out / "metrics.csv", to_csv(metrics_table(metrics)))
    files.write_text(out / "costs.csv", cost_table.to_csv(index=False))
    saved = pd.DataFrame(savings.values(), columns=costs.SAVINGS)
    files.write_text(out / "savings.csv", saved.to_csv(index=False))
    files.write_text(out / "warnings.csv", pd.DataFrame(warned, columns=WARNED).to_csv(index=False))
    made = provenance.stamp(
        config=config.fingerprint([scale.settings, scale.methods]), seeds=scale["seeds"]
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
    """Print table1.csv of the results folder and each scale's savings, and say where files are."""
    from lrmoclip import tables as library

    table = library.read(Path(results) / "table1.csv")
    print(library.show(table))
    for scale in table["scale"].unique():
        folder = Path(results) / scale
        print(library.savings(library.read(folder / "savings.csv")))
        print(library.warnings(library.read(folder / "warnings.csv")))
        print(f"Files: {folder}/{{table1,metrics,costs,savings,warnings}}.csv, {folder}/figures/")


def readme(reference: Path, into: Path) -> None:
    """Write the kept table 1 with its savings and the kept benchmarks as Markdown between their
    markers in the file `into`."""
    from lrmoclip import tables as library
    from lrmoclip.benchmarks.report import markdown

    micro = Path(reference) / "micro"
    table = library.markdown(library.read(micro / "table1.csv"))
    saved = library.savings(library.read(micro / "savings.csv"), "github")
    kept = sorted(Path(reference).glob("benchmarks*.csv"))  # one a device
    measured = "\n".join(markdown(library.read(path)) for path in kept)
    document = _between(files.read_text(into), "table 1", f"{table}\n{saved}", into)
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
