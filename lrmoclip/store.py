"""The candidate store: Stage 0's sets of every supervised position of a data file, with the hashes
of the base model, tokenizer and data that they belong to."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lrmoclip import files
from lrmoclip.candidates import Candidates
from lrmoclip.errors import UserError

TENSORS, MANIFEST = "candidates.safetensors", "manifest.json"
# What must be equal between a store and the run that reads it, in the words of an error.
BOUND = {"base": "base model", "tokenizer": "tokenizer", "data": "data file"}


@dataclass(frozen=True)
class CandidateStore:
    """Candidate sets in the order of the data file.

    candidates: one row a supervised position; records (R + 1,) int64: where the positions of each
    record begin; manifest: hashes, settings, statistics and provenance.
    """

    candidates: Candidates
    records: Tensor
    manifest: dict

    def batch(self, indices: list[int]) -> Candidates:
        """Sets of the supervised positions of the records `indices`, in that order."""
        index = torch.tensor(indices)
        starts, lengths = self.records[index], self.records.diff()[index]
        ends = lengths.cumsum(0)
        within = torch.arange(int(ends[-1])) - (ends - lengths).repeat_interleave(lengths)
        return self.candidates.select(starts.repeat_interleave(lengths) + within)

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all."""
        sets = self.candidates
        tensors = {
            "ids": sets.ids.to(torch.int32),
            "offsets": sets.offsets,
            "gold_forced": sets.gold_forced,
            "logp": sets.logp,
            "prob": sets.prob,
            "log_z": sets.log_z,
            "log_outside": sets.log_outside,
            "records": self.records,
        }
        with files.whole(folder) as temporary:
            temporary.mkdir()
            save_file(tensors, temporary / TENSORS)
            digest = files.sha256(temporary / TENSORS)
            files.write_json(temporary / MANIFEST, {**self.manifest, "sha256": digest})

    @classmethod
    def load(cls, folder: Path, bound: dict[str, str]) -> "CandidateStore":
        """Read a store and check that it is whole and belongs to `bound`, hashes of `base`,
        `tokenizer` and `data`. Raises UserError in one line otherwise."""
        folder = Path(folder)
        again = f"Delete {folder} and make it again: lrmoclip stage0"
        if not (folder / MANIFEST).is_file() or not (folder / TENSORS).exists():
            raise UserError(f"{folder}: no candidate store", "Make it first: lrmoclip stage0")
        manifest = files.read_json(folder / MANIFEST)
        for key, words in BOUND.items():
            if manifest.get(key) != bound[key]:
                raise UserError(
                    f"{folder}: candidate store made from another {words}",
                    "Name the store that belongs to this run, or make it again: lrmoclip stage0",
                )
        if files.sha256(folder / TENSORS) != manifest.get("sha256"):
            raise UserError(f"{folder / TENSORS}: damaged, its checksum differs", again)
        try:
            tensors = load_file(folder / TENSORS)
            records = tensors.pop("records")
            candidates = Candidates(**{**tensors, "ids": tensors["ids"].long()})
        except (SafetensorError, KeyError, TypeError) as error:
            raise UserError(f"{folder / TENSORS}: damaged ({error})", again) from None
        return cls(candidates, records, manifest)
