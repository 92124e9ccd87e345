"""A scale: its YAML file, typed, with the methods that it names, and what was chosen of it.

Paths in a file are relative to the file's own folder."""

import csv
import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from lrmoclip.config.parts import (
    CONTEXT,
    Averages,
    Base,
    Benchmark,
    Data,
    Domain,
    Evaluation,
    Ewc,
    Prompting,
    Scratch,
    Stage0,
    Stage1,
    Study,
    Threads,
    Timing,
    Tuning,
)
from lrmoclip.core import files
from lrmoclip.core.errors import UserError
from lrmoclip.edge.typed import Count, Name, Text, Typed, fault, read_yaml, refuse_repeats
from lrmoclip.methods import Method, MethodsFile, Need

# Names become folders and files below results/, beside these.
TAKEN = {"data", "own", "logs", "figures", "reference", "speed"}
ScaleName = Annotated[str, Field(pattern=r"^[a-z0-9]+$")]
BaseName = Annotated[str, Field(pattern=r"^[a-z0-9]+([.-]+[a-z0-9]+)*$", max_length=60)]
RunSeed = Annotated[int, Field(ge=1, lt=2**31)]
Key = tuple[str, str, str]  # base, domain, method


class Choice(NamedTuple):
    """What tuning chose of a method: its rate, and the point with the settings of its knobs."""

    lr: float
    point: Method


class Scale(Typed):
    """One scale of the study, as its file says and as it was chosen.

    methods, seeds, chosen_domains: those that run (of the domains, all that are not optional, where
    nothing was chosen). gpus: of one run, sharded by FSDP2, 0 for a CPU. precision: of forward
    passes (auto: what the device is fast in); weights stay float32. plan: of sets, what is planned
    with before they are there. points: every known method. path: of the user's file. data_dir: of
    published data. replicates: bases that are another one made anew, from another seed: they have
    its choices, and run in the study alone.
    """

    scale: ScaleName
    methods_file: Text | None = None
    data: Data
    bases: Annotated[dict[BaseName, Base], Field(min_length=1)]
    general: Annotated[dict[Name, Benchmark], Field(min_length=1)]
    domains: Annotated[dict[Name, Domain], Field(min_length=1)]
    methods: Annotated[list[Name], Field(min_length=1)]
    seeds: Annotated[list[RunSeed], Field(min_length=1)]
    seeds_per_job: Count
    stage0: Stage0
    stage1: Stage1
    ewc: Ewc
    evaluation: Evaluation
    tuning: Tuning
    learning_rates: Text
    timing: Timing
    threads: Threads
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    prompting: Prompting = Prompting()
    gpus: Annotated[int, Field(ge=0, le=4096)] = 0
    plan: dict[Name, Averages] = Field(default_factory=dict)
    chosen_domains: list[Name] = Field(default_factory=list)
    points: dict[Name, Method] = Field(default_factory=dict)
    path: Path = Field(Path("scale"), strict=False)
    data_dir: Text | None = None
    replicates: dict[BaseName, BaseName] = Field(default_factory=dict)
    study: Study | None = None

    @model_validator(mode="after")
    def _fits_together(self):
        for name in (self.scale, *self.bases):
            if name in TAKEN:
                raise ValueError(f"{name!r} names another folder of the results. Choose another")
        for name, other in self.replicates.items():
            for base in (name, other):
                if base not in self.bases or other in self.replicates:
                    raise ValueError(f"replicates.{name}: {base!r} is no base of its own. Mend it")
        refuse_repeats("methods", self.methods)
        refuse_repeats("seeds", self.seeds)
        for name, domain in self.domains.items():
            if domain.folder is not None and domain.task != name:
                raise ValueError(f"domains.{name}: task {domain.task}. Name it {name}, as its data")
        if any(isinstance(base, Scratch) for base in self.bases.values()):
            for where in (self.evaluation, *self.general.values(), *self.domains.values()):
                if (most := where.max_new_tokens) and most >= CONTEXT:
                    raise ValueError(
                        f"max_new_tokens {most}: a base trained here reads {CONTEXT} tokens, with "
                        "the prompt. Lower it"
                    )
        return self

    @property
    def name(self) -> str:
        return self.scale

    @property
    def domains_to_run(self) -> list[str]:
        return self.chosen_domains or [n for n, found in self.domains.items() if not found.optional]

    @property
    def bases_to_run(self) -> list[str]:
        return [name for name in self.bases if name not in self.replicates]

    @property
    def in_study(self) -> list[str]:
        """The methods of the study, by their names at their budgets; none without a study."""
        if self.study is None:
            return []
        others = [b for b in self.tuning.budgets if b != self.tuning.budget]
        more = [self.at_budget(m, b) for b in others for m in self.study.at_budgets]
        return [*self.study.methods, *more]

    def run_settings(self, point: Method, lr: float) -> str:
        """Hash of everything in the config that the weights of a run follow from."""
        parts = [self.stage1, point.identity, lr, self.precision, self.prompting]
        if Need.STORE in point.needs:
            parts.append(self.stage0)
        if Need.FISHER in point.needs:
            parts.append(self.ewc)
        return fingerprint(parts)

    def method(self, name: str) -> Method:
        hint = "The base model is always there and is not trained; do not list it"
        return self._known("method", name, self.points, hint if name == "base" else "")

    def to_run(self, name: str) -> Method:
        """`method`; raises UserError where it, or a setting of its knobs that is tried here, would
        read wider sets than this scale's Stage 0."""
        point = self.method(name)
        for settings in [{}, *(point.tried if self.tuning.settings > 1 else [])]:
            try:
                point.at(settings).objective.narrowed(self.stage0.model_dump())
            except ValueError as error:
                place = f"{self.methods_path}: methods.{name}.objective"
                raise UserError(f"{place}.{error}") from None
        return point

    def base(self, name: str) -> BaseModel:
        return self._known("base", name, self.bases)

    def domain(self, name: str) -> Domain:
        return self._known("domain", name, self.domains)

    def _known(self, what: str, name: str, table: dict[str, Any], hint: str = "") -> Any:
        if name not in table:
            raise UserError(
                f"{self.path}: unknown {what} {name!r}", hint or f"Known: {', '.join(table)}"
            )
        return table[name]

    def at_budget(self, method: str, budget: float) -> str:
        """The name of a method as it was chosen at a budget; its own at that of the tables."""
        return method if budget == self.tuning.budget else f"{method}_b{budget:g}".replace(".", "p")

    def chosen(self, base: str, domain: str, method: str) -> Choice:
        """What tuning chose; raises UserError where the kept file has nothing."""
        base = self.replicates.get(base, base)
        if (base, domain, method) not in self._choices:
            raise UserError(
                f"{self.rates_path}: no learning rate for base {base}, domain {domain}, method "
                f"{method}",
                "Tune and keep it: .venv/bin/snakemake --cores all tuning keep --config "
                f"scales={os.path.relpath(self.path)} methods={method}",
            )
        lr, settings = self._choices[base, domain, method]
        try:
            return Choice(lr, self.method(method).at(settings))
        except (ValidationError, KeyError, TypeError) as error:
            said = " ".join(fault(error)) if isinstance(error, ValidationError) else repr(error)
            raise UserError(
                f"{self.rates_path}: settings of {base} {domain} {method}: {said}",
                "Tune it again",
            ) from None

    def point(self, base: str, domain: str, method: str) -> Method:
        """The method as tuning chose it, or as methods.yaml has it where nothing was tuned."""
        base = self.replicates.get(base, base)
        known = (base, domain, method) in self._choices
        return self.chosen(base, domain, method).point if known else self.method(method)

    @cached_property
    def _choices(self) -> dict[Key, tuple[float, dict]]:
        return _read_choices(self.rates_path, self.name) if self.rates_path.exists() else {}

    @property
    def methods_path(self) -> Path:
        return self.path.parent / self.methods_file if self.methods_file else self.path

    @property
    def rates_path(self) -> Path:
        return (self.path.parent / self.learning_rates).resolve()


def load(path: Path) -> Scale:
    """A scale from its file, or from a `resolved` one, with the methods that it knows.

    Raises UserError with file, key and what is allowed for the first thing that is wrong.
    """
    path = Path(path)
    scale = read_yaml(path, Scale)
    if not scale.points:
        if scale.methods_file is None:
            raise UserError(f"{path}: no key 'methods_file'", "Name the file of the methods")
        points = read_yaml(path.parent / scale.methods_file, MethodsFile).methods
        scale = scale.model_copy(update={"path": path})
        scale = scale.model_copy(update={"points": _at_budgets(points, scale)})
    for name in dict.fromkeys([*scale.methods, *(scale.study.methods if scale.study else [])]):
        scale.to_run(name)
    for name, point in scale.points.items():
        if scale.tuning.settings > 1 and len(point.tried) not in (1, scale.tuning.settings):
            raise UserError(
                f"{scale.methods_path}: methods.{name}.knobs: {len(point.tried)} settings, not the "
                f"{scale.tuning.settings} of tuning.settings in {path}",
                "Every method has as many: list two values of two knobs, or more of one",
            )
    return scale


def _at_budgets(points: dict[str, Method], scale: Scale) -> dict[str, Method]:
    """The points and, of each, one at every other budget than that of the tables."""
    others = [budget for budget in scale.tuning.budgets if budget != scale.tuning.budget]
    more = {
        scale.at_budget(name, budget): point.model_copy(
            update={"label": f"{point.label}, at a loss of {budget:g}", "knobs": {}}
        )
        for name, point in points.items()
        for budget in others
    }
    if both := points.keys() & more.keys():
        raise UserError(f"{scale.path}: {min(both)} is a method's name at a budget", "Rename it")
    return points | more


def resolved(scale: Scale) -> str:
    """The text of a file from which `load` gives the same scale: what was chosen, every default."""
    content = scale.model_dump(mode="json", by_alias=True, exclude={"methods_file"})
    # From here, so that a folder that is moved keeps what was chosen in it.
    content["path"] = os.path.relpath(scale.path)
    head = f"# What runs of {scale.path.name}, as it was chosen; made anew by each call.\n"
    return head + yaml.safe_dump(content, sort_keys=False)


def write_chosen(scales: dict[str, Scale], path: str) -> None:
    """Write what was chosen of each scale to its `path` (a name with {scale}); a file that says so
    already keeps its time, by which what depends on the choice is known to be done."""
    for scale in scales.values():
        target, text = Path(path.format(scale=scale.name)), resolved(scale)
        if not target.is_file() or files.read_text(target) != text:
            files.write_text(target.with_suffix(".new"), text)
            target.with_suffix(".new").replace(target)


def fingerprint(value: Any) -> str:
    """Short hash of settings, the same for equal content."""

    def plain(part: Any) -> Any:
        return part.model_dump(mode="json", by_alias=True)

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_choices(path: Path, scale: str) -> dict[Key, tuple[float, dict]]:
    """By base, domain and method the rate and the settings of the knobs, in a file of an earlier
    version none."""
    choices: dict[Key, tuple[float, dict]] = {}
    rows = csv.DictReader(files.read_text(path).splitlines())
    for number, row in enumerate(rows, start=2):
        place, again = f"{path}, line {number}", "Restore it or tune again"
        try:
            key, lr = (row["base"], row["domain"], row["method"]), float(row["lr"])
            settings = dict(json.loads(row.get("settings") or "{}"))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{place}: broken ({error!r})", again) from None
        if row.get("scale", scale) != scale:
            raise UserError(f"{place}: of the scale {row['scale']!r}, not {scale!r}", again)
        if not 0 < lr < 1:
            raise UserError(f"{place}: broken (learning rate {lr})", again)
        if key in choices:
            raise UserError(f"{place}: a second rate of {' '.join(key)}", "Keep one of them")
        choices[key] = lr, settings
    return choices
