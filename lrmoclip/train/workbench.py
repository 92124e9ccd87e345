"""What Stage 1 of a domain works with, read from files once and checked: the base model, records
of the domain and general ones, their candidate stores, EWC's Fisher."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lrmoclip.config import Scale, fingerprint
from lrmoclip.core import artefacts, precision, sharding
from lrmoclip.core.artefacts import Folder
from lrmoclip.core.errors import UserError
from lrmoclip.core.store import CandidateStore
from lrmoclip.data import records
from lrmoclip.data.batches import Encoded, encode
from lrmoclip.methods import Method, Need
from lrmoclip.models import bases, checkpoints
from lrmoclip.train.fisher import KIND as FISHER
from lrmoclip.train.run import Run, TrainingSet, start

REPLAY = "replay"  # the data set of general text
HELD_OUT = "held_out"  # and that of more of its kind, which nothing trains on


@dataclass(frozen=True)
class Workbench:
    """Paths of one base and domain. `data` is the scale's data folder, or several that
    `records.Data` reads as one; `store`, `general_store` and `fisher` may be None where no method
    needs them."""

    scale: Scale
    base: str
    domain: str
    checkpoint: Path
    data: Path | Sequence[Path]
    store: Path | None = None
    general_store: Path | None = None
    fisher: Path | None = None

    def run(self, point: Method, lr: float, seed: int, telemetry: bool = True) -> Run:
        """A fresh run of a method from the base model. Raises UserError for a file that is missing
        or belongs to another base, tokenizer or data."""
        general = fisher = None
        if Need.GENERAL in point.needs:
            general = self._training_set(point, self.general, Need.GENERAL_STORE)
        if Need.FISHER in point.needs:
            fisher = self._read_fisher()
        base = None
        if Need.BASE in point.needs:
            base = self._model_to_train() if sharding.place()[1] > 1 else self.model
        return start(
            self._model_to_train(), point, self.scale.stage1, lr=lr, seed=seed,
            domain=self._training_set(point, self.records, Need.STORE), general=general,
            fisher=fisher, base=base, telemetry=telemetry, precision=self.precision,
        )  # fmt: skip

    def _training_set(self, point: Method, data: Encoded, need: Need) -> TrainingSet:
        """The records and, if the method needs them, their sets as it sees them: a narrower
        setting than the store's is read as prefixes of its rows."""
        if need not in point.needs:
            return TrainingSet(data)
        store = self._store if need == Need.STORE else self._general_store
        narrower = point.objective.narrowed(store.manifest["settings"])
        return TrainingSet(data, store.narrow(**narrower) if narrower else store)

    def bound(self, point: Method, lr: float, seed: int) -> dict:
        """Everything that the weights of a run follow from, as hashes and numbers."""
        known = {**self.identity, "data": self.data_hash(self.domain), "seed": seed}
        if {Need.GENERAL, Need.FISHER} & point.needs:
            known["general"] = self.data_hash(REPLAY)
        return {"config": self.scale.run_settings(point, lr), **known}

    def point(self, method: str) -> Method:
        """As `Scale.point`, here."""
        return self.scale.point(self.base, self.domain, method)

    def check(self, method: str) -> None:
        """Refuse an unknown base, domain or method and a base of another config, before any work.

        Raises UserError.
        """
        self.scale.base(self.base)
        self.scale.domain(self.domain)
        self.scale.to_run(method)
        _ = self.identity

    @cached_property
    def base_folder(self) -> Folder:
        return checkpoints.folder(self.checkpoint)

    @cached_property
    def data_folder(self) -> records.Data:
        return records.Data(self.data)

    @cached_property
    def identity(self) -> dict[str, str]:
        """Hashes of base model and tokenizer; refuses a base of another config."""
        return checkpoints.identity(self.base_folder, bases.identity(self.scale, self.base))

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
    def precision(self) -> str:
        """Of forward passes on this machine."""
        return precision.chosen(self.scale.precision)

    @cached_property
    def context(self) -> int:
        """Tokens that the base can read."""
        return checkpoints.context(checkpoints.config_of(self.base_folder))

    @cached_property
    def records(self) -> Encoded:
        return self._encoded(self.domain)

    @cached_property
    def general(self) -> Encoded:
        return self._encoded(REPLAY)

    @cached_property
    def held_out(self) -> Encoded:
        """General text that nothing trains on."""
        return self._encoded(HELD_OUT, "test")

    @cached_property
    def validation(self) -> Encoded:
        """The domain's validation records, no more than there is held-out text."""
        return self._encoded(self.domain, "validation", most=len(self.held_out))

    def _encoded(self, data: str, split: str = "train", most: int | None = None) -> Encoded:
        path = self.data_folder.file(records.split_of(data, split))
        read = records.read(path, repeats=data in (REPLAY, HELD_OUT))[:most]
        try:
            chat = self.scale.prompting.chat_template
            return encode(read, self.tokenizer, chat, self.context)
        except UserError as error:
            raise UserError(f"{path}: {error.message}", error.hint) from None

    @cached_property
    def _store(self) -> CandidateStore:
        return self._read_store(self.store, self.domain, "--store")

    @cached_property
    def _general_store(self) -> CandidateStore:
        return self._read_store(self.general_store, REPLAY, "--general-store")

    def _read_store(self, folder: Path | None, data: str, option: str) -> CandidateStore:
        if folder is None:
            raise UserError(f"{data}: the method needs a candidate store", f"Name it with {option}")
        return CandidateStore.load(folder, {**self.identity, "data": self.data_hash(data)})

    def data_hash(self, data: str) -> str:
        """Hash of training records as a model reads them: of the file and, but for plain text, of
        the prompting and the template."""
        digest = self.data_folder.digest(records.split_of(data, "train"))
        if not self.scale.prompting.chat_template:
            return digest
        return fingerprint([digest, self.scale.prompting, self.tokenizer.chat_template])

    def _read_fisher(self) -> dict:
        from safetensors import SafetensorError, safe_open

        if self.fisher is None or not Path(self.fisher).is_file():
            raise UserError(
                f"{self.fisher or self.base}: no Fisher file",
                "Make it first (lrmoclip fisher) and name it with --fisher",
            )
        path = Path(self.fisher)
        about = artefacts.beside(path, FISHER, "lrmoclip fisher")
        again = f"Delete {path} and make it again: lrmoclip fisher"
        if about["base"] != self.identity["base"]:
            raise UserError(f"{path}: Fisher of another base model", again)
        if about["data"] != self.data_hash(REPLAY):
            raise UserError(f"{path}: Fisher of other data or prompting", again)
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error})", again) from None
        return {name: value.to(self.model.device) for name, value in tensors.items()}
