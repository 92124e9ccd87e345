"""How much a scale's jobs read and write: by its records where they are there, else by the averages
that its config states under `plan`."""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean

from lrmoclip.config import Scale
from lrmoclip.config.parts import CONTEXT, Averages, PublishedData, Scratch
from lrmoclip.core.artefacts import MANIFEST
from lrmoclip.core.errors import UserError
from lrmoclip.data import records
from lrmoclip.data.batches import encode
from lrmoclip.models import checkpoints
from lrmoclip.models.shapes import Shape, shape_of, shape_of_checkpoint
from lrmoclip.train.memory import Rows
from lrmoclip.train.workbench import REPLAY

LONGEST = 3.0  # times the mean, where nothing is known of the longest record


@dataclass(frozen=True)
class Load:
    """Records of a split: how many; tokens fed and supervised positions of one, in the mean and at
    most; its options that are scored apart; all lengths in ascending order, where they are known.
    """

    records: int
    tokens: float
    supervised: float
    longest: float
    most_supervised: float
    options: float = 1.0
    lengths: tuple[int, ...] = ()

    def rows(self, count: float) -> Rows:
        """The largest forward pass over so many of them."""
        return Rows(min(count, self.records), self.longest, self.most_supervised)

    def padded(self, batch: int) -> float:
        """Tokens to which a record is padded in a batch drawn at random: the expected largest of so
        many lengths; the mean where they are not known."""
        n = len(self.lengths)
        chances = (((i + 1) / n) ** batch - (i / n) ** batch for i in range(n))
        expected = sum(length * p for length, p in zip(self.lengths, chances, strict=True))
        return expected or self.tokens


class Workload:
    """What a scale's jobs work on. root: results/<scale>, whose data and base are read where they
    are there. load(name, split="train"): the `Load` of a domain, of `replay`, or of a benchmark by
    its role; UserError where nothing is known of it."""

    def __init__(self, scale: Scale, root: Path | None = None) -> None:
        self.scale, self.root = scale, Path(root) if root else None
        self.benchmarks = {**scale.general, **scale.domains}
        self.load = cache(self._load)

    def steps(self, domain: str) -> int:
        """Of one run."""
        stage1 = self.scale.stage1
        return math.ceil(stage1.epochs * self.load(domain).records / stage1.batch_size)

    def shape(self, base: str) -> Shape:
        """Of a base: of its checkpoint, if it is there, else as the config describes it."""
        if folder := self._made(f"{base}/base"):
            return shape_of_checkpoint(folder)
        return shape_of(self.scale.path, base, self.scale.base(base))

    def _load(self, name: str, split: str = "train") -> Load:
        if read := self._read(name, split):
            data = encode(read, self._tokenizer, self.scale.prompting.chat_template)
            lengths, supervised = sorted(data.lengths), data.supervised.tolist()
            options = fmean(len(record.get("choices", "1")) for record in read)
            means, most = (fmean(lengths), fmean(supervised)), (lengths[-1], max(supervised))
            return Load(len(read), *means, *most, options, tuple(lengths))
        if name not in self.scale.plan:
            raise UserError(
                f"{self.scale.path}: plan.{name}: nothing is known of its records",
                "State plan.<set>: {records, test, prompt, answer}, or make the data first",
            )
        said = self.scale.plan[name]
        means = said.prompt + said.answer, said.answer + 1  # the answer's end is a target, too
        most = (LONGEST * mean for mean in means)
        return Load(self._count(name, split, said), *means, *most, said.options)

    def _count(self, name: str, split: str, said: Averages) -> int:
        """Records of a split: those that the config draws, else all, as it states."""
        data, drawn = self.scale.data, None
        if isinstance(data, PublishedData):
            sizes = {**data.domains, **data.general}.get(name)
            drawn = data.replay if name == REPLAY else getattr(sizes, split, None)
        return drawn or (said.records if split == "train" else getattr(said, split)) or 0

    def _read(self, name: str, split: str) -> list:
        """The records of a split; none where they, or a tokenizer, are not there."""
        task, folder = name, self._made("data")
        if split != "train":
            task = self.benchmarks[name].task
            if self.benchmarks[name].kind == "harness":
                return []
        file = records.split_of(task, split)
        if folder is None or self._tokenizer is None or file not in records.folder(folder):
            return []
        return records.read(records.folder(folder).file(file), repeats=name == REPLAY)

    def _made(self, name: str) -> Path | None:
        folder = self.root / name if self.root else None
        return folder if folder and (folder / MANIFEST).exists() else None

    @cached_property
    def _tokenizer(self):
        """That of the first base, None before it is there."""
        name, spec = next(iter(self.scale.bases.items()))
        if isinstance(spec, Scratch):
            from lrmoclip.data.micro import tokenizer as words

            return words.build(spec.vocabulary, CONTEXT)
        folder = self._made(f"{name}/base")
        return checkpoints.load_tokenizer(checkpoints.folder(folder)) if folder else None
