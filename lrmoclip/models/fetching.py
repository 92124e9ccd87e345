"""Fetches a scale's models and data sets from the Hugging Face hub on a connected machine: resolved
to commits, checked before anything large is downloaded, hashed, and pinned by a lock file."""

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

from lrmoclip.config import Scale
from lrmoclip.config.parts import Hub
from lrmoclip.core import artefacts, files
from lrmoclip.core.errors import UserError
from lrmoclip.models import hub

# What is downloaded: weights, text and tables; never a pickle or a script.
_PATTERNS = {
    "model": ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "LICENSE"),
    "dataset": ("*.parquet", "*.csv", "*.json", "*.jsonl", "README.md"),
}


def fetch(scale: Scale, cache: Path | None = None) -> hub.Lock:
    """Download what a scale names on the hub and write its lock, which appears whole or not at all.

    cache: a folder like the hub's own, which is the default. A repository that an earlier fetch
    locked at the config's revision stays at its commit: its files are hashed, and only what lacks
    or differs is downloaded. UserError for a hub out of reach, an unknown repository or revision, a
    gated one, a model that is no causal LM or not of the stated architecture, and a cache without
    room: all of that before weights and data are downloaded.
    """
    from huggingface_hub import constants

    cache, lock, wanted = hub.cache_of(cache), hub.read(scale), hub.wanted(scale)
    if not wanted:
        raise UserError(f"{scale.path}: names nothing on the hub", "There is nothing to fetch")
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set", "Unset it: fetch needs the network")
    _make(cache)
    with artefacts.loose(lock.path, hub.KIND) as made:
        entries = {}
        for repo, (kind, revision) in wanted.items():
            old = lock.repositories.get(repo, {})
            kept = (old.get("kind"), old.get("asked")) == (kind, revision)
            entries[repo] = old if kept else _resolve(repo, kind, revision, cache)
        made.about["repositories"] = _fetched(scale, entries, cache)
    return hub.Lock(lock.path, scale.path, made.about["repositories"])


def _fetched(scale: Scale, entries: dict[str, dict], cache: Path) -> dict[str, dict]:
    """Download what the cache lacks of the entries; returns them with every digest."""
    lacking = {repo: _lacking(repo, entry, cache) for repo, entry in entries.items()}
    for name, spec in scale.bases.items():
        if isinstance(spec, Hub):
            _check_model(f"{scale.path}: bases.{name}", spec, entries[spec.hub], cache)
    needed = sum(
        entries[repo]["files"][n]["size"] for repo, names in lacking.items() for n in names
    )
    if (free := shutil.disk_usage(cache).free) < needed:
        raise _full(cache, needed, f"{free} are free")
    for repo, names in lacking.items():
        _download(repo, entries[repo], names, cache, needed)
    return {repo: _pinned(repo, entries[repo], lacking[repo], cache) for repo in entries}


def _resolve(repo: str, kind: str, revision: str, cache: Path) -> dict:
    """The lock's entry of a repository before it is downloaded: a digest is None where the hub does
    not state it."""
    import huggingface_hub

    api = huggingface_hub.HfApi()
    with _in_words(repo, kind, revision, cache):
        info = api.repo_info(repo, repo_type=kind, revision=revision, files_metadata=True)
        if info.gated:
            api.auth_check(repo, repo_type=kind)
    named = {
        found.rfilename: {"size": found.size, "sha256": found.lfs and found.lfs.sha256}
        for found in sorted(info.siblings, key=lambda found: found.rfilename)
        if _is_wanted(found.rfilename, kind)
    }
    if not named:
        raise UserError(
            f"{repo} at {revision}: no file that can be used ({', '.join(_PATTERNS[kind])})",
            "Name a repository that has safetensors, or parquet, CSV or JSON",
        )
    day = datetime.now(UTC).date().isoformat()
    return {"kind": kind, "asked": revision, "revision": info.sha, "fetched": day, "files": named}


def _is_wanted(name: str, kind: str) -> bool:
    if kind == "model" and "/" in name:  # other formats of the same weights
        return False
    return any(fnmatch(name, pattern) for pattern in _PATTERNS[kind])


def _check_model(place: str, spec: Hub, entry: dict, cache: Path) -> None:
    """Refuse a model that Stage 1 can't train, or that is not what the plan assumes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    repo = spec.hub
    _download(repo, entry, ["config.json"], cache, 0)
    found = files.read_json(hub.folder_of(repo, entry, cache) / "config.json")
    names = found.get("architectures") or ["unnamed"]
    if not set(names) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        raise UserError(
            f"{place}.hub: {repo} is a {names[0]}, which transformers does not know as a causal LM",
            "Name a decoder-only model that needs no code of its own",
        )
    for key, stated in spec.architecture.model_dump().items():
        if key in found and found[key] != stated:
            raise UserError(
                f"{place}.architecture.{key}: {stated}, but {repo} has {found[key]}", "Mend it"
            )


def _lacking(repo: str, entry: dict, cache: Path) -> list[str]:
    """Files that are not in the cache. One with another digest is taken out of it, since the hub's
    client would believe it."""
    folder, lacking = hub.folder_of(repo, entry, cache), []
    for name, path, digest in hub.hashed(repo, folder, list(entry["files"])):
        if digest is None:
            lacking.append(name)
        elif entry["files"][name]["sha256"] not in (None, digest):
            path.resolve().unlink()  # the blob that the snapshot links to
            path.unlink(missing_ok=True)
            lacking.append(name)
    return lacking


def _pinned(repo: str, entry: dict, arrived: list[str], cache: Path) -> dict:
    """The entry with the digest of every file. UserError for one that is not what was pinned."""
    found = dict(entry["files"])
    new = [name for name in found if name in arrived or found[name]["sha256"] is None]
    for name, path, digest in hub.hashed(repo, hub.folder_of(repo, entry, cache), new):
        if digest is None:
            raise UserError(f"{repo}: {name} did not arrive", "Fetch again")
        if found[name]["sha256"] not in (None, digest):
            raise UserError(
                f"{path}: its hash is {digest}, not {found[name]['sha256']}",
                "Fetch again; if it stays so, the repository was changed",
            )
        found[name] = {"size": path.stat().st_size, "sha256": digest}
    return {**entry, "files": found}


def _download(repo: str, entry: dict, names: list[str], cache: Path, needed: int) -> None:
    import huggingface_hub

    if not names:
        return
    with _in_words(repo, entry["kind"], entry["revision"], cache, needed):
        huggingface_hub.snapshot_download(
            repo, repo_type=entry["kind"], revision=entry["revision"], cache_dir=cache,
            allow_patterns=[glob.escape(name) for name in names],
        )  # fmt: skip


def _make(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{cache}: cannot be written ({error.strerror})", "Name another folder with --cache"
        ) from None


def _full(cache: Path, needed: int, why: str) -> UserError:
    return UserError(
        f"{cache}: no room for {needed} bytes ({needed / 1e9:.1f} GB) to download, {why}",
        "Free disk space, or name a larger folder with --cache",
    )


@contextmanager
def _in_words(repo: str, kind: str, revision: str, cache: Path, needed: int = 0) -> Iterator[None]:
    """Turn what the hub's client raises into one line with the way out."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(
            f"{repo}: gated",
            f"Accept its terms at {page}, then run `hf auth login` or set HF_TOKEN; or take it out "
            "of the config",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{repo}: the hub has no revision {revision}",
            f"Name one of {page}/commits/main in the config",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{repo}: no such {kind} on the hub, or a private one",
            f"Check its name at {page}; for a private one run `hf auth login` or set HF_TOKEN",
        ) from error
    except errors.HFValidationError as error:
        raise UserError(f"{repo}: not a repository's name", "Name it owner/name") from error
    except (errors.HTTPError, errors.XetDownloadError, OSError) as error:
        if files.is_full(error):
            raise _full(cache, needed, "the disk is full") from error
        if isinstance(error, PermissionError):
            raise UserError(
                f"{error.filename or cache}: cannot be written",
                "Mend its rights, or name another folder with --cache",
            ) from error
        if getattr(getattr(error, "response", None), "status_code", 0) == 401:
            raise UserError("The hub refuses the token", "Renew it: `hf auth login`") from error
        said = " ".join(str(error).split())[:120]
        raise UserError(
            f"{repo}: {constants.ENDPOINT} is out of reach ({said})",
            "Fetch again on a connected machine (what has arrived is kept); a mirror is named by "
            "HF_ENDPOINT",
        ) from error
