"""Which splits of which sets make a general benchmark, and lm-eval's variants of its task."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from lrmoclip.core.errors import UserError
from lrmoclip.data.published import adapters
from lrmoclip.data.published.sources import Fields, FromHub, Source

Made = TypeVar("Made")
Place = tuple[str, str]  # name and split, as `Source.records` takes them


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark is read.

    fields: what a record of the folder must have. document(record, family): lm-eval's document
    with our `id` and `task`. row(name, split): turns rows of the hub into records. validation:
    the split of validation documents; None where the test split alone has answers, and they are
    drawn from what the test subset left. lends: replay shares that split. fewshot: the split of
    lm-eval's examples. families: lm-eval's variants of the task, the default first.
    places(kind, split, family): what to read from a source.
    """

    folder: str
    fields: Fields
    document: Callable[[dict, str], dict]
    row: Callable[[str, str], FromHub]
    test: str = "test"
    validation: str | None = None
    lends: bool = False
    fewshot: str | None = None
    families: tuple[str, ...] = ("",)
    places: Callable[[str, str, str], list[Place]] | None = None
    strata: tuple[str, ...] = ("task",)  # fields that subsets are spread over
    options: Callable[[dict], int] | None = None
    unusable: Callable[[dict], str] = lambda record: ""  # why a record is left out, if it is


def records(source: Source, role: str, split: str, family: str = "") -> list[dict]:
    """The folder's records of one split of a benchmark. Raises sources.Missing, UserError."""
    benchmark = BENCHMARKS[role]
    places = [(benchmark.folder, split)]
    if benchmark.places is not None:
        places = benchmark.places(source.holder(benchmark.folder).kind, split, family)
    return [
        record
        for name, part in places
        for record in source.records(name, part, benchmark.fields, benchmark.row(name, part))
    ]


def converted(role: str, record: dict, convert: Callable[[dict], Made]) -> Made:
    """convert(record). Raises UserError where its values do not fit one another."""
    try:
        if "choices" in record and not 0 <= record["answer"] < len(record["choices"]):
            raise ValueError(f"answer {record['answer']} of {len(record['choices'])} choices")
        return convert(record)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{BENCHMARKS[role].folder}, record {record['id']}: not a record of {role} ({error})",
            "Copy the data folder again",
        ) from None


def lent(found: list[dict]) -> tuple[list[dict], list[dict]]:
    """A split as (a quarter for validation, three quarters for replay)."""
    return found[::4], [record for number, record in enumerate(found) if number % 4]


def documents(
    source: Source, role: str, split: str, family: str
) -> tuple[list[dict], dict[str, int]]:
    """lm-eval's documents of one split, task by task, and how many records were left out, by
    reason. Raises sources.Missing, UserError."""
    benchmark = BENCHMARKS[role]
    left_out: Counter[str] = Counter()
    made = []
    found = records(source, role, split, family)
    if benchmark.lends and split == benchmark.validation:
        found, kept = lent(found)
        left_out["kept for replay"] = len(kept)
    for record in found:
        if reason := benchmark.unusable(record):
            left_out[reason] += 1
            continue
        made.append(converted(role, record, lambda one: benchmark.document(one, family)))
    return sorted(made, key=lambda document: document["task"]), dict(left_out)


def family_of(role: str, wanted: Mapping) -> str:
    """The variant of lm-eval's task that `tasks` names in a role's settings, or the default."""
    families = BENCHMARKS[role].families
    family = wanted.get("tasks", families[0])
    if family not in families:
        raise UserError(
            f"data.general.{role}.tasks: no {family}",
            f"Use one of {', '.join(families)}" if families[0] else "Leave it out",
        )
    return family


def chance(role: str, documents: list[dict]) -> float | None:
    """Mean of 1 / options over documents, 0 for a free answer; None where no choice is made."""
    options = BENCHMARKS[role].options
    if options is None or not documents:
        return None
    counts = [options(document) for document in documents]
    return sum(1 / count if count else 0.0 for count in counts) / len(counts)


def _variants(folder: str) -> list[str]:
    """The sub-tasks in a folder of lm-eval's task definitions, by name."""
    spec = find_spec("lm_eval")
    found = Path(spec.submodule_search_locations[0], "tasks", folder).glob("[!_]*.yaml")
    return sorted(path.stem for path in found)


def _hub_parts(make: Callable[[str], list[Place]], folder: str):
    """Places of a set that is one file in the folder and many configurations on the hub."""
    return lambda kind, split, family: make(split) if kind == "hub" else [(folder, split)]


BENCHMARKS: dict[str, Benchmark] = {
    "mmlu": Benchmark(
        folder="mmlu",
        fields={"id": str, "subject": str, "question": str, "choices": list, "answer": int},
        document=adapters.mmlu,
        row=adapters.mmlu_row,
        validation="validation",
        lends=True,
        fewshot="dev",
        options=lambda document: len(document["choices"]),
    ),
    "bbh": Benchmark(
        folder="bbh",
        fields={"id": str, "input": str, "target": str},
        document=adapters.bbh,
        row=adapters.bbh_row,
        families=("bbh_zeroshot", "bbh_cot_fewshot", "bbh_cot_zeroshot", "bbh_fewshot"),
        places=lambda kind, split, family: [("bbh", task) for task in _variants("bbh/zeroshot")],
        options=adapters.bbh_options,
    ),
    "gpqa": Benchmark(
        folder="gpqa",
        fields={"id": str, **dict.fromkeys(adapters.GPQA, str)},
        document=adapters.gpqa,
        row=adapters.gpqa_row,
        families=tuple(
            f"gpqa_{part}_{form}"
            for form in ("zeroshot", "n_shot", "cot_zeroshot", "cot_n_shot", "generative_n_shot")
            for part in ("main", "diamond", "extended")
        ),
        places=lambda kind, split, family: [("gpqa", "_".join(family.split("_")[:2]))],
        options=lambda document: 4,
    ),
    "math": Benchmark(
        folder="math",
        fields={"id": str, "problem": str, "solution": str, "level": str, "type": str},
        document=adapters.math,
        row=adapters.math_row,
        validation="train",
        lends=True,
        families=("hendrycks_math", "minerva_math"),
        places=_hub_parts(
            lambda split: [(f"math/{n}", split) for n, _ in adapters.MATH.values()], "math"
        ),
        strata=("task", "level"),
        unusable=adapters.math_unusable,
    ),
    "arc_easy": Benchmark(
        folder="easy/arc_easy",
        fields={"id": str, "question": str, "choices": list, "answer": int},
        document=adapters.arc,
        row=adapters.arc_row,
        validation="validation",
        options=lambda document: len(document["choices"]["text"]),
    ),
    "hellaswag": Benchmark(
        folder="easy/hellaswag",
        fields={"id": str, "context": str, "choices": list, "answer": int},
        document=adapters.hellaswag,
        row=adapters.hellaswag_row,
        test="validation_subset",  # the test split's answers are not published
        options=lambda document: len(document["endings"]),
    ),
    "piqa": Benchmark(
        folder="easy/piqa",
        fields={"id": str, "goal": str, "choices": list, "answer": int},
        document=adapters.piqa,
        row=adapters.piqa_row,
        test="validation",  # as above
        options=lambda document: 2,
    ),
    "lambada": Benchmark(
        folder="easy/lambada",
        fields={"id": str, "context": str, "target": str},
        document=adapters.lambada,
        row=adapters.lambada_row,
    ),
    "blimp": Benchmark(
        folder="easy/blimp",
        fields={"id": str, "good": str, "bad": str, "uid": str},
        document=adapters.blimp,
        row=adapters.blimp_row,
        test="subset",
        places=_hub_parts(
            lambda split: [("easy/blimp", uid) for uid in _variants("blimp")], "easy/blimp"
        ),
        options=lambda document: 2,
    ),
    "wikitext": Benchmark(
        folder="easy/wikitext2",
        fields={"id": str, "text": str},
        document=adapters.wikitext,
        row=adapters.wikitext_row,
        validation="validation",
        lends=True,
    ),
}
