"""Download models and data sets of a scale from the hub, and lock them."""

from pathlib import Path

from lrmoclip.cli.options import add
from lrmoclip.config import load

CONFIGS = Path("workflow/config")  # below the repository's root


def options(command) -> None:
    command.set_defaults(online=True)
    named = command.add_mutually_exclusive_group(required=True)
    named.add_argument("--config", type=Path, help="workflow/config/*.yaml")
    named.add_argument(
        "--scale", dest="config", metavar="NAME", type=lambda name: CONFIGS / f"{name}.yaml",
        help=f"short for --config {CONFIGS}/NAME.yaml",
    )  # fmt: skip
    add(command, "cache", required=False)


def run(config: Path, cache: Path | None = None) -> None:
    """Fetch into `cache`, by default the hub's own, and say what is where."""
    from lrmoclip.models import fetching

    lock = fetching.fetch(load(config), cache)
    for repo, entry in lock.repositories.items():
        size = sum(file["size"] for file in entry["files"].values())
        print(f"{repo} at {entry['revision']}: {len(entry['files'])} files, {size / 1e6:,.1f} MB")
    print(f"Locked: {lock.path}")
    if cache is not None:
        print(f"Runs need: export HF_HUB_CACHE={Path(cache).absolute()}")
