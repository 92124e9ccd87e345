"""What was fetched from the Hugging Face hub: read without a network, and only what the lock file,
of commits and SHA-256 digests, says it is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from lrmoclip.config import Scale
from lrmoclip.config.parts import Hub
from lrmoclip.core import files
from lrmoclip.core.errors import UserError

KIND = "lock"


@dataclass(frozen=True)
class Lock:
    """What a fetch wrote. `repositories`: name -> {kind: model | dataset, asked: the config's
    revision, revision: its commit then, fetched: date, files: {name: {size, sha256}}}."""

    path: Path
    scale: Path
    repositories: dict[str, dict]

    @property
    def again(self) -> str:
        return f"On a connected machine: lrmoclip fetch --config {self.scale}"

    def entry(self, repo: str) -> dict:
        if repo not in self.repositories:
            raise UserError(f"{self.path}: {repo} is not in it", self.again)
        return self.repositories[repo]


def lock_path(scale: Path) -> Path:
    """`paper.lock.json` beside `paper.yaml`."""
    return Path(scale).with_suffix(".lock.json")


def read_lock(scale: Scale) -> Lock:
    """The lock of a scale. UserError where there is none, or where the config asks for a repository
    or a revision that was not fetched."""
    lock = read(scale)
    if not lock.repositories:
        raise UserError(f"{lock.path}: nothing was fetched yet", lock.again)
    for repo, (_, revision) in wanted(scale).items():
        if (asked := lock.entry(repo)["asked"]) != revision:
            raise UserError(
                f"{scale.path}: {repo} at {revision}, but fetched was {asked}", lock.again
            )
    return lock


def snapshot(lock: Lock, repo: str, at: Path | None = None) -> Path:
    """The folder of a fetched repository in the cache `at` (the hub's own, HF_HUB_CACHE), unread.
    UserError where it is not there."""
    folder = folder_of(repo, lock.entry(repo), cache_of(at))
    if not folder.is_dir():
        raise UserError(f"{folder}: not in the cache", lock.again)
    return folder


def verify(lock: Lock, repo: str, at: Path | None = None) -> Path:
    """`snapshot`, after each file was hashed and found to be the lock's. UserError with the first
    that is missing or differs."""
    folder, entry = snapshot(lock, repo, at), lock.entry(repo)
    for name, path, digest in hashed(repo, folder, list(entry["files"])):
        if digest is None:
            raise UserError(f"{path}: missing", lock.again)
        if digest != entry["files"][name]["sha256"]:
            raise UserError(f"{path}: its hash differs from that in {lock.path}", lock.again)
    return folder


def make(scale: Scale, spec: Hub):
    """(model, tokenizer, facts) of a base from the hub: an entry of `bases` with `hub`. The model
    is float32, as it is trained; facts: repository and commit. UserError as `verify`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lock = read_lock(scale)
    folder = verify(lock, spec.hub)
    offline = {"local_files_only": True, "trust_remote_code": False}
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, **offline
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
    facts = {"hub": spec.hub, "revision": lock.entry(spec.hub)["revision"]}
    return model, tokenizer, facts


def snapshots(scale: Scale) -> Callable[[str], Path]:
    """The folder of a repository by its name, verified when it is first asked for: what is read
    from a folder needs neither a network nor another index of it. UserError as `read_lock`."""
    lock = read_lock(scale)
    return cache(lambda repo: verify(lock, repo))


def wanted(scale: Scale) -> dict[str, tuple[str, str]]:
    """Kind and revision of each repository that the config names: bases, then data sets."""
    models = [spec for spec in scale.bases.values() if isinstance(spec, Hub)]
    data = getattr(scale.data, "repositories", {}).values()
    pinned = {spec.hub: ("model", spec.revision) for spec in models}
    return pinned | {spec.hub: ("dataset", spec.revision) for spec in data}


def read(scale: Scale) -> Lock:
    """The lock of a scale, empty where there is none."""
    path = lock_path(scale.path)
    found = files.read_sealed(path, KIND)["repositories"] if path.exists() else {}
    return Lock(path, scale.path, found)


def hashed(repo: str, folder: Path, names: list[str]) -> Iterator[tuple[str, Path, str | None]]:
    """Name, path and SHA-256 of each file, None for one that is not there."""
    for name in tqdm(names, desc=f"hashing {repo}", mininterval=5, leave=False):
        path = folder / name
        yield name, path, files.sha256(path) if path.is_file() else None


def cache_of(at: Path | None) -> Path:
    from huggingface_hub import constants

    return Path(at or constants.HF_HUB_CACHE).expanduser()


def folder_of(repo: str, entry: dict, at: Path) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    name = repo_folder_name(repo_id=repo, repo_type=entry["kind"])
    return at / name / "snapshots" / entry["revision"]
