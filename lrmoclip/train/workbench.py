"""What Stage 1 of a domain works with, read from files once and checked: the base model, records
of the domain and general ones, their candidate stores, EWC's Fisher."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lrmoclip.config import scale as config
from lrmoclip.core import artefacts
from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError
from lrmoclip.core.store import CandidateStore
from lrmoclip.data import records
from lrmoclip.data.batches import PLAIN, Encoded, encode
from lrmoclip.models import checkpoints
from lrmoclip.train import sharding
from lrmoclip.train.probes import ProbeBatch
from lrmoclip.train.training import Run, Source


@dataclass(frozen=True)
class Workbench:
    """Paths of one base and domain. `data` is the scale's data folder; `store`, `general_store` and
    `fisher` may be None where no method needs them."""

    scale: config.Scale
    base: str
    domain: str
    checkpoint: Path
    data: Path
    store: Path | None = None
    general_store: Path | None = None
    fisher: Path | None = None

    def run(self, method: str, lr: float, seed: int, telemetry: bool = True) -> Run:
        """A fresh run of `method` from the base model. Raises UserError for a file that is missing
        or belongs to another base, tokenizer or data."""
        point = self.scale.method(method)
        fisher = self._read_fisher() if point["penalty"]["name"] == "ewc" else None
        general = self._general(point) if point["replay"] else None
        return Run(
            self._model_to_train(), point, self.scale["stage1"], lr, seed,
            self.source(method), general, fisher, telemetry, self.precision,
        )  # fmt: skip

    def source(self, method: str) -> Source:
        """The domain's training records and, if the method needs them, their sets as it sees them:
        a narrower coverage or K than the store's is read as prefixes of its rows."""
        point = self.scale.method(method)
        if not config.needs_sets(point):
            return Source(self.records)
        return Source(self.records, narrowed(self._store, point["objective"]))

    def probe(self, method: str) -> ProbeBatch:
        records = self.scale["stage1"]["probe_records"]
        return ProbeBatch(self.source(method), records, self.precision)

    def bound(self, method: str, lr: float, seed: int) -> dict:
        """Everything that the weights of a run follow from, as hashes and numbers."""
        scale, point = self.scale, self.scale.method(method)
        parts = [scale["stage1"], point, lr, self.precision, self.prompting]
        if config.needs_sets(point):
            parts.append(scale["stage0"])
        if point["penalty"]["name"] == "ewc":
            parts.append(scale["ewc"])
        known = {**self.identity, "data": self.data_hash(self.domain), "seed": seed}
        if point["replay"] or point["penalty"]["name"] == "ewc":
            known["general"] = self.data_hash("replay")
        return {"config": config.fingerprint(parts), **known}

    @property
    def precision(self) -> str:
        """Of forward passes and losses."""
        return self.scale.settings.get("precision", "float32")

    @property
    def prompting(self) -> dict:
        return self.scale.settings.get("prompting", PLAIN)

    def check(self, method: str) -> None:
        """Refuse an unknown base, domain or method and a base of another config, before any work.

        Raises UserError.
        """
        self.scale.base(self.base)
        self.scale.domain(self.domain)
        self.scale.method(method)
        _ = self.identity

    @cached_property
    def base_folder(self) -> Folder:
        return checkpoints.folder(self.checkpoint)

    @cached_property
    def data_folder(self) -> Folder:
        return records.folder(self.data)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Hashes of base model and tokenizer; refuses a base of another config."""
        return checkpoints.identity(self.base_folder, base_fingerprint(self.scale, self.base))

    @cached_property
    def model(self):
        model = checkpoints.load_model(self.base_folder)
        checkpoints.check_pair(self.base_folder, model, self.tokenizer)
        return model

    def _model_to_train(self):
        if sharding.place()[1] > 1:  # goes onto devices shard by shard, which hold no whole one
            return checkpoints.load_model(self.base_folder, "cpu")
        return copy.deepcopy(self.model)

    @cached_property
    def tokenizer(self):
        return checkpoints.load_tokenizer(self.base_folder)

    @cached_property
    def records(self) -> Encoded:
        return self._encoded(self.domain)

    @cached_property
    def general(self) -> Encoded:
        return self._encoded("replay")

    def _encoded(self, data: str) -> Encoded:
        path = self.data_folder.file(records.split_of(data, "train"))
        read = records.read(path, repeats=data == "replay")
        try:
            return encode(read, self.tokenizer, self.prompting, self.context)
        except UserError as error:
            raise UserError(f"{path}: {error.message}", error.hint) from None

    @cached_property
    def context(self) -> int:
        """Tokens that the base can read."""
        return checkpoints.context(checkpoints.config_of(self.base_folder))

    @cached_property
    def _store(self) -> CandidateStore:
        return self._read_store(self.store, self.domain)

    def _general(self, point: dict) -> Source:
        if not config.needs_sets(point):
            return Source(self.general)
        store = self._read_store(self.general_store, "replay")
        return Source(self.general, narrowed(store, point["objective"]))

    def _read_store(self, folder: Path | None, data: str) -> CandidateStore:
        if folder is None:
            option = "--store" if data == self.domain else "--general-store"
            raise UserError(
                f"{data}: a restricted objective needs a candidate store", f"Name it with {option}"
            )
        return CandidateStore.load(folder, {**self.identity, "data": self.data_hash(data)})

    def data_hash(self, data: str) -> str:
        """Hash of training records as a model reads them: of the file and, but for plain text, of
        the prompting and the template."""
        digest = self.data_folder.digest(records.split_of(data, "train"))
        if not self.prompting["chat_template"]:
            return digest
        return config.fingerprint([digest, self.prompting, self.tokenizer.chat_template])

    def _read_fisher(self) -> dict:
        from safetensors import SafetensorError, safe_open

        if self.fisher is None or not Path(self.fisher).is_file():
            raise UserError(
                f"{self.fisher or 'ewc'}: no Fisher file",
                "Make it first (lrmoclip fisher) and name it with --fisher",
            )
        path = Path(self.fisher)
        about = artefacts.beside(path, "fisher", "lrmoclip fisher")
        again = f"Delete {path} and make it again: lrmoclip fisher"
        if about["base"] != self.identity["base"]:
            raise UserError(f"{path}: Fisher of another base model", again)
        if about["data"] != self.data_hash("replay"):
            raise UserError(f"{path}: Fisher of other data or prompting", again)
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error})", again) from None
        return {name: value.to(self.model.device) for name, value in tensors.items()}


def base_fingerprint(scale: config.Scale, base: str) -> str:
    """Hash of everything in the config that a base model depends on."""
    spec = {key: value for key, value in scale.base(base).items() if key != "architecture"}
    return config.fingerprint([spec, scale["data"]] if "family" in spec else [spec])


def narrowed(store: CandidateStore, objective: dict) -> CandidateStore:
    """The store as a method with its own `coverage` or `k_max` sees it."""
    if not {"coverage", "k_max"} & set(objective):
        return store
    kept = store.manifest["settings"]
    return store.narrow(
        objective.get("coverage", kept["coverage"]),
        kept["k_min"],
        objective.get("k_max", kept["k_max"]),
    )
