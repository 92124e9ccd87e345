"""The candidate store: Stage 0's sets of every supervised position of a data file, as a folder of
shards and a manifest with the hashes of the base model, tokenizer and data that they belong to.

A store is written beside its folder, shard by shard, and renamed when it is whole. Its bytes depend
on what is stored alone: no time of day, and cuts at fixed places, so that a writer that was killed
goes on where it stopped and ends in the same bytes."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lrmoclip.core import files, shards
from lrmoclip.core.arguments import check_tensor, check_type, whole_numbers
from lrmoclip.core.artefacts import MANIFEST, check_folder
from lrmoclip.core.candidates import Candidates, check_setting, offsets_of, ranges
from lrmoclip.core.errors import UserError
from lrmoclip.core.holding import Hold, is_about_writing, partial_of, unwritable
from lrmoclip.core.shards import Shard
from lrmoclip.core.tally import Tally

KIND, FORMAT = "store", 2
UNFINISHED = "unfinished.json"  # a manifest that is being written
# What must be equal between a store and the run that reads it, in the words of an error.
BOUND = {"base": "base model", "tokenizer": "tokenizer", "data": "data file"}


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


class StoreWriter:
    """Writes a store batch by batch; the folder appears when the writer is closed.

        with StoreWriter(folder, bound, vocabulary=V, settings=settings) as writer:
            for start in range(writer.records, len(data), batch_size):
                writer.add(select_candidates(...), targets, records)

    bound: hashes of `base`, `tokenizer` and `data`, which a reader must know; vocabulary: V, from
    which the width of an id follows; settings: what the sets were selected with, at least
    coverage, k_min and k_max; shard_positions: a shard ends with the batch that brings it to so
    many; eos_id: the token whose positions the statistics count apart; provenance: anything else
    worth keeping, the same on every run.

    The folder is held at once and until the writer is closed, or is left by an exception: a
    second writer is refused, and so is a folder that holds anything but an older store.

    A writer that dies leaves its whole shards in `.<folder>.partial`. One with the same arguments
    takes them over and `records` says how many records they hold: go on with the next one.
    Anything else found there is thrown away. A shard ends with the batch that fills it, so batches
    must be cut as before. Raises UserError where the folder cannot be held or written.
    """

    def __init__(
        self,
        folder: Path,
        bound: dict[str, str],
        *,
        vocabulary: int,
        settings: dict,
        eos_id: int | None = None,
        provenance: dict | None = None,
        shard_positions: int = 2**15,
    ) -> None:
        _check_bound(bound)
        check_setting(**_limits(settings))
        self.folder = Path(folder)
        header = {
            "format": FORMAT,
            **{key: bound[key] for key in BOUND},
            "vocabulary": vocabulary,
            "settings": settings,
            "eos_id": eos_id,
            "shard_positions": shard_positions,
            "provenance": provenance or {},
        }
        self._header = json.loads(json.dumps(header))  # as it is read back
        self._tally = Tally(eos_id)
        self._shards: list[dict] = []
        self._digests: dict[str, str] = {}
        self._waiting: list[tuple[Candidates, Tensor, Tensor]] = []
        self._closed = self._placed = False
        self._hold = Hold(self.folder, partial(check_folder, kind=KIND), resumable=True)
        self._new = self._hold.new
        with self._or_released():
            self._new.mkdir(exist_ok=True)
            self._take_over()
        self.records = sum(shard["records"] for shard in self._shards)

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
        else:
            self._release()

    @property
    def statistics(self) -> dict:
        """`Tally.summary` of the shards written so far: of all, once the writer is closed."""
        return self._tally.summary()

    def add(self, sets: Candidates, targets: Tensor, records: Sequence[int] | Tensor) -> None:
        """The next records: their sets, targets (N,) as at selection, and how many positions each
        record has, N in all. ValueError where these do not fit one another, where sets are not what
        the writer's settings select, or after `close`."""
        if self._closed:
            raise ValueError(f"{self.folder}: the writer is closed, nothing can be added")
        check_type("sets", sets, Candidates, "a Candidates")
        check_tensor("targets", targets)
        records = whole_numbers("records", records)
        sets, targets = sets.to("cpu"), targets.cpu()
        limits = _limits(self._header["settings"])
        shards.check(sets, targets, records, self._header["vocabulary"], **limits)
        self._waiting.append((sets, targets, records))
        self.records += len(records)
        waiting = sum(len(sets) for sets, _, _ in self._waiting)
        if waiting >= self._header["shard_positions"]:
            with self._or_released():
                self._write_shard()

    def close(self) -> None:
        """Write what waits, then the manifest, and give the folder its name; an older store of
        that name goes. Twice is once. ValueError for a writer that an error ended."""
        if self._placed:
            return
        if self._closed:
            raise ValueError(f"{self.folder}: an error ended the writer, go on with a new one")
        with self._or_released():
            if self._waiting:
                self._write_shard()
            self._write_manifest(statistics=self.statistics)
            self._hold.place()
            self._placed = True
        self._release()

    @contextmanager
    def _or_released(self) -> Iterator[None]:
        """Within, an error gives the hold up; a full disk becomes a UserError."""
        try:
            yield
        except Exception as error:
            self._release()
            if is_about_writing(error, self._hold.partial):
                raise unwritable(self.folder, error) from error
            raise

    def _release(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._shards:  # nothing worth going on from
                self._hold.resumable = False
            self._hold.release()

    def _write_shard(self) -> None:
        parts, targets, records = zip(*self._waiting, strict=True)
        sets, targets, records = Candidates.cat(parts), torch.cat(targets), torch.cat(records)
        path = self._new / shard_name(len(self._shards))
        shards.write(path, sets, targets, records, self._header["vocabulary"])
        self._tally.add(sets, targets)
        entry = {"file": path.name, "records": len(records), "positions": len(sets)}
        self._shards.append(entry)
        self._digests[path.name] = files.sha256(path)
        self._waiting = []
        self._write_manifest()

    def _write_manifest(self, **more) -> None:
        manifest = {**self._header, **more, "shards": self._shards, "files": self._digests}
        files.write_sealed(self._new / UNFINISHED, KIND, manifest)
        (self._new / UNFINISHED).replace(self._new / MANIFEST)

    def _take_over(self) -> None:
        """Keep the whole shards that a writer with the same arguments left, and nothing else."""
        try:
            manifest = files.read_sealed(self._new / MANIFEST, KIND)
        except UserError:
            manifest = {}
        changed = [key for key, value in self._header.items() if manifest.get(key) != value]
        if manifest and changed:
            warnings.warn(
                f"{self._new}: begun with other settings ({', '.join(changed)}), thrown away",
                stacklevel=5,
            )
        if not changed:
            for entry in manifest["shards"]:
                path = self._new / entry["file"]
                digest = manifest["files"].get(path.name)
                if not path.is_file() or files.sha256(path) != digest:
                    break
                self._shards.append(entry)
                self._digests[path.name] = digest
                sets, targets, _ = Shard(path).read(torch.arange(entry["records"]))
                self._tally.add(sets, targets)
        for path in self._new.iterdir():
            if path.name not in (*self._digests, MANIFEST):
                path.unlink()
        self._write_manifest()


@dataclass
class CandidateStore:
    """A written store, read as it is asked for: shards are mapped, not loaded.

    manifest: the writer's arguments, `statistics` and `shards`. It can be pickled and shared by
    the workers of a DataLoader, forked or spawned.
    """

    folder: Path
    manifest: dict
    limits: tuple[float, int, int] | None = None  # of `narrow`
    _open: dict[int, Shard] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, folder: Path, bound: dict[str, str]) -> "CandidateStore":
        """Open a store after a check that it is whole and belongs to `bound`, hashes of `base`,
        `tokenizer` and `data`. Raises UserError in one line otherwise.

        The check reads every byte once. A shard checked at its first use would cost as much, since
        an epoch touches all, but would stop a run in its midst.
        """
        folder = Path(folder)
        manifest = _checked_manifest(folder, bound)
        store = cls(folder, manifest)
        listed = manifest["files"]
        if extra := sorted({p.name for p in folder.glob("*.safetensors")} - set(listed)):
            raise _damaged(folder, folder / extra[0], "the manifest does not list it")
        for number, (name, digest) in enumerate(listed.items()):
            if not (folder / name).is_file():
                raise _damaged(folder, folder / name, "the shard is missing")
            if files.sha256(folder / name) != digest:
                raise _damaged(folder, folder / name, "its checksum differs")
            store._shard(number)
        return store

    def __len__(self) -> int:
        """The number of records."""
        return sum(entry["records"] for entry in self.manifest["shards"])

    def batch(self, indices: Sequence[int]) -> Candidates:
        """Sets of the supervised positions of the records `indices`, in that order, repeats and
        all. IndexError for a record that is not there, TypeError for what is no integer."""
        chosen = whole_numbers("indices", indices)
        if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(self):
            raise IndexError(f"{self.folder}: records are 0 to {len(self) - 1}")
        begin = offsets_of(torch.tensor([s["records"] for s in self.manifest["shards"]], dtype=int))
        shard = torch.searchsorted(begin, chosen, right=True) - 1
        # Shard by shard, each read at once, then put in the order asked for.
        order = shard.argsort(stable=True)
        numbers, counts = shard[order].unique_consecutive(return_counts=True)
        asked = (chosen - begin[shard])[order].split(counts.tolist())
        read = [self._shard(n).read(r) for n, r in zip(numbers.tolist(), asked, strict=True)]
        parts, targets, lengths = zip(*read or [_nothing()], strict=True)
        sets, targets, lengths = Candidates.cat(parts), torch.cat(targets), torch.cat(lengths)
        if self.limits:
            sets = sets.narrow(*self.limits, targets, complete=True)
        if len(numbers) < 2:
            return sets
        back = order.argsort()
        return sets.select(ranges(offsets_of(lengths)[:-1][back], lengths[back]))

    def narrow(self, coverage: float, k_min: int, k_max: int) -> "CandidateStore":
        """The same store seen at a narrower setting: `batch` gives what `select_candidates` would
        have selected, to the token, with the outside mass adjusted.

        Raises UserError for a setting wider than the stored one and ValueError or TypeError for
        one out of range (`check_setting`).
        """
        check_setting(coverage, k_min, k_max)
        asked = {"coverage": coverage, "k_min": k_min, "k_max": k_max}
        for name, stored in _limits(self.manifest["settings"]).items():
            if asked[name] > stored:
                raise UserError(
                    f"{self.folder}: stored at {name} {stored}, cannot be read at {asked[name]}",
                    "Make it again at the widest setting in use: lrmoclip stage0",
                )
        return CandidateStore(self.folder, self.manifest, (coverage, k_min, k_max), self._open)

    def describe(self) -> dict:
        """The manifest's statistics (`Tally.summary`, of the store as written), records, and the
        shards' bytes, in all and a position."""
        names = [entry["file"] for entry in self.manifest["shards"]]
        size = sum((self.folder / name).stat().st_size for name in names)
        statistics = self.manifest["statistics"]
        return {
            **statistics,
            "records": len(self),
            "bytes": size,
            "bytes_per_position": size / max(statistics["positions"], 1),
        }

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}  # a worker maps what it reads

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            path = self.folder / self.manifest["shards"][number]["file"]
            try:
                self._open[number] = Shard(path)
            except shards.DAMAGED as error:
                raise _damaged(self.folder, path, str(error)) from None
        return self._open[number]


def _nothing() -> tuple[Candidates, Tensor, Tensor]:
    """What `Shard.read` would give for no records."""
    none = torch.zeros(0, dtype=torch.int64)
    sets = Candidates(
        none, none.new_zeros(1), none.bool(), none.float(), none.float(), none.float()
    )
    return sets, none, none


def _limits(settings: Mapping) -> dict:
    """What of the settings bounds a set. TypeError, ValueError where it is not there."""
    check_type("settings", settings, Mapping, "a mapping with coverage, k_min and k_max")
    if missing := {"coverage", "k_min", "k_max"} - set(settings):
        raise ValueError(f"settings must hold coverage, k_min and k_max: {min(missing)} is missing")
    return {key: settings[key] for key in ("coverage", "k_min", "k_max")}


def _check_bound(bound: Mapping[str, str]) -> None:
    """TypeError, ValueError unless `bound` says all that a store belongs to."""
    check_type("bound", bound, Mapping, "a mapping of hashes")
    for key, words in BOUND.items():
        if key not in bound:
            raise ValueError(f"bound must hold {key!r}, the hash of the {words}")


def _checked_manifest(folder: Path, bound: dict[str, str]) -> dict:
    _check_bound(bound)
    again = f"Delete {folder} and make it again: lrmoclip stage0"
    if not (folder / MANIFEST).is_file():
        hint = "It is unfinished: go on with" if partial_of(folder).is_dir() else "Make it first:"
        raise UserError(f"{folder}: no candidate store", f"{hint} lrmoclip stage0")
    manifest = files.read_sealed(folder / MANIFEST, KIND)
    if (found := manifest.get("format")) != FORMAT:
        raise UserError(
            f"{folder / MANIFEST}: a store of format {found}, where this version reads {FORMAT}",
            again,
        )
    if "statistics" not in manifest:
        raise UserError(f"{folder / MANIFEST}: an unfinished store", again)
    for key, words in BOUND.items():
        if manifest.get(key) != bound[key]:
            raise UserError(
                f"{folder}: candidate store made from another {words}",
                "Name the store that belongs to this run, or make it again: lrmoclip stage0",
            )
    return manifest


def _damaged(folder: Path, path: Path, why: str) -> UserError:
    again = f"Delete {folder} and make it again: lrmoclip stage0"
    return UserError(f"{path}: damaged ({why})", again)
