"""How many tokens a scale's jobs read and write: from its records where they are there, else from
the averages that its config states under `plan`, else from those of the published sets below."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lrmoclip.config.scale import Scale
from lrmoclip.core.artefacts import MANIFEST, Folder
from lrmoclip.core.errors import UserError
from lrmoclip.cost.footprint import Part, Shape, shape_of, shape_of_checkpoint
from lrmoclip.data import records
from lrmoclip.data.batches import PLAIN, Encoded, encode

LONGEST = 3.0  # times the mean, where nothing is known of the longest record

# Averages in tokens of SmolLM2's tokenizer, from samples of 400 items of each set; prompts of the
# tasks with examples from their sources. `forwards`: options that are scored apart.
PUBLISHED = {
    "telecom": {"records": 7875, "test": 2000, "prompt": 20, "answer": 10, "forwards": 4.7},
    "nl2sql": {"records": 535, "validation": 155, "test": 182, "prompt": 12, "answer": 57},
    "sqleval": {"records": 151, "test": 86, "prompt": 32, "answer": 69},
    "replay": {"records": 5000, "prompt": 60, "answer": 60},
    "mmlu": {"test": 14042, "validation": 1531, "prompt": 118, "answer": 1},
    "bbh": {"test": 6511, "prompt": 127, "answer": 64},
    "bbh_cot_fewshot": {"test": 6511, "prompt": 1031, "answer": 160},
    "gpqa": {"test": 448, "prompt": 250, "answer": 1},
    "math": {"test": 5000, "prompt": 750, "answer": 223},
    "arc_easy": {"test": 2376, "validation": 570, "prompt": 24, "answer": 4, "forwards": 4},
    "hellaswag": {"test": 10042, "prompt": 51, "answer": 30, "forwards": 4},
    "piqa": {"test": 1838, "prompt": 12, "answer": 22, "forwards": 2},
    "lambada": {"test": 5153, "prompt": 80, "answer": 1.4},
    "blimp": {"test": 13400, "prompt": 0, "answer": 10, "forwards": 2},
    "wikitext": {"test": 62, "validation": 60, "prompt": 0, "answer": 5035},
}
GENERATED = ("exact_match", "math_verify", "execution_accuracy")  # metrics of written answers


@dataclass(frozen=True)
class Load:
    """Training records of one set: how many, and per record the tokens fed, padding left out, and
    the supervised positions (mean); the longest of either; all lengths, if known."""

    records: int
    tokens: float
    supervised: float
    longest: float
    most_supervised: float
    lengths: tuple[int, ...] = ()

    @classmethod
    def of(cls, data: Encoded) -> "Load":
        lengths = sorted(len(ids) - 1 for ids in data.ids)
        supervised = data.supervised.tolist()
        return cls(
            len(lengths), sum(lengths) / len(lengths), sum(supervised) / len(lengths),
            lengths[-1], max(supervised), tuple(lengths),
        )  # fmt: skip

    @classmethod
    def stated(cls, said: dict) -> "Load":
        """From means of prompt and answer; the answer's end is a target, too."""
        tokens, supervised = said["prompt"] + said["answer"], said["answer"] + 1
        longest = said.get("longest", LONGEST * tokens)
        most = min(longest, supervised * longest / tokens)
        return cls(said["records"], tokens, supervised, longest, most)

    def padded(self, batch: int, bucketed: bool = False) -> float:
        """Expected length to which a batch drawn at random is padded, its own mean if bucketed.

        With all lengths known, the expectation of the largest of `batch` draws; else as if they
        had an exponential tail, in which it grows as log batch up to the longest record.
        """
        if bucketed or batch <= 1 or self.records <= 1:
            return self.tokens
        if not self.lengths:
            reach = min(1.0, math.log(batch) / math.log(self.records))
            return self.tokens + (self.longest - self.tokens) * reach
        n = len(self.lengths)
        return sum(
            length * (((place + 1) / n) ** batch - (place / n) ** batch)
            for place, length in enumerate(self.lengths)
        )

    def part(self, records: float, bucketed: bool = False) -> Part:
        """A forward pass over so many of these records."""
        batch = max(1, math.ceil(records))
        padded = self.padded(batch, bucketed)
        return Part(records, self.longest, padded, self.supervised, self.most_supervised)


@dataclass(frozen=True)
class Items:
    """Items of one benchmark: how many, passes an item, tokens of its prompt and of its answer (in
    the mean; `most` at most), and whether the answer is generated."""

    count: int
    forwards: float
    prompt: float
    answer: float
    most: int
    generated: bool


@dataclass(frozen=True)
class Workload:
    """What a scale's jobs work on. `root`: results/<scale>, whose data and base are read where they
    are there; None to go by what is stated."""

    scale: Scale
    root: Path | None = None
    _loads: dict[str, Load] = field(default_factory=dict, repr=False)
    _items: dict[tuple[str, str], Items] = field(default_factory=dict, repr=False)

    @cached_property
    def data(self) -> Folder | None:
        """The scale's data folder, if it is there."""
        folder = Path(self.root) / "data" if self.root else None
        return records.folder(folder) if folder and (folder / MANIFEST).exists() else None

    def shape(self, base: str) -> Shape:
        """Of a base: of its checkpoint, if it is there, else as the config describes it."""
        folder = Path(self.root) / base / "base" if self.root else None
        if folder and (folder / "config.json").exists():
            return shape_of_checkpoint(folder)
        return shape_of(self.scale.path, base, self.scale.base(base))

    def training(self, name: str) -> Load:
        """The training records of a domain, or of `replay`. Raises UserError where nothing is
        known of them."""
        if name not in self._loads:
            self._loads[name] = self._load(name)
        return self._loads[name]

    def _load(self, name: str) -> Load:
        train = records.split_of(name, "train")
        if self.data and train in self.data and self.tokenizer is not None:
            prompting = self.scale.settings.get("prompting", PLAIN)
            read = records.read(self.data.file(train), repeats=True)
            return Load.of(encode(read, self.tokenizer, prompting))
        said = self.stated(name)
        if "records" not in said:
            raise self._unknown(name)
        return replace(Load.stated(said), records=self._drawn(name, "train", said["records"]))

    def items(self, name: str, benchmark: dict, split: str = "test") -> Items:
        """The items of a domain or a general role in `split`; none where it has no such split."""
        if (name, split) not in self._items:
            self._items[name, split] = self._found(name, benchmark, split)
        return self._items[name, split]

    def _found(self, name: str, benchmark: dict, split: str) -> Items:
        file = records.split_of(benchmark["task"], split)
        there = self.data is not None and file in self.data
        if (
            self.data
            and not there
            and any(
                records.split_of(benchmark["task"], other) in self.data
                for other in ("train", "test")
            )
        ):
            return Items(0, 1, 0, 0, 0, False)
        written = benchmark["kind"] in ("generate", "sql") or benchmark["metric"] in GENERATED
        most = benchmark.get("max_new_tokens", self.scale["evaluation"]["max_new_tokens"])
        if there and benchmark["kind"] != "harness" and self.tokenizer is not None:
            return self._counted(records.read(self.data.file(file)), written, most)
        said = self.stated(name)
        if not {"prompt", "answer", "test"} <= set(said):
            raise self._unknown(name)
        count = self._drawn(name, split, said.get(split, 0))
        answer = min(said["answer"], most) if written else said["answer"]
        return Items(count, said.get("forwards", 1), said["prompt"], answer, most, written)

    @cached_property
    def tokenizer(self):
        """That of the first base: of its checkpoint, or the micro world's; None without either."""
        if self.scale["data"]["generator"] == "micro":
            from lrmoclip.data.micro import tokenizer as words

            return words.build(next(iter(self.scale["bases"].values()))["vocabulary"])
        from lrmoclip.models.checkpoints import folder, load_tokenizer

        root = Path(self.root or "")
        folders = [root / base / "base" for base in self.scale["bases"] if self.root]
        found = [folder(path) for path in folders if (path / MANIFEST).exists()]
        return load_tokenizer(found[0]) if found else None

    def _counted(self, items: list[dict], written: bool, most: int) -> Items:
        def mean(texts: list[str]) -> float:
            found = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            return sum(map(len, found)) / max(1, len(found))

        options = [option for item in items for option in item.get("choices", [])]
        answers = options or [item["answer"] for item in items]
        longest = max(len(self.tokenizer(item["answer"])["input_ids"]) for item in items) + 1
        return Items(
            count=len(items),
            forwards=len(options) / len(items) if options else 1,
            prompt=mean([item["prompt"] for item in items]),
            answer=min(mean(answers) + 1, most) if written else mean(answers),
            most=min(most, longest) if written else most,
            generated=written,
        )

    def stated(self, name: str) -> dict:
        """What the config, else this module, says of a set: averages in tokens, counts."""
        own = self.scale.settings.get("plan", {}).get(name, {})
        drawn = self.scale["data"].get("general", {}).get(name) or {}
        return PUBLISHED.get(drawn.get("tasks"), PUBLISHED.get(name, {})) | own

    def _drawn(self, name: str, split: str, stated: int) -> int:
        """Records of a split: of the manifest, else those the config draws, else all."""
        sets = self.data.about.get("sets", {}) if self.data else {}
        if "records" in (found := sets.get(name, {}).get(split, {})):
            return found["records"]
        sizes = self.scale["data"]
        if name == "replay":
            return sizes.get("replay", stated)
        drawn = {**sizes.get("domains", {}), **sizes.get("general", {})}.get(name) or {}
        return drawn.get(split, stated)

    def _unknown(self, name: str) -> UserError:
        return UserError(
            f"{self.scale.path}: plan.{name}: nothing is known of its records",
            "State plan.<set>: {records, test, prompt, answer}, or make the data first",
        )
