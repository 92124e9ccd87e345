"""What of the scales runs, as Snakemake's `--config` says it."""

import re
from pathlib import Path

from lrmoclip.config.scale import Scale, load
from lrmoclip.core import files
from lrmoclip.core.errors import UserError

CHOICES = ("scales", "methods", "seeds", "domains", "data_dir")


def load_chosen(folder: Path, chosen: dict) -> dict[str, Scale]:
    """The scales that are asked for, by name, each with what is to run of it.

    chosen: `scales` (names of files in `folder`, or paths ending in .yaml; default micro),
    `methods` and `seeds`, which replace the lists of every scale, `domains`, without which the
    optional ones are left out, and `data_dir`, the folder of published data.
    Lists are comma-separated.
    """
    if unknown := [key for key in chosen if key not in CHOICES]:
        raise UserError(
            f"--config: unknown key {unknown[0]}", f"Allowed keys: {', '.join(CHOICES)}"
        )
    scales = {}
    for name in _listed({"scales": "micro", **chosen}, "scales"):
        is_path = name.endswith(".yaml")
        path = Path(name) if is_path else folder / f"{name}.yaml"
        if not path.exists() or not (is_path or name in known(folder)):
            raise UserError(
                f"--config scales: unknown scale {name!r}", f"Known: {', '.join(known(folder))}"
            )
        scale = _chosen(load(path), chosen)
        scales[scale.name] = scale
    return scales


def known(folder: Path) -> list[str]:
    """The scales that have a file in `folder`."""
    texts = {path.stem: files.read_text(path) for path in sorted(folder.glob("*.yaml"))}
    return [name for name, text in texts.items() if f"\nscale: {name}\n" in text]


def _chosen(scale: Scale, chosen: dict) -> Scale:
    update: dict = {}
    if "domains" in chosen:
        update["chosen_domains"] = _listed(chosen, "domains")
        for domain in update["chosen_domains"]:
            scale.domain(domain)
    if "methods" in chosen:
        update["methods"] = _listed(chosen, "methods")
        for method in update["methods"]:
            scale.to_run(method)
    if "seeds" in chosen:
        seeds = _listed(chosen, "seeds")
        # As they are written in a folder's name, so that each has one.
        if not all(re.fullmatch("[1-9][0-9]{0,8}", seed) for seed in seeds):
            raise UserError(
                f"--config seeds: {chosen['seeds']!r}",
                "Allowed: whole numbers from 1 to 999999999: 1,2,3",
            )
        update["seeds"] = [int(seed) for seed in seeds]
    if "data_dir" in chosen:
        update["data_dir"] = str(chosen["data_dir"])
    return scale.model_copy(update=update)


def _listed(chosen: dict, key: str) -> list[str]:
    parts = [part for part in str(chosen[key]).replace(" ", ",").split(",") if part]
    if not parts or len(set(parts)) < len(parts):
        raise UserError(
            f"--config {key}: {str(chosen[key])!r}", "Name each once, at least one: a,b,c"
        )
    return parts
