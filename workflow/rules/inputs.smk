# What rules take: files and folders, by what was chosen.
from lrmoclip.cli.batches import batches, named, seeds_of, timed
from lrmoclip.methods import Need
from lrmoclip.models import bases
from lrmoclip.report.kinds import SCORED, TRAINED


def data_of(wildcards):
    """The folders that hold the records of a domain, and general ones."""
    domain = scale_of(wildcards).domains.get(wildcards.domain)  # none of the sample `replay`
    root = f"results/{wildcards.scale}"
    own = [f"{root}/own/{wildcards.domain}"] if domain and domain.folder else []
    return [f"{root}/data", *own]


def needed_files(wildcards, methods):
    """What methods need beside base and data, by need."""
    root = f"results/{wildcards.scale}/{wildcards.base}"
    places = {
        Need.STORE: f"{root}/{wildcards.domain}/stage0",
        Need.GENERAL_STORE: f"{root}/replay/stage0",
        Need.FISHER: f"{root}/fisher.safetensors",
    }
    needs = set().union(*(scale_of(wildcards).method(method).needs for method in methods))
    return {need.value: path for need, path in places.items() if need in needs}


def needed_by_method(wildcards):
    return needed_files(wildcards, [wildcards.method])


def as_options(wildcards, input):
    """The words of a command line that name what `needed_files` found."""
    names = [need.value for need in Need if need.value in input.keys()]
    return [word for name in names for word in (f"--{name.replace('_', '-')}", input[name])]


def folders(wildcards):
    """The folder of each seed of a job."""
    root = METHOD.format(**wildcards)
    return [f"{root}/seed{seed}" for seed in seeds_of(wildcards.seeds)]


def jobs_of(kind, scale, seeds, **place):
    """The files that jobs of `kind` leave which have to do with these seeds of a method."""
    root = METHOD.format(scale=scale.name, **place)
    found = batches(Path(root), kind, seeds, scale.seeds_per_job)
    return [f"{root}/{kind}.{named(several)}.json" for several in found]


def files_of_runs(scale):
    """What the tables of a scale are made from, by kind."""
    root = f"results/{scale.name}"
    found = {"base": [], "scored": [], "timed": []}
    for base, domain in [(b, d) for b in scale.bases_to_run for d in scale.domains_to_run]:
        found["base"].append(f"{root}/{base}/{domain}/base/seed0/metrics.json")
        for method in scale.methods:
            place = dict(base=base, domain=domain, method=method)
            # The trained ones are named, so that one that is lost is made again.
            for kind in (TRAINED, SCORED):
                found["scored"] += jobs_of(kind, scale, scale.seeds, **place)
        numbers = timed(Path(f"{root}/{base}/{domain}"), scale.methods)
        found["timed"] += [f"{root}/{base}/{domain}/timings.{n}.json" for n in numbers]
    return found


# What a user's own domains are made from, so that other records there are other data.
def own_records(wildcards):
    scale = scale_of(wildcards)
    folder = scale.path.parent / scale.domain(wildcards.domain).folder
    return sorted(map(str, [*folder.glob("*.jsonl"), *folder.glob("databases/*.sqlite")]))


def own_model(wildcards):
    """The files of a base that is in a folder of the user's: another model there is another base."""
    folder = bases.source(scale_of(wildcards), wildcards.base)
    kinds = ("*.json", "*.safetensors") if folder else ()
    return sorted(str(path) for kind in kinds for path in folder.glob(kind))


# The base's general scores are the same for every domain: those of the domain that was scored
# first are taken over, wherever it stands in the config now.
def general_scores(wildcards):
    root = Path("results") / wildcards.scale / wildcards.base
    files = [root / domain / "base/seed0/metrics.json" for domain in scale_of(wildcards).domains]
    scored = [path for path in files if path.exists()]
    first = min(scored, key=lambda path: path.stat().st_mtime_ns) if scored else files[0]
    return {} if root / wildcards.domain in first.parents else {"general": [str(first)]}


def trained(wildcards):
    """The jobs that train what a job scores."""
    place = {key: wildcards[key] for key in ("base", "domain", "method")}
    return jobs_of(TRAINED, scale_of(wildcards), seeds_of(wildcards.seeds), **place)


def methods_timed(wildcards):
    folder = Path("results") / wildcards.scale / wildcards.base / wildcards.domain
    return timed(folder, scale_of(wildcards).methods)[int(wildcards.n)]


def all_data(wildcards):
    scale, root = scale_of(wildcards), f"results/{wildcards.scale}"
    own = [name for name in scale.domains_to_run if scale.domain(name).folder]
    return [f"{root}/data", *(f"{root}/own/{name}" for name in own)]


def files_of_study(scale):
    """What the claims of a scale are decided from, by kind."""
    root, found = f"results/{scale.name}", {"base": [], "scored": [], "sweeps": []}
    for domain in scale.domains_to_run:
        for base in scale.bases:
            found["base"].append(f"{root}/{base}/{domain}/base/seed0/metrics.json")
            for method in scale.in_study:
                place = dict(base=base, domain=domain, method=method)
                for kind in (TRAINED, SCORED):
                    found["scored"] += jobs_of(kind, scale, scale.study.seeds, **place)
        for base in scale.bases_to_run:
            sweeps = [f"{root}/{base}/{domain}/{m}/tuning.csv" for m in scale.study.methods]
            found["sweeps"] += sweeps
    return found
