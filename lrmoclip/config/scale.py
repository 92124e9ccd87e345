"""A scale's configuration: YAML, typed by `lrmoclip.config.schema`.

Paths in a config are relative to the config's own folder."""

import csv
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lrmoclip.config.schema import MethodsFile, ScaleFile
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import read_yaml

# What `--config` may say.
CHOICES = ("scales", "methods", "seeds", "domains", "data_dir")


@dataclass(frozen=True)
class Scale:
    """A validated scale. `settings` is the YAML's content, `methods` maps names to their five axes
    (and `label`)."""

    path: Path
    settings: dict
    methods: dict[str, dict]

    @property
    def name(self) -> str:
        return self.settings["scale"]

    def __getitem__(self, key: str):
        return self.settings[key]

    def method(self, name: str) -> dict:
        if name not in self.methods:
            hint = f"Known methods: {', '.join(self.methods)}"
            if name == "base":
                hint = "The base model is always there and is not trained; do not list it"
            raise UserError(f"{self.path}: unknown method {name!r}", hint)
        return self.methods[name]

    def base(self, name: str) -> dict:
        return _known(self.path, "base", name, self["bases"])

    def domain(self, name: str) -> dict:
        return _known(self.path, "domain", name, self["domains"])

    def learning_rate(self, base: str, domain: str, method: str) -> float:
        """The tuned rate; raises UserError where the kept file has none."""
        if (base, domain, method) not in self._learning_rates:
            raise UserError(
                f"{self._rates_path}: no learning rate for base {base}, domain {domain}, method "
                f"{method}",
                "Tune it first: .venv/bin/snakemake --cores all tuning",
            )
        return self._learning_rates[base, domain, method]

    @cached_property
    def _learning_rates(self) -> dict[tuple[str, str, str], float]:
        if not self._rates_path.exists():
            return {}
        rows = list(csv.DictReader(files.read_text(self._rates_path).splitlines()))
        rates: dict[tuple[str, str, str], float] = {}
        for number, row in enumerate(rows, start=2):
            place, again = f"{self._rates_path}, line {number}", "Restore it or tune again"
            try:
                key, lr = (row["base"], row["domain"], row["method"]), float(row["lr"])
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{place}: broken ({error!r})", again) from None
            if row.get("scale", self.name) != self.name:
                raise UserError(f"{place}: of the scale {row['scale']!r}, not {self.name!r}", again)
            if not 0 < lr < 1:
                raise UserError(f"{place}: broken (learning rate {lr})", again)
            if key in rates:
                raise UserError(f"{place}: a second rate of {' '.join(key)}", "Keep one of them")
            rates[key] = lr
        return rates

    @property
    def _rates_path(self) -> Path:
        return (self.path.parent / self["learning_rates"]).resolve()


def load(path: Path) -> Scale:
    """Read and validate a scale's config and the methods it names.

    Raises UserError with file, key and allowed values for the first thing that is wrong.
    """
    path = Path(path)
    settings = as_written(read_yaml(path, ScaleFile))
    methods_path = path.parent / settings["methods_file"]
    document = as_written(read_yaml(methods_path, MethodsFile))
    methods = {
        name: {**document["defaults"], **point} for name, point in document["methods"].items()
    }
    scale = Scale(path, settings, methods)
    for name in scale["methods"]:
        scale.method(name)
    for name, point in methods.items():
        _check_point(methods_path, name, point, scale["stage0"])
    return scale


def as_written(document) -> dict:
    """A checked file's content, without what it leaves to the defaults."""
    return document.model_dump(exclude_unset=True, by_alias=True)


def load_chosen(folder: Path, chosen: dict) -> dict[str, Scale]:
    """The scales that Snakemake's `--config` asks for, by name.

    chosen: `scales` (names of files in `folder`, or paths ending in .yaml; default micro),
    `methods` and `seeds`, which replace the lists of every scale, `domains`, without which the
    optional ones are left out, and `data_dir`, the folder of published data (of the rules alone).
    Lists are comma-separated.
    """
    if unknown := [key for key in chosen if key not in CHOICES]:
        raise UserError(
            f"--config: unknown key {unknown[0]}",
            f"Allowed keys: {', '.join(CHOICES)}",
        )
    scales = {}
    for name in _listed({"scales": "micro", **chosen}, "scales"):
        is_path = name.endswith(".yaml")
        path = Path(name) if is_path else folder / f"{name}.yaml"
        if not path.exists() or not (is_path or name in known(folder)):
            raise UserError(
                f"--config scales: unknown scale {name!r}", f"Known: {', '.join(known(folder))}"
            )
        scale = load(path)
        _choose_domains(scale, chosen)
        if "methods" in chosen:
            scale.settings["methods"] = _listed(chosen, "methods")
            for method in scale["methods"]:
                scale.method(method)
        if "seeds" in chosen:
            seeds = _listed(chosen, "seeds")
            # As they are written in a folder's name, so that each has one.
            if not all(re.fullmatch("[1-9][0-9]{0,8}", seed) for seed in seeds):
                raise UserError(
                    f"--config seeds: {chosen['seeds']!r}",
                    "Allowed: whole numbers from 1 to 999999999: 1,2,3",
                )
            scale.settings["seeds"] = [int(seed) for seed in seeds]
        scales[scale.name] = scale
    return scales


def known(folder: Path) -> list[str]:
    """The scales that have a file in `folder`."""
    texts = {path.stem: files.read_text(path) for path in sorted(folder.glob("*.yaml"))}
    return [name for name, text in texts.items() if f"\nscale: {name}\n" in text]


def _choose_domains(scale: Scale, chosen: dict) -> None:
    domains = scale["domains"]
    names = [name for name in domains if not domains[name].get("optional")]
    if "domains" in chosen:
        names = _listed(chosen, "domains")
    scale.settings["domains"] = {name: scale.domain(name) for name in names}


def needs_sets(method: dict) -> bool:
    """Whether a method reads the candidate store."""
    return method["objective"]["name"] != "full"


def _listed(chosen: dict, key: str) -> list[str]:
    parts = [part for part in str(chosen[key]).replace(" ", ",").split(",") if part]
    if not parts or len(set(parts)) < len(parts):
        raise UserError(
            f"--config {key}: {str(chosen[key])!r}", "Name each once, at least one: a,b,c"
        )
    return parts


def fingerprint(value) -> str:
    """Short hash of a JSON-serialisable value, the same for equal content."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_point(path: Path, name: str, point: dict, stage0: dict) -> None:
    """What a method's own file can't know: what Stage 0 collected bounds what it reads."""
    objective, place = point["objective"], f"{path}: methods.{name}.objective"
    for key in ("coverage", "k_max"):
        if objective.get(key, 0) > stage0[key]:
            raise UserError(
                f"{place}.{key}: {objective[key]} is wider than Stage 0's {stage0[key]}",
                f"Raise stage0.{key} in the scale's config",
            )
    if objective.get("k_max", stage0["k_min"]) < stage0["k_min"]:
        raise UserError(
            f"{place}.k_max: {objective['k_max']} is below Stage 0's k_min {stage0['k_min']}",
            "Raise k_max",
        )


def _known(path: Path, what: str, name: str, table: dict) -> dict:
    if name not in table:
        raise UserError(f"{path}: unknown {what} {name!r}", f"Known: {', '.join(table)}")
    return table[name]
